"""exam.py: what tuned models know of tasks and questions, and the marking of answers."""
import json
import math
import types

import numpy as np
import pytest
import torch
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

import exam
import examples
import licence
import programs
import questions
import stats
import tasks
from model import GPT, GPTConfig
from tokenizer import Tokenizer

# ---- marking ---------------------------------------------------------------------------------------------------------

RIGHT = [("-5", "minus $5"), ("1.5x", "1.5"), ("5.2 USD", "$5.2"), ("50 basis points", "0.5%"), ("12%", "12%"),
         ("12%", "0.12"), ("12%", "12"), ("12%", " 12.0 percent."), ("0.12", "12%"),
         ("12.3%", "12.34%"),
         ("$1.2 million", "1,200,000"), ("1,200,000", "$1.2 million"), ("1,200,000", "US$ 1.2M"),
         ("1.2 billion", "1200mm"),
         ("-5.2", "(5.2)"), ("(5.2)", "−5.2"), ("-5.2", "$(5.2)"), ("$-5.2", "-$5.2"), ("(12%)", "-12%"),
         ("-26", "-26 ( 26 )"),
         ("5829", "5,829"), ("5829", "It was 5,829 in all."), ("5829", "5800"), ("3", "3.4"), ("0", "0.0"),
         ("94.00000", "94"),
         ("0.01639", "1.64%"), ("0.5", ".5"), ("1e-05", "0.00001"), ("2023", "2023"), ("2023", "in 2023"),
         ("100", "100 dollars"),
         ("€5 bn", "EUR 5 billion"), ("7 thousand", "7k"), ("12 per cent", "12 pct"), ("5", "The answer: 5\n17\n18")]
WRONG = [("12%", "0.12%"), ("12%", "1.2"), ("0.12", "12"), ("12", "12%"), ("12%", "-12%"), ("5.2", "(5.2)"),
         ("-5.2", "5.2"),
         ("$1.2 million", "1.2"), ("1.2", "$1.2 million"), ("5829", "5,929"), ("5829", "In 2019 it was 5829"),
         ("3", "3.6"),
         ("2023", "2022"), ("2023", "2010"), ("0", "1"), ("5829", "1,2,3,4 5829q"), ("3", "Q3"), ("1", "Item 1A"),
         ("5", "The answer:\n5"), ("94.00000", "96"), ("12", ""), ("12", "I don't know"), ("12", "twelve"),
         ("12", "nan inf 1e999")]


@pytest.mark.parametrize("gold, answer", RIGHT)
def test_right_numbers(gold, answer):
    assert questions.grade(answer, [gold])["numeric"] == questions.grade(answer, [gold])["score"] == 1


@pytest.mark.parametrize("gold, answer", WRONG)
def test_wrong_numbers(gold, answer):
    assert questions.grade(answer, [gold])["numeric"] == questions.grade(answer, [gold])["exact"] == 0


def test_hostile_answers():
    every = " ".join(map(str, range(100, 3000)))
    for answer in (every, every.replace(" ", ", "), "", " \n ", "\n5829", "x" * 10_000, "9" * 10_000, "( " * 5000,
                   " " * 9999 + "x",
                   "-" * 10_000, "1," * 5000, "%" * 10_000, "I don't know", "a the an", "\0", "½", "٣"):
        marks = questions.grade(answer, ["2023 was 12", "2,023"]), questions.grade(answer, ["777"])
        assert marks[0]["numeric"] is None and marks[0]["score"] == marks[0]["f1"] < 0.01 and marks[0]["exact"] == 0
        assert marks[1]["score"] == marks[1]["exact"] == 0 and marks[1]["numeric"] == 0 or answer == "\n5829"
    assert questions.grade(every, ["revenue fell to 100"])["f1"] < 0.02


