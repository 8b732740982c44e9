"""encode.py against tiktoken, which it must equal on every text."""
import random

import numpy as np
import pytest
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

import edgar
import encode
import tokenizer as tok

# what the split's rules are about, and neighbours from other scripts and planes
ALPHABET = [
    " ", "  ", "\n", "\r\n", "\t", "'", "\u2019", "s", "t", "ll", "ve", "'re", "'s", "'S", "'ll",
    "a", "\xc9", "1", "23", "456", "\xbd", "\xb2", "\u0663", "\u8a9e", "\ufffd", "\xa0", "\u2003",
    "\u3000", "\x1c", "\x85", "\U0001f600", "\xe9", "\u0301", ".", ",", "$", "-" * 20,
    "longwordlongwordlongword", "x" * 15, "y" * 16, "z" * 14, "\x00", "\u2028", "\U0001d7d8",
    "\U00020000", "<|endoftext|>", "\ue000", "\U000e0001"]


@pytest.fixture(scope="module", params=tok.NUMBERS)
def encoders(request):
    """An encoder for each way to cut numbers, over tokens that tell where it cuts: every pair of bytes is one."""
    import tiktoken

    ranks = {bytes([b]): b for b in range(256)}
    ranks |= {bytes([a, b]): 256 + 256 * a + b for a in range(256) for b in range(256)}
    encoding = tiktoken.Encoding(request.param, pat_str=tok.split_regex(request.param), mergeable_ranks=ranks,
                                 special_tokens={"<|endoftext|>": 65792})
    return encode.Encoder(encoding, request.param, np.uint32)


def same(encoder, text):
    got, expected = encoder.encode(text), encoder.encoding.encode_to_numpy(text, disallowed_special=())
    assert got.dtype == encoder.dtype and np.array_equal(got, expected), text


@pytest.fixture(autouse=True)
def no_short_cut(monkeypatch):
    monkeypatch.setattr(encode, "SHORT", 0)


def test_what_the_rules_are_about(encoders):
    for text in ("", " ", "a", "'s", " 's", "it's", "it'strange", "'sss 'll've", "x  y\n\nz ", "a \u00a0b\u00a0 c",
                 "1234567 12 ½½½½ $1,234", "  ", "a\n", "\n a", "''s", "'\u0301s"):
        same(encoders, text)
    rng = random.Random(0)
    for _ in range(5000):
        same(encoders, "".join(rng.choice(ALPHABET) for _ in range(rng.randint(1, 14))))


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text(encoders, text):
    same(encoders, text)


@pytest.mark.slow
def test_every_character(encoders):
    for c in [*range(0xD800), *range(0xE000, 0x20000), *range(0x20000, 0x110000, 41)]:
        same(encoders, f"a{chr(c)}1 {chr(c)}b")


def test_a_full_table_is_emptied(encoders, monkeypatch):
    monkeypatch.setattr(encode, "SLOT_BITS", 6)
    small = encode.Encoder(encoders.encoding, encoders.numbers, encoders.dtype)
    rng = random.Random(1)
    for _ in range(60):
        same(small, " ".join("".join(rng.choice("abcdefgh") for _ in range(rng.randint(1, 20))) for _ in range(40)))


def test_ids_of_the_dtype_asked_for():
    tokenizer = tok.Tokenizer.train(["one two three " * 50], 300)
    assert tokenizer.encode("one two").dtype == np.uint16


def test_real_filings():
    folder = SHARED / "data" / "filings_historic"
    if not folder.exists():
        pytest.skip("real filings are not at hand (../shared/data)")
    texts = [edgar.read_filing(path)["text"] for path in sorted(folder.iterdir())[:5]]
    tokenizer = tok.Tokenizer.train(texts, 4096)
    for text in texts:
        assert np.array_equal(tokenizer.encode(text), tokenizer.fast.encode_to_numpy(text, disallowed_special=()))
