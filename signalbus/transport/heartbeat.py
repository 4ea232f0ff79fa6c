"""Send the heartbeat of a worker process, and reclaim the messages of processes whose heartbeat has stopped.

`channel` starts the thread. The lease of a process in Redis lasts `LEASE` seconds from its last heartbeat (decision
0031).
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from signalbus.transport.unacked import HEARTBEAT_INTERVAL, LEASE

if TYPE_CHECKING:
    from signalbus.transport.broker_claims import Owner

logger: logging.Logger = logging.getLogger("signalbus")


AGAIN = 1.0  # seconds until the next heartbeat after one that the server did not take
PATIENCE = 15.0  # seconds after an outage in which no process counts as dead: others may not have reconnected yet


class Heartbeat(threading.Thread):
    """Send the heartbeats of an owner, from a thread of its own: the main one may run a receiver or wait for a server.

    When its channel has closed, it goes on for as long as anything is in flight: until there is another channel, with
    a heartbeat of its own, Celery waits up to half a minute between two attempts to connect.

    It checks as often while nothing is in flight: nothing wakes this thread when the event loop claims, and a claim's
    lease must not expire before the next heartbeat.

    Args:
        channel: the channel whose connections it uses.
        owner: the process whose heartbeats it sends.
        patient: whether the connection was lost, and maybe those of other processes as well.
    """

    def __init__(self, channel: Any, owner: Owner, *, patient: bool = False) -> None:
        super().__init__(name="signalbus-heartbeat", daemon=True)
        self._channel = channel
        self._owner = owner
        self._ended = threading.Event()
        self._patient_until = time.monotonic() + PATIENCE if patient else 0.0
        self._in_flight_at = time.monotonic()

    def stop(self) -> None:
        """Ask the thread to end; it does so at its next wait."""
        self._ended.set()

    def run(self) -> None:
        """Send heartbeats until it is stopped, whatever the server answers."""
        wait = 0.0 if self._owner.is_in_flight() else HEARTBEAT_INTERVAL
        # Not all at once, after a server was away.
        while not self._ended.wait(wait * random.uniform(0.9, 1.1)):  # noqa: S311 - no secret
            try:
                if self._channel.closed:
                    # Maybe by an outage between two heartbeats, of which this thread sees nothing.
                    self._patient_until = time.monotonic() + PATIENCE
                    self._channel.unacked.acknowledge(self._owner)  # no packet of its own will follow
                    if not self._owner.is_in_flight():
                        return
                self.send_heartbeat(self._channel)
                wait = HEARTBEAT_INTERVAL
            except (RedisError, OSError) as error:
                # The channel finds out by itself, and reconnects.
                logger.debug("signalbus could not tell Redis that it lives: %r", error)
                self._patient_until = time.monotonic() + PATIENCE
                wait = AGAIN

    def send_heartbeat(self, channel: Any) -> None:
        """Send one heartbeat, and reclaim what dead owners have claimed; one command while nobody has claims.

        Args:
            channel: the channel whose connections it uses.
        """
        owner, unacked = self._owner, channel.unacked
        is_in_flight = owner.is_in_flight()
        if is_in_flight:
            self._in_flight_at = time.monotonic()
        else:
            first = unacked.first_owner()
            if first == owner.id and time.monotonic() - self._in_flight_at > LEASE:
                unacked.forget(first)  # if that is so: the event loop may have claimed meanwhile
                first = unacked.first_owner()
            if first in {None, owner.id}:
                return
        for dead in unacked.send_heartbeat(owner.id if is_in_flight else "", sorted(self._known(channel))):
            if dead == owner.id:
                unacked.forget(dead)
            elif time.monotonic() < self._patient_until:
                continue
            elif count := unacked.reclaim(dead):
                logger.warning("signalbus took %d messages back that a worker held when it died (%s)", count, dead)

    def _known(self, channel: Any) -> set[str]:
        """Return the claims that run or wait here, or are done. Others are left to the visibility timeout."""
        owner = self._owner
        claimed, in_flight = set(owner.claimed), channel.work.in_flight()
        known = claimed if in_flight is None else claimed & owner.claims_of(in_flight)
        return known | set(owner.unconfirmed)
