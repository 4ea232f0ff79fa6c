"""The tools for other people's tests: they run the real codec, and say what was sent instead."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction
from django.db.models.signals import post_save
from django.dispatch import Signal as DjangoSignal
from django.test import TestCase, TransactionTestCase
from django.utils.translation import gettext_lazy

from signalbus import Retry, Signal, current, receiver
from signalbus.exceptions import PayloadError, SignalBusError
from signalbus.sending import bridge, outbox, publisher
from signalbus.testing import DeliveryFailed, SentMessage, captured, deliver_all, muted
from tasks.admissions.models import Academy

HERE = "tests.unit.test_testing"

parcel = Signal()
parcel_tracked = Signal()
lonely = Signal()
unheard = DjangoSignal()

heard: list[tuple[str, Any]] = []


@pytest.fixture(autouse=True)
def nothing_heard(monkeypatch):
    """Begin with silence; nothing may reach a broker."""
    heard.clear()
    monkeypatch.setattr(publisher, "publish", lambda *args: pytest.fail("something was published"))


@receiver(parcel, atomic=False)
def track(sender, label, **kwargs):
    """Receive, and send in turn."""
    delivery = current()
    assert delivery is not None
    heard.append(("track", label))
    parcel_tracked.send(sender, label=label, by=delivery.receiver)


@receiver(parcel, queue="email")
def receiver_that_writes(sender, label, **kwargs):
    """Write a row."""
    heard.append(("write", label))
    Academy.objects.create(name=str(label), slug=f"academy-{label}")


@receiver(parcel_tracked, atomic=False)
async def follow(sender, label, **kwargs):
    """Receive in a coroutine."""
    await asyncio.sleep(0)
    heard.append(("follow", label))


broken = Signal()


@receiver(broken, atomic=False, retry=Retry(max_attempts=3))
def receiver_that_raises(sender, **kwargs):
    """Raise."""
    raise ValueError("no luck")


@receiver(broken, atomic=False)
def receiver_that_exits(sender, **kwargs):
    """Try to end the process."""
    raise SystemExit(3)


@receiver(broken, atomic=False)
def healthy_receiver(sender, **kwargs):
    """Do its work beside the others."""
    heard.append(("healthy", None))


class TestCaptured:
    def test_it_lists_what_was_sent(self):
        """Each message has its id, signal, sender, recipients and payload, in the order of sending."""
        with captured() as sent:
            assert len(sent) == 0
            first = parcel.send(Academy, label=1)
            parcel_tracked.send(None, label=2)
        assert [message.signal for message in sent] == [f"{HERE}.parcel", f"{HERE}.parcel_tracked"]
        assert isinstance(sent[0], SentMessage)
        assert (sent[0].id, sent[0].sender, sent[0].payload) == (first.id, "admissions.Academy", {"label": 1})
        assert sent[0].recipients == (f"{HERE}.track", f"{HERE}.receiver_that_writes")
        assert [message.signal for message in sent[1:]] == [f"{HERE}.parcel_tracked"]
        assert heard == []

    def test_what_cannot_travel_raises(self):
        """The codec is the real one."""
        with captured() as sent, pytest.raises(PayloadError, match="lock"):
            parcel.send(None, label=1, lock=object())
        assert not sent

    def test_types_arrive_as_they_left(self):
        """A payload is what a receiver would get: equal, and of the same types."""
        payload = {
            "label": gettext_lazy("lazy"),
            "price": Decimal("1.50"),
            "at": datetime(2026, 1, 2, tzinfo=UTC),
            "key": UUID(int=7),
            "sizes": (1, 2.0, True),
            "tags": {"a", "b"},
            "model": Academy,
            "none": None,
        }
        with captured() as sent:
            parcel.send(None, **payload)
        arrived = sent[0].payload
        assert arrived == {**payload, "label": "lazy"}
        assert {key: type(value) for key, value in arrived.items()} == {
            "label": str,
            "price": Decimal,
            "at": datetime,
            "key": UUID,
            "sizes": tuple,
            "tags": set,
            "model": type(Academy),
            "none": type(None),
        }
        assert [type(size) for size in arrived["sizes"]] == [int, float, bool]

    def test_blocks_inside_each_other(self):
        """The innermost captures."""
        with captured() as outer:
            with captured() as inner:
                parcel.send(None, label=1)
            parcel.send(None, label=2)
        assert [message.payload["label"] for message in inner] == [1]
        assert [message.payload["label"] for message in outer] == [2]

    def test_async_sends_are_captured(self):
        """``asend`` goes the same way."""
        with captured() as sent:
            asyncio.run(parcel.asend(None, label=1))
        assert len(sent) == 1

    def test_as_a_fixture(self, sent_signals):
        """``sent_signals`` is captured() around a test, found by itself."""
        parcel.send(None, label=1)
        assert len(sent_signals) == 1
        sent_signals.assert_sent(parcel, label=1)


class TestAssertions:
    def test_they_find_what_fits(self):
        """``assert_sent`` returns the messages that fit all that is asked for."""
        with captured() as sent:
            parcel.send(None, label=1, weight=5)
            parcel.send(None, label=2, weight=5)
        assert len(sent.assert_sent(parcel)) == 2
        assert len(sent.assert_sent(parcel, times=2, weight=5)) == 2
        assert [message.payload["label"] for message in sent.assert_sent(parcel, label=2)] == [2]
        sent.assert_sent(parcel, times=0, label=3)
        sent.assert_not_sent(parcel_tracked)
        assert len(sent.of(parcel)) == 2

    def test_a_failure_shows_what_was_sent_instead(self):
        """The error names what was wanted, how often, and every message that was sent."""
        with captured() as sent:
            parcel.send(Academy, label="one")
            parcel_tracked.send(None, label="two")
        with pytest.raises(AssertionError) as raised:
            sent.assert_sent(parcel, label="three")
        text = str(raised.value)
        assert f"{HERE}.parcel with {{'label': 'three'}} should have been sent at least once, was 0 time(s)." in text
        assert "What was sent:" in text
        assert f"1. {HERE}.parcel from admissions.Academy to {HERE}.track, {HERE}.receiver_that_writes: " in text
        assert '"one"' in text
        assert f"2. {HERE}.parcel_tracked from None to {HERE}.follow" in text

    def test_a_failure_of_the_count(self):
        """``times`` is exact."""
        with captured() as sent:
            parcel.send(None, label=1)
        with pytest.raises(AssertionError, match=r"2 time\(s\), was 1 time\(s\)"):
            sent.assert_sent(parcel, times=2)

    def test_a_failure_after_silence(self):
        """Where nothing was sent, it says so; and why nothing can be, if nobody is connected."""
        with captured() as sent:
            lonely.send(None)
        with pytest.raises(AssertionError, match="Nothing was sent") as raised:
            sent.assert_sent(lonely)
        assert "No receiver that runs in a worker is connected to it" in str(raised.value)
        with pytest.raises(AssertionError) as raised:
            sent.assert_sent(parcel)
        assert "No receiver" not in str(raised.value)
        with pytest.raises(AssertionError, match="No receiver"):
            sent.assert_sent(unheard)

    def test_it_should_not_have_been_sent(self):
        """``assert_not_sent`` shows what was."""
        with captured() as sent:
            parcel.send(None, label="one")
        with pytest.raises(AssertionError, match=r'should not have been sent\.\nWhat was sent:\n  1\. .*"one"'):
            sent.assert_not_sent(parcel)

    def test_a_long_message_is_cut(self):
        """A failure fits a screen."""
        with captured() as sent:
            parcel.send(None, label="x" * 5000)
        assert len(str(sent)) < 1000


class TestMuted:
    def test_nothing_gets_out(self):
        """What is sent goes nowhere, and still has an id."""
        with captured() as sent, muted():
            assert parcel.send(None, label=1).id is not None
        assert not sent

    def test_what_cannot_travel_still_raises(self):
        """A test that mutes does not hide a payload that would fail."""
        with muted(), pytest.raises(PayloadError):
            parcel.send(None, label=object())


@pytest.mark.django_db
class TestDelivering:
    def test_receivers_run_here_and_what_they_send_is_delivered_too(self):
        """Every receiver runs once, sync, async and through other queues; messages are counted, not parts."""
        with captured() as sent:
            parcel.send(None, label=1)
            assert deliver_all() == 2
        assert sorted(heard) == [("follow", 1), ("track", 1), ("write", 1)]
        assert Academy.objects.filter(slug="academy-1").exists()
        assert sent.assert_sent(parcel_tracked)[0].payload["by"] == f"{HERE}.track"
        assert current() is None

    def test_each_message_is_delivered_once(self):
        """Delivering again delivers what came since."""
        with captured() as sent:
            parcel_tracked.send(None, label=1)
            assert sent.deliver_all() == 1
            assert sent.deliver_all() == 0
            parcel_tracked.send(None, label=2)
            assert sent.deliver_all() == 1
        assert heard == [("follow", 1), ("follow", 2)]

    def test_failures_come_out_after_everybody_ran(self):
        """A receiver's error fails the test, with the receiver's name and its own traceback; the others ran."""
        with captured() as sent:
            broken.send(None)
            with pytest.raises(DeliveryFailed) as raised:
                sent.deliver_all()
        assert heard == [("healthy", None)]
        assert f"{HERE}.broken to {HERE}.receiver_that_raises: ValueError('no luck')" in str(raised.value)
        assert "receiver_that_exits: SystemExit(3)" in str(raised.value)
        assert isinstance(raised.value.__cause__, ValueError)
        assert [type(error) for _delivery, error in raised.value.failures] == [ValueError, SystemExit]

    def test_outside_of_a_block(self):
        """There is nothing to deliver: the error says where to call it."""
        with pytest.raises(SignalBusError, match=r"with captured\(\)"):
            deliver_all()

    def test_a_receiver_that_is_gone_is_not_silently_skipped(self):
        """A message that no receiver took is no success."""

        def fleeting(sender, **kwargs):
            pass

        signal = Signal("tests.fleeting")
        signal.connect(fleeting, dispatch_uid="fleeting")
        with captured() as sent:
            signal.send(None)
            signal.disconnect(dispatch_uid="fleeting")
            with pytest.raises(SignalBusError, match="fleeting"):
                sent.deliver_all()


@pytest.mark.django_db
def test_plain_signals_are_found_by_themselves():
    """A bridged ``post_save`` is asserted on as the signal that the project knows."""

    def on_save(sender, **kwargs):
        pass

    receiver(post_save, sender=Academy, dispatch_uid="saved")(on_save)
    try:
        with captured() as sent:
            academy = Academy.objects.create(name="Web", slug="web")
        sent.assert_sent(post_save, times=1, instance=academy, created=True)
        with pytest.raises(AssertionError, match=r"post_save\[admissions.Academy\] should not"):
            sent.assert_not_sent(post_save)
    finally:
        for key, built in list(bridge._bridges.items()):
            if built.sender is Academy:
                built.source.disconnect(built, sender=Academy)
                del bridge._bridges[key]


class InATestCase(TestCase):
    """A commit never comes here."""

    def setUp(self) -> None:
        heard.clear()

    def test_sent_at_once(self) -> None:
        """What is sent counts although the test's transaction stays open."""
        with captured() as sent:
            parcel.send(None, label=1)
            with transaction.atomic():
                parcel.send(None, label=2)
            assert [message.payload["label"] for message in sent] == [1, 2]
            assert deliver_all() == 4
        assert ("write", 2) in heard

    def test_a_rolled_back_savepoint_takes_its_messages_back(self) -> None:
        """What a rollback took back was not sent, and is not delivered."""
        with captured() as sent:
            parcel_tracked.send(None, label="before")
            with transaction.atomic():
                parcel_tracked.send(None, label="lost")
                with transaction.atomic():
                    parcel_tracked.send(None, label="lost too")
                assert len(sent) == 3
                transaction.set_rollback(True)
            parcel_tracked.send(None, label="after")
        assert [message.payload["label"] for message in sent] == ["before", "after"]
        assert sent.deliver_all() == 2
        assert heard == [("follow", "before"), ("follow", "after")]

    def test_djangos_own_tool_works_beside(self) -> None:
        """``captureOnCommitCallbacks`` executes, and what was captured stays captured."""
        with captured() as sent, self.captureOnCommitCallbacks(execute=True):
            parcel.send(None, label=1)
        sent.assert_sent(parcel, times=1)

    def test_muted(self) -> None:
        """Nothing waits for the commit either."""
        with self.captureOnCommitCallbacks() as callbacks, muted():
            parcel.send(None, label=1)
        assert callbacks == []


class Database:
    """A connection in a transaction."""

    def __init__(self) -> None:
        self.run_on_commit: list[Any] = []

    def on_commit(self, callback: Any, robust: bool = False) -> None:
        """Keep a callback, as Django does."""
        self.run_on_commit.append((set(), callback, robust))


def test_several_databases(monkeypatch):
    """A message of transactions in two databases was sent only if both commit."""
    first, second = Database(), Database()
    monkeypatch.setattr(outbox, "open_transactions", lambda: [first, second])
    with captured() as sent:
        parcel.send(None, label=1)
    first.run_on_commit.pop()[1]()
    assert len(sent) == 1
    second.run_on_commit.clear()
    assert len(sent) == 0


class InATransactionTestCase(TransactionTestCase):
    """Here transactions are real."""

    def test_commits_and_rollbacks(self) -> None:
        """What is committed was sent, what is rolled back was not, and outside of transactions all is."""
        with captured() as sent:
            parcel_tracked.send(None, label="autocommit")
            with transaction.atomic():
                parcel_tracked.send(None, label="committed")
            with transaction.atomic():
                parcel_tracked.send(None, label="lost")
                transaction.set_rollback(True)
        assert [message.payload["label"] for message in sent] == ["autocommit", "committed"]
