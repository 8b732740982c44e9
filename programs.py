"""
FinQA and ConvFinQA: questions about a page of a filing, answered by little programs that are then executed.

    splits, notes = finqa("FinQA/dataset")        # a folder with train.json, dev.json, test.json, or one file
    splits, notes = convfinqa("ConvFinQA/data")   # every turn of a conversation is a record
    execute("subtract(5829, 5735), divide(#0, 5735)", table)            # 0.01639
    equal("add(1, 2), divide(#0, 3)", "add(2, 1), divide(#0, 3.0)")     # True
    score(records, answers)                       # execution accuracy with its interval, program accuracy, invalid

The idea (FinQA, Chen et al. 2021; ConvFinQA, Chen et al. 2022): language models copy numbers well and do sums badly. So
the model writes down which numbers to take and what to do with them, and an executor of ten operations does the sum. An
answer can be right in two ways. Execution accuracy: the program's result, rounded to five digits, is the gold result.
Program accuracy: the program is the gold one but for algebra, and not right by luck. To see whether two formulas are
the same, without doing algebra, put random numbers of a finite field for their operands (Schwartz 1980, Zippel 1979):
different ones then give different results, but for a chance of about 1e-17. Both figures follow evaluate.py of
https://github.com/czyssrs/FinQA, but for what is called a difference below.
"""
import json
import math
import operator
import pathlib
import re
from itertools import zip_longest

import numpy as np

from split import hash64, hold_out

ARITHMETIC = {"add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "divide": operator.truediv,
              "exp": operator.pow, "greater": operator.gt}
OF_A_ROW = {"table_max": max, "table_min": min, "table_sum": sum, "table_average": lambda row: sum(row) / len(row)}
# the first call that has no call within; the name of a row may hold commas and parentheses
CALL = re.compile(r"(table_\w+)\s*\((.*?),\s*none\s*\)|(\w+)\s*\(([^()]*)\)")
FIELD = 2**61 - 1  # a prime: modulo FIELD, whole numbers add, multiply and divide as fractions do
SPLIT = re.compile("(train|dev|val|test)(?![a-z])")


def parse(program):
    """A program as a list of steps (operation, operand, operand), where the operand "#k" is the result of step k.
    It may be "add(1, 2), divide(#0, 3)", the nested "divide(add(1, 2), 3)", or a list of the tokens of either. A bare
    number (a turn of ConvFinQA may only look one up) is the one step ("number", "42", "none"). ValueError if bad."""
    program, steps = as_text(program).replace("\0", " "), []
    if len(program) > 10_000:
        raise ValueError(f"a program of {len(program):,} characters; programs end after a few steps")
    if "(" not in program:
        number(program)
        return [("number", program, "none")]
    while found := CALL.search(program):
        operation = found[1] or found[3]  # of its operands, "5,829, 5,735" are two, and so are "829,735"
        operands = [found[2], "none"] if found[1] else found[4].split(", " if ", " in found[4] else ",")
        if operation not in (OF_A_ROW if found[1] else ARITHMETIC) or len(operands) != 2:
            raise ValueError(f"{operation[:40]} of {len(operands)} operands is none of {', '.join(ARITHMETIC)} of two "
                             f"numbers and {', '.join(OF_A_ROW)} of (row, none)")
        operands = [operand.strip() for operand in operands]
        for operand in operands if found[3] else ():
            if not re.fullmatch("(\0?)#[0-9]{1,4}\\1", operand):
                number(operand)
            elif int(operand.strip("\0#")) >= len(steps):
                raise ValueError(f"{operand} refers to no step before it")
        # the result takes the step's place; \0 tells it from a #0 between the steps that was there before
        program = f"{program[: found.start()]}\0#{len(steps)}\0{program[found.end() :]}"
        steps.append((operation, *(operand.strip("\0") for operand in operands)))
    if not re.fullmatch(r"\0#\d+\0(\s*,\s*\0#\d+\0)*", program):
        raise ValueError(f"{program[:80]!r}: more, or less, than whole steps with commas between them")
    return steps


