"""Sending: what is encoded, recorded and handed over when; what it costs; what raises."""

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
from signalbus.context import CurrentDelivery, _current, current
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
    """Collect what is handed to the outbox, as lists of what came together."""
    calls: list[list[outbox.Outgoing]] = []  # type: ignore[name-defined]
    token = outbox.diverted.set(calls.append)
    try:
        yield calls
    finally:
        outbox.diverted.reset(token)


@contextmanager
def inside_a_delivery(*path, signal="tests.parent"):
    """Be inside a receiver, at some depth of a cascade."""
    delivery = CurrentDelivery(
        message_id=uuid.uuid4(),
        signal=signal,
        receiver="tests.receiver",
        attempt=1,
        root=uuid.uuid4(),
        parent=None,
        path=path,
    )
    token = _current.set(delivery)
    try:
        yield delivery
    finally:
        _current.reset(token)


class TestWhatComesBack:
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
    def test_repr_says_what_travels_to_whom(self, order, method):
        """In a shell the result of every form names the signal, the message and its recipients."""
        order.connect(on_order_by_mail, queue="mail")
        arguments = (timedelta(1),) if method == "send_later" else ()
        with captured():
            response = getattr(order, method)(*arguments, sender=None, number=7)
        shown = repr(response)
        assert shown.startswith(f"<Sent {order.name} {response.id} to ")
        assert f"to {HERE}.on_order, {HERE}.on_order_by_mail; recorded>" in shown

    def test_repr_says_that_nothing_travels(self):
        """It does where nobody listens to the sender, and where all receivers run here, whose responses it shows."""
        signal = Signal("tests.repr", durable=False)
        signal.connect(on_order, sender=Cohort)
        assert repr(signal.send(None)) == "<Sent nothing travels: no receiver in a worker listens to this sender>"
        signal.connect(identity, inline=True)
        assert repr(signal.send(None)).startswith("<Sent responses [(<function identity at ")
        with captured():
            shown = repr(signal.send(Cohort))
        assert "on_order[admissions.Cohort]; not recorded unless something goes wrong; responses [(" in shown

    def test_repr_of_an_open_signal(self):
        """Its recipients are known to the workers only."""
        with captured():
            assert " to whoever listens; recorded>" in repr(Signal("tests.open", open=True).send(None))

    @pytest.mark.parametrize("method", ["send", "send_robust", "asend", "asend_robust"])
    def test_every_form_sends_the_same(self, order, method):
        """All four forms encode, carry the recipients and return a ``Sent``."""

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
        """Both kinds beside each other: the responses of the one, the id of the other."""
        order.connect(receiver_that_raises if method == "asend_robust" else identity, inline=True)

        async def main():
            return await getattr(order, method)(None, number=7)

        with captured() as sent:
            ((_receiver, response),) = result = asyncio.run(main())
        assert isinstance(response, ValueError) if method == "asend_robust" else response == {"number": 7}
        assert result.id == sent[0].id

    @pytest.mark.parametrize("method", ["send", "send_robust", "asend", "asend_robust"])
    def test_nobody_connected(self, method, monkeypatch):
        """Without receivers nothing is encoded or sent: what could not travel does no harm, and there is no id."""
        monkeypatch.setattr(outbox, "add", lambda *args, **kwargs: pytest.fail("something was sent"))
        signal = Signal("tests.nobody")

        async def asynchronously():
            return await getattr(signal, method)(None, lock=object())

        response = asyncio.run(asynchronously()) if method[0] == "a" else getattr(signal, method)(None, lock=object())
        assert (response, response.id) == ([], None)
        signal.connect(on_order, sender=Cohort)
        response = asyncio.run(asynchronously()) if method[0] == "a" else getattr(signal, method)(None, lock=object())
        assert (response, response.id) == ([], None)

    def test_inline_only(self, monkeypatch):
        """Inline receivers alone get the very objects, and nothing is encoded."""
        monkeypatch.setattr(outbox, "add", lambda *args, **kwargs: pytest.fail("something was sent"))
        signal, lock = Signal("tests.inline"), object()
        signal.connect(identity, inline=True)
        response = signal.send(None, lock=lock)
        assert response == [(identity, {"lock": lock})]
        assert response.id is None

    def test_what_travels_is_not_run_here_while_it_connects(self):
        """A receiver that another thread connects in the midst of a ``send()`` is not taken for an inline one."""
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
        signal._roster.entries = SlowEntries()
        signal._roster.get = signal._roster.entries.get
        assert signal._live_receivers(None) == ([identity], [])
        other.join()
        assert len(signal.entries()) == 1


