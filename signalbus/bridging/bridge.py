"""Carry plain Django signals to receivers in workers.

The code that sends them gets no error of ours, except that of a broken transaction or of a time limit.

`decorator` makes a `Bridge`, a signal of ours that is connected to the plain signal (decisions 0009, 0019 and 0020).
Its name is found by `origin`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from celery.exceptions import SoftTimeLimitExceeded
from django.apps import apps
from django.db import DatabaseError, connections
from django.db.models import Model
from django.db.models.signals import m2m_changed, post_delete, pre_delete, pre_save
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from signalbus.bridging.origin import name_of_plain
from signalbus.compat.django_internals import databases_being_migrated, loads_a_fixture
from signalbus.exceptions import ConfigurationError, PayloadError
from signalbus.failure_signals import delivery_dead, delivery_failed
from signalbus.sending.signal import Signal
from signalbus.wire.values.class_names import SENDERS, importable_name, is_model, name_of
from signalbus.wire.values.references import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from django.dispatch import Signal as DjangoSignal

    from signalbus.sending.outgoing import Outgoing, SharedFields

logger: logging.Logger = logging.getLogger("signalbus")

# Payload keys of Django's signals about themselves; they mean nothing in another process.
EXCLUDED_KEYS = frozenset({"signal", "origin"})
# Signals whose row is about to change, or is gone: a reference would find other values, or no row.
SNAPSHOT_SIGNALS = (pre_save, pre_delete, post_delete)

CLOCK = (SoftTimeLimitExceeded, TimeoutError)  # the time limit of Celery's, and that of a receiver's own timeout=

_bridges: dict[tuple[int, int, str], Bridge] = {}  # by source and sender, as Django's own look-up does, and options


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a bridge: which payload it carries, and how.

    Args:
        exclude: payload keys that stay behind.
        extract: payload keys with the functions that give their values.
        durable: as in ``Signal(durable=…)``.
        raw: carry what fixtures save.
        migrations: carry what migrations save.
    """

    exclude: tuple[str, ...] = ()
    extract: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    durable: bool = True
    raw: bool = False
    migrations: bool = False

    def __str__(self) -> str:
        """Return what the options add to the bridge's name; of functions, which have no stable text, only the keys."""
        parts = [f"-{','.join(self.exclude)}"] if self.exclude else []
        parts += [f"={','.join(sorted(self.extract))}"] if self.extract else []
        flags = {"+raw": self.raw, "+migrations": self.migrations, "+fast": not self.durable}
        return "".join([*parts, *(flag for flag, on in flags.items() if on)])


