"""Encode and decode values with named parts: dataclass instances, and snapshots of model instances.

`encoder` and `decoder` use it.
"""

from __future__ import annotations

import dataclasses
import json
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, connections
from django.db.models import FileField

from signalbus.exceptions import PayloadError, UnknownClass
from signalbus.wire.values.class_names import importable_name, resolve_class
from signalbus.wire.values.references import label_of, model_named
from signalbus.wire.values.stored_forms import Stored, from_stored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db.models import Field, JSONField, Model


class NoRowForm(Exception):  # noqa: N818 - says what happened; never leaves this package
    """A field's value has no form that its row would hold and that can travel."""


class ModelError(Exception):
    """A model's own code raised while an instance was made of a snapshot; the codec raises what it holds.

    Args:
        error: the error that was raised.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """The layout by which a dataclass is encoded and decoded; made once for each class.

    Args:
        name: the module and name of the class.
        fields: its fields by name.
        slots: those of all slots, of the class and its bases, that hold state.
    """

    name: str
    fields: Mapping[str, dataclasses.Field[Any]]
    slots: frozenset[str]


_layouts: dict[type, Layout] = {}


def layout_of(kind: type) -> Layout:
    """Make, or remember, the plan of a dataclass.

    Raises:
        PayloadError: a worker would not find the class, or its instances hold what no field holds.
    """
    plan = _layouts.get(kind)
    if plan is None:
        name = importable_name(kind)
        try:
            object.__new__(kind)
        except TypeError as error:
            raise PayloadError(
                f"{name} is a dataclass on top of a built-in type, whose state is in no field: send its values apart"
            ) from error
        attributes = [item for base in kind.__mro__ for item in vars(base).items()]
        slots = frozenset(slot for slot, descriptor in attributes if type(descriptor) is MemberDescriptorType)
        fields = {field.name: field for field in dataclasses.fields(kind)}
        plan = _layouts[kind] = Layout(name, fields, slots)
    return plan


def state_of(value: Any, plan: Layout) -> dict[str, Any]:
    """Take a dataclass instance apart.

    Raises:
        PayloadError: a field has no value, or there is state beside the fields.
    """
    state: dict[str, Any] = dict(getattr(value, "__dict__", ()))
    for slot in plan.slots:
        try:
            state[slot] = object.__getattribute__(value, slot)
        except AttributeError:
            continue
    if state.keys() != plan.fields.keys():
        beside = sorted(state.keys() - plan.fields.keys())
        if beside:
            raise PayloadError(f"holds {', '.join(beside)} beside its fields, which would be lost: make fields of them")
        without = sorted(plan.fields.keys() - state.keys())
        raise PayloadError(f"its field {without[0]} has no value: set it before sending")
    return {name: state[name] for name in plan.fields}


def restore(name: str, values: dict[str, Any]) -> object:
    """Put a dataclass instance together, without ``__init__`` and ``__post_init__``: it was valid when it was sent.

    Fields that this process does not have are left out, those that the message does not have take their default, so
    that both sides of a rolling deploy understand each other.

    Raises:
        UnknownClass: there is no such dataclass here, or one of its fields has neither value nor default.
    """
    kind = resolve_class(name)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise UnknownClass(name, "not a dataclass in this process: roll this worker out")
    plan = _layouts.get(kind) or layout_of(kind)
    result = object.__new__(kind)
    for field in plan.fields.values():
        if field.name in values:
            value = values[field.name]
        elif field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            raise UnknownClass(name, f"the message has no {field.name}, which has no default here: give it one")
        if field.name in plan.slots:
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
        ModelError: the model's own code raised while the instance was made, as it may for a row from the database.
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
        raise ModelError(error) from error
    result._state.adding = adding  # noqa: SLF001  (Django documents _state)
    return result