def as_text(value):
    """A program, a cell or an answer as text: a list of tokens joined, 5829.0 as "5829"."""
    if isinstance(value, list):
        value = ", ".join(str(token) for token in value if token != "EOF").replace("(, ", "(").replace(", )", ")")
    return f"{value:.15g}" if isinstance(value, (int, float)) else str(value).strip()


def number(text):
    """ "5,829" → 5829.0, "5%" → 0.05, "$ 7" → 7.0, const_100 → 100.0, const_m1 → -1.0; ValueError for anything else."""
    plain = text.replace(",", "").replace("$", "").strip()  # a difference: the official one knows $ in tables only
    plain = re.sub("^const_(m?)(?=[0-9])", lambda const: "-" * len(const[1]), plain)
    if not re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?\s*%?", plain):
        raise ValueError(f"{text[:40]!r} is no number")
    if math.isinf(value := float(plain.rstrip("%").strip())):
        raise ValueError(f"{text[:40]!r} is too large")
    return value / 100 if plain.endswith("%") else value


def _run(program, number, calculate):
    results = []
    for operation, *operands in parse(program):
        if operation not in OF_A_ROW:
            operands = [results[int(x[1:])] if x.startswith("#") else number(x) for x in operands if x != "none"]
        results.append(operands[0] if operation == "number" else calculate(operation, *operands))
    return results[-1]


def execute(program, table=()):
    """What a program gives: a float rounded to five digits, as `exe_ans` is, or "yes" or "no" from greater.
    table: rows of cells, the first of each its name; of rows with one name the last is meant. A cell counts up to its
    first parenthesis, "-26 ( 26 )"; one that is no number spoils its row. ValueError where there is no result (a
    difference: for table_max(#0, none) and table_max(row, 5) the official executor takes a row; here both are bad)."""
    rows = {row[0]: row[1:] for row in table if row}

    def calculate(operation, a, b):
        if operation in OF_A_ROW and not rows.get(a):
            raise ValueError(f"the table has no row {a[:60]!r} with cells")
        try:
            if operation in OF_A_ROW:
                return OF_A_ROW[operation]([number(str(cell).split("(")[0]) for cell in rows[a]])
            result = ARITHMETIC[operation](a, b)
        except (ArithmeticError, TypeError) as error:  # a division by zero, an overflow; "yes" - 1
            raise ValueError(f"{operation}({a}, {b}): {error}") from None
        return result if operation != "greater" else "yes" if result else "no"

    result = _run(program, number, calculate)
    if result in ("yes", "no"):
        return result
    if isinstance(result, (str, complex)) or not math.isfinite(result):  # "yes" + "no", the root of -1
        raise ValueError(f"the result is {result}, no number")
    return round(result, 5)


def answers_match(value, gold):
    """Execution accuracy: both are the same word, or the same number to five digits, with no other tolerance."""
    return value == gold if str in (type(value), type(gold)) else round(value, 5) == round(gold, 5)


def equal(gold, predicted):
    """Program accuracy: are two programs one formula, but for algebra, the numbering of steps, the spelling of numbers?
    Numbers are symbols here, as in the official check: 2 + 2 is not 2 * 2, and operands that gold does not have,
    predicted must not. (Differences: there, 5829.0 is not 5829, nor 5% 0.05.) False if either can't be parsed."""
    try:
        (formula, operands), (other, others) = _formula(gold), _formula(predicted)
        return formula == other and others <= operands
    except ValueError:
        return False


def _formula(program):
    """(the last step's value if each operand is a random number of the field, all the operands)"""
    operands = set()

    def symbol(what, is_operand=True):
        operands.update([what] * is_operand)
        return hash64(repr(what).encode()) % FIELD

    def calculate(operation, a, b):
        if operation in ("add", "subtract", "multiply"):
            return ARITHMETIC[operation](a, b) % FIELD
        if operation == "divide" and b:
            return a * pow(b, -1, FIELD) % FIELD
        return symbol((operation, a, b), operation in OF_A_ROW)  # we know no algebra of a row, of exp and greater

    # 15 digits: 13.4 / 100 need not be 0.134; and -0.0 + 0.0 is 0.0
    return _run(program, lambda text: symbol(f"{number(text) + 0.0:.15g}"), calculate), operands


