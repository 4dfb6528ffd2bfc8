# Every target sets up what it needs. The machine needs python3 (3.11 to 3.13), pip and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
BENCH  := .venv-bench
PIP    := $(BIN)/python -m pip --disable-pip-version-check
ARGS   ?=
RESULTS ?= benchmarks/results

.PHONY: help serve train test reliability fuzz bench wrk lint format clean
help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

serve: $(VENV)/.serve ## serve the newest model under models/ on port 8000
	exec $(BIN)/python -m app

train: $(VENV)/.train ## train and export the next version (flags: make train ARGS="--epochs 1")
	$(BIN)/python -m training $(ARGS)

test: $(VENV)/.dev ## run all tests except tests/reliability, in two processes
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

reliability: $(VENV)/.dev ## run the tests that load, kill and reload real server processes
	$(BIN)/python -m pytest tests/reliability $(ARGS)

fuzz: $(VENV)/.dev ## send damaged files for longer than `make reliability` (number of each kind: make fuzz FUZZ_EXAMPLES=5000)
	FUZZ_EXAMPLES=$(or $(FUZZ_EXAMPLES),5000) $(BIN)/python -m pytest tests/reliability/test_hostile.py $(ARGS)

bench: wrk $(BENCH)/.bench $(BENCH)/mlserver/.bench ## measure the service, its peers and the runtimes; needs wrk (short: make bench RESULTS=elsewhere ARGS="--rounds 1")
	$(BENCH)/bin/python -m benchmarks.serving --results $(RESULTS) $(ARGS)
	$(BENCH)/bin/python -m benchmarks.runtime --results $(RESULTS)

# Fails before gigabytes are installed.
wrk:
	@command -v wrk > /dev/null || { echo 'not installed: wrk' >&2; exit 1; }

lint: $(VENV)/.dev ## check style, types and known vulnerabilities
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@if $(BIN)/python -c 'import socket; socket.create_connection(("api.osv.dev", 443), 5)' 2>/dev/null; then \
		$(BIN)/pip-audit --vulnerability-service osv --disable-pip --no-deps --requirement constraints.txt; \
	else echo 'pip-audit skipped: its database is not reachable'; fi

format: $(VENV)/.dev ## fix style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) $(BENCH) .mypy_cache .pytest_cache .ruff_cache

# The extra `gpu` is `train` with CUDA's libraries: gigabytes that only machines with NVIDIA's driver need.
GPU_OR_TRAIN = $$(command -v nvidia-smi > /dev/null && echo gpu || echo train)

# Upgrade pip first: dependency groups need pip 25.1.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade --constraint constraints.txt pip

$(VENV)/.serve: $(BIN)/python pyproject.toml constraints.txt
	@echo 'Installing the service into $(VENV), once …'
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.train: $(BIN)/python pyproject.toml constraints.txt
	@echo 'Installing what training needs into $(VENV), once …'
	$(PIP) install --quiet --constraint constraints.txt --editable ".[$(GPU_OR_TRAIN),quantize]"
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	@echo 'Installing all dependencies into $(VENV), once …'
	$(PIP) install --quiet --constraint constraints.txt --editable '.[train,quantize,bulk]' --group dev
	touch $@

# Separate environments for the peers. The pins in the file $(1) override those in constraints.txt; $(2) is what to install.
define install_peers
	@echo 'Installing into $(@D), once …'
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check install --quiet --upgrade --constraint constraints.txt pip
	awk -F== 'NR == FNR {own[$$1]} NR == FNR || !($$1 in own)' $(1) constraints.txt > $(@D)/constraints.txt
	$(@D)/bin/python -m pip --disable-pip-version-check install --quiet --constraint $(@D)/constraints.txt $(2)
	touch $@
endef

$(BENCH)/.bench: pyproject.toml constraints.txt benchmarks/constraints.txt
	$(call install_peers,benchmarks/constraints.txt,--editable . --group bench)

$(BENCH)/mlserver/.bench: pyproject.toml constraints.txt benchmarks/mlserver-constraints.txt
	$(call install_peers,benchmarks/mlserver-constraints.txt,--group mlserver)
