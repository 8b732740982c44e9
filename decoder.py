"""
What every decoder-only language model here does with the states of its last layer: loss, generation, files.

    class GPT(LanguageModel)                       # model.py: GPT-2; gemma.py has another kind
    logits, loss = model(idx, targets)             # idx, targets (B, T) int64
    out = model.generate(idx, 100, temperature=0.8, top_k=50)
    model.save_pretrained("runs/mine")             # transformers.AutoModelForCausalLM loads it as it is

Shapes in the comments: B sequences, T tokens, C = n_embd channels, V = vocab_size. For blocks and states see model.py.
"""
import contextlib
import json
import math
import os
import re
import shutil

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.utils.checkpoint
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

COMPUTABLE = {torch.float32, torch.bfloat16, torch.float16}
LONGEST = 8192  # tokens to look at together, where nobody says otherwise: some models have room for 131,072


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


class LanguageModel(nn.Module):
    """
    What a kind of model inherits: the loss of its states, generation, reading and writing of checkpoints.

    It brings a config with the fields of model.GPTConfig, an embedding `wte` that is its head too, and blocks `h`; and
    hidden(), which makes the states, set_dropout(), cache_shapes(), attention_flops(), and its layout on disk:
    read_config(), read_pretrained(), hf_config() and hf_state().
    """
    name = "a language model"  # in words
    hf_prefix, hf_conv1d = "", False  # how Hugging Face names these weights, and whether it transposes linears
    generation = {}  # what else generation_config.json says

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.recompute = False  # activation checkpointing: of a block keep its input, make the rest again in backward
        self.origin = None  # the directory this came from; its tokenizer travels along in save_pretrained
        self.caches = None  # of compiled generation: a CUDA graph wants them where they were

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
        return self(idx, targets, documents=documents, criterion=LanguageModel.losses_of)[1]

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
                    step, view, S = compiled, caches, size
                else:  # of the cache no more than what is in it
                    step, S = self.next_token, n - first
                    view = [(k[:, :, : n - first], v[:, :, : n - first]) for k, v in caches] if use_cache else None
                token = step(out[:, first + start : n].clone(), view, S, torch.arange(start, n - first, device=device),
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

    def next_token(self, idx, caches, S, steps, pad, seen, noise, temperature, top_k, top_p, penalty):
        """
        The tokens (B,) that follow idx (B, T), which stands at `steps` (T,) of a window of S. pad (B,): how many tokens
        at each row's beginning are padding; None: there are none, and the cache is no wider than what has been read.
        """
        positions, mask = steps, None
        if pad is not None:  # positions count from each row's first real token; padding is masked out of every key
            pad, queries = pad.unsqueeze(1), steps.unsqueeze(1)  # (B, 1), (T, 1)
            keys = torch.arange(S, device=idx.device)  # (S,)
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
        """Keys and values for each block, of cache_shapes' shapes. Compiled: kept for the next time."""
        shapes, like = self.cache_shapes(B, size), self.wte.weight
        if not compiled:
            return [tuple(like.new_empty(2, *shape)) for shape in shapes]
        old = [(k.shape, k.dtype, k.device) for k, _ in self.caches or ()]
        if old != [(shape, like.dtype, like.device) for shape in shapes]:
            self.caches = [(like.new_zeros(shape), like.new_zeros(shape)) for shape in shapes]
        # A CUDA graph copies its inputs to places of its own, unless they are parameters (no NF4Linear.q is) or marked
        weights = [t for m in self.modules() if hasattr(m, "q") for t in m.q.tensors().values()]
        for tensor in weights + [t for pair in self.caches for t in pair]:
            torch._dynamo.mark_static_address(tensor)
        return self.caches

    # ------------------------------------------------------------------------------------------------------------------
    # the Hugging Face layout

    @classmethod
    def from_pretrained(cls, path_or_name, dropout=0.0, dtype=torch.float32):
        """
        Load a Hugging Face model of this kind: a directory, a hub id such as "openai-community/gpt2", downloaded once,
        or the base of an adapter directory. dtype: of its weights; None: as they are on disk. Raises FileNotFoundError
        when there is no such model, ValueError when it is damaged or of another kind.
        """
        path = str(path_or_name)
        directory = path if os.path.isdir(path) else download(path)
        if os.path.exists(os.path.join(directory, "adapter_config.json")):  # of an adapter, its base
            with open(os.path.join(directory, "adapter_config.json")) as f:
                base = json.load(f).get("base_model_name_or_path")
            if not base or os.path.realpath(base) == os.path.realpath(directory):
                raise ValueError(f"{directory} is an adapter that does not say what its base is")
            return cls.from_pretrained(base, dropout, dtype)
        config, state = cls.read_pretrained(directory)
        if any(name.endswith(".absmax") for name in state):
            raise ValueError(f"{directory} holds weights in 4 bits; read it with checkpoint.load(directory)")
        model = cls._with_state(config, state, directory, dtype)
        model.set_dropout(dropout)
        return model

    @classmethod
    def _with_state(cls, config, state, where, dtype=torch.float32):
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
        found = {v.dtype for v in state.values() if v.device.type != "meta"}
        dtype = dtype or (found.pop() if len(found) == 1 and found <= COMPUTABLE else torch.float32)
        model.load_state_dict({k: v.to(dtype).contiguous() for k, v in state.items()}, assign=True)
        model.origin = where if os.path.isdir(where) else None
        return model

    def save_pretrained(self, directory, tokenizer=None, dtype=torch.float32):
        """
        Write config.json, generation_config.json and model.safetensors (the weights in dtype) so that transformers,
        vLLM and llama.cpp load them. Linears in NF4 are written in 4 bits, as transformers with bitsandbytes does.
        tokenizer: a data.Tokenizer to write beside it; without one, that of the directory this model was loaded from.
        """
        if any("lora_" in name for name, _ in self.named_parameters()):
            raise ValueError("the model has LoRA on it; merge_lora(model) first, or save_adapter(model, directory)")
        os.makedirs(directory, exist_ok=True)
        hf = self.hf_config(tokenizer) | dict(torch_dtype=str(dtype).removeprefix("torch."))
        generation = self.generation | {k: v for k, v in hf.items() if k.endswith("_token_id")}
        state = {}
        for name, tensor in self.hf_state().items():  # of NF4, bytes and weight.absmax, ... stay as they are
            tensor = tensor.to(dtype) if tensor.is_floating_point() and ".weight." not in name else tensor
            state[type(self).hf_prefix + name] = tensor.detach().cpu().contiguous()
        if any(name.endswith(".absmax") for name in state):
            hf["quantization_config"] = dict(
                quant_method="bitsandbytes", load_in_4bit=True, bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=any(name.endswith(".nested_absmax") for name in state),
                bnb_4bit_quant_storage="uint8", bnb_4bit_compute_dtype=hf["torch_dtype"])
        save_file(state, os.path.join(directory, "model.safetensors.tmp"), metadata={"format": "pt"})
        os.replace(os.path.join(directory, "model.safetensors.tmp"), os.path.join(directory, "model.safetensors"))
        for name, content in ("config.json", hf), ("generation_config.json", generation):
            with open(os.path.join(directory, name), "w") as f:
                json.dump(content, f, indent=2)
        if tokenizer:
            tokenizer.save(directory)
        if self.origin and os.path.realpath(self.origin) != os.path.realpath(directory):
            others = () if tokenizer else ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt",
                                           "special_tokens_map.json", "chat_template.jinja")
            for name in ("tokenizer.model", *others):  # the first is what llama.cpp's converter looks for
                if os.path.exists(os.path.join(self.origin, name)):
                    shutil.copy(os.path.join(self.origin, name), directory)


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
    wanted = wanted and sum(p.nbytes for p in model.parameters()) < 2**32  # there will be two of each
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


