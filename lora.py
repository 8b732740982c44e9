"""
LoRA and QLoRA (Hu et al. 2021; Dettmers et al. 2023): train a small correction beside frozen weights.

    add_lora(model, rank=16)                       # every linear W becomes W + (alpha / rank) * B @ A; only A, B train
    add_lora(model, rank=16, quantize="nf4")       # QLoRA: and W is kept in 4 bits
    save_adapter(model, "runs/mine")               # A and B alone, a few megabytes, as PEFT writes them
    load_adapter(model, "runs/mine")               # onto the same base
    merge_lora(model)                              # W + BA in float32: a plain model again; unmerge_lora undoes it

A (rank, in) starts random and B (out, rank) at zero, so that a fresh adapter changes no bit of the output. Both are
float32 whatever the base is. Works on any tree of modules with nn.Linear in it.
"""
import hashlib
import json
import math
import os

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from kernels import NF4Tensor, dequantize_nf4, nf4_linear, quantize_nf4


class NF4Linear(nn.Module):
    """A frozen linear whose weight (out, in) lies in NF4. Its state_dict is that of bitsandbytes' Linear4bit."""

    def __init__(self, q, bias=None):
        super().__init__()
        self.q = q  # an attribute, not buffers: model.to(dtype) must leave the scales in float32
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.out_features, self.in_features = q.shape

    def forward(self, x):
        return nf4_linear(x, self.q, self.bias)

    def _apply(self, fn, recurse=True):
        self.q = self.q.to(fn(self.q.packed).device)
        return super()._apply(fn, recurse)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update(self.q.state_dict(prefix + "weight"))

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        own = {k: v for k, v in state_dict.items() if k.startswith(prefix)}
        if prefix + "weight" in own:
            q = NF4Tensor.from_state_dict(own, prefix + "weight")
            if q.shape != self.q.shape:
                raise ValueError(f"{prefix}weight is {tuple(q.shape)}, this layer's {tuple(self.q.shape)}")
            self.q = q.to(self.q.packed.device)
        else:
            rest[2].append(prefix + "weight")  # the missing keys
        super()._load_from_state_dict(own, prefix, *rest)

    def extra_repr(self):
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class LoRALinear(nn.Module):
    """base(x) + scale * (dropout(x) @ A.T) @ B.T, where base is a frozen nn.Linear or NF4Linear."""

    def __init__(self, base, rank, alpha, dropout=0.0, rslora=False):
        super().__init__()
        self.base = base
        self.in_features, self.out_features = base.in_features, base.out_features
        self.rank, self.alpha, self.dropout, self.rslora = rank, alpha, dropout, rslora
        self.scale = alpha / (math.sqrt(rank) if rslora else rank)
        device = (base.q.packed if isinstance(base, NF4Linear) else base.weight).device
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, device=device))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))  # PEFT's choice; uniform in +-1/sqrt(in)
        self.train(base.training)

    def forward(self, x):
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        x, a, b = x.to(dtype), self.lora_A.to(dtype), self.lora_B.to(dtype)
        if self.dropout and self.training:  # then the two branches see different inputs
            return self.base(x) + self.scale * F.linear(F.linear(F.dropout(x, self.dropout), a), b)
        if isinstance(self.base, NF4Linear):
            return nf4_linear(x, self.base.q, self.base.bias, a, b, self.scale)
        weight, bias = (None if t is None else t.to(dtype) for t in (self.base.weight, self.base.bias))
        return LowRankLinear.apply(x.reshape(-1, x.shape[-1]), weight, bias, a, b, self.scale).view(
            *x.shape[:-1], len(weight))

    def delta(self):
        """What the adapter adds to the weight, (out, in) float32."""
        return self.scale * (self.lora_B.float() @ self.lora_A.float())


