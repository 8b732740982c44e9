"""The tokenizer: what it trains, reads and writes, against transformers and tiktoken."""
import json
import os

import hypothesis
import hypothesis.strategies as st
import pytest
import tokenizers
from conftest import SHARED
from transformers import AutoTokenizer

import tokenizer as tok

TEXT = ("Revenue increased $12.4 million, or 8.3%, to $161.8 million.\n\n"
        "Item 1A. Risk Factors\tWe’ve had\xa0losses… 2,023  3\r\n"
        "naïve façade 日本語 🙂 don't they'll I'd <|endoftext|> |  | --- \n \n  \n"
        "Total assets | $1,234,567 | (89.5)%\n12345678 ٣٤٥٦ ½²³ Ⅷ  4  56\n") * 3


@pytest.fixture(scope="module")
def cuts():
    """A tokenizer for each way to cut numbers."""
    import synth

    company = synth.make_company(0, 1) if hasattr(synth, "make_company") else None
    words = TEXT + json.dumps(company, default=str)
    return {numbers: tok.Tokenizer.train([words, TEXT], 700, numbers) for numbers in tok.NUMBERS}


@pytest.fixture(scope="module")
def bpe(cuts):
    return cuts["gpt2"]


@pytest.fixture(scope="module")
def pairs():
    """
    For each cut a tokenizer with a token for every pair of bytes, so that the ids show where a text was cut. Those that
    begin with "a", "1" or a space are merged first: no other pair hides such a border.
    """
    order = sorted(((a, b) for a in range(256) for b in range(256)), key=lambda ab: (ab[0] not in b"a1 ", ab[1] != 49))
    merges = [[tok.CHAR_OF[a], tok.CHAR_OF[b]] for a, b in order]
    vocab = {token: i for i, token in enumerate([*tok.BYTE_OF, *map("".join, merges)])}
    found = {numbers: tok.Tokenizer(tok.bpe_spec(vocab, merges, numbers), numbers) for numbers in tok.NUMBERS}
    assert all(tokenizer.fast for tokenizer in found.values())
    assert [len(found["gpt2"].encode(text)) for text in ("ab", "12", " b", "a1", "1b", "b ")] == [1, 1, 1, 2, 2, 2]
    return found


def slow_ids(tokenizer, text):
    return tokenizer.slow.encode(text, add_special_tokens=False).ids


def gpt2_or_skip():
    cache = SHARED / "tiktoken"
    if not cache.exists():
        pytest.skip("GPT-2's vocabulary is not at hand (../shared/tiktoken)")
    os.environ["TIKTOKEN_CACHE_DIR"] = str(cache)
    return tok.Tokenizer.gpt2()


