"""Wake the sweeper when a process or thread of this worker becomes free while retries wait to be admitted.

One in a worker's main process. While no retries wait, it costs a request that ends one look at an attribute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from signalbus.compat.pool_internals import taken

if TYPE_CHECKING:
    from collections.abc import Callable


class FreePlaces:
    """The processes or threads of this worker that have nothing to do."""

    def __init__(self) -> None:
        self._places = 0
        self._wake: Callable[[], object] | None = None

    @property
    def is_noticed(self) -> bool:
        """Whether the sweeper waits for a free place."""
        return self._wake is not None

    def notice(self, places: int, wake: Callable[[], object]) -> None:
        """Notice from now on when a request ends and leaves a place free.

        Args:
            places: how many there are.
            wake: called then.
        """
        self._places, self._wake = places, wake

    def ignore(self) -> None:
        """Notice nothing any more."""
        self._wake = None

    def request_ended(self) -> None:
        """Wake the sweeper, if it waits for a place and there is one."""
        wake = self._wake
        if wake is not None and taken() < self._places:
            wake()


free_places: FreePlaces = FreePlaces()  # of this process
