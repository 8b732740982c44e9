"""edgar.py: each rule on a small invented filing, a fuzz that allows ValueError only, real filings in shared/data."""

import random
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgar import looks_like_filing, parse_filing, read_filing

DATA = Path(__file__).parents[2] / "shared/data"
LONG = "The company makes and sells brass fittings to plumbers, builders and public works in three countries."

HEADER = """-----BEGIN PRIVACY-ENHANCED MESSAGE-----
Proc-Type: 2001,MIC-CLEAR

<SEC-DOCUMENT>0000111222-98-000007.txt : 19980331
<SEC-HEADER>0000111222-98-000007.hdr.sgml : 19980331
ACCESSION NUMBER:\t\t0000111222-98-000007
CONFORMED SUBMISSION TYPE:\t10-K405
PUBLIC DOCUMENT COUNT:\t\t4
CONFORMED PERIOD OF REPORT:\t19971231
FILED AS OF DATE:\t\t19980330
SROS:\t\t\tNYSE

FILER:

\tCOMPANY DATA:\t
\t\tCOMPANY CONFORMED NAME:\t\t\tBRASS & BELL CO
\t\tCENTRAL INDEX KEY:\t\t\t0000111222
\t\tSTANDARD INDUSTRIAL CLASSIFICATION:\tHEATING & PLUMBING FIXTURES [3430]
\t\tSTATE OF INCORPORATION:\t\t\tOH
\t\tFISCAL YEAR END:\t\t\t1231

\tFORMER COMPANY:\t
\t\tFORMER CONFORMED NAME:\tBELL FOUNDRY INC
\t\tDATE OF NAME CHANGE:\t19900101

\tFORMER COMPANY:\t
\t\tFORMER CONFORMED NAME:\tOHIO BELL FOUNDRY
\t\tDATE OF NAME CHANGE:\t19850101

FILER:

\tCOMPANY DATA:\t
\t\tCOMPANY CONFORMED NAME:\t\t\tBRASS & BELL FINANCE LLC
\t\tCENTRAL INDEX KEY:\t\t\t0000333444
\t\tSTATE OF INCORPORATION:\t\t\tDE

\tFORMER COMPANY:\t
\t\tFORMER CONFORMED NAME:\tNOT THE FIRST FILER
</SEC-HEADER>
"""


def document(form, text, sequence=1):
    return f"<DOCUMENT>\n<TYPE>{form}\n<SEQUENCE>{sequence}\n<FILENAME>x.txt\n<TEXT>\n{text}\n</TEXT>\n</DOCUMENT>\n"


OLD_TEXT = """
<PAGE>
                                    PART I
Item 1. Business

     Brass & Bell makes fittings for plumbers, and it has made them in the same
town since 1892.  It is known, in the trade and well beyond it, for the diesel-
electric  furnace  of  its founder.  The foundry works to order, and its short-
and long-term contracts cover most of the output of the foundry, which in the

                                      (6)
<PAGE>

spring is sold months ahead.

<TABLE>
<CAPTION>
Plant                          Use                   Held
- -----------------------      ------------------    --------
<S>                            <C>                   <C>
Dayton, Ohio                   Foundry               owned
Akron, Ohio                    Warehouse             leased
</TABLE>

- --------------------------------------------------------------------------------
                                     - 7 -
<PAGE>
<TABLE>
<S>             <C>            <C>
Sales           1,234,567      2,345,678
Net             $ (123,456)    $ 234,567
</TABLE>
     The foundry closed no year with a loss in the twenty years before the one
described here.
"""


def text_of(raw, **options):
    return parse_filing(raw, "test", **options)["text"]


def test_words_split_over_spans_are_joined():
    assert text_of("<p><span>PART I. FINANCI</span><span>AL INFORMATION</span></p>") == "PART I. FINANCIAL INFORMATION"
    html = "Sales were <span>$</span><ix:nonFraction name='us-gaap:X'>95.2</ix:nonFraction><span> billion</span>."
    assert text_of(f"<div>{html}</div>") == "Sales were $95.2 billion."


def test_hidden_facts_are_dropped():
    html = """<html><head><title>zzz.htm</title></head><body><div style="display:none"><ix:header><ix:hidden>
      <ix:nonNumeric name="dei:AmendmentFlag">false</ix:nonNumeric><xbrli:startDate>1999-01-01</xbrli:startDate>
      </ix:hidden></ix:header><div>nested</div></div><style>p {color: red}</style><script>if (a<b) {go("x>y")}</script>
      <p style="DISPLAY : none">secret<p>Seen<span style='display:none'>not</span> twice.</p><!-- <p>comment</p> -->
      <div style="display:none"/><p>Also seen.</p></body></html>"""
    assert text_of(html) == "Seen twice.\n\nAlso seen."


