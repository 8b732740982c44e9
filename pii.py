"""Personal data in a text: find it, and replace it without losing what else points into the text.

    for start, end, kind in find_pii(text): ...                         # e-mails, phones, SSNs, IBANs, card numbers
    text, spans = edit(text, [(start, end, "[EMAIL]")], spans)          # replace them; item spans move along
    identifying(text)                                                   # letters and notes: also names, addresses ...
    names(text, ["Jane Doe"])                                           # where the people are named who signed

Personal data is found by patterns with checksums and context. Filings are full of numbers, so precision comes first;
what that misses, a named-entity pass such as Presidio (https://microsoft.github.io/presidio) would find some more of.
"""

import ipaddress
import re
from bisect import bisect_left, bisect_right

import numpy as np

from clean import pieces

# ---- personal data ---------------------------------------------------------------------------------------------------

DASH = r"\-\u2010-\u2013"
GAP = rf"\x20\xa0\u2009\u202f{DASH}"
AREA = r"[2-9](?!11)[0-9]{2}"  # area codes and exchanges start at 2, and x11 are services such as 911
# "@" first, so that text without it costs nothing; who stands before it is looked up afterwards
DOMAIN = re.compile(r"@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![^\W_])")
LOCAL = re.compile(r"[\w%+&](?:[\w.%+'&-]{0,62}[\w%+&-])?\Z")
SSN = re.compile(rf"""(?x) (?<![\w$€£.]) (?<!\w[{DASH}/]) (?<!\d,)
    (?!000|666|9)[0-9]{{3}} ([{GAP}]?) (?!00)[0-9]{{2}} \1 (?!0000)[0-9]{{4}} (?![\w%]|[{DASH}./]\d)""")
CARD = re.compile(r"""(?x) (?<![\w$€£.]) (?<!\d[-,/]) (?<!\d{4}[ ])
    (?:[3-6][0-9]{3}|2[2-7][0-9]{2})
    (?: ([ \xa0-]?)[0-9]{4}\1[0-9]{4}\1[0-9]{1,4}(?:\1[0-9]{1,3})? | ([ \xa0-])[0-9]{6}\2[0-9]{4,5} )
    (?![\w%]|[-.,]\d|[ ]\d{4}\b)""")
NETWORK = re.compile(r"""(?x) 4(?:\d{12}|\d{15}|\d{18}) | 5[1-5]\d{14}
    | 2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12} | 3[47]\d{13} | 3(?:0[0-5]|[689]\d)\d{11}
    | (?:6011|65\d\d|64[4-9]\d|35[2-8]\d)\d{12,15} | 62\d{14,17}""")
EXTENSION = r"(?:,?[ ]?(?:x|[Ee]xt|[Ee]xtension)\.?[ ]?[0-9]{1,6})?"
US_PHONE = re.compile(rf"""(?x) (?<![\w$€£+]) (?<!\d[{DASH}.,/])
    (?:\+1[{GAP}.]{{0,2}}|1[{GAP}.]{{1,2}}|1(?=\())? (?:
    \([{GAP}]?{AREA}[{GAP}]?\)[{GAP}.|]{{0,3}} {AREA} [{GAP}.]{{0,3}} [0-9]{{4}}
    | {AREA} [{DASH}./] {AREA} [{GAP}.] [0-9]{{4}} | {AREA} [ ][{DASH}][ ] {AREA} [ ][{DASH}][ ] [0-9]{{4}}
    | {AREA} [ ] {AREA} [{DASH}] [0-9]{{4}}
    | (?<=\+1)[ ]?{AREA}[ ]?{AREA}[ ]?[0-9]{{4}} | (?<=\+1[ ]){AREA}[ ]?{AREA}[ ]?[0-9]{{4}}
    ) {EXTENSION} (?![\w%]|[{DASH}.]\d)""")
