"""
Files of many kinds -> documents, in memory that does not grow with the files.

    inputs, skipped = list_inputs(paths)       # what there is to read, under which licence, in parts
    for document in documents(path, part):     # {"id", "text", "meta"}, or a Skip that says why there is none

Text and Markdown, HTML and SEC filings of every decade (through edgar.py), JSON, JSONL and parquet are read. Large
files are cut up, so that all cores share one file and none holds it: JSONL and plain text by byte ranges that end at a
line or a paragraph, parquet by row groups. Nothing is dropped silently: a file or record without a document yields its
reason.
"""
import collections
import datetime
import functools
import json
import os
import re

import edgar

TEXT_KEYS = ("text", "content", "body", "document", "article", "raw_content", "page_content", "markdown", "passage")
ID_KEYS = ("id", "doc_id", "metadata_accession-number", "accession", "filename", "url", "title")
META_KEYS = {  # what is known of a document, under the names that corpora use; nothing else of a record is kept
    "company_name": "company", "conformed_name": "company", "company_conformed_name": "company", "company": "company",
    "central_index_key": "cik", "cik": "cik", "standard_industrial_classification": "sic", "sic": "sic",
    "metadata_accession-number": "accession", "accession": "accession", "metadata_filing-date": "filed",
    "filing_date": "filed", "filed": "filed", "date": "filed", "metadata_period": "period",
    "period_of_report": "period", "period": "period", "filing_type": "form", "form": "form", "url": "url",
    "license": "licence", "licence": "licence", "licenses": "licence", "license_name": "licence"}
SECTION = re.compile(r"(?:item|section)_(\d{1,2}[A-C]?)", re.I)  # EDGAR-CORPUS and edgar-crawler keep items apart
PART = 16 << 20  # bytes of a file that one task reads, more or less
LARGEST = 256 << 20  # a document or line beyond this many bytes is skipped


class Skip(ValueError):
    """Why a file or a record yields no document."""


# ----------------------------------------------------------------------------------------------------------------------
# What there is to read


def list_files(paths):
    """Files named, and files inside folders named, hidden ones aside, in an order that does not depend on the disk."""
    for path in paths:
        if os.path.isdir(path):
            visited = set()  # links to folders are followed, each folder once
            for folder, folders, files in os.walk(path, followlinks=True):
                folders[:] = sorted(f for f in folders if not f.startswith("."))
                if os.path.realpath(folder) in visited:
                    folders.clear()
                    continue
                visited.add(os.path.realpath(folder))
                if "job.json" in files or {"manifest.json", "tokenizer.json"} <= {*files}:  # what prepare.py writes
                    folders.clear()
                    continue
                if "fetch.jsonl" in files:  # written by `prepare.py edgar`: its filings are beside its bookkeeping
                    folders[:], files = [f for f in folders if f == "filings"], []
                yield from (os.path.join(folder, f) for f in sorted(files)
                            if not f.startswith(".") and f != "source.json")
        elif os.path.exists(path):
            yield path
        else:
            raise FileNotFoundError(f"there is no file or folder {path}; check the path")


def parts_of(path):
    """The parts of a file that can be read on their own, (part, bytes) each; Skip if it can't be read at all."""
    ending = os.path.splitext(path)[1].lower()
    if ending not in READERS:
        raise Skip(f"files of type {ending or 'without an ending'} are not read")
    if not os.path.isfile(path):
        raise Skip("not a regular file")
    if not os.access(path, os.R_OK):
        raise Skip("no permission to read it")
    size = os.path.getsize(path)
    if size == 0:
        raise Skip("empty file")
    if ending == ".parquet":
        if not (parts := list(parquet_parts(path))):
            raise Skip("no rows in it")
        return parts
    if ending in (".jsonl", ".ndjson") or size > 4 * PART and is_plain_text(path):
        return [((a, min(a + PART, size)), min(PART, size - a)) for a in range(0, size, PART)]
    return [(None, size)]


