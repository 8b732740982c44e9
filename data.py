"""
Tokens: the tokenizer, the shards on disk, and the batches that training reads from them.

    tokenizer = Tokenizer.gpt2()                     # or Tokenizer.train(texts, 8192), Tokenizer.load(directory)
    tokenizer.encode("Revenue rose.")                # [4, 219, ...]
    data = TokenData("data/sec")                     # a directory written by `python prepare.py corpus`
    x, y = data.batch(step, rows=range(0, 8), T=1024, batch_rows=32, seed=0)    # (8, 1024) int64 each

A data directory holds manifest.json, tokenizer.json and, for each split, shards of tokens:

    train-00000.npy         uint16 (uint32 above 65,536 tokens), one flat array, each document followed by end-of-text
    train-00000.docs.npy    int64, where each document starts
    train-00000.docs.jsonl  what each document is: id, company, form, ...

A batch is a pure function of (data, seed, step): there is no loader state to save, so a resumed run and a run on eight
ranks read the very same tokens as an uninterrupted one on a single rank.
"""
import hashlib
import json
import os
import re
from itertools import pairwise

import numpy as np

FORMAT_VERSION = 1
END_OF_TEXT = "<|endoftext|>"
GPT2_SPLIT = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""

# ----------------------------------------------------------------------------------------------------------------------
# The tokenizer


def byte_alphabet():
    """
    GPT-2's printable stand-in for each byte: tokenizer.json is JSON, so it can't hold arbitrary bytes. {char: byte}
    """
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


BYTE_OF = byte_alphabet()
CHAR_OF = {b: c for c, b in BYTE_OF.items()}


