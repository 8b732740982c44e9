"""SEC EDGAR: any filing, from a 1993 e-mail wrapper to inline XBRL, as the text a language model should learn from.

    from edgar import read_filing
    doc = read_filing("0000040545-94-000003.txt")
    doc["text"]   # "PART I\\n\\nItem 1. Business\\n\\nGeneral\\n\\nUnless otherwise indicated by the context, ..."
    doc["meta"]   # {"cik": "0000040545", "company": "GENERAL ELECTRIC CO", "form": "10-K", "filed": "1994-03-11", ...}
    doc["meta"]["items"]    # of a 10-K: {"1": {"span": [2599, 47546], "status": "found"}, ...}; items.py says how
    doc["meta"]["people"]   # ["John F. Welch, Jr.", ...]: who signed or is an officer, for those who must mask names

The idea: thirty years of formats meet in one intermediate string. `html_marks` and `text_marks` turn a document into
text in which ASCII's own separators say what the layout meant (group = table, record = row, unit = cell, form feed =
page); everything after that, from "$ | 1,234" to page numbers, is written once and does not know where it came from.

HTML is scanned tag by tag, not parsed into a tree. Filings are tag soup, and a conforming parser must rebuild every
unclosed <font> in every later <p>: 79 kB of that make eight million nodes (selectolax 1.0: 7 s), and 200,000 nested
<div> take two minutes. A scan is linear, and all we need to know is: block, cell or inline, and is it shown? For the
same reason no regular expression here looks further than the end of the tag, comment or line or a fixed bound.
"""

import codecs
import functools
import html
import re
import unicodedata
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path

from items import find_items

TABLE, ROW, CELL, PAGE, BREAK = "\x1d", "\x1e", "\x1f", "\f", "\v"  # BREAK is <br>: may or may not end a paragraph

# C1 controls are cp1252 letters that somebody declared to be Latin-1; the private use area is Symbol and Wingdings.
CHARS = dict.fromkeys([*range(9), *range(14, 29), 0x7F, 0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F),
                       *range(0x2060, 0x2065), *range(0xD800, 0xF900), 0xFEFF, 0xFFFD])  # fmt: skip
CHARS |= {c: bytes([c]).decode("cp1252", "ignore") for c in range(0x80, 0xA0)} | {0x2011: "-", 0xF0B7: "•", 0xA8: "☐"}
CHARS |= dict.fromkeys([0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000], " ")
CHARS |= {c: unicodedata.normalize("NFKC", chr(c)) for c in range(0xFB00, 0xFB07)}
ODD = re.compile(f"[{''.join(map(re.escape, map(chr, CHARS)))}]")  # they are few: ten times faster than str.translate

SUBMISSION = re.compile(r"(?m)^(?:-----BEGIN PRIVACY-ENHANCED|<(?:SEC|IMS)-(?:DOCUMENT|HEADER)>|<SUBMISSION>|<DOCUMENT>"
                        r"|<ACCEPTANCE-DATETIME>|<?ACCESSION[ -]NUMBER[:>])")  # fmt: skip
HTML = re.compile(r"(?i)<(?:!doctype html|html|head|body|div|p|br|font|span|td)\b[^<>]*>")


def read_filing(path, tables="short", whole=False):
    """One filing on disk → {"id", "text", "meta"}. OSError if it cannot be opened, ValueError if it cannot be read."""
    return parse_filing(Path(path).read_bytes(), Path(path).name, tables, whole)


def looks_like_filing(head):
    """Does a file that begins with `head` (about 4 kB) need `read_filing`: EDGAR's wrapper of any decade, or HTML?"""
    head = head[:4096].lstrip("\ufeff \r\n\t")
    return bool(SUBMISSION.search(head) or head.startswith("<") and HTML.search(head))