def is_plain_text(path):
    with open(path, "rb") as f:
        head = f.read(4096)
    return (path.lower().endswith((".txt", ".md", ".text")) and b"\0" not in head
            and not edgar.looks_like_filing(head.decode("latin-1")))


def documents(path, part=None, tables="short"):
    """The documents of a part of a file; what can't be read comes as a Skip. OSError where the disk fails."""
    try:
        yield from READERS[os.path.splitext(path)[1].lower()](path, part, tables)
    except ValueError as e:  # the rest of the part is unreadable
        yield e if isinstance(e, Skip) else Skip(str(e))


# ----------------------------------------------------------------------------------------------------------------------
# The inputs, and under which licence they come

VERSION = r"(?:[- ]?v?(?:ersion )?\d[\d.]*)?(?: international)?(?: license)?"
PUBLIC = re.compile(r"(?i)public domain|public record(?: \(sec edgar\))?|synthetic|u\.?s\.? government work|"
                    rf"(?:cc0|cc[- ]by(?:[- ]sa)?|odc-by|odbl|pddl|mit|apache|bsd(?:[- ][23][- ]clause)?){VERSION}")


def is_public(licence):
    """Is this, to the letter, the name of a licence that lets anyone train on the text?"""
    return bool(PUBLIC.fullmatch(licence.strip()))


def list_inputs(paths, licence="", public_only=False):
    """What each file is (path, size, time, licence, url, parts), and those that can't be read, with the reason."""
    read_source.cache_clear()
    fetch_log.cache_clear()
    inputs, skipped = [], []
    for path in dict.fromkeys(list_files(paths)):
        try:
            parts = parts_of(path)
        except Skip as e:
            skipped.append(dict(path=path, reason=str(e)))
            continue
        stated, url = provenance(path)
        modified = datetime.datetime.fromtimestamp(os.path.getmtime(path), datetime.timezone.utc)
        inputs.append(dict(path=path, bytes=os.path.getsize(path), modified=modified.date().isoformat(),
                           time=os.stat(path).st_mtime_ns, licence=stated or licence or "not stated", url=url,
                           parts=parts))
    if not inputs:
        first = f" ({skipped[0]['path']}: {skipped[0]['reason']})" if skipped else ""
        raise ValueError(f"nothing to read in {' '.join(paths)}{first}; "
                         f"name {' '.join(sorted(READERS))} files")
    if public_only:
        private = [f for f in inputs if not is_public(f["licence"])]
        if private:
            raise ValueError(f"--public_only: {len(private)} of {len(inputs)} files state no public licence, the first "
                             f"is {private[0]['path']} ({private[0]['licence']}); give --licence, or put a source.json "
                             'with {"licence": ...} into its folder')
    return inputs, skipped


def provenance(path):
    """(licence, url) of a file, by the source.json of its folder or one above, and the fetch log beside that."""
    folder = os.path.dirname(os.path.abspath(path))
    for _ in range(4):
        if source := read_source(folder):
            fetched = fetch_log(folder).get(os.path.relpath(os.path.abspath(path), folder))
            return str(source.get("licence") or ""), fetched
        folder = os.path.dirname(folder)
    return None, None


@functools.lru_cache(64)
def read_source(folder):
    try:
        with open(os.path.join(folder, "source.json")) as f:
            source = json.load(f)
        return source if isinstance(source, dict) else None
    except (OSError, ValueError):
        return None


@functools.lru_cache(4)
def fetch_log(folder):
    urls = {}
    try:
        with open(os.path.join(folder, "fetch.jsonl")) as f:
            for line in f:
                record = json.loads(line)
                urls[record["path"]] = record["url"]
    except (OSError, ValueError, KeyError, TypeError):  # no log, or the line that a kill cut short
        pass
    return urls


