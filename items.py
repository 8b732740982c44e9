"""The items of a 10-K: where "Item 1A. Risk Factors" begins and ends in the text of a filing, and how sure that is.

    from items import find_items
    find_items(text, "10-K")   # {"1": {"span": [5290, 24594], "status": "found"}, "1A": {...}, ...} in document order

    found         text[start:end] is the item, from its own heading to the next one
    by_reference  the item says no more than where its content is ("see our Annual Report", "pages 20-34", "Note 12")
    omitted       the item says that it need not be given ("not required for smaller reporting companies", "[Reserved]")
    suspect       there is a heading, but a check failed: the title is another item's, the size is odd, or another item
                  that the contents promise, or that every 10-K has, must be hidden in this one

"None" and "Not applicable" are answers, hence found, where the form asks whether there is anything to report (legal
proceedings, staff comments, disagreements with accountants); below any other heading they mean omitted.

The idea: every line that begins like a heading is a candidate, and no rule looks at one alone. A table of contents and
a cross reference say "Item 1A. Risk Factors" too; what they lack is text below it. So a candidate weighs as much as its
title and the logarithm of the text that follows, and dynamic programming (the longest increasing subsequence, with
weights) picks the heaviest sequence that keeps the order of the form. Where a filing has no such headings but an index
of items and pages (GE, Intel, McDonald's), sections are found by title and page; where Item 7 points to the annual
report and that is in the same submission (EX-13), it is looked up there. What cannot be proved is marked, not guessed:
extractors that guess fail silently.
"""

import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass

# The form: item, a title so much its own that it needs no number ("…": more may follow), a word that is among the first
# six of any title it has had since 1993, and the sizes (characters, thousands of them) outside which it is suspect.
FORM = [
    ("1", r"(?:description of )?(?:our |the )?business(?: overview| summary)?",
     r"business|general\b|(?:the|our) (?:company|bank|trust)\b", 500, 700),
    ("1A", r"risk factors", r"risk factors", 1000, 900),
    ("1B", r"unresolved staff comments", r"unresolved|staff comments", 2, 4),
    ("1C", r"cyber ?security", r"cyber ?security", 300, 90),
    ("2", r"(?:description of )?propert(?:y|ies)", r"propert(?:y|ies)", 2, 250),
    ("3", r"legal proceedings", r"legal|litigation", 2, 250),
    ("4", r"submission of matters…|mine safety…", r"submissions? of|mine safety|votes?|removed|reserved", 2, 60),
    ("5", r"market for (?:the )?\S+ common…", r"markets? (?:for|price|info|and)|common (?:stock|equity)", 2, 90),
    ("6", r"selected (?:consolidated )?financial data|\Wreserved\W",
     r"selected|summary|financial data|removed|reserved|omitted|intentionally", 2, 90),
    ("7", r"management\W?s\W? (?:financial )?(?:discussion|review) (?:and|&) analysis…",
     r"discussion|review|analysis|plan of operation|md&a", 1000, 900),
    ("7A", r"quantitative and qualitative…", r"quantitative|qualitative|market risk", 2, 250),
    ("8", r"(?:consolidated )?financial statements and supplement\w+ (?:data|info)…",
     r"statements?|supplement", 1000, 4000),
    ("9", r"changes in and disagreements with…", r"changes? (?:in|and|of|or)|dis?agreements?", 2, 40),
    ("9A", r"controls and procedures", r"controls?", 200, 90),
    ("9B", r"other information", r"other information", 2, 60),
    ("9C", r"disclosures? regarding foreign jurisdictions…", r"foreign jurisdictions", 2, 5),
    ("10", r"directors,? (?:and )?executive officers…", r"directors?|officers|trustees?|partners?|management", 2, 250),
    ("11", r"executive compensation", r"compensation|remuneration", 2, 250),
    ("12", r"security ownership of certain…", r"security ow|\w*ownership|\w*holders?", 2, 250),
    ("13", r"certain relationships and related…", r"relations\w*|transactions|interests? of", 2, 250),
    ("14", r"principal account(?:ant|ing) fees and services|exhibits.{1,45}reports on form 8-k",
     r"exhibits?|account|audit|controls|financial statements?", 2, 4000),
    ("15", r"exhibits?,? (?:and )?financial statement…", r"exhibits?|schedules|account|audit|financial st", 2, 4000),
    ("16", r"form 10-k summary", r"summary|account|exhibits?", 2, 4000),
]  # fmt: skip
LIKE = {item[0]: item[0] for item in FORM}  # as KSB below: which item of the 10-K each is like
TITLES = {key: re.compile(rf"(?i)(?:\S+ ){{0,5}}?\W?(?:{word})") for key, _, word, *_ in FORM}
OWN = {key: f"(?:{own})".replace("…", ".{0,120}") + r"(?: ?\(item [\dA-C]+\))?[\s.:*]*$" for key, own, *_ in FORM}
OWN = {key: re.compile("(?i)" + title) for key, title in ({"": "|".join(OWN.values())} | OWN).items()}  # "": of any
SIZES = {key: (low, high * 1000) for key, _, _, low, high in FORM}
# The small business form until 2008.
KSB = {"1": "1", "2": "2", "3": "3", "4": "4", "5": "5", "6": "7", "7": "8", "8": "9", "8A": "9A", "8B": "9B",
       "9": "10", "10": "11", "11": "12", "12": "13", "13": "15", "14": "14"}  # fmt: skip
