# make demo   a first picture, from nothing but Python and make
# make test   the tests (minutes); test-full adds the full-size parity runs; check is ruff, mypy and the layering

PYTHON ?= python3
# Pinned, so that a machine that has this build at hand takes it; elsewhere the pin gives the usual build.
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-full check clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.torch: | $(BIN)/python
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.torch
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[test,dev,train]"
	@touch $@

demo: $(VENV)/.installed
	@mkdir -p outputs
	$(BIN)/sdscratch txt2img "a dog wearing sunglasses" --seed 0 --output outputs/demo.png --overwrite
	@echo "The picture is outputs/demo.png"

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not full"

test-full: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m full

check: $(VENV)/.installed-test
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
