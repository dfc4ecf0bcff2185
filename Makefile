# make demo   set up, plan for this machine, train a small video diffusion model on its processor
# make test   set up and run every test
# make docs   build the documentation site into build/docs, without a network once it is set up
PYTHON ?= python3
VENV ?= .venv
DEMO ?= runs/demo
BIN := $(VENV)/bin
# The ranks share the machine's cores; the demo is two pipeline stages times two data ranks.
DEMO_RANKS := 4

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast lint docs examples clean

help:
	@sed -n 's/^# make/make/p' Makefile

$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,pretrained,test,docs,dev]'
	@touch $@ $(BIN)/.installed-docs

$(BIN)/.installed-demo: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train]'
	@touch $@

data/clips/.fetched: | $(BIN)/.installed-demo
	$(BIN)/python -m vdsgen.model.data.fetch_demo --out data/clips
	@touch $@

demo: $(BIN)/.installed-demo data/clips/.fetched
	rm -rf $(DEMO)
	$(BIN)/vdsgen calibrate --ranks $(DEMO_RANKS) --out $(DEMO)/calibration.yaml --lab $(DEMO)/lab.yaml
	$(BIN)/vdsgen generate examples/experiments/cpu-demo.yaml --lab $(DEMO)/lab.yaml --out $(DEMO)/plan
	$(BIN)/vdsgen launch $(DEMO)/plan --output $(DEMO)/run

# A file at a time on each of two cores. Slow tests start ranks, which wait for each other half of the time: two
# such files keep both cores busy.
test: $(BIN)/.installed
	$(BIN)/python -m pytest -m 'not slow' --numprocesses 2 --dist loadfile
	$(BIN)/python -m pytest -m slow --numprocesses 2 --dist loadfile

test-fast: $(BIN)/.installed
	$(BIN)/python -m pytest -m 'not slow' --numprocesses 2 --dist loadfile

lint: $(BIN)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(BIN)/.installed-docs: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

docs: $(BIN)/.installed-docs
	$(BIN)/python -m docs.site.build --out build/docs

# What is committed and generated: run after a change to planning, rendering or specs.
examples: $(BIN)/.installed
	$(BIN)/python -m vdsgen.spec.export_schemas
	$(BIN)/python -m vdsgen.rules.markdown > docs/rules.md
	$(BIN)/python -m vdsgen.spec.recipes.markdown > docs/recipes.md
	$(BIN)/python -m tests.update_examples
	$(BIN)/python -m tests.update_article
	$(BIN)/python -m vdsgen.report.memory_chart examples/rendered/article-1.5b@four-24gb docs/images/memory-1.5b.svg
	$(BIN)/python -m tests.update_docs
	$(BIN)/python -m tests.update_reliability
	$(BIN)/python -m tests.gpu_predictions
	$(BIN)/python -m tests.update_gpu

clean:
	rm -rf $(VENV) runs build dist .cache
