"""`signalbus doctor` on a real database and a real Valkey: it finds what was broken, and nothing else."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from django.db import DatabaseError
from django.db.models import F
from django.utils import timezone

from signalbus.broker import redis_state
from signalbus.checks import check_visibility
from signalbus.doctor.examination import examine
from signalbus.ledger import operations
from signalbus.ledger import sweeps as ledger
from signalbus.ledger.base.clock import Now, later
from signalbus.models import Delivery, Key, WorkerRecord
from signalbus.receiving.routing.batch import deliver
from signalbus.registration.registry import registry
from signalbus.transport.unacked import QUARANTINE_LIST
from signalbus.wire.signing import Signer
from tests.servers import broker

from .bus import QUEUE, Bus, connect, new_signal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from signalbus.doctor.findings import Finding


def findings() -> dict[str, Finding]:
    """Return the findings by their names."""
    return {finding.name: finding for finding in examine()}


def levels(found: dict[str, Finding], level: str) -> set[str]:
    """Return the names of the findings of a level."""
    return {name for name, finding in found.items() if finding.level == level and not name.startswith("signalbus.")}


@pytest.fixture
def swept(bus: Bus) -> None:
    """Let a sweeper have worked just now."""
    ledger.acquire_purge_lease(0)


def test_doctor_reports_a_queue_without_a_worker(bus: Bus):
    """Nobody consumes the queue, and no sweeper works; all else is well."""
    found = findings()
    assert levels(found, "problem") == {
        *(f"queue.{queue}.consumers" for queue in (QUEUE, *registry.queues())),
        "ledger.sweepers",
    }
    assert {"clock.database", "clock.broker", "ledger.migrations", "broker.eviction", "keys"} <= levels(found, "ok")


def test_items_in_quarantine_are_a_warning(bus: Bus, swept: None):
    """Somebody has put into a queue what is no message; the finding names the list that keeps it."""
    assert findings()["broker.quarantine"].level == "ok"
    bus.client.lpush(QUARANTINE_LIST, "no message")

    found = findings()["broker.quarantine"]
    assert found.level == "warning"
    assert QUARANTINE_LIST in found.remedy


def test_doctor_accepts_a_working_sweeper(bus: Bus, swept: None):
    """A sweeper shows a sign each half minute."""
    assert findings()["ledger.sweepers"].level == "ok"
    Key.objects.update(used_at=later(-600))
    assert findings()["ledger.sweepers"].level == "problem"


def test_migration_that_is_not_applied(bus: Bus, monkeypatch):
    """What needs its tables is left out; the broker is judged all the same."""
    monkeypatch.setattr(operations, "unapplied_migrations", lambda: ["0006_x"])
    monkeypatch.setattr(operations, "backlogs", _without_tables)
    found = findings()
    assert found["ledger.migrations"].level == "problem"
    assert "ledger.sweepers" not in found
    assert "database.answers" not in found
    assert found["broker.eviction"].level == "ok"


def test_database_that_does_not_answer(bus: Bus, monkeypatch):
    """One finding says so."""
    monkeypatch.setattr(operations, "clock_of", _without_tables)
    found = findings()
    assert "no such table" in found["database.answers"].text
    assert found["broker.eviction"].level == "ok"


def _without_tables(*_args: object) -> None:
    raise DatabaseError("no such table")


@contextmanager
def configured(bus: Bus, **values: str) -> Iterator[None]:
    """Set the Valkey's configuration for a while."""
    former = {name: bus.client.config_get(name)[name] for name in values}
    try:
        for name, value in values.items():
            bus.client.config_set(name, value)
        yield
    finally:
        for name, value in former.items():
            bus.client.config_set(name, value)


