"""
A run on disk: whole checkpoints or none, the newest and the best, exact resume, and loading any of them.

    runs/sec124m/
      step-00000500/            a Hugging Face model directory, with what training needs to go on exactly
        config.json  generation_config.json  model.safetensors  tokenizer.json  tokenizer_config.json
        train_state.safetensors  train_state.json
      latest -> step-00000500   swapped in one rename
      config.json -> latest/config.json  ...      so that the run directory is a model directory too
      best.json                 which step had the lowest validation loss
      log.jsonl  loss.png

A checkpoint is written to a temporary name, flushed to the disk and renamed: whoever looks, also after kill -9 or a
power cut, sees all of it or nothing.

    python checkpoint.py info runs/sec124m                     # what is in a run directory or checkpoint
    python checkpoint.py merge runs/lora --out runs/merged     # adapter + base -> a plain checkpoint
    python checkpoint.py quantize runs/sec124m --out runs/nf4  # linears in NF4, as transformers + bitsandbytes read it

The run directory of a LoRA training holds adapters, as PEFT writes them, in the same places: a few megabytes each, and
the path of the base they belong to. Every path that means a checkpoint may be an adapter's.
"""
import json
import math
import os
import re
import shutil

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import cli
import licence
import lora
from data import Tokenizer
from decoder import download, read_hf_config
from gemma import SIZES as GEMMA_SIZES
from gemma import Gemma, GemmaConfig
from kernels import NF4Tensor
from model import GPT, SIZES, GPTConfig
from tokenizer import read_chat_template

MODEL_FILES = ("config.json", "generation_config.json", "model.safetensors")
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
BASE_OF = "base_of"  # in a step's directory: the adapter runs that need it
NF4_KEY = ".quant_state.bitsandbytes__nf4"
MODELS = {"gpt2": GPT, "gemma3_text": Gemma, "gemma3": Gemma}  # by what config.json says as model_type
MODEL_OF = {GPTConfig: GPT, GemmaConfig: Gemma}
KNOWN = {f"openai-community/{name}": GPTConfig(**shape) for name, shape in SIZES.items()} | {
    f"google/{name}{kind}": config for name, config in GEMMA_SIZES.items()
    for kind in ("-it", "" if name == "gemma-3-270m" else "-pt")}


def steps(run):
    """The steps of the whole checkpoints in a run directory, ascending."""
    names = os.listdir(run) if os.path.isdir(run) else []
    return sorted(int(m.group(1)) for m in (re.fullmatch(r"step-(\d{8})", n) for n in names) if m)


def step_directory(run, step):
    return os.path.join(run, f"step-{step:08d}")


def resolve(path):
    """The checkpoint directory that a path means: of a run directory its newest; anything else is itself."""
    found = steps(path)
    return step_directory(path, found[-1]) if found else path


def is_adapter(path):
    return os.path.exists(os.path.join(path, "adapter_config.json"))


def load(path, device="cpu", merge=True, base=None, dtype=torch.float32):
    """
    (model, tokenizer) of a run directory, checkpoint (in full precision or 4 bits), adapter, hub id or nanoGPT ckpt.pt
    (with GPT-2's vocabulary); a GPT or a Gemma, as its config.json says.

    An adapter comes on its base: merged into one in full precision, which is faster to use, unless merge=False; beside
    one in NF4. base: where the base is, if not where adapter_config.json says. dtype: of weights that are not in NF4;
    None: as they are on disk, which takes half the memory where that is bfloat16.
    """
    path = resolve(str(path))
    if not os.path.isdir(path) and not path.endswith(".pt"):
        path = download(full_name(path))
    if is_adapter(path):
        model, tokenizer = load_base(path, base, dtype)
        tokenizer.chat_template = read_chat_template(path) or tokenizer.chat_template
        lora.load_adapter(model, path)
        if merge and not lora.is_quantized(model):
            lora.merge_lora(model, keep=False)
        return model.to(device), tokenizer
    if os.path.isdir(path) and not os.path.exists(os.path.join(path, "config.json")):
        raise FileNotFoundError(f"{path} holds no checkpoint yet; "
                                f"train one with: python train.py --data DIR --out {path}")
    model = (load_quantized(path, dtype) if has_quantized_weights(path) else
             kind_of(path).from_pretrained(path, dtype=dtype))
    if model.origin:
        tokenizer = Tokenizer.load(model.origin)
    elif model.config.vocab_size == 50257:
        tokenizer = Tokenizer.gpt2()
    else:
        raise ValueError(f"{path} has a vocabulary of {model.config.vocab_size} "
                         "and brings no tokenizer.json to read it with")
    if tokenizer.reach() > model.config.vocab_size:
        raise ValueError(f"{path}: the tokenizer has {tokenizer.reach():,} tokens, "
                         f"the model only {model.config.vocab_size:,}; they do not belong together")
    tokenizer.limit = model.config.vocab_size
    return model.to(device), tokenizer