ANSWERS = {"1B", "2", "3", "4", "9", "9B", "9C", "13", "16"}  # below these "None" says something
PART_III = {"10", "11", "12", "13", "14"}
CORE = {"": {"1", "2", "3", "4", "5", "7", "8", "9"} | PART_III, "1B": {"1A"}, "9B": {"7A", "9A", "15"}}  # see `doubts`

NUMBER = r"\d{1,2}(?!\d)(?:[ .-]?\(?[A-C]\)?(?![\w’']))?(?: ?\([TI]\))?(?!\.?\d)"
LISTED = rf"[ .,]{{0,3}}(?:,|&|and|through|thru|to|-|–|—) {{0,2}}(?:items? ?)?{NUMBER}"
HEADING = re.compile(  # not in quotation marks; "Item 7", "ITEMS 1 and 2", "I T E M 3", "Item No. 4", "Part II, Item 5"
    r"(?i)[^\w\n\"“‘'(\[]{0,6}(?:part (?:iv|i{1,3})\b[^\w\n\"“(]{0,6})?"
    rf"(i ?t ?e ?m ?s?[ .:#(|-]{{0,3}}(?:(?:no|number)\b[. ]{{0,2}})?)?"
    rf"({NUMBER}(?:{LISTED}){{0,7}})[\s.:;,|*)–—-]{{0,9}}"
)
KEY = re.compile(r"(?i)(\d{1,2})(?:[ .-]?(\(?)([A-C])\)?(?![\w’']))?(?: ?\([TI]\))?|through|thru|to|[-–—]")
AND_ITEM = re.compile(rf"(?i)(?:and|&|/|,) items? ({NUMBER})")
TITLE_END = re.compile(r"[.:](?=\s|$)|\s[-–—]{1,2}\s|--|—|(?<=\D)\s\|\s|(?<=[A-Z]{3})\s(?=[A-Z]\w?[a-z])")
PAGE_TAIL = re.compile(r"(?:\||\. ?\.|…|\s)\s*(?:pages? )?\(?(?:[A-Z]-)?\d{1,3}(?:\s?[-–,]\s?\d{1,3})*\)?\s*$")
PROSE = re.compile(  # what follows the title where the line is not a heading but a sentence
    r"\b(?:(?:of|in|to) (?:this|our|part|the (?:\S+ ){0,2}(?:annual|form|10-K))|above|below|contains?|"
    r"includ(?:es?|ed|ing)|herein|hereof|is|are|was|were|should|beginning|starting|on page|which|has|have|"
    r"for (?:a|further|additional|more)|and (?:in )?(?:part|item|note)|as (?:well|set|discussed|described))\b"
)
BROKEN = re.compile(r"(?:\b(?:in|see|under|to|and|of|the|with|by|our|or|entitled|captioned)|,)$")  # "... as set out in"
# An item ends before the next part of the form, and before the items that Regulation AB adds for trusts.
NEXT = re.compile(r"(?i)\n\W{0,3}(?:part (?:iv|i{1,3})\b[^\n]{0,30}(?=(?:\n[^\n]{0,300}){0,2}$)|items? 11[0-2]\d\b)")