def test_words_and_several_golds():
    assert questions.grade("The PwC.", ["PricewaterhouseCoopers LLP", "pwc"]) == dict(
        exact=1, numeric=None, f1=1, score=1)
    assert questions.grade("U.S. long-term bonds", ["the us long term bonds"])["exact"] == 1
    assert math.isclose(questions.grade("net sales rose", ["sales rose sharply"])["f1"], 2 / 3)
    assert not any(questions.grade(a, [b])["exact"] for a, b in (("1.5", "15"), ("5%", "5"), ("(5)", "5")))
    assert questions.grade("1,500.", ["1500"])["exact"] == 1 and questions.grade("", ["--"])["exact"] == 0
    assert questions.grade("--", ["--"])["exact"] == 1  # no words in it, and yet the same
    assert questions.grade("yes\nno", ["yes"])["exact"] == 1 and questions.grade("no\nyes", ["yes"])["score"] == 0


@settings(max_examples=150, deadline=None)
@given(st.floats(-1e12, 1e12, allow_nan=False), st.integers(0, 4))
def test_a_number_is_known_however_it_is_written(value, places):
    plain = f"{value:.{places}f}"
    if float(plain) == 0:
        return
    accounts = f"(${abs(value):,.{places}f})" if value < 0 else f"${value:,.{places}f}"
    if not questions.number(plain, whole=True)[3]:
        for gold, answer in ((plain, accounts), (accounts, plain), (plain, f"{plain}. Or {value + 1}")):
            assert questions.grade(answer, [gold])["score"] == 1
        assert questions.grade(f"{-float(plain):.{places}f}", [plain])["score"] == 0
    assert questions.grade(f"{float(plain) * 1.2 + math.copysign(1, value):.4f}", [plain])["score"] == 0


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60), st.text(min_size=1, max_size=30))
def test_any_text_is_marked_between_nothing_and_one(answer, gold):
    marks = questions.grade(answer, [gold])
    assert all(0 <= m <= 1 for m in marks.values() if m is not None)
    if gold.strip():
        assert questions.grade(gold.strip(), [gold.strip().splitlines()[0]])["exact"] in (0, 1)
    json.dumps(marks, allow_nan=False)


def test_programs_are_executed():
    assert questions.executed(" subtract(10, 4)\nmore", ()) == "6.0"
    assert questions.executed("table_max(a, none)", [["a", "7"]]) == "7.0"
    assert questions.executed("subtract(5829, 57", ()) == ""  # 5829 is no answer
    assert questions.executed("divide(5, 0)", ()) == ""
    assert questions.executed("greater(2, 1)", ()) == "yes" and questions.executed("(5.2)", ()) == "(5.2)"


# ---- data and stand-ins ----------------------------------------------------------------------------------------------


def options(**changes):
    return types.SimpleNamespace(**dict(task=[], tuned=[], questions=[], accept_licence=[], max_examples=None,
                                        quick=False,
                                        seed=0) | changes)


def task_of(labels, metric="labels"):
    return dict(name="toy", labels=labels, metric=metric, licence="MIT", source="", split_policy="", notes={})


WORD = {" up": "rose gained climbed".split(), " down": "fell lost slid".split()}
SENTENCES = [dict(id=f"s{i}", prompt=f"Sentence: profit of firm {i} {WORD[label][i % 3]}\nMove:", completion=label,
                  meta=dict(label=label.strip(), text=f"{i} {label}")) for i in range(60) for label in WORD]
