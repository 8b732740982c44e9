"""Synthetic filings: reproducible to the byte, arithmetically exact as printed, complete, and varied."""

import html
import os
import random
import re
import subprocess
import sys
import zlib
from itertools import pairwise
from pathlib import Path

import pytest

from synth import INDUSTRIES, ledger, make_company, permille, say, write_filings

ITEMS = ["1", "1A", "1B", "1C", *"23456", "7", "7A", "8", "9", "9A", "9B", *map(str, range(10, 16))]
YEARS = range(2019, 2025)
MOVED = re.compile(
    r"(?P<what>[A-Z][\w -]*?) (?P<verb>increased|rose|grew|decreased|declined|fell) \$(?P<by>[\d,.]+) million, "
    r"or (?P<percent>[\d,.]+)%, to \$(?P<now>[\d,.]+) million(?: in \d{4})?"
    r"(?:,? from \$(?P<before>[\d,.]+) million)?")
SHARE = re.compile(r"\n([A-Z][\w ]+) revenue [^\n]*? (\d+\.\d)%(?: of revenue)?, (?:compared with|after) (\d+\.\d)%")
CAUSES = re.compile(  # "... X, which accounted for $A million, and Y, which explains another $B million", and the like
    r"\n[^\n]*?, or [\d,.]+%, to [^\n]*?(?:The \w+ (?:reflected|was due to|resulted from) [^\n]*? accounted for|"
    r"Of (?:this|the) \w+,) \$([\d,.]+) million[^\n]*? and [^\n$]*?\$([\d,.]+) million")


def tenths(amount):
    """'1,234.5', '(12.3)' or '$1.0' -> whole tenths of a million."""
    value = int(re.sub(r"[^\d]", "", amount))
    return -value if "(" in amount else value


def visible(path):
    """What a person sees: a line per paragraph or table row, cells joined by ' | '."""
    text = Path(path).read_text(encoding="utf-8")
    if path.endswith(".txt"):
        return text
    text = re.sub(r'<div style="display:none">.*?</div>', "", text, flags=re.DOTALL)
    text = re.sub(r"</td><td[^>]*>", " | ", text.replace("</span><span>", ""))
    text = re.sub(r"<title>.*?</title>|<[^>]+>", "", text)
    return html.unescape(text).replace("\xa0", " ").replace("\u2019", "'")


def table_rows(text, start, stop):
    """{label: [amounts in tenths]} of the tables between two headings."""
    part = text[text.index(f"\n{start}\n"):]
    rows = [line.split(" | ") for line in part[:part.index(f"\n{stop}\n", 1)].splitlines()]
    found = {label: re.findall(r"\(?[\d,]+\.\d", " ".join(cells)) for label, *cells in rows if cells}
    return {label: [*map(tenths, amounts)] for label, amounts in found.items() if amounts}


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write_filings(str(tmp_path_factory.mktemp("synth")), n=200, seed=0)


@pytest.fixture(scope="module")
def texts(paths):
    return [visible(path) for path in paths]