def parse_filing(raw, id, tables="short", whole=False):
    """A filing in memory (str or bytes) → {"id", "text", "meta"}. ValueError, one line with the reason, if unreadable.

    tables: "short" keeps those with at least as many letters as digits, "all" keeps every one, "none" no one.
    whole: keep page numbers, running heads, signatures and lists of exhibits, too. With tables="all" the text then has
    every word that a browser shows.
    """
    if tables not in ("short", "all", "none"):
        raise ValueError(f'tables must be "short", "all" or "none", not {tables!r}')
    raw = decode(raw)
    wrapper, *documents = re.split(r"\n<(?i:DOCUMENT)>", "\n" + raw)
    meta = header_meta(wrapper) if documents or SUBMISSION.search(raw[:4096]) else {}
    if not documents and meta and not HTML.search(raw):
        raise ValueError("no readable document: header only")
    documents = [document_parts(d) for d in documents] or [("", raw)]
    # EX-13 is the annual report to shareholders: before 2008 a 10-K often says no more than "see there".
    kept = [d for d in documents if re.match(r"10-?K|EX-13", d[0])] or documents[:1]
    texts, names = [], {}
    for form, body in kept:
        if re.match(r"\s*(?:<PDF>|%PDF|begin \d{3} )", body):
            continue
        marked = free_headings(html_marks(body) if HTML.search(body) else text_marks(body))
        blocks = to_blocks(marked, tables)
        if not texts:
            meta = cover_meta(blocks, form) | fact_meta(body) | meta
            first = marked
        names |= dict.fromkeys(people(marked))
        kept_blocks = filter(PAGE.__ne__, blocks) if whole else without_signatures(without_furniture(blocks))
        texts.append("\n\n".join(kept_blocks))
    if not any(texts):
        raise ValueError("no readable document: no visible text")
    if accession := re.search(r"\d{10}-\d\d-\d{6}", str(id)):
        meta.setdefault("accession", accession[0])
    meta |= {"documents": [form for form, _ in kept if form], "people": list(names)}
    meta = {k: v for k, v in meta.items() if v}
    text = "\n\n".join(filter(None, texts))
    if re.match("(?i)10-?K", meta.get("form") or "10-K" * bool(re.search(r"(?i)\bform\s{1,3}10-K", text[:5000]))):
        meta["items"] = find_items(text, meta.get("form", ""), len(texts[0]))
        if not meta["items"] and tables != "all":  # an index of items may be among the tables that were dropped
            index = [block for block in to_blocks(first, "all") if "\n" in block]
            meta["items"] = find_items(text, meta.get("form", ""), len(texts[0]), index)
    return {"id": id, "text": text, "meta": meta}


# ---- the submission --------------------------------------------------------------------------------------------------

# The documents of one submission may differ in encoding, so cp1252 steps in byte by byte, wherever UTF-8 fails.
codecs.register_error("edgar-cp1252", lambda e: (e.object[e.start : e.end].decode("cp1252", "replace"), e.end))

HEADER = {
    "ACCESSION NUMBER": "accession", "CONFORMED SUBMISSION TYPE": "form", "TYPE": "form", "FILED AS OF DATE": "filed",
    "FILING DATE": "filed", "CONFORMED PERIOD OF REPORT": "period", "PERIOD": "period", "CENTRAL INDEX KEY": "cik",
    "CIK": "cik", "COMPANY CONFORMED NAME": "company", "CONFORMED NAME": "company", "STATE OF INCORPORATION": "state",
    "STANDARD INDUSTRIAL CLASSIFICATION": "sic", "ASSIGNED SIC": "sic", "FORMER CONFORMED NAME": "former_names",
}  # fmt: skip
FACT = re.compile(r"(?i)<ix:nonnumeric\b[^<>]{0,499}\bname\s?=\s?[\"']dei:(\w{1,99})[^<>]{0,499}>")
DATE = re.compile(r"([A-Z][a-z]{2,8}|[A-Z]{3,9})\.? {1,3}(\d{1,2}) ?, ?(\d{4})|(\d{4})-?(\d\d)-?(\d\d)(?!\d)")


def decode(raw):
    if not isinstance(raw, str):
        raw = bytes(raw).decode("utf-8-sig", "edgar-cp1252")
    if not raw.strip():
        raise ValueError("empty file")
    controls = re.findall(r"[\0-\x08\x0e-\x1f\x7f\ufffd]", raw[:100_000])
    if raw.startswith(("%PDF", "PK\x03\x04")) or len(controls) * 20 > min(len(raw), 100_000):
        raise ValueError("binary data (PDF, zip, image ...), not a filing")
    return raw.replace("\r\n", "\n").replace("\r", "\n")


