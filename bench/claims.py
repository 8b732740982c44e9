"""
What the benchmarks have to show, and the README's table of what they did show: bench/results/*.json -> markdown.

A row for every claim, measured or not: a figure that is nowhere reads "not measured". python bench/all.py --table
"""
import json
import math
import pathlib
import statistics

BEGIN, END = "<!-- bench/all.py --table -->\n", "<!-- end -->\n"


def at(*path):
    """A function from a result to what lies there."""
    def get(result):
        for key in path:
            result = result[key]
        return result
    return get


def generating(batch, figure, side):
    return lambda r: {x["batch"]: x for x in r["records"]}[batch][figure][side or r["dtype"]]["rounds"]


def goal_of(name):
    return at("goals", name, "figure")


def shares(result):  # never: not within what ours was given
    return [s["share_at_which_passed"] or math.inf for s in result["by_seed"]]


def apart(same):
    """How far runs with an optimization off end from ours: to the last bit, or beside the range over seeds."""
    def largest(result):
        runs = [r for r in result["runs"].values() if r["same_arithmetic"] == same]
        return max(r["largest_difference"] if same else r["val_difference"] / result["noise"] for r in runs)
    return largest


def unpacking(result):
    return [r["speedup_over"]["bitsandbytes"] for r in result["records"] if r["what"] == "unpack"]


def hours_on_a_4070(result):  # 58 TFLOP/s in bf16, as train.py's table has it
    return 1.55e9 * result["flops_per_token"] / (result["mfu"] * 58e12) / 3600


def seconds_on_a_t4(result):  # 65 TFLOP/s in float16, as train.py's table has it
    return result["seconds_for_4000_rows"]["tenk QLoRA"] * result["peak_flops"] / 65e12


