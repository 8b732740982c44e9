"""
A text as one vector: the mean of the hidden states of its tokens, (T, C) -> (C,).

    python sample.py runs/sec --embed texts.txt         # a vector for each line, as texts.txt.npy

States of a random network keep the words they were made from, so they alone go a long way: what is said of a model's
states is to be held against those of the same model with random weights.
"""
import dataclasses
import functools
import os

import numpy as np
import torch

import checkpoint
from decoder import LONGEST


def states(model, tokenizer, items, layers="all", random_weights=False):
    """
    Texts -> the mean over each one's tokens of the model's states, float32: (N, n_layer + 2, C) of the embedding, each
    block, and the last one after the final norm; "last": only these, (N, C). A text longer than the model's block_size
    is read in windows. Each begins as documents do in training, with an end-of-text or <bos>, which does not count: the
    first state is unlike all others, and far larger. random_weights: of a new model of the same config, always the same
    one.
    """
    if random_weights:
        model = fresh(type(model.config), dataclasses.astuple(model.config), str(model.wte.weight.device))
    T, start, windows, kept = min(LONGEST, model.config.block_size), tokenizer.start, [], []
    for i, text in enumerate(items):
        ids = tokenizer.encode(text).astype(np.int64)
        windows += [(i, torch.from_numpy(np.r_[start, ids[o : o + T - 1]]))
                    for o in range(0, max(1, len(ids)), max(1, T - 1))]
    windows.sort(key=lambda window: len(window[1]))  # batches with little padding
    found = np.zeros((len(items), model.config.n_layer + 2 if layers == "all" else 1, model.config.n_embd))
    tokens = np.zeros(len(items))
    hooks = [] if layers == "last" else [
        model.h[0].register_forward_pre_hook(lambda block, args: kept.append(args[0])),
        *(block.register_forward_hook(lambda block, args, out: kept.append(out)) for block in model.h)]
    while windows:
        count = max(1, 8192 // len(windows[-1][1]))
        windows, batch = windows[:-count], windows[-count:]
        which, rows = zip(*batch, strict=True)
        idx = torch.nn.utils.rnn.pad_sequence(rows, True, start)  # to the right, where no token sees it
        length, place = torch.tensor([[len(row)] for row in rows]), torch.arange(idx.shape[1])
        counts = (place < length) & ((place > 0) | (length == 1))  # an empty text has nothing but its end-of-text
        np.add.at(tokens, [*which], counts.sum(1).numpy())
        idx, counts = (t.to(model.wte.weight.device) for t in (idx, counts[:, :, None]))
        kept.append(model.hidden(idx))  # (B, T, C), after what the hooks kept
        for j, x in enumerate(kept):
            np.add.at(found[:, j], [*which], (x.float() * counts).sum(1).cpu().numpy())
        kept.clear()
    for hook in hooks:
        hook.remove()
    found = (found / tokens[:, None, None]).astype(np.float32)
    return found if layers == "all" else found[:, 0]


@functools.lru_cache(1)
def fresh(kind, config, device):
    with torch.random.fork_rng(devices=[]):  # drawn on the CPU, so that every device has the same ones
        torch.manual_seed(0)
        return checkpoint.build(kind(*config)).to(device).eval()


def write(path, texts, out, device, dtype):
    """Write a checkpoint's states after the final norm of texts, (N, C) float32; returns a line that says so."""
    model, tokenizer = checkpoint.load(path, device)
    with torch.inference_mode(), torch.autocast(device.type, getattr(torch, dtype), enabled=dtype != "float32"):
        rows = states(model.eval(), tokenizer, texts, "last")
    with open(out + ".tmp", "wb") as f:
        np.save(f, rows)
    os.replace(out + ".tmp", out)
    return f"wrote {out}: {len(rows):,} texts x {rows.shape[1]:,} float32; read it with numpy.load({out!r})"