def bundles(inputs):
    """Parts of files, together some 16 MB: a list of ([(path, part, url, licence, (size, time)), ...], bytes)."""
    found, current, total = [], [], 0
    for source in inputs:
        for part, size in source["parts"]:
            listed = source["bytes"], source["time"]
            current.append((source["path"], part, source["url"], source["licence"], listed))
            total += size
            if total >= PART:
                found.append((current, total))
                current, total = [], 0
    return found + [(current, total)] * bool(current)


# ----------------------------------------------------------------------------------------------------------------------
# Readers


def read_text(path, part, tables):
    name = os.path.basename(path)
    if part:
        start, end = part
        with open(path, "rb") as f:
            start, end = (paragraph_after(f, at) for at in (start, end))
            f.seek(start)
            raw = f.read(end - start)
        if raw.strip():
            yield {"id": f"{name}@{start}", "text": decode(raw), "meta": {"file": path}}
        return
    raw = read_whole(path)
    if path.lower().endswith((".htm", ".html", ".nc")) or (
            not path.lower().endswith(".md") and edgar.looks_like_filing(raw[:4096].decode("latin-1"))):
        yield edgar.parse_filing(raw, os.path.splitext(name)[0], tables)
        return
    if b"\0" in raw[:4096] and not raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Skip("binary content, not text")
    yield {"id": name, "text": decode(raw), "meta": {}}


def read_whole(path):
    if os.path.getsize(path) > LARGEST:
        raise Skip(f"a single document of more than {LARGEST >> 20} MB")
    with open(path, "rb") as f:
        return f.read()


def paragraph_after(f, at):
    """Where the first paragraph at or after this byte begins (0 for 0), so that two neighbouring parts agree on it."""
    if at == 0 or at >= os.fstat(f.fileno()).st_size:
        return at
    f.seek(max(at - 2, 0))
    window = f.read(1 << 20)
    for separator in (b"\n\n", b"\r\n\r\n", b"\n", b" "):
        if (found := window.find(separator)) >= 0:
            return max(at - 2, 0) + found + len(separator)
    character = re.search(rb"[\0-\x7f\xc0-\xff]", window[2:])  # a megabyte without a space: where UTF-8 lets us
    return at + (character.start() if character else 0)


