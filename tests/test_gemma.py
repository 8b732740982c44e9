"""gemma.py against transformers, and Gemma through all the commands that a GPT-2 goes through."""
import csv
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys

import gemma_tokenizer
import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from conftest import ROOT, SHARED, run
from safetensors.torch import load_file, save_file
from test_finetune import command, walk_through
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, Gemma3ForCausalLM, Gemma3TextConfig

import checkpoint
import data
import examples
import gemma
import lora
import sample
import train
from decoder import separate
from gemma import SIZES, Gemma, GemmaConfig
from tokenizer import Tokenizer

LINEAR8 = {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
           "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
SHAPES = {  # one key head and several, heads wider than the channels, windows shorter than the sequence and longer
    "1b-like": dict(num_attention_heads=4, num_key_value_heads=1, head_dim=32, hidden_size=48, sliding_window=16,
                    num_hidden_layers=7),
    "4b-like": dict(num_attention_heads=4, num_key_value_heads=2, head_dim=16, hidden_size=64, sliding_window=7,
                    num_hidden_layers=6, rope_parameters=LINEAR8),
    "27b-like": dict(num_attention_heads=6, num_key_value_heads=6, head_dim=8, hidden_size=36, sliding_window=5,
                     num_hidden_layers=3, query_pre_attn_scalar=168, layer_types=[
                         "full_attention", "sliding_attention", "full_attention"]),
    "wide-window": dict(num_attention_heads=2, num_key_value_heads=1, head_dim=64, hidden_size=32, sliding_window=1024,
                        num_hidden_layers=2),
}
TALK = [dict(role="system", content="Be brief."), dict(role="user", content="What is a 10-K? "),
        dict(role="assistant", content="An annual report."), dict(role="user", content="And a <end_of_turn> 10-Q?"),
        dict(role="assistant", content=" A quarterly one.\n")]


def random_hf(name, seed=0, vocab_size=211, **more):
    torch.manual_seed(seed)
    shape = dict(vocab_size=vocab_size, intermediate_size=96, max_position_embeddings=512) | SHAPES[name] | more
    hf = Gemma3ForCausalLM(Gemma3TextConfig(**shape)).eval()
    for p in hf.parameters():  # norms too, which start at 0
        p.data += 0.1 * torch.randn_like(p)
    return hf


def tiny(seed=0, **kwargs):
    torch.manual_seed(seed)
    shape = dict(vocab_size=101, block_size=64, n_layer=3, n_head=4, n_kv_head=2, n_embd=32, head_dim=16, n_inner=64,
                 window=8, layer_types=(gemma.LOCAL, gemma.GLOBAL, gemma.LOCAL), query_scale=16)
    model = Gemma(GemmaConfig(**shape | kwargs)).eval()
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return model


def tokens(vocab_size, *shape, seed=1):
    """Without token 0: transformers gives the embedding of <pad> no gradient where it is read."""
    return torch.randint(1, vocab_size, shape, generator=torch.Generator().manual_seed(seed))


# ---- the model -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_logits_states_and_gradients_are_those_of_transformers(name, tmp_path):
    hf = random_hf(name)
    hf.save_pretrained(tmp_path)
    ours, idx, states = Gemma.from_pretrained(tmp_path), tokens(211, 3, 40), []
    hooks = [block.register_forward_hook(lambda block, args, out: states.append(out)) for block in ours.h]
    theirs = hf(idx, labels=idx, output_hidden_states=True)
    assert (ours(idx)[0] - theirs.logits).abs().max() <= 1e-4
    for hook in hooks:
        hook.remove()
    for mine, other in zip(states[:-1], theirs.hidden_states[1:-1], strict=True):  # their last one is normalised
        assert (mine - other).abs().max() <= 1e-4
    assert (ours.hidden(idx) - theirs.hidden_states[-1]).abs().max() <= 1e-4
    _, loss = ours(idx, F.pad(idx[:, 1:], (0, 1), value=-100))
    loss.backward()
    theirs.loss.backward()
    assert loss.item() == pytest.approx(theirs.loss.item(), rel=1e-6)
    grads = dict(hf.named_parameters())
    for n, p in ours.named_parameters():
        expected = grads["model." + n].grad
        assert (p.grad - expected).abs().max() <= 1e-4 * max(1, expected.abs().max()), n


@pytest.mark.parametrize("name", SHAPES)
def test_greedy_generation_across_the_window_is_that_of_transformers(name, tmp_path):
    hf = random_hf(name, seed=1)
    hf.save_pretrained(tmp_path)
    ours = Gemma.from_pretrained(tmp_path)
    for length in (3, 21):  # a prompt within the window, and one beyond it
        idx = tokens(211, 2, length)
        cached = ours.generate(idx, 300, temperature=0)
        assert torch.equal(cached[:, : length + 60], ours.generate(idx, 60, temperature=0, use_cache=False))
        theirs = hf.generate(idx, attention_mask=torch.ones_like(idx), max_new_tokens=300, do_sample=False,
                             eos_token_id=None, pad_token_id=0)
        assert torch.equal(cached, theirs)
    kept = [k.shape[2] for k, _ in ours.make_caches(2, 256, False)]
    window = min(256, hf.config.sliding_window)
    assert kept == [window if kind == gemma.LOCAL else 256 for kind in ours.config.layer_types]


@pytest.mark.parametrize("use_cache", [True, False])
def test_left_padded_prompts_give_what_each_gives_alone(use_cache):
    model, lengths = tiny(seed=2), (1, 5, 12, 20)
    prompts = [tokens(101, n, seed=n) for n in lengths]
    idx = torch.stack([torch.cat([torch.full((20 - len(p),), 7), p]) for p in prompts])
    out = model.generate(idx, 30, temperature=0, lengths=torch.tensor(lengths), use_cache=use_cache)
    for row, p in zip(out, prompts, strict=True):
        assert torch.equal(row[20 - len(p) :], model.generate(p[None], 30, temperature=0)[0])


def test_generation_past_the_context_and_compiled():
    model, idx = tiny(seed=3, block_size=24), tokens(101, 3, 7)
    free = model.generate(idx, 40, temperature=0)
    assert torch.equal(free[:, :25], model.generate(idx, 18, temperature=0))
    for kwargs in dict(temperature=0), dict(lengths=torch.tensor([7, 3, 1]), top_k=20):
        plain, compiled = (model.generate(idx, 40, generator=torch.Generator().manual_seed(3), compile=how, **kwargs)
                           for how in (False, "aot_eager"))
        assert torch.equal(plain, compiled)


def test_sequences_of_a_row_do_not_see_each_other():
    model = tiny()
    parts = [tokens(101, n, seed=n) for n in (20, 3, 11)]  # longer than the window, and shorter
    idx, documents = torch.cat(parts)[None], torch.tensor([[0] * 20 + [1] * 3 + [2] * 11])
    with torch.no_grad():
        mask, positions = separate(documents)
        packed = model.head(model.hidden(idx, mask=mask, positions=positions))
        apart = torch.cat([model(p[None])[0] for p in parts], 1)
    assert (packed - apart).abs().max() <= 1e-5


def test_recomputing_and_compiling_change_nothing():
    torch._dynamo.reset()
    model = tiny().train()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for T in (20, 30, 5):  # longer than the window, and shorter
        idx = tokens(101, 2, T)
        grads = []
        for forward, again in (model, False), (model, True), (compiled, False):
            model.zero_grad()
            model.recompute = again
            _, loss = forward(idx, idx)
            loss.backward()
            grads.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])
        for other in grads[1:]:
            assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(grads[0], other, strict=True))


