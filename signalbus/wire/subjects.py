"""Name the rows that a message is about, as the ledger keeps them: ``admissions.Cohort 42``, eight at most.

`sending/message_templates` names the rows of a payload that is sent, `ledger/base/deliveries` those of a text.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from signalbus.exceptions import TextError, UnknownClass
from signalbus.wire.values.class_names import shown
from signalbus.wire.values.scalars import FROM_JSON
from signalbus.wire.values.tags import Tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MOST: Final = 8  # rows of one message that are named
_ROWS: Final = frozenset({Tag.REF.key, Tag.ROW.key})


def name_of_row(label: str, pk: object) -> str:
    """Return the name of a row in the ledger.

    Args:
        label: its model's label.
        pk: its primary key.
    """
    return f"{label} {pk}" if type(pk) is int else f"{label} {shown(str(pk))}"


def subjects_from(first: str, rows: Sequence[tuple[str, object]]) -> tuple[str, str | None]:
    """Return the subjects of a message as the ledger keeps them.

    Args:
        first: the name of the payload's ``instance``, or nothing.
        rows: label and primary key of each row in the payload.

    Returns:
        The first subject, and the others, a line each; None if there are no others.
    """
    if not rows:
        return first, None
    if len(rows) == 1:  # nearly always the instance
        only = name_of_row(*rows[0])
        return (first, only) if first and first != only else (only, None)
    names = dict.fromkeys([name_of_row(label, pk) for label, pk in rows])
    if first:
        names.pop(first, None)
        return first, "\n".join(list(names)[: MOST - 1]) or None
    first, *others = names
    return first, "\n".join(others[: MOST - 1]) or None


def lines_of(more_subjects: str | None) -> list[str]:
    """Return the further subjects of a message, one by one."""
    return more_subjects.split("\n") if more_subjects else []


def subjects_in(payload: str) -> tuple[str, str | None]:
    """Return the subjects of a message by its text, which names the rows; no row and no class is looked up.

    Args:
        payload: sender and payload as the codec wrote them.

    Returns:
        As `subjects_from`; nothing for what is no payload of ours.
    """
    try:
        _, values = json.loads(payload)
        rows = list(_rows_in(values))
        instance = list(_rows_in(values.get("instance")))[:1]
    except (TextError, UnknownClass, ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return "", None  # of a later version, or broken: its worker says so
    return subjects_from(name_of_row(*instance[0]) if instance else "", rows[: 2 * MOST])


def _rows_in(node: Any) -> Iterable[tuple[str, object]]:
    if isinstance(node, list):
        for each in node:
            yield from _rows_in(each)
    elif isinstance(node, dict):
        yield from _rows_of_dict(node)


def _rows_of_dict(node: Mapping[str, Any]) -> Iterable[tuple[str, object]]:
    if len(node) == 1:
        ((key, inner),) = node.items()
        if key in _ROWS:
            yield inner[0], _key_of(inner[1])
            return
    for each in node.values():
        yield from _rows_in(each)


def _key_of(node: Any) -> object:
    """Return a primary key: a plain value, or a tagged one such as a UUID."""
    if isinstance(node, dict) and len(node) == 1:
        ((tag, inner),) = node.items()
        read = FROM_JSON.get(tag)
        if read is not None:
            return read(inner)
        if tag == Tag.TUPLE.key:
            return tuple(map(_key_of, inner))
    return node
