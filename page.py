"""
report.html: what report.json says, as a page to show a room; it opens from disk and needs no network and no script.

It is a story: the finding, which claims held, compared to what, then the details; any part may be absent. What a model
or a data set wrote is hostile until shown otherwise: `text` is the one way for a string into the page, `show` the one
for a value; tables and charts take raw values and call them. Charts are SVG with x in percent, y and letters in pixels.
Series differ in shape as well as in colour; what is no model is hollow.
"""
import html
import math
import re
import shlex

STYLE = """
:root{color-scheme:light dark; --page: #fdfdfb; --ink: #1c1f22; --soft: #585e65; --line: #d8d8d2; --panel: #f4f4ef;
--s0: #0b5aa8; --s1: #a84300; --s2: #12705a; --s3: #7a3a9c; --s4: #6b5a00; --good: #176a38; --bad: #a5281e; --open:
#755000; --serif:"Iowan Old Style", Charter, Georgia, "Liberation Serif", serif} @media screen and
(prefers-color-scheme: dark){:root{--page: #15181b; --ink: #e8e8e4; --soft: #a6acb3; --line: #3a3f45; --panel: #1f2327;
--s0: #7db9ff; --s1: #ffab70; --s2: #63d0b0; --s3: #d5a5f0; --s4: #d8c45c; --good: #7acb95; --bad: #ff9d92; --open:
#e6bb62}} *{box-sizing:border-box} ul{list-style:none; padding:0; margin:0} li{margin:0 0 .9rem} body{margin:0 auto;
max-width:68rem; padding:3rem 1.25rem; background:var(--page); color:var(--ink); font:16px/1.55 -apple-system,
"Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; overflow-wrap:anywhere} h1{font-size:1rem; color:var(--soft);
margin:0} h2, .headline, .prompt{font-family:var(--serif)} .headline{font-size:clamp(1.55rem, 1.1rem + 1.9vw, 2.5rem);
line-height:1.2; margin:.6rem 0 1.2rem; max-width:34em} h2{font-size:1.75rem; font-weight:400; line-height:1.25;
margin:0 0 .6rem} a{color:var(--s0)} h3{font-size:1rem; margin:1.7rem 0 .5rem} p{max-width:44rem; margin:.5rem 0 1rem}
li b{display:block} section{border-top:1px solid var(--line); padding:1.5rem 0 .4rem; margin-top:1.5rem} nav
ul{display:flex; flex-wrap:wrap; gap:.1rem 1.1rem; font-size:.9rem} nav li{margin:0} .note, caption, figcaption,
footer{color:var(--soft); font-size:.875rem} .verdict{display:grid; grid-template-columns:repeat(auto-fit,
minmax(min(100%, 17rem), 1fr)); gap:0 2rem} .verdict h3{margin:.8rem 0; padding-top:.6rem; border-top:3px solid;
color:var(--good)} .verdict .bad{color:var(--bad)} .verdict .open, .quick{color:var(--open)} .quick{border-left:4px
solid; padding-left:.8rem} .scroll{overflow:auto; margin:.9rem 0 1.2rem; max-height:44rem}
table{border-collapse:collapse; font-size:.9rem; line-height:1.35; font-variant-numeric:tabular-nums} th,
td{padding:.38rem .75rem; text-align:right; border-bottom:1px solid var(--line); white-space:pre; vertical-align:top;
overflow-wrap:break-word; font-weight:inherit} caption{text-align:left; padding-bottom:.4rem} thead
th{vertical-align:bottom; color:var(--soft); white-space:normal; max-width:9rem} .mine{font-weight:650} th:first-child,
.words{text-align:left; white-space:pre-line; max-width:18rem; overflow-wrap:anywhere} th:first-child{padding-left:0;
min-width:7.5rem} .group{padding-top:.9rem; font-weight:600} .words{min-width:5.5rem} .group .note{font-weight:400}
img{max-width:100%} figure{margin:0; min-width:0} figcaption b{color:var(--ink); font-size:1rem; display:block} .panels,
.columns{display:grid; gap:1.5rem 2.2rem; margin:1rem 0; grid-template-columns:repeat(auto-fill, minmax(min(100%,
18.5rem), 1fr))} .panels > :only-child{grid-column:1 / -1; max-width:46rem} .columns{gap:1rem;
grid-template-columns:repeat(auto-fit, minmax(min(100%, 20rem), 1fr))} svg{display:block; width:100%; margin-top:.5rem;
font-size:13px; fill:var(--ink); overflow:visible} svg svg{margin:0} .clip{overflow:hidden} .grid{stroke:var(--line)}
.bold{font-weight:600} .tick{fill:var(--soft); font-size:11.5px} .m5{color:var(--soft)} .m5 .mark{fill:var(--page)}
.halo{paint-order:stroke; stroke:var(--page); stroke-width:4px} .m0{color:var(--s0)} .m1{color:var(--s1)}
.m2{color:var(--s2)} .m3{color:var(--s3)} .m4{color:var(--s4)} .mark{fill:currentColor; stroke:currentColor;
stroke-width:1.6} .span{stroke:currentColor; stroke-width:3; stroke-linecap:round; opacity:.65} .cut{display:none}
.says{background:var(--panel); border-left:3px solid var(--line); padding:.7rem .9rem; min-width:0; font-size:.92rem}
.says.mine{border-left-color:var(--s0); font-weight:inherit} .says b{color:var(--soft); font-size:.85rem}
.text{white-space:pre-wrap; max-height:20rem; overflow:auto; margin:.3rem 0 0} .prompt{font-size:1.15rem;
font-style:italic; font-weight:400; white-space:pre-line} dl{display:grid; grid-template-columns:minmax(7rem, 12rem)
minmax(0, 1fr); gap:.3rem 1.2rem; font-size:.9rem} dt{color:var(--soft)} dd{margin:0} @media print{@page{margin:15mm
14mm} body{font-size:10.5pt; padding:0; max-width:none} nav{display:none} h2, h3, figcaption, caption{break-after:avoid}
figure, tr, .says, li, .short{break-inside:avoid} table{font-size:7.5pt} th, td{padding:.2rem .4rem;
white-space:pre-line} th:first-child{min-width:4rem} .scroll{overflow:visible; max-height:none} .text{max-height:30rem;
overflow:hidden} .cut{display:block} details::details-content{content-visibility:visible; block-size:auto}}
summary{cursor:pointer; color:var(--soft); margin:0 0 .9rem}
"""
# what may stand in a table: key|heading, if it is not the key|format, if it is not .3f; in the order of the columns
FIGURES = """kind|way; company; cell; documents||,; companies||,; bytes|bytes scored|,; scored_bytes|bytes scored|,.0f;
overlap|13-grams also in training|.1%; asked_for; score; bits_per_byte|bits/byte; interval_95|95 % interval; accuracy;
macro_f1|macro-F1; weighted_f1|weighted F1; execution_accuracy; program_accuracy; accuracy_unseen|on unseen companies;
n_unseen|passages of those|,; layer||,; pmi|accuracy, less what is likely anyway (PMI); accuracy_per_token;
margin|margin, nats|.2f; seeds||,; runs|seeds|,; range|range over seeds; loss|nats/token; perplexity||,.2f;
bytes_per_token|bytes/token|.2f; difference|minus the first|+.3f; difference_interval_95|95 % interval|+.3f; p||p;
against_first|minus the first|+.3f; against_base|minus its base|+.3f; against_closed_book|minus base, closed book|+.3f;
recall@1; recall@5; recall@10; mrr|MRR; texts||,; words||,; looping|texts ending in a loop|.1%; loop_rate|repeated
10-grams|.1%; distinct_1|distinct-1; distinct_2|distinct-2; distinct_3|distinct-3; sentences||,; verbatim||.1%;
longest|longest match, tokens|,; percent_words|words searched for percentages|,; percent_checked|percentages checked|,;
percent_consistent|of them right|.0%; exact; numeric; f1|F1; cut|passages cut short|,.4g; unasked|too long to ask|,.4g;
hours||,.2f; device_hours||,.2f; device_hours_with_base|device hours with its base|,.2f; money|price|,.4g;
money_with_base|price with its base|,.4g; tokens||,; tokens_per_second|tokens/s|,.0f; watts||,.0f;
kilowatt_hours|kWh|,.2f; peak_memory_gb|peak GB|,.1f; trainable_parameters|trained parameters|,; quality;
quality_name|measured as; device; parameters||,; vocab_size|vocabulary|,; block_size|context|,; tokens_trained|tokens
trained on|,; dtype; sha256"""
FIGURES = {k: v for key, heading, form, *_ in ((f + "||").split("|") for f in " ".join(FIGURES.split()).split("; "))
           for k, v in ((key, (heading or key.replace("_", " "), form or ".3f")),
                        (f"{key}_95", ("95 % interval", form or ".3f")), (f"{key}_p", ("p", "p")))}
