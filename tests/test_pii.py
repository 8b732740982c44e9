"""pii.py against lists of what is personal data and what is not, hostile text, and real filings."""

import json
import re
import time
from collections import Counter

import pytest
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

import clean
import pii

# ---- personal data; everybody and everything here is invented --------------------------------------------------------

PII = {
    "email": """jane.doe@example.com|j_doe+news@mail.example.co.uk|JANE@EXAMPLE.ORG|a@b.io|josé.niño@correo.example.es
        |first.last@sub-domain.example.museum|o'neill@example.ie|x%y@example.net|9lives@example.com""",
    "phone": """(212) 555-0123|(212)555-0123|212-555-0123|212.555.0123|+1 212 555 0123|+1 (212) 555-0123|+12125550123
        |1-800-555-0199|1 (800) 555-0199|+1-212-555-0123|(212) 555 0123|(212) 555.0123|212/555-0123|408 555-1010
        |( 206 ) 555-2121|212–555–0123|212 - 555 - 0123|+1.212.555.0123|+44 20 7946 0958|+44 (0)20 7946 0958
        |+442079460958|+49 89 636-00123|+33 1 23 45 67 89|+358 9 1234567|+81-3-1234-5678|+91 98765 43210
        |+61 2 9876 5432|+41 44 123 45 67|(212) 555-0123 ext. 45|212-555-0123 x45|+65 6123 4567""",
    "ssn": "123-45-6789|078-05-1120|899-99-9999|001-01-0001|123–45–6789",
    "iban": """DE89 3704 0044 0532 0130 00|DE89370400440532013000|GB29 NWBK 6016 1331 9268 19|GB29NWBK60161331926819
        |FR14 2004 1010 0505 0001 3M02 606|NL91ABNA0417164300|CH93 0076 2011 6238 5295 7|NO93 8601 1117 947
        |MT84MALT011000012345MTLCAST001S|BE68 5390 0754 7034|IT60X0542811101000000123456""",
    "card": """4111 1111 1111 1111|4111111111111111|4111-1111-1111-1111|5500 0000 0000 0004|5555555555554444
        |3400 000000 00009|371449635398431|3782 822463 10005|6011 0000 0000 0004|6011111111111117|30569309025904
        |3530111333300000|2223000048400011|4222222222222""",
}
PII = {kind: [one.strip() for one in text.split("|")] for kind, text in PII.items()}
PII["phone"].append("(330) | 555-3000")  # in two cells of a table
IN_CONTEXT = [
    ("SSN: {}", "123 45 6789", "ssn"), ("social security number {} was", "123456789", "ssn"),
    ("his Social Security No. is {}.", "123 45 6789", "ssn"), ("SS# {}", "123456789", "ssn"),
    ("SSN {}", "123\xa045\xa06789", "ssn"), ("{} (SSN)", "123456789", "ssn"),
    ("Phone: {}", "555-0123", "phone"), ("Tel. {}", "020 7946 0958", "phone"), ("fax: {}", "2125550123", "phone"),
    ("Telephone number: {}", "212 555 0123", "phone"), ("call us at {} now", "0800 123 456", "phone"),
    ("Mobile: {}", "07700 900123", "phone"), ("please call {}.", "089 / 6360012", "phone"),
    ("Tel (office): {}", "(089) 6360012", "phone"), ("Telephone | {}", "020 7946 0958", "phone"),
    ("Mobile: {}", "123 456 789", "phone"), ("{}", "(212)\xa0555-0123", "phone"),
    ("{}", "+33\u202f1\u202f23\u202f45\u202f67\u202f89", "phone"), ("{}", "4111\xa01111\xa01111\xa01111", "card"),
    ("'{}'", "jane@example.com", "email"), ("**{}**_", "jd@example.com", "email"), ("<{}>", "j@example.com", "email"),
    ("...{}--", "jane@example.com", "email"), ("mailto:{}?x", "jane@example.com", "email"),
]
NOT_PII = """
0000320193-23-000106|000032019323000106|001-36743|333-123456|811-05555|94-2404110|IRS Employer No. 94-2404110
$1,234,567,890|1,234,567 | 2,345,678 | 3,456,789|(1,234) 5,678 9,012|12.5% 13.5% 14.5%|2023 2022 2021 2020 2019
December 31, 2023 and 2022|2023-12-31|12/31/2023|31.12.2023 - 31.12.2024|1998-1999, 2000-2001|2019 2020-2021
037833100|CUSIP 037833 10 0|US0378331005|ISIN US0378331005|10010-1234|New York, NY 10010-1234|pages 123-456, 457-4589
1:2.5 to 1:3.75|3.14159265358979|0.123456789|1.234.567,89|123.456.789|+123.456.789|+12.5|+1,234,567|+ 5 436 000
000-45-6789|666-45-6789|900-45-6789|999-99-9999|123-00-6789|123-45-0000|123-456-789|1234-56-7890|123-45-67890
123 45 6789|123456789|4111 1111 1111 1112|4111111111111112|1234567812345670|41111111111111111111111|0000 0000 0000 0000
9999 4111 1111 1111 1111|4111 1111 1111 1111 1111 1111|$4111111111111111|12-4111-1111-1111-1111
DE89 3704 0044 0532 0130 01|GB29NWBK60161331926818|XX89370400440532013000|DE8937040044053201300|ADE89370400440532013000
DE893704004405320130001|112-555-0123|012-555-0123|212-155-0123|212-055-0123|212-555-01234|1212-555-0123|2212-555-01234
212-555-012|0212-555-0123-4|911-555-0123|(112) 555-0123|$212.555.0123|212.555.0123%|1.212.555.0123.4|10.1.2 to 10.1.44
user@localhost|@example.com|a@b|100@$5.00|10,000 @ 3.50|foo@.com|a@-b.com|@|@@@@|Rule 10b-5(c)(1)|17 CFR 240.12b-2
7,123,456|US 2012/0123456 A1|Patent No. 10,123,456|978-3-16-148410-0|ISBN 0-306-40615-2|15 U.S.C. 7262(b)
45678 90123 45678|Item 9A(T)|Telephone | 2023 | 2022 | 2021|Telephone 2023 2022 2021
Mobile 2019-2020|fax 2020 and 2021|cell 12|call options 1,500,000|Mobile 12 345 678|Fixed and mobile | 1 234 567
555-0123|10.12 | 4.1 | 333-12345 | 10.1 | 5/1/2020|(000) 000-0000|100 200-3000 4000|0.212-555-0123|192.168.100.100
+3.4 2.570.04 — 12|257 — 509 4778 35 202 — 530 4767|257 - 509 4778|212 — 555 — 0123
"""


