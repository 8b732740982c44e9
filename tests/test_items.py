"""items.py: layouts of every decade as small invented filings, a fuzz, linear time, and real filings in shared/data."""

import difflib
import json
import random
import re
import time
from pathlib import Path

import pytest

from edgar import parse_filing, read_filing
from items import TITLES, find_items

DATA = Path(__file__).parents[2] / "shared/data"
WORDS = "the company makes and sells brass fittings to plumbers builders and public works in three countries".split()

OLD = [  # before 2003
    ("1", "Business", 9000), ("2", "Properties", 500), ("3", "Legal Proceedings", 400),
    ("4", "Submission of Matters to a Vote of Security Holders", "None."),
    ("5", "Market for Registrant's Common Equity and Related Stockholder Matters", 900),
    ("6", "Selected Financial Data", 700),
    ("7", "Management's Discussion and Analysis of Financial Condition and Results of Operations", 8000),
    ("8", "Financial Statements and Supplementary Data", 7000),
    ("9", "Changes in and Disagreements with Accountants on Accounting and Financial Disclosure", "None."),
    ("10", "Directors and Executive Officers of the Registrant", 600), ("11", "Executive Compensation", 500),
    ("12", "Security Ownership of Certain Beneficial Owners and Management", 400),
    ("13", "Certain Relationships and Related Transactions", "None."),
    ("14", "Exhibits, Financial Statement Schedules and Reports on Form 8-K", 900),
]  # fmt: skip
NEW = [
    ("1", "Business", 9000), ("1A", "Risk Factors", 12000), ("1B", "Unresolved Staff Comments", "None."),
    ("1C", "Cybersecurity", 1500), ("2", "Properties", 500), ("3", "Legal Proceedings", 400),
    ("4", "Mine Safety Disclosures", "Not applicable."),
    ("5", "Market for Registrant’s Common Equity, Related Stockholder Matters and Issuer Purchases of Equity "
          "Securities", 900), ("6", "[Reserved]", ""),
    ("7", "Management’s Discussion and Analysis of Financial Condition and Results of Operations", 8000),
    ("7A", "Quantitative and Qualitative Disclosures About Market Risk", 600),
    ("8", "Financial Statements and Supplementary Data", 7000),
    ("9", "Changes in and Disagreements with Accountants on Accounting and Financial Disclosure", "None."),
    ("9A", "Controls and Procedures", 1200), ("9B", "Other Information", "None."),
    ("9C", "Disclosure Regarding Foreign Jurisdictions that Prevent Inspections", "Not applicable."),
    ("10", "Directors, Executive Officers and Corporate Governance", 600), ("11", "Executive Compensation", 500),
    ("12", "Security Ownership of Certain Beneficial Owners and Management and Related Stockholder Matters", 400),
    ("13", "Certain Relationships and Related Transactions, and Director Independence", "None."),
    ("14", "Principal Accountant Fees and Services", 400), ("15", "Exhibits and Financial Statement Schedules", 900),
    ("16", "Form 10-K Summary", "None."),
]  # fmt: skip


