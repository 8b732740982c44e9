"""
The product of activations with a 4-bit weight, by whatever is fastest for the device, the dtype and the rows.

    q = quantize_nf4(weight)                       # nf4.py, the format
    y = nf4_linear(x, q, bias)                     # x (..., in) -> (..., out), differentiable in x and bias
    y = nf4_linear(x, q, bias, a, b, scale)        # with the LoRA branch + scale * (x @ a.T) @ b.T in the same pass

Rows, M, is the number of x's rows, batch times tokens:

    1 to 3          a GEMV in Triton: bound by reading the weight, which is a quarter of bfloat16's
    to FUSED_ROWS   a Triton matmul that unpacks the weight on the way into the tensor cores
    above           unpack the weight once into a buffer, then the vendor's matmul: bound by arithmetic, which 4 bits do
                    not save; the memory allocator hands out the same buffer every time

The gradient of x needs W and not its transpose: the same bytes serve backward, by the same choice. CPUs, Apple's GPUs
and odd shapes (in not a multiple of 64) take the last path with PyTorch alone. Triton has no tensor-core path for a T4,
nor is there one for float32: there the GEMV goes on to 8 rows; and where Triton promises nothing, as on a T4, it has
to show first that it is sound. On every path but the GEMV's, which does not round them at all, weights are rounded
once, to x's dtype; sums are in float32.
"""
import functools
import importlib.util
import os

import torch

from kernels.nf4 import BLOCK, NF4Tensor, quantize_nf4
from kernels.nf4 import dequantize_nf4 as dequantize_in_torch

__all__ = ["NF4Tensor", "quantize_nf4", "dequantize_nf4", "nf4_linear"]

GEMV_ROWS = 3  # by the compilers' instruction counts; where there is no fused matmul
MOST_GEMV_ROWS = 8  # it beats unpacking up to here
# The fused matmul's last worthwhile row count, by architecture: where bitsandbytes' hand-written kernels stop winning
# (its dispatch tables) and the arithmetic intensity of each chip agrees. To be measured for these kernels.
FUSED_ROWS = {"sm_80": 128, "sm_86": 128, "sm_89": 256, "sm_90": 64, "sm_100": 64, "sm_120": 256, "gfx942": 64}

HAS_TRITON = importlib.util.find_spec("triton") is not None  # torch's CUDA and ROCm builds bring it


def architecture(device):
    """sm_90, gfx942, ... of a GPU; the name of the device's type for anything else."""
    if device.type != "cuda":
        return device.type
    if torch.version.hip:
        return torch.cuda.get_device_properties(device).gcnArchName.split(":")[0]
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))


def runs_triton(x, dtype):
    """On a GPU; on a CPU only in Triton's interpreter, slow and for tests, which gets bfloat16 wrong."""
    return HAS_TRITON and (x.is_cuda or os.environ.get("TRITON_INTERPRET") == "1" and dtype != torch.bfloat16)


@functools.cache
def is_sound(device):
    """
    Does Triton compute on this device what PyTorch does? It is made for AMD's GPUs and for NVIDIA's from sm_80 on; on
    an older one, such as a T4, it is asked once.
    """
    if device.type != "cuda" or torch.version.hip or torch.cuda.get_device_capability(device) >= (8, 0):
        return True
    try:
        from kernels import nf4_triton
        w, x = (torch.randn(192, 64, generator=torch.Generator().manual_seed(i)).half().to(device) for i in range(2))
        q = quantize_nf4(w)
        plain = dequantize_in_torch(q)
        y, expected = nf4_triton.gemv(x[:2], q, None, None, None), x[:2].float() @ plain.float().t()
        return torch.equal(nf4_triton.dequantize(q, q.dtype), plain) and torch.allclose(y.float(), expected, atol=0.1)
    except Exception:  # of a compiler that was not made for this: anything
        return False


def choose_path(x, q, backward=False):
    """"gemv" (forward only), "fused" or "unpack", for x (M, K), or backward (M, N), and a weight q (N, K)."""
    if not runs_triton(x, x.dtype) or q.shape[1] % BLOCK:
        return "unpack"
    if len(x) <= GEMV_ROWS and not backward:
        return "gemv"
    most = FUSED_ROWS.get(architecture(x.device), 0) if x.dtype in (torch.bfloat16, torch.float16) else 0
    if not x.is_cuda or len(x) <= most:
        return "fused"
    return "gemv" if len(x) <= MOST_GEMV_ROWS and not backward else "unpack"


def dequantize_nf4(q, dtype=None, out=None):
    """NF4Tensor -> weight of q.shape in dtype (default: the one it was made from); `out` is written if given."""
    if not runs_triton(q.packed, dtype or q.dtype) or not is_sound(q.packed.device):
        return dequantize_in_torch(q, dtype, out)
    from kernels import nf4_triton
    return nf4_triton.dequantize(q, dtype or q.dtype, out)


