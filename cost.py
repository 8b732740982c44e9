"""
What a model cost: hours, tokens a second, memory, energy and money, beside what it is worth.

    cost.run({"sec": "runs/sec", "gpt2": "gpt2"}, report, options)     # the part "cost" of report.json

It is measured while train.py trains, and kept in the train_state.json of each checkpoint, under "cost":

    device hours = sum over the starts of a run of its hours x the devices that it had then
    kWh          = sum over the starts of device hours x the mean of the watts read / 1000, of the GPU alone
    money        = device hours x the price of one

Hours count validation, checkpoints and compiling, as the landlord does; not what was lost when a run was killed and
went on from its last checkpoint. An adapter is nothing without its base: what that cost stands beside it, and in sum.
"""
import contextlib
import json
import os
import platform
import resource
import subprocess
import sys
import threading
import time
from statistics import fmean, median

import torch

import checkpoint
import licence

EMPTY = dict(name=None, kind="unknown", hours_estimated=False) | dict.fromkeys(
    "tokens hours device_hours tokens_per_second watts kilowatt_hours peak_memory_gb device devices "
    "trainable_parameters base base_device_hours device_hours_with_base note".split())
A_CORPUS = 1_550_000_000  # tokens: 26,000 annual reports, as a public run at training GPT-2 on them counts them


def meter(device, world, dtype, rank, before):
    """
    A function that says what the run took until now: {"seconds", "device_hours", "kilowatt_hours": None without a
    driver that tells the watts, "peak_memory_gb" of rank 0, "devices", "machines": their names, "dtype", "torch"}.
    before: what it said in the checkpoint gone on from; {} in a new run; None where nobody counted: the sums are None.
    """
    def took():
        hours = (time.perf_counter() - began) / 3600
        now = dict(seconds=hours * 3600, device_hours=hours * world,
                   kilowatt_hours=fmean(watts) * hours * world / 1000 if watts else None)
        memory = (torch.cuda.max_memory_allocated(device) if device.type == "cuda" else
                  resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 ** (sys.platform != "darwin"))
        return {k: None if None in (sums[k], v) else sums[k] + v for k, v in now.items()} | dict(
            peak_memory_gb=max(memory / 2**30, sums.get("peak_memory_gb", 0.0)), devices=world, dtype=dtype,
            machines=list(dict.fromkeys([*sums.get("machines", ()), name])), torch=torch.__version__)

    sums = dict.fromkeys(("seconds", "device_hours", "kilowatt_hours"), 0.0 if before == {} else None) | (before or {})
    began, watts, gpu = time.perf_counter(), watch_power(device, rank), device.type == "cuda"
    name = torch.cuda.get_device_name(device) if gpu else platform.processor() or platform.machine()
    if not gpu and os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as f:
            name = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), name)
    return took


def watch_power(device, rank=0):
    """A list that a thread fills: every 5 seconds the watts that this GPU draws, where nvidia-smi says them."""
    def watch():
        command = ["nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits", f"--id=GPU-{uuid}"]
        while True:
            with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):  # not there, "[N/A]", hanging
                watts.append(float(subprocess.run(command, capture_output=True, text=True, timeout=10).stdout))
            time.sleep(5)

    watts, uuid = [], device.type == "cuda" and getattr(torch.cuda.get_device_properties(device), "uuid", None)
    if uuid and torch.version.cuda and rank == 0:
        threading.Thread(target=watch, daemon=True).start()
    return watts


def run(paths, report, options):
    """
    {"price_per_hour", "rows", "to_come", "notes"}: a row for each model (and task, if it was tuned) and for
    each that was asked untuned in a task. paths: {name: path}; options.price: of an hour of one device, or None.
    """
    def money(hours):
        return None if None in (hours, price) else hours * price

    price, found = options.price, {name: spent(path) | dict(name=name) for name, path in paths.items()}
    rows = [row | worth for name, row in found.items() for worth in worths(name, report)]
    for name in dict.fromkeys(name for _, name, _ in asked(report, "before")):
        free = EMPTY | dict.fromkeys("tokens hours device_hours kilowatt_hours trainable_parameters".split(), 0) | dict(
            name=name, kind="prompting", base=name,
            device_hours_with_base=found.get(name, EMPTY)["device_hours_with_base"])
        rows += [free | worth for worth in worths(name, report, "before")]
    for row in rows:
        row |= dict(money=money(row["device_hours"]), money_with_base=money(row["device_hours_with_base"]))
    notes = [f"{name}: {row['note']}" for name, row in found.items() if row["note"]] + [note for note, applies in (
        ("no money: say what an hour of one device costs with --price", price is None),
        ("estimated hours are tokens by the median speed, without validation, on one device if none are named",
         any(row["hours_estimated"] for row in rows)),
        ("no energy where nobody read it: on CPUs, on GPUs without nvidia-smi, in older checkpoints",
         any(row["hours"] and row["kilowatt_hours"] is None for row in rows))) if applies]
    hours = next((A_CORPUS / row["tokens_per_second"] / 3600 for row in rows[:1] if row["tokens_per_second"]), None)
    return dict(price_per_hour=price, rows=rows, notes=notes, to_come=hours and dict(
        tokens=A_CORPUS, hours=hours, money=money(hours),
        note="arithmetic: this many tokens at the measured speed; nothing was trained"))


