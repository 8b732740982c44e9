"""writing.py: what is counted in generated text, on texts made by hand, and the search against a brute-force one."""
import json
import re
from types import SimpleNamespace

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

import checkpoint
import data
import writing
from tokenizer import Tokenizer

# ---- loops -----------------------------------------------------------------------------------------------------------

PAGE = """Our business is subject to many risks. We compete with larger firms, some of which have more
capital than we do, and we may not be able to raise prices when the cost of steel rises. Our two largest customers
made up a fifth of net
sales last year; the loss of either would hurt us. The plants in Ohio and Texas are leased until 2031, and we expect to
renew both leases. We have never paid a dividend, nor do we plan to. Our founder holds 38% of the shares and can decide
most votes alone. Exchange rates moved against us in three of the last four quarters, which lowered gross profit."""
CANDIDATES = "We may not be able to develop our product candidates. " + "Our product candidates, " * 20
PARAGRAPH = "Cost of revenue rose as we hired more engineers and moved to a larger data center in the second half.\n"
TABLE = "\n".join(f"Year ended December 31, | {y} | {y - 1}\nNet sales | {37 * y} | {31 * y}\n"
                  f"Costs | {29 * y} | {23 * y}"
                  for y in range(2019, 2024))
LIST = "\n".join(f"{i}.{i + 1} | {what} | Exhibit {i} to Form 8-K" for i, what in
                 enumerate(["Bylaws", "Charter", "Lease of the plant", "Credit agreement", "Code of ethics"], 3))


@pytest.mark.parametrize("text, low, high, ends", [
    (PAGE, 0, 0, False), (CANDIDATES, 0.5, 1, True), (PAGE + "\n" + CANDIDATES, 0.1, 0.6, True),
    (PARAGRAPH * 2, 0.3, 0.7, True), (PARAGRAPH * 4, 0.6, 1, True), (PARAGRAPH * 2 + PAGE, 0.01, 0.3, False),
    (TABLE, 0, 0.05, False), (LIST, 0, 0, False), ("— | " * 40, None, None, True), (". " * 10, None, None, False),
    ("", None, None, False), ("one two", None, None, False), ("a b c d e f g h i j " * 3, 0.4, 0.6, True)])
def test_loops(text, low, high, ends):
    rate = writing.loop_rate(text)
    assert rate is None if low is None else low <= rate <= high, rate
    assert writing.ends_in_loop(text) is ends


def test_a_loop_is_seen_wherever_the_text_is_cut():
    for end in range(len(PARAGRAPH) * 2, len(PARAGRAPH) * 3):
        assert writing.ends_in_loop((PAGE + PARAGRAPH * 3)[: len(PAGE) + end])


# ---- sentences -------------------------------------------------------------------------------------------------------


def test_sentences():
    text = """ITEM 1. BUSINESS
Acme Inc. was founded in 1980. It sells in the U.S. and Canada, see Note No. 5 and Mr. Smith's letter. Sales rose 3.5%.
We bought Foo Corp. The price was $1.2 million. “Is it so?” Yes! Item | Year. Next.
Net sales | 5. | 6. Nothing.
•First point. •Second one. We operate in the U.S. We lease it. A cut sentence"""
    assert writing.sentences(text) == [
        "Acme Inc. was founded in 1980.", "It sells in the U.S. and Canada, see Note No. 5 and Mr. Smith's letter.",
        "Sales rose 3.5%.", "•First point.", "•Second one.", "We operate in the U.S.", "We lease it."]
    assert writing.sentences("We bought Foo Corp. The price was $1.2 million. “Is it so?” Yes!") == [
        "We bought Foo Corp.", "The price was $1.2 million.", "“Is it so?”", "Yes!"]
    assert writing.sentences("") == []


# ---- the search ------------------------------------------------------------------------------------------------------


