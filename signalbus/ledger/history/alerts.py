"""Judge which conditions need a person, and keep when each began and ended. Called by the sweeper."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from django.db import transaction
from django.db.models import Count, Max, Min, Q, Sum

from signalbus import conf
from signalbus.celery import default_queue
from signalbus.core.error_groups import group_of_fate
from signalbus.ledger.base.clock import Now, clock_of, later
from signalbus.ledger.base.deliveries import using
from signalbus.ledger.history.group_notes import ALIVE, muted_groups
from signalbus.models import Alert, Delivery, State, WorkerRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

UNATTENDED: Final = 60.0  # seconds that a delivery may wait in a queue that no worker consumes
MOST_GROUPS: Final = 100  # of dead deliveries, each an alert
MOST_NOTICES: Final = 100  # of one look
NOTICE_AGE: Final = timedelta(days=1)  # of a change that no notifier could send, and none tries to send any more
WARNINGS: Final = frozenset({"parked", "refused", "skew"})  # kinds; the others are errors


class Condition(NamedTuple):
    """A condition that needs a person.

    Args:
        kind: dead, refused, parked, overdue, workers or skew.
        key: what it is about: a group of failures, or a queue.
        text: what is wrong, in words.
    """

    kind: str
    key: str
    text: str

    @property
    def summary(self) -> str:
        """The text without that of an error."""
        head, colon, _ = self.text.partition(" dead: ")
        return f"{head} dead." if self.kind == "dead" and colon else self.text

    @property
    def level(self) -> str:
        """How bad it is: error or warning."""
        return "warning" if self.kind in WARNINGS else "error"


class Notice(NamedTuple):
    """A change of an alert that a notifier has to send.

    Args:
        alert: the id of the alert.
        notifier: the name of the notifier.
        condition: the condition.
        change: raised or cleared.
    """

    alert: int
    notifier: str
    condition: Condition
    change: str


def judge_alerts(tell: Callable[[Condition, str], None] | None = None) -> tuple[list[Condition], list[Condition]]:
    """Raise an alert for each condition that holds, and clear the alerts whose condition is over.

    Args:
        tell: is called with each condition and "raised" or "cleared", in the transaction that records the change.

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
        for key, alert in raised.items():
            if key in found and found[key].text != alert.text:  # more deliveries, or fewer
                alerts.filter(pk=alert.pk).update(text=found[key].text)
        alerts.bulk_create([Alert(**condition._asdict(), raised_at=Now()) for condition in new])
        if over:
            alerts.filter(pk__in=[alert.pk for alert in over]).update(cleared_at=Now())
        ended = [Condition(alert.kind, alert.key, alert.text) for alert in over]
        if tell is not None:
            for condition in new:
                tell(condition, "raised")
            for condition in ended:
                tell(condition, "cleared")
    return new, ended


def open_alerts() -> list[Condition]:
    """Return the conditions that hold, by the last judgement."""
    rows = Alert.objects.using(using()).filter(cleared_at=None).order_by("raised_at")
    return [Condition(*row) for row in rows.values_list("kind", "key", "text")[: 2 * MOST_GROUPS]]


def unsent_notices(notifiers: Collection[str]) -> list[Notice]:
    """Return the changes of alerts of the last day that a notifier has not sent yet, the oldest first.

    An alert that was over before a notifier told of its beginning is not told of.

    Args:
        notifiers: their names.
    """
    alias = using()
    recent = clock_of(alias) - NOTICE_AGE
    alerts = Alert.objects.using(alias).filter(Q(cleared_at__gt=recent) | Q(cleared_at=None, raised_at__gt=recent))
    due = []
    for alert in alerts.order_by("id"):
        for notifier in notifiers:
            sent = alert.notices.get(notifier)
            change = "raised" if alert.cleared_at is None else "cleared"
            if sent != change and (change == "raised" or sent is not None):
                due.append(Notice(alert.pk, notifier, Condition(alert.kind, alert.key, alert.text), change))
    return due[:MOST_NOTICES]


