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

    python checkpoint.py info runs/sec124m        # what is in a run directory or checkpoint
"""
import json
import os
import re
import shutil

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import cli
from data import Tokenizer
from model import GPT

MODEL_FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


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


def load(path, device="cpu"):
    """(model, tokenizer) of a run directory, checkpoint, hub id or nanoGPT ckpt.pt (with GPT-2's vocabulary)."""
    path = resolve(path)
    if os.path.isdir(path) and not os.path.exists(os.path.join(path, "config.json")):
        raise FileNotFoundError(f"{path} holds no checkpoint yet; "
                                f"train one with: python train.py --data DIR --out {path}")
    model = GPT.from_pretrained(path)
    if model.origin:
        tokenizer = Tokenizer.load(model.origin)
    elif model.config.vocab_size == 50257:
        tokenizer = Tokenizer.gpt2()
    else:
        raise ValueError(f"{path} has a vocabulary of {model.config.vocab_size} "
                         "and brings no tokenizer.json to read it with")
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(f"{path}: the tokenizer has {tokenizer.vocab_size:,} tokens, "
                         f"the model only {model.config.vocab_size:,}; they do not belong together")
    return model.to(device), tokenizer


def save(run, step, model, tokenizer, tensors, state, keep=2):
    """
    Write the checkpoint of this step, make it the latest, and delete all but the newest `keep` and the best.

    tensors: name -> tensor, the optimizer's state. state: a JSON-able dict; state["best"]["step"] is kept.
    """
    final, work = step_directory(run, step), os.path.join(run, f"writing-{step:08d}")
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    try:
        model.save_pretrained(work, tokenizer)
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
        if old != best:
            os.rename(step_directory(run, old), os.path.join(run, f"deleting-{old:08d}"))
    clean(run)


def point_to(run, step):
    """Make `latest`, and through it the run directory's own config.json, model.safetensors, ..., mean this step."""
    link(os.path.basename(step_directory(run, step)), os.path.join(run, "latest"))
    for name in MODEL_FILES:
        if not os.path.islink(os.path.join(run, name)):
            link(os.path.join("latest", name), os.path.join(run, name))


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
    model, tokenizer = load(path)
    c = model.config
    print(f"{path}: GPT-2 of {model.num_params():,} parameters, "
          f"{c.n_layer} layers, {c.n_head} heads, {c.n_embd} channels, context {c.block_size}, "
          f"vocabulary {tokenizer.vocab_size:,}, {'with' if c.bias else 'no'} biases")
    if os.path.exists(os.path.join(path, "train_state.json")):
        state = load_json_state(path)
        best = state["best"]
        print(f"step {state['step']:,}, {state['tokens']:,} tokens of {state['args']['data']}"
              + (f"; best validation loss {best['val_loss']:.4f} at step {best['step']:,}" if best["step"] else ""))


def main():
    parser = cli.Parser("checkpoint.py", __doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    p = commands.add_parser("info", help="what is in a checkpoint", prog="checkpoint.py info")
    p.add_argument("path", help="a run directory, checkpoint directory, hub id or nanoGPT ckpt.pt")
    p.set_defaults(run=info)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    cli.run(main)