class Tokenizer:
    """
    A tokenizer.json and the fastest engine that gives exactly its tokens.

    The file is the truth: Hugging Face's libraries read it, and it travels with every data directory and checkpoint.
    For encoding we prefer tiktoken (three to six times faster than `tokenizers`), which takes the same byte-level BPE
    in another form. The two agree on every text if `as_tiktoken` can build one; otherwise `tokenizers` itself encodes.

    Text that contains the characters "<|endoftext|>" is encoded as those characters: documents can't forge a boundary.
    """

    def __init__(self, spec, name):
        self.spec, self.name = spec, name
        added = {t["content"]: t["id"] for t in spec.get("added_tokens", [])}
        ids = [*vocabulary(spec).values(), *added.values()]
        if END_OF_TEXT in added:
            self.end_of_text = added[END_OF_TEXT]
        else:
            ends = [t for t in ("</s>", "<eos>", "<|end_of_text|>", "<|im_end|>") if t in added]
            if not ends:
                raise ValueError(f"the tokenizer {name} has no end-of-text token; "
                                 f"add {END_OF_TEXT} to its tokenizer.json")
            self.end_of_text = added[ends[0]]
        self.vocab_size = max(ids) + 1
        self.dtype = np.uint16 if self.vocab_size <= 2**16 else np.uint32
        self.fast = as_tiktoken(spec)
        self._slow = None
        if not self.fast:
            self.slow  # noqa: B018 - built now, so that a damaged file is found when it is opened

    @classmethod
    def gpt2(cls):
        """
        GPT-2's vocabulary through tiktoken, from its cache (TIKTOKEN_CACHE_DIR) or the network; says so if it can't.
        """
        import tiktoken

        try:
            ranks = tiktoken.get_encoding("gpt2")._mergeable_ranks
        except Exception as e:  # requests' many classes; a damaged cache is a ValueError
            raise ValueError(f"GPT-2's vocabulary is neither in tiktoken's cache nor to be had from the network "
                             f"({type(e).__name__}); set TIKTOKEN_CACHE_DIR, "
                             "or train one here with --tokenizer bpe:8192") from None
        tokens = sorted(ranks, key=ranks.get)
        merges = [bpe_split(token, ranks) for token in tokens if len(token) > 1]
        vocab = {to_chars(token): i for i, token in enumerate(tokens)}
        return cls(bpe_spec(vocab, [[to_chars(a), to_chars(b)] for a, b in merges]), "gpt2")

    @classmethod
    def train(cls, texts, vocab_size):
        """
        A byte-level BPE of up to vocab_size tokens (256 bytes, the merges, end-of-text) from an iterable of strings.
        """
        import tokenizers

        if vocab_size < 257:
            raise ValueError(f"bpe:{vocab_size} is too small: 256 bytes and the end-of-text token need 257")
        trained = tokenizers.Tokenizer(tokenizers.models.BPE())
        trained.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = tokenizers.trainers.BpeTrainer(vocab_size=vocab_size - 1, initial_alphabet=sorted(BYTE_OF),
                                                 show_progress=False)
        trained.train_from_iterator(texts, trainer)
        model = json.loads(trained.to_str())["model"]
        return cls(bpe_spec(model["vocab"], model["merges"]), f"bpe:{vocab_size}")

    @classmethod
    def load(cls, directory):
        """The tokenizer.json in a data directory or checkpoint."""
        path = os.path.join(directory, "tokenizer.json")
        try:
            with open(path, encoding="utf-8") as f:
                return cls(json.load(f), directory)
        except FileNotFoundError:
            raise FileNotFoundError(f"{directory} has no tokenizer.json") from None
        except Exception as e:  # tokenizers has no error class of its own
            if "end-of-text" in str(e):
                raise
            raise ValueError(f"{path} is damaged ({type(e).__name__}: {e}); copy it again") from None

    def to_json(self):
        return json.dumps(self.spec, ensure_ascii=False, separators=(",", ":"))

    def sha256(self):
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def save(self, directory):
        """
        Write tokenizer.json and tokenizer_config.json, from which transformers.AutoTokenizer builds the same tokens.
        """
        with open(os.path.join(directory, "tokenizer.json"), "w", encoding="utf-8") as f:
            f.write(self.to_json())
        end = next(t["content"] for t in self.spec["added_tokens"] if t["id"] == self.end_of_text)
        config = dict(tokenizer_class="PreTrainedTokenizerFast", bos_token=end, eos_token=end, unk_token=end,
                      add_prefix_space=False, clean_up_tokenization_spaces=False, model_max_length=int(1e30))
        with open(os.path.join(directory, "tokenizer_config.json"), "w") as f:
            json.dump(config, f, indent=2)

    def same_as(self, other):
        """Do both give the same ids? The text of two tokenizer.json may differ (another version, hub or tiktoken)."""
        return all(a == b for a, b in zip(meaning(self.spec), meaning(other.spec), strict=True))

    @property
    def slow(self):
        if self._slow is None:
            import tokenizers

            self._slow = tokenizers.Tokenizer.from_str(self.to_json())
            self._slow.no_truncation()  # some tokenizer.json cut at 512 tokens, or pad
            self._slow.no_padding()
            self._slow.encode_special_tokens = True  # "<|endoftext|>" in a text is text
        return self._slow

    def encode(self, text):
        """text -> token ids (numpy, dtype uint16 or uint32), without an end-of-text token."""
        if self.fast:
            try:
                return self.fast.encode_to_numpy(text, disallowed_special=()).astype(self.dtype)
            except BaseException as e:  # the regex engine gives up on a megabyte of one character, by a Rust panic
                if type(e).__name__ not in ("PanicException", "ValueError"):
                    raise
        return np.array(self.slow.encode(text, add_special_tokens=False).ids, dtype=self.dtype)

    def decode(self, ids):
        """token ids -> text; bytes that are no UTF-8 become U+FFFD."""
        ids = [int(i) for i in ids]
        if self.fast:
            return self.fast.decode([i for i in ids if i < self.vocab_size])
        return self.slow.decode(ids, skip_special_tokens=False)

    def token_bytes(self):
        """
        How many bytes of text each token stands for, int64 (vocab_size,);
        zero for end-of-text and other special tokens.
        """
        sizes = np.zeros(self.vocab_size, dtype=np.int64)
        vocab = vocabulary(self.spec)
        byte_level = '"ByteLevel"' in json.dumps(self.spec.get("pre_tokenizer"))  # a character stands for a byte
        for token, i in vocab.items():
            one_byte = re.fullmatch("<0x[0-9A-F]{2}>", token)
            sizes[i] = len(token) if byte_level else 1 if one_byte else len(token.replace("▁", " ").encode())
        for t in self.spec.get("added_tokens", []):
            sizes[t["id"]] = 0 if t.get("special", True) else len(t["content"].encode())
        return sizes


def vocabulary(spec):
    vocab = spec["model"]["vocab"]
    # unigram models: a list
    return vocab if isinstance(vocab, dict) else {piece: i for i, (piece, _) in enumerate(vocab)}


def meaning(spec):
    """What decides the ids: every token's, the merges in order, and how text is cut up before."""
    added = {t["content"]: t["id"] for t in spec.get("added_tokens", [])}
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in spec["model"].get("merges", [])]
    split = spec.get("pre_tokenizer") or {}
    return vocabulary(spec) | added, merges, {k: v for k, v in split.items() if k not in ("trim_offsets", "use_regex")}


def to_chars(token):
    return "".join(CHAR_OF[b] for b in token)


