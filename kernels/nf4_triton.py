"""
Products with NF4 weights on NVIDIA and AMD GPUs, in Triton. Every kernel reads the bytes as bitsandbytes packs them,
4.127 bits a weight with double quantization, and turns them into numbers on the way to the arithmetic units.

    w  = dequantize(q, torch.bfloat16)        # (N, K), in one pass
    y  = gemv(x, q, bias, u, b)               # x (M, K), M up to 8 -> (M, N): x @ W.T + bias + u @ b.T, no tensor cores
    y  = matmul(x, q, bias, u, b)             # the same for any M, on tensor cores
    dx = input_grad(dy, q, u, a)              # dy (M, N) -> (M, K): dy @ W + u @ a

Their twins in PyTorch: dequantize_nf4 of kernels/nf4.py, and F.linear on what it returns. M rows, N outputs and K
inputs of the layer, r the rank of its LoRA branch: q.shape is (N, K), u (M, r) is already scaled, b (N, r), a (r, K).

What the kernels have in common:

  decode    One of 16 codes for each nibble, by tl.gather: a table of 64 bytes in shared memory, where 16 words lie in
            16 banks and never collide. Fifteen nested selects take about three times the instructions. The indices
            come out of an int32, because the compiler then folds the table's stride of 4 bytes into the shift.
  scale     One byte per 64 weights, looked up and multiplied once per block.
  exact     No fused multiply-add but where tl.fma says so: code8 * nested + offset has to be rounded twice, as
            bitsandbytes does, for a weight to have the same bits in every kernel, in dequantize_nf4 and there. For
            tl.dot it is then rounded once, to the dtype of x; gemv does not round it at all.

T4s (sm_75) have dequantize and gemv only: Triton has no tensor-core path for them, and tl.dot becomes arithmetic
that spills. K must be a multiple of 64, so that no block straddles two rows; dequantize takes any shape.
"""
import functools

import torch
import triton
import triton.language as tl

from kernels.nf4 import BLOCK, CODES, CODES8

# How each kernel is launched, by backend and rows of x: the first entry for at least that many rows. Chosen by what the
# compilers report (tests/test_triton.py says how), not yet by the clock: nothing spills, few instructions per weight.
DEQUANTIZE = dict(BLOCKS=128, num_warps=4)
GEMV = {  # outputs and blocks of 64 inputs that a program takes per step, warps
    "cuda": {1: (4, 32, 4), 2: (4, 32, 4), 4: (4, 32, 4), 8: (4, 16, 4)},
    "hip": {1: (4, 32, 2), 2: (4, 32, 2), 4: (4, 32, 4), 8: (4, 16, 4)},  # a warp has 64 threads there
}
TILES = {  # tile of rows, outputs and inputs (both by 64), warps, pipeline stages; 0: float32, without tensor cores
    "cuda": {0: (16, 64, 64, 8, 3), 16: (16, 64, 128, 4, 4), 32: (32, 64, 64, 4, 4), 64: (64, 64, 64, 4, 4),
             1 << 62: (128, 128, 64, 8, 3)},
    "hip": {0: (16, 64, 64, 4, 2), 16: (16, 64, 128, 4, 2), 32: (32, 64, 64, 4, 2), 64: (64, 64, 64, 4, 2),
            1 << 62: (128, 128, 64, 8, 2)},
}
PROGRAMS = 2  # a sum is split in two, four or eight until there are more than this many programs per processor
MIN_STEPS = 4  # but not into parts of fewer steps than this
SUM_TILE = dict(BLOCK_M=16, BLOCK_O=64, num_warps=4)
GROUP = 8  # tiles of rows that share a column of W while it is in the L2 cache


