# `make demo` and `make test` each do all the set-up they need on a machine with Python 3.10 or newer, gcc and make.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/pip --disable-pip-version-check --quiet
TORCH := torch==2.13.0
# What an installed package is built from, but for what an editable one finds in its place.
PACKAGE := pyproject.toml setup.py src/b10_transfer/local/bulk/_native.c
BENCH = $(VENV)/bin/python benchmarks/suite.py --peer $(VENV)/peer/bin/python --vllm $(VENV)/vllm/bin/python \
	--frameworks $(VENV)/frameworks/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo test test-benchmarks test-instant test-matrix test-matrix-quick dist test-nfs test-nfs-v3 test-nfs-v4.2 test-s3 test-vllm test-vllm-quick test-frameworks test-frameworks-quick sanitize hammer fuzz lint format docs bench bench-quick bench-page bench-vllm bench-frameworks clean

help:
	@echo "make demo    compile a transformer cold, save, and start it warm and instantly in other processes"
	@echo "make test    every test, with real torch and real Triton"
	@echo "make test-benchmarks  tests of the benchmarks"
	@echo "make test-instant  the test matrix of instant starts, which compiles many models"
	@echo "make test-vllm  tests with the real vLLM server, in an environment of their own"
	@echo "make test-vllm-quick  the most telling of them"
	@echo "make test-frameworks  tests with real diffusers, transformers, peft, torchao and Truss, in environments of their own"
	@echo "make test-frameworks-quick  the models of them that compile in seconds"
	@echo "make test-nfs  tests on real NFS, v3 and v4.2, in a guest each (Debian, root)"
	@echo "make test-s3   the tests that need a real S3, with a Ceph of their own (Debian, root)"
	@echo "make test-matrix  torch 2.6 to the newest, and every Python, each in an environment of its own; writes docs/compatibility.md"
	@echo "make test-matrix-quick  torch 2.8 and the newest"
	@echo "make dist    the sources and two wheels in dist/, the same bytes for the same commit"
	@echo "make sanitize  tests of the module in C with gcc's address and undefined-behaviour sanitizers"
	@echo "make hammer  load, save, compact and prune one store from eight processes, for a minute with locks and one without"
	@echo "make fuzz    look for inputs that break the reader of packs (INPUTS=100000, Python 3.11 to 3.13)"
	@echo "make lint    ruff, mypy, import-linter, generated docs up to date"
	@echo "make format  let ruff rewrite the sources"
	@echo "make docs    write the generated parts of docs/"
	@echo "make bench   every benchmark, against the published b10-transfer 0.4.1, tar, cp and PyTorch's mega-cache"
	@echo "make bench-quick  the same in five minutes, with smaller sizes"
	@echo "make bench-page   docs/benchmarks.md and the README's figures from benchmarks/results/"
	@echo "make bench-vllm  restarts of the real vLLM server: cold, warm, restored"
	@echo "make bench-frameworks  models of diffusers and transformers: cold, warm, instant"
	@echo "make clean   remove what the other targets have made"

demo: $(VENV)/test-ready
	$(VENV)/bin/python examples/demo.py

# Many tests wait for processes and disks rather than compute: more of them at once than there are cores.
# Those of instant starts import torch and patch it, which other tests must not find done: they have a process of their own.
WORKERS := 4
test: $(VENV)/test-ready
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal --ignore=tests/instant --ignore=tests/benchmarks \
		--ignore=tests/unit/instant
	$(VENV)/bin/python -m pytest tests/unit/instant

test-benchmarks: $(VENV)/bench-ready
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal tests/benchmarks

# The tests of a file look at the same pods, which start one after the other: a worker takes a whole file.
test-instant: $(VENV)/test-ready
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile tests/instant

# torch, vLLM and a second venv: 1.5 GB. The tests start the server 20 times, two at once; half a minute each, alone.
test-vllm: $(VENV)/vllm-ready
	$(VENV)/vllm/bin/python -m pytest -n 2 tests/vllm

