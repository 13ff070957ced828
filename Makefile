# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-extras lint format clean

demo: $(VENV)/installed  ## search, train, export and evaluate on bundled photographs
	$(BIN)/hwnas run --target cpu --budget 5GBitOps --preset tiny --out demo

test: $(VENV)/installed  ## the fast tests, in random order
	$(BIN)/python -m pytest -q -n 2

test-slow: $(VENV)/installed  ## the tests that take minutes
	$(BIN)/python -m pytest -q -m slow

test-extras: $(VENV)/installed  ## the tests of the runtimes that are extras, which `make test` skips: installs 1.5 GB more
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[npu,qnn]'
	$(BIN)/python -m pytest -q -n 2 tests/exporters tests/devices tests/cli/test_cli_export.py

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch first and pinned: anything that depends on it would otherwise bring a build with CUDA.
$(VENV)/installed: pyproject.toml constraints.txt
	@echo "installing into $(VENV): torch and what else is needed, some 2 GB; minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo
