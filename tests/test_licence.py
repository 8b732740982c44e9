"""What licences permit, what a directory says of its own, and what a checkpoint inherits."""
import json
import re

import pytest

import licence
import sources

FREE, NOT_FREE, UNKNOWN, NO_CHANGES = (True, True), (False, True), (None, None), (True, False)


@pytest.mark.parametrize("names, expected", [
    ("""mit|MIT License|The MIT License (MIT)|apache-2.0|Apache License, Version 2.0|BSD-3-Clause|cc0|CC0-1.0|0BSD
     odc-by|Creative Commons Zero v1.0 Universal|public domain (SEC filings)|public record (SEC EDGAR)
     U.S. Government Work
     MIT OR Apache-2.0|MIT/Apache-2.0|MIT AND Apache-2.0|(MIT OR GPL-3.0-only) AND CC-BY-4.0|CC-BY-NC-4.0 OR MIT
     https://creativecommons.org/publicdomain/zero/1.0/|www.apache.org/licenses/LICENSE-2.0|cc-by-sa-3.0|CC BY-SA 3.0
     [CC BY 4.0](https://creativecommons.org/licenses/by/4.0/)|GNU General Public License v3.0 or later|AGPL-3.0
     LGPL-2.1
     Creative Commons Attribution 4.0 International (CC BY 4.0)|https://www.gnu.org/licenses/gpl-3.0.en.html|odbl
     gemma|llama3.1|LLAMA 2 COMMUNITY LICENSE AGREEMENT|openrail|openrail++|creativeml-openrail-m|Synthetic""", FREE),
    ("""cc-by-nc-sa-3.0|CC BY-NC 4.0|https://creativecommons.org/licenses/by-nc/4.0/|["CC-BY-NC-4.0"]|cc_by_nc
     Creative Commons Attribution-NonCommercial-ShareAlike 3.0 Unported License|MIT AND CC-BY-NC-4.0
     mit, cc-by-nc-4.0|https://spdx.org/licenses/CC-BY-NC-4.0.html|(MIT OR Apache-2.0) AND CC-BY-NC-4.0""", NOT_FREE),
    ("cc-by-nd-4.0|CC BY-ND|Creative Commons Attribution-NoDerivatives 4.0", NO_CHANGES),
    ("cc-by-nc-nd-4.0|all rights reserved", (False, False)),
    ("research only|academic use|MIT license, non-commercial only|not for commercial use|qwen-research|busl-1.1",
     (False, None)),
    ("""other|unknown|not stated||license|proprietary|not MIT|non-MIT|Public domain? unclear|MIT*
     MIT, but not on Sundays|Synthetic customer mails, internal use only
     {"name": "MIT"}|MIT 非商用|https://huggingface.co/x/LICENSE|llama|cc
     free for research and commercial use|mit (see LICENSE)|u.k. government works|nothing like apache""", UNKNOWN)])
def test_terms_of_names_in_the_wild(names, expected):
    wrong = {n: t for n in re.split(r"[|\n]", names) if (t := licence.terms(n.strip()))[1:3] != expected}
    assert not wrong


def test_conditions_are_named():
    assert "policy" in licence.terms("gemma").note and "policy" in licence.terms("llama3.2").note
    assert "share alike" in licence.terms("cc-by-sa-4.0").note and "share alike" in licence.terms("gpl-3.0").note
    assert licence.terms("CC-BY-NC-SA-3.0").name == "CC BY-NC-SA 3.0" and licence.terms("mit").name == "MIT"
    assert "ask its owner" in licence.terms("other").note and "ask its owner" in licence.terms(None).note


def test_a_remark_takes_away_and_never_gives():
    for name in ("mit", "apache-2.0", "cc-by-4.0", "CC0", "gpl-3.0", "gemma", "public domain"):
        for remark in (" but ask first", ", except weights", " (terms apply)", " for now", "-like", "?", " 禁止"):
            assert licence.terms(name + remark).commercial is None, name + remark
        for remark in (", non-commercial", " (research only)", " and cc-by-nc-4.0", "\nCC BY-NC 4.0"):
            assert licence.terms(name + remark).commercial is False, name + remark
    for remark in ("", " (free)", " but fine", ", MIT"):
        assert licence.terms("cc-by-nc-4.0" + remark).commercial is False


