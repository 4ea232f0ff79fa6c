"""Define the outgoing message before it is recorded: its route, its body, its subject, ordering key and lineage.

`message_templates` makes these values; `outbox` and the ledger read them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db.models import Model

from signalbus.context import current
from signalbus.exceptions import CascadeError
from signalbus.wire.message import from_body
from signalbus.wire.subjects import name_of_row
from signalbus.wire.values.class_names import unwrapped
from signalbus.wire.values.references import Snapshot, reference_to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime, timedelta

    from signalbus.registration.registry import Receiver
    from signalbus.sending.deduplication import Deduplication, RecordingRule
    from signalbus.wire.headers import Heading
    from signalbus.wire.message import Message

    OrderedBy = str | Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The values that all messages of one signal from one sender through one queue share.

    Args:
        signal: the signal's name.
        queue: the Celery queue, or None for the default one.
        recipients: the receivers' ids on that queue; None for an open signal.
        ledger: the alias of the ledger's database.
        recorded: whether the messages have rows.
        heading: the fields that their bodies share.
    """

    signal: str
    queue: str | None
    recipients: tuple[str, ...] | None
    ledger: str
    recorded: bool
    heading: Heading


@dataclass(slots=True)
class Outgoing:
    """A message, or the part of it that goes through one queue.

    Args:
        route: the values that it shares with other messages.
        key: the message's id, in hex.
        body: the message's text, not signed yet.
        subject: label and key of its ``instance``, or of the first row that it names.
        ordering_key: its ordering key, if its signal is ordered.
        rule: the rule for its rows, if it is not simply published after the commit.
        more_subjects: label and key of more rows that it names, a line each.
        root: the id of the message that its cascade began with, in hex; None if that is this one.
    """

    route: Route
    key: str
    body: str
    subject: str = ""
    ordering_key: str | None = None
    rule: RecordingRule | None = None
    more_subjects: str | None = None
    root: str | None = None

    @property
    def id(self) -> UUID:
        """The message's id."""
        return UUID(int=int(self.key, 16))  # as hex=, a fifth quicker: send_many() asks for all of them

    @property
    def queue(self) -> str | None:
        """The Celery queue, or None for the default one."""
        return self.route.queue

    @property
    def signal(self) -> str:
        """The signal's name."""
        return self.route.signal

    @property
    def recipients(self) -> tuple[str, ...] | None:
        """The ids of the receivers on that queue; None for an open signal."""
        return self.route.recipients

    @property
    def message(self) -> Message:
        """The message, read from its body: only errors, tests and ordered signals need it."""
        return from_body(self.body)


def route(receivers: Iterable[Receiver]) -> dict[str | None, tuple[str, ...] | None]:
    """Group the ids of receivers by the queue that they are delivered through.

    Args:
        receivers: the receivers of a message.

    Returns:
        For each queue the ids, in order, each once.
    """
    routes: dict[str | None, tuple[str, ...] | None] = {}
    for receiver in receivers:
        queue = receiver.queue
        ids = routes.get(queue) or ()
        if receiver.id not in ids:
            routes[queue] = (*ids, receiver.id)
    return routes


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFields:
    """The values that all messages of one send share.

    Args:
        signal: the signal's name.
        durable: as the signal says.
        ordered_by: the payload key to order by, or a function that returns the key of a payload; or None.
        ledger: the alias of the ledger's database.
        routes: the recipients by queue; ``{None: None}`` for an open signal.
        snapshots: whether a recipient wants field values where a row is gone.
        due: when it is to be published; None: after the commit.
        deduplication: the signal's rule of deduplication.
        context: the carried context of this send.
        origin: who sends.
        payload_version: the version of the signal's payload.
    """

    signal: str
    durable: bool
    ordered_by: OrderedBy | None
    ledger: str
    routes: Mapping[str | None, tuple[str, ...] | None]
    snapshots: bool = False
    due: timedelta | datetime | None = None
    deduplication: Deduplication | None = None
    context: Mapping[str, Any] = field(default_factory=dict, compare=False)
    origin: Mapping[str, Any] = field(default_factory=dict, compare=False)
    payload_version: int = 1


def subject_of(payload: Mapping[str, Any]) -> str:
    """Return label and key of a payload's ``instance``, also of one that travels as a snapshot."""
    instance = payload.get("instance")
    if type(instance) is Snapshot:
        instance = instance.instance
    if not isinstance(instance, Model):
        return ""
    meta = instance._meta  # noqa: SLF001 - Django documents it
    return meta.label if instance.pk is None else name_of_row(meta.label, instance.pk)


def ordering_key_of(ordered_by: OrderedBy, payload: Mapping[str, Any]) -> str | None:
    """Return a payload's ordering key as text; for a row its reference, because its ``str()`` may change."""
    value = payload.get(ordered_by) if isinstance(ordered_by, str) else ordered_by(payload)
    value = value.instance if type(value) is Snapshot else unwrapped(value)
    if isinstance(value, Model):
        value = reference_to(value)  # None without a row: nothing else can be ordered with it
    return None if value is None else str(value)


def lineage_of(signal: str, limit: int) -> tuple[tuple[str, ...], UUID | None, UUID | None]:
    """Return the path, the root and the parent of a message sent from here."""
    parent = current()
    if parent is None:
        return (), None, None
    path = (*parent.path, parent.signal)
    if len(path) >= limit:
        raise CascadeError((*path, signal), limit)
    return path, parent.root, parent.message_id
