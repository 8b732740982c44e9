"""What verdict.py says of a report: claims at their thresholds, and a headline that agrees with them."""
import copy
import json

import pytest

import verdict


def fake_report():
    """A report by the specification, in which every claim holds."""
    better = dict(difference=0.3, interval_95=[0.1, 0.5], p=0.0001)
    cell = dict(documents=8, companies=7, bytes=1000, holds="new companies",
                models={"sec": dict(bits_per_byte=1.0, interval_95=[0.9, 1.1])})
    return dict(
        data="data/sec", tool="tenk 0", missing={}, models=[
            dict(name="sec", bits_per_byte=1.0, interval_95=[0.9, 1.1], loss=3.2, perplexity=24.5, tokenizer_sha256="a",
                 parameters=124_000_000, vocab_size=50257, block_size=1024),
            dict(name="gpt2", bits_per_byte=1.3, interval_95=[1.2, 1.4], loss=4.5, tokenizer_sha256="a", difference=0.3,
                 difference_interval_95=[0.2, 0.4], p=0.008),
            dict(name="xz -9e, each document", control=True, bits_per_byte=2.0, difference=1.0, p=0.008,
                 difference_interval_95=[0.8, 1.2])],
        loss=dict(cells=dict(val=cell, val_year=cell, val_both=cell, val_neither=cell),
                  general={"sec": dict(bits_per_byte=1.1), "gpt2": dict(bits_per_byte=1.0)}),
        writing=dict(measures={
            "sec": dict(texts=96, loop_rate=0.03, verbatim=0.06, percent_checked=40, percent_consistent=0.95,
                        percent_consistent_95=[0.9, 0.99]),
            "held-out text": dict(texts=96, loop_rate=0.01, verbatim=0.02, percent_consistent=0.99)}),
        probe=dict(tasks={"1A-7": dict(rows={"sec": dict(accuracy=0.9, accuracy_95=[0.85, 0.95]),
                                             "TF-IDF": dict(accuracy=0.8)})}),
        embeddings=dict(rows={"sec": {"recall@1": 0.5, "recall@1_95": [0.4, 0.6]}, "BM25": {"recall@1": 0.3}}),
        sections=dict(chance=0.25, rows={"sec": dict(accuracy=0.5, accuracy_95=[0.4, 0.6])}),
        tasks={"data/fpb": dict(baselines=dict(tfidf=dict(accuracy=0.7), majority=dict(accuracy=0.6)), rows=[
            dict(model="sec", stage="before", likeliest=dict(accuracy=0.5, accuracy_95=[0.4, 0.6])),
            dict(model="lora", stage="after", likeliest=dict(accuracy=0.8, accuracy_95=[0.75, 0.85]), base="sec",
                 against_base=dict(likeliest=better))])},
        questions={"finqa": dict(n=100, fine_tuned_against_retrieved=better, table={
            "base": {"closed book": dict(score=0.6, interval_95=[0.51, 0.7]),
                     "retrieved": dict(score=0.7, interval_95=[0.6, 0.8], against_closed_book=better)},
            "fine-tuned": {"closed book": dict(score=0.6, interval_95=[0.51, 0.7], against_closed_book=better),
                           "retrieved": dict(score=0.7, interval_95=[0.6, 0.8], against_closed_book=better),
                           "gold passage": dict(score=0.1, interval_95=[0, 0.2], against_closed_book=better)}})})


def holds(report, words):
    return {c["claim"]: c["holds"] for c in verdict.verdict(report)}[words]


def changed(path, value):
    report = copy.deepcopy(fake_report())
    *way, last = path
    place = report
    for key in way:
        place = place[key]
    place[last] = value
    return report


