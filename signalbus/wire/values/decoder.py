"""Decode parsed JSON to the values of a payload, in two walks: the first only finds the rows to load.

`codec` calls both, and loads the rows in between.
"""

from __future__ import annotations

from enum import Enum, Flag
from typing import TYPE_CHECKING, Any, Final

from django.db import DatabaseError

from signalbus.exceptions import Garbage, SignalBusError, TooLarge, UnknownClass
from signalbus.wire.values import class_names, references, registered_types, structures
from signalbus.wire.values.scalars import FROM_JSON, read_text
from signalbus.wire.values.stored_forms import Stored
from signalbus.wire.values.tags import Tag, by_key

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from django.db.models import Model

    from signalbus.wire.values.references import Reference
    from signalbus.wire.values.registered_types import TypeAdapter

_CONTAINERS: Final = frozenset({dict, list})
_REF: Final = Tag.REF.key
_NAME: Final = Tag.NAME.key
_MODEL: Final = Tag.MODEL.key
_ROWS: Final = frozenset({_REF, Tag.ROW.key})
_SENDERS: Final = frozenset(tag.key for tag in (Tag.STR, Tag.MODEL, Tag.REF, Tag.ROW, Tag.SNAPSHOT_AS_SENDER))


class Finder:
    """Find the rows that a parsed payload names.

    Args:
        snapshots: whether field values that travel beside a reference may replace a missing row.
    """

    __slots__ = ("_snapshots", "found")

    def __init__(self, snapshots: bool) -> None:
        self._snapshots = snapshots
        self.found: dict[Reference, Collection[str]] = {}

    def walk(self, node: Any, relations: Collection[str] = ()) -> None:
        """Replace each row by a pair of its reference and its snapshot, and note the relations to load with it."""
        if type(node) is dict:
            if len(node) == 1 and not _ROWS.isdisjoint(node):
                self._take(node, relations)
                return
            node = node.values()
        for child in node:
            if type(child) in _CONTAINERS:
                self.walk(child, relations)

    def _take(self, node: dict[str, Any], relations: Collection[str]) -> None:
        ((tag, value),) = node.items()
        if type(value) is tuple:  # which JSON has not: taken already
            return
        using = snapshot = None
        if tag == _REF:
            label, pk = value
        else:
            label, pk, using, snapshot = value
        key = pk if type(pk) is int else Decoder({}, 0).pk(pk)
        reference = references.reference_from(_text(label), key, None if using is None else _text(using))
        known = self.found.setdefault(reference, relations)
        if relations and known is not relations:
            self.found[reference] = {*known, *relations}
        if not self._snapshots:
            snapshot = None
        elif snapshot is not None:
            self.walk(snapshot)
        node[tag] = (reference, snapshot)


