"""OpenTelemetry's spans of messages: created at send(), published, and processed, each with its own context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, transaction
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from signalbus import Retry, RetryLater, tracing
from signalbus.conf import SPAN_KINDS, Settings
from signalbus.ledger import attempts as ledger
from signalbus.receiving.process.receiver_runtimes import ReceiverRuntimes, runtimes
from signalbus.receiving.running import group_commit
from signalbus.sending import outbox
from signalbus.telemetry import opentelemetry_spans
from signalbus.telemetry.opentelemetry_spans import OpenTelemetryTracer
from signalbus.wire.message import from_body
from tasks.admissions.models import Academy
from tests.servers import broker

from .bus import Bus, connect, fails, new_signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.sdk.trace import ReadableSpan

# What spans are made does not depend on the database.
pytestmark = pytest.mark.parametrize("database", ["sqlite"])


class Spans:
    """The spans that were ended, by name."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def __call__(self, operation: str) -> list[ReadableSpan]:
        """Return the spans of an operation, in the order of their ends."""
        return [span for span in self._exporter.get_finished_spans() if span.name.startswith(f"{operation} ")]

    def one(self, operation: str) -> ReadableSpan:
        """Return the only span of an operation."""
        (span,) = self(operation)
        return span


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    """Keep the spans that were ended."""
    return InMemorySpanExporter()


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Spans:
    """The spans that were ended."""
    return Spans(exporter)


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> TracerProvider:
    """A provider of the real SDK."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


@pytest.fixture
def switch_on(provider: TracerProvider) -> Iterator[Callable[..., OpenTelemetryTracer]]:
    """Return a function that switches the spans on until the end of the test."""
    made: list[OpenTelemetryTracer] = []

    def switch_on(**options: Any) -> OpenTelemetryTracer:
        tracer = OpenTelemetryTracer(provider=provider, **{"spans": SPAN_KINDS, **options})
        tracer.switch_on()
        made.append(tracer)
        return tracer

    yield switch_on
    for tracer in made:
        tracer.switch_off()


@pytest.fixture
def own(provider: TracerProvider) -> trace.Tracer:
    """The project's own tracer."""
    return provider.get_tracer("shop")


def of(span: ReadableSpan) -> dict[str, Any]:
    """Return the attributes of a span."""
    return dict(span.attributes or {})


def identity(span: ReadableSpan) -> tuple[int, int]:
    """Return the ids of the trace and of a span."""
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def parent_of(span: ReadableSpan) -> tuple[int, int] | None:
    """Return the identity of a span's parent."""
    return None if span.parent is None else (span.parent.trace_id, span.parent.span_id)


def linked(span: ReadableSpan) -> list[tuple[int, int]]:
    """Return the identities that a span links to."""
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


def test_a_run_is_linked_to_its_send(
    bus: Bus, spans: Spans, own: trace.Tracer, switch_on: Callable[..., OpenTelemetryTracer]
):
    """By default each run is a trace of its own, as the conventions ask for across a queue."""
    switch_on()
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: own.start_span("inside it").end(), "crm.sync")
    with own.start_as_current_span("request /"):
        signal.send(None, slug="web-42")
    bus.work()

    names = ("request", "create", "send", "process", "inside")
    request, create, send, process, inside = (spans.one(name) for name in names)
    assert (create.name, create.kind) == (f"create {signal.name}", SpanKind.PRODUCER)
    assert (send.name, send.kind) == ("send signalbus", SpanKind.CLIENT)
    assert (process.name, process.kind) == (f"process {signal.name}", SpanKind.CONSUMER)
    assert parent_of(create) == parent_of(send) == identity(request)
    assert linked(send) == linked(process) == [identity(create)]
    assert parent_of(process) is None
    assert parent_of(inside) == identity(process)


