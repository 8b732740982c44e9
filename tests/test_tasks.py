"""tasks.py on small made-up datasets in the formats of the real ones, and on the real ones where they are at hand."""
import json
import os
import random
import types
import zipfile

import numpy as np
import pytest
import torch
from conftest import SHARED

import data
import examples
import tasks
from model import GPT, GPTConfig
from split import company_key
from tokenizer import Tokenizer

DATA = SHARED / "data"
ABOUT = {"name": "t", "labels": tasks.SENTIMENT, "metric": "labels"}
OPTIONS = types.SimpleNamespace(val_fraction=0.1, seed=0)
WORDS = ("sales profit order plant ship paper steel bank loan share price market growth contract unit year demand "
         "cost client cash debt tax rate margin office river harbour mill crane cable phone network engine").split()
TONE = {"positive": "rose", "negative": "fell", "neutral": "stayed"}

real = pytest.mark.skipif(not DATA.exists(), reason=f"needs the real data in {DATA}")


def sentence(rng, label):
    return f"{' '.join(rng.sample(WORDS, 9))} {TONE[label]} to EUR {rng.randint(2, 999)} mn ."


def records_of(pairs):
    return [tasks.record(str(i), text, label) for i, (text, label) in enumerate(pairs)]


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """A folder as the zip unpacks: 200 sentences and five special lines; and the zip itself, with what a Mac adds."""
    rng, folder = random.Random(0), tmp_path_factory.mktemp("bank")
    lines = [f"{sentence(rng, label)}@{label}" for label in ["positive"] * 60 + ["negative"] * 40 + ["neutral"] * 100]
    lines += ["Mail sales@äijä.fi for the report .@neutral", lines[0].upper().replace("@POSITIVE", "@positive"),
              "It is so .@neutral", "It is so .@positive", "no label here", ""]
    raw = "\r\n".join(lines).encode("iso-8859-1")
    with zipfile.ZipFile(folder / "FinancialPhraseBank-v1.0.zip", "w") as z:
        z.writestr("__MACOSX/FinancialPhraseBank-v1.0/._Sentences_50Agree.txt", b"\0\5\x16\7")
        z.writestr("FinancialPhraseBank-v1.0/Sentences_50Agree.txt", raw)
    (folder / "text").mkdir()
    (folder / "text" / "Sentences_50Agree.txt").write_bytes(raw)
    return folder


# ---- PhraseBank ------------------------------------------------------------------------------------------------------


def test_phrasebank_is_the_same_from_zip_folder_and_file(bank):
    task = tasks.load("phrasebank", bank / "FinancialPhraseBank-v1.0.zip")
    for path in (bank, bank / "text", bank / "text" / "Sentences_50Agree.txt"):
        assert tasks.load("phrasebank", path) == task
    records = {r["id"]: r for side in task.splits.values() for r in side}
    r = records["Sentences_50Agree-200"]  # cut at the last @, decoded from ISO-8859-1
    assert r == {"id": "Sentences_50Agree-200", "prompt": "Sentence: Mail sales@äijä.fi for the report .\nSentiment:",
                 "completion": " neutral", "meta": {"label": "neutral", "text": "Mail sales@äijä.fi for the report ."}}
    notes = task.notes
    assert notes["records read"] == 204 and notes["copies removed"] == 1 and len(records) == 201
    assert notes["prompts removed for having two labels"] == 1
    assert notes["skipped"] == ["Sentences_50Agree.txt:205: not sentence@label"]
    assert json.loads(json.dumps(task.about())) == task.about() and task.metric == "labels"


def test_dedup_split_is_stratified_and_depends_on_content_and_seed_only(bank, tmp_path):
    first = tasks.load("phrasebank", bank)
    lines = (bank / "text" / "Sentences_50Agree.txt").read_bytes().split(b"\r\n")
    random.Random(1).shuffle(lines)
    (tmp_path / "Sentences_50Agree.txt").write_bytes(b"\n".join(lines))
    again, other = tasks.load("phrasebank", tmp_path), tasks.load("phrasebank", bank, seed=1)

    def texts(task, side):
        return {tasks.normal(r["prompt"]) for r in task.splits[side]}

    assert all(texts(first, side) == texts(again, side) for side in first.splits)
    assert texts(first, "test") != texts(other, "test")
    assert [len(first.splits[s]) for s in ("train", "val", "test")] == pytest.approx([145, 16, 40], abs=2)
    for side, n in first.notes["records"].items():
        assert first.notes["labels"][side]["neutral"] / n == pytest.approx(0.5, abs=0.1)


