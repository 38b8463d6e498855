# `make` lists what can be typed. The environments are made when something needs them and never a second time:
# stamp files in .venv are named after the content of what was installed; the converter's keeps a hash of its own.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SHELLFLAGS := -eu -c
.PHONY: help demo test test-changed test-large lint export convert bench readme upgrade-check env converter

MODEL ?= pocketseal
CHECKPOINT ?=
RANDOM_SEED ?=
MACHINE ?=
SINCE ?= HEAD

# 3.11 is the one the lock was tested with. Any of them serves where 3.11 is missing.
PYTHONS := python3.11 python3.12 python3.13 python3
PYTHON_MISSING := no Python 3.11 or newer: install python3.11 with its venv module, or run pyenv install 3.11
BIN := .venv/bin
checksum = $(shell cat $(1) | cksum | cut -d ' ' -f 1)
PACKAGES := .venv/.packages-$(call checksum,requirements/run.lock)
PROJECT := .venv/.project-$(call checksum,pyproject.toml)
PIP_INSTALL := bin/python -m pip -qq --disable-pip-version-check --no-input install
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input
SHIPPED := toolkit/bundles/pocketseal

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo '  MODEL=pocketseal, CHECKPOINT=FILE and RANDOM_SEED=N choose what export, convert and bench work on'
	@echo '  MACHINE=NAME keeps the figures of bench on a second machine beside those of the first'

demo: env  ## hide a message in a photograph and read it back with every backend and precision
	@$(MAKE) --no-print-directory export convert MODEL=pocketseal CHECKPOINT= RANDOM_SEED=
	@$(BIN)/python -m toolkit.demo build/pocketseal tests/images/coffee.jpg

test: env converter  ## the fast tests, in two processes
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal

test-changed: env converter  ## the tests of the files that differ from the last commit, or from SINCE=main
	@$(BIN)/python -m tests.changed $(SINCE) | xargs -r $(BIN)/python -m pytest -q

test-large: env converter  ## the tests that need many gigabytes or minutes
	@$(BIN)/python -m pytest -q -m large

lint: env  ## ruff, mypy --strict and the import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

export: env  ## a model's networks to ONNX, in build/MODEL
	@$(BIN)/toolkit export $(MODEL) -o build $(if $(CHECKPOINT),--checkpoint '$(CHECKPOINT)') $(if $(RANDOM_SEED),--random $(RANDOM_SEED))

convert: env converter  ## build/MODEL to TFLite and quantized files
	@$(BIN)/toolkit convert build/$(MODEL)

bench: env converter  ## build/MODEL, by both routes, beside what else could run it; to benchmarks/results
	@test -f build/$(MODEL)/detector.fp32.tf.tflite || $(BIN)/toolkit convert build/$(MODEL) --route tf
	@$(BIN)/toolkit bench build/$(MODEL) --peers --time-limit 300 --json benchmarks/results/bench-$(MODEL)$(if $(MACHINE),@$(MACHINE)).json

readme: env  ## the README's tables, the model card and LIMITS.md, from benchmarks/results
	@$(BIN)/python -m benchmarks.readme
	@$(BIN)/python -m training.card

upgrade-check: env  ## what the newest ONNX Runtime and LiteRT of the registry move in the shipped files
	@[ -d .venv-upgrade ] || $(BIN)/python -m venv .venv-upgrade
	@echo 'Installing the newest runtimes into .venv-upgrade ...' >&2
	@.venv-upgrade/$(PIP_INSTALL) $(shell grep -E '^(numpy|pillow|click|rich|setuptools|msgspec|platformdirs|psutil|py-cpuinfo)==' requirements/run.lock)
	@.venv-upgrade/$(PIP_INSTALL) --upgrade onnxruntime ai-edge-litert
	@.venv-upgrade/$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@mkdir -p build
	@$(BIN)/toolkit compare $(SHIPPED) --record build/upgrade-check.npz
	@.venv-upgrade/bin/toolkit compare $(SHIPPED) --against-record build/upgrade-check.npz --json build/upgrade-check.json

env: $(PROJECT)  ## the environment that runs and exports (.venv)

converter: $(PROJECT)  ## the environment that converts (.venv-convert)
	@$(if $(TOOLKIT_CONVERTER),,$(BIN)/toolkit setup-converter)

# An environment that was interrupted is made again from nothing; one whose lock changed is brought up to date.
$(PACKAGES):
	@if [ -e .venv/.unfinished ]; then rm -rf .venv; fi
	@if [ ! -d .venv ]; then \
	  for python in $(PYTHONS) ''; do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then break; fi; \
	  done; \
	  if [ -z "$$python" ]; then echo 'error: $(PYTHON_MISSING)' >&2; exit 1; fi; \
	  mkdir .venv; touch .venv/.unfinished; $$python -m venv .venv; \
	fi
	@touch .venv/.unfinished
	@echo 'Installing the tested versions into .venv (once, about a minute) ...' >&2
	@$(PIP) install -r requirements/run.lock
	@rm -f .venv/.packages-* .venv/.project-* .venv/.unfinished
	@touch $@

$(PROJECT): $(PACKAGES)
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@rm -f .venv/.project-*
	@touch $@
