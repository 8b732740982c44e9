"""
Examinations: fine-tuned models against the one they were made from, beside what needs no language model.

    tasks_part(ask, names, corpus, options)              # each task before and after fine-tuning
    examples_report(ask, names, "data/fpb", options)     # eval.py CKPT --data data/fpb

Before and after answer the same examples, and a run is compared, example by example, with the model that it was made
from. Runs that differ in nothing but their seed are one row, which tells the worst and the best of them.
"""
import copy
import json
import math
import os

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
INCIDENTAL = {"seed", "out", "resume", "plan", "data", "init", "device", "compile", "keep", "log_every", "save_every",
              "micro_batch", "recompute"}
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
        entry |= dict(accuracy=float(right.mean()), accuracy_per_token=float(shorter.mean()),
                      margin=float((rejected - chosen)[:, 0].mean()))
        values["accuracy"] = right, each
    elif task:
        said = {"written": ask(name, tasks.generate, records, max_new_tokens=int(tokens.max()) + 8)}
        if task["labels"]:
            said["likeliest"] = ask(name, likeliest, records, chunk=64, labels=task["labels"], dtype=dtype)
        for how, answers in said.items():
            entry[how] = tasks.measure(task, records, answers)
            alone = [tasks.measure(task, [r], [a]) for r, a in zip(records, answers, strict=True)]
            values[how] = [m.get("accuracy", m.get("execution_accuracy")) for m in alone], each
    values = {k: by_document(records, *v) for k, v in values.items()}
    put_intervals(entry, values)
    return entry, values


def by_document(records, *values):
    """Values summed over the records of one document, company or text: what is about the same is right together."""
    metas = [r["meta"] if isinstance(r.get("meta"), dict) else {} for r in records]
    of = [next((str(m[k]) for k in ("document", "company", "text") if m.get(k)), f"record {i}")
          for i, m in enumerate(metas)]
    return [np.bincount(np.unique(of, return_inverse=True)[1], v) for v in values]


def put_intervals(entry, values):
    """The 95 % interval beside each measure of an entry, over documents, instead of any over examples."""
    for k, v in values.items():
        where, key = (entry[k], "accuracy_95" if "accuracy" in entry[k] else "interval_95") if k in HOW else (
            entry, f"{k}_95")
        where[key] = stats.interval(*v) if k == "bits_per_byte" else stats.share(*v)


# ---- data directories and the runs that belong to them ---------------------------------------------------------------


def check_paths(options):
    """FileNotFoundError if one of options.task or options.questions is not there: a slip of the pen, most likely."""
    for path in (*options.task, *options.questions):
        if not os.path.exists(path):
            raise FileNotFoundError(f"there is no {path}; correct the path, or make it first with python prepare.py")


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
    name, allowed, note = (record["verdict"][k] for k in ("name", "commercial", "note"))
    accepted = {a if a == "all" else os.path.realpath(a) for a in options.accept_licence or ()}
    if not (any_licence or allowed or {"all", os.path.realpath(directory)} & accepted):
        nc = licence.NC in note
        why = ": nobody stated its licence" if name == "not stated" else f" is {name}, " + (
            "non-commercial" if nc else "which is not known to allow commercial use")
        use = "your use is non-commercial" if nc else "you have checked that you may use it"
        raise ValueError(f"{directory}{why}; run again with --accept_licence {directory} if {use}")
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
    """(fingerprints, in words what) of the data that a checkpoint, its base, the base's base, ... learnt from."""
    found, record = {}, licence.read(path_of(ask, name))
    while record:
        for d in [d for d in record["data"] if d["kind"] != "teacher"]:
            found[d["fingerprint"]] = d["kind"] != "lm" and (d["task"] or os.path.basename(d["name"].rstrip("/")))
        record = (record["base"] or {}).get("lineage")
    return {*found}, " and ".join(dict.fromkeys(filter(None, found.values()))) or "text"


def ours(ask, runs, found):
    """{run: learnt_from} of those that know the data found or of which nobody knows what they do; {run: why not}."""
    knows, missing = {name: attempt(f"{name}/lineage.json", learnt_from, ask, name) for name in runs}, {}
    for name, known in [*knows.items()]:
        if isinstance(known, dict) or found and known[0] and found["fingerprint"] not in known[0]:
            missing[name] = known["missing"] if isinstance(known, dict) else f"was trained on {known[1]}, not on this"
            del knows[name]
    return knows, missing


def base_of(ask, name):
    """(name, sha256 of the weights) of what a checkpoint was made from; "" is what nobody knows."""
    path = path_of(ask, name)
    base = (licence.read(path) or {}).get("base")
    if not base:
        adapter = checkpoint.is_adapter(path) and checkpoint.read_json(os.path.join(path, "adapter_config.json"))
        return (adapter or {}).get("base_model_name_or_path") or "", ""
    # beside the name of an adapter stands the hash of the model below it, which it is not
    below = checkpoint.is_adapter(checkpoint.resolve(base["name"])) or (base["lineage"] or {}).get("kind") == "adapter"
    return base["name"], "" if below else base["sha256"] or ""


