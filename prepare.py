"""
Turn documents into token shards that train.py reads.

    python prepare.py corpus PATH... --out data/sec --tokenizer bpe:8192     # files or folders
    python prepare.py synth --out data/filings                               # synthetic 10-K filings to try things on

`corpus` reads .txt .md, .htm .html (SEC filings and other pages), full-submission .txt .nc, .jsonl and .parquet, and
writes the data directory that data.py describes. What it does, in order:

    read      each input is a task for one of the workers, which cleans its documents and puts their text
              into a spool file
    plan      the parent sees 48 bytes a document, its hashes and place: it drops exact duplicates,
              holds out whole companies for validation, and shuffles everything by a hash of seed and content
    encode    workers encode documents in shuffled order; the parent appends the tokens to shards

No step holds more than a few documents per worker in memory, and since order and split depend on content and seed
alone, the output is the same, byte for byte, for any number of workers.
"""
import collections
import concurrent.futures
import datetime
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import time

import numpy as np
from tqdm import tqdm

import cli
import data

VERSION = "0.1"
TEXT_KEYS = ("text", "content", "body", "document", "article", "raw_content", "page_content", "markdown", "passage")
ID_KEYS = ("id", "doc_id", "metadata_accession-number", "accession", "filename", "url", "title")
JSONL_TASK_BYTES = 64 << 20  # a large JSONL file is cut into tasks of this size

# ----------------------------------------------------------------------------------------------------------------------
# Readers: a file -> documents {"id", "text", "meta"}. A record that can't be read is a Skip, counted by its reason.


class Skip(ValueError):
    """Why a file or a record yields no document."""


def read_text(path, part):
    import edgar

    with open(path, "rb") as f:
        raw = f.read()
    name = os.path.basename(path)
    markup = path.lower().endswith((".htm", ".html", ".nc"))
    if markup or (not path.lower().endswith(".md") and edgar.looks_like_filing(raw[:4096].decode("latin-1"))):
        yield edgar.parse_filing(raw, os.path.splitext(name)[0])
        return
    if b"\0" in raw[:4096] and not raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Skip("binary content, not text")
    yield {"id": name, "text": decode(raw), "meta": {}}


def decode(raw):
    """
    Bytes of unknown origin -> text: UTF-8 or UTF-16 by its mark, otherwise the Windows code page of old office files.
    """
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", errors="replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")


def read_jsonl(path, part):
    """The records whose lines start in the bytes [part[0], part[1]) of the file."""
    start, end = part
    with open(path, "rb") as f:
        if start:
            f.seek(start - 1)
            f.readline()  # the line that was begun before belongs to the part before
        while f.tell() < end and (line := f.readline()):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError:
                yield Skip("a line that is no JSON")
                continue
            yield from read_record(record, f"{os.path.basename(path)}@{f.tell() - len(line)}")


def read_parquet(path, part):
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        text = [k for k in TEXT_KEYS if k in names]
        if not text:
            raise Skip(f"no text column ({', '.join(TEXT_KEYS[:4])}, ...) among {', '.join(names[:8])}")
        columns = [n for n in names
                   if n in text or n in ID_KEYS or n in ("cik", "company") or n.startswith("metadata_")]
        row = 0
        for batch in file.iter_batches(batch_size=16, row_groups=[part], columns=columns):
            for record in batch.to_pylist():
                yield from read_record(record, f"{os.path.basename(path)}#{part}.{row}")
                row += 1
    except (pa.ArrowException, OSError) as e:
        raise Skip(f"damaged parquet ({str(e).splitlines()[0][:120]})") from None


def read_record(record, where):
    """
    One JSON object or parquet row -> a document. `text` is taken as clean; other columns that hold raw HTML are read.
    """
    import edgar

    if isinstance(record, str):
        record = {"text": record}
    text = next((record[k] for k in TEXT_KEYS
                 if isinstance(record, dict) and isinstance(record.get(k), str) and record[k].strip()), None)
    if text is None:
        yield Skip(f"a record without text (none of {', '.join(TEXT_KEYS[:4])}, ...)")
        return
    name = next((str(record[k]) for k in ID_KEYS if record.get(k)), where)
    if edgar.looks_like_filing(text[:4096]):
        try:
            document = edgar.parse_filing(text, name)
        except ValueError as e:
            yield Skip(str(e))
            return
    else:
        document = {"id": name, "text": text, "meta": {}}
    document["meta"] |= filing_metadata(record)
    yield document


