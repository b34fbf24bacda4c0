# Needs only GNU make and Python >= 3.11; every target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

.PHONY: setup demo test check bench faults test-docker

$(STAMP): requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

setup: $(STAMP)
	$(BIN)/drx-bridge dev --fetch-only

demo: setup
	$(BIN)/drx-bridge demo

check: $(STAMP)
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/drx-bridge schemas check
	$(BIN)/pytest -q tests/unit tests/component

test: setup check
	$(BIN)/pytest tests
