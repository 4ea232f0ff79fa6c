"""Find deliveries by a filter, by the id of a delivery or a message, or by what they are about.

Called by the commands ``failed``, ``show``, ``history`` and ``trace``. Every query is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from django.db.models import TextField, Value
from django.db.models.functions import Concat

from signalbus.exceptions import TextError
from signalbus.ledger import operations as ledger
from signalbus.models import Delivery, FailedAttempt, RunningDelivery, StoredMessage
from signalbus.services.filters import Filter, parse_filter, subject_from
from signalbus.wire.message import age_of, from_body
from signalbus.wire.subjects import lines_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from django.db.models import QuerySet

    from signalbus.wire.message import Message

LIMIT: Final = 1000  # messages that one answer lists
SCANNED: Final = 100_000  # messages that are looked at where no index answers
ROLLED_OUT: Final = timedelta(days=1)  # after migration 0008 that senders of older versions are expected to run


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


@dataclass(frozen=True, slots=True)
class Cascade:
    """A message with all that its receivers sent.

    Args:
        root: the message that it began with, with its descendants as `FoundMessage.children`; if that is purged, the
            message that was asked for.
        is_whole: whether all messages that may belong to it were looked at.
        was_scanned: whether the texts of later messages were searched, because older versions record no root.
    """

    root: FoundMessage
    is_whole: bool
    was_scanned: bool


@dataclass(frozen=True, slots=True)
class History:
    """The messages about a row.

    Args:
        messages: the youngest of them, the oldest first.
        has_more: whether there are older ones.
        searched_from: when the oldest message was sent among which those were looked for that name the row beside
            another one; None if that is the oldest of the ledger.
    """

    messages: list[FoundMessage]
    has_more: bool
    searched_from: datetime | None


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


def history_of(subject: str, limit: int = LIMIT, scanned: int = SCANNED) -> History:
    """Return the messages that name a row.

    An index finds those that name it as their `instance`, or as their first row. Those that name it beside another one
    are looked for among the youngest messages.

    Args:
        subject: ``app.model:pk``, or a subject as the ledger has it.
        limit: how many messages at most.
        scanned: among how many of the youngest messages.
    """
    name = subject_from(subject)
    rows = StoredMessage.objects.using(ledger.using()).order_by("-id")
    found = {row.pk: row for row in rows.filter(subject=name)[: limit + 1]}
    searched_from = None
    oldest = next(iter(rows.values_list("id", flat=True)[scanned - 1 : scanned]), None)
    others = rows.exclude(more_subjects=None)
    if oldest is not None:
        others = others.filter(id__gte=oldest)
        searched_from = rows.values_list("created_at", flat=True).get(id=oldest)
    end = Value("\n", TextField())
    others = others.alias(lines=Concat(end, "more_subjects", end)).filter(lines__contains=f"\n{name}\n")
    # LIKE does not tell upper case from lower case on each database.
    found |= {row.pk: row for row in others[: limit + 1] if name in lines_of(row.more_subjects)}
    youngest = sorted(found.values(), key=lambda row: row.pk)[-limit:]
    return History(_with_deliveries(youngest), len(found) > limit, searched_from)


def cascade_of(stored: FoundMessage, *, scan: bool | None = None, scanned: int = SCANNED) -> Cascade:
    """Return the whole cascade that a message belongs to.

    Args:
        stored: any message of the cascade.
        scan: whether to search the texts of later messages too, for parts that were recorded without their root; None:
            if there may be such, because a part is, or an older version may have been running.
        scanned: how many messages after the root are searched then.
    """
    root = _root_of(stored)
    key = root.row.pk if root.message is None else root.message.root
    rows = StoredMessage.objects.using(ledger.using()).order_by("id")
    found = list(rows.filter(root=key)[: LIMIT + 1])
    is_whole = len(found) <= LIMIT
    if scan is None:
        scan = _lacks_root(stored) or _may_have_older_parts(key)
    if scan:
        without, all_searched = _parts_without_root(key, scanned)
        is_whole = is_whole and all_searched
        found = sorted((*found, *without), key=lambda row: row.pk)
    _attach(root, _with_deliveries(found[:LIMIT]))
    return Cascade(root, is_whole, scan)


def _parts_without_root(root: UUID, scanned: int) -> tuple[list[StoredMessage], bool]:
    """Search the texts of the messages after a root; return the parts, and whether all messages were searched."""
    rows = StoredMessage.objects.using(ledger.using()).filter(id__gt=root).order_by("id")
    beyond = next(iter(rows.values_list("id", flat=True)[scanned : scanned + 1]), None)
    if beyond is not None:
        rows = rows.filter(id__lt=beyond)
    found = list(rows.filter(root=None, text__contains=f'"o":"{root.hex}"')[: LIMIT + 1])
    return found, beyond is None and len(found) <= LIMIT


def _lacks_root(stored: FoundMessage) -> bool:
    return stored.row.root is None and stored.message is not None and stored.message.root != stored.row.pk


def _may_have_older_parts(root: UUID) -> bool:
    """Return whether a cascade began when older versions may have been sending, by the time in the id of its root."""
    since = ledger.roots_recorded_since()
    sent_at = datetime.now(UTC) - timedelta(seconds=age_of(root))
    return since is not None and sent_at < since + ROLLED_OUT


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
