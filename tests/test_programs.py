"""Programs of FinQA and ConvFinQA: parsed, executed, compared, and read. Pages and questions here are made up."""
import json
import random

import hypothesis.strategies as st
import pytest
from conftest import SHARED
from hypothesis import given, settings

import programs
from programs import answers_match, convfinqa, equal, execute, finqa, parse, score

TABLE = [["", "2020", "2019"], ["net sales", "$ 1,200", "900"], ["other income", "-26 ( 26 )", "14"],
         ["margin", "5%", "6.5% ( 6.5 % )"], ["units ( in tons , dry )", "3", "4"], ["mixed", "n/a", "3"], ["empty"]]
few = settings(max_examples=300, deadline=None, derandomize=True)


def entry(number, page, program, answer, marked=True):
    """A question in FinQA's schema."""
    return {"id": f"ACME/2020/page_{page}.pdf-{number}", "filename": f"ACME/2020/page_{page}.pdf", "table": TABLE,
            "pre_text": ["acme sells anvils .", "."], "post_text": ["anvils are heavy ."],
            "qa": {"question": f"question {number}?", "program": program, "exe_ans": answer,
                   "gold_inds": {"table_1": "the net sales of 2020 is $ 1,200 ;"} if marked else {}}}


def write(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


# ---- the language


@pytest.mark.parametrize("program, steps", [
    ("subtract(1200, 900), divide(#0, 900)", [("subtract", "1200", "900"), ("divide", "#0", "900")]),
    ("divide(subtract(1200, 900), 900)", [("subtract", "1200", "900"), ("divide", "#0", "900")]),
    (["subtract(", "1200", "900", ")", "divide(", "#0", "900", ")", "EOF"], "divide(subtract(1200, 900), 900)"),
    (["divide(", "subtract(", "1200", "900", ")", "900", ")"], "divide(subtract(1200, 900), 900)"),
    ("table_max(units ( in tons , dry ), none), add(#0, 1)", [("table_max", "units ( in tons , dry )", "none"),
                                                              ("add", "#0", "1")]),
    ("multiply(5,829, 5,735)", [("multiply", "5,829", "5,735")]),
    ("add(5829,5735)", [("add", "5829", "5735")]), ("add(829,735)", [("add", "829", "735")]),
    ("  25.14 ", [("number", "25.14", "none")]), (["25.14", "EOF"], [("number", "25.14", "none")])])
def test_forms_of_a_program(program, steps):
    assert parse(program) == (steps if isinstance(steps, list) else parse(steps))


@pytest.mark.parametrize("program, result", [
    ("add(1, 2)", 3.0), ("subtract(5,829, 5735)", 94.0), ("multiply(245.7, 49.9%)", 122.6043),
    ("divide(1, 3)", 0.33333), ("exp(2, 10)", 1024.0), ("greater(2, 1)", "yes"), ("greater(1, 1)", "no"),
    ("5%", 0.05), ("$ 7", 7.0),
    ("multiply(const_m1, const_100)", -100.0), ("add(1, 2), subtract(#0, 5), multiply(#0, #1)", -6.0),
    ("table_max(net sales, none)", 1200.0), ("table_min(other income, none)", -26.0),
    ("table_sum(margin, none)", 0.115), ("table_average(net sales, none)", 1050.0),
    ("table_sum(units ( in tons , dry ), none)", 7.0),
    ("subtract(table_max(net sales, none), table_min(net sales, none))", 300.0), ("table_max(, none)", 2020.0)])
def test_results(program, result):
    assert execute(program, TABLE) == result


@pytest.mark.parametrize("program", [
    "", " ", "yes", "#0", "5, 6", "nan", "inf", "1e999", "1_000", "٣", "const_", "m1", "none", "add", "add(", "add()",
    "add(1)", "add(1, 2", "add(1, 2))", "add(1, 2, 3)", "add(1, 2) 3", "add(1, 2), 3", "add(1, 2), #0", "(1)",
    "f(1, 2)", "add(1, 2) add(3, 4)", "add(1, 2),, add(3, 4)", "add(#0, 1)", "add(1, 2), add(#1, 1)",
    "add(#-1, 1)", "add(#, 1)",
    "add(add(1, 2)0, 3)", "add(-add(1, 2), 3)", "add(none, 1)", "add(\0#0, 1)", "x.add(1, 2)", "5 add(1, 2)",
    "divide(1, 0)", "divide(1, #0)", "subtract(2, 2), divide(1, #0)", "exp(10, 1000)", "exp(0, -1)", "exp(-1, 0.5)",
    "exp(-1, 0.5), greater(#0, 1)", "multiply(1e308, 1e308)", "multiply(1e308, 1e308), subtract(#0, #0)",
    "greater(1, 2), add(#0, 1)", "greater(1, 2), add(#0, #0)", "table_max(net sales)", "table_max(profit, none)",
    "table_max(mixed, none)", "table_max(empty, none)", "table_max(#0, none)", "table_best(net sales, none)",
    "table_max(net sales, 5)", "add(1, 2)" * 2000, "add(" * 3000, "9" * 9000, "import(os, sys)", "__import__('os')"])
def test_bad_programs_are_value_errors(program):
    with pytest.raises(ValueError, match="."):
        execute(program, TABLE)


WORDS = ["add(", "divide(", "exp(", "greater(", "table_max(", "table_sum(", "net sales", "margin", ")", "(", ", ", ",",
         "#0", "#1", "#99999999", "5", "0", "-1", "1e300", "5%", "$", "const_100", "const_m1", "none", " ", "\0", "\n",
         "é"]


@few
@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS)).map("".join), st.lists(st.sampled_from(WORDS))))
def test_any_text_is_executed_or_is_a_value_error(program):
    for table in TABLE, (), [[]]:
        try:
            result = execute(program, table)
        except ValueError as error:
            assert str(error) and "\n" not in str(error)[:20]
        else:
            assert result in ("yes", "no") or isinstance(result, float)
    assert equal(program, program) in (True, False)