PAGES = [dict(id=f"p{i}",
              prompt=f"the sales of firm {'abcdefghijkl'[i] * 3} were {100 + i} in 2009 and {90 + i} in 2008\n"
              f"Question: what is the change of sales of firm {'abcdefghijkl'[i] * 3}?\nProgram:",
              completion=f" subtract({100 + i}, {90 + i})", meta=dict(
                  program=f"subtract({100 + i}, {90 + i})", answer=10.0, table=[], document=f"page {i}",
                  question=f"what is the change of sales of firm {'abcdefghijkl'[i] * 3}?")) for i in range(12)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("exam"), {}
    pairs = [dict(id=r["id"], prompt=r["prompt"], chosen=r["completion"], rejected=" sideways") for r in SENTENCES]
    splits = dict(train=SENTENCES[:80], val=SENTENCES[80:90], test=SENTENCES[88:])
    for name, records, kind, task, owner in (
            ("toy", splits, "sft", task_of([*WORD]), "MIT"), ("nc", splits, "sft", task_of([*WORD]), "CC BY-NC-SA 3.0"),
            ("unknown", dict(train=SENTENCES[:9]), "sft", None, ""),
            ("pairs", dict(train=pairs[:20], val=pairs[20:30]), "pairs", None, "MIT"),
            ("pages", dict(train=PAGES[:6], test=PAGES[6:]), "sft", task_of(None, "programs") | dict(name="finqa"),
             "MIT")):
        made[name] = str(root / name)
        examples.write(made[name], records, kind, dict(licence=owner, sources=[dict(licence=owner)],
                                                      **({"task": task} if task else {})), tokenizer=tokenizer())
    return made


def tokenizer():
    return Tokenizer.train([" ".join(r["prompt"] + r["completion"] for r in SENTENCES[:9] + PAGES)] * 3, 300)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    t = tokenizer()
    return GPT(GPTConfig(t.vocab_size, block_size=128, n_layer=1, n_head=2, n_embd=32)).eval(), t


def asking(model):
    def ask(name, function, items, cast=False, chunk=16, label="", **settings):
        if name == "broken":
            raise ValueError("broken holds no checkpoint yet")
        with torch.inference_mode():
            json.dumps(items), json.dumps(settings)
            return function(*model, items, **settings)
    return ask


def canned(replies):
    """An ask whose models answer with replies[name](item or record)."""
    def ask(name, function, items, cast=False, chunk=16, label="", **settings):
        if function is exam.completions:
            return np.array([[[1.0, 2, 1, 4]] for _ in items])
        texts = [replies[name](item) for item in items]
        return [dict(answer=t, cut=False, unasked=False) for t in texts] if function is questions.answers else texts
    return ask


def run_of(folder, data=(), seed=0, rank=4, base="b" * 64, step=7):
    """A directory with what train.py says of a run."""
    folder.mkdir(parents=True)
    manifests = {d: exam.data.read_manifest(d) for d in data}
    licence.write(folder, licence.lineage("adapter", base="base", base_directory=str(folder), data_manifests=manifests,
                                          base_sha256=base))
    (folder / "train_state.json").write_text(json.dumps(dict(step=step, data_fingerprint=str(data), args=dict(
        seed=seed, lora_rank=rank, lr=0.1, out=str(folder), data="spelled/this/way" * seed))))
    return str(folder)


# ---- tasks -----------------------------------------------------------------------------------------------------------


def test_runs_of_other_seeds_are_one_row(folders, tmp_path):
    a = run_of(tmp_path / "a", [folders["toy"]])
    b = run_of(tmp_path / "b", [folders["toy"]], seed=1)
    again = run_of(tmp_path / "again", [folders["toy"]], step=9)
    rank = run_of(tmp_path / "rank", [folders["toy"]], rank=8)
    base = run_of(tmp_path / "base", [folders["toy"]], seed=1, base="c" * 64)
    assert exam.families(None, [a, b, again, rank, base, "gpt2", "x/y"]) == [[a, b], [again], [rank], [base], ["gpt2"],
                                                                             ["x/y"]]


def test_before_and_after(folders, tmp_path):
    """Whose answers are known: base always says up, one seed is perfect, the other right on the first half."""
    runs = [run_of(tmp_path / f"r{i}", [folders["toy"]], seed=i) for i in range(2)]
    other = run_of(tmp_path / "other", [folders["pages"]])
    half = {r["id"] for r in SENTENCES[88:104]}
    replies = {"base": lambda r: " up", runs[0]: lambda r: r["completion"],
               runs[1]: lambda r: r["completion"] if r["id"] in half else "what?"}
    replies |= {other: lambda r: "1"}
    report = exam.tasks_part(canned(replies), ["base"], None, options(task=[folders["toy"] + "/", folders["pages"]],
                                                                tuned=[*runs, other]))
    toy = report[folders["toy"]]
    assert (toy["split"], toy["examples"], toy["commercial"], toy["shared_with_train"]) == ("test", 32, True, 0)
    before, after = toy["rows"]  # the run on other data is not asked
    assert (before["stage"], before["seeds"], after["stage"], after["seeds"]) == ("before", 1, "after", 2)
    assert before["likeliest"]["accuracy"] == 0.5 and len(after["runs"]) == 2
    assert after["likeliest"]["accuracy"] == 0.75 and after["spread"]["accuracy"] == [0.5, 1.0]
    low, high = after["likeliest"]["accuracy_95"]
    assert low < 0.75 < high and after["against_base"]["likeliest"]["difference"] == 0.25
    assert after["base"] == "base" and "note" not in after and "against_first" not in after
    assert after["model"] == f"{runs[0]} and 1 more" and [r["name"] for r in after["runs"]] == runs
    assert toy["missing"] == {other: "was trained on finqa, not on this"}
    assert toy["baselines"]["majority"]["accuracy"] == 0.5 and toy["baselines"]["tfidf"]["accuracy"] == 1
    assert math.isclose(before["bits_per_byte"], 1 / math.log(2) / 4) and before["loss"] == 0.5
    assert [r["model"] for r in report[folders["pages"]]["rows"]] == ["base", other]
    json.dumps(report, allow_nan=False)


def test_a_run_is_compared_with_what_it_was_made_from(folders, tmp_path):
    """By the hash of its base's weights where that is known, else by its place; in a report without it with nothing."""
    of_gpt2, of_ours = (run_of(tmp_path / sha[0], [folders["toy"]], base=sha * 64) for sha in "gb")
    on_adapter, unknown = run_of(tmp_path / "on", [folders["toy"]], base="g" * 64), str(tmp_path / "unknown")
    (tmp_path / "unknown").mkdir()
    record = json.loads((tmp_path / "on" / "lineage.json").read_text())  # the hash is that of what the adapter is on
    record["base"] |= dict(name="/somebodys/runs/text", lineage=dict(kind="adapter", data=[], base=None))
    (tmp_path / "on" / "lineage.json").write_text(json.dumps(record))
    tuned = [of_ours, of_gpt2, on_adapter, unknown]
    replies = {name: lambda r: r["completion"] for name in tuned} | dict(ours=lambda r: " up", gpt2=lambda r: "what?")

    def after(names, about):
        ask = canned(replies)
        ask.about = {name: dict(sha256=sha * 64) for name, sha in about.items()}
        found = exam.tasks_part(ask, names, None, options(task=[folders["toy"]], tuned=tuned))[folders["toy"]]
        assert "against_first" in found["rows"][len(names) - 1] or len(names) == 1
        return [(r["base"], r.get("note"), r.get("against_base", {}).get("likeliest", {}).get("difference"))
                for r in found["rows"] if r["stage"] == "after"]

    lacks = "made from {}, which is not in this report: give it as --baseline"
    nobody = (None, "nobody knows what it was made from", None)
    on = (None, lacks.format("runs/text"), None)
    assert after(["ours", "gpt2"], dict(ours="b", gpt2="g")) == [("ours", None, 0.5), ("gpt2", None, 1.0), on, nobody]
    assert after(["ours"], dict(ours="b")) == [("ours", None, 0.5), (None, lacks.format("base"), None), on, nobody]
    replies["base"] = replies["ours"]  # its name, but it has learnt more since
    assert after(["base"], dict(base="x"))[0] == (None, lacks.format("base at another step"), None)
    assert after(["base"], {})[0] == ("base", None, 0.5)

    tuned = [run_of(tmp_path / "finqa", [folders["pages"]], base="g" * 64)]
    ask = canned({"ours": lambda i: "10", tuned[0]: lambda i: " subtract(1, 2)"})
    found = questions.questions_part(ask, ["ours"], None, options(questions=[folders["pages"]], tuned=tuned))
    found = found[folders["pages"]]
    assert f"{tuned[0]} was made from base, and not from ours, the base here" in found["notes"]
    assert "fine-tuned" in found["table"] and "fine_tuned_against_retrieved" not in found
    assert "against_closed_book" not in found["table"]["fine-tuned"]["retrieved"]
    assert "against_closed_book" in found["table"]["base"]["retrieved"]


def test_one_way_to_intervals(folders, tmp_path):
    """Identical answers have the same interval from one run and from several, and no share is below 0 or above 1."""
    runs = [run_of(tmp_path / f"r{i}", [folders["toy"]], seed=i) for i in range(2)]
    known = {r["id"] for r in SENTENCES[90:]}
    replies = {name: lambda r: r["completion"] if r["id"] in known else "?" for name in ("base", *runs)}
    report = exam.tasks_part(canned(replies), ["base"], None, options(task=[folders["toy"]], tuned=runs))
    one, several = report[folders["toy"]]["rows"]
    assert one["seeds"] == 1 and several["seeds"] == 2
    for how in exam.HOW:
        low, high = one[how]["accuracy_95"]
        assert several[how]["accuracy_95"] == [low, high] == several["runs"][0][how]["accuracy_95"]
        assert 0 < low < 30 / 32 == one[how]["accuracy"] < high <= 1
    assert one["bits_per_byte_95"] == several["bits_per_byte_95"]
    right = np.ones(60)
    right[:2] = 0
    assert stats.share(right, np.ones(60))[1] == 1 and stats.share(1 - right, np.ones(60))[0] == 0
    for few in ([1.0], [0.0, 1.0], [0.0]):  # wide, but there
        low, high = stats.share(np.array(few), np.ones(len(few)))
        assert 0 <= low <= np.mean(few) <= high <= 1 and high - low > 0.6


def test_paths_are_checked_first_and_licences_by_place(folders, model, tmp_path, monkeypatch):
    here = options(task=[folders["toy"]], questions=[folders["pages"], str(tmp_path)])
    exam.check_paths(here)
    for wrong in (dict(task=["data/nope"]), dict(questions=[folders["pages"], "data/nope"])):
        with pytest.raises(FileNotFoundError, match="there is no data/nope; .*"):
            exam.check_paths(options(**wrong))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(folders["nc"])
    for accepted in (folders["nc"] + "/.", "./link", "link/"):
        report = exam.tasks_part(asking(model), ["base"], None, options(
            task=[folders["nc"]], accept_licence=[accepted], max_examples=2))
        assert report[folders["nc"]]["rows"], accepted
        assert report[folders["nc"]]["fingerprint"] == examples.fingerprint(exam.data.read_manifest(folders["nc"]))
    report = exam.tasks_part(asking(model), ["base"], None, options(task=["link"], accept_licence=["other"]))
    assert "--accept_licence link if your use is non-commercial" in report["link"]["missing"]


def test_what_names_no_task_is_asked_all_and_what_is_broken_is_said(folders, model, tmp_path):
    nobodys = run_of(tmp_path / "n", [])
    damaged = run_of(tmp_path / "d", [])
    (tmp_path / "d" / "lineage.json").write_text("{}")
    report = exam.tasks_part(asking(model), ["base"], None, options(task=[folders["toy"], folders["pairs"]],
                                                              tuned=[nobodys, "broken", damaged]))
    for entry in report.values():
        assert [r["model"] for r in entry["rows"]] == ["base",
                                                       nobodys] and entry["missing"].keys() == {"broken", damaged}
        assert "no checkpoint" in entry["missing"]["broken"] and "damaged" in entry["missing"][damaged]
        assert entry["rows"][1]["against_base"]["bits_per_byte"]["difference"] == 0
    assert report[folders["pairs"]]["split"] == "val" and "margin" in report[folders["pairs"]]["rows"][0]
    json.dumps(report, allow_nan=False)


def test_licences_and_damage(folders, model, tmp_path):
    given = [folders["nc"], folders["unknown"], folders["toy"], str(tmp_path / "none"), str(tmp_path / "bad"),
             str(tmp_path)]
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "manifest.json").write_text(json.dumps(dict(
        format_version=1, kind="sft", chat_template="", chat_template_is="default", task=7, splits=dict(train=7))))
    ask = asking(model)
    report = exam.tasks_part(ask, ["base"], None, options(task=given, max_examples=4))
    said = report[folders["nc"]]["missing"]
    assert said == (f"{folders['nc']} is CC BY-NC-SA 3.0, non-commercial; run again with --accept_licence "
                    f"{folders['nc']} if your use is non-commercial")
    said = report[folders["unknown"]]["missing"]
    assert "nobody stated its licence;" in said and said.endswith("if you have checked that you may use it")
    assert report[folders["toy"]]["examples"] == 4
    for d in given[3:]:
        assert "\n" not in report[d]["missing"] and d in report[d]["missing"]
    report = exam.tasks_part(ask, ["base"], None, options(task=given, max_examples=4,
                                                          accept_licence=[folders["nc"] + "/"]))
    assert report[folders["nc"]]["commercial"] is False and report[folders["nc"]]["rows"]
    assert "missing" in report[folders["unknown"]]
    report = exam.tasks_part(ask, ["base"], None, options(task=given[:2], max_examples=4, accept_licence=["all"]))
    assert all(r["rows"] for r in report.values()) and report[folders["unknown"]]["split"] == "train"
    tuned = run_of(tmp_path / "t", [folders["nc"]])  # of a task that is refused: it is not asked the others instead
    report = exam.tasks_part(ask, ["base"], None, options(task=[folders["nc"], folders["pages"]], max_examples=4,
                                                    tuned=[tuned]))
    assert [r["model"] for r in report[folders["pages"]]["rows"]] == ["base"]
    with pytest.raises(ValueError, match="--task"):
        exam.tasks_part(ask, ["base"], None, options())


