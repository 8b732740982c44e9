"""
Loss on the same bytes: how well models predict held-out documents, compared so that it means something.

Every model scores the same text, the held-out documents, decoded and encoded again with its own tokenizer. A document
starts after an end-of-text token, or what else its model expects; windows overlap by half, so that each token is scored
once, with at least half a context before it (the first window aside). Tokenizers differ, so the number to compare is
bits per byte:

    bits/byte = nats of the document / ln 2 / its UTF-8 bytes

Where a document is cut into parts (its items, its tables), a token's nats are spread evenly over its bytes, so parts
need not end where tokens do. Intervals and tests are over companies (stats.py), for what one company files every year
resembles itself, and over documents where there are fewer than three companies; a document of no known company counts
as one. Two controls have learnt no language: the frequencies of the training tokens, and xz. A page of general English
shows what was forgotten.
"""
import lzma
import math
import os

import numpy as np
import torch

import stats
from decoder import LONGEST
from split import companies_of

CELLS = {"val": "new companies", "val_year": "known companies, new years", "val_both": "new companies, new years",
         "val_neither": "known companies, known years, unseen documents"}
ITEMS = ("1", "1A", "7", "8", "15")
GENERAL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "general.txt")
QUICK_BYTES, QUICK_DOCUMENTS = 60_000, 24


