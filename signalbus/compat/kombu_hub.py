"""Wake kombu's event loop from other threads, as kombu 5.7 does; a test notices when this is no longer needed.

`transport/poller` uses it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref
from typing import Any

from kombu.asynchronous import Hub

WAKES = hasattr(Hub, "_create_waker")  # kombu 5.7


class Waking:
    """``call_soon``, which interrupts the loop's wait where another thread calls it.

    Without it, an acknowledgement by a thread of the pool waits up to a second for the loop, and so does the next
    message.

    Args:
        loop: kombu's; made in the thread that runs it.
    """

    def __init__(self, loop: Any) -> None:
        self._call_soon = loop.call_soon
        self._thread = threading.get_ident()
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        weakref.finalize(loop, _close, self._reader, self._writer)

    def __call__(self, callback: Any, *arguments: Any) -> Any:
        """Let the loop call something; kombu's signature."""
        promise = self._call_soon(callback, *arguments)
        if threading.get_ident() != self._thread:
            with contextlib.suppress(OSError):  # full: it will wake; or closed with its process
                self._writer.send(b"\0")
        return promise

    def watch(self, loop: Any) -> None:
        """Add the waking socket to the loop; again, after a reset."""
        loop.add_reader(self._reader.fileno(), self._drain)

    def _drain(self) -> None:
        with contextlib.suppress(OSError):  # nothing is left
            self._reader.recv(4096)


def _close(*ends: socket.socket) -> None:
    for end in ends:
        end.close()


def wake_for_threads(loop: Any) -> None:
    """Let other threads interrupt a loop's wait, where kombu does not do so."""
    if WAKES:
        return
    if not isinstance(loop.call_soon, Waking):
        loop.call_soon = Waking(loop)
    loop.call_soon.watch(loop)
