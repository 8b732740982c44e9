"""
Finance tasks: a raw dataset as it is handed out -> prompts and completions, and what the answers are measured by.

    task = load("phrasebank", "FinancialPhraseBank-v1.0.zip")   # or split="finbert", agreement="all"
    task.splits["train"][0]   # {"id": ..., "prompt": "Sentence: ...\\nSentiment:", "completion": " positive", ...}
    answers, scores = choose(model, tokenizer, task.splits["test"], task.labels)
    measure(task.about(), task.splits["test"], answers)     # accuracy with its interval, F1, confusion, ...
    baselines(task.about(), task.splits["train"], task.splits["test"])    # the same, of what needs no language model

The idea: a classifier is a language model that is asked which of a few completions it finds likeliest. Nothing is added
to the model, and one that never saw the task can be asked as well. Two things make such figures worthless: the same
sentence, headline or company on both sides of the split, which `split_policy` and `notes` account for, and nothing
trivial beside them: where all of PhraseBank's annotators agree, counting words is right seven times in eight.
"""
import csv
import dataclasses
import io
import itertools
import json
import math
import os
import re
import textwrap
import types
import zipfile
from collections import Counter, defaultdict

import numpy as np
import torch
import torch.nn.functional as F

import data
import examples
import sample
import sources
from split import companies, hash64, hold_out, owners_of
from stats import wilson


