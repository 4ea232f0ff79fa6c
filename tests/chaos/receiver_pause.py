"""A fault of `faults`: a receiver is paused under load, workers are killed meanwhile, and it is resumed at a rate."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from django.db.models import Max

from signalbus.ledger import operations as ledger
from signalbus.models import Delivery, Pause, State
from signalbus.services.actors import code_actor
from signalbus.services.changes.pausing import pause, resume
from tests.chaos.roles import RECIPIENTS
from tests.servers import wait_until

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from tests.chaos.cluster import Cluster, Span

PAUSED = RECIPIENTS["steady"][0]
PAUSE_SECONDS = 6.0  # longer than a worker may take to obey
MANY = 100  # held deliveries, by which a rate can be told
RATE = 20.0  # deliveries a second


def pause_receiver(cluster: Cluster, span: Span) -> None:
    """Pause a receiver, kill workers, compare its deliveries with what they were, and resume it at a rate."""
    actor, rows = code_actor("chaos"), Delivery.objects.filter(receiver=PAUSED)
    held = rows.filter(state=State.HELD)
    for _ in span.turns(0.5, 1.0):
        pause("receiver", PAUSED, actor=actor)
        began, since = time.monotonic(), Pause.objects.get().since
        _kill_one(cluster)
        wait_until(lambda: cluster.asked(held.count) >= MANY, 120.0, "deliveries to be held")
        attempts = dict(held.values_list("pk", "attempts"))
        _kill_one(cluster)
        wait_until(lambda: time.monotonic() - began > PAUSE_SECONDS, what="the pause to last")  # noqa: B023
        last = rows.aggregate(last=Max("started_at"))["last"]
        cluster.note_worst("latest_start", (last - since).total_seconds())
        now = dict(rows.filter(pk__in=attempts).values_list("pk", "attempts"))
        cluster.note_worst("counted", sum(now[pk] != before for pk, before in attempts.items()))
        chosen = held.filter(pk__in=list(held.values_list("pk", flat=True)))  # workers may hold more for a moment
        resume("receiver", PAUSED, actor=actor, rate=RATE)
        cluster.note_worst("rate_error", _rate_error(cluster, chosen))
        wait_until(lambda: not cluster.asked(ledger.pauses), 300.0, "the pause to end")


def _kill_one(cluster: Cluster) -> None:
    worker = random.choice(cluster.workers)
    if worker.pid is not None:
        worker.kill()
    cluster.replace(worker)


def _rate_error(cluster: Cluster, held: QuerySet[Delivery]) -> float:
    """Return by which part the rate differs at which held deliveries are released."""
    counts: list[tuple[float, int]] = []

    def are_released() -> bool:
        count: int = cluster.asked(held.count)
        if not counts or count != counts[-1][1]:
            counts.append((time.monotonic(), count))
        return not count

    wait_until(are_released, 300.0, "all to be released")
    (began, first), (ended, _) = counts[1], counts[-1]
    return abs(first / (ended - began) / RATE - 1)
