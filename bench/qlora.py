"""
Our LoRA and QLoRA training steps against those of transformers + PEFT (+ bitsandbytes), as JSON.

    python bench/qlora.py                                                   # GPT-2's shape, random weights
    python bench/qlora.py --init gpt2-xl --compile 1 --out xl.json          # real weights: a directory or a hub id
    python bench/qlora.py --shape gemma-3-1b --seq_len 128 --micro_batch 32 --learn 2         # as examples are learnt

Both sides load the same directory, written with weights that the compute dtype holds exactly, and train adapters on all
linears: same A, B = 0, float32, no dropout, no gradient checkpointing; base weights in the compute dtype, autocast
unless that is float32, sdpa, fused AdamW, clipping at 1.0. First come the gates: the same losses on the same batches,
adapters that load into the other side, the same 4-bit bytes. If one fails, no speed is measured and the exit code is 1.

  speed     tokens/s of a step, in one process, alternating; medians of the ratios. As in bench/train.py only "tenk"
            sides run with our setting of glibc's allocator.
  memory    peak of a process that loads one side and trains three steps: on a GPU what torch had allocated and
            reserved; on a CPU resident memory above that after the imports (freed blocks kept count against us). One
            more arm calls prepare_model_for_kbit_training, as PEFT's guide says: it turns 16-bit weights to float32.
"""
import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import torch

from train import alternate, finish, load_module, machine, step_function  # isort: skip

import checkpoint
import cli
import lora
from kernels import quantize_nf4
from model import GPTConfig

GUIDE = "PEFT QLoRA by its guide"


def load_ours(args):
    return checkpoint.kind_of(args.folder).from_pretrained(args.folder, dtype=None)


def build_ours(args, device, dtype, quantize):
    torch.manual_seed(1)
    model = lora.add_lora(load_ours(args), args.rank, args.alpha, quantize="nf4" if quantize else None)
    return lora.cast_frozen(model.to(device), dtype)


def build_peft(args, device, dtype, quantize, guide=False):
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    options = dict(quantization_config=BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype)) if quantize else {}
    model = AutoModelForCausalLM.from_pretrained(args.folder, dtype=dtype, attn_implementation="sdpa",
                                                 device_map={"": device}, **options)
    for module in model.modules():  # else, with AVX-512 bf16, it repacks weights in eval() and can't train after that
        module.support_avx512bf16_for_cpu = False
    if guide:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    with torch.device("meta"):
        ours = checkpoint.build(checkpoint.read_config(args.folder))
    return get_peft_model(model, LoraConfig(
        r=args.rank, lora_alpha=args.alpha, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM",
        target_modules=sorted({name.rsplit(".", 1)[1] for name in lora.linears(ours)}),
        fan_in_fan_out=ours.hf_conv1d and not quantize)).train()


def build(name, args, device, dtype):
    builder = build_ours if name.startswith("tenk") else build_peft
    return builder(args, device, dtype, "QLoRA" in name, *([True] if name == GUIDE else []))


def our_loss(model, x, y):
    return model(x, y)[1]


def our_loss_on_examples(model, x, y):  # as train.py has it: rows of examples that do not see each other, here of one
    return model(x, y, documents=torch.zeros_like(x))[1]


def peft_loss(model, x, y):  # transformers shifts the labels itself
    return model(input_ids=x, labels=torch.cat([torch.full_like(y[:, :1], -100), y[:, :-1]], 1), use_cache=False).loss


