"""From a function and its policy to a receiver that a worker can find again."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction

from signalbus.exceptions import ConfigurationError
from signalbus.receiving.retry import Retry
from signalbus.registry import Receiver
from signalbus.wire.references import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    AnyReceiver = Callable[..., Any]


def reject_unreachable(receiver: AnyReceiver, dispatch_uid: object) -> None:
    """Refuse what a worker could not find again under the name it has here.

    Args:
        receiver: what is being connected.
        dispatch_uid: its uid; a text is a name that lasts.

    Raises:
        ConfigurationError: a lambda, a closure, a bound method or an object, with the cure.
    """
    if isinstance(dispatch_uid, str) and dispatch_uid:
        return
    name = getattr(receiver, "__qualname__", None)
    if name is None:
        kind = "an object"
    elif name.endswith("<lambda>"):
        kind = "a lambda"
    elif "<locals>" in name:
        kind = "a function inside a function"
    elif getattr(receiver, "__self__", None) is not None:
        kind = "a bound method"
    else:
        return
    raise ConfigurationError(
        f"{receiver!r} is {kind}: a worker could not find it again by name. Connect a function of a module, or give it a "
        'dispatch_uid="…" that every process uses, or run it in the sender\'s process with inline=True.'
    )


def receiver_id(receiver: AnyReceiver, sender: str | None, dispatch_uid: object) -> str:
    """Return the id that messages call a receiver by.

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


def _place_of(receiver: AnyReceiver) -> str:
    code = getattr(receiver, "__code__", None)
    module = getattr(receiver, "__module__", type(receiver).__module__)
    name = getattr(receiver, "__qualname__", type(receiver).__qualname__)
    return f"{module}.{name}" if code is None else f"{module}.{name} ({code.co_filename}:{code.co_firstlineno})"


def _function_of(receiver: AnyReceiver, weak: bool) -> Callable[[], AnyReceiver | None]:
    if not weak:
        return lambda: receiver
    if hasattr(receiver, "__self__") and hasattr(receiver, "__func__"):
        return weakref.WeakMethod(receiver)
    return weakref.ref(receiver)


def resolve_entry(  # noqa: PLR0913 - a receiver's whole policy
    receiver: AnyReceiver,
    sender: object,
    weak: bool,
    dispatch_uid: object,
    *,
    retry: Retry | None,
    queue: str | None,
    atomic: bool,
    on_missing: str,
    timeout: float | None,
    was: Iterable[str],
) -> Receiver:
    """Make the registry's entry of a receiver.

    Args:
        receiver: the function.
        sender: what it is connected for, or None.
        weak: hold it weakly.
        dispatch_uid: its uid.
        retry: its retries, or None for the default.
        queue: its Celery queue, or None for the default.
        atomic: run in a transaction.
        on_missing: "skip" or "fail".
        timeout: seconds, or None.
        was: former ids.

    Returns:
        The entry.

    Raises:
        ConfigurationError: a policy that means nothing.
    """
    if on_missing not in {"skip", "fail"}:
        raise ConfigurationError(f'on_missing={on_missing!r}: say "skip" or "fail".')
    if timeout is not None and timeout <= 0:
        raise ConfigurationError(f"timeout={timeout!r}: a timeout is a number of seconds above 0, or None.")
    if retry is not None and not isinstance(retry, Retry):
        raise ConfigurationError(f"retry={retry!r}: give a signalbus.Retry, as in retry=Retry(max_attempts=5).")
    if queue is not None and (not isinstance(queue, str) or not queue):
        raise ConfigurationError(f"queue={queue!r}: a queue's name is a text.")
    sender_name = name_of(sender)
    return Receiver(
        id=receiver_id(receiver, sender_name, dispatch_uid),
        function=_function_of(receiver, weak),
        sender=sender_name,
        place=_place_of(receiver),
        retry=retry or Retry(),
        queue=queue,
        atomic=atomic,
        on_missing=on_missing,
        timeout=timeout,
        was=(was,) if isinstance(was, str) else tuple(was),
        is_async=iscoroutinefunction(receiver) or iscoroutinefunction(getattr(receiver, "__call__", None)),  # noqa: B004 - is it async?
    )
