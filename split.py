"""
Which documents stay, and on which side of the split: what corpus.py decides by hashes, without seeing a text.

    copies       the same text, or the same accession number and nearly the same text: one stays
    companies    are joined by every name, number and text they share, so that none straddles the split
    cells        val: new companies; val_year: known companies, new years; val_both: both; val_neither: neither

Consecutive filings of one company share half of their 13-grams, so a random split measures memory. The four cells tell
memory from skill: the distance of val_neither from the others is what it is worth to know the company, or the year.
Everything depends on content and seed, never on the order in which documents came.
"""
import datetime
import hashlib
import re

import numpy as np

import clean

SPLITS = ("train", "val", "val_year", "val_both", "val_neither")

# What plan knows of a document: hashes of its place in the shuffle, its text, its owner (a company, or itself) and its
# accession number; the day it was filed; and where the task that read it put its text and the line about it.
PLACE = np.dtype([("order", "u8"), ("text", "u8"), ("owner", "u8"), ("accession", "u8"), ("day", "i4"), ("task", "u4"),
                  ("row", "u4"), ("size", "u4"), ("offset", "u8"), ("about", "u8")])
UNDATED = np.iinfo(np.int32).max
PART = np.iinfo(np.uint32).max  # the row of a place that is no whole document


# ----------------------------------------------------------------------------------------------------------------------
# What a place is made of


def hash64(raw):
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


def day_of(date):
    """ "2023-02-17" or "20230217" -> days since 1970; UNDATED for anything else."""
    found = re.match(r"(\d{4})-?(\d\d)-?(\d\d)(?!\d)", str(date or ""))
    try:
        return (datetime.date(*map(int, found.groups())) - datetime.date(1970, 1, 1)).days if found else UNDATED
    except ValueError:
        return UNDATED


def filing_day(meta):
    """The day a document was filed; where only the accession number tells the year, the first of January."""
    if (day := day_of(meta.get("filed"))) != UNDATED:
        return day
    found = re.fullmatch(r"\d{10}-(\d\d)-\d{6}", str(meta.get("accession", "")))
    return day_of(f"{(19 if found[1] > '90' else 20)}{found[1]}-01-01") if found else UNDATED


def owners_of(meta):
    """Every name by which the metadata knows the company, as hashes; one that names two companies makes them one."""
    ciks = [meta.get("cik"), *meta.get("co_registrants", [])]
    names = [meta.get("company"), *meta.get("former_names", [])]
    file = [f"file {meta.pop('file')}"] if "file" in meta else []  # the pieces of one large text
    keys = [f"cik {cik}" for cik in ciks if cik] + [f"name {company_key(n)}" for n in names if n and company_key(n)]
    return [hash64(key.encode()) for key in keys + file]


def company_key(name):
    """A company's name without what changes from filing to filing: case, punctuation, the kind of company."""
    name = re.sub(r"\s*/[A-Z]{2,3}/?\s*$", "", name.upper()).replace("'", "").replace(".", "")
    words = [w for w in "".join(c if c.isalnum() else " " for c in name).split() if w != "AND"]
    while len(words) > 1 and words[-1] in ("INC", "CORP", "CORPORATION", "CO", "COMPANY", "LTD", "LLC", "LP", "PLC",
                                           "NEW", "DE", "THE"):
        words.pop()
    return " ".join(words)


# ----------------------------------------------------------------------------------------------------------------------
# Copies and companies


def without_copies(found):
    """(one place per text, pairs (n, 2) of rows of one text). Of copies, one that knows its company stays."""
    order = np.lexsort((found["task"], found["owner"], found["owner"] == found["text"], found["text"]))
    again = found["text"][order][1:] == found["text"][order][:-1]
    return found[order[np.r_[True, ~again]]], np.stack([order[1:][again], order[:-1][again]], axis=1)


def same_filings(places, signatures):
    """
    Pairs (row, row that stays) of one accession number and, by half, one text: a filing that came under several
    registrants or in two formats. (Records that hold the sections of one filing share its number, too: those stay.)
    """
    order = np.lexsort((places["order"], ~places["size"].astype(np.int64), places["accession"]))
    pairs, first = [], None
    for i in order[np.searchsorted(places["accession"][order], 1) :].tolist():
        if first is None or places["accession"][i] != places["accession"][first]:
            first = i
        elif clean.similarity(signatures[i], signatures[first]) >= 0.5:
            pairs.append((i, first))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def near_duplicates(places, signatures):
    """Pairs (row, row that stays) of near-duplicates. The oldest stays: the others say it again."""
    rank = np.empty(len(places), np.int64)
    rank[np.lexsort((places["order"], places["day"]))] = np.arange(len(places))
    return clean.near_duplicates(signatures, rank)[1]