@triton.jit
def read_scales(absmax, nested, offset, codes8, block, keep):
    """The float32 absmax of the blocks of these numbers."""
    scale = tl.load(absmax + block, mask=keep, other=0)
    if nested is not None:  # double quantization: so far it is the number of a code
        scale = tl.load(codes8 + scale) * tl.load(nested + block // 256, mask=keep, other=0) + tl.load(offset)
    return scale


@triton.jit
def look_up(codes, index):
    """index, int32 of any shape, 0..15 -> float32 codes. Only in one dimension does tl.gather use shared memory."""
    table = tl.load(codes + tl.arange(0, 16))
    return tl.reshape(tl.gather(table, tl.ravel(index), 0), index.shape)


@triton.jit
def unpack_words(codes, word):
    """int32 words of four bytes, of any shape -> their eight codes in a new last dimension, high nibbles first."""
    return look_up(codes, (tl.expand_dims(word, -1) >> (tl.arange(0, 8) ^ 1) * 4) & 15)


@triton.jit
def dequantize_kernel(packed, absmax, nested, offset, codes, codes8, out, n, BLOCKS: tl.constexpr):
    """The weight as one flat row of n elements: BLOCKS blocks of 64 per program."""
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)  # int64: 2^31 elements are a few layers
    scale = read_scales(absmax, nested, offset, codes8, block, block * 64 < n)[:, None]
    at = block[:, None] * 8 + tl.arange(0, 8)  # the last word may end beyond the bytes, which no aligned load minds
    word = tl.load(packed.to(tl.pointer_type(tl.int32)) + at, mask=at * 8 < n, other=0)
    w = tl.reshape(unpack_words(codes, word), (BLOCKS, 64)) * scale
    at = block[:, None] * 64 + tl.arange(0, 64)
    tl.store(out + at, w.to(out.dtype.element_ty), mask=at < n)


@triton.jit
def gemv_kernel(x, packed, absmax, nested, offset, codes, codes8, bias, u, b, y, M, N, K, rank,
                RANK: tl.constexpr, ROWS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCKS: tl.constexpr):
    """
    y (M, N) for a few rows: each program takes BLOCK_N outputs and walks along K, BLOCKS * 64 inputs at a time.

    What bounds it is reading W, or on the fastest memories the instructions per weight: about six for one row, twice
    that for four, when tensor cores do better. So bytes come as words of eight weights, whose products are summed
    within a thread before the scale is applied; threads add up their sums only at the end.
    """
    n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    m = tl.arange(0, ROWS)
    blocks = K // 64
    row = n * blocks  # the number of a row's first block
    word_row = packed.to(tl.pointer_type(tl.int32)) + row[:, None, None] * 8
    x_row = x + m[:, None, None] * K
    acc = tl.zeros((ROWS, BLOCK_N, BLOCKS, 8), tl.float32)
    for first in tl.range(0, blocks, BLOCKS, num_stages=1):
        k = first + tl.arange(0, BLOCKS)
        keep = (n < N)[:, None] & (k < blocks)
        scale = read_scales(absmax, nested, offset, codes8, row[:, None] + k, keep)
        word = tl.load(word_row + (k[:, None] * 8 + tl.arange(0, 8)), mask=keep[:, :, None], other=0,
                       eviction_policy="evict_first")  # W is read once; let x stay in the cache
        at = k[:, None] * 64 + tl.arange(0, 64)
        x_tile = tl.load(x_row + at, mask=(m < M)[:, None, None] & (k < blocks)[:, None], other=0).to(tl.float32)
        x_even, x_odd = tl.split(tl.reshape(x_tile, (ROWS, 1, BLOCKS, 8, 4, 2)))
        w_even, w_odd = tl.split(tl.reshape(unpack_words(codes, word), (1, BLOCK_N, BLOCKS, 8, 4, 2)))
        product = tl.sum(tl.fma(w_even, x_even, w_odd * x_odd), 4)
        acc = tl.fma(product, scale[:, :, None], acc)
    total = tl.sum(tl.reshape(acc, (ROWS, BLOCK_N, BLOCKS * 8)), 2)
    if bias is not None:
        total += tl.load(bias + n, mask=n < N, other=0).to(tl.float32)
    if u is not None:
        for first in range(0, rank, RANK):
            r = first + tl.arange(0, RANK)
            u_tile = tl.load(u + m[:, None] * rank + r, mask=(m < M)[:, None] & (r < rank), other=0).to(tl.float32)
            b_tile = tl.load(b + n[:, None] * rank + r, mask=(n < N)[:, None] & (r < rank), other=0).to(tl.float32)
            total += tl.sum(u_tile[:, None, :] * b_tile, 2)
    tl.store(y + m[:, None] * N + n, total.to(y.dtype.element_ty), mask=(m < M)[:, None] & (n < N))


