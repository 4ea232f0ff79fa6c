"""What happens to a worker's count of messages under way when the broker goes away while it acknowledges them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from kombu import Connection, Consumer, Queue

from signalbus.embedded import EmbeddedValkey
from signalbus.receiving.worker.unacknowledged import let_go_if_lost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kombu import Message

LOGGER = logging.getLogger("tests.acknowledging")


@pytest.fixture
def server() -> Iterator[EmbeddedValkey]:
    """A broker of the test's own, which it may end."""
    with EmbeddedValkey() as server:
        yield server


def received(connection: Connection, count: int) -> list[Message]:
    """Send messages through a queue to a consumer that may hold as many; return them."""
    queue = Queue("q")
    messages: list[Message] = []
    with connection.Producer() as producer:
        for number in range(count):
            producer.publish({"number": number}, routing_key="q", declare=[queue])
    consumer = Consumer(connection.default_channel, [queue], on_message=messages.append, prefetch_count=count)
    consumer.consume()
    while len(messages) < count:
        connection.drain_events(timeout=5)
    return messages


@pytest.mark.parametrize("end", ["ack_log_error", "reject_log_error"])
def test_what_cannot_be_acknowledged_is_not_under_way_any_more(server: EmbeddedValkey, end: str):
    """A worker asks for more again, and so finds out that its connection is dead, or that the broker is back."""
    with Connection(server.url) as connection:
        channel: Any = connection.default_channel
        held = channel.qos
        messages = [let_go_if_lost(message) for message in received(connection, 2)]
        assert not held.can_consume()
        server.kill()

        for message in messages:
            getattr(message, end)(LOGGER, connection.connection_errors)

        assert held.can_consume()
        assert held.can_consume_max_estimate() == 2
        server.start()


def test_what_is_acknowledged_is_counted_once(server: EmbeddedValkey):
    """With the broker there nothing changes: who has held two, and ended one, may hold one more."""
    with Connection(server.url) as connection:
        channel: Any = connection.default_channel
        held = channel.qos
        first, _ = (let_go_if_lost(message) for message in received(connection, 2))

        first.ack()

        assert held.can_consume_max_estimate() == 1
