"""Loss on the same bytes (loss.py), how sure it is (stats.py), and models in worker processes (ask.py)."""
import json
import math
import os
import shutil
import types

import numpy as np
import pytest
import torch
from conftest import run

import checkpoint
import data
import loss
import stats
import tokenizer
from ask import Ask
from model import GPT, GPTConfig


def asked(models, folder, workers=1, dtype="float32"):
    return Ask(models, str(folder), workers, torch.device("cpu"), dtype)


def options(**flags):
    return types.SimpleNamespace(**dict(max_bytes=60_000, quick=False, seed=0) | flags)


# ---- intervals and tests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [5, 8, 30])
def test_intervals_cover_the_truth(n, monkeypatch):
    """95 ± 2 %, simulated: documents of very unequal sizes whose bits per byte differ as normal variables do."""
    monkeypatch.setattr(stats, "DRAWS", 400)
    rng, covered, rounds = np.random.default_rng(n), 0, 1500
    for i in range(rounds):
        size = np.exp(rng.normal(12, 0.5, n))
        low, high = stats.interval(size * rng.normal(1.1, 0.15, n), size, seed=i)
        covered += low <= 1.1 <= high
    assert 0.93 <= covered / rounds <= 0.97


def test_an_interval_holds_its_figure_and_shrinks():
    rng = np.random.default_rng(0)
    size = rng.integers(100, 10_000, 400).astype(float)
    bits = size * rng.normal(1.1, 0.1, 400)
    low, high = stats.interval(bits, size)
    few = stats.interval(bits[:20], size[:20])
    assert low < bits.sum() / size.sum() < high and high - low < few[1] - few[0]
    assert stats.interval(bits[:2], size[:2]) is None and stats.interval([], []) is None
    assert stats.interval(np.ones(5), np.ones(5)) == [1.0, 1.0]


@pytest.mark.parametrize("n", [2, 3, 4, 5, 7, 40])
def test_the_paired_test_is_right_one_time_in_twenty(n, monkeypatch):
    monkeypatch.setattr(stats, "DRAWS", 2)
    monkeypatch.setattr(stats, "FLIPS", 400)
    rng, size = np.random.default_rng(n), np.ones(n)
    p = np.array([stats.paired(rng.normal(0, 1, n), rng.normal(0, 1, n), size, seed=i)["p"] for i in range(600)])
    assert 0.025 < (p <= 0.05).mean() < 0.08
    found = stats.paired(rng.normal(0, 1, n), rng.normal(9, 1, n), size)
    assert found["p"] < (0.2 if n == 2 else 0.05) and found["difference"] > 0


def test_few_documents_have_students_p():
    for n, t in ((2, 12.7062), (3, 4.30265), (4, 3.18245), (5, 2.77645)):  # the 97.5 % quantiles, from tables
        d = np.arange(n) - (n - 1) / 2
        d = d / d.std(ddof=1) + t / math.sqrt(n)
        assert stats.paired(np.zeros(n), d)["p"] == pytest.approx(0.05, abs=1e-5)


def test_five_documents_that_agree_to_the_last_bit_are_no_proof():
    assert stats.paired(np.zeros(5), np.ones(5))["p"] == 1 / 16 and stats.paired(np.zeros(6), np.ones(6))["p"] == 1 / 32


def test_a_thing_is_not_different_from_itself():
    for n in (3, 5, 9, 40):
        size = np.ones(n)
        nothing = stats.paired(size, size, size)
        assert nothing["p"] == 1 and nothing["difference"] == 0 and nothing["interval_95"] == [0, 0]
    assert stats.paired([1.0], [2.0])["p"] is None


def test_wilson():
    assert stats.wilson(71, 100) == pytest.approx([0.61461, 0.78985], abs=1e-4)
    assert all(stats.wilson(n, n)[1] == 1 for n in range(1, 3000))
    assert stats.share([1, 1, 0], [1, 1, 1]) == [0, 1] and stats.share([0, 0], [5, 5]) == stats.wilson(0, 2)
    assert stats.wilson(0, 10)[0] == 0 and stats.wilson(10, 10)[1] == 1


# ---- loss ------------------------------------------------------------------------------------------------------------


