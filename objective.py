"""
What training learns from: next tokens, completions, or preferences. Each with its batches, its loss, its validation.

    objective = make(args, tokenizer)                # by the kind of the data directory: lm, sft or pairs
    for micro in objective.micro_batches(step, rank, world):     # this rank's part of the step's batch
        loss, sums = objective.losses(forward, micro)            # what to learn from; what to log, as objective.names
    objective.count(step)                                        # what both are divided by, for the global batch

They share what train.py relies on. A batch is a pure function of (data, seed, step), so every rank knows the whole of
it. Losses are sums, divided by what counts in the global batch: tokens to learn, or pairs. How a batch was packed, cut
into micro-batches and spread over ranks changes nothing.
"""
import json
import math
import os

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
import torch.utils.checkpoint
from tqdm import tqdm

import data
import examples
from decoder import LanguageModel, separate

BATCH_SIZE = 32  # examples per optimizer step, unless a flag says otherwise or they are few
GENERAL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "general.txt")


def make(args, tokenizer, device, teacher=None):
    kind = data.read_manifest(args.data)["kind"]
    return Pretraining(args, args.data, tokenizer, device, teacher) if kind == "lm" else (
        Supervised(args, tokenizer, device, teacher) if kind == "sft" else Preference(args, tokenizer, device))


class Pretraining:
    """The next token of running text: windows of T tokens from the shards of prepare.py corpus."""

    kind = "lm"

    def __init__(self, args, directory, tokenizer, device, teacher=None, rows=None):
        self.args, self.device, self.T, self.teacher = args, device, args.seq_len, teacher
        self.corpus = data.TokenData(directory, verify=int(os.environ.get("LOCAL_RANK", 0)) == 0)
        if not tokenizer.same_as(self.corpus.tokenizer):
            raise ValueError(f"{directory} was encoded with the tokenizer {self.corpus.manifest['tokenizer']['name']}, "
                             f"not with that of {args.init}; build it again with: python prepare.py corpus ... "
                             f"--tokenizer {args.init}")
        self.rows = rows or args.batch_tokens // self.T
        self.corpus.windows(0, [0], self.T, self.rows, args.seed)  # says so if the data is too small
        self.held = self.corpus.validation(self.T, args.eval_tokens)
        self.token_bytes = torch.from_numpy(tokenizer.token_bytes()).to(device)
        self.names = ("train_loss", "teacher_kl") if teacher else ("train_loss",)

    def has_validation(self):
        return len(self.held[0]) > 0

    def in_words(self):
        corpus = self.corpus
        name = corpus.manifest["tokenizer"]["name"]
        return [f"data     {corpus.directory}: {corpus.tokens('train'):,} training and {corpus.tokens('val'):,} "
                f"validation tokens, tokenizer {name} ({corpus.tokenizer.vocab_size:,} tokens), checksums match"]

    def fingerprint(self):
        return self.corpus.fingerprint()

    def before_first_step(self, model, autocast):
        pass

    def tensors(self):
        """What a checkpoint keeps of this, by name."""
        return {}

    def restore(self, tensors):
        """Takes its own out of a checkpoint's tensors."""

    def epoch(self):
        """Steps in one pass over the data, a float."""
        return self.corpus.tokens("train") / (self.rows * self.T)

    def tokens(self, step):
        return self.rows * self.T

    count = tokens

    def shape(self, step):
        """
        Rows and length of this step's windows, the same number of tokens always. At the beginning of a run from scratch
        they are short: what can be learnt first is near, and attention costs less.
        """
        share, warmup = step / self.args.steps, self.args.seq_warmup
        short = 4 if share < 0.4 * warmup else 2 if share < warmup else 1
        return self.rows * short, self.T // short

    def micro_batches(self, step, rank, world):
        rows, T = self.shape(step)
        first, end, size = rank * rows // world, (rank + 1) * rows // world, self.args.micro_batch * self.T // T
        for i in range(first, end, size):
            x, y = self.corpus.batch(step, range(i, min(i + size, end)), T, rows, self.args.seed)
            yield to_device(dict(x=x, y=y), self.device)

    def losses(self, forward, micro):
        return token_losses(forward, micro, self.teacher, self.args)

    def validate(self, add_up):
        """{"val_loss", "val_perplexity", "val_bpb"}, or {} without a validation split; add_up(batches, sums)."""
        return in_words(add_up(windows(*self.held, self.args.micro_batch), self.text_sums))

    def text_sums(self, model, micro):
        return text_sums(model, micro, self.token_bytes)

    def documents(self, step):
        """The names of what is in the batch of this step."""
        rows, T = self.shape(step)
        return self.corpus.documents("train", self.corpus.windows(step, range(rows), T, rows, self.args.seed), T)


