"""train.py as a user runs it: exact resume, ranks, schedules, optimizers, the guard, checkpoints."""
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, TINY, run
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import checkpoint
import data
import objective
import optimizer
import train
from model import GPT, GPTConfig

EXACT = ["--dtype", "float32", "--seed", "5"]


def log_of(out):
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in lines]


def losses(out):
    return [line["train_loss"] for line in log_of(out) if "train_loss" in line]


def same_checkpoint(a, b):
    for name in ("model.safetensors", "train_state.safetensors"):
        x, y = load_file(os.path.join(a, name)), load_file(os.path.join(b, name))
        assert x.keys() == y.keys()
        assert all(torch.equal(x[k], y[k]) for k in x), name


def test_a_run_learns_and_is_a_hugging_face_model(trained, corpus):
    seen = losses(trained)
    assert len(seen) == 10 and seen[-1] < seen[0] - 0.1
    entry = json.loads((trained / "log.jsonl").read_text().splitlines()[-1])
    assert {"step", "tokens", "val_loss", "val_perplexity", "val_bpb"} <= set(entry)
    assert {"train_loss", "tokens_per_second", "lr", "grad_norm"} <= set(
        json.loads((trained / "log.jsonl").read_text().splitlines()[1]))
    assert (trained / "loss.png").read_bytes().startswith(b"\x89PNG")
    theirs, tokenizer = AutoModelForCausalLM.from_pretrained(trained).eval(), AutoTokenizer.from_pretrained(trained)
    ours, our_tokenizer = checkpoint.load(trained)
    ids = tokenizer("Revenue increased 8.3%.")["input_ids"]
    assert ids == our_tokenizer.encode("Revenue increased 8.3%.").tolist()
    with torch.no_grad():
        assert (theirs(torch.tensor([ids])).logits - ours.eval()(torch.tensor([ids]))[0]).abs().max() < 1e-4
    assert theirs.config.eos_token_id == our_tokenizer.end_of_text == tokenizer.eos_token_id


@pytest.mark.parametrize("flags", [
    pytest.param(["--optimizer", "adamw"], id="adamw", marks=pytest.mark.slow),
    pytest.param(["--optimizer", "muon", "--schedule", "wsd", "--dropout", "0.1"], id="muon-wsd-dropout")])
def test_resume_is_exact(corpus, tmp_path, flags):
    base = ["--data", corpus, "--steps", 12, *TINY, *EXACT, *flags]
    run("train.py", *base, "--out", tmp_path / "whole")
    # stop after five steps by SIGTERM-like means: a shorter copy of the same schedule is not the same run,
    # so interrupt it
    process = subprocess.Popen([sys.executable, "-u", "train.py", *map(str, base), "--out", str(tmp_path / "parts")],
                               cwd=ROOT, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("step      7/"):
            process.send_signal(signal.SIGTERM)
    assert process.wait() in (143, 0)
    stopped = checkpoint.steps(tmp_path / "parts")[-1]
    assert stopped < 12
    done = run("train.py", "--out", tmp_path / "parts", "--resume")  # the other flags come from the checkpoint
    assert f"at step {stopped}" in done.stdout
    same_checkpoint(checkpoint.resolve(tmp_path / "whole"), checkpoint.resolve(tmp_path / "parts"))
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "parts")


def kill_and_compare(corpus, tmp_path, kills, steps, rng):
    """Run with kill -9 at random moments until done; the result must equal that of an undisturbed run, bit for bit."""
    base = ["--data", corpus, "--steps", steps, *TINY, *EXACT, "--optimizer", "muon"]
    base[base.index("--save_every") + 1] = 1  # most of the time is spent writing checkpoints
    began = time.time()
    run("train.py", *base, "--out", tmp_path / "whole")
    duration = time.time() - began
    out, command = tmp_path / "killed", [sys.executable, "train.py", *map(str, base),
                                         "--out", str(tmp_path / "killed"), "--resume"]
    killed, in_write = 0, 0
    while killed < kills:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if killed % 2:  # in the middle of a checkpoint write
            until = time.time() + 60
            while process.poll() is None and time.time() < until and not (
                    out.exists() and any(n.startswith("writing-") for n in os.listdir(out))):
                time.sleep(0.001)
            time.sleep(rng.random() * 0.01)
        else:
            time.sleep(duration * (0.3 + 0.5 * rng.random()))
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.returncode in (0, -9), process.stderr.read()
        killed += 1
        in_write += out.exists() and any(n.startswith("writing-") for n in os.listdir(out))
        if process.returncode == 0 and checkpoint.steps(out)[-1] == steps:  # finished: start over from an early point
            for name in checkpoint.steps(out)[1:]:
                os.rename(checkpoint.step_directory(out, name), tmp_path / f"gone-{killed}-{name}")
        if checkpoint.steps(out):
            GPT.from_pretrained(checkpoint.resolve(out))  # whatever is there is whole
    run(*command[1:])
    same_checkpoint(checkpoint.resolve(tmp_path / "whole"), checkpoint.resolve(out))
    assert log_of(tmp_path / "whole") == log_of(out)
    return in_write


