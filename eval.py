"""
What a checkpoint has learnt, compared to what: report.json and a self-contained report.html.

    python eval.py runs/sec --data data/sec --baseline gpt2 --out runs/sec/report
    python eval.py runs/fpb --data data/fpb --baseline runs/sec --out runs/fpb/report        # a task, examples or pairs

Every model scores the same bytes: the validation documents, decoded to text and encoded again with the model's own
tokenizer. Each document starts after an end-of-text token; windows overlap by half, so that each token is scored once,
with at least half a context before it (the first window aside). Tokenizers differ, so the number to compare is bits
per byte:

    bits/byte = nats of the document / ln 2 / its UTF-8 bytes

The interval is a bootstrap over documents (not windows: the windows of a filing resemble each other). xz stands beside
the models as the baseline that has learnt nothing.

On examples it is the loss on the completions of the test split, and for a task its metric, by the likeliest label and
by what the model writes, beside the commonest answer and logistic regression on words; on pairs, how often the better
answer is the likelier one.
"""
import base64
import html
import json
import lzma
import math
import os
import sys

import numpy as np
import torch
from tqdm import tqdm

import checkpoint
import cli
import data
import examples
import lora
import sample
import tasks


def validation_texts(corpus, max_bytes):
    """(about, text) of validation documents, whole, up to about max_bytes of text and at least one."""
    total = 0
    for about, tokens in corpus.read_documents("val"):
        text = corpus.tokenizer.decode(tokens)
        if total and total + len(text.encode()) > max_bytes:
            continue
        total += len(text.encode())
        yield about, text


