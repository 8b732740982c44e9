"""
The model card: what a checkpoint is, what it is good for, from what and how it was made. README.md in its directory.

    model_card(report, "runs/sec/step-00001300")         # the text, as Hugging Face lays it out
    write_card(report, "runs/sec", "runs/sec/report")    # into the checkpoint, unless somebody wrote one by hand

Its figures come from the evaluation (report.json), the rest from what lies in the checkpoint: where it comes from
(lineage.json), how it was trained (train_state.json), and the manifests of its data, if they are still where they were.
"""
import hashlib
import json
import os
import re
import shlex

import card
import checkpoint
import licence
import verdict
from train import FIXED, flags

OURS = "<!-- Written by tenk's eval.py, which writes it anew; delete this line to keep what you write here. -->"
ON_THE_HUB = (r"mit|apache-2\.0|bsd-[23]-clause|isc|zlib|unlicense|cc0-1\.0|pddl|odc-by|odbl|[al]?gpl-3\.0|mpl-2\.0|"
              r"cc-by-(2\.0|3\.0|4\.0)|cc-by-(nc-)?sa-[34]\.0|cc-by-nc-[234]\.0|cc-by-(nc-)?nd-4\.0")
ALLOWED = {True: "allowed", False: "not allowed", None: "not known to be allowed"}
PER_TOKEN = {"loss": "nats/token", "perplexity": "perplexity"}
RISKS = {"verbatim": "of the sentences that it wrote stand word for word in training",
         "loop_rate": "of its 10-grams of words repeat what it had just written",
         "percent_consistent": "of the percentages that it states agree with the dollars beside them"}
PATHS = ("data", "init", "forget_data", "teacher")
ALWAYS = ("optimizer", "schedule", "batch_tokens", "grad_clip", "seed")
DEFAULTS = dict(max_bytes=4_000_000, max_new_tokens=100, temperature=0.8, seed=0, dtype="float32", quick=False)
USE = """Research, to continue text like that which it was trained on, and as a base for fine-tuning in its domain.

Out of scope: advice, financial or legal, and facts. It continues text: what it says of a company may be false."""
LOAD = """
```python
from {library} import {model}
from transformers import AutoTokenizer
model, tokenizer = {model}.from_pretrained("."), AutoTokenizer.from_pretrained(".")
```

Or with tenk, where DIR is this folder: `python sample.py DIR --prompt 'Our revenue'`
"""


