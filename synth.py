"""Synthetic 10-K filings, so that the whole road from raw filings to a report runs with no network and no licence.

    from synth import write_filings
    paths = write_filings("raw/synth", n=200, seed=0)         # ["raw/synth/0009000001-19-000001.html", ...]

or `python prepare.py synth --out raw/synth`. Nobody in them exists: names are invented syllables, CIKs start at 9000001
(the SEC has assigned none there), people appear as titles only. Every tenth filing is an old-style .txt submission.

The words come from PROSE at the bottom, a filing written as a template in reading order. `[a|b]` picks one, brackets
nest, `{goods}` draws from the industry's list, `{moved:revenue}` puts an account into words: `say` is all the grammar.
The numbers come from `ledger`: a company's books rolled forward year by year in whole tenths of a million dollars.
Money is rounded there, once; tables, sentences and percentages are all derived from those integers, so they add up
exactly, and last year's column is last year's filing: revenue 1494 -> 1618 reads "increased $12.4 million, or 8.3%,
to $161.8 million". A filing is a function of (seed, company, year) alone, not of n or of the filings before it.
"""

import datetime
import html
import os
import random
import re
import textwrap

START = 2008  # the books open here; a decade of history settles them before the first year anybody asks for
CHOICE, SLOT = re.compile(r"\[([^\[\]]*)\]"), re.compile(r"\{(\w+)(?::(\w+))?\}")
MARKET_RATE = {2020: 0.4, 2021: 0.3, 2022: 2.6, 2023: 5.1, 2024: 5.0}  # percent; 2.1 in other years


def say(rng, text, facts):
    """Expand [a|b] and {slot} until none is left. A list is drawn from without repeats within one call."""
    decks = {}
    while found := CHOICE.search(text) or SLOT.search(text):  # choices first: what is not chosen draws nothing
        slot, argument = (found.groups() + (None,))[:2]
        if found.re is CHOICE:
            word = rng.choice(slot.split("|"))
        elif argument:
            word = facts[slot](argument)
        elif isinstance(facts[slot], list):
            decks[slot] = decks.get(slot) or rng.sample(facts[slot], len(facts[slot]))
            word = decks[slot].pop()
        else:
            word = str(facts[slot])
        text = text[:found.start()] + word + text[found.end():]
    text = re.sub(r" ([.,])", r"\1", re.sub(r"\s+", " ", text).strip()).replace("Inc..", "Inc.")
    text = re.sub(r"\b([Aa]) (?=[aeio])", r"\1n ", text)
    return re.sub(r"(^|(?<!Inc)[.?!] )([a-z])", lambda m: m[1] + m[2].upper(), text)


def parse(table):
    """'key: a; b' entries, split by newline or ' / ' -> per block a dict of lists; a repeated key extends its list."""
    blocks = []
    for block in re.sub(r"\n  +", " ", table).strip().split("\n\n"):
        blocks.append({})
        for entry in re.split(r"\n| / ", block):
            key, values = entry.split(": ", 1)
            blocks[-1].setdefault(key, []).extend(values.split("; "))
    return blocks


