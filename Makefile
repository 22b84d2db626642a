# Everything a person or CI does. Each target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# What `make lint` needs where psinas is not installed: no torch, no ray.
LINT := .venv-lint
LINTED := $(LINT)/.ready
LINTERS := ruff mypy pandas-stubs types-PyYAML numpy pydantic typer rich filelock matplotlib optuna jinja2
UNTYPED := --allow-subclassing-any --allow-untyped-decorators --no-warn-return-any \
	--no-warn-unused-ignores --ignore-missing-imports
WORKERS ?= auto

.PHONY: install search test test-all lint format docs bench clean

install: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps torchattacks
	touch $(READY)

$(LINTED): pyproject.toml constraints.txt
	test -x $(LINT)/bin/python || $(PYTHON) -m venv $(LINT)
	$(LINT)/bin/python -m pip install --quiet --constraint constraints.txt $(LINTERS)
	touch $(LINTED)

search: $(READY)  ## the default search, on data that ships with scikit-learn; again: goes on
	$(BIN)/psinas search digits --resume

test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m 'not slow'

test-all: $(READY)  ## with the slow ones, among them a comparison with adv-lib
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps adv-lib
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

lint:  ## with every type where psinas is installed, without torch's where it is not
	@if [ -f $(READY) ]; then $(MAKE) --no-print-directory checks TOOLS=$(BIN); \
	else $(MAKE) --no-print-directory $(LINTED) checks TOOLS=$(LINT)/bin TYPES='$(UNTYPED)'; fi

.PHONY: checks
checks:
	$(TOOLS)/ruff check .
	$(TOOLS)/ruff format --check .
	$(TOOLS)/mypy $(TYPES)

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)  ## the site in build/site; a warning is an error, and nothing is loaded from elsewhere
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # with --quiet it would hear of no warning
	@if grep -rnE '(src|srcset)="(https?:)?//|<link[^>]*href="(https?:)?//|url\((https?:)?//' build/site --include='*.html' --include='*.css'; \
	then echo 'build/site loads what lies elsewhere'; exit 1; fi

bench: $(READY)
	$(BIN)/python bench/overhead.py
	$(BIN)/python bench/attacks.py
	$(BIN)/python bench/susceptibility.py
	$(BIN)/python bench/stability.py
	$(BIN)/python bench/bounds.py
	$(BIN)/python bench/smallest.py
	$(BIN)/python bench/table_search.py
	$(BIN)/python bench/training.py --only imagenet
	$(BIN)/python bench/scale.py --trials 300

clean:
	rm -rf $(VENV) $(LINT) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
