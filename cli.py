"""
What every command does the same way: read flags, also from recipes, choose the machine,
and end in words a person can use.

    parser = Parser("train.py", __doc__)     # flags as --snake_case, defaults shown by --help
    run(main)                                # exit code 0: done; 2: one line says what is wrong; 130, 143: interrupted

`python train.py @recipes/demo.txt --seed 2` reads flags from a file, as many to a line as one likes, `#` starts a
comment; what stands later on the command line wins. TENK_DEBUG=1 shows the traceback behind a one-line error.
"""
import argparse
import ctypes
import errno
import os
import shlex
import sys
import traceback


class Parser(argparse.ArgumentParser):
    def __init__(self, prog, description=None, **kwargs):
        super().__init__(prog=prog, description=description, **kwargs | dict(
            fromfile_prefix_chars="@", allow_abbrev=False, formatter_class=HelpFormatter))

    def convert_arg_line_to_args(self, line):
        return shlex.split(line, comments=True)

    def error(self, message):
        raise ValueError(f"{message} (python {self.prog} --help lists the flags)")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


def positive(kind):
    """An argparse type: an int or a float above zero."""
    def parse(text):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not above zero")
        return value
    parse.__name__ = "number above zero"
    return parse


def non_negative(kind):
    """An argparse type: an int or a float, zero or more."""
    def parse(text):
        value = kind(text)
        if not 0 <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is below zero")
        return value
    parse.__name__ = "number of zero or more"
    return parse


def fraction(text):
    """An argparse type: a float from 0 up to, not including, 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not in [0, 1)")
    return value


def figures_in_words(value):
    """Figures for people: {"train": 3, "by": {"a": 1}} -> train 3, by (a 1)."""
    if isinstance(value, dict):
        return ", ".join(f"{k} ({figures_in_words(v)})" if isinstance(v, dict) else f"{k} {figures_in_words(v)}"
                         for k, v in value.items())
    return "; ".join(map(str, value)) if isinstance(value, list) else f"{value:,}" if isinstance(value, int) else value


def add_machine_flags(parser):
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto",
                        help="of the matrix products")


def choose_device(name):
    """auto -> cuda, mps or cpu, what is there; under torchrun each process takes the GPU of its local rank."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as e:
        raise ValueError(f"--device {name} can't be used here ({str(e).splitlines()[0]}); try --device auto") from None
    if name == "cpu":
        keep_freed_memory()
    return torch.device(name)


def cores():
    """Those that we may use: a job on a large node is often given a few."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory(keep=True):
    """
    Tell glibc to keep large freed blocks. By default it gives them back to the kernel, which hands out every page anew,
    zeroed, at the next allocation of the same size: a third of a training step on a CPU. Elsewhere: no effect.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
    mallopt(M_MMAP_MAX, 0 if keep else 65536)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1 if keep else 2**26)
    if not keep:  # where glibc's own adjustment ends in a process with large blocks
        mallopt(M_MMAP_THRESHOLD, 2**25)


def choose_dtype(name, device):
    """
    auto -> bfloat16 where the hardware multiplies it faster than float32, float16 on older GPUs, otherwise float32.
    """
    import torch

    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) or torch.version.hip else "float16"
    cpu = torch.cpu  # these two look at the processor's own flags
    has = [f for f in ("_is_avx512_bf16_supported", "_is_amx_tile_supported") if getattr(cpu, f, bool)()]
    return ("bfloat16" if device.type == "cpu" and has
            else "float32")


def choose_compile(flag, device):
    """None -> whether torch.compile pays: on GPUs, from sm_80 on, for which Triton is made, that it works through."""
    import torch

    if flag is not None:
        return bool(flag)
    return device.type == "cuda" and (bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0))


def run(main):
    """
    Run a command. Trouble that the user can mend (bad flags, paths, files, a full disk) ends in one line, exit code 2.
    """
    name = os.path.basename(sys.argv[0])
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a file name or a text may hold what a terminal can't show
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output went away (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError, MemoryError, RuntimeError) as e:
        if isinstance(e, RuntimeError) and "out of memory" not in str(e) and "can't allocate memory" not in str(e):
            raise  # of torch's many RuntimeErrors only those of memory are the user's to mend
        if os.environ.get("TENK_DEBUG"):
            traceback.print_exc()
        print(f"{name}: {in_words(e)}", file=sys.stderr)
        sys.exit(2)


def in_words(e):
    if isinstance(e, MemoryError | RuntimeError):
        return "out of memory; lower --micro_batch, --batch_size or --workers, or take a larger machine"
    if isinstance(e, OSError) and e.errno:
        hints = {errno.ENOSPC: "free some space and run it again; nothing half-written was left behind",
                 errno.EACCES: "check the permissions, or choose another path",
                 errno.ENOENT: "check the path"}
        where = f": {e.filename}" if e.filename else ""
        hint = hints.get(e.errno)
        return f"{e.strerror}{where}" + (f"; {hint}" if hint else "")
    return " ".join(str(e).split())