def make_company(seed, index):
    """What stays the same every year. The name is a mixed-radix numeral of the index, so no two are alike."""
    rng = random.Random(f"{seed}/{index}")
    industry, number = INDUSTRIES[index % len(INDUSTRIES)], index * 1237 + seed * 389
    short = WORDS["name0"][number % 23] + WORDS["name1"][number // 23 % 7] + WORDS["name2"][number // 161 % 16]
    name = f"{short} {rng.choice(industry['suffix'])}" + rng.choice((", Inc.", " Corporation", " Holdings, Inc."))
    cik = 9_000_001 + seed % 900 * 1000 + index
    cost, *opex, capex, growth = (float(rate) / 100 for rate in industry["rates"][0].split())
    segments = rng.sample(industry["segments"], rng.choice((2, 3, 3)))
    revenue, weights = rng.uniform(600, 5000), [rng.uniform(1, 3) for _ in segments]
    return WORDS | industry | {
        "key": f"{seed}/{cik}", "cik": f"{cik:010d}", "name": name, "short": short, "tag": rng.choice(("p", "div")),
        "seg": segments, "base": [revenue * w / sum(weights) for w in weights],
        "growth": [growth + rng.gauss(0, 0.015) for _ in segments], "cost": cost * rng.uniform(0.96, 1.03),
        "opex": [share * rng.uniform(0.88, 1.08) for share in opex], "capex": capex, "days": rng.uniform(0.09, 0.15),
        "payout": rng.choice((0, 0, 0.2, 0.35)), "reserve": rng.uniform(0.08, 0.22),
        "spread": rng.choice((1.25, 1.5, 1.75, 2.0)), "tax_rate": rng.uniform(0.215, 0.262),
        "multiple": rng.randint(2, 5), "shares": round(revenue * rng.uniform(6, 12)), "per_head": rng.uniform(2.2, 4.2),
        "holders": rng.randint(400, 4000), "founded": rng.randint(1974, 2004),
        "state": rng.choice(WORDS["states"]), "city": rng.choice(WORDS["cities"]), "order": rng.sample(range(50), 50),
        "year_end": rng.choice(((12, 31), (12, 31), (12, 31), (6, 30), (9, 30))),
    }


def ledger(company, year):
    """The books of one year, {account: whole $0.1 million}, with the year before under "prior"."""
    base = round(sum(company["base"]))
    books = {"segments": company["base"], "ppe": round(base * company["capex"] * 5), "goodwill": base // 5,
             "debt": base // 4, "cash": base // 5, "tied_up": 0, "shares": company["shares"]}
    books["equity"] = books["cash"] + books["ppe"] + books["goodwill"] - books["debt"]
    for y in range(START, year + 1):
        books = next_year(company, books, y, random.Random(f"{company['key']}/{y}/books"))
    return books


def next_year(company, old, year, rng):
    """Roll the books one year. A balance moves only by flows in the cash flow statement, so all statements close."""
    b = {"prior": old, "goodwill": old["goodwill"]}
    climate = rng.gauss(0, 0.025)
    growths = [1 + growth + climate + rng.gauss(0, 0.04) for growth in company["growth"]]
    b["segments"] = [round(segment * growth) for segment, growth in zip(old["segments"], growths, strict=True)]
    b |= {f"seg{i}": segment for i, segment in enumerate(b["segments"])}
    b["revenue"] = revenue = sum(b["segments"])
    b["split0"], b["split1"] = round(revenue * rng.uniform(0.54, 0.57)), round(revenue * rng.uniform(0.26, 0.29))
    b["split2"] = revenue - b["split0"] - b["split1"]
    b["cost"] = round(revenue * company["cost"] * rng.uniform(0.975, 1.025))
    b["line"], b["selling"], b["admin"] = (round(revenue * x * rng.uniform(0.94, 1.06)) for x in company["opex"])
    b["gross"], b["expenses"] = revenue - b["cost"], b["line"] + b["selling"] + b["admin"]
    b["operating"] = b["gross"] - b["expenses"]
    b["rate"] = company["spread"] + MARKET_RATE.get(year, 2.1)
    b["interest"], b["other"] = round(old["debt"] * b["rate"] / 100), round(revenue * rng.uniform(0.0005, 0.004))
    b["pretax"] = b["operating"] - b["interest"] + b["other"]
    tax_rate = company["tax_rate"] * rng.uniform(0.95, 1.05)
    b["tax"] = round(b["pretax"] * tax_rate) if b["pretax"] > 0 else rng.randint(1, 4)
    b["statutory"] = round(b["pretax"] * 0.21)
    b["unusual"] = b["tax"] - b["statutory"]
    b["net"] = b["pretax"] - b["tax"]

    b["receivables"], b["inventories"] = round(revenue * company["days"]), round(b["cost"] * rng.uniform(0.11, 0.13))
    b["payables"], b["accrued"] = round(b["cost"] * rng.uniform(0.08, 0.10)), round(b["expenses"] * 0.14)
    b["tied_up"] = b["receivables"] + b["inventories"] - b["payables"] - b["accrued"]
    b["working"] = old["tied_up"] - b["tied_up"]
    b["capex"] = round(revenue * company["capex"] * rng.uniform(0.85, 1.15))
    b["depreciation"], b["awards"] = round(old["ppe"] * 0.16), round(revenue * rng.uniform(0.009, 0.014))
    b["operations"] = b["net"] + b["depreciation"] + b["awards"] + b["working"]
    b["dividends"] = max(0, round(b["net"] * company["payout"]))
    drawn = round(revenue * rng.uniform(0, 0.04)) if old["debt"] < revenue * 0.3 else 0
    spare = old["cash"] + b["operations"] + drawn - b["capex"] - b["dividends"] - round(revenue * company["reserve"])
    b["repaid"], b["bought"] = min(max(0, spare) * 2 // 5, old["debt"] // 8), max(0, spare) // 2
    b["borrowed"] = drawn + min(max(0, -spare), max(0, revenue * 3 // 10 - old["debt"]))
    b["issued"] = max(0, -spare) + drawn - b["borrowed"]
    b["investing"] = -b["capex"]
    b["financing"] = b["borrowed"] + b["issued"] - b["repaid"] - b["bought"] - b["dividends"]
    b["change"] = b["operations"] + b["investing"] + b["financing"]

    b["cash"], b["debt"] = old["cash"] + b["change"], old["debt"] + b["borrowed"] - b["repaid"]
    b["ppe"] = old["ppe"] + b["capex"] - b["depreciation"]
    b["opening"] = old["equity"]
    b["equity"] = old["equity"] + b["net"] + b["awards"] + b["issued"] - b["bought"] - b["dividends"]
    b["current"] = b["cash"] + b["receivables"] + b["inventories"]
    b["assets"] = b["current"] + b["ppe"] + b["goodwill"]
    b["liabilities"] = b["payables"] + b["accrued"] + b["debt"]
    b["total"] = b["liabilities"] + b["equity"]
    value = revenue * company["multiple"]  # of all shares, which sets the price of those bought and sold
    b["bought_shares"] = old["shares"] * b["bought"] // value
    b["shares"] = old["shares"] + old["shares"] * b["issued"] // value - b["bought_shares"]
    return b


def usd(tenths):
    return f"${abs(tenths) / 10:,.1f} million"


def cell(tenths):
    return f"({-tenths / 10:,.1f})" if tenths < 0 else f"{tenths / 10:,.1f}"


def permille(part, whole):
    return (2000 * abs(part) + whole) // (2 * whole)  # half up, in integers: permille(124, 1494) = 83, read "8.3%"


def percent(part, whole):
    return f"{permille(part, whole) / 10:.1f}%"


def day(date):
    return f"{date:%B} {date.day}, {date.year}"


def make_facts(rng, company, b, year):
    """What PROSE may name: the company, its industry's lists, and functions that put an account into words."""
    old, end = b["prior"], datetime.date(year, *company["year_end"])
    titles = {"revenue": "Revenue", "cost": "Cost of revenue", "interest": "Interest expense",
              "line": company["line"][0], "selling": "Selling expenses", "admin": "General and administrative expenses"}
    titles |= {f"seg{i}": f"{segment} revenue" for i, segment in enumerate(company["seg"])}

    def moved(key):
        now, before = b[key], old[key]
        if now == before or before == 0:
            return f"{titles[key]} amounted to {usd(now)} in {year}, compared with {usd(before)} in {year - 1}"
        verb = "[increased|rose|grew]" if now > before else "[decreased|declined|fell]"
        tail = rng.choice(("", f" in {year}", f" in {year} from {usd(before)} in {year - 1}", f", from {usd(before)}"))
        return f"{titles[key]} {verb} {usd(now - before)}, or {percent(now - before, before)}, to {usd(now)}{tail}"

    def why(key):
        """Two causes whose amounts sum to the change: both in its direction, or the second against the first."""
        change = b[key] - old[key]
        size, rise = abs(change), change > 0
        if size < 4:
            return "No single [factor|cause] explains the [small|slight] [change|difference]."
        if key.startswith("seg"):
            cause, offset = ("{ups}", "{downs}")[:: 1 if rise else -1]
        else:
            pool = "{costs}" if key == "cost" else "{overheads}"
            cause, offset = (f"higher {pool}", f"lower {pool}")[:: 1 if rise else -1]
        turn = "[increase|rise]" if rise else "[decrease|decline]"
        part = size * rng.randint(55, 80) // 100
        rest, extra = size - part, size * rng.randint(10, 45) // 100 + 1
        return rng.choice((
            (f"The {turn} [reflected|was due to|resulted from] {cause}, which accounted for {usd(part)}, and {cause}, "
             f"which [accounted for|explains] [the remaining|another] {usd(rest)}."),
            f"Of [this|the] {turn}, {usd(part)} [came|resulted] from {cause} and {usd(rest)} from {cause}.",
            (f"[{cause} accounted for {usd(size + extra)}|The {turn} reflected {usd(size + extra)} from {cause}], "
             f"[partly|partially] offset by {usd(extra)} from {offset}."),
            (f"[{cause} explains the {turn}, which|The {turn} stems from {cause} and] would have been {usd(extra)} "
             f"[larger|greater] without {offset}.")))

    def level(key, books=b):
        words = {"operating": "[operating @|@ from operations]", "net": "net @", "pretax": "pre-tax @"}[key]
        words = f"a {words.replace('@', 'loss')}" if books[key] < 0 else words.replace("@", "income")
        return f"{words} of {usd(books[key])}"

    def provided(key):
        return f"{'used' if b[key] < 0 else 'provided'} {usd(b[key])}"

    def wasprovided(key):
        verb = "" if (b[key] < 0) == (old[key] < 0) else " used" if old[key] < 0 else " provided"
        return f"{usd(old[key])}{verb}"

    def per_share(books):
        return f"{'-' * (books['net'] < 0)}${abs(books['net']) * 100 / books['shares']:.2f}"

    margin, margin_before = (permille(x["gross"], x["revenue"]) for x in (b, old))
    points = f"a {'gain' if margin > margin_before else 'decline'} of {abs(margin - margin_before) * 10} basis points"
    flows = [f"{usd(b[key])} {words}" for key, words in (
        ("borrowed", "was borrowed"), ("issued", "came from the sale of common stock"), ("repaid", "repaid debt"),
        ("bought", "went to share repurchases"), ("dividends", "was paid in dividends")) if b[key]]
    repaid = usd(b["repaid"]) if b["repaid"] else "none of the principal"
    paid = f"dividends of {usd(b['dividends'])}" if b["dividends"] else "no dividends"
    bought = f"{b['bought_shares']:,},000 shares for {usd(b['bought'])}" if b["bought_shares"] else "no shares"
    taxed = (f"[equal to|which is] {percent(b['tax'], b['pretax'])} of pre-tax income" if b["pretax"] > 0 else
             "[mostly|chiefly] abroad, because no benefit was recorded for our loss")
    return company | {
        "year": year, "prior": year - 1, "next": year + 1, "end": day(end), "filed": day(filing_date(company, year)),
        "count": ("two", "three")[len(company["seg"]) - 2], "maturity": year // 4 * 4 + 5,
        "segs": " and ".join(company["seg"]).replace(" and ", ", ", len(company["seg"]) - 2),
        "line_title": company["line"][0], "rate": f"{b['rate']:.2f}%",
        "moved": moved, "why": why, "level": level, "waslevel": lambda key: level(key, old), "provided": provided,
        "wasprovided": wasprovided, "usd": lambda key: usd(b[key]), "was": lambda key: usd(old[key]),
        "share": lambda key: percent(b[key], b["revenue"]), "wasshare": lambda key: percent(old[key], old["revenue"]),
        "margin": f"{margin / 10:.1f}%", "wasmargin": f"{margin_before / 10:.1f}%", "eps": per_share(b),
        "waseps": per_share(old), "points": f"[, {points}|]" if margin != margin_before else "",
        "heads": f"{round(b['revenue'] / company['per_head'], -1):,.0f}", "shares": f"{b['shares']:,},000",
        "holders": f"{company['holders'] - 7 * (year - START):,}", "onepoint": usd((b["debt"] + 50) // 100),
        "plan": usd(round(b["capex"] * rng.uniform(0.97, 1.15))), "taxed": taxed,
        "repaid": repaid, "paid": paid, "bought": bought,
        "flows": f": {', '.join(flows[:-1])} and {flows[-1]}" if len(flows) > 1 else "",
    }


def make_blocks(rng, company, year):
    """The filing as a list of (kind, content): c (centred), h1 (item), h2, p: text; toc; table: rows of cells."""
    b, blocks, skip = ledger(company, year), [], False
    facts = make_facts(rng, company, b, year)
    for line in PROSE:
        kind, _, rest = line.partition(" ")
        if kind == "#":
            skip = year < 2023 and "1C" in rest  # the SEC asks for Item 1C from fiscal 2023
        if skip:
            continue
        if kind == "@toc":
            blocks.append(("toc", ""))
        elif kind == "@table":
            blocks.append(("table", make_table(rest, b, facts)))
        elif kind == "@each":  # one paragraph per segment
            for i, segment in enumerate(company["seg"]):
                here = facts | {"segment": segment, "it": lambda name, i=i: facts[name](f"seg{i}")}
                blocks.append(("p", say(rng, rest, here)))
        elif kind == "@risks":  # the industry's and everybody's, in an order that the company keeps from year to year
            pool = company["risk"] + company["anyrisk"]
            for k in [k for k in company["order"] if k < len(pool)][:rng.randint(10, 14)]:
                cause, exposure = pool[k].split(" :: ")
                blocks.append(("h2", say(rng, cause + " {may} {harm}.", facts)))
                blocks.append(("p", say(rng, exposure + ". {sequel} [{sequel} |]{close}", facts)))
        else:
            kind = {"#": "h1", "##": "h2", "^": "c"}.get(kind, "p")
            blocks.append((kind, say(rng, line if kind == "p" else rest, facts)))
    return blocks


def make_table(name, b, facts):
    """Rows of cells for one of TABLES: label, two or three years, and in the comparisons of Item 7 the change."""
    prefix, compare = {"segments": "seg", "split": "split"}.get(name), name in ("segments", "results")
    books = [b, b["prior"], b["prior"]["prior"]][:3 if name in ("income", "flows") else 2]
    spec = [f"{label}={prefix}{i}" for i, label in enumerate(facts[prefix])] if prefix else []
    rows = [["(in millions)", *(str(facts["year"] - i) for i in range(len(books)))] + ["Change", "% Change"] * compare]
    for label, account in (row.format(**facts).split("=") for row in spec + TABLES[name]):
        now, before, *_ = values = [-x[account[1:]] if account[0] == "-" else x[account] for x in books]
        share = percent(now - before, before) if before > 0 else "n/m"
        share = f"({share[:-1]})%" if now < before and before > 0 else share
        if any(values):
            rows.append([label, *map(cell, values)] + [cell(now - before), share] * compare)
    return rows


def paginate(blocks):
    """Pages of about 3,200 characters, and the table of contents: [(item heading, page number)]."""
    pages, size = [[]], 0
    for kind, content in blocks:
        length = 60 * len(content) if kind == "table" else len(content)
        if size + length > 3200 and pages[-1][-1:] and pages[-1][-1][0] not in ("h1", "h2"):
            pages, size = pages + [[]], 0
        pages[-1].append((kind, content))
        size += length
    return pages, [(c, n) for n, page in enumerate(pages, 1) for kind, c in page if kind == "h1" and "PART" not in c]


def filing_html(rng, company, year):
    """One filing as small HTML with the habits of real ones: hidden iXBRL facts, split words, page furniture."""
    (pages, contents), tag = paginate(make_blocks(rng, company, year)), company["tag"]

    def text(s):
        s = html.escape(s, quote=False).replace("'", "&#8217;").replace(" million", "&#160;million")
        return re.sub(r"^(Item \w+\.) ", r"\1&#160;&#160;", s)

    def paragraph(s):
        words = [found.start() for found in re.finditer(r"[A-Za-z]{7,}", s)]
        cut = rng.choice(words) + 3 if words and rng.random() < 0.2 else 0
        return f"{text(s[:cut])}</span><span>{text(s[cut:])}" if cut else text(s)

    def row(cells, first):
        out = f"<tr><td>{text(cells[0])}</td>"
        for number, close, tail in (c.partition(")") for c in cells[1:]):
            dollar = "$" if first and number[-1:].isdigit() else ""
            out += f'<td>{dollar}</td><td align="right">{number}</td><td>{close}{tail}</td>'
        return out + "</tr>"

    end = datetime.date(year, *company["year_end"])
    hidden = {"EntityRegistrantName": company["name"], "EntityCentralIndexKey": company["cik"], "DocumentType": "10-K",
              "DocumentPeriodEndDate": end, "DocumentFiscalYearFocus": year, "AmendmentFlag": "false"}
    out = ['<html xmlns:ix="http://www.xbrl.org/2013/inlineXBRL">',
           f"<head><title>{company['short'].lower()}-{end:%Y%m%d}</title></head>",
           '<body><div style="display:none"><ix:header><ix:hidden>']
    out += [f'<ix:nonNumeric contextRef="c-1" name="dei:{k}">{v}</ix:nonNumeric>' for k, v in hidden.items()]
    out.append("</ix:hidden></ix:header></div>")
    for number, page in enumerate(pages):
        if number:
            out += [f'<p align="center">{number}</p><hr style="page-break-after:always"/>',
                    f'<p id="p{number + 1}"><a href="#toc">Table of Contents</a></p>']
        for kind, content in page:
            if kind == "toc":
                out.append('<p id="toc" align="center"><b>TABLE OF CONTENTS</b></p><table>')
                out += [f'<tr><td><a href="#p{n}">{text(item)}</a></td><td>{n}</td></tr>' for item, n in contents]
                out.append("</table>")
            elif kind == "table":
                out += ["<table>", *(row(cells, 0 < i < 2) for i, cells in enumerate(content)), "</table>"]
            elif kind == "p":
                out.append(f"<{tag}><span>{paragraph(content)}</span></{tag}>")
            else:
                align = ' align="center"' if kind == "c" else ""
                out.append(f"<{tag}{align}><b>{text(content)}</b></{tag}>")
    return "\n".join(out + ["</body></html>", ""])


def filing_text(rng, company, year):
    """One filing as a full submission of the 1990s: SGML header, hard-wrapped text, <PAGE> and <TABLE>."""
    pages, contents = paginate(make_blocks(rng, company, year))
    number, filed = accession(company, year), filing_date(company, year)
    out = [f"<SEC-DOCUMENT>{number}.txt : {filed:%Y%m%d}", f"<SEC-HEADER>{number}.hdr.sgml : {filed:%Y%m%d}",
           f"ACCESSION NUMBER:\t\t{number}", "CONFORMED SUBMISSION TYPE:\t10-K", "PUBLIC DOCUMENT COUNT:\t\t1",
           f"CONFORMED PERIOD OF REPORT:\t{datetime.date(year, *company['year_end']):%Y%m%d}",
           f"FILED AS OF DATE:\t\t{filed:%Y%m%d}", "", "FILER:", "", "\tCOMPANY DATA:",
           f"\t\tCOMPANY CONFORMED NAME:\t\t\t{company['name'].upper()}",
           f"\t\tCENTRAL INDEX KEY:\t\t\t{company['cik']}",
           f"\t\tSTANDARD INDUSTRIAL CLASSIFICATION:\t{company['sic'][0]}", "</SEC-HEADER>", "<DOCUMENT>", "<TYPE>10-K",
           "<SEQUENCE>1", "<TEXT>", ""]
    for number, page in enumerate(pages):
        if number:
            out += [f"{number:>40}", "<PAGE>", ""]
        for kind, content in page:
            if kind == "toc":
                out += ["TABLE OF CONTENTS".center(78).rstrip(), ""]
                out += [f"{textwrap.shorten(item, 70, placeholder='') + ' ':.<73}{n:>4}" for item, n in contents]
            elif kind == "table":
                wide = 78 - 11 * (len(content[0]) - 1)
                lines = []
                for label, *cells in content:
                    *above, label = textwrap.wrap(label, wide - 2, subsequent_indent="  ")
                    lines += [*above, f"{label:<{wide}}" + "".join(f"{c:>11}" for c in cells)]
                marks = f"{'<S>':<{wide}}" + "        <C>" * (len(content[0]) - 1)
                out += ["<TABLE>", "<CAPTION>", lines[0], marks, *lines[1:], "</TABLE>"]
            elif kind == "c":
                out += [part.center(78).rstrip() for part in textwrap.wrap(content, 70)]
            else:
                content = content.upper() if kind == "h1" else content
                out += textwrap.wrap(content, 78, initial_indent="     " if kind == "p" else "")
            out.append("")
    return "\n".join(out + ["</TEXT>", "</DOCUMENT>", "</SEC-DOCUMENT>", ""])


def filing_date(company, year):
    return datetime.date(year, *company["year_end"]) + datetime.timedelta(days=54 + int(company["cik"]) % 7)


def accession(company, year):
    """Filer, year of filing, sequence: the SEC's number for a submission, here also the file's name."""
    return f"{company['cik']}-{filing_date(company, year):%y}-000001"


def write_filings(out_dir, n=200, seed=0, years=(2019, 2024)):
    """Write n filings, each company once for every year of the inclusive range. Returns the paths in order."""
    first, last = years
    if not START + 2 < first <= last:
        raise ValueError(f"synth.py: years must run upwards from {START + 3} or later, not {years}")
    os.makedirs(out_dir, exist_ok=True)
    paths = []
    for k in range(n):
        company, year = make_company(seed, k // (last - first + 1)), first + k % (last - first + 1)
        write, suffix = (filing_text, ".txt") if k % 10 == 9 else (filing_html, ".html")
        paths.append(os.path.join(out_dir, accession(company, year) + suffix))
        with open(paths[-1], "w", encoding="utf-8", newline="\n") as f:
            f.write(write(random.Random(f"{company['key']}/{year}/words"), company, year))
    return paths


# Everything below is words. A block per industry; "rates" are the shares of revenue, in percent, of cost of revenue,
# the own expense line, selling, general and administrative expenses, capital expenditures; then yearly growth.
INDUSTRIES = parse("""
does: design, manufacture and sell medical devices for hospitals and surgery centers / rates: 38 9 24 11 5 6
sic: SURGICAL & MEDICAL INSTRUMENTS [3841] / site: manufacturing plant / line: Research and development expenses
measure: the number of procedures performed with our devices / suffix: Medical; Surgical; Medtech
segments: Orthopedics; Infusion Systems; Wound Care; Monitoring / split: United States; Europe; Rest of world
goods: knee implants; infusion pumps; surgical drills; wound dressings; bedside monitors; sterile catheters
buyers: hospital systems; ambulatory surgery centers; group purchasing organizations; distributors; outpatient clinics
inputs: medical-grade titanium; molded polymers; microcontrollers; sterilization services; precision bearings
ups: a recovery in elective procedures; the launch of our second-generation pump; new hospital contracts; higher case
  volumes
downs: deferred procedures; price concessions to purchasing groups; the end of a distribution agreement; hospital
  staffing gaps
costs: titanium costs; freight; sterilization fees; factory wages; warranty expense; scrap
rules: federal food and drug inspectors; European notified bodies; state health departments
rivals: large diversified device makers; single-product specialists; low-cost importers
risk: A recall of one of our devices :: Our implants and pumps are used on patients whose condition is often serious,
  and a [design|manufacturing|labeling] defect could oblige us to recall {goods} already in the field
risk: Changes in reimbursement for the procedures that use our devices :: {buyers} are paid by public and private
  insurers, and they buy {goods} only when that payment covers the cost of the procedure
risk: Delays in regulatory clearance :: A new device reaches the market only after clearance by {rules}, and the agency
  may ask for [clinical data|further testing|design changes] that we did not plan for

does: discover, develop and commercialize medicines for rare metabolic diseases / rates: 24 46 26 15 4 11
sic: PHARMACEUTICAL PREPARATIONS [2834] / site: laboratory / line: Research and development expenses
measure: the number of patients on therapy / suffix: Therapeutics; Biosciences; Pharma
segments: Enzyme Therapies; Oral Medicines; Collaboration / split: United States; Europe; Rest of world
goods: enzyme replacement infusions; oral capsules; pediatric formulations; diagnostic kits; orphan medicines
buyers: specialty pharmacies; wholesalers; treatment centers; government health programs; collaboration partners
inputs: active ingredients; cell culture media; glass vials; fill and finish capacity; clinical trial services
ups: more patients on therapy; a label expansion; milestone payments; launches in new countries; better patient
  adherence
downs: higher rebates to government programs; a competing therapy; the timing of wholesaler orders; fewer milestones
costs: royalties; batch rejection costs; contract manufacturing fees; cold-chain freight; inventory write-offs
rules: federal food and drug regulators; European medicines regulators; institutional review boards
rivals: global pharmaceutical companies; gene therapy developers; generic manufacturers
risk: The failure of a clinical trial :: Most candidates that enter trials never become medicines, and our lead program
  may not show [efficacy|an acceptable safety profile] in the larger studies that {rules} require
risk: Dependence on two medicines :: Nearly all of our product revenue comes from two marketed medicines, so that a new
  competitor, a safety signal or an interruption in the supply of {inputs} would be felt at once
risk: The loss of orphan exclusivity :: Exclusivity for our first medicine will expire, after which {rivals} may seek
  approval of {goods} that compete with ours at lower prices

does: provide cloud software that runs scheduling, billing and compliance for mid-sized employers
rates: 27 21 30 13 3 12 / sic: SERVICES-PREPACKAGED SOFTWARE [7372] / site: office
line: Research and development expenses / measure: net revenue retention / suffix: Software; Systems; Data
segments: Subscriptions; Payments; Professional Services
split: Subscription contracts; Usage-based fees; Services and other
goods: scheduling modules; billing engines; compliance dashboards; payment tools; analytics subscriptions
buyers: mid-sized employers; school districts; regional health systems; franchise operators; local governments
inputs: public cloud hosting; payment network access; mapping data; third-party security tools; contract developers
ups: new subscriptions; seat expansion at existing customers; a price increase at renewal; higher payment volumes
downs: customer churn; longer sales cycles; smaller seat counts at renewal; fewer implementation projects
costs: hosting costs; payment processing fees; support salaries; amortization of capitalized software; royalties
rules: state privacy regulators; payment network operators; European data protection authorities
rivals: large enterprise suites; point solutions; in-house systems
risk: An outage of our hosted platform :: Customers run their payroll and schedules on our servers, and even a short
  interruption in {inputs} would stop work at {buyers}
risk: Lower renewal rates :: Our contracts run for one to three years, and {buyers} have no obligation to renew their
  {goods} when a term ends
risk: Errors in our handling of customer data :: We store records about the employees of our customers, and rules set by
  {rules} change often and differ from place to place

does: design and sell analog and power management chips / rates: 47 19 9 7 5 8
sic: SEMICONDUCTORS & RELATED DEVICES [3674] / site: design center / line: Research and development expenses
measure: the number of units shipped / suffix: Semiconductor; Microdevices; Silicon
segments: Automotive; Industrial Power; Connectivity; Data Center / split: Asia Pacific; Americas; Europe
goods: voltage regulators; motor drivers; battery controllers; radio transceivers; power modules; sensor interfaces
buyers: automotive suppliers; contract manufacturers; server builders; industrial equipment makers; distributors
inputs: silicon wafers; foundry capacity; lead frames; assembly and test services; specialty gases
ups: higher content per vehicle; new design wins; restocking by distributors; demand for server power modules
downs: inventory corrections at distributors; lower average selling prices; weak handset demand; order push-outs
costs: wafer prices; assembly and test fees; mask costs; charges for excess inventory; yield losses
rules: export control authorities; customs agencies; environmental agencies in the regions where we test
rivals: integrated device manufacturers; fabless start-ups; in-house design teams of large buyers
risk: Shortages of foundry capacity :: We own no wafer plant and rely on [three|two|four] foundries for {inputs}, none
  of which has promised us a fixed allocation
risk: The cyclicality of our industry :: Orders for {goods} have always risen and fallen faster than end demand, because
  {buyers} build stock when lead times lengthen and draw it down later
risk: Limits on exports of advanced components :: Rules issued by {rules} can change with little notice and may bar
  sales of {goods} to some customers

does: own, operate and franchise casual dining restaurants / rates: 71 5 5 8 7 5 / sic: RETAIL-EATING PLACES [5812]
site: restaurant / line: Restaurant pre-opening expenses / measure: comparable restaurant sales
suffix: Restaurants; Hospitality; Kitchens / segments: Grill Houses; Family Tables; Franchise
split: Company-owned restaurants; Delivery and catering; Franchise royalties and fees
goods: flame-grilled entrees; shared plates; seasonal desserts; family take-out meals; house-brewed beers
buyers: families; weekday office guests; take-out customers; franchisees; catering customers
inputs: beef; poultry; fresh produce; paper packaging; natural gas; dairy
ups: menu price increases; higher guest traffic; new restaurant openings; growth in take-out orders
downs: lower guest traffic; restaurant closures; severe winter weather; heavier discounting
costs: beef prices; hourly wages; rent; delivery commissions; utility rates; insurance premiums
rules: local health departments; state labor agencies; alcohol licensing boards
rivals: national chains; quick-service operators; grocery stores with prepared meals
risk: A food safety incident :: One outbreak traced to a single restaurant, or to a supplier of {inputs}, can turn
  guests away from all of our brands
risk: Increases in the minimum wage :: Most of our hourly team members earn wages near the statutory minimum, and
  {rules} in several of our states have adopted further steps
risk: The loss of restaurant leases :: We lease nearly all of our restaurants, and a landlord may decline to renew on
  terms that the sales of the site can carry

does: transport freight by truck and arrange freight for shippers throughout North America / rates: 82 3 2 6 10 4
sic: TRUCKING (NO LOCAL) [4213] / site: terminal / line: Insurance and claims expenses
measure: loaded miles per tractor / suffix: Freight; Logistics; Transport
segments: Truckload; Dedicated Fleets; Brokerage; Intermodal
split: Contract freight; Spot freight; Fuel surcharges and other
goods: long-haul dry van services; refrigerated loads; dedicated fleets; drop-trailer programs; cross-dock services
buyers: grocery chains; consumer goods makers; parts suppliers; home improvement retailers; paper mills
inputs: diesel fuel; tractors; trailers; tires; rail capacity; qualified drivers
ups: higher rates per loaded mile; more tractors in service; fuel surcharges; new dedicated contracts
downs: a soft spot market; lower fuel surcharges; fewer loaded miles; customer bankruptcies
costs: driver pay; diesel prices; purchased transportation; maintenance costs; equipment rent
rules: federal motor carrier inspectors; state transport departments; air quality boards
rivals: asset-based carriers; digital brokers; railroads; private fleets
risk: A shortage of qualified drivers :: Turnover among long-haul drivers is high, and {rivals} compete with us for the
  same people in every region we serve
risk: Severe accidents and the claims that follow :: Our tractors share the road with the public, and verdicts against
  carriers have grown faster than the coverage we can buy
risk: Swings in the price of diesel :: Surcharges recover only part of what we pay for {inputs}, and they follow the
  market with a delay

does: manufacture pumps, valves and flow control equipment / rates: 63 4 12 8 4 5
sic: PUMPS & PUMPING EQUIPMENT [3561] / site: foundry / line: Engineering and development expenses
measure: order backlog / suffix: Industries; Flow Control; Engineering
segments: Process Pumps; Valves; Aftermarket; Water Handling
split: United States; Europe and Middle East; Rest of world
goods: centrifugal pumps; gate valves; mechanical seals; metering pumps; actuators; rebuild kits
buyers: refiners; municipal utilities; engineering contractors; mine operators; independent distributors
inputs: castings; stainless steel bar; electric motors; forgings; machined components; bronze
ups: larger project shipments; aftermarket demand; price increases; higher municipal spending; a stronger order backlog
downs: project delays; fewer refinery turnarounds; destocking by distributors; a weaker mining market
costs: casting prices; steel prices; overtime; inbound freight; warranty claims; unabsorbed overhead
rules: workplace safety agencies; environmental agencies; export licensing authorities
rivals: global flow control groups; regional machine shops; importers of standard valves
risk: Fixed-price contracts :: We often quote large projects a year or more before delivery, and the cost of {inputs}
  may rise after the price is set
risk: Delays in our customers' capital projects :: {buyers} commit to new plants slowly and cancel quickly, and about a
  third of our orders for {goods} depends on such plants
risk: Claims from older products that contained asbestos :: Some valves that a predecessor sold decades ago had asbestos
  gaskets, and we are named in suits over them together with many other makers

does: formulate and manufacture specialty chemicals / rates: 66 4 8 7 6 4 / sic: INDUSTRIAL ORGANIC CHEMICALS [2860]
site: chemical plant / line: Research and technical service expenses / measure: the tonnage sold
suffix: Chemical; Materials; Performance Chemicals
segments: Coating Additives; Water Treatment; Adhesives; Process Aids / split: North America; Europe; Asia and other
goods: corrosion inhibitors; wetting agents; hot-melt adhesives; scale inhibitors; defoamers; curing agents
buyers: paint makers; packaging converters; paper mills; power stations; tire manufacturers
inputs: ethylene oxide; fatty acids; epoxy resin; solvents; caustic soda; silicone intermediates
ups: higher selling prices; volume gains in packaging; new approvals at paint makers; better product mix
downs: lower volumes in construction markets; price reductions tied to feedstock indices; plant downtime; customer
  destocking
costs: feedstock costs; energy costs; rail freight; turnaround expenses; waste disposal fees
rules: federal environmental officials; European chemicals regulators; state permitting offices
rivals: integrated petrochemical groups; regional blenders; makers of bio-based alternatives
risk: Volatile feedstock prices :: We buy {inputs} at prices that follow oil and gas, while many of our contracts adjust
  only once a quarter
risk: An accident at one of our plants :: We make and store flammable and toxic materials, and a [fire|release|vessel
  failure] could injure people and close a plant for months
risk: New restrictions on chemical substances :: {rules} review the ingredients of our {goods}, and a substance that is
  lawful now may need a costly replacement

does: produce and market packaged foods for grocery and food service customers / rates: 69 4 11 6 4 3
sic: FOOD AND KINDRED PRODUCTS [2000] / site: food plant / line: Advertising and promotion expenses
measure: case volume / suffix: Foods; Provisions; Food Group / segments: Snacks; Frozen Meals; Food Service; Condiments
split: Grocery; Food service; Private label and other
goods: baked crackers; frozen entrees; fruit bars; table sauces; soup bases; private-label snacks
buyers: grocery chains; club stores; school cafeterias; restaurant distributors; discount retailers
inputs: wheat flour; vegetable oil; tomatoes; sugar; corrugated boxes; cheese
ups: list price increases; wider distribution at club stores; new frozen entrees; a recovery in food service
downs: lower unit volumes; heavier promotion; a lost private-label contract; slower restocking by grocery chains
costs: ingredient costs; packaging costs; plant wages; cold storage fees; outbound freight
rules: federal food inspectors; state agriculture departments; advertising regulators
rivals: national brands; store brands; regional bakeries
risk: Inflation in ingredient and packaging costs :: We buy {inputs} from growers and processors whose prices move with
  weather and world markets, and {buyers} resist price increases
risk: Concentration among grocery customers :: Our [two|three|four] largest customers place more than a third of our
  orders, and none of them is bound to buy {goods} from us next year
risk: Contamination or mislabeling of food :: An undeclared allergen or a foreign object in {goods} could lead to
  illness, a recall and the loss of shelf space

does: provide drilling fluids, well completion tools and field crews to oil and gas producers / rates: 76 3 5 8 9 4
sic: OIL & GAS FIELD SERVICES [1389] / site: field base / line: Field support and engineering expenses
measure: average active rigs served / suffix: Energy Services; Well Services; Oilfield
segments: Drilling Fluids; Completion Tools; Rentals / split: United States land; Offshore; International
goods: water-based drilling fluids; packers; frac plugs; rental tubing; solids control units
buyers: independent producers; integrated oil companies; national oil companies; geothermal developers
inputs: barite; base oil; steel tubing; proppant; diesel; skilled crews
ups: a higher rig count; more wells completed per crew; improved pricing; offshore awards
downs: a falling rig count; pricing pressure on land; hurricane shutdowns; budget exhaustion late in the year
costs: crew wages; barite prices; repair costs; trucking costs; mobilization costs
rules: federal land managers; state oil and gas commissions; offshore safety regulators
rivals: global service companies; private regional crews; tool manufacturers
risk: A fall in oil and gas prices :: {buyers} cut their drilling budgets within weeks of a price decline, and idle
  crews and {goods} earn nothing while we keep paying for them
risk: Well control incidents :: Our crews work beside wells under high pressure, and a loss of control can cause
  [deaths| injuries], pollution and damage to reservoirs
risk: Restrictions on hydraulic fracturing :: {rules} have proposed longer setbacks and tighter water rules, and some
  areas may be closed to new wells

does: operate regulated water and wastewater utilities / rates: 52 7 2 12 22 5 / sic: WATER SUPPLY [4941]
site: treatment plant / line: Maintenance expenses / measure: the number of customer connections
suffix: Water; Utilities; Water Resources / segments: Water Service; Wastewater; Contract Operations
split: Residential; Commercial and industrial; Public authority and other
goods: drinking water service; wastewater treatment; fire protection service; system operation contracts
buyers: residential customers; commercial accounts; industrial plants; public authorities; military bases
inputs: purchased water; electric power; treatment chemicals; pipe; membrane filters
ups: approved rate increases; customer growth; infrastructure surcharges; higher use in a dry summer
downs: wet weather; conservation by customers; the expiry of an operating contract; a rate credit for tax savings
costs: purchased water; power costs; chemical prices; property taxes; labor costs
rules: state utility commissions; federal environmental officials; regional water boards
rivals: municipal systems; national utility groups; private operators bidding for contracts
risk: An unfavorable rate decision :: Our rates are set by state utility commissions, which may delay an increase, allow
  a lower return or exclude part of what we invested
risk: Contaminants in our water sources :: Standards for newly studied compounds keep tightening, and treatment with
  {inputs} may cost more than customers' rates allow
risk: Drought :: Our largest systems draw on rivers and wells that a run of dry years can deplete, while {buyers} expect
  uninterrupted service

does: manufacture windows, doors and other building products / rates: 72 2 9 7 4 5
sic: MILLWORK, VENEER & PLYWOOD [2430] / site: assembly plant / line: Distribution center expenses
measure: the number of units shipped per working day / suffix: Building Products; Millwork; Home Products
segments: Windows; Doors; Decking; Siding / split: New construction; Repair and remodeling; Retail and other
goods: vinyl windows; entry doors; patio doors; composite decking; replacement sashes; trim boards
buyers: home builders; building supply dealers; remodeling contractors; home improvement retailers
inputs: float glass; vinyl resin; lumber; aluminum extrusions; hardware; recycled plastic
ups: price increases to dealers; stronger remodeling demand; more housing starts in our regions; new retail displays
downs: fewer housing starts; dealer destocking; high mortgage rates; a lost retail line review
costs: glass prices; resin prices; lumber prices; plant wages; outbound freight
rules: building code officials; product safety regulators; workplace safety agencies
rivals: national window makers; regional fabricators; importers
risk: A downturn in housing :: Demand for {goods} follows housing starts and home sales, both of which fall when
  interest rates rise or credit tightens
risk: Warranty claims :: We warrant many {goods} for ten years or longer, and a material that ages badly may show its
  defects only after we have sold it for years
risk: The loss of a large dealer :: A few dealers and retailers account for a large part of our orders, and they review
  their suppliers of {goods} every few years
""")

# What every company shares: names, places, phrases, and the risks that anybody may have.
WORDS = parse("""
name0: Quel; Vorn; Thal; Zerr; Brun; Oxl; Yarn; Dras; Plen; Kesh; Murn; Wexl; Grel; Hobb; Iskr; Jovv; Lumb; Nevr; Pryl;
  Sarn; Tusk; Felb; Cawd
name1: a; e; i; o; u; ar; en
name2: dwyn; vash; quist; brath; glenn; mere; thorpe; zant; kell; lund; stow; wick; fenn; dorn; vex; moor
states: Delaware; Ohio; Nevada; Minnesota; Pennsylvania; Texas; Oregon; Wisconsin
cities: Harlow Bend, Ohio; Castle Ferry, Pennsylvania; Upper Tansley, Minnesota; Port Merrow, Texas; Grayling Ford,
  Wisconsin; East Corvane, Oregon; Millbrook Landing, Nevada; Stonewell, Delaware
may: could; may; might
harm: [materially |]harm [our business|our results of operations|our reputation and our sales]; adversely affect [our
  business and financial condition|our results of operations|our cash flows|our margins]; [reduce|lower] our [revenue
  and margins| earnings|profitability]; [disrupt our operations|cause us to lose customers]; increase our costs [and
  delay our growth|]
sequel: The [burden|damage] would not be limited to one year, because {buyers} [review|change] their suppliers
  [slowly|seldom] and [might not return|would need time to return] once they had [replaced|given up] our {goods}.; We
  [would then have|could be forced] to [accept lower prices from|offer better terms to] {buyers}, [at a time when|while]
  {inputs} would [cost more|be harder to obtain].; {rivals} [may be better placed|could be quicker] to [respond|adapt],
  [as|because] they [obtain|buy] {inputs} on better terms or [sell|have ties] to {buyers} in more regions.; Our [plans
  for|investments in] {seg} [assume|rest on the assumption] that {buyers} will [keep buying|need more] {goods}, and
  [they may not|this may prove wrong].; If [this|that|such an event] [happened|occurred], {buyers} [could|might] [delay
  orders for|turn to other sources of] {goods}, and [{measure} would fall|we could not reduce our costs at the same
  pace].; We have [seen|experienced] this [before|in earlier years], [notably|for example] in our {seg} business, and we
  [expect|believe it likely] that it will [recur| happen again].; The effect would be [greatest|strongest] in {seg},
  where [our fixed costs are high|{buyers} have alternatives| we depend on {inputs}] and where {rivals} [are well
  established|have more resources].; [Our results could also suffer if|A similar outcome would follow if] {rules} [were
  to change their requirements|took a different view of our practices], or if {inputs} [became scarce|rose in price].;
  [Even a short|A prolonged] [disruption|decline] [would|could] leave us with {goods} [that we cannot sell|priced below
  cost] and with [fixed costs|commitments] that we [cannot|could not] avoid.; [In such a case|As a result], we [could
  record charges|could breach a covenant of our credit facility|might have to close a {site}], and the [market
  price|trading price] of our common stock could [decline|fall].
close: [Insurance covers only part of such losses|Our insurance has limits and exclusions], and [its cost|the premium]
  has [risen|grown] [in recent years|since {prior}].; [Management reviews|Our board of directors reviews] this
  [risk|matter] [each quarter|twice a year], [though|but] [no review|no plan] can [remove it|foresee every case].; We
  [seek|try] to limit this exposure through [insurance|longer contracts|a second source for {inputs}|closer contact with
  {buyers}], but [these steps|such measures] may [not be enough|prove too costly|come too late].; [Our efforts|The steps
  we have taken] to [prepare for|reduce] this risk, [including|among them] [audits of each {site}|inventory held in
  reserve|the training of our employees], [may fail|cannot remove it|offer no assurance].; [We cannot predict|It is
  difficult to foresee] [when or whether|whether] [this will happen|such conditions will arise], [nor|or] [how|to what
  extent] {rivals} would respond.
overheads: personnel costs; incentive compensation; professional fees; travel expenses; software license fees;
  [consulting|recruiting] fees; depreciation; marketing spending
anyrisk: Our dependence on a small number of customers :: {buyers}, taken together with {buyers}, account for a [large|
  substantial] part of our revenue, and [few|hardly any] of them are bound to minimum purchases
anyrisk: Interruptions in the supply of {inputs} :: We [buy|obtain] {inputs} and {inputs} from a [limited|small] number
  of sources, [some of|several of] which have [closed capacity|rationed their customers] in the past
anyrisk: A breach of our information systems :: [Criminals|Hostile parties] [attack|probe] our networks every day, and
  the systems that [plan|record] our sales of {goods} are [connected to|shared with] those of vendors whom we do not
  control
anyrisk: Competition from {rivals} :: [We compete|Our {seg} business competes] with {rivals} and with {rivals},
  [some|several] of which have [larger budgets|lower costs|longer customer relationships] than we do
anyrisk: The loss of key employees :: [Experienced|Skilled] [managers|engineers|supervisors] are hard to replace, and we
  do not [carry|hold] insurance on the lives of our executives
anyrisk: Our indebtedness :: At {end} we owed {usd:debt} under our credit facility, whose covenants [restrict|limit] our
  [leverage|investments] and [leave|give] us less room than {rivals} may have
anyrisk: Changes in interest rates :: Our borrowings carry a floating rate, which [stood at|was] {rate} at {end}, and
  each [rise|increase] in that rate [raises|adds to] our interest expense
anyrisk: A downturn in the general economy :: Demand for {goods} [depends on|follows] the spending of {buyers}, which
  [falls| contracts] in a recession
anyrisk: Severe weather and a changing climate :: [Storms|Floods|Heat and drought] have [interrupted|halted] work at
  more than one {site}, and [coverage for|insurance against] such losses has become [dearer|harder to find]
anyrisk: Acquisitions that do not meet our expectations :: We [have bought|acquire] smaller businesses to [extend|widen]
  {seg}, and the goodwill of {usd:goodwill} on our balance sheet would be [written down|impaired] if they
  [disappoint|fall short]
anyrisk: Changes in tax law :: We pay tax at different rates in the places where we sell {goods}, and [legislatures|tax
  authorities] [review|revise] those rules often
anyrisk: Failure to protect our intellectual property :: The know-how behind our {goods} is [only partly|not fully]
  covered by patents, and [former employees|{rivals}] could [copy|use] what is not
anyrisk: Weaknesses in our internal control :: [Our|The] accounting for {seg} [rests on|involves] judgment and on
  [older|several] systems, and an error might not be [found|noticed] in time
anyrisk: Changes in environmental, health and safety rules :: {rules} [inspect|oversee] every {site} that we operate,
  and their requirements [become stricter|have tightened] over time
""")[0]

# Rows of the tables: label=account; a minus shows the account negated.
TABLES = parse("""
segments: Total revenue=revenue
split: Total revenue=revenue
taxes: Tax at the federal statutory rate=statutory; State taxes, credits and other=unusual; Income tax expense=tax
stock: Stockholders' equity at beginning of year=opening; Net income (loss)=net; Stock-based compensation=awards;
  Issuance of common stock=issued; Repurchases of common stock=-bought; Dividends=-dividends; Stockholders' equity at
  end of year=equity
results: Revenue=revenue; Cost of revenue=cost; Gross profit=gross; {line_title}=line; Selling expenses=selling; General
  and administrative expenses=admin; Total operating expenses=expenses; Operating income (loss)=operating; Interest
  expense=interest; Other income, net=other; Income (loss) before income taxes=pretax; Income tax expense=tax; Net
  income (loss)=net
income: Revenue=revenue; Cost of revenue=-cost; Gross profit=gross; {line_title}=-line; Selling expenses=-selling;
  General and administrative expenses=-admin; Operating income (loss)=operating; Interest expense=-interest; Other
  income, net=other; Income (loss) before income taxes=pretax; Income tax expense=-tax; Net income (loss)=net
balance: Cash and cash equivalents=cash; Accounts receivable, net=receivables; Inventories and other=inventories; Total
  current assets=current; Property and equipment, net=ppe; Goodwill=goodwill; Total assets=assets; Accounts
  payable=payables; Accrued liabilities=accrued; Long-term debt=debt; Total liabilities=liabilities; Stockholders'
  equity=equity; Total liabilities and stockholders' equity=total
flows: Net income (loss)=net; Depreciation and amortization=depreciation; Stock-based compensation=awards; Changes in
  working capital=working; Net cash provided by (used in) operating activities=operations; Capital expenditures=-capex;
  Net cash used in investing activities=investing; Proceeds from borrowings=borrowed; Proceeds from issuance of common
  stock=issued; Repayments of debt=-repaid; Repurchases of common stock=-bought; Dividends paid=-dividends; Net cash
  provided by (used in) financing activities=financing; Net change in cash=change; Cash and cash equivalents at end of
  year=cash
liquidity: Net cash provided by (used in) operating activities=operations; Net cash used in investing
  activities=investing; Net cash provided by (used in) financing activities=financing; Net change in cash=change
""")[0]

# The filing, top to bottom: "#" item, "##" subheading, "^" centred, "@" a computed part, every other line a paragraph.
PROSE = re.sub(r"\n  +", " ", """
^ UNITED STATES
^ SECURITIES AND EXCHANGE COMMISSION
^ Washington, D.C. 20549
^ FORM 10-K
^ ANNUAL REPORT PURSUANT TO SECTION 13 OR 15(d) OF THE SECURITIES EXCHANGE ACT OF 1934
^ For the fiscal year ended {end}
^ {name}
^ (Exact name of registrant as specified in its charter)
^ {state} (State of incorporation)
^ {city} (Address of principal executive offices)
Securities registered pursuant to Section 12(b) of the Act: Common stock, par value $0.01 per share.
The registrant had {shares} shares of common stock outstanding at {end}. Portions of the definitive proxy statement for
  the {next} annual meeting of stockholders are incorporated by reference into Part III of this report.
@toc
# PART I
## Forward-Looking Statements
[This report contains|Parts of this report are] forward-looking statements, [among them|including] statements about
  [demand for {goods}|our plans for {seg}|the cost of {inputs}], our liquidity and our capital expenditures. [Words such
  as|Terms like] ["expect," "plan" and "believe"|"anticipate," "intend" and "should"] [identify|signal] them. [Actual
  results may differ|What happens may differ] [materially|considerably] from what we [expect|foresee], for the reasons
  [described|set out] in Item 1A. We [undertake no obligation|do not intend] to update them, except as the law requires.
# Item 1. Business
## Overview
{name} [was founded|began operations] in {founded}. We {does}. [[Our customers include|We serve|We sell to] {buyers},
  {buyers} and {buyers}, [to whom we supply|and we supply them with] {goods}, {goods} and {goods}.|Our [main|principal]
  lines are {goods}, {goods} and {goods}, [bought|ordered] by {buyers} and {buyers}.] [In this report|Throughout this
  report], "{short}," "we" and "our" refer to {name} and its subsidiaries. We report [our results in|on] {count}
  segments: {segs}.
Revenue was {usd:revenue} in {year} and {was:revenue} in {prior}. [At year end|At {end}] we had [approximately|about]
  {heads} employees, [none of whom is covered by a collective bargaining agreement|some of whom are represented by
  unions|most of them full time].
## Strategy
[Our strategy has three parts.|Management has set three priorities.|We pursue three aims.] First, we [want to|intend to]
  [grow|strengthen] {seg} with {ups}. Second, we [work to contain|seek to limit] {costs} and {costs}, [above
  all|especially] by [renewing each {site}|better planning|closer work with the suppliers of {inputs}]. Third, we [look
  for|consider] [small acquisitions|partnerships] that [bring us|open the way to] {buyers} [whom we do not yet reach|in
  new regions]. [Progress is measured by {measure}.|We judge our progress by {measure}.]
## Segments
@each {segment} [accounted for|contributed|represented] {it:share} of revenue in {year}, compared with {it:wasshare} in
  {prior}. [[The segment|This segment] [offers|is known for its|is built around] {goods} and {goods}, [sold|supplied]
  [mainly|chiefly|largely] to {buyers}.|{buyers} and {buyers} [turn|come] to it for {goods}[, often together with
  {goods}|].|Its best-known lines are {goods} and {goods}, which {buyers} [order|renew] [every year|throughout the
  year].] [Its main needs are|It depends above all on] {inputs} and {inputs}, and [it competes with|its rivals are]
  {rivals}. [Demand|Business] in {segment} [tends to improve|usually improves] with {ups}, [but|and it] suffers from
  {downs}[, and management follows {measure} as its main measure of progress|].
## Customers and Sales
[We sell through|Our sales force reaches the market through] [our own representatives|direct sales and independent
  distributors|a direct sales team]. [No single customer accounted for more than 10% of revenue in {year} or
  {prior}.|Our ten largest customers, most of them {buyers}, placed orders in every one of the past five years.]
  [Contracts with {buyers} [generally| typically] run for [two|three|four] years, [while|whereas] {buyers} [order as
  they need|buy order by order].] [{buyers} care [most| chiefly] about [reliability|price|service], and {buyers} about
  [delivery times|quality|technical support].|]
## Competition
[Our markets are|Each of our markets is] competitive. We [face|compete with] {rivals} [across|in all segments], {rivals}
  in {seg}, and [new entrants|smaller companies] that [copy|undercut] our {goods}. [We believe that|In our view,]
  [service|quality|the breadth of our offering] [sets us apart|is our main advantage], [although|but] {rivals} [have
  begun to|may] [close the gap| offer longer terms|match our prices].
## Supply
[The principal inputs of|What we mainly buy for] our business [are|include] {inputs}, {inputs} and {inputs}. [Most
  are|All of them are] available from [more than one source|several sources], [but|except that] {inputs} must be bought
  from [a single|one] qualified supplier in [some|certain] cases. [We do not hedge|We hedge part of] our
  [purchases|exposure]. [In {year}, {costs} and {costs} were the items we watched most closely.|]
## Regulation
Our [operations|activities] are [regulated|overseen] by {rules} and {rules}. [Compliance|Meeting their requirements]
  [affects|shapes] how we [make, store and sell|develop and deliver] {goods}, [and|but] it did not require
  [material|significant] capital expenditures in {year}. [We believe that we comply|We consider ourselves in compliance]
  in all material respects with the rules that apply to us. [Rules under discussion|Proposals now before {rules}] could
  [raise|add to] our costs in {next}.
## Seasonality and Intellectual Property
[Our business is [somewhat|moderately] seasonal: {buyers} [place more orders|spend more] in the [spring and
  summer|second half|fourth quarter].|Our business shows no marked season, though the order pattern of {buyers} can
  shift revenue between quarters.] [We hold|The company owns] trademarks for our principal {goods}, and [we protect|we
  guard] [processes|designs|know-how] in {seg} as trade secrets. [No single [license|patent|trademark] is essential to
  us.|We license some technology from others, on terms that run beyond {next}.]
## Human Capital
[Our people|Our employees] [are trained|learn their work] [on the job and in classes|in programs of several weeks].
  [Turnover was [lower|higher] in {year} than in {prior}.|We measure engagement with a survey once a year.] [Safety|The
  safe operation of each {site}] is [reviewed|discussed] by [senior management|our Chief Operating Officer] every
  [month|quarter][, and part of management's bonus depends on it|].
# Item 1A. Risk Factors
[An investment in our common stock involves risk.|Owning our common stock carries risks.] [You should consider|Investors
  should weigh] the [following|matters below] [carefully|with care], together with [the rest of this report|the
  financial statements in Item 8]. [Other risks, unknown to us today, could also matter.|The order of the headings is
  not a ranking.]
@risks
# Item 1B. Unresolved Staff Comments
None.
# Item 1C. Cybersecurity
[We maintain|Our company runs] a program to [assess, identify and manage|find and manage] [material |]risks from
  cybersecurity threats, [which is part of|integrated into] our enterprise risk management. [The program|It]
  [includes|covers] [penetration tests|vulnerability scans|simulated phishing], [training of employees|access reviews]
  and [a plan for responding to incidents|the review of vendors], and [we engage|it draws on] outside
  [assessors|specialists]. [Particular attention goes to|We pay special attention to] the systems that [support|track]
  {goods}.
[Our Chief Information Security Officer|The head of information security], who [has|brings] more than
  [ten|fifteen|twelve] years of [experience|work] in the field, [leads|directs] the program and reports [quarterly|twice
  a year] to the audit committee of our board of directors. [In {year}|During {year}] [we identified no|no]
  cybersecurity [threats|incidents] [that have affected|which affected] our business [materially|in a material way]
  [came to our attention|were found]. [See Item 1A.|]
# Item 2. Properties
Our [headquarters are|head office is] in {city}, [where we lease office space|in an office building that we own|in
  leased offices]. [We also operate|In addition we run] a {site} in or near each of our main markets; [most|the larger
  ones] are [owned|leased]. [We consider|Management considers] our properties [suitable and adequate|well maintained and
  sufficient] for [current needs|the business as it stands][, and {seg} has room to expand|]. Property and equipment,
  net, amounted to {usd:ppe} at {end}.
# Item 3. Legal Proceedings
[From time to time|In the ordinary course of business] we are [party to|named in] [claims|suits], [among them|including]
  disputes with [{buyers}|suppliers of {inputs}|former employees]. [In our opinion it is unlikely that|We do not believe
  that] any of them[, alone or together,|] will have a material effect on our [financial condition|results]. [In {year}
  we settled a dispute over {goods} without a material payment.|We have recorded reserves where a loss is probable and
  can be estimated.]
# Item 4. Mine Safety Disclosures
Not applicable.
# PART II
# Item 5. Market for Registrant's Common Equity, Related Stockholder Matters and Issuer Purchases of Equity Securities
Our common stock is listed on a national securities exchange. [On {end} there were|There were] [about|approximately]
  {holders} holders of record. [We paid|Our board of directors declared] {paid} in {year}[, and it reviews the matter
  each quarter|]. We [bought back|repurchased] {bought} in {year}, and [the program|the plan] that our board
  [authorized|approved] [remains in force|has no end date].
# Item 6. [Reserved]
# Item 7. Management's Discussion and Analysis of Financial Condition and Results of Operations
## Overview
[The following discussion|This discussion] should be read [together|in conjunction] with the financial statements in
  Item 8. We {does}. [Our revenue comes|We earn our revenue] [mainly|chiefly] from {goods} and {goods}, and [our costs
  depend|our cost of revenue depends] on {costs} and {costs}. [Management watches|We manage the business by] {measure},
  [gross margin|operating income] and [operating cash flow|cash from operations].
{moved:revenue}. Gross margin was {margin}, compared with {wasmargin} in {prior}{points}. We [reported|recorded]
  {level:operating}, compared with {waslevel:operating} in {prior}, and {level:net}, compared with {waslevel:net} in
  {prior}.
## Outlook
[Looking ahead|For {next}], we [expect|anticipate] {ups} to [help|support] {seg}, [while|whereas] {downs} [would weigh
  on|could hold back] [revenue|its growth]. [We also watch|We are watching] {costs} and {costs}[, which are hard to
  predict|, where relief is uncertain]. [These expectations rest on|This view assumes] [stable demand from {buyers}|no
  shortage of {inputs}].
## Results of Operations
[The table below|The following table] [sets out|shows|compares] our results for {year} and {prior}.
@table results
## Revenue
@table segments
{moved:revenue}. [By segment, the|The] [change|movement] was as follows.
@each {it:moved}. {it:why} [[{segment} represented|It made up|The segment contributed] {it:share} of revenue, compared
  with {it:wasshare} in {prior}.|[The segment's share|Its share] of revenue [was|stood at] {it:share}, after
  {it:wasshare} in {prior}.] [[Demand from|Orders from] {buyers} [improved|weakened|held steady] [in the second
  half|toward year end|during the year][, mostly for {goods}|].|[Sales of|Interest in] {goods} [were strongest
  among|owed most to] {buyers}.|Contracts with {buyers} [came up for renewal|were renewed] [on similar terms|at somewhat
  different prices].|]
## Cost of Revenue and Gross Margin
{moved:cost}. {why:cost} Gross profit was {usd:gross}, or {margin} of revenue, compared with {was:gross}, or
  {wasmargin}, in {prior}. [Gross margin [reflected|depended on] the mix of sales in {seg}[ and on {costs}|].|]
## Operating Expenses
{moved:line}. {why:line} [They represented|They came to] {share:line} of revenue, compared with {wasshare:line} in
  {prior}.
{moved:selling}. {why:selling} [As a percentage of revenue, they were {share:selling}|They took up {share:selling} of
  revenue], compared with {wasshare:selling}.
{moved:admin}. {why:admin} [In relation to revenue, they were {share:admin}|They equaled {share:admin} of revenue],
  [against|after] {wasshare:admin} in {prior}.
## Interest, Taxes and Net Income
{moved:interest}. [The average rate|The interest rate] on our borrowings was {rate}. Income tax expense was {usd:tax},
  {taxed}. [The result was|What remained was|We therefore recorded] {level:net}, compared with {waslevel:net} in
  {prior}. [Per share, this was|The amount per share was] {eps}, compared with {waseps}.
## Liquidity and Capital Resources
[At {end} we held|We ended {year} with] {usd:cash} of cash and cash equivalents, compared with {was:cash} a year
  earlier, and [owed|had borrowed] {usd:debt}, compared with {was:debt}. [Our cash flows|The sources and uses of cash]
  [were as follows|are summarized below].
@table liquidity
Operating activities {provided:operations} in {year}, compared with {wasprovided:operations} in {prior}. [The
  amount|Cash from operations] consists of {level:net}, depreciation and amortization of {usd:depreciation}, stock-based
  compensation of {usd:awards} and a [change|movement] in working capital that {provided:working}. Capital expenditures
  [were|came to] {usd:capex}, compared with {was:capex} in {prior}, [mainly for|chiefly spent on] [capacity in {seg}|a
  new {site}|maintenance of each {site}]. Financing activities {provided:financing}{flows}.
[We believe that|In our judgment,] cash on hand, cash from operations and our credit facility [are|will be] sufficient
  for [at least the next twelve months|the coming year and beyond]. [In {next} we expect|Our plan for {next} calls for]
  capital expenditures of [about|roughly] {plan}. [Our credit facility|The facility] limits leverage and requires
  minimum interest coverage, and we complied with [both|its covenants] at {end}.
## Critical Accounting Estimates
[Revenue.|Revenue recognition.] We recognize revenue when [control of|title to] {goods} passes to [{buyers}|the
  customer] or as services are performed. [Rebates and returns|Discounts and returns] must be estimated, [and we base
  the estimates on|from] [experience|recent history] with {buyers}. [A change of one percentage point in that estimate
  would not be material.|]
[Goodwill.|Impairment of goodwill.] We test goodwill of {usd:goodwill} [once a year|each year in the fourth quarter].
  The [test|estimate] depends on [forecasts of {measure}|discount rates], and [on growth in {seg}|on margins in {seg}].
  [No impairment was recorded|We found no impairment] in {year}.
[Receivables.|Allowance for credit losses.] Accounts receivable amounted to {usd:receivables} at {end}, compared with
  {was:receivables} a year earlier. We estimate the losses in them from the age of each balance and [the finances of
  {buyers}|our history with {buyers}]. [The failure of a large customer|A recession among {buyers}] would [require|lead
  to] a larger allowance.
# Item 7A. Quantitative and Qualitative Disclosures About Market Risk
[Interest rates.|Interest rate risk.] [At {end}|At year end] our floating-rate debt was {usd:debt}. A rise of one
  percentage point would [increase|raise] annual interest expense by [about|approximately] {onepoint}.
  [Commodities.|Prices of inputs.] [We buy|Our purchases include] {inputs} and {inputs}, whose prices [vary|fluctuate];
  [we pass changes on|we try to pass changes on] to {buyers} [where contracts allow|over time].
# Item 8. Financial Statements and Supplementary Data
## Report of Independent Registered Public Accounting Firm
[To the stockholders and board of directors of {name}.|To the board of directors and stockholders of {name}.] We have
  audited the balance sheets of {name} at {end} and a year earlier, and the related statements of operations and cash
  flows. In our opinion they present fairly, in all material respects, its financial position and results, in conformity
  with accounting principles generally accepted in the United States. [The critical audit matter we identified|A matter
  that required particular judgment] was [the estimate of rebates|the goodwill of {seg}|the valuation of inventories].
## Consolidated Statements of Operations
@table income
## Consolidated Balance Sheets
@table balance
## Consolidated Statements of Cash Flows
@table flows
## Note 1. Basis of Presentation
[The consolidated statements|These statements] include {name} and its subsidiaries. [Balances and transactions between
  them|All intercompany items] are eliminated. Amounts are in millions of dollars, rounded to the nearest hundred
  thousand. [Preparing them requires estimates|Management makes estimates] [about|concerning] [receivables|useful lives]
  and [rebates|warranty obligations| claims], and [actual amounts may differ|outcomes may differ].
## Note 2. Revenue
[Revenue from {goods} is recognized|We recognize revenue from {goods}] [at a point in time|when control passes], and
  [revenue from|the fees for] [longer contracts|service arrangements] over time. [Payment is due|Customers pay] within
  [30|45|60] days. The [table|schedule] below [divides|breaks down] revenue by [type|source].
@table split
## Note 3. Debt
[The credit facility|Our credit facility] [matures|expires] in {maturity} and bears interest at a floating rate
  [plus|with] a margin of {spread}%. Borrowings were {usd:debt} at {end} and {was:debt} a year earlier. [We repaid
  {repaid} in {year}.|In {year} we repaid {repaid}.] Interest [expense |]was {usd:interest}, compared with
  {was:interest} in {prior}.
## Note 4. Income Taxes
Income tax expense was {usd:tax} on {level:pretax}, compared with {was:tax} on {waslevel:pretax} in {prior}. [The
  effective rate|Our rate] differs from the federal statutory rate of 21% [mainly|chiefly] because of [state taxes|state
  taxes and stock-based compensation|credits and state taxes].
@table taxes
## Note 5. Segments
[We have|The company has] {count} reportable segments, {segs}. [Our Chief Executive Officer|The chief operating decision
  maker, our Chief Executive Officer,] [reviews|follows] the revenue of each and [allocates|assigns] resources [by
  {measure}|on that basis].
@each [{segment} recorded revenue of {it:usd}, compared with {it:was} in {prior}|Revenue of {segment} was {it:usd},
  after {it:was} in {prior}][, from {goods} and {goods}|, mostly from {buyers}|].
## Note 6. Commitments and Contingencies
[We lease|Our leases cover] [vehicles|office space|land] and [equipment|a {site}] for [terms of two to ten years|periods
  of up to twelve years][, with options to renew|]. [Commitments|Agreements] to buy {inputs} and {inputs} [run|extend]
  to {next}. [We are subject to claims|Claims are pending] [arising from|related to] {goods}, none of which we
  [consider|believe to be] material.
## Note 7. Stockholders' Equity
[Changes in stockholders' equity|The accounts of stockholders] were as follows. [Awards to employees vest over
  [three|four] years|Stock awards to employees vest in equal parts over [three|four] years][, and their fair value is
  charged to expense over that time|].
@table stock
# Item 9. Changes in and Disagreements With Accountants on Accounting and Financial Disclosure
None.
# Item 9A. Controls and Procedures
[Our Chief Executive Officer and Chief Financial Officer|Management, with our Chief Executive Officer and Chief
  Financial Officer,] [evaluated|assessed] our disclosure controls and procedures at {end} and [concluded|found] that
  they were effective. [Management's assessment|An assessment] of internal control over financial reporting
  [found|identified] no material weakness. [There was no change in internal control that affected it materially|Internal
  control did not change in any material way] in the fourth quarter of {year}.
# Item 9B. Other Information
[None.|No director or officer adopted or ended a trading arrangement in the fourth quarter of {year}.]
# PART III
# Item 10. Directors, Executive Officers and Corporate Governance
The information required by this item is incorporated by reference to our definitive proxy statement.
# Item 11. Executive Compensation
The information required by this item is incorporated by reference to our definitive proxy statement.
# Item 12. Security Ownership of Certain Beneficial Owners and Management
[The information required by this item is|This information is] incorporated by reference to our definitive proxy
  statement.
# Item 13. Certain Relationships and Related Transactions, and Director Independence
[The information required by this item is|This information is] incorporated by reference to our definitive proxy
  statement.
# Item 14. Principal Accountant Fees and Services
[The information required by this item is|This information is] incorporated by reference to our definitive proxy
  statement.
# PART IV
# Item 15. Exhibits and Financial Statement Schedules
The financial statements are included in Item 8. Schedules are omitted because they are not required.
# SIGNATURES
[Pursuant to the requirements of|As required by] the Securities Exchange Act of 1934, the registrant has duly caused
  this report to be signed on its behalf by the undersigned, thereunto duly authorized.
^ {name}
^ By: Chief Executive Officer
^ By: Chief Financial Officer
^ Date: {filed}
""").strip().splitlines()
