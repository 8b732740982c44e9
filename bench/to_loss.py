"""
Tokens and seconds to a validation loss: nanoGPT's recipe against ours, same model, trainer and order of data; JSON out.

    python bench/to_loss.py DATA --work runs/to_loss --nanogpt CHECKOUT --out bench/results/to_loss_cpu.json

nanoGPT's recipe, AdamW with its schedule, trains on all of --tokens: the first seed with each of --lrs, the others with
the one that ended lowest. Ours is train.py without a flag about optimization, on --share of the tokens. Both are runs
of train.py on the batches of one seed, so their seconds, which leave validation out, compare recipes, not trainers;
bench/train.py compares those. That our trainer with these flags is nanoGPT is the gate: for 20 steps in float32 its own
model, configure_optimizers and get_lr, from the same weights on the same batches, have the same losses, and it
initialises alike.

A finished run in --work is taken as it is; one that was interrupted goes on. Ours are named after the source of the
recipe, too, so that a change of it is a new run.
"""
import argparse
import ast
import hashlib
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

from train import finish, load_module, machine  # isort: skip

import torch

import cli
import data

ROOT = pathlib.Path(__file__).parents[1]
RECIPE = dict(optimizer="adamw", schedule="cosine", seq_warmup=0, min_lr=0.1, warmup_steps=100, beta1=0.9, beta2=0.95,
              weight_decay=0.1, grad_clip=1.0)
SOURCES = "train.py", "optimizer.py", "objective.py", "model.py"


