"""Record that a worker is alive; the sweeper calls it, and the recorder in a worker without a sweeper."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError

from signalbus.ledger import history as ledger
from signalbus.receiving.process.outages import OutageLog
from signalbus.receiving.process.worker_events import worker_name

if TYPE_CHECKING:
    from collections.abc import Mapping

SEE_WORKER = 10.0  # seconds between two records


class WorkerPresence:
    """The row of a worker, from its start to its stop.

    Args:
        fields: the columns that describe the worker.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields
        self._name = worker_name()
        self._next_at = 0.0
        self._is_recorded = False
        self._outages = OutageLog("signalbus could not record its worker, and will try again")

    def seconds_left(self) -> float:
        """Return the seconds until the next record."""
        return max(0.0, self._next_at - time.monotonic())

    def record(self) -> bool:
        """Record that the worker is alive, if it is time to; log an outage of the ledger.

        Returns:
            Whether it was time to.
        """
        now = time.monotonic()
        if now < self._next_at:
            return False
        self._next_at = now + SEE_WORKER
        try:
            if not (self._is_recorded and ledger.see_worker(self._name)):
                ledger.record_worker(self._name, self._fields)
                self._is_recorded = True
        except DatabaseError as error:
            if not ledger.waits_for_receiver(error):
                self._outages.failed(error, expected=True)
        else:
            self._outages.succeeded()
        return True

    def end(self) -> None:
        """Delete the worker's row.

        Raises:
            DatabaseError: the ledger could not be reached.
        """
        ledger.forget_worker(self._name)
