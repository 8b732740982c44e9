"""Small data and runs that several tests share. Everything is generated here; nothing is downloaded."""
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
# two threads and no network for every process that a test starts
os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false",
               "MPLCONFIGDIR": "/tmp/tenk-matplotlib"}


def run(*command, check=True, env=None, cwd=ROOT, **kwargs):
    """python COMMAND as a user would run it; returns the finished process with text output."""
    done = subprocess.run([sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=600,
                          env=os.environ | (env or {}), **kwargs)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n"
                             f"{done.stdout}\n{done.stderr}")
    return done


@pytest.fixture(scope="session")
def filings(tmp_path_factory):
    """24 synthetic filings."""
    import synth

    folder = tmp_path_factory.mktemp("filings")
    synth.write_filings(str(folder), n=24, seed=1)
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory, filings):
    """A data directory made from them, with a vocabulary of 512."""
    out = tmp_path_factory.mktemp("data") / "lm"
    run("prepare.py", "corpus", filings, "--out", out,
        "--tokenizer", "bpe:512", "--val_fraction", "0.2", "--workers", "2")
    return out


TINY = ["--n_layer", "2", "--n_head", "2", "--n_embd", "32",
        "--seq_len", "64", "--batch_tokens", "512", "--micro_batch", "4",
        "--log_every", "1", "--eval_every", "5", "--save_every", "5", "--eval_tokens", "2048"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory, corpus):
    """A tiny run of ten steps."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    run("train.py", "--data", corpus, "--out", out, "--steps", "10", "--lr", "0.01", *TINY)
    return out