@pytest.mark.parametrize("html", [
    "<p>Seen</p><p hidden>secret</p><p>twice", "<p>Seen <span HIDDEN=''>secret</span></p>twice",
    "<p style='overflow: hidden'>Seen</p><p class='a hidden b'><input type=hidden>twice",
    "<p>Seen</p><div style='visibility:hidden'>secret</div><tr style='Visibility : collapse'><td>secret</tr><p>twice",
    "<p>Seen</p><p STYLE=display:none>secret<div>twice</div>", "<p>Seen</p><p hidden>secret<ul><li>twice</ul>",
    "<p>Seen</p><div><p hidden>secret</div>twice", "<p>Seen</p><p hidden>secret<b>secret</b><p>twice",
    "<p style='mso-display:none'>Seen</p><p style='display:nonesuch'>twice",
    "<p style='display:none;color:red;display:block'>Seen</p><p style='color:red;display:NONE !x'>secret</p>twice",
    "<div>Seen<span style='display:none'>secret</div><div>twice</div>",  # what is around it ends it
    "<div style='display:none'>secret<br><img><input><wbr><hr></p></font>secret<div></div></div><p>Seen</p>twice",
    "<table><tr><td>Seen<td hidden>secret<tr hidden><td>secret<td>secret<tr><td>twice</table>",
    "<table><tr><td>Seen</td><td hidden><table><tr><td>secret<td>secret</table>secret</td></tr></table>twice",
    "<table><tr><td>Seen<table><tr><td style='display:none'><i hidden>secret<td></table></td></tr></table>twice",
    "<html><head><title>secret</title><body><p>Seen</p>twice", "<head><meta><p>Seen</p></head><body><p>twice",
    "<p>Seen</p><script>if (a<b) go('</p>') <!-- secret </script><script src='x'/>twice",
    "<noscript>secret</noscript><iframe>secret</iframe><template><p>secret</p></template><p>Seen</p>twice",
    "<!-->Seen<!--->\n\n<!-- a > <!-- secret --><p><!---->twice<!-- - -- > secret --!></p><!-- unclosed <p>secret",
    "<?xml version='1.0'?><!DOCTYPE html><p>Seen</p><?php secret ?></ secret></><![CDATA[secret]]>twice",
    "<style>p.a, .x {color: red; Display : none} .y .z, .t {a: x}</style><p class='z t'>Seen<p class='a x'>no<p>twice",
    "<style><!-- /* .t {display:none} */ @media print {.t {display:none}} .x{display:none} --></style>"
    "<p class=t>Seen</p><p class=x>secret</p><p class=x style='display:block'>twice</p>",
])  # fmt: skip
def test_only_what_a_browser_hides_is_hidden(html):
    assert " ".join(text_of(html).split()) == "Seen twice"


@pytest.mark.parametrize("html, text", [
    ("<p>wo<b>rd</b> wo<i></i>rd wo<!-- c -->rd wo<a name='x'></a>rd wo<wbr>rd wo&shy;rd</p>", "word " * 5 + "word"),
    ("<div>Sales of <div style='display:inline'>$</div><div style='DISPLAY: inline'>95.2</div> billion</div>",
     "Sales of $95.2 billion"),
    ("<span style='display:block'>one</span><span style='display:block'>two</span>", "one two"),
    ("<b style='float:left'>one</b>two<i style='position:absolute; left:9px'>three</i>four", "one two three four"),
    ("<section>one</section><address>two</address><option>three<option>four", "one two three four"),
    ("<xhtml:p>one</xhtml:p><html:p>two</html:p>", "one two"), ("<ins>one</ins> <del>two</del>", "one two"),
    ("<button>one</button> <textarea>two</textarea> <object>three</object><dl>four", "one two three four"),
    ("<table>one<tr>two<td>three</td></tr><caption>four</caption><tr><th>five</table>", "one two | three four five"),
    ("<table><tr><td width=5\">1,234</td><td width='5%>5,678</td></tr></table>", "1,234 | 5,678"),  # a quote too many
    ("<a title='x > \"y\"'>one</a> <a title=it's>two</a> <p class=\"a\"b\"c\">three", "one two three"),
    ("<p>a <b or c</p><p>b < c</p><p>1<2 x<=y", "a b < c 1<2 x<=y"),
    ("<p>Fish &amp chips &copy 2001 AT&T R&D &no; &#65 &#x42 &#0;&eacute", "Fish & chips © 2001 AT&T R&D &no; A B é"),
])  # fmt: skip
def test_words_are_kept_whole_and_apart(html, text):
    assert " ".join(text_of(f"<body>{html}", tables="all").split()) == text


