"""
Our generate against nanoGPT's and transformers': same weights, same prompts, one process, alternating; JSON out.

    python bench/sample.py --nanogpt elsewhere/nanoGPT                      # 12 x 768, 128 new tokens, batch 1 and 8
    python bench/sample.py --n_layer 48 --n_head 25 --n_embd 1600           # gpt2-xl, which the goals on a GPU are for

All sides sample at temperature 1 from the full vocabulary. `tenk` runs as sample.py would on this device, transformers
and nanoGPT as they come, in float32: goals and ratios are those, and `like for like` has both in the same precision. On
a GPU we are compiled, they are not, and the share of bandwidth says how fast the weights are read: their bytes times
steps a second, over what a copy reads and writes in a second.
"""
import argparse
import copy
import os
import statistics
import tempfile

import torch

from train import alternate, finish, load_module, machine, timed  # isort: skip

import cli
from model import GPT, GPTConfig

GOALS = {"cpu": {"batch 1 over transformers": 1.5, "batch 8 over transformers": 2.0},
         "cuda": {"batch 1 over transformers": 5.0, "gpt2-xl, batch 1: share of bandwidth": 0.6}}


def bandwidth(device):
    """Bytes a second, read and written together, of a copy of 1 GB in memory; the best of ten."""
    source = torch.ones(2**28, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(timed(lambda: target.copy_(source), device) for _ in range(10))


def ratio(seconds, ours, theirs):
    rounds = [b / a for a, b in zip(seconds[ours], seconds[theirs], strict=True)]
    return dict(median=statistics.median(rounds), rounds=rounds)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nanogpt", help="a checkout of nanoGPT; left out without")
    p.add_argument("--n_layer", type=int, default=12)
    p.add_argument("--n_head", type=int, default=12)
    p.add_argument("--n_embd", type=int, default=768)
    p.add_argument("--vocab_size", type=int, default=50257)
    p.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    p.add_argument("--prompt_tokens", type=int, default=32)
    p.add_argument("--new_tokens", type=int, default=128)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--out", help="write the JSON here too")
    cli.add_machine_flags(p)
    args = p.parse_args()
    device = cli.choose_device(args.device)
    dtype = cli.choose_dtype(args.dtype, device)
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = GPTConfig(args.vocab_size, 1024, args.n_layer, args.n_head, args.n_embd)
    plain = GPT(config).to(device).eval()
    with tempfile.TemporaryDirectory() as folder:
        plain.save_pretrained(folder)
        hf = AutoModelForCausalLM.from_pretrained(folder).to(device).eval()
    ours, theirs = {"float32": plain}, {"float32": hf}
    for models in (ours, theirs):
        models.setdefault(dtype, copy.deepcopy(models["float32"]).to(getattr(torch, dtype)))
    new, records = args.new_tokens, []
    for batch in args.batch:
        prompt = torch.randint(args.vocab_size, (batch, args.prompt_tokens), device=device)
        sides = {}
        for kind, model in ours.items():
            sides[f"tenk {kind}"] = lambda m=model, x=prompt: m.generate(x, new, compile=device.type == "cuda")
        for kind, model in theirs.items():
            sides[f"transformers {kind}"] = lambda m=model, x=prompt: m.generate(
                x, attention_mask=torch.ones_like(x), max_new_tokens=new, min_new_tokens=new, do_sample=True, top_k=0,
                pad_token_id=0)
        if args.nanogpt:
            sides["nanoGPT float32"] = nanogpt(args, plain, prompt)
        print(f"batch {batch}", flush=True)
        seconds = alternate(sides, args.rounds, device)
        rates = {name: batch * new / statistics.median(s) for name, s in seconds.items()}
        mine = f"tenk {dtype}"
        weights = sum(p.nbytes for name, p in ours[dtype].named_parameters() if name != "wpe.weight")
        records.append(dict(
            batch=batch, tokens_per_second=rates,
            over={name: ratio(seconds, mine, name) for name in seconds if not name.startswith("tenk")},
            like_for_like={kind: ratio(seconds, f"tenk {kind}", f"transformers {kind}") for kind in ours},
            share_of_bandwidth=weights * rates[mine] / batch / bandwidth(device) if device.type == "cuda" else None))
    figures = {}
    for r in records:
        figures[f"batch {r['batch']} over transformers"] = r["over"]["transformers float32"]["median"]
        if (args.n_layer, args.n_embd) == (48, 1600):
            figures[f"gpt2-xl, batch {r['batch']}: share of bandwidth"] = r["share_of_bandwidth"]
    goals = {kind: {name: dict(figure=f, limit=limit, reached=None if f is None else f >= limit)
                    for name, limit in limits.items()
                    for f in [figures.get(name) if kind == device.type else None]} for kind, limits in GOALS.items()}
    not_measured = [f"{name} ({kind})" for kind, g in goals.items() for name, x in g.items() if x["figure"] is None]
    finish(dict(what="generate", new_tokens=new, prompt_tokens=args.prompt_tokens, dtype=dtype,
                shape=dict(n_layer=args.n_layer, n_head=args.n_head, n_embd=args.n_embd, vocab_size=args.vocab_size),
                records=records, goals=goals, not_measured=not_measured, machine=machine(device)), args.out)


def nanogpt(args, plain, prompt):
    nano = load_module(os.path.join(args.nanogpt, "model.py"), "nanogpt_model")
    theirs = nano.GPT(nano.GPTConfig(block_size=1024, vocab_size=args.vocab_size, n_layer=args.n_layer,
                                     n_head=args.n_head, n_embd=args.n_embd, dropout=0.0, bias=True))
    state = {"transformer." + k: v for k, v in plain.state_dict().items()} | {"lm_head.weight": plain.wte.weight}
    theirs.load_state_dict(state)
    theirs.to(prompt.device).eval()
    return lambda: theirs.generate(prompt, args.new_tokens)


if __name__ == "__main__":
    main()
