"""lora.py: exactness, PEFT and bitsandbytes both ways, training through the command, and the memory plan."""
import json
import math
import os
import shutil
import subprocess
import sys

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from conftest import ROOT, run
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import checkpoint
import lora
import plan
from lora import add_lora, load_adapter, merge_lora, save_adapter, unmerge_lora
from model import GPT, GPTConfig

QUANTIZE = pytest.mark.parametrize("quantize", [None, "nf4"], ids=["lora", "qlora"])
LORA = ["--lora_rank", "4", "--batch_tokens", "512", "--micro_batch", "4", "--log_every", "1", "--eval_every", "5",
        "--save_every", "5", "--eval_tokens", "2048", "--lr", "0.01"]


def tiny(seed=0, **kwargs):
    torch.manual_seed(seed)
    return GPT(GPTConfig(**(dict(vocab_size=101, block_size=48, n_layer=2, n_head=2, n_embd=64) | kwargs))).eval()


def trained_adapter(model, seed=1, **kwargs):
    """LoRA whose B is no longer zero."""
    torch.manual_seed(seed)
    add_lora(model, **(dict(rank=4) | kwargs))
    for layer in lora.adapters(model).values():
        nn.init.normal_(layer.lora_B, std=0.1)
    return model


def tokens(model, batch=3, seed=2):
    return torch.randint(model.config.vocab_size, (batch, model.config.block_size),
                         generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(model, idx):
    result = model(idx)
    return result[0] if isinstance(result, tuple) else result.logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_fresh_adapter_changes_no_bit(dtype):
    for quantize in (None, "nf4"):
        model = tiny()
        if quantize:
            lora.quantize_linears(model)
        idx = tokens(model)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
            before = logits(model, idx)
            assert torch.equal(logits(add_lora(model, rank=5, quantize=quantize), idx), before)


@QUANTIZE
def test_only_lora_has_gradients(quantize):
    model = add_lora(tiny(), rank=4, quantize=quantize).train()
    model(tokens(model), tokens(model))[1].backward()
    names = {n for n, p in model.named_parameters() if p.grad is not None}
    assert names == {n for n, _ in model.named_parameters() if "lora_" in n} and len(names) == 2 * 4 * 2
    assert all(p.dtype == torch.float32 for n, p in model.named_parameters() if n in names)
    assert any(p.grad.abs().max() > 0 for n, p in model.named_parameters() if "lora_B" in n)


@QUANTIZE
@pytest.mark.parametrize("rslora", [False, True])
def test_gradients_are_those_of_the_written_out_formula(quantize, rslora):
    model = trained_adapter(tiny(), quantize=quantize, rslora=rslora, alpha=8)
    layer = model.h[0].mlp.c_fc
    assert layer.scale == (4.0 if rslora else 2.0)
    weight = lora.dequantize_nf4(layer.base.q) if quantize else layer.base.weight
    x = torch.randn(2, 7, 64, requires_grad=True)
    expected = F.linear(x, weight, layer.base.bias) + layer.scale * F.linear(F.linear(x, layer.lora_A), layer.lora_B)
    got = layer(x)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    dy = torch.randn_like(got)
    inputs = (x, layer.lora_A, layer.lora_B)
    for g, e in zip(torch.autograd.grad(got, inputs, dy), torch.autograd.grad(expected, inputs, dy), strict=True):
        torch.testing.assert_close(g, e, rtol=1e-4, atol=1e-4)


def test_dropout_is_on_the_adapters_input_alone():
    model = trained_adapter(tiny(), dropout=0.5).train()
    layer, x = model.h[0].attn.c_attn, torch.randn(4, 64)
    torch.manual_seed(3)
    got = layer(x)
    torch.manual_seed(3)
    assert torch.allclose(got, layer.base(x) + layer.scale * F.dropout(x, 0.5) @ layer.lora_A.T @ layer.lora_B.T,
                          atol=1e-5)
    layer.eval()
    assert torch.equal(layer(x), layer(x))


@QUANTIZE
def test_merged_is_unmerged(quantize):
    model = trained_adapter(tiny(), quantize=quantize)
    idx = tokens(model)
    before = logits(model, idx)
    merge_lora(model)
    assert not lora.adapters(model) and not lora.is_quantized(model)
    assert model.state_dict().keys() == tiny().state_dict().keys()
    assert (logits(model, idx) - before).abs().max() <= 1e-5
    assert torch.equal(logits(unmerge_lora(model), idx), before)


def test_merging_a_quantized_model_onto_the_original():
    original = tiny()
    model = trained_adapter(tiny(), quantize="nf4", targets="c_attn")
    merge_lora(model, original)
    assert torch.equal(model.h[0].mlp.c_fc.weight, original.h[0].mlp.c_fc.weight)
    layer = model.h[1].attn.c_attn
    assert torch.allclose(layer.weight, original.h[1].attn.c_attn.weight + layer.unmerged.delta())


def test_merging_keeps_the_dtype_of_the_model():
    for quantize in (None, "nf4"):
        model = trained_adapter(tiny().bfloat16(), quantize=quantize)
        before = logits(model, tokens(model))
        assert (logits(merge_lora(model), tokens(model)) - before).abs().max() < 0.1
        assert model(tokens(model), tokens(model))[1].requires_grad


def test_an_adapter_is_in_the_mode_of_its_model(tmp_path):
    model = trained_adapter(tiny(), dropout=0.5)
    save_adapter(model, tmp_path)
    again = load_adapter(tiny(), tmp_path)
    assert torch.equal(logits(again, tokens(model)), logits(model, tokens(model)))
    again.train()
    assert not torch.equal(logits(again, tokens(model)), logits(model, tokens(model)))


def test_one_adapter_after_another(tmp_path):
    save_adapter(trained_adapter(tiny(), quantize="nf4"), tmp_path / "four bits")
    save_adapter(trained_adapter(tiny(), targets="c_attn"), tmp_path / "plain")
    model = load_adapter(load_adapter(tiny(), tmp_path / "plain"), tmp_path / "four bits")
    assert torch.equal(logits(model, tokens(model)), logits(trained_adapter(tiny(), quantize="nf4"), tokens(model)))
    before = {n: p.clone() for n, p in model.named_parameters()}
    save_adapter(trained_adapter(tiny(n_layer=3)), tmp_path / "too deep")
    with pytest.raises(ValueError, match="another model"):
        load_adapter(model, tmp_path / "too deep")
    assert before.keys() == dict(model.named_parameters()).keys()
    with pytest.raises(ValueError, match="merge_lora"):
        model.save_pretrained(tmp_path / "no")


def test_targets():
    assert list(lora.adapters(add_lora(tiny(), targets="mlp.c_proj"))) == ["h.0.mlp.c_proj", "h.1.mlp.c_proj"]
    assert len(lora.adapters(add_lora(tiny(), targets=["c_attn", "h.1.mlp.c_fc"]))) == 3
    for bad in ("c_att", "lm_head", "wte", "", "c_attn,nothing"):
        with pytest.raises(ValueError, match="no linear of this model is called"):
            add_lora(tiny(), targets=bad)
    for bad in (dict(rank=0), dict(dropout=1.0), dict(quantize="int8")):
        with pytest.raises(ValueError):
            add_lora(tiny(), **bad)
    with pytest.raises(ValueError, match="already"):
        add_lora(add_lora(tiny()))


def test_any_tree_of_modules_and_never_its_tied_head():
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(10, 8)
            self.body = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8, bias=False))
            self.to_words = nn.Linear(8, 10, bias=False)
            self.to_words.weight = self.table.weight

        def forward(self, x):
            return self.to_words(self.body(self.table(x)))

    model = add_lora(Other(), rank=2)
    assert list(lora.adapters(model)) == ["body.0", "body.2"]
    model(torch.arange(10)).sum().backward()
    assert list(lora.adapters(add_lora(Other(), rank=2, targets="to_words"))) == ["to_words"]


