"""
What models write: the same 10-K openings continued by each, and what a reader's eye can't judge in them.

    report["writing"] = run(ask, ["runs/sec", "gpt2"], corpus, options)
    check_percentages("Net sales increased by $12.3 million, or 9.1%, to $164.2 million.")    # it should say 8.1%

Small models write well for a page and then say "product candidates" 47 times; they state percentages that their own
dollars deny; and their finest sentence may be a filing's. So every model goes on from the same prompts with the same
seeds, nobody picks, and beside them stands a row "held-out text", of held-out text. loop_rate is the share of 10-grams
of words that their text had before, the numbers of its prose being alike; looping, of texts whose last words and signs,
twenty or more, are those before them once again; distinct_n (Li et al. 2016), of different n-grams; verbatim, of
sentences of eight words or more that some training document has, character for character.

Training is a billion tokens and what was written fifty thousand, so the index is of the latter, and the shards flow
past it (Karp and Rabin 1987). With a random 64-bit r[t] for each token t and an odd m, the sums S[i] of r[token j] m^j
over j < i, modulo 2^64, give each window of n tokens a hash for a subtraction and a product: (S[i + n] - S[i]) / m^i.
Like windows have like hashes, so nothing is missed; what has the same hash is compared token by token, so nothing is
made up. The longest match is found by bisection: where n tokens match, so do n - 1.
"""
import itertools
import re
from types import SimpleNamespace

import numpy as np
from tqdm import tqdm

import sample
import stats

PROMPTS = (*sample.PROMPTS, "Item 1. Business. We are a leading provider of", "Net sales increased",
           "We face intense competition, and if we fail to", "Cost of revenue increased by",
           "Liquidity and Capital Resources. As of December 31, we had cash and cash equivalents of",
           "Critical Accounting Estimates. The preparation of our financial statements requires",
           "Item 3. Legal Proceedings. From time to time, we", "Item 9A. Controls and Procedures. Our management")
TOKENS = 250  # written, of which options.max_new_tokens are shown: models are fluent for about 200 and loop then


