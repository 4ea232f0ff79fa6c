"""Let a fork wait for a background thread; the sweeper and the recorder use it.

A child that is forked while such a thread works would inherit the sockets of its connections, and every lock that it
had taken, as a logger's, for ever.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from signalbus.receiving.process.database_connections import close_connection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

FORK_SECONDS = 5.0  # that a fork waits for the work under way: longer than it takes while all is well


class ForkGuard:
    """A context manager for the work of one background thread: no child is forked inside the block."""

    def __init__(self) -> None:
        self.connections: Sequence[BaseDatabaseWrapper] = ()  # that the thread keeps open between two blocks
        self._lock = threading.Lock()
        self._forking = threading.local()  # acquired: this thread, which forks, has locked out the other one
        self._is_registered = False

    def __enter__(self) -> None:
        if not self._is_registered:
            self._is_registered = True
            os.register_at_fork(
                before=self._before_fork,
                after_in_parent=self._after_fork_in_parent,
                after_in_child=self._after_fork_in_child,
            )
        self._lock.acquire()

    def __exit__(self, *_error: object) -> None:
        self._lock.release()

    def _before_fork(self) -> None:
        """Wait for the end of the block, and close the connections that the thread keeps."""
        self._forking.acquired = self._lock.acquire(timeout=FORK_SECONDS)
        if self._forking.acquired:
            for connection in self.connections:
                close_connection(connection)

    def _after_fork_in_parent(self) -> None:
        if self._forking.acquired:
            self._lock.release()

    def _after_fork_in_child(self) -> None:
        self._lock = threading.Lock()  # the thread that may have locked it is not in the child
