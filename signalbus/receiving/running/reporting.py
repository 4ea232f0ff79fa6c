"""Telling events in a worker, on the thread that runs its deliveries."""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from typing import TYPE_CHECKING

from signalbus import events
from signalbus.receiving.process.session_state import end_changed_sessions

if TYPE_CHECKING:
    from signalbus.events import Event


def worker_name(pid: int | None = None) -> str:
    """Return what the ledger and events call a process of this machine, by default this one."""
    return _name_of(os.getpid() if pid is None else pid)


@lru_cache(maxsize=1)
def _name_of(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}"


def tell(event: Event) -> None:
    """Tell an event; what a listener has set for its database session is not the next receiver's.

    Args:
        event: what happened.
    """
    events.tell(event)
    end_changed_sessions()
