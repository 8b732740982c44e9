"""prepare.py corpus: the readers, the split, what is cleaned and counted, and the same bytes however it was done."""
import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, SHARED, run

import corpus as corpus_py
import data
import prepare
import sources
import split

HTML = "<html><body><p>Item 1. Business</p><p>Blorvex Ltd. makes widgets number {}.</p></body></html>"


def digests(folder):
    return {f: hashlib.sha256(open(os.path.join(folder, f), "rb").read()).hexdigest()
            for f in sorted(os.listdir(folder))}


def build(tmp_path, *paths, out="out", **flags):
    """prepare.py corpus inside this process; (manifest, what it printed)."""
    flags = {"tokenizer": "bpe:300", "val_fraction": 0.2, "workers": 1} | flags
    words = [w for k, v in flags.items() for w in ([f"--{k}", str(v)] if v is not True else [f"--{k}"])]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["prepare.py", "corpus", *map(str, paths), "--out", str(tmp_path / out), *words])
        prepare.main()
    return json.loads((tmp_path / out / "manifest.json").read_text()), printed.getvalue()


def jsonl(path, records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def texts(folder):
    d = data.TokenData(str(folder))
    return {about["id"]: (about, d.tokenizer.decode(tokens))
            for split in d.shards for about, tokens in d.read_documents(split)}


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
    whole = [d["text"] for d in sources.read_jsonl(str(path), (0, size))]
    assert len(whole) == 200
    for cut in (1, 2, 57, 1000, size - 1):
        parts = [d["text"] for a in range(0, size, cut) for d in sources.read_jsonl(str(path), (a, min(a + cut, size)))]
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
    assert "12" in done.stdout and len([*(tmp_path / "filings").glob("*.[ht]*")]) == 12
    assert json.loads((tmp_path / "filings" / "source.json").read_text())["licence"] == "synthetic"


@pytest.mark.slow
def test_all_real_filings_are_read_or_named(tmp_path):
    folders = [SHARED / "data" / n for n in ("filings_html", "filings_historic", "sgml_samples")]
    if not folders[0].exists():
        pytest.skip("real filings are not at hand (../shared/data)")
    manifest, _ = build(tmp_path, *folders, tokenizer="bpe:2000", workers=2)
    inputs = {str(p) for f in folders for p in f.iterdir()}
    accounted = {s["path"] for s in manifest["sources"] if s["documents"]} | {s["path"] for s in manifest["skipped"]}
    assert inputs == accounted and manifest["splits"]["train"]["documents"] > 35


# what is cleaned


LONG = "The quick audit of widgets in the {} region found {} units in good order and the rest in need of repair soon. "


def filing(company, year, body, **meta):
    return {"text": body, "cik": 9_000_000 + company, "filed": f"{year}-03-01", "form": "10-K",
            "accession": f"{9_000_000 + company:010d}-{year % 100:02d}-000001"} | meta


def prose(seed, paragraphs=12):
    """Paragraphs that no other seed shares."""
    rng = np.random.default_rng(seed)
    words = [f"{a}{b}" for a in ("ba", "ko", "ri", "tu", "me", "lo") for b in ("nd", "st", "rm", "lk", "ps", "x", "gt")]
    return "\n\n".join(" ".join(rng.choice(words, 30)) + f" {seed} {i}." for i in range(paragraphs))


def test_near_duplicates_go_and_the_oldest_stays(tmp_path):
    base = prose(1, 40)
    twins = [filing(1, 2019, base), filing(1, 2020, base + "\n\nOne more line in the amended filing.", form="10-K/A"),
             *(filing(i, 2020, prose(i)) for i in range(2, 9))]
    manifest, said = build(tmp_path, jsonl(tmp_path / "x.jsonl", twins))
    assert manifest["near_duplicates_dropped"] == 1 and "1 near-duplicates" in said
    kept = {a["accession"] for a, _ in texts(tmp_path / "out").values()}
    assert "0009000001-19-000001" in kept and "0009000001-20-000001" not in kept
    assert manifest["near_duplicate_examples"] == [["0009000001-20-000001", "0009000001-19-000001"]]


def test_a_filing_under_two_registrants_or_in_two_formats_is_read_once(tmp_path):
    """Of one accession number the longest stays, among those that resemble each other; its registrants are one."""
    short, other = prose(1, 20), prose(2, 20)
    longer = short + "\n\n" + prose(3, 4)
    records = [filing(1, 2019, short), filing(2, 2019, longer, accession="0009000001-19-000001"),
               filing(3, 2019, other), filing(3, 2019, prose(4), accession="0009000003-19-000001"),  # its sections
               *(filing(i, 2020, prose(i)) for i in range(5, 12)),
               filing(1, 2021, prose(20)), filing(2, 2021, prose(21))]
    manifest, _ = build(tmp_path, jsonl(tmp_path / "x.jsonl", records), val_fraction=0.3)
    assert manifest["same_accession_dropped"] == 1 and manifest["near_duplicates_dropped"] == 0
    d = data.TokenData(str(tmp_path / "out"))
    sides = {s: {a.get("cik", "")[-1] for a, _ in d.read_documents(s)} & {"1", "2"} for s in ("train", "val")}
    assert not (sides["train"] and sides["val"])


def test_paragraphs_that_a_company_filed_before_are_cut_and_items_move_along(tmp_path):
    risk, new = LONG.format("north", 3) * 2, LONG.format("south", 4) * 2
    form = "Item 1. Business\n\n{}\n\nItem 1A. Risk Factors\n\n{}\n\nItem 2. Properties\n\nNone."
    first, second = form.format(prose(1), risk), form.format(prose(2), f"{risk}\n\n{new}")

    def items(text):
        starts = [text.index(h) for h in ("Item 1.", "Item 1A.", "Item 2.")] + [len(text)]
        return {k: {"span": [a, b], "status": "found"} for k, a, b in zip(("1", "1A", "2"), starts, starts[1:],
                                                                         strict=False)}
    records = [{"text": t, "meta": {"cik": "9000001", "filed": f"20{y}-02-01", "items": items(t)}, "id": f"y{y}"}
               for y, t in ((20, first), (21, second))]
    records += [filing(i, 2020, prose(i) + "\n\n" + risk) for i in range(5, 12)]  # others may say the same
    manifest, _ = build(tmp_path, jsonl(tmp_path / "x.jsonl", records), val_fraction=0.1)
    assert manifest["repeated_paragraphs_cut"] == 1
    found = texts(tmp_path / "out")
    about, text = found["y21"]
    assert risk.strip() not in text and new.strip() in text and risk.strip() in found["y20"][1]
    for key, heading in (("1", "Item 1."), ("1A", "Item 1A."), ("2", "Item 2.")):
        a, b = about["items"][key]["span"]
        assert text[a:b].startswith(heading) and text[a:b].count("Item ") == 1, key
    assert about["repeats_cut"] == len(second) - len(text)
    assert sum(risk.strip() in t for _, t in found.values()) == 8
    manifest, _ = build(tmp_path, tmp_path / "x.jsonl", out="exact", dedup="exact")
    assert manifest["repeated_paragraphs_cut"] == 0 and risk.strip() in texts(tmp_path / "exact")["y21"][1]


def test_personal_data_is_masked_counted_or_kept(tmp_path):
    text = ("Item 1. Write to jane.roe@example.com or call (212) 555-0123.\n\nHer number is 078-05-1120.\n\n"
            "Item 2. Card 4111 1111 1111 1111, IBAN GB82 WEST 1234 5698 7654 32. Revenue was $4,111 million.")
    at = text.index("Item 2.")
    record = {"id": "mail from jane.roe@example.com", "text": text, "meta": {
        "cik": 1, "note": "jane.roe@example.com", "items": {"2": {"span": [at, len(text)], "status": "found"}}}}
    path = jsonl(tmp_path / "x.jsonl", [record, {"text": "another one"}])
    manifest, _ = build(tmp_path, path, val_fraction=0)
    (about, masked), = [v for v in texts(tmp_path / "out").values() if "Item" in v[1]]
    assert masked == ("Item 1. Write to [EMAIL] or call [PHONE].\n\nHer number is [SSN].\n\n"
                      "Item 2. Card [CARD], IBAN [IBAN]. Revenue was $4,111 million.")
    assert masked[slice(*about["items"]["2"]["span"])].startswith("Item 2. Card [CARD]")
    assert manifest["pii"]["found"] == {k: 1 for k in ("card", "email", "iban", "phone", "ssn")}
    assert b"jane" not in b"".join(p.read_bytes() for p in (tmp_path / "out").iterdir() if "json" in p.name)
    manifest, _ = build(tmp_path, path, out="counted", val_fraction=0, pii="count")
    assert manifest["pii"]["found"]["email"] == 1 and "jane.roe@" in "".join(
        t for _, t in texts(tmp_path / "counted").values())
    manifest, _ = build(tmp_path, path, out="kept", val_fraction=0, pii="keep")
    assert manifest["pii"]["found"] == {}


def test_names_of_officers_and_letters_on_request(tmp_path):
    sub = ("<SEC-DOCUMENT>0000000001-99-000001.txt\n<SEC-HEADER>\nACCESSION NUMBER:\t\t0000000001-99-000001\n"
           "CONFORMED SUBMISSION TYPE:\t10-K\nFILER:\n\n\tCOMPANY DATA:\n\t\tCOMPANY CONFORMED NAME:\tBLORVEX LTD\n"
           "\t\tCENTRAL INDEX KEY:\t\t0009999999\n</SEC-HEADER>\n<DOCUMENT>\n<TYPE>10-K\n<SEQUENCE>1\n<TEXT>\n"
           "Item 1. Business\n\nThe company is led by Quentin Zabrowski. Mr. Zabrowski owns a tenth of it.\n\n"
           "SIGNATURES\n\nPursuant to the requirements of the Securities Exchange Act, this report has been signed.\n\n"
           "/s/ Quentin Zabrowski\nQuentin Zabrowski\nChief Executive Officer\n</TEXT>\n</DOCUMENT>\n")
    (tmp_path / "sub.txt").write_text(sub)
    build(tmp_path, tmp_path / "sub.txt", val_fraction=0)
    (about, text), = texts(tmp_path / "out").values()
    assert "led by Quentin Zabrowski" in text and "people" not in about
    manifest, _ = build(tmp_path, tmp_path / "sub.txt", out="named", val_fraction=0, mask_names=True)
    (_, text), = texts(tmp_path / "named").values()
    assert "Zabrowski" not in text and "led by [NAME]" in text and manifest["pii"]["found"]["name"] >= 2
    (tmp_path / "letter.txt").write_text("Dear Mr. Oldham,\n\nyour account no. 4471-0093 is overdue.\n\nRegards,\n"
                                         "Petra Vance")
    build(tmp_path, tmp_path / "letter.txt", out="letter", val_fraction=0, deidentify=True)
    (_, text), = texts(tmp_path / "letter").values()
    assert not any(w in text for w in ("Oldham", "4471", "Vance")) and "is overdue" in text


def test_public_only_refuses_what_states_no_public_licence(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    jsonl(folder / "x.jsonl", [{"text": "one"}, {"text": "two", "license": "CC-BY-NC-4.0"}, {"text": "three"}])
    for stated in ({}, {"licence": "proprietary"}, {"licence": "cc-by-nc-4.0"}):
        with pytest.raises(ValueError, match="--public_only.*x.jsonl"):
            build(tmp_path, folder, public_only=True, **stated)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("out.*"))
    (folder / "source.json").write_text('{"licence": "CC-BY-4.0"}')
    manifest, _ = build(tmp_path, folder, public_only=True, val_fraction=0)
    assert {t for _, t in texts(tmp_path / "out").values()} == {"one", "three"}
    assert manifest["sources"][0]["licence"] == "CC-BY-4.0" and "another licence" in manifest["skipped"][0]["reason"]
    assert "CC-BY-4.0" in (tmp_path / "out" / "DATA.md").read_text()


# cells


def test_four_cells(tmp_path):
    """30 companies over ten years; the last year is held out, and companies, and a few documents of the known."""
    records = [filing(c, y, prose(c * 100 + y)) for c in range(30) for y in range(2010, 2020)]
    manifest, _ = build(tmp_path, jsonl(tmp_path / "x.jsonl", records), val_fraction=0.1)
    assert set(manifest["splits"]) == set(split.SPLITS) and manifest["val_from"] == "2019-01-01"
    d = data.TokenData(str(tmp_path / "out"))
    seen = {s: [(a["cik"], a["filed"][:4]) for a, _ in d.read_documents(s)] for s in d.shards}
    ciks = {s: {c for c, _ in v} for s, v in seen.items()}
    years = {s: {y for _, y in v} for s, v in seen.items()}
    assert not ciks["train"] & (ciks["val"] | ciks["val_both"]) and ciks["val"] == ciks["val_both"]
    assert "2019" not in years["train"] | years["val"] | years["val_neither"]
    assert years["val_year"] == years["val_both"] == {"2019"}
    assert ciks["val_year"] | ciks["val_neither"] <= ciks["train"]
    assert sum(map(len, seen.values())) == 300 and 2 <= len(seen["val_neither"]) <= 4
    assert all(a["cell"] == "val_both" for a, _ in d.read_documents("val_both"))
    assert [manifest["splits"][s]["companies_in_training"] for s in ("val", "val_both")] == [0, 0]
    card = (tmp_path / "out" / "DATA.md").read_text()
    assert "new companies, new years" in card and "2019-01-01" in card
    manifest, _ = build(tmp_path, tmp_path / "x.jsonl", out="none", val_from="none")
    assert set(manifest["splits"]) == {"train", "val", "val_neither"}
    manifest, _ = build(tmp_path, tmp_path / "x.jsonl", out="from", val_from="2016-01-01")
    assert manifest["splits"]["val_year"]["documents"] > 80
    with pytest.raises(ValueError, match="--val_from"):
        build(tmp_path, tmp_path / "x.jsonl", out="bad", val_from="last year")


def test_validation_documents_that_training_has_seen_are_left_out(tmp_path):
    """Two thirds of a held-out document stand in training, under another name: no near-duplicate, but a leak."""
    shared, records = prose(0, 20), []
    for c in range(40):
        records.append(filing(c, 2015, prose(c + 1, 4) + "\n\n" + shared))
        records.append(filing(c, 2016, prose(c + 1000, 30)))
    manifest, _ = build(tmp_path, jsonl(tmp_path / "x.jsonl", records), val_fraction=0.2)
    val = manifest["splits"]["val"]
    assert val["dropped_for_overlap"] >= 4 and manifest["near_duplicates_across_split"] == 0 and val["overlap"] < 0.05
    d = data.TokenData(str(tmp_path / "out"))
    assert not any(a["filed"].startswith("2015") for a, _ in d.read_documents("val"))
    manifest, _ = build(tmp_path, tmp_path / "x.jsonl", out="loose", val_fraction=0.2, max_overlap=0.99)
    assert manifest["splits"]["val"]["dropped_for_overlap"] == 0 and manifest["splits"]["val"]["overlap"] > 0.2


def test_overlap_is_what_counting_by_hand_gives(tmp_path):
    records = [{"text": prose(c, 6)} for c in range(20)]
    for c in range(20):
        records[c]["text"] += "\n\n" + prose(777, 2) * (c % 3 == 0)
    build(tmp_path, jsonl(tmp_path / "x.jsonl", records), val_fraction=0.3, max_overlap=0.9)
    d = data.TokenData(str(tmp_path / "out"))

    def grams(tokens):
        words = "".join(ch if ch.isalnum() else " " for ch in d.tokenizer.decode(tokens).lower()).split()
        return {tuple(words[i : i + 13]) for i in range(len(words) - 12)}
    train = set().union(*(grams(t) for _, t in d.read_documents("train")))
    shares = [len(grams(t) & train) / len(grams(t)) for _, t in d.read_documents("val")]
    assert d.manifest["splits"]["val"]["overlap"] == pytest.approx(np.mean(shares), abs=1e-4)


# how it was done does not matter


def start(*words, env=None):
    return subprocess.Popen([sys.executable, "prepare.py", *map(str, words)], cwd=ROOT, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL, env=os.environ | (env or {}))


def test_three_processes_share_the_work_and_write_the_same_bytes(tmp_path, filings):
    flags = ("--tokenizer", "bpe:400", "--val_fraction", "0.2", "--workers", "1")
    build(tmp_path, filings, out="alone", tokenizer="bpe:400")
    started = [start("corpus", filings, "--out", tmp_path / "shared", *flags, env={"RANK": str(r), "WORLD_SIZE": "3"})
               for r in range(3)]
    assert [p.wait(120) for p in started] == [0, 0, 0]
    assert digests(tmp_path / "shared") == digests(tmp_path / "alone") and not list(tmp_path.glob("*.partial*"))
    # an array whose jobs run one after the other: the first does all, the others find it done
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        for rank in "01":
            patch.setenv("RANK", rank)
            manifest, said = build(tmp_path, filings, out="array", tokenizer="bpe:400")
    assert "complete already" in said and digests(tmp_path / "array") == digests(tmp_path / "alone")


@pytest.mark.slow
def test_kill_minus_nine_anywhere_and_go_on(tmp_path, filings):
    flags = ("--tokenizer", "bpe:400", "--val_fraction", "0.2")
    build(tmp_path, filings, out="undisturbed", tokenizer="bpe:400")
    rng, kills, attempt = np.random.default_rng(0), 0, 0
    while kills < 20:
        attempt += 1
        process = start("corpus", filings, "--out", tmp_path / "out", *flags, "--workers", str(1 + attempt % 2))
        try:
            process.wait(rng.uniform(0.5, 4))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL if attempt % 3 else signal.SIGTERM)
            process.wait()
            kills += 1
        if kills < 20 and (tmp_path / "out").exists():
            assert digests(tmp_path / "out") == digests(tmp_path / "undisturbed")
            shutil.rmtree(tmp_path / "out")
    build(tmp_path, filings, out="out", tokenizer="bpe:400")
    assert digests(tmp_path / "out") == digests(tmp_path / "undisturbed") and not list(tmp_path.glob("*.partial*"))


