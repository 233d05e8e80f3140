# make demo, make test: everything else (a virtual environment in .venv, the extension) comes by itself.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(wildcard native/src/*.[ch] native/include/*.h)
BUILD_INPUTS := pyproject.toml setup.py $(NATIVE) $(wildcard src/ringpost/_binding/*.p[yx]*)

.PHONY: demo test bench check native clean

# ---- environments -------------------------------------------------------------------------------

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# $(VENV)/.with-EXTRA: ringpost built and installed in place, with what EXTRA needs.
$(VENV)/.with-%: $(BIN)/python $(BUILD_INPUTS)
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

# ---- commands -----------------------------------------------------------------------------------

test: $(VENV)/.with-test
	$(MAKE) -C native test
	$(BIN)/python -m pytest $(ARGS)