def filing_metadata(record):
    """
    cik, company, filed, ... of a record: its own keys, `meta`, and the metadata_* columns of the EDGAR parquet shards.
    """
    meta = dict(record["meta"]) if isinstance(record.get("meta"), dict) else {}
    filer = record.get("metadata_filer")
    if isinstance(filer, str):
        try:
            filer = json.loads(filer)
        except ValueError:
            filer = None
    filer = filer[0] if isinstance(filer, list) and filer else filer
    found = {k.lower().replace(" ", "_"): v for k, v in find_values(filer)} if isinstance(filer, dict) else {}
    found |= {k.lower(): v for k, v in record.items()
              if k.lower() in ("cik", "company", "form", "filed", "period", "accession")}
    for key, names in {"cik": ("cik", "central_index_key"),
                       "company": ("company", "company_conformed_name", "company_name", "name"),
                       "sic": ("sic", "standard_industrial_classification"), "form": ("form",),
                       "accession": ("accession",), "filed": ("filed",), "period": ("period",)}.items():
        value = next((found[n] for n in names if found.get(n)), None)
        if value is not None:
            meta[key] = str(value)
    for key, column in {"accession": "metadata_accession-number", "filed": "metadata_filing-date",
                        "period": "metadata_period"}.items():
        if record.get(column):
            meta[key] = str(record[column])
    if str(meta.get("cik", "")).isdigit():
        meta["cik"] = meta["cik"].zfill(10)
    return meta


def find_values(tree):
    """
    The (key, scalar) pairs of nested dicts:
    filer metadata is flat in some corpora and follows the SGML header in others.
    """
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from find_values(value)
        elif isinstance(value, str | int):
            yield key, value


READERS = {".txt": read_text, ".md": read_text, ".text": read_text,
           ".htm": read_text, ".html": read_text, ".nc": read_text,
           ".jsonl": read_jsonl, ".ndjson": read_jsonl, ".parquet": read_parquet}


def list_inputs(paths):
    """Files named, and files inside folders named, in an order that does not depend on the file system."""
    for path in paths:
        if os.path.isdir(path):
            for folder, folders, files in os.walk(path):
                folders[:] = sorted(f for f in folders if not f.startswith("."))
                yield from (os.path.join(folder, f) for f in sorted(files) if not f.startswith("."))
        elif os.path.exists(path):
            yield path
        else:
            raise FileNotFoundError(f"there is no file or folder {path}; check the path")


def tasks_of(path):
    """The parts of a file that can be read on their own: row groups of a parquet file, byte ranges of a JSONL file."""
    ending = os.path.splitext(path)[1].lower()
    if ending not in READERS:
        raise Skip(f"files of type {ending or 'without an ending'} are not read")
    if not os.path.isfile(path):
        raise Skip("not a regular file")
    if not os.access(path, os.R_OK):
        raise Skip("no permission to read it")
    if os.path.getsize(path) == 0:
        raise Skip("empty file")
    if READERS[ending] is read_jsonl:
        size = os.path.getsize(path)
        return [(path, (a, min(a + JSONL_TASK_BYTES, size))) for a in range(0, size, JSONL_TASK_BYTES)]
    if READERS[ending] is read_parquet:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return [(path, i) for i in range(pq.ParquetFile(path).num_row_groups)]
        except (pa.ArrowException, OSError) as e:
            raise Skip(f"damaged parquet ({str(e).splitlines()[0][:120]})") from None
    return [(path, None)]


# ----------------------------------------------------------------------------------------------------------------------
# Read: documents into spool files

PLACE = np.dtype([("order", "u8"), ("text", "u8"), ("owner", "u8"), ("name", "u8"),
                  ("task", "u4"), ("offset", "u8"), ("size", "u4"), ("about", "u8")])


def hash64(*parts):
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(str(part).encode("utf-8", "replace") + b"\0")
    return int.from_bytes(digest.digest(), "little")