def test_norms_and_gates_have_the_gradients_of_their_formulas():
    torch.manual_seed(0)
    x, weight = torch.randn(5, 7, requires_grad=True), torch.randn(7, requires_grad=True)
    gate, up = (torch.randn(5, 9, requires_grad=True) for _ in "gu")
    for ours, plain, inputs in (
            (lambda: gemma.Normalize.apply(x, weight, 1e-6, torch.float32),
             lambda: x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * (1 + weight), (x, weight)),
            (lambda: gemma.GatedGELU.apply(gate, up)[0], lambda: F.gelu(gate, approximate="tanh") * up, (gate, up))):
        grad = torch.randn_like(plain())
        for a, b in zip(torch.autograd.grad(ours(), inputs, grad), torch.autograd.grad(plain(), inputs, grad),
                        strict=True):
            assert torch.allclose(a, b, atol=1e-6)
        assert torch.allclose(ours(), plain(), atol=1e-6)


def test_sizes_flops_and_the_share_that_trains():
    with torch.device("meta"):
        models = {name: Gemma(SIZES[name]) for name in ("gemma-3-270m", "gemma-3-1b")}
        assert {name: lora.count(m)[1] for name, m in models.items()} == {
            "gemma-3-270m": 268_098_176, "gemma-3-1b": 999_885_952}
        model = models["gemma-3-1b"]
        at_512 = 6 * 999_885_952 + 12 * 26 * 1024 * 512
        assert train.training_flops(model, 512) == at_512
        assert train.training_flops(model, 2048) == at_512 + 12 * 4 * 1024 * (2048 - 512)  # in four layers of 26
        shares = []
        for rank in (1, 16):
            adapted = lora.add_lora(Gemma(SIZES["gemma-3-1b"]), rank)
            shares.append(lora.count(adapted)[0] / 999_885_952)
    assert shares[0] < 0.001 and shares[1] == pytest.approx(0.013, abs=1e-3)


# ---- float16 ---------------------------------------------------------------------------------------------------------


def wild():
    """A Gemma as trained ones are, a few channels wide open: in float16 both stream and MLP run over 65,504."""
    model = tiny(seed=5, n_embd=64, n_inner=128)
    for block in model.h:
        block.post_feedforward_layernorm.weight.data[3] = 3e4
        block.mlp.gate_proj.weight.data.mul_(30)
        block.mlp.up_proj.weight.data.mul_(1000)
    return model


def test_float16_keeps_what_it_can_not_hold_in_float32():
    model, idx = wild(), tokens(101, 2, 30)
    expected, loss = model(idx)[0], model(idx, idx)[1]
    states = []
    hook = model.h[-1].register_forward_hook(lambda block, args, out: states.append(out))
    inside = model.h[0].mlp.down_proj.register_forward_pre_hook(lambda layer, args: states.append(args[0]))
    model(idx)
    assert states[0].abs().max() > 65504 < states[1].abs().max(), "nothing would overflow"
    with torch.autocast("cpu", torch.float16):
        _, ours = model(idx, idx)
    assert states[2].dtype == torch.float16 and states[3].dtype == torch.float32
    hook.remove(), inside.remove()
    assert ours.item() == pytest.approx(loss.item(), rel=0.02)
    ours.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    cast = model.half()
    logits = cast(idx)[0]  # as sample.py has it: weights in float16, no autocast
    assert logits.dtype == torch.float16 and (logits.float() - expected).norm() <= 0.05 * expected.norm()
    assert torch.equal(cast.generate(idx, 5, temperature=0)[:, :30], idx)


def test_plain_float16_overflows_there(tmp_path):
    wild().save_pretrained(tmp_path)
    idx = tokens(101, 2, 30)
    with torch.no_grad():
        wide, narrow = (AutoModelForCausalLM.from_pretrained(tmp_path, dtype=d)(idx).logits
                        for d in (torch.float32, torch.float16))
    assert wide.isfinite().all() and not narrow.isfinite().all()