def document_parts(document):
    """What follows <DOCUMENT> → (TYPE, what stands inside <TEXT>)."""
    head, _, body = document.partition("<TEXT>")
    form = re.search(r"<TYPE>([^\n<]*)", head)
    return form[1].strip().upper() if form else "", (body or head).partition("</TEXT>")[0].partition("</DOCUMENT>")[0]


def header_meta(header):
    """The submission header, as "KEY: value" (.txt) or "<KEY>value" (.nc). The first filer is the primary one."""
    meta, role, companies, ciks, former = {}, "FILER", 0, [], []
    for line in header.split("\n"):
        if not (match := re.match(r"\s*(?:<([A-Z-]+)>|([A-Z][A-Z -]*):)\s*(.*)", line)):
            continue
        key, value = (match[1] or match[2]).replace("-", " "), match[3].strip()
        role = key if key in ("FILER", "SUBJECT COMPANY", "ISSUER", "FILED BY", "REPORTING OWNER") else role
        field = HEADER.get(key)
        if not field or not value or role in ("FILED BY", "REPORTING OWNER"):
            continue
        companies += field == "company"
        if field == "cik" and value.isdigit():
            ciks.append(value.zfill(10))
        elif field == "former_names" and companies < 2:
            former.append(value)
        elif companies < 2:
            meta.setdefault(field, value)
    sic = re.search(r"(\d{4})\]?$", meta.get("sic", ""))
    meta |= {"cik": "".join(ciks[:1]), "co_registrants": [cik for cik in dict.fromkeys(ciks) if cik != ciks[0]],
             "former_names": list(dict.fromkeys(former)), "sic": sic[1] if sic else "",
             "filed": iso_date(meta.get("filed")), "period": iso_date(meta.get("period"))}  # fmt: skip
    return {k: v for k, v in meta.items() if v}


def fact_meta(body):
    """Inline XBRL repeats the cover page in dei: facts, some of them hidden."""
    facts = {}
    for fact in FACT.finditer(body):
        value = body[fact.end() : fact.end() + 499]
        if "Date" not in fact[1]:  # a date holds another: <...PeriodEndDate><...YearEndDate>June 30</...>, 2023
            value = re.split("(?i)</ix:nonnumeric", value)[0]
        value = unescape(re.sub(r"<[^<>]*>?", "", value)).translate(CHARS)
        facts.setdefault(fact[1], []).append(" ".join(value.split()))
    first = {name: values[0] for name, values in facts.items()}
    ciks = [cik.zfill(10) for cik in dict.fromkeys(facts.get("EntityCentralIndexKey", [])) if cik.isdigit()]
    meta = {"cik": "".join(ciks[:1]), "co_registrants": ciks[1:], "company": first.get("EntityRegistrantName"),
            "form": first.get("DocumentType"), "period": iso_date(first.get("DocumentPeriodEndDate"))}  # fmt: skip
    return {k: v for k, v in meta.items() if v}


def cover_meta(blocks, form):
    """Without header and facts, the cover page itself: the name stands above "(Exact name of registrant ...)"."""
    cover, meta = blocks[:120], {"form": form}
    for above, block in zip(["", *cover], cover, strict=False):
        if "company" not in meta and (exact := re.search(r"(?i)\(?exact name of (?:small business )?\w+", block)):
            name = (block[: exact.start()].strip() or above).split("\n")[-1]
            meta["company"] = name if re.search(r"[A-Za-z]{2}", name) and len(name) < 100 else ""
        if not meta["form"] and (found := re.match(r"(?i)form\s(\d{1,2}-[A-Z]{1,4}(?:405)?(?:/A)?)\b", block)):
            meta["form"] = found[1].upper()
        if "period" not in meta and (found := re.search(r"(?i)\b(?:year|period) ended:? ", block)):
            meta["period"] = iso_date(block[found.end() : found.end() + 30])
    return {k: v for k, v in meta.items() if v and (k != "period" or meta["form"].startswith("10"))}


