"""Write and read markers: signed texts that the sweeper sends through a queue to tell lost messages from late ones.

The sweeper and an audit send them, `receiving/routing/verification` recognizes one that came back (decision 0029).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from signalbus.exceptions import Garbage

# In the place of a message's version: workers of 0.1 park a version that they cannot read, and the sweeper purges it.
HEAD: Final = "0\n"


@dataclass(frozen=True, slots=True)
class Marker:
    """The content of a marker: its queue and its time.

    Args:
        queue: the queue that it was sent through; empty for the default queue.
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
