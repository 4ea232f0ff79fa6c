"""Encode and decode instances of registered classes with declared fields: field by field.

``signalbus.codec.register`` asks here for a class without functions of its own. Nothing is validated on arrival: a
value was valid when it was sent. A field that this process does not have is left out, and one that the message does not
have takes its default, so that both sides of a rolling deploy understand each other.
"""

from __future__ import annotations

import dataclasses
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any

from signalbus.wire.values import structures
from signalbus.wire.values.registered_types import list_of

if TYPE_CHECKING:
    from collections.abc import Callable

    Functions = tuple[Callable[[Any], Any], Callable[[Any], Any]]


def functions_for(kind: type, name: str) -> Functions | None:
    """Return the functions that encode and decode the instances of a class; None if its fields are not declared.

    Args:
        kind: a dataclass, an attrs class, a pydantic model, a msgspec struct or a named tuple.
        name: the name under which it travels.

    Raises:
        PayloadError: its instances hold what no field holds.
    """
    if _is_subclass(kind, "pydantic", "BaseModel"):
        return _of_model(kind, name)
    if _is_subclass(kind, "msgspec", "Struct"):
        return _of_struct(kind, name)
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _of_named_tuple(kind, name)
    if dataclasses.is_dataclass(kind):
        return _of_layout(kind, structures.layout_named(kind, name))
    if "__attrs_attrs__" in vars(kind):
        return _of_attrs(kind, name)
    return None


def _is_subclass(kind: type, module: str, name: str) -> bool:
    base = getattr(sys.modules.get(module), name, None)  # not imported: then no class of it exists
    return isinstance(base, type) and issubclass(kind, base)


def _of_layout(kind: type, layout: structures.Layout) -> Functions:
    def encode(value: Any) -> dict[str, Any]:
        return structures.state_of(value, layout)

    def decode(values: Any) -> object:
        return structures.restore_as(kind, layout, values)

    return encode, decode


def _of_attrs(kind: Any, name: str) -> Functions:
    layout = structures.Layout(name, _attrs_fields(kind), structures.slots_of(kind))
    encode, restore = _of_layout(kind, layout)
    hashing = getattr(kind.__hash__, "__code__", None)
    if hashing is None or structures.CACHED_HASH not in hashing.co_names:
        return encode, restore

    def decode(values: Any) -> object:
        result = restore(values)
        object.__setattr__(result, structures.CACHED_HASH, None)  # to be computed again: texts hash to other numbers
        return result

    return encode, decode


def _attrs_fields(kind: Any) -> dict[str, structures.FieldOfClass]:
    fields = {}
    for each in kind.__attrs_attrs__:
        factory = getattr(each.default, "factory", dataclasses.MISSING)
        has_none = each.default is sys.modules["attr"].NOTHING
        default = dataclasses.MISSING if has_none or factory is not dataclasses.MISSING else each.default
        takes_self = getattr(each.default, "takes_self", False)
        fields[each.name] = structures.FieldOfClass(each.name, default, factory, takes_self)
    return fields


def _of_struct(kind: Any, name: str) -> Functions:
    fields = kind.__struct_fields__

    def encode(value: Any) -> dict[str, Any]:
        structures.refuse_beside(getattr(value, "__dict__", ()))
        return {field: getattr(value, field) for field in fields}

    def decode(values: Any) -> object:
        known = {field: values[field] for field in fields if field in values}
        required = fields[: len(fields) - len(kind.__struct_defaults__)]
        for field in required:
            if field not in known:
                raise structures.without(f'the type "{name}"', field)
        return kind(**known)

    return encode, decode


def _of_named_tuple(kind: Any, name: str) -> Functions:
    fields, defaults = kind._fields, kind._field_defaults

    def encode(value: Any) -> dict[str, Any]:
        structures.refuse_beside(getattr(value, "__dict__", ()))
        return dict(zip(fields, value, strict=True))

    def decode(values: Any) -> object:
        for field in fields:
            if field not in values and field not in defaults:
                raise structures.without(f'the type "{name}"', field)
        return tuple.__new__(kind, [values[field] if field in values else defaults[field] for field in fields])

    return encode, decode


def _of_model(kind: Any, name: str) -> Functions:
    """Return the functions for a pydantic model: fields, which of them were set, extra and private attributes."""

    def encode(value: Any) -> dict[str, Any]:
        state, fields = vars(value), kind.model_fields
        structures.refuse_beside(key for key in state.keys() - fields.keys() if not _is_cached(kind, key))
        parts: dict[str, Any] = {"fields": {field: state[field] for field in fields if field in state}}
        if value.model_fields_set != fields.keys():
            parts["set"] = sorted(value.model_fields_set)
        if value.model_extra:
            parts["extra"] = dict(value.model_extra)
        if value.__pydantic_private__:
            parts["private"] = dict(value.__pydantic_private__)
        return parts

    def decode(parts: Any) -> object:
        values = {}
        for field, info in kind.model_fields.items():
            if field in parts["fields"]:
                values[field] = parts["fields"][field]
            elif info.is_required():
                raise structures.without(f'the type "{name}"', field)
            else:
                values[field] = _default(info, values)
        private = {key: attribute.get_default() for key, attribute in kind.__private_attributes__.items()}
        private |= {key: item for key, item in parts.get("private", {}).items() if key in private}
        takes_extra = kind.model_config.get("extra") == "allow"
        extra = parts.get("extra", {})
        known_set = set(parts["fields"] if "set" not in parts else list_of(parts["set"]))
        result = kind.__new__(kind)
        result.__setstate__(
            {
                "__dict__": values,
                "__pydantic_fields_set__": known_set & (values.keys() | (extra.keys() if takes_extra else set())),
                "__pydantic_extra__": extra if takes_extra else None,
                "__pydantic_private__": _defined(private) if kind.__private_attributes__ else None,
            }
        )
        return result

    return encode, decode


def _is_cached(kind: type, name: str) -> bool:
    return any(isinstance(vars(base).get(name), cached_property) for base in kind.__mro__)


def _default(info: Any, values: dict[str, Any]) -> Any:
    if getattr(info, "default_factory_takes_validated_data", False):
        return info.get_default(call_default_factory=True, validated_data=values)
    return info.get_default(call_default_factory=True)


def _defined(private: dict[str, Any]) -> dict[str, Any]:
    """Leave out private attributes that have no value, and no default."""
    undefined = sys.modules["pydantic_core"].PydanticUndefined
    return {key: value for key, value in private.items() if value is not undefined}
