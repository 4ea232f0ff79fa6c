"""A consumer in the test's own process, which claims as a worker does: kombu's event loop, and our transport."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kombu import Connection, Consumer, Exchange, Queue
from kombu.asynchronous import Hub

from signalbus.transport import broker_claims, kombu_transport
from signalbus.transport.broker_claims import Owner, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self


class ClaimingConsumer:
    """Takes messages and keeps them, until the test ends them.

    Args:
        url: the broker's, for kombu.
        queues: their names.
        prefetch: how many messages it may hold.
        alone: as if in a process of its own, with a name of its own.
        work: what it does with them.
        ssl: what kombu's connections are made with.
        options: kombu's transport options.
    """

    def __init__(
        self,
        url: str,
        *queues: str,
        prefetch: int = 10,
        alone: bool = True,
        work: Work | None = None,
        ssl: dict[str, Any] | bool = False,
        **options: Any,
    ) -> None:
        if alone:
            for owner in broker_claims._owners.values():
                if owner.heartbeat is not None:  # of a process that has ended
                    owner.heartbeat.stop()
            broker_claims._owners.clear()
        self.messages: list[Any] = []
        self.channel: Any = None
        self.hub = Hub()
        options.setdefault("socket_timeout", 5)
        self.connection = Connection(url, ssl=ssl, transport_options=options)
        kombu_transport.claim(self.connection, work or Work())
        self.queues = [Queue(name, Exchange(name), name) for name in queues or ("work",)]
        self._prefetch = prefetch

    def __enter__(self) -> Self:
        self.connection.transport.register_with_event_loop(self.connection.connection, self.hub)
        self.channel = self.connection.default_channel
        self.channel.basic_qos(0, self._prefetch, False)
        self.consumer = Consumer(self.channel, self.queues, on_message=self.on_message)
        self.consumer.consume()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.connection.close()
        self.hub.close()

    @property
    def owner(self) -> Owner:
        """Return its name."""
        return self.channel.owner  # type: ignore[no-any-return]

    def on_message(self, message: Any) -> None:
        """Keep the message."""
        self.messages.append(message)

    def run(self, until: Callable[[], object], timeout: float = 5.0) -> None:
        """Run the event loop until a condition holds, or fail."""
        deadline = time.monotonic() + timeout
        while not until():
            assert time.monotonic() < deadline, f"waited {timeout:g} s; it has {self.bodies()}"
            self.hub.call_later(0.02, bool)  # so that the loop looks again
            self.hub.run_once()

    def run_for(self, seconds: float) -> None:
        """Run the event loop for a while."""
        deadline = time.monotonic() + seconds
        self.run(lambda: time.monotonic() >= deadline, seconds + 5)

    def take(self, count: int, timeout: float = 5.0) -> list[Any]:
        """Run until this number of messages has arrived."""
        self.run(lambda: len(self.messages) >= count, timeout)
        return self.messages

    def bodies(self) -> list[Any]:
        """Return the bodies of the messages."""
        return [message.payload for message in self.messages]

    def acknowledge(self, messages: Sequence[Any] | None = None) -> None:
        """Acknowledge messages, and run until Redis has answered."""
        for message in self.messages if messages is None else messages:
            message.ack()
        self.run(lambda: not self.owner.acknowledged and not self.channel._tracking_connection.is_busy)
