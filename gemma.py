"""
Gemma 3 in one file, text only: 270M, 1B, and the language model inside 4B, 12B and 27B.

    model = Gemma.from_pretrained("google/gemma-3-1b-it")     # a directory or a hub id; the first time, see download()
    logits, loss = model(idx, targets)                        # as those of a GPT in model.py
    model = Gemma(SIZES["gemma-3-270m"])                      # random weights

Beside GPT-2, six years later (Gemma Team 2025, "Gemma 3 Technical Report"):

  norms       RMSNorm instead of LayerNorm, in float32, before and after attention and MLP: four to a block. It
              multiplies by 1 + weight, so that zero is the identity.
  positions   none are added. Queries and keys are rotated by an angle that grows with the position (RoPE, Su et al.
              2021), so that a product of the two knows only how far apart they are.
  attention   queries and keys are normalised first. Few key and value heads serve many query heads (GQA, Ainslie et
              al. 2023), and a head is as wide as it likes: 4 x 256 = 1024 beside 1152 channels in the 1B.
  windows     five layers of six see only the last 512 tokens, and rotate fast (a period of up to 60,000 tokens); the
              sixth sees everything, and rotates slowly. So five of six caches stay short, however long the text is.
  MLP         down(gelu(gate(x)) * up(x)).
  embedding   262,144 tokens, scaled by sqrt(C) on the way in; the same matrix is the output head.

Gemma was trained in bfloat16, and its residual stream grows beyond the 65,504 that float16 holds. Where products are in
float16, as on a T4, the stream stays in float32 here, and the widest activations are scaled row by row (GatedGELU).

Shapes in the comments: B sequences, T tokens, C channels, H query heads and G key and value heads of D, V vocabulary.
"""
import math
import os
from dataclasses import dataclass, fields, replace

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.utils.checkpoint

from decoder import LanguageModel, drop_tied_head, read_hf_config, read_weights

LOCAL, GLOBAL = "sliding_attention", "full_attention"


@dataclass
class GemmaConfig:
    vocab_size: int = 262144
    block_size: int = 32768  # the longest sequence, in tokens
    n_layer: int = 26
    n_head: int = 4
    n_embd: int = 1152
    n_kv_head: int = 1  # n_head / n_kv_head query heads share keys and values
    head_dim: int = 256
    n_inner: int = 6912  # channels inside the MLP
    window: int = 512  # a local layer sees a token and the window - 1 before it
    layer_types: tuple | None = None  # of each layer; None: every sixth is global
    theta: float = 1e6  # RoPE of global layers: the period of the slowest pair is 2 pi times this
    local_theta: float = 1e4
    stretch: float = 1.0  # of positions in global layers; 8 from 4B on
    query_scale: float = 256  # scores are divided by its square root
    eps: float = 1e-6  # in the norms
    dropout: float = 0.0  # there is none; the field is for those who ask
    bias = False  # nor are there biases

    def __post_init__(self):
        for field in fields(self):
            value, whole = getattr(self, field.name), field.type is int
            if field.type in (int, float) and field.name != "dropout" and not (
                    type(value) in (int, field.type) and 0 < value < math.inf):
                raise ValueError(f"{field.name} must be a {'whole ' * whole}number above 0, not {value!r}")
        types = self.layer_types or [LOCAL if (i + 1) % 6 else GLOBAL for i in range(self.n_layer)]
        self.layer_types = tuple(types[: self.n_layer])
        if len(self.layer_types) < self.n_layer or {*self.layer_types} - {LOCAL, GLOBAL}:
            raise ValueError(f"layer_types must be {self.n_layer} times {LOCAL} or {GLOBAL}, not {self.layer_types}")
        if self.n_head % self.n_kv_head or self.head_dim % 2:
            raise ValueError(f"n_head {self.n_head} must be a multiple of n_kv_head {self.n_kv_head}, and head_dim "
                             f"{self.head_dim} even")


