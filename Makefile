# Every target sets up what it needs in a virtual environment of its own.
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
PYTHON ?= python3
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo figures test test-slow test-lowest package bench profile docs clean

# Sizes of one environment: the toolkit alone, with the trainer, with all that checks the code, with all libraries.
$(VENV)/base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	touch $@

$(VENV)/train: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[train]'
	touch $@ $(VENV)/base

$(VENV)/dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[train,torchjd,tensorboard,wandb,parquet,docs,dev]'
	touch $@ $(VENV)/train $(VENV)/docs $(VENV)/base

# The libraries of the adapters too. They are large, so only the slow tests have them.
$(VENV)/slow: $(VENV)/dev
	$(INSTALL) -e '.[train,torchjd,tensorboard,wandb,parquet,docs,dev,lightning,hugging-face,jax]' flax
	touch $@

# The first of dumps/NAME, dumps/NAME2, dumps/NAME3 ... that does not exist: no run is ever overwritten.
fresh = $$(name=$(1); n=1; while [ -e dumps/$$name ]; do n=$$((n + 1)); name=$(1)$$n; done; echo $$name)

# The paper's networks on real MT10, in small collects: six of them, two snapshots, then a report of them.
demo: $(VENV)/train
	name=$(call fresh,demo) && \
	$(BIN)/toppo train --name $$name --env-steps 60000 --env-steps-per-epoch 10000 --env-steps-per-collect 10000 \
		--eval-every-epochs 6 --eval-episodes 2 --dump-every 3 && \
	$(BIN)/toppo-diag report dumps/$$name --out figures/out/$$name.html

# The paper's mechanism figures from the archives under figures/data. Needs no torch.
figures: $(VENV)/base
	$(BIN)/toppo-diag figures --jobs 2

# What CI runs.
test: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/biome check
	$(MAKE) docs
	$(BIN)/python -m pytest

test-slow: $(VENV)/slow
	$(BIN)/python -m pytest -m slow

# The toolkit's tests with the oldest versions that pyproject.toml allows, so that its lower bounds are true.
$(LOWEST)/lowest: pyproject.toml
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct -e '.[remote,dask,dev]'
	touch $@

test-lowest: $(LOWEST)/lowest
	$(LOWEST)/bin/python -m pytest tests/combiners tests/dump tests/diag

# The wheel and the source archive in dist/, checked as the package index would.
package: $(VENV)/dev
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*

bench: $(VENV)/dev
	$(BIN)/python -m tests.benchmarks.bench_update --json build/bench-update.json
	$(BIN)/python -m tests.benchmarks.bench_update --memory
	$(BIN)/python -m tests.benchmarks.bench_update --memory-dumped
	$(BIN)/python -m tests.benchmarks.bench_capture
	$(BIN)/python -m tests.benchmarks.bench_envs
	$(BIN)/python -m tests.benchmarks.bench_combiners
	$(BIN)/python -m tests.benchmarks.bench_dump
	$(BIN)/python -m tests.benchmarks.bench_diag --data figures/data

# Where the time of a real run goes: three collects of MT10, two evaluations, a snapshot.
profile: $(VENV)/dev
	$(BIN)/python -m tests.benchmarks.bench_run --env-steps 300000 --name $(call fresh,profile)

# The documentation site, in docs/_build/html. A warning is an error.
$(VENV)/docs: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,docs]'
	touch $@ $(VENV)/train

docs: $(VENV)/docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf $(VENV) $(LOWEST) build dist *.egg-info
