"""
Fine-tuning: packing, preferences, distillation, and the commands.

The sixteen silent mistakes of fine-tuning toolkits, and the tests that guard against them:

     1  end-of-text masked with padding      test_examples.py: test_the_last_supervised_token_...; test_padding_is_...
     2  empty masks                          test_an_example_without_anything_to_learn_is_refused, test_a_run_shows_...
     3  boundary of prompt and completion    test_examples.py: test_prompt_and_completion_meet_where_they_do_...
     4  mean of means                        test_packing_accumulation_and_ranks_change_nothing
     5  merging into 4 bits, or a wrong base test_lora.py: test_merging_on_the_command_line, test_a_base_that_has_...
     6  merging in bfloat16                  test_lora.py: test_merging_keeps_the_dtype_of_the_model
     7  LoRA on a tied head                  test_lora.py: test_targets, test_any_tree_of_modules_and_never_...
     8  Conv1D's orientation                 test_lora.py: test_adapters_load_in_peft; test_model.py
     9  resuming that restarts or unfreezes  test_resuming_is_exact
    10  DDP and unused parameters            test_packing_accumulation_and_ranks_change_nothing (DPO on two ranks)
    11  packed examples that see each other  test_packed_is_unpacked
    12  two beginnings, or none              test_examples.py: test_transformers_makes_the_same_tokens_of_a_conversation
    13  the template gets lost               test_the_walk_through
    14  DPO against a wrong reference        test_dpo_begins_at_ln_2_whatever_it_starts_from
    15  overflow in float16                  test_what_is_not_finite_is_named
    16  QLoRA under FSDP                     test_lora.py: test_two_processes_are_one (DDP is what there is)
"""
import contextlib
import json
import math
import os
import shlex
import shutil
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, run
from safetensors.torch import load_file
from test_errors import fails

import checkpoint
import examples
import lora
import objective
from model import GPT, GPTConfig, separate
from tokenizer import Tokenizer

WORDS = "revenue cost profit margin sales growth debt cash tax risk".split()
SFT = [dict(prompt=f"What rose in quarter {i} of {WORDS[i % 10]}?", completion=f" {WORDS[i % 7]} rose. " * (1 + i % 5))
       for i in range(40)]
PAIRS = [dict(prompt=f"Is {WORDS[i % 10]} {i} good?", chosen=" yes", rejected=" no, it is not" if i % 3 else " no")
         for i in range(40)]


@pytest.fixture(scope="module")
def tokenizer(corpus):
    return Tokenizer.load(corpus)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{"sft": directory, "pairs": directory} of forty examples each."""
    made = {}
    for kind, records in (("sft", SFT), ("pairs", PAIRS)):
        made[kind] = str(tmp_path_factory.mktemp("examples") / kind)
        examples.write(made[kind], examples.divide(records, 0.2, 0), kind, dict(sources=[], licence="MIT"))
    return made


def small(vocabulary=512, seed=0):
    torch.manual_seed(seed)
    return GPT(GPTConfig(vocabulary, 64, 2, 2, 32)).eval()


def flags(directory, **changes):
    return types.SimpleNamespace(**dict(
        data=directory, seq_len=64, seed=0, batch_size=8, packing=1, micro_batch=2, compile=False,
        train_on_prompt=False, dpo_beta=0.1, dpo_sft=0.0, label_smoothing=0.0, teacher_share=0.5, temperature=2.0,
        eval_tokens=4096, init="x", forget_data=None) | changes)


def made(kind, folders, tokenizer, teacher=None, **changes):
    args = flags(folders[kind], **changes)
    return objective.make(args, tokenizer, torch.device("cpu"), teacher)


def gradients(learn, model, ranks=1, step=3):
    """(loss, {name: gradient}) of a step, of all ranks together, as train.py's loop makes them."""
    model.zero_grad()
    total = torch.zeros(len(learn.names))
    for rank in range(ranks):
        for micro in learn.micro_batches(step, rank, ranks):
            loss, sums = learn.losses(model, micro)
            (loss / learn.count(step)).backward()
            total += sums / learn.count(step)
    return total, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