MODEL = ("parameters", "vocab_size", "block_size", "tokens_trained", "dtype", "sha256")  # have a table of their own
CHARTED = ("score", "accuracy", "execution_accuracy", "bits_per_byte", "recall@1")  # the first of them that there is
ITEMS = {"1": "Business", "1A": "Risk factors", "7": "MD&A", "8": "Financial statements", "15": "Exhibits"}
MARKS = ["M-5.5 0a5.5 5.5 0 1 0 11 0a5.5 5.5 0 1 0-11 0z", "M-5-5h10v10h-10z", "M0-7L7 0L0 7L-7 0z",
         "M0-6.5L6.5 5.5h-13z", "M-6.5-5.5h13L0 6.5z", "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z"]  # last: no model
HIDDEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff"
                    "\ufff9-\uffff]")


def at(thing, *path):
    """thing[path[0]][path[1]]..., or None where that leads nowhere."""
    for key in path:
        thing = thing.get(key) if isinstance(thing, dict) else None
    return thing


def dicts(thing, *path):
    """The (name, dict) pairs of the dict at path, or of the list of dicts there, which have their names in them."""
    found = at(thing, *path)
    if isinstance(found, list):
        return [(str(at(v, "name") or at(v, "model") or "–"), v) for v in found if isinstance(v, dict)]
    return [(k, v) for k, v in found.items() if isinstance(v, dict)] if isinstance(found, dict) else []


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300  # not so of a NaN