def test_the_attributes_follow_the_conventions(bus: Bus, spans: Spans, switch_on: Callable[..., OpenTelemetryTracer]):
    """The broker's kind, the operation, the signal or queue, the message and the delivery."""
    switch_on()
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "crm.sync")
    sent = signal.send(None, slug="web-42")
    bus.work()

    create, send, process = (of(spans.one(name)) for name in ("create", "send", "process"))
    assert create.pop("messaging.message.body.size") > 0
    assert create == {
        "messaging.system": "redis",
        "messaging.operation.name": "create",
        "messaging.operation.type": "create",
        "messaging.destination.name": signal.name,
        "messaging.message.id": str(sent.id),
        "messaging.message.conversation_id": str(sent.id),
    }
    assert send["messaging.destination.name"] == "signalbus"
    assert "messaging.batch.message_count" not in send
    assert len(process.pop("signalbus.delivery_id")) == 36
    assert process == {
        **create,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.subscription.name": "crm.sync",
        "signalbus.attempt": 1,
        "signalbus.outcome": "done",
    }


def test_with_parents_one_trace_leads_from_the_request_through_a_cascade(
    bus: Bus, spans: Spans, own: trace.Tracer, switch_on: Callable[..., OpenTelemetryTracer]
):
    """A first attempt is a child of its send(); what its receiver sends belongs to the same trace."""
    switch_on(is_parent=True)
    first, second = new_signal(durable=True), new_signal(durable=True)
    connect(first, lambda **kwargs: second.send(None), "first")
    connect(second, lambda **kwargs: None, "second")
    with own.start_as_current_span("request /"):
        first.send(None)
    bus.work()
    bus.work()

    (request,), creates, processes = spans("request"), spans("create"), spans("process")
    assert {identity(span)[0] for span in [*creates, *processes]} == {identity(request)[0]}
    assert [parent_of(span) for span in processes] == [identity(span) for span in creates]
    assert parent_of(creates[1]) == identity(processes[0])
    assert [linked(span) for span in processes] == [[], []]
    assert of(creates[1])["messaging.message.conversation_id"] == of(creates[0])["messaging.message.id"]


def test_a_retry_is_a_span_of_its_own(bus: Bus, spans: Spans, switch_on: Callable[..., OpenTelemetryTracer]):
    """Not one span for days, and no child of a trace that ended long ago."""
    switch_on(is_parent=True)
    signal = new_signal(durable=True)
    fails(signal, ValueError("no luck"), "crm.sync", retry=Retry(max_attempts=2))
    signal.send(None)
    bus.work()
    bus.come_again()

    first, second = spans("process")
    create = identity(spans.one("create"))
    assert (parent_of(first), linked(first)) == (create, [])
    assert (parent_of(second), linked(second)) == (None, [create])
    assert [of(span)["signalbus.attempt"] for span in (first, second)] == [1, 2]
    assert [of(span)["signalbus.outcome"] for span in (first, second)] == ["failed", "dead"]
    assert [of(span)["error.type"] for span in (first, second)] == ["ValueError", "ValueError"]
    assert [span.status.status_code for span in (first, second)] == [StatusCode.ERROR, StatusCode.ERROR]
    assert [event.name for event in first.events] == ["exception"]
    assert len(spans("send")) == 2  # the sweeper published it again


