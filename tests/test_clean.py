"""clean.py against naive Python, true Jaccard similarities, and counting by hand."""

import random
import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clean

# ---- words and n-grams -----------------------------------------------------------------------------------------------


def naive_words(text):
    return re.findall(r"[^\W_]+", text.lower())


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("abAB0 1.,-'’“—–…•\n\t\xa0£éÉüßΩωЖж漢字☒€x"), max_size=60))
def test_word_hashes_are_equal_where_the_words_are(text):
    words = naive_words(text)
    hashes = clean.word_hashes(text).tolist()
    assert len(hashes) == len(words)
    alone = {word: clean.word_hashes(word).tolist() for word in words}
    assert hashes == [alone[word][0] for word in words]
    assert len({h[0] for h in alone.values()}) == len(alone)


def test_a_million_words_do_not_collide():
    letters = "abcdefghij"
    words = [str(i) for i in range(500_000)] + ["".join(letters[int(d)] for d in str(i)) for i in range(500_000)]
    hashes = clean.word_hashes(" ".join(words))
    assert len(hashes) == len(np.unique(hashes)) == 1_000_000
    for bits in (hashes >> np.uint64(48), hashes & np.uint64(0xFFFF)):  # both ends are spread evenly
        counts = np.bincount(bits.astype(np.int64), minlength=65536)
        assert abs(((counts - 1e6 / 65536) ** 2 / (1e6 / 65536)).mean() - 1) < 0.03
    flips = [(int(a) ^ int(b)).bit_count() for a, b in zip(hashes[:9999], hashes[1:10000], strict=True)]
    assert 31.5 < np.mean(flips) < 32.5  # words that differ in one letter differ in half of all bits


def test_words_do_not_depend_on_where_pieces_end():
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdé", k=rng.randint(1, 12))) for _ in range(60_000)]
    alone = {word: clean.word_hashes(word)[0] for word in set(words)}
    for gap in (" ", "\n"):
        assert np.array_equal(clean.word_hashes(gap.join(words)), np.array([alone[word] for word in words]))
    assert len(clean.word_hashes("x" * 300_000)) > 0 == len(clean.word_hashes("")) == len(clean.word_hashes(" .,\n"))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c", "dd"]), max_size=60), st.integers(1, 14))
def test_ngrams_are_the_naive_tuples(words, n):
    grams = clean.ngrams(clean.word_hashes(" ".join(words)), n).tolist()
    tuples = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    assert len(grams) == len(tuples)
    assert len(set(zip(grams, tuples, strict=True))) == len(set(grams)) == len(set(tuples))


def test_ngrams_do_not_depend_on_blocks():
    words = np.random.default_rng(0).integers(1 << 63, size=200_000, dtype=np.uint64)
    for n in (1, 2, 5, 13):
        grams = clean.ngrams(words, n)
        for i in (0, 65530, 65535, 65536, 131072, len(grams) - 1):
            assert grams[i] == clean.ngrams(words[i : i + n], n)[0]


# ---- near-duplicates -------------------------------------------------------------------------------------------------


def test_minhash_estimates_jaccard_within_three_sigma():
    rng = random.Random(3)
    vocabulary = [f"w{i}" for i in range(5000)]
    errors = []
    for trial in range(150):
        a = rng.choices(vocabulary, k=rng.choice([8, 60, 400, 3000]))
        b = [word if rng.random() > trial / 600 else rng.choice(vocabulary) for word in a]
        grams = [{tuple(doc[i : i + 5]) for i in range(len(doc) - 4)} for doc in (a, b)]
        true = len(grams[0] & grams[1]) / len(grams[0] | grams[1])
        estimate = clean.similarity(*(clean.minhash(clean.word_hashes(" ".join(doc))) for doc in (a, b)))
        sigma = (true * (1 - true) / 112) ** 0.5
        errors.append((estimate - true) / sigma if sigma else estimate - true)
    errors = np.array(errors)
    assert abs(errors.mean()) < 3 / len(errors) ** 0.5 and 0.75 < errors.std() < 1.25
    assert (abs(errors) < 3).mean() > 0.98 and abs(errors).max() < 4.5


def test_minhash_of_short_documents():
    sign = lambda text: clean.minhash(clean.word_hashes(text))  # noqa: E731
    assert sign("").dtype == np.uint32 and sign("").shape == (112,) and (sign("") == 0xFFFFFFFF).all()
    assert (sign("one two") == sign("One, two!")).all() and clean.similarity(sign("one two"), sign("two one")) < 0.05
    assert clean.bands(sign("a b c")).shape == (14,) and clean.bands(np.stack([sign("a"), sign("b")])).shape == (2, 14)
    assert clean.similarity(sign("a b c d e f"), sign("a b c d e f")) == 1.0


