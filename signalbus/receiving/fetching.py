"""From references to rows: one query for each model, however many rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db import router

from signalbus.exceptions import MissingRow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db.models import Model

    from signalbus.wire.references import Reference


def fetch(references: set[Reference]) -> Mapping[Reference, Model]:
    """Fetch the rows that a message refers to.

    Through ``_base_manager``, because a default manager may hide rows; from the database that is written to, because a
    replica may not have them yet.

    Args:
        references: which rows.

    Returns:
        The fresh instances.

    Raises:
        MissingRow: a model or a row that does not exist.
    """
    by_model: dict[str, list[Reference]] = {}
    for reference in references:
        by_model.setdefault(reference.label, []).append(reference)
    found: dict[Reference, Model] = {}
    missing: list[str] = []
    for label, wanted in by_model.items():
        rows = _rows(label, [reference.pk for reference in wanted])
        for reference in wanted:
            if reference.pk in rows:
                found[reference] = rows[reference.pk]
            else:
                missing.append(f"{label} {reference.pk}")
    if missing:
        raise MissingRow(tuple(sorted(missing)))
    return found


def _rows(label: str, keys: list[Any]) -> dict[Any, Model]:
    try:
        model = apps.get_model(label)
    except (LookupError, ValueError) as error:
        raise MissingRow((label,)) from error
    manager = model._base_manager  # noqa: SLF001 - Django documents it
    rows: dict[Any, Model] = manager.using(router.db_for_write(model)).in_bulk(keys)
    return rows
