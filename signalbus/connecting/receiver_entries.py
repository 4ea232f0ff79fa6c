"""Make the registry's entry of a receiver from a function and its policy: its id, its place in the code, its sender.

`declared_signal` calls `resolve_entry` when a receiver is connected. The module also checks the options of ordered
signals (for `signal` and `declared_signal`), and names the place of a receiver (for error messages elsewhere too).
"""

from __future__ import annotations

import inspect
import sys
import weakref
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction

from signalbus import conf
from signalbus.exceptions import ConfigurationError, PayloadError
from signalbus.registration.registry import MAX_ID, Receiver, is_name
from signalbus.wire.values.class_names import name_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from signalbus.registration.policy import Policy

    AnyReceiver = Callable[..., Any]


def plain(receiver: Any) -> Any:
    """Return the function in a ``staticmethod`` object, which decorators below ``@receiver`` leave; else the receiver.

    Raises:
        ConfigurationError: a ``classmethod`` object.
    """
    if isinstance(receiver, staticmethod):
        return receiver.__func__
    if isinstance(receiver, classmethod):
        raise ConfigurationError(
            f"{receiver!r} cannot be called before its class is made: make it a staticmethod, or connect the bound "
            'method after the class, with a dispatch_uid="…" or with inline=True.'
        )
    return receiver


def reject_unordered(ordered_by: object, *, durable: bool, is_open: bool) -> None:
    """Refuse an ``ordered_by`` that cannot be kept (decision 0036).

    Args:
        ordered_by: the signal's ordering key or a function of it, or None.
        durable: whether its messages have rows.
        is_open: whether its senders do not know its receivers.

    Raises:
        ConfigurationError: with the remedy.
    """
    if ordered_by is None:
        return
    if not ((isinstance(ordered_by, str) and ordered_by) or callable(ordered_by)):
        raise ConfigurationError(
            f'ordered_by={ordered_by!r}: give a key of the payload, as in ordered_by="cohort_id", or a function of it.'
        )
    if not durable:
        raise ConfigurationError(
            "ordered_by= needs durable=True: the order stands in the ledger's rows, and a broker keeps none. Leave "
            "durable=False out, or ordered_by=."
        )
    if is_open:
        raise ConfigurationError(
            "ordered_by= and open=True do not go together: a receiver's place in the order is given where its message "
            "is sent, and the senders of an open signal do not know its receivers. Leave one of them out."
        )


def in_order(atomic: bool | None) -> bool:
    """Return ``atomic`` of a receiver of an ordered signal, whatever the project's default is.

    Args:
        atomic: the option that it was connected with, or None.

    Raises:
        ConfigurationError: it is to run without a transaction.
    """
    if atomic is not None and atomic is not True:
        raise ConfigurationError(
            f"atomic={atomic!r} at an ordered signal: the lock of its transaction keeps two from running at once. "
            "Leave it out, and hand slow work on from the receiver, by sending a durable signal."
        )
    return True


def receiver_id(receiver: AnyReceiver, sender: str | None, dispatch_uid: object) -> str:
    """Return the id by which messages name a receiver.

    Args:
        receiver: the function.
        sender: the name of the sender it is connected for.
        dispatch_uid: its uid; a text is the id.

    Returns:
        The uid, or ``module.qualname``, followed by the sender's name if it has one.
    """
    if isinstance(dispatch_uid, str) and dispatch_uid:
        return dispatch_uid
    name = f"{receiver.__module__}.{receiver.__qualname__}"
    return name if sender is None else f"{name}[{sender}]"


def source_of(receiver: object) -> str | None:
    """Return file and line of a function, whatever its module was imported as; None for an object."""
    # A decorator's wrapper stands where the decorator does: what it wraps is the place that a person looks for.
    code = getattr(inspect.unwrap(receiver), "__code__", None)  # type: ignore[arg-type]  # anything goes
    return None if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def place_of(receiver: object) -> str:
    """Return the name of a receiver, with file and line of a function."""
    source = source_of(receiver)
    module = getattr(receiver, "__module__", type(receiver).__module__)
    name = f"{module}.{getattr(receiver, '__qualname__', type(receiver).__qualname__)}"
    return name if source is None else f"{name} ({source})"


def site_of_call() -> str:
    """Return the line of the project that connects a receiver: the nearest frame outside of Django and signalbus."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way to the caller's module (PEP 667)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in {"django", "signalbus"}:
        frame = frame.f_back
    return "an unknown place" if frame is None else f"{frame.f_globals.get('__name__', '')}:{frame.f_lineno}"


def _function_of(receiver: AnyReceiver, weak: bool) -> Callable[[], AnyReceiver | None]:
    if not weak:
        return lambda: receiver
    if hasattr(receiver, "__self__") and hasattr(receiver, "__func__"):
        return weakref.WeakMethod(receiver)
    try:
        return weakref.ref(receiver)
    except TypeError as error:
        raise ConfigurationError(f"{receiver!r}: {error}: connect it with weak=False.") from error


def _name_of_sender(sender: object) -> str | None:
    try:
        return name_of(sender)
    except PayloadError as error:
        raise ConfigurationError(
            f"sender={sender!r}: {error.reason} A sender that has no name in other processes can only be listened to "
            "with inline=True."
        ) from error


def resolve_entry(
    receiver: AnyReceiver, sender: object, weak: bool, dispatch_uid: object, *, policy: Policy
) -> Receiver:
    """Make the registry's entry of a receiver.

    Args:
        receiver: the function.
        sender: the sender that it is connected for, or None.
        weak: whether to keep only a weak reference to it.
        dispatch_uid: its uid.
        policy: its policy.

    Returns:
        The entry.

    Raises:
        ConfigurationError: an id that a message cannot carry.
    """
    sender_name = _name_of_sender(sender)
    id_ = receiver_id(receiver, sender_name, dispatch_uid)
    if not is_name(id_, MAX_ID):
        raise ConfigurationError(
            f"{id_!r}: a receiver's id is a text of up to {MAX_ID} printable characters: give it a dispatch_uid."
        )
    return Receiver(
        id=id_,
        function=_function_of(receiver, weak),
        sender=sender_name,
        place=place_of(receiver),
        source=source_of(receiver) or place_of(receiver),
        policy=policy,
        defaults=conf.get,
        is_async=iscoroutinefunction(receiver) or iscoroutinefunction(getattr(receiver, "__call__", None)),  # noqa: B004 - is it async?
    )
