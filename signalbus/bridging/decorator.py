"""Provide ``@receiver`` and ``disconnect``, for our signals and, over a bridge, for plain Django signals.

They are public: `signalbus.receiver` and `signalbus.disconnect`.
"""

from __future__ import annotations

import inspect
import threading
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from django.apps import apps
from django.db.models.signals import ModelSignal
from django.db.models.utils import make_model_tuple
from django.dispatch import Signal as DjangoSignal

from signalbus.bridging.bridge import Options, bridge_of, bridges_of
from signalbus.connecting.receiver_entries import place_of
from signalbus.connecting.senders import with_model
from signalbus.core.suggestions import RECEIVER_ALIASES, reject_unknown
from signalbus.exceptions import ConfigurationError
from signalbus.registration.policy import CONNECT_OPTIONS, DJANGO_OPTIONS
from signalbus.sending.send_operation import RESERVED
from signalbus.sending.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from signalbus.registration.policy import ReceiverOptions

# Held while a bridge and its receivers are connected or taken down: two threads that build it at once would make two,
# and one that takes it down would not see the receiver that another has just given it.
_building = threading.RLock()

# The options that `receiver` takes.
_KNOWN = (*CONNECT_OPTIONS, *(each.name for each in fields(Options)))

F = TypeVar("F", bound="Callable[..., Any]")


def receiver(  # noqa: PLR0913 - the public API
    signal: DjangoSignal | Iterable[DjangoSignal],
    *,
    exclude: Iterable[str] = (),
    extract: Mapping[str, Callable[..., Any]] | None = None,
    durable: bool = True,
    raw: bool = False,
    migrations: bool = False,
    **options: Unpack[ReceiverOptions],
) -> Callable[[F], F]:
    """Connect the decorated function to one or more signals; it runs in a worker, unless ``inline=True``.

    Args:
        signal: ours, or a plain Django signal such as ``post_save``.
        exclude: for plain signals: payload keys that cannot travel. Requests and responses are always left out.
        extract: for plain signals: payload keys to add or replace, with the functions that return their values, as
            ``{"ip": lambda request, **kwargs: request.META["REMOTE_ADDR"]}``. They are called in the sender's process,
            with the arguments that the signal gives its receivers; receivers of one signal and sender share one
            function for each key.
        durable: for plain signals: as in ``Signal(durable=…)``.
        raw: for plain signals: also when fixtures are loaded (``raw=True`` in the payload).
        migrations: for plain signals: also what is saved while the same database is migrated.
        options: ``sender`` and everything else that ``Signal.connect`` takes.

    Returns:
        The decorator; it returns the function unchanged.

    Raises:
        TypeError: an option that does not exist; the text names the one that was probably meant.
        ConfigurationError: options of plain signals for one of ours, or a receiver that a worker could not find.
    """
    reject_unknown("@receiver", options, _KNOWN, RECEIVER_ALIASES)
    signals = _listed(signal)
    plain = _plain_options(exclude, extract or {}, durable=durable, raw=raw, migrations=migrations)
    return _connector(signals, plain, options)


def _plain_options(exclude: Iterable[str], extract: Mapping[str, Callable[..., Any]], **flags: bool) -> Options:
    _check_extract(extract)
    excluded = (exclude,) if isinstance(exclude, str) else tuple(sorted(exclude))
    return Options(exclude=excluded, extract=dict(extract), **flags)


def _connector(signals: list[DjangoSignal], plain: Options, options: ReceiverOptions) -> Callable[[F], F]:
    for each in signals:
        if isinstance(each, Signal) and plain != Options():
            raise ConfigurationError(
                f"exclude=, extract=, durable=, raw= and migrations= are for plain Django signals; {each!r} is one of "
                "ours: leave the keys out of send(), and say Signal(durable=False) where it is declared."
            )

    def decorate(function: F) -> F:
        for each in signals:
            _connect(each, function, plain, options)
        return function

    return decorate


