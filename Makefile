# Two commands are all a newcomer needs: `make demo` and `make test`. Each creates .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The demo needs less than the tests; where these were set up already, it takes what they have.
READY := $(firstword $(wildcard $(STAMP)) $(VENV)/.demo)
SOURCES := $(wildcard csrc/*.cpp csrc/*/*)
DATA ?= data/goalworld
RUNS ?= runs
JOBS ?= auto
FIT = $(BIN)/goal-kernels fit --config demo --data.folder $(DATA) --run.root $(RUNS) --run.resume auto
SAY := printf '\n== %s\n'
# A person sees what is fetched; a log gets errors alone.
QUIET := $(shell test -t 2 || echo --quiet)

# Dozens of tests start processes of their own: each would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test coverage lint docs wheels aot oldest-triton compat sanitize bench clean

help:
	@echo "make demo   set up, generate the built-in dataset, train two models, write a page about them"
	@echo "make test   set up and run every test, on as many cores as there are or JOBS=N"
	@echo "make coverage  the tests again, with a table of the Python lines that none of them runs"
	@echo "make bench  set up and run the benchmarks; results go to bench/results/"
	@echo "make lint   check formatting, lint and types"
	@echo "make docs   build the documentation site in build/site"
	@echo "make wheels  source distribution and a wheel for every Python from 3.10 to 3.13, in dist/"
	@echo "make aot    compile every Triton kernel ahead of time for sm_80 to sm_120"
	@echo "make oldest-triton  the Triton checks with the oldest Triton that is supported"
	@echo "make compat  the adapters for other packages against these packages"
	@echo "make sanitize  native tests under AddressSanitizer and UndefinedBehaviorSanitizer (g++)"
	@echo "make setup  only create $(VENV) with everything installed"
	@echo "make clean  remove build products (not $(VENV), data or runs)"

setup: $(STAMP)

$(STAMP): EXTRA := dev
$(STAMP): WHAT := some 90 packages, torch the largest, and the C++ kernels, which are compiled (3 to 5 minutes, longer on a slow line; a minute when only the kernels changed)
$(VENV)/.demo: EXTRA := train
$(VENV)/.demo: WHAT := some 50 packages, torch the largest, and the C++ kernels, which are compiled (2 minutes, longer on a slow line)
$(VENV)/.demo: export GOAL_KERNELS_EMULATION := OFF

$(STAMP) $(VENV)/.demo: pyproject.toml setup.py constraints.txt CMakeLists.txt $(SOURCES)
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"setup needs Python 3.11 or newer, $(PYTHON) is {v[0]}.{v[1]}: make setup PYTHON=python3.12")'
	@$(SAY) "setup 1/3: Python environment in $(VENV) (seconds)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(SAY) "setup 2/3: newest pip (seconds)"
	$(BIN)/python -m pip install --quiet --upgrade pip
	@$(SAY) "setup 3/3: $(WHAT)"
	$(BIN)/python -m pip install $(QUIET) -c constraints.txt -e '.[$(EXTRA)]'
	touch $@

demo: $(READY)
	@$(SAY) "demo 1/3: the dataset GoalWorld, generated in $(DATA) (10 seconds)"
	$(BIN)/goal-kernels data synth --folder $(DATA) --workers 2
	@$(SAY) "demo 2/3: two trainings beside each other, on hardest negatives and on all, in $(RUNS) (2 minutes on two cores)"
	mkdir -p $(RUNS)
	$(FIT) --run.name demo_all --model.objective sum_of_hinges > $(RUNS)/demo_all.log 2>&1 & other=$$!; \
	$(FIT) || { kill $$other; exit 1; }; \
	wait $$other || { cat $(RUNS)/demo_all.log; exit 1; }
	@$(SAY) "demo 3/3: a page with both (10 seconds)"
	$(BIN)/goal-kernels report $(RUNS)/demo --beside $(RUNS)/demo_all
	@echo "open it in a browser, or ask the model: $(BIN)/goal-kernels explore $(RUNS)/demo"

test: setup
	@$(SAY) "every test, on $(JOBS) cores at once (5 to 9 minutes on two cores)"
	$(BIN)/python -m pytest -n $(JOBS) --maxprocesses 16 --dist worksteal

# Not part of continuous integration: the data and evaluation tests alone take two minutes of processor time.
coverage: setup
	@$(SAY) "every test with its lines counted, on $(JOBS) cores (longer than the tests alone)"
	rm -rf build/coverage && mkdir -p build/coverage
	COVERAGE_CORE=sysmon $(BIN)/python -m coverage run -m pytest -n $(JOBS) --maxprocesses 16 --dist worksteal
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

lint: setup
	@$(SAY) "formatting, lint and types (a minute)"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Installed apart: the site is made from the sources, and none of it belongs to what runs and tests them.
docs:
	@$(SAY) "the documentation site, in build/site (seconds; half a minute the first time)"
	test -x build/docs/bin/mkdocs -a ! constraints.txt -nt build/docs/bin/mkdocs || \
	  { $(PYTHON) -m venv build/docs && build/docs/bin/python -m pip install $(QUIET) -c constraints.txt \
	  mkdocs mkdocs-material 'mkdocstrings[python]' && touch build/docs/bin/mkdocs; }
	NO_MKDOCS_2_WARNING=1 build/docs/bin/python -m mkdocs --quiet build
	@echo "open build/site/index.html"

wheels:
	@$(SAY) "source distribution and wheels, in dist/ (3 minutes a Python; with ccache the first only)"
	tools/wheels

aot: setup
	@$(SAY) "every Triton kernel compiled for six architectures (3 minutes on two cores)"
	$(BIN)/python -m tools.aot

oldest-triton: setup
	@$(SAY) "Triton checks with the oldest Triton (3 minutes)"
	.ci/oldest-triton $(BIN)/python

compat: setup
	@$(SAY) "adapters against open_clip, sentence-transformers and pytorch-metric-learning (a minute)"
	.ci/compat $(BIN)/python

sanitize: setup
	@$(SAY) "native tests under sanitizers (4 minutes)"
	.ci/sanitize $(BIN)/python

bench: setup
	@$(SAY) "the benchmarks (5 minutes)"
	$(BIN)/python -m bench

clean:
	rm -rf build dist *.egg-info goal_kernels/_native*.so .pytest_cache .mypy_cache .ruff_cache