class Letters:
    """A tokenizer of which every character is a token; 0 is end-of-text."""
    vocab_size, alphabet = 30, "\x00abcdefghijklmnopqrstuvwxyz .T"

    def encode(self, text):
        return np.array([self.alphabet.index(c) for c in text], dtype=np.uint16)

    def decode(self, ids):
        return "".join(self.alphabet[i] for i in ids)

    def token_bytes(self):
        return np.array([0] + [1] * 29)


def longest_by_hand(texts, shards):
    best = 0
    for text in texts:
        for i in range(len(text)):
            while i + best < len(text) and any(text[i : i + best + 1] in shard for shard in shards):
                best += 1
    return best


words = st.text("ab", max_size=30)


@pytest.mark.parametrize("weak", [False, True])
@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(texts=st.lists(words, max_size=4), shards=st.lists(st.text("ab\x00", max_size=80), max_size=3),
                  block=st.integers(1, 50))
def test_longest_match_is_that_of_a_search_by_hand(weak, texts, shards, block):
    tokenizer = Letters()
    search = make(tokenizer, {"a": texts, "b": texts[:1]}, block, weak)
    search.read([tokenizer.encode(shard) for shard in shards])
    for name, own in (("a", texts), ("b", texts[:1])):
        n, ids, place = search.longest[name]
        assert n == longest_by_hand(own, shards)
        if n:
            found = tokenizer.decode(ids)
            assert shards[place[0]][place[1] : place[1] + n] == found and any(found in text for text in own)


def make(tokenizer, texts, block, weak=False):
    class Small(writing.Search):
        BLOCK = block
        def sums(self, tokens):  # weak: all hashes are the same, so all depends on what is compared then
            return super().sums(tokens) * np.uint64(0 if weak else 1)
    return Small(tokenizer, texts)


sentence = st.lists(st.sampled_from(["a", "the", "cat", "sat"]), min_size=8, max_size=12).map(
    lambda w: "T" + " ".join(w) + ".")


@pytest.mark.parametrize("weak", [False, True])
@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(own=st.lists(sentence, min_size=1, max_size=4), there=st.lists(sentence, max_size=5),
                  block=st.integers(1, 200), pick=st.integers(0, 3), glue=st.sampled_from([" ", "\x00", "a", ""]))
def test_sentences_are_found_as_by_hand(weak, own, there, block, pick, glue):
    tokenizer, text = Letters(), " ".join(own)
    there = glue.join([*there, own[pick % len(own)]])
    search = make(tokenizer, {"a": [text, ""]}, block, weak).read([tokenizer.encode(there)])
    assert search.sentences["a"] == own
    assert search.copied == {s for s in own if re.search(r"(?<!\w)" + re.escape(s), there)}


@pytest.mark.parametrize("around", ["{}", "x\n{}\ny", "“{}” He", "so: {}\n\n", "({})", "A b. {} Then"])
def test_what_stands_around_a_sentence_may_share_its_tokens(around):
    said = "International business machines are sold in 14 countries, to whom we don't know."
    try:
        tokenizer = Tokenizer.gpt2()
    except Exception as e:
        pytest.skip(f"no GPT-2 vocabulary here: {e}")
    for there, found in ((around.format(said), True), (around.format(said.replace("14", "15")), False),
                         (around.format("Inter" + said[13:]), False), (around.format(said[:-1] + ","), False)):
        search = writing.Search(tokenizer, {"a": [f"Hm. {said} Aha."]}).read([tokenizer.encode(there)])
        assert bool(search.copied) == found, there


# ---- percent arithmetic ----------------------------------------------------------------------------------------------