def test_characters():
    assert text_of("<p>It&#146;s&nbsp;a &ldquo;test&rdquo; &amp; so&#8212;o&#xAD;n</p>") == "It’s a “test” & so—on"
    assert text_of(b"<p>It\x92s \x93caf\xe9\x94, of\xc2\xad\xef\xac\x81ce \xe2\x82\xac</p>") == "It’s “café”, office €"
    assert text_of("<p>one\u200b two\u2003three\x85</p>") == "one two three…"
    assert text_of("<p>a < b, 3 &lt;p&gt; 4</p>") == "a < b, 3 <p> 4"
    assert text_of('<p>x <a title="a > b">link</a> y &#' + "9" * 6000 + ";</p>").startswith("x link y")


def test_blocks_and_breaks():
    assert text_of("<div>One\nline   here</div><div></div><p>Two</p>tail") == "One line here\n\nTwo\n\ntail"
    assert text_of("<p><b>ITEM 1. BUSINESS</b><br>We sell pipes.</p>") == "ITEM 1. BUSINESS\n\nWe sell pipes."
    assert text_of("<p>We sell pipes to<br/>plumbers.</p>") == "We sell pipes to plumbers."


def test_table_rows():
    html = """<table><tr><td>Region</td><td></td><td colspan="2">Sales</td><td>Share</td></tr>
      <tr><td>North<br>and East</td><td>&nbsp;</td><td>$</td><td>1,234</td><td>12</td><td>%</td></tr>
      <tr><td>South</td><td/><td>$</td><td>(567</td><td>)</td><td>(3</td><td>)%</td></tr></table>"""
    assert text_of(html) == "Region | Sales | Share\nNorth and East | $1,234 | 12%\nSouth | $(567) | (3)%"


def test_tables_option():
    numbers = "<table><tr><td>Sales</td><td>1,234,567</td></tr><tr><td>Costs</td><td>1,345,678</td></tr></table>"
    words = "<table><tr><td>Plant</td><td>Use</td></tr><tr><td>Dayton</td><td>Foundry</td></tr></table>"
    html = f"<p>Before.</p>{numbers}{words}<p>After.</p>"
    assert text_of(html) == "Before.\n\nPlant | Use\nDayton | Foundry\n\nAfter."
    assert "Sales | 1,234,567\nCosts | 1,345,678" in text_of(html, tables="all")
    assert text_of(html, tables="none") == "Before.\n\nAfter."
    with pytest.raises(ValueError, match="tables"):
        text_of(html, tables="some")


def test_layout_tables_become_paragraphs():
    bullets = "<table><tr><td>•</td><td>brass</td></tr><tr><td>•</td><td>bells</td></tr></table>"
    assert text_of(bullets) == "• brass\n\n• bells"
    assert text_of("<div>•</div><div>brass</div>") == "• brass"
    assert text_of("<table><tr><td>Item 1A.</td><td>Risk Factors</td></tr></table>") == "Item 1A. Risk Factors"
    assert text_of("<table><tr><td><p>One.</p><p>Two.</p></td></tr></table>") == "One.\n\nTwo."
    nested = "<table><tr><td>Above.<table><tr><td>a</td><td>b</td></tr></table>Below.</td></tr></table>"
    assert text_of(nested) == "Above.\n\na | b\n\nBelow."


def test_page_furniture():
    page = "<p>{n} {long}</p><p>{foot}</p><hr style='page-break-after:always'/><p><a>Table of Contents</a></p>"
    feet = ["12", "F-13", "- 14 -", "Page 15 of 88", "16"]
    html = "".join(page.format(n=f"Paragraph {i}.", long=LONG, foot=f) for i, f in enumerate(feet))
    assert text_of(html) == "\n\n".join(f"Paragraph {i}. {LONG}" for i in range(5))


def test_answers_are_not_running_heads():
    page = "<p>{n}. {long}</p><p>Other Information</p><hr style='page-break-after:always'/><p>Not applicable.</p>"
    html = "".join(page.format(n=n, long=LONG) for n in range(9))
    assert text_of(html).count("Not applicable.") == 9


