"""``@receiver`` for our signals and for plain Django ones, which it carries onto the bus."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

from django.apps import apps
from django.db.models import Model
from django.db.models.signals import ModelSignal, post_delete, post_migrate, pre_delete, pre_migrate, pre_save
from django.db.models.utils import make_model_tuple
from django.dispatch import Signal as DjangoSignal

from signalbus.announcements import delivery_dead, delivery_failed
from signalbus.exceptions import ConfigurationError
from signalbus.sending.signal import Signal
from signalbus.wire.references import Snapshot, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# What Django's signals carry about themselves; it means nothing in another process.
NEVER_TRAVELS = frozenset({"signal", "origin"})
# Their row is about to change, or is gone: a reference would find something else, or nothing.
LOCAL_OPTIONS = {"sender", "weak", "dispatch_uid"}  # those that Django's own connect() takes
SNAPSHOT_SIGNALS = (pre_save, pre_delete, post_delete)

F = TypeVar("F", bound="Callable[..., Any]")

_bridges: dict[tuple[Any, ...], Bridge] = {}
_migrating: set[tuple[str, str]] = set()  # the databases and apps that migrate has begun and not ended with


def receiver(
    signal: DjangoSignal | Iterable[DjangoSignal],
    *,
    exclude: Iterable[str] = (),
    durable: bool = True,
    raw: bool = False,
    migrations: bool = False,
    **options: Any,
) -> Callable[[F], F]:
    """Connect the decorated function to a signal, or to each of a list of signals; it runs in a worker.

    Args:
        signal: ours, or a plain Django signal such as ``post_save``.
        exclude: for plain signals: payload keys that cannot travel, as ``("request",)`` of ``user_logged_in``.
        durable: for plain signals: as in ``Signal(durable=…)``.
        raw: for plain signals: also when fixtures are loaded (``raw=True`` in the payload).
        migrations: for plain signals: also while ``migrate`` runs.
        options: ``sender`` and everything else that ``Signal.connect`` takes.

    Returns:
        The decorator; it returns the function unchanged.

    Raises:
        ConfigurationError: options of plain signals for one of ours, or a receiver that a worker could not find.
    """
    signals: list[DjangoSignal] = list(signal) if isinstance(signal, (list, tuple, set, frozenset)) else [signal]  # type: ignore[list-item]
    excluded = (exclude,) if isinstance(exclude, str) else tuple(sorted(exclude))

    for each in signals:
        if not isinstance(each, DjangoSignal):
            raise ConfigurationError(f"@receiver takes a signal, or a list of signals, not {each!r}.")
        if isinstance(each, Signal) and (excluded or not durable or raw or migrations):
            raise ConfigurationError(
                f"exclude=, durable=, raw= and migrations= are for plain Django signals; {each!r} is one of ours: "
                "leave the keys out of send(), and say Signal(durable=False) where it is declared."
            )

    def decorate(function: F) -> F:
        for each in signals:
            if isinstance(each, Signal):
                each.connect(function, **options)
            elif options.get("inline"):
                each.connect(function, **{key: options[key] for key in LOCAL_OPTIONS & options.keys()})
            else:
                _carry(each, function, excluded, options, durable=durable, raw=raw, migrations=migrations)
        return function

    return decorate


def _carry(  # noqa: PLR0913 - the options of a bridge are its identity
    source: DjangoSignal,
    function: Callable[..., Any],
    exclude: tuple[str, ...],
    options: dict[str, Any],
    *,
    durable: bool,
    raw: bool,
    migrations: bool,
) -> None:
    """Connect a receiver to the bridge of a plain signal; for a lazy ``"app.Model"``, once there is such a model."""

    def carry(sender: Any = None) -> None:
        bridge = bridge_of(source, sender, exclude, durable=durable, raw=raw, migrations=migrations)
        bridge.signal.connect(function, **{**options, "sender": sender})

    sender = options.get("sender")
    if isinstance(sender, str) and isinstance(source, ModelSignal):
        apps.lazy_model_operation(carry, make_model_tuple(sender))
    else:
        carry(sender)


class Bridge:
    """What carries a plain Django signal onto the bus, for one sender and one set of options.

    Args:
        source: the plain signal.
        name: the name under which it travels.
        exclude: payload keys that stay behind.
        durable: as in ``Signal(durable=…)``.
        raw: carry what fixtures save.
        migrations: carry what migrations save.
    """

    def __init__(  # noqa: PLR0913 - the options of a bridge are its identity
        self, source: DjangoSignal, name: str, exclude: tuple[str, ...], *, durable: bool, raw: bool, migrations: bool
    ) -> None:
        self.source = source
        self.sender: Any = None  # kept, so that no other object gets its id()
        self.signal = Signal(name, durable=durable)
        self._left_behind = NEVER_TRAVELS | frozenset(exclude)
        self._snapshot = source in SNAPSHOT_SIGNALS
        self._raw = raw
        self._migrations = migrations

    def __call__(self, sender: Any, **payload: Any) -> None:
        """Take what the plain signal sends, and send it on the bus."""
        if payload.get("raw") and not self._raw:
            return
        if not self._migrations and (_migrating or getattr(sender, "__module__", "") == "__fake__"):
            return
        for key in self._left_behind & payload.keys():
            del payload[key]
        if self._snapshot and isinstance(payload.get("instance"), Model):
            payload["instance"] = Snapshot(payload["instance"])
        self.signal.send(sender, **payload)


def bridge_of(  # noqa: PLR0913 - the options of a bridge are its identity
    source: DjangoSignal, sender: Any, exclude: tuple[str, ...], *, durable: bool, raw: bool, migrations: bool
) -> Bridge:
    """Return the bridge of a plain signal, made and connected when it is first asked for.

    Args:
        source: the plain signal.
        sender: what to listen to; a bridge for all senders would turn off Django's fast deletes for every model.
        exclude: payload keys that stay behind.
        durable: as in ``Signal(durable=…)``.
        raw: carry what fixtures save.
        migrations: carry what migrations save.

    Returns:
        The bridge.

    Raises:
        ConfigurationError: a signal that stands in no module, so that workers could not tell which it is.
    """
    key = (id(source), id(sender), exclude, durable, raw, migrations)  # as Django's own look-up does
    bridge = _bridges.get(key)
    if bridge is None:
        if source in (delivery_failed, delivery_dead):
            raise ConfigurationError(
                "delivery_failed and delivery_dead tell of what happens in a worker, there: a receiver of theirs that "
                "ran as a delivery could fail and be told of in turn. Connect it with django.dispatch.receiver."
            )
        name = _name_of_plain(source)
        if sender is not None:
            name += f"[{name_of(sender)}]"
        if exclude:
            name += f"-{','.join(exclude)}"
        name += "".join(f"+{flag}" for flag, on in (("raw", raw), ("migrations", migrations)) if on)
        if not durable:
            name += "+fast"
        bridge = Bridge(source, name, exclude, durable=durable, raw=raw, migrations=migrations)
        bridge.sender = sender
        bridge.signal.place = f"the bridge of {name}"
        _bridges[key] = bridge
        source.connect(bridge, sender=sender, weak=False)
    return bridge


def names_of(signal: DjangoSignal) -> set[str]:
    """Return the names under which what a signal sends travels: its own, or those of its bridges."""
    if isinstance(signal, Signal):
        return {signal.name}
    return {bridge.signal.name for bridge in _bridges.values() if bridge.source is signal}


def _name_of_plain(source: DjangoSignal) -> str:
    """Name a plain signal by the module that holds it; where several do, by the one that most likely made it."""
    held = [
        (not module.startswith("django."), not module.endswith("signals"), len(module), module, variable)
        for module, namespace in list(sys.modules.items())
        for variable, value in list(getattr(namespace, "__dict__", {}).items())
        if value is source
    ]
    if not held:
        raise ConfigurationError(
            f"{source!r} stands in no module, so a worker could not tell which signal it is: assign it to a variable "
            "of a module's."
        )
    *_, module, variable = min(held)
    return f"{module}.{variable}"


# Both are sent once for each app that has models, all of the first before any of the second.
def _on_pre_migrate(sender: Any, using: str, **_kwargs: Any) -> None:
    _migrating.add((using, sender.label))


def _on_post_migrate(sender: Any, using: str, **_kwargs: Any) -> None:
    _migrating.discard((using, sender.label))


def connect() -> None:
    """Listen for the beginning and the end of migrations."""
    pre_migrate.connect(_on_pre_migrate, dispatch_uid="signalbus.pre_migrate")
    post_migrate.connect(_on_post_migrate, dispatch_uid="signalbus.post_migrate")