def test_the_scale_of_a_row_is_a_power_of_two_and_leaves_small_ones_alone():
    gate, up = torch.full((3, 4), 10.0).half(), torch.tensor([[1.0], [1000.0], [60000.0]]).half().expand(3, 4)
    h, s = gemma.GatedGELU.apply(gate, up)
    assert s.flatten().tolist() == [1.0, 64.0, 4096.0] and h.isfinite().all() and h.max() <= 256
    assert torch.equal(h.float() * s, (F.gelu(gate.float(), approximate="tanh") * up.float() / s).half().float() * s)


# ---- on disk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", ["1GB", "20KB"], ids=["one-file", "sharded"])
def test_weights_travel_both_ways(size, dtype, tmp_path):
    hf = random_hf("1b-like").to(dtype)
    hf.save_pretrained(tmp_path / "theirs", max_shard_size=size)
    assert (tmp_path / "theirs/model.safetensors").exists() == (size == "1GB")
    ours = Gemma.from_pretrained(tmp_path / "theirs")
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    ours.save_pretrained(tmp_path / "ours", dtype=dtype)
    again, info = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype="auto", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    for (name, a), (_, b) in zip(hf.state_dict().items(), again.state_dict().items(), strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b), name
    assert "lm_head.weight" not in load_file(tmp_path / "ours/model.safetensors")
    for key in ("rope_parameters", "layer_types", "sliding_window", "query_pre_attn_scalar", "head_dim"):
        assert getattr(again.config, key) == getattr(hf.config, key), key
    assert Gemma.from_pretrained(tmp_path / "ours").config == ours.config


@pytest.mark.parametrize("name", ["4b-like", "27b-like"])
def test_configs_travel(name, tmp_path):
    hf = random_hf(name)
    hf.save_pretrained(tmp_path / "theirs")
    Gemma.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    idx = tokens(211, 1, 30)
    assert (again(idx).logits - hf(idx).logits).abs().max() <= 1e-4


def test_configs_as_the_hub_has_them(tmp_path):
    """Of 1B in the words of transformers 4.50, of 4B with most things left out."""
    old = dict(architectures=["Gemma3ForCausalLM"], attention_bias=False, attention_dropout=0.0,
               attn_logit_softcapping=None, bos_token_id=2, cache_implementation="hybrid", eos_token_id=[1, 106],
               final_logit_softcapping=None, head_dim=256, hidden_activation="gelu_pytorch_tanh", hidden_size=1152,
               initializer_range=0.02, intermediate_size=6912, max_position_embeddings=32768, model_type="gemma3_text",
               num_attention_heads=4, num_hidden_layers=26, num_key_value_heads=1, pad_token_id=0,
               query_pre_attn_scalar=256, rms_norm_eps=1e-6, rope_local_base_freq=10000, rope_scaling=None,
               rope_theta=1000000, sliding_window=512, sliding_window_pattern=6, torch_dtype="bfloat16",
               vocab_size=262144)
    sparse = dict(model_type="gemma3", eos_token_id=[1, 106], text_config=dict(
        hidden_size=2560, intermediate_size=10240, model_type="gemma3_text", num_hidden_layers=34,
        rope_scaling=dict(factor=8.0, rope_type="linear"), sliding_window=1024), vision_config=dict(hidden_size=1152))
    for content, name in (old, "gemma-3-1b"), (sparse, "gemma-3-4b"):
        (tmp_path / "config.json").write_text(json.dumps(content))
        assert checkpoint.read_config(str(tmp_path)) == SIZES[name]
        assert checkpoint.read_config(f"google/{name}-it") == SIZES[name] == checkpoint.read_config(f"{name}-pt")


def test_the_language_model_of_a_multimodal_directory(tmp_path):
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    torch.manual_seed(0)
    text = dict(vocab_size=211, intermediate_size=96, max_position_embeddings=128, **SHAPES["4b-like"])
    vision = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, image_size=28,
                  patch_size=14)
    hf = Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4,
                                                     image_token_index=210)).eval()
    hf.save_pretrained(tmp_path / "hf")
    assert any("vision" in name for name in load_file(tmp_path / "hf/model.safetensors"))
    ours, idx = Gemma.from_pretrained(tmp_path / "hf"), tokens(200, 2, 20)
    with torch.no_grad():
        expected = hf(idx).logits
        assert (ours(idx)[0] - expected).abs().max() <= 1e-4
        ours.save_pretrained(tmp_path / "text")
        assert (AutoModelForCausalLM.from_pretrained(tmp_path / "text")(idx).logits - expected).abs().max() <= 1e-4
        import peft

        adapted = trained_adapter(ours)
        lora.save_adapter(adapted, tmp_path / "adapter")
        theirs = peft.PeftModel.from_pretrained(hf, tmp_path / "adapter").eval()
        assert (theirs(idx).logits - adapted(idx)[0]).abs().max() <= 1e-4


@pytest.mark.parametrize("change, says", [
    (dict(model_type="gemma2"), "gemma2"), (dict(use_bidirectional_attention=True), "use_bidirectional_attention"),
    (dict(final_logit_softcapping=30.0), "final_logit_softcapping"), (dict(attention_bias=True), "attention_bias"),
    (dict(hidden_activation="silu"), "hidden_activation"), (dict(num_hidden_layers=None), "num_hidden_layers"),
    (dict(rope_parameters=dict(full_attention=dict(rope_type="yarn"))), "yarn"),
    (dict(num_key_value_heads=3), "multiple"),
    (dict(layer_types=["sliding_attention"]), "layer_types"), (dict(layer_types=["linear"] * 7), "layer_types"),
    (dict(layer_types=["sliding_attention"] * 8), "8 layer_types for 7 layers"),
    (dict(layer_types=[]), "0 layer_types"), (dict(layer_types=5), "config.json"), (dict(hidden_size=64), "do not fit"),
    (dict(head_dim="wide"), "head_dim"),
    (dict(num_hidden_layers=7.0), "n_layer must be a whole number"), (dict(sliding_window=None), "window must be"),
    (dict(sliding_window=True), "window must be"), (dict(rms_norm_eps=math.nan), "eps must be"),
    (dict(query_pre_attn_scalar=0), "query_scale must be"), (dict(model_type=[]), "model_type"),
    (dict(rope_parameters="x"), "config.json"), (dict(rope_parameters=None, rope_theta=None), "theta must be"),
    (dict(rope_parameters=None, rope_scaling=dict(rope_type="linear")), "factor"),
    (dict(rope_parameters=None, rope_scaling="linear"), "config.json")])
