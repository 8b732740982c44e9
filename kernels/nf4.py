"""
NF4, the 4-bit format of QLoRA (Dettmers et al. 2023), as bitsandbytes writes it, bit for bit, in plain PyTorch.

    q = quantize_nf4(weight)              # weight (out, in) float32, bfloat16 or float16 -> NF4Tensor, 4.127 bits each
    w = dequantize_nf4(q)                 # -> (out, in) in the weight's dtype
    state = q.state_dict("fc.weight")     # the keys and tensors that bitsandbytes puts into safetensors

The format, for a weight of n = out * in elements, flattened row by row:

  blocks    64 consecutive elements share one scale, absmax = max|w|. A block may straddle two rows.
  codes     each element becomes the index of the nearest of 16 CODES to w / absmax, the quantiles of a normal
            distribution that cover [-1, 1] and hold an exact zero. A tie takes the lower index.
  packed    two indices to a byte, the earlier element in the HIGH nibble: uint8 (ceil(n / 2), 1).
  double    the scales are quantized too, 256 at a time: their mean over the whole tensor is the `offset`; what is left,
            over the largest of its 256, becomes the index of the nearest of 256 signed floating-point-like codes.
            64 elements then cost 32 bytes + 1 byte + 4/256 bytes.
  back      w = code * absmax in float32, rounded once to the output's dtype, where with double quantization
            absmax = code8[q8] * nested_absmax + offset, in float32 with a rounding after each operation.

Everything here runs on any device; on a CPU this is also the fast path.
"""
import json
from dataclasses import dataclass, replace

import torch

BLOCK = 64  # elements that share an absmax
NESTED_BLOCK = 256  # absmax values that share a nested absmax
CODES = torch.tensor([-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
                      -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
                      0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
                      0.7229568362236023, 1.0])
PAIRS = torch.stack([CODES.repeat_interleave(16), CODES.repeat(16)], 1)  # a byte -> its two codes, (256, 2)
TINY = 1e-38  # in place of a scale of zero
CHUNK = 1 << 18  # bytes of packed weights handled at a time, so that what lies between stays in the processor's cache


def dynamic_codes():
    """
    The 256 codes of the scales, ascending (Dettmers 2016, "8-bit approximations for parallelism"): seven decades from
    1e-6 up to 1, the i-th with 2^i values evenly spaced between a tenth and the whole of it, both signs, and 0 and 1.
    """
    values = [0.0, 1.0]
    for i in range(7):
        edges = torch.linspace(0.1, 1, 2**i + 1)
        middles = 10 ** (i - 6) * ((edges[:-1] + edges[1:]) / 2)
        values += middles.tolist() + (-middles).tolist()
    return torch.tensor(sorted(values))


CODES8 = dynamic_codes()