def test_deep_and_long_programs_take_no_time():
    deep = "add(" * 900 + "1" + ", 1)" * 900
    assert execute(deep) == 901.0 and equal(deep, deep)
    with pytest.raises(ValueError, match="characters"):
        parse(deep * 10)


def test_answers_match():
    assert answers_match(0.333333, 0.33333) and answers_match("yes", "yes") and answers_match(2, 2.0)
    assert not answers_match(0.33334, 0.33333) and not answers_match("yes", "no") and not answers_match(1.0, "yes")


# ---- the same program?


@pytest.mark.parametrize("gold, predicted, same", [
    ("add(1, 2), divide(#0, 3)", "divide(add(2, 1), 3)", True),
    ("subtract(5829, 5735)", "subtract(5,829.0, 5735)", True),
    ("multiply(5%, 7)", "multiply(7, 0.05)", True), ("divide(13.4%, 1)", "divide(0.134, 1)", True),
    ("add(1, 2), add(3, 4), divide(#0, #1)", "add(4, 3), add(1, 2), divide(#1, #0)", True),
    ("add(1, 2), add(#0, 3)", "add(2, 3), add(1, #0)", True),
    ("subtract(7, 5), divide(#0, 5)", "divide(7, 5), divide(5, 5), subtract(#0, #1)", True),  # sympy says so, too
    ("divide(6, 4)", "divide(3, 2)", False), ("add(2, 2)", "multiply(2, 2)", False),
    ("subtract(1, 2)", "subtract(2, 1)", False), ("exp(2, 3)", "exp(3, 2)", False),
    ("greater(1, 2)", "greater(2, 1)", False), ("subtract(7, 7.0)", "subtract(7.0, 7)", True),
    ("divide(5, 3)", "multiply(5, 7), multiply(3, 7), divide(#0, #1)", False),  # gold has no 7
    ("table_max(a, none)", "table_max( a , none)", True), ("table_max(a, none)", "table_max(b, none)", False),
    ("table_max(a, none)", "table_min(a, none)", False),
    ("add(table_max(a, none), 1)", "add(1, table_max(a, none))", True),
    ("25.14", "25.140", True), ("25.14", "add(25.14, 0)", False), ("0", "-0", True),
    ("subtract(2, 2), divide(1, #0)", "subtract(2, 2), divide(1, #0)", True), ("1", "nonsense", False)])
def test_equal(gold, predicted, same):
    assert equal(gold, predicted) is same


OPERANDS = [str(n) for n in range(2, 40)]
NESTED = st.recursive(st.just("x"), lambda inner: st.tuples(
    st.sampled_from(["add", "subtract", "multiply", "divide", "exp", "greater"]), inner, inner), max_leaves=9).filter(
        lambda tree: tree != "x")