def test_near_duplicates_stay_on_one_side():
    rng = random.Random(2)
    texts = [sentence(rng, "positive") for _ in range(60)]
    texts += [t.replace("EUR ", "EUR 1,") for t in texts[:20]]  # other numbers
    texts += [t.replace(" rose", " then rose") for t in texts[20:40]]  # one word more
    texts += [" ".join(reversed(t.split())) for t in texts[40:50]]
    groups = tasks.near_groups(texts)
    assert len(set(groups.tolist())) == 60
    assert groups[:50].tolist() == groups[60:].tolist()
    for i in range(60):  # and the pairs that share rare words by chance are not joined
        for j in range(i):
            a, b = (set(texts[k].split()) - {"."} for k in (i, j))
            assert groups[i] != groups[j] and len(a & b) < 0.8 * len(a | b)
    records = [tasks.record(str(i), t, "positive", text=t) for i, t in enumerate(texts)]
    splits, _, _ = tasks.by_text(records, OPTIONS, stratify=True)
    side = {groups[int(r["id"])]: name for name, rs in splits.items() for r in rs}
    assert all(side[groups[int(r["id"])]] == name for name, rs in splits.items() for r in rs)
    assert len({*tasks.near_groups(["...", "!!", "a"]).tolist()}) == 2  # texts without a word


def test_near_groups_finds_every_pair():
    """The index of rarest words misses nothing that comparing all with all would find."""
    rng = random.Random(3)
    texts = [" ".join(rng.sample("abcdefgh", rng.randint(1, 7))) for _ in range(120)]
    words = [set(t.split()) for t in texts]
    groups = tasks.near_groups(texts)
    root = list(range(120))
    for _ in range(120):
        for i in range(120):
            for j in range(i):
                if len(words[i] & words[j]) >= 0.8 * len(words[i] | words[j]):
                    root[i] = root[j] = min(root[i], root[j])
    assert [[a == b for b in root] for a in root] == [[a == b for b in groups] for a in groups.tolist()]


def test_finbert_split_is_that_of_train_test_split(bank):
    task = tasks.load("phrasebank", bank, split="finbert", seed=7)
    rows = {side: [int(r["id"].split("-")[1]) for r in task.splits[side]] for side in task.splits}
    assert {k: len(v) for k, v in rows.items()} == {"test": 41, "val": 17, "train": 146}
    assert sorted(sum(rows.values(), [])) == list(range(204))  # with copies and contradictions, as in the original
    try:
        from sklearn.model_selection import train_test_split
    except ImportError:  # its answer for ten rows, from its documentation of ShuffleSplit
        order = np.random.RandomState(0).permutation(10)
        assert order.tolist() == [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]
    else:
        train, test = train_test_split(list(range(204)), test_size=0.2, random_state=0)
        train, val = train_test_split(train, test_size=0.1, random_state=0)
        assert rows == {"train": train, "val": val, "test": test}


@real
def test_the_real_phrasebank():
    folder = DATA / "financial_phrasebank"
    rows = {a: tasks.load("phrasebank", folder, agreement=a, split="finbert").notes["records read"]
            for a in tasks.AGREEMENT}
    assert rows == {"50": 4846, "66": 4217, "75": 3453, "all": 2264}
    task = tasks.load("phrasebank", folder / "FinancialPhraseBank-v1.0.zip", split="finbert")
    # scikit-learn 1.9.1 on the rows of Sentences_50Agree.txt; the counts are those of FinBERT's notebook, too
    assert [r["id"].split("-")[1] for r in task.splits["test"][:5]] == ["2303", "2736", "2790", "2799", "2554"]
    assert [r["id"].split("-")[1] for r in task.splits["val"][:5]] == ["2538", "273", "2012", "1447", "4567"]
    assert task.notes["labels"]["test"] == {"negative": 128, "neutral": 575, "positive": 267}
    assert task.notes["records"] == {"train": 3488, "val": 388, "test": 970}
    train = task.splits["train"] + task.splits["val"]
    words = tasks.measure(task.about(), task.splits["test"],
                          tasks.count_words(train, task.splits["test"], task.labels))
    assert words["accuracy"] == pytest.approx(0.780, abs=0.01)  # scikit-learn: 0.7804


