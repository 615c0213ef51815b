# make demo   train the VAE on MNIST, and explore it          make lint   format, lint and type checks
# make test   every test but the slow ones                    make bench  time products, steps, what surrounds them, convolutions
# make lessons  run all lessons and write their pages (90 minutes); QUICK=1 makes short runs of those that can
# make test-gpu, bench-gpu, gpu-report   on an NVIDIA GPU, with numba-cuda in the venv: tests, times, and both in a report
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: demo lessons test test-all lint bench gpu test-gpu bench-gpu gpu-report

$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/scratchgen train vae
	$(BIN)/scratchgen explore "$$(ls -dt runs/vae-pytorch-example* | head -n 1)"
	@echo "open this page in a browser"

# Each with its own settings, --quick where QUICK is set and the lesson takes it: the page then says so.
lessons: $(VENV)/installed
	for lesson in demos/engine/*.py demos/lecture/*.py; do \
	  quick=$$(test -z "$(QUICK)" || grep -om1 -e --quick $$lesson); \
	  echo $$lesson $$quick; \
	  $(BIN)/python demos/pages.py $$lesson $$quick || exit; \
	done

$(VENV)/simulator: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[simulator]'
	touch $@

# A process for each core, with one thread: files are given out in order, so that the longest comes first.
IN_PARALLEL := --numprocesses auto --dist loadfile --no-loadscope-reorder
test test-all: export OPENBLAS_NUM_THREADS = 1
test test-all: export NUMBA_NUM_THREADS = 1

test: $(VENV)/simulator
	$(BIN)/python -m pytest -m "not slow" $(IN_PARALLEL)

test-all: $(VENV)/simulator
	HYPOTHESIS_PROFILE=explore $(BIN)/python -m pytest $(IN_PARALLEL)

lint: $(VENV)/simulator
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/installed
	$(BIN)/python -m tests.benchmarks.products
	$(BIN)/python -m tests.benchmarks.steps
	$(BIN)/python -m tests.benchmarks.whole
	$(BIN)/python -m tests.benchmarks.convolutions

gpu: $(VENV)/installed
	$(BIN)/scratchgen gradcheck add --kernels cuda  # says what is missing, if something is

test-gpu: gpu
	$(BIN)/python -m pytest tests/cuda

bench-gpu: gpu
	$(BIN)/python -m tests.benchmarks.gpu

gpu-report: $(VENV)/installed  # in ten minutes; it goes on where one part fails
	$(BIN)/python -m tests.benchmarks.gpu_report
