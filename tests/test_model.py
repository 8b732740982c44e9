"""model.py against transformers, torch's own cross-entropy and itself without a cache."""
import json
import math
import shutil

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

import lora
import train
from model import GPT, SIZES, GPTConfig, reordered_weights

SHAPES = [dict(vocab_size=50257, n_positions=128, n_layer=2, n_head=4, n_embd=64),
          dict(vocab_size=1003, n_positions=77, n_layer=3, n_head=3, n_embd=36),
          dict(vocab_size=50304, n_positions=64, n_layer=1, n_head=1, n_embd=16),
          dict(vocab_size=257, n_positions=33, n_layer=5, n_head=2, n_embd=10)]


def random_hf(shape, seed=0):
    torch.manual_seed(seed)
    hf = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=shape["vocab_size"] - 1)).eval()
    for p in hf.parameters():  # biases and norms too, which start at 0 and 1
        p.data += 0.1 * torch.randn_like(p)
    return hf


def tiny(seed=0, **kwargs):
    torch.manual_seed(seed)
    return GPT(GPTConfig(**(dict(vocab_size=101, block_size=48, n_layer=2, n_head=2, n_embd=16) | kwargs))).eval()


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s['vocab_size']}x{s['n_embd']}")
def test_from_and_to_transformers(shape, tmp_path):
    hf = random_hf(shape)
    hf.save_pretrained(tmp_path / "theirs")
    ours = GPT.from_pretrained(tmp_path / "theirs").eval()
    idx = torch.randint(shape["vocab_size"], (3, shape["n_positions"]))
    with torch.no_grad():
        expected = hf(idx).logits
        assert (ours(idx)[0] - expected).abs().max() <= 1e-4
        ours.save_pretrained(tmp_path / "ours")
        again, info = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
        assert (again.eval()(idx).logits - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("bias", [True, False])
def test_saved_model_is_the_same_in_transformers(bias, tmp_path):
    model = tiny(bias=bias)
    model.save_pretrained(tmp_path)
    idx = torch.randint(101, (2, 48))
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path).eval()(idx).logits
        assert (model(idx)[0] - theirs).abs().max() <= 1e-4
    again = GPT.from_pretrained(tmp_path)
    assert again.config == model.config
    for (name, a), (_, b) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_sizes_and_initialisation():
    with torch.device("meta"):
        counts = {name: lora.count(GPT(GPTConfig(**shape)))[1] for name, shape in SIZES.items()}
    assert counts == {"gpt2": 124_439_808, "gpt2-medium": 354_823_168,
                      "gpt2-large": 774_030_080, "gpt2-xl": 1_557_611_200}
    model = tiny(vocab_size=2000, n_embd=64, n_layer=8)
    assert abs(model.wte.weight.std() - 0.02) < 1e-3
    assert abs(model.h[3].mlp.c_proj.weight.std() - 0.02 / math.sqrt(16)) < 5e-4
    assert model.h[0].attn.c_attn.bias.abs().max() == 0 and (model.ln_f.weight == 1).all()
    _, loss = model(torch.randint(2000, (4, 48)), torch.randint(2000, (4, 48)))
    assert abs(loss.item() - math.log(2000)) < 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_gradients_equal_plain_cross_entropy(dtype, monkeypatch):
    model = tiny().train()
    monkeypatch.setattr(GPT, "chunk_rows", lambda self: 7)  # many chunks, the last one short
    idx, targets = torch.randint(101, (3, 20)), torch.randint(101, (3, 20))
    targets[0, :5] = -100
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        plain = F.cross_entropy(model(idx)[0].float().flatten(0, 1), targets.flatten(), ignore_index=-100)
        plain.backward()
        expected = {n: p.grad.clone() for n, p in model.named_parameters()}
        model.zero_grad()
        logits, loss = model(idx, targets)
        loss.backward()
    assert logits is None
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    assert abs(loss.item() - plain.item()) <= tolerance * plain.item()
    for name, p in model.named_parameters():
        assert (p.grad - expected[name]).norm() <= tolerance * expected[name].norm() + 1e-7, name
    assert torch.allclose(model(idx, targets, reduction="sum")[1] / 55, model(idx, targets)[1])


def test_loss_without_any_target_is_zero():
    _, loss = tiny()(torch.zeros(1, 4, dtype=torch.long), torch.full((1, 4), -100))
    assert loss.item() == 0


def test_greedy_generation_with_cache_without_and_in_transformers(tmp_path):
    hf = random_hf(dict(vocab_size=211, n_positions=256, n_layer=3, n_head=4, n_embd=32), seed=1)
    hf.save_pretrained(tmp_path)
    ours = GPT.from_pretrained(tmp_path)
    idx = torch.randint(211, (2, 9))
    cached = ours.generate(idx, 200, temperature=0)
    assert cached.shape == (2, 209) and torch.equal(cached[:, :9], idx)
    assert torch.equal(cached, ours.generate(idx, 200, temperature=0, use_cache=False))
    theirs = hf.generate(idx, attention_mask=torch.ones_like(idx), max_new_tokens=200, do_sample=False,
                         eos_token_id=None, pad_token_id=0)
    assert torch.equal(cached, theirs)