@dataclasses.dataclass
class Task:
    name: str
    splits: dict  # {"train": [...], "val": [...], "test": [...]} of records {"id", "prompt", "completion", "meta"}
    labels: list  # the completions to choose from; None where the answer is a program
    metric: str  # "labels" or "programs"
    licence: str  # of the raw data
    source: str  # to be cited
    split_policy: str
    notes: dict  # what was counted, removed and skipped, with the reasons

    def about(self):
        """Everything but the records: JSON for a manifest, and what `measure` and `baselines` want to know."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "splits"}


def load(name, path, *, split="dedup", agreement="50", val_fraction=0.1, seed=0):
    """
    The Task of this name, of raw data at `path`. split: for phrasebank "finbert", too; agreement: its file, 50, 66, 75
    or all; val_fraction: of what is not test. "sections:1A-7": of these two only. ValueError or OSError if unreadable.
    """
    name, _, keys = name.partition(":")
    keys = keys.upper().split("-") if keys else [*SECTIONS]
    if name not in TASKS or name != "sections" and keys != [*SECTIONS]:
        raise ValueError(f"there is no task {name}; choose from {', '.join(TASKS)}, or e.g. sections:1A-7")
    if not {*keys} <= {*SECTIONS} or not len({*keys}) == len(keys) > 1:
        raise ValueError(f"sections:{'-'.join(keys)}: name two or more of {', '.join(SECTIONS)}, each once")
    if split != "dedup" and (name, split) != ("phrasebank", "finbert"):
        raise ValueError(f'{name} has no split "{split}"; choose "dedup", or for phrasebank "finbert"')
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction must be at least 0 and below 1, not {val_fraction}")
    path, (read, labels, licence, source) = str(path), TASKS[name]
    options = types.SimpleNamespace(split=split, agreement=str(agreement).lower(), val_fraction=val_fraction, seed=seed,
                                    keys=keys, skipped=[], licences=set())
    if read is None:
        import programs

        splits, notes = getattr(programs, name)(path, val_fraction=val_fraction, seed=seed)
        policy = notes.get("split_policy", "as given")
    else:
        splits, policy, notes = read(path, options)
    skipped = [reason + f" ({n} times)" * (n > 1) for reason, n in Counter(options.skipped).items()]
    notes |= {"records": {side: len(records) for side, records in splits.items()}, "skipped": skipped[:50]}
    if not splits["train"] or not splits["val"] + splits["test"]:
        raise ValueError(f"{path} is too little for {name}: {notes['records']}, skipped {skipped[:3]}; give it more")
    if labels:
        labels = labels if name != "sections" else [" " + SECTIONS[k] for k in keys]
        notes["labels"] = {k: dict(sorted(Counter(r["meta"]["label"] for r in v).items())) for k, v in splits.items()}
    licence = notes.pop("licence", None) or licence  # of sections: what the filings' source says
    return Task(name, splits, labels, "labels" if labels else "programs", licence, source, policy, notes)


def in_chat(record, labels):
    """A record of a task with labels as a question to an assistant, who is told what there is to choose from."""
    choice = f"Answer with one of these and nothing else: {', '.join(label.strip() for label in labels)}."
    return record | {"prompt": [{"role": "system", "content": choice}, {"role": "user", "content": record["prompt"]}]}


def record(id, prompt, label, **meta):
    return {"id": id, "prompt": prompt, "completion": " " + label, "meta": {"label": label, **meta}}


# ---- copies and splits -----------------------------------------------------------------------------------------------


def normal(text):
    """The words and numbers of a text: no case, no punctuation, single spaces."""
    return " ".join(re.findall(r"\w+(?:[.,]\d+)*", text.lower()))


def near_groups(texts, threshold=0.8):
    """
    A uint64 per text, the same for texts that share 80 % of their different words (Jaccard; all numbers are one word),
    and for chains of such. Only texts that share one of their rarest words are compared: the |x| - ceil(0.8 |x|) + 1
    rarest of two sets can't all differ if the sets are that alike (Chaudhuri et al. 2006).
    """
    names = [hash64(normal(t).encode()) for t in texts]
    words = [set(re.sub(r"\d[\d.,]*", "0", normal(t)).split()) for t in texts]
    count = Counter(w for s in words for w in s)
    holders, pairs = defaultdict(list), set()
    for i, mine in enumerate(words):
        rarest = sorted(mine, key=lambda w: (count[w], w))[: len(mine) - math.ceil(threshold * len(mine)) + 1]
        for j in {j for w in rarest for j in holders[w]}:
            if len(mine & words[j]) >= threshold * len(mine | words[j]):
                pairs.add((names[i], names[j]))
        for w in rarest:
            holders[w].append(i)
    return companies(np.array(names, np.uint64), pairs)


def without_copies(records):
    """(records, notes): of those with the words of one prompt the first stays; if their labels differ, none does."""
    alike = defaultdict(list)
    for r in records:
        alike[normal(r["prompt"])].append(r)
    agreed = [rs for rs in alike.values() if len({r["completion"] for r in rs}) == 1]
    return [rs[0] for rs in agreed], {"copies removed": sum(map(len, agreed)) - len(agreed),
                                      "prompts removed for having two labels": len(alike) - len(agreed)}


def divide(records, groups, options, test_fraction=0.2, stratify=False):
    """Splits by whole groups in the order of a seeded hash; stratify: so that each label has its share on each side."""
    stratum = {}
    for r, group in zip(records, groups.tolist(), strict=True):
        stratum[group] = min(stratum.get(group, "~"), r["completion"]) if stratify else ""
    strata, side = np.array([stratum[g] for g in groups.tolist()]), np.full(len(records), "train", "U5")
    for s in sorted({*stratum.values()}):
        rest = np.flatnonzero(strata == s)
        for name, fraction in ("test", test_fraction), ("val", options.val_fraction):
            held = hold_out(groups[rest], np.ones(len(rest)), fraction, options.seed)
            side[rest[held]], rest = name, rest[~held]
    return {name: [r for r, s in zip(records, side, strict=True) if s == name] for name in ("train", "val", "test")}


def by_text(records, options, stratify):
    """(splits, policy, notes) without copies, and with texts that are nearly the same on one side."""
    kept, notes = without_copies(records)
    texts = list(dict.fromkeys(r["meta"]["text"] for r in kept))
    group = dict(zip(texts, near_groups(texts).tolist(), strict=True))
    sizes = Counter(group.values())
    notes |= {"records read": len(records), "texts": len(texts),
              "texts nearly the same as another": sum(n for n in sizes.values() if n > 1)}
    splits = divide(kept, np.array([group[r["meta"]["text"]] for r in kept], np.uint64), options, stratify=stratify)
    return splits, (f"20 % test, {options.val_fraction:.0%} of the rest val, in the order of a hash of text and seed "
                    f"{options.seed}; no copies; texts that share 80 % of their words are on one side"), notes


# ---- Financial PhraseBank: sentences of company news, as an investor feels about them --------------------------------

SENTIMENT = [" negative", " neutral", " positive"]
AGREEMENT = {"50": "50Agree", "66": "66Agree", "75": "75Agree", "all": "AllAgree"}


def phrasebank(path, options):
    if options.agreement not in AGREEMENT:
        raise ValueError(f"agreement must be one of {', '.join(AGREEMENT)}, not {options.agreement}")
    name = f"Sentences_{AGREEMENT[options.agreement]}.txt"
    if os.path.isdir(path):
        files = [f for f in sources.list_files([path]) if os.path.basename(f) in (name, "FinancialPhraseBank-v1.0.zip")]
        path = max(files, key=lambda f: f.endswith(name), default=path)
    raw = b""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as z:
            raw = next((z.read(m) for m in z.namelist() if m.rpartition("/")[2] == name), raw)
    elif not os.path.isdir(path):
        name, raw = os.path.basename(path), sources.read_whole(path)
    try:
        text = raw.decode("utf-8-sig")  # somebody converted it
    except UnicodeDecodeError:
        text = raw.decode("iso-8859-1")
    records, splits = [], {}
    for number, line in enumerate(re.split(r"\r\n?|\n", text), 1):  # splitlines() knows more line ends than the file
        sentence, _, label = (part.strip() for part in line.rpartition("@"))
        if " " + label.lower() in SENTIMENT and sentence:
            records.append(record(f"{name.removesuffix('.txt')}-{len(records)}", f"Sentence: {sentence}\nSentiment:",
                                  label.lower(), text=sentence))
        elif line.strip():
            options.skipped.append(f"{name}:{number}: not sentence@label")
    if not records:
        raise ValueError(f"{path} has no sentence@label of {name}; give FinancialPhraseBank-v1.0.zip or its files")
    if options.split == "dedup":
        splits, policy, notes = by_text(records, options, stratify=True)
    else:
        rest = records
        for side, fraction in ("test", 0.2), ("val", options.val_fraction):
            order = np.random.RandomState(0).permutation(len(rest))  # all there is to train_test_split(random_state=0)
            n = math.ceil(fraction * len(rest))
            splits[side], rest = [rest[i] for i in order[:n]], [rest[i] for i in order[n:]]
        splits = {"train": rest, "val": splits["val"], "test": splits["test"]}
        seen = {normal(r["prompt"]) for r in rest}
        notes = {"records read": len(records), "texts of test that are in train, too":
                 sum(normal(r["prompt"]) in seen for r in splits["test"])}
        policy = ("as scripts/datasets.py of ProsusAI/finBERT: a random 20 % of all rows are test, then "
                  f"{options.val_fraction:.0%} of the others val, by random_state=0, whatever the seed")
    return splits, policy, {"file": name} | notes


# ---- FiQA 2018, task 1: how a headline or post feels about a company, from -1 to 1 -----------------------------------


def fiqa(path, options):
    sides = {"train": [], "val": [], "test": []}
    for file in sources.list_files([path]):
        name = os.path.basename(file)
        try:
            content = json.loads(sources.decode(sources.read_whole(file)))
            entries = [(key, entry["sentence"].strip(), i, info) for key, entry in content.items()
                       for i, info in enumerate(entry["info"])]
        except (ValueError, TypeError, KeyError, AttributeError):
            options.skipped.append(f'{name}: not task 1, JSON of {{key: {{"sentence", "info"}}}}')
            continue
        side = "test" if "test" in name.lower() else "val" if re.search("(?i)val|dev", name) else "train"
        for key, text, i, info in entries:
            try:
                score, target = float(info["sentiment_score"]), info.get("target", "").strip()
            except (ValueError, TypeError, KeyError, AttributeError):
                score = math.nan
            if not text or not -1 <= score <= 1:
                options.skipped.append(f"{name}, {key}: no sentence with a sentiment_score from -1 to 1")
                continue
            label = "negative" if score < -0.1 else "neutral" if score < 0.1 else "positive"  # FinGPT's thresholds
            sides[side].append(record(f"{name}-{key}-{i}", f"Sentence: {text}\nTarget: {target}\nSentiment:", label,
                                      score=score, target=target, aspects=info.get("aspects", []), text=text))
    records = sum(sides.values(), [])
    if not records:
        raise ValueError(f"{path} has no sentences of FiQA task 1; give the folder of its JSON files")
    thresholds = "; negative is below -0.1, positive from 0.1 on"
    if not sides["train"] or not sides["test"]:
        splits, policy, notes = by_text(records, options, stratify=True)
        return splits, policy + thresholds, notes
    group = dict(zip((r["id"] for r in records), near_groups([r["meta"]["text"] for r in records]), strict=True))
    if not sides["val"]:
        groups = np.array([group[r["id"]] for r in sides["train"]], np.uint64)
        sides |= {k: v for k, v in divide(sides["train"], groups, options, 0, True).items() if k != "test"}
    notes, taken = {"records read": len(records)}, {group[r["id"]] for r in sides["test"]}
    for side in "val", "train":  # test stays whole: its figures are to be compared with others'
        kept = [r for r in sides[side] if group[r["id"]] not in taken]
        notes[f"removed from {side}, nearly the same as in a later split"] = len(sides[side]) - len(kept)
        taken, sides[side] = taken | {group[r["id"]] for r in kept}, kept
    return sides, "as given, but texts that share 80 % of their words stay in one split only" + thresholds, notes


# ---- gold headlines: nine questions about each -----------------------------------------------------------------------

QUESTIONS = {"PriceOrNot": "Is it about the price of gold?", "DirectionUp": "Does it say that the price goes up?",
             "DirectionConstant": "Does it say that the price stays the same?",
             "DirectionDown": "Does it say that the price goes down?", "PastPrice": "Is it about prices in the past?",
             "FuturePrice": "Is it about prices in the future?",
             "PastNews": "Is it about something other than prices in the past?",
             "FutureNews": "Is it about something other than prices in the future?",
             "AssetComparision": "Does it compare gold with another asset?"}


def headlines(path, options):
    records = []
    for file in sources.list_files([path]):
        name, text = os.path.basename(file), sources.decode(sources.read_whole(file))
        rows = csv.DictReader(io.StringIO(text.replace("\0", ""), newline=""))
        column = {re.sub("[^a-z]", "", c.lower().replace("parison", "parision")): c for c in rows.fieldnames or []}
        if missing := [c for c in ["News", *QUESTIONS] if c.lower() not in column]:
            options.skipped.append(f"{name}: no column {', '.join(missing)}")
            continue
        for n, row in enumerate(rows):
            headline = " ".join((row[column["news"]] or "").split())
            answers = {q: {"1": "yes", "0": "no"}.get((row[column[q.lower()]] or "").strip()[:1]) for q in QUESTIONS}
            if not normal(headline) or None in answers.values():
                options.skipped.append(f"{name}, line {rows.line_num}: not a headline with nine answers 0 or 1")
                continue
            records += [record(f"{name}-{n}-{q}", f"Headline: {headline}\n{QUESTIONS[q]}\nAnswer:", answer, question=q,
                               text=headline) for q, answer in answers.items()]
    if not records:
        raise ValueError(f"{path} has no csv of gold headlines ({'; '.join(options.skipped[:3])})")
    splits, policy, notes = by_text(records, options, stratify=False)
    return splits, policy + " (published figures are of random splits)", notes


# ---- sections: from which item of a 10-K is this passage? ------------------------------------------------------------

SECTIONS = {"1": "business", "1A": "risk factors", "3": "legal proceedings", "7": "management's discussion",
            "8": "financial statements"}
TITLE = re.compile(r"(?i)\W*(?:part\s+i{1,3}v?\b\W*)?(items?\W{0,3}\d{1,2}[A-C]?\b(?:\W*and\W*\d{1,2}[A-C]?\b)?\W*)?"
                   r"(?:(?:description of )?business(?: and properties)?|risk factors|legal proceedings|management\W?s "
                   r"discussion and analysis(?: of (?:the )?financial conditions? and results? of operations?)?|"
                   r"(?:notes to (?:the )?)?(?:consolidated )?financial statements(?: and supplement\w+ data)?)?\W*"
                   r"(?:\(?continued\W*)?")
PASSAGE, SHORTEST, PER_COMPANY = 1500, 300, 20  # characters at most and least; passages of one label and company
MOST = 2000  # filings of each side of a corpus


def passages(item):
    """Pieces of 300 to 1,500 characters that end with a paragraph (one too long is cut), without the item's title."""
    pieces = [""]
    for line in item.split("\n"):
        title = TITLE.match(line)
        if title[1] or title[0].strip() and len(line) - title.end() < 15:  # "Item 1A. Risk Factors. We ...": keep "We"
            line = line[title.end() :] if len(line) > 150 else ""
        for part in textwrap.wrap(line, PASSAGE) if len(line) > PASSAGE else [line]:
            if len(pieces[-1]) + 1 + len(part) > PASSAGE:
                pieces.append("")
            pieces[-1] += "\n" + part
    return [piece.strip() for piece in pieces if len(piece.strip()) >= SHORTEST]