class LowRankLinear(torch.autograd.Function):
    """
    x (M, in), weight (out, in), bias, a (r, in), b (out, r) -> x @ weight.T + bias + scale * (x @ a.T) @ b.T.

    The low-rank branch is added into the product where it lies, in both directions: autograd alone would write each
    branch out and add them in passes of their own.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, a, b, scale):
        u = (x @ a.t()).mul_(scale)  # (M, r)
        ctx.save_for_backward(x, weight, a, b, u)
        ctx.scale = scale
        return F.linear(x, weight, bias).addmm_(u, b.t())

    @staticmethod
    def backward(ctx, dy):
        x, weight, a, b, u = ctx.saved_tensors
        du = (dy @ b).mul_(ctx.scale)
        dx = (dy @ weight).addmm_(du, a) if ctx.needs_input_grad[0] else None
        return dx, None, None, du.t() @ x, dy.t() @ u, None


# ----------------------------------------------------------------------------------------------------------------------
# Adding


def linears(model):
    """The linears of a tree by name, adapted ones as one; plain, in NF4, or with LoRA."""
    inside = {id(m.base) for m in adapters(model).values()}
    return {n: m for n, m in model.named_modules()
            if isinstance(m, nn.Linear | NF4Linear | LoRALinear) and id(m) not in inside}


def choose(model, targets):
    """
    The names of the linears that `targets` means: "all-linear", or names (a list, or one string with commas), each the
    end of a linear's full name, as in PEFT: "c_attn", "mlp.c_proj". Output heads are in all-linear never.
    """
    tables = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    heads = {n for n, m in linears(model).items() if n.endswith("lm_head") or n in ("head", "output")
             or isinstance(m, nn.Linear) and any(m.weight is t for t in tables)}
    if targets == "all-linear":
        return [n for n in linears(model) if n not in heads]
    names = [t.strip() for t in targets.split(",")] if isinstance(targets, str) else list(targets)
    chosen = [n for n in linears(model) if any(n == t or n.endswith("." + t) for t in names)]
    for t in names:
        if not any(n == t or n.endswith("." + t) for n in chosen):
            raise ValueError(f"no linear of this model is called {t or 'the empty name'}; there are "
                             + ", ".join(sorted({n.rsplit('.', 1)[-1] for n in linears(model)}))
                             + ("; the output head is the embedding and takes no adapter"
                                if t in ("wte", "lm_head", "embed_tokens") else ""))
    return chosen


def put(model, name, module):
    """Set a submodule by its full name."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def quantize_linears(model):
    """Turn every linear but the output head into NF4, in place; bfloat16 or float32 becomes 4.127 bits a weight."""
    for name in choose(model, "all-linear"):
        layer = model.get_submodule(name)
        if isinstance(layer, nn.Linear):
            try:
                put(model, name, NF4Linear(quantize_nf4(layer.weight), layer.bias).train(layer.training))
            except ValueError as e:
                raise ValueError(f"{name}: {e}") from None
    for p in model.parameters():
        if p.device.type == "cpu":  # the rest may lie in a file that is mapped into memory: let go of it
            p.data = p.data.clone()
    return model


def add_lora(model, rank=16, alpha=32, targets="all-linear", dropout=0.0, quantize=None, rslora=False):
    """
    Put LoRA on the linears that `targets` means (see choose) and freeze everything else, in place; returns the model.
    quantize="nf4" turns all the frozen linears into NF4 first. rslora scales by alpha / sqrt(rank) (Kalajdzievski 2023)
    instead of alpha / rank. Raises ValueError for targets that are not there and for a model that has LoRA already.
    """
    if rank < 1 or not 0 <= dropout < 1 or quantize not in (None, "nf4"):
        raise ValueError(f"rank {rank} must be at least 1, dropout {dropout} in [0, 1), quantize {quantize!r} nf4 or "
                         "None")
    if adapters(model):
        raise ValueError("this model has LoRA on it already; merge_lora(model) first")
    chosen = choose(model, targets)
    if not chosen:
        raise ValueError("this model has no nn.Linear to adapt, but for an output head")
    if quantize:
        quantize_linears(model)
    model.requires_grad_(False)
    for name in chosen:
        put(model, name, LoRALinear(model.get_submodule(name), rank, alpha, dropout, rslora))
    return model


def adapters(model):
    """The adapted linears: name -> LoRALinear."""
    return {n: m for n, m in model.named_modules() if isinstance(m, LoRALinear)}


def is_quantized(model):
    return any(isinstance(m, NF4Linear) for m in model.modules())


def cast_frozen(model, dtype):
    """
    Keep the frozen matrices and linears' biases in the dtype they are multiplied in: half the memory, and no cast at
    every step. Norms are in float32.
    """
    for module in model.modules():
        for p in module.parameters(recurse=False):
            if not p.requires_grad:
                p.data = p.data.to(dtype if isinstance(module, nn.Linear | NF4Linear | nn.Embedding) else torch.float32)
    return model


def count(model):
    """(trainable, all) parameters, those in NF4 counted as weights."""
    own = list(model.parameters())
    packed = sum(m.q.shape.numel() for m in model.modules() if isinstance(m, NF4Linear))
    return sum(p.numel() for p in own if p.requires_grad), sum(p.numel() for p in own) + packed


# ----------------------------------------------------------------------------------------------------------------------
# Merging