def test_an_interrupted_job_goes_on_where_it_was(tmp_path, filings, monkeypatch):
    build(tmp_path, filings, out="undisturbed", tokenizer="bpe:400")
    encode = corpus_py.encode_task
    monkeypatch.setattr(sources, "PART", 200_000)  # several tasks
    monkeypatch.setattr(corpus_py, "encode_task", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, filings, tokenizer="bpe:400")
    assert not (tmp_path / "out").exists() and len(list((tmp_path / "out.partial" / "read").iterdir())) > 2
    monkeypatch.setattr(corpus_py, "encode_task", encode)
    monkeypatch.setattr(corpus_py, "read_task", None)  # not called again
    build(tmp_path, filings, tokenizer="bpe:400")
    assert digests(tmp_path / "out") == digests(tmp_path / "undisturbed") and not (tmp_path / "out.partial").exists()


def test_what_is_left_of_another_job_is_neither_continued_nor_removed(tmp_path, filings, monkeypatch):
    merge = corpus_py.merge_task
    monkeypatch.setattr(corpus_py, "merge_task", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, filings, tokenizer="bpe:400", seed=1)
    monkeypatch.setattr(corpus_py, "merge_task", merge)
    with pytest.raises(ValueError, match="other flags or inputs"):
        build(tmp_path, filings, tokenizer="bpe:400", seed=2)
    manifest, _ = build(tmp_path, filings, tokenizer="bpe:400", seed=1)
    assert manifest["seed"] == 1