def test_eviction_policy(bus: Bus):
    """A cache's policy would throw away messages."""
    with configured(bus, **{"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}):
        assert findings()["broker.eviction"].level == "problem"


def test_signal_that_is_not_durable_needs_persistence(bus: Bus):
    """Its messages are on the broker only."""
    connect(new_signal(durable=False), lambda **kwargs: None, "seen")
    finding = findings()["broker.persistence"]
    assert finding.level == "warning"
    assert "durable=False" in finding.text


def test_user_without_the_right_to_config(bus: Bus, monkeypatch):
    """A managed Redis has no CONFIG; what INFO tells is judged."""
    monkeypatch.setattr("redis.client.Redis.config_get", _refuse)
    state = redis_state.ask_redis()
    assert state is not None
    assert (state.policy, state.fsync) == ("noeviction", "")


def _refuse(*_args: object, **_kwargs: object) -> None:
    from redis.exceptions import ResponseError

    raise ResponseError("unknown command 'CONFIG'")


def test_broker_that_does_not_answer(bus: Bus):
    """One finding says so, with the remedy; the ledger is judged all the same."""
    with broker("redis://127.0.0.1:1/0"):
        found = findings()
    assert "CELERY_BROKER_URL" in found["broker.answers"].remedy
    assert found["ledger.migrations"].level == "ok"
    assert "queue.signalbus.consumers" not in found


def test_text_of_an_unknown_key(bus: Bus, swept: None):
    """A sender with another SECRET_KEY."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "receiver")
    signal.send(None)
    ((text,),) = bus.take()
    body = text.split(".", 2)[2]
    deliver([Signer(["another key"], 10_000).sign(body)], queue=QUEUE)
    assert findings()["keys"].level == "problem"


def test_purge_that_does_not_keep_up(bus: Bus, swept: None):
    """Deliveries that ended long ago; one whose message has an open delivery is kept rightly."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "receiver")
    signal.send(None)
    bus.work()
    Delivery.objects.update(ended_at=F("ended_at") - timedelta(days=3))
    found = findings()["ledger.purge"]
    assert found.level == "warning"
    assert "3 d" in found.text

    done = Delivery.objects.get()
    Delivery.objects.create(
        id=uuid4(), message=done.message, receiver="other", state="pending", due_at=Now(), created_at=Now()
    )
    assert findings()["ledger.purge"].level == "ok"


def test_oldest_waiting_delivery(bus: Bus, swept: None):
    """It has waited for an hour."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "receiver")
    signal.send(None)
    Delivery.objects.update(created_at=F("created_at") - timedelta(hours=3))
    found = findings()["queue.signalbus.waiting"]
    assert found.level == "problem"
    assert "3 h" in found.text


def test_each_queue_has_one_finding(bus: Bus, swept: None):
    """The default queue has an empty name in the ledger, and may be there under its own too; others are old ones."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "receiver")
    for queue in ("", QUEUE, "old"):
        signal.send(None)
        Delivery.objects.filter(queue="", state="published").update(queue=queue)
    signal.send(None)
    found = [finding.name for finding in examine() if finding.name.startswith("queue.")]
    assert len(found) == len(set(found))
    assert {"queue.signalbus.waiting", "queue.old.waiting", "queue.old.consumers"} <= set(found)


def test_workers_with_other_receivers_and_releases(bus: Bus, swept: None):
    """A worker that was seen lately is compared with this process, one that is gone is not."""
    connect(new_signal(durable=True), lambda **kwargs: None, "receiver")
    now = timezone.now()
    for name, release, seen_at in (("host:1", "old", now), ("host:2", "older", now - timedelta(hours=1))):
        WorkerRecord.objects.create(
            name=name, host="host", pid=1, pool="prefork", concurrency=2, queues=[QUEUE], version="0.5.0",
            release=release, registry_digest="x", receivers={}, started_at=now, seen_at=seen_at,
        )  # fmt: skip
    found = findings()
    assert "host:1 lacks" in found["workers.receivers"].text
    assert "release old" in found["workers.releases"].text
    assert "host:2" not in found["workers.receivers"].text + found["workers.releases"].text


def test_visibility_timeout_that_is_too_short(bus: Bus, monkeypatch):
    """`check` warns of it as well: it needs no server."""
    monkeypatch.setattr("signalbus.checks.visibility_timeout", lambda: 10.0)
    monkeypatch.setattr("signalbus.doctor.examination.visibility_timeout", lambda: 10.0)
    assert findings()["broker.visibility_timeout"].level == "problem"
    assert [message.id for message in check_visibility()] == ["signalbus.W009"]
    assert "signalbus.W009" not in findings()