def test_running_heads():
    body = "".join(f"<p>{i}. {LONG}</p><p>Overview</p><p>Acme Widgets 2023 Form 10-K | {i}</p><hr><p>ACME WIDGETS</p>"
                   f"<p>Notes to Consolidated Financial Statements (Continued)</p>" for i in range(6))  # fmt: skip
    text = text_of("<p>ACME WIDGETS</p><p>(Exact name of registrant as specified in its charter)</p>" + body)
    assert "Form 10-K" not in text and "(Continued)" not in text.partition("1. The")[2]
    assert text.count("ACME WIDGETS") == 1 and text.count(LONG) == 6
    assert "Acme 2023" not in text_of(f"<p>{LONG}</p><p>Acme 2023 Form 10-K</p>" * 5)  # even with no page marks


def test_paragraph_cut_by_a_page_is_joined():
    html = "<p>The contracts cover most of the</p><p>27</p><hr><p>Table of Contents</p><p>output of the foundry.</p>"
    assert text_of(html) == "The contracts cover most of the output of the foundry."
    assert text_of("<p>FORM 10-K</p><hr><p>x annual report</p>") == "FORM 10-K\n\nx annual report"


def test_old_text():
    text = text_of(HEADER + document("10-K405", OLD_TEXT))
    assert text.split("\n\n") == [
        "PART I",
        "Item 1. Business",
        "Brass & Bell makes fittings for plumbers, and it has made them in the same town since 1892. It is "
        "known, in the trade and well beyond it, for the diesel-electric furnace of its founder. The foundry works to "
        "order, and its short- and long-term contracts cover most of the output of the foundry, which in the spring is "
        "sold months ahead.",
        "Plant | Use | Held\nDayton, Ohio | Foundry | owned\nAkron, Ohio | Warehouse | leased",
        "The foundry closed no year with a loss in the twenty years before the one described here.",
    ]
    assert "Net | $(123,456) | $234,567" in text_of(HEADER + document("10-K405", OLD_TEXT), tables="all")


def test_old_text_in_pre():
    html = f"<HTML><BODY><PRE>{OLD_TEXT}</PRE><P>After</P></BODY></HTML>"
    assert "has made them in the same town since 1892." in text_of(html) and text_of(html).endswith("\n\nAfter")
    html = "<pre><a name='x'>Item</a> <font size='2'>1<b>A</b>.</font> Risk<i hidden>secret</i><br>Brass</pre>End"
    assert text_of(html) == "Item 1A. Risk\n\nBrass\n\nEnd"
    html = "<pre>Brass\n<table border=1><tr><td>a</td><td>b</td></tr></table></pre>"
    assert text_of(html) == "Brass\n\na | b"


def test_submission():
    raw = HEADER + document("10-K405", OLD_TEXT) + document("EX-10", "A lease.", 2)
    raw += document("EX-13", "<p>Annual\x92s</p>", 3) + document("GRAPHIC", "begin 644 a.jpg\nM_]C_X``02D9)1\nend", 4)
    raw += "-----END PRIVACY-ENHANCED MESSAGE-----\n"
    doc = parse_filing(raw, "0000111222-98-000007.txt")
    assert doc["id"] == "0000111222-98-000007.txt" and doc["text"].endswith("\n\nAnnual’s")
    assert "lease." not in doc["text"] and "M_]C" not in doc["text"] and "END" not in doc["text"]
    assert doc["meta"] == {
        "cik": "0000111222", "company": "BRASS & BELL CO", "former_names": ["BELL FOUNDRY INC", "OHIO BELL FOUNDRY"],
        "form": "10-K405", "filed": "1998-03-30", "period": "1997-12-31", "accession": "0000111222-98-000007",
        "sic": "3430", "state": "OH", "co_registrants": ["0000333444"], "documents": ["10-K405", "EX-13"],
        "items": {"1": {"span": [8, doc["text"].index("\n\nAnnual")], "status": "found"}},
    }  # fmt: skip


def test_other_forms_are_read_too():
    doc = parse_filing(document("8-K", "Something happened in Dayton.") + document("EX-99", "More.", 2), "x")
    assert doc["text"] == "Something happened in Dayton." and doc["meta"] == {"form": "8-K", "documents": ["8-K"]}


