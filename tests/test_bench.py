"""The benchmarks run, tiny: what they write has its names, and their gates hold."""
import importlib.util
import json

import pytest
from conftest import ROOT, run

SHAPE = ["--n_layer", "1", "--n_head", "2", "--n_embd", "64", "--vocab_size", "300", "--seq_len", "16",
         "--micro_batch", "2", "--device", "cpu", "--dtype", "float32"]


# what the benchmarks call of a checkout of nanoGPT, around our model
NANOGPT = """
import torch
from model import GPT as Ours, GPTConfig

class GPT(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.transformer, self.lm_head = Ours(config), torch.nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.transformer.wte.weight

    def forward(self, x, y):
        logits = self.lm_head(self.transformer.hidden(x))
        return logits, torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=-1)

    def configure_optimizers(self, weight_decay, lr, betas, device_type):
        sizes = [[p for p in self.parameters() if (p.dim() > 1) == matrix] for matrix in (True, False)]
        return torch.optim.AdamW([dict(params=sizes[0], weight_decay=weight_decay),
                                  dict(params=sizes[1], weight_decay=0.0)], lr=lr, betas=betas)

    def generate(self, x, max_new_tokens, **kwargs):
        return self.transformer.generate(x, max_new_tokens, **kwargs)
"""
GET_LR = """
raise SystemExit("only get_lr is wanted")

def get_lr(it):
    if it < warmup_iters:
        return learning_rate * (it + 1) / (warmup_iters + 1)
    share = (it - warmup_iters) / (lr_decay_iters - warmup_iters)
    return min_lr + 0.5 * (1 + math.cos(math.pi * share)) * (learning_rate - min_lr)
"""


@pytest.fixture
def nanogpt(tmp_path):
    (tmp_path / "nanoGPT").mkdir()
    (tmp_path / "nanoGPT" / "model.py").write_text(NANOGPT)
    (tmp_path / "nanoGPT" / "train.py").write_text(GET_LR)
    return tmp_path / "nanoGPT"


