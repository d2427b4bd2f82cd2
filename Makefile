# What a developer types. Every target makes the virtual environment that it needs: `python3`, its
# venv module and `make` are enough. The environment is renewed when pyproject.toml or setup.py changes.

PYTHON ?= python3
VENV ?= .venv
# Further arguments for pytest, such as `make test PYTEST_ARGS="-k returns -x"`.
PYTEST_ARGS ?=
# The test processes. More than two only help on a machine with the memory for as many TensorFlows.
WORKERS ?= 2

# How many random programs, of three or four calls of `train` each; one in two runs twice.
PROGRAMS ?= 200

# Further arguments for the benchmarks, such as `make bench BENCH_ARGS=--quick`.
BENCH_ARGS ?=
# Peers of the benchmarks with virtual environments of their own; nothing else needs them.
PEERS := jax sbx rlox
packages-jax := jax optax
packages-sbx := sbx-rl
packages-rlox := rlox

# Where `make demo` trains: a new directory each time, so that TensorBoard compares the runs.
RUN := runs/cartpole-$(shell date +%Y%m%d-%H%M%S)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
FAST := not slow and not learning and not interop

# TensorFlow's start-up lines say nothing about pgest.
export TF_CPP_MIN_LOG_LEVEL ?= 3
export TF_ENABLE_ONEDNN_OPTS ?= 0
# mkdocs-material announces its successor at each build.
export NO_MKDOCS_2_WARNING := 1

.DEFAULT_GOAL := help
.PHONY: help demo test slow learning interop programs peers lint format types docs docs-serve docs-version bench notebooks wheel check clean

help:  ## This list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.made:
	@echo "pgest: making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 10) <= sys.version_info < (3, 14) else \
	  "pgest needs Python 3.10 to 3.13, this is %d.%d: call make PYTHON=python3.12" % sys.version_info[:2])'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# One stamp for each set of extras, so that the demo does not wait for the tools of the tests.
$(VENV)/.installed: $(VENV)/.made pyproject.toml setup.py
	@echo "pgest: installing pgest and TensorFlow into $(VENV) (once; a few minutes)"
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "pgest: installing the tools for tests, lint and types"
	@$(PIP) install --editable '.[dev]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	@echo "pgest: installing the tools for the documentation"
	@$(PIP) install --editable '.[docs]'
	@touch $@

$(VENV)/.installed-peers: $(VENV)/.installed-dev
	@echo "pgest: installing the libraries that pgest is compared with (PyTorch among them)"
	@$(PIP) install --editable '.[dev,peers]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-peers
	@echo "pgest: installing EnvPool and MuJoCo"
	@$(PIP) install --editable '.[mujoco]'
	@$(PIP) install --editable '.[envpool]' || echo "pgest: no EnvPool for this Python; its row will say so"
	@touch $@

$(PEERS:%=.venvs/%/.installed): .venvs/%/.installed:
	@echo "pgest: installing the peer $* into .venvs/$*"
	@$(PYTHON) -m venv .venvs/$*
	@.venvs/$*/bin/python -m pip --disable-pip-version-check --quiet install $(packages-$*) \
	  || echo "pgest: no $* for this Python; its rows will say so"
	@touch $@

demo: $(VENV)/.installed  ## Train CartPole-v1, export the policy, play with it in a second process.
	@set -e; run=$(RUN); \
	$(BIN)/python .ci/quietly.py examples/cartpole.py --model-dir $$run; \
	printf '\nA second process, with TensorFlow and gymnasium but without pgest, plays with the export:\n'; \
	$(BIN)/python .ci/quietly.py examples/play_saved_policy.py $$run/export --episodes 5; \
	printf '\nWhere everything is\n'; \
	printf '  %-42s %s\n' "$$run" "checkpoints and TensorBoard files" "$$run/export" "the exported policy" \
	  examples/cartpole.py "the program that you have just seen"; \
	printf 'What to type next\n'; \
	printf '  # %s\n  %s\n' \
	  "look at the curves" "$(BIN)/tensorboard --logdir runs" \
	  "watch the cart in a window; it needs: $(BIN)/pip install 'gymnasium[classic-control]'" \
	  "$(BIN)/python examples/play_saved_policy.py $$run/export --render" \
	  "write a hook" "$(BIN)/python examples/custom_hook.py" \
	  "read on" "make docs"

