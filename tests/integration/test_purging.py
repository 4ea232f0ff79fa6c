"""Ended deliveries are kept for a while, and then deleted by the sweepers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import transaction
from django.db.models import F

from signalbus import Reject, Retry, Signal, conf
from signalbus.ledger import sweeps as ledger
from signalbus.ledger.base.clock import Now
from signalbus.models import Alert, Delivery, FailedAttempt, Key, Operation, State, StoredMessage
from signalbus.receiving.sweeping import sweeper
from signalbus.receiving.sweeping.sweeper import Purge, Sweeper
from tests.servers import wait_until

from .bus import Bus, connect, elsewhere, new_signal, rows


@pytest.fixture
def durable() -> Signal:
    """A durable signal with a receiver that succeeds."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "receiver")
    return signal


def receiver_that_raises(**kwargs: Any) -> None:
    """Raise an error."""
    raise ValueError("bad")


def grow_old(seconds: float = 2 * 86400) -> None:
    """Let time pass since everything ended, was sent and was used."""
    age = timedelta(seconds=seconds)
    Delivery.objects.update(ended_at=F("ended_at") - age, created_at=F("created_at") - age)
    StoredMessage.objects.update(created_at=F("created_at") - age)
    Key.objects.update(used_at=F("used_at") - age)


def purge_all(purge: Purge) -> int:
    """Let a sweeper purge until nothing is left; return the number of batches."""
    batches = 0
    while purge.step():
        batches += 1
    return batches


def test_a_done_delivery_is_kept_for_a_day(bus: Bus, durable: Signal):
    """After a day the sweeper deletes the message and its deliveries, in small batches."""
    assert conf.get().KEEP_SECONDS == 86400
    durable.send_many(None, [{} for _ in range(5)])
    bus.work()
    assert purge_all(Purge()) == 0
    assert len(rows()) == 5

    grow_old()
    purge_all(Purge())

    assert rows() == []
    assert not StoredMessage.objects.exists()


def test_a_purge_goes_in_small_batches(bus: Bus, durable: Signal, monkeypatch):
    """Between two of them the sweeper publishes due deliveries."""
    monkeypatch.setattr(sweeper, "PURGE_BATCH", 2)
    durable.send_many(None, [{} for _ in range(5)])
    bus.work()
    grow_old()

    assert purge_all(Purge()) == 3


def test_one_sweeper_purges_at_a_time(bus: Bus, durable: Signal):
    """Another one that asks meanwhile does not."""
    assert ledger.acquire_purge_lease(60)
    durable.send(None)
    bus.work()
    grow_old(0)

    assert not ledger.acquire_purge_lease(60)
    assert purge_all(Purge()) == 0

    Key.objects.update(used_at=F("used_at") - timedelta(seconds=61))
    assert ledger.acquire_purge_lease(60)


def test_dead_and_waiting_deliveries_are_never_purged(bus: Bus, durable: Signal):
    """A person decides over dead ones, and their messages stay whole."""

    def receiver_that_rejects(**kwargs):
        raise Reject("no")

    connect(durable, receiver_that_rejects, "bad")
    durable.send(None)
    bus.work()
    durable.send(None)
    grow_old()

    purge_all(Purge())

    assert sorted(state for _, state, _ in rows()) == ["dead", "done", "published", "published"]


@pytest.mark.parametrize("database", ["postgres"])
def test_a_purge_skips_locked_rows(bus: Bus, durable: Signal):
    """The message of a locked row is not deleted either."""
    durable.send_many(None, [{}, {}])
    bus.work()
    grow_old()

    with transaction.atomic():
        Delivery.objects.select_for_update().order_by("id").first()
        assert elsewhere(lambda: ledger.purge_some(3600, batch=10)) == [1]

    assert Delivery.objects.count() == StoredMessage.objects.count() == 1


def test_the_sweeper_purges_by_itself(bus: Bus, durable: Signal):
    """No cron job is needed."""
    durable.send(None)
    bus.work()
    grow_old()

    thread = Sweeper(0.05)
    thread.start()
    try:
        wait_until(lambda: not Delivery.objects.exists(), what="a purge")
    finally:
        thread.stop()
        thread.join(10)


def test_purge_by_hand_deletes_messages_without_deliveries(bus: Bus, durable: Signal):
    """The rows of their deliveries were deleted directly in the database."""
    durable.send(None)
    Delivery.objects.all().delete()
    assert ledger.purge(3600) == 0
    assert StoredMessage.objects.exists()

    grow_old()
    ledger.purge(3600)

    assert not StoredMessage.objects.exists()


def new_key(**fields: Any) -> UUID:
    """Make a key that was used a moment ago."""
    return Key.objects.create(id=uuid4(), used_at=Now(), **fields).pk


