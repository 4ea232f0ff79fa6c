"""Decode a message's payload for one receiver, and load the model rows that it refers to.

`invocation` calls `payload_for` before each run, and the test tools use `fetch`. The format is decoded by
`wire/codec`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from django.core.exceptions import FieldError
from django.db import router

from signalbus import conf
from signalbus.compat.django_internals import connection_to
from signalbus.compat.row_sql import row_query
from signalbus.exceptions import ConfigurationError
from signalbus.wire import codec
from signalbus.wire.values.references import lookup_key, model_named

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from django.db.models import Model

    from signalbus.registration.registry import Receiver
    from signalbus.wire.values.references import Reference


# Keys that are equal in the database if and only if Python says so.
_SAME_IN_DATABASES: Final = frozenset({int, UUID})


def payload_for(receiver: Receiver, text: str) -> tuple[object, dict[str, Any]]:
    """Decode a message's sender and payload for one receiver, with fresh rows.

    Args:
        receiver: the receiver; its policy names the relations to load, and says whether a snapshot replaces a row.
        text: the message's payload.

    Returns:
        The sender and the payload.

    Raises:
        MissingRow: a row is gone, and no snapshot replaces it.
        UnknownClass: this process does not have a model, database or class.
        TextError: it cannot be read.
        ConfigurationError: the receiver asks for a relation that does not exist.
    """
    try:
        return codec.decode(
            text,
            fetch,
            related=receiver.policy.select_related,
            snapshots=receiver.policy.on_missing == "snapshot",
            max_depth=conf.get().MAX_NESTING,
        )
    except FieldError as error:
        asked = dict(receiver.policy.select_related)
        raise ConfigurationError(f"{receiver.place} is connected with select_related={asked!r}: {error}") from error


def fetch(wanted: Mapping[Reference, Collection[str]]) -> dict[Reference, Model]:
    """Load the rows that a message refers to.

    Through ``_base_manager``, because a default manager may hide rows; from the database that is written to, because a
    replica may not have them yet.

    Args:
        wanted: the rows, each with the relations to load with it.

    Returns:
        The fresh instances; without the rows that do not exist.

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
        found.update(_rows(label, using, references, relations))
    return found


def _rows(label: str, using: str | None, references: list[Reference], relations: set[str]) -> dict[Reference, Model]:
    """Load the rows of a model, each under the reference that names it.

    Whether a row has a key is the database's word, and not Python's: a key may be converted on its way, or compared
    without regard to case.
    """
    model = model_named(label)
    alias = using or router.db_for_write(model)
    keys = {reference: lookup_key(model, reference.pk) for reference in references}
    if len(keys) == 1 and not relations:
        ((reference, key),) = keys.items()
        query = row_query(model, connection_to(alias), key)
        if query is not None:
            return {reference: row for row in query.find(key)}  # noqa: B035 - of a view's several rows, the last
    rows = model._base_manager.using(alias).order_by()  # noqa: SLF001 - Django documents it
    if relations:  # without names, select_related() would follow every foreign key
        rows = rows.select_related(*relations)
    by_key = rows.in_bulk([*keys.values()])
    found = {reference: by_key[key] for reference, key in keys.items() if key in by_key}
    for reference, key in keys.items():
        if reference not in found and type(key) not in _SAME_IN_DATABASES:
            found.update((reference, row) for row in rows.filter(pk=key)[:1])
    return found
