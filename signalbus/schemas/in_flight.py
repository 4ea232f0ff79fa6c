"""Export what waits in the ledger, in groups of one shape: the file from which the deploy gate judges new code.

``manage.py signalbus in-flight --export`` runs it with the code that is deployed. The file has no values of payloads.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from signalbus.exceptions import TextError, UnknownVersion
from signalbus.ledger import operations as ledger
from signalbus.models import OPEN_STATES, TAKEN_STATES, Delivery
from signalbus.schemas.payload_shapes import shape_of
from signalbus.wire.message import from_body

if TYPE_CHECKING:
    from datetime import datetime

    from signalbus.wire.message import Message

FORMAT: Final = 1
_CHUNK: Final = 2000  # rows that are read at once


@dataclass(slots=True)
class _Group:
    """Deliveries that new code can take, or cannot, together."""

    facts: dict[str, Any]
    due: Counter[str] = field(default_factory=Counter)
    example: str = ""


def export_in_flight() -> dict[str, Any]:
    """Return the deliveries that have not ended, in groups, as a value for JSON."""
    now = ledger.clock_of(ledger.using())
    groups: dict[str, _Group] = {}
    rows = (
        Delivery.objects.using(ledger.using())
        .filter(state__in=OPEN_STATES)
        .select_related("message")
        .only("receiver", "state", "due_at", "message__text", "message__sealed")
        .order_by("id")  # the deliveries of a message one after the other
    )
    read: tuple[object, dict[str, Any]] = (None, {})
    for row in rows.iterator(chunk_size=_CHUNK):
        if read[0] != row.message_id:
            read = row.message_id, _facts_of(row.message.text, sealed=row.message.sealed)
        facts = {**read[1], "receiver": row.receiver}
        group = groups.setdefault(json.dumps(facts), _Group(facts, example=str(row.pk)))
        due = now if row.state in TAKEN_STATES else max(now, row.due_at)
        group.due[_in_utc(due).date().isoformat()] += 1
    return {
        "format": FORMAT,
        "exported_at": _in_utc(now).isoformat(timespec="seconds"),
        "groups": [
            {**group.facts, "example": group.example, "due": dict(sorted(group.due.items()))}
            for group in groups.values()
        ],
    }


def _in_utc(moment: datetime) -> datetime:
    return ledger.in_utc(moment, ledger.using())


def _facts_of(text: str, *, sealed: bool) -> dict[str, Any]:
    """Return what is the same of each message that new code can take, or cannot."""
    if sealed:
        return {"unread": "signed with a key that no worker has had"}
    try:
        message = from_body(text)
    except UnknownVersion as error:
        return {"text_version": int(error.version)}
    except TextError as error:
        return {"unread": str(error)}
    return _facts_of_message(message)


def _facts_of_message(message: Message) -> dict[str, Any]:
    sender, payload = json.loads(message.payload)
    shape = shape_of(sender, payload)
    return {
        "signal": message.signal,
        "sender": message.sender,
        "text_version": int(message.version),
        "payload_version": message.payload_version,
        "carried": sorted(message.context),
        "names": sorted(map(list, shape.names)),
        "shape": shape.schema,
    }