def test_unused_keys_are_purged(bus: Bus, durable: Signal):
    """A key with a waiting message stays; an order begins again behind all its positions."""
    durable.send(None)
    durable.send(None)
    waiting, done = Delivery.objects.order_by("created_at")
    stands, stood, idle = new_key(message=waiting.message_id), new_key(message=done.message_id), new_key(position=7)
    Delivery.objects.filter(id=done.id).update(state=State.DONE, ended_at=Now())
    assert ledger.purge_keys(3600) == 0

    grow_old()

    assert ledger.purge_keys(3600, batch=2) == 2
    assert set(Key.objects.values_list("id", flat=True)) == {stands}
    assert not Key.objects.filter(id__in=[idle, stood]).exists()


@pytest.mark.parametrize("database", ["postgres"])
def test_a_key_that_a_sender_holds_is_in_use(bus: Bus):
    """A message that the sender is about to commit may use it."""
    new_key()
    grow_old()

    with transaction.atomic():
        Key.objects.select_for_update().get()
        assert elsewhere(lambda: ledger.purge_keys(3600)) == [0]

    assert ledger.purge_keys(3600) == 1


@pytest.mark.parametrize("database", ["sqlite"])
def test_a_purge_reads_only_old_rows(bus: Bus):
    """SQLite finds them by the index of ended deliveries."""
    query = Delivery.objects.filter(state=State.DONE, ended_at__lte=Now()).order_by("ended_at")

    assert "USING INDEX signalbus_over" in query.explain()


def test_each_state_may_be_kept_for_another_time(bus: Bus, durable: Signal):
    """A skipped delivery may stay for a week, and a dead one end after a month; its failed attempts end with it."""
    ages = {"done": 86400.0, "skipped": 7 * 86400.0, "dead": 30 * 86400.0}
    fails = new_signal(durable=True)
    connect(fails, receiver_that_raises, "failing", retry=Retry(max_attempts=1))
    for _ in range(2):
        durable.send(None)
    fails.send(None)
    bus.work()
    first = Delivery.objects.filter(state=State.DONE).order_by("id").values_list("id", flat=True)[0]
    Delivery.objects.filter(id=first).update(state=State.SKIPPED)
    assert FailedAttempt.objects.count() == 1

    def states_after(seconds: float) -> list[str]:
        grow_old(seconds)
        while ledger.purge_some(86400.0, ages=ages, batch=10):
            pass
        return sorted(state for _, state, _ in rows())

    assert states_after(2 * 86400) == ["dead", "skipped"]
    assert states_after(6 * 86400) == ["dead"]
    assert states_after(20 * 86400) == ["dead"]
    assert states_after(3 * 86400) == []
    assert not FailedAttempt.objects.exists()


def test_a_message_is_kept_as_long_as_the_longest_of_its_deliveries(bus: Bus, signal: Signal):
    """Else an audit could not tell which is missing."""
    both = new_signal(durable=True)
    connect(both, lambda **kwargs: None, "one")
    connect(both, lambda **kwargs: None, "two")
    both.send(None)
    bus.work()
    Delivery.objects.filter(receiver="two").update(state=State.SKIPPED)
    grow_old()

    assert ledger.purge_some(86400.0, ages={"done": 86400.0, "skipped": 7 * 86400.0}, batch=10) == 0
    assert len(rows()) == 2


def test_old_operations_and_alerts_are_deleted(database_url: str):
    """Those that have not ended stay."""
    for ended in (None, Now()):
        Operation.objects.create(kind="retry", through="code", created_at=Now(), ended_at=ended)
        Alert.objects.create(kind="dead", text="one", raised_at=Now(), cleared_at=ended)
    age = timedelta(days=100)
    Operation.objects.update(ended_at=F("ended_at") - age)
    Alert.objects.update(cleared_at=F("cleared_at") - age)

    ledger.purge_log(float("inf"), float("inf"))
    assert (Operation.objects.count(), Alert.objects.count()) == (2, 2)
    ledger.purge_log(365 * 86400, 30 * 86400)
    assert (Operation.objects.count(), Alert.objects.count()) == (2, 1)
    ledger.purge_log(30 * 86400, 30 * 86400)
    assert (Operation.objects.count(), Alert.objects.count()) == (1, 1)


@pytest.mark.parametrize("ages", [{}, {"skipped": 60.0}])
def test_a_state_that_is_kept_for_ever_is_not_purged(bus: Bus, durable: Signal, ages: dict[str, float]):
    """Such a state has no age in the settings."""
    durable.send(None)
    bus.work()
    grow_old(365 * 86400)

    assert ledger.purge_some(60.0, ages=ages, batch=10) == 0
    assert len(rows()) == 1