BIG = dict(vocab_size=262208, block_size=131072, window=1024, stretch=8.0)
SIZES = {  # by their names on the hub, where -it (instruction-tuned) or -pt (pretrained) is added from 1B on
    "gemma-3-270m": GemmaConfig(n_layer=18, n_embd=640, n_inner=2048),
    "gemma-3-1b": GemmaConfig(),
    "gemma-3-4b": GemmaConfig(n_layer=34, n_head=8, n_kv_head=4, n_embd=2560, n_inner=10240, **BIG),
    "gemma-3-12b": GemmaConfig(n_layer=48, n_head=16, n_kv_head=8, n_embd=3840, n_inner=15360, **BIG),
    "gemma-3-27b": GemmaConfig(n_layer=62, n_head=32, n_kv_head=16, n_embd=5376, n_inner=21504, head_dim=128,
                               query_scale=168, **BIG),
}
# ours -> Hugging Face's
NAMES = dict(vocab_size="vocab_size", block_size="max_position_embeddings", n_layer="num_hidden_layers",
             n_head="num_attention_heads", n_kv_head="num_key_value_heads", n_embd="hidden_size", head_dim="head_dim",
             n_inner="intermediate_size", window="sliding_window", query_scale="query_pre_attn_scalar",
             eps="rms_norm_eps")
# what transformers takes for what a config.json leaves out, as that of google/gemma-3-4b-it does
DEFAULTS = dict(vocab_size=262208, block_size=131072, n_head=8, n_kv_head=4, head_dim=256, window=4096)
EXPECTED = dict(model_type="gemma3_text", hidden_activation="gelu_pytorch_tanh", tie_word_embeddings=True,
                attention_bias=False, attention_dropout=0.0)
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


class Normalize(torch.autograd.Function):
    """
    x (..., C) -> x / rms(x) * (1 + weight), computed in float32, in `dtype`. For backward it keeps x as it came and a
    number per row, where autograd would keep three float32 copies: Gemma has six norms to a layer.
    """

    @staticmethod
    def forward(ctx, x, weight, eps, dtype):
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale * (1 + weight.float())).to(dtype)

    @staticmethod
    def backward(ctx, grad):
        x, weight, scale = ctx.saved_tensors
        normal, grad, grad_weight = x.float() * scale, grad.float(), None
        if ctx.needs_input_grad[1]:
            grad_weight = (grad * normal).flatten(0, -2).sum(0).to(weight.dtype)
        grad = grad * (1 + weight.float())
        grad -= normal * (grad * normal).mean(-1, keepdim=True)
        return grad.mul_(scale).to(x.dtype), grad_weight, None, None


class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.zeros(size)), eps

    def forward(self, x, dtype=None):
        return Normalize.apply(x, self.weight, self.eps, dtype or x.dtype)


class GatedGELU(torch.autograd.Function):
    """
    gate, up (..., n) -> gelu(gate) * up / s, and s (..., 1). Keeps gate and up for backward and makes the rest again.

    s is 1, but in float16: there the product is taken in float32, and s is the power of two that brings a row's largest
    value to at most 256. What follows is linear and knows no bias, so down(h / s) * s = down(h), and a power of two
    changes no bit; but neither the product nor the sum of 6,912 of them runs over 65,504. None stands for s = 1.
    """

    @staticmethod
    def forward(ctx, gate, up):
        s, narrow = None, gate.dtype == torch.float16
        h = F.gelu(gate.float() if narrow else gate, approximate="tanh").mul_(up)
        if narrow:
            s = (h.abs().amax(-1, keepdim=True) / 256).clamp_(min=1).log2_().ceil_().exp2_()
            h = h.div_(s).half()
            ctx.mark_non_differentiable(s)
        ctx.save_for_backward(gate, up, s)
        return h, s

    @staticmethod
    def backward(ctx, grad, _):
        gate, up, s = ctx.saved_tensors
        if s is not None:
            gate, up, grad = gate.float(), up.float(), grad / s
        grad_up = F.gelu(gate, approximate="tanh").mul_(grad)
        grad_gate = torch.ops.aten.gelu_backward(grad * up, gate, approximate="tanh")
        return (grad_gate, grad_up) if s is None else (grad_gate.half(), grad_up.half())


