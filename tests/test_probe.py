"""probe.py, retrieve.py and sample.py --embed: on small models and planted filings, and on real ones where they are."""
import json
import os
import sqlite3
import sys
import types

import numpy as np
import pytest
import torch
from conftest import SHARED

import checkpoint
import embed
import probe
import retrieve
import sample
import tasks
from model import GPT, GPTConfig
from tokenizer import Tokenizer

OPTIONS = types.SimpleNamespace(seed=0, quick=True)
ITEMS = ("1", "1A", "3", "7", "8")


@pytest.fixture(scope="module")
def lm():
    tokenizer = Tokenizer.train(["the company sells widgets and risk is revenue rose court notes are " * 3], 300)
    torch.manual_seed(1)
    model = GPT(GPTConfig(vocab_size=tokenizer.vocab_size, block_size=32, n_layer=2, n_head=2, n_embd=16)).eval()
    for name, p in model.named_parameters():  # far from the start, so that layers and positions differ
        p.data.mul_(8 if "ln" not in name else 1)
    return model, tokenizer


def ask_of(lm):
    def ask(name, function, items, cast=False, chunk=16, label="", **settings):
        with torch.inference_mode():
            return [r for i in range(0, len(items), chunk) for r in function(*lm, items[i : i + chunk], **settings)]
    return ask


TEXTS = ["Revenue rose.", "", "the", "We face risks; our business may fail. " * 12, "notes are a part", "ü€😀"]


def plain(model, tokenizer, text):
    """One window after the other, one text at a time, with nothing padded: (n_layer + 2, C)."""
    ids, sums, n = tokenizer.encode(text).astype(np.int64), 0, 0
    for o in range(0, len(ids), 31):
        x = torch.tensor([[tokenizer.end_of_text, *ids[o : o + 31]]])
        h = model.wte(x) + model.wpe(torch.arange(x.shape[1]))
        layers = [h]
        for block in model.h:
            layers.append(block(layers[-1]))
        layers.append(model.ln_f(layers[-1]))
        sums, n = sums + torch.stack(layers)[:, 0, 1:].sum(1), n + x.shape[1] - 1
    return (sums / n).numpy()