# ---- guards 4, 10, 11: packing, accumulation and ranks ---------------------------------------------------------------


def test_packed_is_unpacked():
    model = small()
    parts = [torch.randint(512, (1, n)) for n in (5, 17, 1, 30)]
    row = torch.cat(parts, 1)
    documents = torch.cat([torch.full((1, p.shape[1]), i) for i, p in enumerate(parts)], 1)
    mask, positions = separate(documents)
    packed = model.head(model.hidden(row, mask=mask, positions=positions))
    alone = torch.cat([model(p)[0] for p in parts], 1)
    assert (packed - alone).abs().max() <= 1e-5 and positions[0, 5] == positions[0, 22] == 0
    longer = torch.cat([row, row], 1)  # a row may be longer than the model's context, its sequences not
    mask, positions = separate(torch.cat([documents, documents + 4], 1))
    packed = model.head(model.hidden(longer, mask=mask, positions=positions))
    assert longer.shape[1] > 64 and (packed - torch.cat([alone, alone], 1)).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", ["sft", "pairs"])
def test_packing_accumulation_and_ranks_change_nothing(kind, folders, tokenizer):
    """Guard 4 at the level of gradients: 8 x 1 = 1 x 8 = 2 ranks x 4 = unpacked, with uneven masks."""
    model, found = small(), []
    for ranks, changes in ((1, dict(micro_batch=8)), (1, dict(micro_batch=1)), (2, dict(micro_batch=4)),
                           (1, dict(packing=0, micro_batch=3)), (4, dict(packing=0))):
        learn = made(kind, folders, tokenizer, **changes)
        model.load_state_dict(small(seed=1).state_dict())
        learn.before_first_step(model, contextlib.nullcontext)
        model.load_state_dict(small(seed=0).state_dict())
        found.append(gradients(learn, model, ranks))
    for total, grads in found[1:]:
        assert torch.allclose(total, found[0][0], rtol=1e-5, atol=1e-6)
        for name, grad in grads.items():
            assert (grad - found[0][1][name]).abs().max() <= 1e-5 * found[0][1][name].abs().max() + 1e-9, name


def test_a_step_is_what_the_formula_says(folders, tokenizer):
    """Against cross-entropy on each example alone: the sum over all, divided by the tokens to learn."""
    model, learn = small(), made("sft", folders, tokenizer)
    total, _ = gradients(learn, model)
    nats = count = 0
    for i in learn.chosen(3):
        ids, learnt = learn.train[i][0]
        logits = model(torch.from_numpy(ids[None, :-1]))[0][0]
        nats += F.cross_entropy(logits[learnt[1:]], torch.from_numpy(ids[1:][learnt[1:]]), reduction="sum").item()
        count += int(learnt.sum())
    assert count == learn.count(3) and math.isclose(total[0].item(), nats / count, rel_tol=1e-5)


def test_every_example_once_an_epoch_in_an_order_of_its_own(folders, tokenizer):
    learn = made("sft", folders, tokenizer)
    n = len(learn.train)
    assert n == 32 and learn.epoch() == 4.0
    first, second = ([i for step in steps for i in learn.chosen(step)] for steps in (range(4), range(4, 8)))
    assert sorted(first) == sorted(second) == list(range(n)) and first != second
    again = made("sft", folders, tokenizer)
    assert again.chosen(6) == learn.chosen(6)  # whatever came before


def test_rows_are_packed_well():
    rng = np.random.default_rng(0)
    for _ in range(50):
        lengths = rng.integers(1, 64, size=rng.integers(1, 40)).tolist()
        rows = objective.pack(lengths, 64)
        assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
        assert all(sum(lengths[i] for i in row) <= 64 for row in rows)
        assert len(rows) <= 1.25 * math.ceil(sum(lengths) / 64) + 1


