"""The benchmarks run, tiny: what they write has its names, and their gates hold."""
import json

import pytest
from conftest import run

SHAPE = ["--n_layer", "1", "--n_head", "2", "--n_embd", "64", "--vocab_size", "300", "--seq_len", "16",
         "--micro_batch", "2", "--device", "cpu", "--dtype", "float32"]


def test_kernels(tmp_path):
    pytest.importorskip("bitsandbytes")
    run("bench/kernels.py", "--shapes", "192x64", "--rows", "1", "4", "--rounds", "1", "--device", "cpu", "--dtype",
        "float32", "--out", tmp_path / "out.json")
    result = json.loads((tmp_path / "out.json").read_text())
    assert [(r["what"], r["rows"]) for r in result["records"]] == [
        ("unpack", None), ("forward", 1), ("gradient of x", 1), ("forward", 4), ("gradient of x", 4)]
    for r in result["records"][1:]:
        assert set(r["microseconds"]) == {"tenk", "tenk gemv", "tenk fused", "tenk unpack", "vendor", "bitsandbytes"}
        assert r["microseconds"]["tenk gemv"] is None and r["speedup_over"]["vendor"] > 0
        assert max(e for name, e in r["error"].items() if name != "bitsandbytes") < 1e-6 and len(r["error"]) > 2
    assert result["differing_bytes"] == {"192x64": 0}
    assert "forward launched, forward in a CUDA graph" in result["not_measured"]
    assert result["goals"]["1 row over vendor, in a graph"] == dict(figure=None, limit=3.0, reached=None)


def test_a_wrong_product_ends_the_run():
    done = run("-c", """if True:
        import sys
        sys.path.insert(0, "bench")
        import torch
        from train import load_module
        y = torch.ones(2, 2)
        load_module("bench/kernels.py", "bench_kernels").check({"tenk": lambda: y}, 1.1 * y.double(), 1e-3, "192x64")
        """, check=False)
    assert done.returncode == 1 and "tenk is wrong: 192x64" in done.stderr


def test_qlora(tmp_path):
    pytest.importorskip("peft")
    pytest.importorskip("bitsandbytes")
    run("bench/qlora.py", *SHAPE, "--rank", "4", "--steps", "3", "--rounds", "1", "--memory", "0",
        "--out", tmp_path / "out.json")
    result = json.loads((tmp_path / "out.json").read_text())
    assert len(result["gates"]) == 11 and all(g["passed"] for g in result["gates"].values())
    assert result["gates"]["NF4 bytes that differ, share"]["figure"] == 0
    names = {"tenk LoRA", "PEFT LoRA", "tenk QLoRA", "PEFT QLoRA"}
    assert set(result["tokens_per_second"]) == set(result["adapter_bytes"]) == names
    assert set(result["trainable_parameters"].values()) == {4 * (4 * 64 + 2 * 64 + 5 * 64 + 5 * 64)}
    assert set(result["speedup"]) == {"LoRA", "QLoRA", "QLoRA over our LoRA"}
    assert result["goals"]["QLoRA memory over PEFT's"]["reached"] is None


def test_qlora_measures_memory_in_a_process_of_its_own(tmp_path):
    pytest.importorskip("peft")
    from model import GPT, GPTConfig

    GPT(GPTConfig(300, 16, 1, 2, 64)).save_pretrained(tmp_path)
    done = run("bench/qlora.py", *SHAPE, "--arm", "tenk QLoRA", "--folder", tmp_path)
    assert 0 < json.loads(done.stdout)["peak"] < 1e9


def test_prepare(tmp_path, filings):
    run("bench/prepare.py", *sorted(filings.iterdir())[:3], "--megabytes", "0.2", "--memory", "0.1", "--rounds", "1",
        "--workers", "1", "--tokenizer", "bpe:300", "--out", tmp_path / "out.json")
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["filings_to_text"]["mb_per_second"]["tenk"] > 0 and result["text_to_shards"]["mb"] > 0.1
    assert result["memory"][0]["peak_mb"] > 0
