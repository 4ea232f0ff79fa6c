"""Renew the leases of receivers that run outside of a transaction, whose claims no lock on a row protects.

`running/attempt` keeps a lease while such a receiver runs. If the process dies, the lease ends, and the sweeper
settles the attempt as lost.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.db import DatabaseError, connections

from signalbus.ledger import attempts as ledger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from uuid import UUID

logger: logging.Logger = logging.getLogger("signalbus")

LEASE = 20.0  # seconds after which the delivery of a lost process is retried
RENEW_EVERY = 5.0  # seconds


class Leases:
    """The claims of this process, renewed by one thread that lives while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._renewing = threading.Lock()
        self._claims: set[tuple[UUID, int]] = set()
        self._pause = threading.Event()  # never set: waiting for it lets other threads run
        self._pid = 0  # of the process that the thread runs in: a forked child has none

    @contextmanager
    def renewed(self, delivery: UUID, attempt: int) -> Iterator[None]:
        """Renew the lease of a claim while the block runs.

        Args:
            delivery: its id.
            attempt: the number that its claim gave.
        """
        claim = (delivery, attempt)
        with self._lock:
            self._claims.add(claim)
            if self._pid != os.getpid():
                self._claims = {claim}
                self._pid = os.getpid()
                self._renewing = threading.Lock()  # a parent's may have been held when it forked
                threading.Thread(target=self._renew, name="signalbus-leases", daemon=True).start()
        try:
            yield
        finally:
            # After a renewal that is running: a settling statement skips a locked row, as if another worker ran it.
            with self._renewing, self._lock:
                self._claims.discard(claim)

    def _renew(self) -> None:
        while not self._pause.wait(RENEW_EVERY):
            with self._renewing:
                with self._lock:
                    claims = sorted(self._claims, key=str)
                    if not claims:
                        self._pid = 0  # the next claim starts another thread
                        return
                self._renew_all(claims)

    @staticmethod
    def _renew_all(claims: Sequence[tuple[UUID, int]]) -> None:
        try:
            ledger.renew(claims, LEASE)
        except DatabaseError as error:
            logger.warning("signalbus could not renew %d lease(s), and will try again: %r", len(claims), error)
        finally:
            connections.close_all()


leases: Leases = Leases()
