"""Write the error for a value that cannot be encoded: what it is, and what to send instead.

`encoder` calls it.
"""

from __future__ import annotations

import re
from collections import UserString, deque
from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PurePath
from types import GeneratorType, ModuleType
from typing import Any, Final
from uuid import UUID

from django.core.files.base import File
from django.db.models import Manager, Model
from django.db.models.fields.files import FieldFile
from django.http import HttpRequest, QueryDict

# Searched from the top: a subclass is before its base.
_REMEDIES: Final[tuple[tuple[type, str], ...]] = (
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
    (PurePath, "send str(value)"),
    (IPv4Address, "send str(value)"),
    (IPv6Address, "send str(value)"),
    (IPv4Network, "send str(value)"),
    (IPv6Network, "send str(value)"),
    (deque, "send list(value)"),
    (UserString, "send str(value)"),
    (complex, "send [value.real, value.imag]"),
    (Fraction, "send [value.numerator, value.denominator]"),
    (re.Pattern, "send value.pattern"),
    (tzinfo, "send its name, as in str(value)"),
    (slice, "send [value.start, value.stop, value.step]"),
    (FieldFile, "send the model instance, or value.name"),
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

# What a class offers, for libraries that need not be installed: an attribute of the class, and what to send.
_OFFERS: Final[tuple[tuple[str, str], ...]] = (
    ("model_dump", "send value.model_dump(mode='json')"),  # pydantic's models
    ("__attrs_attrs__", "send attrs.asdict(value), or a dataclass"),
    ("__struct_fields__", "send msgspec.structs.asdict(value), or a dataclass"),
)


def refusal(value: Any) -> str:
    """Return why a value cannot be encoded, and the remedy.

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
    if issubclass(kind, QueryDict):
        return f"{name} cannot travel: send value.dict(), or dict(value.lists()) if a key may have several values"
    for base, remedy in _REMEDIES:
        if issubclass(kind, base):
            return f"{name} is a subclass of {base.__qualname__}, and would not arrive as it left: {remedy}"
    for base, remedy in _OTHERS:
        if issubclass(kind, base):
            return f"{name} cannot travel: {remedy}"
    offered = _offered(kind)
    if offered is not None:
        return f"{name} cannot travel: {offered}"
    if issubclass(kind, Callable):  # type: ignore[arg-type]  # mypy takes it for a type form
        return f"{name} cannot travel: a receiver cannot call into the sender's process, send what the call would give"
    return f"{name} cannot travel to another process: send the values that the receiver needs, or a dataclass of them"


def _offered(kind: type) -> str | None:
    """Return the remedy for a value of a library's type, by what its class offers; no method is called."""
    for attribute, remedy in _OFFERS:
        if hasattr(kind, attribute):
            return remedy
    if hasattr(kind, "__array_interface__") or hasattr(kind, "__array__"):  # numpy's, and what stands beside it
        if hasattr(kind, "__getitem__") and hasattr(kind, "tolist") and hasattr(kind, "__len__"):
            return "send value.tolist()"
        return "send int(value)" if hasattr(kind, "__index__") else "send value.item()"
    if kind.__name__ == "Money":  # py-moneyed's, and those of others
        return "send [value.amount, str(value.currency)]"
    if issubclass(kind, Mapping):
        return "send dict(value)"
    if issubclass(kind, Collection):
        return "send list(value)"
    if hasattr(kind, "__index__"):
        return "send int(value)"
    if hasattr(kind, "__float__"):
        return "send float(value)"
    return None


def what_raised(value: Any, error: Exception) -> str:
    """Return the error that a value's own code failed while it was encoded."""
    what = "a model instance" if issubclass(type(value), Model) else f"a {name_of_type(type(value))}"
    return f"{what} could not be encoded, it raised {type(error).__name__}: {error}. Evaluate it before sending"


def name_of_type(kind: type) -> str:
    """Return a type's name as a reader looks for it."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
