"""A message for later waits in the ledger, until its time by the database's clock, and can be cancelled."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

import signalbus
from signalbus import Signal
from signalbus.exceptions import ConfigurationError, DueError
from signalbus.ledger.base import deliveries
from signalbus.ledger.base.clock import Now
from signalbus.ledger.sweeps import due
from signalbus.models import Delivery, StoredMessage
from signalbus.receiving.sweeping.due_publication import sweep
from signalbus.testing import captured, immediate

from .bus import QUEUE, Bus, connect, elsewhere, new_signal, only, rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

HOUR = timedelta(hours=1)


@pytest.fixture(params=[True, False], ids=["durable", "not durable"])
def heard(request: pytest.FixtureRequest, ran: list[Any]) -> Signal:
    """A signal with a receiver that records its calls."""
    signal = new_signal(durable=request.param)
    connect(signal, lambda number, **_: ran.append(number), "receiver")
    return signal


def pass_time(seconds: float) -> None:
    """Make all waiting deliveries due this much earlier."""
    Delivery.objects.update(due_at=F("due_at") - timedelta(seconds=seconds))


def id_of(sent: signalbus.Sent) -> UUID:
    assert sent.id is not None
    return sent.id


def test_a_scheduled_message_runs_when_it_is_due_and_not_before(bus: Bus, heard: Signal, ran: list[Any]):
    """The message waits as pending, is published when its time has come, and runs once."""
    heard.send_later(HOUR, None, number=1)

    assert (rows(), sweep(), bus.work()) == ([("receiver", "pending", 0)], 0, 0)
    pass_time(3590)
    assert (sweep(), bus.work()) == (0, 0)
    pass_time(11)
    assert (sweep(), bus.work()) == (1, 1)
    assert ran == [1]
    assert rows() == [("receiver", "done", 1)]


def test_a_delay_counts_from_the_databases_clock(bus: Bus, heard: Signal):
    """A timedelta is added to the database's clock, not to the sender's."""
    heard.send_later(HOUR, None, number=1)

    left = Delivery.objects.annotate(clock=Now()).get()
    assert (left.due_at - left.clock).total_seconds() == pytest.approx(3600, abs=5)


def test_an_aware_datetime_is_the_due_time(bus: Bus, heard: Signal):
    """The time zone of the datetime does not matter."""
    when = datetime(2099, 5, 17, 12, 30, 0, 250_000, tzinfo=timezone.get_fixed_timezone(120))

    heard.send_later(when, None, number=1)

    assert only().due_at == when


@pytest.mark.parametrize("past", [timedelta(days=-3), datetime(1066, 10, 14, tzinfo=UTC), timedelta.min])
def test_a_time_in_the_past_is_due_at_once(bus: Bus, heard: Signal, ran: list[Any], past: timedelta | datetime):
    """The message is published at once."""
    heard.send_later(past, None, number=1)

    assert (sweep(), bus.work()) == (1, 1)
    assert ran == [1]


@pytest.mark.parametrize("when", [datetime(2099, 1, 1), 60, None, timedelta.max])
def test_an_invalid_time_is_refused(bus: Bus, heard: Signal, when: Any):
    """A naive time under USE_TZ, or a value that is no time, raises, and nothing is sent."""
    with pytest.raises(DueError, match=r"timedelta|datetime"):
        heard.send_later(when, None, number=1)

    assert rows() == []


@pytest.mark.parametrize("when", [HOUR, datetime(2099, 1, 1), datetime(2099, 1, 1, tzinfo=UTC)])
def test_without_use_tz_a_naive_time_is_local(bus: Bus, heard: Signal, settings: Any, when: Any):
    """Such a project has no time zones."""
    settings.USE_TZ = False

    heard.send_later(when, None, number=1)

    assert rows() == [("receiver", "pending", 0)]
    assert sweep() == 0


def test_a_scheduled_message_is_part_of_the_transaction(bus: Bus, heard: Signal):
    """A rollback removes it; a commit keeps it, and publishes nothing."""
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        heard.send_later(HOUR, None, number=1)
        raise ZeroDivisionError
    assert not StoredMessage.objects.exists()

    with transaction.atomic():
        heard.send_later(HOUR, None, number=1)

    assert rows() == [("receiver", "pending", 0)]
    assert bus.client.llen(QUEUE) == 0


def test_a_coroutine_can_schedule_a_message(bus: Bus, heard: Signal):
    """asend_later records it as send_later does."""
    from asgiref.sync import async_to_sync

    sent = async_to_sync(heard.asend_later)(HOUR, None, number=1)

    assert only().message_id == sent.id


def test_each_recipient_waits_in_its_own_queue(bus: Bus, heard: Signal, ran: list[Any]):
    """A message of two queues waits as a whole, and can be cancelled as a whole."""
    connect(heard, lambda **_: ran.append("slow"), "slow", queue="slow")
    sent = heard.send_later(HOUR, None, number=1)
    assert rows() == [("receiver", "pending", 0), ("slow", "pending", 0)]

    assert signalbus.cancel(id_of(sent)) is True
    assert rows() == [("receiver", "discarded", 0), ("slow", "discarded", 0)]


def test_inline_receivers_are_not_called(bus: Bus, heard: Signal, ran: list[Any]):
    """Nothing runs in the sender's process, neither now nor later."""
    connect(heard, lambda **_: ran.append("inline"), "inline", inline=True)

    assert heard.send_later(timedelta(), None, number=1) == []

    assert ran == []
    assert rows() == [("receiver", "pending", 0)]


