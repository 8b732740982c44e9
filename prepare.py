"""
Turn documents into token shards, and questions and answers into examples, that train.py reads.

    python prepare.py edgar --out data/filings --user_agent "Name name@example.com" --years 2021-2023     # 10-Ks
    python prepare.py corpus PATH... --out data/sec --tokenizer bpe:8192     # files or folders
    python prepare.py synth --out data/filings                               # synthetic 10-K filings to try things on

    python prepare.py sft mine.jsonl --out data/mine                         # your own examples; also: pairs
    python prepare.py task phrasebank PATH --out data/fpb                    # a finance task (tasks.py)
    python prepare.py distill prompts.jsonl --teacher http://localhost:8000/v1 --model NAME --out data/taught

`corpus` reads .txt .md, .htm .html (SEC filings and other pages), full-submission .txt .nc, .json .jsonl and .parquet,
and writes the data directory that data.py describes, with a data card, DATA.md. It can be stopped and run again, and
machines that share a disk share the work by running the same command: under torchrun, in a Slurm array with RANK and
WORLD_SIZE set, or by hand. The others write examples (examples.py).
"""
import argparse
import collections
import json
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
    with open(os.path.join(args.out, "source.json"), "w") as f:
        json.dump(dict(url="prepare.py synth", licence="synthetic"), f)
    print(f"wrote {len(paths)} synthetic filings to {args.out}; "
          f"next: python prepare.py corpus {args.out} --out DIR --tokenizer bpe:4096")


def own_examples(args):
    """`sft` and `pairs`: the user's records, checked, divided and counted."""
    import data
    import examples
    import pii

    kind, found, sources = args.command, collections.Counter(), []

    def edited(value):
        if isinstance(value, list):
            return [edited(v) for v in value]
        if isinstance(value, dict):
            return {k: v if k == "role" else edited(v) for k, v in value.items()}
        places = pii.find_pii(value) if isinstance(value, str) and args.pii != "keep" else []
        found.update(kind for _, _, kind in places)
        marks = [(a, b, f"[{kind.upper()}]") for a, b, kind in places]
        return pii.edit(value, marks, {})[0] if places and args.pii == "mask" else value

    def read(paths):
        """The records of these files, without copies."""
        records = [r for path in paths for r in examples.read_records(path, kind)]
        sources.extend(dict(path=path, sha256=data.file_sha256(path), licence=args.licence) for path in paths)
        unique = {json.dumps({k: v for k, v in r.items() if k not in ("id", "meta")}, sort_keys=True): r
                  for r in reversed(records)}
        print(f"{len(records):,} examples, {len(records) - len(unique):,} exact duplicates dropped")
        return [edited(r) for r in reversed(unique.values())]

    if kind == "pairs" and os.path.isdir(args.paths[0]):
        if args.paths[1:] or args.val:
            raise ValueError(f"{args.paths[0]} is a task's directory and brings its own splits; give no other file")
        manifest = data.read_manifest(args.paths[0])
        splits = edited(examples.against_wrong(args.paths[0], manifest, args.seed))
        policy, args.licence = manifest["split_policy"], args.licence or manifest.get("licence", "")
        sources.append(dict(path=args.paths[0], sha256=examples.fingerprint(manifest), licence=args.licence))
    elif args.val:
        splits = dict(train=read(args.paths), val=read(args.val))
        held = {examples.key_of(r) for r in splits["val"]}
        kept = [r for r in splits["train"] if examples.key_of(r) not in held]
        print(f"{len(splits['train']) - len(kept):,} examples left out of training, as --val asks the same")
        splits["train"], policy = kept, "as given, without questions of val in train"
    else:
        policy = f"by hash of the question, seed {args.seed}: the same questions are on the same side"
        splits = examples.divide(read(args.paths), args.val_fraction, args.seed)
    template = None
    if args.chat_template:
        with open(args.chat_template, encoding="utf-8") as f:
            template = f.read()
    examples.write(args.out, splits, kind, dict(
        sources=sources, licence=args.licence, split_policy=policy, pii=dict(mode=args.pii, found=dict(found)),
        command={k: v for k, v in vars(args).items() if k not in ("run", "out")}), chat_template=template,
        tokenizer=data.Tokenizer.load(args.tokenizer) if args.tokenizer else None)
    print("personal data: " + ("not looked for" if args.pii == "keep" else
                               ", ".join(f"{n:,} {k}" for k, n in sorted(found.items())) or "none found")
          + (f" ({'masked' if args.pii == 'mask' else 'left in'})" if found else ""))
    report_examples(args.out, splits)


def task(args):
    import examples
    import tasks

    found = tasks.load(args.name, args.path, split=args.split, agreement=args.agreement,
                       val_fraction=args.val_fraction, seed=args.seed)
    if args.chat and not found.labels:
        raise ValueError(f"--chat is for tasks with labels to choose from, which {args.name} has not")
    splits = {name: [tasks.in_chat(r, found.labels) if args.chat else r for r in records]
              for name, records in found.splits.items() if records}
    examples.write(args.out, splits, about=dict(
        task=found.about(), licence=found.licence, split_policy=found.split_policy,
        sources=[dict(path=args.path, source=found.source, licence=found.licence)],
        command={k: v for k, v in vars(args).items() if k not in ("run", "out")}))
    print(f"{args.name}: {found.source}; licence {found.licence}")
    for name, value in found.notes.items():
        if value or value == 0:
            print(f"  {name.replace('_', ' ')}: {cli.figures_in_words(value)}")
    report_examples(args.out, splits)
    test = splits.get("test", splits.get("val"))
    if found.metric == "labels" and test:
        for name, scores in tasks.baselines(found.about(), splits["train"], test).items():
            print(f"  baseline {name}: accuracy {scores['accuracy']:.3f}, macro-F1 {scores['macro_f1']:.3f}")