def tidy(text):
    """Plain line ends, no NUL, nothing blank at either end: what every text is brought to before anything counts."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "").strip()


def decode(raw):
    """
    Bytes of unknown origin -> text: UTF-8 or UTF-16 by its mark, otherwise the Windows code page of old office files.
    """
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", errors="replace")
    return raw.decode("utf-8-sig", "edgar-cp1252")  # byte by byte: one that is wrong costs no more than itself


def read_json(path, part, tables):
    try:
        content = json.loads(decode(read_whole(path)))
    except (ValueError, RecursionError):
        raise Skip("not valid JSON") from None
    records = content if isinstance(content, list) else [content]
    for i, record in enumerate(records):
        yield from read_record(record, f"{os.path.basename(path)}#{i}", tables)


def read_jsonl(path, part, tables="short"):
    """The records whose lines start in the bytes [part[0], part[1]) of the file."""
    start, end = part
    with open(path, "rb") as f:
        if start:
            f.seek(start - 1)
            skip_line(f)  # the line that was begun before belongs to the part before
        while (at := f.tell()) < end and (line := f.readline(LARGEST)):
            if len(line) == LARGEST:
                skip_line(f)
                yield Skip(f"a line of more than {LARGEST >> 20} MB")
                continue
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                yield Skip("a line that is no JSON")
                continue
            yield from read_record(record, f"{os.path.basename(path)}@{at}", tables)


def skip_line(f):
    while (line := f.readline(1 << 20)) and not line.endswith(b"\n"):
        pass


def damaged(error):
    return Skip(f"damaged parquet ({(str(error).splitlines() or [''])[0][:120]})")


def parquet_columns(file):
    """(the columns that may hold text, likeliest first; those of the metadata). Skip if there is no text."""
    names = {n.lower(): n for n in reversed(file.schema_arrow.names)}
    text = [names[k] for k in TEXT_KEYS if k in names] or [n for k, n in names.items() if SECTION.fullmatch(k)]
    if not text:
        raise Skip(f"no text column ({', '.join(TEXT_KEYS[:4])}, ...) among {', '.join(list(names)[:8])}")
    return text, [names[k] for k in dict.fromkeys([*ID_KEYS, *META_KEYS, "meta", "metadata_filer"]) if k in names]


def open_parquet(path):
    import pyarrow.parquet as pq

    return pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)  # page by page, not a column chunk at once


def group_size(file, group):
    """(rows, bytes) of a row group. What pyarrow knows of its columns is not asked: there, damage ends the process."""
    found = file.metadata.row_group(group)
    if found.num_rows < 0 or found.num_rows > 2**40:
        raise damaged("impossible number of rows")
    return found.num_rows, max(1, found.total_byte_size)


def parquet_parts(path):
    """
    ((row group, first row, end row), bytes). Slices are large: who wants the last rows must unpack all before.
    """
    try:
        file = open_parquet(path)
        parquet_columns(file)
        for group in range(file.metadata.num_row_groups):
            rows, size = group_size(file, group)
            size = min(size, 1000 * os.path.getsize(path))  # nothing packs better; a damaged size may be any number
            step = max(1, min(rows * 8 * PART // size, 50_000))
            for first in range(0, rows, step):
                yield (group, first, min(first + step, rows)), size * min(step, rows - first) // rows
    except Skip:
        raise
    except Exception as e:  # what a library says of damaged bytes has many classes
        raise damaged(e) from None


def read_parquet(path, part, tables):
    """
    Some rows of a row group. Of several text columns the first is read; the others only for rows where it is empty: a
    raw filing beside its text is most of such a file.
    """
    group, first, end = part
    name, wanted, done = os.path.basename(path), range(first, end), 0
    try:
        file = open_parquet(path)
        text, meta = parquet_columns(file)
        others = [] if SECTION.fullmatch(text[0]) else text[1:]
        while wanted:
            columns, empty = [c for c in text if c not in others], []
            for row, record in parquet_rows(file, group, columns, meta, wanted):
                if others and not str(record[columns[0]] or "").strip():
                    empty.append(row)
                else:
                    yield from read_record(record, f"{name}#{group}.{row}", tables)
                    done += 1
            text, others, wanted = others, [], empty
    except Skip:
        raise
    except Exception as e:
        raise Skip(f"{damaged(e)}; {end - first - done} rows are lost") from None


def parquet_rows(file, group, columns, meta, wanted):
    """(row, record) of the wanted rows, in order. Memory holds a few of them, and the page that they are packed in."""
    rows, size = group_size(file, group)
    batches = file.iter_batches(batch_size=max(1, min(1000, rows * (PART // 4) // size)), row_groups=[group],
                                columns=columns + meta, use_threads=False)
    start, wanted = 0, collections.deque(wanted)
    for batch in batches:
        while wanted and wanted[0] < start + len(batch):
            row = wanted.popleft()
            yield row, batch.slice(row - start, 1).to_pylist()[0]
        start += len(batch)
        if not wanted:
            break


def read_record(record, where, tables="short"):
    """
    One JSON object or parquet row -> a document. Text is taken as it is, unless it is a raw filing or HTML.
    """
    record = {str(k).lower(): v for k, v in record.items()} if isinstance(record, dict) else {"text": record}
    texts = (record.get(k) for k in TEXT_KEYS)
    text = next((t for t in texts if isinstance(t, str) and t.strip()), None)
    text, items = (text, given_items(record, text)) if text else joined_items(record)
    if not text:
        yield Skip(f"a record without text (none of {', '.join(TEXT_KEYS[:4])}, ...)")
        return
    name = next((str(record[k]) for k in ID_KEYS if record.get(k)), where)
    document = {"id": name, "text": text, "meta": {"items": items} if items else {}}
    if edgar.looks_like_filing(text[:4096]):
        try:
            document = edgar.parse_filing(text, name, tables)
        except ValueError as e:
            yield Skip(str(e))
            return
    document["meta"] |= record_metadata(record)
    yield document


def joined_items(record):
    """The text of a filing kept as item_1, item_1A, ... or section_1, ..., and where each item lies in it."""
    text, items = "", {}
    for key, value in record.items():
        if (found := SECTION.fullmatch(key)) and isinstance(value, str) and (value := tidy(value)):
            text += "\n\n" * bool(text)
            items[found[1].upper()] = {"span": [len(text), len(text) + len(value)], "status": "found"}
            text += value
    return text, items


def given_items(record, text):
    """The items of a record that is a document of ours already, those that fit its text, and nothing else of them."""
    items = record["meta"].get("items") if isinstance(record.get("meta"), dict) else None
    found = {}
    for key, item in items.items() if isinstance(items, dict) and text == tidy(text) else ():
        spans = {k: item[k] for k in ("span", "heading") if isinstance(item, dict) and k in item}
        if "span" in spans and all(is_span(span, len(text)) for span in spans.values()):
            found[str(key)[:9]] = spans | {"status": str(item.get("status"))[:20]}
    return found


def is_span(span, size):
    return (isinstance(span, list) and len(span) == 2 and all(isinstance(i, int) for i in span)
            and 0 <= span[0] <= span[1] <= size)


def record_metadata(record):
    """
    cik, company, filed, ... of a record: of its own keys, its `meta` or `metadata`, its filers (JSON in some corpora).
    Companies named besides the first are co_registrants and former_names: for the split they are one company.
    """
    filers = record.get("metadata_filer")
    try:
        filers = json.loads(filers) if isinstance(filers, str) else filers
    except (ValueError, RecursionError):
        filers = None
    values = {}
    filers = filers if isinstance(filers, list) else [filers]
    for tree in (record, record.get("meta"), record.get("metadata"), *filers):
        for key, value in known_values(tree) if isinstance(tree, dict) else ():
            values.setdefault(META_KEYS[key], []).append(value)
    ciks = [cik.removesuffix(".0") for cik in values.get("cik", [])]  # a column of floats
    ciks = [cik.zfill(10) if cik.isdigit() else cik for cik in dict.fromkeys(ciks)]
    names, own = list(dict.fromkeys(values.get("company", []))), record.get("meta")
    found = {key: several[0] for key, several in values.items()} | dict(zip(["cik"], ciks, strict=False))
    if len({*values.get("licence", [])}) > 1:
        found["licence"] = " and ".join(dict.fromkeys(values["licence"]))
    lists = {k: [str(v) for v in own[k]] for k in ("co_registrants", "former_names", "people")
             if isinstance(own, dict) and isinstance(own.get(k), list)}
    more = {"co_registrants": ciks[1:], "former_names": names[1:]}
    return found | lists | {k: [*lists.get(k, []), *v] for k, v in more.items() if v}


def known_values(tree, depth=0):
    """The (key, text) pairs of nested dicts: filers are flat in some corpora and follow the SGML header in others."""
    for key, value in tree.items():
        key = str(key).lower().replace(" ", "_")
        if META_KEYS.get(key) == "licence" and isinstance(value, list | dict):
            yield key, json.dumps(value, default=str)  # no licence that anybody would call public
        elif isinstance(value, dict) and depth < 8 and key not in ("meta", "metadata", "items"):
            yield from known_values(value, depth + 1)
        elif key in META_KEYS and isinstance(value, str | int | float | datetime.date) and str(value).strip():
            yield key, str(value)[:200]


READERS = {".txt": read_text, ".md": read_text, ".text": read_text,
           ".htm": read_text, ".html": read_text, ".nc": read_text,
           ".json": read_json, ".jsonl": read_jsonl, ".ndjson": read_jsonl, ".parquet": read_parquet}
