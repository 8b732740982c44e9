"""
How weights move: AdamW or Muon, what a checkpoint keeps of them, and the learning rate over the run.

    optimizers = make(model, args, device)                 # args: the flags of train.py
    group["lr"] = args.lr * learning_rate(step, args)
    tensors(model, optimizers); restore(model, optimizers, tensors)
"""
import math

import torch
import torch.distributed as dist


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
        joint = {n: p for n, p in matrices.items() if n.endswith("c_attn.weight")}
        groups = [dict(params=[p for n, p in matrices.items() if n not in joint])]
        groups += [dict(params=list(joint.values()), parts=3)] if joint else []  # queries, keys and values
        dtype = torch.float32 if args.dtype == "float32" else torch.bfloat16
        optimizers.append(Muon(groups, args.lr, args.weight_decay, args.momentum, dtype))
    owned = [id(p) for o in optimizers for g in o.param_groups for p in g["params"]]
    assert sorted(owned) == sorted(map(id, named.values())), "every parameter belongs to exactly one optimizer"
    return optimizers


class Muon(torch.optim.Optimizer):
    """
    Momentum, made orthogonal (Jordan et al. 2024): all directions of a matrix's update get about the same size, the
    rare ones, too. Scaled to AdamW's usual size per element, 0.2 x lr (Liu et al. 2025).

    Matrices of one shape, or its transpose, go through the iteration as a batch: a GPU is busy with one large product
    where it would idle between many small ones. And every rank orthogonalizes a share of the batch only, then they
    hand theirs round: the gradients are the same on all of them.

    found_inf, if set to a tensor (), makes a step with 1 change nothing, as in torch's fused optimizers: the host need
    not know.
    """

    BATCH = 2**26  # elements at a time: 128 MB in bfloat16, and a few times that while it runs

    def __init__(self, groups, lr, weight_decay, momentum, dtype=torch.bfloat16):
        super().__init__(groups, dict(lr=lr, weight_decay=weight_decay, momentum=momentum, parts=1))
        self.dtype = dtype  # of the iteration

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for p in group["params"]:
                shapes.setdefault(tuple(sorted(p.shape)), []).append(p)
            for params in shapes.values():
                n = max(1, self.BATCH // params[0].numel())
                for i in range(0, len(params), n):
                    self.move(params[i : i + n], **{k: v for k, v in group.items() if k != "params"})

    def move(self, params, lr, weight_decay, momentum, parts):
        """params: matrices (m, n) or (n, m), each of `parts` that lie below one another and are taken by themselves."""
        keep = 1 - getattr(self, "found_inf", torch.zeros((), device=params[0].device))
        matrices = []
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            buffer, grad = self.state[p]["momentum_buffer"], torch.where(keep > 0, p.grad, 0)
            buffer.lerp_(grad, (1 - momentum) * keep)
            grad.lerp_(buffer, momentum)  # Nesterov's: as if the next gradient were this one
            matrices += [m if m.shape[0] <= m.shape[1] else m.t() for m in grad.to(self.dtype).chunk(parts)]
        lr_of_update = 0.2 * math.sqrt(matrices[0].shape[1]) * lr
        updates = shared(matrices, orthogonalize).split(parts)
        for p, update in zip(params, updates, strict=True):
            update = update if p.shape[0] <= p.shape[1] * parts else update.mT
            p.mul_(1 - lr * weight_decay * keep)
            p.addcmul_(update.reshape(p.shape).to(p.dtype), keep, value=-lr_of_update)


def shared(matrices, function):
    """function(stack of matrices), each rank's a share of the stack, all of the result on every rank."""
    world = dist.get_world_size() if dist.is_initialized() else 1
    if world == 1:
        return function(torch.stack(matrices))
    n = -(-len(matrices) // world)  # a rank's share; the last ones' may be short of it
    mine = range(dist.get_rank() * n, dist.get_rank() * n + n)
    mine = function(torch.stack([matrices[min(i, len(matrices) - 1)] for i in mine]))
    everything = mine.new_empty(world * n, *mine.shape[1:])
    dist.all_gather_into_tensor(everything, mine.contiguous())
    return everything[: len(matrices)]


def orthogonalize(x):
    """
    x (N, m, n), m <= n, -> x with its singular values near 1 (0.7 to 1.2). Five steps of a Newton-Schulz iteration
    whose quintic pulls small singular values up fast, where the textbook's is exact and slow.
    """
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        a = x @ x.mT
        b = torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, b, x, beta=3.4445)
    return x


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
