"""What is sent for later waits in the ledger, for its time by the database's clock, and can be taken back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

import signalbus
from signalbus import Signal
from signalbus.exceptions import ConfigurationError, DueError
from signalbus.ledger.base import deliveries
from signalbus.ledger.base.clock import Now
from signalbus.ledger.sweeps import due
from signalbus.models import Delivery, StoredMessage
from signalbus.receiving.sweeping.sweeper import sweep
from signalbus.testing import captured, immediate

from .bus import QUEUE, Bus, connect, elsewhere, new_signal, only, rows

if TYPE_CHECKING:
    from uuid import UUID

HOUR = timedelta(hours=1)


@pytest.fixture(params=[True, False], ids=["durable", "not durable"])
def heard(request: pytest.FixtureRequest, ran: list[Any]) -> Signal:
    """A signal with a receiver that notes what it was told."""
    signal = new_signal(durable=request.param)
    connect(signal, lambda number, **_: ran.append(number), "receiver")
    return signal


def pass_time(seconds: float) -> None:
    """Let all that waits be due so much earlier."""
    Delivery.objects.update(due_at=F("due_at") - timedelta(seconds=seconds))


def id_of(sent: signalbus.Sent) -> UUID:
    assert sent.id is not None
    return sent.id


def test_it_runs_when_it_is_due_and_not_before(bus: Bus, heard: Signal, ran: list[Any]):
    """What is sent for later waits as pending, is published when its time has come, and runs once."""
    heard.send_later(HOUR, None, number=1)

    assert (rows(), sweep(), bus.work()) == ([("receiver", "pending", 0)], 0, 0)
    pass_time(3590)
    assert (sweep(), bus.work()) == (0, 0)
    pass_time(11)
    assert (sweep(), bus.work()) == (1, 1)
    assert ran == [1]
    assert rows() == [("receiver", "done", 1)]


def test_its_time_counts_from_the_databases_now(bus: Bus, heard: Signal):
    """A timedelta is added to the database's clock, not to the sender's."""
    heard.send_later(HOUR, None, number=1)

    left = Delivery.objects.annotate(clock=Now()).get()
    assert (left.due_at - left.clock).total_seconds() == pytest.approx(3600, abs=5)


def test_a_datetime_is_a_time(bus: Bus, heard: Signal):
    """An aware time is kept as it is, whatever its zone."""
    when = datetime(2099, 5, 17, 12, 30, 0, 250_000, tzinfo=timezone.get_fixed_timezone(120))

    heard.send_later(when, None, number=1)

    assert only().due_at == when


@pytest.mark.parametrize("past", [timedelta(days=-3), datetime(1066, 10, 14, tzinfo=UTC), timedelta.min])
def test_the_past_is_now(bus: Bus, heard: Signal, ran: list[Any], past: timedelta | datetime):
    """What should have run already is due at once."""
    heard.send_later(past, None, number=1)

    assert (sweep(), bus.work()) == (1, 1)
    assert ran == [1]


@pytest.mark.parametrize("when", [datetime(2099, 1, 1), 60, None, timedelta.max])
def test_what_is_no_time_is_refused(bus: Bus, heard: Signal, when: Any):
    """A naive time under USE_TZ, and what is none, raise, and nothing is sent."""
    with pytest.raises(DueError, match=r"timedelta|datetime"):
        heard.send_later(when, None, number=1)

    assert rows() == []


@pytest.mark.parametrize("when", [HOUR, datetime(2099, 1, 1), datetime(2099, 1, 1, tzinfo=UTC)])
def test_without_use_tz_a_naive_time_is_local(bus: Bus, heard: Signal, settings: Any, when: Any):
    """Where the project has no time zones, each time is taken."""
    settings.USE_TZ = False

    heard.send_later(when, None, number=1)

    assert rows() == [("receiver", "pending", 0)]
    assert sweep() == 0


def test_it_shares_the_fate_of_the_transaction(bus: Bus, heard: Signal):
    """A rollback takes it back; a commit keeps it, and publishes nothing."""
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        heard.send_later(HOUR, None, number=1)
        raise ZeroDivisionError
    assert not StoredMessage.objects.exists()

    with transaction.atomic():
        heard.send_later(HOUR, None, number=1)

    assert rows() == [("receiver", "pending", 0)]
    assert bus.client.llen(QUEUE) == 0


def test_it_is_sent_from_a_coroutine(bus: Bus, heard: Signal):
    """asend_later keeps it as send_later does."""
    from asgiref.sync import async_to_sync

    sent = async_to_sync(heard.asend_later)(HOUR, None, number=1)

    assert only().message_id == sent.id


def test_each_recipient_waits_in_its_own_queue(bus: Bus, heard: Signal, ran: list[Any]):
    """A message through two queues waits as a whole, and can be cancelled as a whole."""
    connect(heard, lambda **_: ran.append("slow"), "slow", queue="slow")
    sent = heard.send_later(HOUR, None, number=1)
    assert rows() == [("receiver", "pending", 0), ("slow", "pending", 0)]

    assert signalbus.cancel(id_of(sent)) is True
    assert rows() == [("receiver", "discarded", 0), ("slow", "discarded", 0)]


def test_inline_receivers_do_not_hear_of_it(bus: Bus, heard: Signal, ran: list[Any]):
    """Nothing runs in the sender's process: neither now nor later."""
    connect(heard, lambda **_: ran.append("inline"), "inline", inline=True)

    assert heard.send_later(timedelta(), None, number=1) == []

    assert ran == []
    assert rows() == [("receiver", "pending", 0)]


