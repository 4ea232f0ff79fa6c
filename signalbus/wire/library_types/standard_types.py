"""Encode and decode values of Python's standard library that JSON does not know, and that have no tag of their own."""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from datetime import timedelta, timezone
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from signalbus.exceptions import PayloadError, UnknownClass
from signalbus.wire.values.registered_types import TypeAdapter, list_of

if TYPE_CHECKING:
    from collections.abc import Callable

_MICROSECOND: Final = timedelta(microseconds=1)


def adapter_for(kind: type) -> TypeAdapter | None:
    """Return the adapter for a type."""
    return _BY_TYPE.get(kind)


def _from_text(kind: Callable[[str], Any]) -> Callable[[Any], Any]:
    def decode(value: Any) -> Any:
        if type(value) is not str:
            raise TypeError(value)
        return kind(value)

    return decode


def _parts_of_fraction(value: Fraction) -> list[int]:
    return [value.numerator, value.denominator]


def _fraction(value: Any) -> Fraction:
    return Fraction(*_integers(value, 2))


def _parts_of_range(value: range) -> list[int]:
    return [value.start, value.stop, value.step]


def _range(value: Any) -> range:
    return range(*_integers(value, 3))


def _parts_of_complex(value: complex) -> list[float]:
    return [value.real, value.imag]


def _complex(value: Any) -> complex:
    real, imag = value
    return complex(float(real), float(imag))


def _integers(value: Any, count: int) -> list[int]:
    if len(list_of(value)) != count or any(type(each) is not int for each in value):
        raise TypeError(value)
    return list_of(value)


def _parts_of_pattern(value: re.Pattern[Any]) -> list[Any]:
    if value.flags & re.DEBUG:
        raise PayloadError("a pattern with re.DEBUG would print in the worker: compile it without that flag")
    return [value.pattern, value.flags]


def _pattern(value: Any) -> re.Pattern[Any]:
    pattern, flags = value
    if type(pattern) not in (str, bytes) or type(flags) is not int or flags & re.DEBUG:
        raise TypeError(value)
    return re.compile(pattern, flags)


def _key_of_zone(value: ZoneInfo) -> str:
    try:
        value.__reduce__()  # refuses what from_file() made, which may be other rules under the name
        if value.key:
            ZoneInfo(value.key)
            return value.key
    except (TypeError, LookupError, ValueError, OSError) as error:
        raise PayloadError(f"{value!r} was read from a file: use zoneinfo.ZoneInfo(name)") from error
    raise PayloadError(f"{value!r} has no name: use zoneinfo.ZoneInfo(name)")


def _zone(value: Any) -> ZoneInfo:
    if type(value) is not str:
        raise TypeError(value)
    try:
        return ZoneInfo(value)
    except (LookupError, ValueError, OSError) as error:
        raise UnknownClass(ascii(value[:100]), "no such time zone on this machine: update its tzdata") from error


def _parts_of_timezone(value: timezone) -> list[Any]:
    offset, name = value.utcoffset(None), value.tzname(None)
    return [offset // _MICROSECOND] if name == timezone(offset).tzname(None) else [offset // _MICROSECOND, name]


def _timezone(value: Any) -> timezone:
    offset, *name = list_of(value)
    return timezone(timedelta(microseconds=offset), *name)


def _parts_of_deque(value: deque[Any]) -> list[Any]:
    return [list(value), value.maxlen]


def _deque(value: Any) -> deque[Any]:
    items, longest = value
    return deque(list_of(items), longest)


def _pairs_of(value: OrderedDict[Any, Any]) -> list[Any]:
    return [list(pair) for pair in value.items()]


def _ordered_dict(value: Any) -> OrderedDict[Any, Any]:
    return OrderedDict((key, item) for key, item in list_of(value))


def _adapter(name: str, encode: Callable[[Any], Any], decode: Callable[[Any], Any]) -> TypeAdapter:
    return TypeAdapter(name=f"python:{name}", encode=encode, decode=decode)


_AS_TEXT: Final[dict[type, str]] = {
    IPv4Address: "ipv4-address",
    IPv6Address: "ipv6-address",
    IPv4Interface: "ipv4-interface",
    IPv6Interface: "ipv6-interface",
    IPv4Network: "ipv4-network",
    IPv6Network: "ipv6-network",
    PurePosixPath: "pure-posix-path",
    PureWindowsPath: "pure-windows-path",
    type(Path()): "path",
}
_BY_TYPE: Final[dict[type, TypeAdapter]] = {
    **{kind: _adapter(name, str, _from_text(kind)) for kind, name in _AS_TEXT.items()},
    Fraction: _adapter("fraction", _parts_of_fraction, _fraction),
    range: _adapter("range", _parts_of_range, _range),
    complex: _adapter("complex", _parts_of_complex, _complex),
    re.Pattern: _adapter("pattern", _parts_of_pattern, _pattern),
    ZoneInfo: _adapter("zone-info", _key_of_zone, _zone),
    timezone: _adapter("timezone", _parts_of_timezone, _timezone),
    deque: _adapter("deque", _parts_of_deque, _deque),
    OrderedDict: _adapter("ordered-dict", _pairs_of, _ordered_dict),
}
BY_NAME: Final[dict[str, TypeAdapter]] = {adapter.name: adapter for adapter in _BY_TYPE.values()}
