"""
How fast filings become text and text becomes shards, and how much memory that takes; ratios from one run, as JSON.

    python bench/prepare.py FILINGS... --megabytes 200 --memory 100 2000 --out prepare.json

Text: read_filing against BeautifulSoup's get_text and edgartools' text, file by file, alternating, those installed
(pip install beautifulsoup4 lxml edgartools). Shards: the whole command `prepare.py corpus`, from process start to the
last rename, with everything it does by default (personal data, duplicates, split, checksums), against tiktoken's own
batch encoding of the same texts on as many threads, which writes nothing, and against the loop that appends token by
token. The texts are those of the filings and, to reach --megabytes, copies with the words of each line in another
order: real words and numbers, but no duplicates. Memory: the largest sum over all processes of the command, while the
corpus grows.
"""
import argparse
import importlib.util
import json
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
sys.path.append(str(ROOT))  # last, since edgartools calls itself edgar, too


def our_edgar():
    spec = importlib.util.spec_from_file_location("tenk_edgar", ROOT / "edgar.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def extractors():
    """{name: bytes -> text}, ours first, then those that are installed."""
    ours = our_edgar()
    found = {"tenk": lambda raw: ours.parse_filing(raw, "x")["text"]}
    try:
        import bs4

        found["beautifulsoup lxml"] = lambda raw: bs4.BeautifulSoup(raw, "lxml").get_text("\n")
        found["beautifulsoup html.parser"] = lambda raw: bs4.BeautifulSoup(raw, "html.parser").get_text("\n")
        from edgar.documents import HTMLParser, ParserConfig

        config = ParserConfig(form="10-K")
        found["edgartools"] = lambda raw: HTMLParser(config).parse(raw.decode("utf-8", "replace")).text()
    except ImportError:
        pass
    return found


def measure_text(paths, rounds):
    """MB of raw filing per second, median over files and rounds, and ours over theirs."""
    sides, seconds = extractors(), {}
    for i in range(rounds):
        for path in paths:
            raw = path.read_bytes()
            for name in list(sides)[:: 1 if i % 2 else -1]:
                began = time.perf_counter()
                sides[name](raw)
                seconds.setdefault(name, []).append((time.perf_counter() - began) / len(raw) * 1e6)
    speed = {name: round(1 / statistics.median(s), 2) for name, s in seconds.items()}
    ratio = {name: ratios(s, seconds["tenk"]) for name, s in seconds.items() if name != "tenk"}
    return dict(mb_per_second=speed, tenk_over=ratio, files=len(paths))


def ratios(theirs, ours):
    """Median, lowest and highest of what they take over what we take, pair by pair."""
    each = [a / b for a, b in zip(theirs, ours, strict=True)]
    return [round(f(each), 2) for f in (statistics.median, min, max)]


def write_corpus(path, texts, megabytes, seed=0):
    """A JSONL file of about this size: the texts, then copies with the words of each line in another order."""
    rng, written = random.Random(seed), 0
    with open(path, "w", encoding="utf-8") as f:
        for copy in range(10**6):
            for i, text in enumerate(texts):
                if copy:
                    lines = [line.split(" ") for line in text.split("\n")]
                    for words in lines:
                        rng.shuffle(words)
                    text = "\n".join(" ".join(words) for words in lines)
                f.write(json.dumps({"id": f"{copy}-{i}", "text": text}) + "\n")
                written += len(text)
                if written >= megabytes * 1e6:
                    return


def run_corpus(path, out, workers, tokenizer):
    """(seconds, peak MB over all its processes) of `prepare.py corpus`."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "prepare.py", "corpus", path, "--out", out, "--workers", str(workers),
                                "--tokenizer", tokenizer], cwd=ROOT, stdout=subprocess.DEVNULL)
    peak = [0]
    watcher = threading.Thread(target=watch, args=(process.pid, peak))
    watcher.start()
    if process.wait():
        raise SystemExit("prepare.py corpus failed")
    seconds = time.perf_counter() - began
    watcher.join()
    return seconds, peak[0]


def watch(pid, peak):
    while os.path.exists(f"/proc/{pid}/status") and "Z" not in status(pid, "State"):
        family, total = [pid], 0
        for process in family:
            try:
                with open(f"/proc/{process}/task/{process}/children") as f:
                    family += f.read().split()
                total += int(status(process, "VmRSS").split()[0])
            except (OSError, IndexError):
                pass
        peak[0] = max(peak[0], total // 1024)
        time.sleep(0.1)


def status(pid, field):
    try:
        with open(f"/proc/{pid}/status") as f:
            return next((line.split(":")[1].strip() for line in f if line.startswith(field + ":")), "0 kB")
    except OSError:
        return "Z"


def loop(encoding, texts, limit=5_000_000):
    """Seconds per MB of the loop in the run that tenk redoes: one process, token by token into a uint16 shard."""
    shard, count, size = np.empty(100_000_000, dtype=np.uint16), 0, 0
    began = time.perf_counter()
    for text in texts:
        for token in [encoding.eot_token, *encoding.encode_ordinary(text)]:
            assert 0 <= token < 2**16
            shard[count] = token
            count += 1
        size += len(text.encode())
        if size > limit:
            break
    return (time.perf_counter() - began) / size * 1e6


def measure_shards(folder, texts, megabytes, rounds, workers, tokenizer):
    import tiktoken

    from tokenizer import Tokenizer

    encoding = tiktoken.get_encoding("gpt2") if tokenizer == "gpt2" else Tokenizer.train(texts, 300).fast
    path = os.path.join(folder, "texts.jsonl")
    write_corpus(path, texts, megabytes)
    with open(path, encoding="utf-8") as f:
        texts = [json.loads(line)["text"] for line in f]
    size = sum(len(t.encode()) for t in texts) / 1e6
    seconds = {"tenk": [], "tiktoken batch": [], "token by token": []}
    for i in range(rounds):
        seconds["tenk"].append(run_corpus(path, os.path.join(folder, f"out{i}"), workers, tokenizer)[0] / size)
        began = time.perf_counter()
        for at in range(0, len(texts), 64):  # its lists of ints for all texts at once would take 10 GB
            encoding.encode_ordinary_batch(texts[at : at + 64], num_threads=workers)
        seconds["tiktoken batch"].append((time.perf_counter() - began) / size)
        seconds["token by token"].append(loop(encoding, texts))
    with open(os.path.join(folder, "out0", "manifest.json")) as f:
        tokens = sum(s["tokens"] for s in json.load(f)["splits"].values())
    return dict(mb=round(size, 1), tokens=tokens, workers=workers,
                mb_per_second={n: round(1 / statistics.median(s), 2) for n, s in seconds.items()},
                tenk_over={n: ratios(s, seconds["tenk"]) for n, s in seconds.items() if n != "tenk"})


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("paths", nargs="+", help="filings, or folders of them")
    p.add_argument("--megabytes", type=float, default=200, help="of text for the shards")
    p.add_argument("--memory", type=float, nargs="*", default=[], help="sizes in MB at which to look at memory")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--workers", type=int, default=os.cpu_count())
    p.add_argument("--tokenizer", default="gpt2", help="of the shards; the peers always take GPT-2's if this is gpt2")
    p.add_argument("--out", help="the JSON to write")
    args = p.parse_args()
    files = [q for path in map(pathlib.Path, args.paths) for q in (sorted(path.iterdir()) if path.is_dir() else [path])]
    files = [q for q in files if q.suffix in (".htm", ".html", ".txt")]
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line), "")
    result = dict(date=time.strftime("%Y-%m-%d"), cpu=cpu, cores=os.cpu_count(), python=platform.python_version(),
                  filings_to_text=measure_text(files, args.rounds))
    print(json.dumps(result["filings_to_text"], indent=1), flush=True)
    texts = [our_edgar().read_filing(path)["text"] for path in files]
    with tempfile.TemporaryDirectory() as folder:
        result["text_to_shards"] = measure_shards(folder, texts, args.megabytes, args.rounds, args.workers,
                                                  args.tokenizer)
    print(json.dumps(result["text_to_shards"], indent=1), flush=True)
    result["memory"] = []
    for megabytes in args.memory:
        with tempfile.TemporaryDirectory() as folder:
            write_corpus(os.path.join(folder, "texts.jsonl"), texts, megabytes)
            seconds, peak = run_corpus(os.path.join(folder, "texts.jsonl"), os.path.join(folder, "out"), args.workers,
                                       args.tokenizer)
            result["memory"].append(dict(mb=megabytes, peak_mb=peak, seconds=round(seconds, 1)))
        print(json.dumps(result["memory"][-1]), flush=True)
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