def test_an_empty_output_folder_may_exist_and_trouble_is_not_taken_for_success(tmp_path, filings, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(corpus_py, "merge_task", lambda *a: (_ for _ in ()).throw(PermissionError(13, "denied")))
    with pytest.raises(PermissionError):
        build(tmp_path, filings, tokenizer="bpe:400")
    assert (tmp_path / "out.partial" / "read").exists()
    monkeypatch.undo()
    (tmp_path / "link").symlink_to("elsewhere")
    (tmp_path / "elsewhere").mkdir()
    build(tmp_path, filings, out="link", tokenizer="bpe:400")
    assert (tmp_path / "elsewhere" / "manifest.json").exists()


def test_a_bad_tokenizer_is_refused_before_anything_is_read(tmp_path, filings, monkeypatch):
    monkeypatch.setattr(corpus_py, "read_task", None)
    for name in ("bpe:abc", "bpe:9999999999999999999999", "nowhere"):
        with pytest.raises(ValueError, match="--tokenizer"):
            build(tmp_path, filings, tokenizer=name)
    assert not list(tmp_path.glob("out*"))


def test_an_input_that_changes_meanwhile_is_noticed(tmp_path, monkeypatch):
    path = jsonl(tmp_path / "x.jsonl", [{"text": f"record {i}"} for i in range(100)])
    monkeypatch.setattr(sources, "PART", 500)
    documents = sources.documents

    def change(*args):
        path.write_text('{"text": "something else"}')
        return documents(*args)
    monkeypatch.setattr(sources, "documents", change)
    with pytest.raises(ValueError, match="has changed"):
        build(tmp_path, path)


def test_the_output_may_lie_in_the_input_folder(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("one\n\n" + prose(1))
    (tmp_path / "b.txt").write_text("two\n\n" + prose(2))
    merge = corpus_py.merge_task
    monkeypatch.setattr(corpus_py, "merge_task", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, tmp_path)
    monkeypatch.setattr(corpus_py, "merge_task", merge)
    manifest, _ = build(tmp_path, tmp_path)
    assert [os.path.basename(s["path"]) for s in manifest["sources"]] == ["a.txt", "b.txt"] and not manifest["skipped"]
    assert "complete already" in build(tmp_path, tmp_path)[1]


def test_files_without_records_and_with_odd_names_are_accounted_for(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), folder / "empty.parquet")
    (folder / "blank.jsonl").write_text("\n\n")
    (folder / "none.json").write_text("[]")
    with pytest.raises(ValueError, match="no readable document"):
        build(tmp_path, folder)
    (folder / "good | one\n.txt").write_text("A good one.\n\n" + prose(1))
    open(os.path.join(os.fsencode(folder), b"bad.\xff"), "wb").close()
    open(os.path.join(os.fsencode(folder), b"bad\xff.txt"), "wb").write("caf\u00e9 \xff".encode("latin-1"))
    manifest, _ = build(tmp_path, folder)
    reasons = {os.path.basename(s["path"]): s["reason"] for s in manifest["skipped"]}
    assert len(reasons) == 4 and reasons["blank.jsonl"] == reasons["none.json"] == "no records in it"
    assert sum(s["documents"] for s in manifest["sources"]) == 2


def test_no_personal_data_is_left_beside_the_text(tmp_path):
    record = {"id": "Letter of Mr. Quentin Oldham, account no. 4471-0093", "text": "Hello there.\n\n" + prose(1),
              "name": "Jane Oldham", "url": "https://x.org/?mail=jane.roe@example.com", "form": "call (212) 555-0123",
              "meta": {"items": {"1": {"span": [0, 5], "status": "found", "note": "jane.roe@example.com"}}}}
    path = jsonl(tmp_path / "mail 078-05-1120.jsonl", [record, {"text": prose(2)}])
    build(tmp_path, path, deidentify=True, pii="keep")
    left = b"".join(p.read_bytes() for p in (tmp_path / "out").iterdir() if p.name.endswith("docs.jsonl")).decode()
    assert not [w for w in ("Oldham", "Jane", "jane.roe", "555-0123", "4471", "078-05", "note") if w in left], left


@pytest.mark.parametrize("licence", ["Synthetic customer mails, internal use only", "MIT license, non-commercial only",
                                     "Public domain? unclear", ["CC-BY-NC-4.0"], {"name": "MIT"}, "proprietary"])
def test_licences_that_only_look_public(tmp_path, licence):
    folder = tmp_path / "in"
    folder.mkdir()
    jsonl(folder / "x.jsonl", [{"text": "one", "license": licence}, {"text": "two", "metadata": {"licence": licence}},
                               {"text": "three", "license": "Apache-2.0"}])
    manifest, _ = build(tmp_path, folder, public_only=True, licence="CC-BY-SA 4.0", val_fraction=0)
    assert manifest["documents_read"] == 1
    (folder / "source.json").write_text(json.dumps({"licence": licence}))
    with pytest.raises(ValueError, match="--public_only"):
        build(tmp_path, folder, out="stated", public_only=True, licence="CC0")


def test_co_registrants_copies_and_spellings_are_one_company(tmp_path):
    """Each parent files with a subsidiary, each subsidiary on its own: no pair may be on both sides."""
    records = []
    for i in range(30):
        parent, child = f"{9_100_000 + i}", f"{9_200_000 + i}"
        records.append({"text": prose(i), "id": f"both {i}", "metadata_filer": json.dumps(
            [{"company": f"Parent {i}", "CIK": parent}, {"company": f"Child {i} & Company/MN", "CIK": child}])})
        records.append({"text": prose(i + 100), "id": f"child {i}", "cik": child})
        records.append({"text": prose(i + 200), "id": f"name {i}", "company": f"CHILD {i} AND CO /MN/"})
        records.append({"text": prose(i + 300), "id": f"ours {i}", "meta": {
            "cik": f"{9_300_000 + i}", "co_registrants": [parent.zfill(10)]}})
        records += [{"text": prose(i + 400), "id": f"copy {i}", "cik": parent},
                    {"text": prose(i + 400), "id": f"copied {i}", "cik": f"{9_400_000 + i}"},
                    {"text": prose(i + 500), "id": f"other {i}", "cik": f"{9_400_000 + i}"}]
    manifest, _ = build(tmp_path, jsonl(tmp_path / "x.jsonl", records), val_fraction=0.3)
    d = data.TokenData(str(tmp_path / "out"))
    sides = {s: {a["id"].split()[1] for a, _ in d.read_documents(s)} for s in ("train", "val")}
    assert len(sides["val"]) >= 6 and not sides["train"] & sides["val"]
    assert manifest["splits"]["val"]["companies"] == len(sides["val"])


# files of every size


def test_large_text_and_parquet_are_read_in_parts_without_loss(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PART", 10_000)
    monkeypatch.setattr(sources, "LARGEST", 30_000)
    whole = "\n\n".join(f"Paragraph {i}: " + "naïve words " * (i % 9 + 1) for i in range(900))
    (tmp_path / "big.txt").write_text(whole)
    no_space = "語" * 40_000
    (tmp_path / "blob.txt").write_text(no_space)
    for name, text in (("big.txt", whole), ("blob.txt", no_space)):
        path = str(tmp_path / name)
        parts = sources.parts_of(path)
        read = [d["text"] for part, _ in parts for d in sources.documents(path, part)]
        assert len(parts) > 5 and "".join("".join(read).split()) == "".join(text.split())
    rows = [f"row {i} " + "x" * (i % 700) for i in range(500)]
    pq.write_table(pa.table({"content": ["<html><body>raw</body></html>"] * 500, "text": rows}), tmp_path / "a.parquet",
                   row_group_size=90)
    path = str(tmp_path / "a.parquet")
    parts = sources.parts_of(path)
    assert len(parts) > 5 and [d["text"] for p, _ in parts for d in sources.documents(path, p)] == rows
    (tmp_path / "wide.jsonl").write_text(json.dumps({"text": "y" * 50_000}) + "\n" + json.dumps({"text": "short"}))
    path = str(tmp_path / "wide.jsonl")
    found = [d for p, _ in sources.parts_of(path) for d in sources.documents(path, p)]
    assert [d["text"] for d in found if not isinstance(d, sources.Skip)] == ["short"]
    assert sum(isinstance(d, sources.Skip) for d in found) == 1


def test_filings_kept_as_items_are_joined(tmp_path):
    record = {"cik": "718413", "year": "2019", "section_1": "Item 1. Business\r\nWe sell.", "section_1A": "",
              "section_7": "Item 7. MD&A\n\nSales rose.", "filename": "718413_2019.txt"}
    build(tmp_path, jsonl(tmp_path / "x.jsonl", [record]), val_fraction=0)
    (about, text), = texts(tmp_path / "out").values()
    assert text == "Item 1. Business\nWe sell.\n\nItem 7. MD&A\n\nSales rose." and set(about["items"]) == {"1", "7"}
    assert text[slice(*about["items"]["7"]["span"])] == "Item 7. MD&A\n\nSales rose."


def test_numbers_can_be_cut_into_digits(tmp_path, filings):
    manifest, _ = build(tmp_path, filings, tokenizer="bpe:600", numbers="digits")
    tokenizer = data.TokenData(str(tmp_path / "out")).tokenizer
    text = "in 2023, $1,234.5"
    assert len(tokenizer.encode("2023")) == 4 and tokenizer.decode(tokenizer.encode(text)) == text
    assert manifest["tokenizer"]["bytes_per_token"]["this"]["numbers"] > 0