@torch.inference_mode()
def test_states_are_the_mean_over_each_texts_own_tokens(lm):
    x = embed.states(*lm, TEXTS)
    assert x.shape == (len(TEXTS), 4, 16) and x.dtype == np.float32 and np.isfinite(x).all()
    assert len(lm[1].encode(TEXTS[3])) > 100  # several windows
    for i, text in enumerate(TEXTS):
        if text:
            np.testing.assert_allclose(x[i], plain(*lm, text), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(embed.states(*lm, TEXTS, "last"), x[:, -1], rtol=1e-5, atol=1e-6)
    for i, text in enumerate(TEXTS):  # alone, without padding
        np.testing.assert_allclose(embed.states(*lm, [text])[0], x[i], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(embed.states(*lm, TEXTS[::-1])[::-1], x, rtol=1e-4, atol=1e-5)
    assert not lm[0].h[0]._forward_hooks and not lm[0].h[0]._forward_pre_hooks


@torch.inference_mode()
def test_states_are_those_of_transformers(lm, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is the reference here")
    lm[0].save_pretrained(tmp_path)
    other = transformers.GPT2Model.from_pretrained(tmp_path).eval()
    ids = torch.tensor([[lm[1].end_of_text, *lm[1].encode(TEXTS[0]).tolist()]])
    theirs = [h[0, 1:].mean(0).numpy() for h in other(ids, output_hidden_states=True).hidden_states]
    ours = embed.states(*lm, TEXTS[:1])[0]
    np.testing.assert_allclose(ours[[0, 1, 3]], theirs, rtol=1e-3, atol=1e-4)  # their last is after the final norm


@torch.inference_mode()
def test_random_weights_are_always_the_same_and_draw_nothing_from_others(lm):
    state = torch.get_rng_state()
    x = embed.states(*lm, TEXTS, random_weights=True)
    embed.fresh.cache_clear()
    assert np.array_equal(x, embed.states(*lm, TEXTS, random_weights=True))
    assert torch.equal(state, torch.get_rng_state())
    assert not np.allclose(x, embed.states(*lm, TEXTS))


def blobs(n=120, d=6, classes=3):
    rng = np.random.default_rng(0)
    y = rng.integers(classes, size=n)
    x = (rng.normal(size=(n, d)) * 3 + 5 + np.eye(classes, d)[y] * 4).astype(np.float32)
    x[:, -1] = 7  # a feature that never changes
    return x, y


def test_logistic_regression_is_at_its_minimum():
    x, y = blobs()
    W, b = (lambda f: (f(x.std(0) * np.eye(6) + x.mean(0)) - f(x.mean(0)[None]), f(x.mean(0)[None])))(
        probe.logistic(x, y, 3, 0.5))
    z = (x - x.mean(0)) / np.where(x.std(0), x.std(0), 1)
    p = np.exp(z @ W + b)
    p = p / p.sum(1, keepdims=True) - np.eye(3)[y]
    assert np.abs(0.5 * z.T @ p + W).max() < 1e-2 and np.abs(p.sum(0)).max() < 1e-2


def test_logistic_regression_is_scikit_learns():
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is the reference here")
    x, y = blobs()
    z = (x - x.mean(0)) / np.where(x.std(0), x.std(0), 1)
    for C in (1e-3, 0.1, 10):
        theirs = linear_model.LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(z, y).decision_function(z)
        ours = probe.logistic(x, y, 3, C)(x)
        np.testing.assert_allclose(ours - ours.mean(1, keepdims=True), theirs, rtol=1e-3, atol=1e-3)


# ---- planted filings -------------------------------------------------------------------------------------------------


class Planted:
    """A corpus whose "tokens" are the number of a document. held: how many of the companies are held out."""

    def __init__(self, n=8, years=2, held=2, own=True, seed=0, mixed=False, items=ITEMS):
        rng, self.texts, self.docs = np.random.default_rng(seed), [], {"train": [], "val": []}
        topics = {k: [f"{w}{chr(97 + i)}" for i in range(20)] for k, w in
                  zip(ITEMS, ("sells", "risk", "court", "rose", "audit"), strict=True)}
        shared = [f"the{chr(97 + i)}" for i in range(20)]
        for c in range(n):
            for year in range(years):
                text, spans = "", {}
                for k in items:
                    topic = topics[ITEMS[rng.integers(5)] if mixed else k]
                    lines = [f"Item {k}. Heading{k}"]
                    for _ in range(3):
                        words = [*rng.choice(topic, 25), *rng.choice(shared, 30), *[f"company{c}item{k}"] * 4 * own]
                        lines.append(" ".join(rng.permutation(words)) + ".")
                    spans[k] = {"span": [len(text), len(text) + len("\n".join(lines))], "status": "found"}
                    text += "\n".join(lines) + "\n"
                self.docs["val" if c < held else "train"].append(
                    {"id": f"{c}-{year}", "cik": f"{c:010}", "items": spans, "period": f"20{10 + year}-12-31",
                     "n": len(self.texts)})
                self.texts.append(text)
        self.manifest = {"splits": {split: {} for split in self.docs}}
        self.tokenizer = types.SimpleNamespace(decode=lambda ids: self.texts[ids[0]])

    def read_documents(self, split):
        for about in self.docs[split]:
            yield dict(about), np.array([about["n"]])


def test_folds_are_of_whole_companies_and_hold_every_item():
    records = probe.choose(probe.gather(Planted(n=11), OPTIONS), ITEMS, 10_000, 0)
    fold, company = probe.folds(records, 0), np.array([r["meta"]["company"] for r in records])
    assert all(len({*fold[company == c]}) == 1 for c in {*company}) and {*fold} == {*range(5)}
    for f in range(5):
        assert len({r["meta"]["label"] for r, g in zip(records, fold, strict=True) if f == g}) == 5
    assert not any("Heading" in r["prompt"] for r in records)
    seen = []

    def answer(y, train, val, test):
        assert not (train & val).any() and not (train & test).any() and not (val & test).any()
        assert (train | val | test).all() and val.any() and train.any()
        seen.append(test)
        return np.zeros(test.sum(), int), []

    probe.cross_validate(records, answer, 0)
    assert (np.sum(seen, 0) == 1).all()


def test_no_company_and_item_has_more_passages_than_may_be():
    records = probe.gather(Planted(n=7, years=4), OPTIONS)
    for most, cap in ((10_000, 4), (7 * 5 * 3 + 2, 3), (1, 1)):
        chosen = probe.choose(records, ITEMS, most, 0)
        assert len(chosen) == 7 * 5 * cap, most
        assert {r["id"] for r in chosen} == {r["id"] for r in probe.choose(records[::-1], ITEMS, most, 0)}


def test_companies_joined_by_name_are_one():
    corpus = Planted(n=6)
    for about in corpus.docs["train"]:
        about["company"] = "Same Inc." if about["id"][0] in "34" else ""
    groups = {f.about["id"]: f.company for f in probe.read_filings(corpus)}
    assert groups["3-0"] == groups["4-1"] != groups["5-0"] and len({*groups.values()}) == 5


def test_a_probe_finds_what_was_planted(lm):
    report = probe.probe(ask_of(lm), ["m"], Planted(), OPTIONS)
    json.dumps(report, allow_nan=False)
    task = report["tasks"]["five-way"]
    assert task["companies"] == 8 and len(task["classes"]) == 5 and not report["missing"]
    assert task["rows"]["TF-IDF"]["accuracy"] > 0.95 and task["rows"]["m"]["accuracy"] > 0.8
    assert task["rows"]["commonest"]["accuracy"] <= 0.25
    assert set(task["rows"]) == {"m", "TF-IDF", "random weights", "commonest"}
    row = report["tasks"]["1A-7"]["rows"]["m"]
    assert row["accuracy"] > 0.9 and row["accuracy_95"][0] <= row["accuracy"] <= row["accuracy_95"][1] <= 1
    assert 0 <= row["layer"] <= 3 and len(row["layers"]) == len(row["C"]) == 5
    assert row["n_unseen"] == report["tasks"]["1A-7"]["n"] // 4 and row["accuracy_unseen"] > 0.8


def test_a_probe_is_at_chance_where_items_say_nothing(lm):
    report = probe.probe(ask_of(lm), ["m"], Planted(n=7, years=3, mixed=True, own=False, held=0), OPTIONS)
    for name in ("m", "TF-IDF", "random weights"):
        row = report["tasks"]["five-way"]["rows"][name]
        assert abs(row["accuracy"] - 0.2) < 0.12, (name, row)
        assert row["accuracy_unseen"] is None and row["n_unseen"] == 0


def test_too_few_companies_are_said_in_one_line(lm):
    with pytest.raises(ValueError, match="needs 5 companies .* 4 have risk factors"):
        probe.probe(ask_of(lm), ["m"], Planted(n=4), OPTIONS)
    report = probe.probe(ask_of(lm), ["m"], Planted(n=5, items=("1", "3", "8")), OPTIONS)
    assert [*report["tasks"]] == ["five-way"] and "1A, 7" in report["missing"]["1A-7"]
    scattered = Planted(n=8)
    for i, about in enumerate(scattered.docs["train"]):  # two items each, but no item in five companies
        about["items"] = {k: about["items"][k] for k in [("1", "3"), ("1A", "7"), ("3", "8")][i // 2 % 3]}
    for corpus in (Planted(n=0), scattered):
        with pytest.raises(ValueError, match="5 companies"):
            probe.probe(ask_of(lm), ["m"], corpus, OPTIONS)


def test_a_search_finds_next_years_item(lm):
    report = probe.embeddings(ask_of(lm), ["m"], Planted(n=6, years=3), OPTIONS)
    json.dumps(report, allow_nan=False)
    assert report["queries"] == 6 * 2 * 3 and report["candidates"] == 6 * 3 * 3 and report["companies"] == 6
    rows = report["rows"]
    # the item of two years later is as near as next year's, so half of the queries are a toss-up
    assert rows["BM25"]["recall@5"] == 1 and rows["BM25"]["mrr"] > 0.6
    assert rows["chance"]["recall@1"] == pytest.approx(1 / 51) and rows["chance"]["recall@10"] == pytest.approx(10 / 51)
    assert rows["chance"]["mrr"] == pytest.approx(np.mean(1 / np.arange(1, 52)))
    assert rows["m"]["recall@5"] > 0.2 and {*rows} == {"m", "random weights", "BM25", "chance"}
    two = probe.embeddings(ask_of(lm), ["m"], Planted(n=6, years=2), OPTIONS)
    assert two["rows"]["BM25"]["recall@1"] == 1 and two["queries"] == 18


def test_states_that_are_all_the_same_find_nothing():
    def ask(name, function, items, **settings):
        return [np.full(4, {"same": 1, "broken": np.nan}.get(name, 2), np.float32)] * len(items)
    rows = probe.embeddings(ask, ["same", "broken"], Planted(), OPTIONS)["rows"]
    assert all(rows[name]["recall@10"] == 0 and rows[name]["mrr"] < 0.05 for name in ("same", "broken"))


def test_a_search_needs_two_filings_of_a_company_half_a_year_apart(lm):
    corpus = Planted(years=2)
    for about in corpus.docs["train"] + corpus.docs["val"]:
        about["period"] = "2010-12-31"  # amendments
    for nothing in (corpus, Planted(years=1), Planted(n=0)):
        with pytest.raises(ValueError, match="company with two filings"):
            probe.embeddings(ask_of(lm), ["m"], nothing, OPTIONS)


def test_sections_asks_which_item_follows(lm):
    corpus, asked = Planted(n=4, held=3, items=("1", "1A", "3", "7", "8")), []

    def ask(name, function, items, **settings):
        asked.extend(items)
        return [[-2.0 + (i % 4 == 0), -1.0] for i in range(len(items))] if name == "knows" else (
            ask_of(lm)(name, function, items, **settings))

    report = probe.sections(ask, ["knows", "m"], corpus, OPTIONS)
    json.dumps(report, allow_nan=False)
    assert report["n"] == 3 * 2 * 4 and report["companies"] == 3 and report["chance"] == 0.25
    assert report["rows"]["knows"]["accuracy"] == report["rows"]["knows"]["pmi"] == 1
    assert {*report["rows"]} == {"knows", "m", "TF-IDF similarity"}
    held = [corpus.texts[d["n"]] for d in corpus.docs["val"]]
    for i in range(0, len(asked[: 4 * report["n"]]), 4):
        (text,) = (t for t in held if asked[i][0][-80:] in t)
        spot = text.index(asked[i][0][-80:]) + 80
        assert asked[i][1] in text[spot : spot + len(asked[i][1]) + 40], "the first candidate follows"
        assert len({opening for _, opening in asked[i : i + 4]}) == 4
        assert all(context == asked[i][0] and "Heading" not in opening for context, opening in asked[i : i + 4])
    with pytest.raises(ValueError, match="held-out filing"):
        probe.sections(ask, ["m"], Planted(held=0), OPTIONS)


@torch.inference_mode()
def test_likelihoods_are_those_of_the_model(lm):
    model, tokenizer = lm
    context, text = "We sell", " risk is"
    said = tokenizer.encode(text).tolist()
    ids, n = [tokenizer.end_of_text, *tokenizer.encode(context).tolist(), *said], len(said)
    after = torch.log_softmax(model(torch.tensor([ids[:-1]]))[0][0], -1)[range(len(ids) - 1), ids[1:]][-n:].sum() / 8
    alone = probe.likelihoods(model, tokenizer, [("", text)])[0]
    found = probe.likelihoods(model, tokenizer, [("x" * 500, text * 50), (context, text), ("", "")])
    assert found[1] == pytest.approx([float(after), alone[0]], abs=1e-5) and alone[0] == pytest.approx(alone[1])
    assert np.isfinite(found).all()


# ---- real filings ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_counting_words_on_real_filings_gets_what_research_found():
    folder = SHARED / "data" / "filings_items"
    if not folder.is_dir():
        pytest.skip(f"{folder} with 48 real 10-K filings is not here")

    class Real(Planted):
        def __init__(self):
            found = list(tasks.filings(str(folder), types.SimpleNamespace(skipped=[], licences=set())))
            self.texts = [document["text"] for document, _ in found]
            self.docs = {"train": [document["meta"] | {"id": document["id"], "n": i}
                                   for i, (document, _) in enumerate(found)]}
            self.manifest = {"splits": {"train": {}}}
            self.tokenizer = types.SimpleNamespace(decode=lambda ids: self.texts[ids[0]])

    records = probe.choose(probe.gather(Real(), types.SimpleNamespace(seed=0, quick=False)), ("1A", "7"), 2000, 0)
    row = probe.cross_validate(records, lambda *a: probe.count_words(records, *a), 0)
    print(len(records), row)
    assert len({r["meta"]["company"] for r in records}) > 20 and 500 < len(records) < 1000
    assert row["accuracy_95"][0] < 0.9 < row["accuracy_95"][1], row  # of 0.900 on somewhat more filings


# ---- sample.py --embed -----------------------------------------------------------------------------------------------


def test_embed_writes_a_row_for_each_text(lm, tmp_path, monkeypatch, capsys):
    lm[0].save_pretrained(tmp_path / "m")
    lm[1].save(tmp_path / "m")
    (tmp_path / "t.txt").write_text("Revenue rose.\n\nthe\n" + TEXTS[3] + "\n", encoding="utf-8")
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS), encoding="utf-8")

    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["sample.py", str(tmp_path / "m"), "--device", "cpu", "--dtype", "float32",
                                          *map(str, flags)])
        sample.main()
        return capsys.readouterr().out

    out = run("--embed", tmp_path / "t.txt")
    rows = np.load(tmp_path / "t.txt.npy")
    assert "4 texts x 16 float32" in out and "numpy.load" in out and rows.shape == (4, 16) and rows.dtype == np.float32
    assert "6 texts" in run("--embed", tmp_path / "t.jsonl", "--out", tmp_path / "o")
    with torch.inference_mode():
        expected = embed.states(*checkpoint.load(str(tmp_path / "m")), TEXTS, "last")
    np.testing.assert_allclose(np.load(tmp_path / "o"), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rows[3], expected[3], rtol=1e-4, atol=1e-5)  # the second line is empty
    assert not [f for f in os.listdir(tmp_path) if f.endswith(".tmp")]
    with pytest.raises(ValueError, match="one checkpoint"):
        run("--embed", tmp_path / "t.txt", "--prompt", "x")
    with pytest.raises(FileNotFoundError):
        run("--embed", tmp_path / "t.txt", "--out", tmp_path / "no" / "o")


# ---- retrieve.py -----------------------------------------------------------------------------------------------------


def test_a_store_finds_passages_whatever_is_asked():
    store = retrieve.Store()
    store.add([("a", "Net sales of iPhone rose ½ _x_ a\0b \ud800 café"), (2, "We are subject to many risks"),
               ("c", "many things NEAR AND OR net"), ("d", "many more"), ("e", "many others")])
    assert [key for key, _ in store.search("How did IPHONE sales do?", 3)] == ["a"]
    assert store.search("iphone", 3)[0][1] > 0 and store.search("subject", 1)[0][0] == 2
    assert store.search("CAFÉ", 1)[0][0] == "a"
    for query in ("", '"', "'", "\0", "😀 中文", "\ud800", "*", "a* OR", 'NEAR("', "words:x", "-", "x" * 10_000,
                  "net " * 2500, " ".join(map(str, range(5000))), "{id} : x", "id:a", "½", "_", "%"):
        assert isinstance(store.search(query, 5), list), query
    assert store.search("zebra", 5) == [] == store.search("many", 0) == store.search("many", -1)
    assert len(store.search("many", 9)) == 4  # a word of most passages, where there is no other


def test_equal_passages_come_in_the_order_of_adding(tmp_path):
    store = retrieve.Store(tmp_path / "p.db")
    store.add((i, "net sales rose") for i in (5, 3, 9))
    store.add([(i, f"other words {i}") for i in range(10, 20)])
    found = store.search("sales", 3)
    assert [key for key, _ in found] == [5, 3, 9] and len({score for _, score in found}) == 1
    store.close()
    again = retrieve.Store(tmp_path / "p.db")
    assert again.search("sales", 3) == found and again.size == 13
    again.close()


def test_bm25_prefers_rare_words_and_short_passages():
    texts = ["alpha " + "filler " * 50, "alpha beta", "common", "gamma", "delta"]
    near = retrieve.bm25(["alpha", "beta common"], texts)
    assert near.shape == (2, 5) and near[0, 1] > near[0, 0] > 0 == near[0, 2] and near[1, 1] > 0
    assert retrieve.bm25([], ["a"]).shape == (0, 1)


def test_a_store_says_what_is_wrong(tmp_path, monkeypatch):
    (tmp_path / "text").write_text("no database " * 100)
    with pytest.raises(ValueError, match="no store of passages"):
        retrieve.Store(tmp_path / "text")

    class Old:
        def execute(self, *command):
            raise sqlite3.OperationalError("no such module: fts5")
    monkeypatch.setattr(retrieve.sqlite3, "connect", lambda path: Old())
    with pytest.raises(ValueError, match="without FTS5"):
        retrieve.Store()