def test_a_wish_to_run_later_is_no_error(bus: Bus, spans: Spans, switch_on: Callable[..., OpenTelemetryTracer]):
    """As in the log."""
    switch_on()
    signal = new_signal(durable=True)
    fails(signal, RetryLater(5), "crm.sync")
    signal.send(None)
    bus.work()

    process = spans.one("process")
    assert of(process)["signalbus.outcome"] == "failed"
    assert process.status.status_code == StatusCode.UNSET


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let runs share a commit on a busy machine too, and count the members of each group."""
    sizes: list[int] = []
    real = ledger.take_together

    def take_together(ids: Any, **more: Any) -> Any:
        sizes.append(len(ids))
        return real(ids, **more)

    monkeypatch.setattr(group_commit, "BRIEF", 5.0)
    monkeypatch.setattr(group_commit, "WORTH_TELLING", 5.0)
    monkeypatch.setattr(runtimes, "_alone_until", {})
    monkeypatch.setattr(ReceiverRuntimes, "expected", lambda self, receiver: 0.001)
    monkeypatch.setattr(ledger, "take_together", take_together)
    return sizes


def test_each_delivery_of_a_group_commit_has_a_span(
    bus: Bus, spans: Spans, brief: list[int], switch_on: Callable[..., OpenTelemetryTracer]
):
    """Traces do not keep deliveries from sharing a commit; each is linked to its own send()."""
    switch_on()
    signal = new_signal(durable=True)

    def receiver_that_fails_at_2(number: int, **kwargs: Any) -> None:
        if number == 2:
            raise ValueError("two")

    connect(signal, receiver_that_fails_at_2, retry=Retry(max_attempts=1))
    signal.send_many(None, [{"number": number} for number in range(4)])
    bus.work()

    creates, processes = spans("create"), spans("process")
    assert brief == [4]
    assert [linked(span) for span in processes[:3]] == [[identity(creates[number])] for number in (0, 1, 3)]
    assert sorted(of(span)["signalbus.outcome"] for span in processes) == ["dead", "done", "done", "done"]
    send = spans.one("send")
    assert of(send)["messaging.batch.message_count"] == 4
    assert linked(send) == [identity(span) for span in creates]
    ends = [(span.start_time or 0, span.end_time or 0) for span in processes]
    for (_, ended), (began, _) in zip(sorted(ends), sorted(ends)[1:], strict=False):
        assert ended <= began  # a span ends with its run, not with the commit


def test_a_group_that_is_rolled_back_ends_its_spans(
    bus: Bus, spans: Spans, brief: list[int], switch_on: Callable[..., OpenTelemetryTracer]
):
    """Its members run again, each alone."""
    switch_on()
    signal = new_signal(durable=True)
    runs: list[int] = []

    def receiver_that_commits(number: int, **kwargs: Any) -> None:
        runs.append(number)
        Academy.objects.create(name="A", slug=f"a{number}{len(runs)}")
        if number == 1 and len(runs) == 2:
            with connection.cursor() as cursor:
                cursor.execute("ROLLBACK")

    connect(signal, receiver_that_commits)
    signal.send_many(None, [{"number": number} for number in range(2)])
    bus.work()
    bus.come_again()

    outcomes = [(of(span)["signalbus.outcome"]) for span in spans("process")]
    assert outcomes.count("done") == 2
    assert len(outcomes) == len(runs)


def test_an_async_receiver_runs_in_its_span(
    bus: Bus, spans: Spans, own: trace.Tracer, switch_on: Callable[..., OpenTelemetryTracer]
):
    """On the thread of the event loop as well."""
    switch_on()
    signal = new_signal(durable=True)

    async def receiver_that_awaits(**kwargs: Any) -> None:
        own.start_span("inside it").end()

    connect(signal, receiver_that_awaits, atomic=False)
    signal.send(None)
    bus.work()

    assert parent_of(spans.one("inside")) == identity(spans.one("process"))


def test_listed_baggage_travels(bus: Bus, switch_on: Callable[..., OpenTelemetryTracer], ran: list[Any]):
    """And no other: what a browser sends must not reach each receiver."""
    switch_on(baggage=["tenant"])
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: ran.append(dict(baggage.get_all())), "there")
    token = context.attach(
        baggage.set_baggage("other", "x", baggage.set_baggage("tenant", "a ä", context.get_current()))
    )
    signal.send(None)
    context.detach(token)
    bus.work()

    assert ran == [{"tenant": "a ä"}]
    assert dict(baggage.get_all()) == {}


def test_what_waited_for_the_broker_keeps_its_trace(
    bus: Bus,
    broker_url: str,
    spans: Spans,
    switch_on: Callable[..., OpenTelemetryTracer],
    monkeypatch: pytest.MonkeyPatch,
):
    """The context is in the stored message; the failed publication is an error."""
    switch_on()
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "there")
    with broker("redis://127.0.0.1:1/0"):
        signal.send(None)
    monkeypatch.setattr(outbox, "outage", outbox.Outage())
    bus.come_again()

    failed, sent = spans("send")
    assert failed.status.status_code == StatusCode.ERROR
    assert of(failed)["error.type"] == "signalbus.broker.publisher.PublishError"
    assert linked(sent) == linked(spans.one("process")) == [identity(spans.one("create"))]


def test_the_version_of_a_message_does_not_change(bus: Bus, switch_on: Callable[..., OpenTelemetryTracer]):
    """Older workers read it, and ignore the trace."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "there")
    signal.send(None)
    switch_on()
    signal.send(None)
    plain, traced = (from_body(texts[0].split(".", 2)[2]) for texts in bus.take())

    assert plain.version == traced.version
    assert plain.trace == {}
    assert traced.trace.keys() == {"traceparent"}