def identity(sender, signal, **kwargs):
    """Respond with the payload."""
    return kwargs


class TestTypes:
    """Held by mypy as well as by running them."""

    def test_what_sending_gives(self, order):
        """Every form gives a ``Sent``; many give ids."""
        signal: Signal = order
        with muted():
            assert type(assert_type(signal.send(None), Sent)) is Sent
            assert type(assert_type(signal.send_robust(None), Sent)) is Sent
            assert type(assert_type(asyncio.run(signal.asend(None)), Sent)) is Sent
            assert type(assert_type(asyncio.run(signal.asend_robust(None)), Sent)) is Sent
            ids = assert_type(signal.send_many(None, [{}]), list[uuid.UUID | None])
        assert type(ids[0]) is uuid.UUID

    def test_a_decorated_function_keeps_its_type(self, order):
        """``receiver`` gives the function back, for type checkers too."""

        def typed(sender: object, **kwargs: object) -> int:
            return 7

        decorated = receiver(order, inline=True)(typed)
        assert assert_type(decorated(None), int) == 7


class TestOrder:
    def test_encoding_comes_first(self, order):
        """What cannot travel raises before an inline receiver has run, in each form that raises."""
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

    def test_an_inline_receiver_that_raises_keeps_it_from_being_sent(self, order):
        """Whatever raises, nothing has been sent."""
        order.connect(receiver_that_raises, inline=True)
        with captured() as sent:
            with pytest.raises(ValueError, match="this"):
                order.send(None, number=7)
            with pytest.raises(ValueError, match="this"):
                order.send_many(None, [{"number": 7}])
            with pytest.raises(ValueError, match="this"):
                asyncio.run(order.asend(None, number=7))
        assert not sent

    def test_robust_sends_all_the_same(self, order):
        """An inline receiver's exception is its response; the message travels."""
        order.connect(receiver_that_raises, inline=True)
        with captured() as sent:
            ((_receiver, error),) = result = order.send_robust(None, number=7)
        assert isinstance(error, ValueError)
        assert result.id == sent[0].id

    def test_what_is_sent_is_what_it_was(self, order):
        """A list that is changed after ``send`` arrives as it was, also when an inline receiver changes it."""

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
        """The outbox is told which form it is."""
        told = []
        monkeypatch.setattr(outbox, "add", lambda outgoing, *, robust: told.append(robust))
        getattr(order, method)(None)
        asyncio.run(getattr(order, f"a{method}")(None))
        assert told == [robust, robust]
        order.send_many(None, [{}])
        assert told[-1] is False

    @pytest.mark.parametrize("form", ["send", "send_robust", "asend", "asend_robust", "send_many"])
    def test_without_its_app_a_signal_says_so(self, form):
        """Nobody would have looked for receivers, and silence would look like success."""
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
    def test_keys_that_receivers_get_anyway_are_refused(self, order, key):
        """A payload key that would be overwritten in the worker is refused, and never quietly changed."""
        with captured() as sent, pytest.raises(PayloadError, match=f"^{key}: "):
            order.send_many(None, [{key: "mine"}])
        assert not sent

    def test_a_key_that_is_no_text_is_refused(self, order):
        """Payloads are keywords."""
        with pytest.raises(PayloadError):
            order.send_many(None, [{7: "seven"}])


