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
import threading
import time

import numpy as np
from tqdm import tqdm

import cli
import data

VERSION = "0.1"
TEXT_KEYS = ("text", "content", "body", "document", "article", "raw_content", "page_content", "markdown", "passage")
ID_KEYS = ("id", "doc_id", "metadata_accession-number", "accession", "filename", "url", "title")
META_KEYS = {  # what is known of a filing, under the names that corpora use
    "name": "company", "company_name": "company", "company_conformed_name": "company", "company": "company",
    "central_index_key": "cik", "cik": "cik", "standard_industrial_classification": "sic", "sic": "sic",
    "metadata_accession-number": "accession", "accession": "accession", "metadata_filing-date": "filed",
    "filing_date": "filed", "filed": "filed", "metadata_period": "period", "period": "period",
    "filing_type": "form", "form": "form"}
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
            except (ValueError, RecursionError):
                yield Skip("a line that is no JSON")
                continue
            yield from read_record(record, f"{os.path.basename(path)}@{f.tell() - len(line)}")


def read_parquet(path, part):
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        columns = [n for n in names if n.lower() in (*TEXT_KEYS, *ID_KEYS, *META_KEYS, "meta", "metadata_filer")]
        if not any(n.lower() in TEXT_KEYS for n in columns):
            raise Skip(f"no text column ({', '.join(TEXT_KEYS[:4])}, ...) among {', '.join(names[:8])}")
        row = 0
        for batch in file.iter_batches(batch_size=16, row_groups=[part], columns=columns):
            for record in batch.to_pylist():
                yield from read_record(record, f"{os.path.basename(path)}#{part}.{row}")
                row += 1
    except (pa.ArrowException, OSError) as e:
        raise Skip(f"damaged parquet ({str(e).splitlines()[0][:120]})") from None


def read_record(record, where):
    """
    One JSON object or parquet row -> a document. Text is taken as it is, unless it is a raw filing or HTML.
    """
    import edgar

    record = {k.lower(): v for k, v in record.items()} if isinstance(record, dict) else {"text": record}
    texts = (record.get(k) for k in TEXT_KEYS)
    text = next((t for t in texts if isinstance(t, str) and t.strip()), None)
    if text is None:
        yield Skip(f"a record without text (none of {', '.join(TEXT_KEYS[:4])}, ...)")
        return
    name = next((str(record[k]) for k in ID_KEYS if record.get(k)), where)
    document = {"id": name, "text": text, "meta": {}}
    if edgar.looks_like_filing(text[:4096]):
        try:
            document = edgar.parse_filing(text, name)
        except ValueError as e:
            yield Skip(str(e))
            return
    document["meta"] |= record_metadata(record)
    yield document


def record_metadata(record):
    """cik, company, filed, ... of a record: its `meta`, its filer (JSON in some parquet corpora), its own keys."""
    meta = dict(record["meta"]) if isinstance(record.get("meta"), dict) else {}
    filer = record.get("metadata_filer")
    try:
        filer = json.loads(filer) if isinstance(filer, str) else filer
    except ValueError:
        filer = None
    filer = filer[0] if isinstance(filer, list) and filer else filer
    found = {k.lower().replace(" ", "_"): v for k, v in find_values(filer)} if isinstance(filer, dict) else {}
    found |= {k: v for k, v in record.items() if k in META_KEYS and v not in (None, "")}
    meta |= {META_KEYS[k]: str(v) for k, v in found.items() if k in META_KEYS}
    for key in ("cik", "company"):
        if meta.get(key) is not None:
            meta[key] = str(meta[key])
    cik = meta.get("cik", "").removesuffix(".0")  # a column of floats
    if cik.isdigit():
        meta["cik"] = cik.zfill(10)
    return {k: v for k, v in meta.items() if isinstance(v, list) == (k in ("co_registrants", "former_names"))}