def test_nc_header():
    raw = """<SUBMISSION>
<ACCESSION-NUMBER>0000111222-24-000001
<TYPE>10-K
<PERIOD>20231231
<FILING-DATE>20240201
<FILER>
<COMPANY-DATA>
<CONFORMED-NAME>Brass & Bell Co
<CIK>0000111222
<ASSIGNED-SIC>3430
<STATE-OF-INCORPORATION>OH
</COMPANY-DATA>
<FORMER-COMPANY>
<FORMER-CONFORMED-NAME>Bell
</FORMER-COMPANY>
</FILER>
"""
    assert looks_like_filing(raw)
    meta = parse_filing(raw + document("10-K", "<p>Text.</p>") + "</SUBMISSION>", "x")["meta"]
    assert meta == {
        "accession": "0000111222-24-000001", "form": "10-K", "period": "2023-12-31", "filed": "2024-02-01",
        "company": "Brass & Bell Co", "cik": "0000111222", "sic": "3430", "state": "OH", "former_names": ["Bell"],
        "documents": ["10-K"], "items": {},
    }  # fmt: skip


def test_inline_xbrl_and_cover_meta():
    facts = "".join(f"<ix:nonNumeric contextRef='c' name='dei:{name}'>{value}</ix:nonNumeric>" for name, value in [
        ("EntityCentralIndexKey", "0000111222"), ("EntityRegistrantName", "Brass &amp; <b>Bell</b> Co"),
        ("DocumentType", "10-K/A"),
        ("DocumentPeriodEndDate", "<ix:nonNumeric name='dei:E'>December&#160;31</ix:nonNumeric>, 2023")])  # fmt: skip
    meta = parse_filing(f"<html><div style='display:none'>{facts}</div><p>Text.</p></html>", "x")["meta"]
    assert meta == {"cik": "0000111222", "company": "Brass & Bell Co", "form": "10-K/A", "period": "2023-12-31",
                    "items": {}}  # fmt: skip
    cover = "<p>FORM 10-K</p><p>For the year ended June 30, 2013</p><p>BELL CO</p><p>(Exact Name of Registrant)</p>"
    meta = parse_filing(cover, "0000111222-13-000001.htm")["meta"]
    assert meta == {"form": "10-K", "period": "2013-06-30", "company": "BELL CO", "accession": "0000111222-13-000001",
                    "items": {}}  # fmt: skip
    assert parse_filing("<p>For the year ended June 31, 2013</p>", "x")["meta"] == {}


def test_signatures_are_cut_and_nothing_else():
    html = f"""<p>{LONG}</p><p>SIGNATURES</p><p>Pursuant to the requirements of Section 13 of the Act, the registrant
      has duly caused this report to be signed.</p><table><tr><td>/s/ Ada Bell</td><td>President</td></tr></table>
      <p>By: Ada Bell</p><p>March 3, 2024</p><p>EXHIBIT INDEX</p><table><tr><td>3.1</td><td>Articles</td></tr>
      <tr><td>21</td><td>List</td></tr></table><p>NOTES TO FINANCIAL STATEMENTS</p><p>{LONG}</p>"""
    assert text_of(html) == f"{LONG}\n\nNOTES TO FINANCIAL STATEMENTS\n\n{LONG}"
    assert "SIGNATURES" in text_of(f"<p>SIGNATURES</p><p>{LONG}</p>")


@pytest.mark.parametrize("raw, reason", [
    (b"", "empty"), (b" \n\n", "empty"), (HEADER.encode(), "header only"), (b"<html><p></p></html>", "no visible"),
    (b"%PDF-1.4 abc", "binary"), (b"PK\x03\x04" + bytes(100), "binary"), (random.Random(0).randbytes(9999), "binary"),
    (b"<html><div style='display:none'>x", "no visible"),
    (document("10-K", "<PDF>\nbegin 644 x").encode(), "no visible"),
])  # fmt: skip
def test_bad_input(raw, reason, tmp_path):
    (tmp_path / "bad.txt").write_bytes(raw)
    with pytest.raises(ValueError, match=reason) as error:
        read_filing(tmp_path / "bad.txt")
    assert "\n" not in str(error.value)


def test_looks_like_filing():
    assert looks_like_filing(HEADER) and looks_like_filing("<DOCUMENT>\n<TYPE>10-K\n")
    assert looks_like_filing("<?xml version='1.0'?>\n<!-- ? --><html xmlns='x'>") and looks_like_filing("\n<DIV>x")
    assert not looks_like_filing("# Notes\n\nUse <p> for paragraphs.") and not looks_like_filing('{"text": "<html>"}')
    assert not looks_like_filing("") and not looks_like_filing("Dear reader,\n")


