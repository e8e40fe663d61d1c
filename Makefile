# Every target sets up what it needs: python3.11 (or newer), pip, make and git are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test torture check format lint types imports site clean

help: ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Setting up $(VENV) (first time only, about 15 s) ..." >&2
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv -q --allow-existing --python "$$(command -v $(PYTHON))" $(VENV) && \
	  uv pip install -q --python $(BIN)/python -e '.[dev]'; \
	else \
	  { $(PYTHON) -m venv $(VENV) 2>/dev/null || $(PYTHON) -m venv --clear --without-pip $(VENV); } && \
	  $(PYTHON) -m pip --disable-pip-version-check --python $(BIN)/python install -q -e '.[dev]'; \
	fi
	@touch $@

setup: $(STAMP) ## make the virtual environment

demo: $(STAMP) ## a guided tour on a private engine; ends by itself
	@$(BIN)/python -m deploy.demo

serve: $(STAMP) ## a service that keeps its data in .data
	@$(BIN)/indelible-server all --data .data

test: $(STAMP) ## every fast test, on a real engine
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not torture' tests

torture: $(STAMP) ## the tests that take minutes: kills, power cuts, long histories
	@$(BIN)/python -m pytest -m torture --timeout 1800 tests

check: format lint types imports test ## all that continuous integration does

format: $(STAMP)
	@$(BIN)/ruff format --check .

lint: $(STAMP)
	@$(BIN)/ruff check .

types: $(STAMP)
	@$(BIN)/mypy client/indelible_protocol client/indelible services/indelible_server tests deploy

imports: $(STAMP)
	@$(BIN)/lint-imports

site: $(STAMP) ## the documents as a web site, in .site
	@$(BIN)/python -m deploy.site

clean: ## remove everything that the other targets made
	rm -rf $(VENV) .demo .site .mypy_cache .ruff_cache .pytest_cache .hypothesis
