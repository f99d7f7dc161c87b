# The two commands that a user needs; each makes .venv first, if it is not there:
#   make train MODEL=alpha [DATASET=names] [ARGS="--epochs 1"]
#   make test

PYTHON ?= python3
MODEL ?= alpha
DATASET ?=
ARGS ?=

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
DATASET_FLAG := $(if $(DATASET),--dataset $(DATASET))

.PHONY: train test test-switches lint types format clean

train: .venv/.installed
	$(BIN)/python scripts/train.py --model $(MODEL) $(DATASET_FLAG) $(ARGS)

test: lint types
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --quiet

# The parity tests with XLA's newer CPU products off, and under the coming defaults of NNX.
test-switches: .venv/.installed-dev
	XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type= \
		$(BIN)/python -m pytest parity_tests --numprocesses 2 --dist loadfile --quiet
	NNX_GRAPH_MODE=false NNX_GRAPH_UPDATES=false \
		$(BIN)/python -m pytest parity_tests --numprocesses 2 --dist loadfile --quiet

lint: .venv/.installed-dev
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .

types: .venv/.installed-dev
	$(BIN)/basedpyright

format: .venv/.installed-dev
	$(BIN)/ruff check --quiet --fix .
	$(BIN)/ruff format --quiet .

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis *.egg-info

# A stamp says what is installed, so that a second call installs nothing.
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(INSTALL) --editable .
	touch $@

.venv/.installed-dev: .venv/.installed
	$(INSTALL) --editable '.[dev,onnx,tensorboard]'
	touch $@
