"""What training took, as train.py keeps it and cost.py adds it up."""
import json
import os
import shutil
import types

import pytest
import torch
from conftest import run

import checkpoint
import cost


def options(price=None):
    return types.SimpleNamespace(price=price)


def make_run(folder, lines=(), step=20, tokens=1000, cost=None, data_kind="lm", base=None, **args):
    """A run directory as train.py leaves it, without weights."""
    work = folder / f"step-{step:08d}"
    work.mkdir(parents=True)
    state = dict(step=step, tokens=tokens, trainable=77, args=dict(init="scratch", quantize=None) | args)
    state |= {} if cost is None else dict(cost=cost)
    verdict = dict(name="MIT", commercial=True, redistribution=True, note="", because=[])
    (work / "train_state.json").write_text(json.dumps(state))
    (work / "config.json").write_text("{}")
    (work / "lineage.json").write_text(json.dumps(dict(
        kind="model", base=base and dict(name=str(base), licence=None, lineage=None), verdict=verdict,
        data=[dict(name="data/x", kind=data_kind, sources=1, licences=["MIT"])])))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def took(seconds, devices=1, **more):
    """What train_state.json keeps under "cost"."""
    return dict(seconds=seconds, device_hours=None if seconds is None else seconds * devices / 3600,
                kilowatt_hours=None, peak_memory_gb=3.0, devices=devices, machines=["NVIDIA Test 9000"],
                dtype="bfloat16", torch="2") | more


def line(step, speed=None):
    return dict(step=step, tokens=50 * step, tokens_per_second=speed)


# ---- what train.py keeps ---------------------------------------------------------------------------------------------


def cost_of(step):
    return checkpoint.load_json_state(str(step))["cost"]


def test_a_checkpoint_keeps_what_it_took(trained):
    early, late = cost_of(trained / "step-00000005"), cost_of(trained / "step-00000010")
    assert list(late) == ["seconds", "device_hours", "kilowatt_hours", "peak_memory_gb", "devices", "dtype", "machines",
                          "torch"]
    assert 0 < early["seconds"] < late["seconds"] < 600
    assert late["device_hours"] * 3600 == pytest.approx(late["seconds"])
    assert late["kilowatt_hours"] is None and 0.05 < late["peak_memory_gb"] < 64 and late["devices"] == 1
    assert len(late["machines"]) == 1 and late["machines"][0] and late["dtype"] in ("float32", "bfloat16")
    assert late["torch"] == torch.__version__


def test_the_log_holds_nothing_that_differs_from_run_to_run_but_its_speed(trained):
    keys = {key for text in (trained / "log.jsonl").read_text().splitlines() for key in json.loads(text)}
    assert keys == {"step", "tokens", "train_loss", "grad_norm", "lr", "tokens_per_second", "mfu", "val_loss",
                    "val_perplexity", "val_bpb"}