def run(ask, names, corpus, options):
    """The part "writing" of the report. options: seed, quick, temperature, max_new_tokens (shown), prompt (or None)."""
    def cut(text, tokens):
        return corpus.tokenizer.decode(corpus.tokenizer.encode(text)[:tokens]).rstrip("\ufffd")

    prompts, tokens = list(options.prompt or PROMPTS), max(TOKENS, options.max_new_tokens)
    rounds = 1 if not options.temperature else 2 if options.quick else 8
    items = [{"prompts": prompts, "seed": options.seed + i} for i in range(rounds)]
    texts, measures, examples, count = {}, {}, {}, len(prompts) * len(items)
    for name in names:
        settings = {"max_new_tokens": tokens, "temperature": options.temperature}
        each = ask(name, write, items, cast=True, chunk=1, label="writing", **settings)
        texts[name] = [cut(text, tokens) for written in each for text in written]  # as long as the real ones
    shown = [{"prompt": p, "texts": {name: cut(texts[name][i], options.max_new_tokens) for name in names}}
             for i, p in enumerate(prompts)]
    real = held_out(corpus, 200_000 if options.quick else 2_000_000)
    places = (re.compile(r"\s").search(real, i * len(real) // count) for i in range(count))
    starts = dict.fromkeys(m.end() for m in places if m)
    texts["held-out text"] = [cut(real[i : i + 40 * tokens], tokens) for i in starts]
    search = Search(corpus.tokenizer, texts).read(corpus.shards["train"])
    for name, row in texts.items():
        checked = check_percentages(real) if name == "held-out text" else [
            c for p, text in zip(prompts * len(items), row, strict=True) for c in check_percentages(p + text, len(p))]
        wrong = [c for c in checked if not c.pop("consistent")]
        copied = [s for s in search.sentences[name] if s in search.copied]
        right, (n, ids, place) = len(checked) - len(wrong), search.longest[name]
        grams = {n: [gram for text in row for gram in ngrams(text, n)] for n in (1, 2, 3)}
        measures[name] = {f"distinct_{n}": share(len(set(g)), len(g)) for n, g in grams.items()} | {
            "texts": len(row), "words": len(grams[1]),
            "loop_rate": loop_rate(*row), "looping": share(sum(map(ends_in_loop, row)), len(row)),
            "sentences": len(search.sentences[name]), "verbatim": share(len(copied), len(search.sentences[name])),
            "longest_match": {"tokens": n, "text": corpus.tokenizer.decode(ids),
                              "document": corpus.documents("train", [place], n)[0]} if n else None,
            "percent_checked": len(checked), "percent_consistent": share(right, len(checked)),
            "percent_consistent_95": stats.wilson(right, len(checked)) if checked else None}
        examples[name] = {"loop": max(filter(ends_in_loop, row), key=lambda t: loop_rate(t) or 0, default="")[-600:],
                          "verbatim": list(dict.fromkeys(copied))[:3], "percent": wrong[:3]}
    return {"temperature": options.temperature, "max_new_tokens": options.max_new_tokens, "seed": options.seed,
            "tokens": tokens, "seeds": len(items), "prompts": shown, "measures": measures, "examples": examples,
            "notes": ["the percentages of held-out text are from more of it than its other figures: a page has few"],
            "missing": {} if real else {"held-out text": f"{corpus.manifest['kind']} data without held-out documents"}}


def write(model, tokenizer, items, max_new_tokens, temperature):
    """Continuations for each item {"prompts", "seed"}: its own batch and generator, whoever does it."""
    return [sample.generate(model, tokenizer, i["prompts"], max_new_tokens, temperature, seed=i["seed"]) for i in items]


def held_out(corpus, max_tokens):
    texts, splits = [], [s for s in ("val", "val_both", "val_year", "val_neither") if s in corpus.shards]
    for _, ids in itertools.chain.from_iterable(map(corpus.read_documents, splits)):
        texts += [corpus.tokenizer.decode(ids[:max_tokens])] if max_tokens > 0 else []
        max_tokens -= len(ids)
    return "\n".join(texts)


def ngrams(text, n):
    words = re.findall(r"\w+(?:[.,]\d+)*", text.lower())
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def share(part, whole):
    return part / whole if whole else None


def without_numbers(text):
    """With 0 for every number of its prose: "sales rose 2 %" ten times over is a loop, also with ten percentages."""
    return "\n".join(line if " | " in line else re.sub(r"\d[\d.,]*", "0", line) for line in text.split("\n"))


def loop_rate(*texts):
    """Which share of their 10-grams of words, all numbers alike, stood before in the same text; None without any."""
    grams = [ngrams(without_numbers(text), 10) for text in texts]
    return share(sum(len(g) - len(set(g)) for g in grams), sum(map(len, grams)))


def ends_in_loop(text, least=20):
    """Are its last words and signs, at least 20 and a whole period, those that stand a period before them?"""
    words = re.findall(r"\w+(?:[.,]\d+)*|[^\w\s]", without_numbers(text.lower()))[::-1]  # the first may be half a word
    return any(words[end : end + max(least, n)] == words[end + n : end + n + max(least, n)]
               for end in (0, 1) for n in range(1, len(words) // 2 + 1))


END = re.compile(r"[.!?]+[\"”’')]*(?:\s+(?=[\"“‘'(•]?[A-Z0-9])|\s*$)")
SHORT = re.compile(r"(?P<never>\b(?:Nos?|Mr|Mrs|Ms|Dr|vs|St|Sec|Vol|Fig|e\.g|i\.e))$|\b(?:[A-Z]|Inc|Corp|Cos?|Ltd|Jr|Sr"
                   r"|approx|etc|Jan|Feb|Aug|Sept?|Oct|Nov|Dec|(?:\w\.)+\w|(?i:item|note|part|exhibit) \w{1,3})$")
STARTER = re.compile(r"(?:The|We|Our|In|This|These|It|As|If|For|However|On|Such|There|An?|Although|At|All)\b")


def sentences(text):
    """The sentences of a text as they stand in it: no table rows, no headings, nothing that is cut off."""
    found = []
    for line in text.split("\n"):
        start = 0
        for end in END.finditer(line) if " | " not in line else ():
            short = SHORT.search(line[start : end.start()])
            if not short or end.end() == len(line) or not short["never"] and STARTER.match(line, end.end()):
                found.append(line[start : end.end()].strip())
                start = end.end()
    return found


class Search:
    """Looks for {name: texts} in training shards. A sentence's first word and last signs may share tokens with what is
    around them: the tokens between are looked for, and where they are the text there is compared. It yields longest
    {name: (tokens, ids, (shard, offset))}, sentences {name: [...]} and copied, the set of those that were found."""

    MULTIPLIER = 0x9E3779B97F4A7C15  # odd: it has an inverse modulo 2^64
    BLOCK = 1 << 20  # tokens at a time, which take eight bytes each in a few arrays

    def __init__(self, tokenizer, texts):
        self.tokenizer, sizes = tokenizer, tokenizer.token_bytes()
        self.noise = np.random.default_rng(0).integers(1 << 64, size=tokenizer.vocab_size, dtype=np.uint64)
        self.ids = {name: [tokenizer.encode(text) for text in row] for name, row in texts.items()}
        self.margin = 64 + max((len(i) for row in self.ids.values() for i in row), default=0)
        self.powers, self.inverse = (np.cumprod(np.full(self.BLOCK + self.margin, m, np.uint64))
                                     for m in (self.MULTIPLIER, pow(self.MULTIPLIER, -1, 1 << 64)))
        self.longest, self.wanted = {n: (0, None, None) for n in texts}, {n: self.windows(n, 1) for n in texts}
        self.sentences = {name: [s for text in row for s in sentences(text) if len(ngrams(s, 8))]
                          for name, row in texts.items()}
        self.copied, self.sought = set(), {}  # sought: by the hash of the first k tokens, k a power of two
        for sentence in sorted({s for row in self.sentences.values() for s in row}):
            ends = sizes[ids := tokenizer.encode(sentence)].cumsum()
            first, last = len(sentence.split()[0].encode()), len(re.sub(r"\W+$", "", sentence).encode())
            core = ids[np.searchsorted(ends, first) + 1 : np.searchsorted(ends, last, side="right")]
            k = min(32, 1 << len(core).bit_length() >> 1)
            for key in self.hashes(self.sums(core), k)[:1].tolist() if k else ():
                self.sought.setdefault(k, {}).setdefault(key, []).append((core, sentence))

    def sums(self, tokens):
        return np.concatenate([np.zeros(1, np.uint64), np.cumsum(self.noise[tokens] * self.powers[: len(tokens)])])

    def hashes(self, sums, n):
        return (sums[n:] - sums[:-n]) * self.inverse[: len(sums[n:])]

    def windows(self, name, n):
        found = {}  # hash: [window, ...]
        for ids in self.ids[name]:
            for i, h in enumerate(self.hashes(self.sums(ids), n).tolist()):
                found.setdefault(h, []).append(ids[i : i + n])
        return found

    def hits(self, sums, n, known):  # (place, known[its hash]) of each window of n tokens that may be known, in order
        hashes, table = self.hashes(sums, n), np.zeros(1 << 20, bool)  # of first bits, which dismiss most windows
        table[np.fromiter(known, np.uint64, len(known)) >> np.uint64(44)] = True
        places = np.flatnonzero(table[hashes >> np.uint64(44)])
        return ((i, known[h]) for i, h in zip(places.tolist(), hashes[places].tolist(), strict=True) if h in known)

    def read(self, shards):
        blocks = [(s, i) for s, shard in enumerate(shards) for i in range(0, len(shard), self.BLOCK)]
        for s, start in tqdm(blocks, desc="verbatim", unit="block", disable=None):
            tokens = np.asarray(shards[s][start : start + self.BLOCK + self.margin])
            sums = self.sums(tokens)
            for name in self.ids:
                self.find_longest(name, tokens, sums, s, start)
            for k in self.sought:
                self.find_sentences(k, sums, shards[s], start)
        return self

    def find_longest(self, name, tokens, sums, s, start):
        def first(n, known):
            return next(((n, window, (s, start + i)) for i, windows in self.hits(sums, n, known)
                         for window in windows if np.array_equal(window, tokens[i : i + n])), None)

        if found := first(self.longest[name][0] + 1, self.wanted[name]):
            low, high = found[0], max(map(len, self.ids[name]))
            while low < high:
                n = (low + high + 1) // 2
                longer = first(n, self.windows(name, n))
                found, low, high = (longer, n, high) if longer else (found, low, n - 1)
            self.longest[name], self.wanted[name] = found, self.windows(name, low + 1)

    def find_sentences(self, k, sums, shard, start):
        for i, pairs in self.hits(sums, k, self.sought[k]):
            for core, sentence in pairs:
                a, b = start + i, start + i + len(core)
                if sentence not in self.copied and np.array_equal(shard[a:b], core):
                    around = self.tokenizer.decode(shard[max(0, a - 32) : b + 32])
                    if any(not before[-1:].isalnum() for before in around.split(sentence)[:-1]):
                        self.copied.add(sentence)


NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?!\d|[.,]\d)"
FIGURE = re.compile(rf"""
    (?: (?P<loss> \$\s?\((?P<a>{NUMBER})\) | \([$€£]\s?(?P<b>{NUMBER})\) ) | [$€£]\s?(?P<c>{NUMBER}) )
    (?: \s?-?(?P<scale>thousand|million|billion|trillion|[KMB](?!\w)) )?
    | (?<![\d.,/–—-])(?P<percent>{NUMBER})\)?\s?(?:%|per\ ?cent\b)(?!\s?[-–—]\s?\d)""", re.X)
SCALE = {"thousand": 1e3, "K": 1e3, "million": 1e6, "M": 1e6, "billion": 1e9, "B": 1e9, "trillion": 1e12}
UP = r"increas(?:e[sd]?|ing)|rose|risen|rise|gr[eo]w|grown|growth|up|higher|climbed|improve[ds]?|improvement"
DOWN = r"decreas(?:e[sd]?|ing)|declin(?:e[sd]?|ing)|fell|fallen|down|lower|drop(?:ped)?|reduc(?:ed|tion)"
CHANGE = re.compile(rf"\b(?:(?P<up>{UP})|{DOWN})\b", re.I)  # written ^ from here on
CHANGE_AFTER = re.compile(rf"\)?[ -]*(?:[a-z]+ )?(?:{UP}|{DOWN})\b")
SHARE_AFTER = re.compile(r"\)?\s*-?(?:of\b|points?|percentage|basis|annual|interest|ownership|tax|as a p|yield)")
COMPARED = r"(?:compared\ (?:to|with)|comparison\ (?:to|with)|versus|vs\.?|against)"
ROUGHLY = r"(?:(?:approximately|about|roughly|nearly|almost)\s+)?$"
ROLE = re.compile(rf"""(?: (?<!to\ )\b(?P<old>{COMPARED}|from|over)\s | \b(?P<level>was|were|is|are|of|totall?ed)\s
    | (?<!due\ )(?<!related\ )(?<!relating\ )(?<!attributable\ )(?<!equal\ )(?<!addition\ )\b(?P<new>to)\s
    | (?P<by>\^(?:\ (?:of|by|in(?:\ [\w&’'-]+){{1,6}}?\ of))? | \bby | \bor | \()\s*(?:an?\ )?\(? | \b(?P<a>an?|the)\s
    )\s*{ROUGHLY}""", re.X)  # of a figure, by the words before it
BETWEEN = {*"""a an the in for during at as of on our this that same last prior previous preceding comparable current
    corresponding year years year's year’s fiscal quarter months month period periods ended ending first second
    third fourth three six nine twelve week weeks 52-week 53-week january february march april may june july august
    per diluted september october november december basic share common approximately about nearly which represents
    represented earlier representing reflecting or by total was were is are over year-over-year compared to with
    from versus ago""".split()}
VETO = re.compile(r"respectively|constant[- ]currenc|local currenc|organic|pro ?forma|annualiz|compound|CAGR|per annum"
                  r"|\bwould|hypothetical|assum|\bif\b|(?:greater|lesser|higher|lower) of|whichever|up to| \| ", re.I)
OF, IS, OR = (re.compile(f"{words} (?:approximately |about )?") for words in
              (" of(?: (?!in |by |to |and |from )[a-z]+){0,6}?", ",? (?:is|was|are|were|equals|equaled|or)", ",? or"))


def check_percentages(text, after=0):
    """The statements of a text with figures enough to be checked, "rose $12.3 million, or 8.1%, to $164.2 million", or
    "2% of $162.8 million is $40.0 million": a list of {"text", "says", "should", "consistent"}. A printed figure is all
    that is rounded to it, 8.1% is 8.05 to 8.15; consistent figures can be true together. What isn't understood is left
    out. after: only statements that end behind that character."""
    checked = []
    for found in re.finditer(r"[^\n]+?(?:[.;!?](?=\s+[A-Z•“\"])|(?=\n)|$)", text):
        if ("%" in (sentence := found[0]) or "cent" in sentence) and not VETO.search(sentence):
            for first, last, checks in statements(sentence):
                if checks and found.start() + last > after:
                    checked.append({"text": sentence[max(0, first - 120) : last + 40].strip(), **judged(checks)})
    return checked


def statements(sentence):
    """(start, end, checks) of each run of figures that belong together."""
    figures, runs = list(FIGURE.finditer(sentence)), [[None, {}, []]]  # does it rise, {role: figure}, where they are
    for before, f in zip([None, *figures], figures, strict=False):
        link, (up, parts, _) = sentence[before.end() if before else 0 : f.start()], runs[-1]
        role, goes_up = part(link, f, bool(parts))
        if parts and (not role or role in parts or None not in (up, goes_up) and up != goes_up):
            runs.append([None, {}, []])
            role, goes_up = part(link, f, False)
        if role:
            runs[-1][1][role] = figure(f, link)
            runs[-1][2].append(f)
            runs[-1][0] = runs[-1][0] if goes_up is None else goes_up
    found = [(places[0].start(), places[-1].end(), changed(up, **parts)) for up, parts, places in runs if places]
    for a, b, c in zip(figures, figures[1:], figures[2:], strict=False):
        one, two = sentence[a.end() : b.start()], sentence[b.end() : c.start()]
        x, y, z = figure(a, ""), figure(b, one), figure(c, two)
        percent, whole, of_it = (x, y, z) if OF.fullmatch(one) and IS.fullmatch(two) else (y, z, x)
        if ([x.percent for x in (percent, whole, of_it)] == [True, False, False] and whole.scaled == of_it.scaled
                and (percent is x or OR.fullmatch(one) and OF.fullmatch(two)) and whole.low > 0):
            found.append((a.start(), c.end(), [(percent, whole, of_it, lambda whole, part: part / whole * 100)]))
    return found


def part(link, f, more):
    """(role, goes_up) of a figure. Role: "old", "new" (amounts), "change" (dollars), "percent" or None; goes_up: True,
    False, None. link: text from the figure before; more: is it to belong to the same statement?"""
    rest, changes, marked = f.string[f.end() :], [bool(c["up"]) for c in CHANGE.finditer(link)], CHANGE.sub("^", link)
    tail, after = ROLE.search(marked), CHANGE_AFTER.match(rest)
    kind = tail.lastgroup if tail else "none"
    role = {"old": "old", "new": "new", "level": "new"}.get(kind, "percent" if f["percent"] else "change")
    if (kind == "none" or kind == "a" and not after or kind == "level" and (more or re.search(COMPARED, marked))
            or f["percent"] and (role != "percent" or SHARE_AFTER.match(rest))):
        return None, None
    gap = marked[: tail.start()]
    gap = gap if more else gap[gap.rfind("^") + 1 :]  # before a statement, what counts is the last verb, if it is near
    near = all(w in BETWEEN or re.fullmatch(r"\d{1,4}|", w) for w in re.sub(r"[,()^]", " ", gap).lower().split(" "))
    if more and (not near or len({*changes}) > 1 or re.search(rf"{COMPARED} (?:an? )?\^", marked)):
        return None, None
    if after and kind in ("a", "by"):
        return role, bool(CHANGE.search(after[0])["up"])
    return role, changes[-1] if changes and (near or "^" in tail[0]) else None


def figure(f, link):
    """What a printed figure stands for, in dollars or percent: value, from low to high; and how it is printed."""
    digits, roughly = (f["percent"] or f["a"] or f["b"] or f["c"]).replace(",", ""), re.search(ROUGHLY, link)[0]
    unit, decimals = SCALE.get(f["scale"], 1), len(digits.partition(".")[2])
    zeros = 0 if decimals else len(digits) - len(digits.rstrip("0"))
    # in halves of its last digit, what it may be off by: $605,000 is in thousands, about $900 million in hundreds
    wide = max(2, 10**zeros) if roughly else 1 if f["percent"] or f["scale"] else 1000 ** (zeros // 3)
    value, half = float(digits) * unit, 0.5 * 10.0**-decimals * unit * wide * (1 + 1e-9)
    return SimpleNamespace(value=value, low=value - half, high=value + half, decimals=decimals, unit=unit, text=f[0],
                           loss=bool(f["loss"]), scaled=bool(f["scale"]) or value >= 1000, percent=bool(f["percent"]))


def changed(up, percent=None, change=None, new=None, old=None):
    """[(printed figure, a, b, f): it should be f(a, b)] for a change from old to new; none if that can't be told."""
    amounts, sign = [x for x in (change, new, old) if x], 1 if up else -1
    pairs = [(old, new, lambda a, b: sign * (b - a) / a * 100), (old, change, lambda a, x: x / a * 100),
             (new, change, lambda b, x: x / (b - sign * x) * 100)]
    if (up is None or not percent or len({x.scaled for x in amounts}) > 1 or any(x.low <= 0 for x in amounts)
            or old and new and old.loss != new.loss or new and change and up and new.low <= change.high):
        return []
    checks = [(percent, a, b, f) for a, b, f in pairs if a and b]
    return checks + [(change, old, new, lambda a, b: sign * (b - a))] if len(checks) == 3 else checks


def judged(checks):
    for printed, a, b, f in checks:  # f is monotonic in both, so its ends are at corners
        ends = [f(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
        if max(ends) < printed.low or min(ends) > printed.high:
            should = f"{f(a.value, b.value) / printed.unit:,.{printed.decimals}f}"
            return {"says": printed.text, "should": re.sub(NUMBER, should, printed.text, count=1), "consistent": False}
    return {"says": checks[0][0].text, "should": checks[0][0].text, "consistent": True}
