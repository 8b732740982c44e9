"""Bad input of every kind: exit code 2, one line that helps, and nothing half-written."""
import contextlib
import importlib
import io
import json
import os
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, TINY, run

import cli


def fails(script, *flags, says, leaves=None):
    """
    The command ends with code 2 and one line that contains `says`; the path `leaves` must not have come into being.
    It runs inside this process: seventy starts of Python would take minutes.
    """
    module = importlib.import_module(script.removesuffix(".py"))
    stderr, before = io.StringIO(), sys.argv
    sys.argv = [script, *map(str, flags)]
    try:
        with contextlib.redirect_stderr(stderr), pytest.raises(SystemExit) as ended:
            cli.run(module.main)
    finally:
        sys.argv = before
    message = stderr.getvalue().strip()
    assert ended.value.code == 2, message
    check(message, script, says, leaves)


def check(message, script, says, leaves):
    assert message.count("\n") == 0 and message.startswith(script + ": "), message
    for word in [says] if isinstance(says, str) else says:
        assert word in message, message
    if leaves:
        assert not leaves.exists() and not list(leaves.parent.glob(leaves.name + ".*")), list(leaves.parent.iterdir())


def test_a_real_process_ends_like_that_too(tmp_path):
    done = run("prepare.py", "corpus", tmp_path / "nowhere", "--out", tmp_path / "out", check=False)
    assert done.returncode == 2 and not done.stdout
    check(done.stderr.strip(), "prepare.py", "nowhere", tmp_path / "out")


@pytest.fixture
def damaged(corpus, tmp_path):
    """A copy of the data directory, to be damaged."""
    return shutil.copytree(corpus, tmp_path / "damaged")


@pytest.fixture
def broken_run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "broken", symlinks=True)


def train(data, tmp_path, *flags):
    return ("train.py", "--data", data, "--out", tmp_path / "run", "--steps", 2, *TINY, *flags)


# prepare.py

CORPUS = {
    "missing path": (["nowhere.txt"], [], "nowhere.txt"),
    "empty file": (["empty.txt"], [], "empty file"),
    "empty folder": (["folder"], [], "nothing to read"),
    "unknown type": (["image.png"], [], ".png"),
    "text without text": (["blank.txt"], [], "no readable document"),
    "no such tokenizer": (["good.txt"], ["--tokenizer", "nowhere"], "nowhere"),
    "tokenizer size no number": (["good.txt"], ["--tokenizer", "bpe:many"], "bpe:8192"),
    "tokenizer too small": (["good.txt"], ["--tokenizer", "bpe:12"], "257"),
    "negative fraction": (["good.txt"], ["--val_fraction", "-1"], "--val_fraction"),
    "fraction no number": (["good.txt"], ["--val_fraction", "half"], "--val_fraction"),
    "no workers": (["good.txt"], ["--workers", "0"], "--workers"),
    "truncated parquet": (["cut.parquet"], [], "damaged parquet"),
    "not a parquet": (["fake.parquet"], [], "damaged parquet"),
    "parquet without text": (["numbers.parquet"], [], "no text column"),
    "jsonl without text": (["numbers.jsonl"], [], "no readable document"),
    "unknown flag": (["good.txt"], ["--wrokers", "2"], "--wrokers"),
    "header without document": (["header.txt"], [], "header only"),
}