def transformers_ids(tokenizer, folder, text):
    tokenizer.save(folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    assert theirs.eos_token_id == tokenizer.end_of_text and len(theirs) == tokenizer.vocab_size
    return theirs(text, split_special_tokens=True)["input_ids"]


@pytest.mark.parametrize("numbers", tok.NUMBERS)
def test_trained_tokenizer_equals_transformers(cuts, numbers, tmp_path):
    bpe = cuts[numbers]
    assert bpe.fast is not None and bpe.vocab_size <= 700 and bpe.end_of_text == bpe.vocab_size - 1
    ids = bpe.encode(TEXT)
    assert ids.tolist() == transformers_ids(bpe, tmp_path, TEXT)
    assert bpe.decode(ids) == TEXT
    assert bpe.end_of_text not in ids  # a document can't forge a boundary
    assert tok.Tokenizer.load(tmp_path).sha256() == bpe.sha256()
    # in a checkpoint, beside the config.json of a GPT-2; and after transformers has written it anew
    (tmp_path / "config.json").write_text(json.dumps(dict(model_type="gpt2", architectures=["GPT2LMHeadModel"])))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(TEXT, split_special_tokens=True)["input_ids"] == ids.tolist()
    theirs.save_pretrained(tmp_path / "again")
    again = tok.Tokenizer.load(tmp_path / "again")
    assert again.fast is not None and again.same_as(bpe)


def test_gpt2_equals_transformers_and_tiktoken(tmp_path):
    tokenizer = gpt2_or_skip()
    import tiktoken

    assert tokenizer.vocab_size == 50257 and tokenizer.end_of_text == 50256
    ids = tokenizer.encode(TEXT).tolist()
    assert ids == tiktoken.get_encoding("gpt2").encode_ordinary(TEXT)
    assert ids == transformers_ids(tokenizer, tmp_path, TEXT)


@pytest.mark.slow
@pytest.mark.parametrize("numbers", tok.NUMBERS)
def test_every_character_splits_alike_in_both_engines(pairs, numbers):
    """The two regex engines must agree on what is a letter, a number and a space, over all of Unicode."""
    bpe = pairs[numbers]
    differing = []
    for start in range(0, 0x110000, 0x400):
        chars = [chr(c) for c in range(start, start + 0x400) if not 0xD800 <= c < 0xE000]
        text = "".join(f"a{c}1{c} {c}" for c in chars) + "a"
        if bpe.encode(text).tolist() != slow_ids(bpe, text):
            differing += [hex(ord(c)) for c in chars
                          if bpe.encode(f"a{c}1{c} {c}a").tolist() != slow_ids(bpe, f"a{c}1{c} {c}a")]
    assert not differing


# whatever there is, and what the cuts are about: digits of three scripts, numbers that are none, signs, white space
PIECES = [*"0129٣७½²Ⅷ〇.,$()%-|'stlaé日\u0301 \n\t\r\x0b\x1c\x85\xa0\u2003\u200b\u3000",
          "  ", "    ", "\n\n", "\n \n\n", "'ll"]
ANY_TEXT = st.text(max_size=80) | st.lists(st.sampled_from(PIECES), max_size=60).map("".join)


@hypothesis.settings(deadline=None, max_examples=400)
@hypothesis.given(ANY_TEXT)
def test_any_text_survives_and_both_engines_agree(cuts, pairs, text):
    text = text.encode("utf-8", "ignore").decode()
    for tokenizer in (*cuts.values(), *pairs.values()):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert ids.tolist() == slow_ids(tokenizer, text)
    for tokenizer in cuts.values():
        assert tokenizer.token_bytes()[tokenizer.encode(text)].sum() == len(text.encode())


@hypothesis.settings(deadline=None, max_examples=400)
@hypothesis.given(ANY_TEXT)
def test_our_regex_cuts_as_tiktokens_own(tiktokens_own, pairs, text):
    text = text.encode("utf-8", "ignore").decode()
    assert pairs["gpt2"].encode(text).tolist() == tiktokens_own.encode_ordinary(text)


@pytest.fixture(scope="module")
def tiktokens_own(pairs):
    import tiktoken
    import tiktoken_ext.openai_public

    return tiktoken.Encoding("own", pat_str=tiktoken_ext.openai_public.r50k_pat_str, special_tokens={},
                             mergeable_ranks=pairs["gpt2"].fast._mergeable_ranks)


@pytest.mark.parametrize("text", ["a" * 300_000, " " * 1_000_000, "\n \n" * 100_000, "=" * 200_000, "7" * 200_000])
def test_megabytes_of_one_character(cuts, text):
    for tokenizer in cuts.values():
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_numbers_are_cut_as_asked(cuts):
    def tokens(numbers, text):
        return [cuts[numbers].decode([i]) for i in cuts[numbers].encode(text)]

    assert tokens("digits", "in 2023") == ["in", " ", "2", "0", "2", "3"]
    repeated = [" 1234567 $1234567 (1234567)"] * 50  # every merge that a cut allows is made
    whole, digits, threes = (tok.Tokenizer.train(repeated, 300, n) for n in ("gpt2", "digits", "threes"))
    assert [whole.decode([i]) for i in whole.encode(" 1234567")] == [" 1234567"]
    assert [threes.decode([i]) for i in threes.encode(" 1234567")] == [" ", "123", "456", "7"]
    assert [digits.decode([i]) for i in digits.encode(" (1234567")] == [" (", *"1234567"]
    for numbers, longest in (("digits", 1), ("threes", 3)):
        for token in cuts[numbers].fast._mergeable_ranks:
            text = token.decode("utf-8", "ignore")
            assert sum(c.isdigit() for c in text) <= longest and not (" " in text and any(map(str.isdigit, text)))
    with pytest.raises(ValueError, match="gpt2, digits, threes"):
        tok.Tokenizer.train([TEXT], 300, "fours")


@pytest.mark.parametrize("change", [
    lambda split, byte_level: split["pattern"].update(Regex=split["pattern"]["Regex"].replace("1,3", "1,4")),
    lambda split, byte_level: split.update(pattern=dict(String=split["pattern"]["Regex"])),
    lambda split, byte_level: split.update(behavior="Removed"),
    lambda split, byte_level: split.update(invert=True),
    lambda split, byte_level: byte_level.update(use_regex=True),
    lambda split, byte_level: byte_level.update(add_prefix_space=True)])
def test_a_cut_that_is_not_ours_is_left_to_tokenizers(cuts, change):
    spec = json.loads(cuts["threes"].to_json())
    change(*spec["pre_tokenizer"]["pretokenizers"])
    other = tok.Tokenizer(spec, "changed")
    assert other.fast is None and not other.same_as(cuts["threes"])
    assert other.encode(" 1234x").tolist() == slow_ids(other, " 1234x")


def test_same_as_sees_how_text_is_cut(pairs):
    alike = list(pairs.values())
    for a in alike:
        assert [a.same_as(b) for b in alike] == [a is b for b in alike]
    spec = json.loads(alike[0].to_json())
    spec["pre_tokenizer"]["use_regex"] = False  # all of a text is one piece
    assert not tok.Tokenizer(spec, "uncut").same_as(alike[0]) and tok.Tokenizer(spec, "uncut").fast is None
    spec = json.loads(alike[0].to_json()) | {"normalizer": dict(type="Lowercase")}
    assert not tok.Tokenizer(spec, "lower").same_as(alike[0]) and tok.Tokenizer(spec, "lower").fast is None


@hypothesis.settings(deadline=None, max_examples=300)
@hypothesis.given(ANY_TEXT, st.integers(1, 9))
def test_a_text_in_parts_has_the_same_pieces(cuts, text, size):
    text = text.encode("utf-8", "ignore").decode()
    found = list(tok.text_parts(text, size))
    assert "".join(found) == text and max(map(len, found), default=0) <= 2 * size
    if any(len(part) == 2 * size for part in found):
        return  # a word as long as that is cut
    for tokenizer in cuts.values():
        pieces = [[piece for piece, _ in tokenizer.slow.pre_tokenizer.pre_tokenize_str(t)] for t in (text, *found)]
        assert pieces[0] == sum(pieces[1:], [])


def test_training_takes_a_long_document_in_parts(monkeypatch):
    long = "\n".join(f"Row {i} | {i * 7919:,} | ({i % 97}.{i % 10})%" for i in range(20_000))
    assert max(map(len, tok.text_parts(long))) < 17_000
    in_parts = tok.Tokenizer.train([long], 500, "threes")
    monkeypatch.setattr(tok, "text_parts", lambda text: [text])
    assert tok.Tokenizer.train([long], 500, "threes").sha256() == in_parts.sha256()


def test_training_survives_a_megabyte_of_one_character():
    """In one piece the trainer needs six minutes for it."""
    tokenizer = tok.Tokenizer.train(["=" * 1_000_000, "text"], 300)
    assert tokenizer.decode(tokenizer.encode("text" + "=" * 999)) == "text" + "=" * 999


def test_a_tokenizer_that_tiktoken_would_get_wrong_is_left_to_tokenizers():
    """Merges: b+c, then a+b, then ab+c. 'abc' is [a, bc] by the list; tiktoken would find 'abc' whole."""
    vocab = {c: i for i, c in enumerate(sorted(tok.BYTE_OF))}
    for token in ("bc", "ab", "abc"):
        vocab[token] = len(vocab)
    tokenizer = tok.Tokenizer(tok.bpe_spec(vocab, [["b", "c"], ["a", "b"], ["ab", "c"]]), "crafted")
    assert tokenizer.fast is None
    assert tokenizer.encode("abc").tolist() == [vocab["a"], vocab["bc"]]
    assert tokenizer.decode(tokenizer.encode("abc<|endoftext|>")) == "abc<|endoftext|>"


def test_the_same_tokenizer_in_another_spelling(bpe, tmp_path):
    """The hub's gpt2 spells merges as strings, has a post-processor and keeps end-of-text in the vocabulary too."""
    spec = json.loads(bpe.to_json())
    spec["model"]["merges"] = [" ".join(m) for m in spec["model"]["merges"]]
    spec["model"]["vocab"][tok.END_OF_TEXT] = bpe.end_of_text
    del spec["model"]["ignore_merges"]
    spec["post_processor"] = dict(type="ByteLevel", add_prefix_space=True, trim_offsets=False, use_regex=True)
    other = tok.Tokenizer(spec, "hub")
    assert other.fast and other.same_as(bpe) and other.sha256() != bpe.sha256()
    assert other.encode(TEXT).tolist() == bpe.encode(TEXT).tolist()
    assert not tok.Tokenizer.train([TEXT], 300).same_as(bpe)


def test_other_peoples_tokenizers_are_read(tmp_path):
    """A WordPiece-like tokenizer of another family, by its tokenizer.json alone."""
    other = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "revenue": 1, "rose": 2}, unk_token="[UNK]"))
    other.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    other.add_special_tokens(["</s>"])
    other.save(str(tmp_path / "tokenizer.json"))
    tokenizer = tok.Tokenizer.load(tmp_path)
    assert tokenizer.fast is None and tokenizer.end_of_text == 3 and tokenizer.encode("revenue rose").tolist() == [1, 2]