def test_every_claim_of_a_good_model_holds_and_says_why():
    claims = verdict.verdict(fake_report())
    assert len(claims) == 22 == len({c["claim"] for c in claims})
    assert all(c["holds"] is True and c["figure"] and c["threshold"] and not c["why"] for c in claims)
    assert [c["part"] for c in claims] == sorted((c["part"] for c in claims), key=verdict.PARTS.index)
    assert claims[0]["figure"] == "1.000 against 1.300 bits/byte, p = 0.008"
    assert "30.0, 10.0 to 50.0 points, p < 0.001" in {c["figure"] for c in claims}  # no p of so few signs is 0.0001
    said = json.dumps(claims, allow_nan=False)
    for words in ("at most 1.05 times the bits/byte of known companies in known years", "held-out text",
                  "at most 5 points above held-out text", "the interval of the difference above 0, p < 0.05"):
        assert words in said, words
    assert "real filings" not in said and "the bar of" not in said


GPT2, OWN, ENGLISH = ("continues filings better than gpt2", "its percentages add up",
                      "loses at most 10% on general English against gpt2")
LORA, FINQA = ("tasks", "data/fpb", "rows", 1), ("questions", "finqa", "table")
BEFORE, COMMONEST, TFIDF = ("tuned as lora does better on data/fpb than before",
                            "tuned as lora does better on data/fpb than the commonest answer",
                            "tuned as lora, beats TF-IDF on data/fpb")


def cell(companies, bits=1.0, interval=None):
    return dict(documents=50, companies=companies, models={"sec": dict(bits_per_byte=bits, interval_95=interval)})


def paired(low, high, p=0.01):
    return dict(difference=(low + high) / 2, interval_95=[low, high], p=p)