def score(records, answers):
    """answers: a text for each record, whose first line counts, a program or a bare number. Returns the shares
    execution_accuracy and program_accuracy of all n; invalid: how many answers give no result; interval_95 of the
    execution accuracy, Wilson's (1927), for fewer than n where answers about a page are right and wrong together."""
    if not records or len(records) != len(answers):
        raise ValueError(f"{len(answers)} answers to {len(records)} records; give one for each, and at least one")
    right, same, invalid = [], 0, 0
    for meta, answer in zip([r["meta"] for r in records], answers, strict=True):
        program = as_text(answer).split("\n")[0]
        try:
            right.append(answers_match(execute(program, meta["table"]), meta["answer"]))
            same += equal(meta["program"], program)
        except ValueError:
            right.append(False)
            invalid += 1
    n, p = len(right), sum(right) / len(right)
    page = np.unique([record["meta"]["document"] for record in records], return_inverse=True)[1]
    variance = np.square(np.bincount(page, np.array(right) - p)).sum() / n**2  # p (1 - p) / n, if pages did not matter
    z = 1.96 / math.sqrt(min(n, max(page.max() + 1, p * (1 - p) / max(variance, 1e-12))))
    ends = [(p + z * z / 2 + way * z * math.sqrt(p * (1 - p) + z * z / 4)) / (1 + z * z) for way in (-1, 1)]
    return {"execution_accuracy": p, "program_accuracy": same / n, "invalid": invalid, "n": n,
            "interval_95": [float(min(1, max(0, end))) for end in ends]}


def finqa(path, val_fraction=0.1, seed=0, context="gold", name="FinQA"):
    """(splits, notes) from a folder with FinQA's train.json, dev.json (val), test.json, or some of them, dev_100.json,
    too; or from one file, whose pages a seeded hash divides: a fifth are test, val_fraction of the others val.
    splits: {"train": [...], "val": [...], "test": [...]} of {"id", "prompt", "completion", "meta"}; meta has program,
    answer, table (rows), question, document (the page). context: "gold", the sentences and rows that annotators marked,
    as if a retriever had been perfect; or "all" of the page. notes: what was read, skipped, and is wrong with it."""
    if context not in ("gold", "all"):
        raise ValueError(f'context is "gold" or "all", not {context!r}')
    path, found, no_gold = pathlib.Path(path), {}, 0
    files = sorted(f for f in path.glob("*.json") if SPLIT.match(f.name)) if path.is_dir() else [path]
    for file in sorted(files, key=lambda f: "_turn" in f.name):  # last: what is marked for a turn replaces the rest
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            for key, entries in content.items() if isinstance(content, dict) else [(file.name, content)]:
                side = SPLIT.match(key)[1].replace("dev", "val") if SPLIT.match(key) else "train"
                records = [record for entry in entries for record in _records(entry, context)]
                known = {r["id"]: r for r in records if None not in (r["meta"]["program"], r["meta"]["answer"])}
                found[side] = found.get(side, {}) | known
                no_gold += len(records) - len(known)
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise ValueError(f"{file} is not as {name} is handed out ({type(error).__name__}); take the file "
                             "unchanged") from None
    splits = {side: list(found.get(side, {}).values()) for side in ("train", "val", "test")}
    records = sum(splits.values(), [])
    if not records:
        raise ValueError(f"{path} has no train*.json, dev*.json or test*.json of {name} with programs and answers")
    pages = np.array([hash64(r["meta"]["document"].encode()) for r in records], np.uint64)
    sides = np.repeat(list(splits), [len(side) for side in splits.values()])
    if len(found) == 1:
        sides[:] = "train"
        for side, fraction in ("test", 0.2), ("val", val_fraction):
            rest = np.flatnonzero(sides == "train")
            sides[rest[hold_out(pages[rest], np.ones(len(rest)), fraction, seed)]] = side
    return {side: [r for r, s in zip(records, sides, strict=True) if s == side] for side in splits}, {
        "licence": "MIT", "source": f"https://github.com/czyssrs/{name}", "files": [str(f) for f in files],
        "split_policy": "whole pages by a seeded hash" if len(found) == 1 else "as the files are named",
        "context": "all of the page" if context == "all" else "what is marked, as if a retriever had been perfect",
        "nothing_marked_so_all_of_the_page": sum(context == "gold" and not r["meta"]["marked"] for r in records),
        "pages_in_training_and_elsewhere": len(np.intersect1d(pages[sides == "train"], pages[sides != "train"])),
        "skipped_without_gold": no_gold,
        "gold_not_reproduced": [r["id"] for r in records if score([r], [r["completion"]])["execution_accuracy"] < 1]}