@pytest.mark.parametrize("use_cache", [True, False])
def test_left_padded_prompts_give_what_each_gives_alone(use_cache):
    model = tiny(seed=2)
    prompts = [torch.randint(101, (n,)) for n in (1, 5, 12)]
    idx = torch.stack([torch.cat([torch.full((12 - len(p),), 7), p]) for p in prompts])
    lengths = torch.tensor([len(p) for p in prompts])
    for kwargs in (dict(), dict(repetition_penalty=1.7)):
        out = model.generate(idx, 20, temperature=0, lengths=lengths, use_cache=use_cache, **kwargs)
        for row, p in zip(out, prompts, strict=True):
            alone = model.generate(p[None], 20, temperature=0, **kwargs)[0]
            assert torch.equal(row[12 - len(p) :], alone)


def test_generation_past_the_context_goes_on():
    model = tiny(block_size=16)
    idx = torch.randint(101, (2, 5))
    out = model.generate(idx, 40, temperature=0)
    assert out.shape == (2, 45)
    assert torch.equal(out[:, :17], model.generate(idx, 12, temperature=0))  # the same up to the block's end
    assert tiny(block_size=1).generate(idx[:, :1], 3, temperature=0).shape == (2, 4)
    longer = model.generate(torch.randint(101, (1, 30)), 4, temperature=0, lengths=torch.tensor([20]))
    assert longer.shape == (1, 34)


def test_stop_tokens_end_a_row_and_then_the_batch():
    model = tiny()
    idx = torch.randint(101, (3, 4))
    free = model.generate(idx, 12, temperature=0)
    stop = free[0, 6].item()
    out = model.generate(idx, 12, temperature=0, stop_tokens=[stop])
    first = (out[0, 4:] == stop).nonzero()[0].item() + 4
    assert torch.equal(out[0, : first + 1], free[0, : first + 1]) and (out[0, first:] == stop).all()
    assert model.generate(idx[:1], 12, temperature=0, stop_tokens=[stop]).shape[1] == first + 1


def test_sampling_respects_top_k_top_p_and_the_seed():
    model = tiny(seed=3)
    idx = torch.zeros(64, 1, dtype=torch.long)
    logits = model(idx[:1])[0][0, -1] * 20  # spread out
    order = logits.argsort(descending=True)
    model.wte.weight.data *= 1.0

    def draw(**kwargs):
        return model.generate(idx, 1, generator=torch.Generator().manual_seed(0), **kwargs)[:, 1]

    assert torch.equal(draw(), draw())
    assert set(draw(top_k=3, temperature=0.05).tolist()) <= set(order[:3].tolist())
    assert set(draw(top_k=1).tolist()) == {order[0].item()}
    assert set(draw(top_p=1e-6).tolist()) == {order[0].item()}
    counts = torch.bincount(
        model.generate(torch.zeros(20000, 1, dtype=torch.long), 1, generator=torch.Generator().manual_seed(1))[:, 1],
        minlength=101) / 20000
    expected = model(idx[:1])[0][0, -1].softmax(-1)
    assert (counts - expected).abs().max() < 0.01


@pytest.mark.parametrize("kind", ["plain", "nf4"])
def test_compiled_steps_give_the_same_tokens(kind):
    model, idx = tiny(seed=4, n_embd=64, n_layer=1, block_size=24), torch.arange(21).view(3, 7)
    for p in model.parameters():
        p.data += 0.15 * torch.randn_like(p)
    if kind == "nf4":
        lora.add_lora(model, rank=2, quantize="nf4")
        for adapter in lora.adapters(model).values():
            adapter.lora_B.data.normal_(0, 0.05)
    free = model.generate(idx, 40, temperature=0)  # past block_size: the window is read again
    ragged = dict(lengths=torch.tensor([7, 3, 1]))
    for kwargs in (dict(temperature=0), ragged | dict(repetition_penalty=1.3, top_k=20, top_p=0.9),
                   dict(temperature=0, stop_tokens=free[:, 10].tolist()), ragged | dict(stop_tokens=range(30))):
        outs, streams = [], []
        for how in (False, "aot_eager"):
            streams.append([])
            for on_token in (None, streams[-1].append):
                outs.append(model.generate(idx, 40, generator=torch.Generator().manual_seed(3), compile=how,
                                           on_token=on_token, **kwargs))
        assert all(torch.equal(out, outs[0]) for out in outs)
        assert all(torch.equal(torch.stack(s, 1), outs[0][:, 7:]) for s in streams)
        if "stop_tokens" in kwargs:  # the steps up to the next look, at the 16th, were cut off again
            assert outs[0].shape[1] < 47 and (outs[0].shape[1] - 7) % 16
    kept = model.caches[0][0].data_ptr()
    model.generate(idx, 3, compile="aot_eager")
    assert model.caches[0][0].data_ptr() == kept, "a CUDA graph would be recorded anew"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_reordered_weights_multiply_alike_and_go_when_done(dtype):
    model = tiny(n_embd=64).to(dtype)
    few, many = torch.randint(101, (3, 1)), torch.randint(101, (3, 5))
    with torch.no_grad():
        expected = [model(x)[0] for x in (few, many)]
        with pytest.raises(KeyboardInterrupt), reordered_weights(model, 3, True):
            for x, logits in zip((few, many), expected, strict=True):
                assert torch.allclose(model(x)[0], logits, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-6)
            raise KeyboardInterrupt
    assert not any({"forward", "head"} & m.__dict__.keys() for m in model.modules())
    sampled = [model.generate(few, 12, generator=torch.Generator().manual_seed(0)) for _ in range(2)]
    assert torch.equal(*sampled) and not any({"forward", "head"} & m.__dict__.keys() for m in model.modules())