def is_pair(value):
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(is_number, value))


def text(value, limit=20_000):
    """Any string as HTML: escaped, at most `limit` characters, those that can't be seen or turn the line as U+FFFD."""
    value = str(value)
    cut = f"… ({len(value) - limit:,} more characters)" * (len(value) > limit)
    return html.escape(HIDDEN.sub("\ufffd", f"{value[:limit]}{cut}".replace("\r\n", "\n")))


def show(value, form=""):
    """A value as HTML: a number by its format ("p": a p value), a pair as "low to high", what isn't there as "–"."""
    if is_pair(value):
        return " to ".join(show(v, form) for v in value)
    if is_number(value) and form == "p":
        return "&lt; 0.001" if value < 0.001 else f"{value:.3f}"
    if is_number(value):
        return format(value, form if abs(value) < 1e12 else ".2e").replace("-", "−")
    value = ("no", "yes")[value] if isinstance(value, bool) else value
    return text(value, 160) if isinstance(value, str) and value else "–"


def para(words, kind=""):
    return f'<p class="{kind}">{text(words)}</p>\n' if words else ""


def notes(part):
    """What a part and its rows say about themselves."""
    said, lost = at(part, "notes") or [], at(part, "missing") or at(part, "baselines", "missing") or {}
    said = [str(v) for v in (said if isinstance(said, list) else [said]) if v] + [
        f"{name}: {row['note']}" for name, row in dicts(part, "rows") if row.get("note")]
    lost = "; ".join(f"{what} ({why})" for what, why in lost.items()) if isinstance(lost, dict) else lost
    return para("; ".join(dict.fromkeys(said)), "note") + para(lost and f"Not measured: {lost}", "note")


def floored(words):
    """A sentence with its p values as the tables have them: tests by drawing can't tell less than 1 in 10,001."""
    return re.sub(r"\bp = (?:0\.000\d*|\d[\d.]*e-\d+)", "p < 0.001", str(words)).replace(" %", "\u00a0%")


def described(facts):
    said = ""
    for key, v in (fact for fact in facts.items() if fact[1] not in (None, "", [], {})):
        words = [x if isinstance(x, str) else html.unescape(show(x)) for x in (v if isinstance(v, list) else [v])]
        said += f"<dt>{text(key, 80)}</dt><dd>{text(shlex.join(words) if isinstance(v, list) else words[0], 2000)}</dd>"
    return said and f"<dl>{said}</dl>\n"


