"""
Train a GPT-2: from scratch, or on from any checkpoint; on a CPU, a GPU, or many.

    python train.py --data data/sec --out runs/sec                        # 124M, one pass over the data
    python train.py --data data/sec --out runs/sec --init gpt2            # continue from OpenAI's weights
    python train.py --data data/sec --out runs/lora --init gpt2 --lora_rank 16      # LoRA; with --quantize nf4: QLoRA
    python train.py --size gpt2-xl --lora_rank 16 --plan                  # the memory it would take; nothing is trained
    python train.py @recipes/demo.txt                                     # flags from a file
    python train.py --out runs/sec --resume                               # go on exactly where it stopped
    torchrun --standalone --nproc_per_node=8 train.py --data data/sec --out runs/sec

One loop serves them all. The batch of a step is a function of (data, seed, step), its size is given in tokens, and how
it is cut into micro-batches and ranks does not change the result: the loss is always the sum over the global batch
divided by the tokens in it. A checkpoint is a Hugging Face model directory (checkpoint.py); log.jsonl has a line per
logged step.
"""
import contextlib
import json
import math
import os
import re
import signal
import sys
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

import checkpoint
import cli
import data
import lora
import plan
from model import GPT, SIZES, GPTConfig, read_config

# dense bf16 tensor-core peaks in TFLOP/s, by words of the device's name; the first that matches counts
PEAK_TFLOPS = {
    "B200": 2250, "H200": 989, "H100 PCIe": 756, "H100": 989, "GH200": 989, "A100": 312, "A10G": 70, "A10": 125,
    "A40": 150, "A6000": 155, "L40S": 362, "L40": 181, "L4": 121, "V100": 125, "T4": 65, "MI300X": 1307,
    "MI325X": 1307, "MI250X": 383, "RTX 5090": 209, "RTX 4090": 165, "RTX 4080 SUPER": 104, "RTX 4080": 97,
    "RTX 4070 Ti SUPER": 88, "RTX 4070 Ti": 80, "RTX 4070 SUPER": 71, "RTX 4070": 58, "RTX 4060 Ti": 44,
    "RTX 4060": 30, "RTX 3090 Ti": 80, "RTX 3090": 71}
# a resumed run is the same run: these flags make its batches, its model and its steps
FIXED = ("init", "n_layer", "n_head", "n_embd", "seq_len", "dropout", "bias", "batch_tokens",
         "lora_rank", "lora_alpha", "lora_targets", "lora_dropout", "rslora", "quantize",
         "optimizer", "lr", "min_lr", "schedule", "warmup_steps", "decay_fraction", "steps",
         "weight_decay", "beta1", "beta2", "momentum", "grad_clip", "seed")
DEFAULT_LR = {"adamw": 6e-4, "muon": 2e-3, "lora": 2e-4}


