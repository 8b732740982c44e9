"""
Examinations: fine-tuned models against the one they were made from, beside what needs no language model.

    tasks_part(ask, names, corpus, options)              # each task before and after fine-tuning
    examples_report(ask, names, "data/fpb", options)     # eval.py CKPT --data data/fpb

Before and after answer the same examples and are compared example by example. Runs that differ in nothing but their
seed are one row, which tells the worst and the best of them.
"""
import copy
import json
import math

import numpy as np

import checkpoint
import cli
import data
import examples
import licence
import stats
import tasks

QUICK = 300  # examples
HOW = {"likeliest": "likeliest label", "written": "what it writes"}
# of a run's arguments: the seed, what changes nothing that is learnt, and what goes by its hash
INCIDENTAL = {"seed", "out", "resume", "plan", "data", "init", "device", "compile", "keep", "log_every", "save_every"}
DAMAGE = (ValueError, OSError, LookupError, TypeError, AttributeError)

# ---- what a model makes of examples: the first two run in Ask's processes --------------------------------------------


def completions(model, tokenizer, records, template, dtype):
    """What tasks.sequence_sums says of each record's completion, or of chosen and rejected: (N, 1 or 2, 4)."""
    tokenizer = copy.copy(tokenizer)  # others ask with it, too
    examples.follow_template(tokenizer, template)
    found, *_ = examples.items(tokenizer, records, model.config.block_size)
    scores = tasks.sequence_sums(model, tokenizer, [s for _, item in found for s in item], dtype)
    sums = np.zeros((len(records), len(found[0][1]), 4))
    np.add.at(sums, [i for i, _ in found], scores.reshape(len(found), -1, 4))  # a long text is several rows
    return sums


def likeliest(model, tokenizer, records, labels, dtype):
    return tasks.choose(model, tokenizer, records, labels, dtype)[0]


def examine(ask, name, manifest, records):
    """What a model's answers to records are worth, for the report; and {measure: (values, sizes) over documents}."""
    task, template = manifest.get("task"), {k: manifest[k] for k in ("chat_template", "chat_template_is")}
    dtype, each = getattr(ask, "dtype", "float32"), np.ones(len(records))
    sums = np.array(ask(name, completions, records, chunk=64, template=template, dtype=dtype))
    if not np.isfinite(sums).all():
        raise ValueError(f"{name} gives no finite loss on these examples; its weights are damaged")
    nats, tokens, nats_of_text, size = sums[:, 0].T
    loss, bits = float(nats.sum() / tokens.sum()), nats_of_text / math.log(2)
    entry = dict(loss=loss, perplexity=math.exp(min(loss, 700)), bits_per_byte=float(bits.sum() / max(1, size.sum())))
    values = dict(bits_per_byte=(bits, size)) if size.any() else {}
    if manifest["kind"] == "pairs":
        chosen, rejected = sums[:, 0], sums[:, 1]
        right = chosen[:, 0] < rejected[:, 0]
        shorter = chosen[:, 0] / chosen[:, 1] < rejected[:, 0] / rejected[:, 1]
        entry |= dict(accuracy=float(right.mean()), accuracy_95=stats.wilson(int(right.sum()), len(right)),
                      accuracy_per_token=float(shorter.mean()), margin=float((rejected - chosen)[:, 0].mean()))
        values["accuracy"] = right, each
    elif task:
        said = {"written": ask(name, tasks.generate, records, max_new_tokens=int(tokens.max()) + 8)}
        if task["labels"]:
            said["likeliest"] = ask(name, likeliest, records, chunk=64, labels=task["labels"], dtype=dtype)
        for how, answers in said.items():
            entry[how] = tasks.measure(task, records, answers)
            alone = [tasks.measure(task, [r], [a]) for r, a in zip(records, answers, strict=True)]
            values[how] = [m.get("accuracy", m.get("execution_accuracy")) for m in alone], each
    return entry, {k: by_document(records, *v) for k, v in values.items()}


def by_document(records, *values):
    """Values summed over the records of one document, company or text: what is about the same is right together."""
    metas = [r["meta"] if isinstance(r.get("meta"), dict) else {} for r in records]
    of = [next((str(m[k]) for k in ("document", "company", "text") if m.get(k)), f"record {i}")
          for i, m in enumerate(metas)]
    return [np.bincount(np.unique(of, return_inverse=True)[1], v) for v in values]


