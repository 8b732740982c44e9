"""
GPT-2 in one file: the config, the blocks, and the Hugging Face layout on disk. Loss and generation are in decoder.py.

    model = GPT(GPTConfig())                       # 124M parameters, random, initialised as GPT-2 was
    model = GPT.from_pretrained("gpt2")            # or a Hugging Face directory, a hub id, a nanoGPT ckpt.pt
    logits, loss = model(idx, targets)             # idx, targets (B, T) int64
    out = model.generate(idx, 100, temperature=0.8, top_k=50)
    model.save_pretrained("runs/mine")             # transformers.AutoModelForCausalLM loads it as it is

The architecture is that of Radford et al. 2019 ("Language Models are Unsupervised Multitask Learners"): learned
positions, pre-norm blocks, tanh-GELU, and one matrix that serves as token embedding and as output head. Shapes in the
comments: B sequences, T tokens, C = n_embd channels, H heads of D = C / H channels, V = vocab_size.
"""
import math
import os
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.utils.checkpoint

from decoder import LanguageModel, drop_tied_head, read_hf_config, read_weights, reordered_weights, separate

__all__ = ["GPT", "GPTConfig", "SIZES", "reordered_weights", "separate"]
SIZES = {  # the four models of the paper, by their Hugging Face names
    "gpt2": dict(n_layer=12, n_head=12, n_embd=768),  # 124M
    "gpt2-medium": dict(n_layer=24, n_head=16, n_embd=1024),  # 355M
    "gpt2-large": dict(n_layer=36, n_head=20, n_embd=1280),  # 774M
    "gpt2-xl": dict(n_layer=48, n_head=25, n_embd=1600),  # 1558M
}


@dataclass
class GPTConfig:
    vocab_size: int = 50257
    block_size: int = 1024  # the longest sequence, in tokens
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0
    bias: bool = True  # in the linears and layer norms; GPT-2 has them, a model from scratch does as well without

    def __post_init__(self):
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} must be a multiple of n_head {self.n_head}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), not {self.dropout}")


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.n_head, self.dropout = config.n_head, config.dropout

    def forward(self, x, cache=None, steps=None, mask=None):
        B, T, C = x.shape
        # (B, H, T, D) each
        q, k, v = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head).permute(2, 0, 3, 1, 4)
        if cache is not None:  # write the new keys and values at `steps`, then look at all that the cache holds
            k, v = cache[0].index_copy_(2, steps, k), cache[1].index_copy_(2, steps, v)
        p = self.dropout if self.training else 0.0
        # a single new token may see all of the cache. True, and not the condition: torch.compile may make a symbol of T
        causal = True if mask is None and T > 1 else False
        if x.device.type == "cpu" and q.dtype == torch.bfloat16 and causal and not p and torch.is_grad_enabled():
            y = BlockAttention.apply(q, k, v)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p, is_causal=causal)
        return F.dropout(self.c_proj(y.transpose(1, 2).reshape(B, T, C)), p)


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = config.dropout

    def forward(self, x):
        return F.dropout(self.c_proj(F.gelu(self.c_fc(x), approximate="tanh")), self.dropout, self.training)


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x, cache=None, steps=None, mask=None):
        x = x + self.attn(self.ln_1(x), cache, steps, mask)
        return x + self.mlp(self.ln_2(x))


