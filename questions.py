"""
Fine-tune or retrieve? The same questions to a model and to its fine-tuned descendants, with and without the book.

    questions_part(ask, names, corpus, options)      # {path: {"table": {"base": {"closed book": {...}, ...}}, ...}}
    grade("about $1.2 million", ["1,200,000"])       # {"exact": 0.0, "numeric": 1.0, "f1": 0.0, "score": 1.0}

Questions are asked closed book, with the passages that BM25 finds (Lewis et al. 2020), and with the one that holds the
answer, the best that retrieval could do: the design of Ovadia et al. 2023, "Fine-tuning or retrieval?". An answer is
worth what it says first: it is the number that its first line begins with, not whichever of its numbers happens to be
right.
"""
import itertools
import json
import math
import os
import re
from collections import Counter

import numpy as np

import data
import exam
import examples
import programs
import retrieve
import stats
import tasks

QUICK, QUICK_PASSAGES, ASKED = 100, 2000, (("an answer", 32), ("a program", 96))  # of so many tokens
PASSAGES, SHOWN, DEPTHS = 100_000, 5, (1, 5, 10)  # of filings to search in; in a prompt; of recall

# ---- marking an answer: its first line counts ------------------------------------------------------------------------

UNITS = {"%": 0.01, "percent": 0.01, "per cent": 0.01, "pct": 0.01, "bps": 1e-4, "basis points": 1e-4, "dollars": 1.0,
         "usd": 1.0, "x": 1.0, "k": 1e3, "thousand": 1e3, "m": 1e6, "mm": 1e6, "mn": 1e6, "million": 1e6, "b": 1e9,
         "bn": 1e9, "billion": 1e9, "trillion": 1e12}
UNIT = "%|(?:" + "|".join(sorted([*UNITS][1:], key=len, reverse=True)) + r")\b"
NUMBER = re.compile(r"(?<![\w.,])(\( ?)?(-)?(?=\.?[0-9])((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)(?:\.[0-9]+)?)"
                    rf"(e[-+]?[0-9]+)?((?: ?(?:{UNIT}|\)))*)(?!\w|[.,][0-9])")  # no 3 of Q3, and none of 1,2,3


def first_line(text):
    """The first line, in lower case, without currencies, with one kind of minus and of space."""
    line = (text.strip().splitlines() or [""])[0][:2000].lower()
    line = re.sub(r"[\N{MINUS SIGN}\N{EN DASH}]|\b(minus|negative) (?=[$€£¥]?[0-9])", "-", line)
    return " ".join(re.sub(r"(\b[a-z]{1,2})?[$€£¥]\s*|\b(usd|eur|gbp)\s", "", line).split()).rstrip(".")


def number(text, whole=False):
    """
    (value, half a unit of its last digit, did it have a percent sign? may it be a year?) of the first number of a text,
    or of a text that is a number; or None. "12 %" is 0.12, "$1.2 million" 1,200,000, "(5)" is -5.
    """
    found = NUMBER.fullmatch(first_line(text)) if whole else NUMBER.search(first_line(text))
    if not found:
        return None
    opened, minus, digits, exponent, tail = found.groups("")
    units = [UNITS[u] for u in re.findall(UNIT, tail)]
    unit = math.prod(units) * float(f"1{exponent}") * (-1 if minus or opened and ")" in tail else 1)
    value, half = float(digits.replace(",", "")) * unit, abs(unit) / 2 * 10.0 ** -len(digits.partition(".")[2])
    year = bool(re.fullmatch("(19|20)[0-9]{2}", found[0]))
    return (value, half, min(units, default=1) < 1, year) if math.isfinite(value) else None


def same_number(said, gold, tolerance=0.01):
    """Is it gold to 1 %, or to gold's digits? A year must be that year; where gold is 12 %, 12 will do."""
    value, half, percent, year = gold
    if not said or year:
        return bool(said) and said[0] == value
    near = max(tolerance * abs(value), half * (1 - 1e-9))
    return any(abs(v - value) <= near for v in (said[0], said[0] / 100)[: 1 + (percent and not said[2])])


def words(text):
    """What there is to compare: no case, punctuation, articles; 1,200 is 1200, U.S. is us."""
    text = re.sub(r"(?<=[0-9]),(?=[0-9]{3})|['’]|\.(?![0-9])", "", first_line(text))
    return [w for w in re.findall(r"[0-9]*\.?[0-9]+|[^\W_]+", text) if w not in ("a", "an", "the")]


