"""
The Triton kernels against their twins in PyTorch: on a GPU if there is one, otherwise on a CPU in Triton's interpreter.
test_triton.py runs this file in a process of its own, because TRITON_INTERPRET has to be set before Triton is imported,
and would break whatever wants to compile in the same process.

In the interpreter in float16 and float32 only: it multiplies the bits of bfloat16 as if they were integers, and cuts
off where it should round (triton issue 11584, "we just don't support it").
"""
import os

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F

from kernels import nf4_triton
from kernels.nf4 import dequantize_nf4, quantize_nf4
from kernels.nf4_triton import dequantize, gemv, input_grad, matmul

GPU = os.environ.get("TRITON_INTERPRET") != "1"
torch.set_default_device("cuda" if GPU else "cpu")
few = hypothesis.settings(max_examples=10, deadline=None, derandomize=True)
dtypes = pytest.mark.parametrize("dtype", [torch.float16, torch.float32] + GPU * [torch.bfloat16], ids=str)


def quantized(N, K, double=True, seed=0):
    torch.manual_seed(seed)
    # scales of all sizes, so that a wrong one shows
    return quantize_nf4(torch.randn(N, K) * torch.logspace(-2, 0, N)[torch.randperm(N), None], double)


def as_good_as(got, exact, torchs):
    """got has at most 1.1 times the error of PyTorch's own result, in the mean and at worst."""
    assert got.dtype == torchs.dtype and got.shape == torchs.shape
    error, theirs = (got.double() - exact).abs(), (torchs.double() - exact).abs()
    ulp = torch.finfo(got.dtype).eps * exact.abs()
    luck = 0.5 if got.dtype == torch.float32 else 0.05  # in float32 the order of the sum decides
    assert error.mean() <= 1.1 * theirs.mean() + luck * ulp.mean()
    assert error.max() <= 1.1 * theirs.max() + luck * ulp.max()


def check(function, M, N, K, dtype, rank=0, bias=True, double=True, seed=0):
    q = quantized(N, K, double, seed)
    w = dequantize_nf4(q, dtype)
    backward = function is input_grad
    n_in, n_out = (N, K) if backward else (K, N)
    x = torch.randn(M, n_in, dtype=dtype)
    bias = torch.randn(n_out, dtype=dtype) if bias and not backward else None
    u = torch.randn(M, rank, dtype=dtype) if rank else None
    v = torch.randn((rank, n_out) if backward else (n_out, rank), dtype=dtype) if rank else None

    def plain(x, w, bias, u, v):
        y = F.linear(x, w.t() if backward else w, bias)
        return y if u is None else y + u @ (v if backward else v.t())

    got = function(x, q, u, v) if backward else function(x, q, bias, u, v)
    exact_w = dequantize_nf4(q, torch.float32) if function is gemv else w  # gemv does not round its weights
    exact = plain(*(None if tensor is None else tensor.double() for tensor in (x, exact_w, bias, u, v)))
    as_good_as(got, exact, plain(x, w, bias, u, v))


@dtypes
@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("shape", [(64, 128), (3, 64), (1, 1), (7, 9), (5, 333), (130, 131), (33, 1000), (300, 64)])
def test_dequantize_is_bit_equal(shape, double, dtype):
    q = quantized(*shape, double)
    assert torch.equal(dequantize(q, dtype), dequantize_nf4(q, dtype))


@few
@hypothesis.given(st.integers(1, 90), st.integers(1, 300), st.booleans(), st.integers(0, 9))
def test_dequantize_any_shape(N, K, double, seed):
    q = quantized(N, K, double, seed)
    out = torch.full((N, K), torch.nan, dtype=torch.float16)
    assert dequantize(q, torch.float16, out=out) is out
    assert torch.equal(out, dequantize_nf4(q, torch.float16))


@dtypes
@pytest.mark.parametrize("M", range(1, 9))
def test_gemv(M, dtype):
    check(gemv, M, 21, 320, dtype, rank=M % 3 * 8)


@dtypes
@pytest.mark.parametrize("M", [1, 3, 17, 33, 70])
@pytest.mark.parametrize("function", [matmul, input_grad])
def test_products(function, M, dtype):
    check(function, M, 131, 192, dtype)


