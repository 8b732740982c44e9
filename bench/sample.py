"""
Our generate against nanoGPT's and transformers': same weights, same prompt, one process, alternating; JSON out.

    python bench/sample.py --nanogpt elsewhere/nanoGPT                      # 12 x 768, batch 1, 512 new tokens

All sides sample at temperature 1 from the full vocabulary. `tenk` runs in the precision that sample.py picks on this
device, `tenk float32` in theirs, so that what is gained by the code and what by bfloat16 can be told apart.
"""
import argparse
import copy
import os
import statistics
import tempfile

import torch

from train import alternate, finish, load_module, machine  # isort: skip

import cli
from model import GPT, GPTConfig


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nanogpt", help="a checkout of nanoGPT; left out without")
    p.add_argument("--n_layer", type=int, default=12)
    p.add_argument("--n_head", type=int, default=12)
    p.add_argument("--n_embd", type=int, default=768)
    p.add_argument("--vocab_size", type=int, default=50257)
    p.add_argument("--prompt_tokens", type=int, default=32)
    p.add_argument("--new_tokens", type=int, default=512)
    p.add_argument("--rounds", type=int, default=3)
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
    ours = copy.deepcopy(plain).to(getattr(torch, dtype))
    prompt = torch.randint(args.vocab_size, (1, args.prompt_tokens), device=device)
    new = args.new_tokens
    sides = {"tenk": lambda: ours.generate(prompt, new), "tenk float32": lambda: plain.generate(prompt, new),
             "transformers": lambda: hf.generate(prompt, attention_mask=torch.ones_like(prompt),
                                                 max_new_tokens=new, min_new_tokens=new,
                                                 do_sample=True, top_k=0, pad_token_id=0)}
    hf_bf16 = copy.deepcopy(hf).to(getattr(torch, dtype))
    if dtype != "float32":
        sides[f"transformers {dtype}"] = lambda: hf_bf16.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=new, min_new_tokens=new,
            do_sample=True, top_k=0, pad_token_id=0)
    if args.nanogpt:
        nano = load_module(os.path.join(args.nanogpt, "model.py"), "nanogpt_model")
        theirs = nano.GPT(nano.GPTConfig(block_size=1024, vocab_size=args.vocab_size,
                                         n_layer=args.n_layer, n_head=args.n_head, n_embd=args.n_embd,
                                         dropout=0.0, bias=True)).to(device).eval()
        state = {"transformer." + k: v for k, v in plain.state_dict().items()} | {"lm_head.weight": plain.wte.weight}
        theirs.load_state_dict(state, strict=False)
        sides["nanoGPT"] = lambda: theirs.generate(prompt, new)
    seconds = alternate(sides, args.rounds, device, warmup=0)
    ratios = {name: statistics.median(b / a for a, b in zip(seconds["tenk"], s, strict=True))
              for name, s in seconds.items() if name != "tenk"}
    finish(dict(what="generate, batch 1", new_tokens=new, prompt_tokens=args.prompt_tokens, dtype=dtype,
                shape=dict(n_layer=args.n_layer, n_head=args.n_head, n_embd=args.n_embd, vocab_size=args.vocab_size),
                tokens_per_second={name: new / statistics.median(s) for name, s in seconds.items()},
                speedup_over=ratios, float32_speedup_over_transformers=statistics.median(
                    b / a for a, b in zip(seconds["tenk float32"], seconds["transformers"], strict=True)),
                machine=machine(device)), args.out)


if __name__ == "__main__":
    main()
