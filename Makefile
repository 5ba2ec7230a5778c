# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-all lint gpu clean

demo: $(STAMP)
	$(BIN)/sepcbench run quick --results runs/results

test: $(STAMP) lint
	$(BIN)/python -m pytest -n 2

test-all: $(STAMP) lint
	$(BIN)/python -m pytest -n 2 -m "not gpu"

lint: $(STAMP)
	$(BIN)/ruff check sepcbench tests
	$(BIN)/ruff format --check sepcbench tests
	$(BIN)/mypy
	$(BIN)/lint-imports

# Every test and every suite that needs a GPU, in one go: correctness first, then latency.
# In parts: make gpu STEPS="--seconds 560 tests trust"
gpu: $(STAMP)
	PYTHON=$(BIN)/python ./gpu.sh $(STEPS)

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sepcbench needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
