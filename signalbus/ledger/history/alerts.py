"""Judge which conditions need a person, and keep when each began and ended. Called by the sweeper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from django.db import transaction
from django.db.models import Count, Max, Min, Q

from signalbus.ledger.base.clock import Now, later
from signalbus.ledger.base.deliveries import using
from signalbus.models import Alert, Delivery, State, WorkerRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

OVERDUE: Final = 300.0  # seconds that a delivery may wait for a worker
UNSEEN: Final = 60.0  # seconds after which a worker that says nothing is taken for lost
ROLLOUT: Final = 600.0  # seconds for which workers may run different code
MOST_GROUPS: Final = 100  # of dead deliveries, each an alert


class Condition(NamedTuple):
    """A condition that needs a person.

    Args:
        kind: dead, parked, overdue or skew.
        key: what it is about: a group of failures, or a queue.
        text: what is wrong, in words.
    """

    kind: str
    key: str
    text: str


def judge_alerts() -> tuple[list[Condition], list[Condition]]:
    """Raise an alert for each condition that holds, and clear the alerts whose condition is over.

    Returns:
        The conditions that are new, and those that are over.
    """
    alias = using()
    found = {(each.kind, each.key): each for each in _conditions()}
    alerts = Alert.objects.using(alias)
    with transaction.atomic(using=alias):
        raised = {(alert.kind, alert.key): alert for alert in alerts.filter(cleared_at=None)}
        new = [condition for key, condition in found.items() if key not in raised]
        over = [alert for key, alert in raised.items() if key not in found]
        alerts.bulk_create([Alert(**condition._asdict(), raised_at=Now()) for condition in new])
        if over:
            alerts.filter(pk__in=[alert.pk for alert in over]).update(cleared_at=Now())
    return new, [Condition(alert.kind, alert.key, alert.text) for alert in over]


def _conditions() -> Iterator[Condition]:
    yield from _dead()
    rows = Delivery.objects.using(using())
    parked = rows.filter(state=State.PARKED).count()
    if parked:
        yield Condition("parked", "", f"{parked} deliveries are parked: no worker knows what they name.")
    yield from _overdue()
    yield from _skew()


def _dead() -> Iterator[Condition]:
    """Yield the groups of failures that have dead deliveries."""
    dead = Delivery.objects.using(using()).filter(state=State.DEAD).order_by()
    groups = dead.values_list("error_group").annotate(count=Count("id"), receiver=Min("receiver"), error=Max("error"))
    for group, count, receiver, error in groups[:MOST_GROUPS]:
        who = f" to {receiver}" if receiver else ""
        yield Condition("dead", group or "", f"{count} deliveries{who} are dead: {error.partition(chr(10))[0][:200]}")


def _overdue() -> Iterator[Condition]:
    """Yield the queues in which deliveries wait for too long, and say whether a worker consumes each."""
    alias = using()
    waiting = Q(state__in=(State.PUBLISHED, State.PENDING), ended_at=None, due_at__lte=later(-OVERDUE))
    rows = Delivery.objects.using(alias).filter(waiting).order_by().values_list("queue").annotate(count=Count("id"))
    for queue, count in rows:
        text = f"{count} deliveries have waited for more than {OVERDUE:.0f} s in {queue or 'the default queue'}."
        yield Condition("overdue", queue, text)


def _skew() -> Iterator[Condition]:
    """Yield that workers have been knowing different receivers for longer than a roll-out takes."""
    alive = WorkerRecord.objects.using(using()).filter(seen_at__gt=later(-UNSEEN), started_at__lt=later(-ROLLOUT))
    digests = dict(alive.order_by("-name").values_list("registry_digest", "name"))
    if len(digests) > 1:
        names = " and ".join(sorted(digests.values())[:2])
        yield Condition("skew", "", f"Workers know different receivers: {names}, for example.")
