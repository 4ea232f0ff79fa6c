"""The metrics of the bus, as Prometheus reads them from the view, the command and a registry."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from signalbus import Retry
from signalbus.events import listen, unlisten
from signalbus.ledger import history
from signalbus.ledger.operations import pause
from signalbus.models import Delivery, Rollup, RunningDelivery
from signalbus.receiving.recording.outcome_counts import outcome_counts
from signalbus.receiving.routing.verification import refuse
from signalbus.telemetry import metric_families
from signalbus.telemetry.prometheus import SignalbusCollector

from .bus import Bus, connect, fails, new_signal

if TYPE_CHECKING:
    from collections.abc import Iterator

Values = dict[tuple[str, ...], float]


def read(text: str) -> Values:
    """Return the samples of a text by their name and labels' values, as Prometheus' own parser reads them."""
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def printed(*options: str) -> Values:
    """Run the command, and return what it prints."""
    out = io.StringIO()
    call_command("signalbus", "metrics", *options, stdout=out)
    return read(out.getvalue())


@pytest.fixture
def counting() -> Iterator[None]:
    """Count outcomes, as a worker does."""
    outcome_counts.take()
    listen("done", "failed", "dead", "skipped")(outcome_counts.count)
    yield
    unlisten(outcome_counts.count)
    outcome_counts.take()


def flush() -> None:
    """Add what was counted to the ledger, as a worker does each ten seconds."""
    history.add_counts(outcome_counts.take(), worker="w:1")


@pytest.mark.usefixtures("counting")
def test_outcomes_are_counted_by_receiver(bus: Bus):
    """Each outcome has a counter, each attempt a place in the histogram of run times."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "crm.sync")
    fails(signal, ValueError("x"), "shop.ship", retry=Retry(max_attempts=2))
    signal.send(None)
    signal.send(None)
    bus.work()
    bus.come_again()
    flush()

    found = printed()
    of = f"signal={signal.name}"
    assert found["signalbus_deliveries_total", "outcome=done", "receiver=crm.sync", of] == 2
    assert found["signalbus_deliveries_total", "outcome=failed", "receiver=shop.ship", of] == 2
    assert found["signalbus_deliveries_total", "outcome=dead", "receiver=shop.ship", of] == 2
    assert found["signalbus_delivery_runtime_seconds_count", "receiver=shop.ship", of] == 4
    assert found["signalbus_delivery_runtime_seconds_bucket", "le=+Inf", "receiver=shop.ship", of] == 4
    assert found["signalbus_delivery_delay_seconds_count", "receiver=shop.ship", of] == 2
    assert found["signalbus_dead",] == 2

    as_celery = printed("--names", "celery")
    task = ("hostname=generic", "name=shop.ship", "queue_name=signalbus")
    assert as_celery[("celery_task_started_total", *task)] == 4
    assert as_celery[("celery_task_retried_total", *task)] == 2
    assert as_celery[("celery_task_failed_total", "exception=unknown", *task)] == 2
    assert as_celery[("celery_task_runtime_count", *task)] == 4
    assert as_celery["celery_worker_up", "hostname=generic"] == 0


def test_what_waits_is_counted_by_queue_and_state(bus: Bus):
    """The oldest has waited since it was due: not while it was scheduled, and not since an earlier attempt."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "mailer", queue="email")
    signal.send(None)
    signal.send_later(timedelta(hours=1), None)
    Delivery.objects.filter(state="published").update(due_at=F("due_at") - timedelta(minutes=5))
    Delivery.objects.update(created_at=F("created_at") - timedelta(days=1))

    found = printed()
    assert found["signalbus_waiting", "queue=email", "state=published"] == 1
    assert found["signalbus_waiting", "queue=email", "state=scheduled"] == 1
    assert found["signalbus_waiting", "queue=email", "state=pending"] == 0
    assert found["signalbus_waiting", "queue=signalbus", "state=published"] == 0
    assert 299 < found["signalbus_oldest_waiting_seconds", "queue=email"] < 400
    assert found["signalbus_oldest_waiting_seconds", "queue=signalbus"] == 0
    assert printed("--names", "celery")["celery_queue_length", "queue_name=email"] == 1


def test_workers_pauses_and_refused_texts_are_counted(bus: Bus):
    """Workers by release, the slots of each queue, and what a person should know."""
    described: dict[str, Any] = {
        "host": "a", "pid": 1, "pool": "prefork", "version": "0", "registry_digest": "", "receivers": {}
    }  # fmt: skip
    history.record_worker("a:1", {**described, "concurrency": 4, "queues": ["signalbus"], "release": "a1b2"})
    history.record_worker("b:1", {**described, "concurrency": 2, "queues": ["signalbus", "email"], "release": "c3d4"})
    pause("receiver", "crm.sync")
    for _ in range(3):
        refuse("forged", "unsigned", None)

    found = printed()
    assert found["signalbus_workers", "release=a1b2"] == 1
    assert found["signalbus_slots", "queue=signalbus"] == 6
    assert found["signalbus_slots", "queue=email"] == 2
    assert found["signalbus_paused", "kind=receiver", "name=crm.sync"] == 1
    assert found["signalbus_refused_total",] == 3
    as_celery = printed("--names", "celery")
    assert as_celery["celery_worker_up", "hostname=generic"] == 1
    assert as_celery["celery_active_worker_count", "queue_name=signalbus"] == 2


def test_long_runs_are_counted(bus: Bus):
    """A receiver that hangs is seen."""
    signal = new_signal(durable=True)
    ran: list[Any] = []
    connect(signal, lambda **kwargs: ran.append(1), "slow")
    signal.send(None)
    (row,) = Delivery.objects.all()
    clock = row.created_at
    RunningDelivery.objects.create(
        worker="w:1", delivery=row.pk, message=row.message_id, signal=signal.name, receiver="slow", attempt=1,
        started_at=clock - timedelta(minutes=2), seen_at=clock,
    )  # fmt: skip

    found = printed()
    assert found["signalbus_long_runs",] == 1
    assert 119 < found["signalbus_longest_run_seconds",] < 200


@pytest.mark.parametrize("database", ["sqlite"])
def test_a_registry_of_prometheus_client_gives_the_same(bus: Bus):
    """A project with a /metrics of its own registers the collector."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "there")
    signal.send(None)
    registry = CollectorRegistry()
    registry.register(SignalbusCollector())

    found = read(generate_latest(registry).decode())
    assert found.keys() == printed().keys()
    assert found["signalbus_waiting", "queue=signalbus", "state=published"] == 1


