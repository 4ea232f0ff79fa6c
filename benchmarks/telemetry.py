"""Measures what telemetry costs, and how late its figures are: ``python -m benchmarks.telemetry costs|figures|scrape``.

`costs`, or `costs postgres`: the CPU time of a `send()`, of one inside a transaction with its commit, and of a delivery
of a durable signal on SQLite or PostgreSQL, plain and with each kind of telemetry, in turn in one process. The receiver
writes a row, and outcomes are counted, as in a worker. The spans go to OpenTelemetry's SDK with its batch processor,
whose thread is in the figures, and to Sentry with a transport that drops them.

`figures`: a real worker, 1,000 messages a second for 20 seconds (or as many as the machine sends). Each second the
metrics are read as Prometheus reads them, and compared with the rows of the ledger: how late is a figure?

`scrape`: how long the metrics take on a ledger of two million deliveries (minutes).
"""

from __future__ import annotations

import base64
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import django

from signalbus.tracing import add_tracer, remove_tracer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from benchmarks.servers import Servers
    from signalbus.context import CurrentDelivery
    from signalbus.tracing import Creation
    from signalbus.wire.message import Message

CALLS, ROUNDS = 50, 30
RATE: Final = 1000  # messages a second
SECONDS: Final = 20
GOAL: Final = 10.0  # seconds
DELIVERIES: Final = 2_000_000
BATCH: Final = 20  # messages that are sent at once
logger = logging.getLogger("signalbus")


def main(part: str = "costs", kind: str = "sqlite") -> int:
    """Run a part of the benchmark, and print its table.

    Args:
        part: costs, figures or scrape.
        kind: of the database for `costs`: sqlite or postgres.
    """
    os.environ |= {"DJANGO_SETTINGS_MODULE": "benchmarks.settings", "DATABASE_URL": "sqlite://"}
    from benchmarks.servers import Servers  # noqa: PLC0415 - needs settings

    with Servers() as servers:
        django.setup()
        with servers.database(kind if part == "costs" else "postgres"):
            return {"costs": costs, "figures": figures, "scrape": scrape}[part](servers)


def costs(servers: Servers) -> int:
    """Measure a send, one in a transaction, and a delivery with each kind of telemetry."""
    from django.db import transaction  # noqa: PLC0415 - needs Django's apps

    from benchmarks.signals import durable  # noqa: PLC0415 - as above
    from signalbus.events import listen  # noqa: PLC0415 - as above
    from signalbus.receiving.recording.outcome_counts import outcome_counts  # noqa: PLC0415 - as above
    from signalbus.receiving.routing.batch import deliver  # noqa: PLC0415 - as above

    def send_in_transaction() -> None:
        with transaction.atomic():
            durable.send(None)

    listen("done", "failed", "dead", "skipped")(outcome_counts.count)
    ways = dict(kinds())
    used: dict[str, dict[str, list[float]]] = {each: {} for each in ("send()", "in a transaction", "delivery")}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            with way():
                used["send()"].setdefault(name, []).append(cpu(lambda: durable.send(None)))
                used["in a transaction"].setdefault(name, []).append(cpu(send_in_transaction))
                texts = take(servers.client)
                deliveries = used["delivery"].setdefault(name, [])
                deliveries.append(cpu(lambda: deliver([texts.pop()], queue="signalbus", redelivered=False)))  # noqa: B023 - called at once
    print(f"{'µs of CPU':36}" + "".join(f"{title:>19}" for title in used))
    for name in ways:
        print(f"{name:36}" + "".join(f"  {_cell(times, name)}" for times in used.values()))
    return 0


def cpu(function: Callable[[], object]) -> float:
    """Return the CPU time of a call, in microseconds, with that of this process's other threads."""
    began = time.process_time()
    for _ in range(CALLS):
        function()
    return (time.process_time() - began) / CALLS * 1e6


def _cell(times: dict[str, list[float]], name: str) -> str:
    """Return the best round of a way, and its ratio to that of the first way: other load only makes a round longer."""
    best, first = min(times[name]), min(next(iter(times.values())))
    return f"{best:11.0f}{best / first:6.2f}"


def kinds() -> Iterator[tuple[str, Any]]:
    """Yield the kinds of telemetry, each as a function that switches it on for a block."""
    import sentry_sdk  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - as above
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: PLC0415 - as above
    from opentelemetry.sdk.trace.sampling import TraceIdRatioBased  # noqa: PLC0415 - as above

    from signalbus.conf import SPAN_KINDS, Settings  # noqa: PLC0415 - needs Django's apps
    from signalbus.logs import DeliveryFilter  # noqa: PLC0415 - as above
    from signalbus.telemetry.opentelemetry_spans import OpenTelemetryTracer  # noqa: PLC0415 - as above
    from signalbus.telemetry.sentry_spans import SentryTracer  # noqa: PLC0415 - as above

    def traced(share: float, *spans: str) -> Any:
        provider = TracerProvider(sampler=TraceIdRatioBased(share))
        provider.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
        return OpenTelemetryTracer(provider=provider, spans=spans)

    @contextmanager
    def on(tracer: Any) -> Iterator[None]:
        tracer.switch_on()
        yield
        tracer.switch_off()

    sentry_sdk.init(
        dsn="http://key@127.0.0.1:1/1", transport=lambda event: None, traces_sample_rate=1.0,
        default_integrations=False, auto_enabling_integrations=False,
    )  # fmt: skip
    usual, every = traced(1.0, *Settings().OTEL_SPANS), traced(1.0, *SPAN_KINDS)
    some, seldom = traced(1.0, "process"), traced(0.01, *Settings().OTEL_SPANS)
    sentry, filtered = SentryTracer(), logging.StreamHandler(open(os.devnull, "w"))  # noqa: PTH123, SIM115 - ends with us
    filtered.addFilter(DeliveryFilter())
    plain = logging.StreamHandler(filtered.stream)
    for handler in (plain, filtered):
        handler.setFormatter(logging.Formatter("%(message)s"))

    @contextmanager
    def logged(handler: logging.Handler) -> Iterator[None]:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        yield
        logger.setLevel(logging.WARNING)
        logger.removeHandler(handler)

    bare = BareSpans(usual._tracer)  # noqa: SLF001 - the same provider and processor
    yield "without", nullcontext
    yield "one bare span of OpenTelemetry's SDK", lambda: on(bare)
    yield "OpenTelemetry, as it is by default", lambda: on(usual)
    yield "OpenTelemetry, create, send, process", lambda: on(every)
    yield "OpenTelemetry, process alone", lambda: on(some)
    yield "OpenTelemetry, 1 in 100 sampled", lambda: on(seldom)
    yield "Sentry", lambda: on(sentry)
    yield "a log record of each delivery", lambda: logged(plain)
    yield "the same, with our filter", lambda: logged(filtered)