def spool(task, path, part, folder, seed):
    """
    Worker: read one task, write its texts to folder/<task>.txt and a line about each to folder/<task>.jsonl. Returns
    what the parent needs: the places (a PLACE array) and the reasons for skips with their counts.
    """
    places, skips = [], collections.Counter()
    with (open(os.path.join(folder, f"{task}.txt"), "wb") as texts,
          open(os.path.join(folder, f"{task}.jsonl"), "wb") as lines):
        try:
            for document in READERS[os.path.splitext(path)[1].lower()](path, part):
                if isinstance(document, Skip):
                    skips[str(document)] += 1
                    continue
                text = document["text"].replace("\r\n", "\n").replace("\r", "\n").replace("\0", "").strip()
                raw = text.encode("utf-8", "replace")  # lone surrogates, legal in JSON, have no UTF-8
                if not raw:
                    skips["no text in it"] += 1
                    continue
                meta = document["meta"]
                digest = hash64(raw.decode())
                owner = hash64("cik", meta["cik"]) if meta.get("cik") else 0
                name = hash64("name", company_key(meta["company"])) if meta.get("company") else 0
                places.append((hash64(seed, digest), digest, owner, name, task, texts.tell(), len(raw), lines.tell()))
                texts.write(raw)
                about = {"id": document["id"], "source": os.path.basename(path), "bytes": len(raw), **meta}
                lines.write(json.dumps(about, ensure_ascii=True).encode() + b"\n")
        except (ValueError, RecursionError, MemoryError) as e:
            # the file as a whole is unreadable; OSError ends the run
            skips[str(e) or type(e).__name__] += 1
    return np.array(places, dtype=PLACE), skips


def company_key(name):
    """A company's name without what changes from filing to filing: case, punctuation, the kind of company."""
    words = "".join(c if c.isalnum() else " " for c in name.upper().replace("'", "").replace(".", "")).split()
    while len(words) > 1 and words[-1] in ("INC", "CORP", "CORPORATION", "CO", "COMPANY", "LTD", "LLC", "LP", "PLC",
                                           "NEW", "DE", "THE"):
        words.pop()
    return " ".join(words)


# ----------------------------------------------------------------------------------------------------------------------
# Plan: duplicates, split, order


def companies(places):
    """
    A group number per document: documents that share a CIK or a company name, directly or through others, are one.
    """
    parent = {}

    def find(x):
        while parent.setdefault(x, x) != x:
            parent[x] = x = parent[parent[x]]
        return x

    for owner, name in np.unique(places[["owner", "name"]]).tolist():
        if owner and name:
            a, b = sorted((find(owner), find(name)))
            parent[b] = a
    keys = np.where(places["owner"] > 0, places["owner"], places["name"])
    keys = np.where(keys > 0, keys, places["text"])  # nothing known: a document is on its own
    unique, which = np.unique(keys, return_inverse=True)
    return np.array([find(int(k)) for k in unique], dtype=np.uint64)[which]


def hold_out(places, fraction, seed):
    """A boolean per document: whole companies, in the order of a hash, until they hold this fraction of the bytes."""
    group = companies(places)
    if len(np.unique(group)) == 1:
        group = places["text"]  # a single company: its documents, which is all the separation there can be
    unique, which = np.unique(group, return_inverse=True)
    if fraction == 0 or len(unique) < 2:
        return np.zeros(len(places), dtype=bool)
    sizes = np.bincount(which, weights=places["size"])
    order = np.argsort([hash64(seed, "split", int(g)) for g in unique], kind="stable")
    target, held, chosen = fraction * sizes.sum(), 0.0, []
    for g in order:
        if held < target and held + sizes[g] <= 1.5 * target:  # a company too large for the rest stays in training
            chosen.append(g)
            held += sizes[g]
    return np.isin(which, chosen or [np.argmin(sizes)])


def cut_in_two(place, folder, fraction):
    """The places of both parts of a single document, the last `fraction` of it cut off at the end of a paragraph."""
    cut = int(place["size"][0] * (1 - fraction))
    with open(os.path.join(folder, f"{place['task'][0]}.txt"), "rb") as f:
        f.seek(int(place["offset"][0]) + cut)
        rest = f.read(int(place["size"][0]) - cut)
    for separator in (b"\n\n", b"\n", b" "):
        if 0 <= rest.find(separator) < len(rest) - len(separator):
            cut += rest.find(separator) + len(separator)
            parts = np.repeat(place, 2)
            parts["size"] = cut, place["size"][0] - cut
            parts["offset"][1] += cut
            return parts
    return place


