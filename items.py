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
of items and pages (GE, Intel, McDonald's), sections are found by title and page; where an item points to the annual
report and that is in the same submission (EX-13), the section is looked up there. What cannot be proved is marked, not
guessed: extractors that guess fail silently.
"""

import bisect
import math
import re
from collections import Counter
from dataclasses import dataclass

TITLES = {  # how the title of each item has begun since 1993
    "1": r"(?:\S+ ){0,4}business|general\b|(?:the|our) (?:company|bank|trust|partnership)\b",
    "1A": r"(?:\S+ )?risk factors",
    "1B": r"unresolved|staff comments",
    "1C": r"cyber ?security",
    "2": r"(?:\S+ ){0,3}propert(?:y|ies)",
    "3": r"(?:\S+ )?(?:legal|litigation)",
    "4": r"submissions? of|mine safety|\W?(?:removed|reserved|omitted)|results? of votes?",
    "5": r"(?:\S+ ){0,3}markets? (?:for|price|information|and)|(?:\S+ ){0,2}common (?:stock|equity)",
    "6": r"(?:\S+ ){0,3}(?:selected|summary)|\W?(?:removed|reserved|omitted|intentionally)|consolidated financial data",
    "7": r"manage\w*\W{0,3}\w?\W{0,3}(?:\w+ ){0,2}(?:discussion|review|analysis)|.{0,40}discussion and anal|"
    r"plan of operation|md&a",
    "7A": r"(?:disclosures? about )?(?:quanti|quali|market risk)",
    "8": r"(?:\S+ ){0,4}(?:financial statements?|statements of|supplement\w+ (?:financial )?(?:data|information))",
    "9": r"changes? (?:in|and|of|or)|dis?agreements?",
    "9A": r"(?:\S+ ){0,3}controls? (?:and|&|over)|(?:disclosure|internal) controls?",
    "9B": r"other information",
    "9C": r".{0,30}foreign jurisdictions",
    "10": r"(?:\S+ ){0,4}(?:directors?|executive officers?|trustees?|general partners?)|management\b",
    "11": r"(?:\S+ ){0,5}(?:compensation|remuneration)",
    "12": r"(?:security|stock|share|beneficial) ?(?:holder|ow\w+)|(?:\S+ ){0,3}(?:ownership|\w*holders)",
    "13": r"certain (?:relation|trans|business)|interests? of|(?:\S+ ){0,2}(?:transactions|relationships)",
    "14": r"exhibits?|(?:\S+ )?(?:account|audit)|controls|financial statements?",
    "15": r"(?:\S+ ){0,4}(?:exhibits?|schedules)|(?:\S+ )?(?:account|audit)|financial statement",
    "16": r"(?:form )?10-?k summary|summary|(?:principal|independent) account|exhibits?",
}
# The small business form until 2008: its items, and which item of the 10-K each is like.
KSB = {"1": "1", "2": "2", "3": "3", "4": "4", "5": "5", "6": "7", "7": "8", "8": "9", "8A": "9A", "8B": "9B",
       "9": "10", "10": "11", "11": "12", "12": "13", "13": "15", "14": "14"}  # fmt: skip
TITLES = {key: re.compile("(?i)" + title) for key, title in TITLES.items()}

PLAIN = {  # titles so much their own that they need no number, where the contents or the order prove them
    "1": r"(?:description of )?(?:our |the )?business(?: overview| summary)?",
    "1A": r"risk factors",
    "1B": r"unresolved staff comments",
    "1C": r"cybersecurity",
    "2": r"(?:description of )?propert(?:y|ies)",
    "3": r"legal proceedings",
    "4": r"submission of matters.{0,50}|mine safety.{0,20}",
    "5": r"market for (?:the )?\S+ common (?:stock|equity).{0,120}",
    "6": r"selected (?:consolidated )?financial data|\Wreserved\W",
    "7": r"management\W?s\W? (?:financial )?(?:discussion|review) (?:and|&) analysis.{0,90}",
    "7A": r"quantitative and qualitative disclosures? (?:about|of) market risks?",
    "8": r"(?:consolidated )?financial statements and supplement\w+ (?:data|information)",
    "9": r"changes in and disagreements with accountants.{0,70}",
    "9A": r"controls and procedures",
    "9B": r"other information",
    "9C": r"disclosures? regarding foreign jurisdictions.{0,40}",
    "10": r"directors,? (?:and )?executive officers.{0,50}",
    "11": r"executive compensation",
    "12": r"security ownership of certain beneficial owners.{0,70}",
    "13": r"certain relationships and related.{0,70}",
    "14": r"principal account(?:ant|ing) fees and services",
    "15": r"exhibits?,? (?:and )?financial statement schedules?.{0,40}",
    "16": r"form 10-k summary",
}
ANY_PLAIN = re.compile(rf"(?i)(?:{'|'.join(PLAIN.values())})[\s.:*]*$")
PLAIN = {key: re.compile(rf"(?i)(?:{title})[\s.:*]*$") for key, title in PLAIN.items()}

# Below these headings "None" says something. Sizes (characters) outside the band are suspect. CORE: what every whole
# 10-K has, and what one has that has the item on the left.
ANSWERS = {"1B", "2", "3", "4", "9", "9B", "9C", "13", "16"}
BANDS = {
    "1": (500, 700_000), "1A": (1_000, 900_000), "1B": (2, 15_000), "1C": (300, 90_000), "4": (2, 60_000),
    "5": (2, 90_000), "6": (2, 90_000), "7": (1_000, 900_000), "8": (1_000, 4_000_000), "9": (2, 40_000),
    "9A": (200, 90_000), "9B": (2, 60_000), "9C": (2, 15_000), "14": (2, 4_000_000), "15": (2, 4_000_000),
    "16": (2, 4_000_000),
}  # fmt: skip
OTHER_BAND = (2, 250_000)
CORE = {"": {"1", "2", "3", "4", "5", "7", "8", "9", "10", "11", "12", "13", "14"},
        "1B": {"1A"}, "9B": {"7A", "9A", "15"}}  # fmt: skip
PART_III = ("10", "11", "12", "13", "14")

NUMBER = r"\d{1,2}(?!\d)(?:[ .-]?\(?[A-C]\)?(?![\w’']))?(?: ?\([TI]\))?(?!\.?\d)"
LISTED = rf"[ .,]{{0,3}}(?:,|&|and|through|thru|to|-|–|—) {{0,2}}(?:items? ?)?{NUMBER}"
HEADING = re.compile(  # not in quotation marks; "Item 7", "ITEMS 1 and 2", "I T E M 3", "Item No. 4", "Part II, Item 5"
    r"(?i)[^\w\n\"“‘'(\[]{0,6}(?:part (?:iv|i{1,3})\b[^\w\n\"“(]{0,6})?"
    rf"i ?t ?e ?m ?s?[ .:#(-]{{0,3}}(?:(?:no|number)\b[. ]{{0,2}})?({NUMBER}(?:{LISTED}){{0,7}})[\s.:;,|*)–—-]{{0,9}}"
)
BARE = re.compile(rf"(?i)\W{{0,3}}({NUMBER})[\s.:|)–—-]{{1,4}}(?=[A-Z\[(])")
# What follows the title where the line is not a heading but a sentence. Headings in lower case do not contain these.
PROSE = re.compile(
    r"\b(?:(?:of|in|to) (?:this|our|part|the (?:\S+ ){0,2}(?:annual|form|10-K))|above|below|contains?|"
    r"includ(?:es?|ed|ing)|herein|hereof|is|are|was|were|should|beginning|starting|on page|which|has|have|"
    r"for (?:a|further|additional|more)|and (?:in )?(?:part|item|note)|as (?:well|set|discussed|described))\b"
)
BROKEN = re.compile(r"(?:\b(?:in|see|under|to|and|of|the|with|by|our|or|entitled|captioned)|,)$")  # "... as set out in"
NO_TITLE = re.compile(r"(?:of|in|to|above|below|and|or|for|is|are|under|as|on|which|that|has|with|by|through|we|the)\b")
TOKEN = re.compile(r"(?i)(\d{1,2})(?:[ .-]?(\(?)([A-C])\)?(?![\w’']))?(?: ?\([TI]\))?|through|thru|to|[-–—]")
AND_ITEM = re.compile(rf"(?i)(?:and|&|/|,) items? ({NUMBER})")
TITLE_END = re.compile(r"[.:](?=\s|$)|\s[-–—]{1,2}\s|--|—|(?<=\D)\s\|\s")
PAGE_TAIL = re.compile(r"(?:\||\. ?\.|…|\s)\s*(?:pages? )?\(?(?:[A-Z]-)?\d{1,3}(?:\s?[-–,]\s?\d{1,3})*\)?\s*$")
PART = re.compile(r"(?i)\n\W{0,3}part (?:iv|i{1,3})\b[^\n]{0,30}$")

# What the text below a heading may say instead of being the item.
RESERVED = re.compile(r"(?i)[\[(]?(?:removed and )?reserved|intentionally (?:omitted|left)")
NONE = re.compile(r"(?i)\W*(?:none|not applicable|inapplicable|n/?a|no)\b")
DUTY = re.compile(
    r"(?i)not (?:be )?required|(?:smaller reporting|small business|emerging growth) (?:compan|issuer)|omitted|reserved|"
    r"removed|instruction [ij]\b"
)
ANSWER = re.compile(r"(?i)\s*(?:none|not applicable|n/?a|omitted|the (?:company|registrant) has elected)\b[^\n]{0,200}")
STRONG = re.compile(
    r"(?i)incorporat\w+\b.{0,300}\b(?:by|into|in|reference)\b|proxy statement|\bpages? (?:[A-Z]-)?\d|index to|"
    r"annual report to|exhibit 13|^\W{0,3}(?:please )?(?:see|refer)\b"
)
POINTER = re.compile(
    r"(?i)\b(?:set forth|presented|contained|included|appear\w*|found|described|discussed|provided|given|reported|"
    r"shown|attached|filed|listed)\b.{0,60}(?:\b(?:in|on|at|under|from|as|with|to)\b.{0,60}\b(?:items?|notes?|parts?|pages?|exhibits?|"
    r"report|statements?|sections?|captions?|headings?|index|schedules?)\b|hereto|herein|elsewhere|below|beginning)|"
    r"\bsee\b|\brefer(?:ence is made)? to\b|follows? (?:item|page)"
)
FOOTNOTE = re.compile(r"\n\W{0,3}\*+[^\n]{0,300}incorporated")
SENTENCE = re.compile(r"(?<=[.;])\s+(?=[A-Z])|\n")

# The annual report to shareholders, which answers items 5 to 8 elsewhere; and the index of a filing in its own order.
SECTIONS = {
    "7": r"(?:management\W?s\W? )?(?:financial )?(?:discussion|review|analysis)(?: and (?:discussion|review|analysis))?"
    r"(?: of (?:financial|operations|results).{0,90})?$|"
    r"management\W?s\W? (?:financial )?(?:discussion|review|analysis)",
    "7A": r"quantitative and qualitative|market risk(?: management| disclosures?)?$",
    "6": r"(?:\w+[- ]year )?(?:comparison of )?selected.{0,30}financial|"
    r"\w+[- ]year.{0,30}(?:summary|review|data|highlights)",
    "8": r"consolidated (?:statements?|balance)|(?:consolidated )?balance sheets?|notes to .{0,30}financial|"
    r"statements? of (?:consolidated )?(?:income|earnings|operations|financial)",
    "5": r"(?:common )?(?:stock|share)(?:holders?|owners?)?\W?s?\W? (?:information|data|prices?|market)|"
    r"market (?:price|info)",
    "": r"(?:supplement|quarterly|unaudited quarterly|report of|management\W?s (?:report|responsib)|independent audit|"
    r"directors and|board of|corporate (?:info|data|dir)|officers|investor info|glossary|exhibit)",
}
SECTIONS = {key: re.compile("(?i)" + section) for key, section in SECTIONS.items()}
NOTES = re.compile(r"(?im)^.{0,20}notes to .{0,30}financial statements.{0,20}$")
POLICIES = re.compile(r"(?i)significant accounting polic|basis of (?:presentation|consolidation)")
INCOME = re.compile(r"(?im)^.{0,40}statements? of .{0,20}(?:income|earnings|operations|loss)")
POSITION = re.compile(r"(?im)^.{0,40}(?:balance sheets?|statements? of .{0,20}(?:position|condition))")
PAGED = re.compile(
    r"(?:(?i:item) [\dA-C.]{1,4}[ |]{1,3})?([A-Z][^|\n]{3,150}?)[\s.…]*"
    r"(?:\|\s*(?:[Pp]ages? )?(\d{1,3})(?:[\s,–-][\d,\s–-]*)?(?:\([a-z]\))?)?$"
)
RANGE = re.compile(r"(?<![\w.])(\d{1,3})(?:\s?[-–]\s?(\d{1,3}))?(?![\w.%])")


@dataclass
class Heading:
    start: int
    end: int  # of the heading, where the item's text begins
    keys: list
    weight: float  # what its own line is worth; the text below adds to it
    titled: bool
    style: str = ""
    row: bool = False  # in a table of several items: the contents or an index
    body: int = 0  # characters to the next heading of another item


def find_items(text, form, main=None, contents=()):
    """The text of a 10-K (its first `main` characters; exhibits follow) → {"1A": {"span", "status"}, ...}.

    contents: tables (blocks of rows) that `text` lacks because tables were dropped; they may hold the index of items.
    An item found elsewhere than below its heading also has "heading": [start, end], the words that point there.
    """
    main = len(text) if main is None else main
    lines, like = list(block_lines(text[:main])), {key: key for key in TITLES}
    headings = candidates(lines, main, like)
    if "KSB" in form.upper():  # unless its titles say that it follows the numbers of the 10-K
        as_ksb = candidates(lines, main, KSB)
        if sum(h.titled for h in as_ksb) >= sum(h.titled for h in headings):
            headings, like = as_ksb, KSB
    drop_contents(headings, list(like))
    rows = [h for h in headings if h.row]
    chosen = best_sequence([h for h in headings if not h.row], list(like))
    if len(chosen) > 4 and sum(h.body for h in chosen[:-1]) < 60 * len(chosen):  # contents, and no headings below them
        for heading in chosen:
            heading.row = True
        rows, chosen = [h for h in headings if h.row], []
    if len(chosen) < 3 and like is not KSB:
        items = from_index(text, main, rows, contents)
        unnumbered = best_sequence(titled_lines(lines, main), list(like))
        if len(unnumbered) < 5 or sum(item["status"] == "found" for item in items.values()) > 4:
            return items if len(items) > len(chosen) else spans(text, main, chosen, like)
        chosen, rows = unnumbered, []
    promised = {key for h in rows for key in h.keys}
    chosen = with_unnumbered(chosen, lines, promised, like)
    chosen = with_unordered(chosen, headings)
    items = spans(text, main, chosen, like)
    hidden_ones(items, promised, like)
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


def candidates(lines, length, like):
    """Every line that begins like the heading of an item, with the weight of that line and the text below it."""
    found, tables, seen = [], {}, 0
    for i, (start, line, block) in enumerate(lines):
        first = line.lstrip(" •●▪■*-–—|#_\t\"")[:1]
        if first in ("I", "i", "P", "p"):
            heading = numbered(line, start, like, lines[i + 1] if i + 1 < len(lines) else None)
        elif first.isdigit() and len(line) < 250:
            heading = bare(line, start, like)
        else:
            continue
        if not heading or i and lines[i - 1][2] != block and BROKEN.search(lines[i - 1][1][-20:]):
            continue
        seen += 1
        if seen > 5_000:  # no filing has so many
            return []
        if found and found[-1].keys == heading.keys and heading.start - found[-1].end < 5 and heading.titled:
            heading.start = found.pop().start  # a running head above the heading
        found.append(heading)
        tables.setdefault(block, []).append(heading)
    for rows in tables.values():
        if len({row.keys[0] for row in rows}) > 2:
            for row in rows:
                row.row = True
    return weigh(found, length)


def titled_lines(lines, length):
    """Headings without any number, for filings that have no others."""
    found, alone = [], Counter(block for _, _, block in lines)
    for start, line, block in lines:
        if len(line) < 200 and alone[block] == 1 and is_title(line):
            key = next(key for key in PLAIN if is_title(line, key))
            found.append(Heading(start, start + len(line), [key], 4, True))
    drop_contents(weigh(found, length), list(TITLES))
    return [heading for heading in found if not heading.row]


def is_title(line, key=None):
    return bool((PLAIN[key] if key else ANY_PLAIN).match(line))


def weigh(found, length):
    """Give each heading the length of the text below it, and those that look like most of the others a bonus."""
    styles = Counter(h.style for h in found if h.titled and not h.row)
    usual = styles.most_common(1)[0][0] if styles else ""
    until, above = length, None
    for heading in reversed(found):
        if above and heading.keys != above.keys:  # a running head does not end its item
            until = above.start
        heading.body, above = max(until - heading.end, 0), heading
        heading.weight += 2 * (heading.style == usual)
    return found


def numbered(line, start, like, below):
    """A line that begins with "Item 1A" → Heading, or None where it is a sentence about that item."""
    if not (match := HEADING.match(line)):
        return None
    begin = start + re.match(r"\W*", line).end()
    while again := HEADING.match(line, match.end()):  # "Item 1A ITEM 1A. RISK FACTORS"
        match = again
    if len(line) < 300 and re.search(r"(?i)\bcont(?:inued|'d|d)?\b[.)\]]*", line):
        return None
    at, rest = match.end(), line[match.end() :]
    keys = keys_of(match[1], rest, like)
    if not keys:
        return None
    style = ("ITEM" in match[0]) * "I" + line[match.end(1) : match.end(1) + 1]
    end = title_end(rest, keys, like)
    if end is None and not rest and below and len(below[1]) < 250 and not HEADING.match(below[1]) and (
        title_end(below[1], keys, like)
    ):
        return Heading(begin, below[0] + title_end(below[1], keys, like), keys, 6, True, style)
    if end == 0 or NO_TITLE.match(rest) or end is None and len(rest) > (80 if PROSE.search(rest) else 200):
        return None
    if end is None:
        elsewhere = any(title.match(rest) for key, title in PLAIN.items() if key not in keys)
        return Heading(begin, start + len(line), keys, -4 if elsewhere else 0, False, style)
    weight = 6 - 2 * bool(PAGE_TAIL.search(line)) - 3 * (line[0] in "•●▪■*-–—")
    keys += [k for k in keys_of(" ".join(AND_ITEM.findall(rest[:150])), "", like) if k not in keys]
    return Heading(begin, start + at + end, keys, weight, True, style)


def bare(line, start, like):
    """A line like "1A. Risk Factors" → Heading or None. Notes have numbers too, so the whole title must be there."""
    if not (match := BARE.match(line)) or not (keys := keys_of(match[1], "", like)):
        return None
    title = re.sub(PAGE_TAIL, "", line[match.end() :].split(" |")[0])
    if not TITLES[like[keys[0]]].match(title) or not is_title(title):
        return None
    return Heading(start + match.start(1), start + match.end() + len(title), keys, 3, True, "bare")


def keys_of(numbers, rest, like):
    """ "1 and 2" → ["1", "2"]; "10 through 12" → ["10", "11", "12"]; "9A(T)" → ["9A"]; "1(a)" General → ["1"]."""
    keys, order, span = [], list(like), False
    for token in TOKEN.finditer(numbers):
        if not token[1]:
            span = True
            continue
        number, letter = token[1].lstrip("0"), (token[3] or "").upper()
        key = number + letter
        if token[2] and not (key in like and TITLES[like[key]].match(rest)):
            key = number  # "Item 1(a)" is a part of Item 1, but "Item 9(A)" is 9A
        if key not in like or key in keys:
            continue
        if span and keys and order.index(keys[-1]) < order.index(key):
            keys += order[order.index(keys[-1]) + 1 : order.index(key)]
        keys.append(key)
        span = False
    return keys


def title_end(rest, keys, like):
    """Where the title at the start of `rest` ends; None if there is none of these items, 0 if it goes on as prose."""
    match = next(filter(None, (TITLES[like[key]].match(rest) for key in keys)), None)
    if not match:
        return None
    stop = TITLE_END.search(rest, match.end(), match.end() + 220)
    end = stop.end() if stop else len(rest)
    return 0 if not stop and len(rest) > 250 or PROSE.search(rest, match.end(), min(end, match.end() + 150)) else end


# ---- the choice ------------------------------------------------------------------------------------------------------

def drop_contents(headings, order):
    """Mark as rows the runs of headings with little below most of which have another heading, with text, elsewhere.

    A run ends where text follows or the order falls back: the contents may stand before each part of the form."""
    longest = {}
    for heading in headings:
        for key in heading.keys * (heading.titled and not heading.row):
            longest[key] = max(longest.get(key, 0), heading.body)
    run = []
    for heading, below in zip(headings, [*headings[1:], None], strict=False):
        run.append(heading)
        if heading.body >= 400 or below is None or order.index(below.keys[0]) < order.index(heading.keys[-1]):
            poorer = [h for h in run if h.row or any(longest.get(k, 0) > 4 * h.body + 200 for k in h.keys)]
            if len({h.keys[0] for h in run}) > 2 and len(poorer) * 5 >= len(run) * 3:
                for h in run:
                    h.row = True
            run = []


def best_sequence(headings, order):
    """The heaviest sequence of headings that keeps the order of the form, by dynamic programming over the last item."""
    rank = {key: i for i, key in enumerate(order)}
    best = [(0.0, None)] * (len(order) + 1)  # best[r]: weight and links of a sequence whose last item is the r-th
    for heading in headings:
        ranks = [rank[key] for key in heading.keys]
        weight, links = max(best[: min(ranks) + 1], key=lambda entry: entry[0])
        weight += heading.weight + math.log2(2 + heading.body) + 3 * (len(ranks) - 1) * heading.titled
        if weight > best[max(ranks) + 1][0]:
            best[max(ranks) + 1] = weight, (heading, links)
    links, chosen = max(best, key=lambda entry: entry[0])[1], []
    while links:
        heading, links = links
        chosen.append(heading)
    return chosen[::-1]


# ---- headings out of the ordinary ------------------------------------------------------------------------------------

def with_unnumbered(chosen, lines, promised, like):
    """Add items that the contents promise and whose title stands, without a number, once where the order wants it."""
    order = list(like)
    for key in promised - {key for h in chosen for key in h.keys}:
        before = [h.start for h in chosen if order.index(h.keys[-1]) < order.index(key)]
        after = [h.start for h in chosen if order.index(h.keys[0]) > order.index(key)]
        low, high = before[-1] if before else 0, after[0] if after else math.inf
        found = [(start, line) for start, line, _ in lines if low < start < high and is_title(line, like[key])]
        if len(found) == 1:
            start, line = found[0]
            chosen = sorted([*chosen, Heading(start, start + len(line), [key], 6, True)], key=lambda h: h.start)
    return chosen


def with_unordered(chosen, headings):
    """Add headings with a title whose items the sequence lacks, because they stand out of order."""
    have = {key for h in chosen for key in h.keys}
    left = [h for h in headings if not h.row and h.titled and h.weight >= 5 and not have & set(h.keys)]
    count = Counter(key for h in left for key in h.keys)
    for heading in sorted(left, key=lambda h: -h.body):
        if not have & set(heading.keys):
            have |= set(heading.keys)
            heading.titled = all(count[key] == 1 for key in heading.keys)  # else anyone's guess, and suspect
            chosen = [*chosen, heading]
    return sorted(chosen, key=lambda h: h.start)


def hidden_ones(items, promised, like):
    """An item that must be there, and that nobody found, is inside the one before it, which is suspect then.

    Must: the contents promise it, or every whole 10-K has it, or at least every one young enough to have another."""
    order = list(like)
    if len(items) > 9:
        due = {key for sign, keys in CORE.items() if not sign or sign in items for key in keys}
        promised = promised | {key for key in like if like[key] in due}
    for key in promised - set(items) - {"6", "16"}:
        before = [k for k in items if order.index(k) < order.index(key)]
        if before and items[before[-1]]["status"] == "found":
            items[before[-1]]["status"] = "suspect"


# ---- spans and checks ------------------------------------------------------------------------------------------------

def spans(text, main, chosen, like):
    """Headings in document order → items: each reaches to the next heading, without the heading of the next part."""
    items, waiting = {}, []
    for heading, following in zip(chosen, [*chosen[1:], None], strict=False):
        body = text[heading.end : following.start if following else main].rstrip(" \n•●▪■")
        if part := PART.search(body, max(0, len(body) - 50)):
            body = body[: part.start()].rstrip()
        if heading.keys[-1] == "16" and (answer := ANSWER.match(body)):
            body = answer[0]  # the exhibits and statements below are not the summary
        for key in heading.keys:
            title = text[heading.start : heading.end]
            judged = status(body, title, like[key])
            if not body and title.endswith("*") and FOOTNOTE.search(text[heading.end : heading.end + 30_000]):
                judged = "by_reference"
            if judged == "found" and (not heading.titled or heading.weight < 5):
                judged = "suspect"
            items[key] = {"span": [heading.start, heading.end + len(body)], "status": judged}
        if not body.strip() and judged == "suspect" and heading.keys[0] in PART_III:
            waiting += heading.keys
        else:  # "Item 11. Item 12. Item 13. The information required by these items is incorporated ..."
            for key in waiting * (judged == "by_reference" or judged == "omitted" and len(body) > 20):
                items[key]["status"] = judged
            waiting = []
    return items


def status(body, title, key):
    """What the text below a heading says it is."""
    low, high = BANDS.get(key, OTHER_BAND)
    body = body.strip()
    if RESERVED.search(title + " " + body[:99]) and (len(body) < 100 or key == "6"):
        return "omitted" if len(body) < 300 else "suspect"
    if key in ("14", "15") and re.search("(?i)exhibit", title):
        return "found" if body else "suspect"  # a list of what is incorporated by reference is all it is
    size, sentences = len(body), SENTENCE.split(body[:3000])
    strong = sum(len(s) for s in sentences if STRONG.search(s))
    loose = sum(len(s) for s in sentences if STRONG.search(s) or POINTER.search(s))
    if size < 3000 and strong > 0.6 * size or size < 300 and strong:
        return "by_reference"
    if size < 350 and (DUTY.search(body) or NONE.match(body) and key not in ANSWERS):
        return "omitted"
    if size < 800 and loose > 0.6 * size or size < low and loose:
        return "by_reference"
    return "found" if low <= size <= high else "suspect"


# ---- content that stands elsewhere -----------------------------------------------------------------------------------

def follow(items, text, main):
    """Look up what items 5 to 8 point to in what follows the last item: exhibits, or a financial section."""
    marks, last = [], max((item["span"][0] for item in items.values()), default=main)
    for start, block in blocks(text[last:]):
        if len(block) < 110 and not re.search(r"[\n|]|\.$", block) and not PROSE.search(block):
            kind = next((key for key, title in SECTIONS.items() if title.match(block)), None)
            marks += [(kind, last + start, letters(block)[:40])] if kind is not None and len(marks) < 1000 else []
    later, kept = Counter(mark[2] for mark in marks), []
    for mark, below in zip(marks, [*marks[1:], None], strict=False):
        later[mark[2]] -= 1
        if not below or below[1] - mark[1] > 200 or not later[mark[2]]:  # else one in a list of them
            kept.append(mark)
    for key in ("5", "6", "7", "7A", "8"):  # statements at the end of the form itself remain a part of Item 15
        around = kept if key != "8" else [mark for mark in kept if mark[1] >= main]
        if items.get(key, {}).get("status") == "by_reference" and (span := section(key, around, len(text))):
            body = text[span[0] : span[1]].rstrip()
            low, high = BANDS.get(key, OTHER_BAND)
            if max(low, 300) <= len(body) <= high and (key != "8" or are_statements(body)):
                items[key] = {"span": [span[0], span[0] + len(body)], "status": "found", "heading": items[key]["span"]}
    return in_order(items, text)


def in_order(items, text):
    """Items by their place in the text; what was found behind the last item, or inside another, is not part of it."""
    items = dict(sorted(items.items(), key=lambda item: item[1]["span"]))
    starts = sorted({item["span"][0] for item in items.values()})
    for item in items.values():
        start, end = item["span"]
        end = min([end, *starts[bisect.bisect_right(starts, start) :][:1]])
        item["span"][1] = start + len(text[start:end].rstrip())
    return items


def are_statements(body):
    """Do both statements, of income and of position, stand before the notes, and the notes are there?"""
    before, _, notes = body.partition(NOTES.search(body)[0] if NOTES.search(body) else body)
    return bool(INCOME.search(before) and POSITION.search(before) and POLICIES.search(notes))


def blocks(text):
    """(start, block) of every block."""
    start = 0
    for block in text.split("\n\n"):
        yield start, block
        start += len(block) + 2


def section(key, marks, length):
    """The longest section of this kind between two marks, as (start, end); None if there is none."""
    found, inside = [], {"8": ("8", "7A"), "7": ("7", "7A")}.get(key, (key,))
    for i, (kind, start, _) in enumerate(marks):
        if kind == key and (i == 0 or marks[i - 1][0] != key):
            found.append((start, next((at for other, at, _ in marks[i:] if other not in inside), length)))
    return max(found, key=lambda span: span[1] - span[0], default=None)


def from_index(text, main, rows, contents):
    """Items of a filing that has an index (item, title, pages) and sections in an order of its own.

    A section is taken where its heading has the title of the item, and the table of contents gives it a page that the
    index gives to the item. It ends at the heading of the first page after. All other rows are pointers. Where tables
    were dropped, the index is not in the text, and nothing but sections can be given."""
    index = read_index(rows, text[:main])
    items = {key: {"span": span, "status": judged} for key, (span, judged, _, _) in index.items()}
    if len(rows) < 3:
        tables, items = "\n\n".join(contents), {}
        rows = [h for h in candidates(list(block_lines(tables)), len(tables), {key: key for key in TITLES}) if h.row]
        index, rows = read_index(rows, tables), []
    entries = [entry for block in [*text[:main].split("\n\n"), *contents] if "\n" in block for entry in pages_of(block)]
    listed = located(text[:main], sorted(entries[:2000], key=lambda entry: entry[1]))
    ranged = sum(ranged for _, _, _, ranged in index.values()) > 3  # "27-36"; else "27", until another item's page
    for key in index.keys() - {"15", "16"}:  # the pages of Item 15 are those of the statements
        pages = index[key][2]
        for i, (start, title, page) in enumerate(listed):
            if pages & {page, page + 1} and is_title(title, key):
                last = page
                while last + 1 in pages:
                    last += 1
                if not ranged:
                    others = [min(p) for k, (_, _, p, _) in index.items() if p and k != key and (key, k) != ("7", "7A")]
                    last = min((p for p in others if p > page), default=math.inf) - 1
                ends = [at for at, other, p in listed[i + 1 :] if p > last or p == last and is_title(other)]
                ends = [at for at in [*ends, *(row.start for row in rows), main] if at > start]
                body = text[start + len(title) : ends[0]].rstrip()
                judged = status(body, title, key)
                if judged in ("found", "by_reference"):
                    pointer = {"heading": items[key]["span"]} if key in items else {}
                    items[key] = {"span": [start, start + len(title) + len(body)], "status": judged} | pointer
                break
    return in_order(items, text)


def read_index(rows, text):
    """The rows of an index → {item: ([start, end], status, its pages, are they ranges?)}."""
    index = {}
    for row, below in zip(rows, [*rows[1:], None], strict=False):
        stop = text.find("\n\n", row.end)
        stop = min(len(text) if stop < 0 else stop, below.start if below else len(text))
        title, body = text[row.start : row.end], re.split(r"(?i)\n(?:part|signature)", text[row.end : stop])[0].rstrip()
        pages = {p for a, b in RANGE.findall(body) for p in range(int(a), min(int(b or a), int(a) + 500) + 1)}
        answered = NONE.match(body) or RESERVED.search(title + body)
        judged = status(body, title, row.keys[0]) if answered else "by_reference"
        for key in row.keys:
            ranged = bool(re.search(r"\d\s?[-–]\s?\d", body))
            index.setdefault(key, ([row.start, row.end + len(body)], judged, pages, ranged))
    return index


def pages_of(table):
    """Rows "Risk Factors | 27" of a table of contents → [(title, page)]; a title without page has that of the next."""
    entries, page = [], None
    for line in reversed(table.split("\n")):
        match = PAGED.match(line)
        page = int(match[2]) if match and match[2] else page
        if match and page:
            entries.append((match[1], page))
    return entries[::-1] if sum(line[-1:].isdigit() for line in table.split("\n")) > 4 else []


def located(text, entries):
    """Find the titles as headings in the text, in the order of the contents → [(start, title, page)]."""
    wanted = {}
    for i, (title, _) in enumerate(entries):
        wanted.setdefault(letters(title), []).append(i)
    places = []
    for start, block in blocks(text):
        head = re.match(r"[^.:|\n]{3,150}", block)
        if head and "\n" not in block and (len(head[0]) == len(block.rstrip(".:")) or head[0].isupper()):
            for i in wanted.get(letters(head[0]), [])[:3]:
                places.append(Heading(start, start, [i], 1, True, style=entries[i][0]))
    chosen = best_sequence(places[:5000], range(len(entries)))
    return [(h.start, h.style, entries[h.keys[0]][1]) for h in chosen]


def letters(title):
    return re.sub(r"[^a-z]+", "", title.lower())
