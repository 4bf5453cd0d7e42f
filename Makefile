# Each target makes .venv by itself, from the hashed lock, the first time and whenever the lock changes.
#   PYTHON=python3.12   the interpreter to make it with (3.11 or newer)
#   ARGS="..."          handed on to what the target runs: make test ARGS="-k receipts"

PYTHON ?= python3
BIN := .venv/bin

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint fix docs prices schema bench bench-ledger bench-arbitrage bench-loop bench-peers soak lock clean

# Another checkout on the path would be tested in place of this one.
unexport PYTHONPATH
unexport PYTHONHOME

help: ## say what there is
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: ## make .venv from the lock, where it is not whole already
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON). Name a Python 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is $$($(PYTHON) --version 2>&1), and Upstack needs 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) tools/environment.py

demo: setup ## run the main job; TRAFFIC=FILE on recorded answers, PRICES=FILE with a price list of your own
	@$(BIN)/upstack demo $(if $(TRAFFIC),--traffic "$(TRAFFIC)") $(if $(PRICES),--prices "$(PRICES)") $(ARGS)

test: setup ## run the tests; those on recorded data need UPSTACK_DATA, the folder it lies in
	@$(BIN)/python -m pytest $(ARGS)

LINTERS := "ruff check" "ruff format --check" "mypy src tests benchmarks tools" "lint-imports --no-logo" \
	"python tools/line_budget.py" "python tools/dependencies.py" "python tools/generate_docs.py --check" \
	"python tools/compile_prices.py --check" "python tools/write_schema.py --check"

lint: setup ## style, types, architecture, line budget, locks, generated docs, prices
	@failed=; for linter in $(LINTERS); do $(BIN)/$$linter || failed+=" [$$linter]"; done; \
	if [[ -n $$failed ]]; then echo "Failed:$$failed" >&2; exit 1; fi

fix: setup ## mend what ruff can mend, and format
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

docs: setup ## write docs/reference from the code
	@$(BIN)/python tools/generate_docs.py

prices: setup ## write the price list from the genai-prices that is locked
	@$(BIN)/python tools/compile_prices.py

schema: setup ## write the short way to a new ledger from its migrations
	@$(BIN)/python tools/write_schema.py

bench: setup ## CPU a request against nginx, and against the peers that are installed; ARGS=--no-peers without
	@$(BIN)/python -m benchmarks.data_plane $(ARGS)

bench-ledger: setup ## commits, a million receipts, requests beside retention; some minutes, 2 GB of disk
	@$(BIN)/python -m benchmarks.ledger $(ARGS)

bench-arbitrage: setup ## what certified routing saves on recorded answers (UPSTACK_DATA); a quarter of an hour
	@$(BIN)/python -m benchmarks.arbitrage $(ARGS)

bench-loop: setup ## what the closed loop saves on recorded answers (UPSTACK_DATA); ARGS="--encoder FOLDER --seeds 5"
	@$(BIN)/python -m benchmarks.loop $(ARGS)

bench-peers: setup ## install LiteLLM's proxy and Portkey, each in an environment of its own under .peers/
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .peers/litellm
	@$(BIN)/uv pip install --quiet --python .peers/litellm 'litellm[proxy]'
	@if command -v npm >/dev/null; then npm install --silent --no-fund --no-audit --prefix .peers/portkey @portkey-ai/gateway; \
		else echo "Portkey needs npm: sudo apt-get install -y npm" >&2; fi

soak: setup ## the long tests, about half an hour: hundreds of kills, ten thousand failures of each kind
	@$(BIN)/python -m pytest -m soak --timeout 3600 $(ARGS)

lock: setup ## write the locks anew from pyproject.toml, pins kept; ARGS=--upgrade for the newest
	@$(BIN)/python tools/dependencies.py --lock $(ARGS)

clean: ## remove all that was made here, the ledger excepted
	rm -rf .venv .venv-* .peers .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
