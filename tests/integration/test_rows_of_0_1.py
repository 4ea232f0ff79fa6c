"""Deliveries that 0.1 recorded have other ids, and still one row each."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid5

import pytest
from django.db.models import F

from signalbus import Retry
from signalbus.ledger import attempts as ledger
from signalbus.ledger.base.clock import later
from signalbus.models import Delivery, State
from signalbus.receiving.routing.batch import deliver
from signalbus.receiving.sweeping.due_publication import sweep
from signalbus.receiving.sweeping.sweeper import Purge
from signalbus.wire.message import delivery_id

from .bus import QUEUE, Bus, connect, new_signal, only, rows

if TYPE_CHECKING:
    from signalbus import Signal


@pytest.fixture
def durable() -> Signal:
    """A durable signal without receivers."""
    return new_signal(durable=True)


def as_of_0_1() -> None:
    """Give the only delivery the id that 0.1 would have computed."""
    row = only()
    Delivery.objects.filter(id=row.pk).update(id=uuid5(row.message_id, row.receiver))


@pytest.mark.parametrize("atomic", [True, False])
def test_a_delivery_that_0_1_recorded_runs_once(bus: Bus, durable: Signal, atomic: bool):
    """The delivery is found by its message and receiver."""
    ran: list[int] = []
    connect(durable, lambda **kwargs: ran.append(1), "receiver", atomic=atomic)
    durable.send(None)
    as_of_0_1()

    ((text,),) = bus.take()
    deliver([text], queue=QUEUE)
    deliver([text], queue=QUEUE)

    assert ran == [1]
    assert rows() == [("receiver", "done", 1)]


def test_a_row_that_a_sweeper_of_0_1_published_is_checked_soon(bus: Bus, durable: Signal):
    """The row would wait for three times TIME_LIMIT; rows of ours, and running ones, do not change."""
    connect(durable, lambda **kwargs: None, "receiver")
    durable.send_many(None, [{}, {}])
    theirs, ours = Delivery.objects.order_by("id")
    Delivery.objects.filter(id=theirs.pk).update(due_at=later(3 * 300.0))

    Purge().step()

    asked_for = dict(Delivery.objects.values_list("id", "due_at"))
    assert asked_for[theirs.pk] < theirs.due_at + timedelta(seconds=60)
    assert asked_for[ours.pk] == ours.due_at


def test_a_row_of_0_1_is_parked_in_place(bus: Bus, durable: Signal):
    """A worker that does not know the receiver makes no second row."""
    connect(durable, lambda **kwargs: None, "receiver")
    durable.send(None)
    as_of_0_1()
    durable.disconnect(dispatch_uid="receiver")

    bus.work()

    assert rows() == [("receiver", "parked", 0)]


def test_a_failure_is_recorded_in_the_row_of_0_1(bus: Bus, durable: Signal):
    """The next attempt finds it again."""
    ran: list[int] = []

    def fail_once(**kwargs: object) -> None:
        ran.append(1)
        if len(ran) == 1:
            raise ValueError("once")

    connect(durable, fail_once, "receiver", retry=Retry(base_delay=0.001, jitter=False))
    durable.send(None)
    as_of_0_1()
    bus.work()
    Delivery.objects.update(due_at=F("created_at"))
    sweep()
    bus.work()

    assert rows() == [("receiver", "done", 2)]


def test_a_duplicate_row_of_0_1_is_deleted(bus: Bus, durable: Signal):
    """The duplicate was parked beside the sender's row: the worker that runs the delivery deletes it, and runs the
    delivery once.
    """
    ran: list[int] = []
    connect(durable, lambda **kwargs: ran.append(1), "receiver")
    durable.send(None)
    ((text,),) = bus.take()
    row = only()
    double = uuid5(row.message_id, "receiver")
    Delivery.objects.create(
        id=double, message_id=row.message_id, receiver="receiver", queue=QUEUE, state=State.PUBLISHED,
        due_at=row.due_at, created_at=row.created_at,
    )  # fmt: skip

    deliver([text], queue=QUEUE)
    deliver([text], queue=QUEUE)

    assert ran == [1]
    assert ledger.earlier_id(row.message_id, "receiver") is None
    assert [each.pk for each in Delivery.objects.all()] == [delivery_id(row.message_id, "receiver")]