def grade(answer, golds):
    """
    {"exact", "numeric" (None where the first gold answer is no number), "f1" over words, "score": numeric, else F1}, of
    each the best over the gold answers, which are ways to say the same.
    """
    marks, said, mine = [], number(answer), words(answer)
    for gold in golds:
        value, theirs = number(gold, whole=True), words(gold)
        same = mine == theirs and (bool(mine) or "" != first_line(answer) == first_line(gold))
        if value:  # the words of 5, -5 and 5 % are the same
            same = same and said is not None and math.isclose(said[0], value[0])
        both = sum((Counter(mine) & Counter(theirs)).values())
        marks.append((same, bool(value) and same_number(said, value), 2 * both / max(1, len(mine) + len(theirs))))
    exact, numeric, f1 = (float(max(m)) for m in zip(*marks, strict=True))
    numeric = numeric if number(golds[0], whole=True) else None
    return dict(exact=exact, numeric=numeric, f1=f1, score=f1 if numeric is None else numeric)


def executed(answer, table):
    """The result of an answer that is a program, "" of one that has none; of other answers what they say."""
    line = (answer.strip().splitlines() or [""])[0]
    if line.partition("(")[0].strip() not in {*programs.ARITHMETIC, *programs.OF_A_ROW}:
        return answer
    try:
        return str(programs.execute(line, table))
    except ValueError:
        return ""


# ---- questions: fine-tune or retrieve? -------------------------------------------------------------------------------


def of_programs(records):
    """FinQA's or ConvFinQA's records as questions: what stands before the (first) question is the passage."""
    for r in records:
        meta, asked = r["meta"], f"Question: {r['meta']['question']}"
        before = r["prompt"].removesuffix(f"{asked}\nProgram:")
        talk = re.search(r"(?:Question: .*\nAnswer: .*\n)*\Z", before)[0]  # the turns before
        gold = meta["answer"] if isinstance(meta["answer"], str) else f"{meta['answer']:.5f}"
        yield dict(asked=talk + asked, passage=before.removesuffix(talk).strip(), golds=[gold], meta=meta)


def of_file(path):
    """The questions of JSON lines: "question", "answer" (other ways to say it: "answers"), "passage" or "context"."""
    with open(path, encoding="utf-8-sig", errors="replace") as f:
        lines = [(n, line) for n, line in enumerate(f, 1) if line.strip()]
    for n, line in lines:
        try:
            r = json.loads(line)
            golds = [r["answer"]] * ("answer" in r) + (r.get("answers") or [])
            golds = [("no", "yes")[g] if isinstance(g, bool) else programs.as_text(g) if g is not None else ""
                     for g in golds if not isinstance(g, list | dict)]
            passage = r.get("passage") or r.get("context") or ""
            passage = (passage if isinstance(passage, str) else "\n".join(passage)).strip()
            if not r["question"].strip() or not golds or not all(golds):
                raise ValueError("the question or an answer is empty")
        except exam.DAMAGE as e:
            raise ValueError(f'{path}:{n} is not {{"question": "...", "answer": "..."}} ({e})') from None
        yield dict(asked=f"Question: {r['question'].strip()}", passage=passage, golds=golds, meta=dict(text=passage))


def filings(corpus, most):
    """Passages of a corpus' filings, of the held-out ones first, at most so many."""
    splits = sorted(corpus.manifest["splits"], key=lambda s: (s == "train", s)) if corpus else ()
    found = (tasks.passages(corpus.tokenizer.decode(ids)) for s in splits for _, ids in corpus.read_documents(s))
    return list(itertools.islice(itertools.chain.from_iterable(found), most))


def look_up(questions, pool):
    """Gives each question "found", what BM25 finds for it in the pool; returns how often the gold passage is there."""
    store, ranks = retrieve.Store(), []
    store.add(enumerate(pool))
    for q in questions:
        query = re.sub("(?m)^(Question|Answer): ", "", q["asked"])
        q["found"] = [pool[i] for i, _ in store.search(query, max(DEPTHS))]
        ranks += [next((r for r, p in enumerate(q["found"]) if q["passage"] in p), max(DEPTHS))] * bool(q["passage"])
    recall = {f"recall@{k}": float(np.mean([r < k for r in ranks])) for k in DEPTHS} if ranks else {}
    return dict(passages=len(pool), in_prompt=SHOWN, questions=len(ranks)) | recall


