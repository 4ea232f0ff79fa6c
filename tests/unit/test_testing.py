"""The tools for tests run the real codec, and a failed assertion shows what was sent instead."""

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

shipment = Signal()
shipment_tracked = Signal()
lonely = Signal()
unheard = DjangoSignal()

heard: list[tuple[str, Any]] = []


def in_a_thread(function: Callable[[], object]) -> None:
    """Run something in a thread of its own, to its end."""
    with ThreadPoolExecutor(1) as threads:
        threads.submit(function).result()


@contextmanager
def muted_everywhere():
    """Send nothing from any thread."""
    with captured(all_threads=True):
        yield


@pytest.fixture(autouse=True)
def empty_inbox(monkeypatch):
    """Forget earlier messages; nothing may reach a broker."""
    heard.clear()
    for name in ("publish", "publish_texts"):
        monkeypatch.setattr(publisher, name, lambda *args: pytest.fail("something was published"))


@receiver(shipment, atomic=False)
def track(sender, label, **kwargs):
    """Receive, and send another message."""
    delivery = current()
    assert delivery is not None
    heard.append(("track", label))
    shipment_tracked.send(sender, label=label, by=delivery.receiver)


@receiver(shipment, queue="email")
def receiver_that_writes(sender, label, **kwargs):
    """Write a row."""
    heard.append(("write", label))
    Academy.objects.create(name=str(label), slug=f"academy-{label}")


@receiver(shipment_tracked, atomic=False)
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
    """Succeed beside the others."""
    heard.append(("healthy", None))


class TestCaptured:
    def test_captured_lists_the_messages(self):
        """Each has its id, signal, sender, recipients and payload, in the order of sending."""
        with captured() as sent:
            assert len(sent) == 0
            first = shipment.send(Academy, label=1)
            shipment_tracked.send(None, label=2)
        assert [message.signal for message in sent] == [f"{HERE}.shipment", f"{HERE}.shipment_tracked"]
        assert isinstance(sent[0], SentMessage)
        assert (sent[0].id, sent[0].sender, sent[0].payload) == (first.id, "admissions.Academy", {"label": 1})
        assert sent[0].recipients == (f"{HERE}.track", f"{HERE}.receiver_that_writes")
        assert [message.signal for message in sent[1:]] == [f"{HERE}.shipment_tracked"]
        assert heard == []

    def test_a_payload_that_cannot_travel_raises(self):
        """The codec is the real one."""
        with captured() as sent, pytest.raises(PayloadError, match="lock"):
            shipment.send(None, label=1, lock=object())
        assert not sent

    def test_types_arrive_as_they_left(self):
        """A payload is equal and of the same types, as a receiver would get it."""
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
            shipment.send(None, **payload)
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

    def test_the_innermost_block_captures(self):
        """An outer block does not see its messages."""
        with captured() as outer:
            with captured() as inner:
                shipment.send(None, label=1)
            shipment.send(None, label=2)
        assert [message.payload["label"] for message in inner] == [1]
        assert [message.payload["label"] for message in outer] == [2]

    def test_async_sends_are_captured(self):
        """``asend`` is captured in the same way."""
        with captured() as sent:
            asyncio.run(shipment.asend(None, label=1))
        assert len(sent) == 1

    def test_captured_captures_only_its_own_context(self):
        """Another thread has another context, and is not captured."""
        with muted_everywhere(), captured() as sent:
            in_a_thread(lambda: shipment.send(None, label=1))
        assert not sent

    def test_captured_can_capture_all_threads(self):
        """A LiveServerTestCase needs it, whose server is another thread; also inside another block."""
        with captured() as outer:
            with captured(all_threads=True) as sent:
                in_a_thread(lambda: shipment.send(None, label=1))
                shipment.send(None, label=2)
            shipment.send(None, label=3)
        assert [message.payload["label"] for message in sent] == [1, 2]
        assert [message.payload["label"] for message in outer] == [3]

    def test_a_threads_own_block_comes_first(self):
        """Messages that a thread captures itself are not taken from it."""
        inner: list[SentMessage] = []

        def capture() -> None:
            with captured() as sent:
                shipment.send(None, label=1)
            inner.extend(sent)

        with captured(all_threads=True) as outer:
            in_a_thread(capture)
        assert len(inner) == 1
        assert not outer


