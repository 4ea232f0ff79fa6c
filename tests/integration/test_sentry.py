"""Sentry's spans of messages, with its real SDK and a transport that keeps the envelopes."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import sentry_sdk
from sentry_sdk.transport import Transport

from signalbus import Retry
from signalbus.telemetry.sentry_spans import SentryTracer

from .bus import Bus, connect, fails, new_signal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentry_sdk.envelope import Envelope

pytestmark = pytest.mark.parametrize("database", ["sqlite"])


class LocalTransport(Transport):
    """Keeps the envelopes that would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.envelopes: list[Envelope] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        """Keep an envelope."""
        self.envelopes.append(envelope)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of a kind, as they would be sent."""
        items = [item for envelope in self.envelopes for item in envelope.items if item.type == kind]
        return [json.loads(item.get_bytes()) for item in items]


@pytest.fixture
def sentry() -> Iterator[LocalTransport]:
    """A client without integrations, which would change the libraries for all tests to come."""
    transport = LocalTransport()
    sentry_sdk.init(
        dsn="http://key@127.0.0.1:1/1",
        transport=transport,
        traces_sample_rate=1.0,
        default_integrations=False,
        auto_enabling_integrations=False,
    )
    tracer = SentryTracer()
    tracer.switch_on()
    with sentry_sdk.isolation_scope():
        yield transport
    tracer.switch_off()
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)


def test_the_trace_of_the_sender_is_continued(bus: Bus, sentry: LocalTransport):
    """A publish span in the request's transaction, and a transaction of the receiver in the same trace."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "crm.sync")
    with sentry_sdk.start_transaction(op="http.server", name="/"):
        sent = signal.send(None, secret="hunter2")
    bus.work()

    request, process = sentry.of("transaction")
    (publish,) = request["spans"]
    assert (publish["op"], publish["description"]) == ("queue.publish", "signalbus")
    assert publish["data"]["messaging.destination.name"] == "signalbus"
    assert publish["data"]["messaging.system"] == "redis"
    trace = process["contexts"]["trace"]
    assert trace["trace_id"] == request["contexts"]["trace"]["trace_id"]
    assert trace["parent_span_id"] == request["contexts"]["trace"]["span_id"]
    assert (process["transaction"], trace["op"], trace["status"]) == ("crm.sync", "queue.process", "ok")
    assert trace["data"]["messaging.message.id"] == str(sent.id)
    assert trace["data"]["messaging.destination.name"] == signal.name
    assert trace["data"]["messaging.message.retry.count"] == 0
    assert 0 <= trace["data"]["messaging.message.receive.latency"] < 60_000
    assert process["tags"]["signalbus.signal"] == signal.name
    assert "hunter2" not in json.dumps([request, process])


def test_a_failure_and_its_retry_are_transactions(bus: Bus, sentry: LocalTransport):
    """Each with its count of retries, and both in the sender's trace."""
    signal = new_signal(durable=True)
    fails(signal, ValueError("no luck"), "crm.sync", retry=Retry(max_attempts=2))
    signal.send(None)
    bus.work()
    bus.come_again()

    traces = [each["contexts"]["trace"] for each in sentry.of("transaction")]
    assert [trace["status"] for trace in traces] == ["internal_error", "internal_error"]
    assert [trace["data"]["messaging.message.retry.count"] for trace in traces] == [0, 1]
    assert len({trace["trace_id"] for trace in traces}) == 1


def test_what_a_receiver_leaves_in_its_scope_ends_with_it(bus: Bus, sentry: LocalTransport):
    """A tag or a breadcrumb of one receiver is not on the events of the next."""
    signal = new_signal(durable=True)

    def receiver_that_tags(**kwargs: Any) -> None:
        sentry_sdk.set_tag("customer", "42")
        sentry_sdk.add_breadcrumb(message="a step")
        sentry_sdk.capture_message("first")

    connect(signal, receiver_that_tags)
    connect(signal, lambda **kwargs: sentry_sdk.capture_message("second"), "second")
    signal.send(None)
    bus.work()

    first, second = sentry.of("event")
    assert first["tags"]["customer"] == "42"
    assert "customer" not in second["tags"]
    assert not second["breadcrumbs"]["values"]
    assert first["tags"]["signalbus.delivery_id"] != second["tags"]["signalbus.delivery_id"]


def test_without_a_client_nothing_is_done(bus: Bus, ran: list[Any], caplog: pytest.LogCaptureFixture):
    """The setting alone, in a process that has not called sentry_sdk.init."""
    tracer = SentryTracer()
    tracer.switch_on()
    try:
        signal = new_signal(durable=True)
        connect(signal, lambda **kwargs: ran.append(1), "there")
        signal.send(None)
        bus.work()
    finally:
        tracer.switch_off()

    assert ran == [1]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
