"""Encode and decode phone numbers: those of phonenumbers, and of django-phonenumber-field, which are a subclass."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, Final

import phonenumbers

from signalbus.wire.values.registered_types import TypeAdapter

# What phonenumbers.PhoneNumber takes and holds.
_ATTRIBUTES: Final = (
    "country_code",
    "national_number",
    "extension",
    "italian_leading_zero",
    "number_of_leading_zeros",
    "raw_input",
    "country_code_source",
    "preferred_domestic_carrier_code",
)


def adapter_for(kind: type) -> TypeAdapter | None:
    """Return the adapter for a type."""
    if kind is phonenumbers.PhoneNumber:
        return _PLAIN
    fields = sys.modules.get("phonenumber_field.phonenumber")
    return _FIELD if fields is not None and kind is fields.PhoneNumber else None


def _parts(value: Any) -> dict[str, Any]:
    found = {name: getattr(value, name) for name in _ATTRIBUTES}
    return {name: part for name, part in found.items() if part is not None}


def _known(parts: Any) -> dict[str, Any]:
    return {name: parts[name] for name in _ATTRIBUTES if name in parts}


def _plain(parts: Any) -> Any:
    return phonenumbers.PhoneNumber(**_known(parts))


def _of_field(parts: Any) -> Any:
    return import_module("phonenumber_field.phonenumber").PhoneNumber(**_known(parts))


_PLAIN: Final = TypeAdapter(name="phone:number", encode=_parts, decode=_plain)
_FIELD: Final = TypeAdapter(name="phone:field-number", encode=_parts, decode=_of_field)
BY_NAME: Final[dict[str, TypeAdapter]] = {adapter.name: adapter for adapter in (_PLAIN, _FIELD)}