def report_examples(out, splits):
    print(f"wrote {out}: " + ", ".join(f"{len(records):,} {name}" for name, records in splits.items())
          + ("" if splits.get("val") else "; nothing is held out: give more examples, or --val")
          + f"; next: python train.py --data {out} --init CKPT --out DIR")


def date_or_word(text):
    import split

    if text not in ("auto", "none") and split.day_of(text) == split.UNDATED:
        raise argparse.ArgumentTypeError(f"{text} is neither a date like 2023-01-01, nor auto, nor none")
    return text


def main():
    import distill
    import fetch

    parser = cli.Parser("prepare.py", __doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    p = commands.add_parser("edgar", help="download SEC filings", prog="prepare.py edgar",
                            description="Download SEC filings, politely and resumably.")
    fetch.add_flags(p)
    p.set_defaults(run=edgar)
    p = commands.add_parser("corpus", help="documents -> token shards", prog="prepare.py corpus",
                            description="Documents -> token shards.")
    p.add_argument("paths", nargs="+", metavar="PATH", help="files and folders to read")
    p.add_argument("--out", required=True, help="the data directory to write")
    p.add_argument("--tokenizer", default="gpt2",
                   help="gpt2, bpe:N (trained on this corpus), or a model's: its directory or hub id")
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
                   default=max(1, cli.cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    p.add_argument("--seed", type=int, default=0, help="of the shuffle and the split")
    p.add_argument("--shard_tokens", type=cli.positive(int), default=100_000_000, help="tokens per shard")
    p.set_defaults(run=corpus)
    p = commands.add_parser("synth", help="write synthetic 10-K filings", prog="prepare.py synth",
                            description="Synthetic 10-K filings.")
    p.add_argument("--out", required=True, help="the folder to write")
    p.add_argument("--filings", type=cli.positive(int), default=200, help="how many")
    p.add_argument("--seed", type=int, default=0, help="of everything in them")
    p.set_defaults(run=synth)
    for name, what in (("sft", "prompts and completions, conversations, or texts"),
                       ("pairs", "preferences: prompt, chosen, rejected")):
        p = commands.add_parser(name, help=what, prog=f"prepare.py {name}", description=what)
        p.add_argument("paths", nargs="+", metavar="FILE", help="JSON lines or a JSON list; examples.py has the forms"
                       + "; or a task's directory: the right answer against a wrong one" * (name == "pairs"))
        p.add_argument("--out", required=True, help="the data directory to write")
        p.add_argument("--val", action="append", default=[], metavar="FILE",
                       help="examples to validate with, rather than a share")
        p.add_argument("--val_fraction", type=cli.fraction, default=0.1, help="share of the questions to hold out")
        p.add_argument("--pii", choices=("mask", "count", "keep"), default="mask",
                       help="e-mail addresses, phone, social security, IBAN, card numbers: mask, count, or don't look")
        p.add_argument("--chat_template", metavar="FILE", help="Jinja, for conversations [the model's, or a plain one]")
        p.add_argument("--tokenizer", metavar="DIR",
                       help="count tokens with this one, and keep it beside them [GPT-2's, if at hand]")
        p.add_argument("--licence", default="", help="of the examples: what is trained on them will say so")
        p.add_argument("--seed", type=int, default=0, help="of the split")
        p.set_defaults(run=own_examples)
    p = commands.add_parser("task", help="a finance task -> examples", prog="prepare.py task",
                            description="A finance task -> examples.")
    p.add_argument("name", metavar="NAME", help="phrasebank, fiqa, headlines, finqa, convfinqa, or sections (five "
                   "items of a 10-K); sections:1A-7 for these two")
    p.add_argument("path", help="its files, as their authors publish them; for sections any filings, or a corpus")
    p.add_argument("--out", required=True, help="the data directory to write")
    p.add_argument("--split", choices=("dedup", "finbert"), default="dedup",
                   help="phrasebank: duplicates on one side; or as the FinBERT code splits it")
    p.add_argument("--agreement", choices=("50", "66", "75", "all"), default="50",
                   help="phrasebank: least per cent of annotators who agree")
    p.add_argument("--chat", action="store_true",
                   help="ask in the words of the model's chat template, for models that have learnt to answer")
    p.add_argument("--val_fraction", type=cli.fraction, default=0.1, help="where the task has no split of its own")
    p.add_argument("--seed", type=int, default=0, help="of the split")
    p.set_defaults(run=task)
    p = commands.add_parser("distill", help="a teacher's answers -> examples", prog="prepare.py distill",
                            description="A teacher's answers to your prompts -> examples.")
    distill.add_flags(p)
    p.set_defaults(run=distill.run)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    cli.run(main)
