"""
Does the loss spike? Small runs over many batches, some of them poisoned; the validation loss at each look as JSON.

    python bench/spikes.py DATA --raw FILINGS... --work runs/spikes --out bench/results/spikes_cpu.json

Three seeds train on --tokens of DATA with train.py's defaults. A fourth run has every 500th batch replaced, in turns by
the raw bytes of filings, markup and XBRL included, and by the same packed and uuencoded, as old submissions carry their
pictures. Validation comes right after each poisoned batch, and four times between. What counts is the largest rise of
the validation loss over the lowest before it.
"""
import argparse
import binascii
import functools
import json
import os
import pathlib
import subprocess
import sys
import zlib

from train import finish, load_module, machine  # isort: skip

import numpy as np

import cli
import data

ROOT = pathlib.Path(__file__).parents[1]
EVERY = 500


@functools.cache
def poison(paths, tokenizer):
    """Two arrays of tokens: of raw filings, and of the same packed and uuencoded; about 2 MB of text each."""
    files = [f for p in map(pathlib.Path, paths) for f in (sorted(p.iterdir()) if p.is_dir() else [p])]
    raw = b"".join(f.read_bytes()[: 1 << 18] for f in files if f.is_file())
    packed, raw = zlib.compress(raw)[: 3 << 19], raw[: 2 << 20]
    lines = b"".join(binascii.b2a_uu(packed[i : i + 45]) for i in range(0, len(packed), 45))
    return [tokenizer.encode(text.decode("utf-8", "replace")) for text in (raw, lines)]


def train_poisoned(paths, flags):
    """train.py, but that every 500th batch is poison."""
    clean = data.TokenData.batch

    def batch(self, step, rows, T, batch_rows, seed):
        if step % EVERY != EVERY - 1:
            return clean(self, step, rows, T, batch_rows, seed)
        tokens = poison(tuple(paths), self.tokenizer)[step // EVERY % 2]
        starts = np.random.default_rng([seed, step]).integers(len(tokens) - T, size=batch_rows)
        window = np.stack([tokens[starts[row] : starts[row] + T + 1] for row in rows]).astype(np.int64)
        return window[:, :-1], window[:, 1:]

    data.TokenData.batch = batch
    sys.argv = ["train.py", *flags]
    load_module(ROOT / "train.py", "tenk_train").main()


def largest_rise(losses):
    """Of a loss over the lowest before it, as a share of that."""
    lowest = np.minimum.accumulate(losses)
    return float(max(losses[1:] / lowest[:-1] - 1))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", help="a data directory of prepare.py corpus")
    p.add_argument("--raw", nargs="+", required=True, help="filings as they come, HTML or SGML")
    p.add_argument("--work", required=True, help="where the runs are kept; a finished one is taken as it is")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    for name, value in dict(tokens=20_000_000, batch_tokens=4096, seq_len=256, n_layer=2, n_head=2, n_embd=128,
                            eval_tokens=65536).items():
        p.add_argument("--" + name, type=int, default=value)
    p.add_argument("--out", help="write the JSON here too")
    p.add_argument("--poisoned", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.poisoned:
        return train_poisoned(args.raw, args.poisoned)
    steps = args.tokens // args.batch_tokens
    flags = ["--data", args.data, "--steps", str(steps), "--eval_every", str(EVERY // 5), "--save_every", str(steps)]
    flags += [w for k in ("batch_tokens", "seq_len", "n_layer", "n_head", "n_embd", "eval_tokens")
              for w in ("--" + k, str(getattr(args, k)))]
    runs = []
    for seed, poisoned in [(s, False) for s in args.seeds] + [(args.seeds[0], True)]:
        out = pathlib.Path(args.work, f"seed{seed}" + "-poisoned" * poisoned)
        more = ["--seed", str(seed), "--out", str(out), "--resume"]
        if not (out / "best.json").exists():
            start = [ROOT / "train.py"] if not poisoned else [
                __file__, args.data, "--raw", *args.raw, "--work", args.work, "--poisoned"]
            subprocess.run([sys.executable, *start, *flags, *more], check=True, stdout=subprocess.DEVNULL,
                           env=os.environ | {"PYTHONPATH": str(ROOT)})
        log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        curve = [[line["step"], line["val_loss"]] for line in log if "val_loss" in line]
        runs.append(dict(seed=seed, poisoned=poisoned, largest_rise=largest_rise(np.array(curve)[:, 1]), curve=curve,
                         skipped=sum("skipped" in line for line in log)))
        print(f"seed {seed}{', poisoned' * poisoned}: largest rise {runs[-1]['largest_rise']:.2%}", flush=True)
    finish(dict(what="spikes of the validation loss", runs=runs, limit_of_rise=0.1, machine=machine(
        cli.choose_device("auto")), **{k: v for k, v in vars(args).items() if k not in ("data", "raw", "work", "out",
                                                                                       "poisoned")}), args.out)


if __name__ == "__main__":
    main()