def table(caption, groups, figures):
    """groups: (heading, note, rows: (label, dict)); columns: what any row has of figures, {key: (heading, format)}."""
    rows = [row for *_, found in groups for _, row in found]
    keys = [key for key, (_, form) in figures.items() if any(show(row.get(key), form) != "–" for row in rows)]
    kind = {key: "words" if any(isinstance(row.get(key), str) for row in rows) else "number" for key in keys}
    head = "".join(f'<th scope="col" class="{kind[key]}">{text(figures[key][0], 160)}</th>' for key in keys)
    body = ""
    for heading, note, found in groups:
        if len(groups) > 1:
            body += (f'<tr><th scope="rowgroup" class="group" colspan="{len(keys) + 1}">{text(heading, 160)} '
                     f'<span class="note">{text(note, 300)}</span></th></tr>\n')
        for name, row in found:
            cells = "".join(f'<td class="{kind[key]}">{show(row.get(key), figures[key][1])}</td>' for key in keys)
            body += f'<tr class="{"mine" * (not row.get("mark", 1))}"><th scope=row>{text(name, 99)}</th>{cells}</tr>\n'
    return keys and (f'<div class="scroll{" short" * (len(rows) < 16)}" role="region" tabindex="0" '
                     f'aria-label="{text(caption, 300)}"><table><caption>{text(caption, 300)}</caption>'
                     f"<thead><tr><td></td>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n") or ""


def boxes(texts, mine=None):
    """Texts that somebody or something wrote, (heading, text) each, in boxes of limited height side by side."""
    found = ""
    for title, body in texts:
        shown = text(body) if body else "–"
        long = len(shown) + 60 * shown.count("\n") > 900
        found += (f'<div class="says{" mine" * (title == mine)}"><b>{text(title, 160)}</b>'
                  f'<div class="text"{" tabindex=0" * long}><bdi>{shown}</bdi></div>'
                  f'{"<p class=cut>Cut here in print; report.json has it whole.</p>" * long}</div>\n')
    return f'<div class="columns">{found}</div>\n' if found else ""


def ticks(values):
    """Three to six round numbers around the values."""
    low, high = min(values), max(values)
    span = high - low if high - low > abs(high) / 1e9 else abs(high) or 1.0
    unit = 10.0 ** math.floor(math.log10(span))
    step = next(unit * k for k in (0.25, 0.5, 1, 2, 2.5) if span / (unit * k) <= 4.5)
    first = math.floor(low / step)
    return [float(f"{step * k:.12g}") for k in range(first, max(math.ceil(high / step), first + 1) + 1)]


def along(value, scale, low, high):
    return low + (high - low) * (value - scale[0]) / (scale[-1] - scale[0])


def line(x1, y1, x2, y2, kind="grid"):
    return f'<line class="{kind}" x1="{x1:.2f}%" y1="{y1:.1f}" x2="{x2:.2f}%" y2="{y2:.1f}"/>'


def mark(kind, x, y):
    return f'<svg x="{x:.2f}%" y="{y:.1f}" class="m{kind}"><path class="mark" d="{MARKS[kind]}"/></svg>'


def letters(words, x, y, kind="tick", anchor="middle"):
    return f'<text x="{x:.2f}%" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{words}</text>'


def clipped(label, x, y, width, kind="halo"):
    inside = letters(text(label, 80), 0, 15, kind, "start")
    return f'<svg class="clip" x="{x}%" y="{y - 15:.1f}" width="{width}%" height="21">{inside}</svg>'


def figure(heading, note, height, parts, read):
    return (f"<figure><figcaption><b>{text(heading, 200)}</b>{text(note, 300)}</figcaption>"
            f'<svg role="img" height="{height}"><title>{text(heading, 200)}</title><desc>{text("; ".join(read))}</desc>'
            f"{''.join(parts)}</svg></figure>\n")