@pytest.fixture(scope="module")
def pages(paths, texts):
    """[(company index, year, text)] of the HTML filings."""
    return [(k // 6, YEARS[k % 6], texts[k]) for k, path in enumerate(paths) if path.endswith(".html")]


def test_same_bytes_in_another_process_for_another_n_and_other_years(tmp_path, paths):
    code = f"from synth import write_filings; write_filings({str(tmp_path)!r}, n=23)"
    env = os.environ | {"PYTHONHASHSEED": "77"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent, env=env)
    assert sorted(os.listdir(tmp_path)) == sorted(os.path.basename(path) for path in paths[:23])
    for path in map(Path, paths[:23]):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()
    alone, same = Path(*write_filings(str(tmp_path / "alone"), n=1, years=(2021, 2022))), Path(paths[2])
    assert alone.name == same.name and alone.read_bytes() == same.read_bytes()


def test_names_and_numbers_are_plainly_invented(tmp_path, paths):
    assert os.path.basename(paths[0]) == "0009000001-19-000001.html" and len(set(paths)) == 200
    assert sum(path.endswith(".txt") for path in paths) == 20
    assert len({make_company(0, k)["name"] for k in range(400)}) == 400
    assert all(int(make_company(seed, 5)["cik"]) > 9_000_000 for seed in (0, 1, 899, 12345))
    assert len({industry["sic"] for industry in INDUSTRIES}) >= 12
    (other,) = write_filings(str(tmp_path), n=1, seed=1)
    assert os.path.basename(other) not in {os.path.basename(path) for path in paths}
    assert make_company(0, 0)["name"] != make_company(1, 0)["name"]


def test_say_and_permille():
    facts = {"x": ["ore"], "f": lambda key: f"[{key}|{key}]", "s": "tin"}
    assert say(random.Random(0), "[[a|a] {x}|a {x}] . {f:one} , {s}.", facts) == "An ore. One, tin."
    assert permille(124, 1494) == 83 and permille(-1, 2000) == 1 and permille(1, 2001) == 0 and permille(0, 7) == 0


def test_books_close_and_years_before_they_open_are_refused(tmp_path):
    with pytest.raises(ValueError, match="2011"):
        write_filings(str(tmp_path), n=1, years=(2001, 2003))
    for index in range(24):
        for year in (2011, 2019, 2024, 2040):
            b = ledger(make_company(3, index), year)
            assert b["assets"] == b["total"] and b["cash"] > 0 and b["debt"] >= 0 and b["ppe"] > 0 and b["shares"] > 999
            assert b["cash"] - b["prior"]["cash"] == b["operations"] + b["investing"] + b["financing"]
            assert b["revenue"] == sum(b["segments"]) == b["split0"] + b["split1"] + b["split2"]


def test_sentences_agree_with_the_tables_and_with_last_years_filing(pages):
    results, checked = {}, 0
    for company, year, text in pages:
        results[company, year] = rows = table_rows(text, "Results of Operations", "Cost of Revenue and Gross Margin")
        for label, (now, before, change, *_) in rows.items():
            assert change == now - before, (label, year)
        assert rows["Revenue"][0] - rows["Cost of revenue"][0] == rows["Gross profit"][0]
        assert rows["Gross profit"][0] - rows["Total operating expenses"][0] == rows["Operating income (loss)"][0]
        pretax, tax = rows["Income (loss) before income taxes"], rows["Income tax expense"]
        assert pretax[0] - tax[0] == rows["Net income (loss)"][0]
        labels = list(rows)
        lines = labels[labels.index("Gross profit") + 1:labels.index("Total operating expenses")]
        assert len(lines) == 3 and sum(rows[label][0] for label in lines) == rows["Total operating expenses"][0]
        segments = labels[labels.index("Net income (loss)") + 1:labels.index("Total revenue")]
        for column in range(3):
            assert sum(rows[s][column] for s in segments) == rows["Total revenue"][column] == rows["Revenue"][column]
        for found in MOVED.finditer(text):
            what = found["what"]
            now, before = rows[what if what in rows else what.removesuffix(" revenue")][:2]
            up = found["verb"] in ("increased", "rose", "grew")
            assert (tenths(found["now"]), tenths(found["by"]), up) == (now, abs(now - before), now > before), found[0]
            assert abs(float(found["percent"].replace(",", "")) - 100 * abs(now - before) / before) < 0.0501, found[0]
            assert found["before"] is None or tenths(found["before"]) == before
            checked += 1
        for share in SHARE.finditer(text):
            for column in range(2):
                part = 100 * rows[share[1]][column] / rows["Revenue"][column]
                assert abs(float(share[2 + column]) - part) < 0.0501, share[0]
            checked += 1
        for causes in CAUSES.finditer(text):
            assert tenths(causes[1]) + tenths(causes[2]) == tenths(MOVED.search(causes[0])["by"]), causes[0]
            checked += 1
    assert checked > 180 * 9
    pairs = [(rows, results[c, y + 1]) for (c, y), rows in results.items() if (c, y + 1) in results]
    assert len(pairs) > 100
    assert all(last[label][0] == this[label][1] for last, this in pairs for label in last.keys() & this.keys())


def test_statements_sum(pages):
    for _, _, text in pages:
        rows = {}
        for start, stop in pairwise(["Consolidated Balance Sheets", "Consolidated Statements of Cash Flows",
                                     "Note 1. Basis of Presentation"]):
            rows |= table_rows(text, start, stop)
        labels = list(rows)
        flows = [f"Net cash {flow} activities" for flow in (
            "provided by (used in) operating", "used in investing", "provided by (used in) financing")]
        own = labels[labels.index("Net income (loss)"):labels.index(flows[0])]
        for column in range(2):
            def total(parts, column=column, rows=rows):
                return sum(rows[label][column] for label in parts)
            assert total(own) == total(flows[:1]) and total(flows) == total(["Net change in cash"])
            assert total(["Total assets"]) == total(["Total liabilities and stockholders' equity"]) == \
                total(["Total liabilities", "Stockholders' equity"]) == \
                total(["Total current assets", "Property and equipment, net", "Goodwill"])
        cash, change = rows["Cash and cash equivalents at end of year"], rows["Net change in cash"]
        assert cash[:2] == rows["Cash and cash equivalents"] and cash[0] - cash[1] == change[0]


def test_items_in_order_and_text_submissions_hard_wrapped(paths, texts):
    for k, text in enumerate(texts):
        body, old = text[text.upper().index("FORWARD-LOOKING STATEMENTS"):], paths[k].endswith(".txt")
        found = re.findall(r"^ITEM (\w+)\.\s" if old else r"^Item (\w+)\.\s", body, flags=re.MULTILINE)
        assert found == [item for item in ITEMS if item != "1C" or YEARS[k % 6] >= 2023]
        assert body.upper().rindex("SIGNATURES") > body.upper().rindex("ITEM 15.")
        if old:
            assert "<SEC-HEADER>" in text and "<TYPE>10-K\n" in text and text.count("<PAGE>") > 4
            assert text.count("<TABLE>") == text.count("</TABLE>") > 5
            assert max(map(len, text.splitlines())) <= 78


def test_reads_as_english_and_nothing_looks_personal(texts, pages):
    wrong = re.compile(r"[\[\]{}@\u2014]| [.,;]|\.\.|\b[Aa] [aeio]|\b([A-Za-z]+) \1\b|[a-z]\. [a-z]|\bone years")
    for _, _, text in pages:
        prose = "\n".join(line for line in text.splitlines() if " | " not in line).replace("Inc. ", "Inc ")
        hit = wrong.search(prose)
        assert hit is None, prose[max(0, hit.start() - 60):hit.end() + 40]
    for text in texts:
        assert not re.search(r"\S@\S|\b\d{3}-\d\d-\d{4}\b|\b\d{3}\)?[ .-]\d{3}[ .-]\d{4}\b|://|www\.|\bM[rs]s?\.", text)


def test_size_and_variety(texts):
    assert all(20_000 < len(text) < 50_000 for text in texts)
    first = [text.replace(" | ", " ") for text in texts[0:120:6]]
    joined = "\n".join(first).encode()
    assert len(joined) / len(zlib.compress(joined, 9)) < 6
    words = [text.split() for text in first[:12]]
    grams = [{tuple(w[i:i + 13]) for i in range(len(w) - 12)} for w in words]
    assert max(len(a & b) / len(a) for a in grams for b in grams if a is not b) < 0.35