@pytest.mark.slow
def test_kill_minus_nine_a_few_times(corpus, tmp_path):
    kill_and_compare(corpus, tmp_path, kills=3, steps=15, rng=random.Random(0))


@pytest.mark.slow
def test_kill_minus_nine_at_twenty_random_moments(corpus, tmp_path):
    assert kill_and_compare(corpus, tmp_path, kills=20, steps=60, rng=random.Random(1)) >= 1


def test_two_ranks_and_any_accumulation_give_the_same_losses(corpus, tmp_path):
    base = ["--data", corpus, "--steps", 8, *TINY, *EXACT]
    run("train.py", *base, "--out", tmp_path / "one")
    run("train.py", *base, "--out", tmp_path / "accumulated", "--micro_batch", 1)
    run("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
        "train.py", *base, "--out", tmp_path / "two")
    expected = log_of(tmp_path / "one")
    for other in ("accumulated", "two"):
        for a, b in zip(expected, log_of(tmp_path / other), strict=True):
            assert a["step"] == b["step"]
            for key in ("train_loss", "val_loss", "val_bpb"):
                assert key not in a or abs(a[key] - b[key]) <= 1e-5 * a[key], (other, a, b)


@pytest.mark.slow
def test_two_ranks_stop_together_and_resume(corpus, tmp_path):
    base = ["--data", corpus, "--steps", 24, *TINY, *EXACT]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "train.py"]
    process = subprocess.Popen([sys.executable, *torchrun, *map(str, base), "--out", str(tmp_path / "run")], cwd=ROOT,
                               stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    for line in process.stdout:
        if line.startswith("step      6/"):
            process.send_signal(signal.SIGTERM)
    assert process.wait() != 0
    assert 6 <= checkpoint.steps(tmp_path / "run")[-1] < 24
    run(*torchrun, "--out", tmp_path / "run", "--resume")
    run("train.py", *base, "--out", tmp_path / "one")
    for a, b in zip(log_of(tmp_path / "one"), log_of(tmp_path / "run"), strict=True):
        for key in ("step", "train_loss", "val_loss"):
            assert key not in a or abs(a[key] - b[key]) <= 1e-5 * a[key]


def test_continued_pretraining_starts_where_the_other_run_ended(trained, corpus, tmp_path):
    run("train.py", "--data", corpus, "--out", tmp_path / "more", "--init", trained,
        "--steps", 2, "--batch_tokens", 512, "--lr", 1e-4, "--eval_tokens", 2048)
    assert abs(log_of(tmp_path / "more")[0]["val_loss"] - log_of(trained)[-1]["val_loss"]) < 0.02


def test_newest_and_best_checkpoints_are_kept(corpus, tmp_path):
    out = tmp_path / "run"
    flags = TINY.copy()
    flags[flags.index("--eval_every") + 1] = "4"
    flags[flags.index("--save_every") + 1] = "3"
    # too hot: the best is early
    run("train.py", "--data", corpus, "--out", out, "--steps", 17, *flags, "--keep", 2, "--lr", 0.05)
    best = json.loads((out / "best.json").read_text())
    kept = checkpoint.steps(out)
    assert kept[-1] == 17 and best["step"] in kept and len(kept) <= 3
    assert os.readlink(out / "latest") == "step-00000017" and not [
        n for n in os.listdir(out) if n.startswith(("writing", "deleting"))]


def test_non_finite_steps_are_skipped_named_and_then_stop_the_run(corpus, tmp_path):
    done = run("train.py", "--data", corpus, "--out", tmp_path / "hot", "--steps", 50, *TINY,
               "--lr", "1e30", "--warmup_steps", 0, "--grad_clip", 0, check=False)
    assert done.returncode == 2 and "lower --lr" in done.stderr and done.stderr.count("\n") == 1
    entries = [e for e in log_of(tmp_path / "hot") if "skipped" in e]
    assert len(entries) == 5 and entries[-1]["skipped"] == 5 and all(e["documents"] for e in entries)


def test_the_micro_batch_follows_the_free_memory(monkeypatch):
    """On a GPU that is not there: 12 GB of which 3 are taken, and one with room for nothing."""
    config, device = GPTConfig(50257, 1024, 12, 12, 768, bias=False), torch.device("cuda")
    args = train.flags().parse_args(["--seq_len", "1024", "--optimizer", "muon", "--dtype", "bfloat16"])
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    found = {}
    for free in (9, 4, 3.25):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free * 2**30, 12 * 2**30))
        args.recompute = None
        found[free] = train.choose_room(args, config, "lm", device), args.recompute
    assert found[9][0] > found[4][0] > 0 and found[9][1] == 0
    assert found[3.25][0] > 0 and found[3.25][1] == 1  # one does not fit as it is, recomputed it does
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 12 * 2**30))
    with pytest.raises(ValueError, match="not even one sequence"):
        train.choose_room(args, config, "lm", device)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_an_overflow_of_scaled_gradients_skips_the_step_on_the_device(kind):
    """float16's scaler and our optimizers, as the loop calls them: nothing moves, and the scale comes down."""
    model, scaler = GPT(GPTConfig(101, 32, 1, 2, 16)), torch.amp.GradScaler("cpu", init_scale=1024.0)
    args = train.flags().parse_args(["--optimizer", kind, "--lr", "1e-2", "--weight_decay", "0.1"])
    optimizers, idx = optimizer.make(model, args, torch.device("cpu")), torch.randint(101, (2, 32))
    for factor, moves, scale in ((1.0, True, 1024.0), (math.inf, False, 512.0), (1.0, True, 512.0)):
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        scaler.scale(model(idx, idx)[1] * factor).backward()
        for o in optimizers:
            scaler.unscale_(o)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in optimizers:
            o.found_inf = 1 - norm.isfinite().float()
            o.step()
            o.zero_grad(set_to_none=True)
        scaler.update()
        assert scaler.get_scale() == scale
        assert all(torch.equal(p, before[n]) != moves for n, p in model.named_parameters() if n != "wpe.weight")


