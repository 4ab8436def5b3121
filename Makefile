# make run    set up, run both phases on the embedded village, print where the report is
# make test   set up and pass the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
DEV_STAMP := $(VENV)/.set-up-dev
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
ARGS ?=

.PHONY: setup setup-dev run test check clean
setup: $(STAMP)
setup-dev: $(DEV_STAMP)

# pip finds wheels by its own configuration; without one, PyPI gives the same versions
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) .
	$(BIN)/python -m compileall -q src
	touch $@

$(DEV_STAMP): $(STAMP)
	$(INSTALL) '.[dev]'
	touch $@

run: setup
	$(BIN)/charter run $(ARGS)

check: setup-dev
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy

test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
