"""Encode the values of a payload as JSON can write them, in one walk that decides by exact type.

`codec` calls it for payloads that are not plain. It finds the path of a value (`context.user.lock`) only when it
fails; the remedy in the error is written by `remedies`.
"""

from __future__ import annotations

import dataclasses
from enum import Enum, Flag
from typing import TYPE_CHECKING, Any, Final

from django.db import DatabaseError
from django.db.models import JSONField, Model, QuerySet
from django.utils.functional import LazyObject, Promise
from django.utils.safestring import SafeString

from signalbus.exceptions import PayloadError
from signalbus.wire import library_types
from signalbus.wire.values import registered_types, structures
from signalbus.wire.values.class_names import SENDERS, importable_name, is_model, unwrapped
from signalbus.wire.values.references import Snapshot, is_anonymous_user, label_of, reference_to
from signalbus.wire.values.remedies import name_of_type, refusal, refuse_key, step_to, too_large, what_raised
from signalbus.wire.values.scalars import TO_JSON, frozen_to_json, text_to_json
from signalbus.wire.values.stored_forms import SAME, converted_fields, stored_form
from signalbus.wire.values.tags import FIRST, Tag

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from signalbus.wire.values.registered_types import TypeAdapter

# Tags that every version of the message knows; the newer ones go through `Encoder._tagged`.
_DATA: Final = Tag.DATA.plain_key()
_DICT: Final = Tag.DICT.plain_key()
_ENUM: Final = Tag.ENUM.plain_key()
_MODEL: Final = Tag.MODEL.plain_key()
_NAME: Final = Tag.NAME.plain_key()
_REF: Final = Tag.REF.plain_key()

_enum_names: dict[type[Enum], str] = {}


