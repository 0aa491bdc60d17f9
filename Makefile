# Each target first does the set-up it still lacks, in .venv: nothing is installed elsewhere.
# make demo PYTHON=python3.12 picks the interpreter that .venv is made with.

VENV := .venv
RUN := $(VENV)/bin/python
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; \
  done)

# Compiling every file of every package takes longer than compiling the used ones when first used.
INSTALL := $(RUN) -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt

.PHONY: help demo lab test test-all test-oldest test-newest lint notebooks bench book
.DELETE_ON_ERROR:

help:
	@echo "make demo       fine-tune a language model on this machine and print the results folder"
	@echo "make lab        open the notebooks in JupyterLab"
	@echo "make test       check the style and types, run every test and the notebooks that changed"
	@echo "make test-all   the same with every notebook"
	@echo "make test-oldest, make test-newest  tests and claims with the oldest, newest dependencies"
	@echo "make lint       check the style and types only"
	@echo "make bench      time the embedded engine against what one would run instead"
	@echo "make book       build the web site of the notebooks as they are stored"
	@echo "make notebooks  execute every notebook and write its outputs and stamp into it"

demo: $(VENV)/.demo
	@$(RUN) -m cookbook run sl_basic

lab: $(VENV)/.lab
	$(RUN) -m jupyterlab notebooks

# Two tests at a time with a thread each, then each notebook alone with all cores.
TESTS = OMP_NUM_THREADS=1 $(RUN) -m pytest tests -n 2 --dist loadfile
NOTEBOOKS = $(RUN) -m pytest notebooks --nbmake --nbmake-timeout=1200

# A notebook that was executed with the cells and the package as they are now is not run again.
test: lint
	$(TESTS)
	$(NOTEBOOKS) --stale-only -rs

test-all: lint
	$(TESTS)
	$(NOTEBOOKS)

# For a schedule: each in an environment of its own, every notebook executed. Takes about an hour.
test-oldest test-newest: test-%: | $(RUN)
	$(RUN) .ci/dependencies $*

lint: $(VENV)/.dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m basedpyright --pythonpath $(RUN)

notebooks: $(VENV)/.dev
	$(RUN) -m cookbook.notebooks notebooks/*.ipynb

bench: $(VENV)/.bench
	$(RUN) -m benchmarks

# Built from scratch: a page that is gone must not stay, and every warning is seen.
book: $(VENV)/.book
	rm -rf build/book
	$(RUN) -m sphinx -q -W --keep-going -b html -c docs/book . build/book
	$(RUN) docs/book/check.py build/book

# A stamp is newer than what its set-up was made from; the larger set-ups contain the demo's.
$(VENV)/.demo: pyproject.toml constraints.txt | $(RUN)
	@echo "Installing the packages into $(VENV) (once, one to three minutes) ..."
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.lab: pyproject.toml constraints.txt | $(RUN)
	@echo "Installing the packages and JupyterLab into $(VENV) (once, one to three minutes) ..."
	@$(INSTALL) -e '.[lab]'
	@touch $@ $(VENV)/.demo

$(VENV)/.dev: pyproject.toml constraints.txt | $(RUN)
	@echo "Installing the packages and the test tools into $(VENV) (once, two to four minutes) ..."
	@$(INSTALL) -e '.[dev,book]'
	@touch $@ $(VENV)/.demo $(VENV)/.book

$(VENV)/.bench: pyproject.toml constraints.txt | $(RUN)
	@echo "Installing the packages and what they are timed against into $(VENV) (once) ..."
	@$(INSTALL) -e '.[bench]'
	@touch $@ $(VENV)/.demo

$(VENV)/.book: pyproject.toml constraints.txt | $(RUN)
	@echo "Installing the packages and what builds the web site into $(VENV) (once) ..."
	@$(INSTALL) -e '.[book]'
	@touch $@ $(VENV)/.demo

$(RUN):
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed; '$(PYTHON)' is not that." \
	    "Install one, or name yours: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@'$(PYTHON)' -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
