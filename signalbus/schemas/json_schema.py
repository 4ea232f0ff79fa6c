"""Write the types of payloads as JSON Schema.

The lock file, the deploy gate and the exports use it; `schema_comparison` compares two schemas. ``x-python`` names a
type that JSON has no word for, ``x-model`` the label of a model, whose rows travel as references. ``x-shape`` marks
what `payload_shapes` made.
"""

from __future__ import annotations

import enum
import inspect
import json
import types
from collections.abc import Mapping, Sequence, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, Literal, Union, get_args, get_origin
from uuid import UUID

from django.db.models import Model

from signalbus.contracts.annotations import is_unpacked, plain_type
from signalbus.contracts.payload_fields import PayloadField, fields_of, kind_of
from signalbus.exceptions import ConfigurationError
from signalbus.wire.values import registered_types

Schema = dict[str, Any]

PLAIN_SCHEMAS: Final[dict[Any, Schema]] = {
    type(None): {"type": "null"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bytes: {"type": "string", "contentEncoding": "base64", "x-python": "bytes"},
    Decimal: {"type": "string", "x-python": "Decimal"},
    UUID: {"type": "string", "format": "uuid", "x-python": "UUID"},
    datetime: {"type": "string", "format": "date-time", "x-python": "datetime"},
    date: {"type": "string", "format": "date", "x-python": "date"},
    time: {"type": "string", "format": "time", "x-python": "time"},
    timedelta: {"type": "string", "format": "duration", "x-python": "timedelta"},
}
JSON_TYPES: Final[dict[type, str]] = {bool: "boolean", int: "integer", float: "number", str: "string"}
ANY_ARRAY: Final = "iterable"  # as `x-python`: a list, a tuple or a set


def docstring_of(described: Any) -> str:
    """Return a docstring that a project wrote; nothing if there is none, or if Python or Django made it."""
    own = described.__dict__.get("__doc__") if isinstance(described, type) else getattr(described, "__doc__", None)
    text = inspect.cleandoc(own or "")
    return "" if isinstance(described, type) and text.startswith(f"{described.__name__}(") else text


def schema_of_payload(payload: type) -> Schema:
    """Return the schema of a payload class.

    Args:
        payload: the class.

    Raises:
        ConfigurationError: a class that cannot be a payload.
    """
    schema = _object(fields_of(payload), (payload,))
    return {**schema, "additionalProperties": False}


def schema_of(annotation: Any, around: tuple[Any, ...] = ()) -> Schema:
    """Return the schema of a type; an empty one for a type of which nothing is known.

    Args:
        annotation: an evaluated annotation.
        around: the classes that it is a part of: one that holds itself is named there, and not written again.
    """
    kind = plain_type(annotation)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _any_of([schema_of(each, around) for each in arguments])
    if origin is Literal:
        return _any_of(_of_literal(arguments))
    if kind in PLAIN_SCHEMAS:
        return {**PLAIN_SCHEMAS[kind]}
    if isinstance(origin or kind, type):
        return _class(origin or kind, arguments, around)
    return {}


def _class(kind: type, arguments: tuple[Any, ...], around: tuple[Any, ...]) -> Schema:
    if kind is Any or kind is object:
        return {}
    if issubclass(kind, Model) and kind is not Model:
        return {"x-model": kind._meta.label}  # noqa: SLF001 - Django documents it
    registered = registered_types.by_type.get(kind)
    if registered is not None:
        return {"x-python": f"type {registered.name}"}
    if issubclass(kind, enum.Enum):
        return {"enum": [member.name for member in kind], "x-python": name_in_schema(kind)}
    if kind is type:
        model = plain_type(arguments[0]) if arguments else None
        if isinstance(model, type) and issubclass(model, Model) and model is not Model:
            return {"x-python": f"class {model._meta.label}"}  # noqa: SLF001
        return {"x-python": "class"}
    if kind in around:
        return {"x-python": name_in_schema(kind)}
    if kind_of(kind) is not None:
        try:
            schema = _object(fields_of(kind), (*around, kind))
        except ConfigurationError:
            return {"x-python": name_in_schema(kind)}
        return schema if kind_of(kind) == "typeddict" else {**schema, "x-python": name_in_schema(kind)}
    return _container(kind, arguments, around)


def _container(kind: type, arguments: tuple[Any, ...], around: tuple[Any, ...]) -> Schema:
    if any(map(is_unpacked, arguments)):
        return {"type": "array", "x-python": "tuple"}
    if issubclass(kind, tuple) and arguments and arguments[-1] is not ...:
        items = [schema_of(each, around) for each in arguments if each != ()]
        return {
            "type": "array",
            "x-python": "tuple",
            "prefixItems": items,
            "minItems": len(items),
            "maxItems": len(items),
        }
    if issubclass(kind, (list, tuple, set, frozenset, Sequence, Set)) and not issubclass(kind, (str, bytes)):
        named = kind.__name__ if kind in (list, tuple, set, frozenset) else ANY_ARRAY
        schema: Schema = {"type": "array", **({"x-python": named} if named != "list" else {})}
        return {**schema, "items": schema_of(arguments[0], around)} if arguments else schema
    if issubclass(kind, Mapping):
        values = schema_of(arguments[1], around) if len(arguments) == 2 else {}  # noqa: PLR2004 - key and value
        return {"type": "object", **({"additionalProperties": values} if values else {})}
    return {"x-python": name_in_schema(kind)}


def _object(fields: Sequence[PayloadField], around: tuple[Any, ...]) -> Schema:
    properties = {}
    for field in fields:
        properties[field.name] = schema = schema_of(field.annotation, around)
        default = None if field.default is None or field.is_made else field.default()
        if type(default) in JSON_TYPES and _is_writable(default):
            schema["default"] = default
    required = sorted(field.name for field in fields if field.required)
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _is_writable(value: object) -> bool:
    """Return whether a text or a number can be written to a file of JSON: not infinity, nor half of a character."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return False
    return True


def _of_literal(values: Sequence[Any]) -> list[Schema]:
    """Return the schemas of a literal's values; of bytes, which JSON does not have, the type alone."""
    others = [each for each in values if not isinstance(each, bytes)]
    schemas: list[Schema] = []
    if others:
        schemas.append({"enum": [each.name if isinstance(each, enum.Enum) else each for each in others]})
    return schemas if len(others) == len(values) else [*schemas, {**PLAIN_SCHEMAS[bytes]}]


def _any_of(schemas: list[Schema]) -> Schema:
    distinct = [schema for number, schema in enumerate(schemas) if schema not in schemas[:number]]
    if {} in distinct:
        return {}
    return distinct[0] if len(distinct) == 1 else {"anyOf": distinct}


def name_in_schema(kind: type) -> str:
    """Return the name of a class as `x-python` has it."""
    return f"{kind.__module__}:{kind.__qualname__}"