def nf4_linear(x, q, bias=None, a=None, b=None, scale=1.0):
    """
    x @ W.T + bias, and with a (r, in), b (out, r) also + scale * (x @ a.T) @ b.T.

    x (..., in) float32, bfloat16 or float16, or under autocast what that says; q NF4Tensor (out, in); returns
    (..., out) in x's dtype. Differentiable in x, bias, a and b; the weight stays as it is.
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    if x.shape[-1] != q.shape[1]:
        raise ValueError(f"x has {x.shape[-1]} features, the weight takes {q.shape[1]}")
    x, bias, a, b = (None if t is None else t.to(dtype) for t in (x, bias, a, b))
    y, _ = torch.ops.tenk.nf4_linear(x.reshape(-1, x.shape[-1]), q.packed, q.absmax, q.nested_absmax, q.offset,
                                     q.shape[0], bias, a, b, scale)
    return y.view(*x.shape[:-1], q.shape[0])


# ----------------------------------------------------------------------------------------------------------------------
# As operators with a fake and a gradient, so that torch.compile sees one node and does not look inside


def weight_of(packed, absmax, nested_absmax, offset, N, K, dtype):
    return NF4Tensor(packed, absmax, torch.Size((N, K)), dtype, nested_absmax, offset)


@torch.library.custom_op("tenk::nf4_linear", mutates_args=())
def _linear(x: torch.Tensor, packed: torch.Tensor, absmax: torch.Tensor, nested_absmax: torch.Tensor | None,
            offset: torch.Tensor | None, N: int, bias: torch.Tensor | None, a: torch.Tensor | None,
            b: torch.Tensor | None, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """x (M, K) -> y (M, N) and u = scale * x @ a.T (M, r), which backward needs again."""
    q = weight_of(packed, absmax, nested_absmax, offset, N, x.shape[1], x.dtype)
    u = x.new_empty(len(x), 0) if a is None else (x @ a.t()).mul_(scale)
    path = choose_path(x, q) if is_sound(x.device) else "unpack"
    if path == "unpack":
        y = torch.nn.functional.linear(x, dequantize_nf4(q), bias)
        return y if a is None else y.addmm_(u, b.t()), u
    from kernels import nf4_triton
    kernel = nf4_triton.gemv if path == "gemv" else nf4_triton.matmul
    return kernel(x.contiguous(), q, bias, None if a is None else u, b), u


@_linear.register_fake
def _(x, packed, absmax, nested_absmax, offset, N, bias, a, b, scale):
    return x.new_empty(x.shape[0], N), x.new_empty(x.shape[0], 0 if a is None else a.shape[0])


@torch.library.custom_op("tenk::nf4_input_grad", mutates_args=())
def _input_grad(dy: torch.Tensor, packed: torch.Tensor, absmax: torch.Tensor, nested_absmax: torch.Tensor | None,
                offset: torch.Tensor | None, K: int, du: torch.Tensor | None, a: torch.Tensor | None) -> torch.Tensor:
    """dy (M, N) -> dx = dy @ W + du @ a, (M, K)."""
    q = weight_of(packed, absmax, nested_absmax, offset, dy.shape[1], K, dy.dtype)
    if not is_sound(dy.device) or choose_path(dy, q, backward=True) == "unpack":
        dx = dy @ dequantize_nf4(q)
        return dx if a is None else dx.addmm_(du, a)
    from kernels import nf4_triton
    return nf4_triton.input_grad(dy.contiguous(), q, du, a)


@_input_grad.register_fake
def _(dy, packed, absmax, nested_absmax, offset, K, du, a):
    return dy.new_empty(dy.shape[0], K)


def _save_for_backward(ctx, inputs, output):
    x, *weight, _, bias, a, b, scale = inputs
    ctx.scale, ctx.K = scale, x.shape[1]
    ctx.save_for_backward(*weight, *((None, None, None, None) if a is None else (x, a, b, output[1])))


def _backward(ctx, dy, _):
    *weight, x, a, b, u = ctx.saved_tensors
    du = None if a is None else (dy @ b).mul_(ctx.scale)  # the gradient of x @ a.T
    dx = torch.ops.tenk.nf4_input_grad(dy, *weight, ctx.K, du, a) if ctx.needs_input_grad[0] else None
    dbias = dy.sum(0) if ctx.needs_input_grad[6] else None
    da, db = (None, None) if a is None else (du.t() @ x, dy.t() @ u)
    return dx, None, None, None, None, None, dbias, da, db, None


_linear.register_autograd(_backward, setup_context=_save_for_backward)