def test_dropout_only_in_training():
    model = tiny(dropout=0.5)
    idx = torch.randint(101, (1, 10))
    assert torch.equal(model(idx)[0], model(idx)[0])
    model.train()
    assert not torch.equal(model(idx)[0], model(idx)[0])


def test_nanogpt_checkpoint(tmp_path):
    model = tiny(vocab_size=50304, n_layer=1, bias=False)
    state = {"_orig_mod.transformer." + k: v for k, v in model.state_dict().items()}
    state["_orig_mod.lm_head.weight"] = model.wte.weight
    args = dict(n_layer=1, n_head=2, n_embd=16, block_size=48, bias=False, vocab_size=50304, dropout=0.1)
    torch.save(dict(model=state, model_args=args, iter_num=5, config={}), tmp_path / "ckpt.pt")
    ours = GPT.from_pretrained(tmp_path / "ckpt.pt").eval()
    idx = torch.randint(50257, (1, 48))
    assert ours.config.vocab_size == 50257 and ours.config.dropout == 0
    assert torch.allclose(ours(idx)[0], model(idx)[0][..., :50257], atol=1e-6)
    ours.save_pretrained(tmp_path / "hf")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "hf").config.vocab_size == 50257


def test_what_is_no_gpt2_is_refused_with_a_reason(tmp_path):
    random_hf(SHAPES[1]).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, word in ((dict(activation_function="relu"), "activation_function"),
                         (dict(model_type="llama"), "model_type"), (dict(n_inner=99), "n_inner"),
                         (dict(layer_norm_epsilon=1e-3), "layer_norm_epsilon"),
                         (dict(n_layer=2), "do not fit"), (dict(n_head=5), "multiple")):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=word):
            GPT.from_pretrained(tmp_path)


def test_flops_of_gpt2_small():
    with torch.device("meta"):
        model = GPT(GPTConfig())
    assert train.training_flops(model, 1024) == 6 * (124_439_808 - 1024 * 768) + 12 * 12 * 768 * 1024


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_model_gives_the_same_loss_and_gradients(backend, monkeypatch):
    if backend == "inductor" and not shutil.which("g++"):
        pytest.skip("inductor needs a C++ compiler")
    if backend == "inductor" and " " in torch.__file__:
        pytest.skip("inductor passes paths to the compiler without quotes, and this one has a space")
    torch._dynamo.reset()
    monkeypatch.setattr(GPT, "chunk_rows", lambda self: 40)
    model = tiny().train()
    idx = torch.randint(101, (2, 48))
    _, loss = model(idx, idx)
    loss.backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    _, compiled = torch.compile(model, backend=backend)(idx, idx)
    compiled.backward()
    assert torch.allclose(loss, compiled, rtol=1e-5)
    for name, p in model.named_parameters():
        assert torch.allclose(p.grad, expected[name], atol=1e-6), name


def test_one_graph_serves_windows_of_all_lengths():
    torch._dynamo.reset()
    model = tiny()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for T in (12, 24, 48, 5):  # from the second on a symbol
        idx = torch.randint(101, (2, T))
        assert torch.equal(compiled(idx, idx)[1], model(idx, idx)[1])


def test_biases_trained_elsewhere_are_not_lost(tmp_path):
    tiny(bias=False).save_pretrained(tmp_path)
    hf = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    hf.transformer.h[0].mlp.c_fc.bias.data += 1.0
    hf.save_pretrained(tmp_path)
    idx = torch.randint(101, (1, 9))
    with torch.no_grad():
        assert (GPT.from_pretrained(tmp_path).eval()(idx)[0] - hf(idx).logits).abs().max() <= 1e-4