class TestAssertions:
    def test_assert_sent_returns_the_matching_messages(self):
        """They match all arguments."""
        with captured() as sent:
            shipment.send(None, label=1, weight=5)
            shipment.send(None, label=2, weight=5)
        assert len(sent.assert_sent(shipment)) == 2
        assert len(sent.assert_sent(shipment, times=2, weight=5)) == 2
        assert [message.payload["label"] for message in sent.assert_sent(shipment, label=2)] == [2]
        sent.assert_sent(shipment, times=0, label=3)
        sent.assert_not_sent(shipment_tracked)
        assert len(sent.of(shipment)) == 2

    def test_a_failure_shows_the_sent_messages(self):
        """The error names the expected message, its number, and every message that was sent."""
        with captured() as sent:
            shipment.send(Academy, label="one")
            shipment_tracked.send(None, label="two")
        with pytest.raises(AssertionError) as raised:
            sent.assert_sent(shipment, label="three")
        text = str(raised.value)
        assert f"{HERE}.shipment with {{'label': 'three'}} should have been sent at least once, was 0 time(s)." in text
        assert "What was sent:" in text
        assert f"1. {HERE}.shipment from admissions.Academy to {HERE}.track, {HERE}.receiver_that_writes: " in text
        assert '"one"' in text
        assert f"2. {HERE}.shipment_tracked from None to {HERE}.follow" in text

    def test_times_is_exact(self):
        """Another number fails."""
        with captured() as sent:
            shipment.send(None, label=1)
        with pytest.raises(AssertionError, match=r"2 time\(s\), was 1 time\(s\)"):
            sent.assert_sent(shipment, times=2)

    def test_a_failure_without_messages_says_so(self):
        """If no receiver is connected, it says that nothing can be sent."""
        with captured() as sent:
            lonely.send(None)
        with pytest.raises(AssertionError, match="Nothing was sent") as raised:
            sent.assert_sent(lonely)
        assert "No receiver that runs in a worker is connected to it" in str(raised.value)
        with pytest.raises(AssertionError) as raised:
            sent.assert_sent(shipment)
        assert "No receiver" not in str(raised.value)
        with pytest.raises(AssertionError, match="No receiver"):
            sent.assert_sent(unheard)

    def test_assert_not_sent_shows_the_message(self):
        """A message of the signal fails it."""
        with captured() as sent:
            shipment.send(None, label="one")
        with pytest.raises(AssertionError, match=r'should not have been sent\.\nWhat was sent:\n  1\. .*"one"'):
            sent.assert_not_sent(shipment)

    def test_a_long_failure_is_truncated(self):
        """A failure fits a screen."""
        with captured() as sent:
            shipment.send(None, label="x" * 5000)
        assert len(str(sent)) < 1000

    @pytest.mark.django_db
    def test_deleted_rows_are_compared_by_their_key(self):
        """An instance is a model and a key, anywhere in the payload."""
        academy, other = (Academy.objects.create(name=slug, slug=slug) for slug in ("one", "two"))
        with captured() as sent:
            shipment.send(None, label=academy, more=[academy, {"deep": academy}])
        Academy.objects.all().delete()

        sent.assert_sent(shipment, label=academy, more=[academy, {"deep": academy}])
        sent.assert_sent(shipment, times=0, label=other)

    @pytest.mark.parametrize(
        ("model", "key"),
        [(models.Line, (1, 2)), (models.SpecialThing, 4), (models.Named, "red"), (models.ThingProxy, 7)],
    )
    def test_keys_of_any_kind_are_compared(self, model, key):
        """Composite keys, a parent's key, and keys without other fields are compared, without a query."""
        with modify_settings(INSTALLED_APPS={"append": "tests.unit.wire_app"}), captured() as sent:
            shipment.send(None, label=saved(model, pk=key))
            sent.assert_sent(shipment, times=1, label=saved(model, pk=key))

    @pytest.mark.django_db
    def test_an_instance_that_lost_its_key_is_explained(self):
        """``instance.delete()`` removes the key; the failure says so."""
        academy = Academy.objects.create(name="one", slug="one")
        with captured() as sent:
            shipment.send(None, label=academy)
        academy.delete()
        with pytest.raises(AssertionError, match=r"label= has no primary key: delete\(\) takes it away"):
            sent.assert_sent(shipment, label=academy)