def planted(n, rng, clusters=300, similarity=0.92):
    """Random signatures with clusters of 2 to 5 near-copies → (signatures, cluster of each document or -1)."""
    signatures = rng.integers(1 << 32, size=(n, 112), dtype=np.uint32)
    cluster, free = np.full(n, -1), rng.permutation(n).tolist()
    for c in range(clusters):
        first, *others = [free.pop() for _ in range(rng.integers(2, 6))]
        cluster[first] = c
        for other in others:
            signatures[other] = np.where(rng.random(112) < similarity, signatures[first], signatures[other])
            cluster[other] = c
    return signatures, cluster


def test_near_duplicates_keeps_the_lowest_order_of_each_cluster():
    rng = np.random.default_rng(5)
    signatures, cluster = planted(20_000, rng, similarity=0.97)
    order = rng.permutation(20_000)
    keep, pairs = clean.near_duplicates(signatures, order)
    assert keep.dtype == bool and pairs.dtype == np.int64 and len(pairs) == (~keep).sum()
    assert keep[cluster < 0].all()
    for c in range(cluster.max() + 1):
        members = np.flatnonzero(cluster == c)
        best = members[np.argmin(order[members])]
        assert members[keep[members]].tolist() == [best]
        assert {tuple(p) for p in pairs if p[0] in members} == {(m, best) for m in members if m != best}


def test_near_duplicates_follow_chains_and_threshold():
    rng = np.random.default_rng(6)
    a, noise = rng.integers(1 << 32, size=(2, 112), dtype=np.uint32)
    b, c, d = a.copy(), a.copy(), a.copy()
    b[:16], c[:32], d[:80] = noise[:16], noise[:32], noise[:80]  # a~b .86, b~c .86, a~c .71, c~d .57
    keep, pairs = clean.near_duplicates(np.stack([c, b, a, d]), np.array([2, 1, 0, 3]))
    assert keep.tolist() == [False, False, True, True] and pairs.tolist() == [[0, 2], [1, 2]]
    keep, pairs = clean.near_duplicates(np.empty((0, 112), np.uint32), np.empty(0))
    assert keep.shape == (0,) and pairs.shape == (0, 2)
    keep, pairs = clean.near_duplicates(np.stack([a, a, a]), np.zeros(3))
    assert keep.tolist() == [True, False, False] and pairs.tolist() == [[1, 0], [2, 0]]


def test_near_duplicates_of_degenerate_buckets():
    """Everybody shares a band with everybody, and is unlike everybody; or everybody is the same."""
    rng = np.random.default_rng(7)
    signatures = rng.integers(1 << 32, size=(50_000, 112), dtype=np.uint32)
    signatures[:, 16:24] = 7
    signatures[49_999] = signatures[3]
    start = time.process_time()
    keep, pairs = clean.near_duplicates(signatures, np.arange(50_000))
    assert pairs.tolist() == [[49_999, 3]] and time.process_time() - start < 20
    signatures[:] = 5
    keep, pairs = clean.near_duplicates(signatures, np.arange(50_000)[::-1])
    assert np.flatnonzero(keep).tolist() == [49_999] and time.process_time() - start < 25


def test_near_duplicates_of_clusters_that_share_a_band():
    """Ten clusters, interleaved in one bucket and alike in no other band: only round after round can part them."""
    rng = np.random.default_rng(13)
    signatures = np.tile(rng.integers(1 << 32, size=(10, 112), dtype=np.uint32), (20, 1))
    signatures[:, :8] = 7
    signatures[:, 8::8] = rng.integers(1 << 32, size=(200, 13), dtype=np.uint32)
    keep, pairs = clean.near_duplicates(signatures, np.arange(200))
    assert np.flatnonzero(keep).tolist() == list(range(10)) and (pairs[:, 0] % 10 == pairs[:, 1]).all()
    assert clean.near_duplicates(signatures, np.arange(200), threshold=0.95)[0].all()


def test_near_duplicates_among_two_hundred_thousand(tmp_path):
    rng = np.random.default_rng(8)
    signatures, cluster = planted(200_000, rng, clusters=1000)
    np.save(tmp_path / "s.npy", signatures)
    start = time.process_time()
    keep, pairs = clean.near_duplicates(np.load(tmp_path / "s.npy", mmap_mode="r"), np.arange(200_000))
    assert time.process_time() - start < 20
    expected = (cluster >= 0).sum() - 1000
    assert keep[cluster < 0].all() and (cluster[pairs[:, 0]] == cluster[pairs[:, 1]]).all()
    assert 0.98 * expected < len(pairs) <= expected


