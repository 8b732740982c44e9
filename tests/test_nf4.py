"""kernels/nf4.py bit by bit against bitsandbytes, and the operator against plain PyTorch."""
import json

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import kernels
from kernels import NF4Tensor, dequantize_nf4, nf4_linear, quantize_nf4
from kernels.nf4 import BLOCK, CODES, CODES8

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = [(768, 2304), (5, 7), (1, 1), (3, 64), (65, 65), (127, 129), (1, 16384), (1000, 333), (1024, 1025)]


@pytest.fixture(scope="module")
def bnb():
    return pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed").functional


def weights(shape, dtype, seed=0):
    torch.manual_seed(seed)
    w = torch.randn(shape) * 0.02
    w.view(-1)[BLOCK : 3 * BLOCK] = 0  # blocks of zeros, where there is room
    return w.to(dtype)


def bnb_dequantize(bnb, packed, state, dtype):
    """Their dequantization into any dtype, not only the one of the weight."""
    absmax = state.absmax
    if state.nested:
        absmax = bnb.dequantize_blockwise(absmax, state.state2) + state.offset
    if torch.backends.cpu.get_cpu_capability() == "AVX512" and state.shape[-1] % BLOCK:
        # their AVX-512 kernel (0.50.2) takes the wrong block's scale where rows are no whole blocks: by definition
        codes = torch.stack([packed.flatten() >> 4, packed.flatten() & 15], dim=1).flatten()[: state.shape.numel()]
        return (CODES[codes.long()] * absmax.float().repeat_interleave(BLOCK)[: len(codes)]).to(dtype).view(state.shape)
    return torch.ops.bitsandbytes.dequantize_4bit(packed, absmax.float(), BLOCK, "nf4", state.shape, dtype)


def test_the_two_code_tables_are_theirs(bnb):
    assert torch.equal(CODES, bnb.get_4bit_type("nf4", "cpu")) and torch.equal(CODES8, bnb.create_dynamic_map())


@pytest.mark.parametrize("double_quant", [True, False], ids=["double", "plain"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bit_equal_with_bitsandbytes(bnb, shape, dtype, double_quant):
    w = weights(shape, dtype)
    packed, state = bnb.quantize_4bit(w, quant_type="nf4", compress_statistics=double_quant)
    q = quantize_nf4(w, double_quant)
    assert torch.equal(q.packed, packed) and torch.equal(q.absmax, state.absmax)
    if double_quant:
        assert torch.equal(q.nested_absmax, state.state2.absmax) and torch.equal(q.offset, state.offset)
    for out in DTYPES:
        assert torch.equal(dequantize_nf4(q, out), bnb_dequantize(bnb, packed, state, out))
    assert dequantize_nf4(q).dtype == dtype


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 70), st.integers(1, 300), st.sampled_from(DTYPES), st.integers(-30, 30), st.booleans())
def test_any_shape_and_scale(rows, columns, dtype, exponent, double_quant):
    functional = pytest.importorskip("bitsandbytes").functional
    w = (torch.randn(rows, columns) * 2.0**exponent).clamp(-60000, 60000).to(dtype)
    packed, state = functional.quantize_4bit(w, quant_type="nf4", compress_statistics=double_quant)
    q = quantize_nf4(w, double_quant)
    assert torch.equal(q.packed, packed) and torch.equal(q.absmax, state.absmax)
    assert torch.equal(dequantize_nf4(q), bnb_dequantize(functional, packed, state, dtype))


@pytest.mark.parametrize("double_quant", [True, False], ids=["double", "plain"])
def test_state_dicts_load_both_ways(bnb, double_quant, tmp_path):
    w = weights((96, 130), torch.float32)
    q = quantize_nf4(w, double_quant)
    save_file(q.state_dict("fc.weight"), tmp_path / "ours.safetensors")
    own = {k.removeprefix("fc.weight."): v for k, v in load_file(tmp_path / "ours.safetensors").items()}
    state = bnb.QuantState.from_dict({k: v for k, v in own.items() if k != "fc.weight"}, torch.device("cpu"))
    assert torch.equal(bnb.dequantize_4bit(own["fc.weight"], state), dequantize_nf4(q))

    packed, state = bnb.quantize_4bit(w, quant_type="nf4", compress_statistics=double_quant)
    theirs = {"fc.weight": packed} | {"fc.weight." + k: v for k, v in state.as_dict(packed=True).items()}
    assert theirs.keys() == q.state_dict("fc.weight").keys()
    save_file(theirs, tmp_path / "theirs.safetensors")
    loaded = load_file(tmp_path / "theirs.safetensors")
    back = NF4Tensor.from_state_dict(loaded, "fc.weight")
    assert not loaded and back.shape == w.shape and back.dtype == w.dtype
    for name, tensor in q.tensors().items():
        assert torch.equal(tensor, getattr(back, name)), name