def command(args, seed, batch_tokens, steps, **more):
    """The flags of train.py, more of them by name."""
    flags = dict(data=args.data, n_layer=args.n_layer, n_head=args.n_head, n_embd=args.n_embd, seq_len=args.seq_len,
                 bias=0, seed=seed, batch_tokens=batch_tokens, steps=steps, save_every=10**9,
                 eval_every=max(1, steps // 20), eval_tokens=args.eval_tokens) | more
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


def train(args, name, flags, steps):
    """The lines of log.jsonl of the finished run in --work/name."""
    out = os.path.join(args.work, name)
    log = os.path.join(out, "log.jsonl")

    def lines():
        return [json.loads(line) for line in open(log)] if os.path.exists(log) else []
    if not any(line["step"] == steps and "val_loss" in line for line in lines()):
        print(f"{name} ...", flush=True)
        done = subprocess.run([sys.executable, ROOT / "train.py", *flags, "--out", out, "--resume"],
                              env=os.environ | {"OMP_NUM_THREADS": str(args.threads)}, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"{out} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return lines()


def curve(log):
    """[[tokens, validation loss]]"""
    return [[line["tokens"], line["val_loss"]] for line in log if "val_loss" in line]


def seconds(log):
    """What training took, without validation, at its median speed: what else the machine did meanwhile is left out."""
    return log[-1]["tokens"] / statistics.median(x["tokens_per_second"] for x in log if "tokens_per_second" in x)


def gate(args, steps=20):
    """{gate: figure, limit, passed}: nanoGPT's own code against train.py with its recipe."""
    trainer = load_module(ROOT / "train.py", "tenk_train")
    nano = load_module(os.path.join(args.nanogpt, "model.py"), "nanogpt_model")
    # at a high rate after so short a warm-up the gradients explode, and rounding decides what follows
    lr, T, rows = min(args.lrs), args.seq_len, args.batch_tokens // args.seq_len
    flags = command(args, args.seeds[0], args.batch_tokens, steps, **RECIPE | dict(
        lr=lr, warmup_steps=4, dtype="float32", log_every=1, eval_every=steps))
    shutil.rmtree(os.path.join(args.work, "gate"), ignore_errors=True)
    ours = [line["train_loss"] for line in train(args, "gate", flags, steps) if "train_loss" in line]
    model = trainer.build_model(trainer.flags().parse_args(flags), "lm", None)[0]
    theirs = nano.GPT(nano.GPTConfig(**vars(model.config)))
    weights = model.state_dict()
    state = {"transformer." + k: v for k, v in weights.items()} | {"lm_head.weight": weights["wte.weight"]}
    spread = max(abs(float(p.std() / state[n].std()) - 1) for n, p in theirs.state_dict().items() if p.dim() == 2)
    theirs.load_state_dict(state)
    source = ast.parse(pathlib.Path(args.nanogpt, "train.py").read_text()).body
    rate = dict(math=math, learning_rate=lr, min_lr=lr * RECIPE["min_lr"], warmup_iters=4, lr_decay_iters=steps)
    # its train.py can't be imported, for it would train; of it only this function is run
    exec(compile(ast.Module([f for f in source if getattr(f, "name", "") == "get_lr"], []), "get_lr", "exec"), rate)
    optimizer = theirs.configure_optimizers(RECIPE["weight_decay"], lr, (RECIPE["beta1"], RECIPE["beta2"]), "cpu")
    corpus, losses = data.TokenData(args.data, verify=False), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate["get_lr"](step)
        x, y = (torch.from_numpy(a).contiguous() for a in corpus.batch(step, range(rows), T, rows, args.seeds[0]))
        loss = theirs(x, y)[1]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), RECIPE["grad_clip"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    gap = max(abs(a / b - 1) for a, b in zip(ours, losses, strict=True))
    return {f"losses of {steps} steps, largest relative difference": dict(figure=gap, limit=1e-3, passed=gap <= 1e-3),
            "initial standard deviations, likewise": dict(figure=spread, limit=0.1, passed=spread <= 0.1)}


def compare(seed, theirs, ours, share):
    """One seed: what it took either to get where nanoGPT's recipe ended."""
    (tokens, loss), reached = curve(theirs)[-1], curve(ours)
    passed = next((t for t, value in reached if value <= loss), None)
    took = dict(nanogpt=seconds(theirs), tenk=seconds(ours))
    return dict(seed=seed, nanogpt=loss, tenk=reached[-1][1], difference=reached[-1][1] - loss, tokens=tokens,
                reached=reached[-1][1] <= loss and reached[-1][0] <= share * tokens,
                share_at_which_passed=passed and passed / tokens, seconds=took,
                seconds_ratio=took["tenk"] / took["nanogpt"], curve=reached, nanogpt_curve=curve(theirs))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", help="a data directory of prepare.py corpus")
    p.add_argument("--work", required=True, help="where the runs are kept")
    p.add_argument("--nanogpt", help="a checkout of nanoGPT, for the gate")
    p.add_argument("--tokens", type=int, default=4_000_000)
    p.add_argument("--share", type=float, default=0.5, help="of the tokens that ours has")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--lrs", type=float, nargs="+", default=[6e-4, 1e-3, 2e-3], help="nanoGPT's; the best counts")
    for name, value in dict(n_layer=6, n_head=4, n_embd=256, seq_len=256, batch_tokens=2048, our_batch_tokens=2048,
                            eval_tokens=98304, threads=torch.get_num_threads()).items():
        p.add_argument("--" + name, type=int, default=value)
    p.add_argument("--out", help="write the JSON here too")
    args = p.parse_args()
    gates = gate(args) if args.nanogpt else None
    result = dict(what="tokens to a loss", data=data.TokenData(args.data, verify=False).fingerprint(),
                  recipe=RECIPE, gates=gates, machine=machine(cli.choose_device("auto")) | dict(threads=args.threads),
                  **{k: v for k, v in vars(args).items() if k not in ("data", "work", "nanogpt", "out", "threads")})
    if gates and not all(g["passed"] for g in gates.values()):
        finish(result, args.out)
        sys.exit("a gate failed: these flags are not nanoGPT's recipe, so nothing is compared")

    shape = f"{args.n_layer}x{args.n_head}x{args.n_embd}x{args.seq_len}-eval{args.eval_tokens}-{result['data'][:6]}"
    version = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in SOURCES)).hexdigest()[:6]
    steps, our_steps = args.tokens // args.batch_tokens, round(args.share * args.tokens) // args.our_batch_tokens

    def theirs(seed, lr):
        return train(args, f"nanogpt-{shape}-b{args.batch_tokens}x{steps}-lr{lr:g}-seed{seed}",
                     command(args, seed, args.batch_tokens, steps, **RECIPE | dict(lr=lr)), steps)

    def ours(seed):
        return train(args, f"tenk-{version}-{shape}-b{args.our_batch_tokens}x{our_steps}-seed{seed}",
                     command(args, seed, args.our_batch_tokens, our_steps), our_steps)
    finals = {lr: curve(theirs(args.seeds[0], lr))[-1][1] for lr in args.lrs}
    best = min(finals, key=finals.get)
    seeds = [compare(seed, theirs(seed, best), ours(seed), args.share) for seed in args.seeds]
    finish(result | dict(nanogpt_by_lr={f"{lr:g}": loss for lr, loss in finals.items()}, best_lr=best, by_seed=seeds,
                         reached=all(s["reached"] for s in seeds),
                         seconds_ratio=statistics.median(s["seconds_ratio"] for s in seeds)), args.out)


if __name__ == "__main__":
    main()
