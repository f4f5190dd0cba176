# Set-up and the two commands of the README: `make demo` and `make test`. Everything lives in .venv and .build.

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml README.md $(shell find dirnet_convert kernels recipes -type f -not -name '*.pyc' 2>/dev/null)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# What the machine has lying about must not be imported in place of what is installed here.
unexport PYTHONPATH

.PHONY: demo test test-python test-kernels test-sanitizers test-arm64 wheels lint format clean

demo: $(VENV)/.demo
	$(BIN)/dirnet demo

test: test-kernels test-arm64 test-python

# JOBS processes of one thread each share the files. OpenVINO in a process of its own: with its threads in it, a long
# run of other tests can crash.
test-python: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(JOBS) --dist loadgroup -m 'not openvino'
	$(BIN)/pytest -m openvino

test-kernels: $(VENV)/.test
	$(BIN)/cmake -G Ninja -S kernels -B .build/kernels -DCMAKE_MAKE_PROGRAM="$$PWD/$(BIN)/ninja" -DDIRNET_BUILD_TESTS=ON
	$(BIN)/cmake --build .build/kernels
	$(BIN)/ctest --test-dir .build/kernels --output-on-failure

# The same tests with every memory access and every undefined operation checked.
test-sanitizers: $(VENV)/.test
	$(BIN)/cmake -G Ninja -S kernels -B .build/sanitizers -DCMAKE_MAKE_PROGRAM="$$PWD/$(BIN)/ninja" -DDIRNET_BUILD_TESTS=ON -DDIRNET_SANITIZE=ON
	$(BIN)/cmake --build .build/sanitizers --target kernel_tests
	$(BIN)/ctest --test-dir .build/sanitizers --output-on-failure --exclude-regex 'isa_objects|_on_'

# The NEON kernels under an emulator; says what is missing, and fails only where CI must have it.
test-arm64: $(VENV)/.test
	PATH="$$PWD/$(BIN):$$PATH" kernels/tests/run_aarch64.sh .build/aarch64 || \
	  { code=$$?; [ $$code -eq 3 ] && [ -z "$$CI" ] || exit $$code; }

# Wheels for Linux, x86-64 and arm64, in dist/; each is tagged as auditwheel finds it, and tried.
wheels: $(VENV)/.wheels
	PATH="$$PWD/$(BIN):$$PATH" $(BIN)/python kernels/wheels/wheels.py dist

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	find kernels -name '*.cc' -o -name '*.h' | xargs $(BIN)/clang-format --dry-run --Werror

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find kernels -name '*.cc' -o -name '*.h' | xargs $(BIN)/clang-format -i

clean:
	rm -rf $(VENV) .build

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Missing: Python 3.11 or newer as '$(PYTHON)'. Install it, or run: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Missing: Python's venv module (Debian and Ubuntu: apt install python3-venv)."; exit 1; }
	@command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || \
	  { echo "Missing: a C++17 compiler (Debian and Ubuntu: apt install g++)."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet '.[demo]'
	@touch $@

$(VENV)/.test: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet '.[demo,detect,test,bench,tensorboard]'
	@touch $@ $(VENV)/.demo

$(VENV)/.wheels: $(VENV)/.test
	$(BIN)/python -m pip install --quiet auditwheel wheel
	@touch $@

$(VENV)/.lint: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet $$($(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['lint'])")
	@touch $@
