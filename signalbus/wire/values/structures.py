"""Encode and decode values with named parts: instances of classes with declared fields, and snapshots of models.

`encoder` and `decoder` use it, and `wire/library_types` for registered classes.
"""

from __future__ import annotations

import dataclasses
import json
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from django.db import DatabaseError, connections
from django.db.models import FileField

from signalbus.exceptions import PayloadError, UnknownClass
from signalbus.wire.values.class_names import importable_name, resolve_class
from signalbus.wire.values.references import label_of, model_named
from signalbus.wire.values.remedies import registration
from signalbus.wire.values.stored_forms import Stored, from_stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from django.db.models import Field, JSONField, Model


CACHED_HASH: Final = "_attrs_cached_hash"


class NoRowForm(Exception):  # noqa: N818 - says what happened; never leaves this package
    """A field's value has no form that its row would hold and that can travel."""


class HostError(Exception):
    """The host's own code raised while a value was made: a model's, or ``decode`` of a registered type.

    The codec raises what it holds.

    Args:
        error: the error that was raised.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class FieldOfClass(NamedTuple):
    """A declared field of a class.

    Args:
        name: its name.
        default: its default; ``dataclasses.MISSING`` if it has none.
        default_factory: makes its default; ``dataclasses.MISSING`` if it has none.
        takes_self: whether the factory takes the instance, as one of attrs may.
    """

    name: str
    default: Any
    default_factory: Any
    takes_self: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """The layout by which instances of a class with declared fields are encoded and decoded.

    Args:
        name: the module and name of the class, or the name that it is registered under.
        fields: its fields by name.
        slots: those of all slots, of the class and its bases, that hold state.
    """

    name: str
    fields: Mapping[str, FieldOfClass]
    slots: frozenset[str]


_layouts: dict[type, Layout] = {}


def layout_of(kind: type) -> Layout:
    """Make, or remember, the layout of a dataclass that travels by its module and name.

    Raises:
        PayloadError: a worker would not find the class, or its instances hold what no field holds.
    """
    layout = _layouts.get(kind)
    if layout is None:
        try:
            name = importable_name(kind)
        except PayloadError as error:
            raise PayloadError(f"{error.reason}; or register the class, {registration(kind)}") from error
        layout = _layouts[kind] = layout_named(kind, name)
    return layout


def layout_named(kind: Any, name: str) -> Layout:
    """Make the layout of a dataclass.

    Args:
        kind: the class.
        name: the name under which its instances travel.

    Raises:
        PayloadError: its instances hold what no field holds.
    """
    try:
        object.__new__(kind)
    except TypeError as error:
        raise PayloadError(
            f"{name} is a dataclass on top of a built-in type, whose state is in no field: send its values apart"
        ) from error
    fields = {
        field.name: FieldOfClass(field.name, field.default, field.default_factory) for field in dataclasses.fields(kind)
    }
    return Layout(name, fields, slots_of(kind))


def slots_of(kind: type) -> frozenset[str]:
    """Return the slots that hold the state of a class's instances; without the hash that attrs keeps in one."""
    attributes = [item for base in kind.__mro__ for item in vars(base).items()]
    slots = {slot for slot, descriptor in attributes if type(descriptor) is MemberDescriptorType}
    return frozenset(slots - {CACHED_HASH})


def state_of(value: Any, layout: Layout) -> dict[str, Any]:
    """Take an instance apart.

    Raises:
        PayloadError: a field has no value, or there is state beside the fields.
    """
    state: dict[str, Any] = dict(getattr(value, "__dict__", ()))
    state.pop(CACHED_HASH, None)
    for slot in layout.slots:
        try:
            state[slot] = object.__getattribute__(value, slot)
        except AttributeError:
            continue
    if state.keys() != layout.fields.keys():
        refuse_beside(state.keys() - layout.fields.keys())
        without = sorted(layout.fields.keys() - state.keys())
        raise PayloadError(f"its field {without[0]} has no value: set it before sending")
    return {name: state[name] for name in layout.fields}


def refuse_beside(names: Iterable[str]) -> None:
    """Refuse an instance with attributes that are no fields.

    Args:
        names: the attributes.

    Raises:
        PayloadError: there is one.
    """
    beside = sorted(names)
    if beside:
        raise PayloadError(f"holds {', '.join(beside)} beside its fields, which would be lost: make fields of them")


def without(name: str, field: str) -> UnknownClass:
    """Return the error for a field that has no value in the message, and no default in this process.

    Args:
        name: what the instance travels as.
        field: the field.
    """
    return UnknownClass(name, f"the message has no {field}, which has no default here: give it one")


def restore(name: str, values: dict[str, Any]) -> object:
    """Put a dataclass instance together that travelled by its module and name.

    Raises:
        UnknownClass: there is no such dataclass here, or one of its fields has neither value nor default.
    """
    kind = resolve_class(name)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise UnknownClass(name, "not a dataclass in this process: roll this worker out")
    return restore_as(kind, _layouts.get(kind) or layout_of(kind), values)