def test_what_is_no_gemma3_is_refused_with_a_reason(change, says, tmp_path):
    random_hf("1b-like").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=says):
        checkpoint.kind_of(str(tmp_path)).from_pretrained(tmp_path)


def test_a_tokenizer_by_its_hub_id(directory, filings, tmp_path, monkeypatch):
    import corpus
    import decoder

    with pytest.raises(ValueError, match="no/such/thing is neither gpt2"):
        corpus.find_tokenizer("no/such/thing")
    asked = []
    monkeypatch.setattr(decoder, "download", lambda *args: asked.append(args) or str(directory))
    command("prepare.py", "corpus", filings, "--out", tmp_path / "lm", "--tokenizer", "google/gemma-3-1b-it")
    assert asked == [("google/gemma-3-1b-it", decoder.TOKENIZER)]
    assert data.TokenData(tmp_path / "lm").manifest["tokenizer"]["name"] == "google/gemma-3-1b-it"


def test_a_gated_model_says_how_to_get_it(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    def refuse(*args, **kwargs):
        raise GatedRepoError("403", response=type("R", (), dict(headers={}, request=None, status_code=403))())
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(FileNotFoundError, match="https://huggingface.co/google/gemma-3-1b-it.*hf auth login"):
        checkpoint.load("google/gemma-3-1b-it")
    with pytest.raises(FileNotFoundError, match="there is no directory ../gone"):
        checkpoint.load("../gone")


# ---- adapters and 4 bits ---------------------------------------------------------------------------------------------


def trained_adapter(model, **kwargs):
    """LoRA whose B is no longer zero."""
    torch.manual_seed(1)
    lora.add_lora(model, **dict(rank=4) | kwargs)
    for layer in lora.adapters(model).values():
        nn.init.normal_(layer.lora_B, std=0.1)
    return model


@pytest.mark.parametrize("options", [{}, dict(targets="q_proj,v_proj"), dict(targets=["mlp.down_proj"], rslora=True)])
def test_adapters_load_in_peft_and_back(options, tmp_path):
    import peft

    random_hf("1b-like").save_pretrained(tmp_path / "base")
    model, idx = trained_adapter(Gemma.from_pretrained(tmp_path / "base"), **options), tokens(211, 2, 30)
    lora.save_adapter(model, tmp_path / "ours")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "ours").eval()
    with torch.no_grad():
        expected = model(idx)[0]
        assert (theirs(idx).logits - expected).abs().max() <= 1e-4
        theirs.save_pretrained(tmp_path / "theirs")
        again = lora.load_adapter(Gemma.from_pretrained(tmp_path / "base"), tmp_path / "theirs")
        assert (again(idx)[0] - expected).abs().max() <= 1e-4
        assert (lora.merge_lora(model)(idx)[0] - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("dtype, limit", [(torch.float32, 1e-4), (torch.bfloat16, 0.03)], ids=str)
def test_four_bit_checkpoints_travel(dtype, limit, tmp_path):
    pytest.importorskip("bitsandbytes")
    random_hf("1b-like", hidden_size=64, intermediate_size=128).to(dtype).save_pretrained(tmp_path / "base")
    model, idx = lora.quantize_linears(Gemma.from_pretrained(tmp_path / "base")), tokens(211, 2, 30)
    model.save_pretrained(tmp_path / "ours", dtype=dtype)
    quantized = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                   bnb_4bit_compute_dtype=dtype)
    AutoModelForCausalLM.from_pretrained(tmp_path / "base", quantization_config=quantized, dtype=dtype).save_pretrained(
        tmp_path / "theirs")
    mine, other = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    assert mine.keys() == other.keys()
    for name in mine:
        if not name.endswith("bitsandbytes__nf4"):  # a JSON text
            assert mine[name].dtype == other[name].dtype and torch.equal(mine[name], other[name]), name
    for folder in "ours", "theirs":
        ours = checkpoint.load_quantized(str(tmp_path / folder))
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / folder, dtype=dtype).eval()
        for module in theirs.modules():  # else, where there is AVX-512 bf16, it repacks weights and rounds more
            module.support_avx512bf16_for_cpu = False
        with torch.no_grad():
            expected = ours(idx)[0]
            assert (theirs(idx).logits - expected).abs().max() <= limit * expected.abs().max()


# ---- text ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def directory(tmp_path_factory, filings):
    """A small random Gemma, as the hub would have it: bfloat16, its own tokenizer and template, and a licence."""
    path = tmp_path_factory.mktemp("hub") / "gemma"
    torch.manual_seed(0)
    hf = Gemma3ForCausalLM(Gemma3TextConfig(
        vocab_size=1000, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=1, head_dim=32, sliding_window=24, max_position_embeddings=4096, eos_token_id=[1, 6],
        layer_types=["sliding_attention", "full_attention", "sliding_attention"])).bfloat16()
    hf.model.embed_tokens.weight.data *= 10  # so that logits can be sure of something
    hf.generation_config.update(top_k=64, top_p=0.95, do_sample=True, eos_token_id=[1, 6])
    hf.save_pretrained(path)
    texts = [open(p, encoding="utf-8", errors="ignore").read() for p in sorted(pathlib.Path(filings).rglob("*.*"))[:8]]
    gemma_tokenizer.save(gemma_tokenizer.train(texts + [WORDS], 1000), path)
    (path / "README.md").write_text("---\nlicense: gemma\n---\n")
    return path