# ---- FiQA, headlines -------------------------------------------------------------------------------------------------


def fiqa_entry(text, *scores):
    return {"sentence": text, "info": [{"snippets": [text], "target": f"Firm {i}", "sentiment_score": s, "aspects": []}
                                       for i, s in enumerate(scores)]}


def test_fiqa_keeps_given_splits_and_scores(tmp_path):
    rng = random.Random(4)
    texts = [sentence(rng, "positive") for _ in range(30)]
    train = {str(i): fiqa_entry(t, 0.5 if i % 2 else -0.5) for i, t in enumerate(texts[:20])}
    train["x"] = fiqa_entry(texts[25].upper(), 0.2)  # of test
    train["y"] = fiqa_entry("A rose by any other name", "-0.1", 0.1, 0.0999, -0.11, 1.5)
    train["z"] = {"sentence": "No score", "info": [{"target": "A"}]}
    for name, entries in (("train", train), ("valid", {"v": fiqa_entry(texts[20], 0.0)}),
                          ("test", {str(i): fiqa_entry(t, 0.3) for i, t in enumerate(texts[25:])})):
        (tmp_path / f"task1_{name}.json").write_text(json.dumps(entries))
    (tmp_path / "task2_test.json").write_text('[{"question": "Why?", "answer": "So."}]')
    task = tasks.load("fiqa", tmp_path)
    assert task.notes["records"] == {"train": 24, "val": 1, "test": 5}
    assert task.notes["removed from train, nearly the same as in a later split"] == 1
    assert len(task.notes["skipped"]) == 3 and "task2" in task.notes["skipped"][2]
    rose = [r for r in task.splits["train"] if "A rose" in r["prompt"]]
    assert [r["completion"] for r in rose] == [" neutral", " positive", " neutral", " negative"]  # FinGPT's thresholds
    assert [r["meta"]["score"] for r in rose] == [-0.1, 0.1, 0.0999, -0.11]
    assert rose[1]["prompt"] == "Sentence: A rose by any other name\nTarget: Firm 1\nSentiment:"

    os.remove(tmp_path / "task1_valid.json")
    assert 2 <= len(tasks.load("fiqa", tmp_path).splits["val"]) <= 3  # taken from train
    alone = tasks.load("fiqa", tmp_path / "task1_train.json")
    assert "20 % test" in alone.split_policy and len(alone.splits["test"]) >= 4


HEADER = ("Dates,URL,News,PriceOrNot,DirectionUp,DirectionConstant,DirectionDown,PastPrice,FuturePrice,PastNews,"
          "FutureNews,AssetComparision")


