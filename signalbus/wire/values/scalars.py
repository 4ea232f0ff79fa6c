"""Encode and decode values without parts, each as JSON.

``TO_JSON`` maps an exact type to the function that writes it, ``FROM_JSON`` a tag to the one that reads it; `encoder`
and `decoder` look functions up there. ``TO_JSON`` writes only what every version of the message knows; `Encoder`
writes the values of newer tags.
"""

from __future__ import annotations

import binascii
import math
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from types import NoneType
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo

from django.utils.safestring import SafeString

from signalbus.exceptions import PayloadError, UnknownClass
from signalbus.wire.values.tags import Tag, by_key

if TYPE_CHECKING:
    from collections.abc import Callable

# JSON's reader makes int() of each number, which costs the square of its length: Python's own limit, even if it is off.
_MAX_INT: Final = 10**4300
_MICROSECOND: Final = timedelta(microseconds=1)
_STR: Final = Tag.STR.plain_key()


def _tagged(tag: Tag, write: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Make the writer of a type from what writes the value under its tag."""
    key = tag.plain_key()

    def to_json(value: Any) -> Any:
        return {key: write(value)}

    return to_json


def text_to_json(value: str) -> Any:
    """Write a text; one with surrogates under a tag, because JSON would make one character of a pair of them."""
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return {_STR: _base64(value.encode("utf-8", "surrogatepass"))}
    return value


def _safe_text_to_json(value: SafeString) -> Any:
    return text_to_json(str.__str__(value))


def _text_from_json(value: Any) -> str:
    return binascii.a2b_base64(value, strict_mode=True).decode("utf-8", "surrogatepass")


def _as_it_is(value: Any) -> Any:
    return value


def _int_to_json(value: int) -> int:
    if not -_MAX_INT < value < _MAX_INT:
        raise PayloadError("an int of more than 4300 digits: send it as bytes (value.to_bytes(…)) or as hex text")
    return value


def _float_to_json(value: float) -> float:
    if not math.isfinite(value):
        raise PayloadError(f"{value} is no number that JSON knows: send None, or the text {str(value)!r}")
    return value


def _base64(value: bytes) -> str:
    return binascii.b2a_base64(value, newline=False).decode("ascii")


def _bytes_from_json(value: Any) -> bytes:
    return binascii.a2b_base64(value, strict_mode=True)


def _decimal_to_json(value: Decimal) -> str:
    if not value.is_finite():
        raise PayloadError(f"Decimal('{value}') is not finite: send None, or its text")
    return str(value)


def _decimal_from_json(value: Any) -> Decimal:
    # Text only, and never int() of it: 1E+20000000 is one short text, and an int of twenty million digits.
    if type(value) is not str or not (number := Decimal(value)).is_finite():
        raise ValueError(value)
    return number


def _uuid_to_json(value: UUID) -> Any:
    return value.hex if value.is_safe is SafeUUID.unknown else [value.hex, value.is_safe.value]


def _uuid_from_json(value: Any) -> UUID:
    if type(value) is str:
        return UUID(hex=value)
    text, safe = value
    return UUID(hex=text, is_safe=SafeUUID(safe))


def _timedelta_to_json(value: timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _timedelta_from_json(value: Any) -> timedelta:
    days, seconds, microseconds = value
    return timedelta(days, seconds, microseconds)


def _moment_to_json(value: datetime | time) -> Any:
    if value.tzinfo is None and not value.fold:
        return value.isoformat()
    naive = value.replace(tzinfo=None, fold=0).isoformat()
    return [naive, _zone_to_json(value.tzinfo, value), value.fold]


def _moment_from_json(read: Callable[[str], Any]) -> Callable[[Any], Any]:
    def from_json(value: Any) -> Any:
        text, zone, fold = (value, None, 0) if type(value) is str else value
        return read(text).replace(tzinfo=_zone_from_json(zone), fold=fold)

    return from_json


def _frozen_moment_to_json(value: datetime) -> Any:
    zone = value.tzinfo
    # freezegun's astimezone() gives a local zone of dateutil's where the real one gives a fixed offset.
    if zone is not None and (type(zone).__module__, type(zone).__qualname__) == ("dateutil.tz.tz", "tzlocal"):
        value = value.replace(tzinfo=timezone(value.utcoffset() or timedelta(), value.tzname() or ""))
    return _moment_to_json(value)


def _zone_to_json(zone: tzinfo | None, moment: datetime | time) -> Any:
    """Write a zone: a text for one of the IANA names, [microseconds, name] for a fixed offset."""
    if zone is None:
        return None
    if zone is UTC:
        return [0]
    if type(zone) is timezone:
        offset = zone.utcoffset(None)
        name = zone.tzname(None)
        named = [] if name == timezone(offset).tzname(None) else [text_to_json(name)]
        return [offset // _MICROSECOND, *named]
    if type(zone) is ZoneInfo and zone.key is not None:
        _check_zone(zone, moment)
        return zone.key
    raise PayloadError(
        f"the time zone {zone!r} ({type(zone).__module__}.{type(zone).__qualname__}) cannot travel: use "
        "zoneinfo.ZoneInfo(name) or datetime.timezone, as in value.astimezone(datetime.UTC)"
    )


def _check_zone(zone: ZoneInfo, moment: datetime | time) -> None:
    """Refuse what ``ZoneInfo.from_file(…, key=…)`` made of another file than the worker will find under its name."""
    try:
        known = ZoneInfo(zone.key)
    except (LookupError, ValueError, OSError) as error:
        raise PayloadError(f"zoneinfo finds no time zone {zone.key!r} here: use one that it finds") from error
    if known is not zone and known.utcoffset(moment if isinstance(moment, datetime) else None) != moment.utcoffset():
        raise PayloadError(
            f"{zone!r} is another time zone than zoneinfo finds by this name: use ZoneInfo({zone.key!r})"
        )


def _zone_from_json(value: Any) -> tzinfo | None:
    if value is None:
        return None
    if type(value) is str:
        try:
            return ZoneInfo(value)
        except (LookupError, ValueError, OSError) as error:
            raise UnknownClass(ascii(value[:100]), "no such time zone on this machine: update its tzdata") from error
    offset, *name = value
    return timezone(timedelta(microseconds=offset), *[item if type(item) is str else read_text(item) for item in name])


def read_text(value: Any) -> str:
    """Read a text; raise an error for a value of another type."""
    if type(value) is str:
        return value
    ((tag, inner),) = value.items()
    if tag != _STR:
        raise ValueError(tag)
    return _text_from_json(inner)


TO_JSON: Final[dict[type, Callable[[Any], Any]]] = {
    NoneType: _as_it_is,
    bool: _as_it_is,
    int: _int_to_json,
    float: _float_to_json,
    str: text_to_json,
    SafeString: _safe_text_to_json,
    bytes: _tagged(Tag.BYTES, _base64),
    Decimal: _tagged(Tag.DECIMAL, _decimal_to_json),
    UUID: _tagged(Tag.UUID, _uuid_to_json),
    timedelta: _tagged(Tag.TIMEDELTA, _timedelta_to_json),
    date: _tagged(Tag.DATE, date.isoformat),
    datetime: _tagged(Tag.DATETIME, _moment_to_json),
    time: _tagged(Tag.TIME, _moment_to_json),
}

# Types by which a test that stops the clock replaces ours; by name, because only tests have that package.
_FROZEN: Final[dict[tuple[str, str], Callable[[Any], Any]]] = {
    ("freezegun.api", "FakeDatetime"): _tagged(Tag.DATETIME, _frozen_moment_to_json),
    ("freezegun.api", "FakeDate"): TO_JSON[date],
}


def frozen_to_json(kind: type) -> Callable[[Any], Any] | None:
    """Return the writer for a date or time class with which a test tool replaces a standard one (freezegun)."""
    return _FROZEN.get((kind.__module__, kind.__qualname__))


FROM_JSON: Final[dict[str, Callable[[Any], object]]] = by_key(
    {
        Tag.STR: _text_from_json,
        Tag.BYTES: _bytes_from_json,
        Tag.DECIMAL: _decimal_from_json,
        Tag.UUID: _uuid_from_json,
        Tag.TIMEDELTA: _timedelta_from_json,
        Tag.DATE: date.fromisoformat,
        Tag.DATETIME: _moment_from_json(datetime.fromisoformat),
        Tag.TIME: _moment_from_json(time.fromisoformat),
    }
)
