"""
Ask a teacher: a larger model's answers to many prompts, as examples for a smaller one to learn from.

    python prepare.py distill prompts.jsonl --teacher http://127.0.0.1:8000/v1 --model NAME --out data/taught
    python prepare.py distill prompts.txt --teacher runs/large --out data/taught        # a checkpoint on this machine

    data/taught.partial/answers.jsonl    while it runs: each answer, whole, as it comes
    data/taught/                         then: a directory of kind sft, and what was left out, and why: dropped.jsonl

The idea is sequence-level distillation (Kim & Rush 2016): the student learns from what the teacher says, not from its
probabilities, so whatever speaks OpenAI's protocol will do: vLLM, Ollama, transformers serve, a paid one. Answers cost
time and money. So each is on disk before its prompt counts as done, and the same command, whatever ended it, asks only
what has no answer yet; and what is not worth learning (empty, cut off, refused, said before) is left out, but not lost.
"""
import collections
import contextlib
import email.utils
import hashlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
import urllib.parse
from multiprocessing.pool import ThreadPool

import numpy as np
from tqdm import tqdm

import cli
import examples
import fetch
import jobs
import licence
import pii
from tokenizer import read_chat_template

BACKOFF, LONGEST = 1.0, 60.0  # seconds before the second attempt, doubled with each further one, times 0.5 to 1.5
PARAMETERS = ("teacher", "model", "raw", "system", "max_new_tokens", "temperature", "top_p", "seed")  # of an answer
REFUSAL = re.compile(r"\W*(As an AI\b|((I'm|I am) )?sorry\b.{0,30}\b(can't|cannot|unable)\b|"
                     r"I (can't|cannot|won't|am unable to) (help|assist|comply|provide|fulfill?)\b)", re.I)


class Rejected(Exception):
    """The teacher will not take this prompt, now or later; it may take others."""


def read_prompts(args):
    """
    The prompts of the file, each once, {"key", "line", "asked"}, and how many there were. asked: messages of which the
    last is the user's, or a string to go on from. ValueError names the lines that can't be read.
    """
    found, wrong, count = {}, [], 0
    if not args.prompts.endswith((".jsonl", ".txt")):
        raise ValueError(f"{args.prompts} is neither .jsonl nor .txt")
    with open(args.prompts, "rb") as f:
        for i, line in enumerate(f, 1):
            try:
                line = line.decode("utf-8-sig").rstrip("\r\n")
                if line.strip():
                    asked = asked_of({"prompt": line} if args.prompts.endswith(".txt") else json.loads(line), args)
                    key, count = hash_of([getattr(args, p) for p in PARAMETERS], asked), count + 1
                    found.setdefault(key, dict(key=key, line=i, asked=asked))
            except ValueError as e:
                wrong.append(f"{args.prompts}:{i}: {e}")
    if wrong or not found:
        more = f"; and {len(wrong) - 5} more lines" if len(wrong) > 5 else ""
        raise ValueError("; ".join(wrong[:5]) + more or f"{args.prompts} has no prompts in it; write one a line")
    return list(found.values())[: args.limit], count


def asked_of(record, args):
    if not isinstance(record, dict) or not {"prompt", "messages"} & set(record):
        raise ValueError("expected an object with prompt or messages")
    if "messages" in record:
        said = record["messages"]
        while isinstance(said, list) and said and isinstance(said[-1], dict) and said[-1].get("role") == "assistant":
            said = said[:-1]  # an answer, perhaps an empty one, that it brings
        asked = [{k: m[k] for k in ("role", "content")} for m in examples.messages_of(dict(messages=said), "messages")]
        if asked[-1]["role"] != "user":
            raise ValueError("the last message is not the user's")
        if args.raw:
            raise ValueError("--raw is for prompts, not for messages")
    else:
        asked = examples.text_of(record, "prompt")
        asked = [dict(role="user", content=asked)] if args.chat else asked
    system = args.system and asked[0]["role"] != "system"
    return [dict(role="system", content=args.system), *asked] if system else asked


def texts_of(asked):
    return [asked] if isinstance(asked, str) else [m["content"] for m in asked]


def checkpoint_of(path):
    """The checkpoint directory that a local teacher's path means."""
    import checkpoint

    return checkpoint.resolve(path)


def hash_of(*content):
    """24 hex digits. ValueError for half of a surrogate pair, which can't be sent."""
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()[:24]


