"""
Our training step against nanoGPT's and transformers': same shape, weights, batch and process, alternating; JSON out.

    python bench/train.py --nanogpt CHECKOUT      # of github.com/karpathy/nanoGPT; 12 layers x 768, GPT-2's vocabulary

A step is what a trainer does between two batches: forward, backward, clipping, optimizer. tenk steps as its train.py
does, in the precision of --dtype auto and, on a CPU, with freed blocks kept (cli.keep_freed_memory); nanoGPT as its
own, in float32 on a CPU, where it has no autocast; GPT2LMHeadModel as transformers' Trainer drives it: autocast to our
precision, sdpa, fused AdamW, and the biases that it always has.

Before any time is taken, the first losses have to agree, and so do the gradients of the embedding: at random weights
any model's loss is about ln(vocabulary), also a wrong one's.
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
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import torch

import cli
import objective
import optimizer
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
                transformers=getattr(sys.modules.get("transformers"), "__version__", None),
                gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None)


def timed(function, device):
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    began = time.perf_counter()
    function()
    wait()
    return time.perf_counter() - began


def alternate(functions, rounds, device, warmup=1, again=False):
    """
    Seconds per call, {name: [one per round]}; the order turns round each time, so that drift hits all alike. Only sides
    whose name begins with "tenk" run with our setting of the allocator. again: before each timed call another, which
    gets back from the system what the side before gave up: a step in the middle of a run.
    """
    for _ in range(warmup):
        for name, function in functions.items():
            cli.keep_freed_memory(name.startswith("tenk"))
            function()
    seconds = {name: [] for name in functions}
    for i in range(rounds):
        for name in list(functions) if i % 2 == 0 else reversed(list(functions)):
            cli.keep_freed_memory(name.startswith("tenk"))
            if again:
                functions[name]()
            seconds[name].append(timed(functions[name], device))
            print(f"  round {i + 1}/{rounds}  {name:<14} {seconds[name][-1]:.3f} s", flush=True)
    return seconds


def limits(device, dtype):
    """What the machine can do: FLOP/s of a large matmul, bytes/s of a large copy, read and written; best of five."""
    size, n = (2**30, 8192) if device.type == "cuda" else (2**27, 2048)
    a, b = torch.randn(2, n, n, device=device, dtype=dtype)
    source, target = torch.zeros(2, size, dtype=torch.uint8, device=device)
    product, copy = (min(timed(f, device) for _ in range(6)) for f in (lambda: a @ b, lambda: target.copy_(source)))
    return dict(matmul_flop_per_second=2 * n**3 / product, copy_bytes_per_second=2 * size / copy, dtype=str(dtype)[6:])


def finish(result, path):
    text = json.dumps(result, indent=1)
    print(text)
    if path:
        pathlib.Path(path).write_text(text + "\n")


def step_function(model, optimizers, x, y, autocast, loss_of):
    def step():
        with autocast():
            loss = loss_of(model, x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in optimizers if isinstance(optimizers, list) else [optimizers]:
            o.step()
            o.zero_grad(set_to_none=True)
        return loss.detach()
    return step


def build(args, shape, trainer, device, dtype):
    """{side: (model, loss_of, optimizers, autocast)}, and {side: why it is missing}."""
    autocast = contextlib.nullcontext if dtype == torch.float32 else lambda: torch.autocast(device.type, dtype)
    sides, missing = {}, {} if args.nanogpt else {"nanoGPT": "no --nanogpt"}
    for i, name in enumerate(args.optimizer):
        torch.manual_seed(0)
        ours = GPT(GPTConfig(**shape)).to(device)
        flags = trainer.flags().parse_args(["--optimizer", name, "--lr", "6e-4", "--weight_decay", "0.1"])
        sides[f"tenk {name}" if i else "tenk"] = (  # the sum over the batch, divided by what counts in it
            ours, lambda m, x, y: objective.token_losses(m, dict(x=x, y=y), None, None)[0] / (y >= 0).sum(),
            optimizer.make(ours, flags, device), autocast)
    if args.nanogpt:
        nano = load_module(os.path.join(args.nanogpt, "model.py"), "nanogpt_model")
        theirs = nano.GPT(nano.GPTConfig(**shape)).to(device)
        theirs.load_state_dict({"transformer." + k: v for k, v in ours.state_dict().items()} |
                               {"lm_head.weight": ours.wte.weight})
        sides["nanoGPT"] = (theirs, lambda m, x, y: m(x, y)[1],
                            theirs.configure_optimizers(0.1, 6e-4, (0.9, 0.95), device.type),
                            autocast if device.type == "cuda" else contextlib.nullcontext)
    try:
        from transformers import GPT2LMHeadModel
        with tempfile.TemporaryDirectory() as folder:
            ours.save_pretrained(folder)
            hf = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="sdpa").to(device).train()
        sides["transformers"] = (hf, lambda m, x, y: m(input_ids=x, labels=x, use_cache=False).loss,  # it shifts them
                                 torch.optim.AdamW(hf.parameters(), lr=5e-5, fused=True), autocast)
    except ImportError as e:
        missing["transformers"] = str(e)
    return sides, missing


def check(sides, x, y, exact):
    """{side: its first loss}; ends the run if they, or the embedding's gradients, differ from ours."""
    losses, ours = {}, None
    for name, (model, loss_of, _, autocast) in sides.items():
        with autocast():
            loss = loss_of(model, x, y)
        loss.backward()
        grad, losses[name] = next(p for p in model.parameters() if p.dim() == 2).grad.float(), loss.item()  # wte's
        model.zero_grad(set_to_none=True)
        ours = grad if ours is None else ours
        gaps = abs(losses[name] / losses["tenk"] - 1), float((grad - ours).norm() / ours.norm())
        if not (gaps[0] <= (1e-3 if exact else 2e-2) and gaps[1] <= (1e-2 if exact else 5e-2)):
            sys.exit(f"{name} is another model: its first loss is {losses[name]:.5f}, ours {losses['tenk']:.5f}; its "
                     f"gradient of the embedding differs by {gaps[1]:.2g} of its norm. No speed is reported.")
    return losses


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nanogpt", help="a checkout of nanoGPT; left out without")
    for name, value in dict(n_layer=12, n_head=12, n_embd=768, vocab_size=50257, seq_len=1024).items():
        p.add_argument("--" + name, type=int, default=value)
    p.add_argument("--micro_batch", type=int, help="sequences a step [16 on a GPU, 4 elsewhere]")
    p.add_argument("--optimizer", nargs="+", default=["adamw", "muon"], help="ours; the first is `tenk`")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--compile", type=int, choices=(0, 1), help="torch.compile, for all [1 on a GPU, 0 elsewhere]")
    p.add_argument("--out", help="write the JSON here too")
    cli.add_machine_flags(p)
    args = p.parse_args()
    device = cli.choose_device(args.device)
    dtype, gpu = getattr(torch, cli.choose_dtype(args.dtype, device)), device.type == "cuda"
    compiled = gpu if args.compile is None else bool(args.compile)
    torch.set_float32_matmul_precision("high" if gpu else "highest")  # as our train.py and nanoGPT's do
    shape = dict(n_layer=args.n_layer, n_head=args.n_head, n_embd=args.n_embd,
                 vocab_size=args.vocab_size, block_size=args.seq_len, bias=False, dropout=0.0)
    trainer = load_module(os.path.join(os.path.dirname(cli.__file__), "train.py"), "tenk_train")
    sides, missing = build(args, shape, trainer, device, dtype)
    flops, peak = trainer.training_flops(sides["tenk"][0], args.seq_len), trainer.peak_flops(device)
    x = torch.randint(args.vocab_size, (args.micro_batch or (16 if gpu else 4), args.seq_len), device=device)
    y = torch.cat([x[:, 1:], torch.full_like(x[:, :1], -1)], 1)  # -1: nothing to learn, for nanoGPT and for us
    losses = check(sides, x, y, dtype == torch.float32)
    steps = {k: step_function(torch.compile(model) if compiled else model, optimizers, x, y, autocast, loss_of)
             for k, (model, loss_of, optimizers, autocast) in sides.items()}
    n = 10 if gpu else 1  # steps in a row: the host may run ahead, as in training
    seconds = alternate({k: lambda f=f: [f() for _ in range(n)] for k, f in steps.items()}, args.rounds, device,
                        again=not gpu)
    speed = {name: n * x.numel() / statistics.median(s) for name, s in seconds.items()}
    ours = seconds.pop("tenk")
    ratios = {name: [b / a for a, b in zip(ours, s, strict=True)] for name, s in seconds.items()}
    over = {name: statistics.median(r) for name, r in ratios.items()}
    mfu = speed["tenk"] * flops / peak if peak else None
    goals = [("MFU", mfu, 0.45), ("over nanoGPT", over.get("nanoGPT") if compiled else None, 1.25)] if gpu else [
        ("over nanoGPT", over.get("nanoGPT"), 3.0), ("over transformers", over.get("transformers"), 1.5)]
    finish(dict(what="training step", shape=shape, micro_batch=len(x), compile=compiled, dtype=str(dtype)[6:],
                optimizer=args.optimizer, first_losses=losses, not_measured=missing, tokens_per_second=speed,
                speedup_over=over, ratios=ratios, flops_per_token=flops, mfu=mfu,
                goals={name: dict(figure=f, limit=limit, reached=f and f >= limit) for name, f, limit in goals},
                limit=limits(device, dtype), machine=machine(device)), args.out)


if __name__ == "__main__":
    main()
