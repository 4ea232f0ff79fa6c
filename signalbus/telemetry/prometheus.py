"""Collect the metrics of the bus for prometheus_client, for a project that has a ``/metrics`` of its own.

It needs the extra ``django-signalbus[prometheus]``. The view and the command do without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

try:
    from prometheus_client.core import Metric
    from prometheus_client.registry import Collector
except ImportError as _missing:
    raise ImportError(
        f"{_missing}. signalbus.telemetry.prometheus needs prometheus_client: "
        "pip install 'django-signalbus[prometheus]'. The view signalbus.telemetry.views.metrics does without."
    ) from _missing

from signalbus.telemetry.metric_families import families

if TYPE_CHECKING:
    from collections.abc import Iterator

    from signalbus.telemetry.metric_families import Names


class SignalbusCollector(Collector):
    """Reads the ledger each time that its registry is scraped.

    Register it in one registry that is not one of prometheus_client's multiprocess mode: the values are the same in
    each process.

    Args:
        names: "signalbus", or "celery" for the names of celery-exporter.
    """

    def __init__(self, names: Names = "signalbus") -> None:
        self._names: Names = names

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        for family in families(self._names):
            metric = Metric(family.name.removesuffix("_total"), family.text, family.kind)
            for reading in family.readings:
                metric.add_sample(reading.name, dict(reading.labels), reading.value)
            yield metric

    def describe(self) -> list[Metric]:
        """Return nothing, so that a registry does not read the ledger when the collector is registered."""
        return []
