"""prepare.py corpus: the readers, the split, and the same bytes from any number of workers."""
import hashlib
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import SHARED, run

import data
import prepare

HTML = "<html><body><p>Item 1. Business</p><p>Blorvex Ltd. makes widgets number {}.</p></body></html>"


def digests(folder):
    return {f: hashlib.sha256(open(os.path.join(folder, f), "rb").read()).hexdigest()
            for f in sorted(os.listdir(folder))}


def build(tmp_path, *paths, out="out", **flags):
    flags = {"tokenizer": "bpe:300", "val_fraction": 0.2, "workers": 1} | flags
    done = run("prepare.py", "corpus", *paths, "--out", tmp_path / out,
               *[w for k, v in flags.items() for w in (f"--{k}", v)])
    return json.loads((tmp_path / out / "manifest.json").read_text()), done


def texts(folder):
    d = data.TokenData(str(folder))
    return {about["id"]: (about, d.tokenizer.decode(tokens))
            for split in ("train", "val") for about, tokens in d.read_documents(split)}


def test_every_kind_of_input(tmp_path):
    inputs = tmp_path / "in"
    (inputs / "deeper").mkdir(parents=True)
    (inputs / "a.txt").write_text("plain text, first")
    (inputs / "b.md").write_text("# Heading\n\nmarkdown")
    (inputs / "deeper" / "c.html").write_text(HTML.format(1))
    (inputs / "sub.txt").write_text(
        "<SEC-DOCUMENT>0000000001-99-000001.txt\n<SEC-HEADER>\nACCESSION NUMBER:\t\t0000000001-99-000001\n"
        "CONFORMED SUBMISSION TYPE:\t10-K\nFILER:\n\n\tCOMPANY DATA:\n\t\tCOMPANY CONFORMED NAME:\tBLORVEX LTD\n"
        "\t\tCENTRAL INDEX KEY:\t\t0009999999\n</SEC-HEADER>\n<DOCUMENT>\n<TYPE>10-K\n<SEQUENCE>1\n<TEXT>\n"
        "The whole year was quiet for the company and its widgets.\n</TEXT>\n</DOCUMENT>\n")
    records = [{"text": "from jsonl"}, {"content": "under content"}, {"body": "under body", "id": "named"},
               "a bare string", {"text": HTML.format(2)}, {"nothing": 1}, {"text": "  "}, [1, 2]]
    (inputs / "d.jsonl").write_text("\n".join(map(json.dumps, records)) + "\nnot json\n\n")
    pq.write_table(pa.table({"text": ["in parquet", None], "other": [1, 2]}), inputs / "e.parquet")
    (inputs / "latin.txt").write_bytes("caf\xe9 \x93quoted\x94".encode("latin-1"))
    (inputs / "utf16.txt").write_bytes("sixteen bits".encode("utf-16"))
    os.symlink("nowhere", inputs / "broken.txt")
    os.mkfifo(inputs / "pipe.txt")
    for name in ("empty.txt", "image.png", "binary.txt", "noext"):
        (inputs / name).write_bytes({"empty.txt": b"", "binary.txt": b"\0\1\2\0" * 50}.get(name, b"x"))
    manifest, _ = build(tmp_path, inputs)
    found = texts(tmp_path / "out")
    got = {text for _, text in found.values()}
    assert {"plain text, first", "# Heading\n\nmarkdown", "from jsonl", "under content", "under body",
            "a bare string", "in parquet", "café “quoted”", "sixteen bits"} <= got
    assert any("makes widgets number 1" in t for t in got) and any("makes widgets number 2" in t for t in got)
    assert found["sub"][0]["cik"] == "0009999999" and found["sub"][0]["company"] == "BLORVEX LTD"
    assert found["named"][1] == "under body"
    reasons = {os.path.basename(s["path"]): s["reason"] for s in manifest["skipped"]}
    assert set(reasons) == {"d.jsonl", "e.parquet", "empty.txt", "image.png", "binary.txt", "noext",
                            "broken.txt", "pipe.txt"}
    assert sum(s.get("records", 0) for s in manifest["skipped"] if s["path"].endswith("d.jsonl")) == 4
    assert {os.path.basename(s["path"]) for s in manifest["sources"]} >= {
        "a.txt", "b.md", "c.html", "sub.txt", "d.jsonl", "e.parquet"}
    for s in manifest["sources"]:
        assert s["sha256"] == data.file_sha256(s["path"])