WORDS = "Answer with one of these and nothing else negative neutral positive Sentence Sentiment profit rose fell " * 20


@pytest.fixture(scope="module")
def tokenizer(directory):
    return Tokenizer.load(directory)


def sentences(n):
    """Real ones: of PhraseBank, FiQA, headlines and filings."""
    if not SHARED.exists():
        pytest.skip("the shared data are not here")
    found = []
    raw = (SHARED / "data/financial_phrasebank/Sentences_50Agree.txt").read_bytes().decode("iso-8859-1")
    found += [line.rpartition("@")[0] for line in raw.splitlines()]
    with open(SHARED / "data/headlines/headlines.csv", encoding="utf-8") as f:
        found += [row[2] for row in csv.reader(f)]
    for path in sorted((SHARED / "data/filings_items").glob("*.json")):
        texts = [v for v in json.loads(path.read_text()).values() if isinstance(v, str)]
        found += [s for text in texts for s in re.split(r"(?<=[.;:]) |\n{2,}", text)]
    found = list(dict.fromkeys(s for s in found if s.strip()))
    assert len(found) >= n
    return [found[i * len(found) // n] for i in range(n)]


ODD = ["", " ", "  two  spaces   three", "\n", "a\n\nb\n\n\n\n\n\n\nc", "tabs\tand\r\nlines", "naïve café — “quotes”",
       "株式会社 🚀", "<table><tr></table><s>struck</s> <h1>", "▁▁ itself", "<unused0> [multimodal]", "\u200b\ufeff",
       "1,234.56%", "a" * 3000]


def test_the_tokenizer_gives_the_ids_of_transformers(directory, tokenizer, tmp_path):
    theirs = AutoTokenizer.from_pretrained(directory)
    tokenizer.save(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*ODD, *sentences(10_000)]:
        ids = tokenizer.encode(text).tolist()
        assert ids == theirs(text, add_special_tokens=False).input_ids == saved(text).input_ids[1:], text
        assert examples.prompt_tokens(tokenizer, text).tolist() == theirs(text).input_ids, text
        assert tokenizer.decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=False), text
    assert (saved.bos_token, saved.eos_token, saved.pad_token, saved.unk_token) == ("<bos>", "<eos>", "<pad>", "<unk>")


def test_the_template_gives_the_ids_of_transformers(directory, tokenizer):
    theirs = AutoTokenizer.from_pretrained(directory)
    for text in sentences(10_000):
        messages = [dict(role="user", content=f"Sentiment?\n{text}"), dict(role="assistant", content="neutral")]
        asked = examples.prompt_tokens(tokenizer, messages[:1]).tolist()
        ids, learnt = examples.conversation(tokenizer, messages)
        expected = [theirs.apply_chat_template(messages[: 1 + i], add_generation_prompt=not i, return_dict=True)
                    for i in (0, 1)]
        assert [asked, ids.tolist()] == [e["input_ids"] for e in expected], text
        assert ids.tolist()[: len(asked)] == asked and asked.count(tokenizer.start) == 1
        assert tokenizer.decode(ids[learnt]) == "neutral<end_of_turn>"


def test_one_beginning_the_right_ends_and_no_forged_turns(tokenizer):
    ids, learnt = examples.conversation(tokenizer, TALK)
    assert ids[0] == 2 and (ids == 2).sum() == 1 and (ids == 5).sum() == 4 == (ids == 6).sum()
    text = tokenizer.decode(ids)
    assert text.startswith("<bos><start_of_turn>user\nBe brief.\n\nWhat is a 10-K?<end_of_turn>\n"
                           "<start_of_turn>model\nAn annual")
    assert tokenizer.decode(ids[learnt]) == "An annual report.<end_of_turn>A quarterly one.<end_of_turn>"
    assert examples.stop_tokens(tokenizer) == [1, 6]
    ids, learnt = examples.tokens(tokenizer, dict(prompt="Revenue", completion=" rose"))
    assert (ids[0], ids[-1], tokenizer.decode(ids[learnt])) == (2, 1, " rose<eos>")
    with pytest.raises(ValueError, match="roles must alternate"):
        examples.conversation(tokenizer, TALK[:2] + TALK[3:])


def test_special_tokens_are_found_by_their_names(tokenizer):
    assert (tokenizer.start, tokenizer.end_of_text, tokenizer.vocab_size) == (2, 1, 1001)
    assert tokenizer.reach() == 1000, "nothing that can be said needs a row for images"
    sizes = tokenizer.token_bytes()
    assert sizes[[0, 1, 2, 5, 6]].tolist() == [0] * 5
    for text in "Revenue rose  to $5.\n\n", "株式":
        assert sizes[tokenizer.encode(text)].sum() == len(text.encode())


def test_ends_that_their_maker_forgot_to_call_special(directory):
    spec = json.loads((directory / "tokenizer.json").read_text())
    for kept, start, end in (("<s>", "</s>"), "<s>", "</s>"), (("<|endoftext|>",), "<|endoftext|>", "<|endoftext|>"):
        tokens = [dict(spec["added_tokens"][0], id=i, content=t, special=False) for i, t in enumerate(kept, 1000)]
        tokenizer = Tokenizer(spec | dict(added_tokens=tokens), "x")
        assert [tokenizer.name_of(i) for i in (tokenizer.start, tokenizer.end_of_text)] == [start, end]
        ids, learnt = examples.conversation(tokenizer, TALK[1:3])
        assert ids[0] == tokenizer.start and ids[-1] == tokenizer.end_of_text == ids[learnt][-1]


def test_templates_that_say_what_the_model_can_not_read_or_too_little(directory, tmp_path):
    shutil.copytree(directory, tmp_path / "m")
    for template, says in (("{{ bos_token }}{{ '<image_' + 'soft_token>' }}", "writes <image_soft_token>, for which"),
                           ("{{ bos_token }}{{ messages[-1]['content'] }}", "leaves out what the system says")):
        (tmp_path / "m/chat_template.jinja").write_text(template)
        tokenizer = checkpoint.load(tmp_path / "m")[1]
        with pytest.raises(ValueError, match=says):
            examples.prompt_tokens(tokenizer, TALK[:2])
    (tmp_path / "m/chat_template.jinja").unlink()
    (tmp_path / "m/tokenizer_config.json").write_text('{"chat_template": 5}')
    with pytest.raises(ValueError, match="a chat_template that is no text"):
        checkpoint.load(tmp_path / "m")


@pytest.mark.parametrize("index", ["{}", "[]", '{"weight_map": {"a": 5}}', '{"weight_map": [1]}', "", "\xff"])
def test_a_damaged_index_is_named(index, tmp_path):
    tiny().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(index, encoding="latin-1")
    with pytest.raises(ValueError, match="model.safetensors.index.json is damaged"):
        Gemma.from_pretrained(tmp_path)


def test_weights_of_several_dtypes_are_read_in_the_one_that_holds_all(tmp_path):
    tiny().save_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in Gemma.from_pretrained(tmp_path, dtype=None).parameters()} == {torch.bfloat16}
    state = load_file(tmp_path / "model.safetensors")
    state["model.norm.weight"] = state["model.norm.weight"].half()
    save_file(state, tmp_path / "model.safetensors")
    model = Gemma.from_pretrained(tmp_path, dtype=None)
    assert {p.dtype for p in model.parameters()} == {torch.float32} and model(tokens(101, 1, 9))[0].isfinite().all()