class Endpoint:
    """A teacher behind an address, asked by threads that have a connection each."""

    def __init__(self, args, answers):
        scheme, self.host, path = urllib.parse.urlsplit(args.teacher)[:3]
        self.kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
        self.path = path.rstrip("/") + ("/completions" if args.raw else "/chat/completions")
        self.key = os.environ.get(args.api_key_env or "", "").strip()
        if args.api_key_env and not re.fullmatch("[!-~]+", self.key):  # which http.client would show in its error
            raise ValueError(f"--api_key_env: there is no key in the environment variable {args.api_key_env}")
        self.headers = {"Content-Type": "application/json"}
        self.headers |= {"Authorization": f"Bearer {self.key}"} if self.key else {}
        self.args, self.answers, self.answered, self.rejected = args, answers, len(answers.known), 0
        self.mine, self.told, self.limit, self.end = threading.local(), set(), "max_tokens", None
        self.resume = 0.0  # by time.monotonic: when the teacher, having answered 429, wants to be asked again

    def ask_all(self, prompts):
        """Yields (prompt, None or the Fault or Rejected that came instead of an answer), the answer being on disk."""
        def one(prompt):
            try:
                return prompt, self.answers.save(prompt, self.ask(prompt))
            except (fetch.Fault, Rejected) as e:
                return prompt, e
            except BaseException as e:
                self.end = self.end or e  # for the other threads, before they ask on
                raise

        # not concurrent.futures, whose threads Python waits for at its end: Ctrl-C would hang as long as the teacher
        pool = ThreadPool(self.args.concurrency)
        try:
            yield from pool.imap_unordered(one, [p for p in prompts if p["key"] not in self.answers.known])
        finally:
            self.end = self.end or fetch.Fault("the run is over")
            pool.terminate()

    def ask(self, prompt):
        """An answer. Raises Fault after the last attempt, Rejected, or ValueError if there is no use in going on."""
        connection = vars(self.mine).setdefault("connection", self.kind(self.host, timeout=self.args.timeout))
        for attempt in range(self.args.retries + 1):
            while (wait := self.resume - time.monotonic()) > 0 and not self.end:
                time.sleep(min(wait, 1.0))
            if self.end:
                raise self.end
            try:
                return self.post(connection, prompt)
            except fetch.Fault as e:
                connection.close()  # or what is left on it would be taken for the next answer
                if attempt == self.args.retries:
                    raise
                if str(e)[:50] not in self.told:
                    self.told.add(str(e)[:50])
                    fetch.say(f"{e}; trying again")
            time.sleep(min(LONGEST, BACKOFF * 2**attempt) * random.uniform(0.5, 1.5))

    def post(self, connection, prompt):
        began, args, body = time.monotonic(), self.args, b""
        options = {name: getattr(args, name) for name in ("model", "temperature", "top_p", "seed")}
        request = {k: v for k, v in options.items() if v is not None} | {
            self.limit: args.max_new_tokens, "prompt" if args.raw else "messages": prompt["asked"], "stream": False}
        with fetch.as_fault(self.host):
            connection.request("POST", self.path, json.dumps(request).encode(), self.headers)
            response = connection.getresponse()
            while piece := response.read1(1 << 16):
                body += piece
                if time.monotonic() > began + args.timeout:  # the connection's own timeout is for each piece
                    raise TimeoutError(f"not whole after {args.timeout:g} s")
            body += response.read()  # nothing, or an error if bytes are missing; it frees the connection
        if response.status == 400 and b"max_completion_tokens" in body and "max_tokens" in request:
            self.limit = "max_completion_tokens"  # OpenAI's name of it where models reason
            raise fetch.Fault(f"{self.host} calls --max_new_tokens {self.limit}")
        if response.status != 200:
            self.judge(response, self.words(body), prompt)
        with fetch.as_fault(f"{self.host}: no answer in {self.words(body)[:99]}"):
            reply = json.loads(body)
            choice, usage = reply["choices"][0], reply.get("usage") or {}
            message = {"content": choice["text"]} if args.raw else choice["message"]
            text = (message.get("content") or "").encode("utf-8", "replace").decode()  # no half surrogate pairs
            refused = message.get("refusal") or choice.get("finish_reason") == "content_filter"
            tokens = {name: int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")}
        self.answered += 1
        return dict(text=text, finish="refused" if refused else choice.get("finish_reason"), model=reply.get("model"),
                    seconds=round(time.monotonic() - began, 3), at=round(time.time(), 3), **tokens)

    def words(self, body):
        """A body in one line, without the key, which some repeat."""
        return " ".join(body.decode("utf-8", "replace").replace(self.key or "\0", "***").split())

    def judge(self, response, words, prompt):
        """Raise what an answer that is no 200 means."""
        status, said = response.status, f"{self.host} answered {response.status}: {words[:300]}"
        if (status in (408, 409, 425, 429) or status >= 500) and "insufficient_quota" not in words:
            wait = seconds_of(response.headers.get("Retry-After", ""))
            self.resume = max(self.resume, time.monotonic() + wait)
            raise fetch.Fault(f"{said}, and to wait for {wait:,.0f} s" if wait > 10 else said)
        if status in (400, 413, 422):  # the flags; or, where others were answered, this prompt: too long, unwanted
            self.rejected += 1
            if self.rejected <= self.answered:
                raise Rejected(said)
            raise ValueError(f"{said} (to line {prompt['line']}); check that prompt, --model and the other flags")
        hint = {401: "--api_key_env", 403: "--api_key_env", 429: "your account with them"}.get(
            status, "--teacher, which often ends in /v1, and --model")
        raise ValueError(f"{said}; check {hint}")


def seconds_of(retry_after):
    """Of the header Retry-After, which has seconds or a date: up to an hour; 0 if it can't be read."""
    with contextlib.suppress(ValueError, TypeError):
        if not re.fullmatch(r"[\d.]+", retry_after):
            retry_after = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        return min(3600.0, max(0.0, float(retry_after)))
    return 0.0


def ask_checkpoint(args, answers, prompts):
    """
    As Endpoint.ask_all, of a teacher on this machine: strings it goes on from, messages it answers. A batch has the
    same prompts and seed, and so the same answers, whatever an earlier run has done.
    """
    import sample

    device = cli.choose_device("auto")
    model, tokenizer = sample.load(args.teacher, device, cli.choose_dtype("auto", device))
    room = model.config.block_size - args.max_new_tokens
    sampling = {k: getattr(args, k) for k in ("temperature", "top_p") if getattr(args, k) is not None}
    for start in range(0, len(prompts), args.concurrency):
        batch = []
        for prompt in prompts[start : start + args.concurrency]:
            size = len(examples.prompt_tokens(tokenizer, prompt["asked"]))
            if size > room:
                yield prompt, Rejected(f"{size:,} tokens, and the teacher has room for {max(0, room):,}")
            else:
                batch.append((prompt, size))
        if all(prompt["key"] in answers.known for prompt, _ in batch):
            continue
        began = time.monotonic()
        said = sample.generate(model, tokenizer, [p["asked"] for p, _ in batch], args.max_new_tokens, **sampling,
                               seed=(args.seed or 0) + start, batch_size=len(batch), with_lengths=True)
        took = dict(model=args.teacher, seconds=round(time.monotonic() - began, 3), at=round(time.time(), 3))
        for (prompt, size), (text, length) in zip(batch, said, strict=True):
            if prompt["key"] not in answers.known:
                finish = "stop" if length < args.max_new_tokens else "length"
                yield prompt, answers.save(prompt, dict(
                    text=text, finish=finish, prompt_tokens=size, completion_tokens=length, **took))


class Answers:
    """answers.jsonl: a line per answer, whole and on disk as soon as there is one."""

    def __init__(self, folder):
        self.path, self.lock, self.synced = os.path.join(folder, "answers.jsonl"), threading.Lock(), 0.0
        self.file = open(self.path, "ab+")
        self.file.seek(0)
        self.file.truncate(self.file.read().rfind(b"\n") + 1)  # a kill may have torn the last line
        self.known = set(self.read())

    def read(self):
        """{key: answer}"""
        found = {}
        with open(self.path, "rb") as f:
            for line in f:
                with contextlib.suppress(ValueError, LookupError, TypeError):  # what a power cut made of it
                    answer = json.loads(line)
                    found[answer["key"]] = answer
        return found

    def save(self, prompt, answer):
        line = json.dumps({"key": prompt["key"]} | answer).encode() + b"\n"
        with self.lock:
            self.file.write(line)
            self.file.flush()  # now a kill loses nothing, and a power cut at most a second's worth
            if time.monotonic() > self.synced + 1:
                os.fsync(self.file.fileno())
                self.synced = time.monotonic()


def choose(prompts, answers, rejected, args):
    """-> (the records worth learning, the others, with the reason)."""
    kept, dropped, seen = [], [], set()
    normal = {key: " ".join(answer["text"].lower().split()) for key, answer in answers.items()}
    for prompt in prompts:
        asked, answer = prompt["asked"], answers.get(prompt["key"]) or dict(text="", finish="rejected", model=None)
        text = answer["text"] if isinstance(asked, str) else answer["text"].strip()
        said = dict(prompt=asked, completion=text) if isinstance(asked, str) else dict(
            messages=[*asked, dict(role="assistant", content=text)])
        pair = examples.key_of(said), normal.get(prompt["key"])
        reason = ("rejected" if answer["finish"] == "rejected" else
                  "refused" if answer["finish"] == "refused" or REFUSAL.match(text) else
                  "truncated" if answer["finish"] == "length" and not args.keep_truncated else
                  "empty" if not text.strip() else
                  "duplicate" if pair in seen else "")
        seen.add(pair)
        meta = dict(line=prompt["line"], teacher=args.teacher, model=answer["model"], finish=answer["finish"])
        why = dict(reason=reason, error=rejected.get(prompt["key"])) if reason else {}
        (dropped if reason else kept).append({"id": prompt["key"], **why, **said, "meta": meta})
    return kept, dropped


def summarise(answers, kept, dropped, args):
    """The figures, for the manifest; under "timing" those that differ from run to run."""
    def middle(values):
        return dict(zip(("median", "p95"), np.percentile(values or [0], [50, 95]).round(2).tolist(), strict=True))

    read, written = (sum(a[name] for a in answers) for name in ("prompt_tokens", "completion_tokens"))
    sizes = [len(r["completion"] if "completion" in r else r["messages"][-1]["content"]) for r in kept]
    wall = end = 0.0
    for start, stop in sorted((a["at"] - a["seconds"], a["at"]) for a in answers):
        wall, end = wall + max(0.0, stop - max(start, end)), max(stop, end)  # while the teacher was at any of them
    return dict(asked=len(kept) + len(dropped), kept=len(kept), prompt_tokens=read, completion_tokens=written,
                dropped=dict(collections.Counter(r["reason"] for r in dropped)), characters=middle(sizes),
                no_usage=sum(bool(a["text"]) and not a["completion_tokens"] for a in answers),  # then we can't know
                cost=round((read * args.price_in + written * args.price_out) / 1e6, 6),
                timing=dict(latency=middle([a["seconds"] for a in answers]), seconds=round(wall, 1),
                            tokens_per_second=round(written / max(wall, 1e-3), 1)))


def add_flags(parser):
    """The flags of `prepare.py distill`; `run` takes the parsed ones."""
    add = parser.add_argument
    add("prompts", metavar="PROMPTS", help='.jsonl with "prompt" or "messages", or .txt with one a line')
    add("--teacher", required=True, help="an OpenAI-compatible address (http://127.0.0.1:8000/v1), or a checkpoint")
    add("--out", required=True, help="the data directory to write")
    add("--model", help="what the address calls the teacher")
    add("--api_key_env", metavar="NAME", help="the environment variable with the key; without it none is sent")
    add("--raw", action="store_true", help="let the teacher continue prompts rather than answer in a chat")
    add("--system", help="a system message for conversations that have none")
    add("--max_new_tokens", type=cli.positive(int), default=512, help="of an answer")
    add("--temperature", type=cli.non_negative(float), help="without it the teacher's own; a checkpoint's is 0.8")
    add("--top_p", type=cli.positive(float), help="without it the teacher's own")
    add("--seed", type=int, help="of the sampling and the split; without it none is sent")
    add("--concurrency", type=cli.positive(int), default=8, help="requests at a time; of a checkpoint: the batch size")
    add("--retries", type=cli.non_negative(int), default=8, help="further attempts; eight take three minutes")
    add("--timeout", type=cli.positive(float), default=300.0, help="seconds for an answer")
    add("--limit", type=cli.positive(int), help="ask only the first so many")
    add("--keep_truncated", action="store_true", help="also learn from answers that --max_new_tokens cut off")
    add("--val_fraction", type=cli.fraction, default=0.1, help="share of the prompts to hold out")
    add("--price_in", type=cli.non_negative(float), default=0.0, help="of a million tokens of prompts, for the summary")
    add("--price_out", type=cli.non_negative(float), default=0.0, help="of a million tokens of answers")
    add("--licence", default="", help="of the teacher's answers: may one train on them?")


def run(args):
    """The command. ValueError if something is wrong, or prompts failed; the same command again asks what is left."""
    remote, out = "://" in args.teacher, os.path.realpath(args.out)
    if remote and not re.fullmatch(r"https?://([\w.-]+|\[[\da-f:]+\])(:\d+)?(/[\w./~-]*)?", args.teacher):
        raise ValueError("--teacher: give an address as in http://127.0.0.1:8000/v1, and a key by --api_key_env")
    if remote and not args.model:
        raise ValueError(f"--model is missing: what does {args.teacher} call the teacher?")
    if not remote and not os.path.isdir(args.teacher):
        raise ValueError(f"--teacher {args.teacher} is neither an address nor a checkpoint's directory")
    if args.system and (args.raw or not remote):
        raise ValueError("--system is for a teacher behind an address, without --raw")
    if os.path.exists(out) and (not os.path.isdir(out) or os.listdir(out)):
        raise ValueError(f"{out} exists already; choose another --out")
    key = [getattr(args, p) for p in PARAMETERS]
    if not remote:  # a run's newest checkpoint may be another when we come back
        path = checkpoint_of(args.teacher)
        key += [args.concurrency, path, sorted(os.stat(e.path).st_mtime_ns for e in os.scandir(path))]
    args.chat = not args.raw and (remote or bool(read_chat_template(checkpoint_of(args.teacher))))
    prompts, count = read_prompts(args)
    found = collections.Counter(kind for p in prompts for text in texts_of(p["asked"])
                                for *_, kind in pii.find_pii(text))
    if found:
        fetch.say("personal data in the prompts, which the teacher is told and the examples will hold: "
                  + ", ".join(f"{n:,} {kind}" for kind, n in sorted(found.items())))
    jobs.open_folder(out + ".partial", hash_of(key))
    with open(os.path.join(out + ".partial", "lock"), "w") as lock:
        try:
            fetch.lock(lock, out)
        except ValueError:
            raise ValueError(f"another prepare.py distill is at work on {out}; wait, or choose another --out") from None
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        answers = Answers(out + ".partial")
        here = sum(p["key"] in answers.known for p in prompts)
        fetch.say(f"{count:,} prompts, {len(prompts):,} to ask, of which {here:,} are answered already")
        try:
            rejected = ask(args, prompts, answers, here) if here < len(prompts) else {}
        except (KeyboardInterrupt, SystemExit):
            fetch.say("interrupted; run the same command again to continue")
            raise
        write(args, prompts, count, answers.read(), rejected, out)


def ask(args, prompts, answers, here):
    """Have the teacher answer what is unanswered -> {key: why not} of the prompts that it will not take."""
    failed, rejected, in_a_row = [], {}, 0
    asking = (Endpoint(args, answers).ask_all(prompts) if "://" in args.teacher else
              ask_checkpoint(args, answers, prompts))
    with contextlib.closing(asking), tqdm(total=len(prompts), initial=here, unit="prompt", disable=None) as bar:
        for prompt, trouble in asking:
            bar.update()
            in_a_row = in_a_row + 1 if isinstance(trouble, fetch.Fault) else 0
            if isinstance(trouble, Rejected):
                rejected[prompt["key"]] = str(trouble)
            elif trouble:
                failed.append(f"line {prompt['line']}: {trouble}")
            if in_a_row > args.concurrency:
                raise ValueError(f"the teacher does not answer ({trouble}); run the same command again later")
    if failed:
        raise ValueError(f"{len(failed):,} of {len(prompts):,} prompts failed ({failed[0]}); run the same command "
                         "again, or take them out of the prompts")
    return rejected


def write(args, prompts, count, answers, rejected, out):
    """Choose, tell, and write the data directory, which appears whole."""
    kept, dropped = choose(prompts, answers, rejected, args)
    if not kept:
        reasons = collections.Counter(r["reason"] for r in dropped)
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in reasons.items())
        raise ValueError(f"no answer is worth learning ({reasons}); add --keep_truncated, or remove {out}.partial and "
                         "ask again with other flags, such as more --max_new_tokens")
    given = [answers[p["key"]] for p in prompts if p["key"] in answers]
    figures = summarise(given, kept, dropped, args)
    fetch.say("\n".join(f"  {name.replace('_', ' ')}: {cli.figures_in_words(value)}"
                        for name, value in figures.items() if value))
    with open(args.prompts, "rb") as f:
        source = dict(path=args.prompts, sha256=hashlib.sha256(f.read()).hexdigest(), prompts=count)
    allowed = args.licence
    if not allowed and "://" not in args.teacher:
        allowed = licence.of_model(checkpoint_of(args.teacher)) or ""
    splits, draft = examples.divide(kept, args.val_fraction, args.seed or 0), os.path.join(out + ".partial", "result")
    shutil.rmtree(draft, ignore_errors=True)
    examples.write(draft, splits, kind="sft", about=dict(
        sources=[source], licence=allowed, distillation={p: getattr(args, p) for p in PARAMETERS} | figures))
    with fetch.whole(os.path.join(draft, "dropped.jsonl")) as f:
        f.writelines(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in dropped)
    if os.path.isdir(out):
        os.rmdir(out)
    os.rename(draft, out)
    shutil.rmtree(out + ".partial")
    fetch.say(f"wrote {out}: {len(splits['train']):,} train, {len(splits['val']):,} val; "
              f"next: python train.py --data {args.out} --init CKPT --out DIR")
