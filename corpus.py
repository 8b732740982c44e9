"""
Any corpus -> token shards: read, clean, split, encode. `python prepare.py corpus` is this file's command line.

    read      each task reads some 16 MB of input, masks personal data, and writes what it found: texts, a line about
              each, and the hashes by which the next step compares documents without seeing them
    plan      one process drops copies, near-duplicates and what a company repeats from year to year, holds out
              companies and years for validation, shuffles, and chooses or trains the tokenizer
    encode    each task turns some 8 MB of text, in shuffled order, into tokens and a sample of its 13-grams
    merge     one process leaves out of validation what training has seen, and writes shards, manifest and data card

Every step is a set of tasks as jobs.py runs them, so the work can be stopped, continued, and shared by machines. Order
and split depend on content and seed alone: the output is the same, byte for byte, however many took part. No step holds
more than a few documents per worker, and some 150 bytes per document besides.

The split. Consecutive filings of one company share half of their 13-grams, so a random split measures memory. Companies
are held out whole, joined by every name, number or text they share. Where filing dates are known, recent years are held
out too, which gives four cells: `val` (new company), `val_year` (known company, new year), `val_both`, and
`val_neither`, which tells by its distance from the others how much knowing the company is worth.
"""
import collections
import errno
import functools
import hashlib
import json
import os
import re
import shutil

import numpy as np

import card
import clean
import data
import jobs
import pii
import sources
import split
from jobs import Ragged, load_json, ragged, save, save_json, save_ragged
from tokenizer import Tokenizer, gpt2_is_cached, tokenizer_report

VERSION = "0.2"
BATCH = 8 << 20  # bytes of text that one task encodes
SAMPLED_GRAMS = 2_000_000  # 13-grams of held-out documents to look for in training; of more, a sample is taken
NONE = np.empty(0, np.uint64)


def build(args, out):
    """Do it all, in `out`.partial, and rename what comes of it to `out`. args: the flags of `prepare.py corpus`."""
    if not out:
        raise ValueError('--out "" names no folder')
    tokenizer_of.cache_clear()  # another job of this process may have had the same folder
    ragged.cache_clear()
    inputs, skipped = sources.list_inputs(args.paths, args.licence, args.public_only)
    args.tokenizer_path = find_tokenizer(args.tokenizer)
    held_words = sum(f["bytes"] for f in inputs) * (args.val_fraction + 0.15) / 6
    args.sample = min(1.0, SAMPLED_GRAMS / max(held_words, 1.0))
    settings = {k: v for k, v in vars(args).items() if k not in ("out", "workers", "run", "command", "tokenizer_path")}
    if args.tokenizer_path:
        settings["tokenizer"] = data.file_sha256(os.path.join(args.tokenizer_path, "tokenizer.json"))
    key = hashlib.sha256(json.dumps([VERSION, settings, inputs], sort_keys=True).encode()).hexdigest()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    out = os.path.realpath(out)
    work = out + ".partial"
    if os.path.isdir(out) and not os.listdir(out):
        os.rmdir(out)
    if os.path.exists(out):
        if not is_finished(out, key):
            raise ValueError(f"{out} already exists; remove it, or choose another --out")
        print(f"{out} is complete already")
        shutil.rmtree(work, ignore_errors=True)  # a kill may have come between the last rename and this
        return
    if os.path.isdir(os.path.join(work, "merge", "000000")) and not os.path.exists(
            os.path.join(work, "merge", "000000", "manifest.json")):
        shutil.rmtree(work)  # likewise, and then somebody removed `out`
    jobs.open_folder(work, key)
    job, found = jobs.Job(work, args.workers, rank, world), None
    try:
        print(f"reading {len(inputs):,} files with {args.workers} workers")
        bundles = [((parts, args), size) for parts, size in sources.bundles(inputs)]
        read = job.run("read", bundles, read_task, "reading")
        found = report_reading(read, skipped)
        if not found:
            raise ValueError(f"no readable document in {' '.join(args.paths)} "
                             f"({skipped[0]['path']}: {skipped[0]['reason']})")
        planned, = job.run("plan", [((read, args), found)], plan_task, "planning")
        report_plan(planned)
        batches = [((planned, read, start, end, args.sample), size) for start, end, size in batches_of(planned)]
        encoded = job.run("encode", batches, encode_task, "encoding")
        call = (planned, read, encoded, inputs, skipped, key, args), sum(size for _, size in batches)
        merged, = job.run("merge", [call], merge_task, "merging")
        os.rename(merged, out)
        os.makedirs(merged)  # who comes late must not merge again
        report(out)
        job.close()
        shutil.rmtree(work, ignore_errors=True)
    except BaseException as e:
        job.close()
        if isinstance(e, OSError | jobs.Gone) and is_finished(out, key):
            print(f"{out} was finished by another process")
            return
        if isinstance(e, jobs.Gone):
            raise ValueError(f"{work} was removed while it was worked on; run the same command again") from None
        is_full = isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EFBIG)
        if world == 1 and (is_full or isinstance(e, ValueError) and not found):
            shutil.rmtree(work, ignore_errors=True)
        else:
            print(f"\nstopped; what is done is kept in {work}")
        raise


