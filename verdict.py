"""
What a model is good for and what not, as figures say it: claims that held, that didn't, and that nobody can tell.

    verdict(report)       # [{"claim", "holds": True | False | None, "figure", "threshold", "part", "why"}, ...]
    headline(report)      # one sentence: compared to what, by how much, how sure

A claim compares a figure with a threshold, which stands here before any model is measured. What has to be above
something is so if all of its 95 % interval (stats.py) is; only if all of it is below does the claim not hold. What may
be at most something holds if it was measured so, and fails if all of its interval, where it has one, is beyond. The
rest is not told apart, which is no fault of the model; nor is what was not measured. "why" says what is lacking.
"""
import math

P = 0.05           # the custom: of twenty differences that are none, one would be told
COMPANIES = 6      # of fewer one has to believe that they are normal: their signs can't give a p below 0.05
COUNTED = 20       # texts, percentages, questions: of fewer, one of them moves a share by more than five points
NEWER = 1.05       # times the bits/byte on unseen documents of known companies and years; a choice
FORGETS = 1.10     # times another model's bits/byte on general English; a choice
LOOPS = 2, 0.01    # times the loops of held-out text, and a point more: filings repeat themselves, too
RECITES = 1, 0.05  # share of sentences from training: that of held-out text, with which it shares boilerplate, and more
ADDS_UP = 0.9      # times the share of consistent percentages in held-out text, of which some are misread
ANSWERS = 0.5      # of the questions: who is wrong more often than right can't be asked
UNASKED = "not asked for"  # how the reason begins why a part is missing that nobody wanted
ABOVE_0 = f"the interval of the difference above 0, p < {P}"
WAYS = {"closed book": "from memory", "retrieved": "with retrieval"}
PARTS = ("loss", "writing", "probe", "embeddings", "sections", "tasks", "questions")


def verdict(report):
    """The claims about the report's first model. What was asked for in vain is a claim that can't be told."""
    name, lacking = (report.get("models") or [{}])[0].get("name"), []
    for part, found in ((part, report.get(part) or {}) for part in PARTS):
        lacking += [(part, f"the part {part}", (report.get("missing") or {}).get(part))]
        for about, inner in (found if part in ("tasks", "questions") else {part: found}).items():
            why = inner.get("missing") or {}
            lacking += [(part, about, why)] if isinstance(why, str) else [
                (part, f"{who} on {about}", reason) for who, reason in why.items()]
    claims = [claim(part, f"what {who} would tell", "", "", None, why) for part, who, why in lacking
              if why and not why.startswith((UNASKED, "was trained on"))]  # nobody expects it to know this, too
    claims += [c for part, of in (("loss", of_loss), ("writing", of_writing)) if report.get(part)
               for c in of(report, name, report[part])]
    claims += [share(*c) for c in of_shares(report, name)]
    return sorted(claims, key=lambda c: PARTS.index(c["part"]))


def claim(part, words, threshold, figure, told, why=None):
    """told: does it hold, and why that can't be told; nothing is, if there is a reason before any figure, why."""
    holds, figure, why = (None, why, why) if why else (told[0], "; ".join(filter(None, (figure, told[1]))), told[1])
    return dict(claim=words, holds=holds, figure=figure, threshold=threshold, part=part, why=why)


def above(interval, other=0, shown="0", p=0.0):
    if not interval or p is None:
        return None, "too little for an interval"
    if interval[0] <= other <= interval[1]:
        return None, f"the interval holds {shown}: not told apart"
    return (interval[0] > other, None) if p < P else (None, f"p is not below {P}: not told apart")


def at_most(value, limit, interval=None):
    return (value <= limit, None) if value <= limit or not interval or interval[0] > limit else (
        None, f"the interval holds {limit:.3f}: not told apart")


def companies(found):
    """How many independent companies there are, where nobody counted them documents; why these are too few, or ""."""
    n = found.get("companies", found.get("documents", 0))
    return n, f"{n} companies, fewer than {COMPANIES}: too few companies to tell" * (n < COMPANIES)


def better(report, other):
    """Does the first model need fewer bits per byte than another? Claim and headline both have it from here."""
    few = companies((report.get("loss") or {}).get("cells", {}).get("val") or report["models"][0])[1]
    return (None, few) if few else above(other.get("difference_interval_95"), p=other.get("p"))


def in_words(p):
    return "no p" if p is None else f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"  # 10,000 random signs can't tell


