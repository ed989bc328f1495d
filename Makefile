# Two commands matter: `make demo` (the whole fleet in containers here) and `make test` (the gate CI runs).
# Both prepare what they need: .venv from locked requirements, and a container engine if none runs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
export PATH := $(BIN):$(PATH)
export PYTHONDONTWRITEBYTECODE := 1
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

.PHONY: help venv demo demo-down test test-full lint sanity unit cores molecule bench docs site changelog lock clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(VENV)/.ready  ## Make .venv from the locked requirements

$(VENV)/.ready: .config/requirements.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11 or newer"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: set PYTHON=python3.11"; exit 1; }
	@echo "==> .venv from .config/requirements.txt (about a minute the first time)"
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { [ "$$(id -u)" != 0 ] || { apt-get update -q && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -q python3-venv; } >/dev/null 2>&1; }
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .config/requirements.txt
	@touch $@

demo: venv  ## Build the lab and run site.yml on it
	@$(BIN)/python tests/lab/demo.py up

demo-down:  ## Take the lab away again (KEEP_IMAGES=1: keep its images and caches for the next time)
	@$(PYTHON) tests/lab/demo.py down $(if $(KEEP_IMAGES),,--images)

test: venv  ## The gate: lint, types, units, one scenario per role, the whole lab
	@$(BIN)/python tests/run.py gate

test-full: venv  ## The gate and everything that takes longer
	@$(BIN)/python tests/run.py full

lint: venv  ## yamllint, ansible-lint, shellcheck, ruff, mypy
	@$(BIN)/python tests/run.py lint

sanity: venv  ## ansible-test sanity on what is shipped
	@$(BIN)/python tests/run.py sanity

unit: venv  ## Unit and property tests
	@$(BIN)/python tests/run.py unit

cores: venv  ## Lint, sanity, units, a scenario on the oldest and the newest ansible-core (part of test-full)
	@$(BIN)/python tests/run.py cores

molecule: venv  ## One scenario: make molecule SCENARIO=ssh_server
	@[ -n "$(SCENARIO)" ] || { echo "Say which: make molecule SCENARIO=<one of: $$(ls -d molecule/*/molecule.yml | cut -d/ -f2 | tr '\n' ' ')>"; exit 2; }
	@$(BIN)/python tests/run.py molecule $(SCENARIO)

bench: venv  ## How fast ssh is with our configuration, and what runs cost (PARTS="render runs site gpu workspaces latency copy heal")
	@$(BIN)/python -m bench.run $(PARTS)

docs: venv  ## Write the generated parts of the documentation again (each role's variables)
	@$(BIN)/python tests/role_docs.py
	@$(BIN)/python tests/attack_table.py

site: venv  ## The documentation as a small site, in .cache/site/html
	@$(BIN)/python tests/docs_site.py

changelog: venv  ## Move changelogs/fragments into CHANGELOG.md, for the version in galaxy.yml
	@$(BIN)/antsibull-changelog release --update-existing --reload-plugins

lock: venv  ## Resolve .config/requirements.in again, with hashes
	@$(PYTHON) -m venv --clear .cache/lock && .cache/lock/bin/pip install --quiet pip-tools==7.6.2
	@.cache/lock/bin/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o .config/requirements.txt .config/requirements.in

clean: demo-down  ## Remove everything made here: the lab, its images, .venv, caches
	@rm -rf $(VENV) .cache .ansible .mypy_cache .ruff_cache .pytest_cache .hypothesis tests/output