@pytest.mark.parametrize("case", CORPUS)
def test_corpus(case, tmp_path):
    names, flags, says = CORPUS[case]
    (tmp_path / "folder").mkdir()
    pq.write_table(pa.table({"n": [1]}), tmp_path / "numbers.parquet")
    pq.write_table(pa.table({"text": ["a" * 1000]}), tmp_path / "whole.parquet")
    contents = {"empty.txt": b"", "image.png": b"x", "blank.txt": b" \n\n", "good.txt": b"one\n",
                "fake.parquet": b"PAR1 not at all", "cut.parquet": (tmp_path / "whole.parquet").read_bytes()[:-20],
                "numbers.jsonl": b'{"n": 1}\n[]\n',
                "header.txt": b"<SEC-HEADER>\nACCESSION NUMBER: 0000000001-99-000001\n</SEC-HEADER>\n"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    fails("prepare.py", "corpus", *[tmp_path / n for n in names], "--out", tmp_path / "out",
          *(flags or ["--tokenizer", "bpe:300"]), says=says, leaves=tmp_path / "out")


def test_existing_output_is_never_overwritten(tmp_path, corpus):
    (tmp_path / "x.txt").write_text("one")
    before = {p.name: p.read_bytes() for p in corpus.iterdir()}
    fails("prepare.py", "corpus", tmp_path / "x.txt", "--out", corpus, "--tokenizer", "bpe:300", says="already exists")
    fails("prepare.py", "corpus", tmp_path / "x.txt", "--out", tmp_path / "x.txt", "--tokenizer", "bpe:300",
          says="already exists")
    assert before == {p.name: p.read_bytes() for p in corpus.iterdir()}


def test_commands_without_their_arguments(tmp_path):
    fails("prepare.py", says="COMMAND")
    fails("prepare.py", "corpus", says="required")
    fails("prepare.py", "bake", says="bake")
    fails("train.py", says="--out")
    fails("train.py", "--out", tmp_path / "run", says="--data", leaves=tmp_path / "run")
    fails("sample.py", says="CKPT")
    fails("eval.py", "x", says="--data")
    fails("checkpoint.py", "info", tmp_path, says="no checkpoint")
    fails("train.py", "@nowhere.txt", says="nowhere.txt")


# train.py

FLAGS = {
    "heads do not divide": (["--n_embd", "33"], "n_head"),
    "no steps": (["--steps", "0"], "--steps"),
    "learning rate no number": (["--lr", "fast"], "--lr"),
    "learning rate nan": (["--lr", "nan"], "--lr"),
    "negative learning rate": (["--lr", "-1"], "--lr"),
    "dropout of one": (["--dropout", "1"], "--dropout"),
    "unknown optimizer": (["--optimizer", "sgd"], "muon"),
    "batch no multiple": (["--batch_tokens", "100"], "--batch_tokens"),
    "micro-batch does not divide": (["--micro_batch", "3"], "--micro_batch"),
    "window longer than the data": (["--seq_len", "1000000", "--batch_tokens", "1000000", "--micro_batch", "1"],
                                    "--seq_len"),
    "no such device": (["--device", "cuda:7"], "--device"),
    "nonsense device": (["--device", "toaster"], "--device"),
    "unknown hub id": (["--init", "nobody/nothing-here"], "nobody/nothing-here"),
    "missing checkpoint": (["--init", "./nowhere"], "nowhere"),
    "missing nanoGPT file": (["--init", "nowhere.pt"], "nowhere.pt"),
    "abbreviated flag": (["--step", "3"], "--step"),
}


@pytest.mark.parametrize("case", FLAGS)
def test_train_flags(case, corpus, tmp_path):
    flags, says = FLAGS[case]
    fails(*train(corpus, tmp_path, *flags), says=says, leaves=tmp_path / "run")


def flip(path, where=0.6):
    raw = bytearray(path.read_bytes())
    raw[int(len(raw) * where)] ^= 0x10
    path.write_bytes(raw)


DATA = {
    "truncated shard": (lambda d: os.truncate(d / "train-00000.npy", 1000), "train-00000.npy"),
    "flipped bit in a shard": (lambda d: flip(d / "train-00000.npy"), "checksum"),
    "missing shard": (lambda d: (d / "val-00000.npy").unlink(), "val-00000.npy"),
    "no manifest": (lambda d: (d / "manifest.json").unlink(), "prepare.py corpus"),
    "truncated manifest": (lambda d: os.truncate(d / "manifest.json", 50), "manifest.json"),
    "manifest of the future": (lambda d: (d / "manifest.json").write_text((d / "manifest.json").read_text().replace(
        '"format_version": 1', '"format_version": 9')), "version 9"),
    "manifest that is a list": (lambda d: (d / "manifest.json").write_text("[]"), "manifest.json"),
    "truncated tokenizer": (lambda d: os.truncate(d / "tokenizer.json", 500), "tokenizer.json"),
    "another tokenizer": (lambda d: (d / "tokenizer.json").write_text((d / "tokenizer.json").read_text().replace(
        '"id":511', '"id":510')), "tokenizer.json"),
    "missing tokenizer": (lambda d: (d / "tokenizer.json").unlink(), "tokenizer.json"),
}


@pytest.mark.parametrize("case", DATA)
def test_damaged_data(case, damaged, tmp_path):
    damage, says = DATA[case]
    damage(damaged)
    fails(*train(damaged, tmp_path), says=says, leaves=tmp_path / "run")


def test_data_that_is_no_directory(tmp_path):
    (tmp_path / "file").write_text("x")
    fails(*train(tmp_path / "nowhere", tmp_path), says="prepare.py corpus", leaves=tmp_path / "run")
    fails(*train(tmp_path / "file", tmp_path), says="prepare.py corpus", leaves=tmp_path / "run")


def newest(run):
    return run / os.readlink(run / "latest")


CHECKPOINT = {
    "truncated weights": (lambda d: os.truncate(d / "model.safetensors", 3000), "model.safetensors"),
    "flipped header": (lambda d: flip(d / "model.safetensors", 0.0005), "safetensors"),
    "missing weights": (lambda d: (d / "model.safetensors").unlink(), "model.safetensors"),
    "config is no JSON": (lambda d: (d / "config.json").write_text("{"), "config.json"),
    "config of another shape": (lambda d: (d / "config.json").write_text((d / "config.json").read_text().replace(
        '"n_embd": 32', '"n_embd": 64')), "do not fit"),
    "config of another model": (lambda d: (d / "config.json").write_text('{"model_type": "llama"}'), "model_type"),
    "no tokenizer": (lambda d: (d / "tokenizer.json").unlink(), "tokenizer.json"),
}


@pytest.mark.parametrize("case", CHECKPOINT)
def test_damaged_checkpoint(case, broken_run, corpus, tmp_path):
    damage, says = CHECKPOINT[case]
    damage(newest(broken_run))
    fails("sample.py", broken_run, "--max_new_tokens", 2, says=says)
    fails("eval.py", broken_run, "--data", corpus, "--out", tmp_path / "report", says=says, leaves=tmp_path / "report")


def test_resume_of_what_can_not_be_resumed(trained, broken_run, corpus, tmp_path):
    fails("train.py", "--data", corpus, "--out", trained, says="--resume")
    fails("train.py", "--out", broken_run, "--resume", "--lr", "0.5", says="--lr")
    os.truncate(newest(broken_run) / "train_state.safetensors", 100)
    fails("train.py", "--out", broken_run, "--resume", "--steps", "10", says="training state")
    (newest(broken_run) / "train_state.json").unlink()
    fails("train.py", "--out", broken_run, "--resume", says="--init")


def test_other_data_or_tokenizer_than_before(trained, broken_run, filings, tmp_path):
    run("prepare.py", "corpus", filings, "--out", tmp_path / "other", "--tokenizer", "bpe:400")
    fails("train.py", "--data", tmp_path / "other", "--out", tmp_path / "run", "--init", trained,
          says="tokenizer", leaves=tmp_path / "run")
    fails("train.py", "--data", tmp_path / "other", "--out", broken_run, "--resume", says="tokenizer")
    run("prepare.py", "corpus", filings, "--out", tmp_path / "reseeded", "--tokenizer", trained, "--seed", "9")
    fails("train.py", "--data", tmp_path / "reseeded", "--out", broken_run, "--resume", says="not the data")


def test_pickled_code_is_not_run(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    (tmp_path / "ckpt.pt").write_bytes(pickle.dumps({"model": Evil(), "model_args": {}}))
    fails("sample.py", tmp_path / "ckpt.pt", says="nanoGPT")
    assert not (tmp_path / "pwned").exists()


def test_prompts_and_outputs_of_sample(trained, tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "bad.jsonl").write_text('{"prompt": "x"}\n{"question": "y"}\n')
    fails("sample.py", trained, "--prompts", tmp_path / "nowhere.txt", says="nowhere.txt")
    fails("sample.py", trained, "--prompts", tmp_path / "empty.txt", says="no prompts")
    fails("sample.py", trained, "--prompts", tmp_path / "bad.jsonl", says="bad.jsonl:2")
    fails("sample.py", trained, "--out", tmp_path / "no" / "folder.jsonl", says="folder")
    fails("sample.py", trained, "--temperature", "-1", says="--temperature")


def test_evaluation_without_validation_documents(trained, tmp_path):
    (tmp_path / "x.txt").write_text("Only one document.")
    run("prepare.py", "corpus", tmp_path / "x.txt", "--out", tmp_path / "data", "--tokenizer", trained)
    fails("eval.py", trained, "--data", tmp_path / "data", "--out", tmp_path / "report",
          says="--val_fraction", leaves=tmp_path / "report")


# the machine: a full disk and no permission


@pytest.mark.skipif(sys.platform != "linux", reason="uses file size limits as a stand-in for a full disk")
@pytest.mark.parametrize("command", ["corpus", "train"])
def test_file_size_limit_like_a_full_disk(command, corpus, filings, tmp_path):
    limit = "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); " \
            "resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000)); sys.argv = sys.argv[1:]; " \
            "runpy.run_path(sys.argv[0], run_name='__main__')"
    flags = (["corpus", filings, "--out", tmp_path / "out", "--tokenizer", "bpe:300", "--workers", "1"]
             if command == "corpus" else train(corpus, tmp_path)[1:])
    script = {"corpus": "prepare.py", "train": "train.py"}[command]
    done = subprocess.run([sys.executable, "-c", limit, script, *map(str, flags)],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.strip().count("\n") == 0, done.stderr
    assert ("Traceback" not in done.stderr
            and not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists())
    if command == "train":
        assert not [n for n in os.listdir(tmp_path / "run") if n.startswith(("step-", "writing-"))]


def test_really_full_disk(corpus, filings, tmp_path):
    """A tmpfs of one megabyte, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        fails("prepare.py", "corpus", filings, "--out", disk / "out", "--tokenizer", "bpe:300",
              says="No space left", leaves=disk / "out")
        fails("train.py", "--data", corpus, "--out", disk / "run", "--steps", 2, *TINY, says="No space left")
        assert not [n for n in os.listdir(disk / "run") if n.startswith(("step-", "writing-"))]
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_no_permission(corpus, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    (tmp_path / "secret.txt").write_text("x")
    (tmp_path / "secret.txt").chmod(0)
    fails("prepare.py", "corpus", tmp_path / "secret.txt", "--out", tmp_path / "out",
          says="ermission", leaves=tmp_path / "out")
    fails("train.py", "--data", corpus, "--out", tmp_path / "closed" / "run", "--steps", 2, *TINY, says="ermission")


def test_no_permission_as_root_sees_it(corpus, tmp_path):
    """/proc takes no new folders from anyone."""
    fails("prepare.py", "corpus", ROOT / "README.md", "--out", "/proc/out", "--tokenizer", "bpe:300", says="/proc/out")
    fails("train.py", "--data", corpus, "--out", "/proc/run", "--steps", 2, *TINY, says="/proc/run")


def test_help_shows_defaults(capsys, monkeypatch):
    for script in ("prepare.py", "train.py", "sample.py", "eval.py", "checkpoint.py"):
        monkeypatch.setattr(sys, "argv", [script, "--help"])
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(script.removesuffix(".py")).main()
        out = capsys.readouterr().out
        assert ended.value.code == 0 and "--help" in out
        assert script != "train.py" or "131072" in out and "0.95" in out


# LoRA

LORA = {
    "no model to adapt": (["--lora_rank", "4"], "--init"),
    "quantized but nothing to train": (["--quantize", "nf4"], "--lora_rank"),
    "targets but no rank": (["--init", "RUN", "--lora_targets", "c_attn"], "--lora_rank"),
    "muon on thin matrices": (["--lora_rank", "4", "--optimizer", "muon"], "muon"),
    "no such linear": (["--lora_rank", "4", "--init", "RUN", "--lora_targets", "q_proj"], "c_attn"),
    "the tied head": (["--lora_rank", "4", "--init", "RUN", "--lora_targets", "lm_head"], "embedding"),
    "rank of zero": (["--lora_rank", "0", "--init", "RUN"], "--lora_rank"),
    "alpha no number": (["--lora_rank", "4", "--init", "RUN", "--lora_alpha", "nan"], "--lora_alpha"),
    "another format": (["--lora_rank", "4", "--init", "RUN", "--quantize", "int8"], "nf4"),
    "an adapter as the base": (["--lora_rank", "4", "--init", "ADAPTER"], "checkpoint.py merge"),
}


@pytest.fixture(scope="module")
def adapter(trained, tmp_path_factory):
    """An adapter directory for the tiny model, untrained."""
    import lora
    from model import GPT

    path = tmp_path_factory.mktemp("adapter") / "a"
    lora.save_adapter(lora.add_lora(GPT.from_pretrained(trained), rank=2), path)
    return path


@pytest.mark.parametrize("case", LORA)
def test_lora_flags(case, corpus, trained, adapter, tmp_path):
    flags, says = LORA[case]
    flags = [{"RUN": trained, "ADAPTER": adapter}.get(flag, flag) for flag in flags]
    fails(*train(corpus, tmp_path, *flags), says=says, leaves=tmp_path / "run")


ADAPTER = {
    "truncated weights": (lambda d: os.truncate(d / "adapter_model.safetensors", 900), "damaged"),
    "missing weights": (lambda d: (d / "adapter_model.safetensors").unlink(), "adapter_model.safetensors"),
    "config is no JSON": (lambda d: (d / "adapter_config.json").write_text("{"), "damaged"),
    "config is a list": (lambda d: (d / "adapter_config.json").write_text("[]"), "damaged"),
    "base that is gone": (lambda d: (d / "adapter_config.json").write_text((d / "adapter_config.json").read_text(
        ).replace('"base_model_name_or_path": "', '"base_model_name_or_path": "/nowhere')), "base_model_name_or_path"),
    "base not named": (lambda d: (d / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "r": 2, "lora_alpha": 4}'), "base_model_name_or_path"),
    "an adapter of itself": (lambda d: (d / "adapter_config.json").write_text(
        json.dumps(dict(peft_type="LORA", r=2, lora_alpha=4, base_model_name_or_path=str(d)))), "adapter itself"),
}


@pytest.mark.parametrize("case", ADAPTER)
def test_damaged_adapters(case, adapter, tmp_path):
    damage, says = ADAPTER[case]
    damaged = shutil.copytree(adapter, tmp_path / "adapter")
    damage(damaged)
    fails("sample.py", damaged, "--prompt", "x", says=says)
    fails("checkpoint.py", "merge", damaged, "--out", tmp_path / "out", says=says, leaves=tmp_path / "out")


def test_merging_what_cannot_be_merged(trained, adapter, tmp_path):
    out = tmp_path / "out"
    fails("checkpoint.py", "merge", trained, "--out", out, says="no adapter", leaves=out)
    fails("checkpoint.py", "merge", tmp_path / "nowhere", "--out", out, says="nowhere", leaves=out)
    fails("checkpoint.py", "merge", adapter, "--out", trained, says="exists already")
    fails("checkpoint.py", "quantize", adapter.parent, "--out", out, says="no checkpoint", leaves=out)
    fails("checkpoint.py", "quantize", adapter, "--out", out, says="adapter", leaves=out)
    fails("train.py", "--plan", "--init", "nobody/nothing", says="nobody/nothing")