def test_the_share_of_gpt2_that_trains():
    with torch.device("meta"):
        model = add_lora(GPT(GPTConfig()), rank=16)
    assert lora.count(model) == (2_359_296, 124_439_808 + 2_359_296)


def test_states_of_dtypes_and_devices_survive():
    model = trained_adapter(tiny(), quantize="nf4")
    q = model.h[0].attn.c_attn.base.q
    model.bfloat16()
    assert model.h[0].attn.c_attn.base.q.nested_absmax.dtype == torch.float32
    assert torch.equal(model.h[0].attn.c_attn.base.q.packed, q.packed)
    assert model.h[0].attn.c_attn.base.bias.dtype == torch.bfloat16


@QUANTIZE
def test_under_compile_there_is_no_graph_break(quantize):
    model = trained_adapter(tiny(), quantize=quantize).train()
    idx = tokens(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(idx, idx)[1], model(idx, idx)[1])
    compiled(idx, idx)[1].backward()
    assert model.h[0].attn.c_attn.lora_B.grad is not None


# ----------------------------------------------------------------------------------------------------------------------
# PEFT and bitsandbytes


@pytest.mark.parametrize("options", [dict(), dict(rslora=True, alpha=3.5), dict(targets="mlp.c_proj"),
                                     dict(targets=["c_attn"], rank=1)], ids=str)
