"""
GPT-2's byte-level BPE over whole arrays: what tiktoken gives, several times faster.

    encoder = Encoder(encoding, "gpt2", np.uint16)   # a tiktoken.Encoding that cuts numbers as NUMBERS["gpt2"] says
    encoder.encode(text)                             # the ids of encoding.encode_ordinary(text), exactly

BPE works on pieces, " revenue" or "2023", that a regular expression cuts out of the text, and never looks beyond
a piece. A corpus has millions of pieces and few different ones, so the work is to find where they begin and to look
them up; merging is for those never met before, and tiktoken does it.

Where a piece begins is decided by the classes of neighbouring characters (letter, number, white space, other), so numpy
finds all beginnings at once, from an array with the class of every byte. A piece of up to 15 bytes then is two uint64,
its bytes and its length: the key of a hash table that is looked up for all pieces at once, and holds their ids. Longer
pieces, one in fifty, go through a dict.

Characters that this Python's Unicode tables do not know might be letters in tiktoken's: a text with such goes to
tiktoken whole.
"""
import functools
import unicodedata

import numpy as np

SPACE, LETTER, NUMBER, OTHER, UNKNOWN = range(5)
WHITE = [*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000]
SLOT_BITS = 20
MASKS = np.array([(1 << 8 * k) - 1 for k in range(9)], dtype=np.uint64)  # of the first k bytes of a word
SHORT = 2000  # characters below which tiktoken is as fast


class Encoder:
    """The pieces met so far, and their ids. One per process: 22 MB, and the ids of long pieces."""

    def __init__(self, encoding, numbers, dtype):
        self.encoding, self.numbers, self.dtype = encoding, numbers, dtype
        self.forget()

    def forget(self):
        slots = 1 << SLOT_BITS
        self.low, self.high = np.zeros(slots, np.uint64), np.zeros(slots, np.uint64)  # keys; a key is never 0, 0
        self.first, self.count = np.zeros(slots, np.uint32), np.zeros(slots, np.uint8)  # their ids: where, how many
        self.ids, self.used, self.filled, self.long = np.zeros(1 << 20, self.dtype), 0, 0, {}

    def encode(self, text):
        """text -> token ids, of the dtype given. Special tokens in the text are text."""
        starts = None
        if len(text) > SHORT:
            try:
                raw = text.encode()
                starts = piece_starts(np.frombuffer(raw, np.uint8), self.numbers)
            except UnicodeEncodeError:  # a lone surrogate
                pass
        if starts is None:
            return self.encoding.encode_to_numpy(text, disallowed_special=()).astype(self.dtype)
        if self.filled > self.low.size // 2 or self.used > 1 << 24:
            self.forget()
        return self.look_up(raw, starts[:-1], np.diff(starts))

    def look_up(self, raw, start, length):
        """The ids of the pieces raw[start : start + length], all in one array."""
        words = np.ndarray(len(raw) + 9, "<u8", raw + bytes(16), strides=1)  # the eight bytes from every place on
        low = words[start] & MASKS[np.minimum(length, 8)]
        high = words[start + 8] & MASKS[np.clip(length - 8, 0, 7)] | length.astype(np.uint64) << np.uint64(56)
        mixed = low * np.uint64(0x9E3779B97F4A7C15) ^ high * np.uint64(0xC2B2AE3D27D4EB4F)
        mixed = (mixed ^ mixed >> np.uint64(29)) * np.uint64(0xBF58476D1CE4E5B9)
        slot = (mixed >> np.uint64(64 - SLOT_BITS)).astype(np.int64)
        is_long = length > 15
        todo = np.flatnonzero(((self.low[slot] != low) | (self.high[slot] != high)) & ~is_long)
        for _ in range(64):  # pieces whose slot is empty, which they take, or another's, after which they try the next
            if not len(todo):
                break
            new = todo[self.high[slot[todo]] == 0]
            taken, which = np.unique(slot[new], return_index=True)
            for s, i in zip(taken.tolist(), new[which].tolist(), strict=True):
                self.first[s], self.count[s] = self.merge(raw[start[i] : start[i] + length[i]])
                self.low[s], self.high[s] = low[i], high[i]
            self.filled += len(taken)
            todo = todo[(self.low[slot[todo]] != low[todo]) | (self.high[slot[todo]] != high[todo])]
            slot[todo] = (slot[todo] + 1) % self.low.size
        first, count = self.first[slot].astype(np.int64), self.count[slot].astype(np.int64)
        for i in np.union1d(np.flatnonzero(is_long), todo).tolist():
            piece = raw[start[i] : start[i] + length[i]]
            if piece not in self.long:
                self.long[piece] = self.merge(piece)
            first[i], count[i] = self.long[piece]
        ends = np.cumsum(count)
        if len(ends) == ends[-1]:
            return self.ids[first]
        return self.ids[np.repeat(first - (ends - count), count) + np.arange(ends[-1])]

    def merge(self, piece):
        """Have tiktoken encode a piece, keep its ids: (where, how many)."""
        ids = self.encoding.encode_ordinary(piece.decode())
        if self.used + len(ids) > len(self.ids):
            self.ids = np.concatenate([self.ids, np.zeros(max(len(self.ids), len(ids)), self.dtype)])
        self.ids[self.used : self.used + len(ids)] = ids
        self.used += len(ids)
        return self.used - len(ids), len(ids)