def test_headlines_ask_nine_questions_and_split_by_headline(tmp_path):
    rng = random.Random(5)
    rows = [f'2016-01-28,http://a.b,"{sentence(rng, "positive")}, so",1,1,0,0,1,0,0,0,{i % 2}' for i in range(50)]
    same = rows[0].replace("2016", "2017")  # a copy
    other = rows[1].replace(",1,1,0,0,1,0,0,0,", ",1,0,0,1,1,0,0,0,")  # up, and again: down
    bad = ['2016-01-28,http://a.b,"",1,1,0,0,1,0,0,0,0', "2016-01-28,http://a.b,gold,1,1"]
    (tmp_path / "gold.csv").write_bytes("\r\n".join([HEADER, *rows, same, other, *bad]).encode())
    task = tasks.load("headlines", tmp_path)
    assert task.notes["copies removed"] == 9 + 7 and task.notes["prompts removed for having two labels"] == 2
    assert len(task.notes["skipped"]) == 2 and sum(task.notes["records"].values()) == 9 * 50 - 2
    side = {}
    for name, records in task.splits.items():
        for r in records:
            assert side.setdefault(r["meta"]["text"], name) == name
    assert len({s for s in side.values()}) == 3
    r = task.splits["train"][0]
    assert r["prompt"] == f"Headline: {r['meta']['text']}\n{tasks.QUESTIONS[r['meta']['question']]}\nAnswer:"
    renamed = HEADER.replace("PriceOrNot", "Price or Not").replace("AssetComparision", "Asset Comparison")
    (tmp_path / "gold.csv").write_text("\n".join([renamed, *rows, same, other, *bad]))
    assert tasks.load("headlines", tmp_path / "gold.csv").splits == task.splits

    about, test = task.about(), task.splits["test"]
    gold = tasks.measure(about, test, [r["completion"] for r in test])
    assert gold["avg_f1"] == gold["accuracy"] == 1 and len(gold["questions"]) == 9
    no = tasks.measure(about, test, [" no"] * len(test))
    asked = [r for r in test if r["meta"]["question"] == "AssetComparision"]
    p = sum(r["completion"] == " no" for r in asked) / len(asked)
    assert no["questions"]["AssetComparision"]["weighted_f1"] == pytest.approx(p * 2 * p / (1 + p))
    base = tasks.baselines(about, task.splits["train"], test)
    assert base["majority"]["questions"]["PriceOrNot"]["accuracy"] == 1  # the commonest answer to that question


@real
def test_the_real_fiqa_and_headlines():
    fiqa = tasks.load("fiqa", DATA / "fiqa")
    assert fiqa.notes["records read"] == 1111 and len(fiqa.splits["test"]) == 230
    gold = tasks.load("headlines", DATA / "headlines")
    assert gold.notes["records read"] == 9 * 11412 and not gold.notes["skipped"]
    sides = [{r["meta"]["text"].lower() for r in gold.splits[s]} for s in ("train", "val", "test")]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]


# ---- programs, sections ----------------------------------------------------------------------------------------------


def test_programs_are_read_and_scored_by_programs(tmp_path, monkeypatch):
    import sys

    r = tasks.record("q", "Question:", "add(1, 2)")
    fake = types.SimpleNamespace(finqa=lambda path, val_fraction, seed: ({"train": [r], "val": [r], "test": []}, {}),
                                 score=lambda records, answers: {"right": len(records), "answers": answers})
    monkeypatch.setitem(sys.modules, "programs", fake)
    task = tasks.load("finqa", tmp_path)
    assert task.labels is None and task.metric == "programs" and "MIT" in task.licence
    assert tasks.baselines(task.about(), [r, r], [r]) == {"majority": {"right": 1, "answers": [" add(1, 2)"]}}


def test_sections_hold_no_heading_and_no_company_twice(filings):
    task = tasks.load("sections", filings)
    assert task.labels == [" " + name for name in tasks.SECTIONS.values()]
    company, count = {}, {}
    for side, records in task.splits.items():
        assert records
        for r in records:
            key = company_key(r["meta"]["company"]), r["completion"]
            assert company.setdefault(key[0], side) == side
            count[key] = count.get(key, 0) + 1
            text = r["prompt"].removeprefix("Passage: ").removesuffix("\n\nSection:")
            assert 300 <= len(text) <= 1500 and not text.lower().startswith(("item ", "risk factors", "business\n"))
    assert max(count.values()) == tasks.PER_COMPANY and task.notes["companies"] == len(company)
    pair = tasks.load("sections:1a-7", filings)
    assert pair.labels == [" risk factors", " management's discussion"]
    assert {r["completion"] for rs in pair.splits.values() for r in rs} == {*pair.labels}


