# make demo   train the VAE on MNIST and draw digits          make lint   format, lint and type checks
# make test   every test but the slow ones                    make bench  time products, training steps, and what surrounds them
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: demo test test-all lint bench

$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/scratchgen train vae

# One thread: beside other work on the machine, two wait for one another at every small kernel.
test test-all: export OPENBLAS_NUM_THREADS = 1
test test-all: export NUMBA_NUM_THREADS = 1

test: $(VENV)/installed
	$(BIN)/python -m pytest -m "not slow"

test-all: $(VENV)/installed
	HYPOTHESIS_PROFILE=explore $(BIN)/python -m pytest

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/installed
	$(BIN)/python -m tests.benchmarks.products
	$(BIN)/python -m tests.benchmarks.steps
	$(BIN)/python -m tests.benchmarks.whole