def flags():
    p = cli.Parser("train.py", __doc__)
    p.add_argument("--data", help="a data directory of prepare.py")
    p.add_argument("--out", help="the run directory")
    p.add_argument("--resume", action="store_true",
                   help="go on from the newest checkpoint in --out, if there is one; its flags are the defaults")
    p.add_argument("--init", default="scratch",
                   help="scratch, a checkpoint or run directory, a hub id, or a nanoGPT ckpt.pt")
    p.add_argument("--plan", action="store_true", help="only print the memory that these flags would take on a GPU, "
                   "or with --device cpu there, and what fits on which card")
    g = p.add_argument_group("model (from scratch)")
    g.add_argument("--size", choices=SIZES, default="gpt2", help="shape by name: 124M, 355M, 774M, 1558M")
    g.add_argument("--n_layer", type=cli.positive(int), help="layers, instead of the size's")
    g.add_argument("--n_head", type=cli.positive(int), help="heads")
    g.add_argument("--n_embd", type=cli.positive(int), help="channels")
    g.add_argument("--seq_len", type=cli.positive(int), help="tokens of context [1024, or the loaded model's]")
    g.add_argument("--dropout", type=cli.fraction, default=0.0, help="0 for pretraining; 0.1 helps where epochs repeat")
    g.add_argument("--bias", type=int, choices=(0, 1), default=0, help="biases in linears and layer norms")
    g = p.add_argument_group("LoRA (of a model given by --init)")
    g.add_argument("--lora_rank", type=cli.positive(int), help="train adapters of this rank and nothing else")
    g.add_argument("--lora_alpha", type=cli.positive(float), default=32.0, help="the adapters count alpha / rank times")
    g.add_argument("--lora_targets", default="all-linear", help="or names with commas: c_attn,mlp.c_proj")
    g.add_argument("--lora_dropout", type=cli.fraction, default=0.0, help="on the adapters' input")
    g.add_argument("--rslora", action="store_true", help="alpha / sqrt(rank) times instead")
    g.add_argument("--quantize", choices=("nf4",), help="keep the frozen linears in 4 bits: QLoRA")
    g = p.add_argument_group("batch and length")
    g.add_argument("--batch_tokens", type=cli.positive(int), default=131072,
                   help="tokens per optimizer step, over all ranks")
    g.add_argument("--micro_batch", type=cli.positive(int),
                   help="sequences at a time on a rank [as many as fit 16k tokens, on a CPU 4k]")
    g.add_argument("--steps", type=cli.positive(int), help="optimizer steps [one pass over the data]")
    g = p.add_argument_group("optimizer")
    g.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw",
                   help="muon: for the blocks' matrices, AdamW for the rest")
    g.add_argument("--lr", type=cli.positive(float), help=f"peak learning rate {DEFAULT_LR}")
    g.add_argument("--min_lr", type=cli.fraction, default=0.1, help="final learning rate, as a share of the peak")
    g.add_argument("--schedule", choices=("cosine", "wsd"), default="cosine",
                   help="wsd: warm-up, stable, linear decay at the end")
    g.add_argument("--warmup_steps", type=cli.non_negative(int), help="[2 %% of the steps]")
    g.add_argument("--decay_fraction", type=cli.fraction, default=0.4, help="wsd: share of the steps that decays")
    g.add_argument("--weight_decay", type=cli.non_negative(float), help="on matrices only [0.1; LoRA: 0]")
    g.add_argument("--beta1", type=cli.fraction, default=0.9, help="AdamW")
    g.add_argument("--beta2", type=cli.fraction, default=0.95, help="AdamW")
    g.add_argument("--momentum", type=cli.fraction, default=0.95, help="Muon")
    g.add_argument("--grad_clip", type=cli.non_negative(float), default=1.0, help="largest gradient norm; 0: none")
    g = p.add_argument_group("watching and keeping")
    g.add_argument("--eval_every", type=cli.positive(int), default=250, help="steps between validations")
    g.add_argument("--eval_tokens", type=cli.positive(int), default=1 << 20,
                   help="validation tokens, evenly spread; all of them if fewer")
    g.add_argument("--save_every", type=cli.positive(int), default=250, help="steps between checkpoints")
    g.add_argument("--keep", type=cli.positive(int), default=2, help="newest checkpoints to keep, beside the best")
    g.add_argument("--log_every", type=cli.positive(int), default=10, help="steps between lines of the log")
    g = p.add_argument_group("machine")
    cli.add_machine_flags(g)
    g.add_argument("--compile", type=int, choices=(0, 1), help="torch.compile [1 on a GPU, 0 elsewhere]")
    g.add_argument("--seed", type=int, default=0, help="of initialisation, batches and dropout")
    return p


def read_args():
    """The flags, with what was left out filled in; for --resume, from the run that is resumed."""
    parser = flags()
    args = parser.parse_args()
    if args.plan:
        return args, None
    if not args.out:
        parser.error("--out is missing: name the run directory to write, as in --out runs/first")
    newest = checkpoint.resolve(args.out)
    if args.resume and newest != args.out:
        state = checkpoint.load_json_state(newest)
        parser.set_defaults(**{k: v for k, v in state["args"].items()
                               if k not in ("resume", "out", "device", "compile")})
        args = parser.parse_args()
        for name in FIXED:
            before = state["args"].get(name, parser.get_default(name))  # older runs did not know every flag
            if getattr(args, name) != before:
                raise ValueError(f"--resume goes on with the run as it was: --{name} was {before}, "
                                 f"not {getattr(args, name)}; for a new run choose another --out "
                                 f"(--init {args.out} starts from its weights)")
        return args, newest
    if newest != args.out:
        raise ValueError(f"{args.out} already holds a run; add --resume to go on with it, or choose another --out")
    if args.lora_rank and args.optimizer != "adamw":
        parser.error(f"--optimizer {args.optimizer} is not for LoRA, whose matrices are thin; leave it out")
    alone = [name for name in ("quantize", "lora_alpha", "lora_targets", "lora_dropout", "rslora")
             if getattr(args, name) != parser.get_default(name) and not args.lora_rank]
    if alone:
        parser.error(f"--{alone[0]} is about LoRA; add --lora_rank 16 to train an adapter")
    if not args.data:
        parser.error("--data is missing: name a data directory, made by: python prepare.py corpus PATH --out DIR")
    return args, None