class BrokenTracer:
    """A tracer that fails everywhere."""

    def create(self, made: tracing.Creation) -> dict[str, str]:
        """Fail."""
        raise RuntimeError("create")

    def publish(self, queue: str, sent: Any) -> Any:
        """Fail."""
        raise RuntimeError("publish")

    def process(self, delivery: Any, message: Any) -> Any:
        """Fail."""
        raise RuntimeError("process")


def test_a_broken_tracer_is_logged_and_changes_nothing(bus: Bus, ran: list[Any], caplog: pytest.LogCaptureFixture):
    """The message is sent, and its receiver runs."""
    broken = BrokenTracer()
    tracing.add_tracer(broken)
    try:
        signal = new_signal(durable=True)
        connect(signal, lambda **kwargs: ran.append(1), "there")
        signal.send(None)
        bus.work()
    finally:
        tracing.remove_tracer(broken)

    assert ran == [1]
    assert caplog.text.count("signalbus: the tracer") == 3


def test_without_a_provider_nothing_travels(bus: Bus, ran: list[Any]):
    """The API alone makes spans without an identity."""
    tracer = OpenTelemetryTracer(provider=trace.NoOpTracerProvider())
    tracer.switch_on()
    try:
        signal = new_signal(durable=True)
        connect(signal, lambda **kwargs: ran.append(1), "there")
        signal.send(None)
        bus.work()
    finally:
        tracer.switch_off()

    assert ran == [1]


def test_only_the_wanted_kinds_of_spans_are_made(
    bus: Bus, spans: Spans, switch_on: Callable[..., OpenTelemetryTracer], own: trace.Tracer
):
    """Without `create` a run is linked to the span in which its message was sent, as that of a request."""
    switch_on(spans=["process"])
    signal = new_signal()
    connect(signal, lambda **kwargs: None, "quiet")
    with own.start_as_current_span("request /"):
        signal.send(None)
    bus.work()

    assert linked(spans.one("process")) == [identity(spans.one("request"))]
    assert (spans("create"), spans("send")) == ([], [])


def test_a_publication_of_messages_that_are_not_sampled_has_no_span(
    bus: Bus, spans: Spans, switch_on: Callable[..., OpenTelemetryTracer], own: trace.Tracer
):
    """Most messages are not sampled, where a project samples: their publications cost nothing."""
    switch_on()
    signal = new_signal()
    connect(signal, lambda **kwargs: None, "quiet")
    not_sampled = trace.NonRecordingSpan(trace.SpanContext(1, 1, is_remote=False))
    with trace.use_span(not_sampled):
        signal.send(None)
    ((text,),) = bus.take()

    assert from_body(text.split(".", 2)[2]).trace["traceparent"].endswith("-00")
    assert spans("send") == []
    signal.send(None)
    assert len(spans("send")) == 1


@pytest.fixture
def by_default(switch_on: Callable[..., OpenTelemetryTracer]) -> OpenTelemetryTracer:
    """Make the spans that are made if the settings name none."""
    return switch_on(spans=Settings().OTEL_SPANS)