# Of those, eight starts: both set-ups, both ways, a store that cannot be reached, `warm`.
test-vllm-quick: $(VENV)/vllm-ready
	$(VENV)/vllm/bin/python -m pytest -n 2 tests/vllm \
		-k '(run-stock or background-gpu_mode or cannot_be_reached or verified_store) and not another_workload'

# torch and the frameworks: 1.5 GB of packages, models of some kilobytes.
test-frameworks: $(VENV)/frameworks-ready $(VENV)/truss-ready
	$(VENV)/frameworks/bin/python -m pytest tests/frameworks
	$(VENV)/truss/bin/python -m pytest tests/frameworks/test_truss.py

# Of those, models that compile in seconds.
test-frameworks-quick: $(VENV)/frameworks-ready
	$(VENV)/frameworks/bin/python -m pytest tests/frameworks -k 'encoder or vit'

# A guest has one processor: each version has a guest of its own. The first boot installs what they need.
test-nfs: $(VENV)/test-ready
	$(VENV)/bin/python tests/nfs/boot.py true
	$(MAKE) --jobs=2 --output-sync=target test-nfs-v3 test-nfs-v4.2

# The guest sees this machine's files read-only, and its own /tmp is small.
test-nfs-v3 test-nfs-v4.2: test-nfs-%: $(VENV)/test-ready
	$(VENV)/bin/python tests/nfs/boot.py --timeout 2400 $(VENV)/bin/python -m pytest \
		-p no:cacheprovider -o tmp_path_retention_policy=failed --store-on /mnt/$* \
		tests/nfs tests/contract tests/concurrency

test-s3: $(VENV)/test-ready
	$(VENV)/bin/python -m tests.s3

# The module in C once more, with gcc's sanitizers, in a copy of the package.
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined
sanitize: $(VENV)/test-ready
	rm -rf build/sanitize && mkdir -p build/sanitize && cp -r src/b10_transfer tests/unit/local/test_bulk.py build/sanitize
	cd build/sanitize && gcc -g -O1 $(SANITIZE) -shared -fPIC b10_transfer/local/bulk/_native.c -o b10_transfer/local/bulk/_native.abi3.so \
		$$($(CURDIR)/$(VENV)/bin/python -c 'import sysconfig; print("-I" + sysconfig.get_paths()["include"])')
	cd build/sanitize && LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=.:$(CURDIR) $(CURDIR)/$(VENV)/bin/python -m pytest -q -p no:cacheprovider -k 'not leaks' test_bulk.py

# Each release of torch is five gigabytes. 10 minutes for each; the environments are removed again.
test-matrix: dist
	$(VENV)/bin/python -m tests.versions --write

test-matrix-quick: $(VENV)/test-ready
	$(VENV)/bin/python -m tests.versions --skip-missing --torch 2.8.0 --torch newest

dist: $(VENV)/dist-ready
	$(VENV)/bin/python tools/build_dist.py

hammer: $(VENV)/test-ready
	B10_HAMMER_SECONDS=60 B10_HOSTILE_STEPS=10000 $(VENV)/bin/python -m pytest -s --timeout 3600 tests/concurrency/test_hammer.py \
		tests/security/test_hostile_writer.py tests/security/test_limits_of_a_load.py

# What is found new is kept in $(VENV)/fuzz from run to run; what breaks something is written there as crash-….
INPUTS := 100000
fuzz: $(VENV)/fuzz-ready
	for target in pack signature settings commands; do mkdir -p $(VENV)/fuzz/$$target && $(VENV)/bin/python -m tests.fuzz.engine \
		$$target $(VENV)/fuzz/$$target tests/fuzz/corpus/$$target -runs=$(INPUTS) -artifact_prefix=$(VENV)/fuzz/ \
		|| exit 1; done

lint: $(VENV)/lint-ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python tools/generate_docs.py --check

format: $(VENV)/lint-ready
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs: $(VENV)/test-ready
	$(VENV)/bin/python tools/generate_docs.py

# All that this machine can run, or ONLY=load,fleet. The names: python benchmarks/suite.py --help
bench: $(VENV)/bench-ready $(VENV)/peer-ready
	$(BENCH) $(if $(ONLY),--only $(ONLY))