def rotation(positions, theta, stretch, D):
    """Positions (T,) or (B, T) -> cosines and sines (1 or B, 1, T, D / 2) float32 of the angles of D / 2 pairs."""
    frequencies = 1 / theta ** (torch.arange(0, D, 2, device=positions.device).float() / D) / stretch
    angles = positions.view(-1, 1, positions.shape[-1], 1).float() * frequencies
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    """x (B, H, T, D): element i of the first half and of the second are a pair, and turn by their angle."""
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        C, D, H, G = config.n_embd, config.head_dim, config.n_head, config.n_kv_head
        self.q_proj = nn.Linear(C, H * D, bias=False)
        self.k_proj, self.v_proj = (nn.Linear(C, G * D, bias=False) for _ in "kv")
        self.o_proj = nn.Linear(H * D, C, bias=False)
        self.q_norm, self.k_norm = (RMSNorm(D, config.eps) for _ in "qk")
        self.D, self.scale = D, config.query_scale**-0.5

    def forward(self, x, turn, mask=None, cache=None, steps=None):
        """x (B, T, C); turn: the cosines and sines of its positions; for mask, cache and steps see Gemma.hidden."""
        B, T, _ = x.shape
        q, k, v = (linear(x).view(B, T, -1, self.D) for linear in (self.q_proj, self.k_proj, self.v_proj))
        q, k = (rotate(y.transpose(1, 2), *turn) for y in (self.q_norm(q), self.k_norm(k)))
        v = v.transpose(1, 2)  # q (B, H, T, D); k, v (B, G, T, D)
        if cache is not None:  # of a short one the last tokens take the places of the first
            S = cache[0].shape[2]
            held = [old.index_copy_(2, steps[-S:] % S, new[:, :, -S:]) for old, new in zip(cache, (k, v), strict=True)]
            k, v = held if T == 1 else (k, v)
        H, G = q.shape[1], k.shape[1]
        if T == 1:  # the query heads that share keys are rows of one product
            y = F.scaled_dot_product_attention(q.reshape(B, G, H // G, self.D), k, v, mask, scale=self.scale)
            return self.o_proj(y.reshape(B, 1, H * self.D))
        k, v = (y.unsqueeze(2).expand(B, G, H // G, T, self.D).reshape(B, H, T, self.D) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, scale=self.scale)
        return self.o_proj(y.transpose(1, 2).reshape(B, T, H * self.D))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(config.n_embd, config.n_inner, bias=False) for _ in "gu")
        self.down_proj = nn.Linear(config.n_inner, config.n_embd, bias=False)

    def forward(self, x):
        h, s = GatedGELU.apply(self.gate_proj(x), self.up_proj(x))
        return self.down_proj(h) if s is None else self.down_proj(h).float() * s


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.input_layernorm = RMSNorm(config.n_embd, config.eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.n_embd, config.eps)
        self.pre_feedforward_layernorm = RMSNorm(config.n_embd, config.eps)
        self.mlp = MLP(config)
        self.post_feedforward_layernorm = RMSNorm(config.n_embd, config.eps)

    def forward(self, x, dtype, *where):
        """x: the residual stream; dtype: of the products; where: what Attention takes."""
        y = self.self_attn(self.input_layernorm(x, dtype), *where)
        x = x + self.post_attention_layernorm(y, x.dtype)
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x, dtype)), x.dtype)


