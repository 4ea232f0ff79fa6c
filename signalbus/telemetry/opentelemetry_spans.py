"""Make OpenTelemetry's spans of messages: ``send`` at `send()` or at a publication, ``create``, ``process`` for a run.

A message that is sent by itself has one span, ``send``, whose context it takes along. Of several that are published
together each has a span ``create``, whose context it takes along, and their publication has a span ``send``
(decision 0064). The names are those of the semantic conventions for messaging, which are still in development; the
version is pinned. Only ``opentelemetry-api`` is needed: what becomes of the spans is the project's configuration.
"""

from __future__ import annotations

from contextlib import contextmanager
from importlib.metadata import version
from threading import Lock
from time import time_ns
from typing import TYPE_CHECKING, Final

from opentelemetry import baggage, context, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from signalbus.conf import SPAN_KINDS
from signalbus.events import listen, unlisten
from signalbus.exceptions import RetryLater
from signalbus.telemetry.broker_names import broker_name
from signalbus.tracing import add_tracer, remove_tracer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from uuid import UUID

    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

    from signalbus.context import CurrentDelivery
    from signalbus.events import Event
    from signalbus.tracing import Creation
    from signalbus.wire.message import Message

SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
PARENT: Final = "traceparent"
NOT_SAMPLED: Final = "-00"  # the end of such a header
MOST_LINKS: Final = 100  # of a publication; the SDK keeps 128
MOST_OPEN: Final = 1000  # spans whose outcome is not known yet
MOST_SENT: Final = 1000  # messages that are not published yet, and have a span of their send()

_traces: Final = TraceContextTextMapPropagator()
_baggages: Final = W3CBaggagePropagator()