def spell(tree, numbers, swap=None, path=()):
    """A nested program; every operand is a number of its own; the operands of the call at `swap` change places."""
    if tree == "x":
        return next(numbers)
    a, b = (spell(t, numbers, swap, (*path, i)) for i, t in enumerate(tree[1:]))
    return f"{tree[0]}({b}, {a})" if path == swap else f"{tree[0]}({a}, {b})"


def calls(tree, path=()):
    return [] if tree == "x" else [(path, tree[0]), *calls(tree[1], (*path, 0)), *calls(tree[2], (*path, 1))]


def flat(program, order):
    """The steps of a nested program in another order that is possible, with references to match."""
    steps, place, out = parse(program), {}, []
    while len(out) < len(steps):
        ready = [i for i, (_, *operands) in enumerate(steps) if i not in place
                 and all(int(o[1:]) in place for o in operands if o[0] == "#")]
        i = order.choice(ready)
        operands = [f"#{place[int(o[1:])]}" if o[0] == "#" else o for o in steps[i][1:]]
        place[i] = len(out)
        out.append(f"{steps[i][0]}({', '.join(operands)})")
    return ", ".join(out)


@few
@given(NESTED, st.randoms(use_true_random=False))
def test_order_matters_where_it_does(tree, order):
    """In a formula that has each operand once, nothing else makes up for two that have changed places."""
    program = spell(tree, iter(OPERANDS))
    assert equal(program, flat(program, order)) and equal(flat(program, order), program)
    for path, operation in calls(tree):
        swapped = spell(tree, iter(OPERANDS), path)
        assert equal(program, swapped) is (operation in ("add", "multiply")), (program, swapped)


def test_equality_is_that_of_sympy():
    sympy = pytest.importorskip("sympy")
    signs, rng, seen = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}, random.Random(0), set()

    def formula(program):
        values = []
        for operation, *operands in parse(program):
            a, b = (values[int(o[1:])] if o[0] == "#" else f"a{o}" for o in operands)
            values.append(f"({a} {signs[operation]} {b})")
        return sympy.simplify(values[-1])

    for _ in range(60):
        pair = []
        for _ in range(2):
            steps = []
            for k in range(rng.randint(1, 2)):
                a, b = rng.sample(["1", "2", *[f"#{i}" for i in range(k)]], 2)
                steps.append(f"{rng.choice(list(signs))}({a}, {b})")
            pair.append(", ".join(steps))
        same = formula(pair[0]) == formula(pair[1])
        assert equal(*pair) == same, pair
        seen.add(same)
    assert seen == {True, False}


# ---- scores


def test_score(tmp_path):
    records = sum(finqa(write(tmp_path / "train.json", [
        entry(0, 1, "subtract(1200, 900), divide(#0, 900)", 0.33333), entry(1, 1, "add(4, 2)", 6.0),
        entry(2, 2, "greater(900, 1200)", "no"), entry(3, 3, "table_sum(margin, none)", 0.115)]))[0].values(), [])
    records.sort(key=lambda r: r["id"])
    gold = score(records, [r["completion"] for r in records])
    assert gold | {"interval_95": 0} == {"execution_accuracy": 1.0, "program_accuracy": 1.0, "invalid": 0, "n": 4,
                                         "interval_95": 0}
    assert gold["interval_95"][1] == 1 and 0.4 < gold["interval_95"][0] < 0.5  # as for three pages
    got = score(records, [" 0.33333\nQuestion: and", " multiply(3, 2)\n", "greater(1, 2", "table_sum(margin, none)"])
    assert (got["execution_accuracy"], got["program_accuracy"], got["invalid"], got["n"]) == (0.75, 0.25, 1, 4)
    assert score(records, ["11.5%"] * 4)["execution_accuracy"] == 0.25
    for bad in [], ["5"]:
        with pytest.raises(ValueError, match=f"{len(bad)} answers to 4 records"):
            score(records, bad)


