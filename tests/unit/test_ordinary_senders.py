"""Senders that are ordinary objects, subclasses of Signal with a ``send()`` of their own, and bridges as receivers."""

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
    """A signal with another form of sending, whose helper chooses the receivers."""

    def send_chained(self, sender: Any, **payload: Any) -> Any:
        return [each(signal=self, sender=sender, **payload) for each in self._active(sender)]

    def _active(self, sender: Any) -> Any:
        return self._live_receivers(sender)[0]


class FilteringSignal(Signal):
    """A signal that filters the receivers that Django finds."""

    def _live_receivers(self, sender: Any) -> Any:
        return [], []


class LoopingSignal(Signal):
    """A signal that calls the receivers in Django's list."""

    def send(self, sender: Any, **payload: Any) -> Any:
        return [(each[1], each[1]()(signal=self, sender=sender, **payload)) for each in self.receivers]


class CachedSignal(Signal):
    """A signal that calls the receivers in Django's cache."""

    def send_robust(self, sender: Any, **payload: Any) -> Any:
        return [(each, each(sender=sender, **payload)) for each in self.sender_receivers_cache.get(sender, ())]


class PoliteSignal(Signal):
    """A signal that adds a value and calls ``super()``, if a receiver is connected."""

    def send(self, sender: Any, **payload: Any) -> Any:
        return super().send(sender, more=1, **payload) if self.receivers else []


class EventSignal(Signal):
    """A signal with a form of its own, whose ``send()`` only refers to it (as in openedx-events)."""

    def send(self, sender: Any, **payload: Any) -> Any:
        raise NotImplementedError("use send_event()")

    def send_event(self, **payload: Any) -> Any:
        return super().send(None, **payload)


class DelegatingSignal(Signal):
    """A signal whose forms call each other, and its base class by name."""

    def send(self, sender: Any, **payload: Any) -> Any:
        return self.send_robust(sender, **payload)

    def send_robust(self, sender: Any, **payload: Any) -> Any:
        return Signal.send_robust(self, sender, **payload)


class Unfriendly:
    """An object that raises when it is compared or tested for truth, like an array of NumPy."""

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise ValueError("neither true nor false")

    def __eq__(self, other: object) -> bool:
        raise ValueError("neither equal nor different")


def on_event(sender: Any, **kwargs: Any) -> None:
    """Receive."""
    got.append(sender)


@pytest.fixture(autouse=True)
def empty_inbox():
    """Forget the messages of other tests."""
    got.clear()


@pytest.fixture
def allowed():
    """Connect a receiver for the class, so that workers may look it up."""
    Signal("tests.other_listener").connect(on_event, sender=CheckoutView)


def test_an_ordinary_sender_arrives_as_its_class(allowed, caplog):
    """This holds for each form of send; one warning for each signal and class says so."""
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
def test_a_bridge_carries_a_signal_of_an_ordinary_sender(sender, caplog):
    """Receivers get its class, or the name of its class."""
    signal = DjangoSignal()
    globals()["plain_too"] = signal
    receiver(signal, atomic=False, durable=False)(on_event)
    with captured() as sent:
        signal.send(sender)
    sent.deliver_all()

    assert len(got) == 1
    assert got[0] in {type(sender), f"{type(sender).__module__}:{type(sender).__qualname__}"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_model_instance_as_sender_is_a_reference():
    """It has a row, and arrives as an instance."""
    signal = Signal("tests.instance_sender")
    signal.connect(on_event)
    with captured() as sent:
        signal.send(User(pk=1))

    assert [message.sender for message in sent] == ["auth.User"]


def test_an_instance_that_misses_its_classes_receivers_is_warned_of_once(caplog):
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


def test_a_subclass_that_calls_receivers_itself_is_refused():
    """It would call inline receivers only; the error and a check name the receiver and both remedies."""
    signal = PluginSignal("tests.plugin")
    signal.connect(on_event)

    with pytest.raises(
        ConfigurationError, match=r"on_event .* would not be reached\. .*super\(\)\.send\(\).*inline=True"
    ):
        signal.send(None)
    (warning,) = [each for each in check_subclasses() if "tests.plugin" in each.msg]
    assert "send()" in warning.msg


def test_a_subclass_that_calls_receivers_itself_reaches_inline_ones():
    """Django's own signals do the same."""
    signal = PluginSignal("tests.plugin_inline")
    signal.connect(on_event, inline=True)

    assert len(signal.send(None)) == 1
    assert got == [None]
    assert not [each for each in check_subclasses() if "tests.plugin_inline" in each.msg]


def test_a_subclass_that_calls_super_sends():
    """There is no warning."""
    signal = PoliteSignal("tests.polite")
    signal.connect(on_event)
    with captured() as sent:
        signal.send(None)

    assert [message.payload for message in sent] == [{"more": 1}]
    assert not [each for each in check_subclasses() if "tests.polite" in each.msg]


def test_a_bridge_has_the_attributes_of_a_function():
    """Third parties and loggers name the receivers of a plain signal by these."""
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
    """A bridge's error is its response, and the receivers after it are called."""
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
def test_a_check_names_a_subclass_that_reads_djangos_lists(kind):
    """Receivers in workers are not called from these lists, in any method."""
    signal = kind(f"tests.picks_{kind.__name__}")
    signal.connect(on_event)

    (warning,) = [each for each in check_subclasses() if signal.name in each.msg]
    assert warning.id == "signalbus.W007"
    assert f"of {kind.__name__}" in warning.msg


@pytest.mark.parametrize("kind", [Signal, PoliteSignal, EventSignal, DelegatingSignal])
def test_a_check_does_not_name_a_subclass_that_delegates(kind):
    """A form of its own, a call of the base class by name and a read of ``receivers`` are no defect."""
    signal = kind(f"tests.leaves_{kind.__name__}")
    signal.connect(on_event)
    with captured() as sent:
        signal.send_event() if kind is EventSignal else signal.send(None)

    assert len(sent) == 1
    assert not [each for each in check_subclasses() if signal.name in each.msg]


@pytest.mark.parametrize(
    ("sender", "payload"), [(None, {"raw": Unfriendly()}), (Unfriendly(), {})], ids=["raw", "sender"]
)
def test_a_bridge_ignores_values_that_raise(sender, payload):
    """A plain ``send()`` does not fail for a value or a sender that raises when it is looked at."""
    signal = DjangoSignal()
    globals()["plain_unfriendly"] = signal
    receiver(signal, durable=False)(on_event)
    signal.connect(on_event, dispatch_uid="after")
    with captured():
        (_, response), (_, after) = signal.send(sender, **payload)

    assert response is None
    assert after is None


def test_a_bridge_carries_a_value_called_raw():
    """Only Django's ``raw=True`` of a fixture is left out, not the raw text of a mail."""
    signal = DjangoSignal()
    globals()["plain_raw"] = signal
    receiver(signal, durable=False)(on_event)
    with captured() as sent:
        signal.send(None, raw="Subject: hello")
        signal.send(None, raw=True)

    assert [message.payload for message in sent] == [{"raw": "Subject: hello"}]


@pytest.mark.parametrize("options", [{}, {"open": True}], ids=["plain", "open"])
def test_every_form_of_send_takes_an_ordinary_object(allowed, options):
    """The class travels; inline receivers get the object itself, as in Django."""
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