def is_finished(out, key):
    """Is this the output of this very job?"""
    try:
        return data.read_manifest(out).get("job") == key
    except (ValueError, OSError):
        return False


def find_tokenizer(name):
    """
    The directory of a tokenizer that is not to be made here: where a hub id lies once it is downloaded. ValueError now
    rather than after hours of reading.
    """
    if name == "gpt2":
        gpt2_is_cached() or Tokenizer.gpt2()
    elif name.startswith("bpe:"):
        if not name[4:].isdigit():
            raise ValueError(f"--tokenizer {name}: give the vocabulary size as a number, as in bpe:8192")
        if not 257 <= int(name[4:]) <= 2**24:
            raise ValueError(f"--tokenizer {name}: 256 bytes and the end-of-text token need 257, and 16,777,216 is "
                             "as many as anybody has tried")
    elif os.path.isdir(name):
        Tokenizer.load(name)
        return name
    elif re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        from decoder import TOKENIZER, download  # with torch, which nothing else here needs

        return find_tokenizer(download(name, TOKENIZER))
    else:
        raise ValueError(f"--tokenizer {name} is neither gpt2, nor bpe:N, nor a directory with a tokenizer.json, nor "
                         "the hub id of a model")


# ----------------------------------------------------------------------------------------------------------------------
# Read


def read_task(folder, parts, args):
    """Worker: read these parts of files. Writes texts, about.jsonl, result.json and, as hashes, all that plan needs."""
    places, signatures, grams, paragraphs, results, same = [], [], [], [], [], set()
    kinds = () if args.pii == "keep" else ("email", "phone", "ssn", "iban", "card")
    with (open(os.path.join(folder, "texts"), "wb") as texts,
          open(os.path.join(folder, "about.jsonl"), "wb") as lines):
        for path, part, url, licence, listed in parts:
            result = dict(path=path, documents=0, skips=collections.Counter(), pii=collections.Counter())
            for document in sources.documents(path, part, args.tables):
                if isinstance(document, sources.Skip):
                    result["skips"][str(document)] += 1
                    continue
                meta = document["meta"]
                if args.public_only and not sources.is_public(meta.get("licence", licence)):
                    result["skips"]["--public_only: a record under another licence"] += 1
                    continue
                meta |= {"source": os.path.basename(path)} | ({"url": url} if url else {})
                text, result_pii = cleaned(document, args, kinds)
                raw = text.encode("utf-8", "replace")  # lone surrogates, legal in JSON, have no UTF-8
                if not raw:
                    result["skips"]["no text in it"] += 1
                    continue
                result["documents"] += 1
                result["pii"].update(result_pii)
                text = raw.decode()
                digest = split.hash64(raw)
                owners = split.owners_of(meta) or [digest]
                same.update((owners[0], other) for other in owners[1:])
                order = split.hash64(f"{args.seed} {digest}".encode())
                accession = split.hash64(meta["accession"].encode()) if meta.get("accession") else 0
                places.append((order, digest, owners[0], accession, split.filing_day(meta), 0, len(places),
                               len(raw), texts.tell(), lines.tell()))
                texts.write(raw)
                about = {"id": document["id"], **meta}
                lines.write(json.dumps(about, default=str).encode() + b"\n")
                words = clean.word_hashes(text)
                signatures.append(clean.minhash(words))
                grams.append(clean.under(clean.ngrams(words, 13), args.sample))
                paragraphs.append(clean.paragraph_hashes(text)[2] if len(owners) > 1 or owners != [digest] else NONE)
            if part is None or part[0] == 0:
                result["sha256"] = data.file_sha256(path)
            if (os.path.getsize(path), os.stat(path).st_mtime_ns) != listed:
                raise ValueError(f"{path} has changed since this job began; run the command again")
            results.append(result)
    save(folder, places=np.array(places, dtype=split.PLACE), minhash=np.array(signatures, np.uint32).reshape(-1, 112))
    save_ragged(folder, grams=grams, paragraphs=paragraphs)
    save_json(folder, "result", dict(results=results, same=sorted(same)))


