"""Find the senders of each signal, and the receivers that send one, in the youngest messages.

A bounded number of messages is read: a signal that is sent once a day may be missing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from django.db.models.functions import Substr

from signalbus.exceptions import TextError
from signalbus.ledger import operations as ledger
from signalbus.models import Delivery, StoredMessage
from signalbus.wire.message import from_body

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from signalbus.wire.message import Message

YOUNGEST: Final = 500  # messages whose senders are read
SENT_BY_RECEIVERS: Final = 500  # messages that a receiver sent, whose parents are read
AMONG: Final = 20_000  # the youngest messages
HEADER_CHARS: Final = 8000  # of a text that are read: most headers take a few hundred


@dataclass(slots=True)
class SeenSends:
    """What has been seen.

    Args:
        senders: the names of the senders by signal.
        cascades: receivers with a signal that they have sent.
    """

    senders: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    cascades: set[tuple[str, str]] = field(default_factory=set)


def seen_sends() -> SeenSends:
    """Return who has sent what, by the youngest messages of the ledger."""
    rows = StoredMessage.objects.using(ledger.using()).filter(sealed=False).order_by("-id")
    oldest = next(iter(rows.values_list("id", flat=True)[AMONG : AMONG + 1]), None)
    parts = rows.filter(root__isnull=False)
    if oldest is not None:
        parts = parts.filter(id__gt=oldest)
    columns = (Substr("text", 1, HEADER_CHARS), "created_at")
    found = SeenSends()
    for text, _at in rows.values_list(*columns)[:YOUNGEST]:
        message = _read(text)
        if message is not None and message.sender is not None:
            found.senders[message.signal].add(message.sender)
    children: defaultdict[UUID, list[tuple[str, datetime]]] = defaultdict(list)
    for text, at in parts.values_list(*columns)[:SENT_BY_RECEIVERS]:
        message = _read(text)
        if message is not None and message.parent is not None:
            children[message.parent].append((message.signal, at))
    found.cascades = _cascades(children)
    return found


def _read(text: str) -> Message | None:
    """Return a message of which the payload may be cut off."""
    try:
        return from_body(text)
    except TextError:
        return None


def _cascades(children: dict[UUID, list[tuple[str, datetime]]]) -> set[tuple[str, str]]:
    """Return the receivers of the parents that sent the children, by the time when each of them started.

    A message names the message whose receiver sent it, not the receiver. Where a parent has several receivers, the one
    that started last before the child was recorded sent it, unless two ran at once; so the one that most samples
    name is taken.
    """
    started: defaultdict[UUID, list[tuple[str, datetime | None]]] = defaultdict(list)
    rows = Delivery.objects.using(ledger.using()).filter(message_id__in=list(children)).exclude(receiver="")
    for parent, receiver, at in rows.values_list("message_id", "receiver", "started_at"):
        started[parent].append((receiver, at))
    votes: defaultdict[tuple[tuple[str, ...], str], Counter[str]] = defaultdict(Counter)
    for parent, sent in children.items():
        receivers = tuple(sorted(receiver for receiver, _ in started[parent]))
        for signal, created_at in sent:
            before = [(at, receiver) for receiver, at in started[parent] if at is not None and at <= created_at]
            if before or len(receivers) == 1:
                votes[receivers, signal][max(before)[1] if before else receivers[0]] += 1
    return {(counted.most_common(1)[0][0], signal) for (_, signal), counted in votes.items()}