def test_padding_is_never_learnt_and_end_of_text_always(folders, tokenizer):
    learn = made("sft", folders, tokenizer)
    for micro in learn.micro_batches(0, 0, 1):
        y, documents = micro["y"].numpy(), micro["documents"].numpy()
        n = int(documents.max()) - 1
        for number in range(n):
            supervised = y[documents == number]
            assert supervised[-1] == tokenizer.end_of_text and (supervised >= 0).any()
        assert (y[documents >= n] == -100).all()


def test_an_example_without_anything_to_learn_is_refused(tokenizer, tmp_path):
    silent = dict(messages=[dict(role="user", content="q"), dict(role="assistant", content="a", weight=0)])
    out = str(tmp_path / "bad")
    examples.write(out, dict(train=[SFT[0], silent]))
    with pytest.raises(ValueError, match=r"train.jsonl:2 has no token to learn"):
        objective.make(flags(out), tokenizer, torch.device("cpu"))


def test_long_texts_and_long_prompts(tokenizer, tmp_path):
    out = str(tmp_path / "long")
    long = "The revenue of the company rose. " * 60
    examples.write(out, dict(train=[dict(text=long), dict(prompt=long, completion=" It rose.")]))
    learn = objective.make(flags(out), tokenizer, torch.device("cpu"))
    ids, _ = examples.tokens(tokenizer, dict(text=long))
    *windows, (cut, learnt) = [item[0] for item in learn.train]
    assert sum(int(mask.sum()) for _, mask in windows) >= len(ids) - 1 - len(windows)
    assert all(len(w) <= 65 for w, _ in windows) and len(cut) == 65
    assert tokenizer.decode(cut[learnt][:-1]) == " It rose." and cut[-1] == tokenizer.end_of_text
    assert learn.cut == 1 and learn.lost == 0 and "shortened" in " ".join(learn.in_words())
    assert learn.longest > 300
    learn = objective.make(flags(out, train_on_prompt=True), tokenizer, torch.device("cpu"))
    assert learn.train[-1][0][1].sum() == 64


# ---- guard 14: preferences -------------------------------------------------------------------------------------------


def trl_dpo(policy, reference, beta, smoothing):
    """TRL's sigmoid loss and rewards, from the log-probabilities (N, 2) of chosen and rejected; its formulas."""
    logratios, ref_logratios = policy[:, 0] - policy[:, 1], reference[:, 0] - reference[:, 1]
    logits = logratios - ref_logratios
    losses = -F.logsigmoid(beta * logits) * (1 - smoothing) - F.logsigmoid(-beta * logits) * smoothing
    rewards = beta * (policy - reference)
    return losses.mean(), (rewards[:, 0] > rewards[:, 1]).float().mean(), (rewards[:, 0] - rewards[:, 1]).mean()


@pytest.mark.parametrize("smoothing, sft", [(0.0, 0.0), (0.2, 0.0), (0.1, 0.5)])
def test_dpo_is_trls_formula_on_the_same_logits(folders, tokenizer, smoothing, sft):
    before, model = small(seed=1), small(seed=0)
    learn = made("pairs", folders, tokenizer, label_smoothing=smoothing, dpo_sft=sft)
    learn.before_first_step(before, contextlib.nullcontext)
    total, grads = gradients(learn, model)
    model.zero_grad()

    def log_probabilities(model, sequence):
        ids, learnt = sequence
        logits = model(torch.from_numpy(ids[None, :-1]))[0][0].log_softmax(-1)
        mask = torch.from_numpy(learnt[1:])
        return logits.gather(1, torch.from_numpy(ids[1:, None])).squeeze(1)[mask].sum()

    chosen = learn.chosen(3)
    policy = torch.stack([torch.stack([log_probabilities(model, s) for s in learn.train[i]]) for i in chosen])
    with torch.no_grad():
        reference = torch.stack([torch.stack([log_probabilities(before, s) for s in learn.train[i]]) for i in chosen])
    expected = trl_dpo(policy, reference, 0.1, smoothing)
    lengths = torch.tensor([int(learn.train[i][0][1].sum()) for i in chosen])
    expected = *expected, (-policy[:, 0] / lengths).mean()
    assert torch.allclose(total, torch.stack(expected).detach(), rtol=1e-4, atol=1e-5)
    (expected[0] + sft * expected[3]).backward()
    for name, p in model.named_parameters():
        assert (p.grad - grads[name]).abs().max() <= 1e-4 * p.grad.abs().max() + 1e-8, name


