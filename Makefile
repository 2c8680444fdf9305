# Playhead. `make` lists the targets. Nothing is needed but Python 3.11+ with venv, and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo dev test check format bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (PYTHON=... to name one)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $(STAMP)

setup: $(STAMP) ## make .venv with everything, Postgres and nats-server included

demo: $(STAMP) ## start a stack, run examples/hello_world.yaml live, print its result, stop the stack
	@$(BIN)/playhead demo examples/hello_world.yaml

dev: $(STAMP) ## the stack in the foreground until Ctrl-C
	@exec $(BIN)/playhead dev

check: $(STAMP) ## linters, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: check ## check, then every test
	$(BIN)/pytest

format: $(STAMP) ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## measure; results and targets are in bench/README.md
	$(BIN)/python -m bench.run

clean: ## remove .playhead (data!), caches; keeps .venv
	@find .playhead -name cluster-is-elsewhere.txt 2>/dev/null | while read -r note; do rm -rf "$$(tail -n 1 "$$note")"; done
	rm -rf .playhead .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