def test_a_tokenizer_that_needs_more_rows_is_refused(directory, tmp_path):
    shutil.copytree(directory, tmp_path / "more")
    spec = json.loads((tmp_path / "more/tokenizer.json").read_text())
    spec["added_tokens"][-1]["special"] = False  # now a text can say it
    (tmp_path / "more/tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(ValueError, match="the tokenizer has 1,001 tokens, the model only 1,000"):
        checkpoint.load(str(tmp_path / "more"))


def test_windows_of_a_corpus_begin_as_the_model_expects(directory, filings, tmp_path):
    run("prepare.py", "corpus", filings, "--out", tmp_path / "lm", "--tokenizer", directory, "--val_fraction", "0.3",
        "--workers", "2")
    corpus = data.TokenData(tmp_path / "lm")
    shard, starts = corpus.shards["train"][0], np.load(tmp_path / "lm/train-00000.docs.npy")
    assert set(shard[starts].tolist()) == {2} and set(shard[starts[1:] - 1].tolist()) == {1}
    x, y = corpus.batch(0, range(8), 32, 8, 0)
    held, targets = corpus.validation(32)
    assert (x[:, 0] == 2).all() and (held[:, 0] == 2).all() and (x[:, 1:] == y[:, :-1]).all() and not (y == 2).all()
    about, ids = next(iter(corpus.read_documents("val")))
    assert ids[0] != 2 and ids[-1] != 1 and corpus.tokenizer.decode(ids).strip()
    corpus.shards["val"] = [np.where(s == 2, 99, s) for s in corpus.shards["val"]]  # made when nothing began documents
    assert next(iter(corpus.read_documents("val")))[1].tolist() == [99, *ids]


@pytest.mark.slow
def test_text_goes_through_training_and_the_whole_report(directory, filings, tmp_path):
    run("prepare.py", "corpus", filings, "--out", tmp_path / "lm", "--tokenizer", directory, "--val_fraction", "0.3",
        "--workers", "2")
    run("train.py", "--data", tmp_path / "lm", "--init", directory, "--out", tmp_path / "full", "--optimizer", "muon",
        "--steps", "4", "--batch_tokens", "256", "--seq_len", "64", "--eval_every", "2", "--eval_tokens", "1024")
    run("eval.py", tmp_path / "full", "--baseline", directory, "--data", tmp_path / "lm", "--quick", "--out",
        tmp_path / "report", "--only", "loss,writing,embeddings", "--workers", "2")
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert [m.get("architecture") for m in report["models"]] == ["Gemma 3"] * 2 + [None] * 2
    assert "Gemma 3's architecture" in (tmp_path / "full/README.md").read_text()
    for name in ("config.json", "tokenizer.json"):
        assert (tmp_path / "full" / name).exists()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "full")
    assert again.config.model_type == "gemma3_text" and again.generation_config.top_k == 64
    assert again.generation_config.eos_token_id == [1, 6]


# ---- the walk-through ------------------------------------------------------------------------------------------------


RECIPE = "@recipes/gemma3-1b-phrasebank-t4.txt"


@pytest.fixture(scope="module")
def phrases(tmp_path_factory):
    """Sentences about invented companies, as PhraseBank's file has them: sentence@label."""
    path, rng = tmp_path_factory.mktemp("raw") / "Sentences_50Agree.txt", np.random.default_rng(0)
    says = dict(positive="rose", negative="fell", neutral="stayed at")
    lines = [f"Profit of {rng.choice(list('ABCDEFGH'))}{i} Oyj {says[label]} {rng.integers(100)} million in "
             f"{2000 + i % 20} .@{label}" for i, label in enumerate(rng.choice(list(says), 240))]
    path.write_bytes("\n".join(lines).encode("iso-8859-1"))
    return path.parent