def test_a_rank_without_a_pair_still_takes_part(folders, tokenizer):
    learn = made("pairs", folders, tokenizer, micro_batch=64)
    learn.before_first_step(small(), contextlib.nullcontext)
    last = [learn.losses(small(), micro)[0] for micro in learn.micro_batches(0, 7, 8)]  # of rows there are fewer
    assert [loss.item() for loss in last] == [0.0] and last[0].requires_grad


@pytest.mark.parametrize("start", ["full", "a fresh adapter", "an adapter with something in it"])
def test_dpo_begins_at_ln_2_whatever_it_starts_from(folders, tokenizer, start):
    model = small()
    if start != "full":
        lora.add_lora(model, rank=2)
    if "something" in start:
        for layer in lora.adapters(model).values():
            torch.nn.init.normal_(layer.lora_B, std=0.1)
    learn = made("pairs", folders, tokenizer)
    learn.before_first_step(model, contextlib.nullcontext)
    total, grads = gradients(learn, model)
    assert abs(total[0].item() - math.log(2)) <= 1e-5 and abs(total[2].item()) <= 1e-4
    assert any(g.abs().max() > 0 for g in grads.values())


# ---- distillation ----------------------------------------------------------------------------------------------------


def test_distillation_is_the_divergence_from_the_teacher(folders, tokenizer):
    model, teacher = small(seed=0), small(seed=1)
    learn = made("sft", folders, tokenizer, teacher)
    total, grads = gradients(learn, model)
    plain, _ = gradients(made("sft", folders, tokenizer), model)
    model.zero_grad()
    kl = count = 0
    for i in learn.chosen(3):
        ids, learnt = learn.train[i][0]
        x = torch.from_numpy(ids[None, :-1])
        ours, theirs = ((m(x)[0][0][torch.from_numpy(learnt[1:])] / 2.0).log_softmax(-1) for m in (model, teacher))
        kl += (theirs.detach().exp() * (theirs.detach() - ours)).sum()
        count += int(learnt.sum())
    assert math.isclose(total[0], plain[0], rel_tol=1e-5) and math.isclose(total[1], kl.item() / count, rel_tol=1e-4)
    (0.5 * 4 * kl / count).backward()
    own = {n: p.grad.clone() for n, p in model.named_parameters()}
    _, ce = gradients(made("sft", folders, tokenizer), model)
    for name in grads:
        expected = own[name] + 0.5 * ce[name]
        assert (grads[name] - expected).abs().max() <= 1e-4 * expected.abs().max() + 1e-8, name


def test_a_model_that_is_its_own_teacher_has_nothing_to_learn_from_it(folders, tokenizer):
    total, _ = gradients(made("sft", folders, tokenizer, small()), small())
    assert abs(total[1].item()) <= 1e-4


# ---- the commands ----------------------------------------------------------------------------------------------------


def command(script, *flags):
    """Run a command inside this process: starting Python takes seconds."""
    module = __import__(script.removesuffix(".py"))
    before, sys.argv = sys.argv, [script, *map(str, flags)]
    try:
        module.main()
    finally:
        sys.argv = before


def log_of(run):
    with open(os.path.join(run, "log.jsonl")) as f:
        return [{k: v for k, v in json.loads(line).items() if k != "tokens_per_second"} for line in f]


TUNE = ["--log_every", "1", "--eval_every", "3", "--save_every", "3", "--dtype", "float32", "--lr", "0.003"]