@torch.no_grad()
def merge_lora(model, original=None, keep=True):
    """
    Turn every adapted or quantized linear into a plain one, W + scale * B @ A, in place; returns the model, a plain one
    again, all of which may train. The sum is taken in float32, and rounded once if the model is in another dtype.

    A base in NF4 is dequantized, so that the merged model computes what was trained: the adapters have learnt to make
    up for the rounding too. original: the same model before quantization, to merge onto its weights instead.
    keep=False forgets the layers from before, which only unmerge_lora needs.
    """
    for name, layer in linears(model).items():
        if isinstance(layer, nn.Linear):
            continue
        base = layer.base if isinstance(layer, LoRALinear) else layer
        source = base if original is None else original.get_submodule(name)
        weight = dequantize_nf4(source.q, torch.float32) if isinstance(source, NF4Linear) else source.weight.float()
        if isinstance(layer, LoRALinear):
            weight = weight.to(layer.lora_A.device) + layer.delta()
        if isinstance(base, NF4Linear):
            dtype = base.q.dtype if base.bias is None else base.bias.dtype
        else:
            dtype = base.weight.dtype
        merged = nn.Linear(layer.in_features, layer.out_features, bias=base.bias is not None, device="meta")
        merged.weight = nn.Parameter(weight.to(dtype))
        if base.bias is not None:
            merged.bias = nn.Parameter(source.bias.to(weight.device, dtype))
        if keep:
            object.__setattr__(merged, "unmerged", layer)  # not as a submodule: the merged model is a plain one
        put(model, name, merged.train(layer.training))
    return model.requires_grad_(True)


def unmerge_lora(model):
    """Undo merge_lora exactly: the very layers from before are put back, on the device and in the dtype of then."""
    for name, layer in linears(model).items():
        if hasattr(layer, "unmerged"):
            put(model, name, layer.unmerged)
    model.requires_grad_(False)
    for layer in adapters(model).values():
        layer.lora_A.requires_grad_(True)
        layer.lora_B.requires_grad_(True)
    return model


# ----------------------------------------------------------------------------------------------------------------------
# Adapters on disk, as PEFT writes them


def weights_sha256(directory):
    """What tells one set of base weights from another: the sha256 of a checkpoint directory's safetensors files."""
    digest = hashlib.sha256()
    for name in sorted(os.listdir(directory)):
        if name.startswith(("model", "adapter_model")) and name.endswith(".safetensors"):
            with open(os.path.join(directory, name), "rb") as f:
                while block := f.read(1 << 24):
                    digest.update(block)
    return digest.hexdigest()


def save_adapter(model, directory, base=None, base_sha256=""):
    """
    Write adapter_config.json and adapter_model.safetensors so that PEFT loads them onto the transformers model.

    base: the directory or hub id to name as the base, by default where the model came from. base_sha256, from
    weights_sha256, and whether the base was in NF4 go into the safetensors file's metadata. Raises ValueError if the
    model has no LoRA, or adapters of several alphas.
    """
    found = adapters(model)
    if not found:
        raise ValueError("the model has no LoRA to save; add_lora(model) first")
    kinds = {(m.alpha, m.dropout, m.rslora) for m in found.values()}
    if len(kinds) > 1:
        raise ValueError(f"adapters of several (alpha, dropout, rslora) can't be saved as one: {sorted(kinds)}")
    alpha, dropout, rslora = kinds.pop()
    rank = max(m.rank for m in found.values())
    prefix = getattr(model, "hf_prefix", "")
    ends = {n.rsplit(".", 1)[-1] for n in found}
    short = len(found) == sum(n.rsplit(".", 1)[-1] in ends for n in linears(model))  # do the last names say it all?
    config = dict(peft_type="LORA", task_type="CAUSAL_LM",
                  base_model_name_or_path=os.fspath(base) if base else getattr(model, "origin", None),
                  r=rank, lora_alpha=alpha, lora_dropout=dropout, use_rslora=rslora, bias="none",
                  target_modules=sorted(ends if short else (prefix + n for n in found)),
                  fan_in_fan_out=getattr(model, "hf_conv1d", False), init_lora_weights=True, inference_mode=True,
                  use_dora=False, modules_to_save=None, alpha_pattern={},
                  rank_pattern={prefix + n: m.rank for n, m in found.items() if m.rank != rank})
    tensors = {f"base_model.model.{prefix}{n}.{part}.weight": getattr(m, part).detach().float().cpu().contiguous()
               for n, m in found.items() for part in ("lora_A", "lora_B")}
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, "adapter_model.safetensors")
    every = all(isinstance(getattr(m, "base", m), NF4Linear)
                for m in map(model.get_submodule, choose(model, "all-linear")))
    save_file(tensors, path + ".tmp", metadata={"format": "pt", "quantize": "nf4" if every else "",
                                                "base_sha256": base_sha256})
    os.replace(path + ".tmp", path)
    path = os.path.join(directory, "adapter_config.json")
    with open(path + ".tmp", "w") as f:
        json.dump(config, f, indent=2)
    os.replace(path + ".tmp", path)