# device, benchmark, what, goal, unit, where in its result: a figure, or one per round or seed
ROWS = [
    ("cpu", "train", "a training step, 12 × 768, vocabulary 50,257, context 1024: tokens/s over nanoGPT's", "≥ 3", " ×",
     at("ratios", "nanoGPT")),
    ("cpu", "train", "the same over transformers, as its Trainer steps, in our precision", "≥ 1.5", " ×",
     at("ratios", "transformers")),
    ("cpu", "train", "the same, ours: seconds with Muon over those with AdamW", "", " ×", at("ratios", "tenk muon")),
    ("cpu", "sample", "generating, 124M, one text: over transformers, as both come", "≥ 1.5", " ×",
     generating(1, "over", "transformers float32")),
    ("cpu", "sample", "the same, both in our precision", "", " ×", generating(1, "like_for_like", None)),
    ("cpu", "sample", "the same over nanoGPT", "", " ×", generating(1, "over", "nanoGPT float32")),
    ("cpu", "sample", "eight texts: over transformers, as both come", "≥ 2", " ×",
     generating(8, "over", "transformers float32")),
    ("cpu", "sample", "the same, both in our precision", "", " ×", generating(8, "like_for_like", None)),
    ("cpu", "to_loss", "6 × 256, real filings, 4 M tokens: share of the tokens after which our recipe passes the loss "
     "where nanoGPT's ended", "≤ 0.5", " ×", shares),
    ("cpu", "to_loss", "its seconds over those of nanoGPT's recipe, in the same trainer", "", " ×",
     lambda r: [s["seconds_ratio"] for s in r["by_seed"]]),
    ("cpu", "curves", "with and without what leaves the arithmetic alone: largest difference of a step's loss",
     "≤ 0", "", apart(True)),
    ("cpu", "curves", "the same for what sums in another order: largest difference of the last validation loss, over "
     "the range of three seeds", "≤ 1", " ×", apart(False)),
    ("cpu", "spikes", "small, 20 M tokens of real filings, 3 seeds: largest rise of validation loss over its lowest",
     "≤ 10", " %", lambda r: max(100 * run["largest_rise"] for run in r["runs"] if not run["poisoned"])),
    ("cpu", "spikes", "the same with every 500th batch raw XBRL or uuencoded, validation right after", "≤ 10", " %",
     lambda r: max(100 * run["largest_rise"] for run in r["runs"] if run["poisoned"])),
    ("cpu", "qlora", "a LoRA step, rank 16 on all linears, 124M, 4 × 512 tokens: over transformers + PEFT", "≥ 1.5",
     " ×", at("ratios", "LoRA")),
    ("cpu", "qlora", "its peak memory over theirs", "≤ 0.7", " ×", at("memory_ratio", "PEFT LoRA")),
    ("cpu", "qlora", "a QLoRA step: over transformers + PEFT + bitsandbytes", "≥ 1.1", " ×", at("ratios", "QLoRA")),
    ("cpu", "qlora", "its peak memory over theirs", "≤ 0.7", " ×", at("memory_ratio", "PEFT QLoRA")),
    *(("cpu", benchmark, what, "", " ×", at(*path)) for benchmark, words in (
        ("gemma", "Gemma 3 270M, 8 × 128 tokens, two of each row learnt"), ("gemma-1b", "the same with 1B, 4 × 128"))
      for what, *path in ((f"{words}: a LoRA step over transformers + PEFT", "ratios", "LoRA"),
                          ("a QLoRA step over transformers + PEFT + bitsandbytes", "ratios", "QLoRA"),
                          ("its peak memory, loading included, over theirs", "memory_ratio", "PEFT QLoRA"))),
    ("cpu", "kernels", "unpacking NF4 weights of 2048 × 2048, in PyTorch, over bitsandbytes' C++", "≥ 0.25", " ×",
     goal_of("unpacking over bitsandbytes")),
    ("cpu", "kernels", "the same for all shapes, GPT-2's small ones included", "", " ×", unpacking),
    ("cpu", "kernels", "share of its 4-bit bytes that differ from bitsandbytes'", "≤ 0", "",
     goal_of("share of NF4 bytes that differ from bitsandbytes'")),
    ("cpu", "kernels", "2048 rows through NF4 weights over the vendor's matmul with unpacked ones", "≥ 0.926", " ×",
     goal_of("2048 rows or more over vendor")),
    ("cpu", "prepare", "filings → text, with items, one core: MB of HTML/s", "", "",
     at("filings_to_text", "mb_per_second", "tenk")),
    ("cpu", "prepare", "the same over edgartools' text", "", " ×", at("filings_to_text", "tenk_over", "edgartools")),
    ("cpu", "prepare", "the same over BeautifulSoup's with lxml", "", " ×",
     at("filings_to_text", "tenk_over", "beautifulsoup lxml")),
    ("cpu", "prepare", "text → shards, all checks on, from process start: MB of text/s", "", "",
     at("text_to_shards", "mb_per_second", "tenk")),
    ("cpu", "prepare", "the same over tiktoken's batch encoding alone, as many threads", "", " ×",
     at("text_to_shards", "tenk_over", "tiktoken batch")),
    ("cpu", "prepare", "the same over a loop that appends token by token", "", " ×",
     at("text_to_shards", "tenk_over", "token by token")),
    ("cpu", "prepare", "its memory, all processes: with 1 GB of input over that with 100 MB", "", " ×",
     lambda r: r["memory"][-1]["peak_mb"] / r["memory"][0]["peak_mb"]),
    ("gpu", "train", "pretraining, 12 × 768, vocabulary 50,257, context 1024: MFU", "≥ 45", " %",
     lambda r: 100 * r["mfu"]),
    ("gpu", "train", "the same: tokens/s over nanoGPT's, both compiled", "≥ 1.25", " ×",
     lambda r: r["ratios"]["nanoGPT"] if r["compile"] else None),
    ("gpu", "train", "1.55 B tokens on an RTX 4070 at that MFU, by arithmetic", "", " hours", hours_on_a_4070),
    ("gpu", "to_loss", "seconds to nanoGPT's loss at 100 M tokens over its own", "≤ 0.5", " ×",
     lambda r: [s["seconds_ratio"] if s["reached"] else math.inf for s in r["by_seed"] if s["tokens"] > 9e7]),
    ("gpu", "sample", "generating, GPT-2 XL's size, one text: share of a copy's bandwidth", "≥ 60", " %",
     lambda r: 100 * r["records"][0]["share_of_bandwidth"]),
    ("gpu", "sample", "the same: tokens/s over transformers, not compiled", "≥ 5", " ×",
     generating(1, "over", "transformers float32")),
    ("gpu", "qlora", "a LoRA step over PEFT's", "≥ 1.3", " ×", at("ratios", "LoRA")),
    ("gpu", "qlora", "a QLoRA step over PEFT + bitsandbytes", "≥ 1.3", " ×", at("ratios", "QLoRA")),
    ("gpu", "qlora", "its peak memory over theirs", "≤ 0.6", " ×", at("memory_ratio", "PEFT QLoRA")),
    ("gpu", "qlora", "a QLoRA step over our LoRA's", "≥ 0.9", " ×", at("ratios", "QLoRA over our LoRA")),
    ("gpu", "gemma", "Gemma 3 1B, 32 × 128 tokens, two of each row learnt: a QLoRA step over PEFT + bitsandbytes",
     "≥ 1.3", " ×", at("ratios", "QLoRA")),
    ("gpu", "gemma", "its peak memory over theirs", "≤ 0.7", " ×", at("memory_ratio", "PEFT QLoRA")),
    ("gpu", "gemma", "the same: an epoch of 4,000 sentences", "", " s", at("seconds_for_4000_rows", "tenk QLoRA")),
    ("gpu", "gemma", "that on a T4 at the same share of its peak, by arithmetic", "", " s", seconds_on_a_t4),
    *(("gpu", "kernels", "NF4 products: " + what, goal, unit, goal_of(what)) for what, goal, unit in (
        ("1 row over vendor, in a graph", "≥ 3", " ×"), ("1 row, % of bandwidth, in a graph", "≥ 80", " %"),
        ("1 to 8 rows over bitsandbytes, in a graph", "≥ 1.2", " ×"),
        ("2 to 64 rows over unpack + vendor", "≥ 2", " ×"), ("2 to 64 rows over bitsandbytes", "≥ 1", " ×"),
        ("2048 rows or more over vendor", "≥ 0.926", " ×"), ("unpacking over bitsandbytes", "≥ 1.5", " ×")))]