def test_windows_score_each_token_once():
    for n, T in ((2, 8), (8, 8), (9, 8), (10, 8), (37, 8), (100, 7), (5, 1)):
        rows = list(loss.windows(list(range(n)), T))
        assert torch.cat([y[y >= 0] for _, _, y in rows]).tolist() == list(range(1, n)), (n, T)
        for start, x, y in rows:
            assert len(x) == len(y) <= T and x[0] == start and (y[y >= 0] == x[y >= 0] + 1).all()


@pytest.fixture(scope="module")
def second(tmp_path_factory, filings):
    """A random model with a tokenizer of its own."""
    folder = tmp_path_factory.mktemp("second")
    run("prepare.py", "corpus", filings, "--out", folder / "data", "--tokenizer", "bpe:320", "--workers", "2")
    torch.manual_seed(3)
    model = GPT(GPTConfig(vocab_size=320, block_size=48, n_layer=2, n_head=2, n_embd=32))
    model.save_pretrained(str(folder / "model"), tokenizer.Tokenizer.load(str(folder / "data")))
    return folder / "model"


def test_bits_per_byte_are_those_of_transformers(trained, second, corpus, tmp_path):
    """Token by token, each with the context that its window gives it, through AutoModelForCausalLM."""
    transformers = pytest.importorskip("transformers")
    held = data.TokenData(str(corpus))
    text = held.tokenizer.decode(next(held.read_documents("val"))[1])[:700] + " naïve – “quoted”"
    ask = asked({"a": str(trained), "b": str(second)}, tmp_path)
    for name, path in (("a", trained), ("b", second)):
        (nats, size, tokens), = ask(name, loss.nats_at, [dict(text=text, cuts=[])])
        model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        theirs = transformers.AutoTokenizer.from_pretrained(path)
        ids = [theirs.eos_token_id, *theirs(text)["input_ids"]]
        T, expected = model.config.n_positions, 0.0
        with torch.no_grad():
            for i in range(1, len(ids)):
                start = 0 if i <= T else math.ceil((i - T) / (T // 2)) * (T // 2)
                logits = model(torch.tensor([ids[start:i]])).logits[0, -1]
                expected -= torch.log_softmax(logits, -1)[ids[i]].item()
        assert tokens[-1] == len(ids) - 1 and size[-1] == pytest.approx(len(text.encode()))
        assert nats[-1] / math.log(2) / size[-1] == pytest.approx(expected / math.log(2) / len(text.encode()), abs=1e-4)


def test_parts_of_a_document_add_up(trained, tmp_path):
    text = "Item 7.\nRevenue rose.\nNorth | 1\nSouth | 2\nItem 8.\nNotes.\n" * 9
    about = {"items": {"7": {"span": [0, 42]}, "8": {"span": [42, 60]}, "9": {"status": "absent"}}}
    labels, cuts = loss.parts(about, text)
    assert labels[:4] == [("7", "text"), ("7", "tables"), ("8", "text"), ("", "text")] and len(cuts) == len(labels) - 1
    assert text.encode()[: cuts[0]].endswith(b"rose.\n") and text.encode()[: cuts[1]].endswith(b"| 2\n")
    ask = asked({"m": str(trained)}, tmp_path)
    (nats, size, tokens), = ask("m", loss.nats_at, [dict(text=text, cuts=cuts)])
    (whole, *_), = ask("m", loss.nats_at, [dict(text=text, cuts=[])])
    assert nats[-1] == pytest.approx(whole[0]) and np.all(np.diff(nats) > 0)
    assert size == pytest.approx([*cuts, len(text)])
    (few, read, _), = ask("m", loss.nats_at, [dict(text=text, cuts=[])], every=3)
    assert 0.2 < read[0] / len(text) < 0.5 and few[0] / read[0] == pytest.approx(whole[0] / len(text), rel=0.1)
    (nothing, *_), = ask("m", loss.nats_at, [dict(text="", cuts=[])])
    assert nothing == [0.0]


def test_the_part(trained, corpus, tmp_path):
    early, held = str(trained / "step-00000005"), data.TokenData(str(corpus))
    ask = asked({"late": str(trained), "early": early, "again": str(trained)}, tmp_path)
    found = loss.run(ask, ["late", "early", "again"], held, options(max_bytes=400_000))
    late, second, same, unigram, xz = found["models"]
    assert late["bits_per_byte"] < second["bits_per_byte"] and second["p"] < 0.05 < same["p"] == 1
    assert second["difference_interval_95"][0] > 0 == same["difference"]
    assert unigram["control"] and 0.5 < xz["bits_per_byte"] < unigram["bits_per_byte"] < 8
    for m in found["models"]:
        assert m["interval_95"][0] <= m["bits_per_byte"] <= m["interval_95"][1]
    assert late["perplexity"] == pytest.approx(math.exp(late["loss"]))
    new = [d for d in found["documents"] if d["cell"] == "val"]
    assert late["bytes"] == sum(d["bytes"] for d in new) == found["cells"]["val"]["bytes"]
    by_hand = sum(d["bytes"] * d["bits"]["late"] for d in new) / late["bytes"]
    assert by_hand == pytest.approx(late["bits_per_byte"])
    assert {"1A", "7"} <= {*found["items"]} and {*found["tables"]} == {"text", "tables"}
    assert {*found["general"]} == {"late", "early", "again"}
    quick = loss.run(ask, ["late"], held, options(quick=True))
    assert len(quick["documents"]) >= len(found["documents"])
    json.dumps(found, allow_nan=False)


# ---- models in worker processes --------------------------------------------------------------------------------------


def test_answers_are_the_same_with_two_workers_and_kept(trained, tmp_path, monkeypatch):
    items = [dict(text=f"Revenue was ${i},000 in {2000 + i}. " * (i + 1), cuts=[]) for i in range(7)]
    one, two = asked({"m": str(trained)}, tmp_path / "1"), asked({"m": str(trained)}, tmp_path / "2", workers=2)
    try:
        first = one("m", loss.nats_at, items, chunk=3)
        assert first == two("m", loss.nats_at, items, chunk=3)
        assert [p.read_bytes() for p in sorted((tmp_path / "1").rglob("*.json"))] == [
            p.read_bytes() for p in sorted((tmp_path / "2").rglob("*.json"))]
    finally:
        two.close()
    monkeypatch.setattr(checkpoint, "load", None)  # nobody computes it again
    assert one("m", loss.nats_at, items, chunk=3) == first


def test_what_is_damaged_is_computed_again_and_a_run_that_goes_on_is_not_mixed_up(trained, tmp_path):
    run_of_two = tmp_path / "run"
    shutil.copytree(trained / "step-00000005", run_of_two / "step-00000005")
    ask, items = asked({"m": str(run_of_two)}, tmp_path / "cache"), [dict(text="Revenue rose.", cuts=[])] * 3
    first = ask("m", loss.nats_at, items, chunk=1)
    for content, name in (b"", "000000"), (b"[1", "000001"):
        next((tmp_path / "cache").glob(f"*/{name}/results.json")).write_bytes(content)
    os.remove(next((tmp_path / "cache").glob("*/000002/results.json")))
    assert ask("m", loss.nats_at, items, chunk=1) == first
    shutil.copytree(trained / "step-00000010", run_of_two / "step-00000010")
    again = asked({"m": str(run_of_two)}, tmp_path / "other")
    assert ask("m", loss.nats_at, items, chunk=2) == first != again("m", loss.nats_at, items)


def test_missing_models_are_named(trained, tmp_path):
    model = GPT.from_pretrained(str(trained))
    model.ln_f.weight.data[0] = math.nan
    model.save_pretrained(str(tmp_path / "nan"), tokenizer.Tokenizer.load(str(trained)))
    ask = asked({"a": str(trained), "b": str(tmp_path / "nowhere"), "c": "no-such/model", "d": str(tmp_path / "nan")},
                tmp_path / "cache")
    assert {*ask.about} == {"a"} and {*ask.missing} == {"b", "c", "d"} and "hub" in ask.missing["c"]
    assert "not finite" in ask.missing["d"]
    assert ask.about["a"]["tokens_trained"] == 5120 and not (tmp_path / "cache").exists()