@dataclass
class NF4Tensor:
    """
    A weight in NF4. packed uint8 (ceil(n / 2), 1); absmax one per 64 elements: float32, or with double quantization
    uint8, and then nested_absmax float32 (one per 256 of those) and offset float32 () go with it. shape and dtype are
    those of the weight it was made from.
    """
    packed: torch.Tensor
    absmax: torch.Tensor
    shape: torch.Size
    dtype: torch.dtype
    nested_absmax: torch.Tensor | None = None
    offset: torch.Tensor | None = None

    def tensors(self):
        """What has to be stored: name -> tensor."""
        return {k: v for k, v in vars(self).items() if isinstance(v, torch.Tensor)}

    def to(self, device):
        return replace(self, **{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def nbytes(self):
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors().values())

    def scales(self):
        """The absmax of each block, float32."""
        if self.nested_absmax is None:
            return self.absmax
        codes = CODES8.to(self.absmax.device)[self.absmax.int()]
        return codes * self.nested_absmax.repeat_interleave(NESTED_BLOCK)[: len(codes)] + self.offset

    def state_dict(self, name="weight"):
        """The entries that bitsandbytes writes for a weight of this name: tensors, and a JSON text as uint8."""
        about = dict(quant_type="nf4", blocksize=BLOCK, dtype=str(self.dtype).removeprefix("torch."),
                     shape=list(self.shape))
        state = {name: self.packed, f"{name}.absmax": self.absmax, f"{name}.quant_map": CODES.clone()}
        if self.nested_absmax is not None:
            about |= dict(nested_blocksize=NESTED_BLOCK, nested_dtype="float32", nested_offset=self.offset.item())
            state |= {f"{name}.nested_absmax": self.nested_absmax, f"{name}.nested_quant_map": CODES8.clone()}
        text = json.dumps(about).encode()
        return state | {f"{name}.quant_state.bitsandbytes__nf4": torch.tensor(list(text), dtype=torch.uint8)}

    @classmethod
    def from_state_dict(cls, state, name="weight"):
        """The reverse of state_dict; takes its entries out of `state`. Raises ValueError for any other 4-bit format."""
        own = {key[len(name) + 1 :]: state.pop(key) for key in list(state) if key.startswith(name + ".")}
        try:
            packed = state.pop(name)
            about = json.loads(bytes(own["quant_state.bitsandbytes__nf4"].tolist()))
            shape, dtype = torch.Size(about["shape"]), getattr(torch, about["dtype"])
            nested = "nested_absmax" in own
            offset = torch.tensor(float(about["nested_offset"]), device=packed.device) if nested else None
            n, blocks = shape.numel(), -(-shape.numel() // BLOCK)
            known = (about["quant_type"] == "nf4" and about["blocksize"] == BLOCK
                     and torch.equal(own["quant_map"].cpu(), CODES)
                     and (not nested or about["nested_blocksize"] == NESTED_BLOCK
                          and torch.equal(own["nested_quant_map"].cpu(), CODES8)))
            packed = packed.contiguous().view(torch.uint8).view(-1, 1)  # it may lie in another dtype, for FSDP
            fits = len(packed) == (n + 1) // 2 and own["absmax"].shape == (blocks,) and (
                not nested or own["nested_absmax"].shape == (-(-blocks // NESTED_BLOCK),)) and (
                own["absmax"].dtype == (torch.uint8 if nested else torch.float32)) and (
                dtype in (torch.float32, torch.bfloat16, torch.float16))
        except (KeyError, ValueError, AttributeError, TypeError) as e:
            raise ValueError(f"{name} is no NF4 weight of bitsandbytes ({type(e).__name__}: {e})") from None
        if not known:
            raise ValueError(f"{name} is quantized otherwise than as nf4 in blocks of {BLOCK}; only that is read")
        if not fits:
            raise ValueError(f"{name} is damaged: its bytes or scales do not match its shape {tuple(shape)}")
        return cls(packed, own["absmax"], shape, dtype, own["nested_absmax"].float() if nested else None, offset)


def blockwise_absmax(x, size):
    """x (n,) float32 -> (blocks, size), padded with zeros, and the largest magnitude of each block, (blocks,)."""
    x = torch.nn.functional.pad(x, (0, -len(x) % size)).view(-1, size)
    return x, x.abs().amax(1)


def nearest(x, codes):
    """The index of the nearest of the ascending codes, int32: how many midpoints between them lie below x."""
    return torch.bucketize(x, ((codes[:-1] + codes[1:]) / 2).to(x.device), out_int32=True)


def quantize_nf4(weight, double_quant=True):
    """
    weight, of any shape, float32, bfloat16 or float16 -> NF4Tensor on the same device, bit-equal to
    bitsandbytes.functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=double_quant) on a CPU. (Its GPU
    kernels write other bytes for blocks that are all zeros; they mean the same.) Raises ValueError if a weight is not
    finite or the dtype is another.
    """
    if weight.dtype not in (torch.float32, torch.bfloat16, torch.float16) or not weight.numel():
        raise ValueError(f"only weights of float32, bfloat16 or float16 can be quantized, "
                         f"not {weight.dtype} of shape {tuple(weight.shape)}")
    flat = weight.detach().reshape(-1)
    n, step = len(flat), 2 * CHUNK
    packed = torch.empty((n + 1) // 2, 1, dtype=torch.uint8, device=weight.device)
    absmax = torch.empty(-(-n // BLOCK), device=weight.device)
    for i in range(0, n, step):
        x, scale = blockwise_absmax(flat[i : i + step].float(), BLOCK)
        inverse = 1 / scale.clamp(min=TINY)
        if i + step > n and n % BLOCK:  # bitsandbytes treats a last, incomplete block a little otherwise
            scale[-1].clamp_(min=TINY)
            x[-1], inverse[-1] = x[-1] / scale[-1], 1.0
        absmax[i // BLOCK : i // BLOCK + len(scale)] = scale
        x = (x * inverse[:, None]).clamp(-1, 1)
        index = nearest(x, CODES).view(-1, 2).byte()
        packed[i // 2 : (i + step) // 2, 0] = (index[:, 0] << 4 | index[:, 1])[: (min(n, i + step) - i + 1) // 2]
    if not absmax.isfinite().all():
        raise ValueError("the weight holds NaN or infinity, so it can't be quantized")
    if not double_quant:
        return NF4Tensor(packed, absmax, weight.shape, weight.dtype)
    offset = absmax.mean()
    x, nested_absmax = blockwise_absmax(absmax - offset, NESTED_BLOCK)
    x = x * (1 / nested_absmax).nan_to_num(posinf=0.0)[:, None]
    if weight.device.type == "cpu":  # bitsandbytes rounds to a grid of 65,536 first here, and writes 0 for no spread
        grid = ((x.clamp(-1, 1) + 1) * 0.5 * 65535 + 0.5).int()
        q8 = nearest(-1 + 2.0 * grid / 65535, CODES8)
        q8[nested_absmax == 0] = 0
    else:
        q8 = nearest(x, CODES8)
    return NF4Tensor(packed, q8.view(-1)[: len(absmax)].byte(), weight.shape, weight.dtype, nested_absmax, offset)


def dequantize_nf4(q, dtype=None, out=None):
    """
    NF4Tensor -> weight of q.shape in dtype (default: the one it was made from), bit-equal to bitsandbytes. `out`, a
    contiguous tensor of that many elements and the dtype, is written instead of a new one.

    A table of 256 pairs turns each byte into both its codes at once; a pair of float32 moves as one int64.
    """
    n, device = q.shape.numel(), q.packed.device
    pairs = PAIRS.to(device).view(torch.int64).view(-1)
    packed, scales = q.packed.view(-1), q.scales()
    out = torch.empty(q.shape, dtype=dtype or q.dtype, device=device) if out is None else out
    flat = out.view(-1)
    step = CHUNK if device.type == "cpu" else 64 * CHUNK
    for i in range(0, len(packed), step):
        codes = pairs.index_select(0, packed[i : i + step].long()).view(torch.float32)
        whole = len(codes) // BLOCK * BLOCK
        scale = scales[2 * i // BLOCK :]
        codes[:whole].view(-1, BLOCK).mul_(scale[: whole // BLOCK, None])
        if whole < len(codes):  # the last block of an odd size
            codes[whole:] *= scale[whole // BLOCK]
        flat[2 * i : 2 * i + len(codes)] = codes[: n - 2 * i]
    return out
