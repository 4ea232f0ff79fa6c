"""``purge`` and ``sweep``: do the sweeper's work by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from signalbus.broker.publisher import PublishError
from signalbus.receiving.sweeping.due_publication import sweep
from signalbus.services.actors import command_actor
from signalbus.services.changes.delivery_changes import purge

if TYPE_CHECKING:
    from django.core.management.base import BaseCommand


def add(commands: Any) -> None:
    """Declare ``purge`` and ``sweep``."""
    purging = commands.add_parser("purge", help="delete what ended well, was skipped or discarded, and is old")
    purging.set_defaults(run=run_purge)
    purging.add_argument("--days", type=float, help="how old; without it, KEEP_SECONDS and KEEP decide")
    purging.add_argument("--reason", default="", metavar="TEXT", help="why; `log` shows it")
    sweeping = commands.add_parser("sweep", help="publish what is due now, as the sweeper in each worker does")
    sweeping.set_defaults(run=run_sweep)


def run_purge(command: BaseCommand, options: dict[str, Any]) -> None:
    """Delete old rows."""
    seconds = None if options["days"] is None else options["days"] * 86400
    purged = purge(actor=command_actor(), seconds=seconds, reason=options["reason"])
    command.stdout.write(f"{purged} deliveries purged.")


def run_sweep(command: BaseCommand, _options: dict[str, Any]) -> None:
    """Publish what is due."""
    command.stdout.write(f"{publish_due()} deliveries published.")


def publish_due() -> int:
    """Publish what is due, and return the number of deliveries.

    Raises:
        CommandError: the broker does not accept it.
    """
    try:
        return sweep()
    except PublishError as error:
        raise CommandError(str(error)) from error
