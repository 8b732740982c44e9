"""What in a corpus was said before: near-duplicates, repeated paragraphs, and what validation shares with training.

    words = word_hashes(text)                                           # everything else starts from these
    keep, pairs = near_duplicates(np.stack([minhash(words), ...]), order)
    starts, ends, hashes = paragraph_hashes(text)                       # repeats(...) over one company's filings
    shares = overlap([sampled(ngrams(words, 13), 1 / 16), ...], train)  # contamination, per validation document

The idea: read a document once, as UTF-8 bytes in numpy, and turn every word into 64 random-looking bits. Windows of n
words are then sums of those numbers, and three questions become arithmetic on arrays of integers:

- Is this document nearly that one? MinHash (Broder 1997): of a random permutation of all 5-grams, keep the one of the
  document's that comes first. Two documents keep the same one with probability J = |A ∩ B| / |A ∪ B|, so the share of
  equal entries among 112 permutations estimates J within sqrt(J (1 - J) / 112) < 0.05. Locality-sensitive hashing then
  spares us the N²/2 comparisons: 14 bands of 8 entries (the numbers of FineWeb, Penedo et al. 2024), and only those who
  agree on a whole band are compared: 1 - (1 - J^8)^14 = 92 % of pairs at J = 0.8, 5 % at J = 0.5.
- Was this paragraph here before? Equal hashes of its text, whitespace and case aside.
- How much of this validation document was seen in training? Keep the 13-grams whose hash falls under a threshold: as
  the hash decides, every document keeps the same ones, and a sixteenth estimates the share within a few percent.
"""

import re
from hashlib import blake2b

import numpy as np

BANDS, ROWS, SHINGLE = 14, 8, 5  # of MinHash
PIECE, BLOCK = 1 << 16, 1 << 12  # characters, 5-grams worked on at once: their arrays stay within the processor's cache

# ---- words and windows of words as 64-bit numbers --------------------------------------------------------------------

BASE = 0x9E3779B97F4A7C15  # any odd number with bits all over
LETTER = np.array([chr(b).isalnum() or b > 127 for b in range(256)])
POWER = np.cumprod(np.r_[np.uint64(1), np.full(4 * PIECE + 2, BASE, np.uint64)])  # modulo 2^64


def mix(x):
    """splitmix64's finaliser (Steele et al. 2014), in place: every bit of x (uint64) comes to depend on every other."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


VALUE = mix(np.array([ord(chr(b).lower()) if b < 128 else b for b in range(256)], np.uint64) + np.uint64(1))


def word_hashes(text):
    """Text → uint64 array, one per word: a run of letters and digits, lower-cased; all else only separates.

    A word's bytes are the coefficients of a polynomial in an odd BASE, modulo 2^64. The running sum of all the text's
    terms, taken between a word's start and end, is that word's; a power of BASE then moves each to the same place.
    """
    out = []
    for start, end in pieces(text, PIECE, " \n"):
        raw = utf8(text[start:end])
        high = () if text[start:end].isascii() else raw[raw > 0xC2]
        if len(high) and (high != 0xE2).any():  # letters beyond ASCII, which may have capitals; 0xE2 is “, –, •, € ...
            raw = utf8(text[start:end].lower())
        inside = LETTER.take(raw)
        if raw.max() > 127:
            for lead, below, size in (0xC2, 0xC0, 2), (0xE2, 0xB0, 3), (0xE3, 0x81, 3):  # U+80-BF, 2000-2BFF, 3000-303F
                at = np.flatnonzero(raw == lead)
                at = at[raw[at + 1] < below]
                for i in range(size):
                    inside[at + i] = False
        edges = np.flatnonzero(inside[1:] != inside[:-1])  # the bytes before each start, and the last ones of each word
        total = np.cumsum(VALUE.take(raw) * POWER[: len(raw)])
        out.append(mix((total[edges[1::2]] - total[edges[::2]]) * POWER[len(POWER) - 1 - edges[::2]]))
    return np.concatenate([np.empty(0, np.uint64), *out])


def pieces(text, size, cuts):
    """(start, end) of parts of at most `size` characters that end after one of the characters `cuts`, if they can."""
    start = 0
    while start < len(text):
        end = min(start + size, len(text))
        if end < len(text):
            end = max(text.rfind(c, start, end) for c in cuts) + 1 or end
        yield start, end
        start = end


def utf8(text):
    """UTF-8 bytes between two spaces, so that every word has an edge on both sides."""
    return np.frombuffer(f" {text} ".encode("utf-8", "replace"), np.uint8)


def ngrams(words, n):
    """Hashes of all windows of n words, in order: (W,) uint64 → (W - n + 1,) uint64, empty where W < n."""
    out = np.empty(max(0, len(words) - n + 1), np.uint64)
    for i in range(0, len(out), PIECE):
        out[i : i + PIECE] = mix(window_sums(words[i : i + PIECE + n - 1], n))
    return out


def window_sums(words, n):
    """words[i] * BASE^(n-1) + ... + words[i+n-1]: two halves of n // 2, and one more word if n is odd."""
    if n == 1:
        return words.copy()
    half = n // 2
    sums = window_sums(words, half)
    sums = sums[:-half] * np.uint64(pow(BASE, half, 1 << 64)) + sums[half:]
    return sums[:-1] * np.uint64(BASE) + words[n - 1 :] if n % 2 else sums