def interval(right, n):
    """Of sums over documents; where all or none is right there is nothing to draw anew, and Wilson's holds."""
    share = float(right.sum() / n.sum())
    return stats.interval(right, n) if share not in (0.0, 1.0) else stats.wilson(share * len(n), len(n))


# ---- data directories and the runs that belong to them ---------------------------------------------------------------


def attempt(what, function, *args, **settings):
    """What the function returns, or {"missing": why}, in a line."""
    try:
        return function(*args, **settings)
    except DAMAGE as e:
        return {"missing": cli.in_words(e) if isinstance(e, ValueError | OSError) else
                f"{what} is damaged ({type(e).__name__}: {e}); make it again"}


def sample_of(records, options, quick):
    most = min([len(records), *filter(None, [options.max_examples, options.quick and quick])])
    chosen = np.random.default_rng(options.seed).choice(len(records), most, replace=False)
    return [records[i] for i in sorted(chosen)]


def open_examples(directory, options, quick=QUICK, any_licence=False):
    """
    A data directory: "manifest", its "fingerprint" in a lineage, the "records" to ask (of test, else val, else train),
    those of "train", and "about" them, for the report. ValueError if its licence needs options.accept_licence.
    """
    manifest = data.read_manifest(directory)
    if manifest["kind"] == "lm":
        raise ValueError(f"{directory} is a corpus; give it examples: python prepare.py task, sft or pairs")
    record = licence.lineage("data", data_manifests={directory: manifest})
    name, allowed = record["verdict"]["name"], record["verdict"]["commercial"]
    accepted = {str(a).rstrip("/") for a in options.accept_licence or ()}
    if not (any_licence or allowed or {"all", directory} & accepted):
        why = "it is not known to allow commercial use" if allowed is None else "non-commercial"
        raise ValueError(f"{directory} is {name}: {why}; run again with --accept_licence {directory} if your use is")
    split = next(s for s in ("test", "val", "train") if s in manifest["splits"])
    train, records = (examples.read_split(directory, manifest, s) for s in ("train", split))
    seen = {examples.key_of(r) for r in train}
    about = dict(split=split, shared_with_train=sum(examples.key_of(r) in seen for r in records), of=len(records))
    records = sample_of(records, options, quick)
    return dict(manifest=manifest, fingerprint=record["data"][0]["fingerprint"], records=records, train=train,
                about=about | dict(examples=len(records), licence=name, commercial=allowed))


def baselines(found):
    task, to_mark = found["manifest"].get("task"), found["manifest"]["kind"] == "sft"
    return tasks.baselines(task, found["train"], found["records"]) if task and to_mark else {}


def path_of(ask, name):
    if why := getattr(ask, "missing", {}).get(name):
        raise ValueError(why)
    return checkpoint.resolve(str(getattr(ask, "paths", {}).get(name, name)))


def learnt_from(ask, name):
    """Fingerprints of the data that a checkpoint, its base, the base's base, ... were trained on."""
    found, record = set(), licence.read(path_of(ask, name))
    while record:
        found |= {d["fingerprint"] for d in record["data"]}
        record = (record["base"] or {}).get("lineage")
    return found


def families(ask, runs):
    """[[name, ...], ...]: together are runs of one base, data, and all arguments but the seed, as they have it."""
    found = {}
    for name in runs:
        try:
            state, base = checkpoint.load_json_state(path_of(ask, name)), licence.read(path_of(ask, name))["base"]
            args, seed = {k: v for k, v in state["args"].items() if k not in INCIDENTAL}, state["args"]["seed"]
            key = json.dumps([args, state["data_fingerprint"], base and base["sha256"]], sort_keys=True)
        except DAMAGE:  # somebody else's: nobody knows what it differs in
            key, seed = name, 0
        while seed in found.setdefault(key, {}):  # another step of the same run
            key += "'"
        found[key][seed] = name
    return [list(family.values()) for family in found.values()]


def mean_of(dicts):
    """The means of numbers at any depth, without intervals; of one dict all of it."""
    return copy.deepcopy(dicts[0]) if len(dicts) == 1 else {
        k: mean_of([d[k] for d in dicts]) if isinstance(v, dict) else float(np.mean([d[k] for d in dicts]))
        for k, v in dicts[0].items() if isinstance(v, dict | int | float)}


# ---- tasks: before and after fine-tuning -----------------------------------------------------------------------------