@pytest.mark.usefixtures("by_default")
def test_a_message_that_is_sent_by_itself_has_one_span(bus: Bus, spans: Spans, own: trace.Tracer):
    """As the conventions have it: the message takes along the context of its `send`, and no `create` is needed."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "crm.sync")
    connect(signal, lambda **kwargs: None, "mail.welcome", queue="mail")
    with own.start_as_current_span("request /"):
        sent = signal.send(None, slug="web-42")
    bus.work()

    send = spans.one("send")
    assert (send.name, send.kind, spans("create")) == (f"send {signal.name}", SpanKind.PRODUCER, [])
    assert of(send)["messaging.operation.type"] == "send"
    assert of(send)["messaging.message.id"] == str(sent.id)
    assert parent_of(send) == identity(spans.one("request"))
    assert [linked(span) for span in spans("process")] == [[identity(send)]]


@pytest.mark.usefixtures("by_default")
def test_sends_of_one_transaction_have_a_span_each(bus: Bus, spans: Spans):
    """Their publication after the commit has none: they are sent already."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "crm.sync")
    with transaction.atomic():
        signal.send(None)
        signal.send(None)
    bus.work()

    assert [span.name for span in spans("send")] == [f"send {signal.name}"] * 2
    assert [linked(span) for span in spans("process")] == [[identity(span)] for span in spans("send")]


@pytest.mark.usefixtures("by_default")
def test_messages_that_are_sent_together_have_a_span_each_and_one_of_their_publication(bus: Bus, spans: Spans):
    """Each takes along the context of its `create`; the publication is linked to all of them."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "crm.sync")
    signal.send_many(None, [{"number": 1}, {"number": 2}])
    bus.work()

    creates, send = spans("create"), spans.one("send")
    assert (len(creates), send.name, send.kind) == (2, "send signalbus", SpanKind.CLIENT)
    assert linked(send) == [identity(span) for span in creates]
    assert [linked(span) for span in spans("process")] == [[identity(span)] for span in creates]


@pytest.mark.usefixtures("by_default")
def test_a_publication_that_fails_has_a_span_and_so_has_the_one_of_the_sweeper(
    bus: Bus, spans: Spans, monkeypatch: pytest.MonkeyPatch
):
    """That the broker was away is seen in the trace; the next publication is another operation than the send()."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "there")
    with broker("redis://127.0.0.1:1/0"):
        signal.send(None)
    monkeypatch.setattr(outbox, "outage", outbox.Outage())
    bus.come_again()

    sent, failed, again = spans("send")
    assert of(failed)["error.type"] == "signalbus.broker.publisher.PublishError"
    assert failed.status.status_code == StatusCode.ERROR
    assert [span.name for span in (failed, again)] == ["send signalbus"] * 2
    assert linked(failed) == linked(again) == linked(spans.one("process")) == [identity(sent)]


def test_what_is_rolled_back_is_not_remembered_for_ever(
    bus: Bus, by_default: OpenTelemetryTracer, monkeypatch: pytest.MonkeyPatch
):
    """A message that is never published is forgotten once there are too many of them."""
    monkeypatch.setattr(opentelemetry_spans, "MOST_SENT", 3)
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "there")
    for _ in range(5):
        with transaction.atomic():
            signal.send(None)
            transaction.set_rollback(True)
    assert len(by_default._sent) == 3
    for _ in range(3):
        signal.send(None)
    assert len(by_default._sent) == 2


def test_texts_are_not_read_again_where_no_tracer_makes_spans_of_publications(
    bus: Bus, switch_on: Callable[..., OpenTelemetryTracer], monkeypatch: pytest.MonkeyPatch
):
    """A publication costs nothing then."""
    switch_on(spans=["create"])
    read: list[str] = []
    monkeypatch.setattr(tracing, "_headers_of", read.append)
    signal = new_signal()
    connect(signal, lambda **kwargs: None, "quiet")
    signal.send(None)

    assert read == []
    ((text,),) = bus.take()
    assert from_body(text.split(".", 2)[2]).trace.keys() == {"traceparent"}