class TestMuted:
    def test_nothing_is_sent(self):
        """A message still has an id."""
        with captured() as sent, muted():
            assert shipment.send(None, label=1).id is not None
        assert not sent

    def test_a_payload_that_cannot_travel_still_raises(self):
        """A test that mutes does not hide the error."""
        with muted(), pytest.raises(PayloadError):
            shipment.send(None, label=object())


@pytest.mark.django_db
class TestDelivering:
    def test_receivers_run_and_their_messages_are_delivered_too(self):
        """Every receiver runs once, sync, async and of other queues; messages are counted, not parts."""
        with captured() as sent:
            shipment.send(None, label=1)
            assert deliver_all() == 2
        assert sorted(heard) == [("follow", 1), ("track", 1), ("write", 1)]
        assert Academy.objects.filter(slug="academy-1").exists()
        assert sent.assert_sent(shipment_tracked)[0].payload["by"] == f"{HERE}.track"
        assert current() is None

    def test_each_message_is_delivered_once(self):
        """A second call delivers only new messages."""
        with captured() as sent:
            shipment_tracked.send(None, label=1)
            assert sent.deliver_all() == 1
            assert sent.deliver_all() == 0
            shipment_tracked.send(None, label=2)
            assert sent.deliver_all() == 1
        assert heard == [("follow", 1), ("follow", 2)]

    def test_deliver_all_after_the_block(self):
        """The receivers' messages are delivered too, and do not go to a broker."""
        with captured() as sent:
            shipment.send(None, label=1)
        assert sent.deliver_all() == 2
        assert sorted(heard) == [("follow", 1), ("track", 1), ("write", 1)]
        sent.assert_sent(shipment_tracked, label=1)

    def test_receivers_messages_belong_to_the_delivered_ones(self):
        """An enclosing block does not capture them."""
        with captured() as outer:
            shipment.send(None, label=1)
        with captured() as inner:
            assert outer.deliver_all() == 2
        assert not inner

    def test_an_open_signal_reaches_all_queues(self):
        """Its receivers are found here, on any queue; no broker is needed."""
        with captured() as sent:
            opened.send(None, label=1)
        assert sent.deliver_all() == 1
        assert sorted(heard) == [("open", 1), ("open elsewhere", 1)]

    def test_a_slow_receiver_requeues_nothing(self, settings):
        """A worker requeues the rest of a batch after a time; a test has no queue."""
        settings.SIGNALBUS = {"BATCH_SECONDS": 0.0}
        with captured() as sent:
            shipment.send(None, label=1)
            broken.send(None)
            with pytest.raises(DeliveryFailed):
                sent.deliver_all()
        assert ("write", 1) in heard
        assert ("healthy", None) in heard

    def test_the_first_failure_is_raised_after_all_receivers_ran(self):
        """The error has the receiver's name and its own traceback."""
        with captured() as sent:
            broken.send(None)
            with pytest.raises(DeliveryFailed) as raised:
                sent.deliver_all()
        assert heard == [("healthy", None)]
        assert f"{HERE}.broken to {HERE}.receiver_that_raises: ValueError('no luck')" in str(raised.value)
        assert "receiver_that_exits: SystemExit(3)" in str(raised.value)
        assert isinstance(raised.value.__cause__, ValueError)
        assert [type(error) for _delivery, error in raised.value.failures] == [ValueError, SystemExit]

    def test_deliver_all_outside_of_a_block_is_an_error(self):
        """The error says where to call it."""
        with pytest.raises(SignalBusError, match=r"with captured\(\)"):
            deliver_all()

    def test_delivering_to_a_disconnected_receiver_raises(self):
        """A message without its receiver is no success."""

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
        """The receivers have run, sync, async and of any queue, and the receivers of their messages too."""
        with immediate():
            shipment.send(None, label=1)
            assert sorted(heard) == [("follow", 1), ("track", 1), ("write", 1)]
            opened.send(None, label=2)
            assert heard[3:] == [("open", 2), ("open elsewhere", 2)]

    def test_all_forms_of_sending(self):
        """``send_many`` and the robust form deliver as well."""
        with immediate():
            shipment_tracked.send_many(None, [{"label": 1}, {"label": 2}])
            shipment_tracked.send_robust(None, label=3)
        assert heard == [("follow", 1), ("follow", 2), ("follow", 3)]

    def test_immediate_uses_the_codec(self):
        """A receiver gets a copy; a payload that cannot travel raises."""
        sent = ["a list"]
        with immediate():
            shipment_tracked.send(None, label=sent)
            with pytest.raises(PayloadError):
                shipment.send(None, label=object())
        ((_, arrived),) = heard
        assert arrived == sent
        assert arrived is not sent

    def test_a_receiver_runs_in_the_open_transaction(self):
        """It is that of the test, or of the code under test."""
        with immediate(), transaction.atomic():
            academy = Academy.objects.create(name="one", slug="one")
            shipment_tracked.send(None, label=academy)
        assert heard == [("follow", academy)]

    def test_send_raises_a_receivers_failure(self):
        """All other receivers have run; the robust form logs the failure."""
        with immediate():
            with pytest.raises(DeliveryFailed, match="no luck"):
                broken.send(None)
            assert broken.send_robust(None).id is not None
        assert heard == [("healthy", None)] * 2

    def test_immediate_ends_with_its_block(self):
        """Later sends go where they went before."""
        with captured() as sent:
            with immediate():
                shipment_tracked.send(None, label=1)
            shipment_tracked.send(None, label=2)
        assert heard == [("follow", 1)]
        assert [message.payload["label"] for message in sent] == [2]