def test_nobody_listens(bus: Bus, ran: list[Any]):
    """Without receivers in workers nothing is kept, and there is nothing to cancel."""
    signal = new_signal()
    connect(signal, lambda **_: ran.append("inline"), "inline", inline=True)

    sent = signal.send_later(HOUR, None)

    assert sent.id is None
    assert signalbus.cancel(sent.id) is False
    assert rows() == []


def test_an_ordered_signal_is_not_sent_for_later(bus: Bus):
    """What is due later would hold back the rest of its key: refused, with the cure."""
    with pytest.raises(ConfigurationError, match="ordered"):
        new_signal(durable=True, ordered_by="number").send_later(HOUR, None, number=1)


def test_a_cancelled_message_never_runs_and_can_be_seen(bus: Bus, heard: Signal, ran: list[Any]):
    """cancel() ends what waits as discarded; a second time there is nothing to cancel."""
    sent = heard.send_later(HOUR, None, number=1)

    assert signalbus.cancel(str(sent.id)) is True
    assert signalbus.cancel(id_of(sent)) is False

    pass_time(7200)
    assert (sweep(), bus.work(), ran) == (0, 0, [])
    assert (only().state, only().error) == ("discarded", "cancelled")


def test_what_is_on_its_way_can_still_be_cancelled(bus: Bus, ran: list[Any]):
    """A durable message that no worker has taken is cancelled: its copy at the broker is dropped."""
    signal = new_signal(durable=True)
    connect(signal, lambda **_: ran.append(1), "receiver")
    sent = signal.send(None)

    assert signalbus.cancel(id_of(sent)) is True

    assert bus.work() == 1
    assert ran == []


def test_an_open_message_that_was_cancelled_reaches_nobody(bus: Bus, ran: list[Any]):
    """Its receivers are looked up in the worker, which may have its copy still."""
    heard = new_signal(durable=True, open=True)
    connect(heard, lambda number, **kwargs: ran.append(number), "receiver")
    sent = heard.send(None, number=1)

    assert signalbus.cancel(id_of(sent)) is True

    bus.work()
    bus.come_again()
    assert ran == []
    assert rows() == [("", "discarded", 0)]


def test_what_has_begun_cannot_be_cancelled(bus: Bus, ran: list[Any]):
    """A message of which one delivery runs, or has run, is not cancelled, and the others run all the same."""
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


def test_a_cancellation_that_is_rolled_back_is_none(bus: Bus, heard: Signal, ran: list[Any]):
    """The transaction in which it is cancelled decides."""
    sent = heard.send_later(HOUR, None, number=1)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        assert signalbus.cancel(id_of(sent)) is True
        raise ZeroDivisionError

    pass_time(3601)
    assert (sweep(), bus.work(), ran) == (1, 1, [1])


def test_a_worker_drops_what_is_being_cancelled_and_a_rollback_brings_it_back(bus: Bus, ran: list[Any]):
    """While a cancellation is not committed nobody runs the message; after a failed one it is delivered."""
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


def test_captured_shows_what_is_sent_for_later(bus: Bus, heard: Signal, ran: list[Any]):
    """In a test it is captured like the rest, and delivered by deliver_all()."""
    with captured() as sent:
        heard.send_later(HOUR, None, number=1)
        sent.assert_sent(heard, number=1)
        sent.deliver_all()

    assert ran == [1]
    assert rows() == []


def test_immediate_delivers_it_at_once(bus: Bus, heard: Signal, ran: list[Any]):
    """A suite that asserts right after a send sees it run."""
    with immediate():
        heard.send_later(HOUR, None, number=1)

    assert ran == [1]


@pytest.mark.parametrize("limited", [True, False])
def test_what_waits_costs_the_sweeper_nothing(bus: Bus, heard: Signal, limited: bool):
    """The sweeper's question is a range of the index of what is due: what waits for later is not looked at."""
    heard.send_later(HOUR, None, number=1)
    one = only()
    Delivery.objects.bulk_create(
        deliveries.new_delivery(one.message_id, f"other {n}", None, due_at=one.due_at) for n in range(3000)
    )
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE signalbus_delivery")
    query = next(due._to_publish())

    plan = (query.order_by("due_at")[:100] if limited else query[:1]).explain()

    assert "signalbus_waiting" in plan, plan
    assert any(range_ in plan for range_ in ("due_at<", "Index Cond: (due_at <=", "range signalbus_waiting"))
    assert "TEMP B-TREE" not in plan
    assert "Sort" not in plan


def test_a_loop_may_send_it_in_sync(bus: Bus, heard: Signal):
    """Under a running event loop send_later writes its rows on another thread, as send does."""

    async def sender() -> signalbus.Sent:
        return heard.send_later(HOUR, None, number=1)

    sent = asyncio.run(sender())

    assert only().message_id == sent.id
