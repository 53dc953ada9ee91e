# Two commands for a fresh machine with Python 3.11+, make and a C++ compiler: `make demo` and `make test`.

# The first Python that runs and is new enough; `make PYTHON=...` names another.
PYTHON ?= $(shell for each in python3 python3.14 python3.13 python3.12 python3.11 python; do \
    $$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$each && break; done)
VENV ?= .venv
PROMPT ?= Write three sentences about a lighthouse and the sea.
JOBS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Built with the tools in $(VENV), so that a changed source is compiled alone.
INSTALL := $(PIP) install --quiet --constraint constraints.txt --no-build-isolation --editable
# What an installation is made of besides Python files, which an editable installation reads where they lie.
BUILT_FROM := pyproject.toml $(wildcard CMakeLists.txt) src/fabula/__init__.py \
    $(shell find src/fabula/kernels -name '*.cpp' -o -name '*.h' -o -name '*.hpp' -o -name '*.c' 2>/dev/null)

.PHONY: help demo test lint unit install develop wheel clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

demo: install  ## install Fabula into .venv, fetch the default model, stream text from it
	@echo "==> fabula pull: the default model (kept in your cache folder; fetched once)"
	@$(BIN)/fabula pull
	@echo "==> fabula generate --chat \"$(PROMPT)\""
	@$(BIN)/fabula generate --chat "$(PROMPT)"

test: develop lint unit  ## install what tests need into .venv, then check style, types, floors and run every test

lint: develop
	@echo "==> ruff, mypy, import-linter"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

unit: develop
	@echo "==> pytest"
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

install: $(VENV)/installed  ## install Fabula into .venv
develop: $(VENV)/developing  ## install Fabula and its development tools into .venv

$(VENV)/ready: constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer found. Install one, or say make PYTHON=/path/to/python"; exit 1; }
	@echo "==> $(PYTHON) -m venv $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet --constraint constraints.txt scikit-build-core cmake ninja
	@touch $@

$(VENV)/installed: $(VENV)/ready $(BUILT_FROM)
	@echo "==> pip install -e . (and builds the C++ kernels: a minute)"
	@$(INSTALL) .
	@touch $@

$(VENV)/developing: $(VENV)/ready $(BUILT_FROM)
	@echo "==> pip install -e .[dev] (and builds the C++ kernels; the first time it also fetches PyTorch: minutes)"
	@$(INSTALL) ".[dev]"
	@touch $@ $(VENV)/installed

wheel:  ## build the wheel for this machine into dist/
	@$(PYTHON) -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir dist .

clean:  ## remove what was built and installed here
	rm -rf $(VENV) build dist