def test_weights_stored_as_another_dtype_are_read(bnb):
    packed, state = bnb.quantize_4bit(weights((64, 128), torch.float32), quant_type="nf4", compress_statistics=True,
                                      quant_storage=torch.bfloat16)
    own = {"w": packed} | {"w." + k: v for k, v in state.as_dict(packed=True).items()}
    assert torch.equal(dequantize_nf4(NF4Tensor.from_state_dict(own, "w")), bnb.dequantize_4bit(packed, state))


def test_other_formats_and_damage_are_named(bnb):
    w = weights((64, 64), torch.float32)
    for kwargs in (dict(quant_type="fp4"), dict(quant_type="nf4", blocksize=128)):
        packed, state = bnb.quantize_4bit(w, **kwargs)
        own = {"w": packed} | {"w." + k: v for k, v in state.as_dict(packed=True).items()}
        with pytest.raises(ValueError, match="^w "):
            NF4Tensor.from_state_dict(own, "w")
    good = quantize_nf4(w).state_dict("w")
    about = json.loads(bytes(good["w.quant_state.bitsandbytes__nf4"].tolist())) | {"shape": [64, 63]}
    for bad in (good | {"w": good["w"][:-1]}, good | {"w.absmax": good["w.absmax"][:-1]},
                good | {"w.quant_state.bitsandbytes__nf4": torch.tensor(list(json.dumps(about).encode())).byte()},
                good | {"w.quant_map": good["w.quant_map"] + 1},
                {k: v for k, v in good.items() if k != "w.quant_map"}):
        with pytest.raises(ValueError, match="^w "):
            NF4Tensor.from_state_dict(dict(bad), "w")


def test_size_and_error_are_those_of_the_paper():
    w = torch.randn(2048, 2048)
    q = quantize_nf4(w)
    assert 8 * q.nbytes() / w.numel() == pytest.approx(4.127, abs=5e-4)
    assert 8 * quantize_nf4(w, double_quant=False).nbytes() / w.numel() == 4.5
    assert (dequantize_nf4(q) - w).pow(2).mean().sqrt() == pytest.approx(0.092, abs=1e-3)


def test_what_cannot_be_quantized_is_refused():
    for bad in (torch.ones(4, 4, dtype=torch.int32), torch.empty(0, 4), torch.full((2, 64), torch.nan),
                torch.full((2, 64), torch.inf)):
        with pytest.raises(ValueError):
            quantize_nf4(bad)


def test_out_is_written_and_moves_keep_the_format():
    q = quantize_nf4(weights((33, 65), torch.bfloat16))
    out = torch.full((33, 65), torch.nan, dtype=torch.bfloat16)
    assert dequantize_nf4(q, out=out) is out and torch.equal(out, dequantize_nf4(q))
    assert torch.equal(dequantize_nf4(q.to("cpu")), out)


# ----------------------------------------------------------------------------------------------------------------------


def parts(N=96, K=128, rank=8, dtype=torch.float64, rows=(3, 5)):
    torch.manual_seed(1)
    return (quantize_nf4(torch.randn(N, K)),
            *(torch.randn(*s, dtype=dtype, requires_grad=True) for s in ((*rows, K), (N,), (rank, K), (N, rank))))


def plain(x, q, bias, a, b, scale):
    """The twin: everything through autograd, on the dequantized weight."""
    w = dequantize_nf4(q, torch.float32).to(x.dtype)
    return F.linear(x, w, bias) + (0 if a is None else scale * (x @ a.t()) @ b.t())


