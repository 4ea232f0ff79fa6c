"""From a payload to the messages that travel: encoded at once, one part for each queue."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db.models import Model

from signalbus import conf
from signalbus.context import current
from signalbus.exceptions import CascadeError
from signalbus.sending.once import Keeping, Once
from signalbus.wire import codec
from signalbus.wire.message import Message, to_body, uuid7
from signalbus.wire.references import ForeignModel, Snapshot, name_of, reference_to, shown, unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from uuid import UUID

    from signalbus.registry import Receiver

    OrderedBy = str | Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message, or the part of it that goes through one queue.

    Args:
        queue: the Celery queue, or None for the default one.
        message: with the recipients of that queue.
        body: the message's text, not signed yet.
        subject: what it is about: label and key of its ``instance``.
        keeping: how the ledger keeps it, if it is not simply published after the commit.
    """

    queue: str | None
    message: Message
    body: str
    subject: str = ""
    keeping: Keeping | None = None


def route(receivers: Iterable[Receiver]) -> dict[str | None, tuple[str, ...] | None]:
    """Sort recipients by the queue they are delivered through.

    Args:
        receivers: who receives.

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
class Envelope:
    """What all messages of one send share.

    Args:
        signal: the signal's name.
        durable: as the signal says.
        ordered_by: the payload key to order by, or what makes one of the payload; or None.
        ledger: the alias of the database that would keep it.
        routes: the recipients by queue; ``{None: None}`` for an open signal.
        snapshots: whether a recipient wants field values where a row is gone.
        due: when it is to be published; None: after the commit.
        once: what the signal says of equal messages.
    """

    signal: str
    durable: bool
    ordered_by: OrderedBy | None
    ledger: str
    routes: Mapping[str | None, tuple[str, ...] | None]
    snapshots: bool = False
    due: timedelta | datetime | None = None
    once: Once | None = None

    def messages(self, sender: Any, payloads: Iterable[Mapping[str, Any]]) -> list[list[Outgoing]]:
        """Encode payloads.

        Args:
            sender: who sends.
            payloads: what it sends; a message for each.

        Returns:
            For each payload the parts of its message; none where the sender, or an instance, is of a migration's
            model of the past: no worker has that.

        Raises:
            PayloadError: a value that cannot travel.
            CascadeError: a cascade too deep.
        """
        settings = conf.get()
        path, root, parent = _lineage(self.signal, settings.MAX_CASCADE)
        name = name_of(sender)
        first, *others = self.routes
        messages: list[list[Outgoing]] = []
        for payload in payloads:
            try:
                text, version = codec.encode(
                    sender,
                    payload,
                    snapshots=self.snapshots,
                    max_depth=settings.MAX_NESTING,
                    max_bytes=settings.MAX_BYTES,
                )
            except ForeignModel:
                messages.append([])
                continue
            id_ = uuid7()
            message = Message(
                id=id_,
                signal=self.signal,
                payload=text,
                version=version,
                sender=name,
                recipients=self.routes[first],
                ledger=self.ledger,
                durable=self.durable,
                recorded=self.durable,
                sent_at=datetime.now(UTC),
                path=path,
                root=root or id_,
                parent=parent,
                ordering_key=None if self.ordered_by is None else _ordering_key(self.ordered_by, payload),
            )
            parts = [(first, message), *((queue, replace(message, recipients=self.routes[queue])) for queue in others)]
            subject = _subject_of(payload) if self.durable else ""
            keeping = None if self.due is None and self.once is None else self._keeping(sender, payload)
            messages.append([Outgoing(queue, part, to_body(part), subject, keeping) for queue, part in parts])
        return messages

    def _keeping(self, sender: Any, payload: Mapping[str, Any]) -> Keeping | None:
        key = None if self.once is None else self.once.key(self.signal, sender, payload, self.routes)
        if key is None:
            return None if self.due is None else Keeping(due=self.due)
        return Keeping(due=self.due, once=self.once, key=key)


def _subject_of(payload: Mapping[str, Any]) -> str:
    """Say what a message is about, for people who look at the ledger."""
    instance = payload.get("instance")
    if type(instance) is Snapshot:
        instance = instance.instance
    if not isinstance(instance, Model):
        return ""
    meta = instance._meta  # noqa: SLF001 - Django documents it
    return meta.label if instance.pk is None else f"{meta.label} {shown(str(instance.pk))}"


def _ordering_key(ordered_by: OrderedBy, payload: Mapping[str, Any]) -> str | None:
    """Give a value's text; a row's is its reference, because what it prints as may change."""
    value = payload.get(ordered_by) if isinstance(ordered_by, str) else ordered_by(payload)
    value = value.instance if type(value) is Snapshot else unwrapped(value)
    if isinstance(value, Model):
        value = reference_to(value)  # None without a row: nothing else can be ordered with it
    return None if value is None else str(value)


def _lineage(signal: str, limit: int) -> tuple[tuple[str, ...], UUID | None, UUID | None]:
    """Return the path, the root and the parent of a message sent from here."""
    parent = current()
    if parent is None:
        return (), None, None
    path = (*parent.path, parent.signal)
    if len(path) >= limit:
        raise CascadeError((*path, signal), limit)
    return path, parent.root, parent.message_id