def test_without_receivers_nothing_is_recorded(bus: Bus, ran: list[Any]):
    """There is nothing to cancel."""
    signal = new_signal()
    connect(signal, lambda **_: ran.append("inline"), "inline", inline=True)

    sent = signal.send_later(HOUR, None)

    assert sent.id is None
    assert signalbus.cancel(sent.id) is False
    assert rows() == []


def test_an_ordered_signal_cannot_be_scheduled(bus: Bus):
    """A scheduled message would block the rest of its key; the error names the remedy."""
    with pytest.raises(ConfigurationError, match="ordered"):
        new_signal(durable=True, ordered_by="number").send_later(HOUR, None, number=1)


def test_a_cancelled_message_never_runs_and_can_be_seen(bus: Bus, heard: Signal, ran: list[Any]):
    """The deliveries of the message end as discarded; a second cancel() returns False."""
    sent = heard.send_later(HOUR, None, number=1)

    assert signalbus.cancel(str(sent.id)) is True
    assert signalbus.cancel(id_of(sent)) is False

    pass_time(7200)
    assert (sweep(), bus.work(), ran) == (0, 0, [])
    assert (only().state, only().error) == ("discarded", "cancelled")


def test_a_published_message_can_be_cancelled(bus: Bus, ran: list[Any]):
    """No worker has taken it; its copy at the broker is dropped."""
    signal = new_signal(durable=True)
    connect(signal, lambda **_: ran.append(1), "receiver")
    sent = signal.send(None)

    assert signalbus.cancel(id_of(sent)) is True

    assert bus.work() == 1
    assert ran == []


def test_a_cancelled_open_message_reaches_no_receiver(bus: Bus, ran: list[Any]):
    """The worker that looks up its receivers may still have its copy."""
    heard = new_signal(durable=True, open=True)
    connect(heard, lambda number, **kwargs: ran.append(number), "receiver")
    sent = heard.send(None, number=1)

    assert signalbus.cancel(id_of(sent)) is True

    bus.work()
    bus.come_again()
    assert ran == []
    assert rows() == [("", "discarded", 0)]


