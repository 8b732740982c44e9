"""
Put many items to a model: in worker processes, with every answer kept.

    ask = Ask({"runs/sec": "runs/sec", "gpt2": "gpt2"}, "report/cache", workers=8, device=device, dtype="float32")
    nats = ask("gpt2", loss.nats_at, documents)        # one result per document
    ask.about["gpt2"]["sha256"]                        # which weights these were

An evaluation is many questions to few models, and people stop it, add a baseline, and start it again. So the unit of
work is a function of (model, tokenizer, items), and its answers lie in a folder named by the hash of all that they
depend on: weights, tokenizer, the code of ours that it runs, settings, items. What is there is not computed again.

On a CPU each process computes on one thread and takes chunks of items that do not depend on how many processes there
are. A matrix product adds up in another order on two threads than on one; this way the figures are the same with 1
worker and with 16, to the last bit.
"""
import functools
import glob
import hashlib
import json
import os
import shutil
import sys
import types

import numpy as np
import torch

import checkpoint
import data
import jobs
import lora

HERE = os.path.dirname(os.path.abspath(__file__))


class Ask:
    """
    models: {name to show: what checkpoint.load takes}. A model that can't be loaded is in .missing, with the reason;
    of the others .about tells hashes and sizes. device: a torch.device; dtype: a name, of the matrix products.
    """

    def __init__(self, models, folder, workers, device, dtype):
        self.folder, self.device, self.dtype = folder, device, dtype
        self.paths, self.about, self.missing = {}, {}, {}
        largest = 1
        for name, path in models.items():
            try:
                path = checkpoint.resolve(path)  # a run that trains on has another newest step later
                model, tokenizer = checkpoint.load(path)
                if not all(p.isfinite().all() for p in model.parameters() if p.is_floating_point()):
                    raise ValueError(f"{name} has weights that are not finite; take a step from before it diverged")
            except (OSError, ValueError) as e:
                self.missing[name] = str(e)
                continue
            self.paths[name] = path
            largest = max(largest, 4 * lora.count(model)[1])
            self.about[name] = dict(sha256=weights_sha256(path, model), tokenizer_sha256=tokenizer.sha256(),
                                    architecture=model.name,
                                    parameters=lora.count(model)[1], vocab_size=model.config.vocab_size,
                                    block_size=model.config.block_size, tokens_trained=tokens_trained(path))
        workers = max(1, min(workers, jobs.MEMORY // 4 // largest)) if device.type == "cpu" else 1
        self.job = jobs.Job(folder, workers)

    def __call__(self, name, function, items, cast=False, chunk=16, label="", **settings):
        """
        function(model, tokenizer, items, **settings), a list of JSON or an array with a row per item, on `chunk` items
        at a time; all its results as one list. The model computes its products in .dtype; cast: its weights are in it.
        """
        items, about = list(items), self.about[name]
        os.makedirs(self.folder, exist_ok=True)
        key = content_key(about["sha256"], about["tokenizer_sha256"], source(function.__module__), source("checkpoint"),
                          torch.__version__, self.device.type, self.dtype, cast, function.__qualname__, chunk,
                          settings, items)
        parts = [items[i : i + chunk] for i in range(0, len(items), chunk)]
        calls = [((self.paths[name], about["sha256"], function, part, settings, str(self.device), self.dtype, cast),
                  len(json.dumps(part))) for part in parts]
        for folder in glob.glob(os.path.join(glob.escape(self.folder), key, "[0-9]" * 6)):
            if read(folder) is None:
                shutil.rmtree(folder)
        folders = self.job.run(key, calls, answer, f"{name[-24:]}: {label or function.__name__}")
        return [result for folder in folders for result in read(folder)]

    def close(self):
        self.job.close()


def content_key(*parts):
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


@functools.cache
def source(name):
    """The sha256 of the files of ours that a module is made of: its own and those that it imports from."""
    found, todo = {}, [name]
    while todo:
        module = sys.modules[todo.pop()]
        path = getattr(module, "__file__", None) or ""
        if module.__name__ not in found and os.path.dirname(path) in (HERE, os.path.join(HERE, "kernels")):
            found[module.__name__] = data.file_sha256(path)
            todo += {v.__name__ if isinstance(v, types.ModuleType) else getattr(v, "__module__", None) or name
                     for v in vars(module).values()} & {*sys.modules}
    return sorted(found.values())


def weights_sha256(path, model):
    """The sha256 of what a path's weights are read from, for an adapter that and its base's in one."""
    path = checkpoint.resolve(path)
    if os.path.isfile(path):
        return data.file_sha256(path)
    own = lora.weights_sha256(path if os.path.isdir(path) else model.origin)
    if not checkpoint.is_adapter(path):
        return own
    return hashlib.sha256((own + lora.weights_sha256(model.origin)).encode()).hexdigest()


def tokens_trained(path):
    """How many tokens a checkpoint of ours had read, itself, without its base; None if it does not say."""
    try:
        return checkpoint.load_json_state(checkpoint.resolve(path)).get("tokens")
    except (OSError, ValueError, AttributeError):
        return None


@functools.lru_cache(1)  # a worker holds one model at a time
def held(path, sha256, device, dtype):
    model, tokenizer = checkpoint.load(path, device)
    return model.to(getattr(torch, dtype)).eval(), tokenizer


def answer(folder, path, sha256, function, items, settings, device, dtype, cast):
    """A task: what the function says of these items, into the folder."""
    threads = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        model, tokenizer = held(path, sha256, device, dtype if cast else "float32")
        with torch.inference_mode(), torch.autocast(torch.device(device).type, getattr(torch, dtype),
                                                    enabled=dtype != "float32" and not cast):
            results = function(model, tokenizer, items, **settings)
    finally:
        torch.set_num_threads(threads)
    if len(results) != len(items):
        raise AssertionError(f"{function.__name__} gave {len(results)} results for {len(items)} items")
    if isinstance(results, np.ndarray):
        jobs.save(folder, results=results)
    else:
        jobs.save_json(folder, "results", results)


def read(folder):
    """What `answer` wrote, or None where it is damaged."""
    path = os.path.join(folder, "results.npy")
    try:
        return np.load(path) if os.path.exists(path) else jobs.load_json(folder, "results")
    except (ValueError, EOFError, FileNotFoundError):
        return None
