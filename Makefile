# `make help` lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
COMPOSE := docker compose
PYTEST_ARGS ?=
# Processes that run tests side by side; 0 runs them in the order of their files, in one process.
WORKERS ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN); echo $$((cores > 4 ? 4 : cores)))
# Files and folders whose names and prose `make check` holds to the list of scripts/check_words.py.
PLAIN_WORDS = $(wildcard *.md */README.md) activator api autoscaler bench builder docs platform requirements samples scripts tests
export KNOLL_HTTP_PORT ?= 8080
export KNOLL_API_PORT ?= 8001

.PHONY: help setup engine images redis dnsmasq kubectl registry build up down logs demo test coverage check sanitizers docs docs-serve format bench bench-dataplane bench-floods bench-coldstart bench-build bench-scale bench-scale-cost bench-scale-rate bench-redis-failover bench-machines lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.installed ## the Python environment .venv: what the lock says, and Knoll itself, editable

.venv/.installed: requirements/dev.txt requirements/build.txt requirements/docs.txt pyproject.toml scripts/venv.sh $(wildcard autoscaler/runtime/docker/programs/*.*)
	@scripts/venv.sh
	@touch $@

engine: ## a running Docker Engine with Compose and Buildx; installed and started if there is none
	@scripts/engine.sh

images: engine ## the base images, or replacements from Debian packages where no registry can be reached
	@scripts/base-images.sh

redis dnsmasq nftables kubectl registry chromium qemu:
	@scripts/tools.sh $@

build: images ## the image `knoll`, which all processes run from
	@scripts/build.sh

up: build ## the platform, in containers, and wait until it is healthy
	@scripts/up.sh

down: ## stop the platform and remove what it made: containers, networks, volumes; the build cache stays
	@scripts/down.sh

logs: ## follow the logs of the platform's processes
	@$(COMPOSE) logs --follow --tail 50

demo: setup kubectl up ## all of the above, then the walkthrough, step by step
	@$(PYTHON) scripts/walkthrough.py

test: setup redis dnsmasq nftables registry chromium qemu images ## all tests; PYTEST_ARGS='tests/unit -k traffic' for some, WORKERS=0 for one process
	@scripts/base-images.sh node:22-slim
	@$(PYTHON) -m pytest --numprocesses $(WORKERS) $(PYTEST_ARGS)

# Tracing doubles the CPU time of the unit tests, so `make test` is not traced, and other tests are not measured.
coverage: setup ## the share of lines that the unit tests run; COVERAGE_ARGS='--cov-report=html' for details
	@$(PYTHON) -m pytest --quiet --numprocesses $(WORKERS) --cov --cov-report= $(COVERAGE_ARGS) tests/unit
	@total=$$($(PYTHON) -m coverage report --format=total) && printf 'coverage of the unit tests: %s %%\n' "$$total"

check: setup ## what a change must pass before its tests: style, types, who may import whom
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@$(PYTHON) scripts/check_words.py $(PLAIN_WORDS)
	@if command -v shellcheck >/dev/null; then shellcheck -x -P scripts scripts/*.sh scripts/standins/*.sh .ci/run; fi

sanitizers: setup ## tests of HTTP/2 with ngh2 built from source with AddressSanitizer and UBSan
	@scripts/sanitizers.sh

docs: setup ## the documentation as a site, in site/; warnings are errors
	@NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

docs-serve: setup ## the same at http://127.0.0.1:8000, built again with each change
	@NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs serve

format: setup ## put the code into the style that `check` asks for
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

bench: setup redis dnsmasq nftables images ## all of the following
	@scripts/tools.sh bench
	@$(PYTHON) -m bench $(BENCH_ARGS)

bench-dataplane: setup redis ## the data path alone; BENCH_ARGS='--only small,latency'
	@scripts/tools.sh bench
	@$(PYTHON) -m bench.dataplane $(BENCH_ARGS)

bench-floods: setup redis ## what floods of HTTP/2 frames cost, and other clients; BENCH_ARGS='--only ping,settings'
	@scripts/tools.sh bench
	@$(PYTHON) -m bench.floods $(BENCH_ARGS)

bench-coldstart: setup redis dnsmasq nftables images ## from zero, beside docker run; BENCH_ARGS='--rounds 30'
	@$(PYTHON) -m bench.coldstart $(BENCH_ARGS)

bench-build: setup redis dnsmasq images ## a second build, beside docker buildx build; memory of a large upload
	@$(PYTHON) -m bench.build $(BENCH_ARGS)

bench-scale: setup redis images ## many Services at zero: readiness, idle CPU, memory; BENCH_ARGS='--services 5000'
	@$(PYTHON) -m bench.scale $(BENCH_ARGS)

bench-scale-cost: setup redis images ## CPU time, writes and reconciliations of an applied Service, beside an earlier commit
	@$(PYTHON) -m bench.scale_cost $(BENCH_ARGS)

bench-scale-rate: setup redis images ## the highest rate of applies, beside an earlier commit, and what happens at twice that rate
	@$(PYTHON) -m bench.scale_rate $(BENCH_ARGS)

bench-redis-failover: setup redis ## fail-overs of a Redis with replicas, and what a write costs; the partitions need root
	@$(PYTHON) -m bench.redis_failover $(BENCH_ARGS)

bench-machines: setup engine redis dnsmasq nftables images ## three machines on this one, root only; BENCH_ARGS='--only remote,wake'
	@scripts/tools.sh bench
	@$(PYTHON) -m bench.machines $(BENCH_ARGS)

lock: setup ## regenerate requirements/*.txt from pyproject.toml; LOCK_ARGS=--upgrade for the newest versions
	@scripts/lock.sh $(LOCK_ARGS)

clean: ## `down`, and the build cache, the image, the Python environment and the built documentation too
	@scripts/down.sh --build-cache
	@docker image rm --force knoll >/dev/null 2>&1 || true
	@rm -rf .venv site