class BlockAttention(torch.autograd.Function):
    """
    Causal attention in training on a CPU in bfloat16: a block of queries at a time, against all keys up to its end.

    torch's own kernel for CPUs multiplies small tiles, and its backward pass runs at a quarter of the speed that large
    products have there. These are large: attention takes half the time at 256 tokens, and a training step of GPT-2 124M
    8 % less at 1024. The weights are made again in backward, not kept. q, k, v and the result (B, H, T, D).
    """

    @staticmethod
    def blocks(q, k):
        """For each block of queries: its slice of T, the end of the keys it sees, and its weights (B, H, n, end)."""
        T, D = q.shape[2:]
        n = max(64, min(256, T // 2))
        for i in range(0, T, n):
            here, end = slice(i, i + n), min(i + n, T)
            scores = (q[:, :, here] * D**-0.5) @ k[:, :, :end].mT
            scores[..., i:] += torch.full((end - i, end - i), -math.inf, dtype=q.dtype).triu_(1)
            yield here, end, scores.softmax(-1)

    @staticmethod
    def forward(ctx, q, k, v):
        y, values = torch.empty_like(q), v.contiguous()
        for here, end, weights in BlockAttention.blocks(q, k.contiguous()):
            y[:, :, here] = weights @ values[:, :, :end]
        ctx.save_for_backward(q, k, v, y)
        return y

    @staticmethod
    def backward(ctx, grad):
        q, k, v, y = ctx.saved_tensors
        keys, values, scale = k.contiguous(), v.contiguous(), q.shape[-1] ** -0.5
        of_softmax = (grad * y).sum(-1, keepdim=True, dtype=torch.float32).to(q.dtype)
        grad_q, grad_k, grad_v = torch.empty_like(q), *(torch.zeros_like(keys, dtype=torch.float32) for _ in "kv")
        for here, end, weights in BlockAttention.blocks(q, keys):
            grad_v[:, :, :end] += weights.mT @ grad[:, :, here]
            of_scores = (grad[:, :, here] @ values[:, :, :end].mT).sub_(of_softmax[:, :, here]).mul_(weights)
            grad_q[:, :, here] = of_scores @ keys[:, :, :end] * scale
            grad_k[:, :, :end] += of_scores.mT @ q[:, :, here]
        return grad_q, (grad_k * scale).to(k.dtype), grad_v.to(v.dtype)


class GPT(LanguageModel):
    name, hf_prefix, hf_conv1d = "GPT-2", "transformer.", True

    def __init__(self, config):
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)  # also the output head
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, bias=config.bias)
        for name, p in self.named_parameters():
            if p.dim() == 2:  # layer norms start as the identity, biases as zero
                # each block adds two projections to the residual stream: scale them so that its variance stays put
                std = 0.02 / math.sqrt(2 * config.n_layer) if name.endswith("c_proj.weight") else 0.02
                nn.init.normal_(p, mean=0.0, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def hidden(self, idx, caches=None, steps=None, mask=None, positions=None):
        """
        idx (B, T) -> the last layer's normalised states (B, T, C). With caches, a pair (B, H, S, D) for each block, the
        tokens go to their entries `steps` (T,), and see all S of them but what the mask says.
        Rows of several sequences may be longer than block_size; see `separate` for their mask and positions.
        """
        B, T = idx.shape
        if positions is None:
            if T > self.config.block_size:
                raise ValueError(f"{T} tokens do not fit the model's block_size of {self.config.block_size}")
            positions = torch.arange(T, device=idx.device)  # (T,)
        x = F.dropout(self.wte(idx) + self.wpe(positions), self.config.dropout, self.training)  # (B, T, C)
        if torch.is_autocast_enabled(x.device.type):  # which would keep the residual stream in float32: twice the
            # memory to move; but float16 is too narrow for it
            x = x.to(torch.bfloat16 if torch.get_autocast_dtype(x.device.type) == torch.bfloat16 else torch.float32)
        for i, block in enumerate(self.h):
            if self.recompute and torch.is_grad_enabled():
                x = torch.utils.checkpoint.checkpoint(block, x, mask=mask, use_reentrant=False)
            else:
                x = block(x, caches[i] if caches else None, steps, mask)
        return self.ln_f(x)

    def set_dropout(self, p):
        self.config.dropout = p
        for block in self.h:
            block.attn.dropout = block.mlp.dropout = p

    def cache_shapes(self, B, size):
        """Of the keys, and of the values, of `size` tokens in each block."""
        return [(B, self.config.n_head, size, self.config.n_embd // self.config.n_head)] * self.config.n_layer

    def attention_flops(self, T):
        """Of the products of queries, keys and values, per token, forward and backward."""
        return 12 * self.config.n_layer * self.config.n_embd * T

    # ------------------------------------------------------------------------------------------------------------------
    # the Hugging Face layout

    @classmethod
    def from_pretrained(cls, path_or_name, dropout=0.0, dtype=torch.float32):
        """As any LanguageModel; also of a nanoGPT ckpt.pt, or by a short name: gpt2 for openai-community/gpt2."""
        path = str(path_or_name)
        if path.endswith(".pt"):
            return cls._from_nanogpt(path, dropout)
        short = path in SIZES and not os.path.isdir(path)
        return super().from_pretrained(f"openai-community/{path}" if short else path, dropout, dtype)

    @classmethod
    def _from_nanogpt(cls, path, dropout):
        if not os.path.isfile(path):
            raise FileNotFoundError(f"there is no file {path}")
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            state, args = checkpoint["model"], {"bias": True} | checkpoint["model_args"]
            args = {k: args[k] for k in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd", "bias")}
        except Exception as e:
            # torch.load has no error class of its own: zip, pickle, key and type errors all mean this
            raise ValueError(f"{path} is not a nanoGPT checkpoint ({type(e).__name__})") from None
        # names of compiled models carry a prefix, and nanoGPT keeps lm_head beside the wte it is tied to
        state = {k.removeprefix("_orig_mod.").removeprefix("transformer."): v.float() for k, v in state.items()}
        state = {k: v for k, v in state.items() if k != "lm_head.weight" and not k.endswith(".attn.bias")}
        if args["vocab_size"] == 50304:  # GPT-2's vocabulary, padded to a multiple of 64; the last 47 rows mean nothing
            args["vocab_size"] = 50257
            state["wte.weight"] = state["wte.weight"][:50257]
        return cls._with_state(GPTConfig(**args, dropout=dropout), state, path)

    @classmethod
    def read_config(cls, directory):
        """The GPTConfig of a Hugging Face GPT-2 directory."""
        hf = read_hf_config(directory)
        check_is_gpt2(hf, directory)
        return GPTConfig(vocab_size=hf["vocab_size"], block_size=hf.get("n_positions", 1024), n_layer=hf["n_layer"],
                         n_head=hf["n_head"], n_embd=hf["n_embd"], bias=hf.get("bias", True))

    @classmethod
    def read_pretrained(cls, directory):
        """
        (GPTConfig, {name: tensor}) of a Hugging Face GPT-2 directory, with our names and linears as (out, in). Weights
        that bitsandbytes quantized stay as they are, each with its companions (kernels/nf4.py).
        """
        config = cls.read_config(directory)
        state = {name.removeprefix(cls.hf_prefix): tensor for name, tensor in read_weights(directory).items()}
        drop_tied_head(state, "wte.weight", directory)
        state = {k: v for k, v in state.items() if not k.endswith((".attn.bias", ".attn.masked_bias"))}  # old buffers
        # ours without biases has zeros there, written for transformers, which may have trained them since
        config.bias = config.bias or any(bool(v.any()) for k, v in state.items() if k.endswith(".bias"))
        if not config.bias:
            state = {k: v for k, v in state.items() if not k.endswith(".bias")}
        return config, {k: v.t() if is_conv1d(k) else v for k, v in state.items()}

    def hf_state(self):
        """Linears transposed to the Conv1D orientation, and zeros for biases where ours has none."""
        state = {name: tensor.t() if is_conv1d(name) and tensor.is_floating_point() else tensor
                 for name, tensor in self.state_dict().items()}
        for name, module in self.named_modules():
            if getattr(module, "bias", 0) is None:
                state[name + ".bias"] = torch.zeros(getattr(module, "out_features", None) or len(module.weight))
        return state

    def hf_config(self, tokenizer=None):
        """What config.json says, but for the dtype."""
        c, end = self.config, tokenizer.end_of_text if tokenizer else self.end_of_text()
        return dict(model_type="gpt2", architectures=["GPT2LMHeadModel"], vocab_size=c.vocab_size,
                    n_positions=c.block_size, n_ctx=c.block_size,
                    n_embd=c.n_embd, n_layer=c.n_layer, n_head=c.n_head, n_inner=None,
                    activation_function="gelu_new", layer_norm_epsilon=1e-5, initializer_range=0.02, bias=c.bias,
                    embd_pdrop=c.dropout, attn_pdrop=c.dropout, resid_pdrop=c.dropout, tie_word_embeddings=True,
                    scale_attn_weights=True, bos_token_id=end, eos_token_id=end)

    def end_of_text(self):
        """The id of the end-of-text token: what the loaded config says, otherwise GPT-2's convention, the last id."""
        if self.origin and os.path.exists(os.path.join(self.origin, "config.json")):
            end = read_hf_config(self.origin).get("eos_token_id")
            if isinstance(end, int) and end < self.config.vocab_size:
                return end
        return self.config.vocab_size - 1


def is_conv1d(name):
    """Hugging Face keeps GPT-2's four linears per block as Conv1D, (in, out); everything else lies as it does here."""
    return name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))


def check_is_gpt2(hf, directory):
    expected = {"model_type": "gpt2", "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
                "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False,
                "add_cross_attention": False, "tie_word_embeddings": True}
    for key, value in expected.items():
        if hf.get(key, value) != value:
            raise ValueError(f"{directory} has {key} = {hf[key]!r}; only GPT-2's own, {value!r}, is supported")
    missing = [k for k in ("model_type", "vocab_size", "n_layer", "n_head", "n_embd") if k not in hf]
    if missing:
        raise ValueError(f"{directory}/config.json lacks {', '.join(missing)}, so it is no GPT-2")
    if hf.get("n_inner") not in (None, 4 * hf["n_embd"]):
        raise ValueError(f"{directory} has n_inner = {hf['n_inner']}; only 4 * n_embd is supported")