def panels(groups):
    """A chart of each (heading, note, rows), all on one scale: per row the name, the value, a dot and its interval."""
    drawn = []
    for heading, note, rows in groups:
        key = next((key for key in CHARTED if any(is_number(row.get(key)) for _, row in rows)), "")
        found = [(label, row[key], next(filter(is_pair, (row.get(f"{key}_95"), row.get("interval_95"))),
                  [row[key]] * 2), row.get("mark", 5)) for label, row in rows if is_number(row.get(key))]
        drawn += [(heading, f"{FIGURES[key][0]}{note and '; '}{note}", found)] if found else []
    scale, charts = ticks([v for *_, rows in drawn for _, value, ends, _ in rows for v in (value, *ends)] or [0]), ""
    for heading, note, rows in drawn:
        parts, bottom = [], 42 * len(rows)
        for t in scale:
            x = along(t, scale, 4, 96)
            parts += [line(x, 0, x, bottom), letters(show(t, ".6g"), x, bottom + 16)]
        for y, (label, value, ends, kind) in zip(range(29, bottom, 42), rows, strict=True):
            x, low, high = (along(v, scale, 4, 96) for v in (value, *ends))
            parts += [line(low, y, high, y, f"span m{kind}"), mark(kind, x, y), clipped(label, 0, y - 14, 78),
                      letters(show(value, ".3f"), 100, y - 14, "halo bold", "end")]
        charts += figure(heading, note, bottom + 22, parts, [f"{label}: {value:.3f}" for label, value, *_ in rows])
    return f'<div class="panels">{charts}</div>\n' if charts else ""


def scatter(heading, points, across, up):
    """points: (label, x, y, mark), x logarithmic with 0 beyond a gap; labels are as near to them as they can stand."""
    logs = [math.log10(x) for _, x, *_ in points if x > 0] or [0]
    first, bottom, levels = math.floor(min(logs)), max(220, 21 * len(points) + 30), ticks([y for *_, y, _ in points])
    steps = [*range(first - any(x <= 0 for _, x, *_ in points), max(math.ceil(max(logs)), first + 1) + 1)]
    parts = [clipped(up, 0, 12, 100, "tick"), clipped(across, 11, bottom + 32, 50, "tick")]
    for t in levels:
        y = along(t, levels, bottom - 8, 28)
        parts += [line(11, y, 62, y), letters(show(t, ".6g"), 10, y + 4, anchor="end")]
    parts += [letters("//", along(first - 0.5, steps, 13, 61), bottom + 14)] * (steps[0] < first)
    for k in steps[:: math.ceil(len(steps) / 6)]:
        parts.append(letters("0" if k < first else show(10.0**k, ",.6g"), along(k, steps, 13, 61), bottom + 14))
    spots, top = sorted((along(y, levels, bottom - 8, 28), along(math.log10(x) if x > 0 else first - 1, steps, 13, 61),
                         label, kind) for label, x, y, kind in points), 0
    for below, (y, x, label, kind) in zip(reversed(range(len(spots))), spots, strict=True):
        top = min(max(y, top + 19), bottom - 8 - 19 * below)
        parts += [line(x, y, 65, top), mark(kind, x, y), mark(kind, 67, top), clipped(label, 69.5, top + 5, 30.5)]
    read = [f"{label}: {across} {show(x, '.4g')}, {up} {show(y, '.4g')}" for label, x, y, _ in points]
    return figure(heading, "", bottom + 36, parts, read)


def answered(rows, baselines):
    """Rows for `table`: a model that answered in two ways, likeliest and written, has two; the baselines follow."""
    called = {"majority": "Commonest answer", "tfidf": "Words counted (TF-IDF)"}
    for name, m in [*rows, *((called.get(name, name), scores) for name, scores in baselines)]:
        name = f"{name}, {m['stage']}" if m.get("stage") else name
        ways = [(name + how, m | {"range": None if how else at(m, "spread", "accuracy")} | m[key] | against(m, key))
                for key, how in (("likeliest", ""), ("written", ", written")) if at(m, key)]
        for label, row in ways or [(name, m | against(m, "accuracy" if "accuracy" in m else "bits_per_byte"))]:
            named = {"execution_accuracy_95": row.get("interval_95"), "interval_95": None}  # not as programs.score does
            yield label, row | (named if "execution_accuracy" in row else {})


def against(row, way=None):
    """A row's comparisons (of this way of answering, where there are several) as figures of a table."""
    found = {}
    for key in ("against_first", "against_base", "against_closed_book"):
        c = at(row, key) if at(row, key, "difference") is not None else at(row, key, way)
        found |= {key: at(c, "difference"), f"{key}_95": at(c, "interval_95"), f"{key}_p": at(c, "p")}
    return found