# Into OUT, or a new folder in TMPDIR: nothing in the repository changes.
bench-quick: $(VENV)/bench-ready $(VENV)/peer-ready
	$(BENCH) --quick $(if $(ONLY),--only $(ONLY)) $(if $(OUT),--out $(OUT))

# The real vLLM server: 1.5 GB of packages, and minutes for each round.
bench-vllm: $(VENV)/bench-ready $(VENV)/peer-ready $(VENV)/vllm-ready
	$(BENCH) --only vllm

# Real diffusers, transformers and torchao: 1.5 GB of packages, ten minutes.
bench-frameworks: $(VENV)/bench-ready $(VENV)/peer-ready $(VENV)/frameworks-ready
	$(BENCH) --only frameworks

# The page, its plots and the README's figures.
bench-page: $(VENV)/bench-ready
	$(VENV)/bin/python benchmarks/page.py

# torch first, by its exact version: our own dependencies must find it there and leave it alone.
$(VENV)/test-ready: $(PACKAGE)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip
	$(PIP) install $(TORCH)
	$(PIP) install --editable '.[test]'
	@touch $@

$(VENV)/lint-ready: $(VENV)/test-ready
	$(PIP) install --editable '.[lint]'
	@touch $@

$(VENV)/dist-ready: $(VENV)/test-ready
	$(PIP) install --editable '.[dist]'
	@touch $@

$(VENV)/fuzz-ready: $(VENV)/test-ready
	$(PIP) install 'atheris>=3.0'
	@touch $@

$(VENV)/bench-ready: $(VENV)/test-ready
	$(PIP) install --editable '.[bench]'
	@touch $@

# The published package imports torch and has our name: it gets an environment of its own.
$(VENV)/peer-ready: $(VENV)/test-ready
	$(PYTHON) -m venv $(VENV)/peer
	$(VENV)/peer/bin/pip --disable-pip-version-check --quiet install --upgrade pip
	$(VENV)/peer/bin/pip --disable-pip-version-check --quiet install $(TORCH)
	$(VENV)/peer/bin/pip --disable-pip-version-check --quiet install b10-transfer==0.4.1
	@touch $@

$(VENV)/vllm-ready: $(PACKAGE) tests/vllm/install.py tests/vllm/plugin/pyproject.toml tests/vllm/plugin/b10_test_compile_mode.py
	$(PYTHON) -m venv $(VENV)/vllm
	$(VENV)/vllm/bin/python tests/vllm/install.py $(TORCH)
	@touch $@

FLUX := diffusers==0.42.1 'transformers==5.24.*' accelerate sentencepiece protobuf
FRAMEWORKS := $(FLUX) peft torchao
$(VENV)/frameworks-ready: $(PACKAGE)
	$(PYTHON) -m venv $(VENV)/frameworks
	$(VENV)/frameworks/bin/pip --disable-pip-version-check --quiet install --upgrade pip
	$(VENV)/frameworks/bin/pip --disable-pip-version-check --quiet install $(TORCH)
	$(VENV)/frameworks/bin/pip --disable-pip-version-check --quiet install $(FRAMEWORKS)
	$(VENV)/frameworks/bin/pip --disable-pip-version-check --quiet install --editable '.[test]'
	@touch $@

# Truss's own server, with the packages that its image has. Its list names an index; pip's own settings hold instead.
$(VENV)/truss-ready: $(PACKAGE)
	$(PYTHON) -m venv $(VENV)/truss
	$(VENV)/truss/bin/pip --disable-pip-version-check --quiet install --upgrade pip
	$(VENV)/truss/bin/pip --disable-pip-version-check --quiet install $(TORCH) truss==0.18.36
	grep -v '^-i' $(VENV)/truss/lib/python3*/site-packages/truss/templates/server/requirements.txt > $(VENV)/truss/server.txt
	$(VENV)/truss/bin/pip --disable-pip-version-check --quiet install --requirement $(VENV)/truss/server.txt
	$(VENV)/truss/bin/pip --disable-pip-version-check --quiet install $(FLUX)
	$(VENV)/truss/bin/pip --disable-pip-version-check --quiet install --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) build src/*.egg-info src/b10_transfer/local/bulk/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
