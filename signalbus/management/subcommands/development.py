"""The subcommand ``dev``: a broker and a worker for development, in one terminal."""

from __future__ import annotations

from argparse import SUPPRESS
from typing import TYPE_CHECKING, Any

from signalbus.management.dev import dev_worker, supervisor

if TYPE_CHECKING:
    from django.core.management.base import BaseCommand


def add(commands: Any) -> None:
    """Declare the subcommand.

    Args:
        commands: argparse's subparsers.
    """
    dev = commands.add_parser("dev", help="for development: a broker, and a worker that restarts when code changes")
    dev.add_argument("--concurrency", type=int, default=2, help="how many deliveries run at once (2)")
    dev.add_argument("--pool", default="prefork", help="Celery's name of the worker's pool (prefork)")
    dev.add_argument("--force", action="store_true", help="run although DEBUG is False")
    dev.add_argument("--worker", type=int, help=SUPPRESS)  # the process that it starts
    dev.set_defaults(run=_dev, skip_checks=True)  # the worker runs the checks each time that it starts


def _dev(command: BaseCommand, options: dict[str, Any]) -> None:
    if options["worker"] is not None:
        dev_worker.run(command, options["worker"], options["pool"], options["concurrency"])
        return

    def write(text: str) -> None:
        command.stdout.write(command.style.MIGRATE_HEADING(text))
        command.stdout.flush()

    supervisor.supervise(write, force=options["force"])
