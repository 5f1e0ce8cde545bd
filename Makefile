# `make quickstart` and `make test` do all of their own set-up in .venv; a second run installs nothing.
# VENV=<directory> runs in an environment of your own instead, in which nothing is installed.

PYTHON ?= python3.11
VENV ?= .venv
RUN = $(VENV)/bin/python

ifeq ($(VENV),.venv)
READY = .venv/ready
else
READY =
export PYTHONPATH := $(CURDIR)
endif

.PHONY: help quickstart test test-slow lint format clean

help:
	@echo "make quickstart   train, generate and serve small models on real text, at most 6 minutes on 2 cores"
	@echo "make test         lint and the quick tests, 12 to 14 minutes on 2 cores"
	@echo "make test-slow    the tests of real sizes and long runs"
	@echo "make lint         ruff's checks and format"
	@echo "make format       let ruff rewrite the sources"
	@echo "make clean        remove .venv and the quickstart's output"

quickstart: $(READY)
	@$(RUN) training/quickstart.py

test: lint
	@$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(READY)
	@XLA_FLAGS= $(RUN) -m pytest -m slow

lint: $(READY)
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

format: $(READY)
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

clean:
	rm -rf .venv quickstart_output

.venv/ready: requirements.txt setup.cfg pyproject.toml
	@command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) is not installed; tfheads needs Python 3.11" >&2; exit 1; }
	@echo "Installing the pinned requirements into .venv"
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