def plan(found, args, folder):
    """(places in shuffled order, a boolean per place: held out?, duplicates dropped, the split policy in words)."""
    _, first = np.unique(found["text"], return_index=True)
    places = found[np.sort(first)]
    places = places[np.argsort(places["order"], kind="stable")]
    held = hold_out(places, args.val_fraction, args.seed)
    share = f"until {args.val_fraction:.2%} of the bytes are held out"
    policy = ("whole companies (joined by CIK or name; a document of no known company is its own), "
              f"in the order of a seeded hash, {share}")
    if len(places) == 1 and args.val_fraction:
        places = cut_in_two(places, folder, args.val_fraction)
        held = np.array([False, True])[: len(places)]
        policy = f"the end of the only document, {args.val_fraction:.2%} of its bytes"
    elif len(np.unique(companies(places))) == 1:
        policy = f"documents of the only company, so the split shares its habits, {share}"
    return places, held, len(found) - len(first), policy if held.any() else "no validation split"


# ----------------------------------------------------------------------------------------------------------------------
# Encode

WORKER = {}  # what a worker keeps between calls: its tokenizer


def encode_documents(folder, places, tokenizer_json):
    """Worker: the documents at these places -> a list of (token ids with end-of-text, line about it)."""
    if WORKER.get("json") != tokenizer_json:
        WORKER.update(json=tokenizer_json, tokenizer=data.Tokenizer(json.loads(tokenizer_json), "spool"))
    tokenizer = WORKER["tokenizer"]
    end = tokenizer.dtype(tokenizer.end_of_text)
    return [(np.append(tokenizer.encode(text), end), about) for text, about in read_spool(folder, places)]


def read_spool(folder, places):
    for p in places:
        with open(os.path.join(folder, f"{p['task']}.txt"), "rb") as f:
            f.seek(int(p["offset"]))
            text = f.read(int(p["size"])).decode()
        with open(os.path.join(folder, f"{p['task']}.jsonl"), "rb") as f:
            f.seek(int(p["about"]))
            yield text, json.loads(f.readline()) | {"bytes": int(p["size"])}


def batches(places, max_bytes=4 << 20, max_documents=1000):
    """Cut the places into slices that are worth a worker's trip."""
    start, size = 0, 0
    for i, p in enumerate(places):
        if i > start and (size + p["size"] > max_bytes or i - start >= max_documents):
            yield places[start:i]
            start, size = i, 0
        size += int(p["size"])
    if start < len(places):
        yield places[start:]


def in_order(pool, function, calls, ahead):
    """pool.map for many calls: results in order, with at most `ahead` calls under way, so that memory stays bounded."""
    waiting = collections.deque()
    for call in calls:
        waiting.append(pool.submit(function, *call))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def choose_tokenizer(name, folder, places, sample_bytes=256 << 20):
    if name == "gpt2":
        return data.Tokenizer.gpt2()
    if name.startswith("bpe:"):
        if not name[4:].isdigit():
            raise ValueError(f"--tokenizer {name}: give the vocabulary size as a number, as in bpe:8192")
        count = max(1, int(np.searchsorted(np.cumsum(places["size"]), sample_bytes)))
        return data.Tokenizer.train((text for text, _ in read_spool(folder, places[:count])), int(name[4:]))
    if not os.path.isdir(name):
        raise ValueError(f"--tokenizer {name} is neither gpt2, nor bpe:N, nor a directory with a tokenizer.json")
    return data.Tokenizer.load(name)


def check_tokenizer(tokenizer, folder, places, sample_bytes=1 << 20):
    """Encode a sample with both engines: what tiktoken gives must be what tokenizer.json means to everybody else."""
    count = max(1, int(np.searchsorted(np.cumsum(places["size"]), sample_bytes)))
    for text, about in read_spool(folder, places[:count]):
        text = text[:sample_bytes]
        if tokenizer.encode(text).tolist() != tokenizer.slow.encode(text, add_special_tokens=False).ids:
            raise ValueError(f"tokenizer.json and its fast form disagree on {about['id']}; please report this text")