def filings(path, options):
    """
    Yields (document, held out?) of the filings at a path. Of a data directory of prepare.py corpus it is the split that
    says, so that a model trained on it is tested on companies it has not seen, and 2,000 filings are enough; of raw
    filings None.
    """
    if os.path.isfile(os.path.join(path, "manifest.json")):
        corpus = data.TokenData(path, verify=False)
        options.licences = {s["licence"] for s in corpus.manifest["sources"]}
        for split in ("train", "val"):
            for about, tokens in itertools.islice(corpus.read_documents(split), MOST):
                yield {"id": about["id"], "text": corpus.tokenizer.decode(tokens), "meta": about}, split == "val"
        return
    inputs, unread = sources.list_inputs([path])
    options.skipped += [f"{s['path']}: {s['reason']}" for s in unread]
    options.licences = {f["licence"] for f in inputs}
    for file, part in ((f["path"], part) for f in inputs for part, _ in f["parts"]):
        for document in sources.documents(file, part):
            if isinstance(document, sources.Skip):
                options.skipped.append(f"{file}: {document}")
            else:
                yield document, None


def sections(path, options):
    records, same, notes, held = [], set(), Counter(), []
    for document, is_held in filings(path, options):
        meta, text, known = document["meta"], document["text"], owners_of(document["meta"])
        notes.update({"documents": 1, "documents of no known company, each its own": not known})
        owner = (known or [hash64(text.encode())])[0]
        same.update((owner, other) for other in known)
        for key in options.keys:
            item = meta.get("items", {}).get(key, {"status": "absent", "span": [0, 0]})
            notes[f"item {key} {item['status']}"] += 1
            found = passages(text[slice(*item["span"])]) if item["status"] == "found" else ()
            records += [record(f"{document['id']}-{key}-{i}", f"Passage: {passage}\n\nSection:", SECTIONS[key],
                               company=meta.get("company", ""), owner=owner) for i, passage in enumerate(found)]
            held += [is_held] * len(found)
    notes["passages"] = len(records)
    side = {r["id"]: h for r, h in zip(records, held, strict=True)}
    records, removed = without_copies(records)
    company = companies(np.array([r["meta"].pop("owner") for r in records], np.uint64), same)
    notes = dict(notes) | removed | {"companies": len({*company.tolist()})}
    if notes["companies"] < 3:
        raise ValueError(f"{path}: train, val and test need a company each that has items {', '.join(options.keys)} "
                         f"({notes}); give it more 10-K filings")
    kept, count = [], Counter()
    for i in sorted(range(len(records)), key=lambda i: hash64(f"{options.seed} {records[i]['prompt']}".encode())):
        count[company[i], records[i]["completion"]] += 1
        kept += [i] * (count[company[i], records[i]["completion"]] <= PER_COMPANY)
    notes[f"beyond {PER_COMPANY} of a label and company"] = len(records) - len(kept)
    stated = sorted(options.licences - {"not stated"})
    notes |= {"licence": " and ".join(stated)} if stated else {}
    rest, company = [records[i] for i in kept], company[kept]
    test = [r for r in rest if side[r["id"]]]
    train = np.array([not side[r["id"]] for r in rest])
    splits = divide([r for r in rest if not side[r["id"]]], company[train], options, 0.0 if test else 0.2)
    policy = (f"whole companies (joined by CIK and name): {'what the corpus holds out is' if test else '20 %'} test, "
              f"{options.val_fraction:.0%} of the rest val, in the order of a hash of company and seed {options.seed}")
    return splits | ({"test": test} if test else {}), policy, notes