def tune(folder, init, out, *flags):
    command("train.py", "--data", folder, "--init", init, "--out", out, *TUNE, *flags)
    return log_of(out)


def test_a_run_shows_an_example_and_what_it_forgot(folders, trained, tmp_path, capsys):
    log = tune(folders["sft"], trained, tmp_path / "run", "--steps", 6)
    said = capsys.readouterr().out
    assert "example" in said and "⟦" in said and "<|endoftext|>⟧" in said and "forgot   the loss on general.txt" in said
    assert log[0]["general_loss"] > 0 and log[-1]["general_loss"] > 0
    validations = [r for r in log if "seen_loss" in r]
    assert [r["step"] for r in validations] == [0, 3, 6] and all(r["val_bpb"] > 0 for r in validations)
    assert "licen" in said.lower() or "MIT" in said
    assert json.load(open(tmp_path / "run" / "latest" / "lineage.json"))["data"][0]["licences"] == ["MIT"]
    command("eval.py", tmp_path / "run", "--data", folders["sft"], "--out", tmp_path / "report", "--dtype", "float32")
    report = json.load(open(tmp_path / "report" / "report.json"))["models"][0]
    assert math.isclose(report["loss"], validations[-1]["val_loss"], rel_tol=1e-5)
    assert math.isclose(report["bits_per_byte"], validations[-1]["val_bpb"], rel_tol=1e-5)


@pytest.mark.parametrize("kind, more", [("sft", ["--lora_rank", "2"]), ("pairs", []),
                                        ("pairs", ["--lora_rank", "2"])])
def test_resuming_is_exact(kind, more, folders, trained, tmp_path):
    """Six steps = three, stop, three more: adapter, optimizer, reference, log; and nothing is unfrozen (guard 9)."""
    whole = tune(folders[kind], trained, tmp_path / "whole", "--steps", 6, *more)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut", symlinks=True)
    shutil.rmtree(tmp_path / "cut" / "step-00000006")
    command("train.py", "--out", tmp_path / "cut", "--resume")
    assert log_of(tmp_path / "cut") == whole
    name = "adapter_model.safetensors" if more else "model.safetensors"
    for file in (name, "train_state.safetensors"):
        a, b = (load_file(tmp_path / r / "latest" / file) for r in ("whole", "cut"))
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    if kind == "pairs":
        first = next(r for r in whole if "train_loss" in r)
        assert abs(first["train_loss"] - math.log(2)) < 1e-5


def test_stopping_early(folders, trained, tmp_path, capsys):
    log = tune(folders["sft"], trained, tmp_path / "run", "--steps", 90, "--lr", 0.05, "--patience", 2,
               "--eval_every", 2)
    said = capsys.readouterr().out
    losses = [r["val_loss"] for r in log if "val_loss" in r]
    assert "stopped early" in said and log[-1]["step"] < 90 and min(losses[-2:]) >= min(losses[:-2])
    best = json.load(open(tmp_path / "run" / "best.json"))
    assert best["val_loss"] == min(losses) and os.path.isdir(checkpoint.step_directory(tmp_path / "run", best["step"]))
    command("train.py", "--out", tmp_path / "run", "--resume")  # nothing is left to do
    assert checkpoint.steps(tmp_path / "run")[-1] == log[-1]["step"]


def test_the_dropout_of_an_adapter(folders, trained, tmp_path):
    tune(folders["sft"], trained, tmp_path / "sft", "--steps", 2, "--lora_rank", 2, "--lora_dropout", 0.25)
    for out, more, expected in (("kept", [], 0.25), ("given", ["--lora_dropout", 0.5], 0.5)):
        tune(folders["sft"], tmp_path / "sft", tmp_path / out, "--steps", 1, *more)
        assert lora.read_adapter(checkpoint.resolve(str(tmp_path / out)))[0]["lora_dropout"] == expected