WORLD_PHONE = re.compile(rf"""(?x) (?<![\w$€£)]) \+[ ]?[1-9][0-9]{{0,2}} (?:
    [{GAP}.]{{0,2}}(?:\([0-9]{{1,4}}\)[{GAP}.]{{0,2}})?[0-9]{{1,8}}(?:[{GAP}./]{{1,2}}[0-9]{{1,8}}){{1,6}}
    | [{GAP}.]?[0-9]{{7,12}} ) {EXTENSION} (?![\w%]|[{DASH}.,]\d)""")
ANY_PHONE = re.compile(rf"""(?x) (?<![\w$€£]) (?:\([0-9]{{1,5}}\)|[0-9])[0-9()./{GAP}]{{5,22}}(?<=[0-9])
    (?![\w%]|[{DASH}.,]\d)""")
PHONE_WORD = re.compile(r"""(?ix) (?:\b(?:(?:tele)?phone|tel|fax|mobile|cell|call|dial|ring|whatsapp)|facsimile|hotline)
    [^\w\n]{1,4} (?:(?:us|me|him|her|at|on|is|was|to|numbers?|nos?|line|including|area|code|office|home|work|direct)\b
    [^\w\n]{1,4}){0,4} \Z""")
SSN_WORD = re.compile(r"(?i)\bssn\b|\bss ?#|\bsocial[ -]security\b|\bsoc\.? ?sec\b")
JOINS = np.array([chr(b) in "0123456789 ()./-+?\xa0" for b in range(256)])  # "?" stands for all beyond Latin-1
IBAN = re.compile(r"[A-Z]{2}[0-9]{2}(?:[ \xa0-]?[A-Z0-9]){11,30}")
IBAN_LENGTH = {word[:2]: int(word[2:]) for word in """
    AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24
    FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32
    LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24
    RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30""".split()}


def find_pii(text, kinds=("email", "phone", "ssn", "iban", "card")):
    """Personal data with a form of its own → sorted, non-overlapping [(start, end, kind)], offsets in characters.

    ssn: NNN-NN-NNNN in ranges that exist; with spaces or nothing between only where "SSN" or "social security" is near.
    iban: country, length and mod-97 right. card: a known network and Luhn's digit right. phone: the forms (212)
    555-0123, 212-555-0123, 212.555.0123, +1 ... and +CC ...; any other digits only after "phone", "fax", "call" ...
    Takes time linear in the text, and next to none where it has neither "@" nor dense digits.
    """
    found = []
    if "email" in kinds and "@" in text:
        found += emails(text)
    if {"phone", "ssn", "iban", "card"} & set(kinds):
        for start, end in pieces(text, 1 << 20, "\n"):
            found += numbers(text, start, end, kinds)
    return disjoint(found)


def emails(text):
    for match in DOMAIN.finditer(text):
        if local := LOCAL.search(text, max(0, match.start() - 64), match.start()):
            yield local.start(), match.end(), "email"


def numbers(text, start, end, kinds):
    """What in text[start:end] is written with digits: patterns are tried only where seven or more stand together."""
    raw = np.frombuffer(text[start:end].encode("latin-1", "replace"), np.uint8)  # one byte per character
    at = np.flatnonzero(raw - np.uint8(48) < 10)
    if len(at) < 7:
        return
    apart, after, before = at[1:] - at[:-1], raw[at[:-1] + 1], at[1:]
    together = JOINS[raw[before - 1]] & JOINS[raw[before - 2]] | (after == ord(")"))
    together = (apart == 1) | (apart < 6) & JOINS[after] & together
    edges = np.r_[0, np.flatnonzero(~together) + 1, len(at)]
    runs = np.flatnonzero(edges[1:] - edges[:-1] >= 7)
    counts = (edges[runs + 1] - edges[runs]).tolist()
    for first, last, count in zip(at[edges[runs]].tolist(), at[edges[runs + 1] - 1].tolist(), counts, strict=True):
        for kind, least, pattern, accept in NUMBERS:
            if kind in kinds and count >= least:
                for match in pattern.finditer(text, max(start, start + first - 8), start + last + 32):
                    if match.start() <= start + last and accept(text, match):  # else the window may have cut it short
                        yield *match.span(), kind
    if "iban" in kinds:
        at = at[(at > 1) & (at + 1 < len(raw))]
        letters = (raw[at - 2] - np.uint8(65) < 26) & (raw[at - 1] - np.uint8(65) < 26)
        for low in (at[letters & (raw[at + 1] - np.uint8(48) < 10)] + start - 2).tolist():
            if length := iban_length(text, low):
                yield low, low + length, "iban"


