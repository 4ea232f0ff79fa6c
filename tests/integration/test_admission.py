"""Retries of one receiver are admitted by its share of a worker, so that they hold nobody else up."""

from __future__ import annotations

from collections import Counter

import pytest
from django.db import connection

from signalbus import Signal, ledger
from signalbus.ledger.base.clock import Now
from signalbus.ledger.sweeps.admission import AHEAD
from signalbus.models import Delivery, State

from .bus import Bus, connect, fails, new_signal

SLOW = round(10 * AHEAD * 1000)  # milliseconds of a run that takes a place of its own
ONE = ledger.Share("one", 1)


def failed(bus: Bus, count: int, uid: str = "failing", **columns: object) -> Signal:
    """Let a receiver fail so many times, and let time pass until all is due again."""
    signal = new_signal(durable=True)
    fails(signal, ValueError(), uid)
    signal.send_many(None, [{} for _ in range(count)])
    bus.work()
    Delivery.objects.filter(receiver=uid).update(due_at=Now(), **columns)
    return signal


def admitted(share: ledger.Share, limit: int = 1000) -> Counter[str]:
    """Return how many of each receiver a sweeper takes now."""
    return Counter(row.receiver for row in ledger.take_admitted(limit, share)[0])


@pytest.mark.parametrize("places", [1, 3])
def test_slow_retries_take_no_more_than_their_places(bus: Bus, places: int):
    """As many as keep the share busy are on their way; one more only when one has ended."""
    failed(bus, 10, runtime_ms=SLOW)
    share = ledger.Share("one", places)

    assert admitted(share) == {"failing": places}
    assert admitted(share) == {}
    begun = Delivery.objects.filter(state=State.PUBLISHED)[0]
    Delivery.objects.filter(id=begun.pk).update(state=State.RUNNING)
    assert admitted(share) == {}
    Delivery.objects.filter(id=begun.pk).update(state=State.DONE, ended_at=Now())
    assert admitted(share) == {"failing": 1}


def test_brief_retries_are_admitted_as_far_ahead_as_keeps_their_places_busy(bus: Bus):
    """An idle worker is kept at full speed, and the rest waits in the ledger, not on the broker."""
    failed(bus, 200, runtime_ms=5)

    rows, waiting = ledger.take_admitted(1000, ONE)

    assert len(rows) == pytest.approx(AHEAD / 0.005, abs=1)
    assert waiting


def test_retries_that_wait_hide_nothing_that_is_due_after_them(bus: Bus):
    """Another receiver's retries, and what has not run yet, are published all the same."""
    failed(bus, 30, "first", runtime_ms=SLOW)
    failed(bus, 30, "second", runtime_ms=SLOW)
    parked = new_signal(durable=True)
    connect(parked, lambda **kwargs: None, "third")
    parked.send_many(None, [{} for _ in range(5)])
    Delivery.objects.filter(receiver="third").update(state=State.PENDING, due_at=Now())

    assert admitted(ONE, limit=10) == {"first": 1, "second": 1, "third": 5}


def test_each_worker_has_a_share_of_its_own_which_ends_with_it(bus: Bus):
    """The bound of a fleet is the sum of its workers'; what a lost worker admitted is counted against nobody."""
    failed(bus, 10, runtime_ms=SLOW)

    assert admitted(ONE) == {"failing": 1}
    assert admitted(ledger.Share("two", 1)) == {"failing": 1}
    assert admitted(ONE) == {}


def test_first_attempts_and_what_is_due_for_the_first_time_are_not_bounded(bus: Bus):
    """What send_later() or a debounce has kept is no retry."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "later")
    signal.send_many(None, [{} for _ in range(20)])
    Delivery.objects.update(state=State.PENDING, due_at=Now())

    assert admitted(ONE) == {"later": 20}


def test_a_row_of_an_older_worker_is_admitted(bus: Bus):
    """0.4 writes down no time of a run that failed: each such retry counts as a slow one, once."""
    failed(bus, 3, runtime_ms=None)

    assert admitted(ONE) == {"failing": 1}


def test_the_admitted_are_counted_by_an_index(bus: Bus):
    """What is on its way is asked twenty times a second while retries wait: a backlog is never scanned."""
    if connection.vendor != "sqlite":
        pytest.skip("what PostgreSQL chooses follows from how much is there")
    with connection.cursor() as cursor:
        cursor.execute(
            "EXPLAIN QUERY PLAN SELECT receiver FROM signalbus_delivery "
            "WHERE admitted_by IS NOT NULL AND state IN ('published', 'running') AND admitted_by = 'one'"
        )
        assert "signalbus_admitted" in str(cursor.fetchall())
