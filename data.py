"""
Tokens: the shards on disk, and the batches that training reads from them.

    data = TokenData("data/sec")                     # a directory written by `python prepare.py corpus`
    x, y = data.batch(step, rows=range(0, 8), T=1024, batch_rows=32, seed=0)    # (8, 1024) int64 each

A data directory holds manifest.json, tokenizer.json and, for each split, shards of tokens:

    train-00000.npy         uint16 (uint32 above 65,536 tokens), one flat array, each document followed by end-of-text,
                            and beginning with what the tokenizer begins with, if it does
    train-00000.docs.npy    int64, where each document starts
    train-00000.docs.jsonl  what each document is: id, company, form, ...

A batch is a pure function of (data, seed, step): there is no loader state to save, so a resumed run and a run on eight
ranks read the very same tokens as an uninterrupted one on a single rank.
"""
import hashlib
import json
import os
from itertools import pairwise

import numpy as np

from tokenizer import Tokenizer

FORMAT_VERSION = 1

# ----------------------------------------------------------------------------------------------------------------------
# Shards


class ShardWriter:
    """Append documents to <split>-00000.npy, -00001.npy, ...; a document is never cut by the end of a shard."""

    HEADER = 128  # bytes; the length of an array is known only at its end, so its .npy header is filled in last

    def __init__(self, directory, split, dtype, shard_tokens=100_000_000):
        self.directory, self.split, self.dtype, self.shard_tokens = directory, split, np.dtype(dtype), shard_tokens
        self.shards, self.file = [], None

    def add(self, tokens, about):
        """tokens: the document's ids, end-of-text included; about: the dict of its line in docs.jsonl."""
        if self.file and self.count + len(tokens) > self.shard_tokens:
            self.finish()
        if not self.file:
            self.name = f"{self.split}-{len(self.shards):05d}"
            self.file = open(os.path.join(self.directory, self.name + ".npy"), "wb")
            self.file.write(b" " * self.HEADER)
            self.lines = open(os.path.join(self.directory, self.name + ".docs.jsonl"), "w", encoding="utf-8")
            self.count, self.starts = 0, []
        self.starts.append(self.count)
        self.lines.write(json.dumps(about) + "\n")
        self.file.write(np.ascontiguousarray(tokens, dtype=self.dtype).data)
        self.count += len(tokens)

    def finish(self):
        """Complete the current shard; returns the manifest's entries for all shards so far."""
        if self.file:
            header = f"{{'descr': '{self.dtype.str}', 'fortran_order': False, 'shape': ({self.count},), }}"
            self.file.seek(0)
            self.file.write(b"\x93NUMPY\x01\x00" + (self.HEADER - 10).to_bytes(2, "little"))
            self.file.write(header.ljust(self.HEADER - 11).encode() + b"\n")
            self.file.close()
            self.lines.close()
            path = os.path.join(self.directory, self.name)
            np.save(path + ".docs.npy", np.array(self.starts, dtype=np.int64))
            self.shards.append(dict(name=self.name + ".npy", tokens=self.count, documents=len(self.starts),
                                    bytes=os.path.getsize(path + ".npy"), sha256=file_sha256(path + ".npy"),
                                    docs_sha256=file_sha256(path + ".docs.npy"),
                                    about_sha256=file_sha256(path + ".docs.jsonl")))
            self.file = None
        return self.shards


def file_sha256(path):
    with open(path, "rb") as f:
        digest = hashlib.sha256()
        while block := f.read(1 << 22):
            digest.update(block)
        return digest.hexdigest()


def read_manifest(directory):
    path = os.path.join(directory, "manifest.json")
    if os.path.isfile(directory):
        raise ValueError(f"{directory} is a file; make a data directory of it: python prepare.py corpus (of texts) or "
                         f"sft (of examples) {directory} --out DIR")
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"there is no data directory {directory}; build it with: python prepare.py corpus PATH "
                                f"(of examples: sft, or task) --out {directory}")
    try:
        with open(path, encoding="utf-8") as f:
            manifest = json.load(f)
        if manifest["kind"] == "lm":
            manifest["tokenizer"]["sha256"]
        else:
            manifest["chat_template"], manifest["chat_template_is"], manifest["splits"]["train"]
        for split in manifest["splits"].values():
            for shard in split["shards"] if manifest["kind"] == "lm" else ():
                shard["name"], shard["bytes"], shard["sha256"], shard["docs_sha256"], shard["about_sha256"]
            if manifest["kind"] != "lm":  # examples.py
                split["file"], split["examples"], split["sha256"]
    except FileNotFoundError:
        raise FileNotFoundError(f"{directory} has no manifest.json; "
                                f"build it with: python prepare.py corpus PATH --out {directory}") from None
    except (ValueError, KeyError, TypeError) as e:
        raise ValueError(f"{path} is damaged ({type(e).__name__}: {e}); "
                         "build the directory again with prepare.py") from None
    if manifest["kind"] not in ("lm", "sft", "pairs"):
        raise ValueError(f"{path} is of kind {manifest['kind']!r}, which this code does not know: lm, sft, pairs")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"{path} has format version {manifest.get('format_version')}, "
                         f"this code reads {FORMAT_VERSION}; build the directory again with prepare.py")
    return manifest


