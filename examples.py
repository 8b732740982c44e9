"""
Examples to learn from: prompts and completions, conversations, preference pairs; as files, as tokens, as batches.

    {"prompt": "...", "completion": "..."}         an example is one of these, recognised by its keys;
    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
    {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}
    {"instruction": "...", "input": "...", "output": "..."}
    {"text": "..."}
    {"prompt": "...", "chosen": "...", "rejected": "..."}           and a pair is this

A data directory of kind sft or pairs keeps them as text, train.jsonl, val.jsonl, ...; the model that learns from them
encodes them, with its own tokenizer. What is learnt is marked by position, never by token: completions and the
end-of-text after them count, prompts and padding do not. Prompt and completion are encoded apart, as they will be when
the model is asked: no token reaches across.
"""
import copy
import datetime
import functools
import hashlib
import json
import os
import re

import numpy as np

import jobs
from tokenizer import Tokenizer, gpt2_is_cached

KEYS = ("messages", "conversations", "instruction", "prompt", "text")
ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "chatgpt": "assistant", "bot": "assistant"}
# For models that have no conventions of their own: roles in words, since a GPT-2 has no special tokens for them.
TEMPLATE = ("{{ bos_token }}{% for message in messages %}"
            "{% if message['role'] == 'assistant' %}Assistant: {{ message['content'] }}{{ eos_token }}"
            "{% elif message['role'] == 'user' %}User: {{ message['content'] }}\n\n"
            "{% else %}{{ message['content'] }}\n\n{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}Assistant:{% endif %}")

# ----------------------------------------------------------------------------------------------------------------------
# Records


