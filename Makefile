# From nothing but Python >= 3.10, pip and make: `make bench` and `make test` build .venv first.
PYTHON ?= python3
WORKERS ?= 2
BENCH_ENVS ?= maze2d-umaze maze2d-medium maze2d-large
BENCH_FLAGS ?= --json out/bench.json --plot out/bench.png

VENV := .venv
BIN := $(VENV)/bin
# Always with the pins: an unpinned torch is a download of several GB.
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt
MANIFEST := pyproject.toml setup.py constraints.txt

# One thread each for the numerical libraries: two cores are shared by the workers, and small models are fastest so.
export OMP_NUM_THREADS ?= 1

.PHONY: bench test test-fast lint format clean

bench: $(VENV)/.core
	@mkdir -p out
	$(BIN)/dfplanner bench $(BENCH_ENVS) $(BENCH_FLAGS)

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_FLAGS)

test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" $(PYTEST_FLAGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) out build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

# Debian ships Python without ensurepip: then the pip that is there installs one into the environment.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.version_info >= (3, 10) or \
		sys.exit(f"dfplanner needs Python 3.10 or newer, but $(PYTHON) is {v}; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV) || \
		{ $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $@ install -q pip; }

$(VENV)/.core: $(MANIFEST) | $(BIN)/python
	$(INSTALL) -e .
	@touch $@

# Of D4RL the tests read the files alone; openpi's client asks for an old NumPy it does not need. colcon, with which a
# workspace is built, wants an old setuptools, and an environment of its own.
$(VENV)/.dev: $(MANIFEST) | $(BIN)/python
	$(INSTALL) -e ".[dev]"
	$(INSTALL) --no-deps d4rl openpi-client
	$(BIN)/python -m venv --without-pip $(VENV)/colcon
	$(BIN)/python -m pip --python $(VENV)/colcon/bin/python install --disable-pip-version-check -q -c constraints.txt \
		colcon-common-extensions "setuptools<80"
	@mkdir -p $(VENV)/links && ln -sfn ../../envs $(VENV)/links/dfplanner_envs && \
		ln -sfn ../../robot $(VENV)/links/dfplanner_robot
	@touch $@ $(VENV)/.core