def model_card(report, directory):
    """The report on a checkpoint, and its directory -> the text of its README.md, as Hugging Face lays it out."""
    model, record = (report.get("models") or [{}])[0], licence.read(directory) or {}
    state, adapter = (read_json(os.path.join(directory, f)) for f in ("train_state.json", "adapter_config.json"))
    args, sources = state.get("args") or {}, record.get("data") or []
    name, base = model.get("name") or directory, (record.get("base") or {}).get("name") or adapter.get(
        "base_model_name_or_path")
    cost = next((r for r in (report.get("cost") or {}).get("rows") or () if r["name"] == name), {})
    terms = record.get("verdict") or licence.terms(licence.of_model(directory))._asdict()
    what = [cost.get("kind"), base and f"made from {base}", *(f"{of[k]:,} {words}" for of, k, words in (
        (model, "parameters", "parameters"), (model, "block_size", "tokens of context"),
        (model, "vocab_size", "tokens of vocabulary"), (state, "tokens", "tokens of training")) if of.get(k))]
    devices = (state.get("cost") or {}).get("machines") or ["hardware that its checkpoint does not name"]
    price = f"at a price of {(report.get('cost') or {}).get('price_per_hour')} per device hour"
    took = [cost.get("device") or ", then ".join(devices),
            *(f"{cost[k]:,.{0 if cost[k] >= 100 else 2}f} {unit}" for k, unit in (
                ("devices", "of them"), ("hours", "hours" + " by estimate" * bool(cost.get("hours_estimated"))),
                ("tokens_per_second", "tokens/s"), ("peak_memory_gb", "GB at the peak"), ("kilowatt_hours", "kWh"),
                ("money", price)) if cost.get(k) is not None and (k != "devices" or cost[k] > 1))]
    lines = [*header(report, model, name, base, adapter, record, terms), "", OURS, "", f"# {plain(short(name))}", "",
             *[f"This card is from {partial(report)}: for a look, not for a claim.", ""] * bool(partial(report)),
             plain(report.get("headline") or ""), "", "## What it is", "",
             f"A causal language model of {plain(model.get('architecture') or 'GPT-2')}'s architecture: "
             + plain(', '.join(w for w in what if w)) + "."
             + " Parameters are counted without the zero biases that Hugging Face's layout adds." * (
                 read_json(os.path.join(directory, "config.json")).get("bias") is False), "",
             "## Intended use", "", USE]
    for heading, holds in ("Claims that held", True), ("Claims that did not hold", False), ("What can't be told", None):
        claims = [f"- {plain(c['claim'])}: {plain(c['figure'])}"
                  + f" (asked: {plain(c['threshold'])})" * bool(c["threshold"])
                  for c in report.get("verdict") or () if c["holds"] is holds]
        lines += ["", f"## {heading}", "", *(claims or ["None, by what was measured."])]
    lines += ["", "## Training data and licences", "", *card.table("data | kind | sources | licences", [
                  (plain(d["name"]), d["kind"], d["sources"], plain(", ".join(d["licences"]))) for d in sources]), ""]
    for d in sources:
        m = read_json(os.path.join(d["name"], "manifest.json"))
        shards = [s["sha256"] for split in m.get("splits", {}).values() for s in split.get("shards", ())]
        if m.get("kind") == "lm" and d["fingerprint"] == hashlib.sha256(" ".join(shards).encode()).hexdigest()[:16]:
            train = m["splits"]["train"]
            lines += [f"{plain(d['name'])}: {train['documents']:,} documents of {train['companies']:,} companies, "
                      f"{train['tokens']:,} tokens. Held out: {plain(m['split_policy'])}. "
                      + card.PII["mask" if m["pii"]["deidentify"] else m["pii"]["mode"]], ""]
    lines += [f"Commercial use is {ALLOWED[terms['commercial']]}, redistribution {ALLOWED[terms['redistribution']]}: "
              + plain("; ".join(terms.get("because") or [terms["note"] or terms["name"]])) + ".", "",
              "## Training", "", f"On {plain(', '.join(took))}.", ""]
    shown = {k: args[k] for k in (*PATHS, *FIXED, "micro_batch", "dtype") if args.get(k) is not None}
    changed = {k: v for k, v in shown.items() if v != flags().get_default(k)}
    again = [["train.py", *(w for k, v in changed.items() if not (base and k in ("n_layer", "n_head", "n_embd"))
                            for w in (f"--{k}", str(v))[: 2 - (v is True)]), "--out", "OUT"]] * bool(args)
    again.append(evaluation(report))
    told = [(k, plain(v)) for k, v in shown.items() if k in changed or k in ALWAYS]
    lines += [*card.table("setting | value", told), "", "All else is train.py's default.", ""] * bool(shown)
    lines += ["## Evaluation", "", f"On {plain(report.get('data'))}, with 95 % intervals.", "",
              *card.table("measure | model | value | interval", [
                  (what, plain(who), f"{value:.4g}", " to ".join(f"{x:.4g}" for x in interval or ()))
                  for what, who, value, interval in figures(report)]), "", "## Limits and risks", ""]
    written = ((report.get("writing") or {}).get("measures") or {}).get(name) or {}
    lines += [f"- {'An unknown share' if written.get(k) is None else f'{written[k]:.1%}'} {words}."
              for k, words in RISKS.items()]
    lines += ["- Rules that mask personal data miss some, and what was in a filing may be written again.", "",
              "## How to use it", LOAD.format(
                  library="peft" if adapter else "transformers",
                  model="AutoPeftModelForCausalLM" if adapter else "AutoModelForCausalLM"), "## How to make it again",
              "", "```", *("python " + shlex.join(re.sub(r"\s", " ", w) for w in words) for words in again), "```", ""]
    text = "\n".join(lines)
    places = [*(m["name"] for m in report.get("models") or ()), *(d["name"] for d in sources), base,
              report.get("data"), *(args.get(k) for k in PATHS), *again[-1]]
    for path in sorted((p for p in places if p and os.path.isabs(p) and short(p)), key=len, reverse=True):
        for spelled, name in ((path, short(path)), (plain(path), plain(short(path)))):  # not whose folder it is
            text = re.sub(r"(?<![\w./-])" + re.escape(spelled), lambda m, name=name: name, text)
    return text


def partial(report):
    """What a report is that is not a whole one, or None."""
    lacks = " and ".join(part for part in ("loss", "writing") if not report.get(part))
    return "a quick report" if report.get("quick") else f"a partial report, without {lacks}" if lacks else None


def evaluation(report):
    """The words of the command that makes such a report, without what eval.py does anyhow."""
    settings, words = report.get("settings") or {}, ["eval.py", "OUT", "--data", str(report.get("data"))]
    left = [p for p in verdict.PARTS if not str((report.get("missing") or {}).get(p)).endswith("--only named others")]
    for key, value in (settings | {"only": ",".join(left) if len(left) < len(verdict.PARTS) else None}).items():
        for v in value if isinstance(value, list) else [value]:
            if key not in ("checkpoint", "data") and v not in (None, DEFAULTS.get(key)):
                words += [f"--{key}", str(v)][: 2 - (v is True)]
    return [*words, "--out", "OUT/report"]


