"""Records in all their forms, chat templates, what counts, and what is cut: the guards that sit before training."""
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

import examples
from tokenizer import Tokenizer

CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content | trim + '<|im_end|>\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
TALK = [dict(role="system", content="Be short."), dict(role="user", content="What is a 10-K?"),
        dict(role="assistant", content="An annual report."), dict(role="user", content="And a 10-Q?"),
        dict(role="assistant", content="A quarterly one.")]


@pytest.fixture(scope="module")
def tokenizer():
    text = json.dumps(TALK) + " User: Assistant: the revenue rose and the cost fell, what is good is good. " * 9
    return Tokenizer.train([text], 400)


@pytest.fixture
def chatml(tokenizer, tmp_path):
    """A tokenizer with special tokens and a template of its own, as chat models bring."""
    spec = json.loads(tokenizer.to_json())
    size = tokenizer.vocab_size
    spec["added_tokens"] += [dict(id=size + i, content=t, special=True, single_word=False, lstrip=False, rstrip=False,
                                  normalized=False) for i, t in enumerate(("<|im_start|>", "<|im_end|>"))]
    made = Tokenizer(spec, "chatml")
    made.chat_template = CHATML
    return made


def learnt_text(tokenizer, ids, learnt):
    return tokenizer.decode(ids[learnt])


# ---- records ---------------------------------------------------------------------------------------------------------


def write(path, *records):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    return path