def test_a_resumed_run_goes_on_counting(trained, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(trained, out, symlinks=True)
    shutil.rmtree(out / "step-00000010")
    path = out / "step-00000005" / "train_state.json"
    state = json.loads(path.read_text())  # as if another machine, with four devices, had trained it for an hour
    before = took(3600.0, devices=4, machines=["NVIDIA Test 9000"], peak_memory_gb=500.0)
    path.write_text(json.dumps(state | dict(cost=before)))
    os.symlink("latest/README.md", out / "README.md")  # a card, which is not of the steps to come
    (out / "step-00000005" / "README.md").write_text("of step 5")
    run("train.py", "--out", out, "--resume")
    found = cost_of(out / "step-00000010")
    assert 3600 < found["seconds"] < 4200 and found["devices"] == 1 and found["peak_memory_gb"] == 500
    assert found["device_hours"] == pytest.approx(4 + (found["seconds"] - 3600) / 3600)
    assert found["machines"] == ["NVIDIA Test 9000", *cost_of(trained / "step-00000010")["machines"]]
    assert (out / "step-00000005" / "README.md").exists() and not os.path.lexists(out / "README.md")
    row = cost.spent(str(out))
    assert row["hours"] == found["seconds"] / 3600 and not row["hours_estimated"] and row["kind"] == "from scratch"
    assert row["tokens"] == 5120 and row["tokens_per_second"] > 0
    assert row["device"].startswith("NVIDIA Test 9000, then ")


@pytest.mark.slow
def test_a_run_that_was_not_counted_at_first_never_knows_its_seconds(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    shutil.rmtree(tmp_path / "run" / "step-00000010")
    path = tmp_path / "run" / "step-00000005" / "train_state.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "cost"}))
    run("train.py", "--out", tmp_path / "run", "--resume")
    assert cost_of(tmp_path / "run" / "latest")["seconds"] is None
    row = cost.spent(str(tmp_path / "run"))
    assert row["hours_estimated"] and row["hours"] == pytest.approx(5120 / row["tokens_per_second"] / 3600)


def test_starts_on_other_machines_add_up(monkeypatch):
    clock, watts, cpu = [0.0], [], torch.device("cpu")
    monkeypatch.setattr(cost, "time", types.SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(cost, "watch_power", lambda device, rank: watts)
    first = cost.meter(cpu, 2, "bfloat16", 0, {})
    clock[0] += 1800
    assert first()["kilowatt_hours"] is None and first()["device_hours"] == 1.0  # no watts were read yet
    watts += [200.0, 400.0]
    before = json.loads(json.dumps(first()))
    assert (before["seconds"], before["device_hours"], before["kilowatt_hours"]) == (1800, 1.0, pytest.approx(0.3))
    clock[0] += 1e6  # nothing ran
    watts[:] = [100.0]
    second = cost.meter(cpu, 1, "float32", 0, before)
    clock[0] += 7200
    for _ in range(2):  # asking changes nothing
        found = second()
        assert (found["seconds"], found["device_hours"], found["kilowatt_hours"]) == (9000, 3.0, pytest.approx(0.5))
    assert found["devices"] == 1 and found["dtype"] == "float32" and found["machines"] == before["machines"]
    watts.clear()  # energy of one start unknown: of the sum, too
    third = cost.meter(cpu, 1, "float32", 0, found)
    clock[0] += 3600
    assert third()["device_hours"] == 4.0 and third()["kilowatt_hours"] is None
    watts.append(100.0)
    assert cost.meter(cpu, 1, "float32", 0, third() | dict(kilowatt_hours=None))()["kilowatt_hours"] is None
    never = cost.meter(cpu, 1, "float32", 0, None)()
    assert never["seconds"] is never["device_hours"] is never["kilowatt_hours"] is None and never["peak_memory_gb"] > 0


def test_watts_are_none_where_nobody_tells():
    assert cost.watch_power(torch.device("cpu")) == []


def test_watts_are_what_nvidia_smi_says(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\necho 187.25\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(uuid="12-34"))
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    naps, threads = [], []

    def sleep(seconds):  # one reading, then the thread ends
        naps.append(seconds)
        raise SystemExit

    def thread(target, daemon):
        threads.append(target)
        return types.SimpleNamespace(start=lambda: None)

    monkeypatch.setattr(cost, "time", types.SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(cost.threading, "Thread", thread)
    watts = cost.watch_power(torch.device("cuda", 0))
    for said, expected in (("187.25", [187.25]), ("[N/A]", [187.25]), ("200", [187.25, 200.0])):
        program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\necho "{said}"\n')
        with pytest.raises(SystemExit):
            threads[0]()
        assert watts == expected
    assert "--id=GPU-12-34" in (tmp_path / "asked").read_text() and naps == [5, 5, 5]
    program.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit):
        threads[0]()
    assert watts == [187.25, 200.0] and cost.watch_power(torch.device("cuda", 0), rank=1) == [] and len(threads) == 1


# ---- reading it ------------------------------------------------------------------------------------------------------


def test_hours_energy_and_money(tmp_path):
    spent = took(7200.0, devices=2, device_hours=3.5, kilowatt_hours=1.05, peak_memory_gb=5.0,
                 machines=["NVIDIA Test 9000", "NVIDIA Other"])
    folder = make_run(tmp_path / "run", [line(0), line(10, 100.0), line(15, 300.0), line(20, 200.0)], cost=spent)
    found = cost.run({"sec": str(folder)}, dict(models=[dict(name="sec", bits_per_byte=1.1)]), options(2.0))
    row = found["rows"][0]
    assert row["hours"] == 2.0 and row["device_hours"] == 3.5 and row["devices"] == 2
    assert row["money"] == row["money_with_base"] == pytest.approx(7.0)
    assert row["watts"] == pytest.approx(300) and row["kilowatt_hours"] == 1.05 and row["peak_memory_gb"] == 5
    assert row["tokens_per_second"] == 200 and row["device"] == "NVIDIA Test 9000, then NVIDIA Other"
    assert row["quality"] == 1.1 and row["quality_name"] == "bits/byte" and row["trainable_parameters"] == 77
    assert found["to_come"]["hours"] == pytest.approx(1_550_000_000 / 200 / 3600)
    assert found["to_come"]["note"].startswith("arithmetic") and found["notes"] == []


def test_an_older_log_is_estimated_and_says_so(tmp_path):
    lines = [dict(step=s, tokens=s, tokens_per_second=v) for s, v in ((1, 5), (2, 10), (3, 90))]
    folder = make_run(tmp_path / "old", lines, tokens=36000)
    found = cost.run({"old": str(folder)}, {}, options())
    row = found["rows"][0]
    assert row["hours"] == 1.0 and row["hours_estimated"] and row["money"] is None and row["kilowatt_hours"] is None
    assert row["quality"] is None and row["quality_name"] is None
    assert any("estimated" in note for note in found["notes"]) and any("--price" in note for note in found["notes"])


def test_hours_that_nobody_counted_are_estimated_on_the_devices_that_are_known(tmp_path):
    folder = make_run(tmp_path / "run", [line(20, 10.0)], tokens=36000, cost=took(None, devices=8))
    row = cost.spent(str(folder))
    assert row["hours"] == 1.0 and row["hours_estimated"] and row["device_hours"] == 8.0 and row["watts"] is None
    assert row["device"] == "NVIDIA Test 9000" and row["peak_memory_gb"] == 3


def test_a_checkpoint_copied_away_from_its_log_still_knows(tmp_path):
    folder = make_run(tmp_path / "run", [line(20, 9.0)], cost=took(3600.0, devices=4))
    shutil.copytree(folder / "step-00000020", tmp_path / "copy")
    row = cost.spent(str(tmp_path / "copy"))
    assert row["hours"] == 1.0 and row["device_hours"] == 4.0 and row["device"] == "NVIDIA Test 9000"
    assert row["tokens_per_second"] is None
    assert cost.run({"x": str(tmp_path / "copy")}, {}, options())["to_come"] is None
    os.symlink("step-00000020", folder / "latest")
    assert cost.spent(str(folder / "latest"))["tokens_per_second"] == 9.0


def test_lines_after_the_checkpoint_and_half_a_line_do_not_count(tmp_path):
    folder = make_run(tmp_path / "run", [line(20, 10.0), line(30, 99.0)], cost=took(61.0))
    with open(folder / "log.jsonl", "a") as f:
        f.write('{"step": 20, "tok')
    assert cost.spent(str(folder))["hours"] == 61 / 3600 and cost.spent(str(folder))["tokens_per_second"] == 10


def test_an_adapter_costs_its_base_too(tmp_path):
    base = make_run(tmp_path / "base", cost=took(7200.0))
    adapter = make_run(tmp_path / "lora", cost=took(1800.0), base=base, init=str(base), data_kind="sft",
                       quantize="nf4")
    config = dict(base_model_name_or_path=str(base / "step-00000020"))
    (adapter / "step-00000020" / "adapter_config.json").write_text(json.dumps(config))
    shutil.copytree(base / "step-00000020", base / "step-00000099")  # the base's run went on: that is not the adapter's
    state = checkpoint.load_json_state(str(base / "step-00000099")) | dict(step=99, cost=took(1e6))
    (base / "step-00000099" / "train_state.json").write_text(json.dumps(state))
    full = make_run(tmp_path / "full", cost=took(900.0), base=base, init=str(base), data_kind="sft")
    lost = make_run(tmp_path / "lost", cost=took(900.0), base="gpt2", init="gpt2")
    report = dict(models=[dict(name="sec", bits_per_byte=1.2)], tasks={"data/fpb": dict(rows=[
        dict(model="sec", stage="before", likeliest=dict(accuracy=0.5)),
        dict(model="lora", stage="after", likeliest=dict(accuracy=0.8), written=dict(accuracy=0.7))])})
    paths = {"sec": str(base / "step-00000020"), "lora": str(adapter), "full": str(full), "lost": str(lost),
             "gpt2": "gpt2"}
    found = cost.run(paths, report, options(10.0))
    rows = {(r["name"], r["kind"]): r for r in found["rows"]}
    assert list(rows) == [("sec", "from scratch"), ("lora", "QLoRA"), ("full", "fine-tuned"), ("lost", "continued"),
                          ("gpt2", "unknown"), ("sec", "prompting")]
    lora = rows["lora", "QLoRA"]
    assert lora["hours"] == 0.5 and lora["base_device_hours"] == 2.0 and lora["device_hours_with_base"] == 2.5
    assert lora["money"] == 5 and lora["money_with_base"] == 25 and lora["base"] == "base/step-00000020"
    assert lora["quality"] == 0.8 and lora["quality_name"] == "accuracy on data/fpb"
    prompting = rows["sec", "prompting"]
    assert prompting["money"] == 0 and prompting["money_with_base"] == 20 and prompting["quality"] == 0.5
    assert rows["lost", "continued"]["money_with_base"] is None and rows["lost", "continued"]["money"] == 2.5
    assert rows["gpt2", "unknown"]["tokens"] is None and "gpt2: no training log: not trained here" in found["notes"]
    again = cost.run(paths, report, options(10.0))
    assert json.dumps(found, allow_nan=False) == json.dumps(again) and str(tmp_path) not in json.dumps(found)


def test_damage_is_a_note_and_no_crash(tmp_path):
    folder = make_run(tmp_path / "run", cost=took(60.0))
    (folder / "log.jsonl").write_text("no json\n")
    assert cost.spent(str(folder))["hours"] == 1 / 60 and cost.spent(str(folder))["tokens_per_second"] is None
    for text in ("no json", "{}", "[]", '{"args": {}, "step": 20, "tokens": 1, "cost": 5}'):
        (folder / "step-00000020" / "train_state.json").write_text(text)
        found = cost.run({"sec": str(folder)}, {}, options(1.0))
        assert found["rows"][0]["hours"] is None and "sec: damaged: " in found["notes"][0], text


def test_a_lineage_that_bites_its_tail_ends(tmp_path):
    folder = make_run(tmp_path / "run", cost=took(60.0), base=tmp_path / "run", init=str(tmp_path / "run"))
    assert cost.spent(str(folder))["device_hours_with_base"] == 60 / 3600