def test_an_adapter_goes_on(folders, trained, tmp_path, capsys):
    """SFT with LoRA, then DPO from that adapter: the same adapter trains on, against itself as it was (guard 14)."""
    tune(folders["sft"], trained, tmp_path / "sft", "--steps", 3, "--lora_rank", 2)
    log = tune(folders["pairs"], tmp_path / "sft", tmp_path / "dpo", "--steps", 3)
    assert abs(next(r for r in log if "train_loss" in r)["train_loss"] - math.log(2)) < 1e-5
    sft, dpo = (lora.read_adapter(checkpoint.resolve(str(tmp_path / r)))[0] for r in ("sft", "dpo"))
    assert dpo["r"] == 2 and dpo["base_model_name_or_path"] == sft["base_model_name_or_path"]
    fails("train.py", "--data", folders["pairs"], "--init", tmp_path / "sft", "--out", tmp_path / "no",
          "--lora_rank", 4, says=["adapter of rank 2", "leave out --lora_rank"], leaves=tmp_path / "no")


def test_resuming_with_other_data_or_another_teacher_is_refused(folders, trained, corpus, tmp_path):
    tune(folders["sft"], trained, tmp_path / "run", "--steps", 2, "--replay", 0.25, "--forget_data", corpus,
         "--teacher", trained)
    other = shutil.copytree(corpus, tmp_path / "other")
    manifest = json.load(open(other / "manifest.json"))
    manifest["splits"]["val"]["shards"] = []
    (other / "manifest.json").write_text(json.dumps(manifest))
    small().save_pretrained(tmp_path / "teacher", Tokenizer.load(corpus))
    for flag, path, says in (("--forget_data", other, "validation split"), ("--data", folders["pairs"], "kind"),
                             ("--teacher", tmp_path / "teacher", "--teacher")):
        fails("train.py", "--out", tmp_path / "run", "--resume", flag, path, says=says)


def test_replay_is_its_share_of_the_loss(folders, corpus, trained, tmp_path, tokenizer):
    log = tune(folders["sft"], trained, tmp_path / "run", "--steps", 2, "--replay", 0.25, "--forget_data", corpus)
    assert log[0]["general_loss"] > 0 and len([r for r in log if "train_loss" in r]) == 2
    fails("train.py", "--data", folders["sft"], "--init", trained, "--out", tmp_path / "no", "--replay", 0.2,
          says="--forget_data", leaves=tmp_path / "no")


def test_distilling_on_the_command_line(folders, trained, corpus, tmp_path):
    log = tune(folders["sft"], trained, tmp_path / "run", "--steps", 2, "--teacher", trained)
    assert abs(log[1]["teacher_kl"]) < 1e-4  # it is its own teacher
    command("train.py", "--data", corpus, "--init", trained, "--out", tmp_path / "lm", "--steps", 2,
            "--teacher", trained, "--batch_tokens", 256, *TUNE)


def test_what_is_not_finite_is_named(folders, trained, tmp_path, capsys):
    """Guard 15: weights that overflow are found by name, not by luck."""
    broken = shutil.copytree(checkpoint.resolve(str(trained)), tmp_path / "broken")
    model = GPT.from_pretrained(broken)
    model.h[1].mlp.c_fc.weight.data[0, 0] = math.inf
    model.save_pretrained(broken)
    fails("train.py", "--data", folders["sft"], "--init", broken, "--out", tmp_path / "run", "--steps", 9, *TUNE,
          says=["h.1.mlp.c_fc", "5 steps in a row"])


@pytest.mark.parametrize("flags, says", [
    (["--init", "scratch"], "name one with --init"), (["--epochs", "0"], "above zero"),
    (["--teacher", "{other}"], "another tokenizer"), (["--teacher", "http://x/v1"], "prepare.py distill"),
    (["--dpo_beta", "0.2"], "of kind pairs"), (["--label_smoothing", "0.6"], "[0, 0.5)"),
    (["--teacher_share", "2", "--teacher", "{trained}"], "(0, 1]"),
    (["--seq_len", "65"], "64 positions"), (["--forget_data", "{sft}"], "not a corpus")])