def read_records(path, kind="sft"):
    """
    The records of a .jsonl file, or of a .json file with one list, in the few forms that the rest reads: prompt and
    completion, messages, or text; for pairs prompt, chosen and rejected. ValueError names the lines that are none.
    """
    if os.path.isdir(path) or os.fspath(path).endswith((".csv", ".tsv", ".parquet", ".txt")):
        raise ValueError(f"{path} is no .jsonl or .json file; write one example a line, such as "
                         '{"prompt": "...", "completion": "..."}')
    with open(path, "rb") as f:
        raw = f.read()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise ValueError(f"{path}:{raw.count(10, 0, e.start) + 1} is not UTF-8; convert the file") from None
    if text.lstrip().startswith("["):
        try:
            lines = [(f"{path}, entry {i}", entry) for i, entry in enumerate(json.loads(text), 1)]
        except (ValueError, RecursionError) as e:
            raise ValueError(f"{path} is not valid JSON ({e})") from None
    else:
        lines = [(f"{path}:{i}", line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    records, wrong = [], []
    for where, line in lines:
        try:
            record = json.loads(line) if isinstance(line, str) else line
            made = canonical_pair(record) if kind == "pairs" else canonical(record)
            json.dumps(made, ensure_ascii=False).encode()  # half a surrogate pair can't be
            records.append(made)
        except json.JSONDecodeError as e:
            wrong.append(f"{where} is not valid JSON ({e.msg})")
        except UnicodeEncodeError:
            wrong.append(f"{where} holds half of a surrogate pair, which is no character")
        except RecursionError:
            wrong.append(f"{where} is nested too deeply")
        except ValueError as e:
            wrong.append(f"{where}: {e}")
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError("; ".join(wrong[:5]) + more)
    if not records:
        raise ValueError(f"{path} has no examples in it")
    return records


def canonical(record):
    """A record in any of the forms above -> with text, messages, or prompt and completion; ValueError says why not."""
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    rest = {k: record[k] for k in ("id", "meta") if k in record}
    key = next((k for k in KEYS if k in record), None)
    if "chosen" in record:
        raise ValueError("has chosen and rejected; that is for: python prepare.py pairs")
    if key == "text":
        return dict(text=text_of(record, "text"), **rest)
    if key == "instruction":
        extra = text_of(record, "input", "") if record.get("input") else ""
        asked = text_of(record, "instruction") + (f"\n\n{extra}" if extra else "")
        return dict(messages=[dict(role="user", content=asked),
                              dict(role="assistant", content=text_of(record, "output"))], **rest)
    if key == "prompt" and isinstance(record["prompt"], str):
        completion = joined(record["prompt"], text_of(record, "completion"))
        return dict(prompt=record["prompt"], completion=completion, **rest)
    if key == "prompt":  # messages, of which only those of the completion are to be learnt
        context = [m | {"weight": 0} for m in messages_of(record, "prompt")]
        return dict(messages=something_to_learn([*context, *messages_of(record, "completion")]), **rest)
    if key:
        return dict(messages=something_to_learn(messages_of(record, key)), **rest)
    raise ValueError(f"has the keys {', '.join(map(repr, record)) or 'none'}; expected prompt and completion, "
                     "messages, conversations, instruction and output, or text")


def canonical_pair(record):
    """
    A preference -> prompt, chosen and rejected: all strings, or prompt a list of messages and the others one answer's
    text. Without a prompt, chosen and rejected are conversations that differ in their last message.
    """
    if not isinstance(record, dict) or "chosen" not in record or "rejected" not in record:
        raise ValueError("expected prompt, chosen and rejected")
    rest = {k: record[k] for k in ("id", "meta") if k in record}
    if isinstance(record.get("prompt"), str) and isinstance(record["chosen"], str):
        prompt = record["prompt"]
        chosen, rejected = (joined(prompt, text_of(record, k)) for k in ("chosen", "rejected"))
    else:
        ends = {k: [dict(role="assistant", content=text_of(record, k))] if isinstance(record[k], str)
                else messages_of(record, k) for k in ("chosen", "rejected")}
        if isinstance(record.get("prompt"), list):
            context = messages_of(record, "prompt")
        else:
            context = [dict(role="user", content=record["prompt"])] if isinstance(record.get("prompt"), str) else []
        for k in ends:
            if ends[k][: len(context)] != context:
                ends[k] = context + ends[k]
        prompt = ends["chosen"][:-1]
        last = [m[-1] for m in ends.values()]
        if ends["rejected"][:-1] != prompt or any(m["role"] != "assistant" for m in last) or not prompt:
            raise ValueError("chosen and rejected must be two answers of the assistant's to the same messages")
        chosen, rejected = (m["content"] for m in last)
    if chosen == rejected:
        raise ValueError("chosen and rejected are the same")
    return dict(prompt=prompt, chosen=chosen, rejected=rejected, **rest)


def text_of(record, key, *default):
    value = record.get(key, *default)
    if not isinstance(value, str) or not value.strip() and not default:
        why = "missing" if value is None else "empty" if isinstance(value, str) else "not a text"
        raise ValueError(f"{key!r} is {why}")
    return value


def messages_of(record, key):
    if not isinstance(record.get(key), list) or not record[key]:
        raise ValueError(f"{key!r} is neither a text nor a list of messages" if key == "prompt" else
                         f"{key!r} is not a list of messages")
    messages = []
    for m in record[key]:
        if not isinstance(m, dict):
            raise ValueError(f"a message in {key!r} is not a JSON object")
        role = m.get("role", m.get("from"))
        content = m.get("content", m.get("value"))
        if isinstance(content, list) and all(isinstance(c, dict) and c.get("type") == "text" for c in content):
            content = "".join(str(c.get("text", "")) for c in content)
        role = ROLES.get(role, role) if isinstance(role, str) else role
        if role not in ("system", "user", "assistant", "tool") or not isinstance(content, str):
            raise ValueError(f"a message in {key!r} needs a role (system, user, assistant) and content in text")
        if role == "assistant" and not content.strip() and m.get("weight") != 0:
            raise ValueError("an assistant's message is empty")
        messages.append(dict(role=role, content=content, **{k: m[k] for k in ("weight",) if k in m}))
    return messages


def something_to_learn(messages):
    if not any(is_learnt(m) for m in messages):
        raise ValueError("no message of the assistant's, so there is nothing to learn")
    return messages


def is_learnt(message):
    return message["role"] == "assistant" and message.get("weight") != 0


def share_learnt(records):
    """The share of the records' characters that is to be learnt: what a tokenizer would say, but for a little."""
    said = sum(len(r.get(k, "")) for r in records for k in ("completion", "chosen", "rejected", "text"))
    said += sum(len(m["content"]) for r in records for m in r.get("messages", ()) if is_learnt(m))
    return said / max(1, said + sum(len(asked(r)) for r in records if "text" not in r))


def joined(prompt, completion):
    """A space before a completion that would otherwise be glued to the prompt's last word."""
    return completion if not prompt or prompt[-1].isspace() or completion[0].isspace() else " " + completion


def key_of(record):
    """What is asked, normalised: examples with the same are never on both sides of a split."""
    return " ".join(asked(record).lower().split())


def asked(record, roles=("system", "user", "tool")):
    """The text of a record, or of its prompt; of messages what these roles say."""
    found = next(record[k] for k in ("text", "prompt", "messages") if k in record)
    return found if isinstance(found, str) else " ".join(m["content"] for m in found if m["role"] in roles)


def divide(records, val_fraction, seed):
    """{"train": [...], "val": [...]}: the same questions on the same side, chosen by their hash."""
    keys = {r: hashlib.sha256(f"{seed} {r}".encode()).digest() for r in map(key_of, records)}
    held = set(sorted(keys, key=keys.get)[: round(val_fraction * len(keys)) if len(keys) > 1 else 0])
    sides = [key_of(r) in held for r in records]
    return {name: [r for r, s in zip(records, sides, strict=True) if s == side]
            for name, side in (("train", False), ("val", True))}


def write(directory, splits, kind="sft", about=None, tokenizer=None, chat_template=None):
    """
    Write a data directory of kind sft or pairs: the records of each split, {"train": [...], ...}, as JSON lines, and
    manifest.json, with what `about` says of them (licence, sources, task, ...). tokenizer: kept beside them, and counts
    their tokens; GPT-2's if none is given and its vocabulary is at hand. The model that learns from them has its own.
    chat_template: Jinja, for conversations, rather than the model's own or, if it has none, TEMPLATE.
    """
    splits = {name: records for name, records in splits.items() if records}
    talk = any("messages" in r or isinstance(r.get("prompt"), list) for records in splits.values() for r in records)
    directory = directory.rstrip("/")
    if not directory or os.path.exists(directory) and (not os.path.isdir(directory) or os.listdir(directory)):
        raise ValueError(f"{directory or 'the empty name'} exists already; choose another --out")
    if not splits.get("train"):
        raise ValueError("no example is left to train on")
    if os.path.isdir(directory):
        os.rmdir(directory)
    jobs.remove_old_drafts(directory)
    manifest = dict(format_version=1, kind=kind, tokenizer=None, chat_template=chat_template or TEMPLATE * talk,
                    chat_template_is="given" if chat_template else "default", splits={}) | (about or {})
    with jobs.whole(directory) as draft:
        for name, records in splits.items():
            lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records).encode()
            with open(os.path.join(draft, f"{name}.jsonl"), "wb") as f:
                f.write(lines)
            manifest["splits"][name] = dict(file=f"{name}.jsonl", examples=len(records), bytes=len(lines),
                                            sha256=hashlib.sha256(lines).hexdigest())
        if tokenizer := copy.copy(tokenizer or gpt2()):
            tokenizer.chat_template = chat_template or tokenizer.chat_template or TEMPLATE * talk
            tokenizer.save(draft)
            manifest["tokenizer"] = dict(name=tokenizer.name, sha256=tokenizer.sha256(),
                                         vocab_size=tokenizer.vocab_size)
            for name, records in splits.items():
                lengths = [len(ids) for r in records for ids, _ in sequences(tokenizer, r)]
                manifest["splits"][name] |= dict(tokens=sum(lengths), longest=max(lengths, default=0))
        jobs.save_json(draft, "manifest", manifest, indent=1)


@functools.cache
def gpt2():
    return Tokenizer.gpt2() if gpt2_is_cached() else None


def read_split(directory, manifest, split):
    """The records of a split; ValueError if the file is not the one that the manifest describes."""
    entry = manifest["splits"][split]
    path = os.path.join(directory, entry["file"])
    try:
        with open(path, "rb") as f:
            lines = f.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; build the directory again with prepare.py") from None
    if hashlib.sha256(lines).hexdigest() != entry["sha256"]:
        raise ValueError(f"{path} does not match its checksum; build the directory again with prepare.py")
    return [json.loads(line) for line in lines.decode().split("\n") if line]


def follow_template(tokenizer, manifest):
    """Have the tokenizer write conversations as the data says; where that is only the default, as the model does."""
    if manifest["chat_template"] and (manifest["chat_template_is"] == "given" or not tokenizer.chat_template):
        tokenizer.chat_template = manifest["chat_template"]


def against_wrong(directory, manifest, seed):
    """
    {split: pairs} of a task's examples: the right answer, and a wrong one drawn from the task's labels or, where it has
    none, from the other answers.
    """
    task, rng, splits = manifest.get("task") or {}, np.random.default_rng(seed), {}
    if not task:
        raise ValueError(f"{directory} was not made by prepare.py task; its answers have no wrong counterparts")
    for split in manifest["splits"]:
        records = read_split(directory, manifest, split)
        answers = task["labels"] or sorted({r["completion"] for r in records})
        if len(answers) < 2:
            raise ValueError(f"{directory}/{split}.jsonl has one answer only, so none is wrong")
        splits[split] = []
        for r in records:
            wrong = [a for a in answers if a != r["completion"]]
            right, wrong = r["completion"], wrong[rng.integers(len(wrong))]
            if not isinstance(r["prompt"], str):  # an answer in a conversation follows no word
                right, wrong = right.strip(), wrong.strip()
            splits[split].append(dict(id=r["id"], prompt=r["prompt"], chosen=right, rejected=wrong))
    return splits


def fingerprint(manifest):
    """A short name for exactly these examples: what a resumed run compares."""
    parts = [manifest["chat_template"], *(s["sha256"] for s in manifest["splits"].values())]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


# ----------------------------------------------------------------------------------------------------------------------
# Tokens


def tokens(tokenizer, record):
    """
    A record's ids (n,) int64, from one end-of-text (or a beginning, if the tokenizer has one) to another, and which of
    them are to be learnt (n,) bool. Of a prompt in messages the completion is the assistant's answer.
    """
    start, end = [tokenizer.start], [tokenizer.end_of_text]
    if isinstance(record.get("prompt"), list):
        ids, learnt = answered(tokenizer, record["prompt"], record["completion"].strip())
    elif "messages" in record:
        ids, learnt = conversation(tokenizer, record["messages"])
    else:
        asked = tokenizer.encode(record.get("prompt", ""))
        said = tokenizer.encode(record["completion"] if "completion" in record else record["text"])
        ids = np.concatenate([start, asked, said, end]).astype(np.int64)
        learnt = np.arange(len(ids)) > len(asked)
    return ids, learnt


def sequences(tokenizer, record):
    """The [(ids, learnt)] of a record: one, or of a pair two, chosen and rejected."""
    if "chosen" not in record:
        return [tokens(tokenizer, record)]
    if isinstance(record["prompt"], str):
        return [tokens(tokenizer, dict(prompt=record["prompt"], completion=record[k])) for k in ("chosen", "rejected")]
    return [answered(tokenizer, record["prompt"], record[k]) for k in ("chosen", "rejected")]


def answered(tokenizer, messages, answer):
    """Messages and the answer to them, which alone is to be learnt, as `conversation` has them."""
    return conversation(tokenizer, [*(m | {"weight": 0} for m in messages), dict(role="assistant", content=answer)])


def prompt_tokens(tokenizer, prompt):
    """What the model is shown to go on from, (n,) int64: a text, or messages for it to answer."""
    if not isinstance(prompt, str):
        return conversation(tokenizer, prompt, answer=True)[0]
    return np.concatenate([[tokenizer.start], tokenizer.encode(prompt)]).astype(np.int64)


def stop_tokens(tokenizer):
    """The tokens that end what the model says: end-of-text, and the one that ends a turn in its chat template."""
    if not tokenizer.chat_template:
        return [tokenizer.end_of_text]
    ids, learnt = conversation(tokenizer, [dict(role="user", content="a"), dict(role="assistant", content="b")])
    return sorted({tokenizer.end_of_text, int(ids[learnt][-1])})


def conversation(tokenizer, messages, answer=False):
    """
    Messages -> ids (n,) int64 and which of them are to be learnt: what the assistant says, up to the token that ends
    its turn. answer: go on to where the assistant begins to speak.

    The template is rendered up to each turn of the assistant and past it: what was added is the turn. Text that the
    template writes may hold special tokens; the same characters in a message are text.
    """
    special, pattern = tokenizer.special, tokenizer.special_pattern
    mark = next(c for c in map(chr, range(0xE000, 0xF8FF)) if not any(c in m["content"] for m in messages))
    shielded = [m | {"content": pattern.sub(lambda s: s[0][0] + mark + s[0][1:], m["content"])} for m in messages]
    render = functools.partial(template_of(tokenizer.chat_template or TEMPLATE), eos_token=tokenizer.name_of(
        tokenizer.end_of_text), bos_token=tokenizer.name_of(tokenizer.start))
    ids, learnt, written = [], [], ""

    def add(text, turn=False, learn=False):
        nonlocal written
        if not text.startswith(written):
            raise ValueError("the chat template writes earlier turns differently once others follow, so what was "
                             "learnt would not be what is asked; end each conversation at the turn to learn, or give "
                             "another with --chat_template")
        parts, written = re.split(f"({pattern.pattern})", text[len(written) :]), text
        pieces = [[special[p]] if i % 2 else tokenizer.encode(p.replace(mark, "")).tolist()
                  for i, p in enumerate(parts)]
        if turn and len(parts) == 1:  # a template that does not end a turn: we do, or the model would never stop
            pieces.append([tokenizer.end_of_text])
        ends = max((i for i in range(1, len(parts), 2)), default=len(pieces))  # "\n" after <end_of_turn> is not said
        for i, piece in enumerate(pieces):
            ids.extend(piece)
            learnt.extend([learn and i <= ends] * len(piece))

    for i, message in enumerate(shielded):
        if message["role"] == "assistant":
            before = render(messages=shielded[:i], add_generation_prompt=True)
            after = render(messages=shielded[: i + 1], add_generation_prompt=False)
            if not after.startswith(before):
                raise ValueError("the chat template does not write the prompt of an assistant's turn as it begins the "
                                 "turn itself, so the two can't be told apart; give another with --chat_template")
            add(before)
            add(after, turn=True, learn=is_learnt(message))
    if answer or messages[-1]["role"] != "assistant":
        add(render(messages=shielded, add_generation_prompt=answer))
    if ids[:1] != [tokenizer.start]:
        ids, learnt = [tokenizer.start, *ids], [False, *learnt]
    if ids[1:2] == ids[:1]:
        raise ValueError("the chat template begins with two beginning-of-text tokens")
    if tokenizer.limit and max(ids) >= tokenizer.limit:
        raise ValueError(f"the chat template writes {tokenizer.name_of(max(ids))}, for which the model has no row")
    if any(m["role"] == "system" and m["content"].strip() not in written for m in shielded):
        raise ValueError("the chat template leaves out what the system says; put it into the first question, or give "
                         "another template with --chat_template")
    return np.array(ids, dtype=np.int64), np.array(learnt, dtype=bool)


@functools.lru_cache(8)
def template_of(source):
    """A Jinja chat template, compiled as Hugging Face's libraries do: sandboxed, with their functions."""
    import jinja2
    import jinja2.ext
    import jinja2.sandbox

    def raise_exception(message):
        raise ValueError(f"the chat template refuses these messages: {message}")

    class Generation(jinja2.ext.Extension):
        """{% generation %}...{% endgeneration %}, by which some mark the assistant's words: here the words alone."""

        tags = {"generation"}

        def parse(self, parser):
            next(parser.stream)
            return parser.parse_statements(["name:endgeneration"], drop_needle=True)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                               extensions=[Generation, jinja2.ext.loopcontrols])
    environment.globals |= dict(raise_exception=raise_exception,
                                strftime_now=lambda form: datetime.datetime.now().strftime(form))
    environment.filters["tojson"] = lambda x, **options: json.dumps(x, ensure_ascii=False, **options)
    try:
        template = environment.from_string(source)
    except jinja2.TemplateError as e:
        raise ValueError(f"the chat template is not valid Jinja ({e})") from None

    def render(**values):
        try:
            return template.render(**values)
        except ValueError:
            raise
        except Exception as e:  # a template is a program: it can fail in any way
            raise ValueError(f"the chat template failed on these messages ({e})") from None
    return render