def test_adapters_load_in_peft(options, tmp_path):
    peft = pytest.importorskip("peft")
    base = tiny()
    base.save_pretrained(tmp_path / "base")
    model = trained_adapter(base, **options)
    save_adapter(model, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"),
                                            tmp_path / "adapter").eval()
    idx = tokens(model)
    assert (logits(theirs, idx) - logits(model, idx)).abs().max() <= 1e-4
    assert sum(p.numel() for n, p in theirs.named_parameters() if "lora_" in n) == lora.count(model)[0]
    back = load_adapter(GPT.from_pretrained(tmp_path / "base").eval(), tmp_path / "adapter")
    assert torch.equal(logits(back, idx), logits(model, idx)) and lora.count(back) == lora.count(model)


@pytest.mark.parametrize("options", [dict(), dict(use_rslora=True), dict(target_modules=["c_attn"]),
                                     dict(target_modules=r".*\.mlp\.c_fc", rank_pattern={"h.0.mlp.c_fc": 2})], ids=str)
def test_adapters_of_peft_load(options, tmp_path):
    peft = pytest.importorskip("peft")
    tiny().save_pretrained(tmp_path / "base")
    theirs = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), peft.LoraConfig(
        **(dict(r=4, lora_alpha=7, target_modules="all-linear", task_type="CAUSAL_LM", fan_in_fan_out=True) | options)))
    if options.get("rank_pattern"):  # their alpha / rank then differs from layer to layer, and so does ours
        assert {m.r["default"] for m in theirs.modules() if hasattr(m, "lora_A")} == {2, 4}
    for name, p in theirs.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(p, std=0.1)
    theirs.save_pretrained(tmp_path / "adapter")
    model = load_adapter(GPT.from_pretrained(tmp_path / "base").eval(), tmp_path / "adapter")
    idx = tokens(model)
    assert (logits(theirs.eval(), idx) - logits(model, idx)).abs().max() <= 1e-4
    save_adapter(model, tmp_path / "again")
    back = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "again")
    assert (logits(back.eval(), idx) - logits(model, idx)).abs().max() <= 1e-4
    assert GPT.from_pretrained(tmp_path / "again").state_dict().keys() == tiny().state_dict().keys()  # its base


def test_what_is_not_plain_lora_is_refused(tmp_path):
    save_adapter(trained_adapter(tiny()), tmp_path / "good")
    good = json.load(open(tmp_path / "good/adapter_config.json"))
    for key, value in (("use_dora", True), ("peft_type", "LOHA"), ("bias", "all"), ("modules_to_save", ["wte"]),
                       ("alpha_pattern", {"c_attn": 3}), ("r", None), ("lora_alpha", float("nan")),
                       ("init_lora_weights", "pissa"), ("layer_replication", [[0, 1]]), ("lora_dropout", "0.1"),
                       ("base_model_name_or_path", 3), ("alora_invocation_tokens", [9]), ("use_rslora", "false")):
        bad = shutil.copytree(tmp_path / "good", tmp_path / key)
        (bad / "adapter_config.json").write_text(json.dumps(good | {key: value}))
        with pytest.raises(ValueError, match=key):
            load_adapter(tiny(), bad)
    with pytest.raises(ValueError, match="another model"):
        load_adapter(tiny(n_embd=32), tmp_path / "good")
    with pytest.raises(ValueError, match="another model"):
        load_adapter(tiny(n_layer=1), tmp_path / "good")
    path = tmp_path / "good/adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="damaged"):
        load_adapter(tiny(), tmp_path / "good")