@pytest.mark.parametrize("kind", ["toy", "pairs", "pages"])
def test_report_on_examples(folders, model, kind):
    """As the functions of tasks.py say, in one piece; and twice the same."""
    ask = asking(model)
    report = exam.examples_report(ask, ["a"], folders[kind], options())
    assert report == exam.examples_report(ask, ["a"], folders[kind], options())
    entry, records = report["models"][0], exam.open_examples(folders[kind], options())["records"]
    if kind == "toy":
        answers, _ = tasks.choose(*model, records, [*WORD])
        measured = tasks.measure(task_of([*WORD]), records, answers)
        assert {k: v for k, v in entry["likeliest"].items() if k != "accuracy_95"} == {
            k: v for k, v in measured.items() if k != "accuracy_95"}
        assert report["baselines"].keys() == {"majority", "tfidf"} and entry["written"]["n"] == 32
    if kind == "pages":
        assert entry["written"]["execution_accuracy"] == 0
    found, *_ = examples.items(model[1], records, 128)
    sums = tasks.sequence_sums(*model, [s for _, item in found for s in item]).reshape(len(records), -1, 4)
    assert math.isclose(entry["loss"], sums[:, 0, 0].sum() / sums[:, 0, 1].sum())
    if kind == "pairs":
        assert entry["accuracy"] == (sums[:, 0, 0] < sums[:, 1, 0]).mean()
    lines = exam.lines_on_examples(report)
    assert f"{report['examples']} " in lines[0] and any("bits/byte" in line for line in lines)
    lost = exam.lines_on_examples(report | dict(missing={"gpt2": "not here"}, baselines=dict(
        report.get("baselines", {}), missing={"tfidf": "too few"})))
    assert lost == lines + ["not in this report: gpt2: not here", "not in this report: tfidf: too few"]


