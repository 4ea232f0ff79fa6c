"""Refuse receivers that cannot be connected: a worker could not find them by name, or Django could not call them.

`declared_signal` calls it in ``connect``.
"""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

from django.conf import settings

from signalbus.connecting.receiver_entries import place_of
from signalbus.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    AnyReceiver = Callable[..., Any]

A_MOCK = "a mock"
A_TASK = "a Celery task"


def reject_unreachable(receiver: AnyReceiver, dispatch_uid: object) -> None:
    """Refuse a receiver that a worker could not find under the name that it has here.

    Args:
        receiver: the receiver that is being connected.
        dispatch_uid: its uid; a text is a name that lasts.

    Raises:
        ConfigurationError: a lambda, a closure, a bound method, an object or a function of ``__main__``.
    """
    if isinstance(dispatch_uid, str) and dispatch_uid:
        return
    kind = _why_unreachable(receiver)
    if kind is None:
        return
    if kind == A_TASK:
        raise ConfigurationError(
            f"{receiver!r} is a Celery task, and a receiver is a plain function: it runs in a worker anyway. Connect "
            "the function itself, without @shared_task; or a function that calls the task with the values that it "
            "needs, as in my_task.delay(instance.pk)."
        )
    remedy = (
        'Connect a function of a module, or give it a dispatch_uid="…" that every process uses, or run it in the '
        "sender's process with inline=True."
    )
    if kind == A_MOCK:
        remedy = (
            "A test sees what is sent with signalbus.testing: captured(), assert_sent() and deliver_all(). A mock that "
            "is to be called inside send() is connected with inline=True."
        )
    raise ConfigurationError(f"{receiver!r} is {kind}: a worker could not find it again by name. {remedy}")


def _why_unreachable(receiver: AnyReceiver) -> str | None:
    if _is_task(receiver):
        return A_TASK
    mock = sys.modules.get("unittest.mock")  # a process that has not imported it has made none
    if mock is not None and isinstance(receiver, mock.NonCallableMock):
        return A_MOCK
    name = getattr(receiver, "__qualname__", None)
    if name is None:
        return "an object"
    if name.endswith("<lambda>"):
        return "a lambda"
    if "<locals>" in name:
        return "a function inside a function"
    if getattr(receiver, "__self__", None) is not None:
        return "a bound method"
    if receiver.__module__ in {"__main__", "__mp_main__"}:
        return "in __main__, the program that was started here"
    return None


def _is_task(receiver: object) -> bool:
    """Return whether an object is a Celery task, its ``delay`` or its signature; a lazy task is not evaluated."""
    loaded = sys.modules.get("celery.canvas")  # a process that has not imported it has made none
    if loaded is None:
        return False
    lazy, task = sys.modules["celery.local"].Proxy, sys.modules["celery.app.task"].Task
    if issubclass(type(receiver), lazy):
        return True
    return isinstance(receiver, loaded.Signature) or isinstance(getattr(receiver, "__self__", receiver), task)


def reject_without_kwargs(receiver: AnyReceiver) -> None:
    """Refuse a receiver that does not take ``**kwargs``, where Django refuses it: under ``DEBUG``.

    Args:
        receiver: the receiver that is being connected.

    Raises:
        ValueError: with Django's text, the function and its line, and the remedy.
    """
    if not (settings.configured and settings.DEBUG and callable(receiver)):
        return
    try:
        parameters = inspect.signature(receiver).parameters  # Django's helper would keep the function alive
    except (TypeError, ValueError):  # written in C, without a signature: Django decides
        return
    if inspect.Parameter.VAR_KEYWORD in {parameter.kind for parameter in parameters.values()}:
        return
    name = getattr(receiver, "__name__", "receiver")
    raise ValueError(
        f"Signal receivers must accept keyword arguments (**kwargs). {place_of(receiver)} does not: write "
        f"def {name}({', '.join([*parameters, '**kwargs'])})."
    )