@pytest.mark.parametrize("words, path, value, expected", [
    (GPT2, ("models", 1, "difference_interval_95"), [0.001, 0.5], True),
    (GPT2, ("models", 1, "difference_interval_95"), [0.0, 0.5], None),
    (GPT2, ("models", 1, "difference_interval_95"), [-0.5, 0.001], None),
    (GPT2, ("models", 1, "difference_interval_95"), [-0.5, -0.001], False),
    (GPT2, ("models", 1, "p"), 0.049, True), (GPT2, ("models", 1, "p"), 0.05, None),
    (GPT2, ("models", 1, "difference_interval_95"), None, None),
    (GPT2, ("loss", "cells", "val"), cell(5), None), (GPT2, ("loss", "cells", "val"), cell(6), True),
    (GPT2, ("loss", "cells", "val"), dict(documents=5, models={}), None),
    (GPT2, ("loss", "cells", "val"), dict(documents=6, models={}), True),
    ("generalises to new companies", ("loss", "cells", "val"), cell(6, 1.05), True),
    ("generalises to new companies", ("loss", "cells", "val"), cell(6, 1.051), False),
    ("generalises to new companies", ("loss", "cells", "val"), cell(6, 1.2, [1.06, 1.3]), False),
    ("generalises to new companies", ("loss", "cells", "val"), cell(6, 1.2, [1.04, 1.3]), None),
    ("generalises to new companies", ("loss", "cells", "val"), cell(5), None),
    ("generalises to new years", ("loss", "cells", "val_neither"), cell(5), None),
    ("generalises to new years", ("loss", "cells"), {}, None),
    (ENGLISH, ("loss", "general", "sec"), dict(bits_per_byte=1.1), True),
    (ENGLISH, ("loss", "general", "sec"), dict(bits_per_byte=1.11), False),
    (ENGLISH, ("loss", "general", "sec"), dict(bits_per_byte=1.2, interval_95=[1.09, 1.3]), None),
    ("writes without loops", ("writing", "measures", "sec", "loop_rate"), 0.0299, True),
    ("writes without loops", ("writing", "measures", "sec", "loop_rate"), 0.0301, False),
    ("writes without loops", ("writing", "measures", "sec", "loop_rate"), 0.0, True),
    ("writes without loops", ("writing", "measures", "sec", "loop_rate"), None, None),
    ("writes without loops", ("writing", "measures", "sec", "texts"), 19, None),
    ("writes without loops", ("writing", "measures", "held-out text"), None, None),
    ("does not recite training", ("writing", "measures", "sec", "verbatim"), 0.07, True),
    ("does not recite training", ("writing", "measures", "sec", "verbatim"), 0.071, False),
    (OWN, ("writing", "measures", "sec", "percent_consistent_95"), [0.892, 1.0], True),
    (OWN, ("writing", "measures", "sec", "percent_consistent_95"), [0.89, 1.0], None),
    (OWN, ("writing", "measures", "sec", "percent_consistent_95"), [0.7, 0.89], False),
    (OWN, ("writing", "measures", "sec", "percent_consistent_95"), None, None),
    (OWN, ("writing", "measures", "sec", "percent_checked"), 19, None),
    (OWN, ("writing", "measures", "held-out text", "percent_consistent"), None, None),
    ("its states tell sections apart better than TF-IDF: 1A-7",
     ("probe", "tasks", "1A-7", "rows", "sec", "accuracy_95"), [0.8, 0.9], None),
    ("its states tell sections apart better than TF-IDF: 1A-7",
     ("probe", "tasks", "1A-7", "rows", "sec", "accuracy_95"), [0.7, 0.79], False),
    ("its states tell sections apart better than TF-IDF: 1A-7", ("probe", "tasks", "1A-7", "companies"), 5, None),
    ("finds related passages better than BM25", ("embeddings", "rows", "BM25", "recall@1"), 0.39, True),
    ("finds related passages better than BM25", ("embeddings", "rows", "BM25", "recall@1"), 0.4, None),
    ("finds related passages better than BM25", ("embeddings", "rows", "BM25", "recall@1"), 0.61, False),
    ("finds related passages better than BM25", ("embeddings", "companies"), 6, True),
    ("finds related passages better than BM25", ("embeddings", "companies"), 5, None),
    ("knows what section follows", ("sections", "chance"), 0.4, None),
    ("knows what section follows", ("sections", "rows", "sec", "accuracy_95"), None, None),
    (TFIDF, ("tasks", "data/fpb", "baselines", "tfidf", "accuracy"), 0.76, None),
    (TFIDF, ("tasks", "data/fpb", "baselines", "tfidf", "accuracy"), 0.86, False),
    (COMMONEST, ("tasks", "data/fpb", "baselines", "majority", "accuracy"), 0.74, True),
    (COMMONEST, ("tasks", "data/fpb", "baselines", "majority", "accuracy"), 0.9, False),
    (BEFORE, (*LORA, "against_base", "likeliest"), paired(-0.1, 0.2), None),
    (BEFORE, (*LORA, "against_base", "likeliest"), paired(-0.2, -0.1), False),
    (BEFORE, (*LORA, "against_first"), dict(likeliest=paired(-0.2, -0.1)), True),  # of another model than its base
    (BEFORE, LORA, dict(fake_lora := dict(model="lora", stage="after", likeliest=dict(accuracy=0.8)),
                        against_first=dict(likeliest=paired(0.1, 0.2))), True),
    (BEFORE, LORA, dict(fake_lora, base=None, note="made from gpt2, which is not in this report"), None),
    ("answers at least half of finqa from memory, fine-tuned",
     (*FINQA, "fine-tuned", "closed book", "interval_95"), [0.5, 0.7], None),
    ("answers at least half of finqa from memory, fine-tuned",
     (*FINQA, "fine-tuned", "closed book", "interval_95"), [0.4, 0.49], False),
    ("answers at least half of finqa with retrieval, fine-tuned", ("questions", "finqa", "n"), 19, None),
    ("fine-tuning helps on finqa", (*FINQA, "fine-tuned", "closed book", "against_closed_book"), paired(0, 0.1), None),
    ("fine-tuning helps on finqa", (*FINQA, "fine-tuned", "closed book", "against_closed_book"), paired(-2, -1), False),
    ("fine-tuning helps on finqa", ("questions", "finqa", "n"), 19, None),
    ("retrieval helps on finqa", (*FINQA, "base", "retrieved", "against_closed_book"), paired(0.1, 0.2, 0.06), None),
    ("retrieval helps on finqa", (*FINQA, "base", "retrieved", "against_closed_book"), paired(-0.2, -0.1), False),
    ("fine-tuned beats retrieval on finqa", ("questions", "finqa", "fine_tuned_against_retrieved"),
     dict(difference=0.1, interval_95=None, p=None), None),
    ("fine-tuned beats retrieval on finqa", ("questions", "finqa", "fine_tuned_against_retrieved"),
     paired(-0.2, -0.1), False)])