# ----------------------------------------------------------------------------------------------------------------------
# Commands


def corpus(args):
    began = time.time()
    out = args.out.rstrip("/")
    if os.path.exists(out) and (not os.path.isdir(out) or os.listdir(out)):
        raise ValueError(f"{out} already exists; remove it, or choose another --out")
    work = out + ".partial"
    shutil.rmtree(work, ignore_errors=True)
    folder = os.path.join(work, "spool")
    os.makedirs(folder)
    # workers leave Ctrl-C to the parent, which cancels what has not begun
    pool = concurrent.futures.ProcessPoolExecutor(args.workers, mp_context=multiprocessing.get_context("spawn"),
                                                  initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
    try:
        build(args, work, folder, pool)
        pool.shutdown()
        shutil.rmtree(folder)
        if os.path.isdir(out):
            os.rmdir(out)
        os.rename(work, out)
    except concurrent.futures.process.BrokenProcessPool:
        shutil.rmtree(work, ignore_errors=True)
        raise ValueError("a worker was killed, most likely for lack of memory; use fewer --workers") from None
    except BaseException:
        pool.shutdown(cancel_futures=True)
        shutil.rmtree(work, ignore_errors=True)
        raise
    print(f"wrote {out} in {time.time() - began:.0f} s; train on it with: "
          f"python train.py --data {out} --out runs/NAME")


def build(args, work, folder, pool):
    """Read, plan, encode, and write the manifest, all inside the folder `work`."""
    found, sources, skipped = read_all(args, folder, pool)
    if len(found) == 0:
        raise ValueError(f"no readable document in {' '.join(args.paths)} "
                         f"({skipped[0]['path']}: {skipped[0]['reason']})")
    places, held, duplicates, policy = plan(found, args, folder)
    print(f"{len(places):,} documents, {places['size'].sum() / 1e6:,.1f} MB of text; "
          f"{duplicates:,} exact duplicates dropped")
    tokenizer = choose_tokenizer(args.tokenizer, folder, places[~held])
    check_tokenizer(tokenizer, folder, places[~held])
    tokenizer.save(work)
    splits = {split: encode_all(split, places[chosen], tokenizer, args, work, folder, pool)
              for split, chosen in (("train", ~held), ("val", held))}
    manifest = dict(
        format_version=data.FORMAT_VERSION, kind="lm", tool=f"tenk {VERSION}",
        tokenizer=dict(name=args.tokenizer, sha256=tokenizer.sha256(), vocab_size=tokenizer.vocab_size,
                       end_of_text=tokenizer.end_of_text, dtype=np.dtype(tokenizer.dtype).name),
        splits=splits, split_policy=policy, seed=args.seed,
        command=dict(command="corpus", paths=args.paths, tokenizer=args.tokenizer, val_fraction=args.val_fraction,
                     seed=args.seed, shard_tokens=args.shard_tokens, licence=args.licence),
        exact_duplicates_dropped=duplicates, skipped=skipped, sources=sources)
    with open(os.path.join(work, "manifest.json"), "w") as f:
        json.dump(manifest, f, indent=1)
    for split, s in splits.items():
        print(f"{split:>6}: {s['tokens']:>13,} tokens  {s['documents']:>9,} documents  {s['companies']:>7,} companies"
              f"  {s['bytes'] / max(1, s['tokens']):.2f} bytes/token")
    print(f" split: {policy}")


def read_all(args, folder, pool):
    """Spool every input: (the PLACE array of all documents, a list of sources, a list of what was skipped and why)."""
    skipped, tasks, sources = [], [], {}
    for path in dict.fromkeys(list_inputs(args.paths)):
        try:
            parts = tasks_of(path)
        except Skip as e:
            skipped.append(dict(path=path, reason=str(e)))
            continue
        modified = datetime.datetime.fromtimestamp(os.path.getmtime(path), datetime.timezone.utc).date().isoformat()
        sources[path] = dict(path=path, bytes=os.path.getsize(path), modified=modified, documents=0, sha256="",
                             licence=args.licence)
        tasks += parts
    if not tasks:
        first = f" ({skipped[0]['path']}: {skipped[0]['reason']})" if skipped else ""
        raise ValueError(f"nothing to read in {' '.join(args.paths)}{first}; "
                         "name .txt .md .html .jsonl or .parquet files")
    print(f"reading {len(sources):,} files with {args.workers} workers")
    calls = ((i, path, part, folder, args.seed) for i, (path, part) in enumerate(tasks))
    results = in_order(pool, spool, calls, 4 * args.workers)
    found = []
    for (path, _), (places, skips) in zip(tasks, tqdm(results, total=len(tasks), unit="task", disable=None),
                                          strict=True):
        found.append(places)
        sources[path]["documents"] += len(places)
        skipped += [dict(path=path, reason=reason, records=n) for reason, n in sorted(skips.items())]
    digests = in_order(pool, data.file_sha256, ((path,) for path in sources), 4 * args.workers)
    for source, digest in zip(sources.values(), digests, strict=True):
        source["sha256"] = digest
    for s in skipped[:20]:
        print(f"  skipped {s['path']}: {s['reason']}" + (f" ({s['records']} times)" if s.get("records", 1) > 1 else ""))
    if len(skipped) > 20:
        print(f"  ... and {len(skipped) - 20} more, all named in the manifest")
    return np.concatenate(found), list(sources.values()), skipped


def encode_all(split, places, tokenizer, args, work, folder, pool):
    """Encode the documents at these places into the shards of a split; returns the split's entry in the manifest."""
    writer = data.ShardWriter(work, split, tokenizer.dtype, args.shard_tokens)
    calls = ((folder, batch, tokenizer.to_json()) for batch in batches(places))
    size = int(places["size"].sum())
    with tqdm(total=size, unit="B", unit_scale=True, desc=f"encoding {split}", disable=None) as bar:
        for encoded in in_order(pool, encode_documents, calls, 4 * args.workers):
            for tokens, about in encoded:
                writer.add(tokens, about)
                bar.update(about["bytes"])
    shards = writer.finish()
    return dict(documents=len(places), companies=len(np.unique(companies(places))), bytes=size,
                tokens=sum(s["tokens"] for s in shards), shards=shards)


def synth(args):
    import synth as synthetic

    if os.path.isdir(args.out) and os.listdir(args.out):
        raise ValueError(f"{args.out} is not empty; remove it, or choose another --out")
    paths = synthetic.write_filings(args.out, n=args.filings, seed=args.seed)
    print(f"wrote {len(paths)} synthetic filings to {args.out}; "
          f"next: python prepare.py corpus {args.out} --out DIR --tokenizer bpe:4096")


def main():
    parser = cli.Parser("prepare.py", __doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    p = commands.add_parser("corpus", help="documents -> token shards", prog="prepare.py corpus",
                            description="Documents -> token shards.")
    p.add_argument("paths", nargs="+", metavar="PATH", help="files and folders to read")
    p.add_argument("--out", required=True, help="the data directory to write")
    p.add_argument("--tokenizer", default="gpt2",
                   help="gpt2, bpe:N (trained on this corpus), or a directory with a tokenizer.json")
    p.add_argument("--val_fraction", type=cli.fraction, default=0.05,
                   help="share of the bytes to hold out, in whole companies")
    p.add_argument("--workers", type=cli.positive(int), default=os.cpu_count(),
                   help="processes; the output does not depend on it")
    p.add_argument("--seed", type=int, default=0, help="of the shuffle and the split")
    p.add_argument("--shard_tokens", type=cli.positive(int), default=100_000_000, help="tokens per shard")
    p.add_argument("--licence", default="not stated", help="the sources' licence, for the manifest")
    p.set_defaults(run=corpus)
    p = commands.add_parser("synth", help="write synthetic 10-K filings", prog="prepare.py synth",
                            description="Synthetic 10-K filings.")
    p.add_argument("--out", required=True, help="the folder to write")
    p.add_argument("--filings", type=cli.positive(int), default=200, help="how many")
    p.add_argument("--seed", type=int, default=0, help="of everything in them")
    p.set_defaults(run=synth)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    cli.run(main)
