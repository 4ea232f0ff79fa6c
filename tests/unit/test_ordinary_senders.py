"""Senders that are ordinary objects, subclasses of Signal with a send() of their own, and bridges as receivers."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.db import DatabaseError
from django.dispatch import Signal as DjangoSignal

from signalbus import Signal, receiver
from signalbus.bridging import bridge
from signalbus.checks import check_subclasses
from signalbus.exceptions import ConfigurationError
from signalbus.testing import captured
from tasks.admissions.models import Cohort

plain = DjangoSignal()
got: list[Any] = []


class CheckoutView:
    """A view that sends itself."""


class PluginSignal(Signal):
    """A signal that filters its receivers, as some plugin systems do."""

    def send(self, sender: Any, **payload: Any) -> Any:
        return [(each, each(signal=self, sender=sender, **payload)) for each in self._live_receivers(sender)[0]]


class HelpedSignal(Signal):
    """A signal with another form of sending, whose helper picks the receivers."""

    def send_chained(self, sender: Any, **payload: Any) -> Any:
        return [each(signal=self, sender=sender, **payload) for each in self._active(sender)]

    def _active(self, sender: Any) -> Any:
        return self._live_receivers(sender)[0]


class FilteringSignal(Signal):
    """A signal that filters what Django asks for."""

    def _live_receivers(self, sender: Any) -> Any:
        return [], []


class LoopingSignal(Signal):
    """A signal that calls what is in Django's list."""

    def send(self, sender: Any, **payload: Any) -> Any:
        return [(each[1], each[1]()(signal=self, sender=sender, **payload)) for each in self.receivers]


class CachedSignal(Signal):
    """A signal that calls what is in Django's cache."""

    def send_robust(self, sender: Any, **payload: Any) -> Any:
        return [(each, each(sender=sender, **payload)) for each in self.sender_receivers_cache.get(sender, ())]


class PoliteSignal(Signal):
    """A signal that adds something, and calls ``super()``, if anybody is connected."""

    def send(self, sender: Any, **payload: Any) -> Any:
        return super().send(sender, more=1, **payload) if self.receivers else []


class EventSignal(Signal):
    """A signal with a form of its own, whose ``send()`` only says so (as in openedx-events)."""

    def send(self, sender: Any, **payload: Any) -> Any:
        raise NotImplementedError("use send_event()")

    def send_event(self, **payload: Any) -> Any:
        return super().send(None, **payload)


class DelegatingSignal(Signal):
    """A signal whose forms call each other, and its base by name."""

    def send(self, sender: Any, **payload: Any) -> Any:
        return self.send_robust(sender, **payload)

    def send_robust(self, sender: Any, **payload: Any) -> Any:
        return Signal.send_robust(self, sender, **payload)


class Unfriendly:
    """An object that raises when it is compared or asked for its truth, as an array of NumPy does."""

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise ValueError("neither true nor false")

    def __eq__(self, other: object) -> bool:
        raise ValueError("neither equal nor different")


def on_event(sender: Any, **kwargs: Any) -> None:
    """Receive."""
    got.append(sender)


@pytest.fixture(autouse=True)
def nothing_yet():
    """Forget what other tests received."""
    got.clear()


@pytest.fixture
def allowed():
    """A receiver listens to the class somewhere, so that workers may look it up."""
    Signal("tests.other_listener").connect(on_event, sender=CheckoutView)


def test_the_class_of_an_ordinary_object_stands_for_it(allowed, caplog):
    """Receivers get the class, in whichever form it was sent; a warning says so once for each signal and class."""
    signal = Signal("tests.ordinary_sender", durable=False)
    signal.connect(on_event, atomic=False)
    with captured() as sent:
        signal.send(CheckoutView())
        signal.send_robust(CheckoutView())
        signal.send_many(CheckoutView(), [{}])
    sent.deliver_all()

    assert got == [CheckoutView] * 3
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "CheckoutView" in record.getMessage()
    assert "sender=type(self)" in record.getMessage()


