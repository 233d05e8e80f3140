# make demo, make test: everything else (a virtual environment in .venv, the extension) comes by itself.

PYTHON ?= python3
PYTHONS ?= python3.10 python3.11 python3.12 python3.13 python3.14
VENV := .venv
BIN := $(VENV)/bin
MINUTES ?= 5
FUZZ_SECONDS ?= 60
BUILD_INPUTS := pyproject.toml setup.py $(wildcard native/src/*.[ch] native/include/*.h) \
	native/cffi_build.py $(wildcard src/ringpost/_binding/*.p[yx]* src/ringpost/_binding/_cffi/*.h)
C_FILES := $(wildcard native/src/*.[ch] native/include/*.h native/tests/*.[ch] native/tests/fires/*.h \
	native/tests/fires/*/*.c native/death/*.[ch] native/fuzz/*.[ch] examples/c/*.c src/ringpost/_binding/_cffi/*.h)

.PHONY: help demo test test-all storm fuzz sanitize sanitize-quick bench bench-quick docs check format clean

help:
	@echo "make demo     hash Python's standard library with five processes and two queues"
	@echo "make test     run the native and the Python tests (ARGS=... goes to pytest)"
	@echo "make fuzz     coverage-guided noise, FUZZ_SECONDS (60) for each target; a hostile peer (needs clang)"
	@echo "make storm    kill -9, stop, fill and reboot programs made at random, for MINUTES (5)"
	@echo "make test-all run the Python tests on each of PYTHONS that is here, in an environment of its own"
	@echo "make bench    measure ringpost beside others, all of it: JSON and charts in benchmarks/results/full"
	@echo "make bench-quick   the same in two to three minutes, less exact, in benchmarks/results/quick"
	@echo "make docs     build the site into site/; dead links are errors"
	@echo "make sanitize      the Python tests under AddressSanitizer, UBSan and ThreadSanitizer"
	@echo "make sanitize-quick     a part of them that takes some minutes"
	@echo "make check    formatting, lint, types, stubs, the site, native tests under sanitizers"
	@echo "make format   put formatting and imports right"
	@echo "make clean    remove what was built, and the virtual environment"

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
	$(if $(ARGS),$(BIN)/python -m pytest $(ARGS),$(MAKE) --no-print-directory -j2 --output-sync test-aside test-main)

# Tests wait more than they compute: two halves, side by side.
ASIDE := fuzz packaging stress unit

.PHONY: test-aside test-main
test-aside: $(VENV)/.with-test
	RINGPOST_BINDING=cffi $(BIN)/python -m pytest -p no:cacheprovider tests/conformance
	$(BIN)/python -m pytest -p no:cacheprovider $(addprefix tests/,$(ASIDE))

test-main: $(VENV)/.with-test
	$(BIN)/python -m pytest $(addprefix --ignore=tests/,$(ASIDE))

# A name may be there and not work: pyenv's are.
test-all:
	@for python in $(PYTHONS); do \
		abi=$$($$python -c "import sysconfig; print(sysconfig.get_config_var('SOABI'))" 2> /dev/null) || \
			{ echo "$$python: not here"; continue; }; \
		echo "$$python:"; environment=$(VENV)/$$abi; \
		$(MAKE) --no-print-directory PYTHON=$$python VENV=$$environment $$environment/.with-test && \
		$$environment/bin/python -m pytest $(ARGS) || failed="$$failed $$python"; \
	done; \
	test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

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
	$(BIN)/python -m mypy.stubtest ringpost._binding._core ringpost._binding._cffi._native
	$(MAKE) --no-print-directory -C native asan tsan

# ---- sanitizers -----------------------------------------------------------------------------------

UNDER := tests/sanitize/under
EXPECT := native/tests/fires/expect
PYTEST_UNDER := $(BIN)/python -m pytest -q -s -p no:cacheprovider --timeout 600
# Bad arguments, buffers, arrays, views, loans, records, closed handles, forks.
EDGES := $(addprefix tests/,$(addsuffix .py,$(addprefix conformance/test_,arrays bad_arguments closed codec_contract \
	records) $(addprefix unit/test_,decode_errors encode_errors) $(addprefix crash/test_,foreign_files fork loans)))
# Not what is about another binding, about memory that the sanitizer wants itself, or about a process that crashes.
WHOLE := tests/conformance tests/unit tests/crash $(addprefix --ignore=tests/,unit/test_typing.py \
	unit/test_binding_choice.py crash/test_memory_limit.py crash/test_children.py)
# Not test_wakeups.py, which measures how soon.
THREADS := $(filter-out %/test_wakeups.py,$(wildcard tests/stress/test_*.py)) \
	$(addprefix tests/conformance/test_,consumer.py pools.py tasks.py)
FEW_THREADS := tests/stress/test_shutdown.py tests/stress/test_tasks.py tests/conformance/test_tasks.py

# The package, its extension for a sanitizer. In `weak` the core is one in which ThreadSanitizer must find a data race.
build/asan/built: SANITIZER := address,undefined
build/tsan/built build/weak/built: SANITIZER := thread
build/asan/built build/tsan/built build/weak/built: build/%/built: \
		$(VENV)/.with-check $(VENV)/.with-test $(BUILD_INPUTS) $(shell find src -name '*.py')
	rm -rf $(@D)
	mkdir -p $(@D)/source/native
	ln -s $(addprefix $(CURDIR)/,setup.py pyproject.toml README.md LICENSE src) $(@D)/source
	ln -s $(CURDIR)/native/include $(@D)/source/native
	$(if $(filter weak,$*),native/tests/fires/weaken 'commit|release|lock|chunk' $(@D)/source/native/src,ln -s $(CURDIR)/native/src $(@D)/source/native)
	cd $(@D)/source && RINGPOST_SANITIZE=$(SANITIZER) $(CURDIR)/$(BIN)/python setup.py --quiet build --build-base .. --build-lib ../lib
	touch $@

# First that they see what they must.
.PHONY: sanitizers
sanitizers: build/asan/built build/tsan/built build/weak/built
	$(EXPECT) heap-buffer-overflow "reading behind a block" $(UNDER) asan $(BIN)/python tests/sanitize/overflow.py
	$(EXPECT) "data race" "sync points made relaxed" $(UNDER) weak $(BIN)/python tests/sanitize/traffic.py
	$(UNDER) tsan $(BIN)/python tests/sanitize/traffic.py

sanitize: sanitizers
	$(UNDER) asan $(PYTEST_UNDER) $(WHOLE) $(ARGS)
	$(UNDER) tsan $(PYTEST_UNDER) $(THREADS) $(ARGS)

sanitize-quick: sanitizers
	$(UNDER) asan $(PYTEST_UNDER) $(EDGES) $(ARGS)
	$(UNDER) tsan $(PYTEST_UNDER) $(FEW_THREADS) $(ARGS)

format: $(VENV)/.with-check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_FILES)

clean:
	$(MAKE) --no-print-directory -C native clean
	rm -rf $(VENV) build dist src/*.egg-info src/ringpost/_binding/_core.c
	find src -name '*.so' -delete
