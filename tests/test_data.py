"""The tokenizer against transformers, shards, and batches as a pure function of the step."""
import json
import os
import sys

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tokenizers
from conftest import SHARED
from transformers import AutoTokenizer

import data

TEXT = ("Revenue increased $12.4 million, or 8.3%, to $161.8 million.\n\n"
        "Item 1A. Risk Factors\tWe’ve had\xa0losses… 2,023  3\r\n"
        "naïve façade 日本語 🙂 don't they'll I'd <|endoftext|> |  | --- \n \n  \n") * 3


@pytest.fixture(scope="module")
def bpe():
    import synth

    company = synth.make_company(0, 1) if hasattr(synth, "make_company") else None
    words = TEXT + json.dumps(company, default=str)
    return data.Tokenizer.train([words, TEXT], 700)


def gpt2_or_skip():
    cache = SHARED / "tiktoken"
    if not cache.exists():
        pytest.skip("GPT-2's vocabulary is not at hand (../shared/tiktoken)")
    os.environ["TIKTOKEN_CACHE_DIR"] = str(cache)
    return data.Tokenizer.gpt2()


def transformers_ids(tokenizer, folder, text):
    tokenizer.save(folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    assert theirs.eos_token_id == tokenizer.end_of_text and len(theirs) == tokenizer.vocab_size
    return theirs(text, split_special_tokens=True)["input_ids"]


def test_trained_tokenizer_equals_transformers(bpe, tmp_path):
    assert bpe.fast is not None and bpe.vocab_size <= 700 and bpe.end_of_text == bpe.vocab_size - 1
    ids = bpe.encode(TEXT)
    assert ids.tolist() == transformers_ids(bpe, tmp_path, TEXT)
    assert bpe.decode(ids) == TEXT
    assert bpe.end_of_text not in ids  # a document can't forge a boundary
    assert data.Tokenizer.load(tmp_path).sha256() == bpe.sha256()


def test_gpt2_equals_transformers_and_tiktoken(tmp_path):
    tokenizer = gpt2_or_skip()
    import tiktoken

    assert tokenizer.vocab_size == 50257 and tokenizer.end_of_text == 50256
    ids = tokenizer.encode(TEXT).tolist()
    assert ids == tiktoken.get_encoding("gpt2").encode_ordinary(TEXT)
    assert ids == transformers_ids(tokenizer, tmp_path, TEXT)


@pytest.mark.slow
def test_every_character_splits_alike_in_both_engines(bpe):
    """The two regex engines must agree on what is a letter, a number and a space, over all of Unicode."""
    differing = []
    for start in range(0, 0x110000, 0x400):
        chars = [chr(c) for c in range(start, start + 0x400) if not 0xD800 <= c < 0xE000]
        text = "".join(f"a{c}1{c} {c}" for c in chars)
        if bpe.encode(text).tolist() != bpe.slow.encode(text, add_special_tokens=False).ids:
            differing += [hex(ord(c)) for c in chars
                          if bpe.encode(f"a{c}1{c} {c}").tolist() != bpe.slow.encode(f"a{c}1{c} {c}").ids]
    assert not differing


@hypothesis.settings(deadline=None, max_examples=200)
@hypothesis.given(st.text(max_size=80))
def test_any_text_survives_and_both_engines_agree(bpe, text):
    text = text.encode("utf-8", "ignore").decode()
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert ids.tolist() == bpe.slow.encode(text, add_special_tokens=False).ids
    assert bpe.token_bytes()[ids].sum() == len(text.encode())


@pytest.mark.parametrize("text", ["a" * 300_000, " " * 1_000_000, "\n \n" * 100_000, "=" * 200_000])
def test_megabytes_of_one_character(bpe, text):
    assert bpe.decode(bpe.encode(text)) == text


def test_a_tokenizer_that_tiktoken_would_get_wrong_is_left_to_tokenizers():
    """Merges: b+c, then a+b, then ab+c. 'abc' is [a, bc] by the list; tiktoken would find 'abc' whole."""
    vocab = {c: i for i, c in enumerate(sorted(data.BYTE_OF))}
    for token in ("bc", "ab", "abc"):
        vocab[token] = len(vocab)
    tokenizer = data.Tokenizer(data.bpe_spec(vocab, [["b", "c"], ["a", "b"], ["ab", "c"]]), "crafted")
    assert tokenizer.fast is None
    assert tokenizer.encode("abc").tolist() == [vocab["a"], vocab["bc"]]
    assert tokenizer.decode(tokenizer.encode("abc<|endoftext|>")) == "abc<|endoftext|>"


def test_the_same_tokenizer_in_another_spelling(bpe, tmp_path):
    """The hub's gpt2 spells merges as strings, has a post-processor and keeps end-of-text in the vocabulary too."""
    spec = json.loads(bpe.to_json())
    spec["model"]["merges"] = [" ".join(m) for m in spec["model"]["merges"]]
    spec["model"]["vocab"][data.END_OF_TEXT] = bpe.end_of_text
    del spec["model"]["ignore_merges"]
    spec["post_processor"] = dict(type="ByteLevel", add_prefix_space=True, trim_offsets=False, use_regex=True)
    other = data.Tokenizer(spec, "hub")
    assert other.fast and other.same_as(bpe) and other.sha256() != bpe.sha256()
    assert other.encode(TEXT).tolist() == bpe.encode(TEXT).tolist()
    assert not data.Tokenizer.train([TEXT], 300).same_as(bpe)


def test_other_peoples_tokenizers_are_read(tmp_path):
    """A WordPiece-like tokenizer of another family, by its tokenizer.json alone."""
    other = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "revenue": 1, "rose": 2}, unk_token="[UNK]"))
    other.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    other.add_special_tokens(["</s>"])
    other.save(str(tmp_path / "tokenizer.json"))
    tokenizer = data.Tokenizer.load(tmp_path)
    assert tokenizer.fast is None and tokenizer.end_of_text == 3 and tokenizer.encode("revenue rose").tolist() == [1, 2]