def trainer(name, model, args, device, dtype, learn=0):
    """A function that takes a training step on a batch x (B, T), the last `learn` tokens of its rows or all of them."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=args.lr, betas=(0.9, 0.95),
                                  weight_decay=0.0, fused=True)
    run = torch.compile(model) if args.compile else model
    autocast = contextlib.nullcontext if dtype == torch.float32 else lambda: torch.autocast(device.type, dtype)
    loss_of = peft_loss if not name.startswith("tenk") else our_loss_on_examples if learn else our_loss

    def step(x):
        y = torch.cat([x[:, 1:], torch.full_like(x[:, :1], -100)], 1)
        y[:, : -learn - 1 if learn else 0] = -100
        return step_function(run, optimizer, x, y, autocast, loss_of)()
    return step


def make_batches(args, vocab_size, device):
    generator = torch.Generator().manual_seed(2)
    return torch.randint(1, vocab_size, (4, args.micro_batch, args.seq_len), generator=generator).to(device)


# ----------------------------------------------------------------------------------------------------------------------
# Gates and goals


def gate(gates, name, figure, limit):
    gates[name] = dict(figure=figure, limit=limit, passed=figure <= limit)
    print(f"gate  {name}: {figure:.3g}, at most {limit:.3g}: {'passed' if gates[name]['passed'] else 'FAILED'}",
          flush=True)


def goal(goals, name, figure, limit, at_most=False):
    """figure: None where a side is missing."""
    reached = None if figure is None else figure <= limit if at_most else figure >= limit
    goals[name] = dict(figure=figure, limit=limit, reached=reached)
    bar, verdict = "at most" if at_most else "at least", "reached" if reached else "missed"
    print(f"goal  {name}: " + ("not measured" if figure is None else f"{figure:.3g}, {bar} {limit:.3g}: {verdict}"))


def differing_bytes(q, packed, state):
    """The share of an NF4Tensor's bytes, codes and scales, that differ from those of bitsandbytes' tensor and state."""
    pairs = [(q.packed, packed), (q.absmax, state.absmax), (q.nested_absmax, state.state2.absmax),
             (q.offset.view(1), state.offset.view(1))]
    pairs = [[t.reshape(-1).view(torch.uint8) for t in pair] for pair in pairs]
    return sum(int((a != b).sum()) for a, b in pairs) / sum(len(a) for a, _ in pairs)


def theirs_of(peft, ours, name):
    """PEFT's layer for one of the linears of our model."""
    return peft.get_submodule("base_model.model." + ours.hf_prefix + name)


@torch.no_grad()
def logits_of(model, x):
    """In float32 whatever the model is in: rounding adds up from layer to layer, and would hide a wrong adapter."""
    new = [(p, "data", p.data.float()) for p in model.parameters() if p.is_floating_point()]
    for m in model.modules():
        if hasattr(m, "compute_dtype"):  # bitsandbytes'
            new.append((m, "compute_dtype", torch.float32))
        if hasattr(m, "scalar_embed_scale"):  # transformers' Gemma, which rounds it to the dtype that it is loaded in
            new.append((m, "embed_scale", torch.tensor(m.scalar_embed_scale, device=x.device)))
    old = [(thing, name, getattr(thing, name)) for thing, name, _ in new]
    for thing, name, value in new:
        setattr(thing, name, value)
    out = model(x)
    for thing, name, value in old:
        setattr(thing, name, value)
    return out[0] if isinstance(out, tuple) else out.logits


def check_losses(gates, kind, losses, dtype):
    ours, theirs = losses["tenk " + kind], losses["PEFT " + kind]
    print(f"      {kind} losses: {ours[0]:.5f} -> {ours[-1]:.5f}, PEFT's {theirs[0]:.5f} -> {theirs[-1]:.5f}")
    gaps = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    gate(gates, f"{kind} loss before the first step", gaps[0], 1e-5 * theirs[0] if dtype == torch.float32 else 1e-3)
    gate(gates, f"{kind} largest loss difference in {len(ours)} steps", max(gaps), 0.005 * min(theirs))
    gate(gates, f"{kind} final loss, relative", gaps[-1] / theirs[-1], 0.005)


def check_adapters(gates, kind, ours, peft, x, folder):
    """Adapters with something in B, saved by either side, into the other; returns the sizes of the files."""
    sizes = {}
    for saver in ("tenk", "PEFT"):
        for p in (p for n, p in (ours if saver == "tenk" else peft).named_parameters() if "lora_B" in n):
            torch.nn.init.normal_(p, std=0.02)
        path = os.path.join(folder, f"{saver} {kind}")
        if saver == "tenk":
            lora.save_adapter(ours, path)
            peft.load_adapter(path, "tenk")
            peft.set_adapter("tenk")
        else:
            peft.set_adapter("default")
            peft.save_pretrained(path, selected_adapters=["default"])
            lora.load_adapter(ours, path)
        a, b = (logits_of(m, x) for m in (ours, peft))
        gate(gates, f"{kind} logits, adapter saved by {saver}, relative", float((a - b).norm() / b.norm()), 1e-4)
        sizes[f"{saver} {kind}"] = os.path.getsize(os.path.join(path, "adapter_model.safetensors"))
    peft.delete_adapter("tenk")
    return sizes


def check_bytes(gates, args, peft, device, dtype):
    """Our quantization of every linear, made on this device, against what transformers with bitsandbytes holds."""
    shares = []
    ours = load_ours(args)
    for name, layer in lora.linears(ours).items():
        weight = theirs_of(peft, ours, name).base_layer.weight
        shares.append(differing_bytes(quantize_nf4(layer.weight.to(device, dtype)), weight, weight.quant_state))
    # bitsandbytes' CUDA kernels are built with fast arithmetic, which may tip a tie
    gate(gates, "NF4 bytes that differ, share", max(shares), 0.0 if device.type == "cpu" else 1e-5)