def kind_of(path):
    """GPT or Gemma: the class that reads this checkpoint directory or nanoGPT ckpt.pt."""
    if path.endswith(".pt"):
        return GPT
    kind = read_hf_config(path).get("model_type")
    if not isinstance(kind, str) or kind not in MODELS:
        raise ValueError(f"{path} has model_type = {kind!r}; {', '.join(MODELS)} are read")
    return MODELS[kind]


def build(config):
    """A model with random weights, of the kind that the config is of."""
    return MODEL_OF[type(config)](config)


def read_config(name):
    """The config of a checkpoint directory, or of a well-known model by its name; nothing is downloaded."""
    if os.path.isdir(name):
        return kind_of(name).read_config(name)
    if full_name(name) not in KNOWN:
        raise ValueError(f"{name} is no checkpoint directory here; of others these are known: {', '.join(KNOWN)}")
    return KNOWN[full_name(name)]


def full_name(name):
    """The hub id that a short name stands for: openai-community/gpt2 for gpt2."""
    return next((known for known in KNOWN if known.split("/")[1] == name), name)


def load_base(adapter, base=None, dtype=torch.float32):
    """The (model, tokenizer) of the base that an adapter directory names."""
    name = base or lora.read_adapter(adapter)[0].get("base_model_name_or_path")
    if not name:
        raise ValueError(f"{adapter}/adapter_config.json does not say what its base is; write the path or hub id of it "
                         "there as base_model_name_or_path")
    if is_adapter(resolve(name)):
        raise ValueError(f"the base of the adapter {adapter}, {name}, is an adapter itself; merge that one first: "
                         f"python checkpoint.py merge {name} --out DIR")
    try:
        return load(name, dtype=dtype)
    except FileNotFoundError as e:
        raise FileNotFoundError(f"the base of the adapter {adapter} is not where it was ({e}); write its new path into "
                                f"{adapter}/adapter_config.json as base_model_name_or_path") from None


def has_quantized_weights(path):
    """Does the directory hold weights that bitsandbytes, or we, wrote in 4 bits?"""
    config = os.path.join(path, "config.json")
    try:
        return os.path.exists(config) and "quantization_config" in read_json(config)
    except (ValueError, TypeError):  # damaged: whoever reads it next says so
        return False


def load_quantized(path, dtype=torch.float32):
    """A model with the linears in NF4 of a directory that transformers or save_pretrained wrote in 4 bits."""
    kind = kind_of(path)
    config, state = kind.read_pretrained(path)
    names = [key.removesuffix(NF4_KEY) for key in state if key.endswith(NF4_KEY)]
    if not names:
        raise ValueError(f"{path} is quantized otherwise than as NF4 of bitsandbytes; only that is read")
    packed = {name: NF4Tensor.from_state_dict(state, name) for name in names}
    for name, q in packed.items():  # shapes alone, until all else is checked and in place
        state[name] = torch.empty(q.shape, dtype=q.dtype, device="meta")
    model = kind._with_state(config, state, path, dtype)
    for name, q in packed.items():
        name = name.removesuffix(".weight")
        lora.put(model, name, lora.NF4Linear(q, model.get_submodule(name).bias))
    return model


def save(run, step, model, tokenizer, tensors, state, keep=2, base=None, base_sha256="", lineage=None):
    """
    Write the checkpoint of this step, make it the latest, and delete all but the newest `keep`, the best, and those
    that adapters were trained on. Of a model with LoRA only the adapter is written; base and base_sha256 say onto which
    weights it belongs. lineage: what it was made from (licence.py), written beside it.

    tensors: name -> tensor, the optimizer's state. state: a JSON-able dict; state["best"]["step"] is kept.
    """
    final, work = step_directory(run, step), os.path.join(run, f"writing-{step:08d}")
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    try:
        if lora.adapters(model):
            lora.save_adapter(model, work, base, base_sha256)
            tokenizer.save(work)
        else:
            model.save_pretrained(work, tokenizer)
        if lineage:
            licence.write(work, lineage)
        save_file(tensors, os.path.join(work, "train_state.safetensors"))
        write_json(os.path.join(work, "train_state.json"), state)
        for name in os.listdir(work):
            flush(os.path.join(work, name))
        flush(work)
    except BaseException as e:
        shutil.rmtree(work, ignore_errors=True)
        if isinstance(e, SafetensorError):  # its way to say that the disk is full
            raise OSError(28, os.strerror(28), work) from None
        raise
    os.rename(work, final)
    flush(run)
    point_to(run, step)
    best = state["best"]["step"]
    write_json(os.path.join(run, "best.json"), state["best"])
    for old in steps(run)[:-keep]:
        if old != best and not os.path.exists(os.path.join(step_directory(run, old), BASE_OF)):
            os.rename(step_directory(run, old), os.path.join(run, f"deleting-{old:08d}"))
    clean(run)


