"""
Products with NF4 weights: our kernels against the vendor's 16-bit matmul and bitsandbytes, as JSON.

    python bench/kernels.py --out kernels.json                              # all shapes and rows that suit the device
    python bench/kernels.py --shapes 4096x4096 --rows 1 8 16 32 64 128      # outputs x inputs of the weight

Sides, on the same 4-bit bytes, one process, alternating; medians of the rounds and of the ratios within a round:

  tenk           nf4_linear, with the path the dispatcher takes; `tenk gemv`, `tenk fused` and `tenk unpack` are its
                 three paths each by itself, from which FUSED_ROWS in kernels/__init__.py can be set
  vendor         F.linear (cuBLAS, hipBLAS, MKL) with the unpacked weight in the same dtype
  bitsandbytes   Linear4bit

Measured: the product (`forward`), the gradient of x through autograd, unpacking alone, and as yardsticks a large copy
and a large matmul. On a GPU calls are timed by events and queued behind a write of 512 MB, which empties the L2 cache
and hides launches; up to 8 rows there is also `forward launched`, on an idle GPU, where they count, and `forward in a
CUDA graph`, where there are none. On a CPU caches are warm, and all sides run with our setting of the allocator
(cli.keep_freed_memory). Before any time is taken, every side's result is compared with a float64 product; a wrong one
ends the run. What can't be measured on this device is null, and listed under not_measured.
"""
import argparse
import statistics
import sys

import torch
import torch.nn.functional as F

from train import finish, machine, timed  # isort: skip

from qlora import differing_bytes, goal

import cli
from kernels import HAS_TRITON, architecture, choose_path, dequantize_nf4, nf4_linear, quantize_nf4

GPT2 = ["2304x768", "3072x768", "768x3072"]
SHAPES = {False: ["2048x2048", *GPT2], True: [*GPT2, "4096x4096", "4096x14336", "8192x28672"]}  # by: on a GPU?
ROWS = {False: [1, 16, 256, 2048], True: [2**i for i in range(14)]}
ERROR = {torch.float32: 1e-5, torch.bfloat16: 4e-3, torch.float16: 1e-3}  # relative to the norm; 16 x for one element
LARGE, HUGE = 2048 * 2048, 4096 * 4096  # weights that goals are about; for smaller ones launches count most


def per_call(function, calls, device, flush, idle):
    """Seconds of a call: on a GPU the median of `calls` with a cold L2 cache, on a CPU the mean."""
    if flush is None:
        def repeat():
            for _ in range(calls):
                function()
        return timed(repeat, device) / calls
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(calls)]
    for start, end in events:
        flush.zero_()
        if idle:
            torch.cuda.synchronize()
        start.record()
        function()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in events) / 1e3


def alternate(arms, rounds, device, flush, idle=False):
    """Seconds per call, {arm: [one per round], or None for an arm that is None}; the order turns round each time."""
    live = {name: f for name, f in arms.items() if f}
    calls = {}
    for name, function in live.items():
        function()
        calls[name] = min(20, max(3 if flush is not None else 1, int(0.02 / timed(function, device))))
    seconds = {name: [] if f else None for name, f in arms.items()}
    for i in range(rounds):
        for name in list(live) if i % 2 == 0 else reversed(list(live)):
            seconds[name].append(per_call(live[name], calls[name], device, flush, idle))
    return seconds


def check(arms, reference, limit, where):
    """The relative error of every side; a wrong result ends the run."""
    errors = {}
    for name, function in arms.items():
        if function:
            gap = function().double() - reference
            errors[name] = float(gap.norm() / reference.norm())
            worst = float(gap.abs().max() / reference.square().mean().sqrt())
            in_bf16 = name == "bitsandbytes" and gap.device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
            most = max(limit, ERROR[torch.bfloat16]) if in_bf16 else limit  # there it is, whatever the dtype
            if not (errors[name] <= most and worst <= 16 * most):
                raise SystemExit(f"{name} is wrong: {where}: relative error {errors[name]:.2g}, of one element "
                                 f"{worst:.2g}; at most {most} and {16 * most}. No speed is reported.")
    return errors