class TestMessages:
    def test_one_part_for_each_queue(self, order):
        """Recipients travel through their queues; it is one message, and each receiver is named once."""
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

    def test_the_header_says_what_the_signal_says(self):
        """Name, durability and ordering key come from the signal."""
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
        """It is the value's text, a row's its reference, however it travels; without value or row there is none."""
        signal = Signal("tests.ordered", ordered_by="account")
        signal.connect(on_order)
        with handed_over() as calls:
            signal.send(None, **payload)
        assert calls[0][0].message.ordering_key == key

    def test_a_function_gives_the_ordering_key(self):
        """It gets the payload; a row that it returns stands for itself, and None for no order."""
        signal = Signal("tests.ordered_by_function", ordered_by=lambda payload: payload["order"]["account"])
        signal.connect(on_order)
        with handed_over() as calls:
            for account in (COHORT, 17, None):
                signal.send(None, order={"account": account})
        assert [parts[0].message.ordering_key for parts in calls] == ["admissions.Cohort 7", "17", None]

    @pytest.mark.parametrize(
        ("options", "cure"),
        [
            ({"ordered_by": "account", "durable": False}, "needs durable=True"),
            ({"ordered_by": "account", "open": True}, "Leave one of them out"),
            ({"ordered_by": ""}, "give a key of the payload"),
            ({"ordered_by": 7}, "give a key of the payload"),
        ],
    )
    def test_an_order_that_nobody_can_keep_is_refused(self, options, cure):
        """The error says what to do."""
        with pytest.raises(ConfigurationError, match=cure):
            Signal("tests.refused_order", **options)

    def test_async_receivers_travel_as_others(self, order):
        """A coroutine function is a recipient."""
        order.connect(on_order_async)
        with captured() as sent:
            order.send(None)
        assert sent[0].recipients == (f"{HERE}.on_order", f"{HERE}.on_order_async")

    def test_open(self):
        """An open signal travels although nobody is connected here; the workers look the receivers up."""
        signal = Signal("tests.open", open=True)
        with handed_over() as calls:
            response = signal.send(Cohort, number=7)
            asyncio.run(signal.asend(Cohort, number=7))
            signal.send_many(Cohort, [{"number": 7}])
        assert [part.message.recipients for parts in calls for part in parts] == [None, None, None]
        assert response.id == calls[0][0].message.id

    def test_open_with_receivers_here(self):
        """Receivers that are connected here receive an open message as those elsewhere do; inline ones run."""
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
        """``Snapshot`` sends values, so a row need not exist."""
        with captured() as sent:
            order.send(None, cohort=Snapshot(Cohort(name="Web", slug="web")))
        cohort = sent[0].payload["cohort"]
        assert (type(cohort), cohort.slug, cohort.pk) == (Cohort, "web", None)


class TestSendMany:
    def test_one_message_for_each_payload(self, order):
        """The ids come in the order of the payloads, and all is handed over at once."""
        order.connect(on_order_by_mail, queue="email")
        with handed_over() as calls:
            ids = order.send_many(None, ({"number": number} for number in range(5)))
        (parts,) = calls
        assert len(ids) == len(set(ids)) == 5
        assert list(dict.fromkeys(part.message.id for part in parts)) == ids
        assert len(parts) == 10

    def test_no_payloads(self, order):
        """Nothing to send is nothing sent."""
        with captured() as sent:
            assert order.send_many(None, []) == []
        assert not sent

    def test_nobody_connected(self):
        """Where nothing travels there are no ids."""
        assert Signal("tests.many").send_many(None, [{"lock": object()}, {}]) == [None, None]

    def test_inline_receivers_run_for_each(self, order):
        """Inline receivers are called once for each payload, in order."""
        heard = []
        listener = lambda number, **kwargs: heard.append(number)  # noqa: E731 - it needs a name to live
        order.connect(listener, inline=True)
        with muted():
            order.send_many(None, [{"number": 1}, {"number": 2}])
        assert heard == [1, 2]


class TestCascades:
    def test_a_child_knows_its_line(self, order):
        """What a receiver sends carries its root, its parent and the path of signals."""
        with handed_over() as calls, inside_a_delivery("tests.root") as delivery:
            assert current() == delivery
            order.send(None)
        message = calls[0][0].message
        assert (message.root, message.parent) == (delivery.root, delivery.message_id)
        assert message.path == ("tests.root", "tests.parent")
        assert message.depth == 2
        assert current() is None

    def test_async_sends_know_it_too(self, order):
        """The line is not lost on the way through a thread."""

        async def main():
            await order.asend(None)
            await sync_to_async(order.send)(None)

        with handed_over() as calls, inside_a_delivery():
            asyncio.run(main())
        assert [parts[0].message.path for parts in calls] == [("tests.parent",)] * 2

    def test_the_thirty_third_is_refused(self, order):
        """A cascade holds 32 messages; the next one raises, and names the path of signals."""
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
        """MAX_CASCADE says how deep."""
        settings.SIGNALBUS = {"MAX_CASCADE": 2}
        with captured(), inside_a_delivery("tests.loop"), pytest.raises(CascadeError):
            order.send(None)

    def test_inline_receivers_may_go_on(self):
        """The limit is for what travels: inline receivers run at any depth."""
        signal = Signal("tests.inline")
        signal.connect(identity, inline=True)
        with inside_a_delivery(*["tests.loop"] * 40):
            assert signal.send(None) == [(identity, {})]


class TestSettingsThatAreWrong:
    def test_send_says_so(self, order, settings):
        """A wrong setting is an ImproperlyConfigured at ``send``, before anything is sent."""
        settings.SIGNALBUS = {"MAX_BYTE": 7}
        with captured() as sent, pytest.raises(ConfigurationError, match="MAX_BYTES"):
            order.send(None)
        assert not sent