class Gemma(LanguageModel):
    name, hf_prefix = "Gemma 3", "model."

    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.n_embd)  # also the output head
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = RMSNorm(config.n_embd, config.eps)
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02)

    wte = property(lambda self: self.embed_tokens)  # under the names that the rest of the house uses
    h = property(lambda self: self.layers)

    def hidden(self, idx, caches=None, steps=None, mask=None, positions=None):
        """
        idx (B, T) -> the last layer's normalised states (B, T, C). mask (B, 1, T, S): what a token may see, in a global
        layer. With caches, a pair (B, G, S, D) for each layer, the tokens go to their entries `steps` (T,): all from
        the beginning, or one more, which sees all S of them but what the mask says. A local layer's cache may hold
        fewer: token i lies at i % S.
        """
        B, T = idx.shape
        c, weight, device = self.config, self.embed_tokens.weight, idx.device
        if positions is None:
            if T > c.block_size:
                raise ValueError(f"{T} tokens do not fit the model's block_size of {c.block_size}")
            positions = torch.arange(T, device=device)
        cast = torch.is_autocast_enabled(device.type)
        narrow = torch.get_autocast_dtype(device.type) if cast else weight.dtype  # of products
        wide = torch.float32 if narrow == torch.float16 else narrow  # of the residual stream
        factor = torch.full((), c.n_embd**0.5, dtype=weight.dtype, device=device)  # 34 in bfloat16, as in training
        x = (self.embed_tokens(idx) * factor).to(wide)
        turn = {LOCAL: rotation(positions, c.local_theta, 1.0, c.head_dim),
                GLOBAL: rotation(positions, c.theta, c.stretch, c.head_dim)}
        mask = {LOCAL: self.local_mask(mask, T, steps, device), GLOBAL: mask}
        for i, (block, kind) in enumerate(zip(self.layers, c.layer_types, strict=True)):
            if self.recompute and torch.is_grad_enabled():
                x = torch.utils.checkpoint.checkpoint(block, x, narrow, turn[kind], mask[kind], use_reentrant=False)
            else:
                x = block(x, narrow, turn[kind], mask[kind], caches[i] if caches else None, steps)
        return self.norm(x, wide if cast else narrow)

    def local_mask(self, mask, T, steps, device):
        """What is left of a global layer's mask (B, 1, T, S) in a local one; None: a token sees all it is given."""
        window = self.config.window
        if T > window:
            back = torch.arange(T, device=device)[:, None] - torch.arange(T, device=device)
            return (back < window) & (back >= 0 if mask is None else mask)
        if T > 1 or mask is None or steps is None:
            return mask
        S = min(window, mask.shape[-1])  # the size of its cache
        held = steps - (steps - torch.arange(S, device=device)) % S  # the token that lies at each of its places
        return mask[..., held.clamp(min=0)] & (held >= 0)

    def set_dropout(self, p):
        if p:
            raise ValueError("Gemma knows no dropout; for that of adapters there is --lora_dropout")

    def cache_shapes(self, B, size):
        """Of the keys, and of the values, of `size` tokens in each layer; local ones keep what is in their window."""
        c = self.config
        return [(B, c.n_kv_head, size if kind == GLOBAL else min(size, c.window), c.head_dim) for kind in c.layer_types]

    def attention_flops(self, T):
        """Of the products of queries, keys and values, per token, forward and backward."""
        c = self.config
        return 12 * c.n_head * c.head_dim * sum(T if kind == GLOBAL else min(T, c.window) for kind in c.layer_types)

    # ------------------------------------------------------------------------------------------------------------------
    # the Hugging Face layout

    @classmethod
    def read_config(cls, directory):
        """The GemmaConfig of a Hugging Face directory of Gemma 3, or of the multimodal kind its language model's."""
        hf = read_hf_config(directory)
        try:
            return config_of(hf.get("text_config") or hf)
        except (ValueError, LookupError, TypeError, AttributeError) as e:
            raise ValueError(f"{directory}/config.json is not that of a Gemma 3: {e or type(e).__name__}") from None

    @classmethod
    def read_pretrained(cls, directory):
        """
        (GemmaConfig, {name: tensor}) of a Hugging Face directory, one file or sharded; of the multimodal kind what is
        not the language model is left out. 4-bit weights stay as they are, each with its companions (kernels/nf4.py).
        """
        state = {}
        for name, tensor in read_weights(directory).items():
            if "vision_tower." in name or "multi_modal_projector." in name:
                continue
            state[name.replace("language_model.", "").removeprefix("model.")] = tensor
        drop_tied_head(state, "embed_tokens.weight", directory)
        return cls.read_config(directory), state

    @classmethod
    def _with_state(cls, config, state, where, dtype=torch.float32):
        model = super()._with_state(config, state, where, dtype)
        if model.origin:
            hf = read_hf_config(where)
            path = os.path.join(where, "generation_config.json")
            said = read_hf_config(where, "generation_config.json") if os.path.exists(path) else {}
            model.generation = {k: hf[k] for k in TOKENS if hf.get(k) is not None} | said
            if hf.get("model_type") == "gemma3":  # as transformers names the layers of the whole, so as PEFT does
                model.hf_prefix = "model.language_model."
        return model

    def hf_state(self):
        return self.state_dict()

    def hf_config(self, tokenizer=None):
        """What config.json says, but for the dtype."""
        c = self.config
        every = next((i + 1 for i, kind in enumerate(c.layer_types) if kind == GLOBAL), c.n_layer + 1)
        regular = c.layer_types == tuple(LOCAL if (i + 1) % every else GLOBAL for i in range(c.n_layer))
        ids = {k: self.generation[k] for k in TOKENS if k in self.generation}
        if tokenizer and not ids:
            ends = [tokenizer.end_of_text, *(i for t, i in tokenizer.special.items() if t == "<end_of_turn>")]
            ids = dict(bos_token_id=tokenizer.start, eos_token_id=ends, pad_token_id=tokenizer.special.get("<pad>"))
        return dict({theirs: getattr(c, ours) for ours, theirs in NAMES.items()}, **EXPECTED | ids,
                    architectures=["Gemma3ForCausalLM"], initializer_range=0.02, rope_theta=c.theta,
                    rope_local_base_freq=c.local_theta, layer_types=list(c.layer_types),
                    rope_scaling=None if c.stretch == 1 else dict(rope_type="linear", factor=c.stretch),
                    **dict(sliding_window_pattern=every) if regular else {})


