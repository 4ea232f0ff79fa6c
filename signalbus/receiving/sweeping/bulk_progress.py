"""Do the steps of operations in bulk (decision 0050); called by the sweeper, and by ``manage.py signalbus sweep``."""

from __future__ import annotations

import time
from typing import Final

from django.db import DatabaseError, connections

from signalbus.ledger import operations as ledger
from signalbus.receiving.process.outages import OutageLog

LOOK_SECONDS: Final = 5.0  # between two looks for operations while none is known
KNOWN_SECONDS: Final = 2.0  # the same while one is known
RETRY_SECONDS: Final = 2.0  # after a step that failed


class BulkProgress:
    """Do the steps of all operations that have not ended, each when it is time for it."""

    def __init__(self) -> None:
        self._look_at = 0.0
        self._next_at: dict[int, float] = {}  # of each operation, the time of its next step
        self._outages = OutageLog("signalbus could not do a step of an operation, and will try again")

    def step(self) -> float | None:
        """Look for operations if it is time to, and do one step of each that has one now.

        Returns:
            The seconds until the next step, 0 for at once; None if no operation waits for one.

        Raises:
            DatabaseError: the ledger could not be reached.
        """
        now = time.monotonic()
        if now >= self._look_at:
            self._next_at = {id_: self._next_at.get(id_, now) for id_ in ledger.unfinished()}
            self._look_at = now + (KNOWN_SECONDS if self._next_at else LOOK_SECONDS)
        for id_ in [id_ for id_, at in self._next_at.items() if at <= now]:
            wait = self._step(id_)
            if wait is None:
                del self._next_at[id_]  # until the next look
            else:
                self._next_at[id_] = time.monotonic() + wait
        if not self._next_at:
            return None
        return max(0.0, min(self._next_at.values()) - time.monotonic())

    def _step(self, operation: int) -> float | None:
        """Do a step; one that fails, for a filter that takes too long perhaps, must not stop the sweeper."""
        try:
            wait = ledger.step(operation)
        except DatabaseError as error:
            self._outages.failed(error, expected=True)
            connections[ledger.using()].close_if_unusable_or_obsolete()
            return RETRY_SECONDS
        self._outages.succeeded()
        return wait


def do_all_steps() -> None:
    """Do the steps of all operations that can be done now.

    Raises:
        DatabaseError: the ledger could not be reached.
    """
    for operation in ledger.unfinished():
        while ledger.step(operation) == 0:
            pass
