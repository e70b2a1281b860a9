# Everything a person or CI runs. `make help` lists the targets.

PYTHON ?= python3
WORKERS ?= 3
MINUTES ?= 10
DATABASE ?= postgresql
ROUNDS ?= 1000
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := .venv-peers
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# The lock names everything that is needed, and a module is compiled when it is first imported: half the time.
LOCKED := --no-deps --no-compile -r

# What is imported is compiled once, whatever the environment says: without that, each of the processes that tests start
# compiles every library anew, which is more than half of what they do.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test lint chaos bench races screenshots format lock clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

run: $(READY) ## set up, then run the daemon and the web interface
	$(BIN)/lifecycle up

test: lint ## lint, then run every test
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: $(READY) ## check the format, the style, the types and the layers
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

chaos: $(READY) ## kill, stop and cut off runners for MINUTES=10 on DATABASE=postgresql, and check what was promised
	$(BIN)/python -m tests.chaos.harness --minutes $(MINUTES) --database $(DATABASE)

bench: $(PEERS)/.ready ## measure beside the floor and our peers in some 10 minutes, and write docs/benchmarks.md
	$(PEERS)/bin/python -m benchmarks --write

races: $(PEERS)/.ready ## race ROUNDS=1000 stale writes against us and our peers, and write docs/races.md
	$(PEERS)/bin/python -m benchmarks.races --rounds $(ROUNDS) --write

screenshots: $(READY) ## take the pictures of the dashboard in docs/images, with Debian's chromium
	$(BIN)/python -m tests.acceptance.screenshots

format: $(READY) ## format the code and fix what can be fixed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

lock: $(READY) ## choose the newest versions of all dependencies into requirements.txt
	$(PIP) install uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --group dev \
		--no-emit-index-url --no-emit-find-links --no-header --no-annotate --output-file requirements.txt pyproject.toml
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
		--extra postgres --extra mysql --extra valkey --extra web \
		--no-emit-index-url --no-emit-find-links --no-header --no-annotate \
		--output-file benchmarks/peers-requirements.txt pyproject.toml benchmarks/peers.in

clean: ## remove what was built or installed
	rm -rf $(VENV) $(PEERS) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The locked versions hold the build tool too, so that nothing is chosen at the time of installing.
$(READY): requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install $(LOCKED) requirements.txt
	$(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@

# The peers stay out of everything else: in an environment of their own, with versions of their own.
$(PEERS)/.ready: benchmarks/peers-requirements.txt pyproject.toml
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip --disable-pip-version-check --quiet install $(LOCKED) benchmarks/peers-requirements.txt
	$(PEERS)/bin/python -m pip --disable-pip-version-check --quiet install --no-build-isolation --no-deps --editable .
	@touch $@