def test_flags_that_do_not_fit(flags, says, folders, trained, tmp_path):
    other = tmp_path / "other"
    model = small(300)
    model.save_pretrained(other, Tokenizer.train(["abc " * 50], 300))
    flags = [f.format(other=other, trained=trained, sft=folders["sft"]) for f in flags]
    flags = flags if "--init" in flags else ["--init", trained, *flags]
    fails("train.py", "--data", folders["sft"], "--out", tmp_path / "no", *flags, says=says, leaves=tmp_path / "no")


@pytest.mark.parametrize("name, content, says", [
    ("a.jsonl", '{"text": "fine"}\n{"prompt": 1}\n', ["a.jsonl:2", "'prompt'"]), ("a.jsonl", "", "no examples"),
    ("a.json", "[1", "not valid JSON"), ("a.jsonl", '{"text": "only one"}\n' * 3, None)])
def test_examples_that_cannot_be(name, content, says, tmp_path, capsys):
    path, out = tmp_path / name, tmp_path / "out"
    path.write_text(content)
    if says:
        fails("prepare.py", "sft", path, "--out", out, says=says, leaves=out)
    else:  # copies of one: it trains, and there is none to hold out
        command("prepare.py", "sft", path, "--out", out)
        assert "2 exact duplicates" in capsys.readouterr().out
        assert [*json.load(open(out / "manifest.json"))["splits"]] == ["train"]


def test_personal_data_in_examples(tmp_path, capsys):
    path = write_lines(tmp_path / "a.jsonl",
                       dict(prompt="Write to jane@example.com. ", completion="Call (212) 555-0175."),
                       dict(messages=[dict(role="user", content="My mail is joe@example.org"),
                                      dict(role="assistant", content="Thanks.")]))
    command("prepare.py", "sft", path, "--out", tmp_path / "counted", "--pii", "count")
    assert "2 email" in capsys.readouterr().out and "jane" in (tmp_path / "counted" / "train.jsonl").read_text()
    command("prepare.py", "sft", path, "--out", tmp_path / "masked", "--val_fraction", 0)
    text = (tmp_path / "masked" / "train.jsonl").read_text()
    assert "[EMAIL]" in text and "[PHONE]" in text and "@" not in text


