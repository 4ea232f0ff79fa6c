"""Signals: declared, connected and sent as Django's are; what is connected here runs in a worker."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.apps import apps
from django.dispatch import Signal as DjangoSignal
from django.dispatch.dispatcher import NONE_ID, _make_id  # type: ignore[attr-defined]

from signalbus.exceptions import ConfigurationError, PayloadError
from signalbus.registry import registry
from signalbus.sending.composing import Envelope, Outgoing, route
from signalbus.sending.connecting import Roster, SenderCache, reject_unreachable, resolve_entry
from signalbus.sending.naming import Named
from signalbus.wire.references import allow_sender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import ModuleType
    from uuid import UUID

    from signalbus.registry import Conflict, Receiver
    from signalbus.retry import Retry

    Responses = Iterable[tuple[Any, Any]]
    Split = tuple[Sequence[Receiver], Sequence[Any], Sequence[Any]]

logger = logging.getLogger("django.dispatch")

NOBODY: Split = ((), (), ())
RESERVED = ("signal", "sender")  # what a receiver gets beside the payload


class Sent(list[tuple[Any, Any]]):
    """What a send returns: (receiver, response) for each receiver that ran in this process; normally none."""

    id: UUID | None = None  # the message's id, or None if nothing travels


def _unheard() -> Sent:
    """Answer a send that nobody listens to, where somebody could."""
    if not registry.complete and apps.ready:
        raise ConfigurationError(
            'Add "signalbus" to INSTALLED_APPS: without it, nobody looks for the receivers of your apps, and whatever '
            "you send reaches nobody."
        )
    return Sent()


class Signal(Named, DjangoSignal):
    """A channel with a stable name, whose receivers run in workers.

    Args:
        name: the stable name; found from where the signal stands if not given.
        durable: False: no ledger row unless something goes wrong, for the hottest signals.
        was: names it had before; messages under those still arrive.
        open: the senders do not have the receivers' code: workers look receivers up by the signal's name and sender.
        ordered_by: a payload key; carried in the header for transports that keep an order.
        use_caching: remember the receivers of each sender, as Django does.

    Raises:
        ConfigurationError: a name that is not a non-empty text.
    """

    def __init__(  # noqa: PLR0913 - the public API
        self,
        name: str | None = None,
        *,
        durable: bool = True,
        was: Iterable[str] = (),
        open: bool = False,  # noqa: A002 - the API
        ordered_by: str | None = None,
        use_caching: bool = False,
    ) -> None:
        super().__init__(use_caching=use_caching)
        self.durable = durable
        self.open = open
        self.ordered_by = ordered_by
        if use_caching:
            self.sender_receivers_cache = SenderCache()
        self._roster = Roster()
        self._settle(name, (was,) if isinstance(was, str) else tuple(was))

    @property
    def conflicts(self) -> list[Conflict]:
        """The receivers that share an id."""
        return self._roster.conflicts

    @property
    def presented(self) -> DjangoSignal:
        """What receivers get as ``signal``."""
        return self

    # Connecting

    def connect(  # noqa: PLR0913 - Django's signature and a receiver's policy
        self,
        receiver: Callable[..., Any],
        sender: object = None,
        weak: bool = True,
        dispatch_uid: Any = None,
        *,
        retry: Retry | None = None,
        queue: str | None = None,
        inline: bool = False,
        atomic: bool = True,
        on_missing: str = "skip",
        timeout: float | None = None,
        was: Iterable[str] = (),
    ) -> None:
        """Connect a receiver, as Django does; it will run in a worker.

        Args:
            receiver: a function, sync or async, that takes keyword arguments.
            sender: only what this sender sends; None for any.
            weak: do not keep the receiver alive.
            dispatch_uid: a text becomes the receiver's id.
            retry: how often and how long apart to try; ``Retry()`` if not given.
            queue: the Celery queue to deliver through.
            inline: run it in the sender's process, as Django would.
            atomic: run it in a transaction, together with its receipt.
            on_missing: "skip" or "fail" when a row of the message is gone.
            timeout: seconds for one run.
            was: ids it had before it was renamed.

        Raises:
            ConfigurationError: a receiver that a worker could not find again, or a policy that means nothing.
        """
        entry = None
        if not inline:
            reject_unreachable(receiver, dispatch_uid)
            entry = resolve_entry(
                receiver,
                sender,
                weak,
                dispatch_uid,
                retry=retry,
                queue=queue,
                atomic=atomic,
                on_missing=on_missing,
                timeout=timeout,
                was=was,
            )
            allow_sender(sender)
        key = (dispatch_uid or _make_id(receiver), _make_id(sender))
        with self.lock:
            self._clear_dead_receivers()  # type: ignore[attr-defined]
            known = any(taken == key for taken, *_ in self.receivers)
        if entry is not None:
            # Before Django has it, so that no other thread finds it there and takes it for an inline one.
            self._roster.add(key, entry, known=known)
        elif not known:
            self._roster.drop(key)  # an id() that a dead receiver left behind
        try:
            super().connect(receiver, sender, weak, dispatch_uid)
        except BaseException:
            if not known:
                self._roster.drop(key)
            raise

    def disconnect(self, receiver: Any = None, sender: object = None, dispatch_uid: Any = None) -> bool:
        """Disconnect a receiver, as Django does; return whether there was anything to disconnect."""
        disconnected = super().disconnect(receiver, sender, dispatch_uid)
        if disconnected:
            self._roster.drop((dispatch_uid or _make_id(receiver), _make_id(sender)))
        return bool(disconnected)

    def has_listeners(self, sender: Any = None) -> bool:
        """Whether a send by this sender would reach anyone that is connected in this process."""
        return any(self._split(sender))

    def entries(self) -> list[Receiver]:
        """Return the living receivers that travel, in the order of their connection."""
        return list(self._roster)

    def find(self, receiver: str, sender: str | None) -> Receiver | None:
        """Look a recipient up, as a worker does.

        Args:
            receiver: the id that the message carries.
            sender: the name of the message's sender.

        Returns:
            The receiver connected under that id (or that had it before), or None.
        """
        found = self._roster.called(receiver)
        return next((entry for entry in found if entry.sender == sender), found[0] if found else None)

    def matching(self, sender: str | None) -> list[Receiver]:
        """Return the receivers of an open message from this sender."""
        return [entry for entry in self._roster if entry.sender in {None, sender}]

    _dead_receivers: bool  # Django's

    def _split(self, sender: object) -> Split:
        """Sort what is connected for a sender: what travels, and the functions and coroutines that run here."""
        connected = self.sender_receivers_cache.get(sender) if self.use_caching and not self._dead_receivers else None
        if connected is None:
            wanted = (NONE_ID, _make_id(sender))
            with self.lock:
                self._clear_dead_receivers()  # type: ignore[attr-defined]
                # With what travels, at this moment: a receiver that is disconnected meanwhile must not look like an
                # inline one.
                connected = [(each, self._roster.get(each[0])) for each in self.receivers if each[0][1] in wanted]
                if self.use_caching:
                    self.sender_receivers_cache[sender] = connected
        if not connected:
            return NOBODY
        travelling: list[Receiver] = []
        sync: list[Any] = []
        asynchronous: list[Any] = []
        # Each: the key, a reference to the receiver, since Django 6.0 one to the sender, is it async.
        for each, entry in connected:
            if entry is not None:
                if entry.function() is not None:
                    travelling.append(entry)
                continue
            function = each[1]() if isinstance(each[1], weakref.ReferenceType) else each[1]
            if function is not None:
                (asynchronous if each[-1] else sync).append(function)
        return travelling, sync, asynchronous

    def _live_receivers(self, sender: Any) -> tuple[list[Any], list[Any]]:
        """Give Django's own methods the receivers that run here: the others are not theirs to call."""
        _travelling, sync, asynchronous = self._split(sender)
        return list(sync), list(asynchronous)

    def _log_robust_failure(self, receiver: Any, err: Exception) -> None:
        """Log as Django does, and do not fail for a receiver without a name of its own (a partial, an object)."""
        name = getattr(receiver, "__qualname__", type(receiver).__qualname__)
        logger.error("Error calling %s in Signal.send_robust() (%s)", name, err, exc_info=err)

    # Sending

    def send(self, sender: Any, **payload: Any) -> Sent:
        """Send to the connected receivers: in workers, after the commit; inline ones here, now.

        Args:
            sender: None, a class, a model instance, a function or a text.
            payload: what the receivers get; docs/payloads.md lists what can travel.

        Returns:
            The responses of inline receivers, and the message's id.

        Raises:
            PayloadError: a value that cannot travel; nothing was sent.
            CascadeError: a cascade too deep.
            ConfigurationError: a signal without a name, a name or id that two share, or an app that is not installed.
        """
        if not self.receivers and not self.open:
            return _unheard()
        travelling, sync, asynchronous = self._split(sender)
        messages = self._encode(sender, (payload,), travelling) if travelling or self.open else None
        if asynchronous:
            return _publish(messages, super().send(sender, **payload))
        sent = Sent()
        for receiver in sync:
            sent.append((receiver, receiver(signal=self, sender=sender, **payload)))
        return sent if messages is None else _publish(messages, sent)

    def send_robust(self, sender: Any, **payload: Any) -> Sent:
        """Send as `send` does; an inline receiver's exception is its response, and the broker never raises."""
        if not self.receivers and not self.open:
            return _unheard()
        travelling, sync, asynchronous = self._split(sender)
        messages = self._encode(sender, (payload,), travelling) if travelling or self.open else None
        if asynchronous:
            return _publish(messages, super().send_robust(sender, **payload), robust=True)
        sent = Sent()
        for receiver in sync:
            try:
                response = receiver(signal=self, sender=sender, **payload)
            except Exception as error:  # noqa: BLE001 - the response, as in Django
                self._log_robust_failure(receiver, error)
                response = error
            sent.append((receiver, response))
        return sent if messages is None else _publish(messages, sent, robust=True)

    async def asend(self, sender: Any, **payload: Any) -> Sent:
        """Send from a coroutine; as `send` in everything else."""
        if not self.receivers and not self.open:
            return _unheard()
        messages = await self._aencode(sender, payload)
        responses = await super().asend(sender, **payload)
        return await sync_to_async(_publish)(messages, responses) if messages else _publish(None, responses)

    async def asend_robust(self, sender: Any, **payload: Any) -> Sent:
        """Send from a coroutine; as `send_robust` in everything else."""
        if not self.receivers and not self.open:
            return _unheard()
        messages = await self._aencode(sender, payload)
        responses = await super().asend_robust(sender, **payload)
        if not messages:
            return _publish(None, responses)
        return await sync_to_async(_publish)(messages, responses, robust=True)

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
            _unheard()
        travelling, *inline = self._split(sender)
        messages = self._encode(sender, payloads, travelling) if travelling or self.open else None
        for payload in payloads if any(inline) else ():
            super().send(sender, **payload)
        if messages is None:
            return [None] * len(payloads)
        _outbox().add([outgoing for parts in messages for outgoing in parts], robust=False)
        return [parts[0].message.id if parts else None for parts in messages]

    async def _aencode(self, sender: Any, payload: Mapping[str, Any]) -> list[list[Outgoing]] | None:
        travelling = self._split(sender)[0]
        if not travelling and not self.open:
            return None  # nothing that could ask a database: no need for a thread
        return await sync_to_async(self._encode)(sender, (payload,), travelling)

    def _encode(
        self, sender: Any, payloads: Iterable[Mapping[str, Any]], travelling: Sequence[Receiver]
    ) -> list[list[Outgoing]]:
        """Encode what travels, once it is known that something does."""
        if self.conflicts:
            raise ConfigurationError(str(self.conflicts[0]))
        for key in RESERVED:
            if any(key in payload for payload in payloads):
                raise PayloadError("receivers get one beside the payload: call it something else", key)
        envelope = Envelope(
            signal=self.name,
            durable=self.durable,
            ordered_by=self.ordered_by,
            ledger=_outbox().ledger.using(),
            routes={None: None} if self.open else route(travelling),
        )
        return self.compose(envelope, sender, payloads)

    def compose(self, envelope: Envelope, sender: Any, payloads: Iterable[Mapping[str, Any]]) -> list[list[Outgoing]]:
        """Encode payloads; a bridge first chooses what of them travels."""
        return envelope.messages(sender, payloads)


def _publish(messages: list[list[Outgoing]] | None, responses: Responses, *, robust: bool = False) -> Sent:
    sent = Sent(responses)
    if messages is not None and messages[0]:
        _outbox().add(messages[0], robust=robust)
        sent.id = messages[0][0].message.id
    return sent


def _outbox() -> ModuleType:
    """Import the outbox when something is sent: its tables must wait until the apps are loaded, a Signal must not."""
    from signalbus.sending import outbox  # noqa: PLC0415 - see above

    return outbox