TASKS = {  # name: (function, labels, licence, source); what has no function is read by programs.py
    "phrasebank": (phrasebank, SENTIMENT, "CC BY-NC-SA 3.0", "Malo et al. 2014, Good debt or bad debt: detecting "
                   "semantic orientations in economic texts, https://arxiv.org/abs/1307.5336"),
    "fiqa": (fiqa, SENTIMENT, "CC BY-NC 4.0", "Maia et al. 2018, WWW'18 open challenge: financial opinion mining and "
             "question answering, https://sites.google.com/view/fiqa"),
    "headlines": (headlines, [" no", " yes"], "CC BY-SA 3.0", "Sinha and Khandait 2020, Impact of news on the "
                  "commodity market: dataset and results, https://arxiv.org/abs/2009.04202"),
    "finqa": (None, None, "MIT", "Chen et al. 2021, FinQA: a dataset of numerical reasoning over financial data, "
              "https://github.com/czyssrs/FinQA"),
    "convfinqa": (None, None, "MIT", "Chen et al. 2022, ConvFinQA: exploring the chain of numerical reasoning in "
                  "conversational finance question answering, https://github.com/czyssrs/ConvFinQA"),
    "sections": (sections, SECTIONS, "public record (SEC EDGAR)", "https://www.sec.gov/edgar")}

