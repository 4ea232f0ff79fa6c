"""Retries of one receiver are admitted by its share of a worker, so that other receivers do not wait."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from django.db import connection

from signalbus.ledger import sweeps as ledger
from signalbus.ledger.base.clock import Now
from signalbus.ledger.sweeps import retry_admission
from signalbus.ledger.sweeps.retry_admission import AHEAD
from signalbus.models import Delivery, State

from .bus import Bus, connect, fails, new_signal

if TYPE_CHECKING:
    from signalbus import Signal

SLOW = round(10 * AHEAD * 1000)  # milliseconds of a run that takes a place of its own
ONE = ledger.Share("one", 1)


def failed(bus: Bus, count: int, uid: str = "failing", **columns: object) -> Signal:
    """Let a receiver fail this number of times, and let time pass until all is due again."""
    signal = new_signal(durable=True)
    fails(signal, ValueError(), uid)
    signal.send_many(None, [{} for _ in range(count)])
    bus.work()
    Delivery.objects.filter(receiver=uid).update(due_at=Now(), **columns)
    return signal


def admitted(share: ledger.Share, limit: int = 1000) -> Counter[str]:
    """Return how many deliveries of each receiver a sweeper takes now."""
    return Counter(row.receiver for row in ledger.take_admitted(limit, share)[0])


@pytest.mark.parametrize("slots", [1, 3])
def test_slow_retries_use_no_more_than_their_share(bus: Bus, slots: int):
    """As many as keep the share busy are in flight; another one follows when one has ended."""
    failed(bus, 10, runtime_ms=SLOW)
    share = ledger.Share("one", slots)

    assert admitted(share) == {"failing": slots}
    assert admitted(share) == {}
    begun = Delivery.objects.filter(state=State.PUBLISHED)[0]
    Delivery.objects.filter(id=begun.pk).update(state=State.RUNNING)
    assert admitted(share) == {}
    Delivery.objects.filter(id=begun.pk).update(state=State.DONE, ended_at=Now())
    assert admitted(share) == {"failing": 1}


def test_brief_retries_are_admitted_ahead(bus: Bus):
    """An idle worker is kept busy, and the rest waits in the ledger, not on the broker."""
    failed(bus, 200, runtime_ms=5)

    rows, waiting = ledger.take_admitted(1000, ONE)

    assert len(rows) == pytest.approx(AHEAD / 0.005, abs=1)
    assert waiting


def test_waiting_retries_do_not_delay_other_due_deliveries(bus: Bus):
    """Another receiver's retries, and first attempts, are published."""
    failed(bus, 30, "first", runtime_ms=SLOW)
    failed(bus, 30, "second", runtime_ms=SLOW)
    parked = new_signal(durable=True)
    connect(parked, lambda **kwargs: None, "third")
    parked.send_many(None, [{} for _ in range(5)])
    Delivery.objects.filter(receiver="third").update(state=State.PENDING, due_at=Now())

    assert admitted(ONE, limit=10) == {"first": 1, "second": 1, "third": 5}


def test_a_vain_look_behind_waiting_retries_is_not_repeated_at_once(bus: Bus, monkeypatch):
    """It reads all retries that wait, and quick sweeps follow each other while they wait."""
    monkeypatch.setattr(retry_admission, "LOOK_BEHIND", 3600.0)
    failed(bus, 30, "first", runtime_ms=SLOW)
    share = ledger.Share("one", 1)
    assert admitted(share, limit=10) == {"first": 1}  # nothing is behind

    failed(bus, 3, "second", runtime_ms=SLOW)
    assert admitted(share, limit=10) == {}
    share.nothing_behind_until = 0.0
    assert admitted(share, limit=10) == {"second": 1}


def test_each_worker_has_its_own_share(bus: Bus):
    """The limit of a fleet is the sum of its workers' shares; a lost worker's retries do not count."""
    failed(bus, 10, runtime_ms=SLOW)

    assert admitted(ONE) == {"failing": 1}
    assert admitted(ledger.Share("two", 1)) == {"failing": 1}
    assert admitted(ONE) == {}


def test_first_attempts_are_not_limited(bus: Bus):
    """Messages of send_later() or a debounce are no retries."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "later")
    signal.send_many(None, [{} for _ in range(20)])
    Delivery.objects.update(state=State.PENDING, due_at=Now())

    assert admitted(ONE) == {"later": 20}


def test_a_row_of_an_older_worker_is_admitted(bus: Bus):
    """0.4 records no run time of a failure: each such retry counts as a slow one, once."""
    failed(bus, 3, runtime_ms=None)

    assert admitted(ONE) == {"failing": 1}


def test_the_admitted_are_counted_by_an_index(bus: Bus):
    """The retries in flight are counted twenty times a second: a backlog is never scanned."""
    if connection.vendor != "sqlite":
        pytest.skip("what PostgreSQL chooses follows from how much is there")
    with connection.cursor() as cursor:
        cursor.execute(
            "EXPLAIN QUERY PLAN SELECT receiver FROM signalbus_delivery "
            "WHERE admitted_by IS NOT NULL AND state IN ('published', 'running') AND admitted_by = 'one'"
        )
        assert "signalbus_admitted" in str(cursor.fetchall())