class TestFixtures:
    """The fixtures have the names of the functions, and come with the package."""

    def test_the_captured_fixture(self, captured):
        """It is the list of the test's messages."""
        shipment.send(None, label=1)
        captured.assert_sent(shipment, times=1, label=1)

    def test_the_sent_signals_fixture(self, sent_signals, captured):
        """It is the older name of ``captured``."""
        shipment.send(None, label=1)
        assert len(sent_signals) == 1
        assert sent_signals is captured

    def test_the_deliver_all_fixture(self, db, deliver_all):
        """A call delivers the test's messages."""
        shipment_tracked.send(None, label=1)
        assert heard == []
        assert deliver_all() == 1
        assert heard == [("follow", 1)]

    def test_the_muted_fixture(self, muted):
        """Nothing is sent, or it would be published."""
        assert shipment.send(None, label=1).id is not None

    def test_the_immediate_fixture(self, db, immediate):
        """Each send is delivered."""
        shipment_tracked.send(None, label=1)
        assert heard == [("follow", 1)]


class TestTestMode:
    """``SIGNALBUS["TEST_MODE"]`` applies to a whole run, in all threads."""

    def test_the_muted_mode(self, settings):
        """Nothing is sent."""
        settings.SIGNALBUS = {"TEST_MODE": "muted"}
        in_a_thread(lambda: shipment.send(None, label=1))
        assert shipment.send(None, label=1).id is not None

    @pytest.mark.django_db
    def test_the_immediate_mode(self, settings):
        """Each send is delivered."""
        settings.SIGNALBUS = {"TEST_MODE": "immediate"}
        shipment_tracked.send(None, label=1)
        assert heard == [("follow", 1)]

    def test_a_block_takes_precedence_over_the_mode(self, settings):
        """A test may still capture or mute."""
        settings.SIGNALBUS = {"TEST_MODE": "immediate"}
        with captured() as sent:
            shipment.send(None, label=1)
        assert len(sent) == 1
        assert heard == []

    def test_an_unknown_mode_is_refused(self, settings):
        """The error lists the modes."""
        settings.SIGNALBUS = {"TEST_MODE": "silent"}
        with pytest.raises(ConfigurationError, match='"muted", "immediate" or None'):
            shipment.send(None, label=1)

    @pytest.mark.django_db  # since 6.1 Django's checks look at databases unless told which
    @pytest.mark.parametrize(("mode", "warnings"), [(None, []), ("muted", ["signalbus.W004"])])
    def test_a_deployment_with_a_mode_is_warned_of(self, settings, mode, warnings):
        """``check --deploy`` says that no message reaches a worker."""
        settings.SIGNALBUS = {"TEST_MODE": mode}
        found = run_checks(tags=["signalbus"], include_deployment_checks=True)
        assert [warning.id for warning in found if warning.id == "signalbus.W004"] == warnings