def answer_to(question):
    """Fine-tune or retrieve? In a sentence; question: stats.paired of retrieval's scores and fine-tuning's."""
    difference, ends, p = (at(question, key) for key in ("difference", "interval_95", "p"))
    if not (is_number(difference) and is_pair(ends) and is_number(p)):
        return question and "Fine-tuning and retrieval can’t be told apart: too few questions for an interval."
    if p < 0.05 and ends[0] * ends[1] > 0:
        says = f"Fine-tuning scores {abs(difference):.3f} {'more' if difference > 0 else 'less'} than retrieval"
        ends = sorted(map(abs, ends))
    else:
        says = f"Fine-tuning and retrieval can’t be told apart: a difference of {show(difference, '.3f')}"
    return floored(f"{says} ({show(ends, '.3f')}, p = {p:.2g}).")


def absent(report):
    """{what: why it is missing}; in one line what nobody asked for."""
    found = dict(report.get("missing") or {})
    for name, g in [*dicts(report, "tasks"), *dicts(report, "questions")]:
        lost = g.get("missing") or at(g, "baselines", "missing") or {}
        found |= {f"{name}, {what}": why for what, why in lost.items()} if isinstance(lost, dict) else {name: lost}
    unasked = [what for what, why in found.items() if str(why).startswith("not asked for")]
    return {k: why for k, why in found.items() if k not in unasked} | {"Not asked for": ", ".join(unasked)}


