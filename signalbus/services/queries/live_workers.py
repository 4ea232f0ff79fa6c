"""List the workers that have been seen, and the deliveries that they have been running for more than a second.

Called by ``manage.py signalbus running``. Each worker writes its own rows (`receiving/worker`); one that was killed
leaves them, and is told apart by the time when it was last seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from signalbus.ledger import operations as ledger
from signalbus.models import RunningDelivery, WorkerRecord
from signalbus.services.actors import VIEW

if TYPE_CHECKING:
    from collections.abc import Iterable

    from signalbus.services.actors import Actor

SILENT: Final = timedelta(seconds=30)  # without a sign a worker counts as gone: several times the time between two
LIMIT: Final = 1000  # rows of each kind


@dataclass(frozen=True, slots=True)
class LongRun:
    """A delivery that runs.

    Args:
        row: its row.
        age: how long it has been running.
        is_lost: its process has given no sign for half a minute.
    """

    row: RunningDelivery
    age: timedelta
    is_lost: bool


@dataclass(slots=True)
class ListedWorker:
    """A worker.

    Args:
        row: its row.
        silence: the time since its last sign.
        is_gone: it has given no sign for half a minute.
        lacks: receivers that other living workers know, and this one does not, as ``signal -> receiver``.
    """

    row: WorkerRecord
    silence: timedelta
    is_gone: bool
    lacks: list[str] = field(default_factory=list)


def running(actor: Actor) -> list[LongRun]:
    """Return the deliveries that have been running for more than a second, the longest first.

    Args:
        actor: who asks.

    Raises:
        PermissionDenied: the actor must not see deliveries.
    """
    actor.require(VIEW)
    alias = ledger.using()
    now = ledger.clock_of(alias)
    rows = RunningDelivery.objects.using(alias).order_by("started_at")[:LIMIT]
    return [LongRun(row, now - row.started_at, now - row.seen_at > SILENT) for row in rows]


def workers(actor: Actor) -> list[ListedWorker]:
    """Return the workers by name, with the receivers that each of them lacks.

    Args:
        actor: who asks.

    Raises:
        PermissionDenied: the actor must not see deliveries.
    """
    actor.require(VIEW)
    alias = ledger.using()
    now = ledger.clock_of(alias)
    rows = list(WorkerRecord.objects.using(alias).order_by("name")[:LIMIT])
    seen = [ListedWorker(row, now - row.seen_at, now - row.seen_at > SILENT) for row in rows]
    living = [worker for worker in seen if not worker.is_gone]
    known = set().union(*(_receivers_of(worker.row) for worker in living))
    for worker in living:
        worker.lacks = sorted(known - _receivers_of(worker.row))
    return seen


def _receivers_of(row: WorkerRecord) -> set[str]:
    pairs: Iterable[tuple[str, list[str]]] = row.receivers.items()
    return {f"{signal} -> {receiver}" for signal, receivers in pairs for receiver in receivers}