class Decoder:
    """Decode one message.

    Args:
        rows: the instances for the references that the tree holds.
        max_depth: how deep containers may be nested.
    """

    __slots__ = ("_max_depth", "_rows", "missing")

    def __init__(self, rows: Mapping[Reference, Model], max_depth: int) -> None:
        self._rows = rows
        self._max_depth = max_depth
        self.missing: set[Reference] = set()  # rows that are gone, and that nothing stood in for

    def payload(self, node: Any) -> dict[str, Any]:
        """Decode a payload."""
        # Nearly all payloads are plain values under their names, and are so as they were parsed.
        if type(node) is dict and len(node) != 1 and _CONTAINERS.isdisjoint(map(type, node.values())):
            return node
        payload = self._value(node, self._max_depth + 1)
        if type(payload) is not dict:
            raise Garbage(f"the payload is a {type(payload).__name__}, not a dict")
        return payload

    def sender(self, node: Any) -> object:
        """Decode a sender."""
        if node is None or type(node) is str:
            return node
        ((tag, value),) = node.items()
        if tag == _MODEL:  # nearly always
            return references.model_named(_text(value))
        if tag == _NAME:
            return class_names.resolve_class(_text(value), senders=True)
        if tag in _SENDERS:
            return self._value(node, self._max_depth)
        raise Garbage(f"{class_names.shown(tag)} is no sender")

    def pk(self, node: Any) -> Any:
        """Decode a primary key; a composite one is a tuple."""
        return self._value(node, 1)

    def _value(self, node: Any, left: int) -> Any:
        kind = type(node)
        if kind is list:
            return self._list(node, left)
        if kind is not dict:
            return node
        if len(node) == 1:
            ((tag, value),) = node.items()
            if tag[:1] == "$":
                scalar = FROM_JSON.get(tag)
                return scalar(value) if scalar is not None else self._tagged(tag, value, left)
        return self._members(node, left)

    def _tagged(self, tag: str, value: Any, left: int) -> Any:
        read = _READERS.get(tag)
        if read is None:
            raise Garbage(f"{class_names.shown(tag)} is no tag")
        return read(self, value, left)

    def _enter(self, node: Any, kind: type, left: int) -> None:
        if type(node) is not kind:
            raise Garbage(f"a {type(node).__name__} where a {kind.__name__} must stand")
        if left <= 0:
            raise TooLarge(f"nested deeper than {self._max_depth} containers, which SIGNALBUS['MAX_NESTING'] allows")

    def _list(self, node: Any, left: int) -> list[Any]:
        self._enter(node, list, left)
        if _CONTAINERS.isdisjoint(map(type, node)):
            return node  # type: ignore[no-any-return]  # checked above
        return [self._value(item, left - 1) if type(item) in _CONTAINERS else item for item in node]

    def _members(self, node: Any, left: int) -> dict[str, Any]:
        self._enter(node, dict, left)
        for key, item in node.items():
            if type(item) in _CONTAINERS:
                node[key] = self._value(item, left - 1)
        return node  # type: ignore[no-any-return]  # checked above

    def _tuple(self, value: Any, left: int) -> tuple[Any, ...]:
        return tuple(self._list(value, left))

    def _set(self, value: Any, left: int) -> set[Any]:
        return set(self._list(value, left))

    def _frozenset(self, value: Any, left: int) -> frozenset[Any]:
        return frozenset(self._list(value, left))

    def _dict(self, value: Any, left: int) -> dict[str, Any]:
        self._enter(value, list, left)
        return {read_text(key): self._value(item, left - 1) for key, item in value}

    def _row(self, value: Any, left: int) -> Model | None:
        if type(value) is not tuple:  # which JSON has not: only the first walk makes them
            raise Garbage("a reference that was not looked up")
        reference, snapshot = value
        row = self._rows.get(reference)
        if row is None and snapshot is not None:
            return self._snapshot(snapshot, left)
        if row is None:
            self.missing.add(reference)
        return row

    def _data(self, value: Any, left: int) -> object:
        name, members = value
        moved = registered_types.by_name.get(_text(name))  # a class that travelled by its place before it had a name
        if moved is not None:
            return self._adapted(moved, members, left)
        return structures.restore(name, self._members(members, left))

    def _registered(self, value: Any, left: int) -> Any:
        self._enter(value, list, left)
        name, node = value
        return self._adapted(registered_types.adapter_named(_text(name)), node, left - 1)

    def _adapted(self, adapter: TypeAdapter, node: Any, left: int) -> Any:
        missing = len(self.missing)
        parts = self._value(node, left)
        if len(self.missing) > missing:
            return None  # a row in it is gone, which the codec raises
        try:
            return adapter.decode(parts)
        except (SignalBusError, DatabaseError, MemoryError, RecursionError):
            raise
        except Exception as error:
            if adapter.is_of_library:
                raise  # the text is no value of its type
            error.add_note(f'(raised by decode of the type "{adapter.name}", registered in {adapter.place})')
            raise structures.HostError(error) from error

    def _stored(self, value: Any, left: int) -> Stored:
        return Stored(self._value(value, left))

    def _snapshot(self, value: Any, left: int) -> Model:
        label, adding, db, values, texts = value
        texts = {attname: read_text(text) for attname, text in texts.items()}
        return structures.restore_snapshot(_text(label), bool(adding), db, self._members(values, left), texts)


def _enum(_decoder: Decoder, value: Any, _left: int) -> Enum:
    name, member = value
    kind = class_names.resolve_class(_text(name))
    if not (isinstance(kind, type) and issubclass(kind, Enum)):
        raise UnknownClass(class_names.shown(name), "not an enumeration in this process: roll this worker out")
    try:
        return kind(member) if issubclass(kind, Flag) else kind.__members__[read_text(member)]
    except (LookupError, ValueError, TypeError) as error:
        what = class_names.shown(f"{name}.{member}")
        raise UnknownClass(what, "no such member in this process: roll this worker out") from error


def _anonymous(_decoder: Decoder, _value: Any, _left: int) -> Any:
    return references.anonymous_user()


def _model(_decoder: Decoder, value: Any, _left: int) -> type[Model]:
    return references.model_named(_text(value))


def _text(value: Any) -> str:
    if type(value) is not str:
        raise Garbage(f"a {type(value).__name__} where a text must stand")
    return value


_READERS: Final[dict[str, Callable[[Decoder, Any, int], Any]]] = by_key(
    {
        Tag.TUPLE: Decoder._tuple,  # noqa: SLF001  (the table stands outside the class only because it needs the class)
        Tag.SET: Decoder._set,  # noqa: SLF001
        Tag.FROZENSET: Decoder._frozenset,  # noqa: SLF001
        Tag.DICT: Decoder._dict,  # noqa: SLF001
        Tag.REF: Decoder._row,  # noqa: SLF001
        Tag.ROW: Decoder._row,  # noqa: SLF001
        Tag.DATA: Decoder._data,  # noqa: SLF001
        Tag.SNAPSHOT: Decoder._snapshot,  # noqa: SLF001
        Tag.STORED: Decoder._stored,  # noqa: SLF001
        Tag.VALUE: Decoder._registered,  # noqa: SLF001
        Tag.ENUM: _enum,
        Tag.MODEL: _model,
        Tag.ANONYMOUS: _anonymous,
    }
)