@pytest.mark.parametrize("kind", PII)
@pytest.mark.parametrize("around", ["{}", "Write: {}.", "a ({}), b", "x\n{}\ny", "“{}”", "name;{};x", "to {} or {}"])
def test_personal_data_is_found_whole(kind, around):
    for one in PII[kind]:
        text = around.replace("{}", one)
        found = pii.find_pii(text)
        assert [(text[s:e], k) for s, e, k in found] == [(one, kind)] * around.count("{}"), text


def test_personal_data_in_context():
    for around, one, kind in IN_CONTEXT:
        text = around.format(one)
        assert [(text[s:e], k) for s, e, k in pii.find_pii(text)] == [(one, kind)], text


@pytest.mark.parametrize("line", NOT_PII.split("\n"))
def test_other_numbers_are_left_alone(line):
    for one in [line, *line.split("|")]:
        for around in ("{}", "the {} of", "Total | {} | x"):
            assert pii.find_pii(around.format(one)) == [], around.format(one)


def test_a_number_is_never_read_in_part():
    for gap in range(1, 60):
        text = "(212) 555-0123" + " " * gap + "Tel: 2079460958123456789"
        assert [text[s:e] for s, e, _ in pii.find_pii(text)] == ["(212) 555-0123"], text


def test_only_the_kinds_asked_for():
    text = "write jane@example.com or call 212-555-0123, SSN 123-45-6789"
    assert [k for *_, k in pii.find_pii(text)] == ["email", "phone", "ssn"]
    assert [k for *_, k in pii.find_pii(text, ("phone",))] == ["phone"]
    assert pii.find_pii(text, ()) == pii.find_pii("") == []


def test_offsets_survive_any_alphabet_and_piece_boundaries():
    text = ("Ω\U0001f600漢字 – é\n" * 50_000).replace("é\n", "é jane@example.com, 212–555–0123\n", 3)
    text += "\ud800 lone surrogate 212-555-0123, DE89 3704 0044 0532 0130 00 " + "x" * 2_000_000 + " 123-45-6789"
    found = pii.find_pii(text)
    assert [text[s:e] for s, e, _ in found] == [
        *["jane@example.com", "212–555–0123"] * 3, "212-555-0123", "DE89 3704 0044 0532 0130 00", "123-45-6789"]


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789 -.()+@ab/|,\nDEGB£é", max_size=200))
def test_spans_are_sorted_and_disjoint(text):
    for find in (pii.find_pii, pii.identifying):
        at = 0
        for start, end, _ in find(text):
            assert at <= start < end <= len(text)
            at = end


