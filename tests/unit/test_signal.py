"""Sending: what is encoded, recorded and published when; its costs; its errors."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
import uuid
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, assert_type

import pytest
from asgiref.sync import sync_to_async
from django.utils.functional import SimpleLazyObject

from signalbus import Sent, Signal, Snapshot, receiver
from signalbus.context import CurrentDelivery, current, current_delivery
from signalbus.exceptions import CascadeError, ConfigurationError, PayloadError
from signalbus.sending import outbox
from signalbus.testing import captured, muted
from signalbus.wire.message import from_body
from tasks.admissions.models import Cohort

HERE = "tests.unit.test_signal"


COHORT = Cohort(pk=7, name="Web")
COHORT._state.adding = False


def on_order(sender, **kwargs):
    """Receive in a worker."""


def on_order_by_mail(sender, **kwargs):
    """Receive in a worker, through another queue."""


async def on_order_async(sender, **kwargs):
    """Receive in a coroutine."""


def receiver_that_raises(**kwargs):
    """Raise."""
    raise ValueError("this")


@pytest.fixture
def order():
    """Give a signal with a travelling receiver."""
    signal = Signal("tests.order")
    signal.connect(on_order)
    return signal


@contextmanager
def handed_over():
    """Collect the messages of the outbox, as lists of those that came together."""
    calls: list[list[outbox.Outgoing]] = []  # type: ignore[name-defined]
    token = outbox.diverted.set(calls.append)
    try:
        yield calls
    finally:
        outbox.diverted.reset(token)


@contextmanager
def inside_a_delivery(*path, signal="tests.parent"):
    """Run inside a receiver, at some depth of a cascade."""
    delivery = CurrentDelivery(
        message_id=uuid.uuid4(),
        signal=signal,
        receiver="tests.receiver",
        attempt=1,
        root=uuid.uuid4(),
        parent=None,
        path=path,
    )
    token = current_delivery.set(delivery)
    try:
        yield delivery
    finally:
        current_delivery.reset(token)


class TestResult:
    def test_a_message_has_an_id(self, order):
        """``Sent`` is an empty list with the id of the message that travels."""
        with captured() as sent:
            response = order.send(None, number=7)
        assert isinstance(response, Sent)
        assert response.id is not None
        assert response.id == sent[0].id
        assert response.id.version == 7
        assert response == []

    @pytest.mark.parametrize("method", ["send", "send_robust", "send_later"])
    def test_repr_names_the_message_and_its_recipients(self, order, method):
        """In a shell the result of every form names them and the signal."""
        order.connect(on_order_by_mail, queue="mail")
        arguments = (timedelta(1),) if method == "send_later" else ()
        with captured():
            response = getattr(order, method)(*arguments, sender=None, number=7)
        shown = repr(response)
        assert shown.startswith(f"<Sent {order.name} {response.id} to ")
        assert f"to {HERE}.on_order, {HERE}.on_order_by_mail; recorded>" in shown

    def test_repr_says_that_nothing_is_sent(self):
        """No receiver listens to the sender, or all are inline, and their responses are shown."""
        signal = Signal("tests.repr", durable=False)
        signal.connect(on_order, sender=Cohort)
        assert repr(signal.send(None)) == "<Sent nothing travels: no receiver in a worker listens to this sender>"
        signal.connect(identity, inline=True)
        assert repr(signal.send(None)).startswith("<Sent responses [(<function identity at ")
        with captured():
            shown = repr(signal.send(Cohort))
        assert "on_order[admissions.Cohort]; not recorded unless something goes wrong; responses [(" in shown

    def test_repr_of_an_open_signal(self):
        """Only the workers know its recipients."""
        with captured():
            assert " to whoever listens; recorded>" in repr(Signal("tests.open", open=True).send(None))

    @pytest.mark.parametrize("method", ["send", "send_robust", "asend", "asend_robust"])
    def test_every_form_sends_the_same(self, order, method):
        """All four forms encode, name the recipients and return a ``Sent``."""

        async def asynchronously():
            return await getattr(order, method)(Cohort, number=7)

        with captured() as sent:
            response: Any = (
                asyncio.run(asynchronously()) if method[0] == "a" else getattr(order, method)(Cohort, number=7)
            )
        assert response == []
        assert response.id == sent[0].id
        assert sent[0].payload == {"number": 7}
        assert sent[0].sender == "admissions.Cohort"
        assert sent[0].recipients == (f"{HERE}.on_order",)

    @pytest.mark.parametrize("method", ["asend", "asend_robust"])
    def test_async_forms_run_inline_receivers_too(self, order, method):
        """The result has their responses, and the id of the message."""
        order.connect(receiver_that_raises if method == "asend_robust" else identity, inline=True)

        async def main():
            return await getattr(order, method)(None, number=7)

        with captured() as sent:
            ((_receiver, response),) = result = asyncio.run(main())
        assert isinstance(response, ValueError) if method == "asend_robust" else response == {"number": 7}
        assert result.id == sent[0].id

    @pytest.mark.parametrize("method", ["send", "send_robust", "asend", "asend_robust"])
    def test_without_receivers_nothing_is_sent(self, method, monkeypatch):
        """Nothing is encoded, so a payload that cannot travel does no harm, and there is no id."""
        monkeypatch.setattr(outbox, "add", lambda *args, **kwargs: pytest.fail("something was sent"))
        signal = Signal("tests.nobody")

        async def asynchronously():
            return await getattr(signal, method)(None, lock=object())

        response = asyncio.run(asynchronously()) if method[0] == "a" else getattr(signal, method)(None, lock=object())
        assert (response, response.id) == ([], None)
        signal.connect(on_order, sender=Cohort)
        response = asyncio.run(asynchronously()) if method[0] == "a" else getattr(signal, method)(None, lock=object())
        assert (response, response.id) == ([], None)

    def test_inline_receivers_get_the_same_objects(self, monkeypatch):
        """Without receivers in workers nothing is encoded."""
        monkeypatch.setattr(outbox, "add", lambda *args, **kwargs: pytest.fail("something was sent"))
        signal, lock = Signal("tests.inline"), object()
        signal.connect(identity, inline=True)
        response = signal.send(None, lock=lock)
        assert response == [(identity, {"lock": lock})]
        assert response.id is None

    def test_a_receiver_that_connects_during_a_send_does_not_run_inline(self):
        """Another thread connects it in the middle of a ``send()``."""
        signal = Signal("tests.inline")
        other = threading.Thread(target=lambda: signal.connect(on_order))

        class SlowEntries(dict[Any, Any]):
            def __bool__(self) -> bool:
                answer = len(self) > 0
                if not other.ident:
                    other.start()
                    other.join(0.2)  # it ends at once, if nothing keeps it from connecting now
                return answer

        signal.connect(identity, inline=True)
        signal._subscriptions.entries = SlowEntries()
        signal._subscriptions.get = signal._subscriptions.entries.get
        assert signal._live_receivers(None) == ([identity], [])
        other.join()
        assert len(signal.entries()) == 1


def identity(sender, signal, **kwargs):
    """Respond with the payload."""
    return kwargs


class TestTypes:
    """mypy and the running code agree on the types."""

    def test_every_form_of_send_returns_its_type(self, order):
        """Every form returns a ``Sent``; ``send_many`` returns ids."""
        signal: Signal = order
        with muted():
            assert type(assert_type(signal.send(None), Sent)) is Sent
            assert type(assert_type(signal.send_robust(None), Sent)) is Sent
            assert type(assert_type(asyncio.run(signal.asend(None)), Sent)) is Sent
            assert type(assert_type(asyncio.run(signal.asend_robust(None)), Sent)) is Sent
            ids = assert_type(signal.send_many(None, [{}]), list[uuid.UUID | None])
        assert type(ids[0]) is uuid.UUID

    def test_a_decorated_function_keeps_its_type(self, order):
        """``receiver`` returns the function, for type checkers too."""

        def typed(sender: object, **kwargs: object) -> int:
            return 7

        decorated = receiver(order, inline=True)(typed)
        assert assert_type(decorated(None), int) == 7


class TestOrder:
    def test_a_payload_is_encoded_before_inline_receivers_run(self, order):
        """A payload that cannot travel raises before an inline receiver has run, in each form that raises."""
        ran = []
        listener = lambda **kwargs: ran.append(1)  # noqa: E731 - it needs a name to live
        order.connect(listener, inline=True)
        with captured() as sent:
            with pytest.raises(PayloadError, match=r"context\.lock"):
                order.send(None, context={"lock": object()})
            with pytest.raises(PayloadError, match=r"context\.lock"):
                asyncio.run(order.asend(None, context={"lock": object()}))
            with pytest.raises(PayloadError, match="lock"):
                order.send_many(None, [{"number": 1}, {"lock": object()}])
        assert ran == []
        assert not sent

    def test_an_error_of_an_inline_receiver_stops_the_send(self, order):
        """Nothing is sent, whatever it raises."""
        order.connect(receiver_that_raises, inline=True)
        with captured() as sent:
            with pytest.raises(ValueError, match="this"):
                order.send(None, number=7)
            with pytest.raises(ValueError, match="this"):
                order.send_many(None, [{"number": 7}])
            with pytest.raises(ValueError, match="this"):
                asyncio.run(order.asend(None, number=7))
        assert not sent

    def test_a_robust_form_sends_after_an_inline_error(self, order):
        """The error is the response; the message is sent."""
        order.connect(receiver_that_raises, inline=True)
        with captured() as sent:
            ((_receiver, error),) = result = order.send_robust(None, number=7)
        assert isinstance(error, ValueError)
        assert result.id == sent[0].id

    def test_later_changes_of_a_value_are_not_sent(self, order):
        """A list that changes after ``send``, also in an inline receiver, arrives as it was."""

        def greedy(basket, **kwargs):
            basket.clear()

        order.connect(greedy, inline=True)
        basket = ["bread"]
        with captured() as sent:
            order.send(None, basket=basket)
        assert basket == []
        assert sent[0].payload == {"basket": ["bread"]}

    @pytest.mark.parametrize(("method", "robust"), [("send", False), ("send_robust", True)])
    def test_only_the_robust_forms_never_raise_for_the_broker(self, order, monkeypatch, method, robust):
        """The outbox knows which form it is."""
        told = []
        monkeypatch.setattr(outbox, "add", lambda outgoing, *, robust: told.append(robust))
        getattr(order, method)(None)
        asyncio.run(getattr(order, f"a{method}")(None))
        assert told == [robust, robust]
        order.send_many(None, [{}])
        assert told[-1] is False

    @pytest.mark.parametrize("form", ["send", "send_robust", "asend", "asend_robust", "send_many"])
    def test_without_signalbus_in_installed_apps_a_send_raises(self, form):
        """No receivers would have been loaded, and silence would look like success."""
        program = textwrap.dedent(f"""
            import asyncio, django, inspect
            from django.conf import settings
            settings.configure(INSTALLED_APPS=["django.contrib.contenttypes"])
            from signalbus import Signal
            saved = Signal("shop.saved")
            arguments = [[dict()]] if {form!r} == "send_many" else []
            async def ask():
                answer = saved.{form}(None, *arguments)
                return await answer if inspect.isawaitable(answer) else answer
            asyncio.run(ask())
            print("nobody can say before Django is ready")
            django.setup()
            asyncio.run(ask())
        """)
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert 'ConfigurationError: Add "signalbus" to INSTALLED_APPS' in ran.stderr
        assert ran.stdout == "nobody can say before Django is ready\n"

    @pytest.mark.parametrize("key", ["signal", "sender"])
    def test_reserved_payload_keys_are_refused(self, order, key):
        """The worker would overwrite them."""
        with captured() as sent, pytest.raises(PayloadError, match=f"^{key}: "):
            order.send_many(None, [{key: "mine"}])
        assert not sent

    def test_a_key_that_is_no_text_is_refused(self, order):
        """A payload consists of keyword arguments."""
        with pytest.raises(PayloadError):
            order.send_many(None, [{7: "seven"}])


class TestMessages:
    def test_a_message_is_published_to_the_queue_of_each_receiver(self, order):
        """Each queue gets its recipients; it is one message, and names each receiver once."""
        order.connect(on_order_by_mail, queue="email")
        with handed_over() as calls:
            id_ = order.send(None, number=7).id
        (parts,) = calls
        assert {part.queue: part.message.recipients for part in parts} == {
            None: (f"{HERE}.on_order",),
            "email": (f"{HERE}.on_order_by_mail",),
        }
        assert {part.message.id for part in parts} == {id_}
        assert all(from_body(part.body) == part.message for part in parts)

    def test_the_header_has_the_signals_options(self):
        """These are its name, durability and ordering key."""
        signal = Signal("tests.ticks", ordered_by="account")
        signal.connect(on_order)
        with handed_over() as calls:
            signal.send(Cohort, account=17)
        message = calls[0][0].message
        assert (message.signal, message.durable, message.ordering_key, message.sender, message.ledger) == (
            "tests.ticks",
            True,
            "17",
            "admissions.Cohort",
            "default",
        )
        assert (message.root, message.parent, message.path, message.recorded) == (message.id, None, (), True)

    @pytest.mark.parametrize(
        ("payload", "key"),
        [
            ({}, None),
            ({"account": None}, None),
            ({"account": "a"}, "a"),
            ({"account": COHORT}, "admissions.Cohort 7"),
            ({"account": Snapshot(COHORT)}, "admissions.Cohort 7"),
            ({"account": SimpleLazyObject(lambda: COHORT)}, "admissions.Cohort 7"),
            ({"account": Cohort(name="new")}, None),
        ],
    )
    def test_the_ordering_key(self, payload, key):
        """It is the value's text, or the row's reference; without a value or a row there is none."""
        signal = Signal("tests.ordered", ordered_by="account")
        signal.connect(on_order)
        with handed_over() as calls:
            signal.send(None, **payload)
        assert calls[0][0].message.ordering_key == key

    def test_a_function_gives_the_ordering_key(self):
        """It gets the payload; it may return a row, or None for no order."""
        signal = Signal("tests.ordered_by_function", ordered_by=lambda payload: payload["order"]["account"])
        signal.connect(on_order)
        with handed_over() as calls:
            for account in (COHORT, 17, None):
                signal.send(None, order={"account": account})
        assert [parts[0].message.ordering_key for parts in calls] == ["admissions.Cohort 7", "17", None]

    @pytest.mark.parametrize(
        ("options", "remedy"),
        [
            ({"ordered_by": "account", "durable": False}, "needs durable=True"),
            ({"ordered_by": "account", "open": True}, "Leave one of them out"),
            ({"ordered_by": ""}, "give a key of the payload"),
            ({"ordered_by": 7}, "give a key of the payload"),
        ],
    )
    def test_an_impossible_order_is_refused(self, options, remedy):
        """The error names the remedy."""
        with pytest.raises(ConfigurationError, match=remedy):
            Signal("tests.refused_order", **options)

    def test_async_receivers_are_recipients(self, order):
        """A coroutine function runs in the worker too."""
        order.connect(on_order_async)
        with captured() as sent:
            order.send(None)
        assert sent[0].recipients == (f"{HERE}.on_order", f"{HERE}.on_order_async")

    def test_an_open_signal_is_sent_without_recipients(self):
        """The workers find the receivers."""
        signal = Signal("tests.open", open=True)
        with handed_over() as calls:
            response = signal.send(Cohort, number=7)
            asyncio.run(signal.asend(Cohort, number=7))
            signal.send_many(Cohort, [{"number": 7}])
        assert [part.message.recipients for parts in calls for part in parts] == [None, None, None]
        assert response.id == calls[0][0].message.id

    def test_an_open_signal_with_receivers_in_the_sender(self):
        """They receive the message as others do; inline receivers run."""
        signal = Signal("tests.open_here", open=True)
        signal.connect(on_order)
        signal.connect(on_order_by_mail, sender=Cohort, queue="email")
        signal.connect(identity, inline=True)
        with captured() as sent:
            assert signal.send(None, number=7) == [(identity, {"number": 7})]
        assert [message.recipients for message in sent] == [()]
        assert [entry.id for entry in signal.matching(None)] == [f"{HERE}.on_order"]
        assert len(signal.matching("admissions.Cohort")) == 2

    def test_a_snapshot_travels_unsaved(self, order):
        """``Snapshot`` sends values, so no row need exist."""
        with captured() as sent:
            order.send(None, cohort=Snapshot(Cohort(name="Web", slug="web")))
        cohort = sent[0].payload["cohort"]
        assert (type(cohort), cohort.slug, cohort.pk) == (Cohort, "web", None)


class TestSendMany:
    def test_one_message_for_each_payload(self, order):
        """The ids are in the order of the payloads, and all messages are handed over together."""
        order.connect(on_order_by_mail, queue="email")
        with handed_over() as calls:
            ids = order.send_many(None, ({"number": number} for number in range(5)))
        (parts,) = calls
        assert len(ids) == len(set(ids)) == 5
        assert list(dict.fromkeys(part.message.id for part in parts)) == ids
        assert len(parts) == 10

    def test_send_many_without_payloads_sends_nothing(self, order):
        """It returns no ids."""
        with captured() as sent:
            assert order.send_many(None, []) == []
        assert not sent

    def test_send_many_without_receivers_sends_nothing(self):
        """It returns no ids."""
        assert Signal("tests.many").send_many(None, [{"lock": object()}, {}]) == [None, None]

    def test_inline_receivers_run_for_each(self, order):
        """They are called once for each payload, in order."""
        heard = []
        listener = lambda number, **kwargs: heard.append(number)  # noqa: E731 - it needs a name to live
        order.connect(listener, inline=True)
        with muted():
            order.send_many(None, [{"number": 1}, {"number": 2}])
        assert heard == [1, 2]


class TestCascades:
    def test_a_receivers_message_has_its_root_and_parent(self, order):
        """It has the path of signals too."""
        with handed_over() as calls, inside_a_delivery("tests.root") as delivery:
            assert current() == delivery
            order.send(None)
        message = calls[0][0].message
        assert (message.root, message.parent) == (delivery.root, delivery.message_id)
        assert message.path == ("tests.root", "tests.parent")
        assert message.depth == 2
        assert current() is None

    def test_an_async_send_has_its_root_and_parent(self, order):
        """The thread in between does not lose them."""

        async def main():
            await order.asend(None)
            await sync_to_async(order.send)(None)

        with handed_over() as calls, inside_a_delivery():
            asyncio.run(main())
        assert [parts[0].message.path for parts in calls] == [("tests.parent",)] * 2

    def test_the_thirty_third_message_is_refused(self, order):
        """A cascade has 32 messages; the next one raises, and names the path of signals."""
        with captured() as sent:
            with inside_a_delivery(*["tests.loop"] * 30):
                order.send(None)
            with inside_a_delivery(*["tests.loop"] * 31), pytest.raises(CascadeError) as raised:
                order.send(None)
        assert len(sent) == 1
        assert "tests.loop > tests.parent > tests.order" in str(raised.value)
        assert raised.value.path == (*["tests.loop"] * 31, "tests.parent", "tests.order")
        assert raised.value.limit == 32

    def test_the_limit_is_a_setting(self, order, settings):
        """MAX_CASCADE sets it."""
        settings.SIGNALBUS = {"MAX_CASCADE": 2}
        with captured(), inside_a_delivery("tests.loop"), pytest.raises(CascadeError):
            order.send(None)

    def test_the_limit_does_not_stop_inline_receivers(self):
        """They run at any depth."""
        signal = Signal("tests.inline")
        signal.connect(identity, inline=True)
        with inside_a_delivery(*["tests.loop"] * 40):
            assert signal.send(None) == [(identity, {})]


class TestWrongSettings:
    def test_send_raises_for_a_wrong_setting(self, order, settings):
        """It is an ImproperlyConfigured, before anything is sent."""
        settings.SIGNALBUS = {"MAX_BYTE": 7}
        with captured() as sent, pytest.raises(ConfigurationError, match="MAX_BYTES"):
            order.send(None)
        assert not sent