def iso_date(text):
    """ "19931231", "1993-12-31" or "December 31, 1993" → "1993-12-31"; anything else, also June 31, → ""."""
    if not (found := DATE.match((text or "").strip())):
        return ""
    month, day, year, *digits = found.groups()
    try:
        date = datetime.strptime(f"{month[:3]} {day} {year}", "%b %d %Y") if month else datetime(*map(int, digits))
    except ValueError:
        return ""
    return date.date().isoformat()


# ---- from a document to marked text ----------------------------------------------------------------------------------

# Scripts and the like end at their own end tag only: a "<" in them is no tag. What ends nowhere ends with the file.
OPAQUE = "|".join(rf"{tag}\b(?![^<>]*/>)(?s:.*?)(?=</{tag}|\Z)" for tag in ("script", "style", "ix:header"))
# <(/)(tag)(attributes)>, of which a quoted one may hold ">", but none runs past the next "<". Or nothing to read.
TAG = re.compile(rf"""(?x)<(?: !--(?:-?>|(?s:.*?)(?:--!?>|\Z)) | (?i:{OPAQUE})
    | (/?)(?:x?html:)?([a-zA-Z][\w:.-]{{0,30}})([^<>"']*(?:(?:"[^"<]*"|'[^'<]*')[^<>"']*)*(?=>)|[^<>]*)>?
    | [/!?][^<>]*>?)""")
BLOCKS = """address article aside blockquote body caption center dd details dir div dl dt fieldset figcaption figure
    footer form h1 h2 h3 h4 h5 h6 header legend li listing main menu nav ol optgroup option p plaintext pre section
    select summary ul xmp"""
MARKS = dict.fromkeys(BLOCKS.split(), "\n") | {"br": BREAK, "hr": PAGE}
MARKS |= {"table": TABLE, "tr": ROW, "td": CELL, "th": CELL}
NEVER_SHOWN = set("audio canvas datalist iframe noembed noframes noscript rp template title video".split())
EMPTY = set("area base br col embed frame hr img input link meta param source track wbr".split())
CELLS = {"td", "th", "tr"}  # a next one closes what is open in the cell before, save for these:
CLOSERS = {"p": CELLS | set(BLOCKS.split()), "tr": {"tr"}} | dict.fromkeys(("table", "tbody", "thead", "tfoot"), ())
STYLE = re.compile(r"""[\s"'=;](?:page-|content-)?(display|visibility|float|position|break-before|break-after)"""
                   r"""\s{0,9}:\s{0,9}([\w-]+)""")  # fmt: skip
COLUMNS = re.compile(r"\S {4,}\S|\S {2,}[$(]{0,2}\d[\d,.]*[)%]{0,2}\s*$")
MARKER = r"(?i)(?:[•●▪■◦○·‣∙§*☐☒☑†‡–—-]|o|\(?(?:\d{1,3}|[a-z]|[ivx]{2,4})[.)]|(?:item|note)\s\d{1,2}[A-C]?[.:]?)"
RULER = re.compile(r"[\s\-=_.*|+~–—]*$")
GLUED = re.compile(r"^(?:[•●▪■◦○☐☒☑]|\([a-z0-9]{1,3}\))(?=\w)")
CLOSER, OPENER = re.compile(r"[)%]{1,3}$|\) %$"), re.compile(r"[($€£¥]{1,3}$")


def unescape(text):
    return html.unescape(re.sub(r"&#[0-9]{9,}", "", text)) if "&" in text else text  # int() refuses 5,000 digits


