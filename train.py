"""
Train a GPT-2 from scratch, or it or a Gemma 3 on from any checkpoint; on text, examples or preferences; on a CPU, a
GPU, or many.

    python train.py --data data/sec --out runs/sec                        # 124M, one pass over the data
    python train.py --data data/sec --out runs/sec --init gpt2            # continue from OpenAI's weights
    python train.py --data data/sec --out runs/lora --init gpt2 --lora_rank 16      # LoRA; with --quantize nf4: QLoRA
    python train.py --data data/fpb --out runs/sft --init runs/sec                  # examples: supervised fine-tuning
    python train.py --data data/pairs --out runs/dpo --init runs/sft                # preference pairs: DPO
    python train.py --size gpt2-xl --lora_rank 16 --plan                  # the memory it would take; nothing is trained
    python train.py @recipes/demo.txt                                     # flags from a file
    python train.py --out runs/sec --resume                               # go on exactly where it stopped
    torchrun --standalone --nproc_per_node=8 train.py --data data/sec --out runs/sec

One loop serves them all; what is learnt follows from the kind of the data directory (objective.py). The batch of a step
is a function of (data, seed, step), and how it is packed, cut into micro-batches and spread over ranks does not change
the result: the loss is always the sum over the global batch divided by what counts in it. A checkpoint is a Hugging
Face model directory (checkpoint.py); log.jsonl has a line per logged step.
"""
import contextlib
import functools
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
import cost
import data
import examples
import licence
import lora
import objective
import optimizer
import plan
from model import GPT, SIZES, GPTConfig

# dense bf16 tensor-core peaks in TFLOP/s, by words of the device's name; the first that matches counts
PEAK_TFLOPS = {
    "B200": 2250, "H200": 989, "H100 PCIe": 756, "H100": 989, "GH200": 989, "A100": 312, "A10G": 70, "A10": 125,
    "A40": 150, "A6000": 155, "L40S": 362, "L40": 181, "L4": 121, "V100": 125, "T4": 65, "MI300X": 1307,
    "MI325X": 1307, "MI250X": 383, "RTX 5090": 209, "RTX 4090": 165, "RTX 4080 SUPER": 104, "RTX 4080": 97,
    "RTX 4070 Ti SUPER": 88, "RTX 4070 Ti": 80, "RTX 4070 SUPER": 71, "RTX 4070": 58, "RTX 4060 Ti": 44,
    "RTX 4060": 30, "RTX 3090 Ti": 80, "RTX 3090": 71}
# a resumed run is the same run: these flags make its batches, its model and its steps
FIXED = ("init", "n_layer", "n_head", "n_embd", "seq_len", "dropout", "bias", "seq_warmup", "batch_tokens",
         "batch_size", "packing", "train_on_prompt", "dpo_beta", "dpo_sft", "label_smoothing", "teacher_share",
         "temperature", "replay", "lora_rank", "lora_alpha", "lora_targets", "lora_dropout", "rslora", "quantize",
         "optimizer", "lr", "min_lr", "schedule", "warmup_steps", "decay_fraction", "steps",
         "weight_decay", "beta1", "beta2", "momentum", "grad_clip", "seed")
# peak learning rates; Muon's from scratch is 0.1 / sqrt(n_embd), at GPT-2 124M Jordan's 0.02 in AdamW's measure
LR = {"lm": {"adamw": 6e-4, "muon": 2e-3, "lora": 2e-4}, "sft": {"adamw": 2e-5, "muon": 2e-4, "lora": 2e-4},
      "pairs": {"adamw": 5e-7, "muon": 5e-6, "lora": 5e-6}}
CONTEXT = 2048  # tokens at most, unless --seq_len says more: some models have room for 131,072
OF_KIND = dict(packing=("sft", "pairs"), train_on_prompt=("sft",), dpo_beta=("pairs",), dpo_sft=("pairs",),
               label_smoothing=("pairs",), teacher=("lm", "sft"))
