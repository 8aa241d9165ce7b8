# Two commands do everything on a machine with python3 (3.11 or newer), its venv module, git and make:
#   make run    makes .venv, installs the pinned packages and runs the demonstration series into runs/demo
#   make test   does the same set-up and runs all checks and tests
# make run INPUT=/path/to/lights RUN_ID=m31 runs your own lights.

PYTHON ?= python3
CORES ?= all
INPUT ?=
RUN_ID ?=
UV := uv==0.13.9
BIN := .venv/bin

.PHONY: run test lint lock setup slurm docs benchmark acceptance

run: .venv/ready
	@if [ -n "$(INPUT)" ] && [ -z "$(RUN_ID)" ]; then \
		echo "make run INPUT=... also needs RUN_ID=name: the results go to runs/name" >&2; exit 2; fi
	$(BIN)/snakemake --cores $(CORES) --config run_id="$(or $(RUN_ID),demo)" $(if $(INPUT),'input=["$(INPUT)"]')

test: .venv/ready lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

setup: .venv/ready

# What profiles/slurm needs on the machine that submits, and on the nodes where they do not share .venv.
slurm: .venv/ready
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements-slurm.lock

docs: .venv/ready
	$(BIN)/python docs/make_configuration.py > docs/configuration.md

# Registration on made-up lists and frames; whole runs on three series beside the peers. An hour or two.
benchmark: .venv/ready
	$(BIN)/python tests/benchmarks/registration.py
	$(BIN)/python tests/benchmarks/speed.py

# Efficiency, photometry, seams and rejection against simulated truth at full size; hours.
acceptance: .venv/ready
	$(BIN)/python tests/acceptance/suite.py

.venv/ready: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit("Tilestack needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV)
	UV_COMPILE_BYTECODE=1 $(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	touch $@

# New pins from the ranges in pyproject.toml; names and versions only.
lock: .venv/ready
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
		--no-emit-find-links --group test --output-file requirements.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
		--no-emit-find-links --group slurm --constraint requirements.lock --output-file requirements-slurm.lock pyproject.toml
