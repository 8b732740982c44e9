"""The model card: a header that the hub reads, words that data can't break, a licence that agrees with the lineage."""
import json
import os

import huggingface_hub
import pytest
from test_cost import make_run, took
from test_verdict import fake_report

import checkpoint
import licence
import model_card
import verdict

VERDICTS = {
    "MIT": ("mit", True, True), "Apache-2.0": ("apache-2.0", True, True),
    "CC BY-NC-SA 3.0": ("cc-by-nc-sa-3.0", False, True),
    "CC BY 4.0": ("cc-by-4.0", True, True), "not stated": ("other", None, None), "public domain": ("other", True, True),
    "MIT, CC BY-NC-SA 3.0": ("other", False, True), "MIT, not stated": ("other", None, None),
    "CC BY-ND 4.0": ("cc-by-nd-4.0", True, False), "MIT or GPL-3.0": ("other", True, True),
    "all rights reserved": ("other", False, False), 'odd: "licence" # [x]\\': ("other", None, None)}


def checkpoint_with(tmp_path, licences=("MIT",), base=None, name="run", **args):
    """A run directory with one checkpoint, trained on data of these licences; (run, its step)."""
    data = tmp_path / "corpus of mine"
    data.mkdir(exist_ok=True)
    manifest = dict(kind="lm", licence=", ".join(licences), sources=[dict(licence=", ".join(licences))],
                    split_policy="whole companies_and *years*", pii=dict(deidentify=False, mode="mask"),
                    splits=dict(train=dict(documents=89, companies=63, tokens=4_385_609, shards=[])))
    (data / "manifest.json").write_text(json.dumps(manifest))
    run = make_run(tmp_path / name, cost=took(7200.0, machines=["NVIDIA <b>Test</b>", "NVIDIA Other"]), base=base,
                   data=str(data), lr=6e-4, min_lr=0.0, steps=20, **args)
    step = run / "step-00000020"
    licence.write(step, licence.lineage("model", base, None, {str(data): manifest}))
    os.symlink("step-00000020", run / "latest")
    return run, step


def header_of(text):
    return huggingface_hub.ModelCard(text, ignore_metadata_errors=False).data


def test_the_hub_reads_the_header_and_its_figures(tmp_path):
    run, step = checkpoint_with(tmp_path)
    report = fake_report() | dict(cost=dict(price_per_hour=1.75, rows=[dict(
        name="sec", kind="from scratch", device="NVIDIA <b>Test</b>", devices=1, hours=2.0, hours_estimated=False,
        tokens_per_second=1000.0, money=3.5, peak_memory_gb=9.1, kilowatt_hours=0.6)]))
    report |= dict(headline=verdict.headline(report), verdict=verdict.verdict(report))
    text = model_card.model_card(report, str(step))
    found = header_of(text)
    assert (found.license, found.language, found.library_name) == ("mit", "en", "transformers")
    assert found.pipeline_tag == "text-generation" and "gpt2" in found.tags and found.model_name == "sec"
    values = {(r.metric_name, r.metric_value) for r in found.eval_results}
    assert {("bits/byte", 1.0), ("nats/token", 3.2), ("accuracy of a probe, 1A-7", 0.9)} <= values
    assert all(r.dataset_name == "data/sec" and r.task_type == "text-generation" for r in found.eval_results)
    for words in ("73 % lower perplexity", "89 documents of 63 companies, 4,385,609 tokens", "| lr | 0.0006 |",
                  "2.00 hours, 1,000 tokens/s, 9.10 GB at the peak, 0.60 kWh, 3.50 at a price of 1.75 per device hour",
                  "| bits/byte | gpt2 | 1.3 | 1.2 to 1.4 |",
                  "6.0% of the sentences that it wrote stand word for word", "were replaced: [EMAIL]",
                  "--lr 0.0006 --min_lr 0.0", "--steps 20 --out OUT", "--data 'corpus of mine'",
                  "python eval.py OUT --data data/sec", "Commercial use is allowed, redistribution allowed"):
        assert words in text, words
    assert str(tmp_path) not in text and "<b>" not in text and "*years*" not in text
    without = model_card.model_card(fake_report(), str(step))
    assert "On NVIDIA \\<b\\>Test\\</b\\>, then NVIDIA Other." in without
    os.remove(step / "train_state.json")
    assert "On hardware that its checkpoint does not name." in model_card.model_card(fake_report(), str(step))


@pytest.mark.parametrize("name", VERDICTS)
def test_the_header_and_the_lineage_agree_on_the_licence(name, tmp_path):
    hub, commercial, redistribution = VERDICTS[name]
    run, step = checkpoint_with(tmp_path, [name])
    stated = licence.terms(licence.read(str(step))["verdict"]["name"])
    assert (stated.commercial, stated.redistribution) == (commercial, redistribution)
    (step / "README.md").write_text(model_card.model_card(fake_report(), str(step)))
    os.remove(step / "lineage.json")  # now only the header speaks
    assert header_of((step / "README.md").read_text()).license == hub
    read_back = licence.terms(licence.of_model(str(step)))
    assert (read_back.commercial, read_back.redistribution) == (commercial, redistribution)
    again = model_card.model_card(fake_report(), str(step))  # a card made of a card is the same
    assert header_of(again).license == hub


