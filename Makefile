# `make demo` and `make test` need make and Python 3.11 or newer; everything else they install into .venv.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# What `make test` installs; with EXTRAS=test,libraries the tests against PyTorch, timm and Transformers run too.
EXTRAS ?= test
# The part of the suite that `make test-oldest` and `make test-core` run: the numerics, and runs of both tasks. Not the
# commands' tests, which want an empty stderr: TensorFlow 2.20 writes notices there.
CORE := tests/convnext tests/fcmae tests/experiments/optim tests/experiments/training/test_step.py \
	tests/experiments/training/test_checkpoints.py tests/experiments/data/test_decoding.py \
	tests/experiments/inference tests/experiments/evaluation/test_evaluate.py tests/experiments/test_finetune.py
PYTEST := -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder $(if $(COVERAGE),--cov --cov-report=)
# With COVERAGE=1: the share of each package's lines that the tests run; what the commands run as processes is not counted.
SHOW_COVERAGE = $(if $(COVERAGE),$(foreach package,convnext fcmae experiments,&& \
	echo "coverage of $(package): $$($(1)/coverage report --format=total --include='$(package)/*')%"))
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo test test-core test-library test-oldest test-wheel soak lint docs clean

demo: $(VENV)/installed-train
	$(BIN)/python -m launch.demo --workdir=runs/demo

test: $(VENV)/installed-$(EXTRAS) lint
	$(BIN)/python $(PYTEST) $(call SHOW_COVERAGE,$(BIN))

# SOAK_SEED=N draws other kills
soak: $(VENV)/installed-$(EXTRAS)
	LONG_TESTS=1 $(BIN)/python -m pytest --capture=no tests/soak

lint: $(VENV)/installed-$(EXTRAS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in site/
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Without TensorFlow, from the installed package: the library alone trains on JAX, and the step can be timed.
test-library: .venv-library/installed
	cd .venv-library && KERAS_BACKEND=jax bin/python -P ../tests/fit_with_library.py
	cd .venv-library && bin/python -P -m launch.benchmark --what=step --config=digits --backend=jax --candidates=sparse --rounds=1 --steps=1

# The wheel in a new environment: the commands, from an empty folder. Files that setuptools finds in build/ it would pack.
test-wheel:
	rm -rf build dist
	"$(PYTHON)" -m venv --clear .venv-wheel
	.venv-wheel/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	.venv-wheel/bin/python -m pip install --quiet "$$(echo dist/*.whl)[train]"
	tests/installed_commands.sh .venv-wheel/bin/python

# For another Python: make test-core PYTHON=python3.13 VENV=.venv-3.13
test-core: $(VENV)/installed-$(EXTRAS)
	$(BIN)/python $(PYTEST) $(CORE) $(call SHOW_COVERAGE,$(BIN))

# With the oldest versions that setup.cfg allows
test-oldest: .venv-oldest/installed
	.venv-oldest/bin/python $(PYTEST) $(CORE) $(call SHOW_COVERAGE,.venv-oldest/bin)

$(VENV)/installed-%: setup.cfg
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

.venv-oldest/installed: setup.cfg
	"$(PYTHON)" -m venv --clear .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet uv
	.venv-oldest/bin/uv pip install --quiet --python .venv-oldest --resolution lowest-direct --editable '.[test]'
	@touch $@

.venv-library/installed: setup.cfg $(wildcard convnext/*.py convnext/*/*.py fcmae/*.py experiments/benchmarks/*.py launch/*.py)
	"$(PYTHON)" -m venv --clear .venv-library
	.venv-library/bin/python -m pip install --quiet '.[jax]' absl-py ml_collections
	@touch $@

clean:
	rm -rf .venv .venv-* build dist site *.egg-info