def build_model(args, corpus, resumed):
    """(the model to train, on the CPU, and where it came from: a directory, hub id or None for scratch)."""
    torch.manual_seed(args.seed)
    source = resumed or (None if args.init == "scratch" else checkpoint.resolve(args.init))
    if not source:
        if args.lora_rank:
            raise ValueError("LoRA corrects a model that has learnt something; name one with --init")
        for name, value in SIZES[args.size].items():
            setattr(args, name, getattr(args, name) or value)
        args.seq_len = args.seq_len or 1024
        return GPT(GPTConfig(corpus.tokenizer.vocab_size, args.seq_len, args.n_layer, args.n_head, args.n_embd,
                             args.dropout, bool(args.bias))), None
    if checkpoint.is_adapter(source) and not resumed:
        raise ValueError(f"--init {args.init} is an adapter; make it a model of its own first: "
                         f"python checkpoint.py merge {args.init} --out DIR")
    model, theirs = checkpoint.load(source, merge=False)
    model.set_dropout(args.dropout)
    if not theirs.same_as(corpus.tokenizer):
        raise ValueError(f"{args.data} was encoded with the tokenizer {corpus.manifest['tokenizer']['name']}, "
                         f"not with that of {source}; "
                         f"build it again with: python prepare.py corpus ... --tokenizer {source}")
    c = model.config
    given = [k for k in ("n_layer", "n_head", "n_embd") if getattr(args, k) not in (None, getattr(c, k))]
    if given:
        raise ValueError(f"--init {args.init} has its own shape; leave out {', '.join('--' + k for k in given)}")
    args.n_layer, args.n_head, args.n_embd, args.bias = c.n_layer, c.n_head, c.n_embd, int(c.bias)
    args.seq_len = args.seq_len or c.block_size
    if args.seq_len > c.block_size:
        raise ValueError(f"--seq_len {args.seq_len} is longer than the {c.block_size} positions of {source}")
    if args.lora_rank and not resumed:
        lora.add_lora(model, args.lora_rank, args.lora_alpha, args.lora_targets, args.lora_dropout, args.quantize,
                      args.rslora)
    if lora.is_quantized(model) and not args.lora_rank:
        raise ValueError(f"--init {args.init} is in 4 bits, which can't be trained; train an adapter beside them: "
                         "add --lora_rank 16")
    return model, source


