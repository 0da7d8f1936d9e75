# Two commands are all a newcomer needs: `make demo` and `make test`. Each creates .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := $(wildcard csrc/*.cpp csrc/*/*)
DATA ?= data/goalworld
RUNS ?= runs

.PHONY: help setup demo test lint aot oldest-triton sanitize bench clean

help:
	@echo "make demo   set up, generate the embedded dataset, train, evaluate, write a report"
	@echo "make test   set up and run every test"
	@echo "make bench  set up and run the benchmarks; results go to bench/results/"
	@echo "make lint   check formatting, lint and types"
	@echo "make aot    compile every Triton kernel ahead of time for sm_80 to sm_120"
	@echo "make oldest-triton  the Triton checks with the oldest Triton that is supported"
	@echo "make sanitize  native tests under AddressSanitizer and UndefinedBehaviorSanitizer (g++)"
	@echo "make setup  only create $(VENV) with everything installed"
	@echo "make clean  remove build products (not $(VENV), data or runs)"

setup: $(STAMP)

$(STAMP): pyproject.toml setup.py constraints.txt CMakeLists.txt $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/goal-kernels data synth --folder $(DATA)
	$(BIN)/goal-kernels fit --config goalworld --data.folder $(DATA) --run.root $(RUNS)

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

aot: setup
	$(BIN)/python -m tools.aot

oldest-triton: setup
	.ci/oldest-triton $(BIN)/python

sanitize: setup
	.ci/sanitize $(BIN)/python

bench: setup
	$(BIN)/python -m bench

clean:
	rm -rf build dist *.egg-info goal_kernels/_native*.so .pytest_cache .mypy_cache .ruff_cache
