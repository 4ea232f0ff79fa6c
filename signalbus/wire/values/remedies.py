"""Write the error for a value that cannot be encoded: what it is, and what to send instead.

`encoder` calls it.
"""

from __future__ import annotations

import re
import sys
from collections import UserString, deque
from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PurePath
from types import GeneratorType, ModuleType
from typing import Any, Final, NoReturn
from uuid import UUID

from django.core.files.base import File
from django.db.models import Manager, Model
from django.db.models.fields.files import FieldFile
from django.http import HttpRequest, QueryDict

from signalbus.exceptions import PayloadError
from signalbus.wire.values import registered_types
from signalbus.wire.values.class_names import cut
from signalbus.wire.values.scalars import TO_JSON

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

# What a class offers, for libraries that need not be installed: an attribute of the class, and what to send. These
# travel field by field once they are registered.
_OFFERS: Final[tuple[tuple[str, str], ...]] = (
    ("model_dump", "value.model_dump(mode='json')"),  # pydantic's models
    ("__attrs_attrs__", "attrs.asdict(value)"),
    ("__struct_fields__", "msgspec.structs.asdict(value)"),
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
            f"{name} is a named tuple, and would not arrive as one: register it, {registration(kind)}, or send "
            "value._asdict() or tuple(value)"
        )
    parent = next((base for base in kind.__mro__ if base in registered_types.by_type), None)
    if parent is not None:
        return (
            f'{name} is a subclass of the registered type "{registered_types.by_type[parent].name}", and would not '
            f"arrive as it left: register it too, {registration(kind, has_fields=_has_fields(kind))}"
        )
    return f"{name} {_why_not(kind)}{_or_register(kind)}"


def _why_not(kind: type) -> str:
    if issubclass(kind, QueryDict):
        return "cannot travel: send value.dict(), or dict(value.lists()) if a key may have several values"
    for base, remedy in _REMEDIES:
        if issubclass(kind, base):
            return f"is a subclass of {base.__qualname__}, and would not arrive as it left: {remedy}"
    for base, remedy in _OTHERS:
        if issubclass(kind, base):
            return f"cannot travel: {remedy}"
    offered = _offered(kind)
    if offered is not None:
        return f"cannot travel: {offered}"
    if issubclass(kind, Callable):  # type: ignore[arg-type]  # mypy takes it for a type form
        return "cannot travel: a receiver cannot call into the sender's process, send what the call would give"
    return "cannot travel to another process: send the values that the receiver needs, or a dataclass of them"


def _or_register(kind: type) -> str:
    """Return the line that lets a class of the host travel."""
    if not is_of_host(kind) or any(hasattr(kind, attribute) for attribute, _ in _OFFERS):
        return ""
    return f"; or register the class, {registration(kind, has_fields=False)}"


def _offered(kind: type) -> str | None:
    """Return the remedy for a value of a library's type, by what its class offers; no method is called."""
    for attribute, remedy in _OFFERS:
        if hasattr(kind, attribute):
            return f"register it, {registration(kind)}, or send {remedy}"
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


def name_for(kind: type) -> str:
    """Return a name to propose for a class: ``line-item`` for ``LineItem``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", kind.__name__).replace("_", "-").strip("-").lower() or "value"


def _has_fields(kind: Any) -> bool:
    is_known = (issubclass(kind, tuple) and hasattr(kind, "_fields")) or hasattr(kind, "__dataclass_fields__")
    return is_known or any(hasattr(kind, attribute) for attribute, _ in _OFFERS)


def registration(kind: type, *, has_fields: bool = True) -> str:
    """Return the call that lets values of a class travel.

    Args:
        kind: the class.
        has_fields: whether it travels field by field; else the caller has to say what travels of a value.
    """
    functions = "" if has_fields else ", encode=…, decode=…"
    return f'signalbus.codec.register({kind.__qualname__}, name="{name_for(kind)}"{functions})'


def is_of_host(kind: type) -> bool:
    """Return whether a class is neither Python's nor Django's, so that a host may know what travels of its values."""
    package = kind.__module__.partition(".")[0]
    return package not in sys.stdlib_module_names and package != "django"


def what_raised(value: Any, error: Exception) -> str:
    """Return the error that a value's own code failed while it was encoded."""
    what = "a model instance" if issubclass(type(value), Model) else f"a {name_of_type(type(value))}"
    return f"{what} could not be encoded, it raised {type(error).__name__}: {error}. Evaluate it before sending"


def name_of_type(kind: type) -> str:
    """Return a type's name as a reader looks for it."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def step_to(key: Any) -> str:
    """Return the step of a path that leads to the value under a key."""
    if type(key) is str and key.isidentifier():
        return key
    text = repr(key) if type(key) in TO_JSON else type(key).__qualname__
    return f"[{cut(text)}]"


def refuse_key(key: Any) -> NoReturn:
    """Refuse a key of a dict.

    Raises:
        PayloadError: always.
    """
    raise PayloadError(f"a dict's key is {name_of_type(type(key))}, not str: use str(key), or send a list of pairs")


def too_large(size: str, limit: int) -> str:
    """Return the error that a payload is over the limit, with the remedy."""
    return (
        f"the payload takes {size} bytes, {limit} are allowed: send model instances (they travel as references) or a "
        "file's name, or raise SIGNALBUS['MAX_BYTES']"
    )
