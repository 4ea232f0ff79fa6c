"""The tools for other people's tests: they run the real codec, and say what was sent instead."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from django.core.checks import run_checks
from django.db import transaction
from django.db.models.signals import post_save
from django.dispatch import Signal as DjangoSignal
from django.test import TestCase, TransactionTestCase, modify_settings
from django.utils.translation import gettext_lazy

from signalbus import Retry, Signal, current, receiver
from signalbus.bridging import bridge
from signalbus.broker import publisher
from signalbus.exceptions import ConfigurationError, PayloadError, SignalBusError
from signalbus.testing import Captured, DeliveryFailed, SentMessage, captured, deliver_all, immediate, muted
from tasks.admissions.models import Academy

from .wire_app import models
from .wire_values import saved

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = "tests.unit.test_testing"

parcel = Signal()
parcel_tracked = Signal()
lonely = Signal()
unheard = DjangoSignal()

heard: list[tuple[str, Any]] = []


def in_a_thread(function: Callable[[], object]) -> None:
    """Run something in a thread of its own, to its end."""
    with ThreadPoolExecutor(1) as threads:
        threads.submit(function).result()


@contextmanager
def muted_everywhere():
    """Let nothing out of any thread."""
    with captured(all_threads=True):
        yield


@pytest.fixture(autouse=True)
def nothing_heard(monkeypatch):
    """Begin with silence; nothing may reach a broker."""
    heard.clear()
    for name in ("publish", "publish_texts"):
        monkeypatch.setattr(publisher, name, lambda *args: pytest.fail("something was published"))


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
opened = Signal(open=True)


@receiver(opened, atomic=False)
def open_receiver(sender, label, **kwargs):
    """Receive what any sender sends."""
    heard.append(("open", label))


@receiver(opened, atomic=False, queue="email")
def open_receiver_elsewhere(sender, label, **kwargs):
    """Receive through another queue."""
    heard.append(("open elsewhere", label))


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

    def test_it_sees_what_its_context_sends(self):
        """A thread of its own has a context of its own, and is not heard."""
        with muted_everywhere(), captured() as sent:
            in_a_thread(lambda: parcel.send(None, label=1))
        assert not sent

    def test_it_can_be_asked_to_see_all_threads(self):
        """As a LiveServerTestCase needs it, whose server is another thread; inside of another block as well."""
        with captured() as outer:
            with captured(all_threads=True) as sent:
                in_a_thread(lambda: parcel.send(None, label=1))
                parcel.send(None, label=2)
            parcel.send(None, label=3)
        assert [message.payload["label"] for message in sent] == [1, 2]
        assert [message.payload["label"] for message in outer] == [3]

    def test_a_block_of_a_threads_own_comes_first(self):
        """What a thread captures by itself is not taken from it."""
        inner: list[SentMessage] = []

        def capture() -> None:
            with captured() as sent:
                parcel.send(None, label=1)
            inner.extend(sent)

        with captured(all_threads=True) as outer:
            in_a_thread(capture)
        assert len(inner) == 1
        assert not outer


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

    @pytest.mark.django_db
    def test_rows_that_are_gone_since_are_compared_by_their_key(self):
        """The test may have deleted the row: an instance is a model and a key, wherever it stands in the payload."""
        academy, other = (Academy.objects.create(name=slug, slug=slug) for slug in ("one", "two"))
        with captured() as sent:
            parcel.send(None, label=academy, more=[academy, {"deep": academy}])
        Academy.objects.all().delete()

        sent.assert_sent(parcel, label=academy, more=[academy, {"deep": academy}])
        sent.assert_sent(parcel, times=0, label=other)

    @pytest.mark.parametrize(
        ("model", "key"),
        [(models.Line, (1, 2)), (models.SpecialThing, 4), (models.Named, "red"), (models.ThingProxy, 7)],
    )
    def test_keys_of_any_kind_are_compared(self, model, key):
        """Composite ones, those of a parent, and those that are all there is to a row; without a query."""
        with modify_settings(INSTALLED_APPS={"append": "tests.unit.wire_app"}), captured() as sent:
            parcel.send(None, label=saved(model, pk=key))
            sent.assert_sent(parcel, times=1, label=saved(model, pk=key))

    @pytest.mark.django_db
    def test_an_instance_that_lost_its_key_is_explained(self):
        """``instance.delete()`` takes the key away: the failure says so."""
        academy = Academy.objects.create(name="one", slug="one")
        with captured() as sent:
            parcel.send(None, label=academy)
        academy.delete()
        with pytest.raises(AssertionError, match=r"label= has no primary key: delete\(\) takes it away"):
            sent.assert_sent(parcel, label=academy)


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

    def test_delivering_after_the_block(self):
        """What the receivers send in turn is delivered too then, and does not go to a broker."""
        with captured() as sent:
            parcel.send(None, label=1)
        assert sent.deliver_all() == 2
        assert sorted(heard) == [("follow", 1), ("track", 1), ("write", 1)]
        sent.assert_sent(parcel_tracked, label=1)

    def test_an_outer_block_keeps_what_its_receivers_send(self):
        """What is sent in turn belongs to the messages that are delivered, not to whoever captures just then."""
        with captured() as outer:
            parcel.send(None, label=1)
        with captured() as inner:
            assert outer.deliver_all() == 2
        assert not inner

    def test_an_open_signal_reaches_all_queues(self):
        """Its receivers are found here, whatever queue they are on; nothing is handed on through a broker."""
        with captured() as sent:
            opened.send(None, label=1)
        assert sent.deliver_all() == 1
        assert sorted(heard) == [("open", 1), ("open elsewhere", 1)]

    def test_a_slow_receiver_hands_nothing_on(self, settings):
        """A worker gives the rest of a batch back when its time is over; here there is nobody to give it to."""
        settings.SIGNALBUS = {"BATCH_SECONDS": 0.0}
        with captured() as sent:
            parcel.send(None, label=1)
            broken.send(None)
            with pytest.raises(DeliveryFailed):
                sent.deliver_all()
        assert ("write", 1) in heard
        assert ("healthy", None) in heard

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
class TestImmediate:
    def test_a_send_delivers_before_it_returns(self):
        """The receivers have run, sync and async and on whatever queue, and what they sent in turn is delivered too."""
        with immediate():
            parcel.send(None, label=1)
            assert sorted(heard) == [("follow", 1), ("track", 1), ("write", 1)]
            opened.send(None, label=2)
            assert heard[3:] == [("open", 2), ("open elsewhere", 2)]

    def test_all_forms_of_sending(self):
        """``send_many`` and the robust form as well."""
        with immediate():
            parcel_tracked.send_many(None, [{"label": 1}, {"label": 2}])
            parcel_tracked.send_robust(None, label=3)
        assert heard == [("follow", 1), ("follow", 2), ("follow", 3)]

    def test_through_the_codec(self):
        """A receiver gets a copy; what cannot travel raises."""
        sent = ["a list"]
        with immediate():
            parcel_tracked.send(None, label=sent)
            with pytest.raises(PayloadError):
                parcel.send(None, label=object())
        ((_, arrived),) = heard
        assert arrived == sent
        assert arrived is not sent

    def test_a_receiver_sees_what_was_written_before(self):
        """It runs in the transaction that is open: that of the test, or of the code under test."""
        with immediate(), transaction.atomic():
            academy = Academy.objects.create(name="one", slug="one")
            parcel_tracked.send(None, label=academy)
        assert heard == [("follow", academy)]

    def test_a_failure_comes_out_of_send(self):
        """It fails the test, after every other receiver has run; the robust form logs it."""
        with immediate():
            with pytest.raises(DeliveryFailed, match="no luck"):
                broken.send(None)
            assert broken.send_robust(None).id is not None
        assert heard == [("healthy", None)] * 2

    def test_it_ends_with_its_block(self):
        """Afterwards sends go where they went before."""
        with captured() as sent:
            with immediate():
                parcel_tracked.send(None, label=1)
            parcel_tracked.send(None, label=2)
        assert heard == [("follow", 1)]
        assert [message.payload["label"] for message in sent] == [2]


class TestFixtures:
    """They have the names of the functions, and come with the package."""

    def test_captured(self, captured):
        """The list of what a test sends."""
        parcel.send(None, label=1)
        captured.assert_sent(parcel, times=1, label=1)

    def test_sent_signals(self, sent_signals, captured):
        """The same, under its older name."""
        parcel.send(None, label=1)
        assert len(sent_signals) == 1
        assert sent_signals is captured

    def test_deliver_all(self, db, deliver_all):
        """A call delivers what the test has sent."""
        parcel_tracked.send(None, label=1)
        assert heard == []
        assert deliver_all() == 1
        assert heard == [("follow", 1)]

    def test_muted(self, muted):
        """Nothing gets out, or else it would be published."""
        assert parcel.send(None, label=1).id is not None

    def test_immediate(self, db, immediate):
        """Each send is delivered."""
        parcel_tracked.send(None, label=1)
        assert heard == [("follow", 1)]


class TestModeOfARun:
    """``SIGNALBUS["TEST_MODE"]`` switches one on for a whole run, in all threads."""

    def test_muted(self, settings):
        """Nothing gets out."""
        settings.SIGNALBUS = {"TEST_MODE": "muted"}
        in_a_thread(lambda: parcel.send(None, label=1))
        assert parcel.send(None, label=1).id is not None

    @pytest.mark.django_db
    def test_immediate(self, settings):
        """Each send is delivered."""
        settings.SIGNALBUS = {"TEST_MODE": "immediate"}
        parcel_tracked.send(None, label=1)
        assert heard == [("follow", 1)]

    def test_a_block_of_its_own_comes_first(self, settings):
        """A test may capture, or mute, all the same."""
        settings.SIGNALBUS = {"TEST_MODE": "immediate"}
        with captured() as sent:
            parcel.send(None, label=1)
        assert len(sent) == 1
        assert heard == []

    def test_a_word_that_means_nothing_is_refused(self, settings):
        """The error lists those that do."""
        settings.SIGNALBUS = {"TEST_MODE": "silent"}
        with pytest.raises(ConfigurationError, match='"muted", "immediate" or None'):
            parcel.send(None, label=1)

    @pytest.mark.django_db  # since 6.1 Django's checks look at databases unless told which
    @pytest.mark.parametrize(("mode", "warnings"), [(None, []), ("muted", ["signalbus.W004"])])
    def test_a_deployment_with_one_is_warned(self, settings, mode, warnings):
        """``check --deploy`` tells that nothing reaches a worker."""
        settings.SIGNALBUS = {"TEST_MODE": mode}
        found = run_checks(tags=["signalbus"], include_deployment_checks=True)
        assert [warning.id for warning in found if warning.id == "signalbus.W004"] == warnings


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

    sent_for_all: Captured

    def setUp(self) -> None:
        heard.clear()

    @classmethod
    def setUpTestData(cls) -> None:
        """Send for all tests of the class; each test gets a copy of what is set here, as Django makes it."""
        with captured() as cls.sent_for_all:
            parcel.send(None, label="for all")

    def test_captured_for_the_class(self) -> None:
        """What was captured in ``setUpTestData()`` is there in each test, to be looked at and delivered."""
        self.sent_for_all.assert_sent(parcel, times=1, label="for all")
        assert self.sent_for_all.deliver_all() == 2

    def test_captured_for_the_class_again(self) -> None:
        """What one test has delivered, the next one finds undelivered."""
        self.test_captured_for_the_class()

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

    def test_immediate(self) -> None:
        """Each send is delivered although no commit comes, and leaves nothing behind that waits for one."""
        with self.captureOnCommitCallbacks() as callbacks, immediate():
            parcel_tracked.send(None, label=1)
            with transaction.atomic():
                parcel_tracked.send(None, label=2)
            assert heard == [("follow", 1), ("follow", 2)]
        assert callbacks == []

    def test_a_failed_receiver_leaves_the_transaction_usable(self) -> None:
        """A database error of an atomic receiver's is rolled back with its savepoint."""
        with immediate():
            parcel.send(None, label=1)
            with pytest.raises(DeliveryFailed, match="IntegrityError"):
                parcel.send(None, label=1)
        assert Academy.objects.filter(slug="academy-1").count() == 1

    def test_a_receiver_without_a_transaction_may_begin_one_that_has_to_be_the_outermost(self) -> None:
        """As it may in a worker: ``atomic(durable=True)`` is what ``atomic=False`` is for."""

        def insist(**kwargs: object) -> None:
            with transaction.atomic(durable=True):
                heard.append(("insist", 1))

        signal = Signal("tests.insisting")
        signal.connect(insist, dispatch_uid="tests.insist", atomic=False)
        with immediate():
            signal.send(None)
        assert ("insist", 1) in heard

    def test_muted(self) -> None:
        """Nothing waits for the commit either."""
        with self.captureOnCommitCallbacks() as callbacks, muted():
            parcel.send(None, label=1)
        assert callbacks == []


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

    def test_what_receivers_send_in_turn_after_the_block(self) -> None:
        """The receivers commit for real here, and still nothing of it goes to a broker."""
        heard.clear()
        with captured() as sent:
            parcel.send(None, label=1)
        assert sent.deliver_all() == 2
        assert ("follow", 1) in heard