def companies(owner, same):
    """
    A group per document, uint64: documents are of one company if their owners are the same, or joined by `same`, the
    pairs of owners that a document, a copy or a near-duplicate connects.
    """
    parent = {}

    def find(x):
        while parent.setdefault(x, x) != x:
            parent[x] = x = parent[parent[x]]
        return x

    for a, b in sorted(same):
        low, high = sorted((find(a), find(b)))
        parent[high] = low
    unique, which = np.unique(owner, return_inverse=True)
    return np.array([find(o) for o in unique.tolist()], dtype=np.uint64)[which]


# ----------------------------------------------------------------------------------------------------------------------
# Cells


def companies_of(abouts):
    """
    A number for each document, from its line of docs.jsonl: the same for those of one company, by CIK or name; one that
    names no company is its own.
    """
    owners = [owners_of(dict(about)) or [hash64(about["id"].encode())] for about in abouts]
    same = {(known[0], other) for known in owners for other in known}
    return companies(np.array([known[0] for known in owners], np.uint64), same)


def cells(places, group, args):
    """(cell of each document, an index into SPLITS; the policy in words; the first new day, as a date, or None)."""
    cell = np.zeros(len(places), np.int8)
    size, day = places["size"].astype(np.int64), places["day"]
    known = places["owner"] != places["text"]
    if not args.val_fraction and args.val_from in ("auto", "none"):
        return cell, "no validation split", None
    if len(np.unique(places["text"])) == 1:
        cell[1:] = 1
        return cell, "the end of the only document", None
    if len(np.unique(group)) == 1:
        cell[hold_out(places["text"], size, args.val_fraction, args.seed)] = 1
        return cell, "documents of the only company, so that training has seen its habits", None
    held = hold_out(group, size, args.val_fraction, args.seed)
    cell[held] = 1
    policy = (f"whole companies (joined by CIK, name and shared text; a document of no known company is its own), in "
              f"the order of a seeded hash: {size[held].sum() / size.sum():.2%} of the bytes are held out")
    first = first_new_day(args.val_from, day, size)
    if first is not None:
        new = (day >= first) & (day != UNDATED)
        cell[new & ~held], cell[new & held] = 2, 3
        first = (datetime.date(1970, 1, 1) + datetime.timedelta(days=int(first))).isoformat()
        policy += f"; so are all filings from {first} on, {size[new].sum() / size.sum():.2%}"
    # a hundredth of the documents whose company stays in training with at least one more
    unique, which = np.unique(group, return_inverse=True)
    left = np.bincount(which[cell == 0], minlength=len(unique))
    target = size[cell == 0].sum() * min(0.01, args.val_fraction)
    for i in np.flatnonzero((cell == 0) & known).tolist():  # places are in the order of a hash already
        if target > 0 and left[which[i]] > 1 and size[i] <= 2 * target:
            cell[i], target = 4, target - size[i]
            left[which[i]] -= 1
    return cell, policy, first


def hold_out(group, size, fraction, seed):
    """A boolean per document: whole groups, in the order of a hash, until they hold this fraction of the bytes."""
    unique, which = np.unique(group, return_inverse=True)
    if fraction == 0 or len(unique) < 2:
        return np.zeros(len(group), dtype=bool)
    sizes = np.bincount(which, weights=size)
    order = np.argsort([hash64(f"{seed} split {g}".encode()) for g in unique.tolist()], kind="stable")
    target, held, chosen = fraction * sizes.sum(), 0.0, []
    for g in order:
        if held < target and held + sizes[g] <= 1.5 * target:  # a company too large for the rest stays in training
            chosen.append(g)
            held += sizes[g]
    return np.isin(which, chosen or [np.argmin(sizes)])


def first_new_day(val_from, day, size):
    """The first day of the new years, or None. "auto": the last year of at least five, if it has at most 15 %."""
    dated = day != UNDATED
    if val_from == "none" or not dated.any():
        return None
    if val_from != "auto":
        return day_of(val_from)
    years = day[dated].astype("datetime64[D]").astype("datetime64[Y]")
    first = int(years.max().astype("datetime64[D]").astype(np.int64))
    share = size[dated & (day >= first)].sum() / size.sum()
    return first if size[dated].sum() > 0.9 * size.sum() and len(np.unique(years)) >= 5 and share <= 0.15 else None
