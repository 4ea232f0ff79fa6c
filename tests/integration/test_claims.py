"""Claims: an attempt is counted before it runs, only its claim can settle it, and redeliveries are limited."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, connections, transaction
from django.db.models import F

from signalbus import Retry, Signal, conf, current
from signalbus.ledger import attempts, operations
from signalbus.models import Delivery, State
from signalbus.receiving.routing.batch import deliver
from signalbus.receiving.sweeping.due_publication import sweep
from signalbus.wire.message import from_body

from .bus import QUEUE, Bus, connect, elsewhere, fails, let_wait, only, rows

if TYPE_CHECKING:
    from uuid import UUID


def fail_once(**kwargs: Any) -> None:
    """Fail at the first attempt."""
    delivery = current()
    assert delivery is not None
    if delivery.attempt == 1:
        raise ValueError


def test_a_worker_that_lost_its_claim_does_not_run_the_delivery(bus: Bus, signal: Signal, monkeypatch, caplog):
    """A worker that lost its claim before its transaction leaves the delivery to the new one."""
    ran: list[int] = []
    connect(signal, lambda **kwargs: ran.append(1), "receiver")
    signal.send(None)
    (texts,) = bus.take()
    claim = attempts.claim

    def overtaken(delivery: UUID, **options: Any) -> Any:
        mine = claim(delivery, **options)
        Delivery.objects.update(attempts=F("attempts") + 1, worker="w2")
        return mine

    monkeypatch.setattr(attempts, "claim", overtaken)
    deliver(texts, queue=QUEUE, redelivered=True)

    assert ran == []
    assert rows() == [("receiver", "running", 2)]
    assert "lost its claim" in caplog.text


def test_a_late_failure_does_not_overwrite_the_success_of_another_worker(bus: Bus, signal: Signal, caplog):
    """The settlement of a lost claim changes nothing, and says so."""

    def receiver_that_is_too_late(**kwargs):
        delivery = current()
        assert delivery is not None
        if delivery.attempt == 2:
            Delivery.objects.update(attempts=3, state=State.DONE)
        raise ValueError

    connect(signal, receiver_that_is_too_late, atomic=False)
    signal.send(None)
    bus.work()
    bus.come_again()

    assert rows() == [("receiver_that_is_too_late", "done", 3)]
    assert "failed after its claim was lost" in caplog.text


def test_a_recorded_copy_runs_once(bus: Bus, signal: Signal):
    """A delivery that the sweeper published twice is claimed once, and stays done."""
    ran = []

    def receiver(**kwargs):
        ran.append(1)
        fail_once()

    connect(signal, receiver, "receiver")
    signal.send(None)
    bus.work()
    for _ in range(3):
        Delivery.objects.update(state=State.PENDING, due_at=only().created_at)
        assert sweep() == 1
    assert bus.client.llen(QUEUE) == 3

    bus.work()

    assert ran == [1, 1]
    assert rows() == [("receiver", "done", 2)]


def test_a_redelivered_claim_is_a_failed_attempt(bus: Bus, signal: Signal):
    """A copy that comes while a delivery runs is dropped; one that the broker gives out again tells that the worker was
    lost: a failed attempt with a reason and a back-off.
    """
    ran = []
    connect(signal, lambda **kwargs: ran.append(1), "receiver", retry=Retry(base_delay=30, jitter=False))
    signal.send(None)
    ((text,),) = bus.take()
    message = from_body(conf.signer().verify(text))
    attempts.record_deliveries(message, ["receiver"], QUEUE)
    sweep()
    (texts,) = bus.take()
    assert attempts.claim(only().pk, worker="w1", lease=100, using="default") == (1, 0, 0, None)

    deliver(texts, queue=QUEUE)
    assert rows() == [("receiver", "running", 1)]
    deliver(texts, queue=QUEUE, redelivered=True)

    assert ran == []
    assert rows() == [("receiver", "pending", 1)]
    lost = only()
    assert lost.error == "its worker was lost in attempt 1"
    assert lost.failed_at is not None
    assert timedelta(seconds=29) < lost.due_at - lost.failed_at < timedelta(seconds=31)
    assert list(operations.failed()) == [lost]
    deliver(texts, queue=QUEUE, redelivered=True)
    assert ran == []
    bus.come_again()
    assert (ran, rows()) == ([1], [("receiver", "done", 2)])


def test_a_redelivered_claim_without_a_transaction_is_lost_once_its_lease_is_over(bus: Bus, signal: Signal):
    """Until then its process may still run it, and have lost only its broker."""
    ran = []
    connect(signal, lambda **kwargs: ran.append(1), "receiver", atomic=False)
    signal.send(None)
    ((text,),) = bus.take()
    attempts.record_deliveries(from_body(conf.signer().verify(text)), ["receiver"], QUEUE)
    sweep()
    (texts,) = bus.take()
    attempts.claim(only().pk, worker="w1", lease=100, using="default")

    deliver(texts, queue=QUEUE, redelivered=True)
    assert rows() == [("receiver", "running", 1)]
    let_wait()
    deliver(texts, queue=QUEUE, redelivered=True)

    assert (ran, rows()) == ([], [("receiver", "pending", 1)])
    assert only().error == "its worker was lost in attempt 1"


@pytest.mark.parametrize("atomic", [True, False])
def test_an_overdue_claim_is_a_failed_attempt(bus: Bus, signal: Signal, caplog, atomic: bool):
    """The sweeper writes down that its worker was lost, and publishes it after the receiver's back-off."""
    retry = Retry(base_delay=30, jitter=False)
    ran = []
    connect(signal, lambda **kwargs: ran.append(1), "receiver", atomic=atomic, retry=retry)
    signal.send(None)
    ((text,),) = bus.take()
    attempts.record_deliveries(from_body(conf.signer().verify(text)), ["receiver"], QUEUE)
    sweep()
    bus.take()
    attempts.claim(only().pk, worker="w1", lease=100, using="default")
    assert sweep() == 0

    let_wait()
    assert sweep() == 0

    assert rows() == [("receiver", "pending", 1)]
    lost = only()
    assert lost.error == "its worker was lost in attempt 1"
    assert lost.failed_at is not None
    assert lost.due_at - lost.failed_at > timedelta(seconds=29)
    assert lost.error in caplog.text
    assert bus.take() == []
    bus.come_again()
    assert (ran, rows()) == ([1], [("receiver", "done", 2)])