def in_float32(model):
    """With AVX-512 bf16, bitsandbytes repacks weights and multiplies in bf16, whatever compute_dtype says."""
    for module in model.modules():
        module.support_avx512bf16_for_cpu = False


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_four_bit_checkpoints_travel(bias, tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("bitsandbytes")
    tiny(bias=bias).save_pretrained(tmp_path / "base")
    config = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",
                                             bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "base", quantization_config=config).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = checkpoint.load_quantized(str(tmp_path / "theirs")).eval()
    idx = tokens(ours)
    in_float32(theirs)
    assert (logits(theirs, idx) - logits(ours, idx)).abs().max() <= 1e-4
    assert torch.equal(logits(ours, idx), logits(lora.quantize_linears(tiny(bias=bias)), idx))

    ours.save_pretrained(tmp_path / "ours")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    assert type(again.transformer.h[0].attn.c_attn).__name__ == "Linear4bit"
    in_float32(again)
    assert (logits(again, idx) - logits(ours, idx)).abs().max() <= 1e-4
    mine, other = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    assert mine.keys() == other.keys()
    for name in mine:
        if not name.endswith("bitsandbytes__nf4"):  # a JSON text
            assert torch.equal(mine[name], other[name]), name
    with pytest.raises(ValueError, match="4 bits"):
        GPT.from_pretrained(tmp_path / "ours")


# ----------------------------------------------------------------------------------------------------------------------
# The commands


def lines(path):
    with open(path / "log.jsonl") as f:
        return [{k: v for k, v in json.loads(line).items() if k != "tokens_per_second"} for line in f]


@pytest.fixture(scope="module", params=["qlora", pytest.param("lora", marks=pytest.mark.slow)])
def adapted(request, tmp_path_factory, corpus, trained):
    """A run of ten steps of LoRA and one of QLoRA on the tiny model, with what it printed."""
    out = tmp_path_factory.mktemp("adapted") / request.param
    flags = ["--data", corpus, "--init", trained, "--steps", "10", *LORA]
    flags += ["--quantize", "nf4"] if request.param == "qlora" else ["--lora_dropout", "0.1"]
    return out, flags, run("train.py", *flags, "--out", out).stdout


def test_a_run_says_what_it_trains_and_keeps_only_that(adapted, corpus, trained):
    out, _, said = adapted
    assert "LoRA     rank 4 on 8 linears: " in said and "MB of frozen" in said
    assert ("in NF4" in said) == (out.name == "qlora")
    assert not (out / "model.safetensors").exists() and (out / "adapter_model.safetensors").stat().st_size < 100_000
    assert "adapter of rank 4" in run("checkpoint.py", "info", out).stdout
    text = run("sample.py", out, "--prompt", "Our business", "--max_new_tokens", "5", "--temperature", "0").stdout
    assert text.startswith("Our business")
    run("eval.py", out, "--baseline", trained, "--data", corpus, "--max_bytes", "20000", "--only", "loss",
        "--out", out / "report")
    assert len(json.load(open(out / "report" / "report.json"))["models"]) >= 2


def test_stopping_and_resuming_changes_nothing(adapted, tmp_path):
    out, flags, _ = adapted
    stopped = tmp_path / "stopped"
    process = subprocess.Popen([sys.executable, "train.py", *map(str, flags), "--out", str(stopped)], cwd=ROOT,
                               stdout=subprocess.PIPE, text=True)
    for line in process.stdout:  # between two checkpoints
        if line.startswith("step      3/10"):
            process.terminate()
            break
    process.communicate()
    assert process.returncode == 143 and not (stopped / "step-00000010").exists()
    run("train.py", "--out", stopped, "--resume")
    assert lines(stopped) == lines(out)
    for name in ("adapter_model.safetensors", "train_state.safetensors"):
        a, b = load_file(out / "latest" / name), load_file(stopped / "latest" / name)
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), name
    states = [json.load(open(r / "latest/train_state.json")) for r in (out, stopped)]
    assert states[0]["trainable"] == states[1]["trainable"] == lora.count(
        checkpoint.load(str(stopped), merge=False)[0])[0]


