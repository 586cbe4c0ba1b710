# make demo    train, test and analyse a video; VIDEO=my.mp4 takes your own
# make test    lint, types, layers, tests
# make setup   the environment only
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test bench checkpoint clean
.DEFAULT_GOAL := demo

setup: .venv/.installed

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "found $$($(PYTHON) --version), expected Python 3.11 or newer: make PYTHON=python3.11 …"; exit 2; }
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/pip pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: .venv/.installed
	@$(BIN)/fergcn demo $(if $(VIDEO),--video "$(VIDEO)")

test: .venv/.installed-dev
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

bench: .venv/.installed
	$(BIN)/fergcn bench

# The checkpoint in the package, from nothing: about an hour on 2 cores; a stopped run goes on.
checkpoint: .venv/.installed-dev
	$(BIN)/fergcn render data/pretrain --config configs/backbone.toml
	$(BIN)/fergcn train rendered-apex data/pretrain -o runs/backbone --config configs/backbone.toml
	$(BIN)/fergcn train rendered data/pretrain -o runs/checkpoint --config configs/checkpoint.toml
	rm -rf src/fergcn/checkpoints/default
	mkdir -p src/fergcn/checkpoints
	cp -r runs/checkpoint/checkpoint src/fergcn/checkpoints/default

clean:
	rm -rf .venv runs results data
