"""
Let checkpoints write: one streams to the terminal, several stand side by side on the same prompts and seed.

    python sample.py runs/sec --prompt "Item 1A. Risk Factors. Our business is subject to"
    python sample.py runs/sec gpt2 --prompts prompts.txt --out samples.jsonl
        # one prompt a line, or JSONL with "prompt" or "messages"
    python sample.py runs/chat --chat --prompt "What is a 10-K?"            # asked in the words of its chat template
    python sample.py runs/sec --embed texts.txt                             # no text but vectors; see embed.py

Generation runs on a KV cache (model.py). The prompts of a file are padded on the left and run in batches.
"""
import json
import os
import sys
import textwrap

import torch

import checkpoint
import cli
import embed
import examples

PROMPTS = ("Item 1A. Risk Factors. Our business is subject to",
           "The following table sets forth our consolidated",
           "Management's Discussion and Analysis of Financial Condition")


def read_prompts(path):
    """
    The prompts of a file: each line one, or for .jsonl the "prompt", "messages" (up to the last answer) or "text".
    """
    with open(path, encoding="utf-8") as f:
        lines = [(i, line.rstrip("\n")) for i, line in enumerate(f, 1) if line.strip()]
    if path.endswith((".jsonl", ".ndjson")):
        prompts = []
        for i, line in lines:
            try:
                record = json.loads(line)
                if "messages" in record:
                    while record["messages"][-1].get("role") == "assistant":
                        record["messages"].pop()
                    prompts.append(examples.messages_of(record, "messages"))
                else:
                    prompt = record["prompt"] if "prompt" in record else record["text"]
                    prompts.append(prompt if isinstance(prompt, str) else examples.messages_of(record, "prompt"))
            except (ValueError, LookupError, TypeError, AttributeError):
                raise ValueError(f'{path}:{i} is no JSON object with a "prompt" or "messages"') from None
    else:
        prompts = [line for _, line in lines]
    if not prompts:
        raise ValueError(f"{path} has no prompts in it; write one a line")
    return prompts


def shown(prompt):
    """A prompt for a terminal: a text as it is, messages one a line."""
    return prompt if isinstance(prompt, str) else "".join(f"{m['role']}: {m['content']}\n" for m in prompt)


def load(path, device, dtype):
    """(model in the given precision, tokenizer), ready to generate."""
    adapted = checkpoint.is_adapter(checkpoint.resolve(path))  # and merged in float32; all else is as on disk at first
    model, tokenizer = checkpoint.load(path, dtype=torch.float32 if adapted else None)
    return model.to(device, getattr(torch, dtype)).eval(), tokenizer


