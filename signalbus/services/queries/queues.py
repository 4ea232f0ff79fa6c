"""Name the queues of the bus, add up what waits in each, and judge whether a worker consumes it.

The caller has asked the ledger and the broker before: the commands ``status``, ``failed``, ``check`` and ``doctor``,
and the metrics.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from signalbus.celery import default_queue
from signalbus.ledger import operations as ledger
from signalbus.ledger.operations import Backlog
from signalbus.registration.registry import registry

if TYPE_CHECKING:
    from signalbus.broker.queue_status import Presence

PATIENCE = timedelta(minutes=1)  # after which a delivery that no worker has begun is told of


def is_unattended(presence: Presence, backlog: Backlog) -> bool:
    """Whether nobody consumes a queue: the broker says so, or no worker was heard of since its oldest was sent."""
    if presence.workers is not None or backlog.oldest is None:
        return presence.workers == 0
    overdue = age_of(backlog.oldest) > PATIENCE
    return overdue and (backlog.seen_at is None or backlog.seen_at < backlog.oldest)


def age_of(moment: datetime) -> timedelta:
    """Return how long ago a time of the ledger was."""
    return datetime.now(UTC) - ledger.in_utc(moment, ledger.using())


def queues_of(known: dict[str, Backlog]) -> list[str]:
    """Return the default queue, those that receivers name, and those in which something waits.

    Args:
        known: the backlogs of the ledger.
    """
    waiting = sorted(queue for queue, backlog in known.items() if queue and backlog.waiting)
    return list(dict.fromkeys([default_queue(), *registry.queues(), *waiting]))


def backlog_of(queue: str, known: dict[str, Backlog]) -> Backlog:
    """Return what the ledger knows of a queue, under its name and, for the default one, under none."""
    parts = [known[name] for name in dict.fromkeys((queue, "" if queue == default_queue() else queue)) if name in known]
    return Backlog(
        sum(part.waiting for part in parts),
        min((part.oldest for part in parts if part.oldest), default=None),
        max((part.seen_at for part in parts if part.seen_at), default=None),
    )