def is_ssn(text, match):
    near = text[max(0, match.start() - 60) : match.start()] + " " + text[match.end() : match.end() + 20]
    return bool(match[1].strip() or SSN_WORD.search(near))


def is_card(text, match):
    """Luhn: from the right, every second digit doubled, and its own digits added; the sum of all ends in 0."""
    number = re.sub("[^0-9]", "", match[0])
    doubled = "".join(str(2 * int(digit)) for digit in number[-2::-2])
    return bool(NETWORK.fullmatch(number)) and sum(map(int, number[::-2] + doubled)) % 10 == 0


def is_world_phone(text, match):
    first, *others = re.findall("[0-9]+", match[0])
    digits = len(first + "".join(others))
    if others and all(len(group) == 3 for group in others) and ("." in match[0] or digits < 10):
        return False  # +123.456.789 and +23 456 789 are amounts
    if re.search(r"\.[0-9]+ ", match[0]):
        return False  # +3.4 2.570 are decimals
    return digits == 11 if first[0] == "1" else 8 <= digits <= 15


def is_phone(text, match):
    groups = re.findall("[0-9]+", match[0])
    before = text[max(0, match.start() - 60) : match.start()]
    if all(re.fullmatch("(?:19|20)[0-9]{2}", group) for group in groups if len(group) > 2):
        return False  # years
    if re.fullmatch("[1-9][0-9]{0,2}(?: [0-9]{3})+", " ".join(groups)) and ":" not in before[-3:]:
        return False  # Mobile 12 345 678 is an amount, Mobile: 123 456 789 is not
    return 7 <= len("".join(groups)) <= 15 and bool(PHONE_WORD.search(before))


NUMBERS = [  # kind, how many digits at least, pattern, and what else must be true
    ("ssn", 9, SSN, is_ssn),
    ("card", 13, CARD, is_card),
    ("phone", 10, US_PHONE, lambda text, match: True),
    ("phone", 8, WORLD_PHONE, is_world_phone),
    ("phone", 7, ANY_PHONE, is_phone),
]


def iban_length(text, start):
    """How many characters from `start` on, spaces included, are an IBAN: length by country, mod 97 is 1; else 0."""
    match, length = IBAN.match(text, start), IBAN_LENGTH.get(text[start : start + 2])
    if not match or not length or text[max(0, start - 1) : start].isalnum():
        return 0
    ends = [i + 1 for i, c in enumerate(match[0]) if c.isalnum()][length - 1 : length]
    if not ends or text[start + ends[0] : start + ends[0] + 1].isalnum():
        return 0
    iban = re.sub("[^A-Z0-9]", "", match[0][: ends[0]])
    return ends[0] if int("".join(str(int(c, 36)) for c in iban[4:] + iban[:4])) % 97 == 1 else 0


def disjoint(found):
    """Sorted by start, the longer first; what overlaps an earlier one loses the part in common."""
    out, at = [], 0
    for start, end, kind in sorted(found, key=lambda f: (f[0], -f[1])):
        if end > at:
            out.append((max(start, at), end, kind))
            at = end
    return out


