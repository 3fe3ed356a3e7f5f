# Each target makes the virtual environment that it needs; make and python3-venv are enough.
#   make demo                    a whole fleet on this machine, with the embedded broker
#   make demo ARGS="--seconds 45 --report demo.report.json"
#   make demo ARGS="--broker mosquitto"     on the real one (sudo apt-get install mosquitto)
#   make test [ARGS="-k admission"]
#   make check | bench | clean

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test check bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.has-demo
	$(BIN)/fieldfleet demo $(ARGS)

test: $(VENV)/.has-dev
	$(BIN)/python -m pytest -n 4 --dist worksteal --durations=15 -rs $(ARGS) # tests wait half of their time

check: $(VENV)/.has-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.has-dev
	$(BIN)/python -m tests.benchmarks $(ARGS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "expected Python 3.11 or newer, got `$(PYTHON) --version`; give PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.has-demo: pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[agent,bridge,server]'
	@touch $@

$(VENV)/.has-dev: pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.has-demo
