"""Capture the sender's context with the carriers of ``SIGNALBUS["CARRY"]``, and restore it around a delivery.

A send calls `capture`, in the sender's thread; `receiving/invoking` calls `call_restored` (decision 0038).
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from celery.exceptions import SoftTimeLimitExceeded
from django.core.signals import setting_changed
from django.db import DatabaseError
from django.utils.module_loading import import_string

from signalbus import conf
from signalbus.carriers.json_values import survives_json
from signalbus.carriers.plain_functions import CarriedFunction
from signalbus.exceptions import ConfigurationError, PayloadError, UnknownClass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from signalbus.carriers import Carrier

P = ParamSpec("P")
T = TypeVar("T")

SETTING = 'SIGNALBUS["CARRY"]'
NOTHING: Mapping[str, Any] = MappingProxyType({})


@cache
def carriers() -> Mapping[str, Carrier]:
    """Return the carriers by their names, in the order of the setting.

    Raises:
        ConfigurationError: one cannot be imported, lacks a method or a name, or has the name of another.
    """
    found: dict[str, Carrier] = {}
    for item in conf.get().CARRY:
        carrier = _carrier(item)
        if carrier.name in found:
            raise ConfigurationError(f"Two carriers of {SETTING} are called {carrier.name!r}: rename one of them.")
        found[carrier.name] = carrier
    return found


def _carrier(item: Any) -> Carrier:
    carrier: Any = item
    if isinstance(item, str):
        try:
            carrier = import_string(item)
        except ImportError as error:
            raise ConfigurationError(f"{SETTING} names {item!r}, which cannot be imported: {error}") from error
    if isinstance(carrier, type):
        carrier = carrier()
    elif callable(carrier) and not hasattr(carrier, "capture"):
        carrier = CarriedFunction(carrier)
    name = getattr(carrier, "name", None)
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"{SETTING}: {item!r} needs a `name`, a text under which its value travels.")
    for method in ("capture", "restore"):
        if not callable(getattr(carrier, method, None)):
            raise ConfigurationError(
                f"{SETTING}: {item!r} has no method {method}(); signalbus.carriers.Carrier says what a carrier has."
            )
    return carrier  # type: ignore[no-any-return]  # as was just looked at


def capture() -> Mapping[str, Any]:
    """Return what surrounds a sender here and now, by the names of its carriers; empty if nothing is to travel.

    Raises:
        PayloadError: a carrier failed, or returned what is not JSON; nothing was sent.
    """
    if not conf.get().CARRY:
        return NOTHING
    captured = {}
    for name, carrier in carriers().items():
        value = _captured(name, carrier)
        if value is not None:
            captured[name] = value
    return captured


def _captured(name: str, carrier: Carrier) -> Any:
    try:
        value = carrier.capture()
    except (DatabaseError, SoftTimeLimitExceeded):
        raise
    except Exception as error:
        # A method of anybody's: what it raises says why nothing can be sent from here.
        raise PayloadError(f"capture() raised {type(error).__name__}: {error}", f"{SETTING} {name!r}") from error
    if survives_json(value):
        return value
    raise PayloadError(
        f"capture() returned a {type(value).__name__} that does not arrive as it left: return a text, a number, "
        "a bool, None, or lists and dicts (with texts as keys) of these",
        f"{SETTING} {name!r}",
    )


def reject_unknown(context: Iterable[str]) -> None:
    """Refuse a message whose context this process cannot restore.

    Args:
        context: the names of its carriers.

    Raises:
        UnknownClass: it has no carrier of that name.
    """
    known = carriers()
    for name in context:
        if name not in known:
            raise UnknownClass(
                f"the carrier {name!r}",
                f"the sender's {SETTING} has it, and this worker's has not: add it there, or roll this worker out",
            )


def call_restored(context: Mapping[str, Any], function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in the context of a message's sender.

    Args:
        context: as the message carries it.
        function: the function.
        args: its arguments.
        kwargs: as well.

    Returns:
        What it returned.

    Raises:
        UnknownClass: this process has no such carrier.
        BaseException: what the function raised, whatever the carriers make of it; else what a carrier raised.
    """
    reject_unknown(context)
    failure: BaseException | None = None
    try:
        with ExitStack() as stack:
            for name, carrier in carriers().items():
                if name in context:
                    _enter(stack, name, carrier, context[name])
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                failure = error
                raise
    finally:
        if failure is not None:
            raise failure
    return result


def _enter(stack: ExitStack, name: str, carrier: Carrier, value: Any) -> None:
    try:
        stack.enter_context(carrier.restore(value))
    except Exception as error:
        error.add_note(f"(raised by restore() of the carrier {name!r} of {SETTING}, before the receiver ran)")
        raise


def _forget(*, setting: str, **_kwargs: object) -> None:
    if setting in {"SIGNALBUS", "DATABASES"}:
        carriers.cache_clear()


setting_changed.connect(_forget)