# ---- measures --------------------------------------------------------------------------------------------------------


def parsed(answer, labels):
    """Which label (its index) the answer's first line begins with, whatever the case; len(labels) if none."""
    line = (answer.strip().splitlines() or [""])[0].lower()
    for i in sorted(range(len(labels)), key=lambda i: -len(labels[i])):
        if re.match(re.escape(labels[i].strip().lower()) + r"(?!\w)", line):  # "not sure" is not "no"
            return i
    return len(labels)


def by_question(records):
    """{question: indices of its records}; of most tasks {None: all}."""
    found = defaultdict(list)
    for i, r in enumerate(records):
        found[r.get("meta", {}).get("question")].append(i)
    return found


def measure(task_about, records, answers):
    """
    What the answers (a string each) are worth, as scikit-learn defines it: accuracy, with Wilson's 95 % interval, and
    F1, as a plain mean over labels (macro) and weighted by how often each is right. An answer that begins with no label
    is wrong, and counted. Headlines: also per question, and the means over questions. Programs: see programs.score.
    """
    if len(records) != len(answers) or not records:
        raise ValueError(f"{len(answers)} answers for {len(records)} records; give one for each, and at least one")
    if task_about["metric"] == "programs":
        import programs

        return programs.score(records, answers)
    labels, n = task_about["labels"], len(records)
    if unknown := {r["completion"] for r in records} - {*labels}:
        raise ValueError(f"{task_about['name']}: completions {sorted(unknown)[:3]} are none of its labels {labels}")
    confusion = np.zeros((len(labels), len(labels) + 1), np.int64)  # the last column is for what is no label
    for r, answer in zip(records, answers, strict=True):
        confusion[labels.index(r["completion"]), parsed(answer, labels)] += 1
    right, support, said = confusion.diagonal(), confusion.sum(1), confusion.sum(0)[:-1]
    each = {"precision": right / np.maximum(said, 1), "recall": right / np.maximum(support, 1),
            "f1": 2 * right / np.maximum(said + support, 1), "support": support}
    names = [label.strip() for label in labels]
    result = {"n": n, "accuracy": float(right.sum() / n), "accuracy_95": wilson(int(right.sum()), n),
              "macro_f1": float(each["f1"][support + said > 0].mean()), "weighted_f1": float(each["f1"] @ support / n),
              "unparsed": int(confusion[:, -1].sum()),
              "per_label": {name: {k: v[i].item() for k, v in each.items()} for i, name in enumerate(names)},
              "confusion": {name: dict(zip([*names, "unparsed"], row, strict=True))
                            for name, row in zip(names, confusion.tolist(), strict=True)}}
    questions = by_question(records)
    if len(questions) > 1:
        of = {q: measure(task_about, [records[i] for i in chosen], [answers[i] for i in chosen])
              for q, chosen in questions.items()}
        result["avg_f1"] = float(np.mean([m["weighted_f1"] for m in of.values()]))  # as BloombergGPT has it
        result["avg_f1_yes"] = float(np.mean([m["per_label"]["yes"]["f1"] for m in of.values()]))
        result["questions"] = of
    return result