def find_values(tree):
    """The (key, scalar) pairs of nested dicts: filers are flat in some corpora and follow the SGML header in others."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from find_values(value)
        elif isinstance(value, str | int):
            yield key, value


READERS = {".txt": read_text, ".md": read_text, ".text": read_text,
           ".htm": read_text, ".html": read_text, ".nc": read_text,
           ".jsonl": read_jsonl, ".ndjson": read_jsonl, ".parquet": read_parquet}


def list_inputs(paths):
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

# what the parent knows of a document, 48 bytes: hashes of its place in the shuffle, of its text and of its owner (a
# company, or itself), and where the worker put it
PLACE = np.dtype([("order", "u8"), ("text", "u8"), ("owner", "u8"), ("task", "u4"), ("size", "u4"),
                  ("offset", "u8"), ("about", "u8")])


def hash64(*parts):
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(str(part).encode("utf-8", "replace") + b"\0")
    return int.from_bytes(digest.digest(), "little")


def spool(task, path, part, folder, seed):
    """
    Worker: read one task, write its texts to folder/<task>.txt and a line about each to folder/<task>.jsonl. Returns
    what the parent needs: the places (a PLACE array), pairs of owners that are the same company, and the reasons for
    skips with their counts.
    """
    places, same, skips = [], set(), collections.Counter()
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
                digest = hash64(raw.decode())
                owners = owners_of(document["meta"]) or [digest]
                same.update((owners[0], other) for other in owners[1:])
                places.append((hash64(seed, digest), digest, owners[0], task, len(raw), texts.tell(), lines.tell()))
                texts.write(raw)
                about = {"id": document["id"], "source": os.path.basename(path), "bytes": len(raw), **document["meta"]}
                lines.write(json.dumps(about, default=str).encode() + b"\n")
        except ValueError as e:  # the rest of the file is unreadable; OSError (a full disk) ends the run
            skips[str(e)] += 1
    return np.array(places, dtype=PLACE), same, skips


def owners_of(meta):
    """Every name by which the metadata knows the company, as hashes; one that names two companies makes them one."""
    ciks = [meta.get("cik"), *meta.get("co_registrants", [])]
    names = [meta.get("company"), *meta.get("former_names", [])]
    return ([hash64("cik", cik) for cik in ciks if cik]
            + [hash64("name", company_key(name)) for name in names if name and company_key(name)])


def company_key(name):
    """A company's name without what changes from filing to filing: case, punctuation, the kind of company."""
    words = "".join(c if c.isalnum() else " " for c in name.upper().replace("'", "").replace(".", "")).split()
    while len(words) > 1 and words[-1] in ("INC", "CORP", "CORPORATION", "CO", "COMPANY", "LTD", "LLC", "LP", "PLC",
                                           "NEW", "DE", "THE"):
        words.pop()
    return " ".join(words)


# ----------------------------------------------------------------------------------------------------------------------
# Plan: duplicates, split, order


def companies(found, same):
    """
    A group per document, uint64: documents are of one company if their owners are the same, directly or through other
    documents, and copies of one text belong together.
    """
    parent = {}

    def find(x):
        while parent.setdefault(x, x) != x:
            parent[x] = x = parent[parent[x]]
        return x

    by_text = found[np.argsort(found["text"], kind="stable")]
    copies = by_text["text"][1:] == by_text["text"][:-1]
    for a, b in [*sorted(same), *zip(by_text["owner"][1:][copies].tolist(), by_text["owner"][:-1][copies].tolist(),
                                     strict=True)]:
        low, high = sorted((find(a), find(b)))
        parent[high] = low
    unique, which = np.unique(found["owner"], return_inverse=True)
    return np.array([find(owner) for owner in unique.tolist()], dtype=np.uint64)[which]


def hold_out(group, size, fraction, seed):
    """A boolean per document: whole groups, in the order of a hash, until they hold this fraction of the bytes."""
    unique, which = np.unique(group, return_inverse=True)
    if fraction == 0 or len(unique) < 2:
        return np.zeros(len(group), dtype=bool)
    sizes = np.bincount(which, weights=size)
    order = np.argsort([hash64(seed, "split", g) for g in unique.tolist()], kind="stable")
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