@pytest.fixture
def claims():
    spec = importlib.util.spec_from_file_location("bench_claims", ROOT / "bench" / "claims.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_train(tmp_path, nanogpt):
    pytest.importorskip("transformers")
    run("bench/train.py", *SHAPE, "--nanogpt", nanogpt, "--rounds", "2", "--out", tmp_path / "out.json")
    result = json.loads((tmp_path / "out.json").read_text())
    others = {"tenk muon", "nanoGPT", "transformers"}
    assert set(result["tokens_per_second"]) == others | {"tenk"} and result["not_measured"] == {}
    assert set(result["ratios"]) == set(result["speedup_over"]) == others and len(result["ratios"]["nanoGPT"]) == 2
    assert result["first_losses"] == pytest.approx(dict.fromkeys(others | {"tenk"}, 5.7), rel=0.02)
    assert result["goals"]["over nanoGPT"]["figure"] == result["speedup_over"]["nanoGPT"]
    assert min(result["limit"]["matmul_flop_per_second"], result["limit"]["copy_bytes_per_second"]) > 0


def test_no_step_is_timed_of_another_model(nanogpt):
    model = nanogpt / "model.py"
    model.write_text(model.read_text().replace(".hidden(x)", ".hidden(x.roll(1, 1))"))
    done = run("bench/train.py", *SHAPE, "--nanogpt", nanogpt, "--optimizer", "adamw", check=False)
    assert done.returncode == 1 and "nanoGPT is another model" in done.stderr and "round" not in done.stdout


def test_sample(tmp_path, nanogpt):
    pytest.importorskip("transformers")
    run("bench/sample.py", "--nanogpt", nanogpt, *SHAPE[:8], "--device", "cpu", "--dtype", "float32", "--batch",
        "1", "2", "--prompt_tokens", "4", "--new_tokens", "5", "--rounds", "2", "--out", tmp_path / "out.json")
    result = json.loads((tmp_path / "out.json").read_text())
    assert [r["batch"] for r in result["records"]] == [1, 2]
    for record in result["records"]:
        assert set(record["tokens_per_second"]) == {"tenk float32", "transformers float32", "nanoGPT float32"}
        ratios = record["over"]["nanoGPT float32"], record["like_for_like"]["float32"]
        assert [len(r["rounds"]) for r in ratios] == [2, 2]
    assert "batch 8 over transformers (cpu)" in result["not_measured"]


@pytest.mark.slow
def test_to_loss(tmp_path, nanogpt, corpus):
    command = ["bench/to_loss.py", corpus, "--work", tmp_path / "runs", "--tokens", "1024", "--seeds", "0", "--lrs",
               "1e-3", "--n_layer", "1", "--n_head", "2", "--n_embd", "32", "--seq_len", "64", "--batch_tokens", "256",
               "--our_batch_tokens", "128", "--eval_tokens", "1024", "--threads", "1", "--out", tmp_path / "out.json"]
    run(*command, "--nanogpt", nanogpt)
    result = json.loads((tmp_path / "out.json").read_text())
    assert all(g["passed"] for g in result["gates"].values()) and len(result["gates"]) == 2
    (seed,) = result["by_seed"]
    assert [t for t, _ in seed["curve"]] == [0, 128, 256, 384, 512] and seed["tokens"] == 1024
    assert seed["nanogpt_curve"][0] == pytest.approx(seed["curve"][0])  # the same weights
    assert seed["reached"] == (seed["difference"] <= 0)
    assert seed["seconds_ratio"] > 0 and result["best_lr"] == 1e-3
    assert "..." not in run(*command).stdout  # what is there is not trained again


@pytest.mark.slow
def test_spikes(tmp_path, corpus):
    """Of 501 steps the one but last is poisoned, and its loss shows it."""
    (tmp_path / "filing.htm").write_text("<ix:nonFraction name='us-gaap:Assets'>1</ix:nonFraction>" * 2000)
    run("bench/spikes.py", corpus, "--raw", tmp_path / "filing.htm", "--work", tmp_path / "runs", "--seeds", "0",
        "--tokens", 501 * 64, "--batch_tokens", "64", "--seq_len", "32", "--n_layer", "1", "--n_embd", "32",
        "--eval_tokens", "1024", "--out", tmp_path / "out.json")
    clean, poisoned = json.loads((tmp_path / "out.json").read_text())["runs"]
    assert [step for step, _ in clean["curve"]] == [0, 100, 200, 300, 400, 500, 501]
    assert not clean["poisoned"] and poisoned["poisoned"] and clean["curve"][:5] == poisoned["curve"][:5]
    assert clean["curve"][5] != poisoned["curve"][5] and poisoned["skipped"] == 0


@pytest.mark.slow
def test_curves(tmp_path, corpus):
    run("bench/curves.py", corpus, "--work", tmp_path / "runs", "--steps", "3", "--n_layer", "1", "--n_embd", "32",
        "--seq_len", "64", "--batch_tokens", "512", "--eval_tokens", "1024", "--out", tmp_path / "out.json", "--only",
        "activations made again in backward", "all logits at once, plain cross-entropy", "torch's attention", "nudged")
    result = json.loads((tmp_path / "out.json").read_text())
    recomputed, plain, attention, nudged = result["runs"].values()
    assert result["all_equal"] and recomputed["bit_equal"] and recomputed["largest_difference"] == 0
    assert result["noise"] > 0 and len(result["val_loss_of_seeds"]) == 3
    assert 0 < nudged["largest_difference"] < 0.01 and 0 < plain["largest_difference"] < 0.01
    assert attention["largest_difference"] < 0.01  # none at all in float32, where it is torch's anyway


def test_table_of_the_readme_is_that_of_the_results(claims):
    text = (ROOT / "README.md").read_text()
    again = claims.with_table(text, ROOT / "bench" / "results")
    assert again == text, "write it with: python bench/all.py --table"


def test_table(tmp_path, claims):
    rows = claims.table(tmp_path).split("\n\n")[0].splitlines()[2:]
    assert len(rows) == len(claims.ROWS) and all(row.endswith("| not measured | – | – |") for row in rows)
    machine = dict(date="2026-01-01", cpu="a CPU", gpu="A GPU", torch="2")
    (tmp_path / "train_a-gpu.json").write_text(json.dumps(dict(
        machine=machine, compile=True, mfu=0.5, flops_per_token=1e9, ratios=dict(nanoGPT=[1.3, 1.1, 1.2]))))
    (tmp_path / "to_loss_cpu.json").write_text(json.dumps(dict(machine=machine | dict(gpu=None), by_seed=[
        dict(share_at_which_passed=share, seconds_ratio=0.6) for share in (0.4, None, 0.45)])))
    table = claims.table(tmp_path)
    assert "MFU | ≥ 45 % | **50 %** | yes | A GPU, 2026-01-01 |" in table
    assert "| ≥ 1.25 × | **1.2 × (1.1 to 1.3)** | no |" in table
    assert "| ≤ 0.5 × | **0.45 × (0.4 to never)** | no | a CPU, 2026-01-01 |" in table
    assert "by arithmetic | – | **14.8 hours** |" in table


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_qlora_measures_memory_in_a_process_of_its_own(tmp_path):
    pytest.importorskip("peft")
    from model import GPT, GPTConfig

    GPT(GPTConfig(300, 16, 1, 2, 64)).save_pretrained(tmp_path)
    done = run("bench/qlora.py", *SHAPE, "--arm", "tenk QLoRA", "--folder", tmp_path)
    assert 0 < json.loads(done.stdout)["peak"] < 1e9


@pytest.mark.slow
def test_prepare(tmp_path, filings):
    run("bench/prepare.py", *sorted(filings.iterdir())[:3], "--megabytes", "0.2", "--memory", "0.1", "--rounds", "1",
        "--workers", "1", "--tokenizer", "bpe:300", "--out", tmp_path / "out.json")
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["filings_to_text"]["mb_per_second"]["tenk"] > 0 and result["text_to_shards"]["mb"] > 0.1
    assert result["memory"][0]["peak_mb"] > 0