def piece_starts(raw, numbers):
    """
    Where each piece begins, and the end, int64; None where a character's class is unknown. raw: uint8, valid UTF-8.
    """
    kind = byte_classes(raw)
    if kind is None:
        return None
    n, inside = len(raw), raw & 0xC0 == 0x80  # inside: not the first byte of its character
    start = np.ones(n + 1, bool)
    np.not_equal(kind[1:], kind[:-1], out=start[1:n])
    if numbers == "digits":
        start[:n] |= (kind == NUMBER) & ~inside
    elif numbers == "threes":
        digits = np.flatnonzero((kind == NUMBER) & ~inside)
        run_start = np.maximum.accumulate(np.where(start[digits], np.arange(len(digits)), 0))
        start[digits[(np.arange(len(digits)) - run_start) % 3 == 0]] = True
    # white space leaves its last character to what follows: a blank joins it, anything else is a piece of its own
    after = np.flatnonzero(start[1:n] & (kind[:-1] == SPACE)) + 1
    last = after - 1
    while inside[last].any():
        last = last - inside[last]
    start[last] = True
    joins = raw[last] == ord(" ")
    start[after[joins if numbers == "gpt2" else joins & (kind[after] != NUMBER)]] = False
    # 's 't 'm 'd 'll 've 're, where the apostrophe begins a piece
    quote = np.flatnonzero((raw[:-1] == ord("'")) & start[: n - 1] & (kind[1:] == LETTER))
    one, two = raw[quote + 1], np.append(raw, 0)[quote + 2]
    single = quote[(one == ord("s")) | (one == ord("t")) | (one == ord("m")) | (one == ord("d"))]
    double = quote[(one == ord("l")) & (two == ord("l")) | (one == ord("v")) & (two == ord("e"))
                   | (one == ord("r")) & (two == ord("e"))]
    start[single + 1] = start[double + 1] = False
    start[single + 2] = start[double + 3] = True
    return np.flatnonzero(start)


def byte_classes(raw):
    """The class of the character that each byte belongs to, uint8; None where one is unknown."""
    table = classes()
    kind = table[raw]
    lead = np.flatnonzero(raw >= 0xC0)
    if len(lead):
        first = raw[lead].astype(np.uint32)
        more = [np.append(raw, [0, 0, 0])[lead + k].astype(np.uint32) & 0x3F for k in (1, 2, 3)]
        point = (first & 0x1F) << 6 | more[0]
        three, four = first >= 0xE0, first >= 0xF0
        point[three] = ((first & 0x0F) << 12 | more[0] << 6 | more[1])[three]
        point[four] = ((first & 0x07) << 18 | more[0] << 12 | more[1] << 6 | more[2])[four]
        found = table[point]
        if (found == UNKNOWN).any():
            return None
        kind[lead] = kind[lead + 1] = found
        kind[lead[three] + 2] = found[three]
        kind[lead[four] + 3] = found[four]
    return kind


@functools.cache
def classes():
    """The class of each code point, uint8 (0x110000,)."""
    kinds = {"L": LETTER, "N": NUMBER}
    table = np.full(0x110000, UNKNOWN, np.uint8)
    for c in range(0x30000):  # beyond are a few thousand rare ideographs, tags and private use
        category = unicodedata.category(chr(c))
        table[c] = UNKNOWN if category in ("Cn", "Cs") else kinds.get(category[0], OTHER)
    table[WHITE] = SPACE
    return table