class TokenData:
    """
    A data directory of kind lm, opened for reading. Shards are memory-mapped: a billion tokens cost no memory.

    verify: check every shard against the manifest's sha256 (about a second per gigabyte). Raises ValueError that names
    the damaged file and the command that builds it again.
    """

    def __init__(self, directory, verify=True):
        self.directory, self.manifest = directory, read_manifest(directory)
        if self.manifest["kind"] != "lm":
            raise ValueError(f"{directory} holds examples of kind {self.manifest['kind']}, not a corpus of kind lm")
        self.tokenizer = Tokenizer.load(directory)
        if self.tokenizer.sha256() != self.manifest["tokenizer"]["sha256"]:
            raise ValueError(f"{directory}/tokenizer.json is not the one its shards were written with; "
                             "build the directory again")
        self.shards = {split: [self._open(s, verify) for s in entry["shards"]]
                       for split, entry in self.manifest["splits"].items()}
        self._epoch = (None, None)

    def _open(self, shard, verify):
        path = os.path.join(self.directory, shard["name"])
        again = "copy it again, or build the directory again with prepare.py"
        if not os.path.exists(path):
            raise FileNotFoundError(f"{path} is missing; {again}")
        if os.path.getsize(path) != shard["bytes"]:
            raise ValueError(f"{path} has {os.path.getsize(path):,} bytes instead of {shard['bytes']:,}; {again}")
        stem = path.removesuffix(".npy")
        for file, digest in ((path, "sha256"), (stem + ".docs.npy", "docs_sha256"),
                             (stem + ".docs.jsonl", "about_sha256")):
            if verify and file_sha256(file) != shard[digest]:
                raise ValueError(f"{file} does not match its checksum; {again}")
        return np.load(path, mmap_mode="r")

    def tokens(self, split):
        return sum(len(shard) for shard in self.shards.get(split, []))

    def fingerprint(self):
        """A short name for exactly these tokens: what a resumed run compares."""
        shards = [s["sha256"] for entry in self.manifest["splits"].values() for s in entry["shards"]]
        return hashlib.sha256(" ".join(shards).encode()).hexdigest()[:16]

    # training: windows of T + 1 tokens, cut at a new offset and put into a new order every epoch

    def _shard_windows(self, T):
        counts = [(len(shard) - 1) // T for shard in self.shards["train"]]
        return [n - 1 if n > 1 else n for n in counts]  # one window is given up to make room for the offset

    def windows(self, step, rows, T, batch_rows, seed):
        """Where the given rows of the global batch of this step start: a list of (shard, offset)."""
        counts = self._shard_windows(T)
        n = sum(counts)
        if n == 0:
            raise ValueError(f"{self.directory} has {self.tokens('train'):,} training tokens, fewer than one window of "
                             f"{T} + 1; lower --seq_len or add text")
        ends = np.cumsum(counts)
        places = []
        for row in rows:
            epoch, i = divmod(step * batch_rows + row, n)
            if self._epoch[0] != (epoch, T, seed):
                rng = np.random.default_rng([seed, epoch])
                self._epoch = (epoch, T, seed), (int(rng.integers(T)), rng.permutation(n))
            shift, order = self._epoch[1]
            w = int(order[i])
            shard = int(np.searchsorted(ends, w, side="right"))
            first = w - (int(ends[shard - 1]) if shard else 0)
            room = len(self.shards["train"][shard]) - 1 - counts[shard] * T
            places.append((shard, first * T + min(shift, room)))
        return places

    def batch(self, step, rows, T, batch_rows, seed):
        """These rows of the global batch of batch_rows rows: inputs and next tokens, int64 (len(rows), T) each."""
        places = self.windows(step, rows, T, batch_rows, seed)
        window = np.stack([self.shards["train"][s][o : o + T + 1] for s, o in places]).astype(np.int64)
        return self.tokenizer.begun(window[:, :-1]), window[:, 1:]

    def documents(self, split, places, T):
        """The ids of the documents that windows of T tokens at these (shard, offset) places touch."""
        names = []
        for s, offset in places:
            stem = os.path.join(self.directory,
                                self.manifest["splits"][split]["shards"][s]["name"].removesuffix(".npy"))
            starts = np.load(stem + ".docs.npy")
            first, last = np.searchsorted(starts, [offset, offset + T], side="right")
            with open(stem + ".docs.jsonl", encoding="utf-8") as f:
                names += [json.loads(line)["id"] for i, line in enumerate(f) if first - 1 <= i < last]
        return list(dict.fromkeys(names))

    # validation: each token once, in order

    def validation(self, T, max_tokens=None):
        """
        Windows that cover the validation split, at most max_tokens of it, evenly spread: inputs (N, T) and targets
        (N, T) int64, where -100 marks what is beyond the end of a shard.
        """
        places = [(s, o) for s, shard in enumerate(self.shards.get("val", [])) for o in range(0, len(shard) - 1, T)]
        if max_tokens and len(places) * T > max_tokens:
            keep = max(1, max_tokens // T)
            places = [places[i * len(places) // keep] for i in range(keep)]
        x = np.zeros((len(places), T), dtype=np.int64)
        y = np.full((len(places), T), -100, dtype=np.int64)
        for i, (s, o) in enumerate(places):
            window = self.shards["val"][s][o : o + T + 1]
            x[i, : len(window) - 1], y[i, : len(window) - 1] = window[:-1], window[1:]
        return self.tokenizer.begun(x), y

    def read_documents(self, split):
        """Each document of a split: (its line of docs.jsonl as a dict, its token ids, but for beginning and end)."""
        for entry, shard in zip(self.manifest["splits"][split]["shards"], self.shards[split], strict=True):
            stem = os.path.join(self.directory, entry["name"].removesuffix(".npy"))
            starts = [*np.load(stem + ".docs.npy"), len(shard)]
            with open(stem + ".docs.jsonl", encoding="utf-8") as f:
                for line, (a, b) in zip(f, pairwise(starts), strict=True):
                    begun = self.tokenizer.has_start and shard[a] == self.tokenizer.start
                    yield json.loads(line), np.asarray(shard[a + begun : b - 1])
