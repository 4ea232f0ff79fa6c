"""Wake the sweeper when this worker has nothing to do while retries wait to be admitted.

One in a worker's main process. While no retries wait, it costs a request that ends one look at an attribute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from signalbus.compat.pool_internals import taken

if TYPE_CHECKING:
    from collections.abc import Callable


def is_idle() -> bool:
    """Whether this worker runs nothing, and has nothing that waits for one of its processes or threads."""
    return not taken()


class Idleness:
    """Whom to wake when this worker becomes idle."""

    def __init__(self) -> None:
        self._wake: Callable[[], object] | None = None

    @property
    def is_noticed(self) -> bool:
        """Whether anybody is to be woken."""
        return self._wake is not None

    def notice(self, wake: Callable[[], object]) -> None:
        """Notice from now on when a request ends and leaves the worker idle.

        Args:
            wake: called then.
        """
        self._wake = wake

    def ignore(self) -> None:
        """Notice nothing any more."""
        self._wake = None

    def request_ended(self) -> None:
        """Wake whoever waits for this worker to be idle, if it is."""
        wake = self._wake
        if wake is not None and is_idle():
            wake()


idleness: Idleness = Idleness()  # of this process