def test_the_edgar_parquet_schema_and_a_corrupt_shard(tmp_path):
    filers = [json.dumps({"company": f"BLORVEX {w} INC", "CIK": str(9000000 + i), "SIC": "3711", "state": "DE"})
              for i, w in enumerate(("ALPHA", "BETA", "GAMMA", "DELTA"))]
    table = pa.table({"content": [HTML.format(i) for i in range(4)],
                      "text": ["clean text zero", None, "", "clean text three"],
                      "metadata_accession-number": [f"000000000{i}-23-00000{i}" for i in range(4)],
                      "metadata_filing-date": ["20230105"] * 4, "metadata_period": ["20221231"] * 4,
                      "metadata_filer": filers, "metadata_documents": ["[]"] * 4})
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in" / "one.parquet", row_group_size=3)
    whole = (tmp_path / "in" / "one.parquet").read_bytes()
    (tmp_path / "in" / "truncated.parquet").write_bytes(whole[: len(whole) // 2])
    flipped = bytearray(whole)
    flipped[40:400] = b"\xff" * 360
    (tmp_path / "in" / "flipped.parquet").write_bytes(flipped)
    pq.write_table(pa.table({"numbers": [1]}), tmp_path / "in" / "no_text.parquet")
    manifest, _ = build(tmp_path, tmp_path / "in")
    found = texts(tmp_path / "out")
    about, text = found["0000000000-23-000000"]
    assert (text == "clean text zero" and about["cik"] == "0009000000"
            and about["company"] == "BLORVEX ALPHA INC" and about["sic"] == "3711")
    assert about["filed"] == "20230105" and "makes widgets number 1" in found["0000000001-23-000001"][1]
    reasons = {os.path.basename(s["path"]): s["reason"] for s in manifest["skipped"]}
    assert ("damaged parquet" in reasons["truncated.parquet"] and "flipped.parquet" in reasons
            and "no text column" in reasons["no_text.parquet"])


def test_any_number_of_workers_writes_the_same_bytes(tmp_path, filings, monkeypatch):
    lines = "\n".join(json.dumps({"text": f"record {i} " + "word " * (i % 50)}) for i in range(3000))
    (tmp_path / "many.jsonl").write_text(lines)
    paths = [filings, tmp_path / "many.jsonl"]
    for n in (1, 3):
        build(tmp_path, *paths, out=f"w{n}", workers=n, shard_tokens=50_000)
    assert digests(tmp_path / "w1") == digests(tmp_path / "w3")
    build(tmp_path, *reversed(paths), out="reversed", workers=2, shard_tokens=50_000)
    shards = {k: v for k, v in digests(tmp_path / "w1").items() if k != "manifest.json"}
    assert shards == {k: v for k, v in digests(tmp_path / "reversed").items() if k != "manifest.json"}


def test_jsonl_parts_read_every_line_once(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps({"text": "é" * (i % 40) + f"line {i}"}, ensure_ascii=False) + "\n"
                            for i in range(200)))
    size = path.stat().st_size
    whole = [d["text"] for d in prepare.read_jsonl(str(path), (0, size))]
    assert len(whole) == 200
    for cut in (1, 2, 57, 1000, size - 1):
        parts = [d["text"] for a in range(0, size, cut) for d in prepare.read_jsonl(str(path), (a, min(a + cut, size)))]
        assert parts == whole


def test_companies_never_straddle_the_split(tmp_path):
    records = [{"text": f"company {c} filing {y}", "cik": 9_000_000 + c} for c in range(40) for y in range(5)]
    records += [{"text": f"company {c} by name", "company": f"Blorvex {c}, Inc."} for c in range(40)]
    records += [{"text": f"company {c} both", "company": f"BLORVEX {c} INC", "cik": 9_000_000 + c} for c in range(40)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, records)))
    manifest, _ = build(tmp_path, tmp_path / "x.jsonl")
    d = data.TokenData(str(tmp_path / "out"))
    sides = {split: {d.tokenizer.decode(t).split()[1] for _, t in d.read_documents(split)}
             for split in ("train", "val")}
    assert not sides["train"] & sides["val"] and len(sides["val"]) >= 4
    assert manifest["splits"]["val"]["companies"] == len(sides["val"])