def _connect(signal: DjangoSignal, function: Callable[..., Any], plain: Options, options: ReceiverOptions) -> None:
    if isinstance(signal, Signal):
        signal.connect(function, **options)
    elif options.get("inline"):
        djangos: dict[str, Any] = {key: value for key, value in options.items() if key in DJANGO_OPTIONS}
        signal.connect(function, **djangos)
    else:
        _carry(signal, function, plain, options)


def _listed(signal: DjangoSignal | Iterable[DjangoSignal]) -> list[DjangoSignal]:
    signals: list[Any] = list(signal) if isinstance(signal, (list, tuple, set, frozenset)) else [signal]
    for each in signals:
        if not isinstance(each, DjangoSignal):
            raise ConfigurationError(f"@receiver takes a signal, or a list of signals, not {each!r}.")
    return signals


def _check_extract(extract: Mapping[str, Callable[..., Any]]) -> None:
    for key, function in extract.items():
        if not (isinstance(key, str) and key.isidentifier() and key not in RESERVED):
            given = " and ".join(sorted(RESERVED))
            raise ConfigurationError(
                f"extract={{{key!r}: …}}: a key becomes a keyword of the receiver's, beside {given}."
            )
        try:
            kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
        except TypeError as error:
            raise ConfigurationError(f"extract={{{key!r}: {function!r}}}: give a function to call.") from error
        except ValueError:  # written in C, without a signature
            continue
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            raise ConfigurationError(
                f"extract={{{key!r}: {function!r}}}: it is called with all that the signal sends, so it takes "
                "**kwargs, as in lambda request, **kwargs: …"
            )


def _carry(source: DjangoSignal, function: Callable[..., Any], plain: Options, options: ReceiverOptions) -> None:
    """Connect a receiver to the bridge of a plain signal; with a lazy ``"app.Model"``, once that model is loaded."""

    def carry(sender: Any = None) -> None:
        with _building:
            bridge = bridge_of(source, sender, plain)
            bridge.connect(function, **{**options, "sender": sender})
            source.connect(bridge, sender=sender, weak=False)

    sender = options.get("sender")
    if isinstance(sender, str) and isinstance(source, ModelSignal):
        carry.__qualname__ = place_of(function)  # shown by Django's check of models that were never loaded
        apps.lazy_model_operation(carry, make_model_tuple(sender))
    else:
        with_model(sender, carry, place_of(function))


def disconnect(
    signal: DjangoSignal | Iterable[DjangoSignal],
    receiver: Callable[..., Any] | None = None,
    *,
    sender: Any = None,
    dispatch_uid: Any = None,
) -> bool:
    """Disconnect a receiver that `receiver` connected; a plain signal's own ``disconnect`` does not know it.

    Args:
        signal: the signal, or a list of signals, ours or plain ones.
        receiver: the function; not needed with a ``dispatch_uid``.
        sender: the sender that it was connected for, as it was given there.
        dispatch_uid: the uid that it was connected with.

    Returns:
        Whether there was anything to disconnect. What waits for an ``"app.Model"`` that is not loaded yet is
        disconnected when it is loaded, and not counted.

    Raises:
        ConfigurationError: a value that is not a signal.
    """
    found = [_disconnect(each, receiver, sender, dispatch_uid) for each in _listed(signal)]
    return any(found)


def _disconnect(signal: DjangoSignal, receiver: Callable[..., Any] | None, sender: Any, dispatch_uid: Any) -> bool:
    if isinstance(signal, Signal):
        return signal.disconnect(receiver, sender, dispatch_uid)
    found: list[bool] = []

    def remove(sender: Any = None) -> None:
        found.append(bool(signal.disconnect(receiver, sender, dispatch_uid)))  # one that is inline is Django's own
        with _building:
            for bridge in bridges_of(signal):
                if bridge.sender is sender and bridge.disconnect(receiver, sender, dispatch_uid):
                    found.append(True)
                    if not bridge.has_listeners(sender):
                        signal.disconnect(bridge, sender)  # else Django's fast deletes would stay off for no receiver

    if isinstance(sender, str) and isinstance(signal, ModelSignal):
        apps.lazy_model_operation(remove, make_model_tuple(sender))
    else:
        with_model(sender, remove, place_of(receiver))
    return any(found)