@dtypes
@pytest.mark.parametrize("rank", [1, 5, 16, 64])
@pytest.mark.parametrize("function", [gemv, matmul, input_grad])
def test_lora_branch(function, rank, dtype):
    check(function, 5, 70, 128, dtype, rank)


@pytest.mark.parametrize("function", [gemv, matmul, input_grad])
def test_plain_scales(function):
    check(function, 3, 65, 192, torch.float16, rank=8, double=False)


@few
@hypothesis.given(M=st.integers(1, 40), N=st.integers(1, 140), blocks=st.integers(1, 6), rank=st.integers(0, 40),
                  bias=st.booleans(), seed=st.integers(0, 9))
def test_products_of_any_shape(M, N, blocks, rank, bias, seed):
    for function in (matmul, input_grad, gemv) if M <= 8 else (matmul, input_grad):
        check(function, M, N, 64 * blocks, torch.float16, rank, bias, seed=seed)


@pytest.mark.parametrize("function", [matmul, input_grad])
@pytest.mark.parametrize("M, size, parts", [(2, 2048, 4), (20, 2112, 8)])
def test_split_sums(function, M, size, parts, monkeypatch):
    """Long sums are split between programs; of 33 steps in eight parts the last part gets none."""
    calls = []
    monkeypatch.setattr(nf4_triton, "processors", lambda device: 1000)
    monkeypatch.setattr(nf4_triton, "call", lambda kernel, *args, call=nf4_triton.call, **options: (
        calls.append(options["SPLIT"]), call(kernel, *args, **options)))
    N, K = (size, 64) if function is input_grad else (33, size)
    check(function, M, N, K, torch.float16, rank=3)
    assert calls == [True, parts]


@pytest.mark.parametrize("function", [gemv, matmul])
@dtypes
def test_one_hot_rows_read_the_weight(function, dtype):
    q = quantized(16, 128)
    rows = torch.eye(128, dtype=dtype).split(8 if function is gemv else 128)
    assert torch.equal(torch.cat([function(x, q) for x in rows]), dequantize_nf4(q, dtype).t())


def test_one_hot_rows_read_the_weight_backward():
    q = quantized(37, 192)
    assert torch.equal(input_grad(torch.eye(37), q), dequantize_nf4(q, torch.float32))


@pytest.mark.parametrize("double", [True, False])
def test_blocks_of_zeros(double):
    weight = torch.randn(40, 256)
    weight[:, 64:128] = 0
    weight[7] = 0
    q = quantize_nf4(weight, double)
    assert torch.equal(dequantize(q, torch.float16), dequantize_nf4(q, torch.float16))
    w, x, dy = dequantize_nf4(q, torch.float32), torch.randn(3, 256), torch.randn(3, 40)
    for got, wanted in (gemv(x, q), x @ w.t()), (matmul(x, q), x @ w.t()), (input_grad(dy, q), dy @ w):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_strides_dtypes_and_no_rows():
    """x may be a slice, the packed bytes may start anywhere, the LoRA factors be float32 beside float16, M be 0."""
    q = quantized(20, 128)
    q.packed = torch.cat([q.packed[:1], q.packed])[1:]
    assert q.packed.data_ptr() % 4
    x, u, b = torch.randn(4, 256).half()[:, ::2], torch.randn(4, 2), torch.randn(2, 20).t()
    wanted = x.float() @ dequantize_nf4(q, torch.float16).float().t() + u @ b.t()
    for function in (gemv, matmul):
        torch.testing.assert_close(function(x, q, None, u, b).float(), wanted, rtol=2e-3, atol=2e-3)
        assert function(x[:0], q).shape == (0, 20)
    assert input_grad(torch.randn(0, 20), q).shape == (0, 128)


def test_errors_name_the_shapes():
    q, odd = quantized(20, 128), quantized(20, 100)
    for function in (gemv, matmul, input_grad):
        with pytest.raises(ValueError, match="multiple of 64"):
            function(torch.randn(2, 20 if function is input_grad else 100), odd)
        with pytest.raises(ValueError, match=r"\(2, 7\)"):
            function(torch.randn(2, 7), q)
    with pytest.raises(ValueError, match="up to 8 rows"):
        gemv(torch.randn(9, 128), q)
