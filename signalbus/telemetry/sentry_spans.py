"""Make Sentry's spans of messages: ``queue.publish`` at a publication, a transaction ``queue.process`` for a run.

The trace of the sender is continued. Nothing of payloads is sent.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import sentry_sdk
from sentry_sdk.consts import OP, SPANDATA, SPANSTATUS

from signalbus.telemetry.broker_names import broker_name
from signalbus.tracing import add_tracer, remove_tracer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from signalbus.context import CurrentDelivery
    from signalbus.tracing import Creation
    from signalbus.wire.message import Message

ORIGIN: Final = "auto.queue.signalbus"
TRACE: Final = "sentry-trace"
BAGGAGE: Final = "baggage"


class SentryTracer:
    """Makes spans and transactions with the client that ``sentry_sdk.init`` has made; nothing without one."""

    def switch_on(self) -> None:
        """Make spans from now on."""
        add_tracer(self)

    def switch_off(self) -> None:
        """Make no more spans, as at the end of a test."""
        remove_tracer(self)

    def create(self, made: Creation) -> Mapping[str, str]:  # noqa: ARG002 - the same for each message
        """Return the trace that surrounds the sender."""
        if not sentry_sdk.get_client().is_active():
            return {}
        found = {TRACE: sentry_sdk.get_traceparent(), BAGGAGE: sentry_sdk.get_baggage()}
        return {name: value for name, value in found.items() if value}

    @contextmanager
    def publish(self, queue: str, sent: Sequence[Mapping[str, str]]) -> Iterator[None]:
        """Make a span of a publication, where a transaction surrounds it."""
        if sentry_sdk.get_current_span() is None:
            yield
            return
        with sentry_sdk.start_span(op=OP.QUEUE_PUBLISH, name=queue, origin=ORIGIN) as span:
            span.set_data(SPANDATA.MESSAGING_SYSTEM, broker_name().system)
            span.set_data(SPANDATA.MESSAGING_DESTINATION_NAME, queue)
            span.set_data("messaging.batch.message_count", len(sent))
            yield

    @contextmanager
    def process(self, delivery: CurrentDelivery, message: Message) -> Iterator[None]:
        """Make a transaction of a run, in the trace of its sender, with a scope of its own."""
        if not sentry_sdk.get_client().is_active():
            yield
            return
        with sentry_sdk.isolation_scope() as scope:
            scope.clear_breadcrumbs()
            scope.set_tag("signalbus.signal", delivery.signal)
            scope.set_tag("signalbus.delivery_id", str(delivery.id))
            transaction = sentry_sdk.continue_trace(
                dict(message.trace), op=OP.QUEUE_PROCESS, name=delivery.receiver, source="task", origin=ORIGIN
            )
            with sentry_sdk.start_transaction(transaction) as span:
                latency = (datetime.now(UTC) - message.sent_at).total_seconds() * 1000
                span.set_data(SPANDATA.MESSAGING_SYSTEM, broker_name().system)
                span.set_data(SPANDATA.MESSAGING_DESTINATION_NAME, delivery.signal)
                span.set_data(SPANDATA.MESSAGING_MESSAGE_ID, str(delivery.message_id))
                span.set_data(SPANDATA.MESSAGING_MESSAGE_RETRY_COUNT, delivery.attempt - 1)
                span.set_data(SPANDATA.MESSAGING_MESSAGE_RECEIVE_LATENCY, max(0.0, latency))
                span.set_status(SPANSTATUS.OK)
                try:
                    yield
                except BaseException:
                    span.set_status(SPANSTATUS.INTERNAL_ERROR)
                    raise