def test_every_form_is_recognised_by_its_keys(tmp_path):
    talk = [dict(role="user", content="q"), dict(role="assistant", content="a")]
    path = write(tmp_path / "a.jsonl", dict(prompt="p\n", completion="c", extra=1, id=7), dict(messages=talk),
                 dict(conversations=[{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]),
                 dict(conversations=talk), dict(instruction="do", input="this", output="done"),
                 dict(instruction="do", input="", output="done"), dict(text="some text"), "",
                 dict(prompt=talk[:1], completion=talk[1:]))
    done = dict(role="assistant", content="done")
    assert examples.read_records(path) == [
        dict(prompt="p\n", completion="c", id=7), dict(messages=talk), dict(messages=talk), dict(messages=talk),
        dict(messages=[dict(role="user", content="do\n\nthis"), done]),
        dict(messages=[dict(role="user", content="do"), done]), dict(text="some text"),
        dict(messages=[talk[0] | dict(weight=0), talk[1]])]
    as_list = tmp_path / "a.json"
    as_list.write_text("\ufeff" + json.dumps([dict(text="one"), dict(text="two")]))
    assert examples.read_records(as_list) == [dict(text="one"), dict(text="two")]


def test_a_completion_is_not_glued_to_the_prompts_last_word():
    assert examples.canonical(dict(prompt="It", completion="rose"))["completion"] == " rose"
    assert examples.canonical(dict(prompt="It ", completion="rose"))["completion"] == "rose"
    assert examples.canonical(dict(prompt="It", completion="\nrose"))["completion"] == "\nrose"


@pytest.mark.parametrize("record, says", [
    ("{", "not valid JSON"), ([1], "not a JSON object"), ({}, "none; expected"), (dict(question="q"), "'question'"),
    (dict(prompt="p"), "'completion' is missing"), (dict(prompt="p", completion=""), "'completion' is empty"),
    (dict(prompt="p", completion=3), "not a text"), (dict(messages=[]), "not a list of messages"),
    (dict(messages=[dict(role="user", content="q")]), "nothing to learn"),
    (dict(messages=[dict(role="king", content="q")]), "needs a role"), (dict(messages=["q"]), "not a JSON object"),
    (dict(messages=[dict(role="assistant", content=" ")]), "message is empty"), (dict(instruction="do"), "'output'"),
    (dict(prompt=TALK[:1], completion=TALK[1:2]), "nothing to learn"), ("{\"text\":" + "[" * 5000, "nested"),
    ('{"text": "\\ud800"}', "half"),
    (dict(prompt="q", chosen="a", rejected="b"), "prepare.py pairs"), (dict(prompt="q", completion=" "), "is empty")])
def test_malformed_lines_are_named_by_number(tmp_path, record, says):
    path = write(tmp_path / "a.jsonl", dict(text="good"), record)
    with pytest.raises(ValueError, match=r"a\.jsonl:2") as error:
        examples.read_records(path)
    assert says in str(error.value)


def test_pairs_in_words_and_in_messages(tmp_path):
    user, good, bad = dict(role="user", content="q"), *(dict(role="assistant", content=c) for c in ("good", "bad"))
    path = write(tmp_path / "p.jsonl", dict(prompt="q", chosen="good", rejected="bad"),
                 dict(prompt=[user], chosen=[good], rejected=[bad]), dict(chosen=[user, good], rejected=[user, bad]),
                 dict(prompt="q", chosen=[user, good], rejected=[user, bad]))
    chat = dict(prompt=[user], chosen="good", rejected="bad")
    assert examples.read_records(path, "pairs") == [dict(prompt="q", chosen=" good", rejected=" bad"), chat, chat, chat]
    for wrong in (dict(prompt="q", chosen="a", rejected="a"), dict(chosen=[user, good], rejected=[bad]),
                  dict(prompt="q", chosen="a"), dict(chosen="a", rejected="b")):
        with pytest.raises(ValueError):
            examples.canonical_pair(wrong)


def test_a_question_is_on_one_side_of_the_split():
    records = [dict(prompt=f"Question {i // 3}?", completion=f" {i}") for i in range(90)]
    records += [dict(prompt=f"QUESTION  {i}?", completion=" again") for i in range(30)]
    splits = examples.divide(records, 0.2, seed=0)
    keys = {side: {*map(examples.key_of, found)} for side, found in splits.items()}
    assert len(splits["val"]) == 24 and not keys["train"] & keys["val"]
    assert splits != examples.divide(records, 0.2, seed=1)
    assert len(examples.divide([dict(prompt="", completion="a"), dict(text="b")], 0.5, 0)["train"]) == 1
    assert examples.divide(records[:3], 0.5, 0)["val"] == []  # a single question can't be on both sides


# ---- guards 1 and 3: what is learnt, and where it begins -------------------------------------------------------------


@pytest.mark.parametrize("record", [dict(prompt="What rose? ", completion="Revenue."), dict(messages=TALK),
                                    dict(text="Revenue rose."), dict(prompt="", completion="x")], ids=str)
def test_the_last_supervised_token_is_end_of_text(tokenizer, record):
    ids, learnt = examples.tokens(tokenizer, record)
    assert learnt[-1] and ids[-1] == tokenizer.end_of_text and not learnt[0] and ids[0] == tokenizer.end_of_text
    assert ids.dtype == np.int64 and learnt.dtype == bool


@settings(max_examples=60, deadline=None)
@given(prompt=st.text(max_size=30), completion=st.text(min_size=1, max_size=30))
def test_prompt_and_completion_meet_where_they_do_when_the_model_is_asked(tokenizer, prompt, completion):
    ids, learnt = examples.tokens(tokenizer, dict(prompt=prompt, completion=completion))
    asked = examples.prompt_tokens(tokenizer, prompt)
    assert ids[: len(asked)].tolist() == asked.tolist() and int(np.argmax(learnt)) == len(asked)
    assert learnt_text(tokenizer, ids[:-1], learnt[:-1]) == completion


# ---- guards 12 and 13: one beginning, one template -------------------------------------------------------------------


def test_every_turn_of_the_assistant_is_learnt_and_ends(tokenizer):
    ids, learnt = examples.conversation(tokenizer, TALK)
    runs = np.split(ids, np.flatnonzero(np.diff(learnt)) + 1)[1::2]
    assert [tokenizer.decode(run[:-1]) for run in runs] == [" An annual report.", " A quarterly one."]
    assert all(run[-1] == tokenizer.end_of_text for run in runs)
    quiet = [TALK[0], TALK[1], TALK[2] | dict(weight=0), *TALK[3:]]
    ids, learnt = examples.conversation(tokenizer, quiet)
    assert learnt_text(tokenizer, ids[:-1], learnt[:-1]) == " A quarterly one."


@pytest.mark.parametrize("which", ["plain", "chatml"])
def test_transformers_makes_the_same_tokens_of_a_conversation(which, tokenizer, chatml, tmp_path):
    ours = chatml if which == "chatml" else tokenizer
    ours.chat_template = CHATML if which == "chatml" else examples.TEMPLATE
    ours.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.chat_template == ours.chat_template == Tokenizer.load(tmp_path).chat_template
    for messages, asked in ((TALK, False), (TALK[:2], True), (TALK[:4], True)):
        ids = theirs.apply_chat_template(messages, add_generation_prompt=asked, return_dict=True)["input_ids"]
        mine = examples.prompt_tokens(ours, messages) if asked else examples.conversation(ours, messages)[0]
        extra = int(which == "chatml")  # ChatML has no beginning-of-text: documents have been separated by it here
        assert mine.tolist()[extra:] == ids and (mine == ours.end_of_text)[:2].tolist() == [True, False]


def test_what_the_model_is_asked_is_how_training_began(chatml):
    ids, learnt = examples.conversation(chatml, TALK)
    for n in (2, 4):
        asked = examples.prompt_tokens(chatml, TALK[:n])
        assert ids[: len(asked)].tolist() == asked.tolist() and learnt[len(asked)] and not learnt[len(asked) - 1]
    assert chatml.decode(ids[learnt]).count("\n") == 0  # "<|im_end|>" ends a turn; the line end after it is not said


def test_special_tokens_in_a_message_are_text(chatml):
    messages = [dict(role="user", content="Say <|im_end|> and <|endoftext|>."),
                dict(role="assistant", content="<|im_end|>")]
    ids, learnt = examples.conversation(chatml, messages)
    ends = [i for i, t in enumerate(ids) if t == chatml.vocab_size - 1]
    assert len(ends) == 2 and (ids == chatml.end_of_text).sum() == 1
    assert chatml.decode(ids[learnt][:-1]) == "<|im_end|>"


@pytest.mark.parametrize("template, says", [
    ("{{ bos_token }}{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}", "two beginning-of-text"),
    ("{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}Go:{% endif %}", "can't be told"),
    ("{% for m in %}", "not valid Jinja"), ("{{ raise_exception('no') }}", "refuses"), ("{{ 1 / 0 }}", "failed"),
    ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "failed")])
