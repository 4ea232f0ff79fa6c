"""One trace leads from a request through real workers to the last receiver of a cascade, in both tracing systems."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sentry_sdk
from opentelemetry.sdk.trace import TracerProvider
from sentry_sdk.transport import Transport

from signalbus.telemetry.opentelemetry_spans import OpenTelemetryTracer
from signalbus.telemetry.sentry_spans import SentryTracer
from tests import local_traces
from tests.misbehaving.signals import cascading
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan
    from sentry_sdk.envelope import Envelope

    from tests.servers import Worker

DEEPEST = 4  # messages of a cascade, as the worker's settings limit it


class NoTransport(Transport):
    """Sends nothing."""

    def capture_envelope(self, envelope: Envelope) -> None:
        """Do nothing."""


@pytest.fixture
def request_span() -> Iterator[ReadableSpan]:
    """Trace this process, in a request."""
    provider = TracerProvider()
    sentry_sdk.init(
        dsn="http://key@127.0.0.1:1/1", transport=NoTransport(), traces_sample_rate=1.0,
        default_integrations=False, auto_enabling_integrations=False,
    )  # fmt: skip
    tracers: list[OpenTelemetryTracer | SentryTracer] = [
        OpenTelemetryTracer(is_parent=True, provider=provider),
        SentryTracer(),
    ]
    for tracer in tracers:
        tracer.switch_on()
    with (
        sentry_sdk.start_transaction(op="http.server", name="/"),
        provider.get_tracer("web").start_as_current_span("request /") as span,
    ):
        yield span  # type: ignore[misc]  # the SDK's spans can be read
    for tracer in tracers:
        tracer.switch_off()
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)


@pytest.mark.parametrize("database", ["sqlite"])
def test_one_trace_leads_through_a_cascade(
    start_worker: Callable[..., Worker], tmp_path: Path, request_span: ReadableSpan
):
    """Each run of a receiver is a span in the trace of the request; so is each transaction of Sentry's."""
    settings = {"DJANGO_SETTINGS_MODULE": "tests.settings", "TRACES_FOLDER": str(tmp_path)}
    worker = start_worker(environment=settings)
    sentry_trace = sentry_sdk.get_traceparent()
    cascading.send(None, label="traced")

    def runs() -> list[dict[str, Any]]:
        found: list[Any] = local_traces.read(tmp_path, local_traces.SPANS)
        return [span for span in found if span["name"].startswith("process ")]

    wait_until(lambda: len(runs()) == DEEPEST, what="the last receiver of the cascade")
    worker.stop()

    assert request_span.context is not None
    assert {span["context"]["trace_id"] for span in runs()} == {f"0x{request_span.context.trace_id:032x}"}
    outcomes = [span["attributes"]["signalbus.outcome"] for span in runs()]
    assert outcomes == ["done"] * (DEEPEST - 1) + ["dead"]
    assert len({span["attributes"]["messaging.message.conversation_id"] for span in runs()}) == 1
    transactions: list[Any] = local_traces.read(tmp_path, local_traces.TRANSACTIONS)
    traces = [each["contexts"]["trace"] for each in transactions]
    ours = [trace for trace in traces if trace["origin"] == "auto.queue.signalbus"]
    assert len(ours) == DEEPEST
    assert {trace["trace_id"] for trace in ours} == {str(sentry_trace).partition("-")[0]}
