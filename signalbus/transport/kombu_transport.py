"""Define kombu transports whose channels claim messages, and make a kombu connection use one of them.

`receiving/worker/capacity` calls `claim` on the connection of a worker's consumer.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import redis as stock

from signalbus.compat import redis_internals as compat
from signalbus.transport.broker_claims import Work
from signalbus.transport.channel import ClaimingMixin
from signalbus.transport.poller import Poller


class Channel(ClaimingMixin, stock.Channel):  # type: ignore[misc]  # kombu has no types
    """kombu's channel, which claims."""


class SentinelChannel(ClaimingMixin, stock.SentinelChannel):  # type: ignore[misc]  # as above
    """kombu's channel behind a Sentinel, which claims."""


class TransportMixin:
    """Make a transport of kombu's claim messages, when it runs in an event loop."""

    work: Work = Work()  # the work of the process

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.cycle: Poller = Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Run in an event loop; kombu's signature."""
        super().register_with_event_loop(connection, loop)  # type: ignore[misc]
        self.cycle.join(loop)


class Transport(TransportMixin, stock.Transport):  # type: ignore[misc]  # as above
    """kombu's Redis transport, which claims; for TLS and unix sockets too."""

    Channel: type[Any] = Channel


class SentinelTransport(TransportMixin, stock.SentinelTransport):  # type: ignore[misc]  # as above
    """kombu's transport for Redis behind a Sentinel, which claims."""

    Channel: type[Any] = SentinelChannel


OURS: dict[type, type] = {stock.Transport: Transport, stock.SentinelTransport: SentinelTransport}


def can_claim(connection: Any) -> bool:
    """Return whether a connection's transport has a claiming one: kombu's own for Redis, not a variant of it."""
    return compat.transport_of(connection) in OURS


def claim(connection: Any, work: Work) -> None:
    """Make a connection that is not used yet claim what it consumes.

    Args:
        connection: kombu's.
        work: the work of the process, as the transport asks for it.
    """
    transports = {given: type(ours.__name__, (ours,), {"work": work}) for given, ours in OURS.items()}
    compat.use_transport(connection, lambda given: transports.get(given, given))