# ----------------------------------------------------------------------------------------------------------------------


def test_shards_are_plain_numpy_with_whole_documents(tmp_path):
    writer = data.ShardWriter(str(tmp_path), "train", np.uint16, shard_tokens=50)
    documents = [np.arange(n, dtype=np.uint16) for n in (20, 25, 10, 70, 1)]
    for i, tokens in enumerate(documents):
        writer.add(tokens, {"id": str(i)})
    shards = writer.finish()
    assert [s["tokens"] for s in shards] == [45, 10, 70, 1] or [s["tokens"] for s in shards] == [45, 10, 71]
    found = []
    for s in shards:
        array = np.load(tmp_path / s["name"], mmap_mode="r")
        starts = np.load(tmp_path / s["name"].replace(".npy", ".docs.npy"))
        assert (array.dtype == np.uint16 and len(array) == s["tokens"]
                and data.file_sha256(tmp_path / s["name"]) == s["sha256"])
        found += np.split(array, starts[1:])
    assert all(np.array_equal(a, b) for a, b in zip(found, documents, strict=True))


def test_a_batch_depends_on_nothing_but_data_seed_and_step(corpus):
    T, rows = 64, 6
    whole = [data.TokenData(str(corpus)).batch(s, range(rows), T, rows, seed=3) for s in (0, 7, 400)]
    fresh = data.TokenData(str(corpus))
    for s, (x, y) in reversed(list(zip((0, 7, 400), whole, strict=True))):
        # ranks and micro-batches
        parts = [fresh.batch(s, r, T, rows, seed=3) for r in (range(0, 2), range(2, 3), range(3, 6))]
        assert np.array_equal(np.concatenate([p[0] for p in parts]), x)
        assert np.array_equal(x[:, 1:], y[:, :-1]) and x.shape == y.shape == (rows, T)
    assert not np.array_equal(whole[0][0], fresh.batch(0, range(rows), T, rows, seed=4)[0])


def test_an_epoch_reads_each_window_once_and_the_next_cuts_anew(corpus):
    d = data.TokenData(str(corpus))
    T = 64
    n = d.windows_per_epoch(T)
    first = d.windows(0, range(n), T, n, seed=0)
    second = d.windows(1, range(n), T, n, seed=0)
    assert len(set(first)) == n and len({o % T for _, o in first}) == 1
    assert {o % T for _, o in first} != {o % T for _, o in second}
    assert n * T > 0.95 * d.tokens("train") - 2 * T


def test_validation_covers_each_target_once(corpus):
    d = data.TokenData(str(corpus))
    x, y = d.validation(64)
    assert (y >= 0).sum() == sum(len(s) - 1 for s in d.shards["val"])
    assert np.array_equal(np.concatenate([row[row >= 0] for row in y]),
                          np.concatenate([s[1:] for s in d.shards["val"]]))
    assert len(d.validation(64, max_tokens=640)[0]) == 10


def test_documents_of_a_window_are_named(corpus):
    d = data.TokenData(str(corpus))
    ids = [about["id"] for about, _ in d.read_documents("train")]
    starts = np.load(corpus / "train-00000.docs.npy")
    assert d.documents("train", [(0, int(starts[1]))], 10) == [ids[1]]
    assert d.documents("train", [(0, int(starts[1]) - 5)], 10) == [ids[0], ids[1]]


def test_read_documents_gives_the_texts_back(corpus):
    d = data.TokenData(str(corpus))
    for about, tokens in d.read_documents("val"):
        assert len(d.tokenizer.decode(tokens).encode()) == about["bytes"]
    assert sys.maxsize > d.tokenizer.end_of_text not in tokens