def items(tokenizer, records, T):
    """
    What is learnt from records in rows of T tokens: [(record's number, [(ids, learnt), ...])], a pair having two
    sequences, a long text giving several; how many others were shortened, how many of those lost something to learn,
    and the longest before that. ValueError names the record, counted from 1, in which there is nothing to learn.
    """
    found, cut, lost, longest = [], 0, 0, 0
    for i, record in enumerate(records):
        try:
            whole = sequences(tokenizer, record)
        except ValueError as e:
            raise ValueError(f"{i + 1}: {e}") from None
        if "text" in record:
            (ids, learnt), = whole
            pieces = [[(ids[s : s + T + 1], learnt[s : s + T + 1])] for s in range(0, max(1, len(ids) - 1), T)]
        else:
            pieces = [[fit(*sequence, T + 1) for sequence in whole]]
            cut += any(len(f[0]) < len(s[0]) for f, s in zip(pieces[0], whole, strict=True))
            lost += any(f[1].sum() < s[1].sum() for f, s in zip(pieces[0], whole, strict=True))
        if not all(learnt[1:].any() for piece in pieces for _, learnt in piece):
            raise ValueError(f"{i + 1} has no token to learn")
        found += [(i, piece) for piece in pieces]
        longest = max([longest, *(len(ids) for ids, _ in whole)])
    return found, cut, lost, longest


def fit(ids, learnt, room):
    """
    At most `room` tokens of a sequence: what comes first goes first, but for the first token; the last completion
    stays. One that is too long by itself keeps its beginning, after a quarter of the room's worth of prompt.
    """
    if len(ids) <= room or not learnt.any():
        return ids[:room], learnt[:room]
    last = int(np.flatnonzero(learnt)[-1])
    start = last - int(np.argmin(learnt[: last + 1][::-1])) + 1  # of the last run of what is to be learnt
    if last + 2 - start <= room:
        keep = np.r_[0, last + 2 - room : last + 1]
    else:
        prompt = min(room // 4, start - 1)
        keep = np.r_[0, start - prompt : start - prompt + room - 1]
    return ids[keep], learnt[keep]