def peak_flops(device):
    """Dense bf16 FLOP/s of this GPU, or None if it is not in the table."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((1e12 * t for part, t in PEAK_TFLOPS.items() if re.search(rf"\b{part}\b", name)), None)


def training_flops(model, T):
    """
    FLOPs per token, forward and backward: 6 per matmul weight plus attention (PaLM, 2022, appendix B). A frozen weight
    has no gradient of its own and costs 4.
    """
    trainable, total = lora.count(model)
    c = model.config
    return 6 * trainable + (6 if trainable == total else 4) * (
        total - trainable - model.wpe.weight.numel()) + 12 * c.n_layer * c.n_embd * T


def memory_in_words(model):
    """What lies in memory for a LoRA run, but for activations."""
    packed = [m.q for m in model.modules() if isinstance(m, lora.NF4Linear)]
    dense = sum(p.numel() * p.element_size() for p in model.parameters() if not p.requires_grad)
    trainable, _ = lora.count(model)
    words = [f"{dense / 1e6:,.1f} MB of frozen weights"]
    if packed:
        size, weights = sum(q.nbytes() for q in packed), sum(q.shape.numel() for q in packed)
        words.insert(0, f"{weights:,} weights in NF4, {size / 1e6:,.1f} MB at {8 * size / weights:.3f} bits")
    return ", ".join([*words, f"{16 * trainable / 1e6:,.1f} MB of adapters, gradients and AdamW"])


# ----------------------------------------------------------------------------------------------------------------------
# Optimizers and schedule


def make_optimizers(model, args, device):
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


def optimizer_tensors(model, optimizers):
    """
    All optimizer state as {"parameter/key": tensor}: named, so that it does not depend on the order of parameters.
    """
    names = {p: n for n, p in model.named_parameters()}
    return {f"{names[p]}/{key}": value.detach().cpu().contiguous() for o in optimizers for p, entry in o.state.items()
            for key, value in entry.items()}


def restore_optimizers(model, optimizers, tensors):
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


# ----------------------------------------------------------------------------------------------------------------------
# Validation and the log


@torch.no_grad()
def validate(model, windows, token_bytes, batch, device, autocast, rank, world):
    """
    Mean loss in nats per token, perplexity and bits per byte over the validation windows. Special tokens stand for no
    bytes, so they count in the loss per token and not in the bits per byte.
    """
    x, y = windows
    model.eval()
    sums = torch.zeros(4, dtype=torch.float64)  # nats, tokens, nats of text, bytes
    for i in range(rank * batch, len(x), world * batch):
        xb, yb = torch.from_numpy(x[i : i + batch]).to(device), torch.from_numpy(y[i : i + batch]).to(device)
        size = token_bytes[yb.clamp(min=0)] * (yb >= 0)
        text = torch.where(size > 0, yb, -100)
        with autocast():
            states = model.hidden(xb)
            nats, nats_text = (model.loss_of(states, t) for t in (yb, text))
        sums += torch.tensor([nats.item(), (yb >= 0).sum().item(), nats_text.item(), size.sum().item()],
                             dtype=torch.float64)
    model.train()
    if world > 1:
        sums = sums.to(device, torch.float32 if device.type == "mps" else torch.float64)
        dist.all_reduce(sums)
    nats, tokens, nats_text, size = sums.tolist()
    loss = nats / max(1, tokens)
    return dict(val_loss=loss, val_perplexity=math.exp(min(loss, 50)), val_bpb=nats_text / math.log(2) / max(1, size))


def plot(run):
    """loss.png: training and validation loss over tokens, from log.jsonl."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with open(os.path.join(run, "log.jsonl")) as f:
        log = [json.loads(line) for line in f]
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for key, style in (("train_loss", dict(alpha=0.6, linewidth=1)), ("val_loss", dict(marker="o", markersize=3))):
        points = [(r["tokens"], r[key]) for r in log if r.get(key) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=key.replace("_", " "), **style)
    axes.set(xlabel="tokens", ylabel="nats per token", title=os.path.basename(os.path.abspath(run)))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(os.path.join(run, "loss.png.tmp"), format="png", dpi=120)
    os.replace(os.path.join(run, "loss.png.tmp"), os.path.join(run, "loss.png"))
    pyplot.close(figure)


def cut_log(run, step):
    """Forget the lines after this step: the resumed run writes them again."""
    path = os.path.join(run, "log.jsonl")
    if os.path.exists(path):
        with open(path) as f:
            lines = [line for line in f if line.endswith("\n") and json.loads(line)["step"] <= step]
        with open(path + ".tmp", "w") as f:
            f.writelines(lines)
        os.replace(path + ".tmp", path)


# ----------------------------------------------------------------------------------------------------------------------


