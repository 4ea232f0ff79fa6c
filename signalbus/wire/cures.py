"""What a sender is told about a value that cannot travel: what it is, and what to send instead."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import GeneratorType, ModuleType
from typing import Any, Final
from uuid import UUID

from django.core.files.base import File
from django.db.models import Manager, Model
from django.http import HttpRequest, QueryDict

# Looked through from the top: what is special stands before what it derives from.
_CURES: Final[tuple[tuple[type, str], ...]] = (
    (QueryDict, "send value.dict(), or dict(value.lists())"),
    (str, "send str(value)"),
    (bytes, "send bytes(value)"),
    (int, "send int(value)"),
    (float, "send float(value)"),
    (dict, "send dict(value)"),
    (list, "send list(value)"),
    (tuple, "send tuple(value)"),
    (set, "send set(value)"),
    (frozenset, "send frozenset(value)"),
    (datetime, "send datetime.fromisoformat(value.isoformat())"),
    (date, "send datetime.date(value.year, value.month, value.day)"),
    (time, "send datetime.time.fromisoformat(value.isoformat())"),
    (timedelta, "send datetime.timedelta(seconds=value.total_seconds())"),
    (Decimal, "send decimal.Decimal(value)"),
    (UUID, "send uuid.UUID(int=value.int)"),
)
_OTHERS: Final[tuple[tuple[type, str], ...]] = (
    (bytearray, "send bytes(value)"),
    (memoryview, "send bytes(value)"),
    (range, "send list(value)"),
    (GeneratorType, "send list(value)"),
    (File, "save it and send its name"),
    (BaseException, "send str(error)"),
    (Manager, "send the query, as in manager.all()"),
    (HttpRequest, "send what the receiver needs of it, such as request.user"),
    (ModuleType, "send its name"),
)


def refusal(value: Any) -> str:
    """Say why a value cannot travel, and the cure.

    Args:
        value: of a type that is none of those that arrive as they left; its class decides, no method of it is called.
    """
    kind = type(value)
    if issubclass(kind, type):
        subject = f"the class {name_of_type(value)}"
        return f"{subject} cannot travel (of classes, only models can): send its dotted name"
    name = name_of_type(kind)
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return (
            f"{name} is a named tuple, and would not arrive as one: send value._asdict(), tuple(value) or a dataclass"
        )
    for base, cure in _CURES:
        if issubclass(kind, base):
            return f"{name} is a subclass of {base.__qualname__}, and would not arrive as it left: {cure}"
    for base, cure in _OTHERS:
        if issubclass(kind, base):
            return f"{name} cannot travel: {cure}"
    if issubclass(kind, Callable):  # type: ignore[arg-type]  # mypy takes it for a type form
        return f"{name} cannot travel: a receiver cannot call into the sender's process, send what the call would give"
    return f"{name} cannot travel to another process: send the values that the receiver needs, or a dataclass of them"


def what_raised(value: Any, error: Exception) -> str:
    """Say that a value's own code failed while it was taken apart."""
    what = "a model instance" if issubclass(type(value), Model) else f"a {name_of_type(type(value))}"
    return f"{what} could not be encoded, it raised {type(error).__name__}: {error}. Evaluate it before sending"


def name_of_type(kind: type) -> str:
    """Give a type's name as a reader looks for it."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
