# The project's commands; `make` alone lists them. Nothing here needs root, conda or a GPU.

EXPERIMENT ?= digits
JOBS ?=
DEVICE ?= auto
PROFILE ?= local
DRY ?=
PARTIAL ?=
ALL ?=
UNTIL ?=
BASE ?= HEAD
# The first Python on the path that the project supports.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export OMP_NUM_THREADS ?= 1
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help reproduce test test-full lint book pdf links notebooks results compare prove format lock clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "EXPERIMENT=$(EXPERIMENT)  one of: $(basename $(notdir $(wildcard experiments/*.yaml)))"
	@echo "JOBS=$(JOBS)  parallel runs (empty: one for each processor)  PROFILE=$(PROFILE)  $(notdir $(wildcard workflow/profiles/*))"
	@echo "DEVICE=$(DEVICE)  auto, cpu, cuda or cuda:N      DRY=1  only print what would run"
	@echo "UNTIL=train  stop after the training runs"

$(READY): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "needs Python 3.11 or 3.12 on the path (or PYTHON=/path/to/python)"; exit 1; }
	@test -x $(BIN)/python && $(BIN)/python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' \
		|| $(PYTHON) -m venv --clear $(VENV)
	@echo "installing the pinned environment into $(VENV) (some minutes the first time)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

reproduce: $(READY) ## train, attack, tabulate and build the book for EXPERIMENT, in build/
	@$(BIN)/python -m isce reproduce --experiment $(EXPERIMENT) --device $(DEVICE) --profile $(PROFILE) \
		$(if $(JOBS),--jobs $(JOBS)) $(if $(UNTIL),--until $(UNTIL)) $(if $(DRY),--dry-run)

# Side by side in two processes, each file in one of them.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile
# Tests that compute are run as on other processors, too: the libraries' ways of looking like them.
PROCESSORS := DNNL_MAX_CPU_ISA=SSE41 DNNL_MAX_CPU_ISA=AVX2 DNNL_MAX_CPU_ISA=AVX512_CORE DNNL_MAX_CPU_ISA=AVX512_CORE_VNNI
PROCESSORS += ATEN_CPU_CAPABILITY=default ATEN_CPU_CAPABILITY=avx2 OMP_NUM_THREADS=2
COMPUTE := $(addprefix tests/,attacks evaluation explain golden losses minmax) \
	$(addprefix tests/test_,adversarial.py evaluation.py plots.py models.py notebooks.py suites.py training.py)

test: lint ## lint, then the tests (minutes)
	$(PYTEST) -m "not full"

test-full: lint ## lint, then all tests, the long ones too, and those that compute as on other processors
	$(BIN)/python -m pytest
	set -e; for processor in $(PROCESSORS); do echo "== $$processor"; \
		env $$processor $(PYTEST) -m "not full" --quiet $(COMPUTE); done

# What people read.
SPELLED := README.md CHANGELOG.md Makefile book isce tests experiments notebooks benchmarks workflow

lint: $(READY) ## ruff, pyright and codespell
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/codespell $(SPELLED)

format: $(READY) ## let ruff format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

book: $(READY) ## render the book from the committed records, into book/_build/html
	@$(BIN)/python -m isce book --write-report --report build/committed --records results --out book

pdf: book ## print the book without its appendix into one PDF, book/_build/isce.pdf (needs Chromium or Chrome)
	@$(BIN)/python -m isce pdf

links: $(READY) ## check the book's links to other places (needs a network; those inside it every `make book` checks)
	@$(BIN)/python -m isce report --records results --out build/committed
	@$(BIN)/python -m isce links --report build/committed --records results --out build/links

notebooks: $(READY) ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab --notebook-dir notebooks

results: $(READY) ## make the records of EXPERIMENT in build/ the committed ones, in results/ (PARTIAL=1: those that are done)
	@$(BIN)/python -m isce adopt --experiment $(EXPERIMENT) $(if $(PARTIAL),--partial)

compare: $(READY) ## say whether the records of EXPERIMENT in build/ agree with the committed ones (ALL=1: every cell)
	@$(BIN)/python -m isce compare --experiment $(EXPERIMENT) $(if $(ALL),--all)

prove: $(READY) ## run EXPERIMENT by the code of commit BASE and by the code as it stands, and compare every byte
	@$(BIN)/python -m isce prove --base $(BASE) $(if $(filter command%,$(origin EXPERIMENT)),--experiment $(EXPERIMENT))

lock: ## write requirements.lock anew from pyproject.toml (newest versions that it allows)
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet "torch==2.13.0" "torchvision==0.28.0" -e ".[dev]"
	echo "# Every package of the environment, pinned. \`make lock\` writes this file from pyproject.toml; don't edit it by hand." > requirements.lock
	build/lock/bin/python -m pip freeze --exclude-editable --exclude nvidia --exclude triton | sed 's/+[a-z0-9]*$$//' \
		| grep -v -e '^nvidia-' -e '^triton==' >> requirements.lock

clean: ## remove everything that was made here: environment, runs, rendered book
	rm -rf $(VENV) build book/_build book/figures book/generated book/reference/api book/reference/attacks book/reference/losses .snakemake .pytest_cache .ruff_cache .hypothesis *.egg-info
