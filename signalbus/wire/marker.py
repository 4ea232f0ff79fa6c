"""The marker: a signed text of our own through a queue, by which lost messages are told from late ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from signalbus.exceptions import Garbage

# In the place of a message's version: 0.1's workers park what they do not read, and the sweeper clears it away.
HEAD: Final = "0\n"


@dataclass(frozen=True, slots=True)
class Marker:
    """What a marker says.

    Args:
        queue: the lane that it was sent through; empty for the default queue.
        marked_at: when, by the ledger's clock.
    """

    queue: str
    marked_at: datetime

    def to_body(self) -> str:
        """Write it as the body of a text."""
        return f"{HEAD}{json.dumps([self.queue, self.marked_at.isoformat()])}"


def marker_from(body: str) -> Marker | None:
    """Read a marker.

    Args:
        body: a verified body.

    Returns:
        The marker, or None if the body is a message's.

    Raises:
        Garbage: it breaks the format.
    """
    if not body.startswith(HEAD):
        return None
    try:
        queue, marked_at = json.loads(body[len(HEAD) :])
        return Marker(str(queue), datetime.fromisoformat(marked_at))
    except (ValueError, TypeError, RecursionError) as error:
        raise Garbage(f"a marker that cannot be read: {type(error).__name__}") from error