def test_odd_metadata_neither_crashes_nor_splits_a_company(tmp_path):
    odd = {"cik": 320193, "company": 7, "former_names": "x", "when": None}
    records = [{"text": f"one {i}", "meta": odd} for i in range(4)]
    records += [{"Text": f"two {i}", "CIK": 320193.0, "company_name": "Seven"} for i in range(4)]
    records += [{"text": "one 0"}, {"text": "two 1", "CIK": None}]  # copies that do not know their company
    records += [{"text": f"by name {i}", "company": "SEVEN, INC."} for i in range(3)]
    records += [{"text": f"other {i}"} for i in range(9)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n" + "[" * 100_000 + "\n")
    pq.write_table(pa.table({"TEXT": ["in parquet"], "CIK": [320193.0], "Form": ["10-K"]}), tmp_path / "y.parquet")
    manifest, _ = build(tmp_path, tmp_path / "x.jsonl", tmp_path / "y.parquet", val_fraction=0.3)
    companies = {s: manifest["splits"][s]["companies"] for s in ("train", "val")}
    assert sum(companies.values()) == 10 and manifest["exact_duplicates_dropped"] == 2
    found = texts(tmp_path / "out")
    sides = {s: {data.TokenData(str(tmp_path / "out")).tokenizer.decode(t).split()[0]
                 for _, t in data.TokenData(str(tmp_path / "out")).read_documents(s)} for s in ("train", "val")}
    assert len({"one", "two", "by", "in"} & sides["train"]) in (0, 4)
    assert {a["cik"] for a, t in found.values() if t.startswith(("one", "two", "in"))} == {"0000320193"}


def test_a_single_document_gives_its_end_for_validation(tmp_path):
    paragraphs = [f"Paragraph {i} of the only document, naïve and long enough to be cut somewhere." for i in range(200)]
    (tmp_path / "x.txt").write_text("\n\n".join(paragraphs))
    manifest, _ = build(tmp_path, tmp_path / "x.txt", val_fraction=0.1)
    d = data.TokenData(str(tmp_path / "out"))
    (_, train), = d.read_documents("train")
    (about, val), = d.read_documents("val")
    train, val = d.tokenizer.decode(train), d.tokenizer.decode(val)
    assert train + val == "\n\n".join(paragraphs) and val.startswith("Paragraph 18")
    assert len(val.encode()) == about["bytes"]
    assert "end of the only document" in manifest["split_policy"]


def test_a_single_company_is_split_by_documents(tmp_path):
    records = [{"text": f"filing {y} of the one company", "cik": 9_000_001} for y in range(30)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, records)))
    manifest, _ = build(tmp_path, tmp_path / "x.jsonl", val_fraction=0.1)
    assert 2 <= manifest["splits"]["val"]["documents"] <= 4 and "only company" in manifest["split_policy"]


def test_exact_duplicates_go_and_end_of_text_stands_between_documents(tmp_path):
    (tmp_path / "x.jsonl").write_text("\n".join(
        json.dumps({"text": t}) for t in ("one", "two", "one", "three", "four <|endoftext|> five")))
    manifest, _ = build(tmp_path, tmp_path / "x.jsonl", val_fraction=0)
    assert manifest["exact_duplicates_dropped"] == 1
    d = data.TokenData(str(tmp_path / "out"))
    tokens = d.shards["train"][0]
    assert (tokens == d.tokenizer.end_of_text).sum() == 4 == manifest["splits"]["train"]["documents"]
    assert {d.tokenizer.decode(t) for _, t in d.read_documents("train")} == {
        "one", "two", "three", "four <|endoftext|> five"}
    starts = np.load(tmp_path / "out" / "train-00000.docs.npy")
    assert starts[0] == 0 and (tokens[starts[1:] - 1] == d.tokenizer.end_of_text).all()


def test_tokenizer_of_another_directory(tmp_path, corpus, filings):
    manifest, _ = build(tmp_path, filings, tokenizer=corpus)
    assert manifest["tokenizer"]["sha256"] == json.loads((corpus / "manifest.json").read_text())["tokenizer"]["sha256"]


def test_gpt2_tokenizer_offline(tmp_path):
    (tmp_path / "x.txt").write_text("Revenue rose.\n\nCosts fell.")
    command = ("prepare.py", "corpus", tmp_path / "x.txt", "--out", tmp_path / "out", "--val_fraction", 0)
    (tmp_path / "empty_cache").mkdir()
    offline = {"TIKTOKEN_CACHE_DIR": str(tmp_path / "empty_cache"),
               "HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    failed = run(*command, check=False, env=offline)
    assert (failed.returncode == 2 and failed.stderr.count("\n") == 1 and "bpe:" in failed.stderr
            and not (tmp_path / "out").exists())
    if not (SHARED / "tiktoken").exists():
        pytest.skip("GPT-2's vocabulary is not at hand (../shared/tiktoken)")
    run(*command, env=offline | {"TIKTOKEN_CACHE_DIR": str(SHARED / "tiktoken")})
    assert data.TokenData(str(tmp_path / "out")).shards["train"][0].tolist()[-1] == 50256


def test_synth_command(tmp_path):
    done = run("prepare.py", "synth", "--out", tmp_path / "filings", "--filings", 12)
    assert "12" in done.stdout and len(list((tmp_path / "filings").iterdir())) == 12


@pytest.mark.slow
def test_all_real_filings_are_read_or_named(tmp_path):
    folders = [SHARED / "data" / n for n in ("filings_html", "filings_historic", "sgml_samples")]
    if not folders[0].exists():
        pytest.skip("real filings are not at hand (../shared/data)")
    manifest, _ = build(tmp_path, *folders, tokenizer="bpe:2000", workers=2)
    inputs = {str(p) for f in folders for p in f.iterdir()}
    accounted = {s["path"] for s in manifest["sources"] if s["documents"]} | {s["path"] for s in manifest["skipped"]}
    assert inputs == accounted and manifest["splits"]["train"]["documents"] > 35
