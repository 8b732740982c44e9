"""
The Triton kernels without a GPU: what they compute, in Triton's interpreter (triton_numbers.py), and what the
compiler makes of them for the GPUs that they are written for. Both in processes of their own, one with TRITON_INTERPRET
and the others without. By hand, to choose the tables of kernels/nf4_triton.py:

    PYTHONPATH=. python tests/test_triton.py sm90 bfloat16        # registers, spills, shared memory, ... of each kernel
"""
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile

import pytest
import torch
from conftest import ROOT, run

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

TARGETS = {  # name: what Triton calls it, KiB of shared memory that a program may have
    "sm75": (("cuda", 75, 32), 64),  # T4
    "sm80": (("cuda", 80, 32), 163),  # A100
    "sm89": (("cuda", 89, 32), 99),  # RTX 4090, L4
    "sm90": (("cuda", 90, 32), 227),  # H100, H200
    "sm100": (("cuda", 100, 32), 227),  # B200
    "gfx942": (("hip", "gfx942", 64), 64),  # MI300X
}
BIG = 1 << 20  # rows for the last entry of a table


def cases(target, dtype):
    """Each kernel in each configuration of its table: name, kernel, constant arguments and options."""
    from kernels import nf4_triton as k

    backend, dtype = TARGETS[target][0][0], getattr(torch, dtype)
    yield "dequantize", k.dequantize_kernel, k.DEQUANTIZE
    yield "dequantize plain", k.dequantize_kernel, k.DEQUANTIZE | dict(nested=None, offset=None)
    for M in k.GEMV[backend]:
        for K, rank in (4096, 16), (64, 256):
            consts = k.gemv_launch(M, K, rank, backend)
            if M == 1:
                consts["M"] = 1  # Triton compiles for arguments of 1 as for constants
            yield f"gemv {M} rows, K {K}, rank {rank}", k.gemv_kernel, consts
    nothing = dict(M=1, bias=None, u=None, b=None, rank=1)
    yield "gemv alone", k.gemv_kernel, k.gemv_launch(1, 4096, 1, backend) | nothing
    if target == "sm75":
        return  # no tensor cores for Triton there
    for rows in [16] if dtype == torch.float32 else [min(rows, BIG) for rows in k.TILES[backend] if rows]:
        tile = k.product_launch(rows, dtype, backend)
        for backward in False, True:
            branch = dict(BACKWARD=backward, RANK=32)
            name = f"{'backward' if backward else 'forward'} {rows if rows < BIG else 'many'} rows"
            nothing = dict(bias=None) if backward else {}
            yield name, k.product_kernel, tile | branch | nothing | dict(SPLIT=False)
            if rows <= 64:
                nothing = dict(bias=None, u=None, v=None, rank=1)
                yield name + ", split", k.product_kernel, tile | branch | nothing | dict(SPLIT=True)
            if rows == 16:
                nothing = dict(M=1, steps=1, bias=None, u=None, v=None, rank=1)
                yield name + ", 1 is used", k.product_kernel, tile | branch | nothing | dict(SPLIT=True)
                yield name + ", plain", k.product_kernel, tile | branch | dict(SPLIT=False, nested=None, offset=None)
    for backward in False, True:
        yield f"sum {'backward' if backward else 'forward'}", k.sum_kernel, dict(
            BACKWARD=backward, SPLIT=8, RANK=32, **k.SUM_TILE)


def build(target, dtype, kernel, consts):
    """Compile for a GPU that need not be there, as a launch would: pointers and sizes are multiples of 16."""
    import triton
    from triton.backends.compiler import GPUTarget

    short = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}[dtype]
    types = dict.fromkeys(["x", "y", "out", "bias", "u", "v", "b"], short) | dict.fromkeys(
        ["nested", "offset", "codes", "codes8", "parts"], "fp32") | dict(packed="u8", absmax="u8")
    if consts.get("SPLIT") is True:
        types["out"] = "fp32"
    if "nested" in consts:
        types["absmax"] = "fp32"
    options = {name: consts[name] for name in ("num_warps", "num_stages") if name in consts}
    consts = {name: value for name, value in consts.items() if name in kernel.arg_names}
    signature = {name: "constexpr" if name in consts else f"*{types[name]}" if name in types else
                 "i64" if name == "n" else "i32" for name in kernel.arg_names}
    even = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names)
            if signature[name] != "constexpr" and (name in types or name in ("n", "N", "K", "n_out"))}
    source = triton.compiler.ASTSource(fn=kernel, signature=signature, constexprs=consts, attrs=even)
    return triton.compile(source, target=GPUTarget(*TARGETS[target][0]), options=options | {"enable_fp_fusion": False})