def test_passages_end_with_paragraphs_and_lose_the_title():
    body = "\n\n".join(" ".join(WORDS) + f" {i}." for i in range(30))
    for title in ("Item 1A. Risk Factors\n\n", "ITEM 1A.\nRISK FACTORS\n", "PART I\nItem 1A — Risk Factors. ",
                  "Item 7. Management’s Discussion and Analysis of Financial Condition and Results of Operations\n",
                  "Item 8.  Consolidated Financial Statements and Supplementary Data:\n\n",
                  "Items 1 and 2. Business and Properties\n\n", "Item 3. Legal Proceedings (continued)\n\n"):
        found = tasks.passages(title + body)
        assert "\n\n".join(found) == body or "PART" in title and body.endswith("\n\n".join(found[1:])), title
        assert all(p.endswith(".") and 300 <= len(p) <= 1500 and p.startswith(WORDS[0]) for p in found)
    assert [len(p) <= 1500 for p in tasks.passages("word " * 1000)] == [True] * 4  # one long paragraph is cut
    assert "Risk factors that" in tasks.passages("Risk factors that matter are " + body)[0]  # prose stays
    assert tasks.passages("Item 3. Legal Proceedings\n\nNone.") == []


def test_sections_of_a_corpus_are_tested_on_what_it_holds_out(corpus):
    task = tasks.load("sections", corpus)
    held = {about["company"] for about, _ in data.TokenData(corpus).read_documents("val")}
    assert {r["meta"]["company"] for r in task.splits["test"]} <= held and task.splits["test"]
    assert not {r["meta"]["company"] for side in ("train", "val") for r in task.splits[side]} & held
    passage = task.splits["train"][0]
    assert 300 <= len(passage["prompt"]) <= 1600 and passage["completion"] in task.labels


def test_sections_need_three_companies(tmp_path):
    item = {"item_1": "Item 1. Business\n" + "We sell ships. " * 40, "item_1A": "Risk Factors\n" + "Ships sink. " * 40}
    for i in range(2):
        (tmp_path / f"{i}.json").write_text(json.dumps({"cik": str(i), **item, "item_3": f"{i} " * 300}))
    with pytest.raises(ValueError, match="company each"):
        tasks.load("sections:1-1A", tmp_path)


@real
def test_sections_of_the_real_filings():
    task = tasks.load("sections", DATA / "filings_items")
    assert task.notes["companies"] >= 20 and {*task.notes["labels"]["train"]} == {*tasks.SECTIONS.values()}
    firms = [{r["meta"]["company"] for r in task.splits[s]} for s in ("train", "val", "test")]
    assert not firms[0] & firms[1] and not firms[0] & firms[2] and not firms[1] & firms[2]


# ---- measures and baselines ------------------------------------------------------------------------------------------


def test_answers_are_matched_by_their_beginning():
    labels = [" no", " yes", " not sure"]
    for answer, index in ((" yes", 1), ("YES.\nno", 1), ("\n no, since", 0), ("not sure", 2), ("nothing", 3), ("", 3),
                          ("The answer is yes", 3), ("no-one", 0), ("yes\r\n", 1)):
        assert tasks.parsed(answer, labels) == index, answer


def test_measures_by_hand():
    """Gold: 4 negative, 3 neutral, 3 positive. Right: 3, 1, 2; one answer is no label."""
    gold = ["negative"] * 4 + ["neutral"] * 3 + ["positive"] * 3
    said = [" negative"] * 3 + [" neutral", " neutral", " positive", "maybe", "Positive!", " positive", " negative"]
    m = tasks.measure(ABOUT, records_of((str(i), g) for i, g in enumerate(gold)), said)
    assert m["n"] == 10 and m["accuracy"] == 0.6 and m["unparsed"] == 1
    assert m["per_label"]["negative"] == {"precision": 0.75, "recall": 0.75, "f1": 0.75, "support": 4}
    assert m["per_label"]["neutral"] == {"precision": 0.5, "recall": 1 / 3, "f1": 0.4, "support": 3}
    assert m["per_label"]["positive"] == {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3}
    assert m["macro_f1"] == pytest.approx((0.75 + 0.4 + 2 / 3) / 3)
    assert m["weighted_f1"] == pytest.approx(0.4 * 0.75 + 0.3 * 0.4 + 0.3 * 2 / 3)
    assert m["confusion"]["neutral"] == {"negative": 0, "neutral": 1, "positive": 1, "unparsed": 1}
    assert json.loads(json.dumps(m)) == m
    assert tasks.wilson(8, 10) == pytest.approx([0.4901625, 0.9433178], abs=1e-4)
    assert tasks.wilson(0, 20)[0] == 0 and tasks.wilson(20, 20)[1] == 1