class OpenTelemetryTracer:
    """Makes spans with the tracer provider of the process, or with a given one.

    Args:
        spans: the kinds of spans that are made: send, process, and create, which means that a message that is sent by
            itself has two as well. Without create and send, a message takes along the context in which it is sent, as
            that of a request.
        is_parent: whether the span of a first attempt is a child of that of its `send()`, unless it runs inside another
            span; else, and for a retry, it is linked to it.
        baggage: the keys of the baggage that messages take along.
        provider: the tracer provider; None for that of the process, once it is set.
    """

    def __init__(
        self,
        *,
        spans: Collection[str] = SPAN_KINDS,
        is_parent: bool = False,
        baggage: Sequence[str] = (),
        provider: trace.TracerProvider | None = None,
    ) -> None:
        self.publishes: bool
        self._creates, self.publishes, self._processes = (kind in spans for kind in SPAN_KINDS)
        self._tracer = trace.get_tracer("signalbus", version("django-signalbus"), provider, SCHEMA)
        self._is_parent = is_parent
        self._baggage = tuple(baggage)
        # By delivery: a span whose receiver has returned, and when that was. It ends when the outcome is known, which
        # is after the commit; with those of other deliveries in a group commit.
        self._open: dict[UUID, tuple[Span, int]] = {}
        # Messages that have a span of their `send()`, by their contexts: to how many queues they are to be published.
        self._sent: dict[str, int] = {}
        self._lock = Lock()

    def switch_on(self) -> None:
        """Make spans from now on."""
        add_tracer(self)
        listen("done", "failed", "dead", "skipped")(self.settle)

    def switch_off(self) -> None:
        """Make no more spans, as at the end of a test."""
        remove_tracer(self)
        unlisten(self.settle)

    def create(self, made: Creation) -> Mapping[str, str]:
        """Make a span of a message's `send()` or creation, and return the context that the message takes along."""
        headers: dict[str, str] = {}
        if not (self._creates or self.publishes):
            _traces.inject(headers)
        elif self._creates or not made.is_alone:
            _traces.inject(headers, self._made("create", made))
        else:
            _traces.inject(headers, self._made("send", made))
            if not headers.get(PARENT, NOT_SAMPLED).endswith(NOT_SAMPLED):
                self._keep_sent(headers[PARENT], len(made.routes))
        if self._baggage:
            _baggages.inject(headers, self._listed(baggage.get_all(), Context()))
        return headers

    def _made(self, operation: str, made: Creation) -> Context:
        """Make a span of a message, and return a context with it."""
        span = self._tracer.start_span(
            f"{operation} {made.signal}",
            kind=SpanKind.PRODUCER,
            attributes={
                **_operation(operation, made.signal),
                "messaging.message.id": str(made.id),
                "messaging.message.body.size": made.size,
                "messaging.message.conversation_id": str(made.id if made.root is None else made.root),
            },
        )
        span.end()
        return trace.set_span_in_context(span)

    def _keep_sent(self, sent: str, queues: int) -> None:
        """Remember a message that has a span of its `send()`; one that is rolled back is never published."""
        with self._lock:
            if len(self._sent) >= MOST_SENT:
                del self._sent[next(iter(self._sent))]
            self._sent[sent] = queues

    def _take_sent(self, sent: str) -> bool:
        """Return whether a message has a span of its `send()`; forget it once it is published to all its queues."""
        with self._lock:
            queues = self._sent.pop(sent, 0)
            if queues > 1:
                self._sent[sent] = queues - 1
            return queues > 0

    @contextmanager
    def publish(self, queue: str, sent: Sequence[Mapping[str, str]]) -> Iterator[None]:
        """Make a span of a publication, linked to the span of each message.

        None is made if no message is sampled, nor if each has a span of its `send()`, unless the publication fails.
        """
        if sent and all(headers.get(PARENT, "").endswith(NOT_SAMPLED) for headers in sent):
            yield
            return
        began = time_ns()
        if all([self._take_sent(headers.get(PARENT, "")) for headers in sent]):  # noqa: C419 - of each
            try:
                yield
            except BaseException as error:
                span = self._publication(queue, sent, began)
                span.set_attribute("error.type", _type_of(error))
                span.record_exception(error)
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                span.end()
                raise
            return
        with trace.use_span(self._publication(queue, sent, began), end_on_exit=True) as span:
            try:
                yield
            except BaseException as error:
                span.set_attribute("error.type", _type_of(error))
                raise

    def _publication(self, queue: str, sent: Sequence[Mapping[str, str]], began: int) -> Span:
        """Begin the span of a publication."""
        contexts = [_created_in(headers) for headers in sent[:MOST_LINKS]]
        attributes = _operation("send", queue)
        broker = broker_name()
        if broker.host:
            attributes["server.address"] = broker.host
        if broker.port:
            attributes["server.port"] = broker.port
        if len(sent) > 1:
            attributes["messaging.batch.message_count"] = len(sent)
        links = [Link(each) for each in contexts if each.is_valid]
        return self._tracer.start_span(
            f"send {queue}", kind=SpanKind.CLIENT, attributes=attributes, links=links, start_time=began
        )

    @contextmanager
    def process(self, delivery: CurrentDelivery, message: Message) -> Iterator[None]:
        """Make a span of a run, which ends when its outcome is known."""
        if not self._processes:
            yield
            return
        headers = message.trace
        sender, ambient = _created_in(headers), trace.get_current_span().get_span_context()
        is_child = self._is_parent and delivery.attempt == 1 and sender.is_valid and not ambient.is_valid
        span = self._tracer.start_span(
            f"process {delivery.signal}",
            context=_traces.extract(headers, Context()) if is_child else None,
            kind=SpanKind.CONSUMER,
            links=[Link(sender)] if sender.is_valid and not is_child else [],
            attributes={
                **_operation("process", delivery.signal),
                "messaging.destination.subscription.name": delivery.receiver,
                "messaging.message.id": str(delivery.message_id),
                "messaging.message.conversation_id": str(delivery.root),
                "signalbus.delivery_id": str(delivery.id),
                "signalbus.attempt": delivery.attempt,
            },
        )
        carried = context.get_current()
        if self._baggage:
            carried = self._listed(baggage.get_all(_baggages.extract(headers, Context())), carried)
        token = context.attach(trace.set_span_in_context(span, carried))
        try:
            yield
        finally:
            context.detach(token)
            self._keep_open(delivery.id, span)

    def _listed(self, found: Mapping[str, object], into: Context) -> Context:
        """Return a context with the listed keys of a baggage."""
        for key in self._baggage:
            if key in found:
                into = baggage.set_baggage(key, found[key], into)
        return into

    def _keep_open(self, delivery: UUID, span: Span) -> None:
        """Keep a span until its outcome is known; end one whose run was rolled back without one."""
        former = self._open.pop(delivery, None)
        if former is None and len(self._open) >= MOST_OPEN:
            former = self._open.pop(next(iter(self._open), delivery), None)
        if former is not None:
            former[0].set_attribute("signalbus.outcome", "rolled back")
            former[0].end(former[1])
        self._open[delivery] = (span, time_ns())

    def settle(self, event: Event) -> None:
        """End the span of a run with its outcome; a listener of "done", "failed", "dead" and "skipped"."""
        span, ended_at = self._open.pop(event.delivery.id, (None, 0))
        if span is None:
            return
        span.set_attribute("signalbus.outcome", event.kind)
        error = event.error
        if event.kind in {"failed", "dead"} and error is not None and not isinstance(error, RetryLater):
            span.set_attribute("error.type", _type_of(error))
            span.record_exception(error, timestamp=ended_at)
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        span.end(ended_at)


def _operation(name: str, destination: str) -> dict[str, AttributeValue]:
    return {
        "messaging.system": broker_name().system,
        "messaging.operation.name": name,
        "messaging.operation.type": name,
        "messaging.destination.name": destination,
    }


def _created_in(headers: Mapping[str, str]) -> trace.SpanContext:
    return trace.get_current_span(_traces.extract(headers, Context())).get_span_context()


def _type_of(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
