"""sample.py and eval.py on a tiny run."""
import html.parser
import json
import math
import shutil

import torch
from conftest import run

import checkpoint
import data
import sample


def test_streams_one_checkpoint_and_repeats_itself(trained):
    command = ("sample.py", trained, "--prompt", "Our business", "--max_new_tokens", 12, "--dtype", "float32")
    first = run(*command)
    assert first.stdout.startswith("Our business") and first.stdout == run(*command).stdout
    assert first.stdout != run(*command, "--seed", 1).stdout


def test_side_by_side(trained):
    out = run("sample.py", trained, trained / "step-00000005", "--prompt", "Revenue", "--max_new_tokens", 8).stdout
    assert "> Revenue" in out and " | " in out


def test_a_file_of_prompts_becomes_jsonl(trained, tmp_path):
    (tmp_path / "p.txt").write_text("Revenue\n\nItem 7. Management’s Discussion\n")
    (tmp_path / "p.jsonl").write_text('{"prompt": "Revenue"}\n{"text": "Costs\\nrose"}\n')
    for name, prompts in (("p.txt", ["Revenue", "Item 7. Management’s Discussion"]),
                          ("p.jsonl", ["Revenue", "Costs\nrose"])):
        run("sample.py", trained, "--prompts", tmp_path / name, "--out", tmp_path / "out.jsonl", "--max_new_tokens", 5)
        lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert [line["prompt"] for line in lines] == prompts and all(
            set(line) == {"checkpoint", "prompt", "text", "seed"} for line in lines)


def test_greedy_text_does_not_depend_on_the_batch(trained):
    model, tokenizer = sample.load(trained, "cpu", "float32")
    prompts = ["Revenue", "Our business is subject to many risks, and", "I"]
    together = sample.generate(model, tokenizer, prompts, 15, temperature=0)
    assert together == [sample.generate(model, tokenizer, [p], 15, temperature=0)[0] for p in prompts]


def test_a_stream_never_shows_half_a_character(trained):
    _, tokenizer = checkpoint.load(trained)
    shown = []
    stream = sample.Stream(tokenizer, shown.append)
    for token in tokenizer.encode("a’🙂b"):
        stream(torch.tensor([int(token)]))
    assert "".join(shown) == "a’🙂b" and all("\ufffd" not in s for s in shown)


class Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_report(trained, corpus, tmp_path):
    mine = tmp_path / "run"  # it gets a model card
    shutil.copytree(trained, mine, symlinks=True)
    prompt = "<script>alert(1)</script>"
    shared = ["eval.py", mine, "--baseline", mine / "step-00000005", "--baseline", "no-such/model",
              "--data", corpus, "--prompt", prompt, "--max_new_tokens", 5]
    done = run(*shared, "--out", tmp_path / "report", "--workers", 1)
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    ours, early, unigram, xz = report["models"]
    assert ours["bits_per_byte"] < early["bits_per_byte"] and early["difference"] > 0 and xz["bits_per_byte"] > 0.5
    for m in report["models"]:
        assert m["interval_95"][0] <= m["bits_per_byte"] <= m["interval_95"][1]
    assert ours["sha256"] == data.file_sha256(trained / "model.safetensors") and ours["tokens_trained"] == 5120
    assert abs(ours["perplexity"] - math.exp(ours["loss"])) < 1e-6
    d = data.TokenData(str(corpus))
    scored = [len(d.tokenizer.decode(t).encode()) for a, t in d.read_documents("val")
              if a["id"] in report["document_ids"]]
    assert report["bytes"] == sum(scored)
    # what can't be had is named, and the rest is whole
    assert "hub" in report["missing"]["no-such/model"] and "questions" in report["missing"]
    assert report["writing"]["measures"] and report["sections"]["rows"] and "tasks" not in report
    assert "lower loss per token" in report["headline"] and report["verdict"] and report["cost"]["rows"]
    page = (tmp_path / "report" / "report.html").read_text()
    tags = Tags(page).tags
    assert not [t for t, _ in tags if t in ("script", "link")] and "&lt;script&gt;" in page
    assert all(a["src"].startswith("data:") for t, a in tags if t == "img") and "report.html" in done.stdout
    assert (mine / "README.md").read_text().startswith("---\n")
    # the same bytes in another place, by another number of workers; then from what was kept, with one part more
    run(*shared, "--out", tmp_path / "again", "--workers", 2)
    assert (tmp_path / "again" / "report.json").read_bytes() == (tmp_path / "report" / "report.json").read_bytes()
    run(*shared, "--out", tmp_path / "again", "--only", "loss,embeddings")
    assert json.loads((tmp_path / "again" / "report.json").read_text())["loss"] == report["loss"]


def test_report_asks_for_known_parts_and_something_held_out(trained, corpus, tmp_path):
    shared = ["eval.py", trained, "--data", corpus, "--out", tmp_path / "report"]
    done = run(*shared, "--only", "loss,lass", check=False)
    assert done.returncode == 2 and "called lass" in done.stderr and "writing" in done.stderr
    done = run(*shared, "--task", tmp_path / "nowhere", check=False)
    assert done.returncode == 2 and "nowhere" in done.stderr and not (tmp_path / "report").exists()