def test_measures_equal_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = random.Random(6)
    gold = rng.choices(tasks.SENTIMENT, (1, 5, 2), k=200)
    said = [g if rng.random() < 0.6 else rng.choice([*tasks.SENTIMENT, " ?"]) for g in gold]
    m = tasks.measure(ABOUT, records_of((str(i), g.strip()) for i, g in enumerate(gold)), said)
    assert m["accuracy"] == pytest.approx(metrics.accuracy_score(gold, said))
    for average in ("macro", "weighted"):
        expected = metrics.f1_score(gold, said, labels=tasks.SENTIMENT, average=average)
        assert m[f"{average}_f1"] == pytest.approx(expected)


def test_measures_refuse_what_does_not_fit():
    records = records_of([("a", "neutral")])
    for answers, completion in (([], " neutral"), ([" neutral"], " good")):
        with pytest.raises(ValueError):
            tasks.measure(ABOUT, [records[0] | {"completion": completion}], answers)
    with pytest.raises(ValueError, match="at least one"):
        tasks.measure(ABOUT, [], [])


def test_counting_words_finds_what_tells_labels_apart():
    rng = random.Random(7)
    train, test = (records_of((f"Sentence: {sentence(rng, g)}\nSentiment:", g) for g in [*TONE] * n) for n in (30, 10))
    assert tasks.count_words(train, test, tasks.SENTIMENT) == [r["completion"] for r in test]
    unheard_of = records_of([("Sentence: qwerty", "neutral")])
    assert tasks.count_words(train, unheard_of, tasks.SENTIMENT)[0] in tasks.SENTIMENT


def test_counting_words_decides_as_scikit_learn_does():
    linear, text = pytest.importorskip("sklearn.linear_model"), pytest.importorskip("sklearn.feature_extraction.text")
    rng = random.Random(7)
    bodies = [" ".join(rng.sample(WORDS, 9)) for _ in range(200)]
    labels = [rng.choice(tasks.SENTIMENT) for _ in bodies]
    records = records_of((f"Sentence: {b}\nSentiment:", y.strip()) for b, y in zip(bodies, labels, strict=True))
    vectors = text.TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    x = vectors.fit_transform(bodies[:120])
    fitted = linear.LogisticRegression(C=10, tol=1e-8, max_iter=5000).fit(x, labels[:120])
    theirs = fitted.predict(vectors.transform(bodies[120:]))
    assert tasks.count_words(records[:120], records[120:], tasks.SENTIMENT) == theirs.tolist()


def test_baselines(bank):
    task = tasks.load("phrasebank", bank)
    base = tasks.baselines(task.about(), task.splits["train"], task.splits["test"])
    share = task.notes["labels"]["test"]["neutral"] / task.notes["records"]["test"]
    assert base["majority"]["accuracy"] == share and base["tfidf"]["accuracy"] > share + 0.3


# ---- answers of a language model -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    tokenizer = Tokenizer.train([" ".join(WORDS) + " positive negative neutral Sentiment Sentence: "] * 30, 300)
    torch.manual_seed(0)
    return GPT(GPTConfig(tokenizer.vocab_size, block_size=64, n_layer=2, n_head=2, n_embd=32)).eval(), tokenizer