# What the text below a heading may say instead of being the item.
RESERVED = re.compile(r"(?i)[\[(]?(?:removed and )?reserved|intentionally (?:omitted|left)")
NONE = re.compile(r"(?i)\W*(?:(?:none|not applicable|inapplicable|n/?a)\b|no\W*$)")
DUTY = re.compile(
    r"(?i)not? (?:\w+ ){0,2}required|(?:smaller reporting|small business|emerging growth) (?:compan|issuer)|omitted|"
    r"reserved|removed|instruction [ij]\b"
)
STRONG = re.compile(
    r"(?i)incorporat\w+\b.{0,300}\b(?:by|into|in|reference)\b|proxy statement|\bpages? (?:[A-Z]-)?\d|index to|"
    r"annual report to|exhibit 13|^\W{0,3}(?:please )?(?:see|refer)\b"
)
POINTER = re.compile(
    STRONG.pattern + r"|\b(?:set forth|presented|contained|included|appear\w*|found|described|discussed|provided|given|"
    r"reported|shown|attached|filed|listed)\b.{0,60}(?:\b(?:in|on|at|under|from|as|with|to)\b.{0,60}\b(?:items?|notes?|"
    r"parts?|pages?|exhibits?|report|statements?|sections?|captions?|headings?|index|schedules?)\b|hereto|herein|"
    r"elsewhere|below|beginning)|\bsee\b|\brefer(?:ence is made)? to\b|follows? (?:item|page)"
)
INCORPORATED = re.compile(r"(?i)\*|incorporat\w+\b[^\n]{0,300}\breference")
SENTENCE = re.compile(r"(?<=[.;])\s+(?=[A-Z])|\n")


@dataclass
class Heading:
    start: int
    end: int  # of the heading, where the item's text begins
    keys: list
    weight: float  # what its own line is worth; the text below adds to it
    titled: bool
    row: bool = False  # in a table of several items: the contents or an index
    body: int = 0  # characters to the next heading of another item


def find_items(text, form, main=None, contents=()):
    """The text of a 10-K (its first `main` characters; exhibits follow) → {"1A": {"span", "status"}, ...}.

    contents: tables (blocks of rows) that `text` lacks because tables were dropped; they may hold the index of items.
    An item found elsewhere than below its heading also has "heading": [start, end], the words that point there.
    """
    main = len(text) if main is None else main
    lines, forms = list(block_lines(text[:main])), [KSB, LIKE] if "KSB" in form.upper() else [LIKE]
    read = [(candidates(lines, main, like), like) for like in forms]  # some 10-KSB follow the numbers of the 10-K
    headings, like = max(read, key=lambda pair: sum(heading.titled for heading in pair[0]))
    order = list(like)
    chosen = best_sequence([h for h in headings if not h.row], order)
    if len(chosen) > 4 and sum(h.body for h in chosen[:-1]) < 60 * len(chosen):
        for heading in chosen:  # contents, and no headings below them
            heading.row = True
        chosen = []
    rows, plain = [h for h in headings if h.row], unnumbered(text[:main], like)
    promised = {key for h in rows for key in h.keys}
    if len(chosen) < 3 and like is not KSB:
        items, titled = from_index(text, main, rows, contents), best_sequence(plain, order)
        if len(titled) < 5 or sum(item["status"] == "found" for item in items.values()) > 2:
            return items if len(items) > len(chosen) else spans(text, main, chosen, like)
        chosen, promised = titled, promised | CORE[""]
    chosen = complete(chosen, plain, promised, headings, order)
    items = spans(text, main, chosen, like)
    doubts(items, promised, headings, chosen, like)
    return items if like is KSB else follow(items, text, main)


# ---- candidates ------------------------------------------------------------------------------------------------------

def block_lines(text):
    """(start, line, block) of every line; an empty line ends a block, and a block of several lines is a table."""
    start = 0
    for number, block in enumerate(text.split("\n\n")):
        for line in block.split("\n"):
            yield start, line, number
            start += len(line) + 1
        start += 1