def config_of(hf):
    """What a config.json says of a language model -> GemmaConfig. Raises all kinds of errors where it is damaged."""
    expected = EXPECTED | dict(attn_logit_softcapping=None, final_logit_softcapping=None,
                               use_bidirectional_attention=False)
    for key, value in expected.items():
        if hf.get(key, value) not in (value, value or None):
            raise ValueError(f"it has {key} = {hf[key]!r}; only Gemma 3's own, {value!r}, is supported")
    missing = [key for key in ("hidden_size", "intermediate_size", "num_hidden_layers") if hf.get(key) is None]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    rope = hf.get("rope_parameters") or {}  # transformers 5; before, rope_theta, rope_local_base_freq, rope_scaling
    far, near = (rope.get(kind) or {} for kind in (GLOBAL, LOCAL))
    scaling = (hf.get("rope_scaling") or {}) | far
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in ("default", "linear") or near.get("rope_type", "default") != "default" or {*rope} - {LOCAL, GLOBAL}:
        raise ValueError(f"it has rotary positions that Gemma 3 does not have, {rope or scaling}")
    config = GemmaConfig(**DEFAULTS | {ours: hf[theirs] for ours, theirs in NAMES.items() if theirs in hf},
                         theta=far.get("rope_theta", hf.get("rope_theta", 1e6)),
                         local_theta=near.get("rope_theta", hf.get("rope_local_base_freq", 1e4)),
                         stretch=scaling["factor"] if kind == "linear" else 1.0)
    every = hf.get("sliding_window_pattern") or hf.get("_sliding_window_pattern") or 6
    types = hf.get("layer_types", [LOCAL if (i + 1) % every else GLOBAL for i in range(config.n_layer)])
    if len(types) != config.n_layer:
        raise ValueError(f"it has {len(types)} layer_types for {config.n_layer} layers")
    return replace(config, layer_types=tuple(types))