RIGHT = [
    "Net sales increased by $12.3 million, or 8.1%, to $164.2 million from $151.9 million.",
    "Net sales increased 8.1% to $164.2 million in fiscal 2020 from $151.9 million in fiscal 2019.",
    "Net sales increased 8.1%, or $12.3 million, to $164.2 million.",
    "Net sales were $164.2 million in 2020, compared to $151.9 million in 2019, an increase of $12.3 million, or 8.1%.",
    "Net sales for 2020 were $164.2 million compared with $151.9 million for 2019, an 8.1% increase.",
    "Revenue increased from $151.9 million in 2019 to $164.2 million in 2020, an increase of 8.1%.",
    "Net sales of $164.2 million increased 8.1% from $151.9 million.",
    "Cost of revenue decreased $12.3 million, or 7.5%, compared to $164.2 million in the prior year.",
    "General expenses declined by $12.3 million (7.5%) to $151.9 million.",
    "Net income was $0.8 billion, down 20% from $1.0 billion.",
    "Profit rose 50% to $1.5 million from $1,000,000 the year before.",
    "Net loss increased 20% to $(6.0) million from $(5.0) million.",
    "Earnings per share increased 24% from $1.74 to $2.16.",
    "Operating profit increased 38% to $3,984 in 2023 from $2,893 in 2022.",
    "Interest expense was $688,000, a decrease of 12.3% from $784,000 in 2004.",
    "Noninterest income in fiscal 2005 was $6.5 million, a decrease of 17.3 percent from $7.9 million in fiscal 2004.",
    "25% of $160.0 million is $40.0 million.",
    "Research was $40.0 million, or 25% of total revenue of $160.0 million.",
    "An increase in revenues of $2.0 million, or 8%, from $25.0 million was due to prices.",
    "Revenue grew approximately 30% to approximately $130 million from $100 million.",
    "Net sales more than tripled; they rose 250% to $7.0 million from $2.0 million.",
]
WRONG = [
    ("Net sales increased by $12.3 million, or 9.1%, to $164.2 million from $151.9 million.", "9.1%", "8.1%"),
    ("Net sales increased 18.1% to $164.2 million in fiscal 2020 from $151.9 million in fiscal 2019.", "18.1%", "8.1%"),
    ("Net sales increased by $22.3 million, or 8.1%, to $164.2 million from $151.9 million.", "8.1%", "14.7%"),
    ("Net sales were $164.2 million in 2020, compared to $151.9 million in 2019, an increase of $10.3 "
     "million, or 8.1%.",
     "8.1%", "6.8%"),
    ("Net sales decreased 8.1% to $164.2 million from $151.9 million.", "8.1%", "-8.1%"),
    ("Net sales decreased $1.0 million, or 50%, to $9.0 million.", "50%", "10%"),
    ("Revenue of $5.0 billion was up 25% from $4.5 billion.", "25%", "11%"),
    ("2% of $162.8 million is $40.0 million.", "2%", "25%"),
    ("Research was $40.0 million, or 2% of total revenue of $160.0 million.", "2%", "25%"),
    ("Cost of revenue increased by $1.2 million, or 3%, to $1.5 million.", "3%", "400%"),
    ("Interest income was $65.9 million, a 23.5% increase from $48.1 million in fiscal 2005.", "23.5%", "37.0%"),
]
NOT_CHECKED = [
    "In 2023, equity income was $1,691 million, compared to equity income of $1,472 million in 2022, an increase of "
    "$219 million, or 15%.",
    "", "Net sales increased 8.1%.", "Net sales increased $12.3 million.", "Net sales increased 5% to $105 million.",
    "Net sales were $164.2 million and $151.9 million, an increase of 9%, respectively.",
    "Net sales and costs increased 5% and 6%, to $10 million and $12 million, from $9 million and $8 million, "
    "respectively.",
    "Gross margin increased 2.1 percentage points to $5 million from $4 million.",
    "Margin increased 50 basis points, to 8% of $4 million, compared to 7% of $5 million.",
    "Gross margin increased 3% points to $5.0 million from $4.0 million.",
    "Net sales increased 5%, and cost of sales rose to $9 million from $5 million.",
    "Net sales increased 5% while net income was $5 million compared to $4 million.",
    "Net sales increased 5% to $10 million. Costs decreased from $8 million.",
    "On a constant currency basis net sales increased 5% to $12 million from $10 million.",
    "Sales increased to $10 million, or 5% of net sales, from $8 million.",
    "The fee is the greater of 2% of $10.0 million or $500,000.",
    "Net loss was $5 million compared to net income of $3 million, a decrease of 40%.",
    "Income went from $(5) million to $3 million, an increase of 70%.",
    "Sales increased 5% due to $5.0 million from new stores and $3.0 million from others.",
    "Sales increased 5-8% to $10 million from $8 million.",
    "Interest of 5% on $10 million notes due 2025 was $3 million.",
    "Revenue increased 5% to $10.0 from $5.0 million.",
    "Net sales | 5% | $10 million | increased 3% to $6 million from $5 million.",
    "Revenue increased $43.3 million or 105.6% from 2000 to 2001 and $4.7 million or 12.8% from 1999 to 2000.",
    "Worldwide sales increased to $71.9 billion from $70.1 billion, compared to an increase of 5.7% in 2015.",
    "Total margin was a loss of $15.3 million compared to a loss of $33.7 million, an improvement of $18.3 "
    "million or 54%.",
    "A 10% change in rates would decrease the value of $20.0 million of notes to $5.0 million from $6.0 million.",
    "Sales rose 1,2,3% to $5..0 million from $4,00 million, up %, $ million, or $%.",
]