def paragraphs(text, start=0):
    """(start, block) of every block that is not a table."""
    for block in text[start:].split("\n\n"):
        if not re.search(r"\n| \| ", block):
            yield start, block
        start += len(block) + 2


def candidates(lines, length, like):
    """Every line that begins like the heading of an item, with the weight of that line and the text below it."""
    found, tables = [], defaultdict(list)
    for i, (start, line, block) in enumerate(lines):
        heading = numbered(line, start, like, lines[i + 1] if i + 1 < len(lines) else None)
        if not heading or i and lines[i - 1][2] != block and BROKEN.search(lines[i - 1][1][-20:]):
            continue
        found.append(heading)
        tables[block].append(heading)
    for rows in tables.values():
        if len({row.keys[0] for row in rows}) > 2:
            for row in rows:
                row.row = True
    return without_contents(found, length, list(like))


def numbered(line, start, like, below):
    """A line that begins with "Item 1A" or "1A." → Heading, or None where it is a sentence about that item.

    Notes are numbered, too, so a heading without the word must have the item's own title and nothing else."""
    if not (match := HEADING.match(line)):
        return None
    begin = start + re.match(r"\W*", line).end()
    rest, keys = line[match.end() :], keys_of(match[2], line[match.end() :], like)
    if not keys:
        return None
    if not match[1]:
        title = PAGE_TAIL.sub("", rest.split(" |")[0])
        whole = len(line) < 250 and OWN[like[keys[0]]].match(title)
        return Heading(begin, start + match.end() + len(title), keys, 3, True) if whole else None
    if not rest and below and len(below[1]) < 250 and not HEADING.match(below[1]):
        if end := title_end(below[1], keys, like):
            return Heading(begin, below[0] + end, keys, 6, True)
    end = title_end(rest, keys, like)
    if end is None and not rest[:1].islower() and len(rest) <= (80 if PROSE.search(rest) else 200):
        return Heading(begin, start + len(line), keys, -4 if OWN[""].match(rest) else 0, False)
    if not end:
        return None  # prose
    weight = 6 - 2 * bool(PAGE_TAIL.search(line)) - 3 * (line[0] in "•●▪■*-–—")
    keys += [k for k in keys_of(" ".join(AND_ITEM.findall(rest[:150])), "", like) if k not in keys]
    return Heading(begin, start + match.end() + end, keys, weight, True)


def keys_of(numbers, rest, like):
    """ "1 and 2" → ["1", "2"]; "10 through 12" → ["10", "11", "12"]; "9A(T)" → ["9A"]; "1(a)" General → ["1"]."""
    keys, order, through = [], list(like), False
    for token in KEY.finditer(numbers):
        if not token[1]:
            through = True
            continue
        number = token[1].lstrip("0")
        key = number + (token[3] or "").upper()
        if token[2] and not (key in like and TITLES[like[key]].match(rest)):
            key = number  # "Item 1(a)" is a part of Item 1, but "Item 9(A)" is 9A
        if key in like and key not in keys:
            keys += order[order.index(keys[-1]) + 1 : order.index(key)] if through and keys else []
            keys, through = [*keys, key], False
    return keys


def title_end(rest, keys, like):
    """Where the title at the start of `rest` ends; None if there is none of these items, 0 if it goes on as prose."""
    match = next(filter(None, (TITLES[like[key]].match(rest) for key in keys)), None)
    if not match:
        return None
    stop = TITLE_END.search(rest, match.end(), match.end() + 220)
    end = stop.end() if stop else len(rest)
    return 0 if not stop and len(rest) > 250 or PROSE.search(rest, 0, min(end, match.end() + 150)) else end


def unnumbered(text, like):
    """Paragraphs that are the own title of an item and no more."""
    found = []
    for start, block in paragraphs(text):
        if len(block) < 200 and OWN[""].match(block):
            keys = [key for key in like if OWN[like[key]].match(block)][:1]
            found += [Heading(start, start + len(block), keys, 6, True)] * len(keys)
    return [heading for heading in without_contents(found, len(text), list(like)) if not heading.row]