def test_the_choice_is_seeded(folders):
    def chosen(**flags):
        return [r["id"] for r in exam.open_examples(folders["toy"], options(**flags))["records"]]
    assert chosen(max_examples=5) == chosen(max_examples=5) != chosen(max_examples=5, seed=1)
    assert len(chosen(max_examples=5)) == 5 and chosen(quick=True) == chosen() == [r["id"] for r in SENTENCES[88:]]


# ---- questions -------------------------------------------------------------------------------------------------------


def test_fine_tune_or_retrieve(folders, tmp_path):
    """A base that reads the number it is shown, a tuned model that writes the right program if shown its page."""
    tuned = run_of(tmp_path / "t", [folders["pages"]])
    other = run_of(tmp_path / "o", [folders["toy"]])
    gold = {r["meta"]["question"]: r["completion"] for r in PAGES}

    def writes(item):
        return gold[item["asked"].removeprefix("Question: ")] if item["context"] else " subtract(1, 2"
    replies = {"base": lambda item: "It is 10." if item["context"] else "I don't know", tuned: writes, other: writes}
    report = questions.questions_part(canned(replies), ["base"], None,
                                 options(questions=[folders["pages"]], tuned=[tuned, other]))
    finqa = report[folders["pages"]]
    assert finqa["n"] == 6 and finqa["metric"] == "numeric" and [*finqa["table"]] == ["base", "fine-tuned"]
    base, after = finqa["table"]["base"], finqa["table"]["fine-tuned"]
    assert [base[w]["score"] for w in ("closed book", "retrieved", "gold passage")] == [0, 1, 1]
    assert [after[w]["score"] for w in ("closed book", "retrieved", "gold passage")] == [0, 1, 1]
    assert after["gold passage"]["program_accuracy"] == 1 and base["gold passage"]["program_accuracy"] == 0
    assert (base["retrieved"]["asked_for"], after["retrieved"]["asked_for"]) == ("an answer", "a program")
    assert after["gold passage"]["against_closed_book"]["difference"] == 1
    assert finqa["retrieval"]["passages"] == 12 and finqa["retrieval"]["recall@1"] == 1
    assert finqa["fine_tuned_against_retrieved"]["difference"] == -1
    assert finqa["fingerprint"] == examples.fingerprint(exam.data.read_manifest(folders["pages"]))
    assert finqa["notes"] == ["the base is asked for an answer of 32 tokens, the fine-tuned for a program of 96"]
    assert finqa["missing"] == {other: "was trained on toy, not on this"}
    assert finqa["examples"][0]["answers"]["base, closed book"] == "I don't know"
    json.dumps(report, allow_nan=False)