@triton.jit
def finish(acc, out, bias, u, v, m, o, M, n_out, rank, BACKWARD: tl.constexpr, RANK: tl.constexpr):
    """
    out[m, o] = acc + bias + u @ v, rounded once; acc is a float32 tile, v is b (n_out, rank) forward and a
    (rank, n_out) backward. By itself the LoRA branch would read and write all of out once more.
    """
    DTYPE: tl.constexpr = out.dtype.element_ty
    if bias is not None:
        acc += tl.load(bias + o, mask=o < n_out, other=0).to(tl.float32)
    if u is not None:
        for first in tl.range(0, rank, RANK, num_stages=1):
            r = first + tl.arange(0, RANK)
            u_tile = tl.load(u + m[:, None] * rank + r, mask=(m < M)[:, None] & (r < rank), other=0).to(DTYPE)
            at = r[:, None].to(tl.int64) * n_out + o if BACKWARD else o * rank + r[:, None]
            v_tile = tl.load(v + at, mask=(r < rank)[:, None] & (o < n_out), other=0).to(DTYPE)
            acc = tl.dot(u_tile, v_tile, acc, input_precision="ieee")
    tl.store(out + m[:, None] * n_out + o, acc.to(DTYPE), mask=(m < M)[:, None] & (o < n_out))