class Encoder:
    """Encode one message.

    Args:
        max_depth: how deep containers may be nested.
        max_bytes: how large the text may become; values are counted on the way, so that a small structure that refers
            to itself many times is refused before it fills the memory.
        snapshots: whether field values travel beside each reference, for when its row is gone.
    """

    __slots__ = ("_bytes_left", "_for_row", "_max_bytes", "_max_depth", "_snapshots", "rows", "unproved", "version")

    def __init__(self, max_depth: int, max_bytes: int, snapshots: bool) -> None:
        self._max_depth = max_depth
        self._max_bytes = max_bytes
        self._bytes_left = max_bytes
        self._snapshots = snapshots
        self._for_row = False  # whether a value is looked for that every version reads, as a row holds it
        self.version: int = FIRST  # the oldest that knows all tags written so far
        self.rows: list[tuple[str, object]] = []  # label and key of each row written so far
        self.unproved: list[tuple[TypeAdapter, object]] = []  # values of types that no value has been proved of

    def payload(self, payload: Mapping[str, object]) -> Any:
        """Encode a payload; the dict itself does not count as nesting."""
        return self._dict(payload if type(payload) is dict else dict(payload), self._max_depth + 1)

    def sender(self, sender: object) -> Any:
        """Encode a sender: None, a text, a class, a function or a model instance."""
        try:
            return self._guarded(self._sender, sender)
        except PayloadError as error:
            error.inside("sender")
            raise

    def _sender(self, sender: Any) -> Any:
        sender = unwrapped(sender)
        if sender is None or type(sender) in (str, SafeString):
            return self._value(sender, 1)
        if isinstance(sender, SENDERS):
            if is_model(sender):
                return {_MODEL: label_of(sender)}
            return {_NAME: importable_name(sender, senders=True)}
        if issubclass(type(sender), Model):
            return self._instance(sender, self._max_depth, snapshot=Tag.SNAPSHOT_AS_SENDER)
        raise PayloadError(
            f"{name_of_type(type(sender))} cannot be a sender: use None, a text, a class, a function or an instance"
        )

    def _value(self, value: Any, left: int) -> Any:
        kind = type(value)
        scalar = TO_JSON.get(kind)
        if scalar is not None:
            return scalar(value)
        if kind is dict:
            return self._dict(value, left)
        if kind is list:
            return self._list(value, left)
        tag = _COLLECTIONS.get(kind)
        if tag is not None:
            return {tag: self._list(value, left)}
        return self._guarded(self._other, value, left)

    def _tagged(self, tag: Tag, value: Any) -> dict[str, Any]:
        """Put a value under its tag, and raise the version of the message to one that knows the tag."""
        self.version = max(self.version, tag.since)
        return {tag.key: value}

    def _guarded(self, write: Callable[..., Any], value: Any, *args: Any) -> Any:
        """Call what may run the value's own code, which may raise anything."""
        try:
            return write(value, *args)
        except (PayloadError, DatabaseError, MemoryError, RecursionError):
            raise  # a DatabaseError ends the sender's transaction, and code that retries it must see it
        except Exception as error:
            raise PayloadError(what_raised(value, error)) from error

    def _other(self, value: Any, left: int) -> Any:
        """Encode what is known by its base class."""
        kind = type(value)
        if issubclass(kind, Model):
            return self._instance(value, left)
        if kind is Snapshot:
            return self._tagged(Tag.SNAPSHOT, self._snapshot(value.instance, left))
        if kind in registered_types.by_type:
            return self._adapted(registered_types.by_type[kind], value, left)
        if issubclass(kind, Enum):
            return _enum(kind, value)
        if issubclass(kind, Promise):
            return _lazy_text(kind, value)
        if issubclass(kind, QuerySet):
            return self._list(list(value), left)
        if issubclass(kind, LazyObject):
            return self._wrapped(unwrapped(value), left)
        if issubclass(kind, type) and issubclass(value, Model):
            return {_MODEL: label_of(value)}
        if dataclasses.is_dataclass(kind):
            layout = structures.layout_of(kind)
            return {_DATA: [layout.name, self._members(structures.state_of(value, layout), left)]}
        return self._by_name(value, left)

    def _by_name(self, value: Any, left: int) -> Any:
        """Encode what is known by its class's name, because its module may be missing or not yet importable."""
        kind = type(value)
        if is_anonymous_user(kind):
            return self._tagged(Tag.ANONYMOUS, None)
        frozen = frozen_to_json(kind)
        if frozen is not None:
            return frozen(value)
        adapter = library_types.adapter_for(kind)
        if adapter is not None:
            return self._adapted(adapter, value, left)
        raise PayloadError(refusal(value))

    def _adapted(self, adapter: TypeAdapter, value: Any, left: int) -> Any:
        """Encode a value of a registered type, or of a library's."""
        if self._for_row:
            raise PayloadError(refusal(value))
        parts = adapter.encode(value)
        self._enter((adapter.name, parts), left)
        if not adapter.is_proved:
            self.unproved.append((adapter, value))
        try:
            return self._tagged(Tag.VALUE, [adapter.name, self._value(parts, left - 1)])
        except PayloadError as error:
            error.reason += f' (in what stands for a value of the type "{adapter.name}")'
            raise

    def _enter(self, items: Collection[Any], left: int) -> None:
        if left <= 0:
            raise PayloadError(
                f"nested deeper than {self._max_depth} containers: flatten it, break the cycle if it holds itself, or "
                "raise SIGNALBUS['MAX_NESTING']"
            )
        self._bytes_left -= len(items)
        if self._bytes_left < 0:
            raise PayloadError(too_large(f"more than {self._max_bytes}", self._max_bytes))

    def _dict(self, value: Mapping[str, Any], left: int) -> Any:
        result = self._members(value, left)
        # A dict that could be taken for a tag, or whose keys JSON would change, goes as a list of pairs.
        if len(result) == 1 and next(iter(result))[:1] == "$":
            return {_DICT: [[text_to_json(key), item] for key, item in result.items()]}
        if not all(map(str.isascii, result)):
            keys = [text_to_json(key) for key in result]
            if any(type(key) is not str for key in keys):
                return {_DICT: [list(pair) for pair in zip(keys, result.values(), strict=True)]}
        return result

    def _members(self, value: Mapping[str, Any], left: int) -> dict[str, Any]:
        self._enter(value, left)
        result: dict[str, Any] = {}
        key = ""
        try:
            for key, item in value.items():
                if type(key) is not str:
                    refuse_key(key)
                kind = type(item)
                if item is None or kind is bool or (kind is str and item.isascii()):
                    result[key] = item
                else:
                    result[key] = self._value(item, left - 1)
        except PayloadError as error:
            error.inside(step_to(key))
            raise
        return result

    def _list(self, value: Collection[Any], left: int) -> list[Any]:
        self._enter(value, left)
        result: list[Any] = []
        try:
            for item in value:
                kind = type(item)
                if item is None or kind is bool or (kind is str and item.isascii()):
                    result.append(item)
                else:
                    result.append(self._value(item, left - 1))
        except PayloadError as error:
            error.inside(f"[{len(result)}]")
            raise
        return result

    def _instance(self, instance: Model, left: int, snapshot: Tag = Tag.SNAPSHOT) -> Any:
        reference = reference_to(instance)
        if reference is None:
            return self._tagged(snapshot, self._snapshot(instance, left))
        pk = reference.pk
        self.rows.append((reference.label, pk))
        # A composite key is the only container here, and not one of the sender's making.
        key = pk if type(pk) is int else self._value(pk, 1)
        if reference.using is None and not self._snapshots:
            return {_REF: [reference.label, key]}
        row = [reference.label, key, reference.using, self._snapshot_if_wanted(instance, left)]
        return self._tagged(Tag.ROW, row)

    def _snapshot_if_wanted(self, instance: Model, left: int) -> Any:
        if not self._snapshots:
            return None
        try:
            return self._snapshot(instance, left)
        except PayloadError as error:
            error.reason += ' (field values travel because a receiver is connected with on_missing="snapshot")'
            raise

    def _wrapped(self, value: Any, left: int) -> Any:
        if issubclass(type(value), Model):
            return self._instance(value, left)
        if is_anonymous_user(type(value)):
            return self._tagged(Tag.ANONYMOUS, None)
        name = name_of_type(type(value))
        raise PayloadError(
            f"a lazy wrapper around a {name} would not arrive as one: send what it wraps, or values of it"
        )

    def _snapshot(self, instance: Model, left: int) -> list[Any]:
        head, values = structures.snapshot_of(instance)
        texts: dict[str, str] = {}
        self._enter(values, left)
        result: dict[str, Any] = {}
        converted = converted_fields(type(instance))
        outer, self._for_row = self._for_row, True
        for attname, value in values.items():
            if attname in converted and value is not None and self._stored(converted[attname], instance, left, result):
                continue
            try:
                result[attname] = self._value(value, left - 1)
            except PayloadError:
                try:
                    self._row_form(instance, attname, left, result, texts)
                except structures.NoRowForm:
                    self._for_row = outer
                    self._without_row_form(attname, value, left, result)
                    self._for_row = True
        self._for_row = outer
        return [*head, result, texts]

    def _without_row_form(self, attname: str, value: Any, left: int, result: dict[str, Any]) -> None:
        try:
            result[attname] = self._value(value, left - 1)
        except PayloadError as error:
            error.inside(attname)
            raise

    def _stored(self, field: Any, instance: Model, left: int, result: dict[str, Any]) -> bool:
        """Encode the row's form of a value that its field converts; return whether it has a form that can travel."""
        try:
            stored = stored_form(field, instance)
            if stored is SAME:
                return False
            value = self._value(stored, left - 1)
        except PayloadError:
            return False
        except Exception as error:
            raise PayloadError(what_raised(vars(instance)[field.attname], error), field.attname) from error
        result[field.attname] = self._tagged(Tag.STORED, value)
        return True

    def _row_form(
        self, instance: Model, attname: str, left: int, result: dict[str, Any], texts: dict[str, str]
    ) -> None:
        """Encode what the row would hold of a value that cannot travel as it is in memory.

        Raises:
            structures.NoRowForm: that cannot travel either.
        """
        field = structures.field_named(instance, attname)
        if isinstance(field, JSONField):
            try:
                result[attname] = self._value(structures.json_form(field, vars(instance)[attname]), left - 1)
            except PayloadError as error:
                raise structures.NoRowForm from error
        else:
            texts[attname] = text_to_json(structures.text_form(field, instance))