def print_plan(args):
    local = checkpoint.resolve(args.init)
    if os.path.isdir(local):
        config = read_config(local)
    else:
        name = args.size if args.init == "scratch" else args.init.removeprefix("openai-community/")
        if name not in SIZES:
            raise ValueError(f"--plan knows local checkpoints and {', '.join(SIZES)}, not --init {args.init}")
        shape = SIZES[name]
        vocabulary = data.Tokenizer.load(args.data).vocab_size if args.data else 50257
        config = GPTConfig(vocabulary, args.seq_len or 1024, **{k: getattr(args, k) or v for k, v in shape.items()},
                           dropout=args.dropout, bias=bool(args.bias) or args.init != "scratch")
    T, gpu = args.seq_len or config.block_size, args.device != "cpu"
    dtype = "bfloat16" if gpu and args.dtype == "auto" else cli.choose_dtype(args.dtype, torch.device("cpu"))
    batch = args.micro_batch or max(1, min(16384 if gpu else 4096, args.batch_tokens) // T)
    print(plan.table(config, batch, T, args.lora_rank or 16, args.lora_targets, getattr(torch, dtype), gpu,
                     args.optimizer == "muon", batch * T < args.batch_tokens))


def main():
    args, resumed = read_args()
    if args.plan:
        return print_plan(args)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = cli.choose_device(args.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo",
                                device_id=device if device.type == "cuda" else None)
    say = print if rank == 0 else lambda *a, **k: None
    args.dtype = dtype = cli.choose_dtype(args.dtype, device)
    args.compile = device.type == "cuda" if args.compile is None else bool(args.compile)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # what stays in float32 may use TF32

    # the data, the model, and the numbers that follow from them
    corpus = data.TokenData(args.data, verify=int(os.environ.get("LOCAL_RANK", 0)) == 0)
    tokenizer = corpus.tokenizer
    model, source = build_model(args, corpus, resumed)
    base = {}
    if args.lora_rank:
        base = dict(base=lora.read_adapter(resumed)[0]["base_model_name_or_path"] if resumed else
                    os.path.abspath(source) if os.path.exists(source) else args.init,
                    base_sha256=lora.weights_sha256(model.origin) if model.origin else "")
        lora.cast_frozen(model, getattr(torch, dtype))
    model.to(device)
    T = args.seq_len
    rows = args.batch_tokens // T  # of the global batch
    if rows * T != args.batch_tokens or rows % world:
        raise ValueError(f"--batch_tokens {args.batch_tokens} must be a multiple of --seq_len {T}"
                         + (f" times {world} ranks" if world > 1 else ""))
    if args.micro_batch is None:
        room = max(1, (16384 if device.type == "cuda" else 4096) // T)
        args.micro_batch = next(b for b in range(min(room, rows // world), 0, -1) if rows // world % b == 0)
    if rows // world % args.micro_batch:
        raise ValueError(f"--micro_batch {args.micro_batch} must divide "
                         f"the {rows // world} sequences of a rank's batch")
    accumulation = rows // world // args.micro_batch
    train_tokens = corpus.tokens("train")
    corpus.windows(0, [0], T, rows, args.seed)  # says so if the data is too small
    args.steps = args.steps or max(1, round(train_tokens / args.batch_tokens))
    args.warmup_steps = args.steps // 50 if args.warmup_steps is None else args.warmup_steps
    args.lr = args.lr or DEFAULT_LR["lora" if args.lora_rank else args.optimizer]
    args.weight_decay = (0.0 if args.lora_rank else 0.1) if args.weight_decay is None else args.weight_decay
    flops = training_flops(model, T)
    say(f"data     {args.data}: {train_tokens:,} training and {corpus.tokens('val'):,} validation tokens, "
        f"tokenizer {corpus.manifest['tokenizer']['name']} ({tokenizer.vocab_size:,} tokens), checksums match")
    trainable, total = lora.count(model)
    say(f"model    {total:,} parameters: {args.n_layer} layers, {args.n_head} heads, "
        f"{args.n_embd} channels, context {T}, from {source or 'scratch'}")
    if args.lora_rank:
        say(f"LoRA     rank {args.lora_rank} on {len(lora.adapters(model))} linears: {trainable:,} of them train "
            f"({trainable / total:.2%}); " + memory_in_words(model))
    say(f"batch    {args.batch_tokens:,} tokens = {rows} x {T} = "
        f"{world} ranks x {accumulation} micro-batches x {args.micro_batch} x {T}")
    say(f"length   {args.steps:,} steps = {args.steps * args.batch_tokens:,} tokens = "
        f"{args.steps * args.batch_tokens / train_tokens:.2f} epochs, "
        f"{args.warmup_steps} of warm-up, {args.schedule} to {args.lr * args.min_lr:.2g}")
    say(f"machine  {device}, {dtype} products, {'compiled' if args.compile else 'not compiled'}, "
        f"{args.optimizer} at {args.lr:g}")

    # optimizers and what a resumed run brings along
    optimizers = make_optimizers(model, args, device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == "float16" and device.type == "cuda")
    step, validated, skipped, best = 0, -1, 0, dict(step=0, val_loss=None, val_bpb=None)
    if resumed:
        tensors, state = checkpoint.load_state(resumed)
        if state["data_fingerprint"] != corpus.fingerprint():
            raise ValueError(f"{args.data} is not the data this run was trained on; "
                             "name that directory with --data, or start a new run")
        if state.get("trainable", trainable) != trainable:
            raise ValueError(f"{resumed} trained {state['trainable']:,} parameters, not {trainable:,}")
        restore_optimizers(model, optimizers, tensors)
        if scaler.is_enabled() and state["scaler"]:
            scaler.load_state_dict(state["scaler"])
        step, skipped, best, validated = state["step"], state["skipped"], state["best"], state["validated"]
        say(f"resumed  {resumed} at step {step:,}")
    if world > 1:
        seen = [None] * world
        dist.all_gather_object(seen, step)
        if len(set(seen)) > 1:
            raise ValueError(f"the ranks found checkpoints of different steps {sorted(set(seen))}; "
                             "--out must be a folder that all of them share")
    if rank == 0:
        os.makedirs(args.out, exist_ok=True)
        if args.lora_rank and not resumed:
            checkpoint.mark_as_base(source, args.out)
        checkpoint.clean(args.out)
        if resumed:
            checkpoint.point_to(args.out, step)  # a kill may have come between the rename and this
        cut_log(args.out, step if resumed else -1)

    autocast = ((lambda: torch.autocast(device.type, getattr(torch, dtype))) if dtype != "float32"
                else contextlib.nullcontext)
    forward = torch.compile(model) if args.compile else model
    if world > 1:
        forward = DistributedDataParallel(forward, device_ids=[device] if device.type == "cuda" else None,
                                          gradient_as_bucket_view=True)
    windows = corpus.validation(T, args.eval_tokens)
    token_bytes = torch.from_numpy(tokenizer.token_bytes()).to(device)
    token_bytes = torch.nn.functional.pad(token_bytes, (0, model.config.vocab_size - len(token_bytes)))
    per_rank = rows // world
    mine = range(rank * per_rank, (rank + 1) * per_rank)  # my rows of the global batch
    peak = peak_flops(device)
    stop = []  # the signals received
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: stop.append(number))
    bar = tqdm(total=args.steps, initial=step, unit="step", disable=True if rank else None, smoothing=0.05)

    plotted = [0.0]

    def log(line, entry):
        if rank == 0:
            bar.write(line) if not bar.disable else print(line, flush=True)
            with open(os.path.join(args.out, "log.jsonl"), "a") as f:
                finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in entry.items()}
                f.write(json.dumps(finite) + "\n")

    def save():
        if rank == 0:
            state = dict(step=step, tokens=step * args.batch_tokens, validated=validated, skipped=skipped, best=best,
                         scaler=scaler.state_dict(), args=vars(args), trainable=trainable,
                         data_fingerprint=corpus.fingerprint(), torch=torch.__version__)
            checkpoint.save(args.out, step, model, tokenizer, optimizer_tensors(model, optimizers), state, args.keep,
                            **base)
            if step >= args.steps or time.perf_counter() - plotted[0] > 60:
                plot(args.out)
                plotted[0] = time.perf_counter()
        if world > 1:
            dist.barrier()

    # the loop: validate, save, stop, or take one step
    saved = step if resumed else -1
    clock, clock_step, bad_in_a_row = time.perf_counter(), step, 0
    model.train()
    while True:
        last = step >= args.steps
        if (step % args.eval_every == 0 or last) and validated < step and len(windows[0]):
            paused = time.perf_counter()
            result = validate(model, windows, token_bytes, args.micro_batch, device, autocast, rank, world)
            validated = step
            if best["val_loss"] is None or result["val_loss"] < best["val_loss"]:
                best = dict(step=step, val_loss=result["val_loss"], val_bpb=result["val_bpb"])
            log(f"step {step:>6}  validation loss {result['val_loss']:.4f}  perplexity {result['val_perplexity']:.2f}  "
                f"{result['val_bpb']:.4f} bits/byte", dict(step=step, tokens=step * args.batch_tokens, **result))
            if best["step"] == step and step > saved and step:
                save()  # the best is kept, so it has to be there
                saved = step
            clock += time.perf_counter() - paused
        if (last or (step % args.save_every == 0 and step)) and saved < step:
            paused = time.perf_counter()
            save()
            saved = step
            clock += time.perf_counter() - paused
        if last:
            break

        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = args.lr * learning_rate(step, args)
        if args.dropout or args.lora_dropout:  # dropout too is a function of the step: no generator state to save
            torch.manual_seed(args.seed + 1_000_003 * (step * world + rank))
        total = torch.zeros((), device=device)
        for i in range(accumulation):
            x, y = corpus.batch(step, mine[i * args.micro_batch : (i + 1) * args.micro_batch], T, rows, args.seed)
            x, y = torch.from_numpy(x).to(device, non_blocking=True), torch.from_numpy(y).to(device, non_blocking=True)
            sync = forward.no_sync() if world > 1 and i < accumulation - 1 else contextlib.nullcontext()
            with sync:
                with autocast():
                    _, loss = forward(x, y, reduction="sum")
                # DDP averages over ranks; times world makes it the sum that the law of one loss asks for
                scaler.scale(loss * (world / args.batch_tokens)).backward()
            total += loss.detach()
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), args.grad_clip or math.inf)
        news = torch.tensor([total.item() / args.batch_tokens, float(bool(stop))], dtype=torch.float64)
        if world > 1:  # one small message: the loss, and whether any rank was told to stop
            news = news.to(device)
            dist.all_reduce(news)
        train_loss, told_to_stop = news.tolist()
        norm = norm.item()
        if math.isfinite(train_loss) and math.isfinite(norm):
            for optimizer in optimizers:
                scaler.step(optimizer)
        scaler.update()
        # an overflow of float16 gradients is no fault of the batch: the step is skipped and the scale comes down
        bad = not math.isfinite(train_loss) or not (math.isfinite(norm) or scaler.is_enabled())
        bad_in_a_row = bad_in_a_row + 1 if bad else 0
        if bad:
            skipped += 1
            names = corpus.documents("train", corpus.windows(step, range(rows), T, rows, args.seed), T)
            log(f"step {step:>6}  loss {train_loss}, gradient norm {norm}: step skipped; "
                f"its documents: {', '.join(names[:20])}",
                dict(step=step, tokens=step * args.batch_tokens, train_loss=None, skipped=skipped, documents=names))
            if bad_in_a_row >= 5:
                raise ValueError(f"{bad_in_a_row} steps in a row gave no finite loss or gradient; lower --lr, "
                                 f"or look at the documents named in {args.out}/log.jsonl")
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        step += 1
        bar.update()

        if step % args.log_every == 0 or step == args.steps:
            seconds = time.perf_counter() - clock
            speed = (step - clock_step) * args.batch_tokens / seconds
            clock, clock_step = time.perf_counter(), step
            mfu = speed * flops / (peak * world) if peak else None
            eta = (args.steps - step) * args.batch_tokens / speed
            log(f"step {step:>6}/{args.steps}  loss {train_loss:.4f}  norm {norm:.2f}  "
                f"lr {optimizers[0].param_groups[0]['lr']:.2e}  {speed:,.0f} tokens/s"
                + (f"  MFU {mfu:.1%}" if mfu else "") + f"  {eta / 60:.1f} min left",
                dict(step=step, tokens=step * args.batch_tokens, train_loss=train_loss, grad_norm=norm,
                     lr=optimizers[0].param_groups[0]["lr"], tokens_per_second=speed, mfu=mfu))
        if told_to_stop and step < args.steps:
            save()
            bar.close()
            say(f"stopped at step {step:,} and saved; go on with: python train.py --out {args.out} --resume")
            if world > 1:
                dist.destroy_process_group()
            sys.exit(128 + (stop[0] if stop else signal.SIGTERM))

    bar.close()
    say(f"done: {args.out} at step {step:,}" + ("" if best["val_loss"] is None else
        f"; best validation loss {best['val_loss']:.4f} ({best['val_bpb']:.4f} bits/byte) at step {best['step']:,}"))
    say(f"sample from it with: python sample.py {args.out}"
        + (f"; peak memory {torch.cuda.max_memory_allocated() / 2**30:.2f} GB" if device.type == "cuda" else ""))
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    cli.run(main)