class BareSpans:
    """What any tracer costs at least: a span without attributes, links and context for each `send()` and each run.

    Args:
        tracer: of OpenTelemetry's SDK.
    """

    publishes = False

    def __init__(self, tracer: Any) -> None:
        self._tracer = tracer

    def switch_on(self) -> None:
        """Make spans from now on."""
        add_tracer(self)

    def switch_off(self) -> None:
        """Make no more spans."""
        remove_tracer(self)

    def create(self, made: Creation) -> dict[str, str]:
        """Make a span of a `send()`."""
        self._tracer.start_span(made.signal).end()
        return {}

    def publish(self, _queue: str, _sent: Sequence[Mapping[str, str]]) -> AbstractContextManager[object]:
        """Make none."""
        return nullcontext()

    @contextmanager
    def process(self, delivery: CurrentDelivery, _message: Message) -> Iterator[None]:
        """Make a span of a run."""
        span = self._tracer.start_span(delivery.signal)
        yield
        span.end()


def figures(servers: Servers) -> int:
    """Compare the metrics with the ledger while a worker is busy; tell by how many seconds a figure is late."""
    from django.db.models import Max  # noqa: PLC0415 - needs Django's apps

    from benchmarks.signals import durable  # noqa: PLC0415 - as above
    from benchmarks.workers import celery  # noqa: PLC0415 - as above
    from signalbus.models import Delivery  # noqa: PLC0415 - as above

    command = [sys.executable, "-m", *celery("signalbus", "prefork", "signalbus")]
    worker = subprocess.Popen(command, env={**os.environ, "BENCH_TALLY": str(servers.memory / "worker")})
    ended: list[tuple[float, int]] = [(0.0, 0)]  # when the ledger had so many
    lags: list[float] = []
    sent, shown, began = 0, 0, time.monotonic()
    try:
        while True:
            now = time.monotonic() - began
            if now < SECONDS:
                while sent < RATE * now:
                    durable.send_many(None, [{}] * BATCH)
                    sent += BATCH
                    if time.monotonic() - began > now + 1:
                        break
            ended.append((time.monotonic() - began, Delivery.objects.filter(state="done").count()))
            shown = total()
            at = time.monotonic() - began
            lags.append(at - max(when for when, count in ended if count <= shown))
            if now >= SECONDS and shown == sent:
                break
            if now > SECONDS + 120:
                print(f"the figures show {shown:,} of {sent:,}: wrong")
                return 1
            time.sleep(max(0.0, 0.5 - (time.monotonic() - began - now)))
        last = Delivery.objects.aggregate(last=Max("ended_at"))["last"]
        whole = (datetime.now(UTC) - last).total_seconds()
    finally:
        worker.terminate()
        worker.wait()
    print(f"{sent:,} messages, {sent / SECONDS:,.0f} sent a second; the figures were right in the end")
    print(f"a figure is late by {statistics.median(lags):.1f} s (median), {max(lags):.1f} s at most")
    print(f"the last delivery was counted {whole:.1f} s after its end (goal: {GOAL:g} s)")
    return 0 if max(lags) <= GOAL + 1 else 1


def total() -> int:
    """Return how many deliveries the metrics show as done."""
    from signalbus.telemetry.metric_families import families  # noqa: PLC0415 - needs Django's apps

    (outcomes,) = (family for family in families() if family.name == "signalbus_deliveries_total")
    return int(sum(each.value for each in outcomes.readings if each.labels["outcome"] == "done"))


def scrape(servers: Servers) -> int:
    """Time the metrics on a large ledger, of which a tenth is dead."""
    from benchmarks.admin_pages import fill  # noqa: PLC0415 - needs Django's apps
    from signalbus.telemetry.exposition import text_of  # noqa: PLC0415 - as above
    from signalbus.telemetry.metric_families import families  # noqa: PLC0415 - as above

    fill(DELIVERIES // 2, 10)
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        text_of(families())
        times.append(time.perf_counter() - began)
    print(f"{DELIVERIES:,} deliveries, one in ten dead: a scrape takes {statistics.median(times):.3f} s")
    return 0


def take(client: Any) -> list[str]:
    """Take all texts out of the queue."""
    taken: list[str] = []
    while (item := client.rpop("signalbus")) is not None:
        (texts,), _kwargs, _embedded = json.loads(base64.b64decode(json.loads(item)["body"]))
        taken += texts
    return taken


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
