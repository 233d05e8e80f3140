# make demo, make test: everything else (a virtual environment in .venv, the extension) comes by itself.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MINUTES ?= 5
FUZZ_SECONDS ?= 60
BUILD_INPUTS := pyproject.toml setup.py $(wildcard native/src/*.[ch] native/include/*.h) \
	$(wildcard src/ringpost/_binding/*.p[yx]*)
C_FILES := $(wildcard native/src/*.[ch] native/include/*.h native/tests/*.[ch] native/fuzz/*.[ch] examples/c/*.c)

.PHONY: help demo test storm fuzz bench bench-quick docs check format clean

help:
	@echo "make demo     hash Python's standard library with five processes and two queues"
	@echo "make test     run the native and the Python tests (ARGS=... goes to pytest)"
	@echo "make fuzz     coverage-guided noise, FUZZ_SECONDS (60) for each target; a hostile peer (needs clang)"
	@echo "make bench    measure ringpost beside others, all of it: JSON and charts in benchmarks/results/full"
	@echo "make bench-quick   the same in two to three minutes, less exact, in benchmarks/results/quick"
	@echo "make docs     build the site into site/; dead links are errors"
	@echo "make check    formatting, lint, types, stubs, the site, native tests under sanitizers"

# ---- environment --------------------------------------------------------------------------------

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# $(VENV)/.with-EXTRA: ringpost built and installed in place, with what EXTRA needs.
$(VENV)/.with-%: $(BIN)/python $(BUILD_INPUTS)
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

# ---- commands -----------------------------------------------------------------------------------

demo: $(VENV)/.with-demo
	$(BIN)/python examples/hash_tree.py

test: $(VENV)/.with-test
	$(MAKE) --no-print-directory -C native test
	$(BIN)/python -m pytest $(ARGS)

storm: $(VENV)/.with-test
	PYTHONPATH=tests $(BIN)/python -m storm --minutes $(MINUTES) $(ARGS)

# Without atheris (there is none for this Python, or this machine) tests/fuzz still replays what was kept.
fuzz: $(VENV)/.with-check
	$(MAKE) --no-print-directory -C native fuzz peer FUZZ_SECONDS=$(FUZZ_SECONDS) PEER_SECONDS=$(FUZZ_SECONDS)
	@cd tests && if ../$(BIN)/python -c 'import atheris' 2>/dev/null; \
		then ../$(BIN)/python -m fuzz $(FUZZ_SECONDS) -verbosity=0; \
		else echo 'no atheris: nothing in Python was fuzzed'; fi

bench: $(VENV)/.with-bench
	$(BIN)/python -m benchmarks $(ARGS)

bench-quick: $(VENV)/.with-bench
	$(BIN)/python -m benchmarks --quick $(ARGS)

docs: $(VENV)/.with-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict  # not --quiet: it would not count warnings

check: $(VENV)/.with-check docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run --Werror $(C_FILES)
	$(BIN)/mypy
	$(BIN)/mypy --warn-unused-ignores tests/typing
	$(BIN)/basedpyright
	$(BIN)/python -m mypy.stubtest ringpost._binding._core
	$(MAKE) --no-print-directory -C native asan tsan
	@if command -v clang >/dev/null; then $(MAKE) --no-print-directory fuzz FUZZ_SECONDS=7; \
		else echo 'no clang: nothing was fuzzed, only what was kept replayed (apt-get install clang libclang-rt-14-dev)'; fi

format: $(VENV)/.with-check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_FILES)

clean:
	$(MAKE) --no-print-directory -C native clean
	rm -rf $(VENV) build dist src/*.egg-info src/ringpost/_binding/_core.c
	find src -name '*.so' -delete
