# Every target sets up what it needs in a virtual environment of its own.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3

.PHONY: demo figures test test-slow bench profile docs clean

# The extra "train" for running, "dev" on top for working on the code.
$(VENV)/train: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train]'
	touch $@

$(VENV)/dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,torchjd,dev]'
	touch $@ $(VENV)/train

# The paper's networks on real MT10, in small collects: six of them, two snapshots, then their Gram heatmaps.
demo: $(VENV)/train
	rm -rf dumps/demo
	$(BIN)/toppo train --name demo --env-steps 60000 --env-steps-per-epoch 10000 --env-steps-per-collect 10000 \
		--eval-every-epochs 6 --eval-episodes 2 --dump-every 3
	$(BIN)/toppo-diag heatmaps dumps/demo --out figures/out

# The paper's mechanism figures from the archives under figures/data.
figures: $(VENV)/train
	$(BIN)/toppo-diag figures --jobs 2

test: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest

test-slow: $(VENV)/dev
	$(BIN)/python -m pytest -m slow

bench: $(VENV)/dev
	$(BIN)/python -m tests.benchmarks.bench_update --json build/bench-update.json
	$(BIN)/python -m tests.benchmarks.bench_update --memory
	$(BIN)/python -m tests.benchmarks.bench_update --memory-dumped
	$(BIN)/python -m tests.benchmarks.bench_envs
	$(BIN)/python -m tests.benchmarks.bench_combiners
	$(BIN)/python -m tests.benchmarks.bench_dump
	$(BIN)/python -m tests.benchmarks.bench_diag --data figures/data

# Where the time of a real run goes: three collects of MT10, two evaluations, a snapshot.
profile: $(VENV)/dev
	rm -rf dumps/profile
	$(BIN)/python -m tests.benchmarks.bench_run --env-steps 300000 --name profile

# The documentation site, in docs/_build/html. A warning is an error.
$(VENV)/docs: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,docs]'
	touch $@ $(VENV)/train

docs: $(VENV)/docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf $(VENV) build *.egg-info
