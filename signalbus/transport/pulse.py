"""Says that this process lives and what it holds, and takes back what dead ones held."""

from __future__ import annotations

import logging
import random
import threading
import weakref
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from signalbus.transport.unacked import PULSE

if TYPE_CHECKING:
    from signalbus.transport.claims import Owner

logger: logging.Logger = logging.getLogger("signalbus")


class Pulse(threading.Thread):
    """The beats of an owner, from a thread of their own: the main one may run a receiver, or wait for a server.

    It ends with the channel that it beats for; the next channel has its own.

    Args:
        channel: the one whose connections it uses.
        owner: whose beats they are.
    """

    def __init__(self, channel: Any, owner: Owner) -> None:
        super().__init__(name="signalbus-pulse", daemon=True)
        self._channel = weakref.ref(channel)
        self._owner = owner
        self._ended = threading.Event()

    def stop(self) -> None:
        """End it, soon."""
        self._ended.set()

    def run(self) -> None:
        """Beat until it is stopped, whatever the server says."""
        # Not all at once, after a server was away.
        while not self._ended.wait(PULSE * random.uniform(0.9, 1.1)):  # noqa: S311 - no secret
            channel = self._channel()
            if channel is None or channel.closed:
                return
            try:
                self.beat(channel)
            except (RedisError, OSError) as error:
                # The channel finds out by itself, and reconnects; what is held is not lost by a beat that is missing.
                logger.debug("signalbus could not tell Redis that it lives: %r", error)

    def beat(self, channel: Any) -> None:
        """Do once what it does again and again.

        Args:
            channel: the one whose connections it uses.
        """
        owner, unacked = self._owner, channel.unacked
        held = set(owner.held)
        if not held and not unacked.has_owners():
            return  # nobody holds anything
        for dead in unacked.beat(owner.id if held else "", sorted(self._known(channel, held))):
            if dead == owner.id:
                unacked.forget(dead)
            elif count := unacked.take_back(dead):
                logger.warning("signalbus took %d messages back that a worker held when it died (%s)", count, dead)

    def _known(self, channel: Any, held: set[str]) -> set[str]:
        """Return what is held and runs or waits here; what nobody knows of any more is left to visibility timeouts."""
        under_way = channel.work.under_way()
        return held if under_way is None else held & self._owner.claims_of(under_way)
