# Everything a person or CI does. Each target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: install search test test-all lint format bench clean

install: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps torchattacks
	touch $(READY)

search: $(READY)  ## the default search, on data that ships with scikit-learn; again: goes on
	$(BIN)/psinas search digits --resume

test: $(READY)
	$(BIN)/python -m pytest -m 'not slow'

test-all: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python bench/overhead.py
	$(BIN)/python bench/attacks.py
	$(BIN)/python bench/susceptibility.py
	$(BIN)/python bench/table_search.py

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
