"""Wake the sweeper when this worker has nothing to do while retries wait to be admitted.

`receiving/worker/request` reports the end of each request. There is one object in a worker's main process; while no
retries wait, it costs each request one look at an attribute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from signalbus.compat.pool_internals import taken

if TYPE_CHECKING:
    from collections.abc import Callable


def is_idle() -> bool:
    """Return whether this worker runs no task, and no task waits for one of its processes or threads."""
    return not taken()


class Idleness:
    """Call a function, which wakes the sweeper, when this worker becomes idle."""

    def __init__(self) -> None:
        self._wake: Callable[[], object] | None = None

    @property
    def is_noticed(self) -> bool:
        """Whether a function is to be called."""
        return self._wake is not None

    def notice(self, wake: Callable[[], object]) -> None:
        """Call a function from now on when a request ends and leaves the worker idle.

        Args:
            wake: the function.
        """
        self._wake = wake

    def ignore(self) -> None:
        """Call no function any more."""
        self._wake = None

    def request_ended(self) -> None:
        """Call the function if this worker is idle now."""
        wake = self._wake
        if wake is not None and is_idle():
            wake()


idleness: Idleness = Idleness()  # of this process