def keep_notice(notice: Notice) -> None:
    """Keep that a notifier has sent a change."""
    alerts = Alert.objects.using(using())
    with transaction.atomic(using=using()):
        notices: dict[str, Any] | None = (
            alerts.select_for_update().filter(pk=notice.alert).values_list("notices", flat=True).first()
        )
        if notices is not None:
            alerts.filter(pk=notice.alert).update(notices=notices | {notice.notifier: notice.change})


def _conditions() -> Iterator[Condition]:
    limits = conf.get().alerts()
    yield from _dead()
    rows = Delivery.objects.using(using())
    parked = rows.filter(state=State.PARKED).count()
    if parked:
        yield Condition("parked", "", f"{_number(parked)} parked: no worker knows what they name.")
    overdue = dict(_waiting_for(limits["overdue"]))  # first: what is sent until the next statement is not in it
    unattended = dict(_unattended())
    for queue, count in unattended.items():
        text = f"No worker consumes {queue or 'the default queue'}; deliveries that wait in it: {count}."
        yield Condition("workers", queue, text)
    for queue, count in overdue.items():
        if queue not in unattended:
            where = queue or "the default queue"
            text = f"Deliveries that have waited for more than {limits['overdue']:.0f} s in {where}: {count}."
            yield Condition("overdue", queue, text)
    yield from _skew(limits["rollout"])


def _number(count: int, who: str = "") -> str:
    return f"1 delivery{who} is" if count == 1 else f"{count} deliveries{who} are"


def _dead() -> Iterator[Condition]:
    """Yield the groups of failures that have dead deliveries and are not muted, and that texts were refused."""
    groups = Delivery.objects.using(using()).filter(state=State.DEAD).order_by().values_list("error_group")
    counted = groups.annotate(count=Count("id"), copies=Sum("attempts"), receiver=Min("receiver"), error=Max("error"))
    found = list(counted[:MOST_GROUPS])
    muted = muted_groups() if found else set()
    for group, count, copies, receiver, error in found:
        if group == group_of_fate("refused", ""):
            text = f"Texts on the broker that were refused, because nobody with a key wrote them: {copies}."
            yield Condition("refused", "", text)
            continue
        if group in muted:
            continue
        who = f" to {receiver}" if receiver else ""
        yield Condition("dead", group or "", f"{_number(count, who)} dead: {error.partition(chr(10))[0][:200]}")


def _waiting_for(seconds: float) -> Iterator[tuple[str, int]]:
    """Yield each queue in which deliveries have waited for so long since they were due, with their number."""
    waiting = Q(state__in=(State.PUBLISHED, State.PENDING), ended_at=None, due_at__lte=later(-seconds))
    rows = Delivery.objects.using(using()).filter(waiting).order_by()
    yield from rows.values_list("queue").annotate(count=Count("id"))


def _unattended() -> Iterator[tuple[str, int]]:
    """Yield the queues in which deliveries wait and that no living worker consumes."""
    waiting = dict(_waiting_for(UNATTENDED))
    if not waiting:
        return
    alive = WorkerRecord.objects.using(using()).filter(seen_at__gt=later(-ALIVE))
    consumed = {queue for queues in alive.values_list("queues", flat=True) for queue in queues}
    for queue, count in waiting.items():
        if (queue or default_queue()) not in consumed:
            yield queue, count


def _skew(rollout: float) -> Iterator[Condition]:
    """Yield that workers have been knowing different receivers for longer than a roll-out takes."""
    alive = WorkerRecord.objects.using(using()).filter(seen_at__gt=later(-ALIVE), started_at__lt=later(-rollout))
    digests = dict(alive.order_by("-name").values_list("registry_digest", "name"))
    if len(digests) > 1:
        names = " and ".join(sorted(digests.values())[:2])
        yield Condition("skew", "", f"Workers know different receivers: {names}, for example.")