def test_templates_that_would_teach_nonsense_are_refused(tokenizer, template, says):
    tokenizer.chat_template = template
    with pytest.raises(ValueError, match=says):
        examples.conversation(tokenizer, TALK)
    tokenizer.chat_template = None


def test_templates_in_the_wild(tokenizer):
    """Generation tags, dates, and a history that is rewritten: what can't be learnt as it is asked is refused."""
    tokenizer.chat_template = ("{{ bos_token }}{{ strftime_now('%Y') }}{% for m in messages %}"
                               "{% if m.role == 'assistant' %}A:{% generation %}{{ m.content }}{{ eos_token }}"
                               "{% endgeneration %}{% else %}Q:{{ m.content }}{% endif %}{% endfor %}"
                               "{% if add_generation_prompt %}A:{% endif %}")
    ids, learnt = examples.conversation(tokenizer, TALK)
    end = "<|endoftext|>"
    assert tokenizer.decode(ids[learnt]) == f"An annual report.{end}A quarterly one.{end}"
    tokenizer.chat_template = ("{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}A:"
                               "{% if loop.last %}"
                               "{{ m.content }}{% else %}{{ m.content[:3] }}{% endif %}{{ eos_token }}{% else %}"
                               "Q:{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}A:{% endif %}")
    assert len(examples.conversation(tokenizer, TALK[:3])[0])
    with pytest.raises(ValueError, match="earlier turns differently"):
        examples.conversation(tokenizer, TALK)
    tokenizer.chat_template = None


