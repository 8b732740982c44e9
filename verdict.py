"""
What a model is good for and what not, as figures say it: claims that hold, that don't, and that nobody can tell.

    verdict(report)       # [{"claim", "holds": True | False | None, "figure", "threshold", "part", "why"}, ...]
    headline(report)      # one sentence: compared to what, by how much, how sure

A claim compares a figure with a threshold, which stands here before any model is measured; where a part is missing or
too little was measured it is None, and "why" says what is lacking. Intervals are of 95 %, over documents or examples
(stats.py); what has to be above something has all of its interval above it.
"""
import math

P = 0.05           # the custom: of twenty differences that are none, one would be told
DOCUMENTS = 6      # of fewer one has to believe that they are normal: their signs can't give a p below 0.05
COUNTED = 20       # texts, percentages, questions: of fewer, one of them moves a share by more than five points
NEWER = 1.05       # times the bits/byte on unseen documents of known companies and years; a choice
FORGETS = 1.10     # times another model's bits/byte on general English; a choice
LOOPS = 2.0, 0.01  # times the loops of real filings, and a hundredth more: filings repeat themselves, too
RECITES = 0.05     # share of sentences from training above that of held-out filings, which share boilerplate with it
ADDS_UP = 0.9      # times the share of consistent percentages in real filings, of which some are misread
ANSWERS = 0.5      # of the questions: who is wrong more often than right can't be asked
UNASKED = "not asked for"  # how the reason begins why a part is missing that nobody wanted
PARTS = ("loss", "writing", "probe", "embeddings", "sections", "tasks", "questions")


def verdict(report):
    """The claims about the report's first model. A part that was asked for in vain is one that can't be told."""
    name, missing = (report.get("models") or [{}])[0].get("name"), report.get("missing") or {}
    claims = [claim(part, f"what the part {part} would tell", None, "", "", missing[part])
              for part in PARTS if part in missing and not missing[part].startswith(UNASKED)]
    claims += [c for part, of in (("loss", of_loss), ("writing", of_writing)) if report.get(part)
               for c in of(report, name)]
    for part, words, row, key, other, than in compared(report, name):
        value, (low, high) = row.get(key), row.get(f"{key}_95") or row.get("interval_95") or (None, None)
        why = None if low is not None and other is not None else "nothing to compare, or too little for an interval"
        claims.append(claim(part, words, why or low > other, why or
                            f"{value:.1%}, {low:.1%} to {high:.1%}; {than} {other:.1%}", f"interval above {than}", why))
    return sorted(claims, key=lambda c: PARTS.index(c["part"]))


def claim(part, words, holds, figure, threshold, why=None):
    return dict(claim=words, holds=None if why else bool(holds), figure=why or figure, threshold=threshold, part=part,
                why=why)


def of_loss(report, name):
    model, loss = report["models"][0], report["loss"]
    cells = {k: (c["documents"], (c["models"].get(name) or {}).get("bits_per_byte"))
             for k, c in (loss.get("cells") or {}).items()}
    (n, _), (known, usual) = (cells.get(k, (0, None)) for k in ("val", "val_neither"))
    few = f"{n} documents, fewer than {DOCUMENTS}" if n < DOCUMENTS else None
    for m in [m for m in report["models"][1:] if m.get("bits_per_byte") and model.get("bits_per_byte")]:
        interval, p = m.get("difference_interval_95"), m.get("p")  # of what it needs more than the checkpoint
        why = few or (None if interval and p is not None else "no interval of the difference")
        yield claim("loss", f"continues filings better than {m['name']}", why or interval[0] > 0 and p < P, why or
                    f"{model['bits_per_byte']:.3f} against {m['bits_per_byte']:.3f} bits/byte, p = {p:.2g}",
                    f"the interval of what the other needs more above 0, p < {P}", why)
        mine, theirs = ((loss.get("general") or {}).get(k, {}).get("bits_per_byte") for k in (name, m["name"]))
        if mine and theirs:
            yield claim("loss", f"keeps general English as well as {m['name']}", mine <= FORGETS * theirs,
                        f"{mine:.3f} against {theirs:.3f} bits/byte", f"at most {FORGETS:g} times")
    for cell, what in (("val", "new companies"), ("val_year", "new years"), ("val_both", "new companies in new years")):
        n, bits = cells.get(cell, (0, None))
        why = None if min(n, known) >= DOCUMENTS and bits and usual else (
            f"{n} documents of {what} held out, {known} of known ones; it takes {DOCUMENTS} of each")
        yield claim("loss", f"generalises to {what}", why or bits <= NEWER * usual, why or
                    f"{bits:.3f} bits/byte, {usual:.3f} on other documents of known companies and years",
                    f"at most {NEWER:g} times", why)