def of_loss(report, name, loss):
    (model, *others), cells, general = report["models"], loss.get("cells") or {}, loss.get("general") or {}
    for m in [m for m in others if m.get("bits_per_byte") and model.get("bits_per_byte")]:
        yield claim("loss", f"continues filings better than {m['name']}", ABOVE_0, f"{model['bits_per_byte']:.3f} "
                    f"against {m['bits_per_byte']:.3f} bits/byte, {in_words(m.get('p'))}", better(report, m))
        if not m.get("control") and {name, m["name"]} <= general.keys():
            mine, theirs = (general[n]["bits_per_byte"] for n in (name, m["name"]))
            yield claim("loss", f"loses at most {FORGETS - 1:.0%} on general English against {m['name']}",
                        f"at most {FORGETS:g} times its bits/byte", f"{mine:.3f} against {theirs:.3f} bits/byte",
                        at_most(mine, FORGETS * theirs, general[name].get("interval_95")))
    for key, what in ("val", "new companies"), ("val_year", "new years"), ("val_both", "new companies in new years"):
        (n, few), (known, usual) = (companies(cells.get(k, {})) for k in (key, "val_neither"))
        row, other = (cells.get(k, {}).get("models", {}).get(name, {}) for k in (key, "val_neither"))
        bits, theirs = (r.get("bits_per_byte", 0) for r in (row, other))
        yield claim("loss", f"generalises to {what}",
                    f"at most {NEWER:g} times the bits/byte of known companies in known years",
                    f"{bits:.3f} bits/byte, {theirs:.3f} of known companies in known years",
                    at_most(bits, NEWER * theirs, row.get("interval_95")), None if bits and theirs and not few + usual
                    else f"{n} of {what}, {known} of known companies in known years; it takes {COMPANIES} of each")


def of_writing(report, name, writing):
    models, measures = report["models"], writing.get("measures") or {}
    row, real = measures.get(name) or {}, measures.get("held-out text") or measures.get("real filings") or {}
    xz = next((m["bits_per_byte"] for m in models if m.get("control") and m["name"].startswith("xz")), math.inf)
    noise = "it does not yet write language: more bits/byte than xz" * (models[0].get("bits_per_byte", 0) >= xz)
    for words, key, (times, more), of in (("writes without loops", "loop_rate", LOOPS, "10-grams are repeated"),
                                          ("does not recite training", "verbatim", RECITES, "sentences are copies")):
        n, mine, theirs = row.get("texts", 0), row.get(key) or 0, real.get(key) or 0
        lacks = "not measured of it, or of held-out text" * (None in (row.get(key), real.get(key)))
        asked = f"at most {100 * more:g} points above {f'{times} times ' * (times > 1)}held-out text"
        yield claim("writing", words, asked, f"{mine:.1%} of {of}, in held-out text {theirs:.1%}", at_most(
            mine, times * theirs + more), noise or f"{n} texts, fewer than {COUNTED}" * (n < COUNTED) or lacks)
    n, theirs = row.get("percent_checked") or 0, real.get("percent_consistent")
    few = f"{n} percentages to check, fewer than {COUNTED}" * (n < COUNTED)
    yield share("writing", "its percentages add up", row, "percent_consistent", theirs and ADDS_UP * theirs,
                f"{ADDS_UP:g} times held-out text", noise or few)


def share(part, words, row, key, other, than, why=""):
    """The claim that row[key], a share, is above another's, or, a paired difference of shares, above 0."""
    interval = row.get(f"{key}_95") or row.get("interval_95")
    why = why or f"{than} was not measured" * (other is None) or "too little for an interval" * (not interval)
    shown = "{:.1f}, {:.1f} to {:.1f} ".format(*(100 * (x or 0) for x in (row.get(key), *(interval or (0, 0)))))
    if key == "difference":
        p = row.get("p")
        return claim(part, words, ABOVE_0, f"{shown}points, {in_words(p)}", above(interval, p=p), why)
    limit = f"{100 * (other or 0):.1f} %"
    return claim(part, words, f"the interval above {than}", f"{shown}%; {than} {limit}",
                 above(interval, other or 0, limit), why)


