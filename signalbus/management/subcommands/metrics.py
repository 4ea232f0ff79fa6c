"""``metrics``: the metrics as Prometheus reads them, for a cron job, a sidecar or the node exporter's text files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from signalbus.telemetry.exposition import text_of
from signalbus.telemetry.metric_families import NAMES, families

if TYPE_CHECKING:
    from django.core.management.base import BaseCommand


def add(commands: Any) -> None:
    """Declare ``metrics``."""
    metrics = commands.add_parser("metrics", help="print outcomes, waiting deliveries and workers for Prometheus")
    metrics.set_defaults(run=run)
    metrics.add_argument(
        "--names",
        choices=NAMES,
        default=NAMES[0],
        help="the names of the metrics: those of signalbus, or those of celery-exporter (signalbus)",
    )


def run(command: BaseCommand, options: dict[str, Any]) -> None:
    """Print the metrics."""
    command.stdout.write(text_of(families(options["names"])), ending="")
