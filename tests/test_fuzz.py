"""Damaged input of every kind: no crash, no hang, and every file accounted for in the manifest."""
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_prepare import build

import synth

FRAGMENTS = [
    b"<table>", b"</table>", b"<div style='display:none'>", b"<ix:header>", b"<!--", b"<pre>", b"<PAGE>", b"\0", b"&#",
    b"<DOCUMENT>\n<TYPE>10-K\n<TEXT>", b"</TEXT>", b"\xff\xfe", b"\xed\xa0\x80", b"\n\n", b'"', b"\\u0000", b"}",
    b"Item 1A. Risk Factors\n", b"\\ud800", b"[" * 500, b"PAR1", b"\r\n", b"SIGNATURES\n", b" " * 3000, b"9" * 3000,
    b"<SEC-DOCUMENT>", b"begin 644 x.gif\n", b"a@b.c ", b"<td>" * 200]


def mutate(raw, rng):
    """A few cuts, flips, repeats and insertions."""
    raw = bytearray(raw)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(raw) + 1)
        length = rng.choice((1, 8, 200, 5000))
        kind = rng.randrange(6)
        if kind == 0:
            del raw[at : at + length]
        elif kind == 1:
            raw[at : at + length] = rng.randbytes(min(length, 200))
        elif kind == 2:
            raw[at:at] = raw[rng.randrange(len(raw) + 1) :][:length]
        elif kind == 3:
            raw[at:at] = rng.choice(FRAGMENTS)
        elif kind == 4:
            raw[at : at + 1] = bytes([rng.randrange(256)])
        else:
            del raw[at:]
    return bytes(raw)


def originals(folder):
    """Small files of every kind that is read."""
    folder.mkdir()
    paths = synth.write_filings(folder / "filings", n=20, seed=3)
    files = {f"{i}{path[path.rindex('.'):]}": open(path, "rb").read() for i, path in enumerate(paths[7:11])}
    records = [dict(text=f"Record {i} of a corpus. " * (i + 1), cik=str(i), url=None, meta=dict(filed="2020-01-01"))
               for i in range(30)]
    files["a.jsonl"] = "".join(json.dumps(r) + "\n" for r in records).encode()
    files["b.json"] = json.dumps(records).encode()
    for name, compression in (("c.parquet", "snappy"), ("d.parquet", "none")):
        pq.write_table(pa.table({k: [r[k] for r in records] for k in ("text", "cik")}), folder / name,
                       row_group_size=10, compression=compression)
        files[name] = (folder / name).read_bytes()
    files["e.md"] = b"# Heading\n\nA paragraph.\n" * 50
    return files


@pytest.mark.slow
def test_two_thousand_mutants(tmp_path):
    check(tmp_path, 2000, seed=0)


def test_sixty_mutants(tmp_path):
    check(tmp_path, 60, seed=1)


def check(tmp_path, count, seed):
    rng, files = random.Random(seed), originals(tmp_path / "originals")
    folder = tmp_path / "mutants"
    folder.mkdir()
    for i in range(count):
        name = rng.choice(list(files))
        (folder / f"{i:04d}-{name}").write_bytes(mutate(files[name], rng))
    (folder / "whole.md").write_text("One document is whole, so that there is a corpus. " * 20)
    manifest, _ = build(tmp_path, folder, tokenizer="bpe:400", workers=2 if count > 100 else 1)
    skips = {}
    for s in manifest["skipped"]:
        skips[s["path"]] = skips.get(s["path"], 0) + s.get("records", 1)
    found = {s["path"]: s["documents"] for s in manifest["sources"]}
    for path in folder.iterdir():
        assert found.get(str(path)) or skips.get(str(path)), path
        if path.suffix == ".jsonl":  # lines are neither lost nor counted twice
            lines = sum(1 for line in path.read_bytes().split(b"\n") if line.strip())
            assert found.get(str(path), 0) + skips.get(str(path), 0) == lines, path
    kept = sum(s["documents"] + s.get("dropped_for_overlap", 0) for s in manifest["splits"].values())
    dropped = sum(manifest[k] for k in ("exact_duplicates_dropped", "same_accession_dropped", "near_duplicates_dropped",
                                        "nothing_new_dropped"))
    assert sum(found.values()) == manifest["documents_read"] == kept + dropped