def plan(found, same, args, folder):
    """(places in shuffled order, a group per place, a boolean per place: held out?, the split policy in words)."""
    group = companies(found, same)
    # of the copies of a text, keep one that knows its company, whatever the order of the inputs
    order = np.lexsort((found["task"], found["owner"], found["owner"] == found["text"], found["text"]))
    kept = order[np.r_[True, found["text"][order][1:] != found["text"][order][:-1]]]
    kept = kept[np.argsort(found["order"][kept], kind="stable")]
    places, group = found[kept], group[kept]
    policy = "whole companies (joined by CIK and name; a document of no known company is its own)"
    if len(places) == 1 and args.val_fraction:
        places = cut_in_two(places, folder, args.val_fraction)
        group, held = group[[0] * len(places)], np.array([False, True])[: len(places)]
        policy = "the end of the only document"
    elif len(np.unique(group)) == 1:
        held = hold_out(places["text"], places["size"], args.val_fraction, args.seed)
        policy = "documents of the only company, so that training has seen its habits"
    else:
        held = hold_out(group, places["size"], args.val_fraction, args.seed)
    if not held.any():
        return places, group, held, "no validation split"
    share = places["size"][held].sum() / places["size"].sum()
    return places, group, held, f"{policy}, in the order of a seeded hash: {share:.2%} of the bytes are held out"


# ----------------------------------------------------------------------------------------------------------------------
# Encode

WORKER = {}  # what a worker keeps between calls: its tokenizer


def encode_documents(folder, places, work):
    """Worker: the documents at these places -> a list of (token ids with end-of-text, line about it)."""
    if "tokenizer" not in WORKER:
        WORKER["tokenizer"] = data.Tokenizer.load(work)
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
    pool = concurrent.futures.ProcessPoolExecutor(args.workers, multiprocessing.get_context("spawn"), start_worker)
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


def start_worker():
    """A worker leaves Ctrl-C to the parent, which cancels what has not begun, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def build(args, work, folder, pool):
    """Read, plan, encode, and write the manifest, all inside the folder `work`."""
    found, same, sources, skipped = read_all(args, folder, pool)
    if len(found) == 0:
        raise ValueError(f"no readable document in {' '.join(args.paths)} "
                         f"({skipped[0]['path']}: {skipped[0]['reason']})")
    places, group, held, policy = plan(found, same, args, folder)
    duplicates = len(found) - len(np.unique(found["text"]))
    print(f"{len(places):,} documents, {places['size'].sum() / 1e6:,.1f} MB of text; "
          f"{duplicates:,} exact duplicates dropped")
    tokenizer = choose_tokenizer(args.tokenizer, folder, places[~held])
    check_tokenizer(tokenizer, folder, places[~held])
    if args.tokenizer.startswith("bpe:") and tokenizer.vocab_size < int(args.tokenizer[4:]):
        print(f"the corpus is too small for {args.tokenizer}: it gave a vocabulary of {tokenizer.vocab_size:,}")
    tokenizer.save(work)
    splits = {split: encode_all(split, places[chosen], tokenizer, args, work, folder, pool)
              | {"companies": len(np.unique(group[chosen]))} for split, chosen in (("train", ~held), ("val", held))}
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
    """Spool every input: (a PLACE array of all documents, pairs of same owners, the sources, what was skipped)."""
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
    found, same = [], set()
    for (path, _), (places, pairs, skips) in zip(tasks, tqdm(results, total=len(tasks), unit="task", disable=None),
                                          strict=True):
        found.append(places)
        same |= pairs
        sources[path]["documents"] += len(places)
        skipped += [dict(path=path, reason=reason, records=n) for reason, n in sorted(skips.items())]
    digests = in_order(pool, data.file_sha256, ((path,) for path in sources), 4 * args.workers)
    for source, digest in zip(sources.values(), digests, strict=True):
        source["sha256"] = digest
    for s in skipped[:20]:
        print(f"  skipped {s['path']}: {s['reason']}" + (f" ({s['records']} times)" if s.get("records", 1) > 1 else ""))
    if len(skipped) > 20:
        print(f"  ... and {len(skipped) - 20} more, all named in the manifest")
    return np.concatenate(found), same, list(sources.values()), skipped


def encode_all(split, places, tokenizer, args, work, folder, pool):
    """Encode the documents at these places into the shards of a split; returns the split's entry in the manifest."""
    writer = data.ShardWriter(work, split, tokenizer.dtype, args.shard_tokens)
    calls = ((folder, batch, work) for batch in batches(places))
    size = int(places["size"].sum())
    with tqdm(total=size, unit="B", unit_scale=True, desc=f"encoding {split}", disable=None) as bar:
        for encoded in in_order(pool, encode_documents, calls, 4 * args.workers):
            for tokens, about in encoded:
                writer.add(tokens, about)
                bar.update(about["bytes"])
    shards = writer.finish()
    return dict(documents=len(places), bytes=size, tokens=sum(s["tokens"] for s in shards), shards=shards)


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
