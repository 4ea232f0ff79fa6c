"""The `Signal` class: sent as Django's own, with receivers that run in workers after the sender's commit.

This module has the forms of ``send``; options, connecting and look-ups are in `declared_signal`, ``send_later`` in
`scheduling`. A send whose receivers all run in workers takes the fast path of `message_templates`; all others go
through `send_operation`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Never

from asgiref.sync import sync_to_async

from signalbus.connecting.receiver_entries import reject_unordered
from signalbus.connecting.senders import ObjectSenders, Unheard
from signalbus.core.suggestions import (
    AT_RECEIVER,
    SIGNAL_ALIASES,
    SIGNAL_OPTIONS,
    reject_unknown,
    takes_no_more,
)
from signalbus.registration.policy import CONNECT_OPTIONS
from signalbus.sending.deduplication import deduplication_from
from signalbus.sending.message_templates import MessageTemplates
from signalbus.sending.scheduling import Later
from signalbus.sending.send_operation import SendOperation, ids_of
from signalbus.sending.sent import Sent, unheard

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime, timedelta
    from uuid import UUID

    from signalbus.sending.deduplication import Unique
    from signalbus.sending.outgoing import OrderedBy, Outgoing, SharedFields

# What Signal() says of options that it does not take: those of a receiver belong where one is connected.
_ALIASES = {**dict.fromkeys({*CONNECT_OPTIONS} - {*SIGNAL_OPTIONS}, AT_RECEIVER), **SIGNAL_ALIASES}


class Signal(Later):
    """A channel with a stable name, whose receivers run in workers.

    Args:
        name: the stable name; if not given, the label of the app and the variable that the signal is assigned to.
        durable: False: no ledger row unless something goes wrong; for signals that are sent very often.
        was: names it had before; messages under those still arrive.
        open: the senders do not have the receivers' code: workers look receivers up by the signal's name and sender.
        ordered_by: a payload key, or a function of the payload: messages with the same value are delivered to a
            receiver one at a time, in the order of the commits; a message without a value is not ordered.
        use_caching: remember the receivers of each sender, as Django does.
        unique: a payload key, a function of the payload, or True for all of it: while a message of this sender with the
            same value waits, no other is sent, and `send` returns the id of the one that waits.
        debounce: seconds without another message of this sender (with the same value, with ``unique``), after which
            the last of a burst is published, and only that.
        max_wait: seconds after which the burst ends anyway; ten times ``debounce`` if not given.
        unknown: not accepted: the error names the option that was probably meant.

    Raises:
        TypeError: an option that does not exist.
        ConfigurationError: a name that is not a non-empty text, or options that contradict each other.
    """

    @takes_no_more
    def __init__(  # noqa: PLR0913 - the public API
        self,
        name: str | None = None,
        *,
        durable: bool = True,
        was: Iterable[str] = (),
        open: bool = False,  # noqa: A002 - the API
        ordered_by: OrderedBy | None = None,
        use_caching: bool = False,
        unique: Unique = False,
        debounce: float | timedelta | None = None,
        max_wait: float | timedelta | None = None,
        **unknown: Never,
    ) -> None:
        reject_unknown("Signal()", unknown, SIGNAL_OPTIONS, _ALIASES)
        reject_unordered(ordered_by, durable=durable, is_open=open)
        super().__init__(
            name,
            was=was,
            durable=durable,
            open=open,
            ordered_by=ordered_by,
            deduplication=deduplication_from(unique, debounce, max_wait, durable=durable, ordered_by=ordered_by),
            use_caching=use_caching,
        )
        self._unheard = Unheard()
        self._object_senders = ObjectSenders()
        self._templates = MessageTemplates(self._subscriptions)

    def send(self, sender: Any, **payload: Any) -> Sent:
        """Send to the connected receivers: in workers, after the commit; inline ones here, now.

        Args:
            sender: None, a class, a model instance, a function or a text.
            payload: the keyword arguments of the receivers; docs/payloads.md lists the types that can be sent.

        Returns:
            The responses of inline receivers, and the message's id.

        Raises:
            PayloadError: a value that cannot be sent; nothing was sent.
            CascadeError: a cascade too deep.
            ConfigurationError: a signal without a name, a name or id that two share, or an app that is not installed.
            MissingTables: `migrate` has not made the tables of signalbus yet.
        """
        if not self._subscriptions.entries and not self.open:  # nothing travels, so that it is Django's alone
            return Sent(super().send(sender, **payload)) if self.receivers else unheard()
        template = self._templates.of(self, sender)
        if template is not None:
            return template.send_one(sender, payload)
        operation = self._operation(sender)
        if operation is None:
            return Sent(super().send(sender, **payload))
        operation.encode((payload,))
        return operation.hand_over(super().send(sender, **payload) if operation.inline else ())

    def send_robust(self, sender: Any, **payload: Any) -> Sent:
        """Send as `send` does, and never raise: each receiver's error is its response.

        If the message cannot be sent, because of its payload or for any other reason, the error is the response of each
        of its receivers in workers; it is logged, and recorded as dead deliveries.

        Returns:
            The responses, and the message's id; no id if it could not be sent.

        Raises:
            ConfigurationError: the app is not installed.
            SignalBusError: under an event loop, inline coroutines cannot be awaited; nothing was sent.
        """
        if not self.receivers and not self.open:
            return unheard()
        operation = self._operation(sender, robust=True)
        if operation is None:
            return Sent(super().send_robust(sender, **payload))
        operation.encode((payload,))
        return operation.hand_over(super().send_robust(sender, **payload) if operation.inline else ())

    async def asend(self, sender: Any, **payload: Any) -> Sent:
        """Send from a coroutine; as `send` in everything else."""
        return await self._asend(super().asend, sender, payload)

    async def asend_robust(self, sender: Any, **payload: Any) -> Sent:
        """Send from a coroutine; as `send_robust` in everything else."""
        return await self._asend(super().asend_robust, sender, payload, robust=True)

    async def _asend(self, here: Any, sender: Any, payload: Mapping[str, Any], *, robust: bool = False) -> Sent:
        if not self.receivers and not self.open:
            return unheard()
        operation = self._operation(sender, robust=robust)
        if operation is None:
            return Sent(await here(sender, **payload))
        await sync_to_async(operation.encode)((payload,))
        return await sync_to_async(operation.hand_over)(await here(sender, **payload) if operation.inline else ())

    def send_many(self, sender: Any, payloads: Iterable[Mapping[str, Any]]) -> list[UUID | None]:
        """Send one message for each payload, together.

        Args:
            sender: as in `send`, the same for all.
            payloads: dicts, each what `send` takes as keywords.

        Returns:
            The messages' ids in the order of the payloads; None where nothing travels.

        Raises:
            PayloadError: a value that cannot travel; nothing was sent.
            CascadeError: a cascade too deep.
            ConfigurationError: a signal without a name, a name or id that two share, or an app that is not installed.
        """
        payloads = list(payloads)
        if not self.receivers and not self.open:
            unheard()
        template = self._templates.of(self, sender)
        if template is not None:
            return ids_of(*template.send(sender, payloads))
        operation = self._operation(sender)
        if operation is not None:
            operation.encode(payloads)
        if operation is None or operation.inline:
            for payload in payloads:
                super().send(sender, **payload)
        return [None] * len(payloads) if operation is None else operation.publish()

    def _operation(
        self, sender: Any, *, robust: bool = False, due: timedelta | datetime | None = None
    ) -> SendOperation | None:
        """Begin a send; return None if no receiver runs in a worker: then the send is Django's alone."""
        if not self._subscriptions.entries and not self.open:
            return None
        travelling, sync, asynchronous = self.split(sender)
        self._object_senders.warn_of_class(self, sender, self._living())
        if not travelling and not self.open:
            if not (sync or asynchronous):
                self._unheard.log_once(self, sender, self.entries())
            return None
        here = bool(sync or asynchronous)
        carried = self._object_senders.of(self, sender)
        return SendOperation(
            self,
            carried,
            travelling,
            inline=here,
            coroutines=bool(asynchronous) and due is None,
            robust=robust,
            compose=self.compose,
            due=due,
        )

    def compose(self, shared: SharedFields, sender: Any, payloads: Iterable[Mapping[str, Any]]) -> list[list[Outgoing]]:
        """Encode payloads into messages; a bridge first selects the parts of a payload that it sends."""
        return self._templates.with_shared_fields(shared, sender).messages(
            sender, payloads, shared.context, shared.origin
        )