def story(report):
    """(key, heading, HTML) of every part, in the order of the page; HTML is empty where the report lacks it."""
    names = dict.fromkeys(name for name, m in dicts(report, "models") if not m.get("control"))
    tuned = [name for _, g in dicts(report, "tasks") for name, row in dicts(g, "rows") if row.get("stage") == "after"]
    marks = {name: i and 1 + (i - 1) % 4 for i, name in enumerate(dict.fromkeys([*names, *tuned]))}
    mine = next(iter(names), None)

    def rows(thing, *path):
        found = [(name, row | {"mark": marks.get(name, 5)}) for name, row in dicts(thing, *path)]
        return sorted(found, key=lambda row: [*marks, row[0]].index(row[0]))

    def ranked(caption, *groups, charts=True):
        return panels(groups) * charts + table(caption, groups, {k: v for k, v in FIGURES.items() if k not in MODEL})

    def about(part, *keys):
        found = [(*FIGURES.get(key, (key.replace("_", " "), ",")), at(part, key)) for key in keys]
        return ", ".join(html.unescape(f"{name} {show(v, form)}") for name, form, v in found if v is not None)

    lists = ""
    verdicts = (True, "good", "✓ Held"), (False, "bad", "✗ Did not hold"), (None, "open", "? Could not be told")
    for holds, kind, heading in verdicts:
        claims = [f"<li><b>{show(c.get('claim'))}</b>{show(floored(c.get('figure') or ''))}"
                  + (f"<div class=note>Asked for: {show(c['threshold'])}</div>" if c.get("threshold") else "") + "</li>"
                  for _, c in dicts(report, "verdict") if c.get("holds") is holds]
        more = f"<details><summary>{len(claims) - 6} more</summary><ul>{''.join(claims[6:])}</ul></details>"
        lists += f'<div><h3 class="{kind}">{heading}</h3><ul>{"".join(claims[:6])}</ul>' * (claims != [])
        lists += more * (len(claims) > 6) + "</div>" * (claims != [])
    yield "verdict", "What was claimed, and what held", lists and f'<div class="verdict">{lists}</div>'
    models, of_examples = rows(report, "models"), report.get("kind") in ("sft", "pairs")
    scored, quick = any(is_number(m.get("bits_per_byte")) for _, m in models), report.get("quick") is True
    note = about(at(report, "loss", "cells", "val"), "documents", "companies"), "line: 95 % interval over companies; "
    yield "loss", "Compared to what?", scored and not of_examples and para(
        "Bits per byte says how well a model guesses filings it has never seen: how many yes-or-no answers it still "
        "needs for each byte of text (about a letter). Lower is better; random bytes need 8. It is fair to models that "
        "cut text into different tokens, which perplexity, the number of tokens that one wavers among, is not."
    ) + ranked("The same held-out documents for all" + "; models read a sample of windows of each" * quick, (
        "Held-out filings", "; ".join(filter(None, note)) + "hollow mark: a control, no model", models)) + para(
        "p: sign-flip test over companies (Student’s for fewer than six).", "note")
    yield "examples", "Answers", of_examples and ranked("Answers, and the loss on the right ones", (
        "Accuracy: on pairs, how often the better answer is the likelier one", about(report, "examples", "split"),
        [*answered(models, dicts(report, "baselines"))]))
    for part, heading, intro in (
            ("cells", "New companies, new years", "A company repeats its last filing; new ones are the honest test."),
            ("items", "Where in the filing", "The same measure, item by item of the 10-K."),
            ("tables", "Text and tables", "The same measure, prose and tables apart."),
            ("general", "What was forgotten", "The same measure on everyday English, which filings may drive out.")):
        groups = [(s.get("holds") or (f"Item {key} · {ITEMS[key]}" if key in ITEMS else key.capitalize()),
                   about(s, "documents", "companies", "bytes", "overlap"), rows(s, "models"))
                  for key, s in dicts(report, "loss", part) if part != "general"]
        groups = groups or [("General English", "", rows(report, "loss", part))] * (part == "general")
        yield part, heading, any(of for *_, of in groups) and para(intro) + ranked(f"{heading}: bits/byte", *groups)
    w, body, faults, asked = report.get("writing"), "", [], ""
    for _, p in dicts(w, "prompts"):
        texts = sorted((at(p, "texts") or {}).items(), key=lambda said: said[0] == mine)  # the checkpoint on the right
        body += f'<h3 class="prompt">{text(p.get("prompt") or "–", 600)}</h3>' + boxes(texts, mine)
    yield "writing", "Side by side", body and para(
        f"The first text of each model, not picked: {about(w, 'temperature', 'seed')}.", "note") + body
    counts = [(name, row | {"longest": at(row, "longest_match", "tokens")}) for name, row in rows(w, "measures")]
    for name, f in rows(w, "examples"):
        faults += [(f"{name}: a loop", f["loop"])] if f.get("loop") else []
        faults += [(f"{name}: word for word from training", at(v, "text") or v) for v in f.get("verbatim") or []]
        faults += [(f"{name}: says {v.get('says') or '–'}, should be {v.get('should') or '–'}", v.get("text"))
                   for _, v in dicts(f, "percent")]
    yield "measures", "What the eye misses", counts and para(
        "Fluent text hides what only counting shows: loops, few distinct words, training data recited, and whether "
        "“rose by $2 million, or 8 %” adds up. The row of real filings, or of other held-out text, is the yardstick."
    ) + ranked("What each wrote, counted", ("", "", counts), charts=False) + boxes(faults) + notes(w)
    for part, heading, intro in (
            ("probe", "What its states know", "Which item is a paragraph from? The model’s states, frozen, go into a "
             "logistic regression, no company on both sides. Layer 0 is the embedding, the last is what it predicts "
             "from. Words counted (TF-IDF), random weights and the commonest answer say how easy it is."),
            ("embeddings", "Embeddings", "Mean states as vectors: is the counterpart of a passage among the nearest?"),
            ("sections", "Next section", "Which passage comes next? The model takes the one it finds likeliest."),
            ("tasks", "Tasks, before and after", "The same questions before and after fine-tuning, and by counting.")):
        found, groups, more = report.get(part), [], ""
        for name, g in [(heading, found)] if at(found, "rows") else dicts(at(found, "tasks") or found):
            note = about(g, "n", "companies", "queries", "candidates", "examples", "split", "shared_with_train",
                         "licence", "commercial")
            kinds = " / ".join(g["classes"]).capitalize() if isinstance(g.get("classes"), dict) else ""
            chance = [("chance", {"accuracy": g["chance"]})] if "chance" in g else []
            each = [*answered(rows(g, "rows"), dicts(g, "baselines")), *chance]
            groups += [(g.get("name") or kinds or name, note, each)] if each else []
            more += notes(g) if g is not found else ""
        yield part, heading, (groups or more) and para(intro) + ranked(heading, *groups) + more + notes(found)
    for key, q in dicts(report, "questions"):
        groups = [(f"{key}: {name}", about(q, "metric", "n"), [(way, c | against(c) | {"mark": i % 5}) for way, c in
                  dicts(of)]) for i, (name, of) in enumerate(dicts(q, "table"))]
        asked += para(answer_to(q.get("fine_tuned_against_retrieved")), "prompt") + ranked(
            f"{key}: {about(q, 'metric')}", *groups) + ranked(
            "Is the right passage among the first?", ("", "", [("retrieval", at(q, "retrieval") or {})]), charts=False)
        for _, x in dicts(q, "examples"):
            asked += f'<h3 class="prompt">{text(x.get("question") or "–", 600)}</h3>' + boxes(
                [("right answer", x.get("gold")), *(x.get("answers") or {}).items()], "right answer")
        asked += notes(q)
    yield "questions", "Fine-tune or retrieve?", asked and para(
        "Train a model on questions, or hand it the passage? From top to bottom it is given nothing, what a search "
        "found, the right passage.") + asked
    c, runs, pictures, points = report.get("cost"), rows(report, "cost", "rows"), "", {}
    ways, price = list(dict.fromkeys(row.get("kind") for _, row in runs)), at(c, "price_per_hour")
    price = f"At {price:,.4g} an hour of one device, in the unit of --price. " if is_number(price) else ""
    unit = "price with its base" if price else "device hours with its base"
    keys = ("money_with_base", "money") if price else ("device_hours_with_base", "device_hours")
    for label, row in runs:
        paid = [row[k] for k in keys if is_number(row.get(k))]
        if paid and is_number(row.get("quality")):
            points.setdefault(str(row.get("quality_name") or "quality"), []).append(
                (label, paid[0], row["quality"], ways.index(row.get("kind")) % 5))
    for name, found in points.items():
        name += f", {'lower' if re.search('(?i)bits|loss|perplex|nats', name) else 'higher'} is better"
        pictures += scatter(f"What the {'money' if price else 'hours'} buy{'s' * bool(price)}", found, unit, name)
    yield "cost", "Cost", runs and para(
        f"{price}An adapter is nothing without its base, which counts. Inference is not counted: prompting costs 0."
    ) + (pictures and f'<div class="panels">{pictures}</div>') + ranked(
        "What each way cost" + ", in the unit of --price" * bool(price), ("", "", runs), charts=False) + notes(c)
    facts = ("data", "data_fingerprint", "split_policy", "seed", "tool", "command", "note")
    facts = {key: report.get(key) for key in facts} | (report.get("settings") or {}) | (report.get("versions") or {})
    documents = [(str(d.get("id") or "–"), d | (d.get("bits") or {})) for _, d in dicts(report, "loss", "documents")]
    models = [(name, m | {"sha256": str(m.get("sha256") or "")[:16]}) for name, m in models if not m.get("control")]
    yield "method", "How it was measured", described(facts) + table(
        "Models; sha256: its first 16 digits", [("", "", models)], {key: FIGURES[key] for key in MODEL}) + table(
        "Held-out documents (at most 300), bits/byte", [("", "", documents[:300])],
        FIGURES | {"bytes": ("bytes", ",")} | {name: (name, ".3f") for name in names})


