"""Record workers, and the deliveries that their processes have been running for long."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction

from signalbus.ledger.base.clock import Now, later
from signalbus.ledger.base.deliveries import using
from signalbus.ledger.base.dialect import WORKERS, dialect_of
from signalbus.models import RunningDelivery, WorkerRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.db import DatabaseError

    from signalbus.context import CurrentDelivery
    from signalbus.ledger.base.dialect import Dialect

KEEP_UNSEEN = 86400.0  # seconds for which a worker that was lost stays listed
KEEP_RUNNING = 60.0  # seconds for which a run stays listed whose process says nothing any more


def record_worker(name: str, fields: Mapping[str, Any]) -> None:
    """Record a worker that has started.

    Args:
        name: host and process id of its main process; the row of an earlier one of that name is replaced.
        fields: the columns that describe it.
    """
    values = {**fields, "started_at": Now(), "seen_at": Now()}
    WorkerRecord.objects.using(using()).update_or_create(name=name, defaults=values)


def see_worker(name: str) -> bool:
    """Record that a worker is alive; return False if its row is gone. An idle worker does little else.

    Args:
        name: its name.
    """
    alias = using()
    with connections[alias].cursor() as cursor:
        cursor.execute(_see(dialect_of(alias)), (name,))
        return bool(cursor.rowcount)


@cache
def _see(dialect: Dialect) -> str:
    return f"UPDATE {WORKERS} SET seen_at = {dialect.now} WHERE name = %s"  # noqa: S608 - constants


def forget_worker(name: str) -> None:
    """Delete the row of a worker that stops.

    Args:
        name: its name.
    """
    WorkerRecord.objects.using(using()).filter(name=name).delete()


def record_running(worker: str, runs: Sequence[tuple[CurrentDelivery, float]]) -> None:
    """Replace the deliveries that a process has been running for long.

    Args:
        worker: the process.
        runs: the deliveries, each with the seconds since its beginning.
    """
    alias = using()
    rows = [
        RunningDelivery(
            worker=worker,
            delivery=delivery.id,
            message=delivery.message_id,
            signal=delivery.signal,
            receiver=delivery.receiver,
            attempt=delivery.attempt,
            started_at=later(-seconds),
            seen_at=Now(),
        )
        for delivery, seconds in runs
    ]
    with transaction.atomic(using=alias):
        RunningDelivery.objects.using(alias).filter(worker=worker).delete()
        RunningDelivery.objects.using(alias).bulk_create(rows)


def forget_stale_workers() -> None:
    """Delete the rows of workers that were lost a while ago, and of what their processes ran."""
    alias = using()
    WorkerRecord.objects.using(alias).filter(seen_at__lt=later(-KEEP_UNSEEN)).delete()
    RunningDelivery.objects.using(alias).filter(seen_at__lt=later(-KEEP_RUNNING)).delete()


def waits_for_receiver(error: DatabaseError) -> bool:
    """Return whether a record has to wait for a receiver that writes: on SQLite there is one writer at a time.

    Args:
        error: the error of a statement that records.
    """
    return connections[using()].vendor == "sqlite" and "locked" in str(error)