EPOCHS = {"lm": 1, "sft": 3, "pairs": 1}


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
    g.add_argument("--seq_len", type=cli.positive(int), help="tokens of context [1024; of a loaded model all that it "
                   f"has room for, at most {CONTEXT}]")
    g.add_argument("--dropout", type=cli.fraction, default=0.0, help="0 for pretraining; 0.1 helps where epochs repeat")
    g.add_argument("--bias", type=int, choices=(0, 1), default=0, help="biases in linears and layer norms")
    g = p.add_argument_group("LoRA (of a model given by --init)")
    g.add_argument("--lora_rank", type=cli.positive(int), help="train adapters of this rank and nothing else")
    g.add_argument("--lora_alpha", type=cli.positive(float), default=32.0, help="the adapters count alpha / rank times")
    g.add_argument("--lora_targets", default="all-linear", help="or names with commas: c_attn,mlp.c_proj")
    g.add_argument("--lora_dropout", type=cli.fraction,
                   help="on the adapters' input [0, or what --init has]")
    g.add_argument("--rslora", action="store_true", help="alpha / sqrt(rank) times instead")
    g.add_argument("--quantize", choices=("nf4",), help="keep the frozen linears in 4 bits: QLoRA")
    g = p.add_argument_group("batch and length")
    g.add_argument("--batch_tokens", type=cli.positive(int), default=131072,
                   help="tokens per optimizer step, over all ranks")
    g.add_argument("--micro_batch", type=lambda word: None if word == "auto" else cli.positive(int)(word),
                   metavar="N", help="sequences at a time on a rank, or auto: as many as fit a GPU's free memory, at "
                   "most 64k tokens; on a CPU 4k tokens [auto]")
    g.add_argument("--recompute", type=int, choices=(0, 1), help="activation checkpointing: keep each layer's input "
                   "only, a third more work [1 where nothing fits without]")
    g.add_argument("--seq_warmup", type=cli.fraction, help="share of the steps with shorter windows, a quarter and "
                   "then half of --seq_len, as many tokens [0.35 from scratch, otherwise 0]")
    g.add_argument("--epochs", type=cli.positive(float), help=f"passes over the data {EPOCHS}")
    g.add_argument("--steps", type=cli.positive(int), help="optimizer steps, rather than epochs")
    g.add_argument("--patience", type=cli.positive(int), help="stop after this many validations without a better one")
    g = p.add_argument_group("examples and pairs (data of prepare.py sft, task, pairs, distill)")
    g.add_argument("--batch_size", type=cli.positive(int),
                   help=f"examples per optimizer step [{objective.BATCH_SIZE}, at most a quarter of them]")
    g.add_argument("--packing", type=int, choices=(0, 1), default=1,
                   help="several examples to a row, which do not see each other")
    g.add_argument("--train_on_prompt", action="store_true", help="learn the prompts, too")
    g.add_argument("--dpo_beta", type=cli.positive(float), default=0.1, help="of pairs: how dear it is to move away")
    g.add_argument("--dpo_sft", type=cli.non_negative(float), default=0.0,
                   help="of pairs: how much the chosen answers' own loss counts beside it")
    g.add_argument("--label_smoothing", type=float, default=0.0,
                   help="of pairs: the share ranked wrongly, below 0.5")
    g = p.add_argument_group("what is kept of before, and from whom to learn")
    g.add_argument("--forget_data", metavar="DIR", help="of kind lm: its validation loss is printed before and after "
                   "[a page of general text]")
    g.add_argument("--replay", type=cli.fraction, default=0.0, help="share of the loss that is on --forget_data")
    g.add_argument("--teacher", metavar="CKPT", help="a model with the same tokenizer, whose distribution to learn")
    g.add_argument("--teacher_share", type=float, default=0.5, help="its share of the loss")
    g.add_argument("--temperature", type=cli.positive(float), default=1.0, help="of both distributions")
    g = p.add_argument_group("optimizer")
    g.add_argument("--optimizer", choices=("adamw", "muon"), help="muon: for the blocks' matrices, AdamW for the rest "
                   "[muon from scratch, otherwise adamw]")
    g.add_argument("--lr", type=cli.positive(float),
                   help=f"peak learning rate {LR}, but Muon from scratch [0.1 / sqrt(n_embd)]")
    g.add_argument("--schedule", choices=("cosine", "wsd"), help="wsd: warm-up, stable, linear decay at the end "
                   "[wsd from scratch, otherwise cosine]")
    g.add_argument("--min_lr", type=cli.fraction,
                   help="final learning rate, as a share of the peak [wsd 0, cosine 0.1]")
    g.add_argument("--warmup_steps", type=cli.non_negative(int), help="[2 %% of the steps; examples and pairs 3 %%]")
    g.add_argument("--decay_fraction", type=cli.fraction, default=0.4, help="wsd: share of the steps that decays")
    g.add_argument("--weight_decay", type=cli.non_negative(float), help="on matrices only [0.1; LoRA: 0]")
    g.add_argument("--beta1", type=cli.fraction, default=0.9, help="AdamW")
    g.add_argument("--beta2", type=cli.fraction, default=0.95, help="AdamW")
    g.add_argument("--momentum", type=cli.fraction, default=0.95, help="Muon")
    g.add_argument("--grad_clip", type=cli.non_negative(float), default=1.0, help="largest gradient norm; 0: none")
    g = p.add_argument_group("watching and keeping")
    g.add_argument("--eval_every", type=cli.positive(int),
                   help="steps between validations [250; examples and pairs a tenth of the run]")
    g.add_argument("--eval_tokens", type=cli.positive(int),
                   help="validation tokens, evenly spread; all of them if fewer [1048576; examples and pairs 131072]")
    g.add_argument("--save_every", type=cli.positive(int), default=250, help="steps between checkpoints")
    g.add_argument("--keep", type=cli.positive(int), default=2, help="newest checkpoints to keep, beside the best")
    g.add_argument("--log_every", type=cli.positive(int), default=10, help="steps between lines of the log")
    g = p.add_argument_group("machine")
    cli.add_machine_flags(g)
    g.add_argument("--compile", type=int, choices=(0, 1), help="torch.compile [1 on a GPU from sm_80 on, 0 elsewhere]")
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
    if args.lora_rank and args.optimizer == "muon":
        parser.error(f"--optimizer {args.optimizer} is not for LoRA, whose matrices are thin; leave it out")
    goes_on = checkpoint.is_adapter(checkpoint.resolve(args.init))
    alone = [name for name in ("quantize", "lora_alpha", "lora_targets", "lora_dropout", "rslora")
             if getattr(args, name) != parser.get_default(name) and not args.lora_rank
             and not (goes_on and name == "lora_dropout")]
    if alone:
        parser.error(f"--{alone[0]} is about LoRA; add --lora_rank 16 to train an adapter")
    if not args.data:
        parser.error(f"there is no run in {args.out} to go on with, and --data is missing for a new one" if args.resume
                     else "--data is missing: name a data directory, made by: python prepare.py corpus PATH --out DIR")
    if not 0 <= args.label_smoothing < 0.5:
        parser.error(f"--label_smoothing {args.label_smoothing} is not in [0, 0.5)")
    if args.replay and not args.forget_data:
        parser.error("--replay needs text to replay; name a data directory of kind lm with --forget_data")
    return args, None