def test_an_unknown_licence_is_never_a_free_one(tmp_path):
    (tmp_path / "model").mkdir()
    text = model_card.model_card({}, str(tmp_path / "model"))
    assert header_of(text).license == "other" and header_of(text).license_name
    assert licence.terms(header_of(text).license_name).commercial is None
    assert "not known to be allowed" in text


def test_bases(tmp_path):
    for base, expected in (("openai-community/gpt2", "openai-community/gpt2"), ("gpt2", "gpt2"),
                           (str(tmp_path / "elsewhere"), None), ("runs/../x: y", None)):
        run, step = checkpoint_with(tmp_path, base=base, name=f"run{abs(hash(base))}", init=base)
        text = model_card.model_card(fake_report(), str(step))
        assert header_of(text).base_model == expected and str(tmp_path) not in text
        assert "made from" in text and header_of(text).license == "other"  # nobody knows the base's licence


def test_an_adapter_says_how_peft_loads_it(tmp_path):
    run, step = checkpoint_with(tmp_path, base="gpt2", init="gpt2", lora_rank=8)
    (step / "adapter_config.json").write_text(json.dumps(dict(base_model_name_or_path="gpt2")))
    text = model_card.model_card(fake_report(), str(step))
    found = header_of(text)
    assert found.library_name == "peft" and found.base_model == "gpt2" and "lora" in found.tags
    assert "AutoPeftModelForCausalLM" in text and "--lora_rank 8" in text and "--n_layer" not in text


@pytest.mark.parametrize("name", ['a "b" c', "x: y", "# no", "- 1", "{a}", "é\u2028\x7f\ud800", "yes", "|x|", "\n---\n",
                                  "*bold* <script>", "a\\b", "'"])
def test_names_can_not_break_the_card(name, tmp_path):
    run, step = checkpoint_with(tmp_path)
    report = json.loads(json.dumps(fake_report()).replace('"sec"', json.dumps(name)))
    report["data"] = name
    report["verdict"] = [dict(claim=f"writes like {name}", holds=True, figure="1", threshold="", part="loss", why=None)]
    model_card.replace(str(step / "README.md"), model_card.model_card(report, str(step)))
    text = (step / "README.md").read_text(encoding="utf-8")
    assert header_of(text).license == "mit" and len(header_of(text).eval_results) >= 3
    body = text.split("\n---\n", 1)[1]
    assert body.count("```") == 4 and "\n# " in body and "\n---\n" not in body
    assert "<script>" not in "".join(body.split("```")[::2])
    assert licence.terms(licence.of_model(str(step))).name == "MIT"


def test_the_card_lies_in_the_checkpoint_and_is_seen_from_the_run(tmp_path):
    run, step = checkpoint_with(tmp_path)
    said = model_card.write_card(fake_report(), str(run), str(tmp_path))
    assert said == f"the model card: {step}/README.md" and not (tmp_path / "MODEL_CARD.md").exists()
    assert os.readlink(run / "README.md") == "latest/README.md" and (run / "README.md").read_text().startswith("---\n")
    first = (step / "README.md").read_bytes()
    model_card.write_card(fake_report(), str(run), str(tmp_path))  # ours is written anew, to the same bytes
    assert (step / "README.md").read_bytes() == first and sorted(os.listdir(tmp_path)) == ["corpus of mine", "run"]


def test_a_card_of_an_older_step_is_not_shown_for_a_newer_one(tmp_path):
    run, step = checkpoint_with(tmp_path)
    model_card.write_card(fake_report(), str(run), str(tmp_path))
    (run / "step-00000030").mkdir()
    checkpoint.point_to(str(run), 30)
    assert not os.path.lexists(run / "README.md") and (step / "README.md").exists()
    (run / "README.md").write_text("mine")
    for newest in (20, 30):
        checkpoint.point_to(str(run), newest)
        assert (run / "README.md").read_text() == "mine"


def test_claims_that_did_not_hold_and_untold_ones_are_no_use(tmp_path):
    run, step = checkpoint_with(tmp_path)
    report = fake_report()
    report["models"][1]["difference_interval_95"] = [-0.4, -0.2]
    report["embeddings"]["rows"]["BM25"]["recall@1"] = 0.5
    text = model_card.model_card(report | dict(verdict=verdict.verdict(report)), str(step))
    parts = {p.split("\n")[0]: p for p in text.split("\n## ")}
    assert [*parts][2:6] == ["Intended use", "Claims that held", "Claims that did not hold", "What can't be told"]
    assert "- continues filings better than gpt2: " in parts["Claims that did not hold"]
    assert "- finds related passages better than BM25: " in parts["What can't be told"]
    assert "not told apart" in parts["What can't be told"] and "- its percentages" in parts["Claims that held"]
    use = parts["Intended use"]
    assert "Out of scope: advice" in use and "base for fine-tuning" in use and "filings better" not in use
    assert use == {p.split("\n")[0]: p for p in model_card.model_card({}, str(step)).split("\n## ")}["Intended use"]


