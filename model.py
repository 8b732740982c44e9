"""
GPT-2 in one file: the config, the blocks, the loss, generation with a KV cache, and the Hugging Face layout on disk.

    model = GPT(GPTConfig())                       # 124M parameters, random, initialised as GPT-2 was
    model = GPT.from_pretrained("gpt2")            # or a Hugging Face directory, a hub id, a nanoGPT ckpt.pt
    logits, loss = model(idx, targets)             # idx, targets (B, T) int64
    out = model.generate(idx, 100, temperature=0.8, top_k=50)
    model.save_pretrained("runs/mine")             # transformers.AutoModelForCausalLM loads it as it is

The architecture is that of Radford et al. 2019 ("Language Models are Unsupervised Multitask Learners"): learned
positions, pre-norm blocks, tanh-GELU, and one matrix that serves as token embedding and as output head. Shapes in the
comments: B sequences, T tokens, C = n_embd channels, H heads of D = C / H channels, V = vocab_size.
"""
import contextlib
import json
import math
import os
import shutil
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.utils.checkpoint
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

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
        causal = mask is None and T > 1  # a single new token may see all of the cache
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


class LinearCrossEntropy(torch.autograd.Function):
    """
    sum of cross_entropy(x @ weight.T, targets) over the rows with targets >= 0, without ever holding all the logits.

    For B·T = 16,384 rows and V = 50,257 the float32 logits alone are 3.3 GB, and autograd keeps them and their
    gradient. But the gradient of the loss with respect to the logits, softmax - onehot, is known as soon as the logits
    are. So we take the rows in chunks, turn each chunk's logits into their gradient in place, multiply it into the
    gradients of x and weight right away, and forget it. Same FLOPs as the plain way; memory for one chunk.

    x (N, C) any float dtype; weight (V, C) float32; targets (N,) int64. Returns a float32 scalar.
    """

    @staticmethod
    def forward(ctx, x, weight, targets, chunk_rows):
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        with torch.autocast(device, enabled=False):
            V = weight.shape[0]
            w = weight.to(dtype)
            if V % 64:  # products want a round width: 50304 is 10 % faster than 50257
                w = F.pad(w, (0, 0, 0, -V % 64))
            needs_x, needs_w, *_ = ctx.needs_input_grad
            loss = torch.zeros((), device=x.device)
            grad_x = torch.empty_like(x) if needs_x else None
            grad_w = torch.zeros_like(w, dtype=torch.float32) if needs_w else None
            block_rows = chunk_rows if x.is_cuda else max(1, 2**21 // V)  # on a CPU 8 MB, which stay in its cache
            for i in range(0, x.shape[0], chunk_rows):
                xc, t = x[i : i + chunk_rows].to(dtype), targets[i : i + chunk_rows].unsqueeze(1)
                keep, t = t >= 0, t.clamp(min=0)
                z = xc @ w.t()  # logits, from here on turned into their gradient in place
                for rows in range(0, z.shape[0], block_rows):
                    here = slice(rows, rows + block_rows)
                    p = z[here, :V].float()
                    p -= p.amax(1, keepdim=True)
                    logit = p.gather(1, t[here])
                    total = p.exp_().sum(1, keepdim=True)
                    loss += ((total.log() - logit) * keep[here]).sum()
                    if needs_x or needs_w:
                        p /= total
                        z[here, :V] = p.scatter_add_(1, t[here], -torch.ones_like(total))
                    del p  # or the next block would be made while this one is still there
                if needs_x:
                    grad_x[i : i + chunk_rows] = (z @ w) * keep
                if needs_w:
                    grad_w += z.t() @ (xc * keep)
                del z
        ctx.save_for_backward(grad_x, grad_w[:V] if needs_w else None)
        return loss

    @staticmethod
    def backward(ctx, grad_loss):
        grad_x, grad_w = ctx.saved_tensors
        return (None if grad_x is None else grad_x * grad_loss,
                None if grad_w is None else grad_w * grad_loss, None, None)


class GPT(nn.Module):
    hf_prefix, hf_conv1d = "transformer.", True  # how Hugging Face names these weights, and that it transposes linears

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.recompute = False  # activation checkpointing: of a block keep its input, make the rest again in backward
        self.origin = None  # the directory this came from; its tokenizer travels along in save_pretrained
        self.caches = None  # of compiled generation: a CUDA graph wants them where they were
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
        if torch.is_autocast_enabled(x.device.type) and torch.get_autocast_dtype(x.device.type) == torch.bfloat16:
            x = x.bfloat16()  # autocast would keep the residual stream in float32: twice the memory to move
        for i, block in enumerate(self.h):
            if self.recompute and torch.is_grad_enabled():
                x = torch.utils.checkpoint.checkpoint(block, x, mask=mask, use_reentrant=False)
            else:
                x = block(x, caches[i] if caches else None, steps, mask)
        return self.ln_f(x)

    def forward(self, idx, targets=None, reduction="mean", return_logits=False, documents=None, criterion=None):
        """
        idx (B, T) int64 -> (logits, loss). Without targets: logits (B, T, V), loss None. With targets (B, T) int64,
        -100 where nothing is to be learnt: the mean ("sum": the sum) of the token losses in nats, and logits None
        unless asked for, because the loss does not need them all at once.

        documents (B, T) int64: which sequence of its row a token belongs to, where rows hold several; they do not see
        each other. criterion(model, states (B, T, C), targets): what to compute in place of the loss.
        """
        mask, positions = (None, None) if documents is None else separate(documents)
        x = self.hidden(idx, mask=mask, positions=positions)
        if criterion:
            return None, criterion(self, x, targets)
        if targets is None:
            return self.head(x), None
        loss = self.loss_of(x, targets, sparse=documents is not None)
        if reduction == "mean":
            loss = loss / (targets >= 0).sum().clamp(min=1)
        return self.head(x) if return_logits else None, loss

    def head(self, x):
        return F.linear(x, self.wte.weight)

    def loss_of(self, x, targets, sparse=False):
        """
        The sum of the token losses in nats for normalised states x (B, T, C) and targets (B, T). sparse: many targets
        are -100; only the others meet the head.
        """
        weight = self.wte.weight if torch.is_grad_enabled() else self.wte.weight.detach()  # no work for no gradient
        x, targets = x.reshape(-1, x.shape[-1]), targets.reshape(-1)
        if sparse and not torch.compiler.is_compiling():  # how many there are is not known to a compiler
            x, targets = x[targets >= 0], targets[targets >= 0]
        return LinearCrossEntropy.apply(x, weight, targets, self.chunk_rows())

    def losses_of(self, x, targets):
        """
        The token losses one by one, (B, T) float32 and 0 where targets is -100: each can be given a gradient of its
        own, which the sum, done with by the end of its forward pass, does not allow.
        """
        keep, weight = targets >= 0, self.wte.weight
        x, t = x[keep], targets[keep]
        losses = [torch.utils.checkpoint.checkpoint(cross_entropy, x[i : i + self.chunk_rows()], weight,
                                                    t[i : i + self.chunk_rows()], use_reentrant=False)
                  for i in range(0, len(t), self.chunk_rows())]  # logits are made again in backward, not kept
        zeros = torch.zeros(targets.shape, device=x.device)
        return zeros.masked_scatter(keep, torch.cat([x[:0].float().sum(1), *losses]))  # also of nothing a gradient

    def token_losses(self, idx, targets, documents=None):
        """idx and targets (B, T) -> the token losses (B, T) in nats, float32; see losses_of."""
        return self(idx, targets, documents=documents, criterion=GPT.losses_of)[1]

    def set_dropout(self, p):
        self.config.dropout = p
        for block in self.h:
            block.attn.dropout = block.mlp.dropout = p

    def chunk_rows(self):
        """Rows of logits to hold at a time: on a GPU about 2^28 floats (1 GB); on a CPU few, to stay near the cache."""
        return max(512, 2**28 // self.config.vocab_size // 64 * 64) if self.wte.weight.is_cuda else 512

    # ------------------------------------------------------------------------------------------------------------------
    # generation

    @torch.no_grad()
    def generate(self, idx, max_new_tokens, temperature=1.0, top_k=None, top_p=None, repetition_penalty=1.0,
                 stop_tokens=(), lengths=None, generator=None, use_cache=True, on_token=None, compile=False):
        """
        Continue idx (B, T) int64 by up to max_new_tokens; returns (B, T + new) int64.

        Prompts of different lengths are padded on the left, with any token, and lengths (B,) tells how many tokens at
        the end of each row are real. temperature 0 is greedy. repetition_penalty > 1 (Keskar et al. 2019) makes tokens
        already in the row less likely. A row that produced one of stop_tokens repeats it from there on, and when all
        rows have, generation ends. generator (on idx's device) makes sampling repeatable; on_token(tokens (B,)) is
        called after each step, for streaming.

        Past block_size the positions run out: then the last half of the context is read again and generation goes on.

        compile (a string: with this backend) makes each step one CUDA graph, for each batch and length of cache anew:
        that takes a minute and pays for long texts. Its shapes are fixed: it sees the whole cache under a mask. Whether
        all rows have stopped is then asked at every 16th token only.
        """
        if idx.shape[1] < 1:
            raise ValueError("the prompt is empty; start from the end-of-text token instead")
        (B, T), device, block = idx.shape, idx.device, self.config.block_size
        was_training = self.training
        self.eval()
        pad = torch.zeros(B, dtype=torch.long, device=device) if lengths is None else T - lengths.to(device)
        ragged = bool((pad != 0).any())
        stop = torch.tensor(list(stop_tokens), device=device, dtype=torch.long)
        done = torch.zeros(B, dtype=torch.bool, device=device)
        out = torch.empty(B, T + max_new_tokens, dtype=torch.long, device=device)
        out[:, :T] = idx
        seen = None
        if repetition_penalty != 1.0:  # (B, V): which tokens each row holds; left padding is not text
            real = (torch.arange(T, device=device) >= pad.unsqueeze(1)).int()
            seen = real.new_zeros(B, self.config.vocab_size).scatter_add_(1, idx, real) > 0
        compile = use_cache and compile
        size = min(block, -(-(T + max_new_tokens) // 256) * 256)  # few sizes: each is compiled
        caches = self.make_caches(B, size, compile) if use_cache else None
        if compile:
            torch._dynamo.config.recompile_limit = 64
            compiled = torch.compile(self.next_token, fullgraph=True, dynamic=False, **(
                dict(backend=compile) if isinstance(compile, str) else dict(mode="reduce-overhead")))
        n = T
        first, start = 0, 0  # the window is out[:, first:n], of which `start` tokens are in the cache
        with reordered_weights(self, B, device.type == "cpu" and use_cache and not compile and max_new_tokens >= 8):
            while n < T + max_new_tokens:
                if n - first > block:
                    first, start = n - (max(1, block // 2) if use_cache else block), 0
                if compile and start:
                    torch.compiler.cudagraph_mark_step_begin()
                    step, view = compiled, caches
                else:  # of the cache no more than what is in it
                    step = self.next_token
                    view = [(k[:, :, : n - first], v[:, :, : n - first]) for k, v in caches] if use_cache else None
                token = step(out[:, first + start : n].clone(), view, torch.arange(start, n - first, device=device),
                             (pad - first).clamp(min=0) if ragged or compile and start else None, seen,
                             exponential(B, self.config.vocab_size, generator, device) if temperature else None,
                             temperature, top_k, top_p, repetition_penalty)  # (B,)
                if len(stop):
                    token = torch.where(done, out[:, n - 1], token)
                    done |= torch.isin(token, stop)
                if seen is not None:
                    seen.scatter_(1, token.unsqueeze(1), True)
                out[:, n] = token  # a copy: the next replay of a CUDA graph writes over its results
                start, n = n - first if use_cache else 0, n + 1
                if on_token:
                    on_token(token)
                if len(stop) and (not compile or on_token or (n - T) % 16 == 0) and bool(done.all()):
                    break
        self.train(was_training)
        stopped = torch.isin(out[:, T:n], stop)
        if len(stop) and bool(stopped.any(1).all()):  # steps past the last row's stop, not asked about yet
            n = T + int(stopped.int().argmax(1).max()) + 1
        return out[:, :n].clone()

    def next_token(self, idx, caches, steps, pad, seen, noise, temperature, top_k, top_p, penalty):
        """
        The tokens (B,) that follow idx (B, T), which stands at `steps` (T,) of a window. pad (B,): how many tokens at
        each row's beginning are padding; None: there are none, and the cache is no wider than what has been read.
        """
        positions, mask = steps, None
        if pad is not None:  # positions count from each row's first real token; padding is masked out of every key
            pad, queries = pad.unsqueeze(1), steps.unsqueeze(1)  # (B, 1), (T, 1)
            keys = torch.arange(caches[0][0].shape[2] if caches else len(steps), device=idx.device)  # (S,)
            positions = (steps - pad).clamp(min=0)  # (B, T)
            mask = (queries >= keys) & (keys >= pad.unsqueeze(2))
            # (B, 1, T, S); a padding query sees itself: no empty softmax
            mask = (mask | (queries == keys)).unsqueeze(1)
        x = self.hidden(idx, caches, steps, mask, positions)
        logits = self.head(x[:, -1]).float()  # (B, V)
        if seen is not None:
            logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
        return sample_token(logits, temperature, top_k, top_p, noise)

    def make_caches(self, B, size, compiled):
        """Keys and values (B, H, size, D) for each block. Compiled: kept for the next time."""
        shape = (B, self.config.n_head, size, self.config.n_embd // self.config.n_head)
        if not compiled:
            return [tuple(self.wte.weight.new_empty(2, *shape)) for _ in self.h]
        old, like = self.caches[0][0] if self.caches else None, self.wte.weight
        if old is None or (old.shape, old.dtype, old.device) != (shape, like.dtype, like.device):
            self.caches = [(like.new_zeros(shape), like.new_zeros(shape)) for _ in self.h]
        # A CUDA graph copies its inputs to places of its own, unless they are parameters (no NF4Linear.q is) or marked
        weights = [t for m in self.modules() if hasattr(m, "q") for t in m.q.tensors().values()]
        for tensor in weights + [t for pair in self.caches for t in pair]:
            torch._dynamo.mark_static_address(tensor)
        return self.caches

    # ------------------------------------------------------------------------------------------------------------------
    # the Hugging Face layout

    @classmethod
    def from_pretrained(cls, path_or_name, dropout=0.0):
        """
        Load a Hugging Face GPT-2 (a directory, or a hub id such as "openai-community/gpt2", downloaded once), the base
        of an adapter directory, or a nanoGPT ckpt.pt. Raises FileNotFoundError when there is no such model, ValueError
        when it is damaged or no GPT-2.
        """
        path = str(path_or_name)
        if path.endswith(".pt"):
            return cls._from_nanogpt(path, dropout)
        directory = path if os.path.isdir(path) else download(path)
        if os.path.exists(os.path.join(directory, "adapter_config.json")):  # of an adapter, its base
            with open(os.path.join(directory, "adapter_config.json")) as f:
                base = json.load(f).get("base_model_name_or_path")
            if not base or os.path.realpath(base) == os.path.realpath(directory):
                raise ValueError(f"{directory} is an adapter that does not say what its base is")
            return cls.from_pretrained(base, dropout)
        config, state = read_pretrained(directory)
        if any(name.endswith(".absmax") for name in state):
            raise ValueError(f"{directory} holds weights in 4 bits; read it with checkpoint.load(directory)")
        config.dropout = dropout
        return cls._with_state(config, state, directory)

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
    def _with_state(cls, config, state, where):
        with torch.device("meta"):  # shapes only: no time spent on a random initialisation that is thrown away
            model = cls(config)
        expected = model.state_dict()
        missing = sorted(expected.keys() - state.keys())
        unknown = sorted(state.keys() - expected.keys())
        wrong = [k for k in expected.keys() & state.keys() if expected[k].shape != state[k].shape]
        if missing or unknown or wrong:
            what = (f"missing {missing[:3]}" if missing else
                    f"unknown {unknown[:3]}" if unknown else f"misshapen {wrong[:3]}")
            raise ValueError(f"the weights in {where} do not fit its config: {what}")
        model.load_state_dict({k: v.float().contiguous() for k, v in state.items()}, assign=True)
        model.origin = where if os.path.isdir(where) else None
        return model

    def save_pretrained(self, directory, tokenizer=None):
        """
        Write config.json, generation_config.json and model.safetensors (float32) so that transformers, vLLM and
        llama.cpp load them: linears transposed to the Conv1D orientation, biases present even where ours has none
        (zeros). Linears in NF4 are written in 4 bits, as transformers with bitsandbytes writes and reads them.
        tokenizer: a data.Tokenizer to write beside it; without one, that of the directory this model was loaded from.
        """
        if any("lora_" in name for name, _ in self.named_parameters()):
            raise ValueError("the model has LoRA on it; merge_lora(model) first, or save_adapter(model, directory)")
        os.makedirs(directory, exist_ok=True)
        end = tokenizer.end_of_text if tokenizer else self.end_of_text()
        c = self.config
        hf = dict(model_type="gpt2", architectures=["GPT2LMHeadModel"], vocab_size=c.vocab_size,
                  n_positions=c.block_size, n_ctx=c.block_size,
                  n_embd=c.n_embd, n_layer=c.n_layer, n_head=c.n_head, n_inner=None,
                  activation_function="gelu_new", layer_norm_epsilon=1e-5, initializer_range=0.02, bias=c.bias,
                  embd_pdrop=c.dropout, attn_pdrop=c.dropout, resid_pdrop=c.dropout, tie_word_embeddings=True,
                  scale_attn_weights=True, bos_token_id=end, eos_token_id=end, torch_dtype="float32")
        state = {}
        for name, tensor in self.state_dict().items():
            tensor = tensor.detach().cpu()
            if tensor.is_floating_point():  # what is not is NF4, in bitsandbytes' own layout
                tensor = (tensor.t() if is_conv1d(name) else tensor).float()
            state[self.hf_prefix + name] = tensor.contiguous()
        for name, module in self.named_modules():
            if getattr(module, "bias", 0) is None:
                size = getattr(module, "out_features", None) or len(module.weight)
                state[self.hf_prefix + name + ".bias"] = torch.zeros(size)
        if any(name.endswith(".absmax") for name in state):
            hf["quantization_config"] = dict(
                quant_method="bitsandbytes", load_in_4bit=True, bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=any(name.endswith(".nested_absmax") for name in state),
                bnb_4bit_quant_storage="uint8", bnb_4bit_compute_dtype="float32")
        save_file(state, os.path.join(directory, "model.safetensors.tmp"), metadata={"format": "pt"})
        os.replace(os.path.join(directory, "model.safetensors.tmp"), os.path.join(directory, "model.safetensors"))
        for name, content in (("config.json", hf),
                              ("generation_config.json", dict(bos_token_id=end, eos_token_id=end))):
            with open(os.path.join(directory, name), "w") as f:
                json.dump(content, f, indent=2)
        if tokenizer:
            tokenizer.save(directory)
        elif self.origin and os.path.realpath(self.origin) != os.path.realpath(directory):
            for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt",
                         "special_tokens_map.json"):
                if os.path.exists(os.path.join(self.origin, name)):
                    shutil.copy(os.path.join(self.origin, name), directory)

    def end_of_text(self):
        """The id of the end-of-text token: what the loaded config says, otherwise GPT-2's convention, the last id."""
        if self.origin and os.path.exists(os.path.join(self.origin, "config.json")):
            with open(os.path.join(self.origin, "config.json")) as f:
                end = json.load(f).get("eos_token_id")
            if isinstance(end, int) and end < self.config.vocab_size:
                return end
        return self.config.vocab_size - 1


def separate(documents):
    """
    For rows of several sequences, numbered by documents (B, T): a mask (B, 1, T, T) by which a token sees its own
    sequence up to itself, and positions (B, T) that count from the start of each.
    """
    steps = torch.arange(documents.shape[1], device=documents.device)
    mask = (documents[:, :, None] == documents[:, None, :]) & (steps[:, None] >= steps)
    starts = F.pad(documents[:, 1:] != documents[:, :-1], (1, 0), value=True)
    positions = steps - torch.where(starts, steps, 0).cummax(1).values
    return mask.unsqueeze(1), positions


def cross_entropy(x, weight, targets):
    """States (N, C), head (V, C) and targets (N,) -> the losses (N,) in nats, all in float32: they are compared."""
    with torch.autocast(x.device.type, enabled=False):
        return F.cross_entropy(F.linear(x.float(), weight.float()), targets, reduction="none")


def exponential(B, V, generator, device):
    """A (B, V) float32 draw of Exp(1) noise."""
    if device.type != "cpu":
        return torch.empty(B, V, device=device).exponential_(generator=generator)
    # the numbers that exponential_ draws, which takes their logarithms one by one: these vectors take half the time
    return torch.rand(B, V, dtype=torch.float64, generator=generator).neg_().log1p_().neg_().float()


def sample_token(logits, temperature, top_k, top_p, noise):
    """logits (B, V) float32 -> one token per row (B,), among the top_k likeliest and the top_p share of the mass."""
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits / temperature
    if top_k:
        kth = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -math.inf)
    if top_p is not None and top_p < 1:
        values, order = logits.sort(descending=True)
        # the mass ahead of each token: the first always stays
        before = values.softmax(-1).cumsum(-1) - values.softmax(-1)
        logits = logits.masked_fill((before >= top_p).scatter(1, order, before >= top_p), -math.inf)
    # argmax of p / Exp(1) noise is a draw from p: multinomial without its wait for the device (Gumbel's trick)
    return (logits.softmax(-1) / noise).argmax(-1)


@contextlib.contextmanager
def reordered_weights(model, rows, wanted):
    """
    While it lasts, linears and head multiply up to so many rows by copies of their weights in the layout of
    oneDNN, torch's library for CPUs: it takes half the time, but for one row in float32. In bfloat16 the products are
    the same bit for bit, in float32 but for rounding. More rows go the usual way: each number takes a new kernel.
    """
    dtypes, onednn = {p.dtype for p in model.parameters() if p.dim() == 2}, torch.ops.mkldnn
    wanted = wanted and torch.backends.mkldnn.is_available() and not torch.is_autocast_enabled("cpu") and (
        dtypes == {torch.float32} and rows > 1 or dtypes == {torch.bfloat16} and onednn._is_mkldnn_bf16_supported())

    def product(weight, bias=None):
        reordered = onednn._reorder_linear_weight(weight.detach(), rows)
        return lambda x: (onednn._linear_pointwise(x, reordered, bias, "none", [], "")
                          if x.numel() <= rows * x.shape[-1] else F.linear(x, weight, bias))
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)] if wanted else []
    new = [(m, "forward", product(m.weight, m.bias)) for m in layers]
    new += [(model, "head", product(model.wte.weight))] if wanted else []
    try:
        for module, name, method in new:
            setattr(module, name, method)
        yield
    finally:  # back to the methods of their classes
        for module, name, _ in new:
            vars(module).pop(name, None)


def is_conv1d(name):
    """Hugging Face keeps GPT-2's four linears per block as Conv1D, (in, out); everything else lies as it does here."""
    return name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))


def read_config(directory):
    """The GPTConfig of a Hugging Face GPT-2 directory."""
    try:
        with open(os.path.join(directory, "config.json")) as f:
            hf = json.load(f)
    except FileNotFoundError:
        raise FileNotFoundError(f"{directory} has no config.json, so it is no model checkpoint") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise ValueError(f"{directory}/config.json is not valid JSON ({e}); copy the checkpoint again") from None
    check_is_gpt2(hf, directory)
    return GPTConfig(vocab_size=hf["vocab_size"], block_size=hf.get("n_positions", 1024), n_layer=hf["n_layer"],
                     n_head=hf["n_head"], n_embd=hf["n_embd"], bias=hf.get("bias", True))


def read_pretrained(directory):
    """
    (GPTConfig, {name: tensor}) of a Hugging Face GPT-2 directory, with our names and linears as (out, in). Weights that
    bitsandbytes quantized stay as they are, each with its companions (kernels/nf4.py).
    """
    config = read_config(directory)
    state = {name.removeprefix(GPT.hf_prefix): tensor for name, tensor in read_weights(directory).items()}
    head = state.pop("lm_head.weight", None)
    if head is not None and "wte.weight" in state and not torch.equal(head, state["wte.weight"]):
        raise ValueError(f"{directory} has an output head of its own; only GPT-2's tied head is supported")
    state = {k: v for k, v in state.items() if not k.endswith((".attn.bias", ".attn.masked_bias"))}  # old mask buffers
    # ours without biases has zeros there, written for transformers, which may have trained them since
    config.bias = config.bias or any(bool(v.any()) for k, v in state.items() if k.endswith(".bias"))
    if not config.bias:
        state = {k: v for k, v in state.items() if not k.endswith(".bias")}
    return config, {k: v.t() if is_conv1d(k) else v for k, v in state.items()}


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


def read_weights(directory):
    names = ["model.safetensors"]
    index = os.path.join(directory, "model.safetensors.index.json")
    if os.path.exists(index):
        with open(index) as f:
            names = sorted(set(json.load(f)["weight_map"].values()))
    state = {}
    for name in names:
        path = os.path.join(directory, name)
        if not os.path.isfile(path):
            raise FileNotFoundError(f"{directory} has no {name}; only safetensors weights are read")
        try:
            state |= load_file(path)
        except SafetensorError as e:
            raise ValueError(f"{path} is damaged ({e}); copy or download it again") from None
    return state


def download(name):
    """Fetch a model from the Hugging Face hub into its usual cache and return the directory."""
    from huggingface_hub import snapshot_download

    name = "openai-community/" + name if name in SIZES else name
    patterns = ["config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*.json",
                "vocab.json", "merges.txt", "chat_template.jinja", "README.md", "LICENSE*"]
    try:
        return snapshot_download(name, allow_patterns=patterns)
    except Exception as e:  # no network, no such repository, gated, bad name: the hub has a class for each
        raise FileNotFoundError(f"{name} is no directory here, and the Hugging Face hub did not give it "
                                f"({type(e).__name__}); name a checkpoint directory, "
                                "or check the id and the network") from None