_COLLECTIONS: Final[dict[type, str]] = {
    tuple: Tag.TUPLE.plain_key(),
    set: Tag.SET.plain_key(),
    frozenset: Tag.FROZENSET.plain_key(),
}


def _enum(kind: type[Enum], value: Enum) -> Any:
    name = _enum_names.get(kind)
    if name is None:
        try:
            name = _enum_names[kind] = importable_name(kind)
        except PayloadError as error:
            raise PayloadError(f"{error.reason}; or send the member's value") from error
    if issubclass(kind, Flag):
        return {_ENUM: [name, value._value_]}
    if kind.__members__.get(value._name_) is not value:
        raise PayloadError(f"{value!r} is no member that {name} lists, and no worker would find it: send its value")
    return {_ENUM: [name, text_to_json(value._name_)]}


def _lazy_text(kind: type, value: Any) -> Any:
    # Only the class is asked: a proxy of lazy(f, int) has an int's methods, and its text is not what it stands for.
    if not hasattr(kind, "casefold"):
        raise PayloadError("a lazy value that is no text: evaluate it before sending")
    return text_to_json(str.__str__(str(value)))


# The types that travel without a name, decided by the exact type.
CARRIED_TYPES: Final = frozenset({*TO_JSON, *_COLLECTIONS, dict, list, Snapshot})