def windows(ids, T):
    """Half-overlapping windows of up to T tokens over a document: (inputs, targets), -100 where nothing is scored."""
    ids = torch.tensor(ids)
    stride = max(1, T // 2)
    scored = 0
    for start in range(0, max(1, len(ids) - 1 - T + stride), stride):
        end = min(start + T, len(ids) - 1)
        x, y = ids[start:end], ids[start + 1 : end + 1].clone()
        y[: scored - start] = -100
        scored = end
        yield x, y


@torch.inference_mode()
def score(model, tokenizer, texts, device, dtype="float32", batch_size=8, name=""):
    """
    Per document: (nats, tokens) as a float64 array (N, 2). dtype is that of the blocks' products; the logits, where
    bfloat16 would cost a hundredth of a nat, are always float32.
    """
    T = model.config.block_size
    results = np.zeros((len(texts), 2))
    batch = []

    def flush():
        x, y = (torch.nn.utils.rnn.pad_sequence([row[k] for row in batch], True, value).to(device)
                for k, value in ((1, 0), (2, -100)))
        with torch.autocast(device.type, getattr(torch, dtype), enabled=dtype != "float32"):
            states = model.hidden(x)
        for (i, _, _), state, target in zip(batch, states.float(), y, strict=True):
            results[i] += model.loss_of(state[None], target[None]).item(), (target >= 0).sum().item()
        batch.clear()

    for i, text in enumerate(tqdm(texts, unit="document", desc=name, disable=None)):
        for x, y in windows([tokenizer.end_of_text, *tokenizer.encode(text).tolist()], T):
            batch.append((i, x, y))
            if len(batch) == batch_size:
                flush()
    if batch:
        flush()
    return results


def bootstrap(bits, size, draws=2000, seed=0):
    """95 % interval of sum(bits) / sum(size) over documents drawn with replacement; bits and size (N,)."""
    rng = np.random.default_rng(seed)
    samples = (rng.integers(len(size), size=len(size)) for _ in range(draws))
    ratios = [bits[chosen].sum() / size[chosen].sum() for chosen in samples]
    return [float(q) for q in np.quantile(ratios, [0.025, 0.975])]


def xz_bits(text):
    """Bits of the text under `xz -9e`, with no larger a dictionary than it can use."""
    raw = text.encode()
    dictionary = max(4096, 1 << min(26, len(raw).bit_length()))
    filters = [dict(id=lzma.FILTER_LZMA2, preset=9 | lzma.PRESET_EXTREME, dict_size=dictionary)]
    return 8 * len(lzma.compress(raw, filters=filters))


def loss_curve(run):
    """The run's loss.png as a data URL, or None."""
    path = os.path.join(run, "loss.png")
    if not os.path.exists(path):
        return None
    with open(path, "rb") as f:
        return "data:image/png;base64," + base64.b64encode(f.read()).decode()


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse }} \
th, td {{ padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #ddd }}
th:first-child, td:first-child {{ text-align: left }}
.samples {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem }}
.samples div {{ background: #f6f6f4; padding: .8rem; border-radius: .4rem; \
white-space: pre-wrap; overflow-wrap: anywhere }}
blockquote {{ margin: 1.5rem 0 .5rem; font-weight: 600 }} img {{ max-width: 100% }} .note {{ color: #666 }}
</style>
<h1>{title}</h1>
<p>{summary}</p>
<h2>Loss on held-out documents</h2>
<table><tr><th>model<th>bits/byte<th>95 % interval<th>nats/token<th>perplexity<th>bytes/token</tr>
{rows}
</table>
<p class="note">{note}</p>
{curve}
<h2>Side by side</h2>
<p class="note">Same prompts, same seed, temperature {temperature}, not picked.</p>
{samples}
</html>
"""


EXAMPLES_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<body style="font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem">
<h1>{title}</h1><pre style="overflow-x: auto">{lines}</pre></html>
"""


def report_html(report, curve):
    escape = html.escape
    rows = []
    for m in report["models"]:
        cells = [f"{m['bits_per_byte']:.4f}", "{:.4f} – {:.4f}".format(*m["interval_95"])]
        cells += ([f"{m['loss']:.4f}", f"{m['perplexity']:.2f}", f"{m['bytes_per_token']:.2f}"]
                  if m.get("tokens") else ["", "", ""])
        rows.append(f"<tr><td>{escape(m['name'])}" + "".join(f"<td>{c}" for c in cells) + "</tr>")
    samples = []
    for s in report["samples"]:
        columns = "".join(f"<div><b>{escape(name)}</b>\n{escape(text)}</div>" for name, text in s["texts"].items())
        samples.append(f'<blockquote>{escape(s["prompt"])}</blockquote><div class="samples">{columns}</div>')
    first = report["models"][0]
    summary = (f"{escape(first['name'])} needs {first['bits_per_byte']:.3f} bits per byte of "
               f"{escape(report['data'])}'s validation split: "
               f"{report['documents']:,} documents, {report['bytes']:,} bytes.")
    for m in report["models"][1:]:
        if "difference" in m:
            low, high = m["difference_interval_95"]
            summary += f" {escape(m['name'])} needs {m['difference']:+.3f} ({low:+.3f} to {high:+.3f})."
    return PAGE.format(title=f"Report on {escape(first['name'])}", summary=summary, rows="\n".join(rows),
                       note=escape(report["note"]), temperature=report["temperature"], samples="\n".join(samples),
                       curve=f'<h2>Training</h2><img alt="loss over tokens" src="{curve}">' if curve else "")


def report_on_examples(args, manifest, device, dtype):
    """The report on a data directory of kind sft or pairs, as a dict."""
    split = next(s for s in ("test", "val", "train") if s in manifest["splits"])
    records = examples.read_split(args.data, manifest, split)
    if args.max_examples and args.max_examples < len(records):
        chosen = np.random.default_rng(args.seed).choice(len(records), args.max_examples, replace=False)
        records = [records[i] for i in sorted(chosen)]
    task = manifest.get("task")
    report = dict(data=args.data, data_fingerprint=examples.fingerprint(manifest), kind=manifest["kind"], split=split,
                  examples=len(records), models=[], seed=args.seed, command=sys.argv[1:])
    for name in [args.checkpoint, *args.baseline]:
        model, tokenizer = checkpoint.load(name, device)
        examples.follow_template(tokenizer, manifest)
        found, *_ = examples.items(tokenizer, records, model.config.block_size)
        scores = tasks.sequence_sums(model.eval(), tokenizer, [s for _, item in found for s in item], dtype)
        entry = dict(name=name, parameters=lora.count(model)[1], dtype=dtype)
        if manifest["kind"] == "pairs":
            chosen, rejected = scores[0::2], scores[1::2]
            right = chosen[:, 0] < rejected[:, 0]
            per_token = [side[:, 0] / side[:, 1] for side in (chosen, rejected)]
            entry |= dict(accuracy=float(right.mean()), accuracy_95=tasks.wilson(int(right.sum()), len(right)),
                          accuracy_per_token=float((per_token[0] < per_token[1]).mean()),
                          margin=float((rejected[:, 0] - chosen[:, 0]).mean()))
            scores = chosen
        nats, tokens, nats_text, size = scores.sum(0)
        entry |= dict(loss=nats / tokens, perplexity=math.exp(nats / tokens),
                      bits_per_byte=nats_text / math.log(2) / max(1, size))
        if task:
            longest = int(max(r[1] for r in scores)) + 8
            if task["labels"]:
                answers, _ = tasks.choose(model, tokenizer, records, task["labels"], dtype)
                entry["likeliest"] = tasks.measure(task, records, answers)
            with torch.autocast(device.type, getattr(torch, dtype), enabled=dtype != "float32"):
                entry["written"] = tasks.measure(task, records, tasks.generate(model, tokenizer, records, longest))
        report["models"].append(entry)
    if task and task["labels"]:
        train = examples.read_split(args.data, manifest, "train")
        report["baselines"] = tasks.baselines(task, train, records)
    return report


def lines_on_examples(report):
    """What the report on examples says, in lines for a terminal."""
    lines = [f"{report['data']}, {report['split']}: {report['examples']:,} "
             + ("pairs" if report["kind"] == "pairs" else "examples")]
    rows = [(f"{m['name']}, {how}", m[key]) for m in report["models"]
            for key, how in (("likeliest", "likeliest label"), ("written", "what it writes")) if key in m]
    rows += [(name, scores) for name, scores in report.get("baselines", {}).items()]
    for name, scores in rows:
        if "accuracy" in scores:
            low, high = scores["accuracy_95"]
            lines.append(f"{name:<48} accuracy {scores['accuracy']:.3f} ({low:.3f} to {high:.3f})   macro-F1 "
                         f"{scores['macro_f1']:.3f}   weighted F1 {scores['weighted_f1']:.3f}")
        else:
            lines.append(f"{name:<48} execution {scores['execution_accuracy']:.3f}   "
                         f"program {scores['program_accuracy']:.3f}")
    for m in report["models"]:
        lines.append(f"{m['name']:<48} loss {m['loss']:.4f} on completions, {m['bits_per_byte']:.4f} bits/byte"
                     + ("   the better one likelier {:.3f} ({:.3f} to {:.3f}), by {:.2f} nats in the mean".format(
                         m["accuracy"], *m["accuracy_95"], m["margin"]) if "accuracy" in m else ""))
    return lines


def write_report(out, report, page):
    os.makedirs(out, exist_ok=True)
    for name, content in (("report.json", json.dumps(report, indent=1)), ("report.html", page)):
        with open(os.path.join(out, name + ".tmp"), "w", encoding="utf-8") as f:
            f.write(content)
        os.replace(os.path.join(out, name + ".tmp"), os.path.join(out, name))


def main():
    p = cli.Parser("eval.py", __doc__)
    p.add_argument("checkpoint", metavar="CKPT", help="the checkpoint, run or adapter directory to report on")
    p.add_argument("--data", required=True, help="a data directory; its validation split is scored")
    p.add_argument("--baseline", action="append", default=[], metavar="CKPT",
                   help="a checkpoint, adapter or hub id to compare with; may be given again")
    p.add_argument("--out", required=True, help="folder for report.json and report.html")
    p.add_argument("--max_bytes", type=cli.positive(int), default=4_000_000, help="validation text to score")
    p.add_argument("--max_examples", type=cli.positive(int), help="of a task, examples or pairs [all]")
    p.add_argument("--prompt", action="append", help="for the samples; may be given again")
    p.add_argument("--max_new_tokens", type=cli.positive(int), default=100, help="length of the samples")
    p.add_argument("--temperature", type=cli.non_negative(float), default=0.8, help="of the samples")
    p.add_argument("--batch_size", type=cli.positive(int), default=8, help="windows at a time")
    p.add_argument("--seed", type=int, default=0, help="of samples and bootstrap")
    cli.add_machine_flags(p)
    args = p.parse_args()
    device = cli.choose_device(args.device)
    dtype = cli.choose_dtype(args.dtype, device)
    manifest = data.read_manifest(args.data)
    if manifest["kind"] != "lm":
        report = report_on_examples(args, manifest, device, dtype)
        lines = lines_on_examples(report)
        write_report(args.out, report, EXAMPLES_PAGE.format(title=html.escape(f"Report on {args.checkpoint}"),
                                                            lines=html.escape("\n".join(lines))))
        print("\n".join([*lines, f"look at {os.path.join(args.out, 'report.html')}; report.json has more"]))
        return
    corpus = data.TokenData(args.data)
    if not corpus.tokens("val"):
        raise ValueError(f"{args.data} has no validation split; "
                         "build it with --val_fraction above 0 from at least two documents")
    documents = list(validation_texts(corpus, args.max_bytes))
    texts = [text for _, text in documents]
    size = np.array([len(t.encode()) for t in texts], dtype=np.float64)
    prompts = args.prompt or list(sample.PROMPTS)

    models, samples, bits_of = [], {}, {}
    for name in [args.checkpoint, *args.baseline]:
        model, tokenizer = checkpoint.load(name, device)
        scored = score(model.eval(), tokenizer, texts, device, dtype, args.batch_size, name)
        nats, tokens = scored[:, 0], scored[:, 1]
        bits_of[name] = nats / math.log(2)
        models.append(dict(name=name, bits_per_byte=float(bits_of[name].sum() / size.sum()),
                           interval_95=bootstrap(bits_of[name], size, seed=args.seed),
                           loss=float(nats.sum() / tokens.sum()), perplexity=math.exp(nats.sum() / tokens.sum()),
                           tokens=int(tokens.sum()), bytes_per_token=float(size.sum() / tokens.sum()),
                           parameters=lora.count(model)[1], dtype=dtype))
        samples[name] = sample.generate(model.to(getattr(torch, dtype)), tokenizer, prompts, args.max_new_tokens,
                                        args.temperature, seed=args.seed)
    xz = np.array([xz_bits(text) for text in texts], dtype=np.float64)
    bits_of["xz -9e, each document"] = xz
    models.append(dict(name="xz -9e, each document", bits_per_byte=float(xz.sum() / size.sum()),
                       interval_95=bootstrap(xz, size, seed=args.seed)))
    for m in models[1:]:
        difference = bits_of[m["name"]] - bits_of[args.checkpoint]
        m |= dict(difference=float(difference.sum() / size.sum()),
                  difference_interval_95=bootstrap(difference, size, seed=args.seed))

    report = dict(data=args.data, data_fingerprint=corpus.fingerprint(), documents=len(texts), bytes=int(size.sum()),
                  document_ids=[about["id"] for about, _ in documents], models=models,
                  temperature=args.temperature, seed=args.seed,
                  samples=[dict(prompt=p, texts={n: samples[n][i] for n in samples}) for i, p in enumerate(prompts)],
                  note=f"Scored whole documents, {len(texts):,} of "
                       f"{corpus.manifest['splits']['val']['documents']:,}. {corpus.manifest['split_policy']}. "
                       "Intervals: bootstrap over documents.",
                  command=sys.argv[1:])
    write_report(args.out, report, report_html(report, loss_curve(args.checkpoint)))
    for m in models:
        low, high = m["interval_95"]
        print(f"{m['name']:<32} {m['bits_per_byte']:.4f} bits/byte ({low:.4f} to {high:.4f})"
              + (f"   loss {m['loss']:.4f}   perplexity {m['perplexity']:.2f}" if "loss" in m else ""))
    for i, prompt in enumerate(prompts):
        print("\n" + sample.side_by_side(list(samples), prompt, [samples[n][i] for n in samples]))
    print(f"look at {os.path.join(args.out, 'report.html')}")


if __name__ == "__main__":
    cli.run(main)
