"""
Text <-> token ids: a tokenizer.json, and the fastest engine that gives exactly its ids.

    tokenizer = Tokenizer.gpt2()                     # or Tokenizer.train(texts, 8192), Tokenizer.load(directory)
    tokenizer.encode("Revenue rose.")                # array([43425, 8278, 13], dtype=uint16)
    tokenizer_report(tokenizer, texts)               # bytes per token on prose, tables and numbers, beside GPT-2's

Byte-level BPE (Sennrich et al. 2016; GPT-2, 2019): text is cut into pieces by a regular expression, and within a piece
the pair of neighbours that was most frequent in training is merged, again and again.
"""
import functools
import hashlib
import json
import os
import re
import tempfile
from collections import Counter
from itertools import pairwise

import numpy as np

import encode

END_OF_TEXT = "<|endoftext|>"  # separates documents: each begins after one and ends with one; other families have two
BEGINNINGS = ("<bos>", "<s>", "<|begin_of_text|>")
ENDS = ("<eos>", "</s>", "<|end_of_text|>", "<|im_end|>")

# How numbers are cut before bytes are merged; a token never reaches across a cut. "digits" is Llama 2's way (Touvron
# et al. 2023), "threes" GPT-4's and Llama 3's: at most three digits, counted from the left. Where thousands have
# commas, as in filings, those are the groups that a person reads; a year falls into 202 and 3.
#
# Both leave the space before a number as a piece of its own. It costs a token wherever only a space stands before a
# number, but the number is then spelled alike after a space, "$" and "(", which a table needs: only its first row has
# the "$". (A space that joined the "|" before it would be cheaper, but then a prompt that ends with "|" would say that
# no number follows.)
NUMBERS = {"gpt2": r" ?\p{N}+", "digits": r"\p{N}", "threes": r"\p{N}{1,3}"}


def split_regex(numbers):
    """
    The regex whose matches are the pieces that BPE works on; every engine reads it alike.

    Letters, numbers and other characters with the space before them, then white space, which leaves its last character
    to what follows. The parentheses change nothing but speed: what is in them needs no look-ahead, so that tiktoken's
    engine runs it as an automaton, and the whole is encoded 1.6 times faster than with tiktoken's own spelling.
    """
    words = rf"'(?:[sdmt]|ll|ve|re)| ?\p{{L}}+|{NUMBERS[numbers]}| ?[^\s\p{{L}}\p{{N}}]+"
    return rf"(?:{words})|\s+(?!\S)|\s+"


