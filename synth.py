"""Synthetic 10-K filings, so that the whole road from raw filings to a report runs with no network and no licence.

    from synth import write_filings
    paths = write_filings("raw/synth", n=200, seed=0)         # ["raw/synth/0009000001-19-000001.html", ...]

or `python prepare.py synth --out raw/synth`. Nobody in them exists: names are invented syllables, CIKs start at 9000001
(the SEC has assigned none there), people appear as titles only. Every tenth filing is an old-style .txt submission.

The words are in synth.txt: what each industry makes, buys and fears, and a filing written as a template. `[a|b]` picks
one, brackets nest, `{goods}` draws from the industry's list, `{moved:revenue}` puts an account into words: `say` is all
the grammar. The numbers come from `ledger`: a company's books, rolled forward year by year in whole tenths of a million
dollars. Money is rounded there, once; tables, sentences and percentages all derive from those integers, so they add up
exactly, and last year's column is last year's filing: revenue 1494 -> 1618 reads "increased $12.4 million, or 8.3%, to
$161.8 million". A filing is a function of (seed, company, year) alone, not of n or of the filings before it.
"""

import random
import re
import textwrap
from datetime import date, timedelta
from html import escape
from pathlib import Path

START = 2008  # the books open here; a decade of history settles them before the first year anybody asks for
CHOICE, SLOT = re.compile(r"\[([^\[\]]*)\]"), re.compile(r"\{(\w+):?(\w*)\}")


def read_words():
    """synth.txt as {heading: {key: a value, or a list of them}}; the filing and what stands above it remain text."""
    text = Path(__file__).with_name("synth.txt").read_text(encoding="utf-8")
    _, *parts = re.split(r"(?m)^=== (.*)\n", re.sub(r"\n  +", " ", text))
    sections = dict(zip(parts[::2], map(str.strip, parts[1::2]), strict=True))
    for heading in sections.keys() - {"filing", "html", "page", "sgml"}:
        found = {}
        for key, values in (line.split(": ", 1) for line in sections[heading].splitlines()):
            found[key] = found.get(key, []) + values.split("; ")
        sections[heading] = {key: values if len(values) > 1 else values[0] for key, values in found.items()}
    return sections


WORDS = read_words()
INDUSTRIES = [section for heading, section in WORDS.items() if heading.startswith("industry")]


def say(rng, text, facts):
    """Expand [a|b] and {slot} until none is left. A list is drawn from without repeats within one call."""
    decks = {}
    while found := CHOICE.search(text) or SLOT.search(text):  # choices first: what is not chosen draws nothing
        name = found[1]
        word = name.split("|") if found.re is CHOICE else facts[name](found[2]) if found[2] else facts[name]
        if isinstance(word, list):
            decks[name] = decks.get(name) or rng.sample(word, len(word))
            word = decks[name].pop()
        text = text[:found.start()] + str(word) + text[found.end():]
    text = re.sub(r" ([.,])", r"\1", re.sub(r"\s+", " ", text).strip()).replace("Inc..", "Inc.")
    text = re.sub(r"\b([Aa]) (?=[aeio])", r"\1n ", text)
    return re.sub(r"(^|(?<!Inc)[.?!] )([a-z])", lambda m: m[1] + m[2].upper(), text)