def html_marks(body):
    """HTML → marked text. Inline tags vanish without a trace, so words split over spans grow together again."""
    rules = style_rules(body)
    layout = functools.cache(lambda attributes: layout_of(attributes, rules))  # the same few come again and again
    pieces = iter(TAG.split(body))
    out, pre = [unescape(next(pieces)).replace("\n", " ")], None
    opened, hidden, inside = defaultdict(int), "", {}  # how many of each tag are open; and are within the hidden one
    styled = {}  # the marks of <div style="display:inline"> and the like, for their end tags
    for closing, tag, attributes, text in zip(pieces, pieces, pieces, pieces, strict=True):
        tag = tag.lower() if tag else ""
        opens = tag and not closing and tag not in EMPTY and not attributes.endswith("/")
        if hidden:  # until it ends, or an element around it does, or a tag comes that closes an open <p> or <td>
            if opens:
                over = tag in CLOSERS.get(hidden, CELLS) and not inside["table"]
            else:
                over = closing and opened[tag] and not inside[tag]
            if not over:
                inside[tag] += bool(opens) or -bool(closing and inside[tag])
                continue
            opened[hidden] -= bool(opens or tag != hidden)
            hidden = ""
        if opens:
            opened[tag] += 1
        elif closing and opened[tag]:
            opened[tag] -= 1
        mark = MARKS.get(tag, "")
        page, display = layout(attributes) if attributes and not closing else ("", None)
        if opens and (display == "none" or tag in NEVER_SHOWN):
            hidden, inside = tag, defaultdict(int)
        elif opens and display is not None and mark in ("", "\n"):
            mark = styled[tag, opened[tag]] = display
        elif closing and styled:
            mark = styled.pop((tag, opened[tag] + 1), mark)
        if hidden or "&" in text:
            text = "" if hidden else unescape(text)
        if pre is not None:  # 1990s text in an HTML wrapper
            if tag not in ("pre", "p", "div", "tr", "td") and not (tag == "table" and attributes):
                pre += (f"<{closing}{tag}>" if tag in ("table", "page") else mark and "\n"), text
                continue
            out += "\n", text_marks("".join(pre))
            pre = None
        if opens and tag == "pre":
            pre, text = [text], ""
        out += page, mark, text.replace("\n", " ")
    return "".join(out) + ("\n" + text_marks("".join(pre)) if pre else "")


def layout_of(attributes, rules):
    """Attributes → (PAGE if a page begins or ends here else "", "none" if hidden or the mark their style asks for)."""
    if rules and (names := re.search(r"""(?i)\bclass\s{0,9}=\s{0,9}["']?([^"'<>]*)""", attributes)):
        attributes = "".join(rules.get(name, "") for name in names[1].split()) + attributes
    attributes = attributes.lower()
    style = dict(STYLE.findall(attributes)) if ":" in attributes else {}
    page = PAGE if {style.get("break-before"), style.get("break-after")} & {"always", "page"} else ""
    bare = re.sub("\"[^\"]*\"|'[^']*'", "", attributes) if "hidden" in attributes else ""  # not overflow:hidden
    display = style.get("display", "")
    if display == "none" or style.get("visibility") in ("hidden", "collapse") or re.search(r"(?<!\S)hidden\b", bare):
        return page, "none"
    if style.get("float") in ("left", "right") or style.get("position") in ("absolute", "fixed"):
        return page, "\n"
    return page, "\n" if re.match("block|table|flex|grid|list", display) else "" if display == "inline" else None


def style_rules(body):
    """What <style> says of each ".name"; longer selectors and what stands within "@media {...}" are left out."""
    if "</style" not in body.lower():
        return {}
    sheet = " ".join(re.findall(r"(?is)<style\b[^<>]*>(.*?)(?:</style|\Z)", body))
    sheet = re.sub(r"<!--|/\*[^*]*(?:\*(?!/)[^*]*)*(?:\*/)?|@[^@{}]*\{(?:[^@{}]*\{[^@{}]*\})*[^@{}]*\}", " ", sheet)
    rules = {}
    for rule in sheet.split("}"):
        selectors, _, declarations = rule.partition("{")
        if STYLE.search(f";{declarations.lower()}"):
            names = re.findall(r"(?:^|,)\s{0,99}\.([\w-]+)\s{0,99}(?=,|$)", selectors)
            rules |= dict.fromkeys(names, f";{declarations};")
    return rules