class Supervised:
    """
    Completions: examples of prepare.py sft or task, several in a row of T tokens if `packing`, which neither see each
    other nor share positions.
    """

    kind, room_for = "sft", 1

    def __init__(self, args, tokenizer, device, teacher=None):
        self.args, self.tokenizer, self.device, self.T, self.teacher = args, tokenizer, device, args.seq_len, teacher
        self.manifest = data.read_manifest(args.data)
        examples.follow_template(tokenizer, self.manifest)
        self.train, self.names_of, self.cut, self.lost, self.longest = self.read("train")
        self.val, *_ = self.read("val")
        args.batch_size = args.batch_size or max(1, min(BATCH_SIZE, len(self.train) // 4))
        self.size = min(args.batch_size, len(self.train))
        self.token_bytes = torch.from_numpy(tokenizer.token_bytes()).to(device)
        self.names = ("train_loss", "teacher_kl") if teacher else ("train_loss",)
        self._order = (None, None)

    def read(self, split):
        """The split's examples as [(ids, learnt)] each, what they are called, and the counts of examples.items."""
        records = examples.read_split(self.args.data, self.manifest, split) if split in self.manifest["splits"] else []
        try:
            found, *counts = examples.items(self.tokenizer, records, self.T)
        except ValueError as e:
            raise ValueError(f"{self.args.data}/{split}.jsonl:{e}") from None
        if self.args.train_on_prompt:
            found = [(i, [(ids, np.arange(len(ids)) > 0) for ids, _ in item]) for i, item in found]
        names = [str(records[i].get("id", f"{split}.jsonl:{i + 1}")) for i, _ in found]
        return [item for _, item in found], names, *counts

    def has_validation(self):
        return len(self.val) > 0

    def in_words(self):
        """The data in numbers, and one example as the model will see it."""
        lengths = [len(ids) - 1 for item in self.train for ids, _ in item]
        learnt = sum(int(mask[1:].sum()) for item in self.train for _, mask in item)
        what = "pairs" if self.kind == "pairs" else "examples"
        lines = [f"data     {self.args.data}: {len(self.train):,} training and {len(self.val):,} validation {what}, "
                 f"{sum(lengths):,} tokens, {learnt:,} of them to learn, the longest of {self.longest:,}"]
        if self.cut:
            lines.append(f"         {self.cut:,} {what} were shortened to {self.T} tokens at the prompt's beginning"
                         + (f"; {self.lost:,} lost something to learn, such as the end of an answer" if self.lost
                            else ""))
        ids, mask = self.train[0][0]
        edges = np.flatnonzero(np.diff(mask)) + 1
        text = "".join(("⟦{}⟧" if learn[0] else "{}").format(self.tokenizer.decode(run))
                       for run, learn in zip(np.split(ids, edges), np.split(mask, edges), strict=True))
        shown = json.dumps(text if len(text) <= 600 else "... " + text[-600:], ensure_ascii=False)
        return [*lines, f"example  {shown}",
                f"         what stands in ⟦⟧ is to be learnt: {mask.sum()} of {len(ids)} tokens"]

    def fingerprint(self):
        return examples.fingerprint(self.manifest)

    before_first_step, tensors, restore = Pretraining.before_first_step, Pretraining.tensors, Pretraining.restore

    def epoch(self):
        return len(self.train) / self.size

    def chosen(self, step):
        """The examples of this step's batch, by number: each once per epoch, in an order of the epoch's own."""
        n, numbers = len(self.train), []
        for k in range(step * self.size, (step + 1) * self.size):
            epoch, i = divmod(k, n)
            if self._order[0] != epoch:
                self._order = epoch, np.random.default_rng([self.args.seed, epoch]).permutation(n)
            numbers.append(int(self._order[1][i]))
        return numbers

    def tokens(self, step):
        return sum(len(ids) - 1 for i in self.chosen(step) for ids, _ in self.train[i])

    def count(self, step):
        return sum(int(learnt[1:].sum()) for i in self.chosen(step) for _, learnt in self.train[i])

    def micro_batches(self, step, rank, world):
        rows = self.rows(self.chosen(step), self.train)
        rows += [[] for _ in range(-len(rows) % world)]  # all ranks take part in every exchange of gradients
        mine = rows[rank::world]
        for i in range(0, len(mine), self.args.micro_batch):
            yield to_device(self.collate(mine[i : i + self.args.micro_batch], self.train), self.device)

    def rows(self, numbers, items):
        """Examples by number -> rows of them."""
        if not self.args.packing:
            return [[i] for i in numbers]
        lengths = [sum(len(ids) - 1 for ids, _ in items[i]) for i in numbers]
        return [[numbers[k] for k in row] for row in pack(lengths, self.room_for * self.T)]

    def collate(self, rows, items):
        """
        Rows of examples -> x, y, documents (B, W) int64, documents counting sequences from 0. Where nothing is, y is
        -100, and two more documents take turns, so that no position counts on beyond those the model has.
        """
        used = max([sum(len(ids) - 1 for i in row for ids, _ in items[i]) for row in rows])
        width = self.room_for * self.T if self.args.compile else max(64, -(-used // 64) * 64)  # one shape to compile
        x, y = (np.full((len(rows), width), value, dtype=np.int64) for value in (0, -100))
        sequences = [(r, sequence) for r, row in enumerate(rows) for i in row for sequence in items[i]]
        documents = np.broadcast_to(len(sequences) + np.arange(width) % 2, x.shape).copy()
        at = [0] * len(rows)
        for number, (r, (ids, learnt)) in enumerate(sequences):
            here = slice(at[r], at[r] + len(ids) - 1)
            x[r, here], y[r, here] = ids[:-1], np.where(learnt[1:], ids[1:], -100)
            documents[r, here] = number
            at[r] = here.stop
        return dict(x=x, y=y, documents=documents)

    def losses(self, forward, micro):
        return token_losses(forward, micro, self.teacher, self.args)

    text_sums = Pretraining.text_sums

    def batches(self, items, numbers):
        rows = self.rows(numbers, items)
        return [self.collate(rows[i : i + self.args.micro_batch], items)
                for i in range(0, len(rows), self.args.micro_batch)]

    def watched(self, items):
        """Numbers of as many examples as eval_tokens allow, evenly spread; of training at most as many as held out."""
        size = sum(len(ids) for item in items for ids, _ in item) / max(1, len(items))
        n = min(len(items), max(1, int(self.args.eval_tokens / max(1, size))))
        n = n if items is self.val else min(n, len(self.val))
        return np.linspace(0, len(items) - 1, n).astype(int).tolist()

    def validate(self, add_up):
        """Also on examples of training: the gap between the two losses is what was learnt by heart."""
        result = in_words(add_up(self.batches(self.val, self.watched(self.val)), self.text_sums))
        seen = in_words(add_up(self.batches(self.train, self.watched(self.train)), self.text_sums))
        return result and result | dict(seen_loss=seen["val_loss"])

    def documents(self, step):
        return [self.names_of[i] for i in self.chosen(step)]


class Preference(Supervised):
    """
    Direct preference optimization (Rafailov et al. 2023) with label smoothing (Mitchell 2023): the chosen answer shall
    gain on the rejected one, against the model as it was before the first step. Its log-probabilities are taken once,
    then; no copy of it is kept. A pair is as well served by a rejected answer that becomes unlikely as by a chosen one
    that becomes likely, and often both become unlikelier: args.dpo_sft adds the chosen answer's own loss per token
    (Pang et al. 2024).
    """

    kind, room_for = "pairs", 2

    def __init__(self, args, tokenizer, device):
        super().__init__(args, tokenizer, device)
        self.names = ("train_loss", "accuracy", "margin", "chosen_loss")
        self.reference = None  # {"train": (N, 2), "val": (N, 2)} float32: log-probabilities of chosen and rejected

    def count(self, step):
        return self.size

    def collate(self, rows, items):
        numbers = [i for row in rows for i in row]
        reference = self.reference["train" if items is self.train else "val"][numbers] if self.reference else None
        return super().collate(rows, items) | dict(reference=reference, pairs=len(numbers))

    def losses(self, forward, micro):
        (chosen, rejected), lengths = self.log_probabilities(forward, micro)
        reference = micro["reference"][:, 0] - micro["reference"][:, 1]
        margin = self.args.dpo_beta * (chosen - rejected - reference)  # between the implicit rewards
        smooth = self.args.label_smoothing
        loss = (-(1 - smooth) * F.logsigmoid(margin) - smooth * F.logsigmoid(-margin)).sum()
        chosen_loss = (-chosen / lengths).sum()
        sums = torch.stack([loss, (margin > 0).float().sum(), margin.sum(), chosen_loss]).detach()
        return loss + self.args.dpo_sft * chosen_loss, sums

    def log_probabilities(self, forward, micro):
        """
        (2, pairs): those of the tokens to learn, summed over chosen and rejected answers; and how many the chosen have.
        """
        _, losses = forward(micro["x"], micro["y"], documents=micro["documents"], criterion=LanguageModel.losses_of)
        places, n = micro["documents"].flatten(), 2 * micro["pairs"]
        sums, lengths = (torch.zeros(n + 2, device=losses.device).index_add(0, places, values.flatten().float())
                         for values in (-losses, micro["y"] >= 0))
        return sums[:n].view(-1, 2).t(), lengths[:n:2]

    @torch.no_grad()
    def before_first_step(self, model, autocast):
        """The model as it is now becomes the reference. Every rank takes all of it."""
        model.eval()
        found = {}
        for split, items in (("train", self.train), ("val", self.val)):
            found[split] = torch.zeros(len(items), 2)
            rows = self.rows(range(len(items)), items)
            for i in tqdm(range(0, len(rows), self.args.micro_batch), f"reference, {split}", leave=False, disable=None):
                part = rows[i : i + self.args.micro_batch]
                with autocast():
                    values, _ = self.log_probabilities(model, to_device(self.collate(part, items), self.device))
                found[split][[i for row in part for i in row]] = values.t().cpu()
        self.reference = found
        model.train()

    def tensors(self):
        return {f"reference/{split}": values for split, values in self.reference.items()}

    def restore(self, tensors):
        self.reference = {split: tensors.pop(f"reference/{split}") for split in ("train", "val")}

    def validate(self, add_up):
        def sums(model, micro):
            _, found = self.losses(model, micro)
            return torch.cat([found, torch.tensor([micro["pairs"]], device=found.device)])

        found = {}
        for name, items in (("val", self.val), ("seen", self.train)):
            *values, pairs = add_up(self.batches(items, self.watched(items)), sums, size=5)
            if pairs:
                found |= {f"{name}_{key}": value / pairs
                          for key, value in zip(("loss", *self.names[1:]), values, strict=True)}
        return found


class General:
    """A text of another kind than what is learnt: how much of it a model forgets."""

    def __init__(self, args, tokenizer, device):
        if args.forget_data:
            corpus = data.TokenData(args.forget_data, verify=False)
            if not corpus.tokens("val"):
                raise ValueError(f"--forget_data {args.forget_data} has no validation split to measure on; build it "
                                 "with --val_fraction above 0")
            texts, self.name = (corpus.tokenizer.decode(t) for _, t in corpus.read_documents("val")), args.forget_data
        else:
            with open(GENERAL, encoding="utf-8") as f:
                texts, self.name = f.read().split("\n---\n"), "general.txt"
        T, ids = args.seq_len, [tokenizer.start]
        for text in texts:
            ids += [*tokenizer.encode(text.strip()).tolist(), tokenizer.end_of_text]
            if len(ids) > args.eval_tokens:
                break
            ids += [tokenizer.start] * tokenizer.has_start
        ids = np.array(ids, dtype=np.int64)
        x, y = np.zeros((2, -(-(len(ids) - 1) // T), T), dtype=np.int64)
        x.reshape(-1)[: len(ids) - 1], y.reshape(-1)[:] = ids[:-1], -100
        y.reshape(-1)[: len(ids) - 1] = ids[1:]
        self.batches = windows(tokenizer.begun(x), y, args.micro_batch)
        self.token_bytes = torch.from_numpy(tokenizer.token_bytes()).to(device)

    def loss(self, add_up):
        found = add_up(self.batches, lambda model, micro: text_sums(model, micro, self.token_bytes))
        return in_words(found)["val_loss"]


# ----------------------------------------------------------------------------------------------------------------------


def pack(lengths, room):
    """
    Put things of these lengths into rows of at most `room`, each where it leaves the least (best fit, the longest
    first): a list of rows, each the numbers of what it holds. A length above `room` gets a row of its own.
    """
    rows, left = [], []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fits = [r for r in range(len(rows)) if left[r] >= lengths[i]]
        if fits:
            best = min(fits, key=left.__getitem__)
            rows[best].append(i)
            left[best] -= lengths[i]
        else:
            rows.append([i])
            left.append(room - lengths[i])
    return rows


def windows(x, y, size):
    return [dict(x=x[i : i + size], y=y[i : i + size]) for i in range(0, len(x), size)]


def to_device(micro, device):
    """Its arrays as tensors there. To a GPU from pinned memory: queued, and gone before the host has waited for it."""
    tensors = {k: torch.as_tensor(v) for k, v in micro.items() if hasattr(v, "shape")}
    return micro | {k: (t.pin_memory() if device.type == "cuda" and t.device.type == "cpu" else t)
                    .to(device, non_blocking=True) for k, t in tensors.items()}


def states_of(model, micro):
    mask, positions = (None, None) if micro.get("documents") is None else separate(micro["documents"])
    return model.hidden(micro["x"], mask=mask, positions=positions)


def token_losses(forward, micro, teacher, args):
    """
    The summed losses of a micro-batch's tokens, and that to log. With a teacher, distillation (Hinton et al. 2015): the
    divergence of our distribution from its own, both at a temperature, takes the place of a share of the loss.
    """
    if teacher is None:
        _, loss = forward(micro["x"], micro["y"], reduction="sum", documents=micro.get("documents"))
        return loss, loss.detach()[None]
    with torch.no_grad():
        theirs = states_of(teacher, micro)

    def criterion(model, x, targets):
        keep, n = targets >= 0, model.chunk_rows()
        parts = zip(x[keep].split(n), targets[keep].split(n), theirs[keep].split(n), strict=True)
        return sum([torch.utils.checkpoint.checkpoint(divergence, x, model.wte.weight, t, other, teacher.wte.weight,
                                                      args.temperature, use_reentrant=False) for x, t, other in parts],
                   torch.zeros(2, device=x.device))

    _, sums = forward(micro["x"], micro["y"], documents=micro.get("documents"), criterion=criterion)
    share = args.teacher_share
    return (1 - share) * sums[0] + share * args.temperature**2 * sums[1], sums.detach()


def divergence(x, weight, targets, their_x, their_weight, temperature):
    """Sums over rows, (2,) float32: our loss, and the Kullback-Leibler divergence from the teacher to us, in nats."""
    V = min(len(weight), len(their_weight))  # one may be padded
    ours, theirs = (F.linear(a, w[:V]).float() for a, w in ((x, weight), (their_x, their_weight)))
    loss = F.cross_entropy(ours, targets, reduction="sum")
    return torch.stack([loss, F.kl_div((ours / temperature).log_softmax(-1), (theirs / temperature).log_softmax(-1),
                                       reduction="sum", log_target=True)])


def text_sums(model, micro, token_bytes):
    """(4,): nats, tokens, nats of the tokens that stand for bytes, which special ones don't, and these bytes."""
    y = micro["y"]
    size = token_bytes[y.clamp(min=0)] * (y >= 0)
    states = states_of(model, micro)
    nats = model.loss_of(states, y, sparse="documents" in micro)
    special = model.loss_of(states, torch.where(size > 0, -100, y), sparse=True)
    return torch.stack([nats, (y >= 0).sum(), nats - special, size.sum()])


def in_words(sums):
    """What text_sums add up to: loss in nats per token, perplexity and bits per byte; {} if there were no tokens."""
    nats, tokens, nats_text, size = sums
    if not tokens:
        return {}
    loss = nats / tokens
    return dict(val_loss=loss, val_perplexity=math.exp(min(loss, 50)), val_bpb=nats_text / math.log(2) / max(1, size))


@torch.no_grad()
def add_up(batches, sums, model, autocast, device, rank, world, size=4):
    """sums(model, micro), a vector, added up over all batches, which the ranks share: a list of floats."""
    model.eval()
    total = torch.zeros(size, dtype=torch.float64)
    for batch in batches[rank::world]:
        with autocast():
            total += sums(model, to_device(batch, device)).double().cpu()
    model.train()
    if world > 1:
        total = total.to(device, torch.float32 if device.type == "mps" else torch.float64)
        dist.all_reduce(total)
    return total.tolist()