def test_public_only_and_terms_agree():
    """What prepare.py takes as public is free here as well."""
    for name in ("public domain", "public record (SEC EDGAR)", "Synthetic", "CC0-1.0", "cc-by-4.0", "CC BY-SA 3.0",
                 "MIT", "odc-by", "ODbL v1.0", "pddl", "Apache 2.0", "BSD 3-Clause", "US Government work"):
        assert licence.terms(name)[1:3] == FREE, name
    for name in ("cc-by-nc-4.0", "proprietary", "MIT license, non-commercial only", "Public domain? unclear"):
        assert licence.terms(name)[1:3] != FREE and not sources.is_public(name)


def test_a_name_means_the_same_when_it_is_read_again():
    for name in ("(MIT OR Apache-2.0) AND CC-BY-NC-4.0", "MIT (weights: research only)", "gpl-3.0, other", "Foo OR MIT",
                 "[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/)", "llama3.1", None, "free (of charge"):
        assert licence.terms(licence.terms(name).name)[1:3] == licence.terms(name)[1:3], name


@pytest.mark.parametrize("files, expected", [
    ({"README.md": "---\nlanguage: en\nlicense: mit\ntags: [a]\n---\n# GPT-2\nlicense: gpl"}, "mit"),
    ({"README.md": "\ufeff---\r\nlicense: \"Apache-2.0\"  # yes\r\n---\r\n"}, "Apache-2.0"),
    ({"README.md": "---\nlicense:\n- mit\n- cc-by-nc-4.0\ntags:\n- x\n---"}, "mit, cc-by-nc-4.0"),
    ({"README.md": "---\nlicense:\n  - mit\n---"}, "mit"),
    ({"README.md": "---\nlicense: [mit, gpl-3.0]\n---"}, "mit, gpl-3.0"),
    ({"README.md": "---\nlicense: other\nlicense_name: llama3\n---"}, "llama3"),
    ({"README.md": "---\nlicense_name: gemma\nlicense_link: x\nlicense: other\n---"}, "gemma"),
    ({"README.md": "---\nlicense: other\n---"}, "other"),
    ({"README.md": "---\nlicense: other\n---", "LICENSE": "\n  MIT License\n\nCopyright"}, "MIT License"),
    ({"README.md": "---\nmodel-index:\n  license: mit\n---"}, None),
    ({"README.md": "---\nlicense:\n---"}, None),
    ({"README.md": "license: mit"}, None),
    ({"LICENSE.txt": "  Apache License\n   Version 2.0, January 2004\n"}, "Apache License\n   Version 2.0"),
    ({"LICENSE": "Copyright (c) 2020 Nobody. All rights reserved.\n\nBSD 3-Clause License"}, "BSD 3-Clause License"),
    ({"README.md": "\xff\xfe no", "LICENSE": ""}, None),
    ({}, None)])
def test_of_model(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).write_bytes(text.encode())
    assert licence.of_model(str(tmp_path)) == expected


def test_of_model_without_a_directory(tmp_path):
    (tmp_path / "LICENSE").write_text("MIT License")
    (tmp_path / "ckpt.pt").write_bytes(b"")
    assert licence.of_model(str(tmp_path / "ckpt.pt")) is None and licence.of_model("no/such") is None


def sft(stated, task="phrasebank"):
    return dict(kind="sft", task=dict(name=task), licence=stated, sources=[dict(path="x.zip", licence=stated)],
                splits=dict(train=dict(file="train.jsonl", sha256="1"), test=dict(file="test.jsonl", sha256="2")))


