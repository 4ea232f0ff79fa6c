"""Encode payloads into messages, with a template for each sender that is cached while its receivers stay the same.

`signal` asks `MessageTemplates` for a template, and sends with it if there is one (decision 0030). A template has
everything that is equal in all messages of a signal and sender, so that only ids, times and the payload are written
for each message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from signalbus import conf, tracing
from signalbus.carriers import carrying, origin_of_send
from signalbus.connecting.subscriptions import SenderCache
from signalbus.context import current
from signalbus.registration.registry import registry
from signalbus.sending import event_loop_guard
from signalbus.sending.deduplication import RecordingRule
from signalbus.sending.outgoing import Outgoing, Route, lineage_of, ordering_key_of, subject_of
from signalbus.sending.send_operation import outbox, refuse_reserved, shared_fields_of
from signalbus.sending.sent import Sent
from signalbus.wire import codec
from signalbus.wire.headers import Heading, lineage, surroundings
from signalbus.wire.message import CONTEXT_VERSION, PAYLOAD_VERSION, VERSION, stamp
from signalbus.wire.subjects import subjects_from
from signalbus.wire.values.class_names import name_of
from signalbus.wire.values.references import ForeignModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from signalbus.conf import Settings
    from signalbus.connecting.subscriptions import Subscriptions
    from signalbus.sending.declared_signal import DeclaredSignal
    from signalbus.sending.outgoing import SharedFields

    Written = tuple[str, str, tuple[str, str | None]]  # sender and payload, their version, and the subjects

NO_SUBJECTS: Final = ("", None)


class Surroundings(NamedTuple):
    """The values that all messages of one call of a sender share.

    Args:
        header: their part of the header.
        context: the carried context.
        root: the id of the message that the cascade began with, in hex; None outside of receivers.
    """

    header: str
    context: Mapping[str, Any]
    root: str | None


NO_SURROUNDINGS: Final = Surroundings("", carrying.NOTHING, None)


class MessageTemplate:
    """Writes the messages of one sender. Cached while its receivers stay the same; it keeps no sender alive.

    Args:
        shared: the values that its messages share.
        sender: the sender.

    Raises:
        PayloadError: a sender that has no name.
    """

    __slots__ = ("_routes", "_sender_text", "shared")

    def __init__(self, shared: SharedFields, sender: Any) -> None:
        self.shared: SharedFields = shared
        self._sender_text = None if shared.snapshots else codec.write_sender(sender)
        name = name_of(sender)
        self._routes = [
            Route(
                signal=shared.signal,
                queue=queue,
                recipients=recipients,
                ledger=shared.ledger,
                recorded=shared.durable,
                heading=Heading(
                    signal=shared.signal,
                    sender=name,
                    recipients=recipients,
                    ledger=shared.ledger,
                    durable=shared.durable,
                    recorded=shared.durable,
                    payload_version=shared.payload_version,
                ),
            )
            for queue, recipients in shared.routes.items()
        ]

    def messages(
        self,
        sender: Any,
        payloads: Iterable[Mapping[str, Any]],
        context: Mapping[str, Any] | None = None,
        origin: Mapping[str, Any] | None = None,
    ) -> list[list[Outgoing]]:
        """Encode payloads into messages.

        Args:
            sender: the template's sender.
            payloads: one for each message.
            context: the carried context of the sender, if it was captured already.
            origin: who sends, if that was captured already.

        Returns:
            For each payload the parts of its message; none if the sender, or an instance, is of a migration's
            historical model: no worker has that.

        Raises:
            PayloadError: a value that cannot travel.
            CascadeError: a cascade too deep.
        """
        settings = conf.get()
        around = self._surroundings(context, origin, settings)
        payloads = list(payloads)
        is_alone = len(payloads) == 1
        messages: list[list[Outgoing]] = []
        for payload in payloads:
            try:
                written = self._written(sender, payload, settings)
            except ForeignModel:
                messages.append([])
            else:
                messages.append(self._parts(sender, payload, written, around, is_alone=is_alone))
        return messages

    def _surroundings(
        self, context: Mapping[str, Any] | None, origin: Mapping[str, Any] | None, settings: Settings
    ) -> Surroundings:
        header, root = "", None
        if current() is not None:
            path, first, parent = lineage_of(self.shared.signal, settings.MAX_CASCADE)
            header, root = lineage(path, first, parent), None if first is None else first.hex
        if context is None:
            context = carrying.capture() if settings.CARRY else carrying.NOTHING
        if origin is None:
            origin = carrying.NOTHING if settings.ORIGIN is None else origin_of_send.capture_origin()
        if context or origin:
            header += surroundings(context, origin)
        return Surroundings(header, context, root) if header else NO_SURROUNDINGS

    def send(
        self, sender: Any, payloads: Sequence[Mapping[str, Any]]
    ) -> tuple[list[list[Outgoing]], Mapping[UUID, UUID]]:
        """Encode payloads, and hand the messages to the outbox.

        Args:
            sender: the template's sender.
            payloads: one for each message.

        Returns:
            The messages, each by its parts; and for each duplicate the message that stands for it.

        Raises:
            PayloadError: a value that cannot travel; nothing was sent.
            CascadeError: a cascade too deep.
        """
        refuse_reserved(payloads)
        messages = self.messages(sender, payloads)
        return messages, outbox().add([part for parts in messages for part in parts], robust=False)

    def send_one(self, sender: Any, payload: Mapping[str, Any]) -> Sent:
        """Encode a payload, and hand it to the outbox.

        Args:
            sender: the template's sender.
            payload: the keyword arguments of the receivers.

        Returns:
            The value that `Signal.send` returns.

        Raises:
            PayloadError: a value that cannot travel; nothing was sent.
            CascadeError: a cascade too deep.
        """
        (parts,), _ = self.send(sender, (payload,))
        # Only a `SendOperation` has a rule for its rows: whether this message is recorded follows from the signal.
        return Sent().with_message(parts[0].key, self._routes, recorded=self.shared.durable) if parts else Sent()

    def _written(self, sender: Any, payload: Mapping[str, Any], settings: Settings) -> Written:
        """Encode the sender and the payload, and name the rows in it."""
        rows: list[tuple[str, object]] = []
        if self._sender_text is not None:
            text = codec.write_with(self._sender_text, payload, settings.MAX_BYTES, rows)
            if text is not None:
                if not self.shared.durable or not rows:  # an instance would be one of them
                    return text, VERSION, NO_SUBJECTS
                if len(rows) == 1:  # nearly always; its key is an int
                    return text, VERSION, ("%s %s" % rows[0], None)  # noqa: UP031 - half the time of name_of_row()
                return text, VERSION, subjects_from(subject_of(payload), rows)
            rows.clear()
        text, version = codec.encode(
            sender,
            payload,
            snapshots=self.shared.snapshots,
            max_depth=settings.MAX_NESTING,
            max_bytes=settings.MAX_BYTES,
            rows=rows,
        )
        return text, version, subjects_from(subject_of(payload), rows) if self.shared.durable else NO_SUBJECTS

    def _parts(
        self, sender: Any, payload: Mapping[str, Any], written: Written, around: Surroundings, *, is_alone: bool
    ) -> list[Outgoing]:
        text, version, (subject, more_subjects) = written
        more, context, root = around
        if context:
            version = max(version, CONTEXT_VERSION, key=int)
        shared = self.shared
        if shared.payload_version != 1:
            version = max(version, PAYLOAD_VERSION, key=int)
        key, sent_at = stamp()
        rule = None if shared.due is None and shared.deduplication is None else self._rule_of(sender, payload, context)
        if tracing.tracers:
            first = None if root is None else UUID(hex=root)
            made = tracing.Creation(UUID(hex=key), shared.signal, len(text), first, shared.routes, is_alone)
            more += lineage(trace=tracing.created(made))
        order = None
        if shared.ordered_by is not None:
            order = ordering_key_of(shared.ordered_by, payload)
            more += lineage(ordering_key=order)
        return [
            Outgoing(
                route,
                key,
                route.heading.body(key, sent_at, text, version, more),
                subject,
                order,
                rule,
                more_subjects,
                root,
            )
            for route in self._routes
        ]

    def _rule_of(self, sender: Any, payload: Mapping[str, Any], context: Mapping[str, Any]) -> RecordingRule | None:
        shared = self.shared
        deduplication = shared.deduplication
        key = (
            None if deduplication is None else deduplication.key(shared.signal, sender, payload, shared.routes, context)
        )
        if key is None:
            return None if shared.due is None else RecordingRule(due=shared.due)
        return RecordingRule(due=shared.due, deduplication=deduplication, key=key)


class MessageTemplates:
    """The cached templates of one signal by sender: for None, and for each class while it lives.

    Args:
        subscriptions: the signal's subscriptions.
    """

    def __init__(self, subscriptions: Subscriptions) -> None:
        self._subscriptions = subscriptions
        self._by_class = SenderCache()
        self._of_none: tuple[object, MessageTemplate] | None = None

    def of(self, signal: DeclaredSignal, sender: Any) -> MessageTemplate | None:
        """Return the template of a sender, if a template alone can write its messages.

        Args:
            signal: the signal of these templates.
            sender: the sender.

        Returns:
            The template. None if a receiver runs here, if a rule applies to the rows, if an event loop runs on this
            thread, or if templates of such a sender are not cached.

        Raises:
            PayloadError: a sender that has no name.
            ConfigurationError: a signal without a name, or with that of another.
        """
        if not self._subscriptions.entries or signal.has_collected_receivers or event_loop_guard.is_running():
            return None
        # All that a template depends on but the ledger: it is valid for this state only.
        said = (
            signal.durable,
            signal.open,
            signal.ordered_by,
            signal.deduplication,
        )  # these may be set later
        state = (signal.receivers, len(signal.receivers), self._subscriptions.changes, registry.size, said)
        known = self._of_none if sender is None else self._by_class.get(sender)
        if known is not None and known[0] == state and known[1].shared.ledger == outbox().ledger.using():
            return known[1]
        if (
            not (sender is None or isinstance(sender, type))
            or signal.open
            or signal.deduplication
            or not signal.as_given
        ):
            return None
        travelling, sync, asynchronous = signal.split(sender)
        if not travelling or sync or asynchronous or signal.conflicts:
            return None
        template = MessageTemplate(shared_fields_of(signal, travelling), sender)
        self._remember(sender, state, template)
        return template

    def with_shared_fields(self, shared: SharedFields, sender: Any) -> MessageTemplate:
        """Return the template of a sender for given shared fields.

        Args:
            envelope: the values that its messages share.
            sender: the sender.

        Raises:
            PayloadError: a sender that has no name.
        """
        known = self._of_none if sender is None else self._by_class.get(sender)
        if known is not None and known[1].shared == shared:
            return known[1]
        template = MessageTemplate(shared, sender)
        if shared.due is None:
            self._remember(sender, None, template)
        return template

    def _remember(self, sender: Any, state: object, template: MessageTemplate) -> None:
        if sender is None:
            self._of_none = (state, template)
        else:
            self._by_class[sender] = (state, template)  # which takes classes only