def without_contents(found, length, order):
    """Give each heading its body and mark as rows the runs of headings with little below, most of which have another
    heading, with text, elsewhere. A run ends where text follows or the order falls back, as contents per part do."""
    until, above, longest, run = length, None, defaultdict(int), []
    for heading in reversed(found):
        if above and heading.keys != above.keys:  # a running head does not end its item
            until = above.start
        heading.body, above = max(until - heading.end, 0), heading
        for key in heading.keys * (heading.titled and not heading.row):
            longest[key] = max(longest[key], heading.body)
    for heading, below in zip(found, [*found[1:], None], strict=False):
        run.append(heading)
        if heading.body >= 400 or below is None or order.index(below.keys[0]) < order.index(heading.keys[-1]):
            poorer = [h for h in run if h.row or any(longest[k] > 4 * h.body + 200 for k in h.keys)]
            if len({h.keys[0] for h in run}) > 2 and len(poorer) * 5 >= len(run) * 3:
                for h in run:
                    h.row = True
            run = []
    return found


# ---- the choice ------------------------------------------------------------------------------------------------------

def best_sequence(headings, order):
    """The heaviest sequence of headings that keeps the order of the form, by dynamic programming over the last item."""
    rank = {key: i for i, key in enumerate(order)}
    best = [(0.0, None)] * (len(order) + 1)  # best[r]: weight and links of a sequence whose last item is the r-th
    for heading in headings:
        ranks = [rank[key] for key in heading.keys]
        weight, links = max(best[: min(ranks) + 1], key=lambda entry: entry[0])
        weight += heading.weight + math.log2(2 + heading.body)
        if weight > best[max(ranks) + 1][0]:
            best[max(ranks) + 1] = weight, (heading, links)
    links, chosen = max(best, key=lambda entry: entry[0])[1], []
    while links:
        heading, links = links
        chosen.append(heading)
    return chosen[::-1]


def complete(chosen, plain, promised, headings, order):
    """Add headings without a number where the contents promise one, and headings of items that are out of order."""
    for key in promised - {key for h in chosen for key in h.keys}:
        low = max((h.start for h in chosen if order.index(h.keys[-1]) < order.index(key)), default=0)
        high = min((h.start for h in chosen if order.index(h.keys[0]) > order.index(key)), default=math.inf)
        fits = [h for h in plain if h.keys == [key] and low < h.start < high]
        chosen = [*chosen, *fits] if len(fits) == 1 else chosen  # else anyone's guess
    left = [h for h in headings if not h.row and h.titled and h.weight >= 5]
    count = Counter(key for h in left for key in h.keys)
    for heading in sorted(left, key=lambda h: -h.body):
        if not {key for h in chosen for key in h.keys} & set(heading.keys):
            heading.titled = all(count[key] == 1 for key in heading.keys)  # else suspect
            chosen.append(heading)
    return sorted(chosen, key=lambda h: h.start)


def doubts(items, promised, headings, chosen, like):
    """Suspect is the item that must hold another one: none was found that the contents promise or every whole 10-K
    has (CORE, with those young enough to have the item on its left); or headings that nobody chose stand in it."""
    order = list(like)
    due = {key for sign, keys in CORE.items() if not sign or sign in items for key in keys}
    promised = promised | {key for key in like if like[key] in due and len(items) > 9}
    for key in promised - set(items) - {"6", "16"}:
        if before := [k for k in items if order.index(k) < order.index(key)]:
            items[before[-1]]["status"] = items[before[-1]]["status"].replace("found", "suspect")
    for heading, below in zip(chosen, [*chosen[1:], None], strict=False):
        inside = [h for h in headings if heading.end <= h.start < (below.start if below else math.inf) and not h.row]
        if any(h.weight < 0 for h in inside) or len({k for h in inside if h.body > 400 for k in h.keys}) > 3:
            for key in heading.keys:
                items[key]["status"] = items[key]["status"].replace("found", "suspect")


# ---- spans and checks ------------------------------------------------------------------------------------------------