@pytest.mark.django_db
def test_a_bridged_signal_is_asserted_by_its_plain_signal():
    """The project knows ``post_save``, not its bridge."""

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
    """In a TestCase no commit happens."""

    sent_for_all: Captured

    def setUp(self) -> None:
        heard.clear()

    @classmethod
    def setUpTestData(cls) -> None:
        """Send for all tests of the class; Django gives each test a copy of the result."""
        with captured() as cls.sent_for_all:
            shipment.send(None, label="for all")

    def test_captured_for_the_class(self) -> None:
        """Messages that ``setUpTestData()`` captured are in each test, and can be delivered."""
        self.sent_for_all.assert_sent(shipment, times=1, label="for all")
        assert self.sent_for_all.deliver_all() == 2

    def test_captured_for_the_class_again(self) -> None:
        """A message that one test delivered is undelivered in the next."""
        self.test_captured_for_the_class()

    def test_a_message_is_captured_before_the_commit(self) -> None:
        """The test's transaction stays open."""
        with captured() as sent:
            shipment.send(None, label=1)
            with transaction.atomic():
                shipment.send(None, label=2)
            assert [message.payload["label"] for message in sent] == [1, 2]
            assert deliver_all() == 4
        assert ("write", 2) in heard

    def test_a_rolled_back_savepoint_removes_its_messages(self) -> None:
        """They were not sent, and are not delivered."""
        with captured() as sent:
            shipment_tracked.send(None, label="before")
            with transaction.atomic():
                shipment_tracked.send(None, label="lost")
                with transaction.atomic():
                    shipment_tracked.send(None, label="lost too")
                assert len(sent) == 3
                transaction.set_rollback(True)
            shipment_tracked.send(None, label="after")
        assert [message.payload["label"] for message in sent] == ["before", "after"]
        assert sent.deliver_all() == 2
        assert heard == [("follow", "before"), ("follow", "after")]

    def test_django_capture_on_commit_callbacks_works_too(self) -> None:
        """It runs the callbacks, and captured messages stay captured."""
        with captured() as sent, self.captureOnCommitCallbacks(execute=True):
            shipment.send(None, label=1)
        sent.assert_sent(shipment, times=1)

    def test_immediate_in_a_testcase(self) -> None:
        """Each send is delivered without a commit, and leaves no callback behind."""
        with self.captureOnCommitCallbacks() as callbacks, immediate():
            shipment_tracked.send(None, label=1)
            with transaction.atomic():
                shipment_tracked.send(None, label=2)
            assert heard == [("follow", 1), ("follow", 2)]
        assert callbacks == []

    def test_a_failed_receiver_leaves_the_transaction_usable(self) -> None:
        """The database error of an atomic receiver is rolled back to its savepoint."""
        with immediate():
            shipment.send(None, label=1)
            with pytest.raises(DeliveryFailed, match="IntegrityError"):
                shipment.send(None, label=1)
        assert Academy.objects.filter(slug="academy-1").count() == 1

    def test_a_receiver_with_atomic_false_may_use_a_durable_atomic(self) -> None:
        """``atomic(durable=True)`` works there as in a worker."""

        def insist(**kwargs: object) -> None:
            with transaction.atomic(durable=True):
                heard.append(("insist", 1))

        signal = Signal("tests.insisting")
        signal.connect(insist, dispatch_uid="tests.insist", atomic=False)
        with immediate():
            signal.send(None)
        assert ("insist", 1) in heard

    def test_muted_in_a_testcase(self) -> None:
        """No callback waits for the commit either."""
        with self.captureOnCommitCallbacks() as callbacks, muted():
            shipment.send(None, label=1)
        assert callbacks == []


class InATransactionTestCase(TransactionTestCase):
    """In a TransactionTestCase transactions are real."""

    def test_commits_and_rollbacks(self) -> None:
        """Committed messages were sent, rolled back ones were not, and those outside of transactions were."""
        with captured() as sent:
            shipment_tracked.send(None, label="autocommit")
            with transaction.atomic():
                shipment_tracked.send(None, label="committed")
            with transaction.atomic():
                shipment_tracked.send(None, label="lost")
                transaction.set_rollback(True)
        assert [message.payload["label"] for message in sent] == ["autocommit", "committed"]

    def test_receivers_messages_after_the_block_reach_no_broker(self) -> None:
        """The receivers really commit here."""
        heard.clear()
        with captured() as sent:
            shipment.send(None, label=1)
        assert sent.deliver_all() == 2
        assert ("follow", 1) in heard