def cleaned(document, args, kinds):
    """The text of a document with personal data masked, its item spans moved along; what was found, by kind."""
    text, meta = sources.tidy(document["text"]), document["meta"]
    people = meta.pop("people", [])

    def masks(text):
        """[(start, end, kind), ...] of what is to be masked, and the same of what is only to be counted."""
        found = pii.identifying(text) if args.deidentify else pii.find_pii(text, kinds) if kinds else []
        counted = [] if args.pii == "mask" or args.deidentify else found
        masked = [] if counted else found
        if args.mask_names and people:
            masked = sorted(masked + [(a, b, "name") for a, b in pii.names(text, people)
                                      if not any(a < end and start < b for start, end, _ in masked)])
        return masked, counted

    masked, counted = masks(text)
    text = edited(text, [(a, b, f"[{kind.upper()}]") for a, b, kind in masked], meta)
    for about in (document, meta):
        for key in [k for k, v in about.items() if isinstance(v, str) and k not in ("text", "cik", "accession")]:
            spans = [(a, b, f"[{kind.upper()}]") for a, b, kind in masks(about[key])[0]]
            about[key] = pii.edit(about[key], spans, [])[0]
    return text, collections.Counter(kind for _, _, kind in masked + counted)


def edited(text, edits, meta):
    """pii.edit for a text whose items lie in its metadata."""
    if not edits:
        return text
    spans = [span for item in meta.get("items", {}).values() for span in spans_of(item)]
    text, moved = pii.edit(text, edits, spans)
    moved = iter(moved)
    for item in meta.get("items", {}).values():
        for span in spans_of(item):
            span[:] = next(moved)
    return text


def spans_of(item):
    return [item[key] for key in ("span", "heading") if key in item]


# ----------------------------------------------------------------------------------------------------------------------
# Plan


def plan_task(folder, read, args):
    """One process: decide what becomes of every document. Writes places.npy (kept, shuffled, with their cell), cuts."""
    parts = [np.load(os.path.join(task, "places.npy")) for task in read]
    for i, part in enumerate(parts):
        part["task"] = i
    found = np.concatenate(parts)
    same = {tuple(pair) for task in read for pair in load_json(task, "result")["same"]}
    kept, copies = split.without_copies(found)
    same.update(map(tuple, found["owner"][copies].tolist()))
    summary = dict(documents=len(found), exact_duplicates=len(found) - len(kept), same_accession=0, near_duplicates=0)
    if args.dedup == "all":
        for name, find in (("same_accession", split.same_filings), ("near_duplicates", split.near_duplicates)):
            pairs = find(kept, gather_signatures(folder, read, kept))
            same.update(map(tuple, kept["owner"][pairs].tolist()))
            summary |= {name: len(pairs), "examples": [[name_of(read, kept[i]) for i in p] for p in pairs[:5].tolist()]}
            kept = np.delete(kept, pairs[:, 0])
    places = kept[np.argsort(kept["order"], kind="stable")]
    group = split.companies(places["owner"], same)
    if len(places) == 1 and args.val_fraction:
        places = cut_in_two(places, read, args.val_fraction)
        group = group[[0] * len(places)]
    cell, policy, val_from = split.cells(places, group, args)
    cuts, repeated = repeated_paragraphs(places, group, read, args)
    summary |= dict(policy=policy, val_from=val_from, repeated_paragraphs=repeated,
                    near_duplicates_across=near_across(folder, read, places, cell == 0))
    if not (cell == 0).any():
        raise ValueError("nothing is left to train on; hold out less with --val_fraction or --val_from")
    tokenizer = choose_tokenizer(args, read, places[cell == 0])
    check_tokenizer(tokenizer, read, places[cell == 0])
    tokenizer.save(folder)
    summary["tokenizer"] = tokenizer_report(tokenizer, sample(read, places[cell == 0], 1 << 20))
    ordered = np.argsort(cell, kind="stable")
    save(folder, places=places[ordered], cell=cell[ordered], group=group[ordered])
    save_ragged(folder, cuts=[cuts.get(i, NONE) for i in ordered.tolist()])
    save_json(folder, "summary", summary)