def choose_recipe(args, kind, resumed):
    """What the flags left open about the recipe; bench/README.md says what each is worth."""
    args.optimizer = args.optimizer or ("muon" if args.init == "scratch" else "adamw")
    args.schedule = args.schedule or ("wsd" if args.init == "scratch" else "cosine")
    long = args.init == "scratch" and args.seq_len >= 64 and args.seq_len % 4 == 0 and not resumed
    args.seq_warmup = (0.35 if long else 0.0) if args.seq_warmup is None else args.seq_warmup
    if args.seq_warmup and kind != "lm":
        raise ValueError(f"--seq_warmup is about running text; {args.data} is of kind {kind}")
    if args.seq_warmup and args.seq_len % 4:
        raise ValueError(f"--seq_warmup takes a quarter of --seq_len {args.seq_len}, which must be a multiple of 4")
    args.min_lr = (0.1 if args.schedule == "cosine" else 0.0) if args.min_lr is None else args.min_lr
    if args.optimizer == "muon" and args.init == "scratch":
        args.lr = args.lr or 0.1 / math.sqrt(args.n_embd)
    args.lr = args.lr or LR[kind]["lora" if args.lora_rank else args.optimizer]
    args.weight_decay = (0.0 if args.lora_rank else 0.1) if args.weight_decay is None else args.weight_decay


