"""The declared signal: its name, its options, and the receivers that are connected to it.

It is the base class of `Signal`, which adds the sending. Workers and system checks ask it for receivers;
`send_operation` and `message_templates` ask it for its options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from signalbus.compat.django_internals import HookedSignal, key_of
from signalbus.connecting.eligibility import reject_unreachable, reject_without_kwargs
from signalbus.connecting.naming import Named
from signalbus.connecting.receiver_entries import (
    in_order,
    place_of,
    plain,
    resolve_entry,
    site_of_call,
)
from signalbus.connecting.senders import interned, with_model
from signalbus.connecting.subscriptions import Refusals, SenderCache, Subscriptions, sort_out
from signalbus.core.suggestions import (
    RECEIVER_ALIASES,
    reject_unknown,
)
from signalbus.exceptions import ConfigurationError
from signalbus.registration.policy import CONNECT_OPTIONS, policy_from, shows_options
from signalbus.wire.values.class_names import allow_sender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from django.dispatch import Signal as DjangoSignal

    from signalbus.compat.django_internals import Here, Key
    from signalbus.connecting.subscriptions import Split
    from signalbus.contracts.contract import Contract
    from signalbus.registration.policy import ConnectOptions, Policy
    from signalbus.registration.registry import Conflict, Receiver
    from signalbus.sending.deduplication import Deduplication
    from signalbus.sending.outgoing import OrderedBy


class DeclaredSignal(Named, HookedSignal):
    """A signal's declaration and receivers: all of a `Signal` but the sending.

    Args:
        name: the stable name; None: the label of the app and the variable that the signal is assigned to.
        was: names it had before.
        durable: whether each delivery has a ledger row.
        open: whether workers find the receivers, not the sender.
        ordered_by: a payload key, or a function of the payload.
        deduplication: the rule of deduplication.
        use_caching: remember the receivers of each sender, as Django does.
        contract: the payload that it is declared with; None for any.

    Raises:
        ConfigurationError: a name that is not a non-empty text.
    """

    as_given: bool = True  # the payload given to send() is sent whole: `compose` selects nothing

    def __init__(  # noqa: PLR0913 - the options of Signal()
        self,
        name: str | None,
        *,
        was: Iterable[str],
        durable: bool,
        open: bool,  # noqa: A002 - the API
        ordered_by: OrderedBy | None,
        deduplication: Deduplication | None,
        use_caching: bool,
        contract: Contract | None,
    ) -> None:
        super().__init__(use_caching=use_caching)
        self.durable = durable
        self.open = open
        self.ordered_by = ordered_by
        self.deduplication = deduplication
        self.contract = contract
        if use_caching:
            self.sender_receivers_cache: Any = SenderCache()
        self.refusals: Refusals = Refusals()
        self._subscriptions = Subscriptions()
        self._settle(name, (was,) if isinstance(was, str) else tuple(was))

    @property
    def conflicts(self) -> list[Conflict]:
        """The receivers that share an id."""
        return self._subscriptions.conflicts

    @property
    def presented(self) -> DjangoSignal:
        """The object that receivers get as ``signal``."""
        return self

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
                found.append(bool(super(DeclaredSignal, self).disconnect(receiver, sender, dispatch_uid)))
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
        return self._living().find(receiver, sender)

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