def report(target, compiled):
    """What became of a kernel. A spill is what did not fit the registers and went to memory."""
    import triton

    if target.startswith("gfx"):
        text = compiled.asm["amdgcn"]
        vgprs, spills = (int(re.search(rf"\.{key}:\s+(\d+)", text)[1]) for key in ("vgpr_count", "vgpr_spill_count"))
        found = dict(registers=vgprs, spills=spills, matrix=text.count("v_mfma"),
                     instructions=len(re.findall(r"^\t[sv]_|^\t(?:global|ds|buffer)_", text, re.M)))
    else:
        tools = os.path.join(os.path.dirname(triton.__file__), "backends", "nvidia", "bin")
        with tempfile.NamedTemporaryFile(suffix=".cubin") as f:
            f.write(compiled.asm["cubin"])
            f.flush()
            usage, sass = (subprocess.run([f"{tools}/cuobjdump", flag, f.name], capture_output=True, text=True,
                                          check=True).stdout for flag in ("-res-usage", "-sass"))
        registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", usage).groups())
        found = dict(registers=registers, spills=stack,
                     matrix=len(re.findall(r"mma\.sync|wgmma\.mma_async|tcgen05\.mma", compiled.asm["ptx"])),
                     instructions=len(re.findall(r"^\s+/\*[0-9a-f]{4,5}\*/", sass, re.M)))
    return found | dict(shared=compiled.metadata.shared)


def main(target, dtype, only=""):
    for name, kernel, consts in cases(target, dtype):
        if re.search(only, name):
            print(json.dumps(dict(name=name) | report(target, build(target, dtype, kernel, consts))), flush=True)


def check(target, dtype, cache, only=""):
    done = run(__file__, target, dtype, only, env={"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(cache),
                                                  "PYTHONPATH": str(ROOT)})
    kernels = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert kernels, done.stderr
    for kernel in kernels:
        uses_tensor_cores = not kernel["name"].startswith(("dequantize", "gemv")) and dtype != "float32"
        assert kernel["spills"] == 0, kernel
        assert kernel["shared"] <= TARGETS[target][1] * 1024, kernel
        assert kernel["matrix"] or not uses_tensor_cores, kernel
    return kernels


def test_numbers_in_the_interpreter():
    run("-m", "pytest", ROOT / "tests" / "triton_numbers.py", env={"TRITON_INTERPRET": "1"})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_numbers_on_the_gpu():
    run("-m", "pytest", ROOT / "tests" / "triton_numbers.py", env={"TRITON_INTERPRET": "0"})


@pytest.mark.parametrize("target, dtype", [("sm90", "bfloat16"), ("gfx942", "bfloat16")])
def test_compiles_for(target, dtype, tmp_path):
    """The kernels that matter most; the rest is slow."""
    most = "dequantize$|gemv 1 .*16$|forward 16 .*split|backward 64 rows$|forward many|sum f"
    assert len(check(target, dtype, tmp_path, most)) == 6


@pytest.mark.slow
@pytest.mark.parametrize("target, dtype", [("sm75", "float16"), ("sm80", "float16"), ("sm90", "float32"),
                                           ("gfx942", "float32"), *((t, "bfloat16") for t in TARGETS if t != "sm75")])
def test_compiles_everything(target, dtype, tmp_path):
    check(target, dtype, tmp_path)


if __name__ == "__main__":
    main(*sys.argv[1:])