@pytest.fixture(scope="module")
def walked(directory, phrases, tmp_path_factory):
    """README's commands, on a small model: the folder they wrote to, and what each script said."""
    out, said = tmp_path_factory.mktemp("walk"), {}
    here = {"google/gemma-3-1b-it": directory, "FinancialPhraseBank-v1.0.zip": phrases}
    for program, script, *words in walk_through("Gemma 3 1B on a small GPU"):
        if program == "python":
            words = [here.get(w, out / w if w.startswith(("data/", "runs/")) else w) for w in words]
            words += ["--init", directory, "--epochs", "8", "--lr", "1e-2"] if script == "train.py" else []
            said[script] = run(script, *words).stdout
    return out, said


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_qlora_learns_the_task_and_says_what_it_does(walked):
    out, said = walked
    (system, user), trained = records(out / "data/fpb-chat/test.jsonl")[0]["prompt"], said["train.py"]
    assert [system["role"], user["role"]] == ["system", "user"] and "neutral, positive" in system["content"]
    assert "baseline tfidf" in said["prepare.py"]
    assert "⟦" in trained and "<end_of_turn>⟧" in trained and trained.count("<bos>") == 1
    assert "weights in NF4" in trained and "licence  base" in trained and "forgot" in trained
    losses = [r["val_loss"] for r in records(out / "runs/gemma/log.jsonl") if "val_loss" in r]
    assert min(losses) < losses[0] / 4


def test_the_tuned_model_is_held_against_the_untuned_and_counting_words(walked):
    out, said = walked
    report = json.loads((out / "runs/gemma/report/report.json").read_text())
    tuned, untuned = report["models"]
    assert tuned["likeliest"]["accuracy"] > 0.9 > untuned["likeliest"]["accuracy"]
    assert tuned["written"]["accuracy"] == tuned["likeliest"]["accuracy"] and untuned["written"]["unparsed"]
    assert set(report["baselines"]) == {"majority", "tfidf"} and "tfidf" in said["eval.py"]


def test_sampling_stops_at_the_end_of_a_turn(walked):
    out, _ = walked
    model, tokenizer = sample.load(str(out / "runs/gemma"), "cpu", "float32")
    asked, answers = records(out / "data/fpb-chat/test.jsonl"), records(out / "runs/gemma/answers.jsonl")
    (text, length), = sample.generate(model, tokenizer, [asked[0]["prompt"]], 50, temperature=0, with_lengths=True)
    assert text == asked[0]["completion"].strip() and length < 50
    assert [a["prompt"] for a in answers] == [r["prompt"] for r in asked]


def test_merging_writes_what_was_trained_in_the_dtype_of_the_hub(walked):
    out, said = walked
    assert "dequantized base, written in bfloat16" in said["checkpoint.py"] and "gemma" in said["checkpoint.py"]
    merged = AutoModelForCausalLM.from_pretrained(out / "runs/gemma-merged", dtype="auto")
    assert merged.dtype == torch.bfloat16 and merged.generation_config.eos_token_id == [1, 6]
    theirs = AutoTokenizer.from_pretrained(out / "runs/gemma-merged")
    record = records(out / "data/fpb-chat/test.jsonl")[0]
    inputs = theirs.apply_chat_template(record["prompt"], add_generation_prompt=True, return_tensors="pt",
                                        return_dict=True)
    written = merged.generate(**inputs, max_new_tokens=20, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert theirs.decode(written) == record["completion"].strip() + "<end_of_turn>"
    assert "Gemma 3 of" in run("checkpoint.py", "info", out / "runs/gemma-merged").stdout


def test_quantizing_leaves_the_rest_as_it_is_on_disk(directory, tmp_path):
    said = run("checkpoint.py", "quantize", directory, "--out", tmp_path / "nf4").stdout
    assert "the rest in bfloat16" in said
    assert load_file(tmp_path / "nf4/model.safetensors")["model.embed_tokens.weight"].dtype == torch.bfloat16
    before, after = (os.path.getsize(path / "model.safetensors") for path in (directory, tmp_path / "nf4"))
    assert after < before


def test_the_adapter_loads_in_peft_on_the_hubs_model(walked, directory):
    import peft

    out, _ = walked
    ours, _ = checkpoint.load(str(out / "runs/gemma"), merge=False)
    path = checkpoint.resolve(str(out / "runs/gemma"))
    plain = lora.load_adapter(Gemma.from_pretrained(directory), path, quantize=None)
    theirs = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32),
                                            out / "runs/gemma").eval()
    idx = tokens(1000, 2, 40)
    with torch.no_grad():
        assert (theirs(idx).logits - plain(idx)[0]).abs().max() <= 1e-4
    assert lora.is_quantized(ours)


def test_stopping_and_resuming_changes_nothing(walked, directory, tmp_path):
    out, _ = walked
    flags = [RECIPE, "--data", out / "data/fpb-chat", "--init", directory, "--steps", "6", "--save_every", "3",
             "--eval_every", "3", "--log_every", "1", "--keep", "3"]
    run("train.py", *flags, "--out", tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "half", symlinks=True)
    for name in ("step-00000006", "latest"):
        path = tmp_path / "half" / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    run("train.py", "--out", tmp_path / "half", "--resume")
    a, b = (load_file(tmp_path / run_ / "step-00000006/adapter_model.safetensors") for run_ in ("whole", "half"))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.slow