def test_merging_on_the_command_line(adapted, trained, tmp_path):
    out, _, _ = adapted
    said = run("checkpoint.py", "merge", out, "--out", tmp_path / "merged").stdout
    assert ("dequantized base" in said) == (out.name == "qlora") and "no logit moved by more than" in said
    merged, _ = checkpoint.load(str(tmp_path / "merged"))
    active, _ = checkpoint.load(str(out), merge=False)
    idx = torch.randint(512, (2, 64))
    assert (logits(merged.eval(), idx) - logits(active.eval(), idx)).abs().max() <= 1e-5
    hf = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert (logits(hf, idx) - logits(merged, idx)).abs().max() <= 1e-4
    if out.name == "qlora":
        said = run("checkpoint.py", "merge", out, "--out", tmp_path / "original", "--original", trained).stdout
        assert "onto the original base" in said


@pytest.mark.slow
@pytest.mark.parametrize("quantize", [[], ["--quantize", "nf4"]], ids=["lora", "qlora"])
def test_two_processes_are_one(trained, corpus, tmp_path, quantize):
    """In float32: bfloat16 rounds the gradients of each micro-batch, and AdamW makes much of it while they are tiny."""
    flags = ["--data", corpus, "--init", trained, "--steps", "10", *LORA, "--dtype", "float32", *quantize]
    run("train.py", *flags, "--out", tmp_path / "one")
    run("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "train.py", *flags,
        "--micro_batch", "2", "--out", tmp_path / "two")
    one, two = ([r["train_loss"] for r in lines(tmp_path / name) if "train_loss" in r] for name in ("one", "two"))
    assert len(one) == len(two) == 10
    assert all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(one, two, strict=True))


def test_a_step_that_adapters_need_is_not_deleted(trained, corpus, tmp_path):
    base = shutil.copytree(trained, tmp_path / "base", symlinks=True)
    step = checkpoint.resolve(str(base))
    checkpoint.mark_as_base(step, "runs/x")
    model, tokenizer = checkpoint.load(step)
    for later in (20, 30):
        checkpoint.save(str(base), later, model, tokenizer, {}, {"best": {"step": 30}}, keep=1)
    assert checkpoint.steps(str(base)) == [10, 30] and os.path.isdir(step)


def test_a_base_that_has_changed_is_noticed(trained, corpus, tmp_path):
    base = shutil.copytree(trained.resolve() / "latest", tmp_path / "base")
    run("train.py", "--data", corpus, "--init", base, "--out", tmp_path / "run", "--steps", "1", *LORA)
    tiny_model = GPT.from_pretrained(base)
    tiny_model.wpe.weight.data[0, 0] += 1
    tiny_model.save_pretrained(base)
    with pytest.raises(ValueError, match="other weights"):
        checkpoint.load(str(tmp_path / "run"))
    with pytest.raises(ValueError, match="other weights"):
        load_adapter(GPT.from_pretrained(base), tmp_path / "run")
    shutil.rmtree(base)
    with pytest.raises(FileNotFoundError, match="base_model_name_or_path"):
        checkpoint.load(str(tmp_path / "run"))


@pytest.mark.slow
def test_quantize_on_the_command_line_and_training_beside_it(trained, corpus, tmp_path):
    run("checkpoint.py", "quantize", trained, "--out", tmp_path / "nf4")
    assert "NF4" in run("checkpoint.py", "info", tmp_path / "nf4").stdout
    run("train.py", "--data", corpus, "--init", tmp_path / "nf4", "--out", tmp_path / "run", "--steps", "1", *LORA)
    assert lora.is_quantized(checkpoint.load(str(tmp_path / "run"))[0])
    done = run("train.py", "--data", corpus, "--init", tmp_path / "nf4", "--out", tmp_path / "full", check=False)
    assert done.returncode == 2 and "--lora_rank" in done.stderr