def test_bytes_per_token_by_kind_of_text(bpe):
    table = "Assets | $1,234.5 | (4,567)\nShare | 12.3% | 8"
    text = f"Revenue rose to $12 in Q4 2023.\n\n{table}\n\nIt rose."
    found = tok.bytes_per_token(bpe, [text, "", "It rose."])

    def ratio(*texts):
        return round(sum(len(t.encode()) for t in texts) / sum(len(bpe.encode(t)) for t in texts), 3)

    assert found == dict(narrative=ratio("Revenue rose to $12 in Q4 2023.\nIt rose.", "It rose."), tables=ratio(table),
                         numbers=ratio(" $12", " 2023", " $1,234.5", " (4,567)", " 12.3%", " 8"),
                         all=ratio(text, "It rose."))
    assert tok.bytes_per_token(bpe, ["no figures"]) | dict(narrative=0, all=0) == dict(
        narrative=0, tables=None, numbers=None, all=0)
    bytes_alone = tok.Tokenizer.train([], 257)
    assert tok.bytes_per_token(bytes_alone, [text]) == dict(narrative=1, tables=1, numbers=1, all=1)


def test_number_strings():
    text = "$1,234.5 12.3% (4,567), $(89)% ($7.5%) 2023. Q4 1A 10-K US$5 €3 1,23"
    assert tok.NUMBER.findall(text) == ["$1,234.5", "12.3%", "(4,567)", "$(89)%", "($7.5%)", "2023", "10", "5", "€3",
                                         "1", "23"]


def test_tokenizer_report_never_downloads(bpe, tmp_path, monkeypatch):
    import tiktoken.load

    gpt2 = gpt2_or_skip()
    expected = tok.bytes_per_token(gpt2, [TEXT])
    assert tok.tokenizer_report(bpe, iter([TEXT])) == dict(this=tok.bytes_per_token(bpe, [TEXT]), gpt2=expected)
    asked = []
    monkeypatch.setattr(tiktoken.load, "read_file", asked.append)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    assert tok.tokenizer_report(bpe, [TEXT])["gpt2"] is None and not asked


# ----------------------------------------------------------------------------------------------------------------------