def near_across(folder, read, places, is_train):
    """How many near-duplicates are left across the split, looked for once more: 0 unless --dedup exact keeps them."""
    if (places["row"] == split.PART).any():  # two parts of one document
        return 0
    pairs = split.near_duplicates(places, gather_signatures(folder, read, places))
    os.remove(os.path.join(folder, "signatures.npy"))
    return int((is_train[pairs[:, 0]] != is_train[pairs[:, 1]]).sum())


def gather_signatures(folder, read, places):
    """The MinHash signatures of these places, (N, 112) uint32, in a file that is mapped rather than held."""
    path = os.path.join(folder, "signatures.npy")
    with open(path, "wb") as f:
        if hasattr(os, "posix_fallocate"):  # a mapped file on a full disk ends the process
            os.posix_fallocate(f.fileno(), 0, max(1, 448 * len(places)))
    signatures = np.memmap(path, np.uint32, "r+" if hasattr(os, "posix_fallocate") else "w+", shape=(len(places), 112))
    for task in np.unique(places["task"]).tolist():
        rows = np.flatnonzero(places["task"] == task)
        signatures[rows] = np.load(os.path.join(read[task], "minhash.npy"), mmap_mode="r")[places["row"][rows]]
    return signatures


def cut_in_two(place, read, fraction):
    """The places of both parts of a single document, the last `fraction` of it cut off at the end of a paragraph."""
    cut = int(place["size"][0] * (1 - fraction))
    with open(os.path.join(read[int(place["task"][0])], "texts"), "rb") as f:
        f.seek(int(place["offset"][0]) + cut)
        rest = f.read(int(place["size"][0]) - cut)
    for separator in (b"\n\n", b"\n", b" "):
        if 0 <= rest.find(separator) < len(rest) - len(separator):
            cut += rest.find(separator) + len(separator)
            parts = np.repeat(place, 2)
            parts["size"], parts["row"] = (cut, place["size"][0] - cut), split.PART
            parts["offset"][1] += cut
            return parts
    return place


def repeated_paragraphs(places, group, read, args):
    """
    For the documents of known companies, in the order they were filed: which paragraphs stood in an earlier one. What
    is new in a later filing is left; what every year says again is learned once. ({place: paragraphs}, how many)
    """
    known = np.flatnonzero(places["owner"] != places["text"]) if args.dedup == "all" else []
    known = known if len(known) and len(np.unique(places["text"])) > 1 else np.empty(0, np.int64)
    known = known[np.lexsort((places["order"][known], places["day"][known], group[known]))]
    cuts, total = {}, 0
    for rows in np.split(known, np.flatnonzero(np.diff(group[known])) + 1) if len(known) else []:
        hashes = []
        for p in places[rows]:
            hashes.append(np.array(ragged(read[p["task"]], "paragraphs")[p["row"]]))
        for row, mask in zip(rows.tolist(), clean.repeats(hashes), strict=True):
            if mask.any():
                cuts[row] = np.flatnonzero(mask).astype(np.uint64)
                total += int(mask.sum())
    return cuts, total