def test_windows_are_short_at_the_beginning_of_a_run_from_scratch(corpus):
    args = train.flags().parse_args(["--data", str(corpus), "--out", "o", "--steps", "100", "--seq_len", "64",
                                     "--batch_tokens", "512", "--micro_batch", "2", "--seq_warmup", "0.5"])
    args.eval_tokens = 1024
    learn = objective.make(args, data.Tokenizer.load(corpus), torch.device("cpu"))
    for step, (rows, T) in {0: (32, 16), 19: (32, 16), 20: (16, 32), 49: (16, 32), 50: (8, 64), 99: (8, 64)}.items():
        whole = list(learn.micro_batches(step, 0, 1))
        halves = [m for rank in range(2) for m in learn.micro_batches(step, rank, 2)]
        for batch in (whole, halves):
            assert torch.cat([m["x"] for m in batch]).shape == (rows, T) and batch[0]["x"].numel() == 2 * 64
        assert torch.equal(*(torch.cat([m["y"] for m in batch]) for batch in (whole, halves)))
        assert learn.count(step) == 512 and learn.documents(step)


def test_schedules():
    args = train.flags().parse_args(["--data", "d", "--out", "o",
                                     "--steps", "100", "--warmup_steps", "10", "--min_lr", "0.1"])
    cosine = [optimizer.learning_rate(s, args) for s in range(101)]
    assert cosine[0] == pytest.approx(1 / 11) and cosine[10] == 1 and cosine[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in zip(cosine[10:], cosine[11:], strict=False))
    args.schedule, args.decay_fraction = "wsd", 0.2
    wsd = [optimizer.learning_rate(s, args) for s in range(101)]
    assert wsd[10:81] == [1.0] * 71 and wsd[90] == pytest.approx(0.55) and wsd[100] == pytest.approx(0.1)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_every_parameter_has_one_optimizer_and_muon_takes_the_matrices(kind):
    model = GPT(GPTConfig(101, 32, 2, 2, 16))
    flags = ["--data", "d", "--out", "o", "--optimizer", kind, "--lr", "1e-3", "--weight_decay", "0.1"]
    args = train.flags().parse_args(flags)
    optimizers = optimizer.make(model, args, torch.device("cpu"))
    owned = [p for o in optimizers for g in o.param_groups for p in g["params"]]
    assert len(owned) == len(set(owned)) == len(list(model.parameters()))
    if kind == "muon":
        assert {p.shape for g in optimizers[1].param_groups for p in g["params"]} == {
            (48, 16), (16, 16), (64, 16), (16, 64)}
    decayed = {p for o in optimizers for g in o.param_groups if g["weight_decay"] for p in g["params"]}
    assert decayed == {p for p in model.parameters() if p.dim() == 2}