def edit(text, edits, spans):
    """Replace parts of a text and move offsets along → (new text, new spans).

    edits: [(start, end, replacement)], sorted, not overlapping; spans: [[start, end]] into the old text. A start inside
    of a replaced part moves to the beginning of what replaces it, an end to its end. ValueError for bad edits or spans.
    """
    out, at, shifts = [], 0, [0]  # shifts[n]: how far n edits move what follows them
    for start, end, new in edits:
        if not at <= start <= end <= len(text):
            raise ValueError(f"edit ({start}, {end}) overlaps the one before, or leaves the {len(text)} characters")
        out += text[at:start], new
        shifts.append(shifts[-1] + len(new) - (end - start))
        at = end
    edit_starts, edit_ends, moved = [e[0] for e in edits], [e[1] for e in edits], []
    for start, end in spans:
        if not 0 <= start <= end <= len(text):
            raise ValueError(f"span [{start}, {end}] is not within the {len(text)} characters of the text")
        n = bisect_right(edit_ends, start)
        new_start = min([start, *edit_starts[n : n + 1]]) + shifts[n]
        n = bisect_left(edit_starts, end)
        new_end = max([end, *edit_ends[:n][-1:]]) + shifts[n]
        moved.append([new_start, max(new_start, new_end)])
    return "".join([*out, text[at:]]), moved


# ---- letters, e-mails, notes: what identifies a person ---------------------------------------------------------------

WORD = r"(?:[A-Z\u00c0-\u00d6\u00d8-\u00de](?:[\w'’-]{1,30}|\.))"  # Smith, SMITH, O'Neill, J.
PARTICLE = "(?:(?:al|bin|da|de|del|della|den|der|di|du|el|la|le|ten|ter|van|von|y)[ ]){0,2}"
NAME = rf"{PARTICLE}{WORD}(?:[ ]{{1,2}}{PARTICLE}{WORD}){{0,3}}"
TITLE = r"(?:M(?:r|R|rs|RS|s|S|x|iss)|D(?:r|R)|Prof(?:essor)?|Doctor|Sir|Dame|Rev|Reverend|Hon|Judge|Herr|Frau)\b\.?"
LABELS = """name patient client customer borrower insured beneficiary applicant employee claimant tenant contact attn
    attention from to cc bcc caller agent signed signature by author cardholder witness physician advisor rep holder
    payee sender recipient spouse policyholder""".split()
LABEL = "|".join(f"{label.upper()}|{label.capitalize()}" for label in LABELS)
MONTH = "(?i:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)[a-z]{0,6}\\.?"
DAY = "[0-9]{1,2}(?:st|nd|rd|th)?"
DATE = rf"""(?:[0-9]{{1,4}}[./-][0-9]{{1,2}}[./-][0-9]{{1,4}} | {MONTH}[ ]{DAY},?[ ][0-9]{{4}}
    | {DAY}[ ](?:of[ ])?{MONTH},?[ ][0-9]{{4}} | (?:19|20)[0-9]{{2}})\b"""
STATE = """(?:A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|V[AT]
    |W[AIVY])"""
ZIP = r"[0-9]{5}(?:-[0-9]{4})?(?![\w-])"
CITY = rf"{WORD}(?:[ ]{WORD}){{0,3}}(?:,?[ ]{STATE}|,[ ]{WORD}(?:[ ]{WORD})?)[ ]{{1,2}}{ZIP}"
WORDS = re.compile(rf"{WORD}(?:[ ]{WORD})*")
ROADS = """street st avenue ave road rd boulevard blvd drive dr lane ln way court ct place pl square sq parkway pkwy
    close highway hwy terrace turnpike circle cir plaza crescent broadway""".split()
