# Every target first makes .venv with the pinned packages; nothing is done twice.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Test processes. More help little where there are more cores: the tests with Ray are one piece.
JOBS ?= 2
INSTALLED := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
# The study that the notebook is run on.
STUDY ?= demo/study.yaml
export OMP_NUM_THREADS ?= 1

.PHONY: install demo test test-slow test-numerics lint types contracts schema notebook constraints clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mixopt needs Python 3.11 or newer; say which with make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q --progress-bar off -c constraints.txt torch
	$(BIN)/python -m pip install --disable-pip-version-check -q --progress-bar off -c constraints.txt -e '.[dev]'
	@rm -f $(VENV)/.installed-* && touch $@

demo: install
	$(BIN)/mixopt demo demo

test: install lint types contracts
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --max-worker-restart 0

test-slow: install
	$(BIN)/python -m pytest -m slow

# OpenBLAS chooses its kernels, torch its vector instructions, by processor. Here each has its turn.
KERNELS := Haswell Zen $(shell grep -q avx512f /proc/cpuinfo 2>/dev/null && echo SkylakeX)
NUMERICS = $(BIN)/python -m pytest -m 'numerics and not slow'

test-numerics: install
	@test "$(filter SkylakeX,$(KERNELS))" || echo "skipped: SkylakeX kernels, for this processor has no AVX-512"
	set -e; for kernel in $(KERNELS); do for threads in 1 2; do \
	  echo "OPENBLAS_CORETYPE=$$kernel OMP_NUM_THREADS=$$threads"; \
	  OPENBLAS_CORETYPE=$$kernel OMP_NUM_THREADS=$$threads $(NUMERICS); done; done
	ATEN_CPU_CAPABILITY=avx2 $(NUMERICS)
	$(BIN)/python -m pytest -s -m 'numerics and slow'

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

contracts: install
	$(BIN)/lint-imports

schema: install
	$(BIN)/python -m pipelines.schema

# Its figures as pictures, which GitHub shows; they are drawn by a Chrome or Chromium.
notebook: install
	PLOTLY_RENDERER=png PYTHONWARNINGS=ignore MIXOPT_STUDY=$(abspath $(STUDY)) \
	  $(BIN)/jupytext --to notebook --execute -o notebooks/analysis.ipynb notebooks/analysis.py

constraints:
	(echo "# Versions tested together (Python 3.11, Linux x86-64). Made by: make constraints"; \
	  $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//') > constraints.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
