"""Describe a payload that waits, without its values: a schema of what it holds, and the names that it refers to.

The exported file of the deploy gate has these shapes, so that no personal data leaves the database with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from signalbus.schemas.json_schema import PLAIN_SCHEMAS
from signalbus.wire.values.scalars import FROM_JSON
from signalbus.wire.values.tags import Tag

if TYPE_CHECKING:
    from collections.abc import Iterable

    from signalbus.schemas.json_schema import Schema

ANYTHING: Final[Schema] = {"x-shape": "any"}

_TYPES: Final = {
    Tag.STR.key: "str", Tag.BYTES.key: "bytes", Tag.DECIMAL.key: "Decimal", Tag.UUID.key: "UUID",
    Tag.TIMEDELTA.key: "timedelta", Tag.DATE.key: "date", Tag.DATETIME.key: "datetime", Tag.TIME.key: "time",
}  # fmt: skip
_BY_NAME: Final = {kind.__name__: {**schema, "x-shape": "value"} for kind, schema in PLAIN_SCHEMAS.items()}
_ARRAYS: Final = {Tag.SET.key: "set", Tag.FROZENSET.key: "frozenset"}
_ROWS: Final = frozenset({Tag.REF.key, Tag.ROW.key, Tag.SNAPSHOT.key})


class Shape(NamedTuple):
    """What a payload holds.

    Args:
        schema: a schema that its values fit.
        names: what a worker must have to read it, each a kind and a name: models, classes, members of enums, types
            that were registered.
    """

    schema: Schema
    names: frozenset[tuple[str, ...]]


def shape_of(sender: Any, payload: Any) -> Shape:
    """Return the shape of a payload.

    Args:
        sender: the sender as the codec wrote it, read as JSON.
        payload: the payload alike.
    """
    names: set[tuple[str, ...]] = set()
    _shape(sender, names)
    return Shape(_shape(payload, names), frozenset(names))


def _shape(node: Any, names: set[tuple[str, ...]]) -> Schema:
    if type(node) is list:
        return {"type": "array", "items": _any_of(_shape(each, names) for each in node), "x-shape": "list"}
    if type(node) is not dict:
        return _BY_NAME[type(node).__name__]
    if len(node) == 1:
        ((tag, value),) = node.items()
        if tag[:1] == "$":
            return _tagged(tag, value, names)
    return _members(node, names)


def _members(node: dict[str, Any], names: set[tuple[str, ...]]) -> Schema:
    properties = {key: _shape(value, names) for key, value in node.items()}
    return {"type": "object", "properties": properties, "required": sorted(properties), "x-shape": "dict"}


def _tagged(tag: str, value: Any, names: set[tuple[str, ...]]) -> Schema:  # noqa: C901 - a line for each tag
    if tag in _TYPES:
        return _BY_NAME[_TYPES[tag]]
    if tag in _ROWS:
        names.add(("model", value[0]))
        return {"x-model": value[0], "x-shape": "row"}
    if tag == Tag.TUPLE.key:
        items = [_shape(each, names) for each in value]
        return {
            "type": "array", "x-python": "tuple", "prefixItems": items, "minItems": len(items), "maxItems": len(items),
            "x-shape": "tuple",
        }  # fmt: skip
    if tag in _ARRAYS:
        element = _any_of(_shape(each, names) for each in value)
        return {"type": "array", "x-python": _ARRAYS[tag], "items": element, "x-shape": "set"}
    if tag == Tag.DICT.key:
        values = _any_of(_shape(each, names) for _, each in value)
        return {"type": "object", "additionalProperties": values, "x-shape": "dict"}
    if tag == Tag.DATA.key:
        names.add(("class", value[0]))
        return {**_members(value[1], names), "x-python": value[0]}
    if tag == Tag.ENUM.key:
        member = value[1] if type(value[1]) is str else ""  # a flag has a number, a text of its own form is a dict
        names.add(("enum", value[0], member))
        return {"enum": [member], "x-python": value[0], "x-shape": "enum"} if member else ANYTHING
    if tag == Tag.MODEL.key:
        names.add(("model", value))
        return {"x-python": f"class {value}", "x-shape": "class"}
    if tag == Tag.NAME.key:
        names.add(("sender", value))
    elif tag == Tag.VALUE.key:
        names.add(("type", value[0]))
        _shape(value[1], names)
    elif tag not in FROM_JSON and tag not in {each.key for each in Tag}:
        names.add(("tag", tag))
    return ANYTHING


def _any_of(schemas: Iterable[Schema]) -> Schema:
    distinct: list[Schema] = []
    for schema in schemas:
        if schema not in distinct:
            distinct.append(schema)
    if not distinct or ANYTHING in distinct:
        return ANYTHING
    return distinct[0] if len(distinct) == 1 else {"anyOf": distinct, "x-shape": "several"}
