"""
Turn documents into token shards that train.py reads.

    python prepare.py edgar --out data/filings --user_agent "Name name@example.com" --years 2021-2023     # 10-Ks
    python prepare.py corpus PATH... --out data/sec --tokenizer bpe:8192     # files or folders
    python prepare.py synth --out data/filings                               # synthetic 10-K filings to try things on

`corpus` reads .txt .md, .htm .html (SEC filings and other pages), full-submission .txt .nc, .json .jsonl and .parquet,
and writes the data directory that data.py describes, with a data card, DATA.md. It can be stopped and run again, and
machines that share a disk share the work by running the same command: under torchrun, in a Slurm array with RANK and
WORLD_SIZE set, or by hand.
"""
import argparse
import os

import cli


def corpus(args):
    import corpus

    corpus.build(args, args.out.rstrip("/"))


def edgar(args):
    import fetch

    fetch.run(args)


def synth(args):
    import synth as synthetic

    if os.path.isdir(args.out) and os.listdir(args.out):
        raise ValueError(f"{args.out} is not empty; remove it, or choose another --out")
    paths = synthetic.write_filings(args.out, n=args.filings, seed=args.seed)
    print(f"wrote {len(paths)} synthetic filings to {args.out}; "
          f"next: python prepare.py corpus {args.out} --out DIR --tokenizer bpe:4096")


def cores():
    """Those that we may use: a job on a large node is often given a few."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def date_or_word(text):
    import split

    if text not in ("auto", "none") and split.day_of(text) == split.UNDATED:
        raise argparse.ArgumentTypeError(f"{text} is neither a date like 2023-01-01, nor auto, nor none")
    return text


def main():
    parser = cli.Parser("prepare.py", __doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    p = commands.add_parser("edgar", help="download SEC filings", prog="prepare.py edgar",
                            description="Download SEC filings, politely and resumably.")
    import fetch

    fetch.add_flags(p)
    p.set_defaults(run=edgar)
    p = commands.add_parser("corpus", help="documents -> token shards", prog="prepare.py corpus",
                            description="Documents -> token shards.")
    p.add_argument("paths", nargs="+", metavar="PATH", help="files and folders to read")
    p.add_argument("--out", required=True, help="the data directory to write")
    p.add_argument("--tokenizer", default="gpt2",
                   help="gpt2, bpe:N (trained on this corpus), or a directory with a tokenizer.json")
    p.add_argument("--numbers", choices=("gpt2", "digits", "threes"), default="gpt2",
                   help="how a bpe:N cuts numbers: as GPT-2 does, into digits, or into at most three digits")
    p.add_argument("--tables", choices=("short", "all", "none"), default="short",
                   help="of filings: those with at least as many letters as digits, all, or none")
    p.add_argument("--dedup", choices=("all", "exact"), default="all",
                   help="all: also near-duplicates, and paragraphs that a company has filed before")
    p.add_argument("--pii", choices=("mask", "count", "keep"), default="mask",
                   help="e-mail addresses, phone, social security, IBAN and card numbers: mask, count, or don't look")
    p.add_argument("--mask_names", action="store_true", help="mask the names of those who signed a filing")
    p.add_argument("--deidentify", action="store_true",
                   help="for texts that are not filings: mask names, addresses, birth dates and account numbers, too")
    p.add_argument("--licence", default="", help="the sources' licence, where no source.json states it")
    p.add_argument("--public_only", action="store_true", help="refuse sources that state no public licence")
    p.add_argument("--val_fraction", type=cli.fraction, default=0.05,
                   help="share of the bytes to hold out, in whole companies")
    p.add_argument("--val_from", type=date_or_word, default="auto",
                   help="also hold out what was filed from this date on; auto: the last of five or more years, if it "
                        "has at most 15%% of the bytes; none")
    p.add_argument("--max_overlap", type=cli.fraction, default=0.5,
                   help="held-out documents that share more of their 13-grams with training are left out")
    p.add_argument("--workers", type=cli.positive(int), help="processes; the output does not depend on it",
                   default=max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    p.add_argument("--seed", type=int, default=0, help="of the shuffle and the split")
    p.add_argument("--shard_tokens", type=cli.positive(int), default=100_000_000, help="tokens per shard")
    p.set_defaults(run=corpus)
    p = commands.add_parser("synth", help="write synthetic 10-K filings", prog="prepare.py synth",
                            description="Synthetic 10-K filings.")
    p.add_argument("--out", required=True, help="the folder to write")
    p.add_argument("--filings", type=cli.positive(int), default=200, help="how many")
    p.add_argument("--seed", type=int, default=0, help="of everything in them")
    p.set_defaults(run=synth)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    cli.run(main)