def point_to(run, step):
    """Make `latest`, and through it the run directory's own config.json, model.safetensors, ..., mean this step."""
    link(os.path.basename(step_directory(run, step)), os.path.join(run, "latest"))
    kind = ADAPTER_FILES if is_adapter(step_directory(run, step)) else MODEL_FILES
    for name in (*kind, *TOKENIZER_FILES, "lineage.json"):
        if not os.path.islink(os.path.join(run, name)) and os.path.exists(os.path.join(run, "latest", name)):
            link(os.path.join("latest", name), os.path.join(run, name))
    card = os.path.join(run, "README.md")
    if os.path.islink(card) and not os.path.exists(card):  # eval.py wrote it, of a step before
        os.remove(card)


def mark_as_base(path, run):
    """Keep a step of a run from being deleted when that run goes on: the adapters of another run belong to it."""
    if re.fullmatch(r"step-\d{8}", os.path.basename(path)):
        try:
            with open(os.path.join(path, BASE_OF), "a") as f:
                f.write(os.path.abspath(run) + "\n")
        except OSError:  # somebody else's run, which we may only read
            pass


def link(target, path):
    if os.path.lexists(path + ".new"):
        os.remove(path + ".new")
    os.symlink(target, path + ".new")
    if os.path.isdir(path) and not os.path.islink(path):  # the run was copied by a tool that follows links
        shutil.rmtree(path)
    os.replace(path + ".new", path)


def clean(run):
    """Remove what an interrupted save or deletion left behind."""
    for name in os.listdir(run):
        if name.startswith(("writing-", "deleting-")):
            shutil.rmtree(os.path.join(run, name))


def load_json_state(path):
    """The state that `save` was given, without the tensors."""
    return read_state(path, "train_state.json", read_json)


def load_state(path):
    """The (tensors, state) that `save` was given, from a checkpoint directory."""
    return read_state(path, "train_state.safetensors", load_file), load_json_state(path)


def read_state(path, name, read):
    try:
        return read(os.path.join(path, name))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} has no {name}, so training can't be resumed from it; "
                                f"start a new run from its weights with --init {path}") from None
    except (ValueError, SafetensorError) as e:
        raise ValueError(f"the training state in {path} is damaged ({e}); "
                         "delete that folder to resume from the one before") from None


def read_json(path):
    with open(path) as f:
        return json.load(f)


def write_json(path, content):
    with open(path + ".tmp", "w") as f:
        json.dump(content, f, indent=1)
    os.replace(path + ".tmp", path)


