"""
The data card: what is in a data directory, where it came from and what was done to it, for people.

Every number comes from manifest.json, which holds the same for machines, with the checksum of every file.
"""
import collections
import shlex


def data_card(manifest):
    """The manifest of a corpus -> the text of its DATA.md."""
    m, splits, command = manifest, manifest["splits"], manifest["command"]
    tokens = sum(s["tokens"] for s in splits.values())
    total = sum(s["bytes"] for s in splits.values())
    lines = ["# Data card", "",
             f"{tokens:,} tokens from {sum(s['documents'] for s in splits.values()):,} documents "
             f"({total / 1e6:,.1f} MB of text), written by {m['tool']}.",
             "This card was generated; manifest.json holds the same and the checksum of every file.", "",
             "## Sources", "", *table("licence | files | documents | MB", by_licence(m["sources"])), ""]
    if any(s["licence"] == "not stated" for s in m["sources"]):
        lines += ["The licence of some sources is not stated. State it with --licence, or refuse such sources with "
                  "--public_only.", ""]
    if m["skipped"]:
        reasons = collections.Counter()
        for s in m["skipped"]:
            reasons[s["reason"]] += s.get("records", 1)
        lines += ["Not read:", "", *table("reason | files or records", reasons.most_common()), ""]
    lines += ["## Split", "", m["split_policy"][0].upper() + m["split_policy"][1:] + ".", "",
              *table("split | what it holds | tokens | documents | companies | companies also in training "
                     "| 13-grams also in training",
                     [(name, HOLDS[name], s["tokens"], s["documents"], s["companies"],
                       s.get("companies_in_training", ""), "" if s.get("overlap") is None else f"{s['overlap']:.1%}")
                      for name, s in splits.items()]), "",
              "13-grams are runs of 13 words, compared by hash"
              + (f", on a sample of {m['overlap_check']['sampled']:.2%} of them" * (m["overlap_check"]["sampled"] < 1))
              + f". Held-out documents that shared more than {m['overlap_check']['dropped_above']:.0%} of theirs with "
              f"training were left out: {sum(s.get('dropped_for_overlap', 0) for s in splits.values()):,}. "
              f"Near-duplicates across the split: {m['near_duplicates_across_split']:,}.", "",
              "## Cleaning", "",
              *table("decision | count", [
                  ("documents read", m["documents_read"]),
                  ("exact duplicates dropped", m["exact_duplicates_dropped"]),
                  ("dropped as the same filing under another name (accession number)", m["same_accession_dropped"]),
                  ("near-duplicates dropped (MinHash of 5-grams, similarity of 0.8 and more; the oldest stays)",
                   m["near_duplicates_dropped"]),
                  ("paragraphs cut that the same company had filed before", m["repeated_paragraphs_cut"]),
                  ("documents dropped because nothing new was left", m["nothing_new_dropped"])]), "",
              f"Tables of filings: {TABLES[command['tables']]}.", "",
              "## Personal data", "", PII["mask" if m["pii"]["deidentify"] else m["pii"]["mode"]], ""]
    if m["pii"]["found"]:
        lines += [*table("kind | found", m["pii"]["found"].items()), ""]
    if m["pii"]["mask_names"]:
        lines += ["Names of those who signed a filing, where it is known, were masked throughout it.", ""]
    if m["pii"]["deidentify"]:
        lines += ["Names, addresses, birth dates and account numbers were masked by rules. Rules miss some; this is "
                  "not anonymisation.", ""]
    report = m["tokenizer"]["bytes_per_token"]
    lines += ["## Tokenizer", "", f"{m['tokenizer']['name']}, {m['tokenizer']['vocab_size']:,} tokens.", "",
              *table("bytes per token | this one | GPT-2's",
                     [(kind, f"{value:.2f}", f"{report['gpt2'][kind]:.2f}" if report.get("gpt2") else "not at hand")
                      for kind, value in report["this"].items() if value]), "",
              "## Made by", "", "```", f"python prepare.py corpus {shlex.join(sorted(command['paths']))}",
              *(f"    --{k}" + f" {shlex.quote(str(v))}" * (v is not True) for k, v in command.items()
                if k not in ("paths", "command") and v != "" and v is not False),
              "```", ""]
    return "\n".join(lines)


HOLDS = {"train": "what models learn from", "val": "new companies", "val_year": "known companies, new years",
         "val_both": "new companies, new years", "val_neither": "known companies, known years, unseen documents"}
TABLES = {"short": "kept where they have at least as many letters as digits", "all": "all kept", "none": "none kept"}
PII = {"mask": "E-mail addresses, phone, social security, IBAN and card numbers were replaced: [EMAIL] and so on.",
       "count": "E-mail addresses, phone, social security, IBAN and card numbers were counted and left in place.",
       "keep": "No personal data was looked for."}


def by_licence(sources):
    """(licence, files, documents, MB) of the sources, largest first."""
    rows = collections.defaultdict(lambda: [0, 0, 0])
    for s in sources:
        row = rows[s["licence"]]
        row[0], row[1], row[2] = row[0] + 1, row[1] + s["documents"], row[2] + s["bytes"]
    ordered = sorted(rows.items(), key=lambda r: -r[1][2])
    return [(licence, files, documents, f"{size / 1e6:,.1f}") for licence, (files, documents, size) in ordered]


def table(head, rows):
    """A table in Markdown; integers are written with thousands separators."""
    def line(cells):
        cells = (f"{c:,}" if isinstance(c, int) else " ".join(str(c).split()).replace("|", "\\|") for c in cells)
        return "| " + " | ".join(cells) + " |"

    names = head.split(" | ")
    return [line(names), "|" + "---|" * len(names), *map(line, rows)]
