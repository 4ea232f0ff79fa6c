"""Encode fields by their stored form if they convert values between memory and row, as encrypted fields do.

Such a value travels as the row would hold it, and the worker converts it as Django converts what it reads from the row:
what is encrypted in the database is plain text neither on the broker nor in the ledger.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from django.db import DEFAULT_DB_ALIAS, connections, router

if TYPE_CHECKING:
    from django.db.models import Field, Model

SAME: Final = object()  # the row holds the value that is in memory


class Stored(NamedTuple):
    """The value that a row would hold in a field.

    Args:
        value: as the database's driver gives it.
    """

    value: Any


@lru_cache(maxsize=1000)
def converted_fields(model: type[Model]) -> dict[str, Field[Any, Any]]:
    """Return the fields of a model, by their attributes, that convert values from the database by code of their own.

    Keys are none of them: a reference holds its key in plain text too.
    """
    meta: Any = model._meta  # noqa: SLF001 - documented
    return {field.attname: field for field in meta.concrete_fields if _converts(field) and field not in meta.pk_fields}


def _converts(field: Any) -> bool:
    convert = getattr(field, "from_db_value", None)
    if convert is None:
        return False
    return not convert.__module__.startswith("django.") or _converts(getattr(field, "base_field", None))


def stored_form(field: Field[Any, Any], instance: Model) -> Any:
    """Return what the row would hold of a field's value, or `SAME`."""
    value = vars(instance)[field.attname]
    alias = instance._state.db or router.db_for_write(type(instance), instance=instance)  # noqa: SLF001 - documented
    stored: Any = field.get_db_prep_save(value, connection=connections[alias])
    if type(stored) is type(value) and bool(stored == value):
        return SAME
    binary = getattr(stored, "obj", stored)  # psycopg's Binary
    return bytes(binary) if isinstance(binary, bytes | bytearray | memoryview) else stored


def from_stored(field: Any, stored: Stored, db: str | None) -> Any:
    """Return the value that Django would make of a stored value.

    Args:
        field: the model's field.
        stored: the value that the row holds.
        db: the alias of the row's database; None if it has none.
    """
    connection = connections[db or DEFAULT_DB_ALIAS]
    column, value = field.cached_col, stored.value
    for convert in (*connection.ops.get_db_converters(column), *column.get_db_converters(connection)):
        value = convert(value, column, connection)
    return value
