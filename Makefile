# Commands of a working copy. Each may be run again, and makes what it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
ROOT := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
VENV := $(ROOT).venv
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: help install install-dev demo up down test test-extended test-slow check docs metrics generate bench lock clean

help: ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: ## Make .venv and install the locked packages.
	@$(ROOT)requirements/install.sh "$(PYTHON)" "$(VENV)" runtime

install-dev: ## The same, with what tests and checks need.
	@$(ROOT)requirements/install.sh "$(PYTHON)" "$(VENV)" dev

demo: install ## From a bare clone to rows the CRM confirmed, on a simulated company.
	@exec $(BIN)/stratum demo

up: install ## Start everything and leave it running; SCHEDULE=1 runs the ingests daily.
	@STRATUM_SCHEDULE=$(or $(SCHEDULE),0) $(BIN)/stratum up

down: install ## Stop everything.
	@$(BIN)/stratum down

test: install-dev ## All tests but the long ones.
	cd $(ROOT) && $(BIN)/pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder -m "not slow and not extended" tests

test-extended: install-dev ## What make test has no time for: sources that the demo does not use, long chains.
	cd $(ROOT) && $(BIN)/pytest -n $(WORKERS) --dist loadscope -m "extended and not slow" tests

test-slow: install-dev ## The long fault and race tests.
	cd $(ROOT) && $(BIN)/pytest -raP -m slow tests

check: install-dev ## Lint, format and types.
	cd $(ROOT) && $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	cd $(ROOT) && $(BIN)/sqlfluff lint --processes 2 --disable-progress-bar dbt_project/models dbt_project/tests
	cd $(ROOT) && $(BIN)/compose-lint check --quiet --no-env docker-compose.yml

docs: install ## Write what the models say of themselves as one page.
	@cd $(ROOT) && $(BIN)/python -m docs.generators.docs

metrics: install-dev ## Ask metrics: make metrics MF="query --metrics retention_90d --group-by metric_time__month".
	@cd $(ROOT) && $(BIN)/python -m docs.generators.mf $(or $(MF),list metrics)

generate: install-dev ## Write anew what is made from the models: metrics, exposures, lineage, portability.
	@cd $(ROOT) && for part in metrics exposures lineage portability; do \
	  printf '%s ... ' "$$part"; began=$$SECONDS; $(BIN)/python -m "docs.generators.$$part" || exit; \
	  echo "$$((SECONDS - began)) s"; done

bench: install ## Measure speed beside what the same work costs bare; SIZE=M is ten times as much as S; ONLY=daily one part.
	@cd $(ROOT) && $(BIN)/python -m benchmarks --size $(or $(SIZE),S) $(if $(ONLY),--only $(ONLY))

lock: install-dev ## Lock the versions in requirements/*.in anew, with hashes.
	cd $(ROOT)requirements && ./lock.sh "$(BIN)/uv"

clean: down ## Remove the virtual environment and all state, the warehouse included.
	rm -rf "$(VENV)" "$${STRATUM_HOME:-$(ROOT).stratum}"