def make_company(seed, index):
    """What stays the same every year. The name is a mixed-radix numeral of the index, so no two are alike."""
    rng, number, cik = random.Random(f"{seed}/{index}"), index * 1237 + seed * 389, 9000001 + seed % 900 * 1000 + index
    words = WORDS["words"] | INDUSTRIES[index % len(INDUSTRIES)]
    traits = {trait: rng.choice(values) if isinstance(values, list) else rng.uniform(*map(float, values.split(" to ")))
              for trait, values in WORDS["company"].items()}
    short = words["name0"][number % 23] + words["name1"][number // 23 % 7] + words["name2"][number // 161 % 16]
    cost, *opex, capex, growth = (float(rate) / 100 for rate in words["rates"].split())
    segments, risks = rng.sample(words["segments"], 3), words["risk"] + words["anyrisk"]
    return words | traits | {
        "key": f"{seed}/{cik}", "cik": f"{cik:010d}", "short": short, "founded": int(traits["founded"]),
        "name": traits["legal"].replace("@", f"{short} {rng.choice(words['suffix'])}"),
        "seg": segments, **dict(zip(("seg0", "seg1", "seg2"), segments, strict=True)),
        **dict(zip(("split0", "split1", "split2"), words["split"], strict=True)),
        "risks": rng.sample(risks, len(risks)),
        "base": [round(traits["size"] * rng.uniform(0.2, 0.6)) for _ in segments],
        "growth": [growth + rng.gauss(0, 0.015) for _ in segments], "cost": cost * rng.uniform(0.96, 1.03),
        "opex": [share * rng.uniform(0.88, 1.08) for share in opex], "capex": capex,
    }


def ledger(company, year):
    """One year's books: every local name is an account in whole $0.1 million, and `prior` the books of the year before.
    A balance moves only by flows that are in the cash flow statement, so that all statements close."""
    if year < START:
        segments, revenue, tied_up = company["base"], sum(company["base"]), 0
        ppe, goodwill, debt, cash = round(revenue * company["capex"] * 5), revenue // 5, revenue // 4, revenue // 5
        equity, shares = cash + ppe + goodwill - debt, round(revenue * company["shares_per_sale"])
        return locals()
    prior, rng = ledger(company, year - 1), random.Random(f"{company['key']}/{year}/books")

    climate = rng.gauss(1, 0.025)
    growths = [climate + growth + rng.gauss(0, 0.04) for growth in company["growth"]]
    seg0, seg1, seg2 = segments = [round(s * growth) for s, growth in zip(prior["segments"], growths, strict=True)]
    revenue = sum(segments)
    split0, split1 = round(revenue * rng.uniform(0.54, 0.57)), round(revenue * rng.uniform(0.26, 0.29))
    split2 = revenue - split0 - split1
    cost = round(revenue * company["cost"] * rng.uniform(0.975, 1.025))
    line, selling, admin = (round(revenue * share * rng.uniform(0.94, 1.06)) for share in company["opex"])
    gross, expenses = revenue - cost, line + selling + admin
    operating = gross - expenses
    rate = float(company["spread"]) + float(WORDS["market rates"].get(str(year), 2.1))
    interest, other = max(1, round(prior["debt"] * rate / 100)), round(revenue * rng.uniform(0.0005, 0.004))
    pretax = taxable = operating - interest + other
    tax = round(pretax * company["tax_rate"] * rng.uniform(0.95, 1.05)) if pretax > 0 else rng.randint(1, 4)
    statutory = round(pretax * 0.21)
    net, unusual = pretax - tax, tax - statutory

    receivables, inventories = round(revenue * company["days"]), round(cost * rng.uniform(0.11, 0.13))
    payables, accrued = round(cost * rng.uniform(0.08, 0.10)), round(expenses * 0.14)
    tied_up = receivables + inventories - payables - accrued
    working, depreciation = prior["tied_up"] - tied_up, round(prior["ppe"] * 0.16)
    awards, capex = (round(revenue * share * rng.uniform(0.85, 1.15)) for share in (0.012, company["capex"]))
    operations, dividends = net + depreciation + awards + working, max(0, round(net * float(company["payout"])))
    spare = prior["cash"] + operations - capex - dividends - round(revenue * company["reserve"])
    borrowed = min(round(revenue * rng.uniform(0, 0.04)) + max(0, -spare), max(0, revenue * 3 // 10 - prior["debt"]))
    issued, spare = max(0, -spare - borrowed), max(0, spare + borrowed)
    repaid, bought = min(spare * 2 // 5, prior["debt"] // 8), spare // 2 if net > 0 else 0
    investing, financing = -capex, borrowed + issued - repaid - bought - dividends
    change = operations + investing + financing

    cash, debt, opening = prior["cash"] + change, prior["debt"] + borrowed - repaid, prior["equity"]
    ppe, goodwill = prior["ppe"] + capex - depreciation, prior["goodwill"]
    equity = opening + net + awards + issued - bought - dividends
    current, liabilities = cash + receivables + inventories, payables + accrued + debt
    assets, total = current + ppe + goodwill, liabilities + equity
    value = round(revenue * company["multiple"])  # of all shares, which sets the price of those bought and sold
    bought_shares = prior["shares"] * bought // value
    shares = prior["shares"] + prior["shares"] * issued // value - bought_shares
    holders, plan = int(company["holders"]) - 7 * (year - START), round(capex * rng.uniform(0.97, 1.15))
    heads, onepoint, eps = round(revenue / company["per_head"]), (debt + 50) // 100, round(net * 10000 / shares)
    return locals()


def cell(tenths):
    return f"({-tenths / 10:,.1f})" if tenths < 0 else f"{tenths / 10:,.1f}"


def permille(part, whole):
    return (2000 * abs(part) + whole) // (2 * whole)  # half up, in integers: permille(124, 1494) = 83, read "8.3%"


def calendar(company, year):
    """The fiscal year's end, the date of filing, and the SEC's number for it: filer, year of filing, sequence."""
    end = date.fromisoformat(f"{year}-{company['year_end']}")
    filed = end + timedelta(days=54 + int(company["cik"]) % 7)
    return end, filed, f"{company['cik']}-{filed:%y}-000001"


def make_facts(rng, company, year):
    """What synth.txt may name: the company, its industry's lists, and functions that put an account into words."""
    b, (end, filed, accession) = ledger(company, year), calendar(company, year)
    b |= {f"was_{account}": amount for account, amount in b["prior"].items()}
    changes = {account: b[account] - b[f"was_{account}"] for account in WORDS["accounts"]}

    def why(key):
        """Two causes whose amounts sum to the change: both in its direction, or the second against the first."""
        size, rise, (_, *causes) = abs(changes[key]), changes[key] > 0, WORDS["accounts"][key]
        part, extra = size * rng.randint(55, 80) // 100, size * rng.randint(10, 45) // 100 + 1
        return company["hardly"] if size < 4 else rng.choice(company["why"]).format(
            turn="[increase|rise]" if rise else "[decrease|decline]", cause=causes[not rise], offset=causes[rise],
            part=cell(part), rest=cell(size - part), extra=cell(extra), more=cell(size + extra))

    return company | {
        "year": year, "prior": year - 1, "next": year + 1, "maturity": year // 4 * 4 + 5, "accession": accession,
        "end_date": end, "end": f"{end:%B} {end.day}, {end.year}", "NAME": company["name"].upper(),
        "filed_date": filed, "filed": f"{filed:%B} {filed.day}, {filed.year}", "rate": f"{b['rate']:.2f}",
        "effective": cell(permille(b["tax"], max(1, b["pretax"]))), "count": lambda key: f"{b[key]:,}",
        "usd": lambda key: f"${cell(abs(b[key]))} million", "cents": lambda key: f"{abs(b[key]) / 100:,.2f}",
        "share": lambda key: cell(permille(b[key], b["was_revenue" if key.startswith("was_") else "revenue"])),
        "level": lambda key: WORDS["signs"][key.removeprefix("was_")][b[key] <= 0].replace("@", key),
        "moved": lambda key: company["moved"][(changes[key] > 0) - (changes[key] < 0)].replace("@", key), "why": why,
        "title": lambda key: WORDS["accounts"][key][0], "change": lambda key: cell(abs(changes[key])),
        "changepct": lambda key: cell(permille(changes[key], b[f"was_{key}"])),
        "books": [b, b["prior"], b["prior"]["prior"]],
    }


def make_table(facts, name, years, change=""):
    """Rows of cells: a label, the amounts of so many years and, where the template asks for it, the change."""
    books = facts["books"][:int(years)]
    rows = [["(in millions)", *(str(x["year"]) for x in books)] + ["Change", "% Change"] * bool(change)]
    for label, account in WORDS[f"table {name}"].items():
        now, before, *_ = amounts = [-x[account[1:]] if account[0] == "-" else x[account] for x in books]
        if any(amounts):
            share = cell(permille(now - before, before) * (-1 if now < before else 1)) + "%" if before > 0 else "n/m"
            rows.append([label.format(**facts), *map(cell, amounts)] + [cell(now - before), share] * bool(change))
    return rows


def make_blocks(rng, company, year):
    """The facts and a list of (mark, content): marks as in synth.txt, "" for a paragraph, "@page" where page N ends."""
    facts, blocks, contents, size, page = make_facts(rng, company, year), [], [["Item", "Page"]], 0, 1
    risks = "\n".join(company["risks"][:rng.randint(10, 14)])
    risks = re.sub("(.+) :: (.+)", r"## \1 {may} {harm}.\n\2. {sequel} [{sequel} |]{close}", risks)
    script = WORDS["filing"].replace("@risks", risks)
    script = re.sub("@each (.*)", lambda m: "\n".join(m[1].replace("@", f"seg{i}") for i in range(3)), script)
    if year < 2023:  # from then on the SEC asks for Item 1C
        script = re.sub(r"(?s)# Item 1C.*?(?=# Item 2)", "", script)
    for mark, text in re.findall(r"(?m)^(?:(\^|##?|@\w+) )?(.+)$", script):
        table = mark == "@table" and (contents if text == "contents" else make_table(facts, *text.split()))
        content = table or say(rng, text, facts)
        size += len(content) * (60 if table else 1)
        if size > 3200 * page and "#" not in blocks[-1][0]:  # a page has about 3,200 characters
            blocks.append(("@page", page))
            page += 1
        if mark == "#" and "PART" not in content:
            contents.append([content, str(page)])
        blocks.append((mark, content))
    return facts, blocks


def filing_html(rng, company, year):
    """One filing as small HTML with the habits of real ones: hidden iXBRL facts, split words, page furniture."""
    (facts, blocks), tag = make_blocks(rng, company, year), company["tag"]
    out = [WORDS["html"].format(**facts)]
    for mark, content in blocks:
        if mark == "@page":
            out.append(WORDS["page"].format(page=content))
        elif mark == "@table":
            out.append("<table>")
            for i, (label, *cells) in enumerate(content):
                row = f"<tr><td>{escape(label, quote=False)}</td>"
                for number, close, tail in (c.partition(")") for c in cells):  # "$" and ")" stand in cells of their own
                    dollar = "$" if i == 1 and "." in number and "%" not in number + tail else ""
                    row += f'<td>{dollar}</td><td align="right">{number}</td><td>{close}{tail}</td>'
                out.append(row + "</tr>")
            out.append("</table>")
        else:
            text, style = escape(content, quote=False), "b" if mark else "span"
            if not mark and rng.random() < 0.2:
                text = re.sub("([A-Za-z]{4})([a-z]{3,})", r"\1</span><span>\2", text, count=1)
            out.append(f'<{tag}{" align=center" * (mark == "^")}><{style}>{text}</{style}></{tag}>')
    text = "\n".join(out + ["</body></html>", ""]).replace("'", "&#8217;").replace(" million", "&#160;million")
    return re.sub(r">(Item \w+\.) ", r">\1&#160;&#160;", text)


def filing_text(rng, company, year):
    """One filing as a full submission of the 1990s: SGML header, hard-wrapped text, <PAGE> and <TABLE>."""
    facts, blocks = make_blocks(rng, company, year)
    out = [WORDS["sgml"].format(**facts), ""]
    for mark, content in blocks:
        if mark == "@page":
            out += [f"{content:>40}", "<PAGE>"]
        elif mark == "@table":
            out += ["<TABLE>", "<CAPTION>"]
            for label, *cells in [content[0], ["<S>"] + ["<C>"] * (len(content[0]) - 1), *content[1:]]:
                *above, label = textwrap.wrap(label, 76 - 11 * len(cells), subsequent_indent="  ")
                out += [*above, f"{label:{78 - 11 * len(cells)}}" + "".join(f"{c:>11}" for c in cells)]
            out.append("</TABLE>")
        else:
            lines = textwrap.wrap(content.upper() if mark == "#" else content, 78, initial_indent=" " * 5 * (not mark))
            out += [line.center(78).rstrip() for line in lines] if mark == "^" else lines
        out.append("")
    return "\n".join(out + ["</TEXT>", "</DOCUMENT>", "</SEC-DOCUMENT>", ""])


def write_filings(out_dir, n=200, seed=0, years=(2019, 2024)):
    """Write n filings, each company once for every year of the inclusive range. Returns the paths in order."""
    first, last = years
    if not START + 2 < first <= last:
        raise ValueError(f"synth.py: years must run upwards from {START + 3} or later, not {years}")
    Path(out_dir).mkdir(parents=True, exist_ok=True)
    paths = []
    for k in range(n):
        company, year = make_company(seed, k // (last - first + 1)), first + k % (last - first + 1)
        write, suffix = (filing_text, ".txt") if k % 10 == 9 else (filing_html, ".html")
        paths.append(str(Path(out_dir, calendar(company, year)[2] + suffix)))
        rng = random.Random(f"{company['key']}/{year}/words")
        Path(paths[-1]).write_text(write(rng, company, year), encoding="utf-8", newline="\n")
    return paths
