"""
What a checkpoint has learnt, compared to what: report.json, a self-contained report.html, and the model card.

    python eval.py runs/sec --data data/sec --baseline gpt2 --out runs/sec/report
    python eval.py runs/sec --data data/sec --baseline gpt2 --out runs/sec/report --quick        # minutes on a laptop
    python eval.py runs/sec --data data/sec --task data/fpb --tuned runs/fpb --questions data/finqa --out runs/report
    python eval.py runs/fpb --data data/fpb --baseline runs/sec --out runs/fpb/report        # a task, examples or pairs

The report has parts, each a module, each to be had alone with --only: loss on the same bytes (loss.py); what is written
(writing.py); what the states know of sections, companies and what follows (probe.py); tasks before and after
fine-tuning, and whether to fine-tune or retrieve (exam.py); cost (cost.py); and, from thresholds, a verdict
(verdict.py). A part that can't be had here, for want of a baseline, of years or of a licence, says so in the report,
and the rest is whole.

report.json is a function of models, data and flags: the same ones give the same bytes, whatever the number of workers.
Everything that was computed is kept in OUT/cache, under the hash of what it depends on.
"""
import argparse
import base64
import json
import os
import platform
import shutil

import numpy as np
import torch

import cli
import corpus as building
import cost
import data
import exam
import jobs
import loss
import model_card
import page
import probe
import questions
import sample
import verdict
import writing
from ask import Ask, content_key

PARTS = {"loss": loss.run, "writing": writing.run, "probe": probe.probe, "embeddings": probe.embeddings,
         "sections": probe.sections, "tasks": exam.tasks_part, "questions": questions.questions_part}
CONTROLS = ("unigram", "xz -9e, each document", "held-out text", "random weights", "TF-IDF", "TF-IDF similarity",
            "commonest", "BM25", "chance")  # rows of the report that are no models
ELSEWHERE = ("out", "workers", "only", "device")  # flags that change no figure, but for the kind of device
HERE = os.path.dirname(os.path.abspath(__file__))


def parts_asked_for(text):
    chosen = [part.strip() for part in text.split(",") if part.strip()]
    if unknown := set(chosen) - {*PARTS}:
        raise argparse.ArgumentTypeError(f"no part is called {', '.join(sorted(unknown))}; they are {', '.join(PARTS)}")
    return chosen


def names_of(paths):
    """{name to show: path}: a model that is given twice, to be compared with itself, gets a second name."""
    names = {}
    for path in paths:
        name, again = path.rstrip("/") or path, 2
        while name in names or name in CONTROLS:
            name, again = f"{path.rstrip('/')} ({again})", again + 1
        names[name] = path
    return names


def kept(folder, key, function, *args):
    """function(*args), which is JSON; computed once for a key."""
    path = os.path.join(folder, f"part-{key}")
    try:
        return jobs.load_json(path, "part")
    except (OSError, ValueError):  # there is none, or a damaged one
        shutil.rmtree(path, ignore_errors=True)
    result = json.loads(json.dumps(function(*args), allow_nan=False))  # as it will be read again
    if not any(r.get("missing") for r in [result, *result.values()] if isinstance(r, dict)):  # it may come
        with jobs.whole(path) as draft:
            jobs.save_json(draft, "part", result)
    return result


def content_of(path):
    """What tells a data directory or file from another."""
    manifest = os.path.join(path, "manifest.json")
    return next((data.file_sha256(p) for p in (manifest, path) if os.path.isfile(p)), None)


def beginning(args, ask, names):
    """What every report begins with: what was asked of which models, by which code."""
    settings = {k: v for k, v in vars(args).items() if k not in ELSEWHERE}
    return dict(format=1, tool=f"tenk {building.VERSION}", data=args.data, seed=args.seed, quick=args.quick,
                settings=settings | dict(device=ask.device.type),
                versions=dict(python=platform.python_version(), torch=torch.__version__, numpy=np.__version__),
                models=[dict(name=name, dtype=args.dtype) | ask.about[name] for name in names],
                tuned=[dict(name=name) | ask.about[name] for name in args.tuned])


def make_report(args, ask, names):
    """The report on a checkpoint, on text: a dict for JSON."""
    corpus, missing = data.TokenData(args.data, verify=False), dict(ask.missing)
    sources = [data.file_sha256(os.path.join(HERE, name)) for name in sorted(os.listdir(HERE)) if name.endswith(".py")]
    report = beginning(args, ask, names)
    key = [sources, ask.about, report["settings"], corpus.fingerprint(), *map(content_of, args.task + args.questions),
           *(content_of(os.path.join(path, "lineage.json")) for path in ask.paths.values())]
    report |= dict(kind="lm", data_fingerprint=corpus.fingerprint(), split_policy=corpus.manifest["split_policy"])
    for part in PARTS:
        if args.only and part not in args.only:
            missing[part] = f"{verdict.UNASKED}: --only named others"
            continue
        if (part, args.task) == ("tasks", []) or (part, args.questions) == ("questions", []):
            missing[part] = f"{verdict.UNASKED}: name data with --{'task' if part == 'tasks' else part}"
            continue
        print(f"{part} ...", flush=True)
        try:
            report[part] = kept(ask.folder, content_key(part, key), PARTS[part], ask, names, corpus, args)
        except (ValueError, FileNotFoundError) as e:
            missing[part] = str(e)
            print(f"  no {part}: {e}")
    if "loss" in report:
        found = report["loss"].pop("models")
        report["models"] = [dict(m) | next((a for a in report["models"] if a["name"] == m["name"]), {}) for m in found]
        held = [d for d in report["loss"]["documents"] if d["cell"] == "val"]
        missing |= {f"loss on {loss.CELLS[cell]}": "none are held out; prepare.py corpus --val_from DATE does that"
                    for cell in ("val_year", "val_both") if cell not in report["loss"]["cells"]}
        report |= dict(documents=len(held), bytes=sum(d["bytes"] for d in held), document_ids=[d["id"] for d in held])
    if "writing" in report:
        report |= dict(samples=report["writing"]["prompts"], temperature=args.temperature)
    report |= dict(missing=missing, cost=cost.run(ask.paths, report, args))
    return report | dict(headline=verdict.headline(report), verdict=verdict.verdict(report))