def test_choose_is_the_mean_log_likelihood_of_each_label(tiny):
    model, tokenizer = tiny
    rng = random.Random(8)
    texts = [" ".join(rng.choices(WORDS, k=k)) for k in (3, 9, 1, 5)]
    records = records_of((f"Sentence: {text}\nSentiment:", "neutral") for text in texts)
    labels = [" positive", " negative and more", " n"]
    answers, scores = tasks.choose(model, tokenizer, records, labels, batch_tokens=100)
    assert scores.shape == (4, 3) and scores.dtype == np.float64
    for r, row, answer in zip(records, scores, answers, strict=True):
        expected = []
        for label in labels:
            prompt = [tokenizer.end_of_text, *tokenizer.encode(r["prompt"]).tolist()]
            said = tokenizer.encode(label).tolist()
            with torch.no_grad():
                logits = model.hidden(torch.tensor([prompt + said]))[0] @ model.wte.weight.T
            log_p = logits.log_softmax(-1)[len(prompt) - 1 : -1]
            expected.append(log_p[range(len(said)), said].mean().item())
        assert row.tolist() == pytest.approx(expected, abs=1e-5) and answer == labels[int(np.argmax(expected))]
    for batch_tokens in (1, 10**6):
        _, again = tasks.choose(model, tokenizer, records, labels, batch_tokens=batch_tokens)
        assert np.allclose(again, scores, atol=1e-5)


def test_choose_cuts_long_prompts_at_their_beginning(tiny):
    model, tokenizer = tiny
    end = " ".join(random.Random(9).choices(WORDS, k=40)) + "\nSentiment:"
    records = records_of((start * 50 + end, "neutral") for start in ("paper ", "steel bank "))
    assert all(len(examples.tokens(tokenizer, r)[0]) > 65 for r in records)
    _, scores = tasks.choose(model, tokenizer, records, tasks.SENTIMENT)
    assert np.isfinite(scores).all() and np.allclose(scores[0], scores[1], atol=1e-5)


def test_generate_keeps_the_order(tiny):
    model, tokenizer = tiny
    records = records_of((f"Sentence: {' '.join(WORDS[:k])}\nSentiment:", "neutral") for k in (9, 1, 5))
    texts = tasks.generate(model, tokenizer, records, 6)
    assert texts == [tasks.generate(model, tokenizer, [r], 6)[0] for r in records]
    assert all(isinstance(t, str) and "<|endoftext|>" not in t for t in texts)


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_refusals_say_what_is_wrong(bank, tmp_path):
    (tmp_path / "Sentences_50Agree.txt").write_text("a,b\n1,2\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.json").write_text("{")
    for name, path, options, message in (
            ("phrase", bank, {}, "there is no task phrase"), ("fiqa:1-7", bank, {}, "there is no task"),
            ("sections:1-9Z", bank, {}, "name two or more"), ("sections:7", bank, {}, "name two or more"),
            ("fiqa", bank, {"split": "finbert"}, "no split"), ("phrasebank", bank, {"split": "random"}, "no split"),
            ("phrasebank", bank, {"agreement": "60"}, "agreement must be"),
            ("phrasebank", bank, {"agreement": "all"}, "no sentence@label"),
            ("phrasebank", bank, {"val_fraction": 1.0}, "val_fraction"),
            ("phrasebank", tmp_path, {}, "no sentence@label"),
            ("phrasebank", tmp_path / "empty", {}, "no sentence@label"),
            ("fiqa", tmp_path, {}, "no sentences of FiQA"),
            ("headlines", tmp_path, {}, "no csv"), ("headlines", tmp_path / "empty", {}, "no csv"),
            ("sections", tmp_path / "empty", {}, "nothing to read")):
        with pytest.raises(ValueError, match=message) as e:
            tasks.load(name, path, **options)
        assert "\n" not in str(e.value)
    for name in tasks.TASKS:
        with pytest.raises((FileNotFoundError, ValueError), match="nowhere"):
            tasks.load(name, tmp_path / "nowhere")


def test_one_file_is_not_taken_for_another(bank, tmp_path):
    raw = (bank / "text" / "Sentences_50Agree.txt").read_bytes()
    (tmp_path / "Sentences_AllAgree.txt").write_bytes(raw)
    with pytest.raises(ValueError, match="no sentence@label of Sentences_50Agree"):
        tasks.load("phrasebank", tmp_path)
    assert tasks.load("phrasebank", tmp_path, agreement="all").notes["file"] == "Sentences_AllAgree.txt"
    assert tasks.load("phrasebank", tmp_path / "Sentences_AllAgree.txt").notes["file"] == "Sentences_AllAgree.txt"