def test_recomputed_activations_give_the_same_losses_bit_for_bit(corpus, tmp_path):
    base = ["--data", corpus, "--steps", 6, *TINY, *EXACT, "--dropout", "0.1", "--optimizer", "muon"]
    for recompute in (0, 1):
        run("train.py", "--out", tmp_path / str(recompute), *base, "--recompute", recompute)
    assert log_of(tmp_path / "0") == log_of(tmp_path / "1")


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("packed", [False, True], ids=["windows", "packed"])
def test_training_compiles_without_a_graph_break(packed, recompute):
    """fullgraph=True raises at the first; losses and gradients are those of the model as it is."""
    torch.manual_seed(0)
    torch._dynamo.reset()  # what other tests compiled counts against a limit
    model = GPT(GPTConfig(101, 64, 2, 2, 64))
    model.recompute = recompute
    idx = torch.randint(101, (3, 64))
    documents = torch.arange(64).expand(3, 64) // 20 if packed else None
    found = []
    for forward in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        with torch.autocast("cpu", torch.bfloat16):
            _, loss = forward(idx, idx, reduction="sum", documents=documents)
        loss.backward()
        found.append((loss.item(), [p.grad for p in model.parameters() if p.requires_grad]))
        model.zero_grad(set_to_none=True)
    (loss, gradients), (compiled, others) = found
    assert compiled == pytest.approx(loss, rel=1e-5) and len(gradients) == len(others) > 0
    assert all((a - b).norm() <= 0.02 * a.norm() + 1e-9 for a, b in zip(gradients, others, strict=True))


@pytest.mark.parametrize("matrices", [1, 2, 7])
def test_muon_in_batches_is_torchs_one_by_one(matrices, monkeypatch):
    """Up to bfloat16's rounding, in which both iterate; the moments, which do not, are the same."""
    torch.manual_seed(0)
    shapes = [(48, 16), (16, 16), (64, 16), (16, 64)]
    ours = [torch.nn.Parameter(0.02 * torch.randn(s)) for s in shapes * matrices]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    monkeypatch.setattr(optimizer.Muon, "BATCH", 3000)
    ours_optimizer = optimizer.Muon([dict(params=ours)], 0.02, 0.1, 0.95)
    theirs_optimizer = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.95,
                                        adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        ours_optimizer.step()
        theirs_optimizer.step()
    for p, q in zip(ours, theirs, strict=True):
        assert (p - q).abs().max() < 0.05 * 0.2 * 0.02 * 3
        assert torch.equal(ours_optimizer.state[p]["momentum_buffer"], theirs_optimizer.state[q]["momentum_buffer"])
    whole, parts = torch.nn.Parameter(torch.zeros(48, 16)), [torch.nn.Parameter(torch.zeros(16, 16)) for _ in range(3)]
    whole.grad = torch.randn_like(whole)
    for p, grad in zip(parts, whole.grad.chunk(3), strict=True):
        p.grad = grad.clone()
    for group in (dict(params=[whole], parts=3), dict(params=parts)):
        optimizer.Muon([group], 0.02, 0.1, 0.95).step()
    assert torch.equal(whole, torch.cat(parts)) and whole.any()
    before = [p.detach().clone() for p in ours]
    ours_optimizer.found_inf = torch.ones(())
    for p in ours:
        p.grad = torch.full_like(p, math.nan)
    ours_optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(ours, before, strict=True))


@pytest.mark.parametrize("name, tflops", [
    ("NVIDIA GeForce RTX 4070", 58), ("NVIDIA GeForce RTX 4070 Ti", 80), ("NVIDIA A100-SXM4-80GB", 312),
    ("Tesla T4", 65),
    ("NVIDIA H100 80GB HBM3", 989), ("AMD Instinct MI300X", 1307), ("NVIDIA L40S", 362), ("NVIDIA L4", 121),
    ("NVIDIA RTX A4000", None), ("NVIDIA A400", None), ("Some new thing", None)])
def test_peaks_of_gpus_are_known_or_none(name, tflops, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert train.peak_flops(torch.device("cuda")) == (tflops and tflops * 1e12)
    assert train.peak_flops(torch.device("cpu")) is None


def test_a_run_copied_with_its_links_followed_goes_on(corpus, tmp_path):
    base = ["--data", corpus, *TINY, *EXACT]
    run("train.py", *base, "--out", tmp_path / "run", "--steps", 7)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    for n in checkpoint.steps(tmp_path / "copy")[1:]:
        shutil.rmtree(checkpoint.step_directory(tmp_path / "copy", n))
    run("train.py", "--out", tmp_path / "copy", "--resume")
    assert os.path.islink(tmp_path / "copy" / "latest") and os.path.islink(tmp_path / "copy" / "model.safetensors")
    same_checkpoint(checkpoint.resolve(tmp_path / "copy"), checkpoint.resolve(tmp_path / "run"))