def training_curve(run):
    """The run's loss.png as a data URL, or None."""
    path = os.path.join(run, "loss.png")
    if not os.path.exists(path):
        return None
    with open(path, "rb") as f:
        return "data:image/png;base64," + base64.b64encode(f.read()).decode()


def lines(report):
    """The report in a few lines for a terminal."""
    said = []
    for m in report["models"]:
        if "bits_per_byte" in m:
            low, high = m["interval_95"] or (m["bits_per_byte"],) * 2
            said.append(f"{m['name']:<32} {m['bits_per_byte']:.4f} bits/byte ({low:.4f} to {high:.4f})"
                        + (f"   loss {m['loss']:.4f}   perplexity {m['perplexity']:.2f}" if "loss" in m else ""))
    for s in report.get("samples", ())[:3]:
        said.append("\n" + sample.side_by_side(list(s["texts"]), s["prompt"], list(s["texts"].values())))
    said += ["", report["headline"], ""] if report["headline"] else []
    said += [f"{ {True: 'yes', False: 'no', None: '?'}[v['holds']]:<4} {v['claim']}: {v['figure']}"
             for v in report["verdict"]]
    return said + [f"not in this report: {what}: {why}" for what, why in report["missing"].items()]


def flags():
    p = cli.Parser("eval.py", __doc__)
    p.add_argument("checkpoint", metavar="CKPT", help="the checkpoint, run or adapter directory to report on")
    p.add_argument("--data", required=True, help="a data directory; what it holds out is scored")
    p.add_argument("--baseline", action="append", default=[], metavar="CKPT",
                   help="a checkpoint, adapter or hub id to compare with; may be given again")
    p.add_argument("--out", required=True, help="folder for report.json, report.html and the cache")
    p.add_argument("--only", type=parts_asked_for, default=[], metavar="PART,...", help=f"of {', '.join(PARTS)} [all]")
    p.add_argument("--quick", action="store_true", help="a sample of everything: a 124M on a laptop in minutes")
    p.add_argument("--task", action="append", default=[], metavar="DIR",
                   help="a task, examples or pairs (prepare.py task, sft, pairs); may be given again")
    p.add_argument("--tuned", action="append", default=[], metavar="CKPT",
                   help="a checkpoint or adapter tuned on --task or --questions; may be given again, for more seeds")
    p.add_argument("--questions", action="append", default=[], metavar="PATH",
                   help='prepared FinQA or ConvFinQA, or JSONL with "question" and "answer"; may be given again')
    p.add_argument("--accept_licence", action="append", default=[], metavar="DIR",
                   help="a --task or --questions whose licence you may use, though not free; or: all")
    p.add_argument("--price", type=cli.non_negative(float), help="of an hour of one device, for the cost")
    p.add_argument("--max_bytes", type=cli.positive(int), default=4_000_000,
                   help="held-out text to score, of new companies, of new years and of both, each")
    p.add_argument("--max_examples", type=cli.positive(int), help="of a task, examples, pairs or questions [all]")
    p.add_argument("--prompt", action="append", help="for the samples; may be given again [openings from 10-K filings]")
    p.add_argument("--max_new_tokens", type=cli.positive(int), default=100, help="length of the samples shown")
    p.add_argument("--temperature", type=cli.non_negative(float), default=0.8, help="of the samples")
    p.add_argument("--seed", type=cli.non_negative(int), default=0, help="of samples, folds and intervals")
    p.add_argument("--workers", type=cli.positive(int), default=cli.cores(), help="processes, on a CPU")
    cli.add_machine_flags(p)
    p.set_defaults(dtype="float32")
    return p


def main():
    args = flags().parse_args()
    device = cli.choose_device(args.device)
    args.dtype = cli.choose_dtype(args.dtype, device)
    kind = data.read_manifest(args.data)["kind"]
    exam.check_paths(args)
    if kind == "lm" and not data.TokenData(args.data).tokens("val"):
        raise ValueError(f"{args.data} has no validation split; "
                         "build it with --val_fraction above 0 from at least two documents")
    compared, tuned = names_of([args.checkpoint, *args.baseline]), names_of(args.tuned)
    ask = Ask(compared | tuned, os.path.join(args.out, "cache"), args.workers, device, args.dtype)
    first = next(iter(compared))
    if first in ask.missing:
        raise ValueError(ask.missing[first])
    names, args.tuned = ([name for name in given if name in ask.paths] for given in (compared, tuned))
    try:
        report = make_report(args, ask, names) if kind == "lm" else beginning(args, ask, names) | dict(
            exam.examples_report(ask, names, args.data, args), missing=ask.missing)
    finally:
        ask.close()
    os.makedirs(args.out, exist_ok=True)
    model_card.replace(os.path.join(args.out, "report.json"), json.dumps(report, indent=1, allow_nan=False))
    model_card.replace(os.path.join(args.out, "report.html"), page.page(report, training_curve(args.checkpoint)))
    print("\n".join(lines(report) if kind == "lm" else exam.lines_on_examples(report)))
    print(f"look at {os.path.join(args.out, 'report.html')}; report.json has more")
    if kind == "lm":
        print(model_card.write_card(report, ask.paths[first], args.out))


if __name__ == "__main__":
    cli.run(main)
