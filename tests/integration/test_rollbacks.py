"""A receiver that asks for a rollback in its transaction, or goes on after an error, and its delivery's error."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.test import TestCase

from signalbus.models import Delivery
from signalbus.testing import DeliveryFailed, captured
from tasks.admissions.models import Academy

from .bus import Bus, connect, new_signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalbus import Signal

ASKED = "asked for a rollback of its whole transaction"
WENT_ON = "went on after a database error in its transaction"


@pytest.fixture
def durable() -> Signal:
    """A durable signal without receivers."""
    return new_signal(durable=True)


def insert_twice() -> None:
    """Break a constraint."""
    Academy.objects.create(name="A", slug="one")
    Academy.objects.create(name="B", slug="one")


def ask() -> None:
    """Ask for a rollback, after a write."""
    Academy.objects.create(name="A", slug="phantom")
    transaction.set_rollback(True)


def ask_through_the_connection() -> None:
    """The same, by the connection's own name."""
    connection.set_rollback(True)


def ask_by_an_inner_block() -> None:
    """Leave a block without a savepoint by an error, and go on."""
    with suppress(ValueError), transaction.atomic(savepoint=False):
        raise ValueError


def ask_after_an_error() -> None:
    """Ask for a rollback after an error that a block of its own has undone: Django does not tell these apart."""
    with suppress(IntegrityError), transaction.atomic():
        insert_twice()
    transaction.set_rollback(True)


def go_on_after_an_error() -> None:
    """Go on after an error of the ORM, which Django keeps."""
    with suppress(IntegrityError):
        insert_twice()


def go_on_after_an_error_in_sql() -> None:
    """Go on after an error that only the server knows."""
    with suppress(DatabaseError), connection.cursor() as cursor:
        cursor.execute("SELECT nothing FROM nowhere")


ENDS: dict[str, tuple[Callable[[], None], str]] = {
    "set_rollback": (ask, ASKED),
    "the connection's": (ask_through_the_connection, ASKED),
    "an inner block": (ask_by_an_inner_block, ASKED),
    "after an error": (ask_after_an_error, WENT_ON),
    "an error": (go_on_after_an_error, WENT_ON),
}


def receive(durable: Signal, misbehave: Callable[[], None], **options: Any) -> None:
    """Connect a receiver that misbehaves at the number 1."""

    def receiver(number: int, **kwargs: Any) -> None:
        if number == 1:
            misbehave()

    connect(durable, receiver, "receiver", **options)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("how", ENDS)
def test_a_delivery_says_why_its_transaction_could_not_be_committed(bus: Bus, durable: Signal, how: str, count: int):
    """The error of a receiver that asks for a rollback names the remedy, alone and in a group commit."""
    misbehave, words = ENDS[how]
    receive(durable, misbehave)
    durable.send_many(None, [{"number": number} for number in range(2 - min(count, 2), 2 - min(count, 2) + count)])

    bus.work()

    (failed,) = Delivery.objects.filter(state="pending")
    assert words in failed.error
    assert (ASKED in failed.error) != (WENT_ON in failed.error)
    assert "raise an exception" in failed.error if words == ASKED else "inside the try" in failed.error
    assert Delivery.objects.filter(state="done").count() == count - 1
    assert not Academy.objects.exists()


@pytest.mark.parametrize("database", ["postgres"])
def test_an_error_that_only_the_server_knows_is_no_requested_rollback(bus: Bus, durable: Signal):
    """The server refuses all further statements."""
    receive(durable, go_on_after_an_error_in_sql)
    durable.send(None, number=1)
    bus.work()

    assert WENT_ON in Delivery.objects.get().error


def test_an_error_of_an_earlier_run_is_not_reported(bus: Bus, durable: Signal):
    """Django keeps the last one on the connection; the error of this run is the cause."""
    receive(durable, go_on_after_an_error)
    asks = new_signal(durable=True)
    receive(asks, ask)
    durable.send(None, number=1)
    bus.work()
    asks.send(None, number=1)
    bus.work()

    errors = dict(Delivery.objects.values_list("message__signal", "error"))
    assert WENT_ON in errors[durable.name]
    assert ASKED in errors[asks.name]
    tracebacks = dict(Delivery.objects.values_list("message__signal", "traceback"))
    assert "IntegrityError" in tracebacks[durable.name]
    assert "IntegrityError" not in tracebacks[asks.name]


@pytest.mark.parametrize("options", [{"durable": False}, {"durable": True}])
def test_a_retry_and_a_delivery_without_a_row_say_why_too(bus: Bus, options: dict[str, bool]):
    """Each way of running a delivery reports it."""
    signal = new_signal(**options)
    receive(signal, ask)
    signal.send(None, number=1)
    bus.work()
    bus.come_again()

    failed = Delivery.objects.get()
    assert (failed.state, failed.attempts) == ("pending", 2)
    assert ASKED in failed.error


def test_a_rollback_in_a_test_is_an_error_of_the_test(bus: Bus, durable: Signal):
    """The test's own transaction goes on."""
    receive(durable, ask)
    with transaction.atomic(), captured() as sent, TestCase.captureOnCommitCallbacks():
        durable.send(None, number=1)
        with pytest.raises(DeliveryFailed, match=ASKED):
            sent.deliver_all()
        assert not Academy.objects.exists()