def test_claims_at_their_thresholds(words, path, value, expected):
    report = changed(path, value)
    found = next(c for c in verdict.verdict(report) if c["claim"] == words)
    assert found["holds"] is expected and bool(found["why"]) == (expected is None) and found["figure"]
    if words == GPT2:  # the headline says the same of the same figures
        said = verdict.headline(report)
        assert ("No difference" in said or "too few" in said) == (expected is None)


def test_not_told_apart_is_said_with_the_figure():
    found = next(c for c in verdict.verdict(changed(("embeddings", "rows", "BM25", "recall@1"), 0.55))
                 if c["part"] == "embeddings")
    assert found["why"] == "the interval holds 55.0 %: not told apart" and found["holds"] is None
    assert found["figure"] == "50.0, 40.0 to 60.0 %; BM25 55.0 %; the interval holds 55.0 %: not told apart"
    claims = verdict.verdict(changed(("loss", "cells", "val_neither"), cell(1)))
    assert "7 of new companies, 1 of known companies in known years; it takes 6 of each" in {c["why"] for c in claims}


def test_general_english_is_asked_of_models_not_of_controls():
    report = fake_report()
    report["loss"]["general"]["xz -9e, each document"] = dict(bits_per_byte=2.0)
    assert [c["claim"] for c in verdict.verdict(report) if "English" in c["claim"]] == [ENGLISH]


def test_noise_is_not_praised():
    for bits, expected in ((1.99, True), (2.0, None), (8.0, None)):
        claims = [c for c in verdict.verdict(changed(("models", 0, "bits_per_byte"), bits)) if c["part"] == "writing"]
        assert [c["holds"] for c in claims] == 3 * [expected]
        assert expected or {c["why"] for c in claims} == {"it does not yet write language: more bits/byte than xz"}
    report = changed(("models", 0), dict(name="sec"))
    del report["loss"]  # nobody knows
    assert all(c["holds"] for c in verdict.verdict(report) if c["part"] == "writing")
    measures = report["writing"]["measures"]
    measures["real filings"] = measures.pop("held-out text")  # as it was called
    assert all(c["holds"] for c in verdict.verdict(report) if c["part"] == "writing")


def test_programs_are_worth_what_they_yield():
    row = dict(model="lora", stage="after", written=dict(execution_accuracy=0.4, interval_95=[0.3, 0.5]),
               against_base=dict(written=paired(0.1, 0.3)))
    report = changed(("tasks",), dict(finqa=dict(baselines=dict(majority=dict(execution_accuracy=0.1)), rows=[row])))
    assert holds(report, "tuned as lora does better on finqa than before") is True
    assert holds(report, "tuned as lora does better on finqa than the commonest answer") is True
    assert not [c for c in verdict.verdict(report) if "TF-IDF on finqa" in c["claim"]]  # no words were counted for it
    row = dict(model="dpo", stage="after", accuracy=0.7, accuracy_95=[0.6, 0.8],
               against_first=dict(accuracy=paired(0, 1)))
    pairs = changed(("tasks",), dict(pairs=dict(kind="pairs", baselines={}, rows=[row])))
    assert [c["claim"] for c in verdict.verdict(pairs) if c["part"] == "tasks"] == [
        "tuned as dpo does better on pairs than before"]