def answers(model, tokenizer, items, end, max_new_tokens):
    """
    Per item {"asked", "context"}: {"answer", "cut": was the context?, "unasked": is the question alone too long?}. end:
    of the prompt; None: asked through the chat template, if the model has one.
    """
    most = min(max_new_tokens, model.config.block_size // 4)
    found, prompts = [], []
    for item in items:
        context, kept = item["context"], None
        while True:
            prompt = "\n".join(filter(None, [context, item["asked"], end or "Answer:"]))
            if not end and tokenizer.chat_template:
                prompt = [dict(role="user", content=prompt.removesuffix(":") + " with a number or a few words.")]
            beyond = len(examples.prompt_tokens(tokenizer, prompt)) + most - model.config.block_size
            if beyond <= 0 or not context:
                break
            kept = (tokenizer.encode(context) if kept is None else kept)[:-beyond]
            context = tokenizer.decode(kept).rstrip("\N{REPLACEMENT CHARACTER}")
        found.append(dict(answer="", cut=context != item["context"], unasked=beyond > 0))
        prompts += [{"prompt": prompt}] * (beyond <= 0)
    texts = iter(tasks.generate(model, tokenizer, prompts, most))
    return [f if f["unasked"] else f | dict(answer=next(texts)) for f in found]


def questions_part(ask, names, corpus, options):
    """
    {name: {"n", "metric", "table": {"base" or "fine-tuned": {"closed book", "retrieved", "gold passage"}}, "retrieval",
    ...} or {"missing": why}} of each of options.questions, data directories of FinQA or ConvFinQA and files.
    A directory is put to those of options.tuned that learnt it or don't say what they learnt, a file to all of them.
    """
    if not options.questions:
        raise ValueError("no questions are given; add --questions with FinQA's data directory or with JSON lines")
    return {path: exam.attempt(path, fine_tune_or_retrieve, ask, names[0], path, corpus, options)
            for path in (str(p).rstrip("/") for p in options.questions)}


def open_questions(path, corpus, options):
    """(questions, passages to search, the data directory as open_examples has it or None) of a path."""
    if not os.path.isdir(path):
        if not (questions := exam.sample_of([*of_file(path)], options, QUICK)):
            raise ValueError(f"{path} has no questions in it")
        return questions, filings(corpus, QUICK_PASSAGES if options.quick else PASSAGES), None
    found = exam.open_examples(path, options, QUICK)
    if (found["manifest"].get("task") or {}).get("metric") != "programs":
        raise ValueError(f"{path} is neither FinQA nor ConvFinQA; write other questions as JSON lines")
    every = (examples.read_split(path, found["manifest"], s) for s in found["manifest"]["splits"])
    return [*of_programs(found["records"])], [q["passage"] for records in every for q in of_programs(records)], found


def in_words(table, n, writes):
    """What was not the same for all rows of the table: the length of answers, passages that did not fit."""
    yield ", ".join("the {} {}for {} of {}{}".format(row, "is asked " * (i == 0), *ASKED[writes[row]],
                                                     " tokens" * (i == 0)) for i, row in enumerate(table))
    for row, ways in table.items():
        if cut := [f"{c['cut']:g} of {n} {w.split()[0]}" for w, c in ways.items() if c["cut"]]:
            yield f"{row}: context was cut to fit in {' and '.join(cut)} prompts"
        if unasked := max(c["unasked"] for c in ways.values()):
            yield f"{row}: {unasked:g} of {n} questions are too long for it even alone, and count as wrong"


def fine_tune_or_retrieve(ask, base, path, corpus, options):
    questions, pool, found = open_questions(path, corpus, options)
    pool = [*dict.fromkeys(filter(None, [*pool, *(q["passage"] for q in questions)]))]
    retrieval, missing = look_up(questions, pool), {}
    contexts = {"closed book": ["" for _ in questions],
                "retrieved": ["\n\n".join(q["found"][:SHOWN]) for q in questions],
                "gold passage": [q["passage"] for q in questions]}
    if lacking := sum(not q["passage"] for q in questions):
        missing["gold passage"] = f"{lacking} of {len(questions)} questions come without a passage"
    if not pool:
        missing["retrieved"] = "there are no passages to search: no filings, and none with the questions"
    knows, lost = exam.ours(ask, [name for name in options.tuned or () if name != base], found)
    own, unread = exam.ours(ask, [base], None)
    missing |= lost | unread
    # of programs only who has learnt this very data knows the layout; the others are asked for the answer itself
    writes = {name for name, (learnt, _) in (knows | own).items() if found and found["fingerprint"] in learnt}
    rows, alien, table, scores, said = {"base": [base]}, {}, {}, {}, [{} for _ in questions]
    for runs in exam.families(ask, sorted(knows, key=lambda name: name not in writes)):
        learnt, what = knows[runs[0]]
        row = f"fine-tuned on {what}: {runs[0]}" if learnt and not found else "fine-tuned"
        row += f": {runs[0]}" * (row in rows)
        rows[row], of = runs, exam.attempt(runs[0], exam.made_from, ask, [base], runs[0])
        if of.get("note", "").startswith("made from"):
            alien[row] = f"{runs[0]} was {of['note'].partition(',')[0]}, and not from {base}, the base here"
    for (row, runs), way in itertools.product(rows.items(), [way for way in contexts if way not in missing]):
        items = [dict(asked=q["asked"], context=c) for q, c in zip(questions, contexts[way], strict=True)]
        marks, cells = [], []
        for name in runs:
            replies = exam.attempt(name, ask, name, answers, items, end="Program:" if name in writes else None,
                                   max_new_tokens=ASKED[name in writes][1])
            if isinstance(replies, dict):
                missing[name] = replies["missing"]
                continue
            texts = [r["answer"] for r in replies]
            marks.append([grade(executed(t, q["meta"].get("table", ())), q["golds"])
                          for t, q in zip(texts, questions, strict=True)])
            cells.append({k: sum(r[k] for r in replies) for k in ("cut", "unasked")})
            if found:
                scored = programs.score(found["records"], texts)
                cells[-1] |= {k: scored[k] for k in ("execution_accuracy", "program_accuracy")}
            for shown, text in zip(said, texts, strict=True):
                shown.setdefault(f"{row}, {way}", text.strip()[:300])
        if not marks:
            continue
        each = {k: [m[k] for run in marks for m in run if m[k] is not None] for k in marks[0][0]}
        score = np.mean([[m["score"] for m in run] for run in marks], 0)
        scores[row, way], n = exam.by_document(questions, score, np.ones(len(questions)))
        cell = {k: float(np.mean(v)) if v else None for k, v in each.items()} | exam.mean_of(cells) | dict(
            interval_95=stats.share(scores[row, way], n), runs=len(marks), asked_for=ASKED[runs[0] in writes][0])
        if (row, way) != ("base", "closed book") and ("base", "closed book") in scores and row not in alien:
            cell["against_closed_book"] = stats.paired(scores["base", "closed book"], scores[row, way], n)
        table.setdefault(row, {})[way] = cell
    if not table:
        raise ValueError("; ".join(missing.values()))
    numeric = sum(number(q["golds"][0], whole=True) is not None for q in questions)
    metric = {0: "F1", len(questions): "numeric"}.get(numeric, f"numeric, and F1 for {len(questions) - numeric}")
    result = dict(n=len(questions), metric=metric, table=table, retrieval=retrieval, notes=[
        *alien.values(), *in_words(table, len(questions), {row: runs[0] in writes for row, runs in rows.items()})],
        fingerprint=examples.fingerprint(found["manifest"]) if found else data.file_sha256(path))
    if {("base", "retrieved"), ("fine-tuned", "closed book")} <= scores.keys() and "fine-tuned" not in alien:
        result["fine_tuned_against_retrieved"] = stats.paired(scores["base", "retrieved"],
                                                              scores["fine-tuned", "closed book"], n)
    result["examples"] = [dict(question=q["asked"].rpartition("Question: ")[2], gold=q["golds"][0], answers=a)
                          for q, a in zip(questions[:5], said[:5], strict=True)]
    about = {k: found["about"][k] for k in ("split", "licence", "commercial")} if found else {}
    return result | about | ({"missing": missing} if missing else {})