def flush(path):
    """fsync a file or directory: a rename may reach the disk before the data it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def info(args):
    path = resolve(args.path)
    model, tokenizer = load(path, merge=False)
    c = model.config
    trainable, total = lora.count(model)
    for line in licence.in_words(licence.read(path) or licence.lineage("model", path)):
        print(line)
    print(f"{path}: {model.name} of {total:,} parameters, "
          f"{c.n_layer} layers, {c.n_head} heads, {c.n_embd} channels, context {c.block_size}, "
          f"vocabulary {c.vocab_size:,}, {'with' if c.bias else 'no'} biases"
          + (", linears in NF4" if lora.is_quantized(model) else ""))
    found = lora.adapters(model)
    if found:
        layer = next(iter(found.values()))
        print(f"an adapter of rank {layer.rank}, alpha {layer.alpha:g} on {len(found)} linears, "
              f"{trainable:,} parameters, for the base {lora.read_adapter(path)[0]['base_model_name_or_path']}")
    if os.path.exists(os.path.join(path, "train_state.json")):
        state = load_json_state(path)
        best = state["best"]
        print(f"step {state['step']:,}, {state['tokens']:,} tokens of {state['args']['data']}"
              + (f"; best validation loss {best['val_loss']:.4f} at step {best['step']:,}" if best["step"] else ""))


def new_directory(path):
    """The path, if a directory can be made there."""
    if os.path.exists(path) and (not os.path.isdir(path) or os.listdir(path)):
        raise ValueError(f"{path} exists already; choose another --out")
    return path


def write_model(model, tokenizer, path, lineage, dtype):
    """save_pretrained, whole or not at all."""
    work = path.rstrip("/") + ".partial"
    shutil.rmtree(work, ignore_errors=True)
    try:
        os.makedirs(work)
        model.save_pretrained(work, tokenizer, getattr(torch, dtype))
        if lineage:
            licence.write(work, lineage)
        for name in os.listdir(work):
            flush(os.path.join(work, name))
        if os.path.isdir(path):
            os.rmdir(path)  # it is empty: new_directory has looked
        os.rename(work, path)
    except BaseException as e:
        shutil.rmtree(work, ignore_errors=True)
        if isinstance(e, SafetensorError):
            raise OSError(28, os.strerror(28), path) from None
        raise


@torch.no_grad()
def merge(args):
    path, out = resolve(args.adapter), new_directory(args.out)
    if not is_adapter(path):
        raise ValueError(f"{args.adapter} is no adapter directory: it has no adapter_config.json")
    model, tokenizer = load(path, merge=False, base=args.base)
    model.eval()
    quantized = lora.is_quantized(model)
    original = load(args.original)[0] if args.original else None
    if original is not None and (lora.is_quantized(original) or original.config != model.config):
        raise ValueError(f"--original {args.original} must be the base before it was quantized, in full precision")
    probe = torch.randint(model.config.vocab_size, (1, min(256, model.config.block_size)),
                          generator=torch.Generator().manual_seed(0))
    before = model(probe)[0]
    lora.merge_lora(model, original, keep=False)
    rounded = getattr(torch, args.dtype)
    for p in model.parameters():
        p.data = p.data.to(rounded).float()
    change = (model(probe)[0] - before).abs().max().item()
    if not math.isfinite(change):
        raise ValueError(f"the adapter {path} or its base holds NaN or infinity; nothing was written")
    onto = "the dequantized base" if quantized and original is None else "the original base"
    lineage = licence.read(path) or licence.lineage("adapter", path)
    write_model(model, tokenizer, out, lineage | dict(kind="model"), args.dtype)
    for line in licence.in_words(lineage):
        print(line)
    print(f"{out}: {path} merged in float32 onto {onto}, written in {args.dtype}; on {probe.shape[1]} random tokens no "
          f"logit moved by more than {change:.2g} (of a largest logit of {before.abs().max().item():.3g})")


def quantize(args):
    path, out = resolve(args.path), new_directory(args.out)
    if is_adapter(path):
        raise ValueError(f"{path} is an adapter; in 4 bits what it has learnt would be rounded: train it beside a base "
                         "in NF4 (--quantize nf4), or merge it first if that loss is none to you")
    model, tokenizer = load(path, dtype=None)
    if lora.is_quantized(model):
        raise ValueError(f"{path} is quantized already")
    was = sum(p.nbytes for p in model.parameters())
    dtype = args.dtype or str(model.wte.weight.dtype).removeprefix("torch.")
    lora.quantize_linears(model)
    write_model(model, tokenizer, out, licence.read(path) or licence.lineage("model", args.path, model.origin), dtype)
    packed = sum(m.q.nbytes() for m in model.modules() if isinstance(m, lora.NF4Linear))
    now = packed + sum(p.numel() for p in model.parameters()) * getattr(torch, dtype).itemsize
    print(f"{out}: linears in NF4, the rest in {dtype}: {was / 1e6:,.1f} MB of weights are now {now / 1e6:,.1f}")


def add_dtype_flag(parser, default, words):
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default=default, help=words)


def main():
    parser = cli.Parser("checkpoint.py", __doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    p = commands.add_parser("info", help="what is in a checkpoint", prog="checkpoint.py info")
    p.add_argument("path", help="a run directory, checkpoint or adapter directory, hub id or nanoGPT ckpt.pt")
    p.set_defaults(run=info)
    p = commands.add_parser("merge", help="adapter + base -> a plain checkpoint", prog="checkpoint.py merge")
    p.add_argument("adapter", help="a run or adapter directory, ours or PEFT's")
    p.add_argument("--out", required=True, help="the checkpoint directory to write")
    p.add_argument("--base", help="where the base is [what adapter_config.json says]")
    p.add_argument("--original", metavar="CKPT", help="for a base in NF4: merge onto these weights, which it was "
                   "quantized from, and not onto the rounded ones that the adapter was trained with")
    add_dtype_flag(p, "float32", "of the weights that are written; most models on the hub have bfloat16")
    p.set_defaults(run=merge)
    p = commands.add_parser("quantize", help="linears to NF4, 4.127 bits a weight", prog="checkpoint.py quantize")
    p.add_argument("path", help="a run directory, checkpoint, hub id or nanoGPT ckpt.pt")
    p.add_argument("--out", required=True, help="the checkpoint directory to write")
    add_dtype_flag(p, None, "of the weights that stay as they are [what they are on disk]")
    p.set_defaults(run=quantize)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    cli.run(main)