HOSTILE = {
    "deep": "<div>", "deep tables": "<table><tr><td>", "fonts": "<p><font size={i}>x", "comments": "<!--", "amps": "&",
    "open tags": "<a ", "quotes": "<a b=\"'", "one long name": "a", "hidden": "<div style='display:none'>x",
    "entity": "&#", "facts": "<ix:nonNumeric name='dei:A'>", "brackets": "<", "spaces": " ", "line ends": "\n",
    "dashes": "-", "dot": ". ", "dollars": "<td>$", "closers": "<td>)", "breaks": "x<br>", "pages": "lower\n<PAGE>\n",
    "documents": "\n<DOCUMENT>",
    "types": "<TYPE>", "tables": "<TABLE>\n", "columns": "a    ", "numbers": "x  1", "bullets": "<p>•", "pre": "<pre>",
    "names": "<x{i}><p hidden>", "attributes": "a='b' ", "styles": "<style>.a{i}{display:none}", "at": "<style>@{a{}",
    "scripts": "<script><", "cells": "<table><td hidden>x",
    "wrapped": "a line of words that goes on and on to the right margin of the page x\n", "signed": "<p>SIGNATURES</p>",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_linear_time(name):
    """400 kB of anything, four times, take a second or two; one quadratic step would make minutes of them."""
    unit = HOSTILE[name]
    body = "".join(unit.replace("{i}", str(i)) for i in range(400_000 // len(unit)))
    start = time.perf_counter()
    for before in ("<p>start<", "plain ", "<DOCUMENT>\n<TYPE>10-K\n<TEXT>\n", "<SEC-HEADER>\n"):
        try:
            parse_filing(before + body, "x")
        except ValueError:
            pass
    assert time.perf_counter() - start < 20


SEEDS = [HEADER + document("10-K405", OLD_TEXT), """<html><ix:header><p style='display:none'>x</p></ix:header><table>
  <tr><td>$</td><td>1</td></tr></table><pre>a\n b</pre><p>Exact name of registrant</p><!-- c --><hr>&#146;</html>"""]
EDITS = st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 60), st.binary(max_size=4)), max_size=8)


@settings(deadline=None, max_examples=80, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=300), EDITS)
def test_fuzz_raises_value_error_only(noise, edits):
    mutants = [noise, noise.decode("latin-1"), "<p>" + noise.decode("cp1252", "ignore")]
    for seed in SEEDS:
        raw = bytearray(seed.encode())
        for at, length, new in edits:
            raw[at : at + length] = new
        mutants += [bytes(raw), bytes(raw[: len(raw) // 2])]
    for raw in mutants:
        try:
            doc = parse_filing(raw, "fuzz")
        except ValueError as error:
            assert str(error) and "\n" not in str(error)
        else:
            assert doc["text"].strip() and doc["text"].encode()


def real_files(folder):
    paths = sorted(p for p in (DATA / folder).glob("*") if not p.name.endswith(".sections.json"))
    return paths or [pytest.param(None, marks=pytest.mark.skip(reason=f"no filings in {DATA / folder}"))]


@pytest.mark.parametrize("path", real_files("filings_html"), ids=lambda p: p and p.name)
def test_modern_filings(path):
    doc = read_filing(path)
    # IBM's 10-K is short: its business and its statements are in the annual report, EX-13
    assert (90_000 if path.name.startswith("IBM") else 150_000) < len(doc["text"]) < 2_000_000
    assert len(doc["meta"]["cik"]) == 10 and doc["meta"]["company"] and doc["meta"]["form"] == "10-K"
    assert doc["meta"]["accession"] in path.name and doc["meta"]["period"][:2] == "20"
    for hidden in ("us-gaap:", "xbrli:", "http://fasb.org/us-gaap", "iso4217"):
        assert hidden not in doc["text"]
    assert "  " not in doc["text"] and "\n\n\n" not in doc["text"] and "\xa0" not in doc["text"]


OLD = real_files("filings_historic") + real_files("sgml_samples")


@pytest.mark.parametrize("path", OLD, ids=lambda p: p and p.name)
def test_old_filings_and_submissions(path):
    try:
        doc = read_filing(path)
    except ValueError as error:
        assert "header only" in str(error) and "eader" in path.name
    else:
        assert doc["text"].strip() == doc["text"] and "<PAGE>" not in doc["text"] and "<TABLE>" not in doc["text"]
