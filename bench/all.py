"""
All benchmarks that this machine can run, and the README's table of what they found.

    python bench/all.py --nanogpt CHECKOUT --filings FILINGS --data data/sec     # hours on a CPU; each writes its JSON
    python bench/all.py --nanogpt CHECKOUT --quick                               # tiny: does everything still run?
    python bench/all.py --table                                                  # bench/results/*.json -> README.md

Each benchmark is a process with a time limit; one that fails is named, and the others go on. A result is
bench/results/<benchmark>_<cpu or the GPU's name>.json; what stands in the table says claims.py.
"""
import argparse
import os
import pathlib
import re
import signal
import subprocess
import sys

from claims import with_table

ROOT = pathlib.Path(__file__).parents[1]


def commands(args, device):
    """{benchmark: its command}, and {benchmark: what it lacks}."""
    small = ["--n_layer", "2", "--n_head", "2", "--n_embd", "64", "--rounds", "1"] if args.quick else []
    nanogpt = ["--nanogpt", args.nanogpt] if args.nanogpt else []
    tiny = ["--vocab_size", "512", "--micro_batch", "2", "--seq_len", "64"] if args.quick else []
    found = dict(train=[*nanogpt, *small, *tiny],
                 sample=[*nanogpt, *(small + ["--new_tokens", "16"] if args.quick else [] if device == "cpu" else
                                     ["--n_layer", "48", "--n_head", "25", "--n_embd", "1600"])],
                 kernels=["--shapes", "192x64", "--rows", "1", "--rounds", "1"] if args.quick else [],
                 qlora=[*small, *tiny, *([] if device == "cpu" else ["--compile", "1"])],
                 gemma=["--shape", "gemma-3-270m", "--learn", "2", "--seq_len", "128", *(
                     ["--n_layer", "1", "--micro_batch", "1", "--rounds", "1", "--memory", "0"] if args.quick else
                     ["--micro_batch", "8"] if device == "cpu" else
                     ["--shape", "gemma-3-1b", "--micro_batch", "32"])],
                 prepare=[*args.filings, *(["--megabytes", "0.2", "--rounds", "1", "--tokenizer", "bpe:300"]
                                           if args.quick else ["--megabytes", "500", "--memory", "100", "1000"])],
                 to_loss=[args.data, "--work", "runs/to_loss-quick" if args.quick else "runs/to_loss", *nanogpt, *(
                     ["--tokens", "2048", "--batch_tokens", "512", "--our_batch_tokens", "512", "--eval_tokens", "1024",
                      "--n_layer", "1", "--seeds", "0", "--lrs", "1e-3"] if args.quick else
                     [] if device == "cpu" else
                     ["--tokens", "100000000", "--n_layer", "12", "--n_head", "12", "--n_embd", "768", "--seq_len",
                      "1024", "--batch_tokens", "65536", "--our_batch_tokens", "65536"])])
    found["curves"] = [args.data, "--work", "runs/curves" + "-quick" * args.quick,
                       *(["--steps", "4", "--batch_tokens", "512", "--seq_len", "64", "--n_layer", "1",
                          "--eval_tokens", "1024", "--only", "again", "nudged"] if args.quick else [])]
    if args.filings and args.data:
        found["spikes"] = [args.data, "--raw", *args.filings, "--work", "runs/spikes" + "-quick" * args.quick,
                           *(["--tokens", "300000", "--batch_tokens", "512", "--seq_len", "64", "--n_layer", "1",
                              "--seeds", "0", "--eval_tokens", "1024"] if args.quick else [])]
    missing = {} if args.filings else {"prepare": "no --filings", "spikes": "no --filings"}
    missing |= {} if args.data else {k: "no --data" for k in ("to_loss", "curves", "spikes")}
    return {k: [ROOT / f"bench/{'qlora' if k == 'gemma' else k}.py", *v]
            for k, v in found.items() if k not in missing}, missing


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nanogpt", help="a checkout of nanoGPT; left out without")
    p.add_argument("--filings", nargs="+", default=[], help="for prepare: files or folders")
    p.add_argument("--data", help="for to_loss, curves and spikes: a data directory of real filings")
    p.add_argument("--quick", action="store_true", help="tiny, into runs/bench, and the table stays")
    p.add_argument("--hours", type=float, default=12, help="time limit of each")
    p.add_argument("--table", action="store_true", help="only write the table into README.md")
    args = p.parse_args()
    failed = {}
    if not args.table:
        import torch

        device = re.sub(r"\W+", "-", torch.cuda.get_device_name().lower()) if torch.cuda.is_available() else "cpu"
        results = ROOT / ("runs/bench" if args.quick else "bench/results")
        results.mkdir(parents=True, exist_ok=True)
        todo, missing = commands(args, device)
        for name, command in todo.items():
            print(f"== {name}: python {' '.join(map(str, command))}", flush=True)
            process = subprocess.Popen([sys.executable, *command, "--out", results / f"{name}_{device}.json"],
                                       start_new_session=True)
            try:
                if process.wait(args.hours * 3600):
                    failed[name] = f"exit code {process.returncode}"
            except subprocess.TimeoutExpired:
                failed[name] = f"not done after {args.hours:g} hours"
            finally:  # whatever it started goes with it
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        for name, why in (missing | failed).items():
            print(f"not measured: {name}: {why}")
    if not args.quick:
        readme = ROOT / "README.md"
        readme.write_text(with_table(readme.read_text(), ROOT / "bench/results"))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
