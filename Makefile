# Every target sets up what it needs: python3.11 (or newer), pip, make and git are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test torture bench bench-peers check format lint types imports site clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

# The first is what a service and its clients need, the second what the tests need besides.
$(STAMP): EXTRA = server
$(DEV_STAMP): EXTRA = dev
$(STAMP) $(DEV_STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Setting up $(VENV) for [$(EXTRA)] (first time only, about 15 s) ..." >&2
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv -q --allow-existing --python "$$(command -v $(PYTHON))" $(VENV) && \
	  uv pip install -q --python $(BIN)/python -e '.[$(EXTRA)]'; \
	else \
	  { $(PYTHON) -m venv $(VENV) 2>/dev/null || $(PYTHON) -m venv --clear --without-pip $(VENV); } && \
	  $(PYTHON) -m pip --disable-pip-version-check --python $(BIN)/python install -q -e '.[$(EXTRA)]'; \
	fi
	@touch $@

setup: $(STAMP) ## make the virtual environment

demo: $(STAMP) ## a guided tour on a private engine; ends by itself
	@$(BIN)/python -m deploy.demo

serve: $(STAMP) ## a service that keeps its data in .data
	@$(BIN)/indelible-server all --data .data

test: $(DEV_STAMP) ## every fast test, on a real engine
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not torture' tests

torture: $(DEV_STAMP) ## the tests that take minutes: kills, power cuts, long histories
	@$(BIN)/python -m pytest -m torture --timeout 1800 tests

bench: $(DEV_STAMP) ## floors and ours, side by side, many minutes; QUICK=1 for a short one
	@$(BIN)/python -m tests.benchmarks $(if $(QUICK),--quick)

bench-peers: $(DEV_STAMP) ## ours beside etcd, NATS and Durable Streams, where installed
	@$(BIN)/python -m tests.benchmarks --peers $(if $(QUICK),--quick)

check: format lint types imports test ## all that continuous integration does

format: $(DEV_STAMP)
	@$(BIN)/ruff format --check .

lint: $(DEV_STAMP)
	@$(BIN)/ruff check .

types: $(DEV_STAMP)
	@$(BIN)/mypy client/indelible_protocol client/indelible services/indelible_server tests deploy

imports: $(DEV_STAMP)
	@$(BIN)/lint-imports

site: $(DEV_STAMP) ## the documents as a web site, in .site
	@$(BIN)/python -m deploy.site

clean: ## remove everything that the other targets made
	rm -rf $(VENV) .demo .bench .site .mypy_cache .ruff_cache .pytest_cache .hypothesis