def convfinqa(path, val_fraction=0.1, seed=0, context="gold"):
    """As `finqa`, with a record for each turn, whose prompt has the earlier questions and their gold answers. Reads
    conversations (train.json), turns (train_turn.json), and the copy with "doc", in whose tables 5% has become -5."""
    return finqa(path, val_fraction, seed, context, name="ConvFinQA")


def _records(entry, context):
    """The records of an entry: a question of FinQA, a turn, or all turns of a conversation."""
    about = entry.get("qa", {}) | entry | entry.get("annotation", {}) | entry.get("dialogue", {})
    doc, id = entry.get("doc", entry), entry["id"]
    document = about.get("filename") or doc.get("filename") or re.sub(r"^(Single|Double)_|(?<=\.pdf)-.*$", "", id)
    table = doc["table"]
    if isinstance(table, dict):  # of columns
        names = dict.fromkeys(name for column in table.values() for name in column)
        table = [["", *table], *([name, *(column.get(name, "") for column in table.values())] for name in names)]
    table = [[as_text(cell) for cell in row] for row in table]
    marked = about.get("gold_ind") or about.get("gold_inds") or {
        name: text for qa in ("qa_0", "qa_1") for name, text in entry.get(qa, {}).get("gold_inds", {}).items()}
    passages = list(marked.values())
    if context == "all" or not marked:
        before, after = ([text] if isinstance(text, str) else text for text in (doc["pre_text"], doc["post_text"]))
        passages = [*before, *(" ".join([table[0][0], *(f"the {row[0]} of {head} is {cell} ;" for head, cell in zip(
            table[0][1:], row[1:], strict=False))]).strip() for row in table[1:]), *after]
    asked = about.get("cur_dial") or about.get("dialogue_break") or about.get("conv_questions")
    answers = about.get("exe_ans_list") or about.get("executed_answers") or []
    turns = [(id, asked or [about["question"]], about.get("cur_program", about.get("program")), about.get("exe_ans"))]
    if asked and "cur_dial" not in about:
        steps = enumerate(zip_longest(asked, about.get("turn_program") or [], answers))
        turns = [(f"{id}_{t}", asked[: t + 1], program, answer) for t, (_, program, answer) in steps]
    records = []
    for id, questions, program, answer in turns:
        lines = [passage for passage in passages if any(map(str.isalnum, passage))]  # some are but a dot
        for question, reply in zip_longest(questions, answers[: len(questions) - 1]):
            lines += [f"Question: {question}"] + [f"Answer: {as_text(reply)}"] * (reply is not None)
        meta = {"program": as_text(program) if program else None, "answer": answer, "table": table,
                "question": questions[-1], "document": document, "marked": bool(marked)}
        completion = f" {meta['program']}"
        records.append({"id": id, "prompt": "\n".join([*lines, "Program:"]), "completion": completion, "meta": meta})
    return records
