# Two commands on a fresh machine with Python 3.11+, venv and pip: `make demo` and `make test`.
# PYTHON= names another interpreter. One that already has torch 2.11-2.13 (a GPU build, say) lends it
# to the environment; otherwise torch $(TORCH) is installed.

TORCH := 2.13.0
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
  $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; \
  done)
HAS_TORCH := -c 'import sys, importlib.metadata as m; \
  v = tuple(int(x) for x in m.version("torch").split(".")[:2]); sys.exit(not (2, 11) <= v < (2, 14))'

.PHONY: demo test test-nightly test-gpu lint setup setup-asm setup-triton39 setup-browser clean

demo: $(VENV)/.installed
	$(BIN)/isobath generate --prompt "The json module" --max-tokens 128 --temperature 0.6 --seed 0

test: lint
	$(PYTEST)

test-nightly: lint setup-asm setup-triton39 setup-browser
	$(PYTEST) -m "not gpu"

# On a machine with a GPU; one process, since times and graphs do not share a device well.
test-gpu: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m gpu tests/gpu

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy

setup: $(VENV)/.installed-test

# Debian's or Ubuntu's LLVM 19: llvm-objdump, with which the emulator reads linked binaries, and llc and
# clang, with which its nightly tests compare it with this machine.
setup-asm: setup
	@{ command -v llvm-objdump-19 && command -v clang-19; } || \
	  { command -v llvm-objdump-22 && command -v clang-22; } || { \
	  command -v apt-get >/dev/null || { echo "make: no llvm-objdump-19 and no apt-get: install LLVM 19 or 22" >&2; exit 1; }; \
	  sudo=$$(test $$(id -u) = 0 || echo sudo); $$sudo apt-get update -qq && $$sudo apt-get install -qq -y llvm-19 clang-19; }

# Triton 3.9 in an environment of its own, for what is compiled and emulated with both versions.
setup-triton39: $(VENV)-triton39/.installed

$(VENV)-triton39/.installed: scripts/asm/triton39.sh $(VENV)/.installed-test
	scripts/asm/triton39.sh $(BIN)/python
	@touch $@

# Debian's Chromium, with which the nightly tests look at the status page.
setup-browser:
	@command -v chromium || command -v chromium-browser || { \
	  command -v apt-get >/dev/null || { echo "make: no chromium and no apt-get: install Chromium" >&2; exit 1; }; \
	  sudo=$$(test $$(id -u) = 0 || echo sudo); $$sudo apt-get update -qq && \
	  $$sudo apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core; }

clean:
	rm -rf $(VENV) $(VENV)-triton39 build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.installed: pyproject.toml Makefile
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11+ with venv found; name one: make PYTHON=..." >&2; exit 1; }
	@if $(PYTHON) $(HAS_TORCH) 2>/dev/null; then share=--system-site-packages; fi; \
	  test -x $(BIN)/python || $(PYTHON) -m venv $$share $(VENV)
	@$(BIN)/python $(HAS_TORCH) 2>/dev/null || { echo "installing torch $(TORCH)"; $(PIP) torch==$(TORCH); }
	@echo "installing isobath"; $(PIP) --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@echo "installing what the tests need"; $(PIP) --editable '.[test]'
	@touch $@