def test_interval_knows_pages():
    def interval(right, pages):
        records = [{"meta": {"program": "1", "answer": float(r), "table": [], "document": str(d)}}
                   for r, d in zip(right, pages, strict=True)]
        return score(records, ["1"] * len(right))["interval_95"]

    right = [True] * 50 + [False] * 50
    wilson = [0.40383, 0.59617]  # for 50 of 100
    assert interval(right, range(100)) == pytest.approx(wilson, abs=1e-4)
    assert interval(right, [i % 10 for i in range(100)]) == pytest.approx(wilson, abs=1e-4)  # pages half right each
    low, high = interval(right, [i // 10 for i in range(100)])  # ten pages, all right or all wrong
    assert low == pytest.approx(0.2366, abs=1e-3) and high == pytest.approx(0.7634, abs=1e-3)  # as for 5 of 10
    assert interval([False] * 20, range(20)) == pytest.approx([0, 0.1611], abs=1e-3)


# ---- records


def test_finqa_records(tmp_path):
    write(tmp_path / "train_3.json", [entry(0, 1, "add(4, 2)", 6.0), entry(1, 2, "add(4, 2)", 7.0)])
    write(tmp_path / "dev.json", [entry(2, 1, "add(1, 2)", 3.0, marked=False)])
    private = entry(3, 4, None, None)
    write(tmp_path / "test.json", [private, entry(4, 5, "greater(1, 2)", "no")])
    write(tmp_path / "private_test.json", [private])
    splits, notes = finqa(tmp_path)
    assert [r["id"][-1] for side in ("train", "val", "test") for r in splits[side]] == ["0", "1", "2", "4"]
    first = splits["train"][0]
    assert first["prompt"] == "the net sales of 2020 is $ 1,200 ;\nQuestion: question 0?\nProgram:"
    assert first["completion"] == " add(4, 2)" and first["meta"]["table"] == TABLE
    assert splits["val"][0]["prompt"] == finqa(tmp_path, context="all")[0]["val"][0]["prompt"]  # nothing is marked
    lines = splits["val"][0]["prompt"].split("\n")
    assert lines[0] == "acme sells anvils ." and lines[-3] == "anvils are heavy ."
    assert lines[1] == "the net sales of 2020 is $ 1,200 ; the net sales of 2019 is 900 ;"
    assert (notes["licence"], notes["source"]) == ("MIT", "https://github.com/czyssrs/FinQA")
    assert notes["gold_not_reproduced"] == ["ACME/2020/page_2.pdf-1"] and notes["skipped_without_gold"] == 1
    assert notes["pages_in_training_and_elsewhere"] == 1 and notes["nothing_marked_so_all_of_the_page"] == 1


def test_one_file_is_split_by_page(tmp_path):
    path = write(tmp_path / "questions.json", [entry(i, i // 3, "add(4, 2)", 6.0) for i in range(150)])
    splits, notes = finqa(path)
    pages = {side: {r["meta"]["document"] for r in records} for side, records in splits.items()}
    assert sum(map(len, pages.values())) == 50 == len(set().union(*pages.values())) and "hash" in notes["split_policy"]
    assert {side: len(p) for side, p in pages.items()} == {"train": 36, "val": 4, "test": 10}
    write(path, [entry(i, i // 3, "add(4, 2)", 6.0) for i in reversed(range(150))])
    again = finqa(path)[0]
    assert {r["id"] for r in again["test"]} == {r["id"] for r in splits["test"]}
    assert {r["id"] for r in finqa(path, seed=1)[0]["test"]} != {r["id"] for r in splits["test"]}
    assert not finqa(path, val_fraction=0)[0]["val"]


CONVERSATION = {
    "id": "Double_ACME/2020/page_9.pdf", "filename": "ACME/2020/page_9.pdf", "table": TABLE,
    "pre_text": ["anvils ."], "post_text": ["."],
    "qa_0": {"gold_inds": {"table_1": "net sales row ;"}}, "qa_1": {"gold_inds": {"text_0": "anvils ."}},
    "annotation": {"dialogue_break": ["sales in 2020?", "and in 2019?", "the change?"],
                   "turn_program": ["1200", "900", "subtract(1200, 900)"], "exe_ans_list": [1200.0, 900.0, 300.0]}}
PROMPT = ("net sales row ;\nanvils .\nQuestion: sales in 2020?\nAnswer: 1200\nQuestion: and in 2019?\nAnswer: 900\n"
          "Question: the change?\nProgram:")


def test_conversations_and_turns(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir(), b.mkdir()
    splits, notes = convfinqa(write(a / "train.json", [CONVERSATION]))
    assert [r["id"][-1] for r in splits["train"]] == ["0", "1", "2"] and not notes["gold_not_reproduced"]
    assert splits["train"][2]["prompt"] == PROMPT and splits["train"][2]["completion"] == " subtract(1200, 900)"
    assert splits["train"][0]["prompt"] == "net sales row ;\nanvils .\nQuestion: sales in 2020?\nProgram:"
    assert splits["train"][0]["meta"]["document"] == "ACME/2020/page_9.pdf"
    turn = CONVERSATION | {"id": CONVERSATION["id"] + "_2", "annotation": CONVERSATION["annotation"] | {
        "cur_dial": CONVERSATION["annotation"]["dialogue_break"], "cur_program": "subtract(1200, 900)",
        "exe_ans": 300.0, "gold_ind": {"table_1": "the turn's own ;"}}}
    write(a / "train_turn.json", [turn])
    both = convfinqa(a)[0]["train"]
    assert len(both) == 3 and both[2]["prompt"] == PROMPT.replace("net sales row ;\nanvils .", "the turn's own ;")
    unanswered = CONVERSATION | {"annotation": {"dialogue_break": ["sales in 2020?"]}}
    with pytest.raises(ValueError, match="with programs and answers"):
        convfinqa(write(b / "test.json", [unanswered]))


def test_the_copy_with_columns(tmp_path):
    doc = {"pre_text": "anvils .", "post_text": ".", "table": {"2020": {"net sales": 1200.0, "tax": 0.5}, "2019": {
        "net sales": 900.0}}}
    talk = {"conv_questions": ["sales?", "more?"], "turn_program": ["1200", "table_max(net sales, none)"],
            "executed_answers": [1200.0, 1200.0], "conv_answers": ["1200", "1200"]}
    content = {"train": [{"id": "Single_ACME/2020/page_1.pdf-3", "doc": doc, "dialogue": talk}],
               "dev": [{"id": "Single_ACME/2020/page_2.pdf-3", "doc": doc, "dialogue": talk}]}
    splits, notes = convfinqa(write(tmp_path / "copy.json", content))
    record = splits["val"][1]
    assert record["meta"]["table"] == [["", "2020", "2019"], ["net sales", "1200", "900"], ["tax", "0.5", ""]]
    assert record["meta"]["document"] == "ACME/2020/page_2.pdf" and notes["gold_not_reproduced"] == []
    assert record["prompt"].startswith("anvils .\nthe net sales of 2020 is 1200 ; the net sales of 2019 is 900 ;\n")


@pytest.mark.parametrize("content", ["{", "5", '"text"', "[1]", '{"train": 5}', '[{"id": "a"}]', "[]", "{}", "[null]",
                                     '[{"id": "a", "table": 5, "qa": {"question": "q"}}]'])
def test_other_files_are_value_errors(tmp_path, content):
    (tmp_path / "train.json").write_text(content)
    for read in finqa, convfinqa:
        with pytest.raises(ValueError, match="train.json"):
            read(tmp_path / "train.json")
    with pytest.raises(ValueError, match="context"):
        finqa(tmp_path, context="some")


# ---- the datasets themselves


def real(name):
    path = SHARED / "data" / name
    if not path.exists():
        pytest.skip(f"no {path}: this test needs the dataset, which is not part of the project")
    return path


@pytest.mark.parametrize("read, name, count", [(finqa, "finqa", 200), (convfinqa, "convfinqa", 716)])
def test_every_gold_answer_is_reproduced(read, name, count):
    splits, notes = read(real(name))
    records = sum(splits.values(), [])
    assert len(records) == count and notes["gold_not_reproduced"] == [] and notes["skipped_without_gold"] == 0
    assert notes["pages_in_training_and_elsewhere"] == 0
    for record in records:
        meta = record["meta"]
        assert execute(record["completion"], meta["table"]) == meta["answer"]  # to the last bit
        assert equal(meta["program"], record["completion"])


def test_nested_programs_are_the_same_programs():
    for path in sorted(real("finqa").glob("*.json")):
        for question in json.loads(path.read_text(encoding="utf-8")):
            qa = question["qa"]
            assert execute(qa["program_re"], question["table"]) == qa["exe_ans"], question["id"]
            assert equal(qa["program"], qa["program_re"]) and equal(qa["program_re"], qa["program"]), question["id"]


def test_no_program_is_evaluated_as_python():
    source = open(programs.__file__, encoding="utf-8").read()
    assert "eval(" not in source and "exec(" not in source
