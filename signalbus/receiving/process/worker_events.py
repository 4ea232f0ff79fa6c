"""Emit events in a worker, on the thread that runs deliveries, and name the worker's processes.

All packages of `receiving` call `tell` after a commit. A listener's changes of its database session are ended here,
so that the next receiver does not get them.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from typing import TYPE_CHECKING

from signalbus import events
from signalbus.receiving.process.session_state import end_changed_sessions

if TYPE_CHECKING:
    from signalbus.events import Event


def worker_name(pid: int | None = None) -> str:
    """Return the name of a process of this machine in the ledger and in events, by default of this process."""
    return _own_name() if pid is None else f"{socket.gethostname()}:{pid}"


@cache
def _own_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


os.register_at_fork(after_in_child=_own_name.cache_clear)


def tell(event: Event) -> None:
    """Emit an event, then close connections whose session a listener has changed.

    Args:
        event: the event.
    """
    events.tell(event)
    end_changed_sessions()