def test_dpo_and_distillation_know_no_difference(walked, directory, tmp_path):
    out, _ = walked
    run("prepare.py", "pairs", out / "data/fpb-chat", "--out", tmp_path / "pairs")
    few = ["--steps", "2", "--batch_size", "4", "--seq_len", "128", "--eval_tokens", "1000"]
    dpo = run("train.py", "--data", tmp_path / "pairs", "--init", out / "runs/gemma", "--out", tmp_path / "dpo", *few)
    assert "0.6931" in dpo.stdout
    taught = run("train.py", "--data", out / "data/fpb-chat", "--init", directory, "--teacher", directory, "--out",
                 tmp_path / "taught", *few, "--log_every", "1")
    assert "teacher kl 0.0000" in taught.stdout


def test_flags_that_do_not_fit(directory, walked):
    out, _ = walked
    done = run("train.py", "--data", out / "data/fpb-chat", "--init", directory, "--out", out / "no", "--dropout",
               "0.1", check=False)
    assert done.returncode == 2 and "--lora_dropout" in done.stderr and not (out / "no").exists()


# ---- memory ----------------------------------------------------------------------------------------------------------


class Watch(TorchDispatchMode):
    """The most rows of any tensor as wide as the vocabulary that is made while it watches, but for weights."""

    def __init__(self, model):
        super().__init__()
        self.V, self.most = model.config.vocab_size, 0
        self.weight = model.wte.weight.untyped_storage().data_ptr()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        for t in out if isinstance(out, list | tuple) else [out]:
            if isinstance(t, torch.Tensor) and t.dim() and t.shape[-1] == self.V and (
                    t.untyped_storage().data_ptr() != self.weight):
                self.most = max(self.most, t.numel() // self.V)
        return out


def test_logits_only_where_there_is_something_to_learn():
    model, idx = tiny(vocab_size=1009), tokens(1009, 4, 60)
    y = torch.full_like(idx, -100)
    y[:, -3:] = 5
    for what in (lambda: model(idx, y, documents=torch.zeros_like(idx))[1].backward(),
                 lambda: model.token_losses(idx, y)):
        with Watch(model) as watch:
            what()
        assert 0 < watch.most <= 12


def test_the_plan_knows_gemma_without_downloading_it():
    said = run("train.py", "--plan", "--init", "google/gemma-3-1b-it", "--seq_len", "128", "--micro_batch", "8",
               "--lora_rank", "16").stdout
    assert said.startswith("999,885,952 parameters: 26 layers, 4 heads, 1152 channels, vocabulary 262,144")
    assert float(re.search(r"weights +\S+ +\S+ +(\S+)", said)[1]) == pytest.approx(0.898, abs=2e-3)
    assert "micro-batch 32 x 256" in run("train.py", "--plan", RECIPE, "--dtype", "float16").stdout  # a step, no more


STEPS = """
import json, sys, torch
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
from test_gemma import Watch
import gemma, lora, plan
dtype, batch, T = torch.bfloat16, 8, 128
def status(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
warm = torch.nn.Linear(64, 64)  # libraries' own memory comes first
with torch.autocast("cpu", dtype):
    warm(torch.randn(8, 64)).sum().backward()
torch.optim.AdamW(warm.parameters(), fused=True).step()
before = status("VmRSS")
model = lora.cast_frozen(lora.add_lora(gemma.Gemma(gemma.SIZES["gemma-3-1b"]), 16, quantize="nf4"), dtype)
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
idx = torch.randint(1, 262144, (batch, T))
y = torch.where(torch.arange(T) % 40 > 37, idx, -100)  # a label and what ends it, in every forty tokens
documents = (torch.arange(T) // 40).expand_as(idx)
open("/proc/self/clear_refs", "w").write("5")
losses, most = [], 0
for step in range(3):
    with torch.autocast("cpu", dtype), Watch(model) as watch:
        loss = model(idx, y, documents=documents)[1]
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item()), print(losses[-1], status("VmHWM") - before, file=sys.stderr)
    most = max(most, watch.most)
m = plan.measure(model.config, "QLoRA", 16, "all-linear", T, dtype, gpu=False, learnt=float((y >= 0).float().mean()))
lora.save_adapter(model, {out!r})
print(json.dumps(dict(losses=losses, rows=most, supervised=int((y >= 0).sum()), tokens=batch * T,
                      measured=status("VmHWM") - before, planned=plan.at(m, batch, T, accumulated=False)["peak"])))
"""


def room():
    with open("/proc/meminfo") as f:
        return next(int(line.split()[1]) / 2**20 for line in f if line.startswith("MemAvailable"))


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="peak memory is read from Linux's /proc")
def test_qlora_at_the_shapes_of_1b_takes_what_was_planned(tmp_path):
    if room() < 10:
        pytest.skip(f"needs 10 GB of memory, {room():.1f} are free")
    done = subprocess.run([sys.executable, "-c", STEPS.format(root=str(ROOT), out=str(tmp_path))], capture_output=True,
                          text=True, timeout=900, env=os.environ | {
                              "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"})
    assert not done.returncode, done.stderr
    found = json.loads(done.stdout)
    print(found)
    assert found["rows"] == found["supervised"] < found["tokens"] / 10
    assert 0.9 < found["planned"] / found["measured"] < 1.1, found
    assert found["losses"][-1] < found["losses"][0] < 1.1 * math.log(262144)
    # PEFT's own model of these shapes, without memory for its weights, knows every tensor of the adapter
    import peft

    with torch.device("meta"):
        base = Gemma3ForCausalLM(Gemma3TextConfig(
            vocab_size=262144, hidden_size=1152, intermediate_size=6912, num_hidden_layers=26, num_attention_heads=4,
            num_key_value_heads=1, head_dim=256, sliding_window=512))
        theirs = peft.get_peft_model(base, peft.LoraConfig.from_pretrained(tmp_path))
    loaded = peft.set_peft_model_state_dict(theirs, load_file(tmp_path / "adapter_model.safetensors"),
                                             low_cpu_mem_usage=True)
    assert not loaded.unexpected_keys and not [k for k in loaded.missing_keys if "lora_" in k]