# PEFT's settings that a plain LoRA may have: as they like, or with this value
HARMLESS = {"auto_mapping", "base_model_name_or_path", "eva_config", "exclude_modules", "fan_in_fan_out",
            "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha",
            "lora_dropout", "megatron_core", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision",
            "target_modules", "task_type", "use_rslora"}
PLAIN = dict(peft_type="LORA", bias="none")


def read_adapter(directory):
    """(adapter_config, tensors, metadata) of an adapter directory; ValueError if it is damaged or not plain LoRA."""
    try:
        with open(os.path.join(directory, "adapter_config.json")) as f:
            config = json.load(f)
        if not isinstance(config, dict):
            raise ValueError("adapter_config.json holds no object")
        path = os.path.join(directory, "adapter_model.safetensors")
        if not os.path.isfile(path):
            raise FileNotFoundError(f"{directory} has no adapter_model.safetensors; only safetensors are read")
        with safe_open(path, "pt") as f:
            metadata = f.metadata() or {}
        tensors = load_file(path)
    except (ValueError, SafetensorError) as e:
        raise ValueError(f"the adapter in {directory} is damaged ({e}); copy it again") from None
    for key, value in config.items():  # of what we do not know, PEFT says None or False where it is not in use
        if value and key not in HARMLESS and value != PLAIN.get(key):
            raise ValueError(f"{directory} has {key} = {value!r}; only plain LoRA, without, is read")
    start = config.get("init_lora_weights")
    if start not in (True, False, None, "gaussian", "orthogonal", "eva"):
        raise ValueError(f"{directory} has init_lora_weights = {start!r}, which changes the base's own weights; "
                         "convert it to plain LoRA with PEFT first")
    for key, limit in (("r", math.inf), ("lora_alpha", math.inf), ("lora_dropout", 1)):
        value = config.get(key, 0.0 if key == "lora_dropout" else None)
        if not isinstance(value, int | float) or not 0 <= value < limit:
            raise ValueError(f"{directory}/adapter_config.json has no number for {key}")
    if not isinstance(config.get("use_rslora"), bool | None):
        raise ValueError(f"{directory}/adapter_config.json says neither true nor false for use_rslora")
    if not isinstance(config.get("base_model_name_or_path"), str | None):
        raise ValueError(f"{directory}/adapter_config.json has no name for base_model_name_or_path")
    return config, tensors, metadata


def load_adapter(model, directory, quantize="as trained"):
    """
    Put the adapter of a directory, ours or PEFT's, on its base model, in place; returns the model, all but the adapter
    frozen. An adapter that was trained beside NF4 quantizes the model too; quantize="nf4" or None says otherwise.

    Raises ValueError, and leaves the model as it was, if the adapter does not fit the model, or if the model's weights
    come from a directory whose files are not those that the adapter was trained on.
    """
    config, tensors, metadata = read_adapter(directory)
    prefix = getattr(model, "hf_prefix", "")
    names = [key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight")]
    names = {key: key.removeprefix("base_model.model.").removeprefix(prefix) for key in names}
    if not names or len(tensors) != 2 * len(names):
        raise ValueError(f"{directory} holds {len(tensors)} tensors that are no pairs of lora_A and lora_B of linears; "
                         "only plain LoRA is read")
    found = linears(model)
    for key, name in names.items():
        a, b = (tensors.get(f"{key}.{part}.weight", torch.empty(0)) for part in ("lora_A", "lora_B"))
        fits = name in found and a.dim() == 2 and len(a) and a.shape[1] == found[name].in_features and (
            b.shape == (found[name].out_features, len(a))) and (len(a) == config["r"] or config.get("rank_pattern"))
        if not fits:
            raise ValueError(f"{directory} was made for another model: its {name} does not fit this one's")
    expected, origin = metadata.get("base_sha256"), getattr(model, "origin", None)
    if expected and origin and weights_sha256(origin) != expected:
        raise ValueError(f"the adapter {directory} was trained on other weights than those that are now in {origin}")

    for name, layer in adapters(model).items():
        put(model, name, layer.base)
    if quantize == "nf4" or quantize and metadata.get("quantize"):
        quantize_linears(model)
    model.requires_grad_(False)
    for key, name in names.items():
        a, b = (tensors[f"{key}.{part}.weight"] for part in ("lora_A", "lora_B"))
        layer = LoRALinear(model.get_submodule(name), len(a), config["lora_alpha"], config.get("lora_dropout", 0.0),
                           bool(config.get("use_rslora")))
        layer.lora_A.data.copy_(a)
        layer.lora_B.data.copy_(b)
        put(model, name, layer)
    return model