HOSTILE = [
    "0", "1 ", "1-", "4", "4111 ", "212-555-", "(", "+", "+1", "+1 ", "@", "a@", "a@a.", "a.", "@a.", "1.", "GB00",
    "GB00 ", "DE89 3704 0044 0532 0130 01 ", " ", "\n", "\n ", "Mr. ", "A ", "Dear A ", "1 A ", "A", "A.", "Aa, ", ":",
    "a:", "www.", "account 1-", "from: ", "From: A, ", "From: Ab, ", "Regards\n", "Regards,\n \n", "/s/ ", "born ",
    "Mr Xy ", "Mr. de la ", "Xy Ab, TX 12345 ", "1 Ab St ", "Jan 1, ", "1 of ",
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_text_takes_linear_time(unit):
    """Seconds for 200 kB of each, where a quadratic pattern would take minutes."""
    text = (unit * 200_000)[:200_000]
    start = time.process_time()
    pii.find_pii(text)
    assert time.process_time() - start < 5
    clean.paragraph_hashes(text)
    assert time.process_time() - start < 6
    pii.identifying(text)
    assert time.process_time() - start < 20


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["0", "@", "a@", "+", "4111 ", "GB29 ", "\n", " ", "a", "212-555-0123 "])
def test_ten_megabytes_of_hostile_text(unit):
    text = (unit * 10_000_000)[:10_000_000]
    start = time.process_time()
    pii.find_pii(text)
    clean.paragraph_hashes(text)
    clean.sampled(clean.ngrams(clean.word_hashes(text), 13), 1 / 16)
    assert time.process_time() - start < 60


LETTER = """Dear Ms. Okonkwo,

Your account no. 00123-4567 and policy number PX-991827 were reviewed by Dr. Anselm van der Berg on March 3, 2021. You
were born on 12 May 1957. We write to 1420 North Elm Street, Apt 4B, Springfield, IL 62704, and to P.O. Box 991,
Portland, Oregon 97201. See https://portal.example.com/x?y=1. It came from 192.168.10.14 and 2001:db8::1 at 10:20:30.
Call (212) 555-0143 or mail help@example.com. Passport: X1234567. Revenue in 2021 was $1,234,567; the rate is 4.25%.
My name is Will Hunting; we will see. Ms. Okonkwo knows Berg.

Kind regards,
Jane Q. Doe
"""
IN_LETTER = [
    ("Ms. Okonkwo", "person"), ("00123-4567", "id"), ("PX-991827", "id"), ("Dr. Anselm van der Berg", "person"),
    ("12 May 1957", "birth_date"), ("1420 North Elm Street, Apt 4B, Springfield, IL 62704", "address"),
    ("P.O. Box 991", "address"), ("Portland, Oregon 97201", "address"), ("https://portal.example.com/x?y=1", "url"),
    ("192.168.10.14", "ip"), ("2001:db8::1", "ip"), ("(212) 555-0143", "phone"), ("help@example.com", "email"),
    ("X1234567", "id"), ("Will Hunting", "person"), ("Ms. Okonkwo", "person"), ("Berg", "person"),
    ("Jane Q. Doe", "person"),
]


def test_identifying_a_letter():
    assert [(LETTER[s:e], k) for s, e, k in pii.identifying(LETTER)] == IN_LETTER


@pytest.mark.parametrize("text, expected", [
    ("From: John Public <jp@example.com>\nTo: Smith, Anna\n", ["John Public", "jp@example.com", "Smith, Anna"]),
    ("Dear Sir or Madam,\nDear Customer,\nDear Shareholders,\nDear All,", []),
    ("Caller: Maria Lopez. DOB: 04/05/1961. Member ID: 4455667.", ["Maria Lopez", "04/05/1961", "4455667"]),
    ("Customer spoke with Ravi Patel about driver's license D123-4567-8901.", ["Ravi Patel", "D123-4567-8901"]),
    ("/s/ JANE DOE\nJane Doe", ["JANE DOE", "Jane Doe"]), ("Version 1.2.3.400 of 12:30:45, section 3.1.2", []),
    ("Sincerely,\n\nTomás Ñúñez, M.D.", ["Tomás Ñúñez"]),
    ("The account grew in 2021. The policy of 1999 holds. Rosé was served by Mark; will do.", []),
    ("From: Acme Widgets, Inc.\nTo: Everyone\nDear May, Acme Widgets in account 2021", []),
    ("Caller: Mark Price\nthe price; he will mark it. Mark Price left.", ["Mark Price", "Mark Price"]),
    ("Flat 2, 10 Downing Street, London SW1A 2AA", ["10 Downing Street", "SW1A 2AA"]),
    ("Dear John and Mary,\nJohn called.", ["John and Mary", "John"]), ("Born in 1957, she", ["1957"]),
    ("350 W. 42nd St., New York, NY 10036", ["350 W. 42nd St., New York, NY 10036"]),
])
def test_identifying_in_context(text, expected):
    assert [text[s:e] for s, e, _ in pii.identifying(text)] == expected