def test_the_layout_s_zero_biases_are_not_counted(tmp_path):
    run, step = checkpoint_with(tmp_path)
    for config, said in (({}, False), (dict(bias=True), False), (dict(bias=False), True)):
        (step / "config.json").write_text(json.dumps(config))
        assert ("zero biases" in model_card.model_card(fake_report(), str(step))) is said


def test_the_command_to_make_it_again_is_whole(tmp_path):
    run, step = checkpoint_with(tmp_path)
    settings = dict(checkpoint=str(run), data="data/sec", baseline=["gpt2", str(tmp_path / "other run")], quick=False,
                    task=["data/fpb"], tuned=["runs/a", "runs/b"], questions=["q.jsonl"], accept_licence=[], price=None,
                    max_bytes=4_000_000, max_examples=None, prompt=None, max_new_tokens=100, temperature=0.8, seed=0,
                    dtype="float32")
    report = fake_report() | dict(settings=settings)
    last = model_card.model_card(report, str(step)).splitlines()[-2]
    assert last == ("python eval.py OUT --data data/sec --baseline gpt2 --baseline 'other run' --task data/fpb --tuned "
                    "runs/a --tuned runs/b --questions q.jsonl --out OUT/report")
    settings |= dict(quick=True, price=0.0, max_bytes=9, max_examples=5, prompt=["We ", "It's"], max_new_tokens=7,
                     temperature=0.0, seed=1, dtype="bfloat16", baseline=[], task=[], tuned=[], questions=[],
                     accept_licence=["all"])
    report["missing"] = dict.fromkeys(("probe", "tasks", "questions"), f"{verdict.UNASKED}: --only named others")
    last = model_card.model_card(report, str(step)).splitlines()[-2]
    assert last == ("python eval.py OUT --data data/sec --quick --accept_licence all --price 0.0 --max_bytes 9 "
                    "--max_examples 5 --prompt 'We ' --prompt 'It'\"'\"'s' --max_new_tokens 7 --temperature 0.0 --seed "
                    "1 --dtype bfloat16 --only loss,writing,embeddings,sections --out OUT/report")


def test_a_quick_or_partial_report_does_not_replace_a_card(tmp_path):
    run, step = checkpoint_with(tmp_path)
    out, quick, partial = tmp_path / "out", fake_report() | dict(quick=True), fake_report()
    out.mkdir()
    del partial["loss"], partial["writing"]
    said = model_card.write_card(partial, str(run), str(out))  # no card there, but no loss in the report either
    assert said == f"a partial report, without loss and writing: the card went to {out}/MODEL_CARD.md"
    assert not (step / "README.md").exists() and "from a partial report" in (out / "MODEL_CARD.md").read_text()
    assert model_card.write_card(quick, str(run), str(out)) == f"the model card: {step}/README.md"  # better than none
    body = (step / "README.md").read_text().split("\n# sec\n\n")[1]
    assert body.startswith("This card is from a quick report: ")
    model_card.write_card(fake_report(), str(run), str(out))
    whole = (step / "README.md").read_text()
    assert "This card is from" not in whole
    for report in (quick, partial):
        assert f"the card went to {out}/MODEL_CARD.md" in model_card.write_card(report, str(run), str(out))
        assert (step / "README.md").read_text() == whole
    assert "from a partial report, without loss and writing: " in (out / "MODEL_CARD.md").read_text()


def test_what_others_wrote_stays(tmp_path, monkeypatch):
    run, step = checkpoint_with(tmp_path)
    (step / "README.md").write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    said = model_card.write_card(fake_report(), str(run), str(out))
    assert said.endswith(f"written by somebody else: the card went to {out}/MODEL_CARD.md")
    assert (step / "README.md").read_text() == "mine" and (out / "MODEL_CARD.md").read_text().startswith("---\n")
    assert not (run / "README.md").exists()
    (run / "README.md").write_text("of the run")  # a file of theirs in the run directory is no link of ours
    os.remove(step / "README.md")
    model_card.write_card(fake_report(), str(run), str(out))
    assert (run / "README.md").read_text() == "of the run" and model_card.OURS in (step / "README.md").read_text()


def test_where_nothing_can_be_written_the_card_goes_to_the_report(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    assert "no directory" in model_card.write_card(fake_report(), "gpt2", str(out))
    cache = tmp_path / "models--gpt2" / "snapshots" / "abc"
    cache.mkdir(parents=True)
    assert "cache of the hub" in model_card.write_card(fake_report(), str(cache), str(out)) and not os.listdir(cache)
    run, step = checkpoint_with(tmp_path)
    real = model_card.replace

    def refuse(path, text):
        if path.startswith(str(step)):
            raise PermissionError(13, "Permission denied", path)
        real(path, text)

    monkeypatch.setattr(model_card, "replace", refuse)
    assert "can't be written (Permission denied)" in model_card.write_card(fake_report(), str(run), str(out))
    assert (out / "MODEL_CARD.md").exists()