# ---- baselines -------------------------------------------------------------------------------------------------------


def baselines(task_about, train, test):
    """{"majority", "tfidf"}: what `measure` says of the commonest answer, and (not of programs) of counting words."""
    asked, answers = by_question(train), {"majority": [""] * len(test), "tfidf": [""] * len(test)}
    for question, chosen in by_question(test).items():
        fit = [train[i] for i in asked.get(question, range(len(train)))]
        commonest = Counter(sorted(r["completion"] for r in fit)).most_common(1)[0][0]
        words = count_words(fit, [test[i] for i in chosen], task_about["labels"]) if task_about["labels"] else chosen
        for i, answer in zip(chosen, words, strict=True):
            answers["majority"][i], answers["tfidf"][i] = commonest, answer
    return {k: measure(task_about, test, v) for k, v in answers.items() if k == "majority" or task_about["labels"]}


def count_words(train, test, labels, C=10.0):
    """
    The label of each test record by TF-IDF and logistic regression as scikit-learn defines them, TfidfVectorizer(
    ngram_range=(1, 2), sublinear_tf=True) and LogisticRegression(C): a gram weighs (1 + ln its count in the prompt)
    (1 + ln((1 + prompts) / (1 + prompts that have it))), a row has length 1, and C times the sum of the cross-entropies
    + |W|² / 2 is minimised. The product of a sparse row and W is what is called an embedding bag elsewhere.
    """
    words = [[re.findall(r"\b\w\w+\b", examples.asked(r, ("user",)).lower()) for r in side] for side in (train, test)]
    frame = set.intersection(*map(set, words[0]))  # "sentence", "sentiment": what all prompts have says nothing
    words = [[[w for w in ws if w not in frame] for ws in side] for side in words]
    counts = [[Counter(ws + [f"{a} {b}" for a, b in zip(ws, ws[1:], strict=False)]) for ws in side] for side in words]
    df = Counter(gram for c in counts[0] for gram in c)
    column = {gram: i for i, gram in enumerate(df)}

    def rows(counts):
        rows = [{g: (1 + math.log(n)) * (1 + math.log((1 + len(train)) / (1 + df[g]))) for g, n in c.items() if g in df}
                for c in counts]
        norm = [math.sqrt(sum(x * x for x in row.values())) for row in rows]
        value = torch.tensor([x / n for row, n in zip(rows, norm, strict=True) for x in row.values()], dtype=W.dtype)
        start = np.cumsum([0, *map(len, rows)])[:-1]
        return torch.tensor([column[g] for row in rows for g in row], dtype=torch.long), torch.tensor(start), value

    def logits(index, start, value):
        return F.embedding_bag(index, W, start, mode="sum", per_sample_weights=value) + bias

    W = torch.zeros(len(df) + 1, len(labels), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(labels), dtype=torch.float64, requires_grad=True)
    x, y = rows(counts[0]), torch.tensor([labels.index(r["completion"]) for r in train])
    optimizer = torch.optim.LBFGS([W, bias], max_iter=200, history_size=10, tolerance_change=1e-7,
                                  line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(logits(*x), y) + W.square().sum() / (2 * C * len(y))
        loss.backward()
        return loss

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the steps are so small that on a busy machine threads would only wait for each other
    try:
        optimizer.step(closure)
        with torch.no_grad():
            return [labels[i] for i in logits(*rows(counts[1])).argmax(1).tolist()]
    finally:
        torch.set_num_threads(threads)


# ---- answers of a language model -------------------------------------------------------------------------------------


@torch.inference_mode()
def sequence_sums(model, tokenizer, sequences, dtype="float32", batch_tokens=8192):
    """
    Per sequence (ids, learnt), which fits the model, what objective.text_sums adds up, of what is to be learnt: nats,
    tokens, nats of those that stand for bytes, and these bytes; float64 (N, 4). dtype: of the blocks' products; the
    head's are float32. batch_tokens: in one forward pass, padding included.
    """
    sizes, device = torch.from_numpy(tokenizer.token_bytes()), model.wte.weight.device
    found = np.zeros((len(sequences), 4))
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i][0]))
    while order:
        count = max(1, batch_tokens // len(sequences[order[-1]][0]))
        order, batch = order[:-count], order[-count:]
        ids, learnt = (torch.nn.utils.rnn.pad_sequence([torch.from_numpy(sequences[i][k]) for i in batch], True, fill)
                       for k, fill in ((0, 0), (1, False)))
        y = torch.where(learnt, ids, -100)[:, 1:]
        with torch.autocast(device.type, getattr(torch, dtype), enabled=dtype != "float32"):
            nats = model.token_losses(ids[:, :-1].to(device), y.to(device)).double().cpu()
        size = sizes[y.clamp(min=0)] * (y >= 0)
        found[batch] = torch.stack([nats.sum(1), (y >= 0).sum(1), (nats * (size > 0)).sum(1), size.sum(1)], 1).numpy()
    return found


def choose(model, tokenizer, records, labels, dtype="float32", batch_tokens=8192):
    """
    (answers: the label that the model finds likeliest after each prompt; scores (N, L) float64: the mean
    log-likelihood, in nats, of each label's tokens, without what ends the answer behind them). A prompt that is too
    long for the model loses its beginning.
    """
    sequences = []
    for r in records:
        for label in labels:
            ids, learnt = examples.tokens(tokenizer, {"prompt": r["prompt"], "completion": label})
            end = int(np.flatnonzero(learnt)[-1])
            sequences.append(examples.fit(ids[:end], learnt[:end], model.config.block_size + 1))
    nats, tokens, *_ = sequence_sums(model, tokenizer, sequences, dtype, batch_tokens).T
    scores = (-nats / tokens).reshape(len(records), len(labels))
    return [labels[i] for i in scores.argmax(1).tolist()], scores


def generate(model, tokenizer, records, max_new_tokens):
    """The text that the model goes on with after each prompt, always with the likeliest token, up to end-of-text."""
    order = sorted(range(len(records)), key=lambda i: len(examples.asked(records[i])))  # batches with little padding
    texts = sample.generate(model, tokenizer, [records[i]["prompt"] for i in order], max_new_tokens, temperature=0)
    return [text for _, text in sorted(zip(order, texts, strict=True))]
