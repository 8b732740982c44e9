"""
The memory that training will take, before it takes it: python train.py ... --plan

Three ways to train the same model stand side by side: all of it, LoRA and QLoRA. Weights, gradients and AdamW's two
moments are counted from shapes. Activations are not guessed by a formula: the model runs a forward pass on tensors
without contents (FakeTensorMode), and what autograd keeps for the backward pass is added up, so the plan follows the
code. What can't be seen from here, the libraries' own buffers and fragmentation, is a reserve that stays free.

    peak = weights + optimizer + max(activations + loss, gradients)       or their sum, where gradients accumulate
"""
import math
from dataclasses import replace

import torch
import torch.nn as nn
from torch._subclasses.fake_tensor import FakeTensorMode

import lora
from checkpoint import build
from kernels.nf4 import BLOCK, NESTED_BLOCK

MODES = ("full", "LoRA", "QLoRA")
CARDS = (12, 16, 24, 48, 80)  # GB
RESERVE = 0.06  # of a card: CUDA's context, workspaces, fragmentation
GB = 2**30  # as the makers of graphics cards count


def kept_for_backward(config, n_layer, batch, T, dtype, adapt):
    """Bytes that autograd holds after a forward pass over (batch, T) tokens, the parameters not counted."""
    model = adapt(build(replace(config, n_layer=n_layer)))
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # by identity: several nodes may save the same one
        return tensor

    idx = torch.zeros(batch, T, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            _, loss = model(idx, idx, reduction="sum")  # held until the bytes are counted
    return sum(storage.nbytes() for storage in kept.values())


def measure(config, mode, rank, targets, T, dtype, gpu=True, muon=False, recompute=False, learnt=1.0):
    """
    Bytes of what does not depend on the batch, and of what one more sequence of T tokens adds. recompute: with
    activation checkpointing, of a layer only its input is kept, but for the one that is being made again. learnt: the
    share of the tokens that are to be learnt, and so meet the output head.
    """
    def adapt(model):
        if mode == "full":
            return model
        whole = len(model.h) == config.n_layer  # the targets may name a layer that a shorter model lacks
        return lora.cast_frozen(lora.add_lora(model, rank, targets=targets if whole else "all-linear"), dtype)

    L = config.n_layer
    with FakeTensorMode():
        # layers are alike, so one and two of them tell about any number; the same goes for sequences
        one, two = (kept_for_backward(config, 1, batch, T, dtype, adapt) for batch in (1, 2))
        deeper_one, deeper_two = (kept_for_backward(config, 2, batch, T, dtype, adapt) for batch in (1, 2))
        layer_one, layer_two = deeper_one - one, deeper_two - two
        if recompute:
            layer_one, layer_two = (batch * T * config.n_embd * dtype.itemsize for batch in (1, 2))
        one, two = one + (L - 1) * layer_one, two + (L - 1) * layer_two
        model = adapt(build(config))
        trainable, total = lora.count(model)
        sizes = [m.in_features * m.out_features for m in lora.linears(model).values()]
        widths = [m.out_features for m in lora.linears(model.h[0]).values()]
        widest = max(widths)
        frozen = sum(p.numel() * p.element_size() for p in model.parameters() if not p.requires_grad)
    half, head = dtype.itemsize, config.vocab_size * config.n_embd
    padded = config.vocab_size % 64 > 0
    packed = sum(sizes) if mode == "QLoRA" else 0
    per_sequence = two - one
    norms, inside = (sum(isinstance(m, nn.LayerNorm) for m in part.modules()) for part in (model, model.h[0]))
    if gpu and half == 2:  # autocast on a GPU takes them in float32: it keeps a wide copy of each one's input
        per_sequence += 2 * config.n_embd * T * (norms - inside * (L - 1 if recompute else 0))
    bits = 4 + 8 / BLOCK + 32 / (BLOCK * NESTED_BLOCK)
    return dict(
        parameters=total, trainable=trainable,
        weights=frozen - packed * half + math.ceil(packed * bits / 8) if mode != "full" else 4 * total,
        adapters=4 * trainable if mode != "full" else 0,
        optimizer=(4 * sum(sizes) + 8 * (total - sum(sizes))) if muon and mode == "full" else 8 * trainable,
        gradients=4 * trainable,
        kept=2 * one - two, per_sequence=per_sequence,
        # of backward: the gradients on both sides of an activation function, which may have two inputs, and two of the
        # residual stream
        in_flight=T * half * ((1 + widths.count(widest)) * widest + 2 * config.n_embd),
        # of the loss: a row of logits, in 16 bits and on a GPU in float32, too; the head in 16 bits, where it is not so
        # already, or padded; in full training its gradient
        row=config.vocab_size * (half if not gpu or half == 4 else 4 + half),
        learnt=learnt, rows=max(512, 2**28 // config.vocab_size // 64 * 64) if gpu else 512,
        head=head * half * (padded or (half == 2 and mode == "full")) + (head * (half + 4) if mode == "full" else 0),
        unpacked=max(sizes) * half if packed else 0)


def at(m, batch, T, accumulated):
    """The lines of the plan for a micro-batch of that many sequences: name -> bytes, "peak" the last."""
    lines = {name: m[name] for name in ("weights", "adapters", "optimizer", "gradients")}
    lines["activations"] = m["kept"] + batch * m["per_sequence"]
    lines["loss or backward"] = max(
        m["row"] * min(math.ceil(batch * T * m["learnt"]), m["rows"]) + m["head"], batch * m["in_flight"])
    lines["unpacked weight"] = m["unpacked"]
    working = lines["activations"] + lines["loss or backward"] + lines["unpacked weight"]
    still = lines["weights"] + lines["adapters"] + lines["optimizer"]
    together = working + lines["gradients"] if accumulated else max(working, lines["gradients"])
    return lines | {"peak": still + together}


def largest(m, T, accumulated, room):
    """The largest micro-batch whose peak fits in `room` bytes; 0 if none does."""
    batch = 1
    while at(m, 2 * batch, T, accumulated)["peak"] <= room and batch < 1 << 20:
        batch *= 2
    low, high = 0, 2 * batch  # the answer is in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(m, middle, T, accumulated)["peak"] <= room else (low, middle)
    return low


def fitting(config, mode, rank, targets, T, dtype, muon, room, recompute=None, learnt=1.0):
    """
    The most sequences of T tokens at a time that fit in `room` bytes of a GPU, and whether their activations are to be
    recomputed: if not told, only where nothing fits otherwise. Raises ValueError if nothing does.
    """
    for again in (False, True) if recompute is None else (bool(recompute),):
        batch = largest(measure(config, mode, rank, targets, T, dtype, True, muon, again, learnt), T, True, room)
        if batch:
            return batch, again
    raise ValueError(f"not even one sequence of {T} tokens fits in the {room / GB:.1f} GB that are free; lower "
                     "--seq_len, or train less of the model: --lora_rank 16 --quantize nf4")


def table(config, batch, T, rank, targets, dtype, gpu=True, muon=False, accumulated=False, learnt=1.0):
    """The plan in words and columns."""
    measured, recomputed = ({mode: measure(config, mode, rank, targets, T, dtype, gpu, muon, recompute, learnt)
                             for mode in MODES} for recompute in (False, True))
    plans = {mode: at(m, batch, T, accumulated) for mode, m in measured.items()}
    c, full = config, measured["full"]
    names = ["full", f"LoRA r{rank}", f"QLoRA r{rank}"]
    out = [f"{full['parameters']:,} parameters: {c.n_layer} layers, {c.n_head} heads, {c.n_embd} channels, vocabulary "
           f"{c.vocab_size:,}; micro-batch {batch} x {T} tokens, {f'{learnt:.0%}' if learnt < 1 else 'all'} to be"
           f" learnt, {str(dtype).removeprefix('torch.')} products on a {'GPU' if gpu else 'CPU'}, not compiled", "",
           f"{'GB':<28}" + "".join(f"{name:>14}" for name in names),
           f"{'trainable parameters':<28}" + "".join(f"{m['trainable']:>14,}" for m in measured.values())]
    for name in plans["full"]:
        out.append(f"{name:<28}" + "".join(f"{p[name] / GB:>14,.3f}" if p[name] else f"{'-':>14}"
                                           for p in plans.values()))
    out += ["", f"largest micro-batch of {T} tokens on a card of (with activations kept / recomputed)"]
    for card in CARDS:
        fits = [[largest(m[mode], T, accumulated, card * GB * (1 - RESERVE)) for m in (measured, recomputed)]
                for mode in MODES]
        out.append(f"{card:>6} GB{'':<19}" + "".join(f"{f'{n} / {r}' if r else 'does not fit':>14}" for n, r in fits))
    return "\n".join(out)