def choose_tokenizer(args, read, places, sample_bytes=256 << 20):
    if args.tokenizer == "gpt2":
        return Tokenizer.gpt2()
    if args.tokenizer.startswith("bpe:"):
        return Tokenizer.train(sample(read, places, sample_bytes), int(args.tokenizer[4:]), args.numbers)
    return Tokenizer.load(args.tokenizer_path)


def sample(read, places, size):
    """The texts of the first documents in shuffled order, `size` bytes of them."""
    count = max(1, int(np.searchsorted(np.cumsum(places["size"], dtype=np.int64), size)))
    return (text for text, _ in read_spool(read, places[:count]))


def check_tokenizer(tokenizer, read, places):
    """Encode a sample with both engines: what tiktoken gives must be what tokenizer.json means to everybody else."""
    for text in sample(read, places, 1 << 18):
        text = text[: 1 << 18]
        if tokenizer.encode(text).tolist() != tokenizer.slow.encode(text, add_special_tokens=False).ids:
            raise ValueError(f"tokenizer.json and its fast form disagree on {text[:60]!r}...; please report this text")


# ----------------------------------------------------------------------------------------------------------------------
# Encode


def batches_of(planned):
    """Slices of the plan worth a task: (start, end, bytes), none across two splits."""
    places, cell = (np.load(os.path.join(planned, f"{n}.npy")) for n in ("places", "cell"))
    start, size = 0, 0
    for i, (n, c) in enumerate(zip(places["size"].tolist(), cell.tolist(), strict=True)):
        if i > start and (size + n > BATCH or c != cell[start]):
            yield start, i, size
            start, size = i, 0
        size += n
    yield start, len(places), size