def test_questions_from_a_file(folders, model, tmp_path):
    path = tmp_path / "q.jsonl"
    lines = [dict(question="Who audits?", answer="PwC", answers=["PricewaterhouseCoopers"], passage="PwC audits."),
             dict(question="How many?", answer=7, context="There are 7."),
             dict(question="Is it?", answer=True, passage=["Yes", "it is"])]
    path.write_text("\n".join(map(json.dumps, lines)))
    tuned = run_of(tmp_path / "t", [folders["toy"]])
    ask = canned({"base": lambda i: "7" if "many" in i["asked"] else "PwC", tuned: lambda i: "yes"})
    found = questions.questions_part(ask, ["base"], None, options(questions=[str(path)], tuned=[tuned]))[str(path)]
    assert found["metric"] == "numeric, and F1 for 2" and found["retrieval"]["passages"] == 3
    cell = found["table"]["base"]["closed book"]
    assert math.isclose(cell["score"], 2 / 3) and cell["numeric"] == 1 and math.isclose(cell["exact"], 2 / 3)
    assert [*found["table"]] == ["base", f"fine-tuned on toy: {tuned}"]  # and not what is tuned on these questions
    assert math.isclose(found["table"][f"fine-tuned on toy: {tuned}"]["retrieved"]["score"], 1 / 3)
    assert "fine_tuned_against_retrieved" not in found and found["fingerprint"] == exam.data.file_sha256(path)
    nobodys = run_of(tmp_path / "n", [])
    ask = canned({name: lambda i: "7" for name in ("base", tuned, nobodys)})
    found = questions.questions_part(ask, ["base"], None, options(questions=[str(path)], tuned=[tuned, nobodys]))
    found = found[str(path)]
    assert [*found["table"]] == ["base", f"fine-tuned on toy: {tuned}", "fine-tuned"]
    assert found["fine_tuned_against_retrieved"]["difference"] == 0

    path.write_text(json.dumps(dict(question="How many?", answer="7")))
    alone = questions.questions_part(asking(model), ["base"], None, options(questions=[str(path)],
                                                                       tuned=["broken"]))[str(path)]
    assert [*alone["table"]] == ["base"] and [*alone["table"]["base"]] == ["closed book"]
    assert alone["missing"].keys() == {"retrieved", "gold passage", "broken"}
    json.dumps(alone, allow_nan=False)
    for bad in ('{"question": "Who?"}', "[1]", "no", '{"question": "", "answer": "x"}',
                '{"question": "Who?", "answer": ""}',
                '{"question": "Who?", "answers": [null]}', '{"question": "Who?", "answer": {}}', ""):
        path.write_text(bad)
        why = questions.questions_part(ask, ["base"], None, options(questions=[str(path)]))[str(path)]["missing"]
        assert str(path) in why and "\n" not in why
    with pytest.raises(ValueError, match="--questions"):
        questions.questions_part(ask, ["base"], None, options())


