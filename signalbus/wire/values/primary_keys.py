"""Convert primary keys to a form that a message can carry, and back to the type of the model's field.

`references` uses it for each row that a payload names.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import ValidationError

from signalbus.wire.values.scalars import TO_JSON

if TYPE_CHECKING:
    from django.db.models import Field, Model

MAX_KEY: Final = 2**63 - 1


class NoPlainForm(ValueError):  # noqa: N818 - says what happened; never leaves this package
    """A key of a type of its field's own has no form that can travel."""


def cleaned(model: type[Model], pk: Any) -> Any:
    """Return a key in the type of its field, so that ``Cohort(pk="7")`` and row 7 are the same reference."""
    field: Field[Any, Any] = model._meta.pk  # noqa: SLF001  (Django documents _meta)
    parts = getattr(field, "fields", None)  # CompositePrimaryKey's, whose own to_python() leaves a tuple as it is
    if parts is None:
        return _plain(field, field.to_python(pk))
    return tuple([_plain(part, part.to_python(value)) for part, value in zip(parts, pk, strict=True)])


def _plain(field: Field[Any, Any], value: Any) -> Any:
    if isinstance(value, Enum):
        value = value.value
    if type(value) is int and abs(value) > MAX_KEY:
        raise ValidationError("no database has such a key, and SQLite's driver does not even take it")
    if isinstance(value, str):
        return str.__str__(value)
    return value if type(value) in TO_JSON else _written(field, value)


def _written(field: Field[Any, Any], value: Any) -> Any:
    """Write a key of a type of its field's own as a value that travels, and that the field reads back.

    Raises:
        NoPlainForm: neither the form for the database nor the text is read back.
    """
    stored = field.get_prep_value(value)
    for plain in (stored, str(value)):
        if type(plain) in TO_JSON and field.get_prep_value(field.to_python(plain)) == stored:
            return plain
    raise NoPlainForm(type(value).__qualname__)


def typed(model: type[Model], pk: Any) -> Any:
    """Return a key from a message in the type of its field, as a query takes it."""
    field: Field[Any, Any] = model._meta.pk  # noqa: SLF001  (Django documents _meta)
    parts = getattr(field, "fields", None)
    if parts is None:
        return field.to_python(pk)
    return tuple([part.to_python(value) for part, value in zip(parts, pk, strict=True)])