def test_what_is_missing_is_a_claim_that_nobody_can_tell():
    report = fake_report()
    del report["probe"], report["sections"]
    report["missing"] |= {"probe": "fewer than 50 passages", "sections": verdict.UNASKED + ": --only named others"}
    report["tasks"] |= {"data/nc": dict(missing="not free"), "data/no": dict(missing=verdict.UNASKED)}
    report["tasks"]["data/fpb"]["missing"] = dict(lora2="its weights are damaged", lora3=verdict.UNASKED)
    report["questions"] |= {"q.jsonl": dict(missing="no questions in it")}
    report["questions"]["finqa"]["missing"] = {"gold passage": "3 of 9 questions come without a passage"}
    found = [(c["part"], c["claim"], c["why"]) for c in verdict.verdict(report) if c["holds"] is None]
    assert found == [("probe", "what the part probe would tell", "fewer than 50 passages"),
                     ("tasks", "what lora2 on data/fpb would tell", "its weights are damaged"),
                     ("tasks", "what data/nc would tell", "not free"),
                     ("questions", "what gold passage on finqa would tell", "3 of 9 questions come without a passage"),
                     ("questions", "what q.jsonl would tell", "no questions in it")]
    assert all(c["figure"] == c["why"] for c in verdict.verdict(report) if c["holds"] is None)
    assert verdict.verdict({}) == [] and holds(report, TFIDF) is True


# ---- the headline ----------------------------------------------------------------------------------------------------


def test_the_headline_speaks_of_perplexity_only_where_tokens_are_the_same():
    assert verdict.headline(fake_report()) == (
        "sec needs 23 % fewer bits per byte than gpt2, that is 73 % lower perplexity, 29 % lower loss per token: 1.000 "
        "against 1.300 bits per byte on 8 held-out documents of 7 new companies, a difference of 0.300, 95 % interval "
        "0.200 to 0.400, p = 0.008.")
    other = verdict.headline(changed(("models", 1, "tokenizer_sha256"), "b"))
    assert other.startswith("sec needs 23 % fewer bits per byte than gpt2: ") and "perplexity" not in other
    assert "perplexity" not in verdict.headline(changed(("models", 0, "tokenizer_sha256"), None))
    assert "p < 0.001." in verdict.headline(changed(("models", 1, "p"), 0.0001))
    assert "p = 0.001." in verdict.headline(changed(("models", 1, "p"), 0.001))
    assert "on 9 held-out documents of new companies" in verdict.headline(
        changed(("loss", "cells", "val"), dict(documents=9, models={})))


def test_the_headline_says_what_can_not_be_told_and_what_is_worse():
    for path, value in ((("models", 1, "difference_interval_95"), [-0.01, 0.6]), (("models", 1, "p"), 0.06),
                        (("models", 1, "difference_interval_95"), None)):
        said = verdict.headline(changed(path, value))
        assert said.startswith("No difference can be told between sec and gpt2: 1.000 against 1.300 bits")
    worse = changed(("models", 1), dict(name="gpt2", bits_per_byte=0.8, difference=-0.2, p=0.008,
                                        difference_interval_95=[-0.3, -0.1]))
    assert verdict.headline(worse).startswith("sec needs 25 % more bits per byte than gpt2: ")
    assert holds(worse, GPT2) is False
    report = fake_report()
    del report["models"][1]
    assert verdict.headline(report).startswith("sec needs 50 % fewer bits per byte than xz -9e, each document: ")
    del report["models"][1]
    assert verdict.headline(report) == "sec needs 1.000 bits per byte; nothing was compared with it."
    assert verdict.headline(dict(models=[dict(name="sec")])) == verdict.headline({}) == ""
    slight = changed(("models", 1), dict(name="b", bits_per_byte=1.002, difference=0.002, p=0.01,
                                         difference_interval_95=[0.001, 0.003]))
    assert verdict.headline(slight).startswith("sec needs 0.2 % fewer")


def test_of_too_few_companies_the_headline_says_what_was_found_and_that_they_are_few():
    assert verdict.headline(changed(("loss", "cells", "val"), cell(5))) == (
        "sec needs 23 % fewer bits per byte than gpt2, that is 73 % lower perplexity, 29 % lower loss per token: 1.000 "
        "against 1.300 bits per byte on 50 held-out documents of 5 new companies, a difference of 0.300, 95 % interval "
        "0.200 to 0.400; too few companies to tell it from chance.")
    report = changed(("loss", "cells", "val"), cell(2))
    report["models"][1]["difference_interval_95"] = None
    assert verdict.headline(report).endswith("too few for an interval; too few companies to tell it from chance.")