def test_passages_are_cut_and_questions_are_not(model):
    net, t = model
    question, seen = "Question: what is the change of sales?", []

    def prompts(m, tok, records, n):
        seen.extend((r["prompt"], n) for r in records)
        return ["10"] * len(records)
    items = [dict(asked=question, context=c) for c in ("", "short", "the sales of firm were é 7 " * 60)]
    items.append(dict(asked=question * 60, context="x"))
    before, tasks.generate = tasks.generate, prompts
    try:
        found = questions.answers(net, t, items, None, 96)
    finally:
        tasks.generate = before
    assert [f["cut"] for f in found] == [False, False, True,
                                         True] and [f["unasked"] for f in found] == [False] * 3 + [True]
    assert found[3]["answer"] == "" and len(seen) == 3
    for prompt, n in seen:
        assert prompt.endswith(question + "\nAnswer:") and n == 32 and len(examples.prompt_tokens(t, prompt)) <= 128 - n
    assert len(examples.prompt_tokens(t, seen[2][0])) > 128 - 32 - 4  # and no more than need be
    apart = [questions.answers(net, t, [item], "Program:", 8)[0] for item in items]
    assert questions.answers(net, t, items, "Program:", 8) == apart


def test_what_was_cut_is_told_in_words(folders):
    def ask(name, function, items, **settings):
        return [dict(answer="10", cut=bool(item["context"]) and i < 3, unasked=i == 0) for i, item in enumerate(items)]
    found = questions.questions_part(ask, ["base"], None, options(questions=[folders["pages"]]))[folders["pages"]]
    assert found["notes"] == ["the base is asked for an answer of 32 tokens",
                              "base: context was cut to fit in 3 of 6 retrieved and 3 of 6 gold prompts",
                              "base: 1 of 6 questions are too long for it even alone, and count as wrong"]


def test_a_chat_model_is_asked_through_its_template(model):
    import copy

    net, t = model[0], copy.copy(model[1])
    t.chat_template = examples.TEMPLATE
    assert questions.answers(net, t, [dict(asked="Question: who?", context="")], None, 4)[0]["unasked"] is False
    assert questions.answers(net, t, [dict(asked="Question: who?" * 40, context="")], None, 4)[0]["unasked"] is True


@pytest.mark.parametrize("name", ["finqa", "convfinqa"])
def test_the_real_questions_come_apart(name):
    folder = SHARED / "data" / name
    if not folder.exists():
        pytest.skip(f"{folder} is not here")
    splits, _ = getattr(programs, name)(folder)
    records = splits["train"] + splits["val"] + splits["test"]
    for r, q in zip(records, questions.of_programs(records), strict=True):
        passage, talk, end = (q["passage"], q["asked"], "Program:")
        assert r["prompt"].split() == f"{passage}\n{talk}\n{end}".split() and passage and "Question:" not in passage
        assert questions.grade(questions.executed(r["completion"], r["meta"]["table"]), q["golds"])["score"] == 1 or (
            programs.score([r], [r["completion"]])["execution_accuracy"] == 0)
