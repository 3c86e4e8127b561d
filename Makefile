# Two commands for a newcomer: `make demo`, then `make test`. Both make and use .venv.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check -q
CHECKED := $(addprefix src/imagesmith/,core image models vision engines)

.PHONY: demo test test-slow check docs clean

demo: $(VENV)/.demo
	$(VENV)/bin/imagesmith demo

test: $(VENV)/.test
	$(VENV)/bin/python -m pytest -m "not slow"

test-slow: $(VENV)/.test
	$(VENV)/bin/python -m pytest -m slow

check: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy $(CHECKED)

docs: $(VENV)/.demo
	$(VENV)/bin/python docs/build_reference.py
	$(VENV)/bin/python docs/build_pictures.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# No torch: what a person who only looks at and edits photographs installs.
$(VENV)/.demo: pyproject.toml starters/pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install -c constraints.txt -e ".[cpu,demo]" -e ./starters
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PIP) install -c constraints.txt torch==$(shell sed -n 's/^torch==//p' constraints.txt)
	$(PIP) install -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist imagesmith-demo
