# make demo    the whole road in about five minutes on a laptop: filings -> shards -> training -> report
# make test    the tests, under ten minutes on two cores            make test-slow   the few that take longer
# make sec124m USER_AGENT="Name name@example.com"    SEC filings -> 1.55 billion tokens -> GPT-2 124M -> report; with LIMIT=20
#              the same road with twenty filings and a small model. Stopped anywhere, the same command goes on.
# make lint    style                                                make clean       remove .venv and runs/demo
#
# The first of them creates .venv and installs into it; later ones find it there.

PYTHON ?= python3
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
RUN = .venv/bin/python

# sec124m: what to fetch, how to train; LIMIT makes everything small
YEARS ?= 2018-2024
FILINGS = data/sec$(if $(LIMIT),-$(LIMIT))-filings
DATA = data/sec$(if $(LIMIT),-$(LIMIT))
OUT = runs/sec$(if $(LIMIT),-$(LIMIT),124m)
RECIPE ?= recipes/$(if $(LIMIT),sec-small,sec-124m-4070).txt
TOKENIZER ?= $(if $(LIMIT),bpe:4096,gpt2)
BASELINE ?= $(if $(LIMIT),,gpt2)
GPUS ?= 1
TRAIN = $(if $(filter 1,$(GPUS)),$(RUN),.venv/bin/torchrun --standalone --nproc_per_node=$(GPUS))

.PHONY: demo sec124m test test-slow lint clean
.NOTPARALLEL:

demo: .venv/installed
	rm -rf data/demo-filings data/demo runs/demo
	@echo "== 1 of 5: write synthetic 10-K filings (no real company is in them)"
	$(RUN) prepare.py synth --out data/demo-filings --filings 150
	@echo "== 2 of 5: filings -> clean text -> tokens, with whole companies held out for validation"
	$(RUN) prepare.py corpus data/demo-filings --out data/demo --tokenizer bpe:2048 --val_fraction 0.1
	@echo "== 3 of 5: train a small GPT-2 on them"
	$(RUN) train.py @recipes/demo.txt
	@echo "== 4 of 5: the same prompts early and late in training"
	$(RUN) sample.py runs/demo/step-00000050 runs/demo --max_new_tokens 60
	@echo "== 5 of 5: score it on companies it has never seen"
	$(RUN) eval.py runs/demo --baseline runs/demo/step-00000050 --data data/demo --quick --out runs/demo/report
	@echo "Done. Open runs/demo/report/report.html; then: .venv/bin/python sample.py runs/demo --prompt 'Our business'"

sec124m: .venv/installed
	@test -n "$(USER_AGENT)" || { echo 'sec.gov asks who is downloading: make sec124m USER_AGENT="Name name@example.com"'; exit 2; }
	@echo "== 1 of 4: 10-K filings from SEC EDGAR"
	$(RUN) prepare.py edgar --out $(FILINGS) --user_agent "$(USER_AGENT)" --years $(YEARS) \
	    $(if $(LIMIT),--limit $(LIMIT)) $(if $(BASE_URL),--base_url $(BASE_URL))
	@echo "== 2 of 4: filings -> clean text -> tokens"
	$(RUN) prepare.py corpus $(FILINGS) --out $(DATA) --tokenizer $(TOKENIZER) --public_only
	@echo "== 3 of 4: train"
	$(TRAIN) train.py @$(RECIPE) --data $(DATA) --out $(OUT) --resume
	@echo "== 4 of 4: score it on companies and years it has never seen"
	$(RUN) eval.py $(OUT) $(if $(BASELINE),--baseline $(BASELINE)) --data $(DATA) --out $(OUT)/report
	@echo "Done. Open $(OUT)/report/report.html; $(DATA)/DATA.md says what the model has read."

test: .venv/installed-dev
	$(RUN) -m pytest -m "not slow"

test-slow: .venv/installed-dev
	$(RUN) -m pytest -m slow

lint: .venv/installed-dev
	$(RUN) -m ruff check .

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "tenk needs Python 3.10 or newer; name one with: make PYTHON=python3.12 ..."; exit 2; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv"; exit 2; }

.venv/installed: .venv/bin/python requirements.txt constraints.txt
	$(PIP) -r requirements.txt
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	@touch $@

clean:
	rm -rf .venv data/demo-filings data/demo runs/demo
