"""Token shards, and batches as a pure function of the step."""
import sys

import numpy as np

import data


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
    n = sum(d._shard_windows(T))
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
