# Everything that a newcomer or the CI runs. `make` alone lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory --no-builtin-rules

comma := ,
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/quickstart
WORKERS := 2

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.PHONY: help setup setup-dev discover notebooks test test-slow check lint types format docs report dist clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s  %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/.core ## Prepare .venv with the metadisco command
	@echo "Ready: $(BIN)/metadisco"

setup-dev: $(VENV)/.dev ## Prepare .venv with what tests and checks need too

discover: $(VENV)/.core ## Discover an objective (10 minutes, 2 cores) into runs/quickstart; again continues it
	$(BIN)/metadisco discover quickstart --out $(RUN) $(if $(wildcard $(RUN)),--resume)

notebooks: $(VENV)/.dev ## Execute the notebooks into build/notebooks (15 minutes, 2 cores)
	$(BIN)/python notebooks/execute.py

test: $(VENV)/.dev ## Run the tests
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadscope $(PYTEST_ARGS)

test-slow: $(VENV)/.dev ## Run the learning tests that take minutes each
	@JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(BIN)/python -m pytest -q -m slow --timeout 3600 $(PYTEST_ARGS)

check: lint types test ## Run style, types and tests

lint: $(VENV)/.dev ## Check style and format
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet || { echo "Not formatted as agreed: run 'make format'." >&2; exit 1; }

types: $(VENV)/.dev ## Check types
	@$(BIN)/mypy

format: $(VENV)/.dev ## Fix style and format
	@$(BIN)/ruff check --fix --quiet || true
	@$(BIN)/ruff format

docs: $(VENV)/.dev ## Build the documentation into site/; a broken link fails it
	@$(BIN)/zensical build --strict

report: $(VENV)/.dev ## Meta-train a little and put its report into build/report.html, as an example
	@mkdir -p build && rm -rf build/run
	@$(BIN)/metadisco discover smoke --out build/run
	@mv build/run/report.html build/report.html && rm -rf build/run

dist: $(VENV)/.dev ## Build the wheel and the source archive into dist/, and try the wheel in an empty environment
	@rm -rf dist build/try && mkdir -p build
	@$(BIN)/python -m build --outdir dist .
	@$(BIN)/python -m venv build/try
	@version=$$($(BIN)/python -c 'import sys; print(f"py{sys.version_info[0]}{sys.version_info[1]}")'); \
	build/try/bin/pip install --quiet dist/*.whl --constraint "constraints/$$version.txt"
	@cd build && try/bin/metadisco doctor && try/bin/metadisco list checkpoints && try/bin/metadisco evaluate quickstart --suite grid-tiny
	@rm -rf build/try

clean: ## Remove caches and build output; .venv and runs/ stay
	@rm -rf .cache .ruff_cache .pytest_cache build dist site *.egg-info
	@find metadisco tests benchmarks experiments notebooks -name __pycache__ -type d -prune -exec rm -rf {} +

# `python3` first, since it is the one that its owner has chosen. A name on the path is not enough: it must run, be of a
# supported version and be able to make an environment.
define find_python
for python in $${PYTHON:-python3 python3.13 python3.12 python3.11}; do \
  if "$$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; \
  then echo "$$python"; exit 0; fi; \
done; \
echo "metadisco needs Python 3.11, 3.12 or 3.13 with the venv module (Debian, Ubuntu: apt install python3-venv)." >&2; \
echo "None was found on the PATH. Name one with: make setup PYTHON=/path/to/python3" >&2; \
exit 1
endef

# $(1): what to install. The constraints are those of the environment's own Python. Bytecode is compiled afterwards, since
# pip would do it on one core.
define install
version=$$($(BIN)/python -c 'import sys; print("py%d%d" % sys.version_info[:2])'); \
echo "Installing $(1) into $(VENV) with constraints/$$version.txt (a minute or two the first time) ..."; \
$(BIN)/python -m pip install --quiet --no-compile --editable '$(1)' --constraint "constraints/$$version.txt"; \
$(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true
endef

# Also made again when its Python is gone.
$(BIN)/python:
	@python=$$($(find_python)); \
	echo "Creating $(VENV) with $$("$$python" --version) ..."; \
	"$$python" -m venv --clear $(VENV)

.PHONY: usable
usable: | $(BIN)/python
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(BIN)/python -m ensurepip >/dev/null \
	  || { echo "$(VENV) is broken: remove it and run make again." >&2; exit 1; }

$(VENV)/.core: pyproject.toml $(wildcard constraints/*.txt) | usable
	@$(call install,.)
	@touch $@

$(VENV)/.dev: pyproject.toml $(wildcard constraints/*.txt) | usable
	@$(call install,.[dev$(comma)docs])
	@touch $@ $(VENV)/.core