def header(report, model, name, base, adapter, record, terms):
    """The lines of the YAML header. What a licence is called there means what the lineage's verdict says."""
    slug = re.sub(r"[^a-z0-9.]+", "-", terms["name"].lower()).strip("-") or "unknown"
    same = all(getattr(licence.terms(slug), k) == terms[k] for k in ("commercial", "redistribution"))
    known = same and re.fullmatch(ON_THE_HUB, slug)
    lines = ["---", f"license: {slug if known else 'other'}"]
    lines += [] if known else [f"license_name: {quoted(slug if same else terms['name'])}"]
    lines += ["language: en", f"library_name: {'peft' if adapter else 'transformers'}", "pipeline_tag: text-generation"]
    if base and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", base) and not os.path.exists(base) and not (
            record.get("base") or {}).get("lineage"):  # an id of the hub, not a run of ours that has moved
        lines += [f"base_model: {quoted(base)}", f"base_model_relation: {'adapter' if adapter else 'finetune'}"]
    architecture = re.sub(r"\W", "", model.get("architecture") or "gpt2").lower()  # as the hub tags it
    lines += ["tags:", f"- {architecture}", "- tenk", *["- lora"] * bool(adapter)]
    mine = [(what, value, interval) for what, who, value, interval in figures(report) if who == name]
    if mine:
        data = short(report.get("data") or "held-out data")
        slug = re.sub(r"[^A-Za-z0-9_-]+", "-", data).strip("-") or "data"
        lines += ["model-index:", f"- name: {quoted(short(name))}", "  results:", "  - task:",
                  "      type: text-generation", "    dataset:", f"      type: {quoted(slug)}",
                  f"      name: {quoted(data)}", "    metrics:"]
        for what, value, _ in mine:
            lines += [f"    - type: {quoted(what.split(',')[0].replace('/', '_per_').replace(' ', '_'))}",
                      f"      value: {json.dumps(float(f'{value:.6g}'))}", f"      name: {quoted(what)}"]
    return [*lines, "---"]


def figures(report):
    """(measure, model, value, interval or None) of what the report holds."""
    rows = []

    def add(what, found, key):
        rows.extend((what, who, r[key], r.get(f"{key}_95") or r.get("interval_95") if key not in PER_TOKEN else None)
                    for who, r in found if r.get(key) is not None)

    for key, what in (("bits_per_byte", "bits/byte"), *PER_TOKEN.items()):
        add(what, [(m["name"], m) for m in report.get("models") or ()], key)
    for cell, c in ((report.get("loss") or {}).get("cells") or {}).items():
        add(f"bits/byte, {c['holds']}", c["models"].items() if cell != "val" else (), "bits_per_byte")
    for task, part in ((report.get("probe") or {}).get("tasks") or {}).items():
        add(f"accuracy of a probe, {task}", part["rows"].items(), "accuracy")
    for part, what, key in (("embeddings", "recall@1 of passages", "recall@1"),
                            ("sections", "accuracy of what section follows", "accuracy")):
        add(what, ((report.get(part) or {}).get("rows") or {}).items(), key)
    for task, part in (report.get("tasks") or {}).items():
        for r in part.get("rows", ()):
            add(f"accuracy, {short(task)}, {r['stage']} tuning",
                [(r["model"], r.get("likeliest") or r.get("written") or {})], "accuracy")
    return rows


def write_card(report, name, out):
    """
    The model card, into the checkpoint's directory and seen from its run's; where that is not ours to write (somebody's
    own README.md, a hub cache, a read-only disk), or where a quick or partial report would replace a card, or one has
    no loss, into OUT/MODEL_CARD.md. Returns the sentence that says which.
    """
    directory, why = checkpoint.resolve(name), None
    path, text = os.path.join(directory, "README.md"), model_card(report, directory)
    if not os.path.isdir(directory):
        why = f"{name} is no directory"
    elif any(part.startswith("models--") for part in os.path.realpath(directory).split(os.sep)):
        why = f"{directory} is a cache of the hub"
    elif os.path.exists(path) and OURS not in read_text(path):
        why = f"{path} was written by somebody else"
    elif os.path.exists(path) or not report.get("loss"):
        why = partial(report)
    try:
        if why is None:
            replace(path, text)
            run, step = os.path.split(os.path.abspath(directory))
            own = os.path.join(run, "README.md")
            if os.path.islink(os.path.join(run, "latest")) and os.readlink(os.path.join(run, "latest")) == step and (
                    os.path.islink(own) or not os.path.exists(own)):
                checkpoint.link(os.path.join("latest", "README.md"), own)
            return f"the model card: {path}"
    except OSError as e:
        why = f"{directory} can't be written ({e.strerror})"
    replace(os.path.join(out, "MODEL_CARD.md"), text)
    return f"{why}: the card went to {os.path.join(out, 'MODEL_CARD.md')}"


def replace(path, text):
    with open(path + ".tmp", "w", encoding="utf-8", errors="replace") as f:
        f.write(text)
    os.replace(path + ".tmp", path)


def read_text(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def read_json(path):
    """What is in the file, or {} where there is none, or not one that can be read."""
    try:
        return json.loads(read_text(path))
    except (OSError, ValueError):
        return {}


def short(path):
    """A hub id or a relative path as it is; of an absolute one the last name."""
    return os.path.basename(path.rstrip("/")) if os.path.isabs(path) else path


def plain(text):
    """Text of unknown origin, as one line that means nothing in Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]<>#~&])", r"\\\1", " ".join(str(text).split()))


def quoted(text):
    """A YAML string. JSON's are such, but for characters that YAML refuses."""
    return json.dumps("".join(c if c.isprintable() else " " for c in str(text)), ensure_ascii=False)