# ---- paragraphs ------------------------------------------------------------------------------------------------------


def test_paragraph_hashes():
    one = "The Company  makes widgets in twelve countries and sells them in forty, none of which is known to us at all"
    same = one.upper().replace("  ", "\n")
    other = one.replace("twelve", "13 ")
    text = f"\n{one}\n \n {same} \n\nshort\n\n\n\n{other}\t\n\n  é{one}"
    starts, ends, hashes = clean.paragraph_hashes(text)
    assert [text[s:e].strip() for s, e in zip(starts, ends, strict=True)] == [one, same, other, "é" + one]
    assert starts.dtype == ends.dtype == np.int64 and hashes.dtype == np.uint64
    assert hashes[0] == hashes[1] and len(set(hashes.tolist())) == 3
    for none in ("short", "", "\n\n", " " * 500):
        assert [len(x) for x in clean.paragraph_hashes(none)] == [0, 0, 0]
    assert len(clean.paragraph_hashes("short\n\nshorter", min_chars=1)[0]) == 2


def test_paragraphs_of_one_line_each_and_of_wrapped_lines():
    long, wrapped = "word " * 60, "a wrapped line of ordinary length, ends here"
    text = f"Heading\n{long}\n{long}\nHeading\n{long}"
    starts, ends, _ = clean.paragraph_hashes(text)
    assert [text[s:e] for s, e in zip(starts, ends, strict=True)] == [long] * 3
    text = "\n".join([wrapped] * 9) + "\n\n" + "\n".join(["a | 1 | 2"] * 50)
    starts, ends, _ = clean.paragraph_hashes(text)
    assert [text[s:e] for s, e in zip(starts, ends, strict=True)] == text.split("\n\n")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab \n\t", max_size=80))
def test_paragraphs_cover_all_but_whitespace(text):
    at, left = 0, ""
    for start, end in clean.paragraphs(text):
        assert at <= start <= end <= len(text)
        left, at = left + text[at:start], end
    assert not (left + text[at:]).strip()


def test_repeats():
    documents = [np.array(d, np.uint64) for d in ([1, 2, 1], [], [3, 2], [4, 3, 3])]
    expected = [[False, False, True], [], [False, True], [False, True, True]]
    assert [mask.tolist() for mask in clean.repeats(documents)] == expected
    assert clean.repeats([]) == []


# ---- contamination ---------------------------------------------------------------------------------------------------


def test_overlap_is_exact_when_all_is_kept():
    rng = random.Random(9)
    texts = [" ".join(rng.choices("abcd", k=rng.randint(0, 40))) for _ in range(40)]
    val, train = texts[:10], texts[10:]
    tuples = lambda t: {tuple(t.split()[i : i + 4]) for i in range(len(t.split()) - 3)}  # noqa: E731
    seen = set().union(*map(tuples, train))
    expected = [len(tuples(t) & seen) / len(tuples(t)) if tuples(t) else 0 for t in val]
    grams = [clean.sampled(clean.ngrams(clean.word_hashes(t), 4), 1) for t in texts]
    assert clean.overlap(grams[:10], iter(grams[10:])).tolist() == pytest.approx(expected)
    assert clean.overlap([], grams).tolist() == [] and clean.overlap(grams[:2], []).tolist() == [0, 0]


def test_a_sixteenth_estimates_the_overlap():
    rng, words = np.random.default_rng(10), np.random.default_rng(11).integers(1 << 63, size=200_000, dtype=np.uint64)
    errors, sizes = [], []
    for _ in range(60):
        share, document = rng.random(), rng.choice(words, 5000)
        train = np.r_[document[: int(5000 * share)], rng.choice(words, 5000)]
        exact, sample = (clean.overlap([clean.sampled(clean.ngrams(document, 13), keep)],
                                       [clean.sampled(clean.ngrams(train, 13), keep)])[0] for keep in (1, 1 / 16))
        errors.append(sample - exact)
        sizes.append(len(clean.sampled(clean.ngrams(document, 13), 1 / 16)))
    assert np.std(errors) < 0.03 and np.abs(errors).max() < 0.09 and abs(np.mean(sizes) / 312 - 1) < 0.03


def test_sampled_is_sorted_unique_and_nested():
    grams = np.random.default_rng(12).integers(1 << 64, size=10_000, dtype=np.uint64)
    grams = np.r_[grams, grams]
    all_, half, few = (clean.sampled(grams, keep) for keep in (1, 0.5, 0.01))
    assert len(all_) == 10_000 and np.isin(few, half).all() and (np.diff(half.astype(object)) > 0).all()
    for keep in (0, -1, 1.5):
        with pytest.raises(ValueError, match="keep"):
            clean.sampled(grams, keep)