def tasks_part(ask, names, corpus, options):
    """
    {directory: {"split", "examples", "licence", "baselines", "rows", ...} or {"missing": why}} of options.task. A run
    of options.tuned is asked the tasks that its lineage names, or all of them if it names none.
    """
    if not options.task:
        raise ValueError("no task is given; make one with python prepare.py task, and add --task DIR")
    opened = {d: attempt(d, open_examples, d, options) for d in (str(d).rstrip("/") for d in options.task)}
    # those that are refused count, too: a run that learnt from one of them is not asked the others
    ours = {attempt(d, open_examples, d, options, any_licence=True).get("fingerprint") for d in opened}
    return {d: o if "missing" in o else attempt(d, before_and_after, ask, names, d, o, ours, options)
            for d, o in opened.items()}


def before_and_after(ask, names, directory, found, ours, options):
    manifest, rows, first = found["manifest"], [], None
    knows = {name: attempt(f"{name}/lineage.json", learnt_from, ask, name) for name in options.tuned or ()}
    missing = {name: known["missing"] for name, known in knows.items() if isinstance(known, dict)}
    tuned = [name for name, known in knows.items()
             if name not in missing and (found["fingerprint"] in known or not known & ours)]
    for stage, members in [("before", [n]) for n in names] + [("after", runs) for runs in families(ask, tuned)]:
        done = {name: attempt(name, examine, ask, name, manifest, found["records"]) for name in members}
        missing |= {name: d["missing"] for name, d in done.items() if isinstance(d, dict)}
        done = {name: d for name, d in done.items() if isinstance(d, tuple)}
        if not done:
            continue
        entries, each = zip(*done.values(), strict=True)
        row = dict(model=next(iter(done)), stage=stage, seeds=len(done), **mean_of(entries), spread={}, runs=[
            dict(name=name, **entry) for name, entry in zip(done, entries, strict=True)])
        values = {k: (np.mean([e[k][0] for e in each], 0), size) for k, (_, size) in each[0].items()}
        for k, v in values.items():
            where, key = (row[k], "accuracy_95" if "accuracy" in row[k] else "interval_95") if k in HOW else (
                row, f"{k}_95")
            where.setdefault(key, interval(*v))  # a single run's is there
            ends = [float(e[k][0].sum() / e[k][1].sum()) for e in each]
            main = k == "likeliest" or k == "written" and "likeliest" not in values
            row["spread"]["accuracy" if main else k] = [min(ends), max(ends)]
        first = values if members == names[:1] else first
        if first and first is not values:
            row["against_first"] = {k: stats.paired(first[k][0], *v) for k, v in values.items()}
        rows.append(row)
    return dict(name=(manifest.get("task") or {}).get("name") or directory, kind=manifest["kind"], **found["about"],
                baselines=baselines(found), rows=rows) | ({"missing": missing} if missing else {})


def examples_report(ask, names, directory, options):
    """The report on one data directory of kind sft or pairs: "kind", "split", "examples", "models", "baselines", ..."""
    found = open_examples(directory, options, any_licence=True)
    models = [dict(name=name, parameters=getattr(ask, "about", {}).get(name, {}).get("parameters"))
              | examine(ask, name, found["manifest"], found["records"])[0] for name in names]
    return dict(data=directory, data_fingerprint=examples.fingerprint(found["manifest"]), seed=options.seed,
                kind=found["manifest"]["kind"], models=models, **found["about"]) | (
                    {"baselines": b} if (b := baselines(found)) else {})


def lines_on_examples(report):
    """The report on examples in lines for a terminal."""
    lines = [f"{report['data']}, {report['split']}: {report['examples']:,} "
             + ("pairs" if report["kind"] == "pairs" else "examples")]
    rows = [(f"{m['name']}, {how}", m[key]) for m in report["models"] for key, how in HOW.items() if key in m]
    for name, m in rows + [*report.get("baselines", {}).items()]:
        lines.append(f"{name:<48} " + (
            "accuracy {:.3f} ({:.3f} to {:.3f})   macro-F1 {:.3f}   weighted F1 {:.3f}".format(
                m["accuracy"], *m["accuracy_95"], m["macro_f1"], m["weighted_f1"]) if "accuracy" in m else
            "execution {execution_accuracy:.3f}   program {program_accuracy:.3f}".format(**m)))
    for m in report["models"]:
        lines.append(f"{m['name']:<48} loss {m['loss']:.4f} on completions, {m['bits_per_byte']:.4f} bits/byte"
                     + ("   the better one likelier {:.3f} ({:.3f} to {:.3f}), by {:.2f} nats in the mean".format(
                         m["accuracy"], *m["accuracy_95"], m["margin"]) if "accuracy" in m else ""))
    return lines