def made_from(ask, names, run):
    """{"base": which of the names a run was made from, or None and a "note" why}, for its row."""
    (name, sha256), near = base_of(ask, run), False
    for n in names if name else ():
        same = os.path.realpath(path_of(ask, n)) == os.path.realpath(checkpoint.resolve(name))
        theirs, near = getattr(ask, "about", {}).get(n, {}).get("sha256"), near or same
        if sha256 == theirs if sha256 and theirs else same:
            return dict(base=n)
    name = "/".join(name.rstrip("/").split("/")[-2:]) if os.path.isabs(name) else name  # whose folder it is: no matter
    return dict(base=None, note=f"made from {name}{' at another step' * near}, which is not in this report: give it as "
                "--baseline" if name else "nobody knows what it was made from")


def families(ask, runs):
    """[[name, ...], ...]: together are runs of one base, data, and all arguments but the seed, as they have it."""
    found = {}
    for name in runs:
        try:
            state = checkpoint.load_json_state(path_of(ask, name))
            args, seed = {k: v for k, v in state["args"].items() if k not in INCIDENTAL}, state["args"]["seed"]
            base = base_of(ask, name)[1] or state["args"].get("init")
            key = json.dumps([args, state["data_fingerprint"], base], sort_keys=True)
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
    of options.tuned is asked the tasks that it has learnt from; if nobody knows what it has learnt from, all of them.
    """
    if not options.task:
        raise ValueError("no task is given; make one with python prepare.py task, and add --task DIR")
    opened = {d: attempt(d, open_examples, d, options) for d in (str(d).rstrip("/") for d in options.task)}
    return {d: o if "missing" in o else attempt(d, before_and_after, ask, names, d, o, options)
            for d, o in opened.items()}


def before_and_after(ask, names, directory, found, options):
    manifest, rows, before = found["manifest"], [], {}
    tuned, missing = ours(ask, options.tuned or (), found)
    for stage, members in [("before", [n]) for n in names] + [("after", runs) for runs in families(ask, tuned)]:
        done = {name: attempt(name, examine, ask, name, manifest, found["records"]) for name in members}
        missing |= {name: d["missing"] for name, d in done.items() if isinstance(d, dict)}
        done = {name: d for name, d in done.items() if isinstance(d, tuple)}
        if not done:
            continue
        entries, each = zip(*done.values(), strict=True)
        name = next(iter(done)) + f" and {len(done) - 1} more" * (len(done) > 1)
        row = dict(model=name, stage=stage, seeds=len(done), **mean_of(entries), spread={}, runs=[
            dict(name=name, **entry) for name, entry in zip(done, entries, strict=True)])
        values = {k: (np.mean([e[k][0] for e in each], 0), size) for k, (_, size) in each[0].items()}
        put_intervals(row, values)
        for k in values:
            ends = [float(e[k][0].sum() / e[k][1].sum()) for e in each]
            main = k == "likeliest" or k == "written" and "likeliest" not in values
            row["spread"]["accuracy" if main else k] = [min(ends), max(ends)]
        if stage == "after":
            row |= dict(base=None) | attempt(members[0], made_from, ask, names, members[0])
        key, base = ("against_base", row["base"]) if stage == "after" else ("against_first", names[0])
        if base in before:
            row[key] = {k: stats.paired(before[base][k][0], *v) for k, v in values.items()}
        if stage == "before":
            before[members[0]] = values
        rows.append(row)
    return dict(name=(manifest.get("task") or {}).get("name") or directory, kind=manifest["kind"],
                fingerprint=examples.fingerprint(manifest), **found["about"], baselines=baselines(found), rows=rows) | (
                    {"missing": missing} if missing else {})


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
    for name, m in rows + [(k, m) for k, m in report.get("baselines", {}).items() if k != "missing"]:
        lines.append(f"{name:<48} " + (
            "accuracy {:.3f} ({:.3f} to {:.3f})   macro-F1 {:.3f}   weighted F1 {:.3f}".format(
                m["accuracy"], *m["accuracy_95"], m["macro_f1"], m["weighted_f1"]) if "accuracy" in m else
            "execution {execution_accuracy:.3f}   program {program_accuracy:.3f}".format(**m)))
    for m in report["models"]:
        lines.append(f"{m['name']:<48} loss {m['loss']:.4f} on completions, {m['bits_per_byte']:.4f} bits/byte"
                     + ("   the better one likelier {:.3f} ({:.3f} to {:.3f}), by {:.2f} nats in the mean".format(
                         m["accuracy"], *m["accuracy_95"], m["margin"]) if "accuracy" in m else ""))
    lost = {k: v for part in (report, *report.values(), *report["models"]) if isinstance(part, dict)
            for k, v in (part.get("missing") or {}).items()}
    return lines + [f"not in this report: {what}: {why}" for what, why in lost.items()]