def test_a_redelivered_lone_message_counts_its_attempts(bus: Bus, signal: Signal):
    """Promise 4: a redelivery writes a row; each attempt is counted before it runs, so their number is limited."""
    killed = []

    def receiver_that_kills_its_worker(**kwargs):
        killed.append(1)
        raise KeyboardInterrupt  # the only thing that ends this process as a kill would, without settling anything

    connect(signal, receiver_that_kills_its_worker, "killer", retry=Retry(max_attempts=3))
    signal.send(None)
    (texts,) = bus.take()
    with pytest.raises(KeyboardInterrupt):
        deliver(texts, queue=QUEUE)
    for attempt, state in ((1, "pending"), (2, "pending"), (3, "dead")):
        with pytest.raises(KeyboardInterrupt):
            deliver(texts, queue=QUEUE, redelivered=True)
        assert rows() == [("killer", "running", attempt)]
        deliver(texts, queue=QUEUE, redelivered=True)
        assert rows() == [("killer", state, attempt)]
        Delivery.objects.update(due_at=F("created_at"))

    deliver(texts, queue=QUEUE, redelivered=True)

    assert len(killed) == 4
    assert rows() == [("killer", "dead", 3)]
    assert only().error == "its worker was lost in attempt 3"


def test_a_redelivered_batch_runs_one_by_one(bus: Bus, signal: Signal):
    """All other texts of the Celery message run, and only the one that kills its worker is dead at last."""
    ran: list[int] = []

    def receiver(sender, number, **kwargs):
        if number == 2:
            raise KeyboardInterrupt
        ran.append(number)

    connect(signal, receiver, "receiver", retry=Retry(max_attempts=2))
    with transaction.atomic():
        for number in range(5):
            signal.send(None, number=number)
    (texts,) = bus.take()
    with pytest.raises(KeyboardInterrupt):
        deliver(texts, queue=QUEUE)
    deliver(texts, queue=QUEUE, redelivered=True)
    assert rows() == [("receiver", "pending", 0)] * 5

    for _ in range(10):
        Delivery.objects.filter(state__in=("pending", "published", "running")).update(due_at=only_first().created_at)
        sweep()
        for taken in bus.take():
            try:
                deliver(taken, queue=QUEUE)
            except KeyboardInterrupt:  # the broker gives it out again, to the next worker
                try:
                    deliver(taken, queue=QUEUE, redelivered=True)
                except KeyboardInterrupt:
                    continue

    states = [state for _, state, _ in rows()]
    assert sorted(states) == ["dead", "done", "done", "done", "done"]
    assert set(ran) == {0, 1, 3, 4}