def test_names():
    text = ("Grant Price set the grant price. TIMOTHY D. OAK, Mr. Oak, T. Oak and T.D. Oak; MR. OAK's; "
            "Timothy\nOak, the oak, Oakley, Mr. Oakley. Ms. van der Berg, Anna van der Berg; İ "
            "Anna Q. Van Der Berg, JR.")
    found = pii.names(text, ["Grant Price", "OAK, TIMOTHY D.", "/s/ Anna van der Berg, Ph.D.", "", "Cher"])
    assert [text[s:e] for s, e in found] == [
        "Grant Price", "TIMOTHY D. OAK", "Mr. Oak", "T. Oak", "T.D. Oak", "MR. OAK", "Timothy\nOak", "Ms. van der Berg",
        "Anna van der Berg", "Anna Q. Van Der Berg"]
    assert pii.names(text, []) == []


# ---- edit ------------------------------------------------------------------------------------------------------------


@st.composite
def edited(draw):
    text = draw(st.text(alphabet="abcdef", max_size=30))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    edits = [(a, b, draw(st.text(alphabet="XYZ", max_size=4))) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    spans = draw(st.lists(st.lists(st.integers(0, len(text)), min_size=2, max_size=2).map(sorted), max_size=5))
    return text, edits, spans


@settings(max_examples=500, deadline=None)
@given(edited())
def test_edit_moves_spans(case):
    text, edits, spans = case
    new, moved = pii.edit(text, edits, spans)
    naive = list(text)
    for start, end, replacement in reversed(edits):
        naive[start:end] = [replacement]
    assert new == "".join(naive)
    assert len(moved) == len(spans)
    for (start, end), (new_start, new_end) in zip(spans, moved, strict=True):
        assert 0 <= new_start <= new_end <= len(new)
        if start == end:
            continue
        # what is left of the old text within the span is the same, and what replaces a part of it is in it whole
        left = [c for i, c in enumerate(text[start:end], start) if not any(a <= i < b for a, b, _ in edits)]
        assert [c for c in new[new_start:new_end] if c not in "XYZ"] == left
        inside = [replacement for a, b, replacement in edits if a < end and b > start]
        assert "".join(c for c in new[new_start:new_end] if c in "XYZ") == "".join(inside), (start, end)


def test_edit_refuses_what_does_not_fit():
    assert pii.edit("abc", [], [[0, 3]]) == ("abc", [[0, 3]])
    assert pii.edit("call 555 now", [(5, 8, "<PHONE>")], [[0, 6], [6, 12], [8, 12]]) == (
        "call <PHONE> now", [[0, 12], [5, 16], [12, 16]])
    for edits in ([(2, 1, "")], [(0, 2, ""), (1, 3, "")], [(0, 4, "")], [(-1, 2, "")]):
        with pytest.raises(ValueError, match="edit"):
            pii.edit("abc", edits, [])
    with pytest.raises(ValueError, match="span"):
        pii.edit("abc", [], [[1, 4]])


# ---- real filings ----------------------------------------------------------------------------------------------------

FILINGS = SHARED / "data"


@pytest.mark.skipif(not FILINGS.exists(), reason=f"no {FILINGS}: real filings to look for false positives in")
def test_real_filings_hold_phone_numbers_and_e_mails_and_nothing_else():
    texts = {f.name: f.read_text("utf-8", "replace") for f in sorted((FILINGS / "filings_historic").glob("*.txt"))}
    for file in sorted((FILINGS / "filings_items").glob("*.json")):
        texts[file.name] = "\n\n".join(v for k, v in json.loads(file.read_text()).items() if k.startswith("item_"))
    for file in sorted([*(FILINGS / "filings_historic").glob("*.htm"), *(FILINGS / "filings_html").glob("A*.html")]):
        texts[file.name] = re.sub(r"<[^>]{0,3000}>", "", file.read_text("utf-8", "replace"))
    counts = Counter()
    for text in texts.values():
        for start, end, kind in pii.find_pii(text):
            counts[kind] += 1
            assert kind in ("email", "phone"), text[max(0, start - 50) : end + 20]
            if kind == "phone":
                assert re.fullmatch(r"(?:1-)?\(?[2-9]\d\d\)?[ /-]{0,2}\d{3}-\d{4}", text[start:end]) or "PHONE" in text[
                    start - 50 : start], text[max(0, start - 50) : end + 20]
    assert 30 < counts["phone"] < 80 and 2 < counts["email"] < 9, counts
