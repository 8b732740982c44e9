# make demo    the whole road in about five minutes on a laptop: filings -> shards -> training -> report
# make test    the tests, under ten minutes on two cores            make test-slow   the few that take longer
# make lint    style                                                make clean       remove .venv and runs/demo
#
# The first of them creates .venv and installs into it; later ones find it there.

PYTHON ?= python3
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
RUN = .venv/bin/python

.PHONY: demo test test-slow lint clean
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
	$(RUN) eval.py runs/demo --baseline runs/demo/step-00000050 --data data/demo --max_bytes 400000 --out runs/demo/report
	@echo "Done. Open runs/demo/report/report.html; then: .venv/bin/python sample.py runs/demo --prompt 'Our business'"

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