test: $(VENV)/.installed-dev  ## The fast tests.
	@$(BIN)/python -m pytest -q -n $(WORKERS) -m "$(FAST)" $(PYTEST_ARGS)

slow: $(VENV)/.installed-dev  ## The slow tests.
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadgroup -m "slow and not learning and not interop" $(PYTEST_ARGS)

learning: $(VENV)/.installed-dev  ## The tests that train until something has been learnt.
	@$(BIN)/python -m pytest -q -n $(WORKERS) -m learning $(PYTEST_ARGS)

interop: $(VENV)/.installed-dev  ## The tests with other libraries, in environments of their own.
	@$(BIN)/python -m pytest -q -m interop $(PYTEST_ARGS)

programs: $(VENV)/.installed-dev  ## Random programs of training (long); PROGRAMS=20 looks first.
	@PGEST_PROGRAMS=$(PROGRAMS) $(BIN)/python -m pytest -q -s tests/agents/test_random_programs.py tests/agents/test_killed_programs.py $(PYTEST_ARGS)

peers: $(VENV)/.installed-peers  ## Install Stable-Baselines3, so that the comparisons run too.

lint: $(VENV)/.installed-dev  ## ruff: style, docstrings, complexity.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev  ## Let ruff write the format.
	@$(BIN)/ruff check --fix --select I .
	@$(BIN)/ruff format .

types: $(VENV)/.installed-dev  ## mypy on pgest/.
	@$(BIN)/mypy

docs: $(VENV)/.installed-docs  ## Build the documentation into site/; a broken link is an error.
	@$(BIN)/mkdocs build --strict --quiet
	@echo "Documentation: site/index.html"

docs-version: $(VENV)/.installed-docs  ## Commit the pages of this version to the branch gh-pages, beside those of others.
	@version=$$($(BIN)/python -c 'import re; print(re.search(r"__version__ = \"(\d+\.\d+)", open("pgest/__init__.py").read())[1])'); \
	export PATH="$(CURDIR)/$(BIN):$$PATH"; mike deploy --update-aliases $$version latest && mike set-default latest

notebooks: $(VENV)/.installed-dev $(VENV)/.installed-docs  ## Run the notebooks and store their outputs, which the pages show.
	@$(BIN)/python docs/building/notebooks.py

docs-serve: $(VENV)/.installed-docs  ## Show the documentation at localhost:8000 while you write.
	@$(BIN)/mkdocs serve

bench: $(VENV)/.installed-bench $(PEERS:%=.venvs/%/.installed)  ## The benchmarks (long); BENCH_ARGS=--quick looks first.
	@set -e; unset TF_ENABLE_ONEDNN_OPTS; \
	PGEST_TF_AGENTS_PYTHON=$${PGEST_TF_AGENTS_PYTHON:-$$($(BIN)/python tests/interop/own_environments.py tf-agents || true)}; \
	if [ -n "$$PGEST_TF_AGENTS_PYTHON" ]; then export PGEST_TF_AGENTS_PYTHON; else unset PGEST_TF_AGENTS_PYTHON; fi; \
	for program in collecting training_speed growth evaluation limits loop_profile checkpointing footprint; do \
	  echo "benchmarks/$$program.py"; $(BIN)/python -u benchmarks/$$program.py $(BENCH_ARGS); \
	done; \
	if [ -z "$(findstring --quick,$(BENCH_ARGS))" ]; then $(BIN)/python benchmarks/training_speed.py --learning; fi; \
	$(BIN)/python benchmarks/report.py

wheel: $(VENV)/.installed-dev  ## Build the wheel into dist/.
	@$(BIN)/python -m build --wheel --outdir dist . >/dev/null
	@ls dist/*.whl

check: lint types test docs  ## What must pass before a change is proposed.

clean:  ## Remove what the targets made, except the virtual environment.
	@rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