def restore_as(kind: type, layout: Layout, values: dict[str, Any]) -> object:
    """Put an instance together, without ``__init__`` and ``__post_init__``: it was valid when it was sent.

    Fields that this process does not have are left out, those that the message does not have take their default, so
    that both sides of a rolling deploy understand each other.

    Raises:
        UnknownClass: one of its fields has neither value nor default.
    """
    result: Any = object.__new__(kind)
    for field in layout.fields.values():
        if field.name in values:
            value = values[field.name]
        elif field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory(result) if field.takes_self else field.default_factory()
        else:
            raise without(layout.name, field.name)
        if field.name in layout.slots:
            object.__setattr__(result, field.name, value)
        else:
            vars(result)[field.name] = value  # beside frozen, and beside any descriptor of the class
    return result


def snapshot_of(instance: Model) -> tuple[list[Any], dict[str, Any]]:
    """Take a model instance apart: its label, whether it is unsaved, its database; and its fields.

    A field that is not loaded, or that the database has yet to make a value of (``F("seats") + 1``), stays out.
    """
    values: dict[str, Any] = {}
    meta = instance._meta  # noqa: SLF001  (Django documents _meta)
    for field in meta.concrete_fields:
        if field.attname not in vars(instance):
            continue
        value = vars(instance)[field.attname]
        if hasattr(value, "resolve_expression"):  # as Django's save() tells them
            if field in meta.pk_fields:
                values[field.attname] = None  # an instance without a key is unsaved; one that must load it never ends
        elif isinstance(field, FileField):
            # A file's name is what the row holds; the descriptor turns it into a file again.
            values[field.attname] = getattr(instance, field.attname).name
        else:
            values[field.attname] = value
    state = instance._state  # noqa: SLF001  (Django documents _state)
    return [label_of(type(instance)), state.adding, state.db], values


def field_named(instance: Model, attname: str) -> Field[Any, Any]:
    """Return the field of a model instance that has this attribute."""
    fields: Any = instance._meta.concrete_fields  # noqa: SLF001  (Django documents _meta)
    return next(field for field in fields if field.attname == attname)


def json_form(field: JSONField, value: Any) -> Any:
    """Return what a JSONField's row would give back of a value: its keys are texts, its tuples are lists.

    Raises:
        NoRowForm: the field's encoder cannot write the value.
    """
    try:
        return json.loads(json.dumps(value, cls=field.encoder), cls=field.decoder)
    except Exception as error:  # the value's and the host's encoders' own code: the value is then refused
        raise NoRowForm from error


def text_form(field: Field[Any, Any], instance: Model) -> str:
    """Write a value of a type that is not ours as its field's own text, as a serializer would.

    The text is good if the field makes the same value of it, or one that the database would store as the same.

    Raises:
        NoRowForm: the field has no such text.
    """
    value = vars(instance)[field.attname]
    try:
        stored = field.get_prep_value(value)
        for text in (field.value_to_string(instance), stored):
            if not isinstance(text, str):
                continue
            plain = str.__str__(text)
            again = field.to_python(plain)
            if (type(again) is type(value) and bool(again == value)) or bool(field.get_prep_value(again) == stored):
                return plain
    except Exception as error:  # the field's own code: the value is then refused with its own reason
        raise NoRowForm from error
    raise NoRowForm


def restore_snapshot(label: str, adding: bool, db: str | None, values: dict[str, Any], texts: dict[str, str]) -> Model:
    """Put a model instance together; fields that the message does not have are deferred, as after ``only()``.

    Raises:
        UnknownClass: there is no such model here, or one of its fields cannot read the text that was written for it.
        HostError: the model's own code raised while the instance was made, as it may for a row from the database.
    """
    model = model_named(label)
    every: Any = model._meta.concrete_fields  # noqa: SLF001  (Django documents _meta)
    fields = [field for field in every if field.attname in values or field.attname in texts]
    try:
        row = [
            values[field.attname] if field.attname in values else field.to_python(texts[field.attname])
            for field in fields
        ]
    except (DatabaseError, MemoryError):
        raise
    except Exception as error:
        raise UnknownClass(label, f"its snapshot does not fit the model here: {type(error).__name__}") from error
    known_db = db if db in list(connections) else None
    try:
        row = [
            from_stored(field, value, known_db) if type(value) is Stored else value
            for field, value in zip(fields, row, strict=True)
        ]
        result = model.from_db(known_db, [field.attname for field in fields], row)
    except (DatabaseError, MemoryError):
        raise
    except Exception as error:
        raise HostError(error) from error
    result._state.adding = adding  # noqa: SLF001  (Django documents _state)
    return result
