"""Find deliveries by a filter, by the id of a delivery or a message, or by what they are about.

Called by the commands ``failed``, ``show``, ``history`` and ``trace``. Every query is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from signalbus.exceptions import TextError
from signalbus.ledger import operations as ledger
from signalbus.models import Delivery, FailedAttempt, RunningDelivery, StoredMessage
from signalbus.services.filters import Filter, parse_filter, subject_from
from signalbus.wire.message import from_body

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from django.db.models import QuerySet

    from signalbus.wire.message import Message

LIMIT: Final = 1000  # messages that one answer lists
SCANNED: Final = 100_000  # messages after the root among which the parts of a cascade are looked for


@dataclass(slots=True)
class FoundMessage:
    """A message of the ledger with its deliveries.

    Args:
        row: the message's row.
        message: the message as its text says; None if it is sealed, or this version cannot read it.
        deliveries: the deliveries, the oldest first.
        runs: what a process says that it has been running for more than a second, by the delivery's id.
        attempts: the failed attempts of a delivery by its id; filled by `message_of`.
        children: the messages that its receivers sent, the oldest first; filled by `cascade_of`.
    """

    row: StoredMessage
    message: Message | None
    deliveries: list[Delivery] = field(default_factory=list)
    runs: dict[UUID, RunningDelivery] = field(default_factory=dict)
    attempts: dict[UUID, list[FailedAttempt]] = field(default_factory=dict)
    children: list[FoundMessage] = field(default_factory=list)


def filter_from(words: Iterable[str]) -> Filter:
    """Read a filter, with ages counted from the ledger's time.

    Args:
        words: as `parse_filter` takes them.

    Raises:
        FilterError: a word cannot be read.
    """
    return parse_filter(words, ledger.clock_of(ledger.using()))


def find_deliveries(wanted: Filter) -> QuerySet[Delivery]:
    """Return the deliveries that a filter selects, with their messages, the youngest first.

    Args:
        wanted: the filter.
    """
    return Delivery.objects.using(ledger.using()).select_related("message").filter(wanted.condition).order_by("-id")


def message_of(id_: UUID) -> FoundMessage | None:
    """Return a message by its own id, or by the id of one of its deliveries.

    Args:
        id_: either id.

    Returns:
        The message; None if the ledger has neither.
    """
    alias = ledger.using()
    row = StoredMessage.objects.using(alias).filter(id=id_).first()
    if row is None:
        delivery = Delivery.objects.using(alias).select_related("message").filter(id=id_).first()
        if delivery is None:
            return None
        row = delivery.message
    (found,) = _with_deliveries([row])
    ids = [delivery.pk for delivery in found.deliveries]
    for attempt in FailedAttempt.objects.using(alias).filter(delivery_id__in=ids).order_by("number", "id"):
        found.attempts.setdefault(attempt.delivery_id, []).append(attempt)
    return found


def history_of(subject: str, limit: int = LIMIT) -> tuple[list[FoundMessage], bool]:
    """Return the messages about a row, the oldest first.

    Args:
        subject: ``app.model:pk``, or a subject as the ledger has it.
        limit: how many messages at most.

    Returns:
        The youngest of them, and whether there are more.
    """
    rows = StoredMessage.objects.using(ledger.using()).filter(subject=subject_from(subject))
    found = list(rows.order_by("-id")[: limit + 1])
    return _with_deliveries(found[:limit][::-1]), len(found) > limit


def cascade_of(stored: FoundMessage, scanned: int = SCANNED) -> tuple[FoundMessage, bool]:
    """Return the whole cascade that a message belongs to.

    Args:
        stored: any message of the cascade.
        scanned: how many messages after the root are looked at.

    Returns:
        The root with its descendants as `FoundMessage.children` (the message itself if the root is purged), and whether
        all later messages were looked at. The ledger has no column for the root: the texts of the messages after the
        root are searched.
    """
    root = _root_of(stored)
    key = root.row.pk if root.message is None else root.message.root
    rows = StoredMessage.objects.using(ledger.using()).filter(id__gt=key).order_by("id")
    beyond = rows.values_list("id", flat=True)[scanned : scanned + 1]
    last = next(iter(beyond), None)
    if last is not None:
        rows = rows.filter(id__lt=last)
    found = list(rows.filter(text__contains=f'"o":"{key.hex}"')[: LIMIT + 1])
    _attach(root, _with_deliveries(found[:LIMIT]))
    return root, last is None and len(found) <= LIMIT


def _root_of(stored: FoundMessage) -> FoundMessage:
    if stored.message is None or stored.message.root == stored.row.pk:
        return stored
    return message_of(stored.message.root) or stored


def _attach(root: FoundMessage, others: Sequence[FoundMessage]) -> None:
    """Make a tree of the messages of a cascade; what has lost its parent to a purge hangs on the root."""
    by_id = {each.row.pk: each for each in (root, *others)}
    for each in others:
        if each.row.pk == root.row.pk:
            continue
        parent = None if each.message is None or each.message.parent is None else by_id.get(each.message.parent)
        (parent or root).children.append(each)


def _with_deliveries(rows: Sequence[StoredMessage]) -> list[FoundMessage]:
    stored = {row.pk: FoundMessage(row, _read(row)) for row in rows}
    for start in range(0, len(rows), ledger.CHUNK):
        some = [row.pk for row in rows[start : start + ledger.CHUNK]]
        deliveries = Delivery.objects.using(ledger.using()).filter(message_id__in=some)
        for delivery in deliveries.order_by("created_at", "id"):
            stored[delivery.message_id].deliveries.append(delivery)
        for run in RunningDelivery.objects.using(ledger.using()).filter(message__in=some).order_by("started_at"):
            stored[run.message].runs[run.delivery] = run
    return list(stored.values())


def _read(row: StoredMessage) -> Message | None:
    if row.sealed:
        return None
    try:
        return from_body(row.text)
    except TextError:
        return None
