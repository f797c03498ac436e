# make demo    the quick start: FedML simulations on handwritten digits, with a poisoner, undefended and defended
# make test    everything that must hold: ruff, mypy, the tests, the examples in the documentation
# make test-long   the tests that take more than 20 seconds each
# make lint    ruff and mypy alone
# make clean   remove the virtual environment and the results

PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
# Three processes, each with one thread, for two cores: the tests that start federations often wait for them.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal

.PHONY: demo test test-long lint clean

demo: $(VENV)/installed
	$(BIN)/python -m benchmark run configs/quickstart.yaml --out results/quickstart

test: lint
	$(PYTEST)

test-long: $(VENV)/installed
	$(PYTEST) -m long

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# --no-compile: Python compiles what is imported, when it is; all of it takes as long as the rest of the installation.
$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) results