def test_the_base_of_the_base_is_inherited(tmp_path):
    gpt2 = tmp_path / "gpt2"
    gpt2.mkdir()
    (gpt2 / "README.md").write_text("---\nlicense: mit\n---")
    run = tmp_path / "run" / "step-00000010"
    run.mkdir(parents=True)
    first = licence.lineage("model", "openai-community/gpt2", str(gpt2), {"data/fpb": sft("CC BY-NC-SA 3.0")}, "abc")
    assert first["base"]["sha256"] == "abc" and first["data"][0]["task"] == "phrasebank"
    assert first["verdict"]["commercial"] is False and first["verdict"]["redistribution"] is True
    assert any("share alike" in reason for reason in first["verdict"]["because"])
    words = licence.in_words(first)
    assert "base openai-community/gpt2: MIT; commercial use and redistribution allowed, by its own account" in words
    assert any(w.startswith("data data/fpb: CC BY-NC-SA 3.0: what is trained on it is for non-comm") for w in words)
    licence.write(str(run), first)
    assert licence.read(str(run)) == licence.read(str(tmp_path / "run")) == json.loads(json.dumps(first))
    (tmp_path / "run" / "step-00000011").mkdir()
    assert licence.read(str(tmp_path / "run")) is None  # the newest step was written without one
    second = licence.lineage("adapter", str(run), None, {"data/own": sft("mit")})
    assert second["verdict"]["commercial"] is False and second["base"]["lineage"]["base"]["licence"] == "mit"
    (run / "README.md").write_text("---\nlicense: mit\n---")  # a card that claims more than the record allows
    assert licence.lineage("adapter", str(run))["verdict"]["commercial"] is False
    assert licence.terms(licence.of_model(str(run)))[1:3] == FREE  # as it says itself


def test_an_adapter_of_somebody_speaks_for_itself_only(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---")
    (tmp_path / "adapter_config.json").write_text("{}")
    assert licence.lineage("model", str(tmp_path))["verdict"]["commercial"] is None


def test_what_nobody_stated_is_never_called_free(tmp_path):
    nothing = sft("mit") | dict(licence=None, sources=[])
    for record in (licence.lineage("model"), licence.lineage("model", "gpt2", str(tmp_path)),
                   licence.lineage("model", data_manifests={"d": nothing}),
                   licence.lineage("model", data_manifests={"d": nothing | dict(licence=[])}),
                   licence.lineage("model", data_manifests={"d": sft("mit"), "e": sft("")}),
                   licence.lineage("model", data_manifests={"d": sft(None) | dict(licence="mit")} | {"e": sft(None)}),
                   licence.lineage("model", data_manifests=[("d", sft("mit") | dict(licence=["mit", "other"]))])):
        assert record["verdict"]["commercial"] is None, record
        assert all("allowed" not in line or "not known" in line or "MIT" in line for line in licence.in_words(record))
        assert json.loads(json.dumps(record)) == record


def test_licences_that_single_documents_state_count(tmp_path):
    lines = [dict(id="a", company='says "licence": "x"'), dict(id="b", licence="CC-BY-NC-4.0"), dict(id="c")]
    (tmp_path / "train-00000.docs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    manifest = dict(kind="lm", sources=[dict(path="x.jsonl", licence="MIT")], splits=dict(
        train=dict(documents=3, shards=[dict(name="train-00000.npy", sha256="s")]), val=dict(shards=[])))
    record = licence.lineage("model", data_manifests={str(tmp_path): manifest})
    assert record["data"][0]["licences"] == ["CC-BY-NC-4.0", "MIT"] and record["verdict"]["commercial"] is False


def test_a_corpus_of_ours(corpus):
    import data

    tokens = data.TokenData(str(corpus))
    record = licence.lineage("model", data_manifests={str(corpus): tokens.manifest})
    assert record["data"][0]["fingerprint"] == tokens.fingerprint()
    assert record["data"][0]["licences"] == [tokens.manifest["sources"][0]["licence"]]
    assert len(licence.in_words(record)) == 1


def test_many_data_directories_fit_in_four_lines(tmp_path):
    data = {f"data/{i}": sft("mit") for i in range(6)} | {"data/x": sft("cc-by-nc-4.0")}
    words = licence.in_words(licence.lineage("model", "gpt2", str(tmp_path), data))
    assert len(words) == 4 and "data/x" in words[0] and "commercial use not allowed" in words[-1]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "3", "{}", '{"verdict": {"name": "MIT"}}'])
def test_damaged_lineage(tmp_path, content):
    (tmp_path / "lineage.json").write_text(content)
    with pytest.raises(ValueError, match="lineage.json is damaged"):
        licence.read(str(tmp_path))
    assert licence.read(str(tmp_path / "nowhere")) is None