def generate(model, tokenizer, prompts, max_new_tokens, temperature=0.8, top_k=None, top_p=None,
             repetition_penalty=1.0, seed=0, batch_size=16, stream=None, with_lengths=False, compile=False):
    """
    One continuation (str, without the prompt) for each prompt, which is a text, or messages to answer. All rows of a
    batch share a generator seeded with `seed`, so the same prompts in the same order give the same text. stream: called
    with each new piece of text (one prompt only). with_lengths: (text, tokens up to the end of text) each. compile: as
    in GPT.generate.
    """
    texts, stop = [], examples.stop_tokens(tokenizer)
    device = model.wte.weight.device
    for start in range(0, len(prompts), batch_size):
        rows = [examples.prompt_tokens(tokenizer, p).tolist() for p in prompts[start : start + batch_size]]
        room = max(1, model.config.block_size - max_new_tokens)
        # a prompt too long for the model keeps its beginning-of-text and its end
        room = max(room, model.config.block_size // 2)
        rows = [[r[0], *r[1:][-(room - 1) :]] if len(r) > room > 1 else r[-room:] for r in rows]
        width = max(map(len, rows))
        idx = torch.tensor([[tokenizer.start] * (width - len(r)) + r for r in rows], device=device)
        lengths = torch.tensor([len(r) for r in rows], device=device)
        show = Stream(tokenizer, stream) if stream else None
        out = model.generate(idx, max_new_tokens, temperature, top_k, top_p, repetition_penalty,
                             stop_tokens=stop, lengths=lengths,
                             generator=torch.Generator(device).manual_seed(seed), on_token=show, compile=compile)
        for row in out[:, width:].tolist():
            end = next((i for i, token in enumerate(row) if token in stop), len(row))
            texts.append((tokenizer.decode(row[:end]), end) if with_lengths else tokenizer.decode(row[:end]))
    return texts


class Stream:
    """Hands on text as its tokens come, but never half of a character that takes two tokens."""

    def __init__(self, tokenizer, write):
        self.tokenizer, self.write, self.tokens, self.shown = tokenizer, write, [], 0
        self.stop = examples.stop_tokens(tokenizer)

    def __call__(self, token):
        if token.item() in self.stop:
            return
        self.tokens.append(token.item())
        text = self.tokenizer.decode(self.tokens)
        if not text.endswith("\ufffd"):
            self.write(text[self.shown :])
            self.shown = len(text)


def side_by_side(names, prompt, texts, width=None):
    """Columns of text under their names, for a terminal."""
    width = width or min(200, os.get_terminal_size().columns if sys.stdout.isatty() else 120)
    column = max(20, (width - 3 * (len(names) - 1)) // len(names))
    cells = [[line for part in text.split("\n") for line in textwrap.wrap(part, column) or [""]] for text in texts]
    rows = [[name[-column:] for name in names], ["-" * column] * len(names)]
    rows += [[c[i] if i < len(c) else "" for c in cells] for i in range(max(map(len, cells)))]
    return "\n".join([f"> {prompt}", "", *(" | ".join(f"{c:<{column}}" for c in row).rstrip() for row in rows), ""])


def main():
    p = cli.Parser("sample.py", __doc__)
    p.add_argument("checkpoints", nargs="+", metavar="CKPT",
                   help="run directories, checkpoints, adapters, hub ids or nanoGPT ckpt.pt files")
    p.add_argument("--prompt", action="append",
                   help="a text to continue; may be given again [three openings from 10-K filings]")
    p.add_argument("--prompts", metavar="FILE", help="a file of prompts: one a line, or JSONL")
    p.add_argument("--chat", action="store_true", help="each --prompt is what the user says, for the model to answer")
    p.add_argument("--embed", metavar="FILE", help="write a vector for each text of FILE, which is as for --prompts: "
                   "the mean of its tokens' states, as .npy, to --out or else FILE.npy")
    p.add_argument("--out", metavar="FILE", help="write JSONL: checkpoint, prompt, text, seed")
    p.add_argument("--max_new_tokens", type=cli.positive(int), default=100, help="length of each continuation")
    p.add_argument("--temperature", type=cli.non_negative(float), default=0.8, help="0: always the likeliest token")
    p.add_argument("--top_k", type=cli.positive(int), help="choose among the K likeliest tokens only")
    p.add_argument("--top_p", type=cli.positive(float),
                   help="choose among the likeliest tokens that hold this share of the mass")
    p.add_argument("--repetition_penalty", type=cli.positive(float), default=1.0, help="above 1: repeat less")
    p.add_argument("--seed", type=int, default=0, help="of the sampling")
    p.add_argument("--batch_size", type=cli.positive(int), default=16, help="prompts at a time")
    p.add_argument("--compile", type=int, choices=(0, 1), help="torch.compile [1 on a GPU from sm_80 on, 0 elsewhere]")
    cli.add_machine_flags(p)
    args = p.parse_args()
    device = cli.choose_device(args.device)
    dtype = cli.choose_dtype(args.dtype, device)
    prompts = (args.prompt or []) + (read_prompts(args.prompts) if args.prompts else []) or list(PROMPTS)
    if args.chat:
        prompts = [[dict(role="user", content=p)] if isinstance(p, str) else p for p in prompts]
    if args.out and not os.path.isdir(os.path.dirname(args.out) or "."):
        raise FileNotFoundError(f"there is no folder {os.path.dirname(args.out)} to write {args.out} into")
    if args.embed:
        if len(args.checkpoints) > 1 or args.prompt or args.prompts or args.chat:
            raise ValueError("--embed takes one checkpoint and the texts of its FILE; leave out other ones and prompts")
        with open(args.embed, encoding="utf-8") as f:  # of a plain text every line, an empty one, too: rows are counted
            texts = ([shown(p) for p in read_prompts(args.embed)] if args.embed.endswith((".jsonl", ".ndjson")) else
                     [line.rstrip("\n") for line in f])
        if not texts:
            raise ValueError(f"{args.embed} has no text in it")
        return print(embed.write(args.checkpoints[0], texts, args.out or args.embed + ".npy", device, dtype))
    options = dict(max_new_tokens=args.max_new_tokens, temperature=args.temperature, top_k=args.top_k, top_p=args.top_p,
                   repetition_penalty=args.repetition_penalty, seed=args.seed,
                   compile=cli.choose_compile(args.compile, device))

    if len(args.checkpoints) == 1 and not args.out:
        model, tokenizer = load(args.checkpoints[0], device, dtype)
        for prompt in prompts:
            print(shown(prompt), end="", flush=True)
            generate(model, tokenizer, [prompt], **options, stream=lambda text: print(text, end="", flush=True))
            print("\n" + "-" * 80)
        return

    texts = {}
    for name in args.checkpoints:  # one model in memory at a time
        model, tokenizer = load(name, device, dtype)
        texts[name] = generate(model, tokenizer, prompts, **options, batch_size=args.batch_size)
    if args.out:
        with open(args.out + ".tmp", "w", encoding="utf-8") as f:
            for i, prompt in enumerate(prompts):
                for name in args.checkpoints:
                    f.write(json.dumps(dict(checkpoint=name, prompt=prompt, text=texts[name][i], seed=args.seed),
                                       ensure_ascii=False) + "\n")
        os.replace(args.out + ".tmp", args.out)
        print(f"wrote {len(prompts) * len(args.checkpoints)} samples to {args.out}")
    else:
        for i, prompt in enumerate(prompts):
            print(side_by_side(args.checkpoints, shown(prompt), [texts[name][i] for name in args.checkpoints]))


if __name__ == "__main__":
    cli.run(main)