class Bridge(Signal[...]):
    """The signal of ours that carries a plain Django signal, for one sender and one set of options.

    Args:
        name: the name that its messages carry.
        source: the plain signal.
        sender: the sender that it listens to, or None for all senders.
        options: the options of the bridge.
    """

    as_given = False

    def __init__(self, name: str, source: DjangoSignal, sender: Any, options: Options) -> None:
        super().__init__(name, durable=options.durable)
        self.source = source
        self.sender = sender  # kept, so that no other object gets its id()
        self.options = options
        self.place: str = f"the bridge of {name}"
        # What Django, loggers and third parties ask of whatever is connected.
        self.__name__: str = f"bridge_of_{name.rpartition('.')[2]}"
        self.__qualname__: str = f"bridge_of[{name}]"
        self.__doc__ = f"Carry {name} to the receivers that signalbus runs in workers."
        self._excluded = EXCLUDED_KEYS | frozenset(options.exclude)
        self._snapshot = source in SNAPSHOT_SIGNALS

    @property
    def presented(self) -> DjangoSignal:
        """The plain signal, to which receivers were connected."""
        return self.source

    def __call__(self, sender: Any, **payload: Any) -> None:
        """Send a message for what the plain signal sends; most errors do not reach the code that sent it (0020).

        Raises:
            DatabaseError: the open transaction is broken, and its commit would silently be a rollback.
            SoftTimeLimitExceeded, TimeoutError: the time limit of the task around it, which must end.
        """
        try:
            if self._is_quiet(sender, payload):
                return
            payload.pop("signal", None)
            responses = [response for _, response in self.send_robust(sender, **payload)]
        except Exception as error:  # whatever it is: a save() must not fail for a bus that it does not know
            logger.exception("signalbus could not carry %s", self.name)
            responses = [error]
        for response in responses:
            if isinstance(response, CLOCK) or (isinstance(response, DatabaseError) and _in_transaction()):
                raise response

    def _is_quiet(self, sender: Any, payload: Mapping[str, Any]) -> bool:
        raw = payload.get("raw") is True or (self.source is m2m_changed and loads_a_fixture())
        if raw and not self.options.raw:
            return True
        if is_model(sender):
            meta = sender._meta  # noqa: SLF001 - Django documents _meta
            if meta.app_label == "signalbus" or meta.apps is not apps:
                return True  # our tables would cause deliveries of their own; workers have no historical models
        if self.options.migrations:
            return False
        using = payload.get("using")
        return any(using in (None, alias) for alias in databases_being_migrated())

    def compose(self, shared: SharedFields, sender: Any, payloads: Iterable[Mapping[str, Any]]) -> list[list[Outgoing]]:
        """Encode the chosen payloads; an error for one that cannot be encoded names the remedy for bridges."""
        try:
            chosen = [self._chosen(sender, payload) for payload in payloads]
            return super().compose(shared, _findable(sender), chosen)
        except PayloadError as error:
            receivers = ", ".join(receiver for part in shared.routes.values() for receiver in part or ())
            reason = f"{error.reason}. {self.name} to {receivers}: {_remedy(error.path)}"
            raise PayloadError(reason, error.path) from error

    def _chosen(self, sender: Any, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Return the payload of a message, chosen from what the plain signal sends."""
        chosen = _without_requests({key: value for key, value in payload.items() if key not in self._excluded})
        if self._snapshot and isinstance(chosen.get("instance"), Model):
            chosen["instance"] = Snapshot(chosen["instance"])
        for key, function in self.options.extract.items():
            try:
                chosen[key] = function(signal=self.source, sender=sender, **payload)
            except (DatabaseError, SoftTimeLimitExceeded):
                raise
            except Exception as error:
                # A function of the project's: its error says why this payload cannot be encoded.
                raise PayloadError(f"what extract= calls raised {type(error).__name__}: {error}", key) from error
        return chosen


def _without_requests(payload: dict[str, Any]) -> dict[str, Any]:
    """Leave requests and responses out of a payload, and of the dicts in it (allauth's and axes' contexts hold one)."""
    return {
        key: _without_requests(value) if type(value) is dict else value
        for key, value in payload.items()
        if not _is_of_the_web(key, value)
    }


def _is_of_the_web(key: str, value: Any) -> bool:
    """Return whether a value is a request or a response; Django REST framework's requests hold one."""
    if issubclass(type(value), (HttpRequest, HttpResponseBase)):
        return True
    return key == "request" and isinstance(getattr(value, "_request", None), HttpRequest)


def _findable(sender: Any) -> Any:
    """Return a sender, or its name if it is a class or function that no worker may look up (WSGIHandler)."""
    if isinstance(sender, SENDERS) and not is_model(sender):
        try:
            importable_name(sender, senders=True)
        except PayloadError:
            return name_of(sender)
    return sender


def _remedy(path: str) -> str:
    key = path.partition(".")[0].partition("[")[0]
    if not key or key == "sender":
        return "leave keys out with exclude=[…], or say with extract={…} what to send instead"
    return f'leave it out with exclude=["{key}"], or say with extract={{"{key}": …}} what to send instead'


def _in_transaction() -> bool:
    opened = [connection for connection in connections.all(initialized_only=True) if connection.connection is not None]
    return any(connection.in_atomic_block or not connection.autocommit for connection in opened)


def bridge_of(source: DjangoSignal, sender: Any, options: Options) -> Bridge:
    """Return the bridge of a plain signal; make it when it is asked for the first time.

    Args:
        source: the plain signal.
        sender: the sender to listen to; a bridge for all senders would turn off Django's fast deletes for every model.
        options: the options of the bridge.

    Returns:
        The bridge; it is not connected to the plain signal yet.

    Raises:
        ConfigurationError: a signal that workers could not find by name, or one of the bus itself; functions
            for a key for which there are others already.
    """
    key = (id(source), id(sender), str(options))
    bridge = _bridges.get(key)
    if bridge is None:
        _reject_our_own(source, sender)
        name = name_of_plain(source) + ("" if sender is None else f"[{name_of(sender)}]") + str(options)
        bridge = _bridges[key] = Bridge(name, source, sender, options)
    for extracted, function in options.extract.items():
        other = bridge.options.extract[extracted]
        if _place_of(other) != _place_of(function):
            raise ConfigurationError(
                f'Two receivers of {bridge.name} extract "{extracted}" by functions of their own, at '
                f"{_place_of(other)} and {_place_of(function)}, and a message could not tell which: give both the same "
                "function, or call one of the keys otherwise."
            )
    return bridge


def _place_of(function: Callable[..., Any]) -> object:
    """Return where a function is written, which is the same after its module was loaded again."""
    code = getattr(function, "__code__", None)
    return function if code is None else f"{code.co_filename}:{code.co_firstlineno}, {code.co_qualname}"


def _reject_our_own(source: DjangoSignal, sender: Any) -> None:
    if source in (delivery_failed, delivery_dead):
        raise ConfigurationError(
            "delivery_failed and delivery_dead tell of what happens in a worker, there: a receiver of theirs that "
            "ran as a delivery could fail and be told of in turn. Connect it with django.dispatch.receiver."
        )
    if is_model(sender) and sender._meta.app_label == "signalbus":  # noqa: SLF001 - Django documents _meta
        raise ConfigurationError(
            f"{sender.__qualname__} is a table of signalbus itself, and is not carried: each delivery would make "
            "others. Connect to signalbus.delivery_failed or delivery_dead with django.dispatch.receiver."
        )


def bridges_of(source: DjangoSignal) -> list[Bridge]:
    """Return the bridges of a plain signal."""
    return [bridge for bridge in _bridges.values() if bridge.source is source]


def names_of(signal: DjangoSignal) -> set[str]:
    """Return the signal names that the messages of a signal carry: its own, or those of its bridges."""
    return {signal.name} if isinstance(signal, Signal) else {bridge.name for bridge in bridges_of(signal)}
