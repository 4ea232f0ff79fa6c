"""The `Signal` class: sent as Django's own, with receivers that run in workers after the sender's commit.

This module has the forms of ``send``; options, connecting and look-ups are in `declared_signal`, ``send_later`` in
`scheduling`. A send whose receivers all run in workers takes the fast path of `message_templates`; all others go
through `send_operation`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Concatenate, Never, TypedDict, overload

from asgiref.sync import sync_to_async

from signalbus.connecting.receiver_entries import reject_unordered
from signalbus.connecting.senders import ObjectSenders, Unheard
from signalbus.contracts.contract import Contract, checked_version
from signalbus.core.suggestions import (
    AT_RECEIVER,
    SIGNAL_ALIASES,
    SIGNAL_OPTIONS,
    reject_unknown,
    takes_no_more,
)
from signalbus.exceptions import ConfigurationError
from signalbus.registration.policy import CONNECT_OPTIONS
from signalbus.sending.deduplication import deduplication_from
from signalbus.sending.message_templates import MessageTemplates
from signalbus.sending.payload_checks import (
    achecked,
    achecked_robustly,
    checked,
    checked_payloads,
    checked_robustly,
    reject_positional,
)
from signalbus.sending.scheduling import Later, P
from signalbus.sending.send_operation import SendOperation, ids_of
from signalbus.sending.sent import Sent, unheard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime, timedelta
    from uuid import UUID

    from typing_extensions import Unpack

    from signalbus.contracts.contract import Upcast
    from signalbus.contracts.payload_objects import PayloadObject
    from signalbus.sending.deduplication import Unique
    from signalbus.sending.outgoing import OrderedBy, Outgoing, SharedFields

logger: logging.Logger = logging.getLogger("signalbus")

# What Signal() says of options that it does not take: those of a receiver belong where one is connected.
_ALIASES = {**dict.fromkeys({*CONNECT_OPTIONS} - {*SIGNAL_OPTIONS}, AT_RECEIVER), **SIGNAL_ALIASES}


class SignalOptions(TypedDict, total=False):
    """The options of `Signal` beside its name and its payload; `Signal` says what they mean."""

    durable: bool
    was: Iterable[str]
    open: bool
    ordered_by: OrderedBy | None
    use_caching: bool
    unique: Unique
    debounce: float | timedelta | None
    max_wait: float | timedelta | None


class Signal(Later[P]):
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
        payload: a dataclass, an attrs class, a TypedDict, a pydantic model or a msgspec struct, whose fields are the
            keys of the payload: `send` checks them, and type checkers know them. None: any payload.
        version: the version of that class; raise it with a change that needs an `upcast`.
        unknown: not accepted: the error names the option that was probably meant.

    Raises:
        TypeError: an option that does not exist.
        ConfigurationError: a name that is not a non-empty text, a payload that is no such class, or options that
            contradict each other.
    """

    @overload
    def __init__(self: Signal[...], name: str | None = None, **options: Unpack[SignalOptions]) -> None: ...

    @overload
    def __init__(
        self,
        name: str | None = None,
        *,
        payload: Callable[P, object],
        version: int = 1,
        **options: Unpack[SignalOptions],
    ) -> None: ...

    @overload  # pyright takes a TypedDict for this one, and then does not know which keys are required
    def __init__(
        self,
        name: str | None = None,
        *,
        payload: Callable[Concatenate[Any, P], object],
        version: int = 1,
        **options: Unpack[SignalOptions],
    ) -> None: ...

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
        payload: Any = None,
        version: int = 1,
        **unknown: Never,
    ) -> None:
        reject_unknown("Signal()", unknown, SIGNAL_OPTIONS, _ALIASES)
        reject_unordered(ordered_by, durable=durable, is_open=open)
        if payload is None and checked_version(version) != 1:
            raise ConfigurationError(f"version={version} is that of a payload: declare it with payload=….")
        super().__init__(
            name,
            was=was,
            durable=durable,
            open=open,
            ordered_by=ordered_by,
            deduplication=deduplication_from(unique, debounce, max_wait, durable=durable, ordered_by=ordered_by),
            use_caching=use_caching,
            contract=None if payload is None else Contract(payload, version),
        )
        self._unheard = Unheard()
        self._object_senders = ObjectSenders()
        self._templates = MessageTemplates(self._subscriptions)

    def upcast(self, *, from_version: int) -> Callable[[Upcast], Upcast]:
        """Return a decorator: the function makes a payload of the next version from one of an older version.

        Workers call it for messages that were sent with the older version; versions further back go through a chain.

        Args:
            from_version: the version that the function takes, below that of the signal. The function takes the payload
                as a dict, with its rows loaded, and returns it as the next version has it.

        Raises:
            ConfigurationError: the signal declares no payload, or not such a version.
        """
        contract = self.contract
        if contract is None:
            raise ConfigurationError(f"{self!r} declares no payload, and so no versions: say Signal(payload=…).")

        def register(function: Upcast) -> Upcast:
            contract.add_upcast(from_version, function)
            return function

        return register

    def send(self, sender: Any, *args: P.args, **payload: P.kwargs) -> Sent:
        """Send to the connected receivers: in workers, after the commit; inline ones here, now.

        Args:
            sender: None, a class, a model instance, a function or a text.
            args: nothing: the payload is given by keywords.
            payload: the keyword arguments of the receivers; docs/payloads.md lists the types that can be sent.

        Returns:
            The responses of inline receivers, and the message's id.

        Raises:
            PayloadError: a value that cannot be sent, or a payload that is not as declared; nothing was sent.
            CascadeError: a cascade too deep.
            ConfigurationError: a signal without a name, a name or id that two share, or an app that is not installed.
            MissingTables: `migrate` has not made the tables of signalbus yet.
        """
        given: dict[str, Any] = payload
        if args:
            reject_positional("send", args)
        if self.contract is not None:
            given = checked(self.contract, given)
        if not self._subscriptions.entries and not self.open:  # nothing travels, so that it is Django's alone
            return Sent(super().send(sender, **given)) if self.receivers else unheard()
        template = self._templates.of(self, sender)
        if template is not None:
            return template.send_one(sender, given)
        operation = self._operation(sender)
        if operation is None:
            return Sent(super().send(sender, **given))
        operation.encode((given,))
        return operation.hand_over(super().send(sender, **given) if operation.inline else ())

    def send_robust(self, sender: Any, *args: P.args, **payload: P.kwargs) -> Sent:
        """Send as `send` does, and never raise: each receiver's error is its response.

        If the message cannot be sent, because of its payload or for any other reason, the error is the response of each
        of its receivers in workers; it is logged, and recorded as dead deliveries.

        Returns:
            The responses, and the message's id; no id if it could not be sent.

        Raises:
            ConfigurationError: the app is not installed.
            SignalBusError: under an event loop, inline coroutines cannot be awaited; nothing was sent.
        """
        given: dict[str, Any] = payload
        fault: Exception | None = None
        if args:
            reject_positional("send_robust", args)
        if self.contract is not None:
            given, fault = checked_robustly(self.contract, given)
        if not self.receivers and not self.open:
            return unheard()
        operation = self._operation(sender, robust=True)
        if fault is not None:
            return self._refused(sender, operation, fault)
        if operation is None:
            return Sent(super().send_robust(sender, **given))
        operation.encode((given,))
        return operation.hand_over(super().send_robust(sender, **given) if operation.inline else ())

    async def asend(self, sender: Any, *args: P.args, **payload: P.kwargs) -> Sent:
        """Send from a coroutine; as `send` in everything else."""
        reject_positional("asend", args)
        return await self._asend(super().asend, sender, await achecked(self.contract, payload))

    async def asend_robust(self, sender: Any, *args: P.args, **payload: P.kwargs) -> Sent:
        """Send from a coroutine; as `send_robust` in everything else."""
        given: dict[str, Any] = payload
        fault: Exception | None = None
        if args:
            reject_positional("asend_robust", args)
        if self.contract is not None:
            given, fault = await achecked_robustly(self.contract, given)
        return await self._asend(super().asend_robust, sender, given, robust=True, fault=fault)

    async def _asend(
        self,
        here: Any,
        sender: Any,
        payload: Mapping[str, Any],
        *,
        robust: bool = False,
        fault: Exception | None = None,
    ) -> Sent:
        if not self.receivers and not self.open:
            return unheard()
        operation = self._operation(sender, robust=robust)
        if fault is not None:
            return await sync_to_async(self._refused)(sender, operation, fault)
        if operation is None:
            return Sent(await here(sender, **payload))
        await sync_to_async(operation.encode)((payload,))
        return await sync_to_async(operation.hand_over)(await here(sender, **payload) if operation.inline else ())

    def _refused(self, sender: Any, operation: SendOperation | None, fault: Exception) -> Sent:
        """Let the error be the response of each receiver, here and in workers, and record it as dead deliveries."""
        _, sync, asynchronous = self.split(sender)
        here = [(receiver, fault) for receiver in (*sync, *asynchronous)]
        if operation is None:
            logger.error("signalbus could not send %s: %s", self, fault, exc_info=fault)
            return Sent(here)
        operation.fail(fault)
        return operation.hand_over(here)

    def send_many(self, sender: Any, payloads: Iterable[Mapping[str, Any] | PayloadObject]) -> list[UUID | None]:
        """Send one message for each payload, together.

        Args:
            sender: as in `send`, the same for all.
            payloads: dicts, each what `send` takes as keywords; or objects of the class that the signal declares.

        Returns:
            The messages' ids in the order of the payloads; None where nothing travels.

        Raises:
            PayloadError: a value that cannot travel, or a payload that is not as declared; nothing was sent.
            CascadeError: a cascade too deep.
            ConfigurationError: a signal without a name, a name or id that two share, or an app that is not installed.
        """
        mappings = checked_payloads(self.contract, payloads)
        if not self.receivers and not self.open:
            unheard()
        template = self._templates.of(self, sender)
        if template is not None:
            return ids_of(*template.send(sender, mappings))
        operation = self._operation(sender)
        if operation is not None:
            operation.encode(mappings)
        if operation is None or operation.inline:
            for payload in mappings:
                super().send(sender, **payload)
        return [None] * len(mappings) if operation is None else operation.publish()

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