def page(report, curve=None):
    """The HTML of a report (the dict of report.json); curve: the training curve as a data: URL of a PNG, or None."""
    found = [*story(report)]
    if curve and re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]+", curve):
        found.append(("curve", "Training curve", f'<img alt="Loss against tokens while training" src="{curve}">'))
    found = [p for p in [*found, ("missing", "Not in this report", described(absent(report)))] if p[2]]
    title = text(f"Report on {next((name for name, _ in dicts(report, 'models')), 'nothing')}", 160)
    links = "".join(f'<li><a href="#{key}">{heading}</a></li>' for key, heading, _ in found)
    parts = "".join(f'<section id="{key}"><h2>{heading}</h2>\n{body}</section>\n' for key, heading, body in found)
    had = ", ".join(k for k in "loss writing probe embeddings sections tasks questions".split() if report.get(k))
    headline = report.get("headline") or (f"Parts of an evaluation: {had}" if had else "Nothing was summed up.")
    quick = "A quick run, on less text than a full one: for a look, not for a claim." * (report.get("quick") is True)
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<style>{STYLE}</style></head><body><header><h1>{title}</h1><p class="headline">{text(floored(headline), 600)}</p>
{para(quick, "quick")}<nav aria-label="Parts"><ul>{links}</ul></nav></header>
<main>{parts}</main><footer>Every figure here, and more of its digits, is in report.json.</footer></body></html>
"""