# ---- near-duplicates -------------------------------------------------------------------------------------------------

# not from numpy.random, whose numbers may change from version to version, while signatures are kept on disk
FLIP = mix(np.arange(1000, 1000 + BANDS, dtype=np.uint64)).astype(np.uint32).reshape(BANDS, 1, 1)
FACTOR = mix(np.arange(2000, 2000 + BANDS * ROWS, dtype=np.uint64)).astype(np.uint32).reshape(BANDS, ROWS, 1) | 1


def minhash(words):
    """MinHash signature of a document's 5-grams: (W,) uint64 → (112,) uint32, all ones where there are no words.

    A permutation of the 32-bit numbers is x → (x ^ FLIP) * FACTOR. Fewer than five words count as one gram.
    """
    n = min(SHINGLE, max(1, len(words)))
    least = np.full((BANDS, ROWS), 0xFFFFFFFF, np.uint32)
    for i in range(0, len(words) - n + 1, BLOCK):
        grams = (ngrams(words[i : i + BLOCK + n - 1], n) >> np.uint64(32)).astype(np.uint32)
        np.minimum(least, ((grams ^ FLIP) * FACTOR).min(axis=-1), out=least)  # of (14, 8, BLOCK) numbers
    return least.reshape(-1)


def similarity(a, b):
    """Estimated Jaccard similarity of the 5-grams of two documents, from their signatures (..., 112) → (...)."""
    return np.mean(np.asarray(a) == np.asarray(b), axis=-1)


