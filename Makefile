# The verbs. `make` alone lists them.
#
#   PYTHON=python3.12                    which Python makes .venv (3.11 or newer)
#   VENV_ARGS=--system-site-packages     use the torch that this Python already has
#   TORCH="torch==2.13.0 --index-url …"  which torch to install otherwise
#   ARGS="-k sampler -x"                 more arguments for pytest

PYTHON    ?= python3
VENV      ?= .venv
VENV_ARGS ?=
TORCH     ?=
ARGS      ?=
PROMPT    ?= a red circle moving right on a blue background
DEMO      ?= demo.mp4
NANO      ?= runs/nano/release

BIN        := $(VENV)/bin
PIP        := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c $(VENV)/constraints.txt
CORE       := packages/easyanimate-core
PACKAGES   := $(CORE) packages/easyanimate-control packages/easyanimate-train packages/easyanimate-ui
MANIFESTS  := $(PACKAGES:%=%/pyproject.toml)
# In one pip command, so that the packages' pins on each other find the folders beside them.
EDITABLE   := -e "$(CORE)[triton,testing]" -e "packages/easyanimate-control[preprocess]" \
              -e "packages/easyanimate-train[tensorboard]" -e packages/easyanimate-ui
# What builds the packages, installed once, so that pip needs no isolated (and online) build environment.
BUILD      := hatchling editables
TEST_TOOLS := build hypothesis import-linter mypy pytest pytest-timeout ruff

export TORCH
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check fmt fmt-check lint types layers schemas nano bench install clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.demo ## install what is needed and make a first video, demo.mp4
	$(BIN)/easyanimate generate "$(PROMPT)" --output $(DEMO) --scale 4 --overwrite
	@echo "The video is here: $(abspath $(DEMO))"

test: install ## install everything and run all tests
	$(BIN)/python -m pytest $(ARGS)

check: fmt-check lint types layers test ## everything that must hold before a commit

install: $(VENV)/.test ## install all four packages, editable, with the test tools

fmt: install ## format the code
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

fmt-check: install ## is the code formatted?
	$(BIN)/ruff format --check .

lint: install ## ruff
	$(BIN)/ruff check .

types: install ## mypy, strict
	$(BIN)/mypy

layers: install ## imports point down only
	$(BIN)/lint-imports --no-cache

schemas: install ## write docs/reference/schemas anew; the difference is for you to judge
	$(BIN)/python tools/schemas.py

nano: install ## train the embedded model anew into runs/nano; goes on where it stopped
	$(BIN)/easyanimate nano make $(ARGS)
	$(BIN)/easyanimate nano export $(NANO)

bench: install ## measure start-up, and the prompt following of the embedded model
	$(BIN)/python benchmarks/startup.py
	$(BIN)/easyanimate nano score $(ARGS)

clean: ## remove .venv, caches and build output
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find packages tests -name __pycache__ -prune -exec rm -rf {} +
	rm -rf $(PACKAGES:%=%/dist) $(PACKAGES:%=%/build)

# --- what the verbs stand on: stamps, so that a second call asks no network ---------------------------

$(VENV)/constraints.txt: constraints.txt tools/install_torch.py
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed, this is ' + sys.version.split()[0] + ': make PYTHON=python3.11')"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV_ARGS) $(VENV)
	@$(BIN)/python tools/install_torch.py constraints.txt $@

$(VENV)/.demo: $(VENV)/constraints.txt $(CORE)/pyproject.toml
	@echo "installing easyanimate-core (minutes the first time, nothing after)"
	@$(PIP) $(BUILD)
	@$(PIP) --no-build-isolation -e $(CORE)
	@touch $@

$(VENV)/.test: $(VENV)/constraints.txt $(MANIFESTS)
	@echo "installing all four packages and the test tools (minutes the first time, nothing after)"
	@$(PIP) $(BUILD)
	@$(PIP) --no-build-isolation $(EDITABLE) $(TEST_TOOLS)
	@touch $(VENV)/.demo $@