def spans(text, main, chosen, like):
    """Headings in document order → items: each reaches to the next heading, without the heading of the next part."""
    items, usual = {}, sorted(h.weight for h in chosen)[len(chosen) // 2 :][:1]
    for heading, following in zip(chosen, [*chosen[1:], None], strict=False):
        body = text[heading.end : following.start if following else main].rstrip(" \n•●▪■")
        body = body[: stop.start() if (stop := NEXT.search(body)) else None].rstrip()
        title = text[heading.start : heading.end]
        if heading.keys[-1] == "16" and NONE.match(body):
            body = re.match(r"\s*[^\n]*", body)[0]  # the exhibits and statements below are not the summary
        for key in heading.keys:
            judged = status(body, title, like[key])
            if not body and like[key] in PART_III and INCORPORATED.search(title + text[heading.end :][:3000]):
                judged = "by_reference"  # a footnote, or the last of several headings, says so
            if judged == "found" and (not heading.titled or heading.weight < min(4, *usual)):
                judged = "suspect"
            items[key] = {"span": [heading.start, heading.end + len(body)], "status": judged}
    return items


def status(body, title, key):
    """What the text below a heading says it is."""
    low, high = SIZES[key]
    body = body.strip()
    if RESERVED.search(title + " " + body[:99]) and (len(body) < 100 or key == "6"):
        return "omitted" if len(body) < 300 else "suspect"
    if key in ("14", "15") and re.search("(?i)exhibit", title):
        return "found" if body else "suspect"  # a list of what is incorporated by reference is all it is
    size, sentences = len(body), SENTENCE.split(body[:3000])
    strong = sum(len(s) for s in sentences if STRONG.search(s))
    loose = sum(len(s) for s in sentences if POINTER.search(s))
    if size < 3000 and strong > 0.6 * size or size < 300 and strong:
        return "by_reference"
    if size < 350 and (DUTY.search(body) or NONE.match(body) and key not in ANSWERS):
        return "omitted"
    if size < 800 and loose > 0.6 * size or size < low and loose:
        return "by_reference"
    return "found" if low <= size <= high else "suspect"


# ---- content that stands elsewhere -----------------------------------------------------------------------------------

MDA = re.compile(  # and what follows it in an annual report to shareholders
    r"(?i)management\W?s\W? (?:financial )?(?:discussion|review|anal)|(?:financial )?(?:discussion|review)(?: and |$)"
)
OTHERS = re.compile(
    r"(?i)consolidated|balance sheet|statements? of|notes to|report of|management\W?s (?:report|resp)|independent aud|"
    r"selected|\w+[- ]year.{0,30}(?:data|summ|high|rev)|supplement|(?:unaudited )?quarterly|directors and|board of|"
    r"officers|(?:stock|share)(?:hold|own)\w+\W? (?:inf|data)|corporate (?:inf|data|dir)|investor inf|glossary|exhibit"
)
PAGED = re.compile(
    r"(?:(?i:item) [\dA-C.]{1,4}[ |]{1,3})?([A-Z][^|\n]{3,150}?)[\s.…]*"
    r"(?:\|\s*(?:[Pp]ages? )?(\d{1,3})(?:[\s,–-][\d,\s–-]*)?)?$"
)
RANGE = re.compile(r"(?<![\w.])(\d{1,3})(?:\s?[-–]\s?(\d{1,3}))?(?![\w.%])")


def follow(items, text, main):
    """Item 7 that points elsewhere: the longest discussion and analysis behind the last item, where EX-13 stands."""
    found, end = [], len(text)
    last = max((item["span"][0] for item in items.values()), default=main)
    for start, block in reversed(list(paragraphs(text, last))):
        if len(block) < 110 and block[-1:] != "." and not PROSE.search(block):
            found += [(end - start, start)] * bool(MDA.match(block))
            end = start if OTHERS.match(block) else end
    size, start = max(found, default=(0, 0))
    body = text[start : start + size].rstrip()
    if items.get("7", {}).get("status") == "by_reference" and SIZES["7"][0] <= len(body) <= SIZES["7"][1]:
        items["7"] = {"span": [start, start + len(body)], "status": "found", "heading": items["7"]["span"]}
    return in_order(items, text)


def in_order(items, text):
    """Items by their place in the text; what was found behind the last item, or inside another, is not part of it."""
    items = dict(sorted(items.items(), key=lambda item: item[1]["span"]))
    spans = [item["span"] for item in items.values()]
    for span in spans:
        end = min([span[1], *(start for start, _ in spans if start > span[0])])
        span[1] = span[0] + len(text[span[0] : end].rstrip())
    return items


def from_index(text, main, rows, contents):
    """Items of a filing that has an index (item, title, pages) and sections in an order of its own.

    A section is taken where its heading has the title of the item, and the table of contents gives it a page that the
    index gives to the item. It ends at the heading of the first page after. All other rows are pointers. Where tables
    were dropped, the index is not in the text, and nothing but sections can be given."""
    items, tables = read_index(rows, text[:main]), "\n\n".join(contents)
    index = items
    if len(rows) < 3:
        other = [h for h in candidates(list(block_lines(tables)), len(tables), LIKE) if h.row]
        index, items, rows = read_index(other, tables), {}, []
    entries = [entry for block in (text[:main] + "\n\n" + tables).split("\n\n") for entry in pages_of(block)]
    listed = located(text[:main], sorted(entries[:2000], key=lambda entry: entry[1]))
    for key in index.keys() - {"15", "16"}:  # the pages of Item 15 are those of the statements
        pages = index[key]["pages"]
        for i, (start, title, page) in enumerate(listed):
            if pages & {page, page + 1} and OWN[key].match(title):
                while page + 1 in pages:
                    page += 1
                ends = [at for at, other, p in listed[i + 1 :] if p > page or p == page and OWN[""].match(other)]
                end = min(at for at in [*ends, *(row.start for row in rows), main] if at > start)
                body = text[start + len(title) : end].rstrip()
                if (judged := status(body, title, key)) in ("found", "by_reference"):
                    pointer = {"heading": items[key]["span"]} if key in items else {}
                    items[key] = {"span": [start, start + len(title) + len(body)], "status": judged} | pointer
                break
    return in_order({key: {k: v for k, v in item.items() if k != "pages"} for key, item in items.items()}, text)


def read_index(rows, text):
    """The rows of an index → {item: {"span", "status", "pages": a set}}; "27" without end is until another's page."""
    index = {}
    for row, below in zip(rows, [*rows[1:], None], strict=False):
        stop = text.find("\n\n", row.end)
        stop = min(len(text) if stop < 0 else stop, below.start if below else len(text))
        title, body = text[row.start : row.end], re.split(r"(?i)\n(?:part|signature)", text[row.end : stop])[0].rstrip()
        pages = {p for a, b in RANGE.findall(body) for p in range(int(a), min(int(b or a), int(a) + 500) + 1)}
        answered = NONE.match(body) or RESERVED.search(title + body)
        judged = status(body, title, row.keys[0]) if answered else "by_reference"
        for key in row.keys:
            index.setdefault(key, {"span": [row.start, row.end + len(body)], "status": judged, "pages": pages})
    firsts = sorted(min(item["pages"]) for key, item in index.items() if item["pages"] and key != "7A")
    for item in index.values():
        if len(item["pages"]) == 1:
            (page,) = item["pages"]
            item["pages"] |= set(range(page, min((first for first in firsts if first > page), default=page)))
    return index


def pages_of(table):
    """Rows "Risk Factors | 27" of a table of contents → [(title, page)]; a title without page has that of the next."""
    entries, page, lines = [], None, table.split("\n")
    for line in reversed(lines) if sum(line[-1:].isdigit() for line in lines) > 4 else ():
        match = PAGED.match(line)
        page = int(match[2]) if match and match[2] else page
        if match and page:
            entries.append((match[1], page))
    return entries[::-1]


def located(text, entries):
    """Find the titles as headings in the text, in the order of the contents → [(start, title, page)]."""
    wanted, places = defaultdict(list), []
    for i, (title, _) in enumerate(entries):
        wanted[letters(title)].append(i)
    for start, block in paragraphs(text):
        head = re.match(r"[^.:]{3,150}|", block)[0]
        places += [Heading(start, start + len(head), [i], 1, True) for i in wanted.get(letters(head), [])[:3]]
    chosen = best_sequence(places[:5000], range(len(entries)))
    return [(h.start, text[h.start : h.end], entries[h.keys[0]][1]) for h in chosen]


def letters(title):
    return re.sub(r"[^a-z]+", "", title.lower())