ROAD = "|".join(f"{road.upper()}|{road.capitalize()}" for road in ROADS)
UNIT = r"(?:,?[ ](?:Apt|Apartment|Suite|Ste|Unit|Floor|Room|No)\.?[ ]?[\w-]{1,6}|,?[ ]?\#[ ]?[\w-]{1,6})?"
# What to look for; of a pattern with a group, the group is what identifies, and the rest is its context. None begins
# with \b, so that re can skip to the letters a match may start with: that no word goes on before it is checked later.
IDENTIFYING = [(kind, re.compile(pattern, re.VERBOSE | re.MULTILINE)) for kind, pattern in (
    ("url", r"(?:https?://|HTTPS?://|www\.)[^\s<>\"'|]{1,2000}(?<![.,;:!?)\]])"),
    ("ip", r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?!\w|\.[0-9])"),
    ("ip", r"(?<![\w:])[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7}(?![\w:])"),
    ("person", rf"{TITLE}[ ]{{1,2}}{NAME}"),
    ("person", rf"""(?:Dear|DEAR|Hi|Hello|Hey|Good[ ](?:morning|afternoon|evening)),?[ ]
        ({NAME}(?:[ ](?:and|&)[ ]{NAME})?)"""),
    ("person", rf"""^[ \t]{{0,9}}(?:[A-Z][a-z]{{1,9}}[ ]){{0,2}}(?:[Rr]egards|[Ww]ishes|Sincerely|[Tt]ruly|[Ff]aithfully
        |Best|[Yy]ours|Cheers|Thanks|[Yy]ou|Respectfully|Cordially),?[ ]{{0,9}}
        \n\s{{0,20}}({NAME})(?=[ ]{{0,9}}(?:[,|]|$))"""),
    ("person", rf"""(?:{LABEL}|name)(?:[ ](?:[Nn]ame|NAME))?[ ]{{0,4}}[:=][ \t]{{0,20}}["“]?
        ({NAME}(?:[,;][ ]{NAME}){{0,5}})"""),
    ("person", rf"/[sS]/[ \t]{{0,9}}({NAME})"),
    ("person", rf"(?:[Mm]y[ ]name[ ]is|[Cc]alled[ ]by|[Ss]po(?:ke|ken|eaking)[ ](?:with|to))[ ]({NAME})"),
    ("person", rf"(?:This[ ]is|this[ ]is|I[ ]am|I['’]m)[ ]({WORD}(?:[ ]{WORD}){{1,3}})"),
    ("birth_date", rf"""(?:[Bb]orn|BORN|D\.?O\.?B\.?|dob|[Dd]ate[ ]of[ ][Bb]irth|DATE[ ]OF[ ]BIRTH|[Bb]irth[ ]?date
        |[Bb]irthday) [^\w\n]{{1,5}}(?:(?:is|was|on|in)[ ]){{0,2}}({DATE})"""),
    ("address", rf"""[0-9]{{1,6}}[A-Za-z]?,?[ ](?:(?:[NSEW]{{1,2}}\.?|{WORD}|[0-9]{{1,3}}(?:st|nd|rd|th))[ ]){{1,4}}
        (?:{ROAD})\b\.?{UNIT}(?:,?\s{{1,2}}{CITY})?"""),
    ("address", CITY),
    ("address", r"P\.?[ ]?O\.?[ ]?(?:Box|BOX)[ ][0-9]{1,7}"),
    ("address", r"[A-Z]{1,2}[0-9][A-Z0-9]?[ ][0-9][ABD-HJLNP-UW-Z]{2}(?!\w)"),  # a British postcode
    ("id", r"(?:[A-Z]{1,4}-?)?[0-9][0-9A-Z]{0,20}(?:[ /-][A-Z]{0,3}[0-9][0-9A-Z]{0,20}){0,6}"),
)]  # fmt: skip
ID_WORD = re.compile(r"""(?ix) \b(?:account|acct|a/c|passport|licen[cs]e|permit|member(?:ship)?|policy|customer|client
    |patient|loan|claim|mortgage|employee|student|tax(?:payer)?|insurance|record|mrn|nhs|medicare|medicaid|routing|case
    |sort[ ]code) (?:['’]s)?(?:[ ](?:id|record|licen[cs]e|number|no|num|nr|card|ref)\b|[ ]?\#)*\.?[ ]?:?[ ]{0,4}
    (?:(?:is|was|ending|in)[ ]){0,3}\#?\Z""")
NOBODY = re.compile(r"""(?x) (?:Sir|Madam|Sirs|All|Team|Colleagues?|Customers?|Clients?|Members?|Friends?|Valued|There
    |Everyone|Whom|Hiring|Reader|Shareholders?|Stockholders?|Investors?|January|February|March|April|May|June|July|August
    |September|October|November|December)\b | .*\b(?:Inc|INC|LLP|LLC|Ltd|LTD|Corp|CORP|Company|COMPANY|Bank|BANK)\b""")


