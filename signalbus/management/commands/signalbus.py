"""``manage.py signalbus``: see what happens to messages, and change it.

The modules of `signalbus.management.subcommands` declare and run the subcommands.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from signalbus.exceptions import ConfigurationError
from signalbus.ledger import operations as ledger
from signalbus.management.subcommands import (
    auditing,
    development,
    diagnosing,
    graphing,
    maintenance,
    metrics,
    monitoring_check,
    pause_and_resume,
    status,
    workers_and_runs,
)
from signalbus.management.subcommands.contracts import gating, schema_files, signals_listing
from signalbus.management.subcommands.deliveries import (
    bulk,
    failed,
    inspecting,
    rehearsing,
    retry_and_discard,
    tailing,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MODULES = (
    failed,
    inspecting,
    graphing,
    signals_listing,
    schema_files,
    gating,
    rehearsing,
    retry_and_discard,
    bulk,
    pause_and_resume,
    auditing,
    monitoring_check,
    metrics,
    maintenance,
    status,
    tailing,
    workers_and_runs,
    diagnosing,
    development,
)


class Command(BaseCommand):
    """See what happens to messages, and change it."""

    help = (
        "Shows signals, messages, failures, queues and workers; retries, discards and pauses deliveries; audits the "
        "ledger, judges the set-up, and runs a worker for development."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the sub-commands."""
        commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
        for module in MODULES:
            module.add(commands)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run a sub-command."""
        run: Callable[[BaseCommand, dict[str, Any]], None] = options["run"]
        try:
            run(self, options)
            self.stdout.flush()
        except BrokenPipeError:
            # Whoever read it has seen enough, as `head`. Python would flush what is left when it ends, and complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            remedy = ledger.missing()
            if remedy is None:
                raise
            raise CommandError(remedy) from error
