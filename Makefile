# make demo    the quick start: FedML simulations on handwritten digits, with a poisoner, undefended and defended
# make test    everything that must hold: ruff, mypy, the tests, the examples in the documentation
# make test-long   the tests that take more than 20 seconds, alone or together
# make lint    ruff and mypy alone
# make docs    write what the documentation shows of the code and of results
# make clean   remove the virtual environment and your own results

PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
# Two processes, each with one thread: what two cores can carry.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo test test-long lint docs clean

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

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

docs: $(VENV)/installed
	for page in settings fedml examples corpus_table reproduction robust backdoors; do $(BIN)/python -W ignore tools/docs/make_$$page.py || exit 1; done

clean:
	rm -rf $(VENV)
	find results -mindepth 1 -maxdepth 1 ! -name published -exec rm -rf {} +
