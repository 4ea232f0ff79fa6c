"""Signals: declared, connected and sent as Django's are; what is connected here runs in a worker."""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.apps import apps
from django.dispatch import Signal as DjangoSignal
from django.dispatch.dispatcher import NONE_ID, _make_id

from signalbus.exceptions import ConfigurationError
from signalbus.registry import Conflict, Receiver, app_label_of, registry, variable_of
from signalbus.sending.composing import Envelope, Outgoing, route
from signalbus.sending.connecting import reject_unreachable, resolve_entry
from signalbus.wire.references import allow_sender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import ModuleType
    from uuid import UUID

    from signalbus.receiving.retry import Retry


class Sent(list[tuple[Any, Any]]):
    """What a send returns: (receiver, response) for each receiver that ran in this process; normally none.

    Args:
        responses: those pairs.
        id: the message's id, or None if nothing travels.
    """

    def __init__(self, responses: Iterable[tuple[Any, Any]] = (), id: UUID | None = None) -> None:  # noqa: A002 - the API
        super().__init__(responses)
        self.id = id


class Signal(DjangoSignal):
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
        if name is not None and (not isinstance(name, str) or not name):
            raise ConfigurationError(f"A signal's name is a text such as 'admissions.cohort_saved', not {name!r}.")
        super().__init__(use_caching=use_caching)
        self.durable = durable
        self.was = (was,) if isinstance(was, str) else tuple(was)
        self.open = open
        self.ordered_by = ordered_by
        frame = sys._getframe(1)  # noqa: SLF001 - the documented way to the caller's module (PEP 667)
        self._module: str = frame.f_globals.get("__name__", "")
        self.place = f"{self._module}:{frame.f_lineno}"
        self._name = name
        self._attribute: str | None = None
        self._unrivalled = False
        self._entries: dict[Any, Receiver] = {}  # by Django's own look-up key
        self.conflicts: list[Conflict] = []
        registry.add(self)

    def __set_name__(self, owner: type, name: str) -> None:
        self._module = owner.__module__
        self._attribute = f"{owner.__qualname__}.{name}"

    def __repr__(self) -> str:
        return f"<Signal {self._name or self.place}>"

    # Names

    @property
    def name(self) -> str:
        """The stable name, under which messages travel.

        Raises:
            ConfigurationError: it stands nowhere, or two signals share it.
        """
        if self._unrivalled and self._name is not None:
            return self._name
        name = self.known_name()
        if name is None:
            raise ConfigurationError(
                f"The signal made at {self.place} has no name: assign it to a variable of a module, or give it one, as in "
                'Signal("admissions.cohort_saved"). A worker finds a signal by its name.'
            )
        rival = registry.rival(self, name)
        if rival is not None:
            raise ConfigurationError(str(rival))
        self._unrivalled = True
        return name

    def known_name(self) -> str | None:
        """Return the name, or None while there is none; rivals are not asked for."""
        if self._name is None and apps.apps_ready:
            variable = self._attribute or variable_of(self._module, self)
            if variable is not None and "<locals>" not in variable:
                self._name = f"{app_label_of(self._module) or self._module}.{variable}"
        return self._name

    # Connecting

    def connect(  # type: ignore[override]  # noqa: PLR0913 - Django's signature and a receiver's policy
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
        known = any(taken == key for taken, *_ in self.receivers)
        super().connect(receiver, sender, weak, dispatch_uid)
        if entry is not None:
            self._note_conflict(entry, key if known else None)
        if not known:
            self._entries.pop(key, None)  # an id() that a dead receiver left behind
            if entry is not None:
                self._entries[key] = entry

    def _note_conflict(self, entry: Receiver, own_key: Any) -> None:
        """Remember a second receiver with a living one's id; a module loaded again only replaces its own."""
        for key, other in self._entries.items():
            if own_key is None and not any(key == taken for taken, *_ in self.receivers):
                continue
            if (
                (other.id, other.sender) == (entry.id, entry.sender)
                and other.place != entry.place
                and other.function() is not None
            ):
                self.conflicts.append(Conflict("receiver", entry.id, (other.place, entry.place)))

    def disconnect(self, receiver: Any = None, sender: object = None, dispatch_uid: Any = None) -> bool:
        """Disconnect a receiver, as Django does.

        Args:
            receiver: the receiver; may be None with a dispatch_uid.
            sender: the sender it was connected for.
            dispatch_uid: the uid it was connected with.

        Returns:
            Whether there was anything to disconnect.
        """
        disconnected = super().disconnect(receiver, sender, dispatch_uid)
        if disconnected:
            entry = self._entries.pop((dispatch_uid or _make_id(receiver), _make_id(sender)), None)
            if entry is not None:
                self.conflicts = [conflict for conflict in self.conflicts if entry.place not in conflict.places]
        return bool(disconnected)

    def has_listeners(self, sender: Any = None) -> bool:
        """Whether a send by this sender would reach anyone that is connected in this process."""
        travelling, inline = self._split(sender)
        return bool(travelling or inline)

    def entries(self) -> list[Receiver]:
        """Return the living receivers that travel, in the order of their connection."""
        with self.lock:
            self._clear_dead_receivers()  # type: ignore[attr-defined]
            entries = [self._entries.get(key) for key, *_ in self.receivers]
        return [entry for entry in entries if entry is not None and entry.function() is not None]

    def find(self, receiver: str, sender: str | None) -> Receiver | None:
        """Look a recipient up, as a worker does.

        Args:
            receiver: the id that the message carries.
            sender: the name of the message's sender.

        Returns:
            The receiver connected under that id (or that had it before), or None.
        """
        entries = self.entries()
        found = [entry for entry in entries if entry.id == receiver] or [e for e in entries if receiver in e.was]
        return next((entry for entry in found if entry.sender == sender), found[0] if found else None)

    def matching(self, sender: str | None) -> list[Receiver]:
        """Return the receivers of an open message from this sender."""
        return [entry for entry in self.entries() if entry.sender in {None, sender}]

    def _split(self, sender: object) -> tuple[list[Receiver], list[tuple[Any, bool]]]:
        """Sort the receivers that are connected for a sender into those that travel and those that run here."""
        cached = self.sender_receivers_cache.get(sender) if self.use_caching and not self._dead_receivers else None
        if cached is not None:
            return cached  # type: ignore[no-any-return]
        travelling: list[Receiver] = []
        inline: list[tuple[Any, bool]] = []
        wanted = (NONE_ID, _make_id(sender))
        with self.lock:
            self._clear_dead_receivers()  # type: ignore[attr-defined]
            for key, reference, *is_async in self.receivers:
                if key[1] in wanted:
                    entry = self._entries.get(key)
                    if entry is None:
                        inline.append((reference, is_async[0]))
                    elif entry.function() is not None:
                        travelling.append(entry)
            if self.use_caching:
                self.sender_receivers_cache[sender] = (travelling, inline)
        return travelling, inline

    def _live_receivers(self, sender: Any) -> tuple[list[Any], list[Any]]:
        """Give Django's own send() the receivers that run here: the others are not its to call."""
        sync: list[Any] = []
        asynchronous: list[Any] = []
        for reference, is_async in self._split(sender)[1]:
            function = reference() if isinstance(reference, weakref.ReferenceType) else reference
            if function is not None:
                (asynchronous if is_async else sync).append(function)
        return sync, asynchronous

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
            ConfigurationError: a signal without a name, or a name or id that two share.
        """
        if not self.receivers and not self.open:
            return Sent()
        travelling, inline = self._split(sender)
        messages = self._encode(sender, [payload], travelling)
        responses = super().send(sender, **payload) if inline else ()
        return self._publish(messages, responses)

    def send_robust(self, sender: Any, **payload: Any) -> Sent:
        """Send as `send` does; an inline receiver's exception is its response.

        Args:
            sender: as in `send`.
            payload: as in `send`.

        Returns:
            As `send`.

        Raises:
            PayloadError: a value that cannot travel; nothing was sent.
            CascadeError: a cascade too deep.
            ConfigurationError: a signal without a name, or a name or id that two share.
        """
        if not self.receivers and not self.open:
            return Sent()
        travelling, inline = self._split(sender)
        messages = self._encode(sender, [payload], travelling)
        responses = super().send_robust(sender, **payload) if inline else ()
        return self._publish(messages, responses, robust=True)

    async def asend(self, sender: Any, **payload: Any) -> Sent:
        """Send from a coroutine; as `send` in everything else."""
        if not self.receivers and not self.open:
            return Sent()
        travelling, inline = self._split(sender)
        messages = None
        if travelling or self.open:
            messages = await sync_to_async(self._encode)(sender, [payload], travelling)
        responses = await super().asend(sender, **payload) if inline else ()
        return Sent(responses) if messages is None else await sync_to_async(self._publish)(messages, responses)

    async def asend_robust(self, sender: Any, **payload: Any) -> Sent:
        """Send from a coroutine; as `send_robust` in everything else."""
        if not self.receivers and not self.open:
            return Sent()
        travelling, inline = self._split(sender)
        messages = None
        if travelling or self.open:
            messages = await sync_to_async(self._encode)(sender, [payload], travelling)
        responses = await super().asend_robust(sender, **payload) if inline else ()
        if messages is None:
            return Sent(responses)
        return await sync_to_async(self._publish)(messages, responses, robust=True)

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
            ConfigurationError: a signal without a name, or a name or id that two share.
        """
        payloads = list(payloads)
        travelling, inline = self._split(sender)
        messages = self._encode(sender, payloads, travelling)
        if inline:
            for payload in payloads:
                super().send(sender, **payload)
        if messages is None:
            return [None] * len(payloads)
        _outbox().add([outgoing for parts in messages for outgoing in parts])
        return [parts[0].message.id for parts in messages]

    def _publish(
        self, messages: list[list[Outgoing]] | None, responses: Iterable[tuple[Any, Any]], *, robust: bool = False
    ) -> Sent:
        if messages is None:
            return Sent(responses)
        _outbox().add(messages[0], robust=robust)
        return Sent(responses, messages[0][0].message.id)

    def _encode(
        self, sender: Any, payloads: Iterable[Mapping[str, Any]], travelling: list[Receiver]
    ) -> list[list[Outgoing]] | None:
        """Encode what travels; None if nothing does."""
        if not travelling and not self.open:
            return None
        if self.conflicts:
            raise ConfigurationError(str(self.conflicts[0]))
        envelope = Envelope(
            signal=self.name,
            durable=self.durable,
            ordered_by=self.ordered_by,
            ledger=_outbox().ledger.using(),
            routes={None: None} if self.open else route(travelling),
        )
        return envelope.messages(sender, payloads)


def _outbox() -> ModuleType:
    """Import the outbox when something is sent: its tables cannot be imported before the apps are loaded, a Signal must."""
    from signalbus.sending import outbox  # noqa: PLC0415 - see above

    return outbox