def number(x):
    return "never" if x == math.inf else f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def row(what, goal, unit, get, result):
    """A line of the table; where the figure is missing it says so."""
    wanted = goal + unit if goal else "–"
    try:
        found = get(result)
        figures = found if isinstance(found, list) else [found]
        middle, low, high = statistics.median(figures), min(figures), max(figures)
        words = number(middle) + unit + (f" ({number(low)} to {number(high)})" if low < high else "")
    except (KeyError, TypeError, IndexError, statistics.StatisticsError):
        return f"| {what} | {wanted} | not measured | – | – |"
    sign, _, limit = goal.partition(" ")
    judged = high if get is shares else middle  # of seeds, all have to
    passed = goal and (judged >= float(limit) if sign == "≥" else judged <= float(limit))
    about = result.get("machine", result)
    return (f"| {what} | {wanted} | **{words}** | {'yes' if passed else 'no' if goal else '–'} | "
            f"{', '.join(filter(None, (about.get('gpu') or about['cpu'], result.get('dtype'), about['date'])))} |")


def table(folder):
    """Markdown of all results in a folder: the claims, then the machines and what they can do."""
    files = {path.stem: json.loads(path.read_text()) for path in sorted(pathlib.Path(folder).glob("*_*.json"))}
    lines = ["| by | what | goal | median (lowest to highest) | reached | where, when |", "|---|---|---|---|---|---|"]
    for device, benchmark, what, *rest in ROWS:
        found = [r for stem, r in files.items() if stem.rpartition("_")[0] == benchmark
                 and (stem.rpartition("_")[2] == "cpu") == (device == "cpu")]
        lines += [row(f"{device.upper()}, `{benchmark}` | {what}", *rest, result) for result in found or [{}]]
    lines += ["", "| result | machine | with | a large matmul | a large copy |", "|---|---|---|---|---|"]
    for stem, r in files.items():
        about, limit = r.get("machine", r), r.get("limit", {})
        flops = limit.get("matmul_flop_per_second", r.get("flop_per_second"))
        copy = limit.get("copy_bytes_per_second", r.get("bytes_per_second"))
        versions = [f"{k} {about[k]}" for k in ("torch", "transformers", "peft", "bitsandbytes", "triton", "python")
                    if about.get(k)]
        device = about.get("gpu") or f"{about['cpu']}, {about.get('threads', about.get('cores'))} threads"
        lines.append(f"| `{stem}` | {device}, {about['date']} | {', '.join(versions)} | "
                     + (f"{flops / 1e12:,.2f} TFLOP/s" if flops else "not measured") + " | "
                     + (f"{copy / 1e9:,.0f} GB/s" if copy else "not measured") + " |")
    return "\n".join(lines) + "\n"


def with_table(text, folder):
    """The README's text with its table made anew."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + table(folder) + END + rest.split(END, 1)[1]
