"""A declared payload changes while messages wait: upcasts, defaults, and versions that a worker does not know."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from signalbus import Signal
from signalbus.exceptions import ConfigurationError
from signalbus.models import StoredMessage
from signalbus.receiving.routing.batch import deliver
from signalbus.registration.registry import registry
from signalbus.testing import captured
from signalbus.wire.message import from_body
from tasks.admissions.models import Academy

from .bus import QUEUE, Bus, connect, new_signal, only, rows, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(kw_only=True)
class PaidInCents:
    """Version 1."""

    cents: int
    academy: Academy | None = None


@dataclass(kw_only=True)
class Paid:
    """Version 2: the amount in whole units."""

    amount: Decimal
    academy: Academy | None = None


@dataclass(kw_only=True)
class PaidInCurrency:
    """Version 3: with a currency."""

    amount: Decimal
    currency: str
    academy: Academy | None = None


@dataclass(kw_only=True)
class PaidInCentsWithNote:
    """Version 1 with a new key that has a default."""

    cents: int
    academy: Academy | None = None
    note: str = "none"


DECLARED: list[Signal] = []  # keeps them alive; the registry does not


def declare(name: str, payload: Any, version: int = 1, *, upcasts: bool = True, **options: Any) -> Signal:
    """Return a signal of a version, in place of the one that was declared under that name: a deploy."""
    for number, other in list(registry._signals.items()):
        if other.known_name() == name:
            del registry._signals[number]
            registry._by_name.pop(name, None)
    signal: Signal = Signal(name, payload=payload, version=version, **options)
    DECLARED.append(signal)
    if upcasts and version > 1:
        signal.upcast(from_version=1)(
            lambda payload: {"amount": Decimal(payload["cents"]) / 100, "academy": payload["academy"]}
        )
    if upcasts and version > 2:
        signal.upcast(from_version=2)(lambda payload: {**payload, "currency": "EUR"})
    return signal


def receive(signal: Signal) -> list[dict[str, Any]]:
    """Connect a receiver; return the list of what it gets."""
    got: list[dict[str, Any]] = []
    connect(signal, lambda sender, signal, **payload: got.append(payload), "paid")
    return got


@pytest.fixture
def name() -> Iterator[str]:
    """A new name."""
    yield new_signal().name
    DECLARED.clear()


def send_as(signal: Signal, bus: Bus, **payload: Any) -> list[str]:
    """Send with the sender's code; return the texts on the queue."""
    receive(signal)
    signal.send(None, **payload)
    (texts,) = bus.take()
    return texts


@pytest.mark.parametrize("durable", [True, False])
def test_a_waiting_message_arrives_as_the_new_version(bus: Bus, name: str, durable: bool):
    """A chain of upcasts is followed; the functions get loaded rows."""
    academy = Academy.objects.create(name="4Geeks", slug="4geeks")
    texts = send_as(declare(name, PaidInCents, durable=durable), bus, cents=250, academy=academy)
    got = receive(declare(name, PaidInCurrency, 3, durable=durable))

    deliver(texts, queue=QUEUE)

    assert got == [{"amount": Decimal("2.5"), "currency": "EUR", "academy": academy}]


def test_a_scheduled_message_arrives_as_the_new_version(bus: Bus, name: str):
    """What was sent for later was written with the version of its sender."""
    signal = declare(name, PaidInCents, durable=True)
    receive(signal)
    signal.send_later(timedelta(days=30), None, cents=100)
    got = receive(declare(name, Paid, 2, durable=True))

    bus.come_again()

    assert got == [{"amount": Decimal(1), "academy": None}]
    assert rows() == [("paid", "done", 1)]


def test_an_undeclared_signal_is_version_1(bus: Bus, name: str):
    """A message of a sender that declares nothing, as of signalbus 0.4, passes through the upcasts from version 1."""
    signal: Signal = Signal(name, durable=False)
    receive(signal)
    signal.send(None, cents=100, academy=None)
    ((text,),) = bus.take()
    assert '"v":' not in text
    got = receive(declare(name, Paid, 2, durable=False))

    deliver([text], queue=QUEUE)

    assert got == [{"amount": Decimal(1), "academy": None}]


def test_only_later_versions_travel(bus: Bus, name: str):
    """A message of version 1 is as before; one of a later version is of a format that older workers park."""
    with captured() as sent:
        declare(name, PaidInCents)
        first = declare(name, PaidInCents)
        receive(first)
        first.send(None, cents=1)
        second = declare(name, Paid, 2)
        receive(second)
        second.send(None, amount=Decimal(1))
    one, two = (item.body for _, item in sent._outgoing)
    assert one.startswith("1\n")
    assert '"v":' not in one
    assert two.startswith("5\n")
    assert from_body(two).payload_version == 2


@pytest.mark.parametrize("durable", [True, False])
def test_a_newer_version_is_parked_until_it_is_known(bus: Bus, name: str, durable: bool):
    """A worker with the older code runs nothing; one with the newer code runs the delivery once."""
    texts = send_as(declare(name, Paid, 2, durable=durable), bus, amount=Decimal(3))
    older = receive(declare(name, PaidInCents, durable=durable))

    deliver(texts, queue=QUEUE)

    assert older == []
    assert rows() == [("paid", "parked", 0)]
    assert "payload has version 2, and this worker's code has version 1 of the signal" in only().error
    got = receive(declare(name, Paid, 2, durable=durable))
    bus.come_again()
    assert got == [{"amount": Decimal(3), "academy": None}]
    assert rows() == [("paid", "done", 1)]


