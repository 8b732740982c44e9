"""
What a checkpoint has learnt, compared to what: report.json and a self-contained report.html.

    python eval.py runs/sec --data data/sec --baseline gpt2 --out runs/sec/report

Every model scores the same bytes: the validation documents, decoded to text and encoded again with the model's own
tokenizer. Each document starts after an end-of-text token; windows overlap by half, so that each token is scored once,
with at least half a context before it (the first window aside). Tokenizers differ, so the number to compare is bits
per byte:

    bits/byte = nats of the document / ln 2 / its UTF-8 bytes

The interval is a bootstrap over documents (not windows: the windows of a filing resemble each other). xz stands beside
the models as the baseline that has learnt nothing.
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
import lora
import sample


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


def main():
    p = cli.Parser("eval.py", __doc__)
    p.add_argument("checkpoint", metavar="CKPT", help="the checkpoint, run or adapter directory to report on")
    p.add_argument("--data", required=True, help="a data directory; its validation split is scored")
    p.add_argument("--baseline", action="append", default=[], metavar="CKPT",
                   help="a checkpoint, adapter or hub id to compare with; may be given again")
    p.add_argument("--out", required=True, help="folder for report.json and report.html")
    p.add_argument("--max_bytes", type=cli.positive(int), default=4_000_000, help="validation text to score")
    p.add_argument("--prompt", action="append", help="for the samples; may be given again")
    p.add_argument("--max_new_tokens", type=cli.positive(int), default=100, help="length of the samples")
    p.add_argument("--temperature", type=cli.non_negative(float), default=0.8, help="of the samples")
    p.add_argument("--batch_size", type=cli.positive(int), default=8, help="windows at a time")
    p.add_argument("--seed", type=int, default=0, help="of samples and bootstrap")
    cli.add_machine_flags(p)
    args = p.parse_args()
    device = cli.choose_device(args.device)
    dtype = cli.choose_dtype(args.dtype, device)
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
    os.makedirs(args.out, exist_ok=True)
    for name, content in (("report.json", json.dumps(report, indent=1)),
                          ("report.html", report_html(report, loss_curve(args.checkpoint)))):
        with open(os.path.join(args.out, name + ".tmp"), "w", encoding="utf-8") as f:
            f.write(content)
        os.replace(os.path.join(args.out, name + ".tmp"), os.path.join(args.out, name))
    for m in models:
        low, high = m["interval_95"]
        print(f"{m['name']:<32} {m['bits_per_byte']:.4f} bits/byte ({low:.4f} to {high:.4f})"
              + (f"   loss {m['loss']:.4f}   perplexity {m['perplexity']:.2f}" if "loss" in m else ""))
    for i, prompt in enumerate(prompts):
        print("\n" + sample.side_by_side(list(samples), prompt, [samples[n][i] for n in samples]))
    print(f"look at {os.path.join(args.out, 'report.html')}")


if __name__ == "__main__":
    cli.run(main)
