"""Load a row by its key with SQL that is compiled once for a model, instead of once for each query.

`receiving/invoking/row_loading` uses it. The ORM spends several times longer on building and compiling
the query than the database on answering it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from django.core.signals import setting_changed
from django.db.models import Manager, Model
from django.db.models.lookups import In

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper


class RowQuery:
    """The ORM's own query for one row of a model by its key, ready to run again with other keys.

    Uses ``SQLCompiler``: what ``as_sql``, ``select``, ``klass_info``, ``get_converters`` and ``apply_converters`` say,
    put together as ``ModelIterable`` does. Were that done otherwise, an instance would differ from the ORM's.

    Args:
        model: a model for which `is_plain` holds.
        connection: this thread's, to the database that has the row.
        key: some key of the model.
    """

    def __init__(self, model: type[Model], connection: BaseDatabaseWrapper, key: object) -> None:
        rows = model._base_manager.using(connection.alias).filter(pk__in=[key]).order_by()  # noqa: SLF001 - documented
        compiler: Any = rows.query.get_compiler(connection=connection)
        self._sql, params = compiler.as_sql()
        start, end = compiler.klass_info["select_fields"][0], compiler.klass_info["select_fields"][-1] + 1
        columns = [column for column, _, _ in compiler.select[start:end]]
        self._names = [column.target.attname for column in columns]
        self._converters = compiler.get_converters(columns)
        self._convert = compiler.apply_converters
        self._model = model
        self._connection = connection
        self._fields = _fields_of(model)
        # Only if the key is all that it takes, and is written as we shall write the next one.
        self.is_usable: bool = tuple(params) == (self._written(key),) and self._sql.count("%s") == 1

    def fits(self, connection: BaseDatabaseWrapper) -> bool:
        """Return whether it was made for this connection, and the model's fields have not changed."""
        return self._connection is connection and self._fields is _fields_of(self._model)

    def find(self, key: object) -> list[Model]:
        """Ask the database for a row.

        Args:
            key: its key, of the type that the model's field gives it.

        Returns:
            A fresh instance; none, if there is no such row; several, of a view whose key is none.
        """
        with self._connection.cursor() as cursor:
            cursor.execute(self._sql, (self._written(key),))
            rows = cursor.fetchall()
        if self._converters:
            rows = self._convert(rows, self._converters)
        return [self._model.from_db(self._connection.alias, self._names, row) for row in rows]

    def _written(self, key: object) -> Any:
        """Return a key as the lookup would pass it to the driver."""
        field: Any = self._model._meta.pk  # noqa: SLF001 - documented
        return field.get_db_prep_value(field.get_prep_value(key), self._connection, prepared=True)


class _Queries(threading.local):
    """The queries of this thread, by the database's alias and the model; None: use the ORM."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, type[Model]], RowQuery | None] = {}


_queries = _Queries()


def row_query(model: type[Model], connection: BaseDatabaseWrapper, key: object) -> RowQuery | None:
    """Return the query for a model's row by its key; None where only the ORM can build it.

    Args:
        model: the model.
        connection: this thread's, to the database that has the row.
        key: the key that is looked for, of the type that the model's field gives it.
    """
    known_by = (connection.alias, model)
    query = _queries.known.get(known_by)
    if query is not None and query.fits(connection):
        return query
    if query is None and (key is None or known_by in _queries.known):
        return None
    query = RowQuery(model, connection, key) if is_plain(model) else None
    if query is not None and not query.is_usable:
        query = None
    _queries.known[known_by] = query
    return query


def is_plain(model: type[Model]) -> bool:
    """Return whether Django alone decides how rows of a model are read.

    Its base manager and ``from_db`` are Django's, and so is the lookup of its key, which is neither a relation (as a
    child's in a table of its own) nor composite.
    """
    meta: Any = model._meta  # noqa: SLF001 - documented
    ours: Any = model.from_db
    theirs: Any = Model.from_db
    return (
        type(model._base_manager) is Manager  # noqa: SLF001 - documented
        and ours.__func__ is theirs.__func__
        and meta.pk.get_lookup("in") is In
    )


def _fields_of(model: type[Model]) -> object:
    """Return an object that Django replaces when a field is added to a model while the process runs."""
    return model._meta.concrete_fields  # noqa: SLF001 - documented


def _forget(**_kwargs: object) -> None:
    _queries.known.clear()  # how values are converted may follow from a setting, as USE_TZ


setting_changed.connect(_forget)