def test_a_worker_that_declares_nothing_parks_a_later_version(bus: Bus, name: str):
    """Code without the declaration is code of version 1."""
    texts = send_as(declare(name, Paid, 2, durable=True), bus, amount=Decimal(3))
    DECLARED.clear()
    undeclared: Signal = Signal(name)
    got = receive(undeclared)

    deliver(texts, queue=QUEUE)

    assert got == []
    assert rows() == [("paid", "parked", 0)]


def test_a_missing_upcast_parks_with_the_remedy(bus: Bus, name: str):
    """The delivery runs once the upcast is deployed."""
    texts = send_as(declare(name, PaidInCents, durable=True), bus, cents=100)
    receive(declare(name, Paid, 2, upcasts=False, durable=True))

    deliver(texts, queue=QUEUE)

    assert rows() == [("paid", "parked", 0)]
    assert "no upcast leads from version 1: add @signal.upcast(from_version=1)" in only().error
    got = receive(declare(name, Paid, 2, durable=True))
    bus.come_again()
    assert got == [{"amount": Decimal(1), "academy": None}]


@pytest.mark.parametrize(
    ("upcast", "said"),
    [
        (lambda payload: {"amount": 1.5}, "after the upcasts from version 1: amount: .*takes Decimal"),
        (lambda payload: None, "returned NoneType: return the payload of version 2"),
        (lambda payload: payload["gone"], "KeyError"),
    ],
    ids=["another type", "nothing", "an error"],
)
def test_a_wrong_upcast_is_a_failed_attempt(bus: Bus, name: str, upcast: Any, said: str):
    """The receiver is not called; the delivery is retried, and listed with the error."""
    texts = send_as(declare(name, PaidInCents, durable=True), bus, cents=100)
    signal = declare(name, Paid, 2, upcasts=False, durable=True)
    signal.upcast(from_version=1)(upcast)
    got = receive(signal)

    deliver(texts, queue=QUEUE)

    assert got == []
    assert rows() == [("paid", "pending", 1)]
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(only().error)


def test_a_new_key_with_a_default_rolls_in_either_order(bus: Bus, name: str):
    """A newer worker fills it in for an older sender; an older worker's receivers ignore that of a newer sender."""
    texts = send_as(declare(name, PaidInCents, durable=True), bus, cents=1)
    got = receive(declare(name, PaidInCentsWithNote, durable=True))
    deliver(texts, queue=QUEUE)
    assert got == [{"cents": 1, "academy": None, "note": "none"}]

    texts = send_as(declare(name, PaidInCentsWithNote, durable=True), bus, cents=2, note="new")
    got = receive(declare(name, PaidInCents, durable=True))
    deliver(texts, queue=QUEUE)
    assert got == [{"cents": 2, "academy": None, "note": "new"}]


def test_a_rolling_deploy_in_either_order_loses_nothing(bus: Bus, name: str):
    """Senders and workers of both versions run side by side while messages of version 1 wait: each runs once."""
    expected: list[Decimal | int] = []
    got: list[Decimal | int] = []
    senders = {1: (PaidInCents, "cents"), 2: (Paid, "amount")}

    def worker(version: int) -> None:
        signal = declare(name, senders[version][0], version, durable=True)

        def on_paid(sender, **payload):
            got.append(payload["amount"] if "amount" in payload else payload["cents"])

        connect(signal, on_paid, "paid")
        bus.work()

    for number, (sends, works) in enumerate([(1, 1), (1, 2), (2, 1), (2, 2), (1, 1), (1, 2), (2, 2)], start=1):
        signal = declare(name, senders[sends][0], sends, durable=True)
        connect(signal, lambda **kwargs: None, "paid")
        signal.send(None, **{senders[sends][1]: number * 100 if sends == 1 else Decimal(number)})
        expected.append(number * 100 if sends == works == 1 else Decimal(number))
        worker(works)
    worker(2)
    bus.come_again()

    assert sorted(got) == sorted(expected)
    assert set(rows()) == {("paid", "done", 1)}
    assert len(rows()) == len(expected) == StoredMessage.objects.count()


def test_a_forwarded_message_keeps_its_version(bus: Bus, name: str):
    """A message that is written again, as for one of its receivers, has the payload's version."""
    texts = send_as(declare(name, Paid, 2, durable=False), bus, amount=Decimal(3))
    got = receive(declare(name, PaidInCurrency, 3, durable=False))
    deliver(texts, queue=QUEUE, redelivered=True)

    assert got == [{"amount": Decimal(3), "currency": "EUR", "academy": None}]
    assert from_body(only().message.text).payload_version == 2


def test_a_version_that_is_no_version_is_parked(bus: Bus, name: str):
    """What a key holder writes wrongly is parked, and runs nothing."""
    texts = send_as(declare(name, Paid, 2, durable=False), bus, amount=Decimal(3))
    got = receive(declare(name, Paid, 2, durable=False))
    _, _, body = texts[0].split(".", 2)
    deliver([text_of(body.replace('"v":2', '"v":0'))], queue=QUEUE)

    assert got == []
    assert rows() == [("paid", "parked", 0)]


def test_upcasts_are_declared_once_and_below_the_version():
    """A mistake in a declaration is found where it stands."""
    signal: Signal = Signal("tests.upcasts", payload=Paid, version=2)
    for version in (0, 2, 3, "1", True):
        with pytest.raises(ConfigurationError, match="give a version below 2"):
            signal.upcast(from_version=version)(lambda payload: payload)  # type: ignore[arg-type]
    signal.upcast(from_version=1)(lambda payload: payload)
    with pytest.raises(ConfigurationError, match="is declared twice"):
        signal.upcast(from_version=1)(lambda payload: payload)
    with pytest.raises(ConfigurationError, match="declares no payload"):
        Signal("tests.no_upcasts").upcast(from_version=1)
