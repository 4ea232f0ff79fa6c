"""``manage.py signalbus``: see what happens to messages, and change it.

The modules of `signalbus.management.subcommands` declare and run the subcommands.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from signalbus.exceptions import ConfigurationError
from signalbus.ledger import operations as ledger

if TYPE_CHECKING:
    from collections.abc import Callable

# The subcommands, in the order of the help, by the modules of `subcommands` that declare them.
DECLARED_BY: Final[dict[str, tuple[str, ...]]] = {
    "deliveries.failed": ("failed",),
    "deliveries.inspecting": ("list", "explain", "show", "history", "trace"),
    "graphing": ("graph",),
    "contracts.signals_listing": ("signals",),
    "contracts.schema_files": ("schema",),
    "contracts.gating": ("in-flight",),
    "deliveries.rehearsing": ("rehearse",),
    "deliveries.retry_and_discard": ("retry", "discard"),
    "deliveries.bulk": ("operations",),
    "pause_and_resume": ("pause", "resume", "log"),
    "auditing": ("audit",),
    "monitoring_check": ("check",),
    "metrics": ("metrics",),
    "maintenance": ("purge", "sweep"),
    "status": ("status",),
    "deliveries.tailing": ("tail",),
    "workers_and_runs": ("running",),
    "diagnosing": ("doctor",),
    "development": ("dev",),
}


class Command(BaseCommand):
    """See what happens to messages, and change it."""

    help = (
        "Shows signals, messages, failures, queues and workers; retries, discards and pauses deliveries; audits the "
        "ledger, judges the set-up, and runs a worker for development."
    )

    _named: str | None = None  # the subcommand on the command line

    def run_from_argv(self, argv: list[str]) -> None:
        """Run the command line; of the subcommands, only the named one is imported: it starts sooner.

        Args:
            argv: the words of the command line; the first two are the program and this command.
        """
        self._named = argv[2] if len(argv) > 2 else None  # noqa: PLR2004 - as above
        super().run_from_argv(argv)

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the subcommands: the named one, or all of them for a help, a misspelt name and ``call_command``."""
        commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
        named = [module for module, names in DECLARED_BY.items() if self._named in names]
        for module in named or DECLARED_BY:
            import_module(f"signalbus.management.subcommands.{module}").add(commands)

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