@pytest.mark.parametrize("sender", [CheckoutView(), object()], ids=["of an app or not", "builtin"])
def test_a_bridge_carries_what_an_ordinary_object_sends(sender, caplog):
    """The plain signal's sender is anybody's choice: its class, or the name of that, is what receivers get."""
    signal = DjangoSignal()
    globals()["plain_too"] = signal
    receiver(signal, atomic=False, durable=False)(on_event)
    with captured() as sent:
        signal.send(sender)
    sent.deliver_all()

    assert len(got) == 1
    assert got[0] in {type(sender), f"{type(sender).__module__}:{type(sender).__qualname__}"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_model_instance_is_still_a_reference():
    """It has a row, and arrives as an instance."""
    signal = Signal("tests.instance_sender")
    signal.connect(on_event)
    with captured() as sent:
        signal.send(User(pk=1))

    assert [message.sender for message in sent] == ["auth.User"]


def test_an_instance_that_misses_the_receivers_of_its_class_is_told_of_once(caplog):
    """As in Django it reaches receivers without a sender only; the warning names the others and the remedy."""
    signal = Signal("tests.instance_misses")
    signal.connect(on_event)
    signal.connect(on_event, sender=Cohort, dispatch_uid="tests.of_cohorts")
    with captured() as sent:
        signal.send(Cohort(pk=1))
        signal.send(Cohort(pk=2))
        signal.send(Cohort)

    assert [len(message.recipients or ()) for message in sent] == [1, 1, 2]
    (record,) = caplog.records
    assert "sender=type(instance)" in record.getMessage()
    assert "on_event" in record.getMessage()


def test_a_send_of_a_subclass_that_asks_django_directly_is_refused():
    """It would call the inline receivers alone; the error names the receiver and both remedies, and so does a check."""
    signal = PluginSignal("tests.plugin")
    signal.connect(on_event)

    with pytest.raises(
        ConfigurationError, match=r"on_event .* would not be reached\. .*super\(\)\.send\(\).*inline=True"
    ):
        signal.send(None)
    (warning,) = [each for each in check_subclasses() if "tests.plugin" in each.msg]
    assert "send()" in warning.msg


def test_a_send_of_a_subclass_reaches_inline_receivers():
    """As with Django's own signals."""
    signal = PluginSignal("tests.plugin_inline")
    signal.connect(on_event, inline=True)

    assert len(signal.send(None)) == 1
    assert got == [None]
    assert not [each for each in check_subclasses() if "tests.plugin_inline" in each.msg]


def test_a_send_of_a_subclass_that_calls_super_travels():
    """Nothing is said of it."""
    signal = PoliteSignal("tests.polite")
    signal.connect(on_event)
    with captured() as sent:
        signal.send(None)

    assert [message.payload for message in sent] == [{"more": 1}]
    assert not [each for each in check_subclasses() if "tests.polite" in each.msg]


def test_a_bridge_has_what_is_asked_of_a_function():
    """Third parties and loggers name the receivers of a plain signal by these attributes."""
    receiver(plain)(on_event)
    with captured():
        ((carrier, response),) = plain.send_robust(None)

    assert response is None
    assert carrier.__name__ == "bridge_of_plain"
    assert carrier.__qualname__ == f"bridge_of[{__name__}.plain]"
    assert carrier.__module__.startswith("signalbus.")
    assert __name__ in (carrier.__doc__ or "")
    assert list(inspect.signature(carrier).parameters) == ["sender", "payload"]


@pytest.mark.parametrize("error", [DatabaseError("broken"), TimeoutError("over"), ValueError("odd")], ids=repr)
def test_djangos_robust_send_with_a_bridge_never_raises(error, monkeypatch):
    """What the bridge lets out is its response, and the receivers after it are called."""
    signal = DjangoSignal()
    globals()["plain_robust"] = signal
    receiver(signal)(on_event)
    signal.connect(on_event, dispatch_uid="after")

    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(bridge.Bridge, "send_robust", fail)
    monkeypatch.setattr(bridge, "_in_transaction", lambda: True)
    (_, response), (_, after) = signal.send_robust(None)

    assert response is (None if isinstance(error, ValueError) else error)
    assert after is None
    assert got == [None]


@pytest.mark.parametrize("kind", [PluginSignal, HelpedSignal, FilteringSignal, LoopingSignal, CachedSignal])
def test_a_subclass_that_picks_receivers_from_djangos_lists_is_named_by_a_check(kind):
    """Receivers in workers are not called from these lists, whichever method reads them."""
    signal = kind(f"tests.picks_{kind.__name__}")
    signal.connect(on_event)

    (warning,) = [each for each in check_subclasses() if signal.name in each.msg]
    assert warning.id == "signalbus.W007"
    assert f"of {kind.__name__}" in warning.msg


@pytest.mark.parametrize("kind", [Signal, PoliteSignal, EventSignal, DelegatingSignal])
def test_a_subclass_that_leaves_the_receivers_to_us_is_not_named_by_a_check(kind):
    """Its messages travel: a form of its own, a call of the base by name and a look at ``receivers`` are no defect."""
    signal = kind(f"tests.leaves_{kind.__name__}")
    signal.connect(on_event)
    with captured() as sent:
        signal.send_event() if kind is EventSignal else signal.send(None)

    assert len(sent) == 1
    assert not [each for each in check_subclasses() if signal.name in each.msg]


@pytest.mark.parametrize(
    ("sender", "payload"), [(None, {"raw": Unfriendly()}), (Unfriendly(), {})], ids=["raw", "sender"]
)
def test_a_bridge_lets_the_sender_go_on_whatever_it_meets(sender, payload):
    """A plain send() does not raise for a value or a sender that raises when it is looked at."""
    signal = DjangoSignal()
    globals()["plain_unfriendly"] = signal
    receiver(signal, durable=False)(on_event)
    signal.connect(on_event, dispatch_uid="after")
    with captured():
        (_, response), (_, after) = signal.send(sender, **payload)

    assert response is None
    assert after is None


def test_a_bridge_carries_a_payload_that_is_called_raw():
    """Only what Django says of a fixture, ``raw=True``, stays behind: a mail's raw text does not."""
    signal = DjangoSignal()
    globals()["plain_raw"] = signal
    receiver(signal, durable=False)(on_event)
    with captured() as sent:
        signal.send(None, raw="Subject: hello")
        signal.send(None, raw=True)

    assert [message.payload for message in sent] == [{"raw": "Subject: hello"}]


@pytest.mark.parametrize("options", [{}, {"open": True}], ids=["plain", "open"])
def test_every_form_of_send_takes_an_ordinary_object(allowed, options):
    """The class travels; inline receivers run in the sender's process, and get the object itself, as in Django."""
    here = []

    def inline(sender: Any, **kwargs: Any) -> None:
        here.append(sender)

    signal = Signal(f"tests.forms_{len(options)}", durable=False, **options)
    signal.connect(on_event, atomic=False)
    signal.connect(inline, inline=True)
    view = CheckoutView()
    with captured() as sent:
        async_to_sync(signal.asend)(view, number=1)
        async_to_sync(signal.asend_robust)(view, number=2)
        signal.send(view, number=3)
    sent.deliver_all()

    assert here == [view] * 3
    assert got == [CheckoutView] * 3