def only_first() -> Delivery:
    """Return any delivery."""
    return Delivery.objects.all()[0]


def test_retries_after_an_exception_are_batched(bus: Bus, signal: Signal):
    """A retry costs no more than a first attempt."""
    fails(signal, ValueError())
    with transaction.atomic():
        for _ in range(4):
            signal.send(None)
    bus.work()
    Delivery.objects.update(due_at=only_first().created_at)

    assert sweep() == 4

    assert [len(texts) for texts in bus.take()] == [4]


def test_slow_retries_run_alone(bus: Bus, signal: Signal):
    """No other one waits behind a call that times out."""
    fails(signal, ValueError(), atomic=False)
    with transaction.atomic():
        for _ in range(4):
            signal.send(None)
    bus.work()
    Delivery.objects.update(due_at=only_first().created_at, runtime_ms=1000)

    assert sweep() == 4

    assert [len(texts) for texts in bus.take()] == [1, 1, 1, 1]


def test_a_suspect_retry_runs_alone_and_is_counted_first(bus: Bus, signal: Signal, caplog):
    """A delivery that may have ended its worker stays under suspicion after an exception."""
    seen: list[Any] = []

    def receiver_that_raises(**kwargs):
        seen.extend(elsewhere(rows))
        raise ValueError

    connect(signal, receiver_that_raises, "suspect")
    signal.send(None)
    bus.work(redelivered=True)
    bus.come_again()
    bus.come_again()

    assert "lost deliveries" not in caplog.text
    assert seen == [[("suspect", "running", number)] for number in (1, 2, 3)]


def test_a_released_claim_waits_for_the_broker(bus: Bus, signal: Signal):
    """The broker still has the message; a second one would take the claim away. No attempt is counted."""
    ran = []
    connect(signal, lambda **kwargs: ran.append(1), "receiver", retry=Retry(max_attempts=1))
    signal.send(None)
    (texts,) = bus.take()
    attempts.record_deliveries(from_body(conf.signer().verify(texts[0])), ["receiver"], QUEUE)
    sweep()
    (texts,) = bus.take()
    assert attempts.claim(only().pk, worker="w", lease=100, using=attempts.using()) == (1, 0, 0, None)
    assert not attempts.unclaim(only().pk, 2)
    assert attempts.unclaim(only().pk, 1)

    assert sweep() == 0
    deliver(texts, queue=QUEUE, redelivered=True)

    assert ran == [1]
    assert rows() == [("receiver", "done", 1)]


def test_two_sweepers_at_once_publish_no_row_twice(bus: Bus, signal: Signal):
    """Each row is published once, in any order of the sweepers' steps."""
    connect(signal, lambda **kwargs: None, "receiver")
    signal.send(None)
    ((text,),) = bus.take()
    message = from_body(conf.signer().verify(text))
    attempts.record_deliveries(message, [f"receiver {number}" for number in range(400)], QUEUE)
    barrier = threading.Barrier(4)
    published: list[int] = []

    def sweeper() -> None:
        barrier.wait(timeout=10)
        try:
            published.append(sweep())
        finally:
            connections.close_all()

    threads = [threading.Thread(target=sweeper) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    while sweep():
        pass

    texts = [text for taken in bus.take() for text in taken]
    assert len(texts) == len(set(texts)) == 400
    assert connection.vendor == "sqlite" or sum(published) == 400


def test_simultaneous_claims_have_one_winner(bus: Bus, signal: Signal):
    """Of several workers with a copy, one runs it."""
    connect(signal, lambda **kwargs: None, "receiver")
    signal.send(None)
    ((text,),) = bus.take()
    attempts.record_deliveries(from_body(conf.signer().verify(text)), ["receiver"], QUEUE)
    delivery = only().pk
    barrier = threading.Barrier(4)
    claims: list[Any] = []

    def worker() -> None:
        barrier.wait(timeout=10)
        try:
            claims.append(attempts.claim(delivery, worker="w1", lease=100, using="default"))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    assert sorted(claims, key=lambda claim: claim is None) == [(1, 0, 0, None), None, None, None]


def test_an_idle_sweep_takes_no_lock(bus: Bus, django_assert_num_queries):
    """With nothing due, a sweep makes four reads: of pauses, of operations, of due rows, and of markers."""
    with django_assert_num_queries(4):
        assert sweep() == 0