def prose(size, seed=0):
    """About `size` characters in paragraphs of about 500, without a heading among them."""
    if isinstance(size, str):
        return [size] if size else []
    dice, out = random.Random(seed), []
    while size > 0:
        text = " ".join(dice.choices(WORDS, k=min(80, size // 6 + 3)))
        out.append(text.capitalize() + ".")
        size -= len(text)
    return out


def filing(items=NEW, heading="Item {}. {}", contents="table", form="10-K", cover=True, **replace):
    """HTML of a 10-K with these items. replace: {"_7": ["other", "paragraphs"]} stands below the heading of Item 7."""
    out = ["FORM 10-K"] * cover
    if contents == "table":
        row = "<tr><td>Item {}.</td><td>{}</td><td>{}</td></tr>"
        rows = "".join(row.format(k, t, 5 * i + 3) for i, (k, t, _) in enumerate(items))
        out.append(f"<table><tr><td></td><td></td><td>Page</td></tr>{rows}</table>")
    elif contents:
        out += [contents.format(k, t, 5 * i + 3) for i, (k, t, _) in enumerate(items)]
    for i, (key, title, size) in enumerate(items):
        out += [heading.format(key, title), *replace.get("_" + key, prose(size, i))]
    body = "".join(part if part.startswith(("<p", "<t")) else f"<p>{part}</p>\n" for part in out)
    return f"<DOCUMENT>\n<TYPE>{form}\n<TEXT>\n<html><body>{body}</body></html>\n</TEXT>\n</DOCUMENT>\n"


def items_of(raw, **options):
    """{key: (status, text)} after the checks that hold for any text."""
    doc = parse_filing(raw, "test", **options)
    return check(doc["text"], doc["meta"]["items"])


def check(text, items):
    spans = [item["span"] for item in items.values()]
    for (start, end), following in zip(spans, [*spans[1:], None], strict=False):
        assert 0 <= start < end <= len(text)
        assert following is None or following == [start, end] or end <= following[0]
    for key, item in items.items():
        assert key in TITLES or key in ("8A", "8B")
        assert item["status"] in ("found", "by_reference", "omitted", "suspect")
    return {key: (item["status"], text[slice(*item["span"])]) for key, item in items.items()}


def assert_all(found, items, omitted=("6",)):
    """Every item is there, in order, with its own text, all of it and nothing else."""
    assert list(found) == [key for key, _, _ in items]
    for i, (key, _, size) in enumerate(items):
        status, text = found[key]
        assert status == ("omitted" if key in omitted and size == "" else "found"), (key, status, text[:80])
        paragraphs = prose(size, i)
        assert not paragraphs or text.endswith(paragraphs[-1]) and paragraphs[0] in text, (key, text[:80], text[-80:])
        assert len(text) < sum(map(len, paragraphs)) + 2 * len(paragraphs) + 260, (key, text[:200])


# ---- layouts ---------------------------------------------------------------------------------------------------------

HEADINGS = ["Item {}. {}", "ITEM {}. {}", "Item {} – {}", "ITEM {}: {}", "Item {}.{}", "ITEM {} {}", "Item No. {} {}",
            "I T E M {}. {}", "Item {}.&#160;&#160;{}", "Item&nbsp;{}. {}.", "<b>Item {}.</b> <i>{}</i>",
            "Item ({}) {}",
            "<p>Item {}.</p><p>{}</p>", "<p>ITEM {}</p><p>{}.</p>", "PART I, Item {}. {}", "{}. {}", "Item {}. {} 27",
            "<table><tr><td>Item {}.</td><td>{}</td></tr></table>", "•Item {}. {}", "Item {0} ITEM {0}. {1}",
            "<table><tr><td>Item {}</td><td></td><td>{}</td></tr></table>", "I tem {}. {}",
            "<table><tr><td>ITEM</td><td>{}.</td><td>{}</td></tr></table>", "item {} \u2014 {}"]  # fmt: skip


@pytest.mark.parametrize("heading", HEADINGS)
@pytest.mark.parametrize("era", [OLD, NEW], ids=["1998", "2024"])
def test_headings(heading, era):
    assert_all(items_of(filing(era, heading)), era)
    assert_all(items_of(filing(era, heading, contents=None)), era)


ASCII_TOC = "".join(f"Item {k:<4}{t[:50]:.<58}{5 * i + 3:>3}\n" for i, (k, t, _) in enumerate(OLD))


def ascii_filing(items=OLD, contents=ASCII_TOC, heading="ITEM {}.   {}", running=""):
    """The same hard-wrapped at 72 columns, a page of 40 lines at a time."""
    lines = ["                                 FORM 10-K", "", "", *contents.split("\n"), "<PAGE>", ""]
    for i, (key, title, size) in enumerate(items):
        title = heading.format(key, title.upper())
        lines += [line.strip() for line in re.findall(r".{1,60}(?:\s|$)", title)] + [""]
        for paragraph in prose(size, i):
            lines += re.findall(r".{1,68}(?:\s|$)", "     " + paragraph) + [""]
    pages = ["\n".join(lines[i : i + 40]) for i in range(0, len(lines), 40)]
    text = "".join(f"{page}\n\n                    {i}\n<PAGE>\n{running}\n" for i, page in enumerate(pages))
    return f"<DOCUMENT>\n<TYPE>10-K405\n<TEXT>\n{text}\n</TEXT>\n</DOCUMENT>\n"


@pytest.mark.parametrize("running", ["", "BRASS & BELL CO      ITEM 7"])
@pytest.mark.parametrize("contents", [ASCII_TOC, f"<TABLE>\n<S>   <C>   <C>\n{ASCII_TOC}</TABLE>\n", "", ASCII_TOC * 3])
def test_ascii(contents, running):
    found = items_of(ascii_filing(contents=contents, running=running))
    assert list(found) == [key for key, _, _ in OLD]
    for i, (key, title, size) in enumerate(OLD):
        status, text = found[key]
        expected = f"ITEM {key}. {title.upper()} {' '.join(prose(size, i))}"
        alike = difflib.SequenceMatcher(None, " ".join(text.split()), expected)
        assert status == "found" and alike.quick_ratio() > 0.97, (key, text[:99])


@pytest.mark.parametrize("contents", ["Item {}. {}", "Item {}. {} .......... {}", "<p>Item {}.</p><p>{}</p><p>{}</p>",
                                      "{}. {} {}", "<p>{}</p><p>{}</p><p>{}</p>"])  # fmt: skip
def test_contents_in_paragraphs(contents):
    for era in (OLD, NEW):
        assert_all(items_of(filing(era, contents=contents)), era)


def test_contents_before_every_part_and_at_the_end():
    """Mastercard lists the items of each part at its beginning, Target all of them once more at the end."""
    parts = NEW[:7], NEW[7:16], NEW[16:21], NEW[21:]
    raw = "<p>FORM 10-K</p>" + "".join(
        "".join(f"<p>Item {k}. {t}</p>" for k, t, _ in part) + f"<p>PART {'I' * n}</p>"
        + filing(part, contents=None, cover=False).partition("<body>")[2].partition("</body>")[0]
        for n, part in enumerate(parts, 1)) + "".join(f"<p>Item {k}. {t}</p>" for k, t, _ in NEW)  # fmt: skip
    found = items_of(raw)
    assert list(found) == [key for key, _, _ in NEW]
    for key, size in (("1", 9000), ("1A", 12000), ("7", 8000), ("8", 7000)):
        assert found[key][0] == "found" and size < len(found[key][1]) < size + 900


def test_running_heads():
    """The heading once more on every page, with and without "(continued)"."""
    for head in ("Item {}. {} (continued)", "Item {}. {} (Cont’d)", "ITEM {}. {}", "Item {}"):
        bodies = {key: (title, prose(size, i)) for i, (key, title, size) in enumerate(NEW) if not isinstance(size, str)}
        pages = {"_" + key: [line for n, paragraph in enumerate(body)
                             for line in ([paragraph] if n % 3 else [head.format(key, title), paragraph])]
                 for key, (title, body) in bodies.items()}  # fmt: skip
        found = items_of(filing(**pages))
        assert list(found) == [key for key, _, _ in NEW]
        for key, (_, body) in bodies.items():
            status, text = found[key]
            assert status == "found" and body[0] in text and body[-1] in text, (head, key)


def test_cross_references_are_not_headings():
    noise = ["Item 1A. Risk Factors of this report describes what may go wrong.", "“Item 7. Management’s Discussion”",
             "Item 7 of this Form 10-K contains our discussion.", "See Item 1A. Risk Factors.", "(Item 8)",
             "Item 1A, “Risk Factors,” and Item 7, “Management’s Discussion,” of this report.", "Items 1 and 2 above.",
             "• Item 1A. Risk Factors", "• Item 7. Management’s Discussion and Analysis", "Item 601 of Regulation S-K",
             "Item 1.01 Entry into a Material Agreement", "Part II, Item 7, which is below, and Item 8 say more.",
             "Item 2P. Invented", "Item 17. Nothing", "Item 7A is not a title",
             "Items Affecting Comparability"]  # fmt: skip
    noise += ["The risks are set out in", "Item 1A. Risk Factors", "and in",
              "Item 7. Management’s Discussion and Analysis"]
    for key in ("1", "1A", "3", "7", "8", "10"):
        i, size = next((i, size) for i, (k, _, size) in enumerate(NEW) if k == key)
        first, *rest = prose(size, i)
        found = items_of(filing(**{"_" + key: [first, *noise, *rest]}))
        assert list(found) == [key for key, _, _ in NEW]
        assert all(status == "found" for k, (status, _) in found.items() if k != "6")
        assert found[key][1].endswith((rest or [noise[-1]])[-1]) and "Item 2P. Invented" in found[key][1], key


def test_items_that_share_a_heading():
    joint = [("s 1 and 2", "Business and Properties", 9000), *OLD[2:9], ("s 10, 11, 12, 13 and 14", "", 300)]
    for heading in ("Item{}. {}", "ITEM{} {}"):
        found = items_of(filing(joint, heading, contents=None))
        assert found["1"] == found["2"] and found["1"][0] == "found" and len(found["1"][1]) > 9000
        assert found["10"] == found["14"] and list(found)[-5:] == ["10", "11", "12", "13", "14"]
    found = items_of(filing([("1", "Business and Item 2. Properties", 9000), *OLD[2:]], contents=None))
    assert found["1"] == found["2"] and list(found) == [key for key, _, _ in OLD]
    part3 = [*NEW[:16], (" 10 through 14", "", "Incorporated by reference to the proxy statement."), *NEW[21:]]
    found = items_of(filing(part3, contents=None))
    assert found["12"][0] == "by_reference" and list(found) == [key for key, _, _ in NEW]


def test_order():
    part3 = filing([*NEW[16:21], *NEW[:16], *NEW[21:]])
    found = items_of(part3)
    assert list(found)[:6] == ["10", "11", "12", "13", "14", "1"] and len(found) == len(NEW)
    amendment = items_of(filing(NEW[16:21], form="10-K/A"))
    assert list(amendment) == ["10", "11", "12", "13", "14"] and amendment["10"][0] == "found"
    last = [item for item in NEW if item[0] != "8"] + [("8", "Financial Statements and Supplementary Data", 7000)]
    found = items_of(filing(last))
    assert list(found)[-1] == "8" and found["8"][0] == "found" and len(found) == len(NEW)
    assert not found["16"][1].endswith(found["8"][1][-50:])


def test_missing_items():
    without = [item for item in NEW if item[0] not in ("1B", "1C", "6", "9C", "16")]
    assert_all(items_of(filing(without)), without)
    hidden = filing(NEW).replace("<p>Item 2. Properties</p>", "").replace("<p>Item 8. Financial Statements", "<p>")
    found = items_of(hidden)
    assert "2" not in found and found["1C"][0] == "suspect" and found["7A"][0] == "suspect"  # the contents promise more
    for key, above in (("1A", "1"), ("2", "1C"), ("3", "2"), ("5", "4"), ("7", "6"), ("8", "7A")):
        title = next(title for other, title, _ in NEW if other == key)
        found = items_of(filing(NEW, contents=None).replace(f"<p>Item {key}. {title}</p>", "<p>Next chapter</p>"))
        assert key not in found and found[above][0] == "suspect"  # every 10-K has it


def test_title_without_number():
    raw = filing(NEW).replace("<p>Item 1A. Risk Factors</p>", "<p>RISK FACTORS</p>")
    raw = raw.replace("<p>Item 3. Legal", "<p>Legal").replace("<p>Item 7. M", "<p>M")
    assert_all(items_of(raw), NEW)
    plain = filing([item for item in NEW if item[0] != "6"], "<p>{1}</p>")
    found = items_of(plain)
    assert found["1A"][0] == found["7"][0] == "found" and len(found) > 15
    found = items_of(filing([item for item in NEW if item[0] != "6"], "<p>{1}</p>", contents=None))
    assert found["1A"][0] == found["7"][0] == "found" and 12000 < len(found["1A"][1]) < 13500
    plain = filing([item for item in NEW if item[0] != "6"], "<p>{1}</p>", contents="Item {}. {} {}")
    found = items_of(plain)
    assert found["1A"][0] == found["7"][0] == "found" and 12000 < len(found["1A"][1]) < 13500
    assert_all(items_of(filing(NEW, "{1} (Item {0})")), NEW)
    old = items_of(filing(OLD, "{1}", contents=None))
    assert list(old) == [key for key, _, _ in OLD] and {status for status, _ in old.values()} == {"found"}
    other = items_of(filing(NEW, "<p>Chapter</p>", contents="Item {}. {} {}"))  # the contents are not the items
    assert not [key for key, (status, text) in other.items() if status == "found" and len(text) > 300]
    assert items_of(filing([("1", "Overview", 5000), ("7", "Risk Factors", 3000)], "<p>{1}</p>", contents=None)) == {}


def test_small_business_forms():
    ksb = [("1", "Description of Business", 9000), ("2", "Description of Property", 300),
           ("3", "Legal Proceedings", "None."), ("4", "Submission of Matters to a Vote of Security Holders", "None."),
           ("5", "Market for Common Equity and Related Stockholder Matters", 500),
           ("6", "Management's Discussion and Analysis or Plan of Operation", 4000),
           ("7", "Financial Statements", 6000),
           ("8", "Changes in and Disagreements with Accountants", "None."), ("8A", "Controls and Procedures", 500),
           ("8B", "Other Information", "None."),
           ("9", "Directors, Executive Officers, Promoters and Control Persons", 900),
           ("10", "Executive Compensation", 500), ("11", "Security Ownership of Certain Beneficial Owners", 500),
           ("12", "Certain Relationships", "None."), ("13", "Exhibits and Reports on Form 8-K", 800),
           ("14", "Principal Accountant Fees and Services", 300)]  # fmt: skip
    for form in ("10-KSB", "10KSB", "10-KSB/A", "10KSB40"):
        assert_all(items_of(filing(ksb, "ITEM {}. {}", form=form)), ksb)
    assert_all(items_of(filing(NEW, form="10-KSB")), NEW)  # the wrong numbers for the form, but all their titles say so


def test_status():
    says = {
        "1A": "Not required for smaller reporting companies.", "1B": "Not applicable.", "2": "None.",
        "3": "See Note 12, “Contingencies,” to the consolidated financial statements.", "6": "Removed and reserved.",
        "7": "The information required by this item is incorporated by reference to pages 20 to 34 of the report.",
        "7A": "Not applicable.", "8": "See the Index to Financial Statements on page F-1.", "9": "None.",
        "10": "Incorporated by reference from our Proxy Statement under “Election of Directors”.", "5": "x",
        "11": "As a smaller reporting company, we are not required to provide this information.", "9A": "Effective.",
    }  # fmt: skip
    found = items_of(filing(**{"_" + key: [text] for key, text in says.items()}))
    expected = {"1A": "omitted", "1B": "found", "2": "found", "3": "by_reference", "6": "omitted", "7": "by_reference",
                "7A": "omitted", "8": "by_reference", "9": "found", "10": "by_reference", "5": "suspect",
                "11": "omitted", "9A": "suspect"}  # fmt: skip
    assert {key: found[key][0] for key in expected} == expected
    wrong = items_of(filing([(k, "Risk Factors" if k == "7" else t, size) for k, t, size in NEW if k != "1A"]))
    assert "7" not in wrong or wrong["7"][0] == "suspect"


def test_what_is_no_item_of_the_form():
    """Items that Regulation AB adds for trusts; a part that begins with a sentence; the report of another company."""
    trust = filing([(k, t, "Omitted." if k in ("1", "7", "10") else size) for k, t, size in NEW], contents=None,
                   _14=["Omitted.", "Item 1117 of Regulation AB. Legal Proceedings", *prose(900)],
                   _4=["Not applicable.", "PART II", "The following items are omitted under General Instruction J:"])
    found = items_of(trust)  # fmt: skip
    assert found["4"][1].endswith("Not applicable.") and found["14"][1].endswith("Omitted.")
    assert [found[key][0] for key in ("1", "4", "7", "14")] == ["omitted", "found", "omitted", "omitted"]
    second = filing(contents=None, cover=False).partition("<body>")[2]
    found = items_of(filing(NEW[:-1]).replace("</body>", "<p>SECOND COMPANY</p>" + second))
    assert found["15"][0] == "suspect" and found["7"][0] == "found"
    typo = items_of(filing([({"7": "6", "7A": "7"}.get(k, k), t, s) for k, t, s in NEW if k != "6"], contents=None))
    assert typo["6"][0] == typo["7"][0] == "suspect"  # MD&A as Item 6, market risk as Item 7


MDA = "Management’s Discussion and Analysis of Financial Condition and Results of Operations"
INDEX = [("Overview", 1, 3000), (MDA, 8, 9000), ("Strategy", 12, 2000), ("Risk Factors", 27, 12000),
         ("Legal Proceedings", 36, 900), ("Properties", 37, 900),
         ("Audited Financial Statements", 41, 7000), ("Controls and Procedures", 82, 900)]  # fmt: skip


@pytest.mark.parametrize("row", ["<td>Item {}.</td><td>{}</td><td>{}</td>", "<td>{}.</td><td>{}</td><td>{}</td>"])
@pytest.mark.parametrize("tables", ["short", "all", "none"])
def test_cross_reference_index(row, tables):
    """GE, Intel, McDonald's, Citigroup: no headings, but an index of items and pages."""
    pages = {"1": "1-7, 12", "1A": "27–35", "1B": "None", "2": "37", "3": "36", "7": "8–26", "8": "41-81, 90",
             "9A": "82", "10": "(a)"}  # fmt: skip
    index = "".join("<tr>" + row.format(k, t, pages.get(k, "Not applicable")) + "</tr>" for k, t, _ in NEW)
    contents = "".join(f"<tr><td>{title}</td><td>{page}</td></tr>" for title, page, _ in INDEX)
    body = "".join(f"<p>{title}</p>" + "".join(f"<p>{p}</p>" for p in prose(size)) for title, _, size in INDEX)
    raw = f"<p>FORM 10-K</p><table>{contents}</table>{body}<p>CROSS-REFERENCE INDEX</p><table>{index}</table>"
    found = items_of(raw, tables=tables)
    assert found["1A"][0] == "found" and 12000 < len(found["1A"][1]) < 13500
    assert found["1A"][1].startswith("Risk Factors")
    assert found["7"][0] == "found" and 11000 < len(found["7"][1]) < 13000  # to page 26, with its part "Strategy"
    assert found["3"][0] == found["2"][0] == found["9A"][0] == "found"
    if tables != "none":  # else the index is not in the text
        assert found["1"][0] == found["10"][0] == "by_reference"
        assert found["6"][0] == "omitted" and found["1B"][0] == "found"


def test_annual_report_in_the_same_submission():
    pointer = {"_7": ["The information is incorporated by reference to pages 12-30 of the Annual Report (Exhibit 13)."],
               "_8": ["The statements on pages 31-60 of the Annual Report are incorporated herein by reference."],
               "_6": ["See page 61 of the Annual Report, which is incorporated by reference."]}  # fmt: skip
    report = ["To our shareholders", *prose(2000), "MANAGEMENT'S DISCUSSION AND ANALYSIS", *prose(9000, 1),
              "Report of Independent Accountants", *prose(900), "CONSOLIDATED STATEMENTS OF INCOME", *prose(900),
              "CONSOLIDATED BALANCE SHEETS", *prose(900), "NOTES TO CONSOLIDATED FINANCIAL STATEMENTS",
              "1. Summary of Significant Accounting Policies", *prose(9000, 2),
              "SELECTED FINANCIAL DATA", *prose(900, 3)]  # fmt: skip
    exhibit = "<DOCUMENT>\n<TYPE>EX-13\n<TEXT>\n" + "".join(f"<p>{p}</p>" for p in report) + "</TEXT></DOCUMENT>"
    doc = parse_filing(filing(OLD, **pointer) + exhibit, "x")
    found = check(doc["text"], doc["meta"]["items"])
    assert found["7"] == ("found", "\n\n".join(["MANAGEMENT'S DISCUSSION AND ANALYSIS", *prose(9000, 1)]))
    assert found["8"][0] == found["6"][0] == "by_reference"
    start, end = doc["meta"]["items"]["7"]["heading"]
    assert doc["text"][start:end].startswith("Item 7. Management") and doc["text"][start:end].endswith("(Exhibit 13).")
    bare = items_of(filing(OLD, **pointer))
    assert bare["7"][0] == bare["8"][0] == bare["6"][0] == "by_reference"
    other = exhibit.replace("MANAGEMENT'S DISCUSSION AND ANALYSIS", "Overview")
    assert items_of(filing(OLD, **pointer) + other)["7"][0] == "by_reference"


def test_financial_section_behind_the_form():
    """JPMorgan, Exxon: Item 7 points to what stands behind Item 15 in the same document."""
    pointer = {"_7": ["Management’s discussion and analysis, entitled “Management’s discussion and analysis,” appears "
                      "on pages 46–160. Such information should be read with the financial statements."]}  # fmt: skip
    section = ["MANAGEMENT’S DISCUSSION AND ANALYSIS", *prose(9000, 5), "Report of Auditors"]
    section = "".join(f"<p>{paragraph}</p>" for paragraph in section)
    found = items_of(filing(NEW[:-1], "ITEM {}: {}", **pointer).replace("</body>", section + "</body>"))
    assert found["7"][0] == "found" and found["7"][1].endswith(prose(9000, 5)[-1])
    assert prose(9000, 5)[0] not in found["15"][1]


@pytest.mark.parametrize("tables", ["short", "all", "none"])
def test_headings_in_tables(tables):
    """A heading at the top of the table that holds the numbers or the text below it."""
    numbers = "".join(f"<tr><td>Sales {i}</td><td>1,234,567</td><td>2,345,678</td></tr>" for i in range(20))
    title = "Quantitative and Qualitative Disclosures About Market Risk"
    table = f"<table><tr><td>Item 7A.</td><td>{title}</td></tr>{numbers}</table>"
    found = items_of(filing(NEW, contents=None).replace(f"<p>Item 7A. {title}</p>", table), tables=tables)
    assert list(found) == [key for key, _, _ in NEW] and found["7A"][0] == "found"
    assert_all(items_of(filing(NEW), tables=tables), NEW)
    parts = "".join(f"<tr><td>Item {n}</td><td>4,500</td><td>6,700</td></tr>" for n in (12, 13))  # not headings
    text = parse_filing(f"<p>FORM 10-K</p><table>{parts}</table>", "x", "all")["text"]
    assert text.endswith("Item 12 | 4,500 | 6,700\nItem 13 | 4,500 | 6,700")


def test_only_annual_reports_have_items():
    for form in ("10-K405", "10-KT", "10-K/A", "10KSB"):
        assert len(parse_filing(filing(form=form), "x")["meta"]["items"]) == len(NEW)
    for form in ("10-Q", "8-K", "S-1"):
        assert "items" not in parse_filing(filing(form=form, cover=False), "x")["meta"]
    assert parse_filing(filing([]), "x")["meta"]["items"] == {}
    assert "items" not in parse_filing("<p>A page about pipes.</p>", "x")["meta"]


def test_people():
    raw = filing().replace("</body>", """<table><tr><td>Name</td><td>Age</td><td>Position</td></tr>
      <tr><td>John Q. Pipe, Jr.</td><td>61</td><td>President</td></tr><tr><td>New York</td><td>1,234</td></tr></table>
      <table><tr><td>Oral Care</td><td>22</td></tr></table><p>SIGNATURES</p><p>Pursuant to the requirements of</p>
      <p>/s/ A. BELL</p><p>Ada Bell</p><p>President</p><table><tr><td>/s/</td><td>Jörg d’Or, Director</td></tr></table>
      <p>/s/ Ernst &amp; Young LLP</p><p>San Jose, California</p></body>""")  # fmt: skip
    doc = parse_filing(raw, "x", tables="none")
    assert doc["meta"]["people"] == ["A. BELL", "Ada Bell", "Jörg d’Or", "John Q. Pipe, Jr."]


def test_run_in_headings():
    """ "Item 3. Legal Proceedings. The company is not ..." in one paragraph, as many a filing of the 1990s has it."""
    for between in (". ", ".  ", " -- ", " - ", ": ", ".\u2014"):
        items = (f"ITEM {key}. {title}{between}{' '.join(prose(size, i))}" for i, (key, title, size) in enumerate(OLD))
        found = items_of("<p>FORM 10-K</p>" + "".join(f"<p>{item}</p>" for item in items))
        assert list(found) == [key for key, _, _ in OLD]
        assert {status for status, _ in found.values()} == {"found"}, between
    small = items_of("<p>FORM 10-K</p>" + "".join(f"<p>ITEM {k}. {t.upper()} {s}</p>" for k, t, s in (
        ("1A", "Risk Factors", "Not applicable to smaller reporting companies"), ("1B", "Unresolved Staff Comments",
        "None."), ("12", "Security Ownership of Certain Beneficial Owners", "No person owns more than five percent."),
    )))  # fmt: skip
    assert [status for status, _ in small.values()] == ["omitted", "found", "found"]


# ---- robustness ------------------------------------------------------------------------------------------------------

PIECES = [f"Item {k}. {t}" for k, t, _ in NEW] + [f"Item {k}. {t} | {9 * i}" for i, (k, t, _) in enumerate(NEW)] + [
    "see Item 1A", "Item 1A", "Items 1 and 2", "PART II", "Item 99", "Item", "1A.", "Risk Factors", "Item 7 and Item 7",
    "Item 1 to 9", "Item 14 - 1", "None.", "Not applicable.", "[Reserved]", "Management’s Discussion and Analysis",
    "Notes to Financial Statements", "Risk Factors | 27", "Consolidated Balance Sheets", "Legal Proceedings",
    "See Item 8, which is incorporated by reference to page 3",
]  # fmt: skip


def test_fuzz():
    """Cuts, doubled contents, shuffled and missing items, cross references at line starts: the checks always hold."""
    dice = random.Random(0)
    texts = [parse_filing(raw, "x")["text"] for raw in (filing(), filing(OLD), ascii_filing(), filing(NEW, "{}. {}"))]
    for _ in range(300):
        blocks = dice.choice(texts).split("\n\n")
        blocks = blocks[dice.randrange(len(blocks)) :] if dice.random() < 0.3 else blocks
        if dice.random() < 0.3:
            dice.shuffle(blocks)
        for _ in range(dice.randrange(30)):
            at = dice.randrange(len(blocks) + 1)
            blocks[at : at + dice.randrange(3)] = dice.choices(PIECES, k=dice.randrange(4))
        text = dice.choice(["\n\n", "\n\n", "\n"]).join(blocks).strip() or "x"
        text = text[: dice.randrange(len(text)) + 1] if dice.random() < 0.3 else text
        main = dice.choice([None, len(text), dice.randrange(len(text) + 1), 0])
        for form in ("10-K", "10-KSB"):
            for _, item in check(text, find_items(text, form, main)).values():
                titled = any(title.match(item) for title in TITLES.values())
                assert titled or re.match(r"(?i)(part \w+\W+)?(i ?t ?e ?m|\d+[A-C]?\W)|consolidated", item), item[:50]


UNITS = ["Item 1A. ", "Item 1A.\n", "Item 1A. Risk Factors\n\n", "Item 1. Business\n\nItem 2. Properties\n\nx\n\n",
         "1. Business\n\n", "PART II\n\n", "Item 1. Business" + "." * 300 + "3\n\n", "Item 7. " + " " * 2000 + "x\n\n",
         "Item 1, and 2, and 3, and\n\n", "Legal Proceedings\n\nBalance Sheets\n\n", "Risk Factors | 27\n",
         "Item 1A. Risk factors " + "is a of this report and " * 50, "Notes to Financial Statements\n\n", "•" * 900,
         "\n\n".join(f"Item {k}. {t}" for k, t, _ in NEW) + "\n\n", "I T E M " * 9,
         "Item 7. " + "see (" * 500]  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
def test_linear_time(unit):
    text = unit * (300_000 // len(unit))
    index = "\n".join(f"Item {k}. | {t} | {i}" for i, (k, t, _) in enumerate(NEW))
    start = time.process_time()
    for both in (text, f"Risk Factors | 1\nLegal | 2\nSales | 3\nCosts | 4\nx | 5\n\n{text}\n\n{index}"):
        check(both, find_items(both, "10-K"))
    assert time.process_time() - start < 2  # half a second; quadratic steps would take many minutes


# ---- real filings ----------------------------------------------------------------------------------------------------

def real(pattern):
    return sorted(DATA.glob(pattern)) or [pytest.param(None, marks=pytest.mark.skip(reason=f"no {pattern} in {DATA}"))]


@pytest.mark.parametrize("path", real("filings_html/*.html") + real("filings_historic/*"), ids=lambda p: p and p.name)
def test_real_filings(path):
    doc = read_filing(path)
    items = check(doc["text"], doc["meta"]["items"])
    elsewhere = path.stem.split("_")[0] in ("IBM", "ge-1994", "ibm-1997", "tgt-2002", "wmt-2010", "ksb-2007")
    assert items["7"][0] == ("by_reference" if elsewhere else "found")
    if path.suffix == ".html":  # filed in 2024
        assert items["1A"][0] == "found" and 20_000 < len(items["1A"][1]) < 300_000
        assert elsewhere or 15_000 < len(items["7"][1]) < 260_000
        expected = [row["identifier"] for row in json.loads(path.with_suffix(".sections.json").read_text())]
        absent = {"PEP": {"6"}}.get(path.name[:3], set())
        assert set(expected) - set(items) == absent  # 1C, 9C and 16 are not among the expected ones
        if not re.match("GE_|INTC|MCD", path.name):  # these have an order of their own
            assert [key for key in items if key in expected] == [key for key in expected if key in items]
    assert not [key for key, (status, _) in items.items() if status == "suspect"]


def letters(text):
    return re.sub(r"\W+", "", text)


@pytest.mark.parametrize("contents", [False, True])
def test_items_split_by_others(contents):
    """The item texts of edgar-crawler, put together to one text and split again: 97 % of the characters come back."""
    if not (paths := sorted(DATA.glob("filings_items/*.json"))[contents::6]):
        pytest.skip(f"no filings_items in {DATA}")
    total = common = 0
    for path in paths:
        record = json.loads(path.read_text())
        parts = {key[5:]: value for key, value in record.items() if key.startswith("item_") and value}
        raw = "FORM 10-K\n\n"
        if contents:
            rows = enumerate(" ".join(value.split()[:8])[:60] for value in parts.values())
            raw += "".join(f"{row:.<66}{3 * i + 2:>3}\n" for i, row in rows) + "\n"
        raw += "\n\n".join(value.replace("\n", "\n\n") for value in parts.values())
        doc = parse_filing(f"<DOCUMENT>\n<TYPE>10-K\n<TEXT>\n{raw}\n</TEXT>\n</DOCUMENT>\n", path.name)
        found = {key: letters(text) for key, (_, text) in check(doc["text"], doc["meta"]["items"]).items()}
        for key, text in parts.items():
            expected, mine = letters(text), found.get(key, "")
            shingles = [{s[i : i + 30] for i in range(max(1, len(s) - 30))} for s in (expected, mine)]
            total += len(expected)
            common += len(expected) * len(shingles[0] & shingles[1]) / max(map(len, shingles))
    assert common / total > 0.97
