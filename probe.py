"""
What a model's hidden states know of a filing, without training it: a probe, a search, and a choice of what comes next.

    probe       which item is this passage from? Logistic regression on frozen states, tested on other companies (Alain
                and Bengio 2016, "Understanding intermediate layers using linear classifier probes")
    embeddings  given an item of one year, is the nearest of all items the same item of the company's next filing?
    sections    of four openings of items, is the likeliest the one that really follows?

A text becomes one vector by the mean of its tokens' states (embed.py). Each figure stands beside those of the same
model with random weights, of counting words and of chance, and only the distance from these counts.
"""
import functools
import types
from collections import Counter, defaultdict

import numpy as np
import torch
import torch.nn.functional as F

import examples
import stats
import tasks
from embed import states
from retrieve import bm25
from split import UNDATED, companies_of, day_of, filing_day, hash64

FOLDS, CS, RANDOM = 5, (1e-4, 1e-3, 1e-2, 1e-1), "random weights"
TASKS = {"1A-7": ("1A", "7"), "five-way": tuple(tasks.SECTIONS)}
PASSAGES, COMPANIES, FILINGS, EXAMPLES = (2000, 150), (100, 40), (200, 20), (200, 40)  # at most; with --quick
SEARCHED, OPENING, CONTEXT = 4000, 300, 1000  # characters: of an item, of a candidate, of what it is to follow


def read_filings(corpus):
    """
    The filings of all splits whose items are known, their text still as tokens: about, split, tokens, day, spans of the
    items found, company (a number, one for all that owners_of joins), unseen: the training split has nothing of it.
    """
    found = []
    for split in corpus.manifest["splits"]:
        for about, tokens in corpus.read_documents(split):
            spans = {k: v["span"] for k, v in about.get("items", {}).items() if v["status"] == "found"}
            found.append(types.SimpleNamespace(about=about, split=split, tokens=tokens, spans=spans,
                                               day=min(day_of(about.get("period")), filing_day(about))))
    joined = companies_of([f.about for f in found]).tolist()
    trained = {company for f, company in zip(found, joined, strict=True) if f.split == "train"}
    for filing, company in zip(found, joined, strict=True):
        filing.company, filing.unseen = company, company not in trained
    return [f for f in found if f.spans]


def read_items(corpus, filing):
    """{item: its passages, without the heading} of a filing's items that say anything, in the order of the filing."""
    text = corpus.tokenizer.decode(filing.tokens)
    found = {k: tasks.passages(text[slice(*span)]) for k, span in sorted(filing.spans.items(), key=lambda s: s[1])}
    return {k: passages for k, passages in found.items() if passages}


def shuffled(things, seed, key=str):
    """In an order that depends on the seed and on each thing, not on the order they come in."""
    return sorted(things, key=lambda thing: hash64(f"{seed} {key(thing)}".encode()))


def mean(name, value, company):
    """{name: the mean, name_95: its interval, for which whole companies are drawn anew}; their passages are alike."""
    _, which = np.unique(np.array(company, np.uint64), return_inverse=True)
    interval = stats.share(np.bincount(which, weights=np.array(value, float)), np.bincount(which))
    return {name: float(np.mean(value)), name + "_95": interval}


def probe(ask, names, corpus, options):
    """
    {"tasks": {"1A-7": {"n", "companies", "classes", "rows"}, "five-way": ...}, "folds", "missing", "notes"}. Layer 0 is
    the embedding, n_layer + 1 the final norm. ValueError if fewer than five companies have two of the items.
    """
    records, chosen, missing, found = gather(corpus, options), {}, {}, {}
    for task, keys in TASKS.items():
        try:
            chosen[task] = choose(records, keys, PASSAGES[options.quick], options.seed)
        except ValueError as e:
            missing[task] = str(e)
    if not chosen:
        raise ValueError(missing["five-way"])
    texts = sorted({r["prompt"] for rs in chosen.values() for r in rs})
    x = {name: np.stack(ask(names[0] if name == RANDOM else name, states, texts, chunk=64, label=f"probe, {name}",
                            layers="all", random_weights=name == RANDOM)) for name in (*names, RANDOM)}
    for task, rs in chosen.items():
        rows = [texts.index(r["prompt"]) for r in rs]
        answers = {name: functools.partial(linear, x[name][rows]) for name in x} | {  # (N, layers, C) each
            "TF-IDF": functools.partial(count_words, rs),
            "commonest": lambda y, train, val, test: (np.bincount(y[~test]).argmax(), [])}
        found[task] = {"n": len(rs), "companies": len({r["meta"]["company"] for r in rs}),
                       "classes": dict(sorted(Counter(r["meta"]["label"] for r in rs).items())),
                       "rows": {name: cross_validate(rs, answer, options.seed) for name, answer in answers.items()}}
    return {"tasks": found, "folds": FOLDS, "missing": missing,
            "notes": [f"{FOLDS} folds of whole companies; inside each, another fold's companies choose layer and C",
                      "headings are stripped; unseen: companies of which the corpus's training split has nothing"]}


