"""The model card: a header that the hub reads, words that data can't break, a licence that agrees with the lineage."""
import json
import os

import huggingface_hub
import pytest
from test_cost import fake_report, make_run, took

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
    report = fake_report() | dict(cost=dict(rows=[dict(
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
                  "2.00 hours, 1,000 tokens/s, 9.10 GB at the peak, 0.60 kWh, 3.50 USD",
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


def test_what_others_wrote_stays(tmp_path, monkeypatch):
    run, step = checkpoint_with(tmp_path)
    (step / "README.md").write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    said = model_card.write_card(fake_report(), str(run), str(out))
    assert "MODEL_CARD.md; " in said and "written by somebody else" in said
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
