"""
How weights move: AdamW or Muon, what a checkpoint keeps of them, and the learning rate over the run.

    optimizers = make(model, args, device)                 # args: the flags of train.py
    group["lr"] = args.lr * learning_rate(step, args)
    tensors(model, optimizers); restore(model, optimizers, tensors)
"""
import math

import torch


def make(model, args, device):
    """
    AdamW for everything; or Muon (Jordan et al. 2024) for the blocks' matrices and AdamW for embeddings, biases and
    norms. Muon's step is scaled to AdamW's usual size (Liu et al. 2025), so that one learning rate and weight decay
    serve both.
    """
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    matrices = {n: p for n, p in named.items()
                if p.dim() == 2 and n.startswith("h.")} if args.optimizer == "muon" else {}
    others = {n: p for n, p in named.items() if n not in matrices}
    groups = [dict(params=[p for p in others.values() if p.dim() >= 2], weight_decay=args.weight_decay),
              dict(params=[p for p in others.values() if p.dim() < 2], weight_decay=0.0)]
    optimizers = [torch.optim.AdamW([g for g in groups if g["params"]], lr=args.lr, betas=(args.beta1, args.beta2),
                                    fused=device.type in ("cuda", "cpu", "mps"))]
    if matrices:
        optimizers.append(torch.optim.Muon(list(matrices.values()), lr=args.lr, weight_decay=args.weight_decay,
                                           momentum=args.momentum, adjust_lr_fn="match_rms_adamw"))
    owned = [id(p) for o in optimizers for g in o.param_groups for p in g["params"]]
    assert sorted(owned) == sorted(map(id, named.values())), "every parameter belongs to exactly one optimizer"
    return optimizers


def tensors(model, optimizers):
    """
    All optimizer state as {"parameter/key": tensor}: named, so that it does not depend on the order of parameters.
    """
    names = {p: n for n, p in model.named_parameters()}
    return {f"{names[p]}/{key}": value.detach().cpu().contiguous() for o in optimizers for p, entry in o.state.items()
            for key, value in entry.items()}


def restore(model, optimizers, tensors):
    """Put back what `tensors` gave."""
    owner = {p: o for o in optimizers for g in o.param_groups for p in g["params"]}
    named = dict(model.named_parameters())
    for key, tensor in tensors.items():
        name, field = key.rsplit("/", 1)
        p = named[name]
        on_device = tensor if field == "step" and not owner[p].defaults.get("fused") else tensor.to(p.device)
        owner[p].state[p][field] = on_device


def learning_rate(step, args):
    """The factor on the peak learning rate at this step, in (0, 1]."""
    if step < args.warmup_steps:
        return (step + 1) / (args.warmup_steps + 1)
    if args.schedule == "wsd":
        decay = max(1, round(args.decay_fraction * args.steps))
        left = min(1.0, (args.steps - step) / decay)
        return args.min_lr + (1 - args.min_lr) * left
    progress = (step - args.warmup_steps) / max(1, args.steps - args.warmup_steps)
    return args.min_lr + (1 - args.min_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