def build_model(args, kind, resumed):
    """(the model to train, on the CPU, its tokenizer, where it came from: a directory, a hub id, None for scratch)."""
    torch.manual_seed(args.seed)
    source = resumed or (None if args.init == "scratch" else checkpoint.resolve(args.init))
    if not source:
        if args.lora_rank:
            raise ValueError("LoRA corrects a model that has learnt something; name one with --init")
        for name, value in SIZES[args.size].items():
            setattr(args, name, getattr(args, name) or value)
        args.seq_len = args.seq_len or 1024
        if kind != "lm":
            raise ValueError(f"{args.data} holds examples, to teach a model that can write; name one with --init")
        tokenizer = data.Tokenizer.load(args.data)
        return GPT(GPTConfig(tokenizer.vocab_size, args.seq_len, args.n_layer, args.n_head, args.n_embd,
                             args.dropout, bool(args.bias))), tokenizer, None
    adapts = args.lora_rank or checkpoint.is_adapter(source)  # then what is frozen may stay in half the memory
    model, tokenizer = checkpoint.load(source, merge=False, dtype=None if adapts else torch.float32)
    model.set_dropout(args.dropout)
    found = lora.adapters(model)
    if found and not resumed:
        layer = next(iter(found.values()))
        if args.lora_rank:
            raise ValueError(f"--init {args.init} is an adapter of rank {layer.rank}: leave out --lora_rank to go on "
                             f"training it, or merge it first: python checkpoint.py merge {args.init} --out DIR")
        args.lora_rank, args.lora_alpha, args.rslora = layer.rank, layer.alpha, layer.rslora
        args.quantize = "nf4" if lora.is_quantized(model) else None
        args.lora_dropout = layer.dropout if args.lora_dropout is None else args.lora_dropout
        for layer in found.values():
            layer.dropout = args.lora_dropout
    c = model.config
    given = [k for k in ("n_layer", "n_head", "n_embd") if getattr(args, k) not in (None, getattr(c, k))]
    if given:
        raise ValueError(f"--init {args.init} has its own shape; leave out {', '.join('--' + k for k in given)}")
    args.n_layer, args.n_head, args.n_embd, args.bias = c.n_layer, c.n_head, c.n_embd, int(c.bias)
    args.seq_len = args.seq_len or min(CONTEXT, c.block_size)
    if args.seq_len > c.block_size:
        raise ValueError(f"--seq_len {args.seq_len} is longer than the {c.block_size} positions of {source}")
    if args.lora_rank and not found:
        args.lora_dropout = args.lora_dropout or 0.0
        lora.add_lora(model, args.lora_rank, args.lora_alpha, args.lora_targets, args.lora_dropout, args.quantize,
                      args.rslora)
    if lora.is_quantized(model) and not args.lora_rank:
        raise ValueError(f"--init {args.init} is in 4 bits, which can't be trained; train an adapter beside them: "
                         "add --lora_rank 16")
    return model, tokenizer, source


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
    tables = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Embedding) and m is not model.wte)
    return 6 * trainable + (6 if trainable == total else 4) * (total - trainable - tables) + model.attention_flops(T)


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
# The log


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
    axes.set(xlabel="tokens", ylabel="loss in nats", title=os.path.basename(os.path.abspath(run)))
    axes.grid(alpha=0.3)
    if axes.lines:
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
    if checkpoint.is_adapter(local):
        local = checkpoint.resolve(lora.read_adapter(local)[0]["base_model_name_or_path"])
    if args.init == "scratch":
        vocabulary = data.Tokenizer.load(args.data).vocab_size if args.data else 50257
        shape = {k: getattr(args, k) or v for k, v in SIZES[args.size].items()}
        config = GPTConfig(vocabulary, args.seq_len or 1024, **shape, dropout=args.dropout, bias=bool(args.bias))
    else:
        config = checkpoint.read_config(local)
    T, gpu = args.seq_len or min(CONTEXT, config.block_size), args.device != "cpu"
    dtype = "bfloat16" if gpu and args.dtype == "auto" else cli.choose_dtype(args.dtype, torch.device("cpu"))
    text = not args.data or data.read_manifest(args.data)["kind"] == "lm"
    # of a step: an example is seldom longer than a row
    rows = args.batch_size or (args.batch_tokens // T if text else objective.BATCH_SIZE)
    batch = args.micro_batch or max(1, min(rows, (16384 if gpu else 4096) // T))
    print(plan.table(config, batch, T, args.lora_rank or 16, args.lora_targets, getattr(torch, dtype), gpu,
                     args.optimizer == "muon" or (args.optimizer is None and args.init == "scratch"),
                     batch < rows, learnt_share(args)))


def learnt_share(args):
    """The share of what is read that is to be learnt: all of a text, of examples the completions."""
    manifest = data.read_manifest(args.data) if args.data else dict(kind="lm")
    if manifest["kind"] == "lm" or args.train_on_prompt:
        return 1.0
    return examples.share_learnt(examples.read_split(args.data, manifest, "train"))


def replayed(args, learn, tokenizer, device):
    """Windows of --forget_data beside each batch: as many tokens as their share of the loss asks for."""
    mean = sum(learn.tokens(step) for step in range(10)) / 10
    rows = max(1, round(mean * args.replay / (1 - args.replay) / args.seq_len))
    return objective.Pretraining(args, args.forget_data, tokenizer, device, rows=rows)


def result_in_words(result):
    """A validation's results in one line."""
    words = [f"validation loss {result['val_loss']:.4f}"] if "val_loss" in result else []
    if "val_perplexity" in result:
        words.append(f"perplexity {result['val_perplexity']:.2f}  {result['val_bpb']:.4f} bits/byte")
    if "val_accuracy" in result:
        words.append(f"{result['val_accuracy']:.1%} of margins grew, by {result['val_margin']:.3f} in the mean  "
                     f"chosen answers {result['val_chosen_loss']:.4f}")
    if "seen_loss" in result:
        words.append(f"on examples of training {result['seen_loss']:.4f}, "
                     f"a gap of {result['val_loss'] - result['seen_loss']:+.4f}")
    if "general_loss" in result:
        words.append(f"loss on other text {result['general_loss']:.4f}")
    return "  ".join(words)


def later(tensor):
    """Gives, when called, a tensor's values as a list; the copy from the device begins now and is waited for then."""
    if not tensor.is_cuda:
        return tensor.tolist
    host, arrived = torch.empty_like(tensor, device="cpu", pin_memory=True), torch.cuda.Event()
    host.copy_(tensor, non_blocking=True)
    arrived.record()
    return lambda: (arrived.synchronize(), host.tolist())[1]


@torch.no_grad()
def first_not_finite(model, micros, autocast):
    """The name of the first module whose output is not finite on one of these micro-batches, or None."""
    found = []

    def look(module, inputs, output):
        if torch.is_tensor(output) and not output.isfinite().all():
            found.append(names[module])

    names = {m: n for n, m in model.named_modules() if n}
    hooks = [m.register_forward_hook(look) for m in names]
    for micro in micros:
        with autocast():
            objective.states_of(model, micro)
    for hook in hooks:
        hook.remove()
    return found[0] if found else None


def check_flags(args, kind):
    """Flags that would do nothing on data of this kind."""
    for name, kinds in OF_KIND.items():
        if kind not in kinds and getattr(args, name) != flags().get_default(name):
            raise ValueError(f"--{name} is about data of kind {' or '.join(kinds)}; {args.data} is of kind {kind}")


def choose_room(args, config, kind, device):
    """The most rows at a time that the device takes; sets args.recompute where it must be."""
    T = 2 * args.seq_len if kind == "pairs" else args.seq_len
    if device.type != "cuda":
        return max(1, 4096 // T)
    free, total = torch.cuda.mem_get_info(device)
    room = free + torch.cuda.memory_reserved(device) - plan.RESERVE * total  # the plan counts the weights, too
    mode = plan.MODES[0 if not args.lora_rank else 2 if args.quantize else 1]
    rows, recompute = plan.fitting(config, mode, args.lora_rank or 0, args.lora_targets, T, getattr(torch, args.dtype),
                                   args.optimizer == "muon", room, args.recompute, min(1.0, 2 * learnt_share(args)))
    args.recompute = int(recompute)
    return min(rows, max(1, 65536 // T))


def cut_batch(args, config, kind, world, device, size=None):
    """Sets args.micro_batch, the rows at a time on a rank; returns the batch in words."""
    T = args.seq_len
    room = args.micro_batch or choose_room(args, config, kind, device)
    if kind != "lm":
        args.micro_batch = room
        rows = f"packed into rows of up to {2 * T if kind == 'pairs' else T} tokens" if args.packing else "a row each"
        return (f"{size} {'pairs' if kind == 'pairs' else 'examples'} a step, {rows}, "
                f"{args.micro_batch} rows at a time on each of {world} ranks")
    rows = args.batch_tokens // T
    if rows * T != args.batch_tokens or rows % world:
        raise ValueError(f"--batch_tokens {args.batch_tokens} must be a multiple of --seq_len {T}"
                         + (f" times {world} ranks" if world > 1 else ""))
    if args.micro_batch is None:
        args.micro_batch = next(b for b in range(min(room, rows // world), 0, -1) if rows // world % b == 0)
    if rows // world % args.micro_batch:
        raise ValueError(f"--micro_batch {args.micro_batch} must divide "
                         f"the {rows // world} sequences of a rank's batch")
    return (f"{args.batch_tokens:,} tokens = {rows} x {T} = {world} ranks x {rows // world // args.micro_batch} "
            f"micro-batches x {args.micro_batch} x {T}")


def learnt_from(args, manifest):
    """{directory: manifest} of all that is learnt from, the teacher's words included."""
    found = {args.data: manifest}
    if args.replay:
        found[args.forget_data] = data.read_manifest(args.forget_data)
    if args.teacher:
        stated = licence.of_model(checkpoint.resolve(args.teacher))
        found[args.teacher] = dict(kind="teacher", licence=stated, splits={})
    return found


def load_teacher(args, tokenizer, device, dtype):
    """The model whose distribution is to be learnt, frozen, or None."""
    if not args.teacher:
        return None
    if not 0 < args.teacher_share <= 1:
        raise ValueError(f"--teacher_share {args.teacher_share} is not in (0, 1]")
    if "://" in args.teacher:
        raise ValueError(f"--teacher {args.teacher} is an address, which gives words and no probabilities; ask it for "
                         f"them: python prepare.py distill PROMPTS --teacher {args.teacher} --out DIR")
    args.teacher = checkpoint.resolve(args.teacher)
    teacher, theirs = checkpoint.load(args.teacher)
    if not theirs.same_as(tokenizer):
        raise ValueError(f"the teacher {args.teacher} has another tokenizer, so its distribution is over other tokens; "
                         f"have it write instead: python prepare.py distill PROMPTS --teacher {args.teacher} --out DIR")
    if teacher.config.block_size < args.seq_len:
        raise ValueError(f"the teacher {args.teacher} reads {teacher.config.block_size} tokens; "
                         f"lower --seq_len {args.seq_len}")
    teacher.requires_grad_(False).set_dropout(0.0)
    return lora.cast_frozen(teacher, getattr(torch, dtype)).to(device).eval()


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
    args.compile = cli.choose_compile(args.compile, device)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # what stays in float32 may use TF32

    # the model, what it learns from, and the numbers that follow from them
    manifest = data.read_manifest(args.data)
    kind = manifest["kind"]
    model, tokenizer, source = build_model(args, kind, resumed)
    choose_recipe(args, kind, resumed)
    base_sha256 = lora.weights_sha256(model.origin) if model.origin else ""
    lineage = resumed and licence.read(resumed)
    if not lineage:
        lineage = licence.lineage("adapter" if args.lora_rank else "model", source and args.init,
                                  source if os.path.isdir(source or "") else model.origin, learnt_from(args, manifest),
                                  base_sha256)
    base = dict(lineage=lineage)
    if args.lora_rank:
        where = lora.read_adapter(source)[0]["base_model_name_or_path"] if checkpoint.is_adapter(source) else (
            os.path.abspath(source) if os.path.exists(source) else args.init)
        base |= dict(base=where, base_sha256=base_sha256)
        lora.cast_frozen(model, getattr(torch, dtype))
    model.to(device)
    check_flags(args, kind)
    args.eval_tokens = args.eval_tokens or (1 << 20 if kind == "lm" else 1 << 17)
    learn = objective.make(args, tokenizer, device, load_teacher(args, tokenizer, device, dtype))
    if args.patience and not learn.has_validation():
        raise ValueError(f"--patience {args.patience} watches the validation loss, but {args.data} holds nothing out")
    batch_in_words = cut_batch(args, model.config, kind, world, device, getattr(learn, "size", None))
    model.recompute = bool(args.recompute)
    parts = [(learn, 1.0 - args.replay)]
    if args.replay:
        parts.append((replayed(args, learn, tokenizer, device), args.replay))
    fingerprints = dict(data_fingerprint=learn.fingerprint())
    if args.replay:
        fingerprints["replay_fingerprint"] = parts[1][0].fingerprint()
    if args.teacher:
        local = os.path.isdir(args.teacher)  # or a hub id, which says it
        fingerprints["teacher_sha256"] = lora.weights_sha256(args.teacher) if local else args.teacher
    general = objective.General(args, tokenizer, device) if args.init != "scratch" else None
    epoch = learn.epoch()
    args.steps = args.steps or max(1, round((args.epochs or EPOCHS[kind]) * epoch))
    if args.warmup_steps is None:
        args.warmup_steps = round(args.steps * (0.02 if kind == "lm" else 0.03))
    args.eval_every = args.eval_every or (250 if kind == "lm" else max(1, round(args.steps / 10)))
    flops = training_flops(model, args.seq_len)
    trainable, total = lora.count(model)
    for line in learn.in_words():
        say(line)
    for line in licence.in_words(lineage):
        say("licence  " + line)
    say(f"model    {total:,} parameters: {args.n_layer} layers, {args.n_head} heads, "
        f"{args.n_embd} channels, context {args.seq_len}, from {source or 'scratch'}")
    if args.lora_rank:
        say(f"LoRA     rank {args.lora_rank} on {len(lora.adapters(model))} linears: {trainable:,} of them train "
            f"({trainable / total:.2%}); " + memory_in_words(model))
    say(f"batch    {batch_in_words}")
    say(f"length   {args.steps:,} steps = {args.steps * learn.tokens(0):,} tokens{'' if kind == 'lm' else ' or so'} = "
        f"{args.steps / epoch:.2f} epochs, "
        f"{args.warmup_steps} of warm-up, {args.schedule} to {args.lr * args.min_lr:.2g}")
    say(f"machine  {device}, {dtype} products, {'compiled' if args.compile else 'not compiled'}, "
        f"{args.optimizer} at {args.lr:g}")

    # optimizers and what a resumed run brings along
    optimizers = optimizer.make(model, args, device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == "float16" and device.type == "cuda")
    step, tokens, validated, stale, skipped, before = 0, 0, -1, 0, 0, None
    best = dict(step=0, val_loss=None, val_bpb=None)
    if resumed:
        tensors, state = checkpoint.load_state(resumed)
        for name, fingerprint in fingerprints.items():
            if state.get(name, fingerprint) != fingerprint:
                flag = dict(data_fingerprint="data", replay_fingerprint="forget_data", teacher_sha256="teacher")[name]
                what = "teacher" if flag == "teacher" else "data"
                raise ValueError(f"{getattr(args, flag)} is not the {what} this run was trained on; "
                                 f"name that directory with --{flag}, or start a new run")
        if state.get("trainable", trainable) != trainable:
            raise ValueError(f"{resumed} trained {state['trainable']:,} parameters, not {trainable:,}")
        learn.restore(tensors)
        optimizer.restore(model, optimizers, tensors)
        if scaler.is_enabled() and state["scaler"]:
            scaler.load_state_dict(state["scaler"])
        step, skipped, best, validated = state["step"], state["skipped"], state["best"], state["validated"]
        tokens, stale, before = state["tokens"], state.get("stale", 0), state.get("general_loss")
        say(f"resumed  {resumed} at step {step:,}")
    if world > 1:
        seen = [None] * world
        dist.all_gather_object(seen, step)
        if len(set(seen)) > 1:
            raise ValueError(f"the ranks found checkpoints of different steps {sorted(set(seen))}; "
                             "--out must be a folder that all of them share")
    if rank == 0:
        os.makedirs(args.out, exist_ok=True)
        for path in (base.get("base"), args.teacher):  # which this run needs as they are
            if path and not resumed:
                checkpoint.mark_as_base(path, args.out)
        checkpoint.clean(args.out)
        if resumed:
            checkpoint.point_to(args.out, step)  # a kill may have come between the rename and this
        cut_log(args.out, step if resumed else -1)

    autocast = ((lambda: torch.autocast(device.type, getattr(torch, dtype))) if dtype != "float32"
                else contextlib.nullcontext)
    forward = model
    if world > 1:
        forward = DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None,
                                          gradient_as_bucket_view=True)
    if args.compile:  # of DDP it compiles a part per bucket of gradients, so that they travel while others are made
        forward = torch.compile(forward)
    add_up = functools.partial(objective.add_up, model=model, autocast=autocast, device=device, rank=rank, world=world)
    peak = peak_flops(device)
    wide = torch.float32 if device.type == "mps" else torch.float64
    stop = []  # the signals received
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: stop.append(number))
    bar = tqdm(total=args.steps, initial=step, unit="step", disable=True if rank else None, smoothing=0.05)

    plotted = [0.0]
    took = cost.meter(device, world, dtype, rank, state.get("cost") if resumed else {})

    def log(step, tokens, line, entry):
        if rank == 0:
            line = f"step {step:>6}" + line
            bar.write(line) if not bar.disable else print(line, flush=True)
            with open(os.path.join(args.out, "log.jsonl"), "a") as f:
                finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in entry.items()}
                f.write(json.dumps(dict(step=step, tokens=tokens) | finite) + "\n")

    def settle():
        """Read what the last step gave, guard and log it; returns whether a rank was told to stop by then."""
        nonlocal pending, skipped, bad_in_a_row, clock, clock_step, clock_tokens
        if pending is None:
            return False
        (number, seen, after, lr, micros, news), pending = pending, None
        *results, told_to_stop, norm = news()
        results = dict(zip(learn.names, results, strict=True))
        # an overflow of float16 gradients is no fault of the batch: the step was skipped and the scale comes down
        bad = not math.isfinite(results["train_loss"]) or not (math.isfinite(norm) or scaler.is_enabled())
        bad_in_a_row = bad_in_a_row + 1 if bad else 0
        if bad:
            skipped += 1
            names = learn.documents(number)
            log(number, seen, f"  loss {results['train_loss']}, gradient norm {norm}: step skipped; "
                f"its documents: {', '.join(names[:20])}", dict(train_loss=None, skipped=skipped, documents=names))
            if bad_in_a_row >= 5:
                where = first_not_finite(model, [micro for _, _, micro in micros], autocast)
                raise ValueError(f"{bad_in_a_row} steps in a row gave no finite loss or gradient"
                                 + (f"; the first layer to overflow is {where}" if where else "")
                                 + f"; lower --lr, or look at the documents named in {args.out}/log.jsonl")
        number += 1
        if number % args.log_every == 0 or number == args.steps:
            seconds = time.perf_counter() - clock
            speed, eta = (after - clock_tokens) / seconds, (args.steps - number) * seconds / (number - clock_step)
            clock, clock_step, clock_tokens = time.perf_counter(), number, after
            mfu = speed * flops / (peak * world) if peak else None
            log(number, after, f"/{args.steps}  loss {results['train_loss']:.4f}  "
                + "".join(f"{name.replace('_', ' ')} {value:.4f}  " for name, value in results.items()
                          if name != "train_loss")
                + f"norm {norm:.2f}  lr {lr:.2e}  {speed:,.0f} tokens/s"
                + (f"  MFU {mfu:.1%}" if mfu else "") + f"  {eta / 60:.1f} min left",
                results | dict(grad_norm=norm, lr=lr, tokens_per_second=speed, mfu=mfu))
        return told_to_stop

    def save():
        if rank == 0:
            state = dict(step=step, tokens=tokens, validated=validated, stale=stale, skipped=skipped, best=best,
                         general_loss=before, scaler=scaler.state_dict(), args=vars(args), trainable=trainable,
                         torch=torch.__version__, cost=took(), **fingerprints)
            checkpoint.save(args.out, step, model, tokenizer, optimizer.tensors(model, optimizers) | learn.tensors(),
                            state, args.keep, **base)
            if step >= args.steps or time.perf_counter() - plotted[0] > 60:
                plot(args.out)
                plotted[0] = time.perf_counter()
        if world > 1:
            dist.barrier()

    # the loop: validate, save, stop, or take one step. The host queues a step before it has read what the one before
    # gave, so a GPU never waits for it; a step that must be skipped is skipped on the device.
    if step == 0:
        learn.before_first_step(model, autocast)
    saved = step if resumed else -1
    result = {}
    clock, clock_step, clock_tokens, bad_in_a_row, pending = time.perf_counter(), step, tokens, 0, None
    model.train()
    while True:
        last = step >= args.steps or stale >= (args.patience or math.inf)
        if last or step % args.eval_every == 0 or step % args.save_every == 0:
            settle()
        if (step % args.eval_every == 0 or last) and validated < step:
            paused = time.perf_counter()
            result = learn.validate(add_up)
            validated, better = step, False
            if result:
                better = best["val_loss"] is None or result["val_loss"] < best["val_loss"]
                stale = 0 if better else stale + 1
                last |= stale >= (args.patience or math.inf)
            if better:
                best = dict(step=step, val_loss=result["val_loss"], val_bpb=result.get("val_bpb"))
            if general and (last or step == 0):
                result["general_loss"] = general.loss(add_up)
                before = result["general_loss"] if step == 0 else before
            if result:
                log(step, tokens, "  " + result_in_words(result), result)
            if better and step > saved and step:
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

        for o in optimizers:
            for group in o.param_groups:
                group["lr"] = args.lr * optimizer.learning_rate(step, args)
        if args.dropout or args.lora_dropout:  # dropout too is a function of the step: no generator state to save
            torch.manual_seed(args.seed + 1_000_003 * (step * world + rank))
        sums = torch.zeros(len(learn.names), device=device)
        micros = [(part, share / part.count(step), micro) for part, share in parts
                  for micro in part.micro_batches(step, rank, world)]
        for i, (part, share, micro) in enumerate(micros):
            sync = forward.no_sync() if world > 1 and i < len(micros) - 1 else contextlib.nullcontext()
            with sync:
                with autocast():
                    loss, found = part.losses(forward, micro)
                # DDP averages over ranks; times world makes it the sum that the law of one loss asks for
                scaler.scale(loss * (world * share)).backward()
            if part is learn:
                sums += found
        for o in optimizers:
            scaler.unscale_(o)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), args.grad_clip or math.inf)
        news = torch.cat([sums / learn.count(step), sums.new_full((1,), bool(stop))]).to(wide)
        if world > 1:  # one small message: the loss, and whether any rank was told to stop
            dist.all_reduce(news)
        news = torch.cat([news, norm[None].to(wide)])
        for o in optimizers:
            o.found_inf = 1 - (news[0] + norm).isfinite().float()  # 1: this step changes nothing
            o.step()
            o.zero_grad(set_to_none=True)
        scaler.update()
        seen, lr = tokens, optimizers[0].param_groups[0]["lr"]
        tokens += sum(part.tokens(step) for part, _ in parts)
        told_to_stop = settle()
        pending = step, seen, tokens, lr, micros, later(news)
        if device.type != "cuda":  # the host has waited for the device anyway
            told_to_stop = settle()
        step += 1
        bar.update()

        if told_to_stop and step < args.steps:
            settle()
            save()
            bar.close()
            say(f"stopped at step {step:,} and saved; go on with: python train.py --out {args.out} --resume")
            if world > 1:
                dist.destroy_process_group()
            sys.exit(128 + (stop[0] if stop else signal.SIGTERM))

    bar.close()
    if step < args.steps:
        say(f"stopped early: {stale} validations without a better one")
    if general and "general_loss" in result:
        after = result["general_loss"]
        say(f"forgot   the loss on {general.name} was {before:.4f} and is {after:.4f}: {after / before - 1:+.1%}")
    say(f"done: {args.out} at step {step:,}" + ("" if best["val_loss"] is None else
        f"; best validation loss {best['val_loss']:.4f}" + (f" ({best['val_bpb']:.4f} bits/byte)" if best["val_bpb"]
                                                            else "") + f" at step {best['step']:,}"
        + (f": {checkpoint.step_directory(args.out, best['step'])}" if 0 < best["step"] < step else "")))
    say(f"sample from it with: python sample.py {args.out}" + " --chat" * bool(manifest.get("chat_template"))
        + (f"; peak memory {torch.cuda.max_memory_allocated() / 2**30:.2f} GB" if device.type == "cuda" else ""))
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    cli.run(main)