def write_lines(path, *records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def test_pairs_from_a_task(tmp_path, capsys):
    rows = [dict(id=str(i), prompt=f"Sentence: {w} {i}\nSentiment:", completion=[" negative", " positive"][i % 2])
            for i, w in enumerate(WORDS * 3)]
    task = dict(name="phrasebank", labels=[" negative", " positive"], metric="labels")
    examples.write(str(tmp_path / "task"), dict(train=rows[:20], val=rows[20:]),
                   about=dict(task=task, licence="CC BY-NC-SA 3.0", split_policy="by hand"))
    command("prepare.py", "pairs", tmp_path / "task", "--out", tmp_path / "pairs")
    made = [json.loads(line) for line in open(tmp_path / "pairs" / "train.jsonl")]
    assert [r["chosen"] for r in made] == [r["completion"] for r in rows[:20]]
    assert all({r["chosen"], r["rejected"]} == {*task["labels"]} for r in made)
    manifest = json.load(open(tmp_path / "pairs" / "manifest.json"))
    assert manifest["kind"] == "pairs" and manifest["licence"] == "CC BY-NC-SA 3.0"


def test_sampling_follows_the_chat_template(trained, tmp_path, capsys):
    path = write_lines(tmp_path / "p.jsonl", dict(messages=[dict(role="user", content="What rose?")]),
                       dict(prompt="What rose?"))
    command("sample.py", trained, "--prompts", path, "--max_new_tokens", 4, "--temperature", 0, "--out",
            tmp_path / "out.jsonl")
    command("sample.py", trained, "--chat", "--prompt", "What rose?", "--max_new_tokens", 4, "--temperature", 0,
            "--out", tmp_path / "chat.jsonl")
    asked, plain = (json.loads(line) for line in open(tmp_path / "out.jsonl"))
    chat = json.loads((tmp_path / "chat.jsonl").read_text())
    assert asked["prompt"] == chat["prompt"] == [dict(role="user", content="What rose?")]
    assert asked["text"] == chat["text"] and plain["prompt"] == "What rose?"


@pytest.mark.slow
def test_two_ranks_on_the_command_line(folders, trained, tmp_path):
    for kind in ("sft", "pairs"):
        base = ["--data", folders[kind], "--init", trained, "--steps", "4", *TUNE, "--lora_rank", "2"]
        command("train.py", *base, "--out", tmp_path / kind)
        run("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "train.py", *base,
            "--out", tmp_path / f"{kind}2")
        for a, b in zip(log_of(tmp_path / kind), log_of(tmp_path / f"{kind}2"), strict=True):
            for key in ("train_loss", "val_loss", "seen_loss", "general_loss"):
                assert key not in a or math.isclose(a[key], b[key], rel_tol=1e-5), (kind, key, a, b)


# ---- the README ----------------------------------------------------------------------------------------------------


def walk_through(title):
    """The commands of a section of the README, in order."""
    text = (ROOT / "README.md").read_text()
    section = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = [line.split("    #")[0].strip() for block in section.split("```bash\n")[1:]
             for line in block.split("```")[0].splitlines()]
    return [shlex.split(line) for line in lines if line and not line.startswith("#")]


@pytest.mark.slow
def test_the_walk_through(corpus, trained, tmp_path, monkeypatch, capsys):
    """Every command, on the tiny model, for a few steps."""
    monkeypatch.chdir(tmp_path)
    os.symlink(ROOT / "recipes", "recipes")
    os.makedirs("data")
    os.symlink(corpus, "data/sec")
    rng = np.random.default_rng(0)
    moves = {"positive": "rose", "negative": "fell", "neutral": "stayed"}
    rows = [f"The {rng.choice(WORDS)} of unit {i} {moves[k]} this year .@{k}" for i, k in enumerate([*moves] * 40)]
    with zipfile.ZipFile("FinancialPhraseBank-v1.0.zip", "w") as z:
        z.writestr("FinancialPhraseBank-v1.0/Sentences_50Agree.txt", "\r\n".join(rows).encode("latin-1"))
    (tmp_path / "prompts.txt").write_text("".join(f"What is {w}?\n" for w in WORDS))
    tiny = {"gpt2": str(trained), "http://localhost:8000/v1": str(trained)}
    commands = walk_through("Examples, preferences, a teacher")
    assert len(commands) == 15 and all(c[0] == "python" for c in commands)
    for _, script, *words in commands:
        words = [tiny.get(w, w) for w in words]
        if script == "train.py":
            words += ["--steps", "2", "--seq_len", "64", "--batch_tokens", "512"]
            words += ["--init", str(trained)] if "--init" not in words else []
        if "distill" in words:
            words = [w for w in words if w not in ("--model", "NAME")]
            words += ["--max_new_tokens", "4", "--keep_truncated"]
        if script == "sample.py":
            words += ["--max_new_tokens", "5"]
        command(script, *words)
    said = capsys.readouterr().out
    template = Tokenizer.load("runs/dpo").chat_template
    assert template == Tokenizer.load("runs/answers").chat_template == examples.TEMPLATE
    lineage = json.load(open("runs/fpb-lora/latest/lineage.json"))
    assert lineage["verdict"]["commercial"] is False and "non-commercial" in said
    report = json.load(open("runs/fpb-lora/report/report.json"))
    assert report["baselines"]["tfidf"]["accuracy"] > 0.9 and len(report["models"]) == 3
    assert 0 <= json.load(open("runs/dpo/report/report.json"))["models"][0]["accuracy"] <= 1