def of_shares(report, name):
    """What share() takes, of the parts that count what is right."""
    for part, words, key, than in (
            ("probe", "its states tell sections apart better than TF-IDF", "accuracy", "TF-IDF"),
            ("embeddings", "finds related passages better than BM25", "recall@1", "BM25"),
            ("sections", "knows what section follows", "accuracy", "chance")):
        found = report.get(part) or {}
        for task, t in (found.get("tasks", {}) if part == "probe" else {"": found} if found else {}).items():
            rows, few = t.get("rows", {}), companies({"companies": COMPANIES} | t)[1]
            other = t.get("chance") if than == "chance" else rows.get(than, {}).get(key)
            yield part, words + f": {task}" * bool(task), rows.get(name, {}), key, other, than, few
    for task, found, row in ((t, f, r) for t, f in (report.get("tasks") or {}).items() for r in f.get("rows", ())):
        how = next((k for k in ("likeliest", "written", "accuracy") if k in row), None)
        if row.get("stage") == "after" and how:
            words, marks = f"tuned as {row['model']}", row if how == "accuracy" else row[how]
            key, before = "accuracy" if "accuracy" in marks else "execution_accuracy", (
                row.get("against_base") or row.get("against_first") or {}).get(how)
            better, than, why = f"{words} does better on {task} than", "the commonest answer", row.get("note", "")
            if before or why:  # the note says why what it was made from is not here
                yield "tasks", f"{better} before", before or {}, "difference", 0, "before", why * (not before)
            if how != "accuracy":  # there are no answers to pairs
                majority, tfidf = ((found.get("baselines") or {}).get(k, {}).get(key) for k in ("majority", "tfidf"))
                yield "tasks", f"{better} {than}", marks, key, majority, than
                if tfidf is not None:
                    yield "tasks", f"{words}, beats TF-IDF on {task}", marks, key, tfidf, "TF-IDF"
    for file, found in (report.get("questions") or {}).items():
        few = f"{found.get('n', 0)} questions, fewer than {COUNTED}" * (found.get("n", 0) < COUNTED)
        for stage, way in ((s, w) for s in found.get("table") or {} for w in WAYS if w in found["table"][s]):
            words, cell, alone = f"{file} {WAYS[way]}, {stage}", found["table"][stage][way], stage == "base"
            yield "questions", f"answers at least half of {words}", cell, "score", ANSWERS, "half of them", few
            if alone == (way == "retrieved") and "against_closed_book" in cell:  # not both at once
                helps = ("retrieval" if alone else "fine-tuning") + f" helps on {file}{stage[len('fine-tuned'):]}"
                yield "questions", helps, cell["against_closed_book"], "difference", 0, "closed book", few
        if paired := found.get("fine_tuned_against_retrieved"):
            yield "questions", f"fine-tuned beats retrieval on {file}", paired, "difference", 0, "retrieval", few


def headline(report):
    """The checkpoint against its first baseline, else xz; "" if no loss was measured. Only like tokens are compared."""
    model, *others = report.get("models") or [{}]
    others = [m for m in others if m.get("bits_per_byte") and (not m.get("control") or m["name"].startswith("xz"))]
    if not model.get("bits_per_byte"):
        return ""
    if not others:
        return f"{model['name']} needs {model['bits_per_byte']:.3f} bits per byte; nothing was compared with it."
    other = min(others, key=lambda m: bool(m.get("control")))  # the first that is no control, if there is one
    why, interval, p = better(report, other)[1], other.get("difference_interval_95"), other.get("p")
    val = (report.get("loss") or {}).get("cells", {}).get("val") or model
    (n, few), documents = companies(val), val.get("documents")
    figures = (f"{model['bits_per_byte']:.3f} against {other['bits_per_byte']:.3f} bits per byte on "
               f"{f'{documents} ' if documents else ''}held-out documents of {'' if n == documents else f'{n} '}"
               "new companies" + (f", a difference of {other['difference']:.3f}, 95 % interval {interval[0]:.3f} to "
                                  f"{interval[1]:.3f}" if interval else ", too few for an interval")
               + f", {in_words(p)}" * (p is not None and not few))
    if why and not few:
        return f"No difference can be told between {model['name']} and {other['name']}: {figures}."

    def change(ratio, less="lower", more="higher"):
        percent = 100 * abs(1 - ratio)
        return f"{percent:.{int(percent < 10)}f} % {more if ratio > 1 else less}"

    bits, same = change(model["bits_per_byte"] / other["bits_per_byte"], "fewer", "more"), model.get("tokenizer_sha256")
    tokens = (f", that is {change(math.exp(min(50, model['loss'] - other['loss'])))} perplexity, "
              f"{change(model['loss'] / other['loss'])} loss per token") if (
                  same and same == other.get("tokenizer_sha256")) else ""
    return (f"{model['name']} needs {bits} bits per byte than {other['name']}{tokens}: {figures}"
            + "; too few companies to tell it from chance" * bool(few) + ".")
