"""
Does an optimization change what is learnt? The loss of every step with each of them off (or on), against ours; JSON.

    python bench/curves.py DATA --work runs/curves --out bench/results/curves_cpu.json

Where the arithmetic is the same, every training loss has to be equal to the last bit. Where it is not, sums are taken
in another order, and what counts is the last validation loss: its difference has to stay below the range over three
seeds. How far a run goes apart by itself is shown beside it: "nudged" starts with one weight moved by 1e-3, a
twentieth of what such a weight is.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys

from train import finish, load_module, machine  # isort: skip

import torch
import torch.nn.functional as F

import cli
import data
import decoder
import model
import optimizer

ROOT = pathlib.Path(__file__).parents[1]


def plain_cross_entropy(x, weight, targets, chunk_rows):
    return F.cross_entropy(F.linear(x, weight).float(), targets, ignore_index=-100, reduction="sum")


def torchs_attention(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def matrix_by_matrix(matrices, function):
    return torch.cat([function(m[None]) for m in matrices])


def nudge(trainer):
    build = trainer.build_model

    def nudged(*args):
        built = build(*args)
        with torch.no_grad():
            built[0].wpe.weight[0, 0] += 1e-3
        return built
    trainer.build_model = nudged


# name: flags, what to do to the trainer first, whether the arithmetic stays the same (None: not an optimization)
VARIANTS = {
    "again": ([], None, True),
    "activations made again in backward": (["--recompute", "1"], None, True),
    "freed memory given back": ([], lambda t: setattr(cli, "keep_freed_memory", lambda: None), True),
    "all logits at once, plain cross-entropy": (
        [], lambda t: setattr(decoder.LinearCrossEntropy, "apply", plain_cross_entropy), False),
    "torch's attention": ([], lambda t: setattr(model.BlockAttention, "apply", torchs_attention), False),
    "Muon, one matrix at a time": ([], lambda t: setattr(optimizer, "shared", matrix_by_matrix), False),
    "one sequence at a time": (["--micro_batch", "1"], None, False),
    "compiled": (["--compile", "1"], None, False),
    "float32": (["--dtype", "float32"], None, False),
    "nudged": ([], nudge, None),
}


def train(args, name, flags):
    """The lines of log.jsonl of one run."""
    out = pathlib.Path(args.work, name.replace(" ", "_").replace("'", ""))
    shutil.rmtree(out, ignore_errors=True)
    shape = [w for k in ("n_layer", "n_head", "n_embd", "seq_len", "batch_tokens", "eval_tokens")
             for w in ("--" + k, str(getattr(args, k)))]
    subprocess.run([sys.executable, __file__, args.data, "--work", args.work, "--variant", name, "--data", args.data,
                    "--out", out, *shape, "--steps", str(args.steps), "--log_every", "1",
                    "--eval_every", str(args.steps), "--save_every", str(args.steps), *flags],
                   check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)})
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def train_variant(name, *flags):
    trainer = load_module(ROOT / "train.py", "tenk_train")
    change = VARIANTS.get(name, ([], None, None))[1]
    if change:
        change(trainer)
    sys.argv = ["train.py", *flags]
    cli.run(trainer.main)


def compare(base, log, same):
    """{figures of a run beside the one that has all optimizations}"""
    ours, theirs = ([line["train_loss"] for line in lines if "train_loss" in line] for lines in (base, log))
    gaps = [abs(a / b - 1) for a, b in zip(theirs, ours, strict=True)]
    return dict(same_arithmetic=same, bit_equal=ours == theirs, first_difference=gaps[0], largest_difference=max(gaps),
                val_loss=log[-1]["val_loss"], val_difference=abs(log[-1]["val_loss"] - base[-1]["val_loss"]))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", help="a data directory of prepare.py corpus")
    p.add_argument("--work", required=True, help="where the runs are kept")
    p.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    for name, value in dict(steps=100, batch_tokens=2048, seq_len=256, n_layer=2, n_head=2, n_embd=128,
                            eval_tokens=65536).items():
        p.add_argument("--" + name, type=int, default=value)
    p.add_argument("--out", help="write the JSON here too")
    p.add_argument("--variant", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.variant:
        return train_variant(*args.variant)
    seeds = [train(args, f"seed {seed}", ["--seed", str(seed)]) for seed in range(3)]
    ends = [log[-1]["val_loss"] for log in seeds]
    runs = {}
    for name in args.only:
        flags, _, same = VARIANTS[name]
        runs[name] = compare(seeds[0], train(args, name, flags), same)
        print(name, runs[name], flush=True)
    noise = max(ends) - min(ends)
    finish(dict(what="loss curves with optimizations off", runs=runs, val_loss_of_seeds=ends, noise=noise,
                all_equal=all(r["bit_equal"] for r in runs.values() if r["same_arithmetic"]),
                within_noise=all(r["val_difference"] <= noise for r in runs.values() if r["same_arithmetic"] is False),
                data=data.TokenData(args.data, verify=False).fingerprint(),
                machine=machine(cli.choose_device("auto")),
                **{k: v for k, v in vars(args).items() if k not in ("data", "work", "out", "only", "variant")}),
           args.out)


if __name__ == "__main__":
    main()