def test_the_same_history_is_written_alike_in_examples_and_in_pairs(tokenizer):
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}" \
                              "{% if add_generation_prompt %}assistant: {% endif %}"
    ids, _ = examples.conversation(tokenizer, TALK)
    pair = dict(prompt=TALK[:4], chosen=TALK[4]["content"], rejected="no")
    (chosen, learnt), _ = examples.sequences(tokenizer, pair)
    asked = examples.prompt_tokens(tokenizer, TALK[:4])
    tokenizer.chat_template = None
    assert chosen.tolist() == ids.tolist() and asked.tolist() == ids[: len(asked)].tolist()
    assert not learnt[: len(asked)].any()


def test_stop_tokens(tokenizer, chatml):
    assert examples.stop_tokens(tokenizer) == [tokenizer.end_of_text]
    assert examples.stop_tokens(chatml) == [tokenizer.end_of_text, chatml.vocab_size - 1]


def test_a_template_that_does_not_end_a_turn_is_helped(tokenizer):
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}" \
                              "{% if add_generation_prompt %}assistant: {% endif %}"
    ids, learnt = examples.conversation(tokenizer, TALK[:3])
    tokenizer.chat_template = None
    assert ids[-1] == tokenizer.end_of_text and learnt[-1]


# ---- guard 2: truncation ---------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(prompt=st.integers(0, 60), completion=st.integers(1, 60), room=st.integers(4, 50))
def test_cutting_never_drops_the_completion(prompt, completion, room):
    ids = np.arange(1 + prompt + completion)
    learnt = ids > prompt
    cut, mask = examples.fit(ids, learnt, room)
    assert len(cut) <= room and cut[0] == 0 and not mask[0] and mask.any()
    if completion < room:
        assert mask.sum() == completion and cut[-1] == ids[-1] and len(cut) == min(room, len(ids))
    else:  # too long by itself: its beginning, and some of the prompt
        assert mask.sum() >= room - 1 - room // 4 and cut[mask][0] == prompt + 1
    assert (np.diff(cut[1:]) == 1).all()


def test_of_a_long_talk_the_last_answer_stays():
    learnt = np.zeros(100, bool)
    learnt[20:30] = learnt[80:97] = True
    ids, mask = examples.fit(np.arange(100), learnt, 40)
    assert len(ids) == 40 and mask.sum() == 17 and ids[-1] == 96


# ---- the directory ---------------------------------------------------------------------------------------------------


def test_a_directory_is_written_whole_and_checked(tokenizer, tmp_path):
    records = [dict(prompt=f"q{i} ", completion="a") for i in range(10)]
    out = tmp_path / "sft"
    examples.write(str(out), examples.divide(records, 0.2, 0), about=dict(licence="MIT"), tokenizer=tokenizer)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["kind"] == "sft" and manifest["licence"] == "MIT" and manifest["splits"]["train"]["examples"] == 8
    assert manifest["tokenizer"]["sha256"] == Tokenizer.load(out).sha256() and manifest["splits"]["val"]["tokens"] > 0
    assert len(examples.read_split(out, manifest, "train")) == 8
    with pytest.raises(ValueError, match="exists already"):
        examples.write(str(out), dict(train=records))
    (out / "train.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="checksum"):
        examples.read_split(out, manifest, "train")
    with pytest.raises(ValueError, match="left to train"):
        examples.write(str(tmp_path / "none"), dict(train=[], val=records))
    assert not (tmp_path / "none").exists()
