"""
Our training step against nanoGPT's: same shape, same batch, one process, alternating; medians and ratios as JSON.

    git clone https://github.com/karpathy/nanoGPT elsewhere/nanoGPT
    python bench/train.py --nanogpt elsewhere/nanoGPT                       # 12 layers x 768, GPT-2's vocabulary

A step is what either trainer does between two batches: forward, backward, clipping, AdamW. Each side runs as its
train.py would on this device: nanoGPT in float32 on a CPU (it has autocast on GPUs only), ours in the precision that
--dtype auto picks; nanoGPT with glibc's allocator as it is, ours with freed blocks kept (cli.keep_freed_memory).
"""
import argparse
import contextlib
import importlib.util
import json
import os
import pathlib
import platform
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import torch

import cli
from model import GPT, GPTConfig


def load_module(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def machine(device):
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line),
               platform.processor()) if os.path.exists("/proc/cpuinfo") else platform.processor()
    return dict(date=time.strftime("%Y-%m-%d"), cpu=cpu, threads=torch.get_num_threads(),
                torch=torch.__version__, python=platform.python_version(),
                gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None)


def timed(function, device):
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def alternate(functions, rounds, device, warmup=1):
    """
    Seconds per call, {name: [one per round]}; the order turns round each time, so that drift hits all alike. Only sides
    whose name begins with "tenk" run with our setting of the allocator.
    """
    for _ in range(warmup):
        for name, function in functions.items():
            cli.keep_freed_memory(name.startswith("tenk"))
            function()
    seconds = {name: [] for name in functions}
    for i in range(rounds):
        for name in list(functions) if i % 2 == 0 else reversed(list(functions)):
            cli.keep_freed_memory(name.startswith("tenk"))
            seconds[name].append(timed(functions[name], device))
            print(f"  round {i + 1}/{rounds}  {name:<14} {seconds[name][-1]:.3f} s", flush=True)
    return seconds


def finish(result, path):
    print(json.dumps(result, indent=1))
    if path:
        with open(path, "w") as f:
            json.dump(result, f, indent=1)


def step_function(model, optimizer, x, y, autocast, loss_of):
    def step():
        with autocast():
            loss = loss_of(model, x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()
    return step


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nanogpt", required=True, help="a checkout of nanoGPT")
    p.add_argument("--n_layer", type=int, default=12)
    p.add_argument("--n_head", type=int, default=12)
    p.add_argument("--n_embd", type=int, default=768)
    p.add_argument("--vocab_size", type=int, default=50257)
    p.add_argument("--seq_len", type=int, default=1024)
    p.add_argument("--micro_batch", type=int, default=4)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--compile", type=int, choices=(0, 1), default=0, help="torch.compile, for both")
    p.add_argument("--out", help="write the JSON here too")
    cli.add_machine_flags(p)
    args = p.parse_args()
    device = cli.choose_device(args.device)
    dtype = cli.choose_dtype(args.dtype, device)
    nano = load_module(os.path.join(args.nanogpt, "model.py"), "nanogpt_model")
    shape = dict(n_layer=args.n_layer, n_head=args.n_head, n_embd=args.n_embd,
                 vocab_size=args.vocab_size, block_size=args.seq_len, bias=False, dropout=0.0)
    torch.manual_seed(0)
    ours, theirs = GPT(GPTConfig(**shape)).to(device), nano.GPT(nano.GPTConfig(**shape)).to(device)
    x, y = torch.randint(args.vocab_size, (2, args.micro_batch, args.seq_len), device=device)
    decayed = [p for p in ours.parameters() if p.dim() >= 2]
    rest = [p for p in ours.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([dict(params=decayed, weight_decay=0.1), dict(params=rest, weight_decay=0.0)],
                                  lr=6e-4, betas=(0.9, 0.95), fused=True)
    ours_autocast = ((lambda: torch.autocast(device.type, getattr(torch, dtype))) if dtype != "float32"
                     else contextlib.nullcontext)
    nano_autocast = ((lambda: torch.autocast("cuda", torch.bfloat16)) if device.type == "cuda"
                     else contextlib.nullcontext)
    steps = {
        "tenk": step_function(torch.compile(ours) if args.compile else ours, optimizer,
                              x, y, ours_autocast, lambda m, x, y: m(x, y)[1]),
        "nanoGPT": step_function(torch.compile(theirs) if args.compile else theirs,
                                 theirs.configure_optimizers(0.1, 6e-4, (0.9, 0.95), device.type),
                                 x, y, nano_autocast, lambda m, x, y: m(x, y)[1])}
    seconds = alternate(steps, args.rounds, device)
    tokens = args.micro_batch * args.seq_len
    ratios = [b / a for a, b in zip(seconds["tenk"], seconds["nanoGPT"], strict=True)]
    finish(dict(what="training step", shape=shape, micro_batch=args.micro_batch,
                compile=bool(args.compile), dtype=dtype,
                tokens_per_second={name: tokens / statistics.median(s) for name, s in seconds.items()},
                speedup_over_nanogpt=statistics.median(ratios), ratios=ratios, machine=machine(device)), args.out)


if __name__ == "__main__":
    main()