@pytest.mark.parametrize("K", [128, 100], ids=["whole blocks", "blocks across rows"])
@pytest.mark.parametrize("lora", [True, False], ids=["lora", "plain"])
def test_the_operator_and_its_gradients(K, lora):
    q, x, bias, a, b = parts(K=K, dtype=torch.float32)
    inputs = (x, bias, a, b) if lora else (x, bias)
    extra = (a, b, 0.5) if lora else (None, None, 1.0)
    dy = torch.randn(3, 5, 96)
    got, expected = nf4_linear(x, q, bias, *extra), plain(x, q, bias, *extra)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)
    for g, e in zip(torch.autograd.grad(got, inputs, dy), torch.autograd.grad(expected, inputs, dy), strict=True):
        torch.testing.assert_close(g, e, rtol=1e-4, atol=1e-4)


def test_gradients_against_finite_differences():
    q, x, bias, a, b = parts(N=6, K=64, rank=2, rows=(3,))
    assert torch.autograd.gradcheck(lambda *t: nf4_linear(t[0], q, t[1], t[2], t[3], 0.5), (x, bias, a, b))


def test_the_operator_meets_torchs_own_checks():
    q, x, bias, a, b = parts(dtype=torch.float32, rows=(5,))
    weight = (q.packed, q.absmax, q.nested_absmax, q.offset, 96)
    torch.library.opcheck(torch.ops.tenk.nf4_linear, (x, *weight, bias, a, b, 0.5))
    torch.library.opcheck(torch.ops.tenk.nf4_linear, (x, *weight, None, None, None, 1.0))


def test_under_compile_there_is_no_graph_break():
    q, x, bias, a, b = parts(dtype=torch.float32)
    compiled = torch.compile(lambda *t: nf4_linear(t[0], q, t[1], t[2], t[3], 0.5).sin(), backend="aot_eager",
                             fullgraph=True)
    eager = nf4_linear(x, q, bias, a, b, 0.5).sin()
    assert torch.equal(compiled(x, bias, a, b), eager)
    for g, e in zip(torch.autograd.grad(compiled(x, bias, a, b).sum(), (x, a, b)),
                    torch.autograd.grad(eager.sum(), (x, a, b)), strict=True):
        torch.testing.assert_close(g, e)


def test_autocast_casts_as_for_a_linear():
    q, x, bias, a, b = parts(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = nf4_linear(x, q, bias, a, b, 0.5)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert x.grad.dtype == a.grad.dtype == torch.float32


def test_the_path_is_chosen_by_device_dtype_and_rows(monkeypatch):
    q = quantize_nf4(torch.randn(64, 128))
    odd = quantize_nf4(torch.randn(64, 100))
    assert kernels.choose_path(torch.randn(1, 128), q) == "unpack"  # a CPU
    monkeypatch.setattr(kernels, "HAS_TRITON", True)
    monkeypatch.setattr(kernels, "architecture", lambda device: device.name)

    class OnGPU:  # what the dispatcher asks of a tensor, since there may be no GPU here
        is_cuda = True

        def __init__(self, rows, name, dtype=torch.bfloat16):
            self.rows, self.dtype, self.device = rows, dtype, type("Device", (), {"name": name})

        def __len__(self):
            return self.rows

    for rows, name, expected in ((1, "sm_90", "gemv"), (8, "sm_75", "gemv"), (9, "sm_75", "unpack"),
                                 (4, "sm_90", "fused"), (16, "sm_90", "fused"), (4096, "sm_90", "unpack"),
                                 (200, "sm_89", "fused"), (64, "gfx942", "fused"), (16, "sm_999", "unpack")):
        assert kernels.choose_path(OnGPU(rows, name), q) == expected, (rows, name)
        backward = kernels.choose_path(OnGPU(rows, name), q, backward=True)
        assert backward == ("fused" if expected == "gemv" and name != "sm_75" else expected.replace("gemv", "unpack"))
    assert kernels.choose_path(OnGPU(1, "sm_90"), odd) == "unpack"
    for rows, expected in ((8, "gemv"), (16, "unpack")):
        assert kernels.choose_path(OnGPU(rows, "sm_90", torch.float32), q) == expected


def test_where_triton_promises_nothing_it_has_to_work(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: device.capability)
    for capability, expected in ((9, 0), True), ((8, 0), True), ((7, 5), False):  # there is no T4 here, so it fails
        device = type("Device", (), dict(type="cuda", capability=capability))
        assert kernels.is_sound(device) is expected
    assert kernels.is_sound(torch.device("cpu"))


def test_wrong_width_is_named():
    with pytest.raises(ValueError, match="100 features"):
        nf4_linear(torch.randn(2, 100), quantize_nf4(torch.randn(8, 128)))