def test_a_message_that_has_begun_cannot_be_cancelled(bus: Bus, ran: list[Any]):
    """One delivery runs, or has run; the others run too."""
    signal = new_signal(durable=True)
    told: list[object] = []

    def receiver_that_cancels(**_):
        told.extend(elsewhere(lambda: signalbus.cancel(id_of(sent))) if connection.vendor == "postgresql" else [False])

    connect(signal, receiver_that_cancels, "a")
    connect(signal, lambda **_: ran.append(1), "b")
    sent = signal.send(None)

    bus.work()
    sweep()
    bus.work()

    assert told == [False]
    assert signalbus.cancel(id_of(sent)) is False
    assert ran == [1]
    assert rows() == [("a", "done", 1), ("b", "done", 1)]


def test_a_rolled_back_cancellation_has_no_effect(bus: Bus, heard: Signal, ran: list[Any]):
    """The transaction in which it is cancelled decides."""
    sent = heard.send_later(HOUR, None, number=1)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        assert signalbus.cancel(id_of(sent)) is True
        raise ZeroDivisionError

    pass_time(3601)
    assert (sweep(), bus.work(), ran) == (1, 1, [1])


def test_a_message_in_an_uncommitted_cancellation_does_not_run(bus: Bus, ran: list[Any]):
    """After a rollback of the cancellation it is delivered."""
    if connection.vendor != "postgresql":
        pytest.skip("one writer at a time: the worker waits")
    signal = new_signal(durable=True)
    connect(signal, lambda **_: ran.append(1), "a")
    connect(signal, lambda **_: ran.append(2), "b")
    sent = signal.send(None)
    Delivery.objects.filter(receiver="b").update(attempts=1)  # begun
    with transaction.atomic():
        assert signalbus.cancel(id_of(sent)) is False
        elsewhere(bus.work)
        assert 1 not in ran

    assert (sweep(), bus.work()) == (1, 1)
    assert sorted(ran) == [1, 2]


def test_captured_shows_scheduled_messages(bus: Bus, heard: Signal, ran: list[Any]):
    """deliver_all() delivers them like others."""
    with captured() as sent:
        heard.send_later(HOUR, None, number=1)
        sent.assert_sent(heard, number=1)
        sent.deliver_all()

    assert ran == [1]
    assert rows() == []


def test_immediate_delivers_a_scheduled_message_at_once(bus: Bus, heard: Signal, ran: list[Any]):
    """A suite that asserts right after a send sees the result."""
    with immediate():
        heard.send_later(HOUR, None, number=1)

    assert ran == [1]


@pytest.mark.parametrize("look", [lambda: due.take_due(100), due.anything_due, lambda: not due.look().is_idle])
def test_a_sweep_does_not_read_the_rows_of_scheduled_messages(bus: Bus, heard: Signal, look: Callable[[], object]):
    """A sweep reads a range of the index of due rows, and scheduled messages are outside of it."""
    heard.send_later(HOUR, None, number=1)
    one = only()
    Delivery.objects.bulk_create(
        deliveries.new_delivery(one.message_id, f"other {n}", None, due_at=one.due_at) for n in range(3000)
    )
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE signalbus_delivery")
    with CaptureQueriesContext(connection) as queries:
        assert not look()
    sql = next(query["sql"] for query in queries if "due_at <= " in query["sql"])  # it finds nothing
    with connection.cursor() as cursor:
        cursor.execute(f"{'EXPLAIN QUERY PLAN' if connection.vendor == 'sqlite' else 'EXPLAIN'} {sql}")
        plan = "\n".join(" ".join(map(str, row)) for row in cursor.fetchall())

    assert "signalbus_waiting" in plan, plan
    # MariaDB has no partial indexes: there two of them are of `due_at` alone, and it takes either.
    ranges = (
        "due_at<",
        "Index Cond: (due_at <=",
        "signalbus_admitted 8",
        "signalbus_waiting 8",
    )
    assert any(range_ in plan for range_ in ranges), plan
    assert "TEMP B-TREE" not in plan
    assert "Sort" not in plan


def test_a_synchronous_send_later_under_an_event_loop(bus: Bus, heard: Signal):
    """The rows are written on another thread, as with send()."""

    async def sender() -> signalbus.Sent:
        return heard.send_later(HOUR, None, number=1)

    sent = asyncio.run(sender())

    assert only().message_id == sent.id