@pytest.mark.slow
def test_qlora_learns_like_lora(corpus, tmp_path):
    """200 steps of either on text; the losses stay within 1 % of each other, and a weight takes 4.127 bits."""
    base = ["--data", corpus, "--seq_len", "64", "--batch_tokens", "1024", "--micro_batch", "16", "--eval_tokens",
            "20000", "--log_every", "1", "--eval_every", "1000", "--save_every", "1000"]
    run("train.py", *base, "--out", tmp_path / "base", "--n_layer", "2", "--n_head", "4", "--n_embd", "128",
        "--steps", "60", "--lr", "0.003")
    flags = [*base, "--init", tmp_path / "base", "--steps", "200", "--lora_rank", "8", "--lr", "0.002"]
    run("train.py", *flags, "--out", tmp_path / "lora")
    said = run("train.py", *flags, "--out", tmp_path / "qlora", "--quantize", "nf4").stdout
    assert "at 4.12" in said  # 4.127 for large weights; the last scale of each matrix may stand for fewer than 256
    a, b = ([r["train_loss"] for r in lines(tmp_path / name) if "train_loss" in r] for name in ("lora", "qlora"))
    assert len(a) == len(b) == 200 and max(abs(x - y) / x for x, y in zip(a, b, strict=True)) < 0.01
    assert a[-1] < a[0]
    final = [[r["val_loss"] for r in lines(tmp_path / name) if "val_loss" in r][-1] for name in ("lora", "qlora")]
    assert abs(final[0] - final[1]) / final[0] < 0.01


# ----------------------------------------------------------------------------------------------------------------------
# The plan

STEP = """
import resource, sys, torch
sys.path.insert(0, {root!r})
import lora
from model import GPT, GPTConfig
torch.manual_seed(0)
mode, shape, batch, T = {args}
warm = torch.nn.Linear(64, 64); warm(torch.randn(8, 64)).sum().backward()  # libraries' own memory comes first
torch.optim.AdamW(warm.parameters(), fused=True).step()
def status(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
before = status("VmRSS")
model = GPT(GPTConfig(**shape, bias=False))
if mode != "full":
    lora.add_lora(model, 16, quantize="nf4" if mode == "QLoRA" else None)
parameters = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(parameters, fused=True)
idx = torch.randint(shape["vocab_size"], (batch, T))
open("/proc/self/clear_refs", "w").write("5")  # start the peak anew: loading is not training
for _ in range(2):
    model(idx, idx)[1].backward()
    optimizer.step()
    optimizer.zero_grad()
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="peak memory is read from Linux's /proc")
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", "LoRA", "QLoRA"])
def test_the_plan_is_what_training_takes(mode):
    shape, batch, T = dict(vocab_size=8192, block_size=512, n_layer=6, n_head=8, n_embd=512), 4, 512
    done = subprocess.run([sys.executable, "-c", STEP.format(root=str(ROOT), args=(mode, shape, batch, T))],
                          capture_output=True, text=True, timeout=300, env=os.environ | {
                              "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"})
    assert not done.returncode, done.stderr  # with these, what is freed is given back, as a GPU's allocator counts it
    measured = int(done.stdout)
    m = plan.measure(GPTConfig(**shape, bias=False), mode, 16, "all-linear", T, torch.float32, gpu=False)
    planned = plan.at(m, batch, T, accumulated=False)["peak"]
    assert 0.9 < planned / measured < 1.1, (planned, measured)


@pytest.mark.slow
def test_the_plan_of_something_like_70b():
    said = run("train.py", "--plan", "--n_layer", "80", "--n_head", "64", "--n_embd", "8192", "--seq_len", "256",
               "--micro_batch", "1", "--lora_rank", "16").stdout
    assert "64,8" in said and "does not fit" in said
    weights = next(line.split() for line in said.splitlines() if line.startswith("weights"))
    assert float(weights[1]) == pytest.approx(241.6, rel=0.01) and float(weights[3]) < 34
    assert next(line.split() for line in said.splitlines() if line.strip().startswith("48 GB"))[-1] != "fit"


def test_every_mode_of_the_plan_runs():
    config = GPTConfig(vocab_size=101, block_size=32, n_layer=1, n_head=2, n_embd=16)
    for gpu in (True, False):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            for muon in (True, False):
                assert "QLoRA r4" in plan.table(config, 2, 32, 4, "c_attn", dtype, gpu, muon, accumulated=True)
