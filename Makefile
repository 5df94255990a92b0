# Every target sets up .venv by itself: a machine with Python, git and make needs nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Two test processes share two cores; more threads in each would only fight. Each begins with half of the tests, so that
# what a file prepares is prepared once, and takes over from the other at the end. Compiled code is kept: many tests
# start a process, which would compile the package again.
THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=
TWO := -n 2 --dist worksteal

.PHONY: demo test test-slow test-oldest test-newest test-field docs bench lint format clean help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,docs,test]"
	touch $@

demo: $(READY)  ## train on digits, measure, draw the pictures (under 3 minutes on 2 cores)
	$(BIN)/landscape demo --out demo

test: $(READY)  ## the fast tests (about 5 minutes on 2 cores)
	$(THREADS) $(BIN)/python -m pytest $(TWO) -m "not slow and not field"

test-slow: $(READY)  ## the long tests: kills, whole trainings, calibration
	$(THREADS) $(BIN)/python -m pytest $(TWO) -m "slow and not field"

# nox makes the environments (.nox/oldest, .nox/newest) and keeps them; noxfile.py says what is in them.
test-oldest test-newest: test-%: $(READY)
	$(BIN)/nox --reuse-existing-virtualenvs --session $*

test-oldest:  ## the fast tests with the lower bounds of setup.cfg
test-newest:  ## the fast tests with the newest versions and Python here (a CUDA build of torch, 5.5 GB)

# The modules ask for torchvision and for ranges of torch, whose resolver would replace a CPU build of torch: they are
# installed without dependencies, so the file lists these too.
build/field: $(READY) tests/field/requirements.txt
	rm -rf $@
	$(BIN)/python -m pip install --quiet --no-deps --target $@ --requirement tests/field/requirements.txt

test-field: build/field  ## unmodified modules of other packages (transformers, peft, ...), randomly initialised
	PYTHONPATH=build/field $(THREADS) $(BIN)/python -m pytest -n 2 -m field tests/field

docs: $(READY)  ## execute the examples in docstrings, and the notebooks
	$(THREADS) $(BIN)/python -m pytest --doctest-modules landscape callbacks
	$(THREADS) $(BIN)/python -m pytest --nbmake --nbmake-timeout=600 notebooks

# Type checkers do not follow the mapping of callbacks/ in an editable install: they read a regular one.
lint: $(READY)  ## style, docstrings, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	rm -rf build/typed
	$(BIN)/python -m pip install --quiet --no-deps --target build/typed .
	MYPYPATH=build/typed $(BIN)/mypy -p landscape

format: $(READY)  ## put the code in its form
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .

# The peers ask for torchvision, whose resolver would replace a CPU build of torch: they are installed without dependencies.
PEERS := curvlinops-for-pytorch==3.0.1 backpack-for-pytorch==1.7.1 einconv==0.1.0 einops==0.8.1 linear_operator==0.6.1 \
	opt-einsum==3.4.0 unfoldNd==0.2.3 jaxtyping==0.3.11 typeguard==4.6.0 wadler_lindig==0.1.8 \
	hessian-eigenthings==1.0.0a5 loss-landscapes==3.0.6

build/peers: $(READY)
	$(BIN)/python -m pip install --quiet --no-deps --target $@ $(PEERS)

# DEVICE=cuda measures on a GPU instead (under 8 minutes) and writes benchmarks/gpu.md.
bench: build/peers  ## side by side with PyHessian, curvlinops and hessian-eigenthings (about half an hour)
ifdef DEVICE
	PYTHONPATH=build/peers $(BIN)/python benchmarks/gpu.py --device $(DEVICE)
else
	PYTHONPATH=build/peers $(THREADS) $(BIN)/python benchmarks/bench.py
endif

clean:  ## remove what the targets made
	rm -rf $(VENV) .nox build demo .mypy_cache .ruff_cache .pytest_cache