def of_writing(report, name):
    row, real = ((report["writing"].get("measures") or {}).get(n) or {} for n in (name, "real filings"))
    for words, key, times, more, of in (("writes without loops", "loop_rate", *LOOPS, "10-grams are repeated"),
                                        ("does not recite training", "verbatim", 1, RECITES, "sentences are copies")):
        n, mine, theirs = row.get("texts", 0), row.get(key), real.get(key)
        why = f"{n} texts, fewer than {COUNTED}" if n < COUNTED else None if None not in (mine, theirs) else (
            "not measured of it, or of real filings")
        yield claim("writing", words, why or mine <= times * theirs + more, why or f"{mine:.1%} of {of}, in real "
                    f"filings {theirs:.1%}", f"at most {times:g} times real filings' + {more:.0%}", why)
    n, theirs = row.get("percent_checked") or 0, real.get("percent_consistent")
    interval = row.get("percent_consistent_95")
    why = f"{n} percentages to check, fewer than {COUNTED}" if n < COUNTED or not interval else None if theirs else (
        "none of real filings to compare")
    yield claim("writing", "its percentages add up", why or interval[0] >= ADDS_UP * theirs, why or
                f"{row['percent_consistent']:.1%} of {n}, {interval[0]:.1%} at least; real filings {theirs:.1%}",
                f"interval at or above {ADDS_UP:g} times real filings'", why)


def compared(report, name):
    """(part, claim, row, key of its figure, the figure to be above, whose that is) of the parts that count answers."""
    for part, words, key, than in (
            ("probe", "its states tell sections apart better than TF-IDF", "accuracy", "TF-IDF"),
            ("embeddings", "finds related passages better than BM25", "recall@1", "BM25"),
            ("sections", "knows what section follows", "accuracy", "chance")):
        found = report.get(part) or {}
        for task, t in (found.get("tasks") or {}).items() if part == "probe" else [("", found)] * bool(found):
            rows = t.get("rows") or {}
            other = t.get("chance") if than == "chance" else (rows.get(than) or {}).get(key)
            yield part, words + f": {task}" * bool(task), rows.get(name) or {}, key, other, than
    for task, found in (report.get("tasks") or {}).items():
        other = ((found.get("baselines") or {}).get("tfidf") or {}).get("accuracy")
        for row in (r for r in found.get("rows", ()) if r.get("stage") == "after"):
            yield ("tasks", f"tuned as {row['model']}, beats TF-IDF on {task}",
                   row.get("likeliest") or row.get("written") or {}, "accuracy", other, "TF-IDF")
    for file, found in (report.get("questions") or {}).items():
        for stage, way in ((s, w) for s in found.get("table") or {} for w in ("closed book", "retrieved")):
            row = found["table"][stage].get(way) or {} if found.get("n", 0) >= COUNTED else {}
            words = "from memory" if way == "closed book" else "with retrieval"
            yield "questions", f"answers {file} {words}, {stage}", row, "score", ANSWERS, "the bar of"


def headline(report):
    """
    The checkpoint against its first baseline, where there is none against xz; "" where no loss was measured. Perplexity
    and loss per token are compared only if both have the same tokenizer, else bits per byte: tokens differ in length.
    """
    model, *others = report.get("models") or [{}]
    if not model.get("bits_per_byte"):
        return ""
    others = [m for m in others if m.get("bits_per_byte") and (not m.get("control") or m["name"].startswith("xz"))]
    if not others:
        return f"{model['name']} needs {model['bits_per_byte']:.3f} bits per byte; nothing was compared with it."
    other = min(others, key=lambda m: bool(m.get("control")))  # the first that is no control, if there is one
    interval, p = other.get("difference_interval_95"), other.get("p")
    n = ((report.get("loss") or {}).get("cells") or {}).get("val", {}).get("documents")
    figures = (f"{model['bits_per_byte']:.3f} against {other['bits_per_byte']:.3f} bits per byte on "
               + (f"{n} held-out documents of new companies" if n else "held-out documents")
               + (f", a difference of {other['difference']:.3f}, 95 % interval {interval[0]:.3f} to {interval[1]:.3f}, "
                  f"p = {p:.2g}" if interval and p is not None else ", too few for an interval"))
    if not interval or interval[0] <= 0 <= interval[1] or p is None or p >= P:
        return f"No difference can be told between {model['name']} and {other['name']}: {figures}."

    def change(ratio, words):
        percent = 100 * abs(1 - ratio)
        return f"{percent:.{int(percent < 10)}f} % {words[ratio > 1]}"

    words = f"needs {change(model['bits_per_byte'] / other['bits_per_byte'], ('fewer', 'more'))} bits per byte than"
    if model.get("tokenizer_sha256") and model["tokenizer_sha256"] == other.get("tokenizer_sha256"):
        words = (f"has {change(math.exp(model['loss'] - other['loss']), ('lower', 'higher'))} perplexity and "
                 f"{change(model['loss'] / other['loss'], ('lower', 'higher'))} loss per token than")
    return f"{model['name']} {words} {other['name']}: {figures}."
