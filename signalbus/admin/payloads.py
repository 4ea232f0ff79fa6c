"""Show the payload of a message to a user who may see it, with secrets hidden."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from signalbus.admin import html_values as html
from signalbus.services.actors import VIEW_PAYLOAD, may
from signalbus.services.redaction import payload_of

if TYPE_CHECKING:
    from signalbus.services.queries.lookup import FoundMessage


def payload_for(user: Any, stored: FoundMessage | None) -> str:
    """Return the payload of a message as an element.

    Args:
        user: who looks at the page.
        stored: the message; None if it is purged.
    """
    if not may(user, VIEW_PAYLOAD):
        return f"You need the permission {VIEW_PAYLOAD}."
    payload = None if stored is None else payload_of(stored.message)
    if payload is None:
        return "It cannot be read here: purged, never verified, or of another version."
    return html.block(json.dumps(payload, indent=2))  # which escapes all that is not ASCII
