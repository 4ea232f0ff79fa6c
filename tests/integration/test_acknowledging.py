"""A worker's count of messages in flight when the broker goes away while it acknowledges them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from kombu import Connection, Consumer, Queue

from signalbus.embedded import EmbeddedValkey
from signalbus.receiving.worker.unacknowledged import forget_if_lost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kombu import Message

LOGGER = logging.getLogger("tests.acknowledging")


@pytest.fixture
def server() -> Iterator[EmbeddedValkey]:
    """A broker of the test's own, which it may stop."""
    with EmbeddedValkey() as server:
        yield server


def received(connection: Connection, count: int) -> list[Message]:
    """Send messages through a queue to a consumer that may prefetch as many; return them."""
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
def test_a_message_whose_acknowledgement_failed_is_not_in_flight(server: EmbeddedValkey, end: str):
    """The worker asks for more messages, and so notices that its connection is broken or that the broker is back."""
    with Connection(server.url) as connection:
        channel: Any = connection.default_channel
        qos = channel.qos
        messages = [forget_if_lost(message) for message in received(connection, 2)]
        assert not qos.can_consume()
        server.kill()

        for message in messages:
            getattr(message, end)(LOGGER, connection.connection_errors)

        assert qos.can_consume()
        assert qos.can_consume_max_estimate() == 2
        server.start()


def test_an_acknowledged_message_is_counted_once(server: EmbeddedValkey):
    """A consumer with two messages that ended one may prefetch one more."""
    with Connection(server.url) as connection:
        channel: Any = connection.default_channel
        qos = channel.qos
        first, _ = (forget_if_lost(message) for message in received(connection, 2))

        first.ack()

        assert qos.can_consume_max_estimate() == 1