def pre_tokenizer(numbers):
    """How tokenizer.json says it. GPT-2's cut is built into ByteLevel; the others are spelled out, as Llama 3's is."""
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=numbers == "gpt2")
    if numbers == "gpt2":
        return byte_level
    split = dict(type="Split", pattern=dict(Regex=split_regex(numbers)), behavior="Isolated", invert=False)
    return dict(type="Sequence", pretokenizers=[split, byte_level])


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
    For encoding we prefer tiktoken (some fifteen times faster than `tokenizers`), which takes the same byte-level BPE
    in another form. The two agree on every text if `as_tiktoken` can build one; otherwise `tokenizers` itself encodes.

    Text that contains the characters "<|endoftext|>" is encoded as those characters: documents can't forge a boundary.
    """

    def __init__(self, spec, name):
        self.spec, self.name, self.chat_template = spec, name, None
        added = {t["content"]: t["id"] for t in spec.get("added_tokens", [])}
        self.special = {t["content"]: t["id"] for t in spec.get("added_tokens", []) if t.get("special", True)}
        ids = [*vocabulary(spec).values(), *added.values()]
        ends = [t for known in (self.special, added) for t in (END_OF_TEXT, *ENDS) if t in known]
        if not ends:
            raise ValueError(f"the tokenizer {name} has no end-of-text token; add {END_OF_TEXT} to its tokenizer.json")
        known = self.special if ends[0] in self.special else added  # whose maker forgot to say that it is special
        starts = [t for t in BEGINNINGS if t in known and ends[0] != END_OF_TEXT]
        self.has_start = bool(starts)  # a model expects it before anything else, and may know little to say without it
        self.special |= {t: added[t] for t in ends[:1] + starts[:1]}
        self.end_of_text, self.start = added[ends[0]], added[(starts or ends)[0]]
        self.vocab_size = max(ids) + 1
        self.limit = None  # how many of these the model that it came with knows; see checkpoint.load
        self.dtype = np.uint16 if self.vocab_size <= 2**16 else np.uint32
        self.fast = as_tiktoken(spec)
        self.encoder = encode.Encoder(self.fast, self.fast.name, self.dtype) if self.fast else None
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
    def train(cls, texts, vocab_size, numbers="gpt2"):
        """
        A byte-level BPE of up to vocab_size tokens (256 bytes, the merges, end-of-text) from an iterable of strings.

        numbers: how they are cut, "gpt2" (not at all: any part of a number can be a token), "digits" or "threes"; see
        NUMBERS. Memory grows with the number of different words, not with the text.
        """
        import tokenizers

        if numbers not in NUMBERS:
            raise ValueError(f"numbers={numbers!r} is no way to cut numbers; choose one of {', '.join(NUMBERS)}")
        if vocab_size < 257:
            raise ValueError(f"bpe:{vocab_size} is too small: 256 bytes and the end-of-text token need 257")
        trained = tokenizers.Tokenizer(tokenizers.models.BPE())
        split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(split_regex(numbers)), "isolated")
        byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        trained.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, byte_level])
        trainer = tokenizers.trainers.BpeTrainer(vocab_size=vocab_size - 1, initial_alphabet=sorted(BYTE_OF),
                                                 show_progress=False)
        trained.train_from_iterator((part for text in texts for part in text_parts(text)), trainer)
        model = json.loads(trained.to_str())["model"]
        return cls(bpe_spec(model["vocab"], model["merges"], numbers), f"bpe:{vocab_size}")

    @classmethod
    def load(cls, directory):
        """The tokenizer.json in a data directory or checkpoint, and its chat template if it has one."""
        path = os.path.join(directory, "tokenizer.json")
        try:
            with open(path, encoding="utf-8") as f:
                tokenizer = cls(json.load(f), directory)
            tokenizer.chat_template = read_chat_template(directory)
            return tokenizer
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
        start, end = self.name_of(self.start), self.name_of(self.end_of_text)
        config = dict(tokenizer_class="PreTrainedTokenizerFast", bos_token=start, eos_token=end, unk_token=end,
                      add_prefix_space=False, clean_up_tokenization_spaces=False, model_max_length=int(1e30))
        config |= {f"{k}_token": f"<{k}>" for k in ("unk", "pad") if f"<{k}>" in self.special}
        if self.chat_template:
            config["chat_template"] = self.chat_template
        with open(os.path.join(directory, "tokenizer_config.json"), "w") as f:
            json.dump(config, f, indent=2)

    def begun(self, x):
        """
        Windows out of a text, x (B, T), in place with the beginning-of-text that models of other families than GPT-2's
        expect before anything else, instead of each one's first token.
        """
        if self.has_start:
            x[:, 0] = self.start
        return x

    def name_of(self, token):
        """How a special token is written."""
        return next(t["content"] for t in self.spec["added_tokens"] if t["id"] == token)

    def reach(self):
        """
        How large a model's vocabulary must be: for all that a text can become. Gemma 3 1B has a token for images in
        its tokenizer.json, and no row for it in its embedding.
        """
        ids = [t["id"] for t in self.spec["added_tokens"] if not t.get("special", True)]
        return 1 + max(*vocabulary(self.spec).values(), self.start, self.end_of_text, *ids)

    @functools.cached_property
    def special_pattern(self):
        """A regex that finds special tokens in a text, the longest at each place."""
        return re.compile("|".join(map(re.escape, sorted(self.special, key=len, reverse=True))))

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
                return self.encoder.encode(text)
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
            text = t["content"] if byte_level else t["content"].replace("▁", " ")
            sizes[t["id"]] = 0 if t["content"] in self.special else len(text.encode())
        return sizes


def vocabulary(spec):
    vocab = spec["model"]["vocab"]
    # unigram models: a list
    return vocab if isinstance(vocab, dict) else {piece: i for i, (piece, _) in enumerate(vocab)}


def text_parts(text, size=1 << 14):
    """
    A text in parts of about size characters: `tokenizers` needs eighty bytes for each character it has at hand.

    They are cut between a word and the space or newline after it. No piece reaches across (split_regex begins a new one
    at white space), nor does a match depend on what comes after that, so the pieces are those of the whole text. Only
    what goes on for size characters without such a place is cut anywhere: the trainer's time is quadratic in the length
    of a word, minutes for a megabyte of "=".
    """
    start = 0
    while start < len(text):
        cut = WORD_END.search(text, start + size, start + 2 * size)
        end = cut.end() if cut else start + 2 * size
        yield text[start:end]
        start = end


WORD_END = re.compile(r"\S(?=[ \n])")


def meaning(spec):
    """What decides the ids: every token's, the merges in order, and how text is changed and cut up before."""
    added = {t["content"]: t["id"] for t in spec.get("added_tokens", [])}
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in spec["model"].get("merges", [])]
    return vocabulary(spec) | added, merges, spec.get("normalizer"), cutting(spec.get("pre_tokenizer"))