@triton.jit
def product_kernel(x, packed, absmax, nested, offset, codes, codes8, bias, u, v, out, M, N, K, rank, steps,
                   BACKWARD: tl.constexpr, SPLIT: tl.constexpr, RANK: tl.constexpr, BLOCK_M: tl.constexpr,
                   BLOCK_O: tl.constexpr, BLOCK_I: tl.constexpr, GROUP: tl.constexpr):
    """
    Forward x (M, K) @ W.T, backward x (M, N) @ W: out is (M, n_out), and the sum runs over n_in. Both read W in the
    same tiles, some rows by some blocks of 64, so there is no transposed copy.

    With SPLIT, program (tile, part) sums over `steps` steps of BLOCK_I only, and out is (parts, M, n_out) float32.
    """
    DTYPE: tl.constexpr = x.dtype.element_ty
    n_in, n_out = (N, K) if BACKWARD else (K, N)
    # Neighbouring programs share x or W in the L2 cache: they go down GROUP tiles of rows before the next column.
    tiles_m, tiles_o = tl.cdiv(M, BLOCK_M), tl.cdiv(n_out, BLOCK_O)
    band, place = tl.program_id(0) // (GROUP * tiles_o), tl.program_id(0) % (GROUP * tiles_o)
    height = min(GROUP, tiles_m - band * GROUP)
    tile_m, tile_o, part = band * GROUP + place % height, place // height, tl.program_id(1)
    m = tile_m.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    o = tile_o.to(tl.int64) * BLOCK_O + tl.arange(0, BLOCK_O)
    # The weights are the left factor of tl.dot if the rows are few: Hopper's tensor cores want 64 rows on the left, and
    # take 16 columns on the right. That halves the registers there, and costs nothing elsewhere.
    FLIP: tl.constexpr = BLOCK_M < 64
    acc = tl.zeros((BLOCK_O, BLOCK_M) if FLIP else (BLOCK_M, BLOCK_O), tl.float32)
    for step in range(part * steps, min(part * steps + steps, tl.cdiv(n_in, BLOCK_I))):
        i = step * BLOCK_I + tl.arange(0, BLOCK_I)
        x_tile = tl.load(x + m[:, None] * n_in + i, mask=(m < M)[:, None] & (i < n_in), other=0)
        if BACKWARD:
            n, k = i.to(tl.int64), tile_o * (BLOCK_O // 64) + tl.arange(0, BLOCK_O // 64)
        else:
            n, k = o, step * (BLOCK_I // 64) + tl.arange(0, BLOCK_I // 64)
        block = n[:, None] * (K // 64) + k
        keep = (n < N)[:, None] & (k < K // 64)
        scale = read_scales(absmax, nested, offset, codes8, block, keep)
        # Bytes here and no words: they arrive in an order that tl.dot can use after half the moves between threads.
        byte = tl.load(packed + (block[:, :, None] * 32 + tl.arange(0, 32)), mask=keep[:, :, None], other=0)
        index = tl.interleave(byte.to(tl.int32) >> 4, byte.to(tl.int32) & 15)  # the high nibble is the earlier element
        w = look_up(codes, index) * scale[:, :, None]
        w = tl.reshape(w.to(DTYPE), (n.shape[0], k.shape[0] * 64))
        w = w if BACKWARD else tl.trans(w)  # (BLOCK_I, BLOCK_O)
        if FLIP:
            acc = tl.dot(tl.trans(w), tl.trans(x_tile), acc, input_precision="ieee")
        else:
            acc = tl.dot(x_tile, w, acc, input_precision="ieee")
    if FLIP:
        acc = tl.trans(acc)
    if SPLIT:
        tl.store(out + (part * M + m[:, None]) * n_out + o, acc, mask=(m < M)[:, None] & (o < n_out))
    else:
        finish(acc, out, bias, u, v, m, o, M, n_out, rank, BACKWARD, RANK)


@triton.jit
def sum_kernel(parts, bias, u, v, out, M, n_out, rank, BACKWARD: tl.constexpr, SPLIT: tl.constexpr, RANK: tl.constexpr,
               BLOCK_M: tl.constexpr, BLOCK_O: tl.constexpr):
    """parts (SPLIT, M, n_out) float32 -> out (M, n_out), always added in the same order; atomics would come in any."""
    m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    o = tl.program_id(1).to(tl.int64) * BLOCK_O + tl.arange(0, BLOCK_O)
    keep = (m < M)[:, None] & (o < n_out)
    acc = tl.zeros((BLOCK_M, BLOCK_O), tl.float32)
    for part in tl.static_range(SPLIT):
        acc += tl.load(parts + (part * M + m[:, None]) * n_out + o, mask=keep, other=0)
    finish(acc, out, bias, u, v, m, o, M, n_out, rank, BACKWARD, RANK)


BACKEND = "hip" if torch.version.hip else "cuda"


@functools.cache
def tables(device):
    return CODES.to(device), CODES8.to(device)


def weight_args(q):
    """The arguments by which every kernel reads W."""
    packed = q.packed.clone() if q.packed.data_ptr() % 4 else q.packed  # a view may start anywhere; a word may not
    return packed, q.absmax, q.nested_absmax, q.offset, *tables(packed.device)


def contiguous(*tensors):
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def processors(device):
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 8


def pick(table, rows):
    return next(launch for most, launch in table.items() if rows <= most)


def call(kernel, grid, *args, **options):
    with torch.cuda.device_of(args[0]):  # Triton launches on the current device, wherever the tensors lie
        kernel[grid](*args, **options, enable_fp_fusion=False)


def gemv_launch(M, K, rank, backend=BACKEND):
    block_n, blocks, warps = pick(GEMV[backend], M)
    while blocks >= 2 * (K // BLOCK):  # short rows: take more of them instead
        block_n, blocks = min(2 * block_n, 16), blocks // 2
    return dict(ROWS=triton.next_power_of_2(M), BLOCK_N=block_n, BLOCKS=blocks,
                RANK=min(triton.next_power_of_2(rank), 64), num_warps=warps, num_stages=1)


def product_launch(M, dtype, backend=BACKEND):
    block_m, block_o, block_i, warps, stages = pick(TILES[backend], 0 if dtype == torch.float32 else M)
    return dict(BLOCK_M=block_m, BLOCK_O=block_o, BLOCK_I=block_i, GROUP=GROUP, num_warps=warps, num_stages=stages)


def dequantize(q, dtype, out=None):
    """NF4Tensor -> weight of q.shape in dtype, bit-equal to dequantize_nf4; `out` as there."""
    out = torch.empty(q.shape, dtype=dtype, device=q.packed.device) if out is None else out
    n = q.shape.numel()
    call(dequantize_kernel, (triton.cdiv(n, DEQUANTIZE["BLOCKS"] * BLOCK),), *weight_args(q), out, n, **DEQUANTIZE)
    return out


def gemv(x, q, bias=None, u=None, b=None):
    """x (M, K), M up to 8 -> (M, N) in the dtype of x. Sums in float32, over weights that are not rounded to it."""
    (M, K), (N, inputs) = x.shape, q.shape
    if K != inputs or K % BLOCK or M > 8:
        raise ValueError(f"gemv takes up to 8 rows of {inputs} inputs, a multiple of {BLOCK}, not {tuple(x.shape)}")
    x, bias, u, b = contiguous(x, bias, u, b)
    y, rank = x.new_empty(M, N), 1 if u is None else u.shape[1]
    if M:
        options = gemv_launch(M, K, rank)
        call(gemv_kernel, (triton.cdiv(N, options["BLOCK_N"]),), x, *weight_args(q), bias, u, b, y, M, N, K, rank,
             **options)
    return y


def product(x, q, bias, u, v, backward):
    (M, n_in), (N, K) = x.shape, q.shape
    n_out = K if backward else N
    if n_in != N + K - n_out or K % BLOCK:
        raise ValueError(f"x {tuple(x.shape)} must fit the weight {tuple(q.shape)}, and its inputs be a multiple of "
                         f"{BLOCK}; dequantize takes any")
    x, bias, u, v = contiguous(x, bias, u, v)
    out, rank = x.new_empty(M, n_out), 1 if u is None else u.shape[1]
    if not M:
        return out
    options = product_launch(M, x.dtype)
    tiles = triton.cdiv(M, options["BLOCK_M"]) * triton.cdiv(n_out, options["BLOCK_O"])
    steps, split = triton.cdiv(n_in, options["BLOCK_I"]), 1
    while split < 8 and split * tiles <= PROGRAMS * processors(x.device) and steps >= 2 * split * MIN_STEPS:
        split *= 2
    branch = dict(BACKWARD=backward, RANK=16 if rank <= 16 else 32)  # tl.dot wants 16; higher ranks take several steps
    if split == 1:
        call(product_kernel, (tiles, 1), x, *weight_args(q), bias, u, v, out, M, N, K, rank, steps, SPLIT=False,
             **branch, **options)
    else:
        parts = x.new_empty(split, M, n_out, dtype=torch.float32)
        call(product_kernel, (tiles, split), x, *weight_args(q), None, None, None, parts, M, N, K, 1,
             triton.cdiv(steps, split), SPLIT=True, **branch, **options)
        call(sum_kernel, (triton.cdiv(M, SUM_TILE["BLOCK_M"]), triton.cdiv(n_out, SUM_TILE["BLOCK_O"])), parts, bias, u,
             v, out, M, n_out, rank, SPLIT=split, **branch, **SUM_TILE)
    return out


def matmul(x, q, bias=None, u=None, b=None):
    """x (M, K) -> x @ W.T + bias + u @ b.T, (M, N) in the dtype of x."""
    return product(x, q, bias, u, b, backward=False)


def input_grad(dy, q, u=None, a=None):
    """dy (M, N) -> dy @ W + u @ a, (M, K) in the dtype of dy."""
    return product(dy, q, None, u, a, backward=True)
