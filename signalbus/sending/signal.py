"""The `Signal` class: declared, connected and sent as Django's own; its receivers run in a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Never, Unpack

from asgiref.sync import sync_to_async

from signalbus.compat.django_internals import HookedSignal, key_of
from signalbus.connecting.eligibility import reject_unreachable, reject_without_kwargs
from signalbus.connecting.factory import (
    in_order,
    place_of,
    plain,
    reject_unordered,
    resolve_entry,
    site_of_call,
)
from signalbus.connecting.naming import Named
from signalbus.connecting.senders import ObjectSenders, Unheard, interned, with_model
from signalbus.connecting.subscriptions import Refusals, SenderCache, Subscriptions, sort_out
from signalbus.core.suggestions import (
    AT_RECEIVER,
    RECEIVER_ALIASES,
    SIGNAL_ALIASES,
    SIGNAL_OPTIONS,
    reject_unknown,
    takes_no_more,
)
from signalbus.exceptions import ConfigurationError
from signalbus.registration.policy import CONNECT_OPTIONS, policy_from, shows_options
from signalbus.sending.deduplication import deduplication_from
from signalbus.sending.message_templates import MessageTemplates
from signalbus.sending.scheduling import Later
from signalbus.sending.send_operation import SendOperation, Sent, ids_of, unheard
from signalbus.wire.values.references import allow_sender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime, timedelta
    from uuid import UUID

    from django.dispatch import Signal as DjangoSignal

    from signalbus.compat.django_internals import Here, Key
    from signalbus.connecting.subscriptions import Split
    from signalbus.registration.policy import ConnectOptions, Policy
    from signalbus.registration.registry import Conflict, Receiver
    from signalbus.sending.deduplication import Deduplication, Unique
    from signalbus.sending.outgoing import OrderedBy, Outgoing, SharedFields

# What Signal() says of options that it does not take: those of a receiver belong where one is connected.
_ALIASES = {**dict.fromkeys({*CONNECT_OPTIONS} - {*SIGNAL_OPTIONS}, AT_RECEIVER), **SIGNAL_ALIASES}


class Signal(Named, Later, HookedSignal):
    """A channel with a stable name, whose receivers run in workers.

    Args:
        name: the stable name; found from where the signal stands if not given.
        durable: False: no ledger row unless something goes wrong, for the hottest signals.
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
        unknown: nothing; another option is refused, with a hint at the option that was probably meant.

    Raises:
        TypeError: an option that does not exist.
        ConfigurationError: a name that is not a non-empty text, or options that contradict each other.
    """

    as_given: bool = True  # what is given to send() is what travels: `compose` chooses nothing

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
        super().__init__(use_caching=use_caching)
        self.durable = durable
        self.open = open
        reject_unordered(ordered_by, durable=durable, is_open=open)
        self.ordered_by = ordered_by
        self.deduplication: Deduplication | None = deduplication_from(
            unique, debounce, max_wait, durable=durable, ordered_by=ordered_by
        )
        if use_caching:
            self.sender_receivers_cache: Any = SenderCache()
        self.refusals: Refusals = Refusals()
        self._unheard = Unheard()
        self._object_senders = ObjectSenders()
        self._subscriptions = Subscriptions()
        self._templates = MessageTemplates(self._subscriptions)
        self._settle(name, (was,) if isinstance(was, str) else tuple(was))

    @property
    def conflicts(self) -> list[Conflict]:
        """The receivers that share an id."""
        return self._subscriptions.conflicts

    @property
    def presented(self) -> DjangoSignal:
        """The object that receivers get as ``signal``."""
        return self

    # Connecting

    @shows_options
    def connect(
        self,
        receiver: Callable[..., Any],
        sender: object = None,
        weak: bool = True,
        dispatch_uid: Any = None,
        **options: Unpack[ConnectOptions],
    ) -> None:
        """Connect a receiver, as Django does; it will run in a worker.

        Args:
            receiver: a function, sync or async, that takes keyword arguments.
            sender: receive from this sender only; None for any. ``"app.Model"`` stands for that model, as in Django.
            weak: do not keep the receiver alive.
            dispatch_uid: a text becomes the receiver's id.
            options: as `signalbus.registration.policy.Policy` documents them.

        Raises:
            TypeError: an option that does not exist.
            ConfigurationError: a receiver that a worker could not find again; an invalid policy, or another than this
                receiver was connected with already; a name of a model that no app has. The system checks report it,
                too.
        """
        site = site_of_call()
        try:
            reject_unknown("Signal.connect()", options, CONNECT_OPTIONS, RECEIVER_ALIASES)
            receiver = plain(receiver)
            reject_without_kwargs(receiver)
            policy = None if options.get("inline") else self._policy(receiver, dispatch_uid, options)

            def take_in(sender: object) -> None:
                self._take_in(policy, site, receiver=receiver, sender=sender, weak=weak, dispatch_uid=dispatch_uid)

            with_model(sender, take_in, place_of(receiver))
        except Exception as error:
            self.refusals.note(receiver, f"{self!r}.connect() at {site} refused {place_of(receiver)}: {error}")
            raise
        self.refusals.clear(receiver)

    def _policy(self, receiver: Any, dispatch_uid: object, options: ConnectOptions) -> Policy:
        reject_unreachable(receiver, dispatch_uid)
        if self.ordered_by is not None:
            options = {**options, "atomic": in_order(options.get("atomic"))}
        return policy_from(options)

    def _take_in(  # noqa: PLR0913 - Django's four, and ours
        self, policy: Policy | None, site: str, *, receiver: Any, sender: object, weak: bool, dispatch_uid: Any
    ) -> None:
        entry = None
        if policy is not None:
            entry = resolve_entry(receiver, sender, weak, dispatch_uid, policy=policy)
            allow_sender(sender)
        key = key_of(receiver, sender, dispatch_uid)
        with self.lock:  # so that no other thread finds it in Django's list alone, and takes it for an inline one
            self._drop_collected()
            known = key in self._subscriptions and any(each[0] == key for each in self.receivers)
            if known:
                self._subscriptions.meet(key, entry, site)
            super().connect(receiver, sender, weak, dispatch_uid)
            if not known:
                self._subscriptions.add(key, entry, site)

    def disconnect(self, receiver: Any = None, sender: object = None, dispatch_uid: Any = None) -> bool:
        """Disconnect a receiver, as Django does; return whether there was anything to disconnect."""
        receiver = plain(receiver)
        found: list[bool] = []

        def take_out(sender: object) -> None:
            with self.lock:
                found.append(bool(super(Signal, self).disconnect(receiver, sender, dispatch_uid)))
                if found[-1]:
                    self._subscriptions.drop(key_of(receiver, sender, dispatch_uid))

        with_model(sender, take_out, place_of(receiver))
        return any(found)

    def _on_dropped(self, keys: set[Key]) -> None:
        self._subscriptions.drop_collected(keys)
        self.sender_receivers_cache.clear()

    def _living(self) -> Subscriptions:
        if self.has_collected_receivers:
            with self.lock:
                self._drop_collected()
        return self._subscriptions

    def has_listeners(self, sender: Any = None) -> bool:
        """Return whether a send by this sender would reach a receiver that is connected in this process."""
        return any(self.split(sender))

    def entries(self) -> list[Receiver]:
        """Return the live receivers that run in workers, in the order of their connection."""
        return list(self._living())

    def find(self, receiver: str, sender: str | None) -> Receiver | None:
        """Return the receiver with an id, as a worker looks it up.

        Args:
            receiver: the id that the message carries.
            sender: the name of the message's sender.

        Returns:
            The receiver connected under that id (or that had it before), or None.
        """
        found = self._living().called(receiver)
        return next((entry for entry in found if entry.sender == sender), found[0] if found else None)

    def matching(self, sender: str | None) -> list[Receiver]:
        """Return the receivers of an open message from this sender."""
        return [entry for entry in self._living() if entry.sender in {None, sender}]

    def split(self, sender: object) -> Split:
        """Sort a sender's receivers: those that run in workers, and functions and coroutines that run here."""
        sender = interned(sender)
        connected = (
            self.sender_receivers_cache.get(sender) if self.use_caching and not self.has_collected_receivers else None
        )
        if connected is None:
            with self.lock:  # with what travels, now: one that goes meanwhile must not look like an inline one
                connected = self._receivers_of(sender, self._subscriptions.get)
                if self.use_caching:
                    self.sender_receivers_cache[sender] = connected
        return sort_out(connected) if connected else ([], [], [])

    def _on_foreign_lookup(self, sender: object) -> None:
        travelling = self.split(sender)[0]
        if travelling:
            names = ", ".join(entry.place for entry in travelling)
            raise ConfigurationError(
                f"A send() of {type(self).__qualname__} itself asks _live_receivers(), which knows only what runs in "
                f"the sender's process; {names} would not be reached. Let it call super().send(), or connect with "
                "inline=True."
            )

    def _here(self, sender: object) -> Here | None:
        if not self._subscriptions.entries and not self.use_caching and type(sender) is not str:
            return None  # all of them run here: the shorter way to the same
        _travelling, sync, asynchronous = self.split(sender)
        return sync, asynchronous

    # Sending

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
            due=due,
        )

    def compose(self, shared: SharedFields, sender: Any, payloads: Iterable[Mapping[str, Any]]) -> list[list[Outgoing]]:
        """Encode payloads into messages; a bridge first selects the parts of a payload that it sends."""
        return self._templates.with_shared_fields(shared, sender).messages(sender, payloads, shared.context)