# ----------------------------------------------------------------------------------------------------------------------
# Memory


def resident(field):
    """VmRSS or VmHWM, the peak, in bytes. getrusage's peak would start at that of the process we were started from."""
    with open("/proc/self/status") as f:
        return next(1024 * int(line.split()[1]) for line in f if line.startswith(field))


def train_alone(args, device, dtype):
    """The process behind --arm: the peak memory of loading one side and training three steps, as a line of JSON."""
    import torch._dynamo  # noqa: F401  (imports are counted on neither side: all come first, also those made lazily)
    with contextlib.suppress(ImportError):
        import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    from transformers import Gemma3ForCausalLM, GPT2LMHeadModel  # noqa: F401
    cli.keep_freed_memory(args.arm.startswith("tenk"))
    before = resident("VmRSS")
    model = build(args.arm, args, device, dtype)
    step = trainer(args.arm, model, args, device, dtype, args.learn)
    for x in make_batches(args, args.vocab_size, device)[:3]:
        step(x)
    if device.type == "cuda":
        print(json.dumps(dict(peak=torch.cuda.max_memory_allocated(), reserved=torch.cuda.max_memory_reserved())))
    else:
        print(json.dumps(dict(peak=resident("VmHWM") - before)))


def peak_memory(name, args):
    command = [sys.executable, __file__, *sys.argv[1:], "--arm", name, "--folder", args.folder, "--vocab_size",
               str(args.vocab_size), "--seq_len", str(args.seq_len)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    peak = json.loads(done.stdout.splitlines()[-1])
    print(f"  memory {name:<24} " + ", ".join(f"{k} {v / 1e6:,.0f} MB" for k, v in peak.items()), flush=True)
    return peak


# ----------------------------------------------------------------------------------------------------------------------


def flags():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--init", help="a model, directory or hub id, instead of random weights of the shape below")
    p.add_argument("--shape", help="that of a well-known model, gpt2-xl or gemma-3-1b, instead of the four below; "
                   "--n_layer alone still counts")
    p.add_argument("--n_layer", type=int, help="[12, or all of --shape]")
    p.add_argument("--n_head", type=int, default=12)
    p.add_argument("--n_embd", type=int, default=768)
    p.add_argument("--vocab_size", type=int, default=50257)
    p.add_argument("--seq_len", type=int, default=1024)
    p.add_argument("--micro_batch", type=int, default=4)
    p.add_argument("--learn", type=int, default=0, metavar="N", help="time steps on the last N tokens of a row "
                   "only, as of examples [all]")
    p.add_argument("--rank", type=int, default=16)
    p.add_argument("--alpha", type=int, default=32)
    p.add_argument("--lr", type=float, default=1e-3, help="high, so that a few steps move the loss")
    p.add_argument("--steps", type=int, default=10, help="training steps of the gates")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--compile", type=int, choices=(0, 1), default=0, help="torch.compile, for both")
    p.add_argument("--memory", type=int, choices=(0, 1), default=1, help="0: leave the peaks of memory out")
    p.add_argument("--out", help="write the JSON here too")
    p.add_argument("--arm", help=argparse.SUPPRESS)
    p.add_argument("--folder", help=argparse.SUPPRESS)
    cli.add_machine_flags(p)
    return p.parse_args()


def main():
    args = flags()
    device = cli.choose_device(args.device)
    dtype = getattr(torch, cli.choose_dtype(args.dtype, device))
    if dtype == torch.float16:
        raise SystemExit("float16 needs a loss scaler, which neither side has here; give --dtype float32 or bfloat16")
    if args.arm:
        train_alone(args, device, dtype)
        return
    with tempfile.TemporaryDirectory() as args.folder:
        measure(args, device, dtype)


def measure(args, device, dtype):
    import peft
    import transformers
    try:
        import bitsandbytes
    except ImportError:
        bitsandbytes = None
    torch.manual_seed(0)
    if args.init:
        model, _ = checkpoint.load(args.init)
    else:
        config = checkpoint.read_config(args.shape) if args.shape else GPTConfig(
            args.vocab_size, args.seq_len, args.n_layer or 12, args.n_head, args.n_embd)
        model = checkpoint.build(dataclasses.replace(config, n_layer=args.n_layer or config.n_layer))
    shape = vars(model.config)
    args.vocab_size, args.seq_len = model.config.vocab_size, min(args.seq_len, model.config.block_size)
    model.save_pretrained(args.folder, dtype=dtype)
    del model
    names = [f"{who} {kind}" for kind in ("LoRA", "QLoRA") for who in ("tenk", "PEFT")
             if bitsandbytes or (who, kind) != ("PEFT", "QLoRA")]
    kinds = [name.removeprefix("PEFT ") for name in names if name.startswith("PEFT")]
    models = {name: build(name, args, device, dtype) for name in names}
    for kind in kinds:
        for name, layer in lora.adapters(models["tenk " + kind]).items():
            theirs = theirs_of(models["PEFT " + kind], models["tenk " + kind], name)
            theirs.lora_A["default"].weight.data.copy_(layer.lora_A)
    batches = make_batches(args, args.vocab_size, device)
    gates, goals, sizes = {}, {}, {}
    steps = {name: trainer(name, model, args, device, dtype) for name, model in models.items()}
    losses = {name: [step(batches[i % len(batches)]).item() for i in range(args.steps)] for name, step in steps.items()}
    for kind in kinds:
        check_losses(gates, kind, losses, dtype)
        sizes |= check_adapters(gates, kind, models["tenk " + kind], models["PEFT " + kind], batches[0], args.folder)
    if "QLoRA" in kinds:
        check_bytes(gates, args, models["PEFT QLoRA"], device, dtype)
    result = dict(what="LoRA and QLoRA training steps", shape=shape, init=args.init, seq_len=args.seq_len,
                  micro_batch=args.micro_batch, learn=args.learn, rank=args.rank, compile=bool(args.compile),
                  dtype=str(dtype).removeprefix("torch."), machine=machine(device) | dict(
                      transformers=transformers.__version__, peft=peft.__version__,
                      bitsandbytes=bitsandbytes and bitsandbytes.__version__),
                  gates=gates, losses=losses)
    if not all(g["passed"] for g in gates.values()):
        finish(result, args.out)
        sys.exit("a gate failed, so no speed is measured")

    # load_adapter replaced our layers, so the optimizers have to be made anew
    steps = {name: trainer(name, model, args, device, dtype, args.learn) for name, model in models.items()}
    seconds = alternate({name: lambda step=step: step(batches[0]) for name, step in steps.items()},
                        args.rounds, device, warmup=2, again=True)
    trainable = {name: sum(p.numel() for p in m.parameters() if p.requires_grad) for name, m in models.items()}
    del models, steps
    if device.type == "cuda":
        torch.cuda.empty_cache()
    memory = {name: peak_memory(name, args) for name in names + [GUIDE] if args.memory and (
        name != GUIDE or "QLoRA" in kinds)}

    def ratios(a, b):
        return [s / t for s, t in zip(seconds[a], seconds[b], strict=True)] if a in seconds else None

    speed = {kind: ratios("PEFT " + kind, "tenk " + kind) for kind in ("LoRA", "QLoRA")}
    speed["QLoRA over our LoRA"] = ratios("tenk LoRA", "tenk QLoRA")
    median = {name: r and statistics.median(r) for name, r in speed.items()}
    less = {theirs: memory[ours]["peak"] / memory[theirs]["peak"] if theirs in memory else None for ours, theirs in (
        ("tenk LoRA", "PEFT LoRA"), ("tenk QLoRA", "PEFT QLoRA"), ("tenk QLoRA", GUIDE))}
    if device.type == "cuda":
        goal(goals, "QLoRA step over PEFT's", median["QLoRA"], 1.3)
        goal(goals, "QLoRA memory over PEFT's", less["PEFT QLoRA"], 0.6, at_most=True)
        goal(goals, "QLoRA step over our LoRA's", median["QLoRA over our LoRA"], 0.9)
    else:
        goal(goals, "LoRA step over PEFT's", median["LoRA"], 1.5)
        goal(goals, "QLoRA step over PEFT's", median["QLoRA"], 1.1)
        goal(goals, "LoRA memory over PEFT's", less["PEFT LoRA"], 0.7, at_most=True)
        goal(goals, "QLoRA memory over PEFT's", less["PEFT QLoRA"], 0.7, at_most=True)
    tokens = args.micro_batch * args.seq_len
    peak = load_module(pathlib.Path(__file__).parents[1] / "train.py", "tenk_train").peak_flops(device)
    finish(result | dict(
        tokens_per_second={name: tokens / statistics.median(s) for name, s in seconds.items()}, speedup=median,
        seconds_for_4000_rows={name: 4000 / args.micro_batch * statistics.median(s) for name, s in seconds.items()},
        peak_flops=peak, ratios=speed, trainable_parameters=trainable, adapter_bytes=sizes,
        peak_memory=memory, memory_ratio=less, goals=goals), args.out)


if __name__ == "__main__":
    main()