def cutting(pre):
    """A pre_tokenizer with its defaults written out, and without what only moves offsets."""
    if not pre:
        return None
    if pre["type"] == "Sequence":
        return [cutting(part) for part in pre["pretokenizers"]]
    defaults = dict(use_regex=True) if pre["type"] == "ByteLevel" else {}
    return defaults | {k: v for k, v in pre.items() if k != "trim_offsets"}


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


def bpe_spec(vocab, merges, numbers="gpt2"):
    """A tokenizer.json for GPT-2-style byte-level BPE, with end-of-text as its last token."""
    end = dict(id=len(vocab), content=END_OF_TEXT, single_word=False, lstrip=False, rstrip=False,
               normalized=False, special=True)
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
    return dict(version="1.0", truncation=None, padding=None, added_tokens=[end], normalizer=None,
                pre_tokenizer=pre_tokenizer(numbers), post_processor=None, decoder=byte_level, model=dict(
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
    moment. And both cut the text alike before: only pre-tokenizers that are exactly ours (NUMBERS) are taken.
    """
    import tiktoken
    import tokenizers

    model = spec["model"]
    plain = (model.get("type") == "BPE" and not spec.get("normalizer") and not model.get("dropout")
             and not model.get("byte_fallback") and not model.get("continuing_subword_prefix")
             and not model.get("end_of_word_suffix") and not model.get("ignore_merges")
             and all(t.get("special") for t in spec.get("added_tokens", [])))
    cut = cutting(spec.get("pre_tokenizer"))
    numbers = next((n for n in NUMBERS if cut == cutting(pre_tokenizer(n))), None)
    if not plain or not numbers:
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
    return tiktoken.Encoding(numbers, pat_str=split_regex(numbers), mergeable_ranks=ranks, special_tokens=special)


def read_chat_template(directory):
    """The Jinja template by which Hugging Face's libraries write conversations for this model, or None."""
    path = os.path.join(directory, "chat_template.jinja")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            return f.read()
    path = os.path.join(directory, "tokenizer_config.json")
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as f:
        template = json.load(f).get("chat_template")
    if isinstance(template, list):  # several, by name
        template = {t["name"]: t["template"] for t in template}.get("default")
    if not isinstance(template, str | None):
        raise ValueError(f"{path} has a chat_template that is no text; copy it again, or leave it out")
    return template


# ---- how well a tokenizer fits ---------------------------------------------------------------------------------------

NUMBER = re.compile(r"(?<!\w)\(?[$€£¥]?\(?[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?%?\)?%?(?!\w)")  # $1,234.5  12.3%  (4,567)


def bytes_per_token(tokenizer, texts):
    """
    How many bytes a token stands for on average, by kind of text: {"narrative", "tables", "numbers", "all": float}.

    texts: documents, a few megabytes. "tables" are lines with " | " between cells, as edgar.py writes them, "narrative"
    the other lines; each document's are encoded together. "numbers" are the numbers in both, $1,234.5 or 12.3% or
    (4,567), each encoded alone with a space before it, which counts as a byte. "all" is the documents as they are. More
    is shorter; a kind that doesn't occur is None.
    """
    sizes = {kind: np.zeros(2, dtype=np.int64) for kind in ("narrative", "tables", "numbers", "all")}
    numbers = Counter()
    for text in texts:
        lines = [line for line in text.split("\n") if line.strip()]
        found = dict(narrative="\n".join(line for line in lines if " | " not in line),
                     tables="\n".join(line for line in lines if " | " in line), all=text)
        for kind, part in found.items():
            sizes[kind] += len(part.encode()), len(tokenizer.encode(part))
        numbers.update(NUMBER.findall(text))
    for number, count in numbers.items():
        sizes["numbers"] += count * len(f" {number}".encode()), count * len(tokenizer.encode(f" {number}"))
    return {kind: round(int(b) / int(n), 3) if n else None for kind, (b, n) in sizes.items()}


def tokenizer_report(tokenizer, texts):
    """
    bytes_per_token of this tokenizer and of GPT-2's on the same texts: {"this": {...}, "gpt2": {...}}; "gpt2" is None
    where its vocabulary is not in tiktoken's cache, as a report is no reason to download it.
    """
    texts = list(texts)
    this = gpt2 = bytes_per_token(tokenizer, texts)
    if tokenizer.name != "gpt2":
        try:
            gpt2 = bytes_per_token(Tokenizer.gpt2(), texts) if gpt2_is_cached() else None
        except ValueError:  # a damaged cache
            gpt2 = None
    return dict(this=this, gpt2=gpt2)


def gpt2_is_cached():
    """tiktoken's cache names its files by the SHA-1 of their addresses."""
    default = os.path.join(tempfile.gettempdir(), "data-gym-cache")
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR", default))
    address = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
    names = [hashlib.sha1((address + file).encode()).hexdigest() for file in ("vocab.bpe", "encoder.json")]
    return all(os.path.exists(os.path.join(folder, name)) for name in names)