def gather(corpus, options):
    """The passages of the five items, of up to COMPANIES companies (unseen ones and ones with risk factors first)."""
    held, records = defaultdict(list), []
    for filing in read_filings(corpus):
        held[filing.company].append(filing)
    order = shuffled(held, options.seed)
    order.sort(key=lambda c: not {"1A", "7"} <= {k for f in held[c] for k in f.spans})
    unseen = [c for c in order if held[c][0].unseen][: COMPANIES[options.quick] // 2]
    for company in [*dict.fromkeys(unseen + order)][: COMPANIES[options.quick]]:
        for filing in shuffled(held[company], options.seed, lambda f: f.about["id"])[:5]:
            records += [tasks.record(f"{filing.about['id']}-{key}-{i}", passage, tasks.SECTIONS[key],
                                     company=company, unseen=filing.unseen)
                        for key, passages in read_items(corpus, filing).items() if key in tasks.SECTIONS
                        for i, passage in enumerate(passages)]
    return tasks.without_copies(records)[0]


def choose(records, keys, most, seed):
    """At most `most` passages of these items, of each company and item as many as there may be for that (up to 20)."""
    records = [r for r in records if r["meta"]["label"] in {tasks.SECTIONS[k] for k in keys}]
    pairs = {(r["meta"]["company"], r["meta"]["label"]) for r in records}
    companies_with = Counter(label for _, label in sorted(pairs))
    common = {label for label, n in companies_with.items() if n >= FOLDS}  # another can't be in every fold
    if sum(n > 1 for n in Counter(company for company, label in pairs if label in common).values()) < FOLDS:
        raise ValueError(f"the probe needs {FOLDS} companies that have the same two of the items {', '.join(keys)}, "
                         f"here {', '.join(f'{n} have {k}' for k, n in companies_with.items()) or 'is none'}; add some")
    count, ranked = Counter(), []
    for r in shuffled((r for r in records if r["meta"]["label"] in common), seed, lambda r: r["prompt"]):
        count[r["meta"]["company"], r["meta"]["label"]] += 1
        ranked.append((count[r["meta"]["company"], r["meta"]["label"]], r))
    sizes = [sum(min(n, cap) for n in count.values()) for cap in range(1, tasks.PER_COMPANY + 1)]
    return [r for rank, r in ranked if rank <= max(1, sum(size <= most for size in sizes))]


def folds(records, seed):
    """A fold for each record, the same for a company's; companies with the same items are dealt out in turn."""
    has = sorted({(r["meta"]["company"], r["meta"]["label"]) for r in records})
    order = sorted(shuffled({c for c, _ in has}, seed), key=lambda company: [label for c, label in has if c == company])
    return np.array([order.index(r["meta"]["company"]) % FOLDS for r in records])


def cross_validate(records, answer, seed):
    """
    A row of the table. answer(y, train, val, test) -> (a label for each of test, what was chosen), where y (N,) are the
    labels of all and the others masks (N,); what there is to choose is chosen by training on train and looking at val.
    """
    labels, fold, chosen = sorted({r["completion"] for r in records}), folds(records, seed), []
    y, answers = np.array([labels.index(r["completion"]) for r in records]), np.zeros(len(records), int)
    for f in range(FOLDS):
        test, val = fold == f, fold == (f + 1) % FOLDS
        answers[test], choice = answer(y, ~test & ~val, val, test)
        chosen += choice
    measured = tasks.measure({"name": "probe", "labels": labels, "metric": "labels"}, records,
                             [labels[i] for i in answers])
    right, unseen = answers == y, np.array([r["meta"]["unseen"] for r in records])
    row = mean("accuracy", right, [r["meta"]["company"] for r in records]) | {
        "macro_f1": measured["macro_f1"], "n_unseen": int(unseen.sum()),
        "accuracy_unseen": float(right[unseen].mean()) if unseen.any() else None}
    layers, Cs = [layer for layer, _ in chosen], [C for _, C in chosen]
    return row | ({"layer": Counter(layers).most_common(1)[0][0], "layers": layers, "C": Cs} if chosen else {})


def count_words(records, y, train, val, test):
    labels, sides = sorted({r["completion"] for r in records}), [np.flatnonzero(~test), np.flatnonzero(test)]
    return [labels.index(a) for a in tasks.count_words(*([records[i] for i in side] for side in sides), labels)], []


def linear(x, y, train, val, test):
    """Of states x (N, layers, C): the layer that does best on val with a middling C, then the best C for that layer."""
    def answers(layer, C, fit, asked):
        return logistic(x[fit, layer], y[fit], y.max() + 1, C)(x[asked, layer]).argmax(1)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # see tasks.count_words
    try:
        layer = max(range(x.shape[1]), key=lambda layer: (answers(layer, CS[2], train, val) == y[val]).sum())
        C = max(CS, key=lambda C: (answers(layer, C, train, val) == y[val]).sum())
        return answers(layer, C, ~test, test), [(layer, C)]
    finally:
        torch.set_num_threads(threads)


def logistic(x, y, classes, C):
    """
    Multinomial logistic regression as scikit-learn has it, after its StandardScaler: C times the sum of cross-entropies
    + |W|² / 2 is minimised, in float64. x (N, D), y (N,) -> a function: (M, D) -> logits (M, classes).
    """
    middle, spread = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    spread[spread == 0] = 1
    features, target = torch.from_numpy((x - middle) / spread), torch.from_numpy(y)
    W = torch.zeros(x.shape[1], classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([W, bias], max_iter=200, tolerance_change=1e-7, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(features @ W + bias, target) + W.square().sum() / (2 * C * len(y))
        loss.backward()
        return loss

    optimizer.step(closure)
    W, bias = W.detach().numpy(), bias.detach().numpy()
    return lambda x: (x - middle) / spread @ W + bias


def embeddings(ask, names, corpus, options):
    """
    {"queries", "candidates", "companies", "rows": {name: {"recall@1", "recall@1_95", "recall@5", "recall@10", "mrr"}}},
    from an item (1, 1A or 7) to the same item of the company's next filing, at least half a year later, among the items
    of all other filings, its own of other years included. ValueError where no company has two filings.
    """
    held, filings, texts = defaultdict(list), [], {}
    for filing in read_filings(corpus):
        if filing.day != UNDATED and {*filing.spans} & {"1", "1A", "7"}:
            held[filing.company].append(filing)
    for company in sorted(shuffled(held, options.seed), key=lambda c: len(held[c]) < 2):
        filings += sorted(held[company], key=lambda f: (f.day, f.about["id"]))[:8]
    filings = filings[: FILINGS[options.quick]]
    for i, filing in enumerate(filings):
        items = read_items(corpus, filing)
        texts |= {(i, k): "\n".join(items[k])[:SEARCHED] for k in ("1", "1A", "7") if k in items}
    keys, texts = [*texts], [*texts.values()]
    row, owner, pairs = {key: n for n, key in enumerate(keys)}, np.array([i for i, _ in keys]), []
    for i, k in keys:
        later = [j for j, f in enumerate(filings) if f.company == filings[i].company and f.day >= filings[i].day + 180]
        pairs += [(row[i, k], row[later[0], k])] if later and (later[0], k) in row else []
    if not pairs:
        raise ValueError("the search for next year's item needs a company with two filings that have dates and items "
                         "1, 1A or 7; give it more 10-K filings")
    asked, target = np.array(pairs).T
    others, whose = owner[asked][:, None] != owner, [filings[i].company for i in owner[asked]]

    def found(near):  # (queries, candidates); what is as near as the target, or not a number, comes before it
        ranks = (others & ~(near < near[np.arange(len(asked)), target][:, None] - 1e-6)).sum(1)
        return mean("recall@1", ranks <= 1, whose) | {
            f"recall@{k}": float(np.mean(ranks <= k)) for k in (5, 10)} | {"mrr": float(np.mean(1 / ranks))}

    rows = {}
    for name in (*names, RANDOM):
        x = np.stack(ask(names[0] if name == RANDOM else name, states, texts, label=f"embeddings, {name}",
                         layers="last", random_weights=name == RANDOM)).astype(np.float64)
        x -= x.mean(0)  # all states share one large direction, beside which no two texts would differ
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        rows[name] = found(x[asked] @ x.T)
    rows["BM25"] = found(bm25([texts[i] for i in asked], texts))
    rows["chance"] = {f"recall@{k}": float(np.minimum(k / others.sum(1), 1).mean()) for k in (1, 5, 10)}
    rows["chance"]["mrr"] = float(np.mean([(1 / np.arange(1, n + 1)).mean() for n in others.sum(1)]))
    cut = corpus.manifest.get("repeated_paragraphs_cut", 0)
    return {"queries": len(pairs), "candidates": len(texts), "companies": len({*whose}), "rows": rows,
            "notes": [f"an item is its first {SEARCHED:,} characters less heading; candidates are in other filings, of "
                      f"training, too; prepare.py cut {cut:,} paragraphs of the corpus that a company had filed before",
                      "near is the cosine of mean final states, less their mean over all candidates (centred)"]}


def sections(ask, names, corpus, options):
    """
    {"n", "candidates", "chance", "companies", "rows": {name: {"accuracy", "accuracy_95", "pmi", "pmi_95"}}}, of
    held-out filings. The candidates are the openings of the item that follows (of those that say anything) and of three
    others. accuracy: by the log-likelihood per byte after the end of the item before; pmi: less that without context
    (Holtzman et al. 2021, "Surface form competition"). ValueError if no held-out filing has five items.
    """
    found, held = [], [f for f in read_filings(corpus) if f.split != "train"]
    for filing in shuffled(held, options.seed, lambda f: f.about["id"])[: EXAMPLES[options.quick]]:
        items = [*read_items(corpus, filing).items()]
        for i in range(len(items) - 1 if len(items) > 4 else 0):
            id = f"{filing.about['id']} {items[i][0]}"
            others = shuffled(items[:i] + items[i + 2 :], options.seed, lambda item, id=id: f"{id} {item[0]}")
            found.append((id, filing.company, items[i][1][-1][-CONTEXT:],
                          [passages[0][:OPENING] for _, passages in [items[i + 1], *others[:3]]]))
    if not found:
        raise ValueError("to tell which item comes next needs a held-out filing with five items that say anything; "
                         "give the corpus more 10-K filings, or hold more of them out")
    found = shuffled(found, options.seed, lambda example: example[0])[: EXAMPLES[options.quick]]
    whose, pairs, rows = [e[1] for e in found], [(e[2], opening) for e in found for opening in e[3]], {}

    def chosen(name, scores):  # four for each example, of which the first really follows
        scores = np.reshape(scores, (-1, 4))
        return mean(name, scores[:, 0] > scores[:, 1:].max(1), whose)

    for name in names:
        after, alone = np.array(ask(name, likelihoods, pairs, label=f"sections, {name}")).T
        rows[name] = chosen("accuracy", after) | chosen("pmi", after - alone)
    similar = bm25([e[2] for e in found], [opening for _, opening in pairs])  # (n, 4 n)
    rows["TF-IDF similarity"] = chosen("accuracy", [row[4 * i : 4 * i + 4] for i, row in enumerate(similar)])
    return {"n": len(found), "candidates": 4, "chance": 0.25, "companies": len({*whose}), "rows": rows,
            "notes": ["headings are stripped; TF-IDF similarity is BM25's, of what comes before and each opening"]}


def likelihoods(model, tokenizer, items):
    """(context, text) pairs -> the log-likelihood per byte of each text: [after the context, after an end-of-text]."""
    sequences = []
    for context, text in items:
        for prompt in (context, ""):
            ids, learnt = examples.tokens(tokenizer, {"prompt": prompt, "completion": text})
            sequences.append(examples.fit(ids[:-1], learnt[:-1], model.config.block_size + 1))
    nats, size = tasks.sequence_sums(model, tokenizer, sequences)[:, 2:].T
    return (-nats / np.maximum(size, 1)).reshape(-1, 2).tolist()