def identifying(text):
    """What may identify a person in letters, e-mails, call notes → sorted, non-overlapping [(start, end, kind)].

    Kinds: those of `find_pii`, and url, ip, person, birth_date, address, id (account, passport, licence, member ...
    numbers). A name is known by what stands next to it (Mr, Dear, Regards, Name:, /s/, "my name is"), then found again
    elsewhere in the same text; ids, birth dates and streets likewise by context. These are heuristics for English:
    they miss what has no such context, and mask some words that are harmless. This lowers the risk, it is NOT
    anonymisation; where that is needed, run a named-entity pass such as Presidio afterwards, and have people check.
    """
    found, people = find_pii(text), set()
    for kind, pattern in IDENTIFYING:
        for match in pattern.finditer(text):
            start, end = match.span(pattern.groups)  # of the group, or without one of all
            what = text[start:end]
            if match.start() and text[match.start() - 1 : match.start() + 1].isalnum():
                continue  # within a word
            if kind == "ip" and not is_ip(what):
                continue
            if kind == "id" and not is_id(what, text[max(0, start - 50) : start]):
                continue
            if kind == "person":
                if NOBODY.match(what):
                    continue
                people.update(re.findall(r"\w{2,}", re.sub(rf"^{TITLE}\s+", "", what).lower()))
            found.append((start, end, kind))
    rest, _ = edit(text, [(start, end, " ") for start, end, _ in disjoint(found)], [])
    ordinary = set(re.findall(r"[a-z]{2,}", rest))  # Will, Mark, Price: words that the text has in lower case, too
    for match in WORDS.finditer(text):
        again = [word for word in re.finditer(r"\w{2,}", match[0]) if word[0].lower() in people]
        if len(again) > 1 or again and again[0][0].lower() not in ordinary:
            found.append((match.start() + again[0].start(), match.start() + again[-1].end(), "person"))
    return disjoint(found)


def is_id(text, before):
    a_year = re.fullmatch("(?:19|20)[0-9]{2}", text)
    return sum(map(str.isdigit, text)) > 3 and not a_year and bool(ID_WORD.search(before))


def is_ip(text):
    try:
        return bool(ipaddress.ip_address(text)) and len(text) > 3
    except ValueError:
        return False


def names(text, people):
    """Where these people are named → sorted [(start, end)], as "Jane Q. Doe", "Jane Doe", "J. Doe" or "Ms. Doe".

    people: full names as signed, "Jane Q. Doe", "DOE, JANE" or "/s/ Jane Doe, Ph.D."; of a single word, only "Ms. Doe"
    is looked for. Capitals throughout are the same name, but without any, a grant price is not Grant Price.
    """
    forms = set()
    for person in people:
        person = re.sub(rf"^\s*(?:/[sS]/)?\s*(?:{TITLE}\s+)?", "", person)
        person = re.sub(r"(?i),?\s+(?:jr|sr|ii|iii|iv|esq|ph\.?d|m\.?d|cpa|cfa)\b\.?", "", person)
        last, _, first = person.partition(",")
        *given, surname = [re.escape(word) for word in f"{first} {last}".lower().split()] or [""]
        if len(surname) > 1:
            forms.add(rf"(?:mr|mrs|ms|miss|mx|dr|prof|sir|dame)\b\.?\s{{1,3}}(?:[\w.]{{1,20}}\s)?{PARTICLE}{surname}")
        if len(surname) > 1 and given:
            middle = "|".join([r"[a-z]\.?", *given[1:]])
            forms.add(rf"(?:{given[0]}\s|{given[0][0]}\.)\s{{0,3}}(?:(?:{middle})\s{{0,3}}){{0,3}}{surname}")
    if not forms:
        return []
    low = text.lower()
    if len(low) != len(text):  # İ becomes two characters
        low = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    found = []
    for match in re.compile("|".join(sorted(forms))).finditer(low):
        start, end = match.span()
        within = start and low[start - 1].isalnum() or low[end : end + 1].isalnum()
        if not within and text[start].isupper() and text[start + re.search(r"\S+\Z", match[0]).start()].isupper():
            found.append((start, end))
    return found
