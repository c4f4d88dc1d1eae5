# Each target makes its own environment in .venv on the first run, and again when setup.py changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench model-check runtime

help:
	@echo "make demo   the main job on a small synthetic corpus, under 15 minutes on 2 cores"
	@echo "make demo PHRASES=1   pass-phrases: the same speaker saying the same phrase, under 10 minutes"
	@echo "make test   lint and all tests, with the examples of the documentation"
	@echo "make lint   ruff, and the import contract of docs/architecture.md"
	@echo "make runtime  the wheel bccmt-runtime, which needs no PyTorch, in dist/"
	@echo "make bench  preparation, sizes and skeletons: prints a table each and writes JSON under results/"
	@echo "make model-check  the figures of the shipped model, on what speech there is in SPEECH_DATA"
	@echo "            (benchmarks/speechocean762.py is run by hand: needs SPEECH_DATA and an hour or more)"
	@echo "PYTHON=python3.12 chooses the interpreter (3.10 to 3.13)."

demo: $(READY)
	$(BIN)/python recipes/Demo/$(if $(PHRASES),run_phrase_demo,run_demo).py

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache

model-check: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/model_card.py --check

runtime: $(READY)
	rm -rf runtime/build  # or what is gone from the source would still be packed
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist ./runtime
	rm -rf runtime/build bccmt_runtime.egg-info

bench: $(READY)
	@set -e; for name in preparation sizes skeleton; do echo "== $$name"; $(BIN)/python benchmarks/$$name.py; done

$(READY): setup.py
	@$(PYTHON) -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))" || { \
		echo "Python 3.10 to 3.13 is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | head -n 1). Name another:" \
		"make PYTHON=python3.12 $(or $(MAKECMDGOALS),test)" >&2; exit 1; }
	@echo "Installing into $(VENV): some 2.5 GB on the first run, because torch brings its GPU libraries."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[demo,test]"
	@touch $(READY)