def bpe_split(token, ranks):
    """The two parts whose merge made this token: what BPE leaves of it when only earlier merges are allowed."""
    parts = [bytes([b]) for b in token]
    limit = ranks[token]
    while len(parts) > 2:
        pairs = [(ranks.get(a + b, limit), i) for i, (a, b) in enumerate(pairwise(parts))]
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def bpe_spec(vocab, merges):
    """A tokenizer.json for GPT-2-style byte-level BPE, with end-of-text as its last token."""
    end = dict(id=len(vocab), content=END_OF_TEXT, single_word=False, lstrip=False, rstrip=False,
               normalized=False, special=True)
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
    return dict(version="1.0", truncation=None, padding=None, added_tokens=[end], normalizer=None,
                pre_tokenizer=byte_level, post_processor=None, decoder=byte_level, model=dict(
                    type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None,
                    fuse_unk=False, byte_fallback=False, ignore_merges=False,
                    vocab=dict(sorted(vocab.items(), key=lambda kv: kv[1])), merges=merges))


def as_tiktoken(spec):
    """
    The same tokenizer as a tiktoken.Encoding, or None where it can't be shown to be the same.

    tokenizer.json lists merges (pairs, in order); tiktoken knows only tokens by rank and merges any two neighbours
    whose concatenation is a token. They agree if (1) each merge makes a new token, with ids rising in merge order, and
    (2) every token, taken as a text, merges back into itself. For suppose tiktoken joins x and y into the token xy.
    Nothing was merged across the ends of xy so far, so the merges inside it went as they do for xy alone, and by (2)
    those end with one pair making xy: that pair is (x, y), so it is in the list, and by (1) it comes up at the same
    moment.
    """
    import tiktoken
    import tokenizers

    model, pre = spec["model"], spec.get("pre_tokenizer") or {}
    plain = (model.get("type") == "BPE" and not spec.get("normalizer") and not model.get("dropout")
             and not model.get("byte_fallback") and not model.get("continuing_subword_prefix")
             and not model.get("end_of_word_suffix") and not model.get("ignore_merges")
             and all(t.get("special") for t in spec.get("added_tokens", [])))
    gpt2_split = pre.get("type") == "ByteLevel" and not pre.get("add_prefix_space") and pre.get("use_regex", True)
    if not plain or not gpt2_split:
        return None
    vocab = {t: i for t, i in model["vocab"].items() if t not in {a["content"] for a in spec.get("added_tokens", [])}}
    if not all(c in BYTE_OF for token in vocab for c in token) or not all(c in vocab for c in BYTE_OF):
        return None
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    made = [vocab.get(a + b, -1) for a, b in merges]
    if any(a >= b for a, b in pairwise([-1, *made])) or len(made) + 256 != len(vocab):
        return None
    alone = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=merges))
    if any(len(e.ids) != 1 for e in alone.encode_batch_fast(list(vocab))):
        return None
    ranks = {bytes(BYTE_OF[c] for c in token): i for token, i in vocab.items()}
    special = {t["content"]: t["id"] for t in spec.get("added_tokens", [])}
    return tiktoken.Encoding("tokenizer.json", pat_str=GPT2_SPLIT, mergeable_ranks=ranks, special_tokens=special)


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
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"there is no data directory {directory}; "
                                f"build it with: python prepare.py corpus PATH --out {directory}")
    try:
        with open(path, encoding="utf-8") as f:
            manifest = json.load(f)
        manifest["kind"], manifest["tokenizer"]["sha256"]
        for split in manifest["splits"].values():
            for shard in split["shards"]:
                shard["name"], shard["bytes"], shard["sha256"], shard["docs_sha256"], shard["about_sha256"]
    except FileNotFoundError:
        raise FileNotFoundError(f"{directory} has no manifest.json; "
                                f"build it with: python prepare.py corpus PATH --out {directory}") from None
    except (ValueError, KeyError, TypeError) as e:
        raise ValueError(f"{path} is damaged ({type(e).__name__}: {e}); "
                         "build the directory again with prepare.py") from None
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
            raise ValueError(f"{directory} holds {self.manifest['kind']} examples, not a corpus of kind lm")
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

    def windows_per_epoch(self, T):
        return int(sum(self._shard_windows(T)))

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
        return window[:, :-1], window[:, 1:]

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
        return x, y

    def read_documents(self, split):
        """Each document of a split: (its line of docs.jsonl as a dict, its token ids without end-of-text)."""
        for entry, shard in zip(self.manifest["splits"][split]["shards"], self.shards[split], strict=True):
            stem = os.path.join(self.directory, entry["name"].removesuffix(".npy"))
            starts = [*np.load(stem + ".docs.npy"), len(shard)]
            with open(stem + ".docs.jsonl", encoding="utf-8") as f:
                for line, (a, b) in zip(f, pairwise(starts), strict=True):
                    yield json.loads(line), np.asarray(shard[a : b - 1])