def asked(report, stage):
    """(task, name, what it scored) of each model that a task was put to before or after it was tuned."""
    return [(task, one.get("name", row["model"]), one.get("likeliest") or one.get("written") or one)
            for task, part in (report.get("tasks") or {}).items() for row in part.get("rows", ())
            if row.get("stage") == stage for one in row.get("runs") or [row]]


def worths(name, report, stage="after"):
    """What a model is worth by the report, [{"quality", "quality_name", "task"}]: a task's accuracy, else bits/byte."""
    found = [dict(quality=score.get("accuracy", score.get("execution_accuracy")), quality_name=f"accuracy on {task}",
                  task=task) for task, who, score in asked(report, stage) if who == name]
    bits = next((m.get("bits_per_byte") for m in report.get("models", ()) if m["name"] == name), None)
    return found or [dict(quality=bits, quality_name=None if bits is None else "bits/byte", task=None)]


def spent(name, seen=()):
    """EMPTY with what the files of a run directory, checkpoint or adapter tell; of a hub id nothing is known."""
    path = checkpoint.resolve(name)
    adapter, row, seen = checkpoint.is_adapter(path), EMPTY | dict(name=name), (*seen, os.path.realpath(path))
    if not os.path.exists(os.path.join(path, "train_state.json")):
        return row | dict(kind="LoRA" if adapter else "unknown", note="no training log: " + (
            "merged, quantized or copied; ask the run it came from" if os.path.isdir(path) else "not trained here"))
    try:
        state, record = checkpoint.load_json_state(path), licence.read(path) or {}
        args, took, speed = state["args"], state.get("cost") or {}, median_speed(path, state["step"])
        row |= {k: took.get(k) for k in ("device_hours", "kilowatt_hours", "peak_memory_gb", "devices")} | dict(
            tokens=state["tokens"], trainable_parameters=state.get("trainable"), tokens_per_second=speed,
            hours=None if took.get("seconds") is None else took["seconds"] / 3600,
            device=", then ".join(took.get("machines", ())) or None)
        if row["hours"] is None and speed:
            row |= dict(hours=row["tokens"] / speed / 3600, hours_estimated=True)
            row["device_hours"] = row["hours"] * (row["devices"] or 1)
        if row["kilowatt_hours"] and row["device_hours"]:
            row["watts"] = row["kilowatt_hours"] / row["device_hours"] * 1000
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        return row | dict(note=f"damaged: {e}")
    kinds = {d["kind"] for d in record.get("data", ())}
    row["kind"] = (("QLoRA" if args.get("quantize") else "LoRA") if adapter else "from scratch" if args.get("init") ==
                   "scratch" else "continued" if kinds <= {"lm", "teacher"} else "fine-tuned")
    row["device_hours_with_base"] = row["device_hours"]
    base = checkpoint.resolve((record.get("base") or {}).get("name") or args.get("init") or "scratch")
    if adapter and not checkpoint.is_adapter(base):  # it knows the very step; the base's run may have gone on since
        base = checkpoint.read_json(os.path.join(path, "adapter_config.json")).get("base_model_name_or_path") or base
    if base != "scratch" and os.path.realpath(base) not in seen:
        hours, name = spent(base, seen)["device_hours_with_base"], "/".join(base.rstrip("/").split("/")[-2:])
        total = None if None in (hours, row["device_hours"]) else hours + row["device_hours"]
        row |= dict(base=name, base_device_hours=hours, device_hours_with_base=total,  # a name that does not tell
                    note=f"no hours of its base {name} are known" if total is None else None)  # whose folder it is
    return row


def median_speed(path, step):
    """In tokens a second, of the lines up to this step in the log of the checkpoint's run; None where nobody knows."""
    path, speeds = os.path.realpath(path), []
    if path == checkpoint.step_directory(os.path.dirname(path), step):
        with contextlib.suppress(OSError, ValueError), open(os.path.join(os.path.dirname(path), "log.jsonl")) as f:
            for line in map(json.loads, f):  # until half a line: the run goes on, or was killed
                if line["step"] <= step and line.get("tokens_per_second"):
                    speeds.append(line["tokens_per_second"])
    return median(speeds) if speeds else None