def encode_task(folder, planned, read, start, end, keep):
    """Worker: documents -> tokens, with what begins and ends each, their sampled 13-grams, and about.jsonl."""
    tokenizer = tokenizer_of(planned)
    places = np.load(os.path.join(planned, "places.npy"), mmap_mode="r")[start:end]
    cuts = Ragged(planned, "cuts")
    tokens, grams, lines = [], [], []
    first, last = (np.array(ids, dtype=tokenizer.dtype)
                   for ids in ([tokenizer.start] * tokenizer.has_start, [tokenizer.end_of_text]))
    for i, (place, (text, about)) in enumerate(zip(places, read_spool(read, places), strict=True), start):
        if len(cuts[i]):
            text = without_paragraphs(text, cuts[i], about)
        if place["row"] == split.PART:
            about.pop("items", None)  # they lie in the whole text
        if len(cuts[i]) or place["row"] == split.PART:
            grams.append(clean.under(clean.ngrams(clean.word_hashes(text), 13), keep))
        else:
            grams.append(ragged(read[place["task"]], "grams")[place["row"]])
        raw = text.encode()
        about |= {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
        tokens.append(np.concatenate([first, tokenizer.encode(text), last]) if text else last[:0])
        lines.append(json.dumps(about) + "\n")
    save_ragged(folder, tokens=tokens, grams=grams)
    with open(os.path.join(folder, "about.jsonl"), "w", encoding="utf-8") as f:
        f.writelines(lines)


@functools.lru_cache(1)
def tokenizer_of(planned):
    return Tokenizer.load(planned)


def without_paragraphs(text, which, about):
    """The text without these paragraphs (indices into clean.paragraph_hashes) and the blank lines after them."""
    starts, ends, _ = clean.paragraph_hashes(text)
    edits = []
    for start, end in zip(starts[which].tolist(), ends[which].tolist(), strict=True):
        while end < len(text) and text[end] == "\n":
            end += 1
        edits.append((start, end, ""))
    shorter = edited(text, edits, about)
    about["repeats_cut"] = len(text) - len(shorter)
    return shorter.rstrip()


def read_spool(read, places):
    """(text, line about it) of these places."""
    for p in places:
        with open(os.path.join(read[p["task"]], "texts"), "rb") as f:
            f.seek(int(p["offset"]))
            text = f.read(int(p["size"])).decode()
        with open(os.path.join(read[p["task"]], "about.jsonl"), "rb") as f:
            f.seek(int(p["about"]))
            yield text, json.loads(f.readline())


# ----------------------------------------------------------------------------------------------------------------------
# Merge


def merge_task(folder, planned, read, encoded, inputs, skipped, key, args):
    """One process: the tasks' tokens -> shards, manifest.json and DATA.md."""
    tokenizer, summary = tokenizer_of(planned), load_json(planned, "summary")
    splits, empty = write_shards(folder, planned, encoded, tokenizer, args)
    tokenizer.save(folder)
    manifest = dict(
        format_version=data.FORMAT_VERSION, kind="lm", tool=f"tenk {VERSION}", job=key,
        tokenizer=dict(name=args.tokenizer, sha256=tokenizer.sha256(), vocab_size=tokenizer.vocab_size,
                       end_of_text=tokenizer.end_of_text, dtype=np.dtype(tokenizer.dtype).name,
                       bytes_per_token=summary["tokenizer"]),
        splits=splits, split_policy=summary["policy"], val_from=summary["val_from"], seed=args.seed,
        command={k: v for k, v in vars(args).items() if k not in ("out", "workers", "run", "sample")},
        documents_read=summary["documents"], exact_duplicates_dropped=summary["exact_duplicates"],
        same_accession_dropped=summary["same_accession"], near_duplicates_dropped=summary["near_duplicates"],
        near_duplicate_examples=summary.get("examples", []), repeated_paragraphs_cut=summary["repeated_paragraphs"],
        near_duplicates_across_split=summary["near_duplicates_across"], nothing_new_dropped=empty,
        overlap_check=dict(ngram=13, sampled=round(args.sample, 6), dropped_above=args.max_overlap),
        pii=dict(mode=args.pii, deidentify=args.deidentify, mask_names=args.mask_names),
        skipped=skipped, sources=[{k: v for k, v in f.items() if k not in ("time", "parts") and v is not None}
                                  | dict(documents=0, sha256="") for f in inputs])
    add_reading(manifest, read)
    save_json(folder, "manifest", manifest, indent=1)
    with open(os.path.join(folder, "DATA.md"), "w", encoding="utf-8", errors="backslashreplace") as f:
        f.write(card.data_card(manifest))


def write_shards(folder, planned, encoded, tokenizer, args):
    """All documents but those that training has seen, into shards: (the manifest's splits, how many were empty)."""
    cell, group = (np.load(os.path.join(planned, f"{n}.npy")) for n in ("cell", "group"))
    seen = overlaps(encoded, cell)
    leaked = (cell > 0) & (np.nan_to_num(seen) > args.max_overlap)
    sizes = np.zeros(len(cell), np.int64)  # bytes written of each document
    writers = [data.ShardWriter(folder, name, tokenizer.dtype, args.shard_tokens) for name in split.SPLITS]
    for i, (tokens, line) in enumerate(read_encoded(encoded)):
        if len(tokens) and not leaked[i]:
            about = json.loads(line) | ({"cell": split.SPLITS[cell[i]]} if cell[i] else {})
            writers[cell[i]].add(tokens, about)
            sizes[i] = about["bytes"]
    splits = {}
    for i, name in enumerate(split.SPLITS):
        mine, shards = (sizes > 0) & (cell == i), writers[i].finish()
        if i > 1 and not (cell == i).any():
            continue
        splits[name] = dict(documents=int(mine.sum()), bytes=int(sizes[mine].sum()),
                            tokens=sum(s["tokens"] for s in shards), companies=len(np.unique(group[mine])))
        if i:  # what the split promises, looked up rather than derived
            shared = np.intersect1d(group[mine], group[(sizes > 0) & (cell == 0)])
            known = seen[mine & ~np.isnan(seen)]
            splits[name] |= dict(companies_in_training=len(shared), dropped_for_overlap=int(leaked[cell == i].sum()),
                                 overlap=round(float(known.mean()), 4) if len(known) else None,
                                 too_short_to_check=int(mine.sum()) - len(known))
        splits[name]["shards"] = shards
    return splits, int(((sizes == 0) & ~leaked).sum())


def add_reading(manifest, read):
    """What the read tasks counted: personal data by kind, and each source's documents and checksum."""
    sources_of, found = {s["path"]: s for s in manifest["sources"]}, collections.Counter()
    for task in read:
        for result in load_json(task, "result")["results"]:
            source = sources_of[result["path"]]
            source["documents"] += result["documents"]
            source["sha256"] = result.get("sha256", source["sha256"])
            found.update(result["pii"])
    manifest["pii"]["found"] = dict(sorted(found.items()))


def read_encoded(encoded):
    """(tokens, line about it) of every document, in order."""
    for task in encoded:
        tokens = Ragged(task, "tokens")
        with open(os.path.join(task, "about.jsonl"), encoding="utf-8") as f:
            for i, line in enumerate(f):
                yield tokens[i], line


def overlaps(encoded, cell):
    """The share of each held-out document's sampled 13-grams that occur in training, float (documents,); else NaN."""
    held, training, at = [], [], 0
    for task in encoded:  # a task holds documents of one cell
        grams = Ragged(task, "grams")
        if cell[at]:
            held += [np.unique(grams[i]) for i in range(len(grams))]
        else:
            training.append(task)
        at += len(grams)
    shares = np.full(len(cell), np.nan)
    if held:
        found = clean.overlap(held, (np.array(Ragged(task, "grams").flat) for task in training))
        shares[cell > 0] = np.where([len(grams) > 0 for grams in held], found, np.nan)
    return shares


# ----------------------------------------------------------------------------------------------------------------------
# What is said of it


def name_of(read, place):
    return next(about for _, about in read_spool(read, [place]))["id"]


def report_reading(read, skipped):
    """Say what could not be read, and add it to `skipped`; returns the bytes of text found."""
    reasons, counts, found = collections.Counter(), collections.Counter(), 0
    for task in read:
        for result in load_json(task, "result")["results"]:
            reasons.update({(result["path"], reason): n for reason, n in result["skips"].items()})
            counts[result["path"]] += result["documents"] + sum(result["skips"].values())
        found += os.path.getsize(os.path.join(task, "texts"))
    skipped += [dict(path=path, reason=reason, records=n) for (path, reason), n in reasons.items()]
    skipped += [dict(path=path, reason="no records in it") for path, n in counts.items() if not n]
    for s in skipped[:20]:
        print(f"  skipped {s['path']}: {s['reason']}" + (f" ({s['records']} times)" if s.get("records", 1) > 1 else ""))
    if len(skipped) > 20:
        print(f"  ... and {len(skipped) - 20} more, all named in the manifest")
    return found


def report_plan(planned):
    s = load_json(planned, "summary")
    print(f"{s['documents']:,} documents; dropped {s['exact_duplicates']:,} exact duplicates, "
          f"{s['same_accession']:,} of the same accession, {s['near_duplicates']:,} near-duplicates; "
          f"cut {s['repeated_paragraphs']:,} paragraphs that a company had filed before")


def report(out):
    manifest = data.read_manifest(out)
    wanted, size = manifest["tokenizer"]["name"], manifest["tokenizer"]["vocab_size"]
    if wanted.startswith("bpe:") and size < int(wanted[4:]):
        print(f"the corpus is too small for {wanted}: it gave a vocabulary of {size:,}")
    for name, s in manifest["splits"].items():
        print(f"{name:>12}: {s['tokens']:>13,} tokens  {s['documents']:>9,} documents  {s['companies']:>7,} companies"
              f"  {s['bytes'] / max(1, s['tokens']):.2f} bytes/token"
              + (f"  {s['overlap']:.1%} of 13-grams also in training" if s.get("overlap") is not None else ""))
    print(f" split: {manifest['split_policy']}")
    held = [s for name, s in manifest["splits"].items() if name in ("val", "val_both")]
    if not held[0]["documents"]:
        print("       no document is left for validation; give more of them, or raise --val_fraction or --max_overlap")
    shared = sum(s["companies_in_training"] for s in held)
    print(f" check: {shared:,} companies of val and val_both in training, "
          f"{manifest['near_duplicates_across_split']:,} near-duplicates across the split")
    print(f"wrote {out}; {out}/DATA.md says what is in it")