def read_hf_config(directory, name="config.json"):
    """The config.json of a Hugging Face directory, a dict."""
    try:
        with open(os.path.join(directory, name)) as f:
            return dict(json.load(f))
    except FileNotFoundError:
        raise FileNotFoundError(f"{directory} has no {name}, so it is no model checkpoint") from None
    except (ValueError, TypeError) as e:
        raise ValueError(f"{directory}/{name} is no JSON object ({e}); copy the checkpoint again") from None


def read_weights(directory):
    names = ["model.safetensors"]
    index = os.path.join(directory, "model.safetensors.index.json")
    if os.path.exists(index):
        try:
            with open(index) as f:
                names = [os.path.join(".", name) for name in sorted(set(json.load(f)["weight_map"].values()))]
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise ValueError(f"{index} is damaged ({type(e).__name__}: {e}); copy or download it again") from None
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


def drop_tied_head(state, embedding, directory):
    """Take lm_head out of a state dict: it must be the embedding once more. ValueError if it is another matrix."""
    head = state.pop("lm_head.weight", None)
    if head is not None and embedding in state and not torch.equal(head, state[embedding]):
        raise ValueError(f"{directory} has an output head of its own; only one tied to the embedding is supported")


TOKENIZER = ["tokenizer*", "chat_template.jinja"]
MODEL = ["config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json", "adapter_config.json",
         "vocab.json", "merges.txt", "README.md", "LICENSE*", *TOKENIZER]


def download(name, patterns=MODEL):
    """Fetch a model, or these files of it, from the Hugging Face hub into its usual cache; return the directory."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError

    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name[0] == ".":
        raise FileNotFoundError(f"there is no directory {name}")
    try:
        return snapshot_download(name, allow_patterns=patterns)
    except GatedRepoError:
        raise FileNotFoundError(
            f"{name} is given to those who accept its licence: do so at https://huggingface.co/{name}, make a token at "
            "https://huggingface.co/settings/tokens, and give it to: hf auth login (or set HF_TOKEN)") from None
    except Exception as e:  # no network, no such repository, gated, bad name: the hub has a class for each
        raise FileNotFoundError(f"{name} is no directory here, and the Hugging Face hub did not give it "
                                f"({type(e).__name__}); name a checkpoint directory, "
                                "or check the id, the network, and your token: hf auth whoami") from None
