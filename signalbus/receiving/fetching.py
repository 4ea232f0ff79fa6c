"""From a message's text to what a receiver gets: one query for each model, however many rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import FieldError
from django.db import connections, router

from signalbus import conf
from signalbus.compat.rows import row_query
from signalbus.exceptions import ConfigurationError
from signalbus.wire import codec
from signalbus.wire.references import model_named

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from django.db.models import Model

    from signalbus.registry import Receiver
    from signalbus.wire.references import Reference


def payload_for(receiver: Receiver, text: str) -> tuple[object, dict[str, Any]]:
    """Read what a message brings to one receiver: with fresh rows, and what else it asks for where they are missing.

    Args:
        receiver: whose policy says what is fetched along, and whether values may stand in for a row that is gone.
        text: the message's payload.

    Returns:
        The sender and the payload.

    Raises:
        MissingRow: a row is gone, and nothing stands in for it.
        UnknownClass: a model, database or class is not here.
        TextError: it cannot be read.
        ConfigurationError: the receiver asks for a relation that there is not.
    """
    try:
        return codec.decode(
            text,
            fetch,
            related=receiver.select_related,
            snapshots=receiver.on_missing == "snapshot",
            max_depth=conf.get().MAX_NESTING,
        )
    except FieldError as error:
        asked = dict(receiver.select_related)
        raise ConfigurationError(f"{receiver.place} is connected with select_related={asked!r}: {error}") from error


def fetch(wanted: Mapping[Reference, Collection[str]]) -> dict[Reference, Model]:
    """Fetch the rows that a message refers to.

    Through ``_base_manager``, because a default manager may hide rows; from the database that is written to, because a
    replica may not have them yet.

    Args:
        wanted: which rows, and the relations that each is to bring.

    Returns:
        The fresh instances of those that there are.

    Raises:
        UnknownClass: no installed app has such a model.
        FieldError: a model has no such relation.
    """
    together: dict[tuple[str, str | None], list[Reference]] = {}
    for reference in wanted:
        together.setdefault((reference.label, reference.using), []).append(reference)
    found: dict[Reference, Model] = {}
    for (label, using), references in together.items():
        relations = {name for reference in references for name in wanted[reference]}
        rows = _rows(label, using, [reference.pk for reference in references], relations)
        found.update((reference, rows[reference.pk]) for reference in references if reference.pk in rows)
    return found


def _rows(label: str, using: str | None, keys: list[Any], relations: set[str]) -> Mapping[Any, Model]:
    model = model_named(label)
    alias = using or router.db_for_write(model)
    if len(keys) == 1 and not relations:
        query = row_query(model, connections[alias], keys[0])
        if query is not None:
            return {row.pk: row for row in query.find(keys[0])}
    rows = model._base_manager.using(alias).order_by()  # noqa: SLF001 - Django documents it
    if relations:  # without names, select_related() would follow every foreign key
        rows = rows.select_related(*relations)
    return rows.in_bulk(keys)