@pytest.mark.parametrize("database", ["sqlite"])
def test_hostile_names_do_not_break_the_text(database_url: str):
    """Names are data of the ledger: quotes, line breaks and any length."""
    counts = history.Counts()
    counts.done = 1
    name = 'a"b\\c\nd} 1\n' + "x" * 10_000
    history.add_counts({history.Series("", "", name, name): counts}, worker="w:1")

    (found,) = [key for key, value in printed().items() if key[0] == "signalbus_deliveries_total" and value == 1]
    assert all(len(part) < 300 for part in found)


@pytest.mark.parametrize("database", ["sqlite"])
def test_the_number_of_series_is_bounded(database_url: str, monkeypatch: pytest.MonkeyPatch):
    """What is beyond the limit is added up, so that sums stay right."""
    monkeypatch.setattr(metric_families, "MOST_SERIES", 3)
    counts = history.Counts()
    counts.done = 1
    history.add_counts({history.Series("", "", "s", f"r{number}"): counts for number in range(10)}, worker="w:1")

    done = {key: value for key, value in printed().items() if "outcome=done" in key}
    assert len(done) == 4
    assert sum(done.values()) == 10
    assert done["signalbus_deliveries_total", "outcome=done", "receiver=(others)", "signal=(others)"] == 7


def test_a_scrape_takes_few_statements(database_url: str):
    """Their number does not grow with the receivers, the queues or the rows."""
    counts = history.Counts()
    counts.done = 1
    history.add_counts({history.Series("", "", "s", f"r{number}"): counts for number in range(100)}, worker="w:1")
    with CaptureQueriesContext(connection) as queries:
        printed()

    assert len(queries) <= 8


def test_a_merge_changes_no_counter(database_url: str):
    """Otherwise Prometheus would see a reset, and compute a burst."""
    counts = history.Counts()
    counts.done = counts.runtimes[3] = 5
    history.add_counts({history.Series("a1b2", "", "s", "r"): counts}, worker="w:1")
    before = printed()
    Rollup.objects.update(bucket_at=F("bucket_at") - timedelta(hours=9))
    history.merge_counts(3600.0)

    assert {key: value for key, value in printed().items() if "receiver=r" in key} == {
        key: value for key, value in before.items() if "receiver=r" in key
    }


class TestView:
    """The view shows the metrics to who has the token or the permission."""

    pytestmark = [pytest.mark.usefixtures("database_url"), pytest.mark.parametrize("database", ["sqlite"])]

    @override_settings(SIGNALBUS={"METRICS_TOKEN": "s3cret"})
    def test_the_token_opens_it(self, client: Client):
        """As Prometheus sends it."""
        answer = client.get("/metrics", headers={"authorization": "Bearer s3cret"})

        assert answer.status_code == 200
        assert answer["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert "no-store" in answer["Cache-Control"]
        assert ("signalbus_dead",) in read(answer.content.decode())

    def test_a_user_needs_the_permission(self, client: Client):
        """Staff is not enough."""
        user = User.objects.create_user("ana", is_staff=True)
        client.force_login(user)
        assert client.get("/metrics").status_code == 403
        user.user_permissions.add(Permission.objects.get(codename="view_delivery"))
        assert client.get("/metrics").status_code == 200
        assert b"celery_worker_up" in client.get("/metrics?names=celery").content
        assert client.get("/metrics?names=other").status_code == 400
        assert client.post("/metrics").status_code == 405


def test_the_command_refuses_other_names():
    """It says which there are."""
    with pytest.raises(CommandError, match="celery"):
        printed("--names", "other")