def bands(signature):
    """One hash per band of eight entries: (..., 8 n) uint32 → (..., n) uint64."""
    rows = np.asarray(signature)
    rows = rows.reshape(*rows.shape[:-1], rows.shape[-1] // ROWS, ROWS)
    total = np.zeros(rows.shape[:-1], np.uint64)
    for i in range(ROWS):
        total = mix(total ^ rows[..., i])
    return total


def near_duplicates(signatures, order, threshold=0.8, rounds=32):
    """Clusters of near-duplicates, of which only the one of lowest `order` is kept.

    signatures: (N, 112) uint32, in memory or memory-mapped; order: (N,) numbers, ties broken by position. Returns
    keep (N,) bool and pairs (M, 2) int64: document dropped, document of its cluster that is kept. Clusters are the
    connected components of "agree on a band, and similarity >= threshold". Of k documents that agree on a band, each is
    compared with the one before and with the first; those unlike the first, with the first of themselves; and so on for
    at most `rounds` rounds: k * rounds comparisons, not k². Memory: some 100 bytes per document besides the signatures.
    """
    by_order = np.argsort(order, kind="stable")  # below, documents are numbered in this order
    root = np.arange(len(by_order))  # of each document's cluster: its best member so far

    def join(a, b):
        """Compare the pairs, unite the clusters of those alike, and return which are."""
        alike = root[a] == root[b]
        for i in np.array_split(np.flatnonzero(~alike), len(a) // 4096 + 1):
            alike[i] = similarity(signatures[by_order[a[i]]], signatures[by_order[b[i]]]) >= threshold
        unite(root, a[alike], b[alike])
        return alike

    for band in range(BANDS):
        keys = bands(np.ascontiguousarray(signatures[:, band * ROWS : (band + 1) * ROWS]))[by_order, 0]
        member = np.argsort(keys, kind="stable")  # equal keys side by side, and of these the best first
        keys = keys[member]
        follows = np.flatnonzero(keys[1:] == keys[:-1]) + 1
        join(member[follows - 1], member[follows])
        for _ in range(rounds):
            again = np.r_[False, keys[1:] == keys[:-1]][: len(keys)]
            if not again.any():
                break
            leader = member[~again][np.cumsum(~again) - 1]
            again[again] = ~join(leader[again], member[again])
            keys, member = keys[again], member[again]  # the leaders leave, and those like them
    keep = np.zeros(len(root), bool)
    keep[by_order] = root == np.arange(len(root))
    pairs = np.stack([by_order, by_order[root]], axis=1)
    return keep, pairs[np.argsort(pairs[:, 0])][~keep]


def unite(root, a, b):
    """Connected components: join the trees of all pairs at once, until every pair has one root (the lowest number)."""
    while True:
        a, b = root[a], root[b]
        a, b = a[a != b], b[a != b]
        if not len(a):
            return
        root[np.maximum(a, b)] = np.minimum(a, b)  # of several for one root the last stays; the others come round again
        while not np.array_equal(root, up := root[root]):
            root[:] = up


# ---- repeated paragraphs ---------------------------------------------------------------------------------------------

BLANK = re.compile(r"\n[^\S\n]*\n\s*")
LONG_LINE = 200  # no hard-wrapped line is that long


def paragraphs(text):
    """(start, end) of the parts between blank lines, or of their lines, where most of a part is in long lines."""
    start = 0
    for end, following in [*(gap.span() for gap in BLANK.finditer(text)), (len(text), len(text))]:
        if text.find("\n", start, end) < 0:
            yield start, end
        else:
            lines = text[start:end].split("\n")
            if 2 * sum(len(line) for line in lines if len(line) >= LONG_LINE) < end - start:
                yield start, end
            else:
                for line in lines:
                    yield start, start + len(line)
                    start += len(line) + 1
        start = following


def paragraph_hashes(text, min_chars=100):
    """Paragraphs of at least min_chars characters → starts (P,) int64, ends (P,) int64, hashes (P,) uint64.

    Equal hashes: equal text, but for case and whitespace. Numbers count: they are what is new in this year's filing.
    """
    spans, digests, doubled = [], [], "  " in text
    for start, end in paragraphs(text):
        if end - start >= min_chars:
            paragraph = text[start:end].strip().lower()
            if doubled or not paragraph.isprintable():  # there may be whitespace other than single spaces
                paragraph = " ".join(paragraph.split())
            if len(paragraph) >= min_chars:
                spans.append((start, end))
                digests.append(blake2b(paragraph.encode("utf-8", "replace"), digest_size=8).digest())
    starts, ends = np.array(spans, np.int64).reshape(-1, 2).T
    return starts, ends, np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def repeats(documents):
    """Paragraph hashes of one company's documents, oldest first → for each a bool array: was it there before?"""
    hashes = np.concatenate([np.empty(0, np.uint64), *documents])
    again = np.ones(len(hashes), bool)
    again[np.unique(hashes, return_index=True)[1]] = False
    return np.split(again, np.cumsum([len(d) for d in documents[:-1]], dtype=np.int64)) if len(documents) else []


# ---- contamination ---------------------------------------------------------------------------------------------------


def under(grams, keep):
    """The grams that fall under a threshold, a share `keep` of all there can be, in the order they came."""
    if not 0 < keep <= 1:
        raise ValueError(f"keep is the share of n-grams to keep, above 0 and at most 1, not {keep}")
    return grams if keep == 1 else grams[grams <= np.uint64(min(int(keep * 2**64), 2**64 - 1))]


def sampled(grams, keep):
    """The distinct grams under the threshold → sorted uint64 array."""
    grams = np.sort(under(grams, keep))
    return grams[np.r_[True, grams[1:] != grams[:-1]][: len(grams)]]


def overlap(val, train):
    """Share of each validation document's grams that some training document has → (V,) float64, 0 for one without.

    val: a list of arrays from `sampled`; train: an iterable of arrays from `under` or `sampled` (same n, same keep),
    each seen once and let go, so that memory holds the validation side only.
    """
    grams = np.unique(np.concatenate([np.empty(0, np.uint64), *val]))
    seen, maybe, low = np.zeros(len(grams), bool), np.zeros(1 << 24, bool), np.uint64((1 << 24) - 1)
    maybe[grams & low] = True  # by 24 bits, most grams of training are known not to be wanted
    for document in train if len(grams) else ():
        document = document[maybe[document & low]]
        at = np.minimum(np.searchsorted(grams, document), len(grams) - 1)
        seen[at[grams[at] == document]] = True
    return np.array([seen[np.searchsorted(grams, document)].mean() if len(document) else 0.0 for document in val])
