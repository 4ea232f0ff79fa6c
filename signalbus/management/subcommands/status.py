"""``status``: say of each queue what waits and whether a worker consumes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from signalbus.management import status_report
from signalbus.management.watching import add_watch

if TYPE_CHECKING:
    from django.core.management.base import BaseCommand


def add(commands: Any) -> None:
    """Declare ``status``."""
    status = commands.add_parser(
        "status", help="say of each queue what waits, who consumes it, and which way messages take to it"
    )
    add_watch(status, run)


def run(command: BaseCommand, _options: dict[str, Any]) -> None:
    """Print the report."""
    for line in status_report.report():
        command.stdout.write(line)