@pytest.mark.parametrize("text", RIGHT)
def test_right_statements(text):
    assert [c["consistent"] for c in writing.check_percentages(text)] == [True], writing.check_percentages(text)


@pytest.mark.parametrize("text, says, should", WRONG)
def test_wrong_statements(text, says, should):
    found = [(c["says"], c["should"], c["consistent"]) for c in writing.check_percentages(text)]
    assert found == [(says, should, False)]


@pytest.mark.parametrize("text", NOT_CHECKED)
def test_statements_that_cant_be_checked(text):
    assert writing.check_percentages(text) == []


# ---- the part --------------------------------------------------------------------------------------------------------


def test_the_part(trained, corpus):
    tokens, models = data.TokenData(str(corpus), verify=False), {"tiny": checkpoint.load(str(trained))}
    options = SimpleNamespace(seed=3, quick=True, temperature=0.8, max_new_tokens=20, prompt=["Net sales", "We"])

    def ask(name, function, items, cast=False, chunk=16, label="", **settings):
        with torch.inference_mode():
            return function(models[name][0].eval(), models[name][1], items, **settings)

    def one_by_one(name, function, items, **settings):
        return [ask(name, function, [item], **settings)[0] for item in items]

    report = writing.run(ask, ["tiny"], tokens, options)
    text = json.dumps(report, allow_nan=False)
    assert text == json.dumps(writing.run(one_by_one, ["tiny"], tokens, options), allow_nan=False)
    assert [p["prompt"] for p in report["prompts"]] == ["Net sales", "We"] and not report["missing"]
    real = report["measures"]["held-out text"]
    assert real["longest_match"]["document"] in {about["id"] for about, _ in tokens.read_documents("train")}
    assert real["texts"] == report["measures"]["tiny"]["texts"] == 4 and real["loop_rate"] < 0.5

    def silent(name, function, items, **settings):
        return [["", "."] for item in items]

    report = writing.run(silent, ["tiny"], tokens, options)
    json.dumps(report, allow_nan=False)
    assert report["measures"]["tiny"]["verbatim"] is None and report["prompts"][0]["texts"] == {"tiny": ""}


def test_a_loop_that_changes_its_numbers_is_one():
    text = "".join(f"Cost of revenue increased by ${n}.2 million, or {3 * n}%, primarily due to personnel.\n\n"
                   for n in range(2, 12))
    assert writing.loop_rate(text) > 0.8 and writing.ends_in_loop(text)