def windows(ids, T):
    """
    Half-overlapping windows of up to T tokens over a document: (start, inputs, targets), -100 where nothing is scored.
    """
    ids = torch.as_tensor(ids)
    stride = max(1, T // 2)
    scored = 0
    for start in range(0, max(1, len(ids) - 1 - T + stride), stride):
        end = min(start + T, len(ids) - 1)
        x, y = ids[start:end], ids[start + 1 : end + 1].clone()
        y[: scored - start] = -100
        scored = end
        yield start, x, y


def nats_at(model, tokenizer, items, every=1):
    """
    Of each item {"text", "cuts": ascending byte offsets}: [nats, bytes, tokens], each a list of what was scored before
    every cut and, last, in all. every: 5 scores every fifth window only, with its full context all the same.
    """
    device, results = model.wte.weight.device, []
    T, batch_size = min(LONGEST, model.config.block_size), 8 if device.type == "cpu" else 32
    batch_size = max(1, min(batch_size, 1024 * batch_size // T))
    for item in items:
        ids = np.array([tokenizer.start, *tokenizer.encode(item["text"]).tolist()])
        rows = list(windows(ids, T)) if len(ids) > 1 else []
        rows = rows[min(every // 2, len(rows) - 1) :: every]  # from the middle: covers resemble each other
        nats, scored = np.zeros((2, len(ids)))
        for batch in (rows[i : i + batch_size] for i in range(0, len(rows), batch_size)):
            x, y = (torch.nn.utils.rnn.pad_sequence([row[k] for row in batch], True, value).to(device)
                    for k, value in ((1, 0), (2, -100)))
            found = model.token_losses(tokenizer.begun(x), y).double().cpu().numpy()
            for (start, _, targets), losses in zip(batch, found, strict=True):
                places = start + 1 + np.flatnonzero(targets >= 0)
                nats[places], scored[places] = losses[: len(targets)][targets >= 0], 1
        size = len(item["text"].encode())
        length = tokenizer.token_bytes()[ids].astype(np.float64)
        length[0] = 0
        length *= size / max(1.0, length.sum())  # a tokenizer may change what it reads
        cuts, ends = [*item["cuts"], size], np.cumsum(length)
        results.append([np.interp(cuts, ends, np.cumsum(amount)).tolist()
                        for amount in (nats, length * scored, scored)])
    return results


# ---- documents and their parts ---------------------------------------------------------------------------------------


def held_out(corpus, split, options):
    """
    (documents, every): (about, text) of a split, whole, up to about options.max_bytes of text and at least one; with
    options.quick of up to 24 documents every so many windows one.
    """
    found, total = [], 0
    for about, tokens in corpus.read_documents(split):
        if not (text := corpus.tokenizer.decode(tokens)):
            continue
        if found and (len(found) == QUICK_DOCUMENTS if options.quick else
                      total + len(text.encode()) > options.max_bytes):
            break  # not: look for one that fits, which would be a short one
        total += len(text.encode())
        found.append((about, text))
    return found, -(-total // QUICK_BYTES) if options.quick else 1


def parts(about, text):
    """(labels, cuts) of a filing: the (item or "", "text" or "tables") of each run of lines, and the bytes between."""
    spans = sorted((*item["span"], key) for key, item in about.get("items", {}).items() if item.get("span"))
    labels, cuts, place, size = [], [], 0, 0
    for line in text.split("\n"):
        inside = next((key for start, end, key in spans if start <= place < end), "")
        label = inside, "tables" if " | " in line else "text"
        if not labels or labels[-1] != label:
            labels.append(label)
            cuts.append(size)
        place, size = place + len(line) + 1, size + len(line.encode()) + 1
    return labels, cuts[1:]


def unigram_bits(corpus, texts):
    """Bits of each text under the frequencies of the training tokens, one added to each."""
    counts = np.ones(corpus.tokenizer.vocab_size)
    for shard in corpus.shards["train"]:
        for i in range(0, len(shard), 1 << 24):
            counts += np.bincount(shard[i : i + (1 << 24)], minlength=len(counts))
    bits = -np.log2(counts / counts.sum())
    return np.array([bits[corpus.tokenizer.encode(text)].sum() for text in texts])


def xz_bits(text):
    """Bits of the text under `xz -9e`, with no larger a dictionary than it can use."""
    raw = text.encode()
    dictionary = max(4096, 1 << min(26, len(raw).bit_length()))
    filters = [dict(id=lzma.FILTER_LZMA2, preset=9 | lzma.PRESET_EXTREME, dict_size=dictionary)]
    return 8 * len(lzma.compress(raw, lzma.FORMAT_RAW, filters=filters))  # the header of a file is no text


# ---- the part of the report ------------------------------------------------------------------------------------------


def figures(nats, size, tokens, company, seed):
    """What is said of a model on documents, from four arrays (N,), the last of which says whose they are."""
    loss, (bits, total) = nats.sum() / max(1e-9, tokens.sum()), by_company(company, nats / math.log(2), size)
    return dict(bits_per_byte=float(bits.sum() / max(1e-9, total.sum())), interval_95=stats.interval(bits, total, seed),
                loss=float(loss), perplexity=math.exp(min(loss, 50)), tokens=round(tokens.sum()),
                bytes=round(size.sum()), companies=len({*company.tolist()}))


def by_company(company, *values):
    """Arrays (N,), summed over the documents of each company; as they are of fewer than three companies."""
    unique, which = np.unique(company, return_inverse=True)
    return [np.bincount(which, v) for v in values] if len(unique) > 2 else list(values)


def run(ask, names, corpus, options):
    """
    {"models", "cells", "items", "tables", "general", "documents", ...}; models are those of names, then the controls,
    on the cell of new companies. options: max_bytes, quick, seed. ValueError where nothing is held out.
    """
    documents, scored = [], {name: [] for name in names}  # scored: per document, nats, bytes, tokens by part
    for cell in CELLS:
        if not corpus.tokens(cell):
            continue
        found, every = held_out(corpus, cell, options)
        cut = [parts(about, text) for about, text in found]
        items = [dict(text=text, cuts=cuts) for (_, text), (_, cuts) in zip(found, cut, strict=True)]
        documents += [dict(about=about, text=text, cell=cell, labels=labels)
                      for (about, text), (labels, _) in zip(found, cut, strict=True)]
        for name in names:
            answers = ask(name, nats_at, items, chunk=1, label=f"loss on {CELLS[cell]}", every=every)
            scored[name] += [np.diff(np.array(a), prepend=0.0) for a in answers]
    if not documents or documents[0]["cell"] != "val":
        raise ValueError(f"{corpus.directory} has no validation split; "
                         "build it with --val_fraction above 0 from at least two documents")

    company = companies_of([d["about"] for d in documents])

    def measured(in_cell, labelled=lambda label: True):
        """{name: figures} and bytes over the documents of these cells, of the parts whose label counts."""
        chosen = [i for i, d in enumerate(documents) if in_cell(d["cell"]) and any(map(labelled, d["labels"]))]
        sums = {name: np.array([scored[name][i][:, [labelled(label) for label in documents[i]["labels"]]].sum(1)
                                for i in chosen]).reshape(-1, 3).T for name in names}
        models = {name: figures(*sums[name], company[chosen], options.seed) for name in names if sums[name][1].sum()}
        return dict(documents=len(chosen), companies=len({*company[chosen].tolist()}),
                    bytes=max((m["bytes"] for m in models.values()), default=0), models=models)

    cells = {cell: dict(holds=CELLS[cell], overlap=corpus.manifest["splits"][cell].get("overlap"),
                        **measured(cell.__eq__))
             for cell in CELLS if any(d["cell"] == cell for d in documents)}
    items = {key: measured("val_neither".__ne__, lambda label, key=key: label[0] == key) for key in ITEMS}
    tables = {kind: measured("val_neither".__ne__, lambda label, kind=kind: label[1] == kind)
              for kind in ("text", "tables")}
    with open(GENERAL, encoding="utf-8") as f:
        pages = [dict(text=text.strip(), cuts=[]) for text in f.read().split("\n---\n")]
    general = {}
    for name in names:
        nats, size, tokens = np.array(ask(name, nats_at, pages, label="general English"))[:, :, 0].T
        general[name] = figures(nats, size, tokens, np.arange(len(pages)), options.seed)
        del general[name]["companies"]  # they are pages

    new, models = [i for i, d in enumerate(documents) if d["cell"] == "val"], []
    texts = [documents[i]["text"] for i in new]
    size = np.array([scored[names[0]][i][1].sum() for i in new])  # of a sample of windows these bytes count, for all
    rate = {name: np.array([scored[name][i][0].sum() / scored[name][i][1].sum() for i in new]) / math.log(2)
            for name in names}
    for name, found in ("unigram", unigram_bits(corpus, texts)), ("xz -9e, each document", [*map(xz_bits, texts)]):
        rate[name] = np.array(found) / [len(text.encode()) for text in texts]
    total, first = by_company(company[new], size, rate[names[0]] * size)
    for name in rate:
        bits, = by_company(company[new], rate[name] * size)
        known = cells["val"]["models"].get(name) or dict(control=True, companies=len({*company[new].tolist()}))
        models.append(dict(known, name=name, bits_per_byte=float(bits.sum() / total.sum()),
                           interval_95=stats.interval(bits, total, options.seed)))
        if name in names:
            models[-1]["bytes_per_token"] = known["bytes"] / known["tokens"]
        if name != names[0]:
            found = stats.paired(first, bits, total, options.seed)
            models[-1] |= dict(difference=found["difference"], difference_interval_95=found["interval_95"],
                               p=found["p"])
    for name in rate:
        for i, r in zip(new, rate[name].tolist(), strict=True):
            documents[i].setdefault("bits", {})[name] = r
    return dict(models=models, cells=cells, items={k: v for k, v in items.items() if v["models"]},
                tables={k: v for k, v in tables.items() if v["models"]}, general=general,
                documents=[dict(id=d["about"]["id"], company=d["about"].get("company"), whose=int(company[i]),
                                cell=d["cell"], bytes=len(d["text"].encode()),
                                scored_bytes=float(scored[names[0]][i][1].sum()), bits=d.get("bits") or {
                                    n: scored[n][i][0].sum() / math.log(2) / scored[n][i][1].sum() for n in names})
                           for i, d in enumerate(documents)])