def text_marks(body):
    """Text hard-wrapped at some 80 columns → marked text: paragraphs unwrapped, aligned columns as rows and cells."""
    lines = body.replace(PAGE, "\n<PAGE>\n").expandtabs().split("\n")
    lengths = sorted(len(line) for line in lines if 50 <= len(line) <= 120 and not re.search(r"\S {3,}\S", line))
    width = lengths[len(lengths) * 9 // 10] if lengths else 80
    out, chunks = [], [[]]
    for line in [*lines, "<PAGE>"]:
        if tag := re.match(r"(?i)\s*<(/?TABLE|PAGE)>", line):
            whole = [line for chunk in chunks for line in chunk]  # within <TABLE> blank lines are part of the table
            if tag[1].upper() == "/TABLE" and sum(map(bool, map(COLUMNS.search, whole))) * 3 > len(whole):
                out += TABLE, rows_of(whole), TABLE
            else:
                out += [mark for chunk in filter(None, chunks) for mark in chunk_marks(chunk, width)]
            out.append(PAGE if tag[1].upper() == "PAGE" else "")
            chunks = [[]]
        line = re.sub(r"</?[A-Za-z][A-Za-z0-9]{0,12}>", "", line).rstrip()
        if not RULER.match(line):
            chunks[-1].append(line)
        elif chunks[-1]:
            chunks.append([])
    return "".join(out[:-1]).replace(TABLE + TABLE, ROW)


def chunk_marks(chunk, width):
    """Lines between blank ones: a table if most of them show columns, else prose."""
    if sum(map(bool, map(COLUMNS.search, chunk))) * 2 > len(chunk):
        return TABLE, rows_of(chunk), TABLE
    return "\n", unwrap(chunk, width), "\n"


def rows_of(lines):
    rows = [re.sub(r"(?:\. ?){4,}", "   ", line).strip() for line in lines]
    return ROW.join(CELL + re.sub(" {2,}", CELL, row) for row in rows)


def unwrap(lines, width):
    """Join hard-wrapped lines. A break is real where the next word would have fitted, or an item or indent begins."""
    width = max(map(len, lines)) if len(lines) > 3 else width
    out = [lines[0].strip()]
    for above, line in zip(lines, lines[1:], strict=False):
        text = line.strip()
        word = text.split(" ", 1)[0]
        indented = is_sentence(above) and len(line) - len(text) - len(above) + len(above.lstrip()) >= 3
        ragged = word[0].islower() and not is_sentence(above) and len(above) * 2 > width
        if len(above) + len(word) + 8 < width and not ragged or re.match(MARKER + r"\s", text) or indented:
            out.append("\n")
        elif not re.search("[a-z]-$", above) or not word[0].islower() or word in ("and", "or", "to"):
            out.append(" ")  # but "diesel-" + "electric"
        out.append(text)
    return "".join(out)


def is_sentence(text):
    return text.rstrip("\"”’)")[-1:] in tuple(".!?:;")


# ---- from marked text to blocks: a paragraph (one line), a table (its rows as lines) or a page mark ------------------

def to_blocks(marked, tables):
    blocks = []
    for chunk in ODD.sub(lambda odd: CHARS[ord(odd[0])] or "", marked).split(TABLE):
        blocks += table_blocks(chunk, tables) if CELL in chunk else paragraph_blocks(chunk)
    return blocks


def paragraph_blocks(chunk):
    blocks = []
    for paragraph in chunk.replace(PAGE, f"\n{PAGE}\n").replace(ROW, "\n").split("\n"):
        out, above = [], ""
        for line in paragraph.split(BREAK):
            line = GLUED.sub(r"\g<0> ", " ".join(line.split()))
            wrapped = above and line and (line[0].islower() or len(above) > 60) and not is_sentence(above)
            out += (" " if wrapped else "\n"), line
            above = line or above
        blocks += [PAGE] if paragraph == PAGE else filter(None, "".join(out).split("\n"))
    return blocks


def table_blocks(chunk, tables):
    rows = []
    for row in chunk.replace(PAGE, " ").split(ROW):
        cells = [cell for cell in row.split(CELL) if cell.strip()]
        if len(cells) == 1:
            rows += [[paragraph] for paragraph in paragraph_blocks(cells[0])]
        else:
            rows.append(join_cells([" ".join(cell.split()) for cell in cells]))
    rows = [row for row in rows if not all(map(RULER.match, row))]
    if all(len(row) == 1 for row in rows):
        return [row[0] for row in rows]
    text = "\n".join(" | ".join(row) for row in rows)
    if tables == "none" or tables == "short" and len(re.findall("[0-9]", text)) > len(re.findall("[A-Za-z]", text)):
        return [row[0] for row in rows if len(row) == 1 and len(row[0]) > 150]  # a footnote is not a number
    return [text]


def join_cells(cells):
    """["$", "(1,234", ")", "12", "%"] → ["$(1,234)", "12%"], and a bullet or "Item 1." joins the one text after it."""
    joined = []
    for cell in cells:
        if joined and len(joined[-1]) < 99 and CLOSER.match(cell):
            joined[-1] += cell.replace(" ", "")
        elif joined and OPENER.match(joined[-1]):
            joined[-1] += cell
        else:
            joined.append(re.sub(r"^([($€£¥]{1,3}) (?=[\d(])", r"\1", cell) if cell[0] in "($€£¥" else cell)
    return [" ".join(joined)] if len(joined) == 2 and re.fullmatch(MARKER, joined[0]) else joined


# ---- what is not text ------------------------------------------------------------------------------------------------

PAGE_NUMBER = re.compile(r"(?i)[-–—\s]*(?:page )?(?:[A-Z]{1,2}-)?\d{1,3}(?: of \d{1,3})?[-–—\s]*$")
NEAR_PAGE = re.compile(r"(?i)[(\[]?(?:\d{1,4}|[ivxl]{1,6}|contents|continued|next page)[)\]]?$")
BACK_LINK = re.compile(r"(?i)(?:(?:back|return) to )?(?:the )?table of contents\W*$")
RUNNING = re.compile(r"(?i)\bform 10-?k|\bannual report\b|continued\)?$|\b(?:inc|corp|corporation|company|llc)\.?$")
STRUCTURE = re.compile(r"(?i)(?:part|item|notes?)\b(?!.{0,99}\bcontinued)")
SIGNED = re.compile(r"(?i)pursuant to the requirements|(?:to be|has been) signed")
SIGNING = re.compile(SIGNED.pattern + r"|/s/|power of attorney|attorneys?-in-fact|in witness whereof")
ANSWER = re.compile(r"(?i)\W?(?:none|not applicable|not required|n/a|\W?reserved)\b.{0,20}$")
ROW_HEADING = re.compile(r"(?i)(?:^|\x1e)[\s\x1f]*item[\s\x1f]{0,3}\d{1,2}[A-C]?\b(?:[^\x1e\d]|10-K|8-K){4,300}"
                         r"(?=\x1e|$)")  # fmt: skip
SIGNATURE = re.compile(r"/s/[\s\x1f.:_]{0,20}([^\n\x0b-\x1f]{3,60})([^/]{0,200})")
OFFICER = re.compile(r"(?:^|\x1e)[\s\x1f]*([A-Z][^\n\x0b-\x1f]{4,50})[\s\x1f]*\x1f(?:[^\x1e\x1f]{0,150}\x1f){0,6}?"
                     r"\s*[2-9]\d\s*(?=[\x1e\x1f]|$)")  # fmt: skip
NAME = re.compile(r"(?:(?:Mr|Mrs|Ms|Dr)\.? )?[A-Z][\w’'.-]{0,19}(?: (?:(?:de|Mc|Mac|[DdO][’'])?[A-Z][\w’'-]{1,19}\b|"
                  r"(?:[A-Z]\.){1,3}|[A-Z]\b|[\"“(][A-Z]\w+[\"”)]|(?:de|der|del|la|van|von)\b)){1,4}"
                  r"(?:,? (?i:Jr|Sr|II|III|IV)\b\.?)?")  # fmt: skip
NO_NAME = re.compile(r"(?i)\b(?:llp|llc|l\.?p|inc|corp\w*|company|co|ltd|partners|associates|trust|bank|fund|group|"
                     r"cpas?|kpmg|deloitte|ernst|young|coopers|waterhouse|arthur andersen|thornton|bdo|mcgladrey|crowe|"
                     r"director|president|officer|chief|vice|chairman|secretary|treasurer|attorney|part|item|total|year|"
                     r"december|the|and|of|age)\b")  # fmt: skip
REAL_TEXT = re.compile(r"(?i)(?:item \d|part [iv]|notes? |index|exhibit|report of|consolidated|schedule|financial)")


def free_headings(marked):
    """Cut the heading of an item out of a table that holds what follows as well, because tables may be dropped."""
    chunks = marked.split(TABLE)
    for i, chunk in enumerate(chunks):
        if CELL in chunk and 0 < len(ROW_HEADING.findall(chunk)) < 3:  # more of them are a table of contents
            chunks[i] = ROW_HEADING.sub(TABLE + r"\g<0>" + TABLE, chunk)
    return TABLE.join(chunks)


def people(marked):
    """Names of those who signed ("/s/ Jane Doe" and the line below) and of officers in tables with their age."""
    names = {}
    for match in SIGNATURE.finditer(marked):
        signed = as_name(match[1])
        below = next(filter(None, map(as_name, re.split(r"[\n\x0b-\x1f]|\s{3,}", match[2]))), "")
        if signed:
            names |= dict.fromkeys([signed] + [below] * (below.lower().split()[-1:] == signed.lower().split()[-1:]))
    for table in marked.split(TABLE):
        if re.search(r"\b(?:Age|AGE)\b", table):
            names |= dict.fromkeys(filter(None, (as_name(row[1]) for row in OFFICER.finditer(table))))
    return list(names)


def as_name(text):
    """ " Jane B. Doe (1)*, Director" → "Jane B. Doe"; "" for what is not the name of a person."""
    text = " ".join(unescape(text).translate(CHARS).split())
    match = NAME.match(re.sub(r"^\W*(?:By|Name|Signature|/s/)\b\W*|^\W+", "", text))
    return "" if not match or NO_NAME.search(match[0]) else match[0].rstrip(",")


def without_furniture(blocks):
    """Drop page numbers, back links, rulers and running heads; mend what a page break or a lone bullet cut in two."""
    near, previous = set(), []  # running heads stand within four blocks after a page break, feet two before it
    for i, block in enumerate(blocks):
        if block == PAGE:
            near.update(range(i + 1, i + 5), previous[-2:])
        else:
            previous.append(i)
            near.update(range(i + 1, i + 4) if PAGE_NUMBER.match(block) else ())
    keys = [block if STRUCTURE.match(block) else re.sub(r"\d+", "#", block) for block in blocks]
    heads = Counter(keys[i] for i in near if i < len(blocks))
    lines = Counter(block for block in blocks if len(block) <= 100 and RUNNING.search(block))
    kept, seen, cut = [], set(), False
    for i, block in enumerate(blocks):
        repeated = len(block) <= 100 and (i in near and heads[keys[i]] > 3 or lines[block] > 3)
        if repeated and ANSWER.match(block):
            repeated = False  # the whole text of many an item
        if repeated and (STRUCTURE.match(block) and block not in seen or "xact name" in "".join(blocks[i + 1 : i + 2])):
            repeated = False  # "PART II" on every page is also the heading of Part II; the cover needs the name
            seen.add(block)
        if block == PAGE or repeated or PAGE_NUMBER.match(block) or BACK_LINK.match(block) or (
            i in near and NEAR_PAGE.match(block)
        ):
            cut = True
        elif RULER.match(block) and not re.fullmatch(MARKER, block):
            continue
        elif kept and len(kept[-1]) < 9999 and not re.search(r"\n| \| ", kept[-1] + block) and (
            re.fullmatch(MARKER, kept[-1])
            or cut and re.match(r"[\"“(]?[a-z]", block) and not is_sentence(kept[-1]) and not kept[-1].isupper()
        ):
            kept[-1] += " " + block
            cut = False
        else:
            kept.append(block)
            cut = False
    return kept


def without_signatures(blocks):
    """Drop the signature page and the exhibit index, but nothing that follows them: statements often do."""
    kept, part = [], ""
    for i, block in enumerate(blocks):
        if re.match(r"(?i)signatures?\b.{0,20}$", block) and any(map(SIGNED.search, blocks[i : i + 5])):
            part = "signatures"
        elif re.match(r"(?i)(?:exhibit index|index (?:to|of) exhibits)\W{0,3}$", block) and i * 2 > len(blocks):
            part = "exhibits"
        elif part == "signatures" and (SIGNING.search(block) or len(block) < 300 and not REAL_TEXT.match(block)):
            continue
        elif part == "exhibits" and ("\n" in block or re.match(r"\W{0,3}\d{1,3}(?:\.\d|\W)", block)):
            continue
        else:
            part = ""
            kept.append(block)
    return kept