def in_graph(function):
    """A function that replays one call, and returns the same tensor each time."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        function()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = function()
    out.zero_()  # whoever launched outside the capture now leaves zeros behind, and fails the check

    def replay():
        graph.replay()
        return out
    return replay


class Bench:
    def __init__(self, args):
        self.device = cli.choose_device(args.device)
        self.dtype = getattr(torch, cli.choose_dtype(args.dtype, self.device))
        self.gpu = self.device.type == "cuda"
        self.triton = HAS_TRITON and self.gpu
        self.rounds, self.records, self.differing, self.missing = args.rounds, [], {}, {}
        # more than any L2, and than AMD's Infinity Cache of 256 MB
        self.flush = torch.empty(2**29, dtype=torch.uint8, device=self.device) if self.gpu else None
        if not self.triton:
            self.missing["tenk gemv, tenk fused"] = "they need a GPU and Triton"
        if not self.gpu:
            self.missing["forward launched, forward in a CUDA graph"] = "need a GPU"
        try:
            import bitsandbytes
            probe = bitsandbytes.nn.Linear4bit(64, 64, quant_type="nf4").to(self.device)
            probe(torch.ones(1, 64, device=self.device, dtype=self.dtype))
            self.bnb = bitsandbytes
        except Exception as e:  # not installed, no library for this GPU, no kernel for this device: each has its class
            self.bnb, self.missing["bitsandbytes"] = None, f"{type(e).__name__}: {e}"

    def yardsticks(self):
        """Bytes per second of a copy, read and written, and FLOP/s of the vendor's matmul; the best of the rounds."""
        size, n = (2**30, 8192) if self.gpu else (2**27, 2048)
        source = torch.zeros(size, dtype=torch.uint8, device=self.device)
        target = torch.ones_like(source)
        a, b = torch.randn(2, n, n, device=self.device, dtype=self.dtype)
        seconds = alternate(dict(copy=lambda: target.copy_(source), matmul=lambda: a @ b), self.rounds, self.device,
                            self.flush)
        self.bandwidth, self.peak = 2 * size / min(seconds["copy"]), 2 * n**3 / min(seconds["matmul"])
        print(f"copy {self.bandwidth / 1e9:,.0f} GB/s, the vendor's matmul {self.peak / 1e12:,.2f} TFLOP/s", flush=True)

    def measure(self, what, q, rows, arms, reference, traffic=None, flops=None, path=None, idle=False):
        """One record: check the results, time the arms, print a line. traffic: the bytes that have to move."""
        where = dict(what=what, shape="{}x{}".format(*q.shape), rows=rows, dtype=str(self.dtype)[len("torch.") :])
        errors = check(arms, reference, ERROR[self.dtype], where)
        seconds = alternate(arms, self.rounds, self.device, self.flush, idle)
        median = {name: s and statistics.median(s) for name, s in seconds.items()}
        ours = median["tenk"]
        self.records.append(where | dict(
            path=path, error=errors, microseconds={name: s and 1e6 * s for name, s in median.items()},
            speedup_over={name: s and statistics.median(b / a for a, b in zip(seconds["tenk"], s, strict=True))
                          for name, s in seconds.items() if name != "tenk"},
            percent_of_bandwidth=traffic and 100 * traffic / ours / self.bandwidth,
            percent_of_peak=flops and 100 * flops / ours / self.peak))
        print(f"{where['shape']} {rows or '':>5} {what:<23} " + "  ".join(
            f"{name} {1e6 * s:,.1f}" for name, s in median.items() if s) + " us", flush=True)

    def weight(self, N, K, rows):
        """All measurements of one weight."""
        torch.manual_seed(0)
        w = 0.02 * torch.randn(N, K, device=self.device, dtype=self.dtype)
        q, side = quantize_nf4(w), None
        if self.bnb:
            share = self.differing[f"{N}x{K}"] = differing_bytes(
                q, *self.bnb.functional.quantize_4bit(w, quant_type="nf4", compress_statistics=True))
            if share > (1e-5 if self.gpu else 0):  # fast arithmetic in its CUDA kernels may tip a tie
                raise SystemExit(f"{share:.2g} of the 4-bit bytes and scales of {N}x{K} are not bitsandbytes'")
            side = self.linear4bit(q).weight
        w, exact = dequantize_nf4(q, self.dtype), dequantize_nf4(q, torch.float32).double()
        self.measure("unpack", q, None, dict(
            tenk=lambda: dequantize_nf4(q, self.dtype),
            bitsandbytes=self.bnb and (lambda: self.bnb.functional.dequantize_4bit(side, side.quant_state))),
            exact, q.nbytes() + w.numel() * w.element_size())
        for M in rows:
            x = torch.randn(M, K, device=self.device, dtype=self.dtype)
            self.products(q, w, exact, x)
            self.gradients(q, w, exact, x.requires_grad_())

    def linear4bit(self, q):
        """bitsandbytes' layer around our very bytes."""
        state = q.state_dict()
        layer = self.bnb.nn.Linear4bit(q.shape[1], q.shape[0], bias=False, compute_dtype=self.dtype, device="meta")
        layer.weight = self.bnb.nn.Params4bit.from_prequantized(state.pop("weight"), state, device=self.device)
        return layer

    def paths(self, x, q, forward):
        """The dispatcher's paths by themselves; None for those that are not there."""
        arms = dict.fromkeys(("tenk gemv", "tenk fused"))
        if self.triton and q.shape[1] % 64 == 0:
            from kernels import nf4_triton
            if forward and len(x) <= 8:
                arms["tenk gemv"] = lambda: nf4_triton.gemv(x, q)
            if architecture(self.device) != "sm_75":  # Triton has no tensor-core path for it
                arms["tenk fused"] = lambda: (nf4_triton.matmul if forward else nf4_triton.input_grad)(x, q)
        arms["tenk unpack"] = lambda: x @ (dequantize_nf4(q, self.dtype).t() if forward else
                                           dequantize_nf4(q, self.dtype))
        return arms

    def products(self, q, w, exact, x):
        side = self.linear4bit(q).eval() if self.bnb else None  # eval: on some CPUs it packs the bytes in its own way
        arms = {"tenk": lambda: nf4_linear(x, q), **self.paths(x, q, forward=True), "vendor": lambda: F.linear(x, w),
                "bitsandbytes": side and (lambda: side(x))}
        M, (N, K) = len(x), q.shape
        figures = dict(reference=x.double() @ exact.t(), path=choose_path(x, q), flops=2 * M * N * K,
                       traffic=(q.nbytes() + M * (N + K) * x.element_size()) if M <= 8 else None)
        self.measure("forward", q, M, arms, **figures)
        if self.gpu and M <= 8:
            self.measure("forward launched", q, M, arms, **figures, idle=True)
            graphs = {}
            for name, function in arms.items():
                try:
                    graphs[name] = function and in_graph(function)
                except RuntimeError as e:
                    graphs[name], self.missing[f"{name} in a CUDA graph"] = None, str(e).splitlines()[0]
            if graphs["tenk"]:
                self.measure("forward in a CUDA graph", q, M, graphs, **figures)

    def gradients(self, q, w, exact, x):
        M, (N, K) = len(x), q.shape
        dy = torch.randn(M, N, device=self.device, dtype=self.dtype)

        def backward(y):
            return y if y is None else lambda: torch.autograd.grad(y, x, dy, retain_graph=True)[0]
        arms = {"tenk": backward(nf4_linear(x, q)), **self.paths(dy, q, forward=False),
                "vendor": backward(F.linear(x, w)),
                "bitsandbytes": backward(self.linear4bit(q)(x) if self.bnb else None)}
        self.measure("gradient of x", q, M, arms, dy.double() @ exact, flops=2 * M * N * K, path=choose_path(dy, q))

    # ------------------------------------------------------------------------------------------------------------------
    # the summary

    def worst(self, what, over, rows, size, figure="speedup_over"):
        """The smallest figure over the weights of at least `size`, within rows (first, last); None if there is none."""
        found = []
        for r in self.records:
            N, K = map(int, r["shape"].split("x"))
            if r["what"] == what and N * K >= size and (rows is None or rows[0] <= r["rows"] <= rows[1]):
                found.append(r[figure][over] if over else r[figure])
        return min((f for f in found if f is not None), default=None)

    def goals(self):
        goals = {}
        few, speed = "forward in a CUDA graph", self.worst
        several = (2, 64) if self.triton else (0, -1)  # without a kernel of our own there is nothing to compare
        goal(goals, "1 row over vendor, in a graph", speed(few, "vendor", (1, 1), HUGE), 3.0)
        goal(goals, "1 row, % of bandwidth, in a graph", speed(few, None, (1, 1), HUGE, "percent_of_bandwidth"), 80)
        goal(goals, "1 to 8 rows over bitsandbytes, in a graph", speed(few, "bitsandbytes", (1, 8), HUGE), 1.2)
        goal(goals, "2 to 64 rows over unpack + vendor", speed("forward", "tenk unpack", several, LARGE), 2.0)
        goal(goals, "2 to 64 rows over bitsandbytes", speed("forward", "bitsandbytes", several, LARGE), 1.0)
        goal(goals, "2048 rows or more over vendor", speed("forward", "vendor", (2048, 2**62), LARGE), 1 / 1.08)
        goal(goals, "unpacking over bitsandbytes", speed("unpack", "bitsandbytes", None, LARGE),
             1.5 if self.gpu else 0.25)
        goal(goals, "share of NF4 bytes that differ from bitsandbytes'", max(self.differing.values(), default=None),
             0.0, at_most=True)
        return goals

    def crossovers(self):
        """Up to how many rows, of those measured, one path is faster than the next, by shape and direction."""
        found = {}
        for first, then in (("tenk gemv", "tenk fused"), ("tenk fused", "tenk unpack")):
            for r in self.records:
                a, b = (r["microseconds"].get(name) for name in (first, then))
                if a and b:
                    key = f"{r['shape']} {r['what']}: {first.split()[1]} beats {then.split()[1]}"
                    rows, still = found.get(key, (0, True))
                    found[key] = (r["rows"], True) if still and a < b else (rows, False)
        for key, (rows, _) in found.items():
            print(f"crossover  {key} up to {rows} rows")
        return {key: rows for key, (rows, _) in found.items()}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shapes", nargs="+", help="outputs x inputs of the weights, such as 4096x14336")
    p.add_argument("--rows", nargs="+", type=int, help="of the activations: batch times tokens")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--out", help="write the JSON here too")
    cli.add_machine_flags(p)
    args = p.parse_args()
    bench = Bench(args)
    bench.yardsticks()
    for shape in args.shapes or SHAPES[bench.gpu]:
        bench.weight(*map(int, shape.split("x")), sorted(args.rows or ROWS[bench.gpu]))
    finish(dict(what="NF4 products", crossover=bench.crossovers(), goals=bench.goals(), not_measured=bench.missing,
                bytes_per_second=bench.bandwidth, flop_per_second=bench.peak, differing_bytes=bench.differing,
                records=bench.records, machine=machine(bench.device) | dict(
                    architecture=architecture(bench.device), hip=torch.version.hip,
                    triton=getattr(sys.modules.get("triton"), "__version__", None),
                    bitsandbytes=bench.bnb and bench.bnb.__version__)), args.out)


if __name__ == "__main__":
    main()
