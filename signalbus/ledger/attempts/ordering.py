"""Find the head of an ordering key: the only delivery of that key to a receiver that may run now (decision 0036).

The head is the open delivery with the lowest position; the lock on its row is the key's lock.
`receiving/running/sequencing` asks for it before each run, and the sweeper postpones deliveries that are not the
head. The positions were assigned at `send()` by `base/sequence_numbers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from django.db import connections, transaction

from signalbus.ledger.base.clock import Now, later
from signalbus.ledger.base.deliveries import unlocked, using
from signalbus.ledger.base.dialect import DELIVERIES, MESSAGES, dialect_of
from signalbus.ledger.base.event_subjects import tell_of_rows
from signalbus.models import CLOSED_STATES, Delivery, State

if TYPE_CHECKING:
    from collections.abc import Sequence

# The worker that ends the delivery before makes the next one due; if it dies in between, the sweeper does, after these
# seconds.
BEHIND = 20.0
BEHIND_DEAD = 120.0  # the same behind a dead or held delivery, which waits for a person

# To the letter as the index signalbus_order has it, or SQLite does not use that.
_OPEN: Final = "NOT ({0}.ordering_key = '') AND NOT ({0}.state IN ('done', 'skipped', 'discarded'))"


class Head(NamedTuple):
    """The head of an ordering key: the delivery that may run next.

    Args:
        id: the delivery's id.
        text: its message's body.
        ready: whether it may run now; else it waits for its next attempt, runs, or is dead.
    """

    id: UUID
    text: str
    ready: bool


def head(key: str) -> Head | None:
    """Return the head of an ordering key.

    Args:
        key: the deliveries' ordering key.

    Returns:
        The open delivery with the lowest position, or None.
    """
    alias = using()
    now = dialect_of(alias).now
    with connections[alias].cursor() as cursor:
        cursor.execute(
            f"SELECT d.id, m.text, (d.state IN ('published', 'parked') OR (d.state = 'pending' AND d.due_at <= {now})) "
            f"FROM {DELIVERIES} d JOIN {MESSAGES} m ON m.id = d.message_id "
            f"WHERE d.ordering_key = %s AND {_OPEN.format('d')} ORDER BY d.position LIMIT 1",
            (key,),
        )
        found = cursor.fetchone()
    if found is None:
        return None
    id_, text, ready = found
    return Head(UUID(str(id_)), text, bool(ready))


def behind(row: Delivery) -> int:
    """Count the deliveries that wait for a delivery of their ordering key to end.

    Args:
        row: a delivery.
    """
    if not row.ordering_key:
        return 0
    rows = Delivery.objects.using(using()).filter(ordering_key=row.ordering_key, position__gt=row.position)
    return rows.exclude(state__in=CLOSED_STATES).count()


def wake(key: str) -> None:
    """Make the head of an ordering key due, so that the sweeper publishes it, unless it runs now.

    Args:
        key: the ordering key.
    """
    following = head(key)
    if following is not None:
        alias = using()
        with transaction.atomic(using=alias):
            waiting = unlocked(Delivery.objects.using(alias).filter(id=following.id, state=State.PUBLISHED))
            tell_of_rows("requeued", waiting)
            waiting.update(state=State.PENDING, due_at=Now())


def before(ids: Sequence[UUID]) -> dict[UUID, tuple[UUID, str]]:
    """Find the deliveries that are not the head of their ordering key.

    Args:
        ids: deliveries with an ordering key.

    Returns:
        For each of those the id and the state of the head.
    """
    alias = using()
    dialect = dialect_of(alias)
    first = (
        f"SELECT f.id FROM {DELIVERIES} f WHERE f.ordering_key = d.ordering_key AND f.position < d.position "
        f"AND {_OPEN.format('f')} ORDER BY f.position LIMIT 1"
    )
    marks = ", ".join(["%s"] * len(ids))
    with connections[alias].cursor() as cursor:
        cursor.execute(
            f"SELECT d.id, e.id, e.state FROM {DELIVERIES} d JOIN {DELIVERIES} e ON e.id = ({first}) "
            f"WHERE d.id IN ({marks})",
            [dialect.key(id_) for id_ in ids],
        )
        return {UUID(str(id_)): (UUID(str(head)), state) for id_, head, state in cursor.fetchall()}


def postpone_followers(ids: Sequence[UUID]) -> set[UUID]:
    """Postpone deliveries that are not the head of their ordering key: a worker could not run them.

    Args:
        ids: deliveries that are about to be published, locked.

    Returns:
        The postponed deliveries.
    """
    alias = using()
    waits = before(ids)
    for wait, waiting in (
        (BEHIND_DEAD, [id_ for id_, (_, state) in waits.items() if state in {State.DEAD, State.HELD}]),
        (BEHIND, [id_ for id_, (_, state) in waits.items() if state not in {State.DEAD, State.HELD}]),
    ):
        if waiting:
            rows = Delivery.objects.using(alias).filter(id__in=waiting)
            tell_of_rows("requeued", rows)
            rows.update(state=State.PUBLISHED, due_at=later(wait), admitted_by=None)  # it is on no queue
    return set(waits)
