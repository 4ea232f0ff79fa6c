"""The tools for tests, where transactions are real and a broker is there: they do not reach it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db import IntegrityError, transaction

from signalbus.testing import DeliveryFailed, captured, immediate
from tasks.admissions.models import Academy

from .bus import Bus, connect, new_signal

if TYPE_CHECKING:
    from signalbus import Signal


@pytest.fixture
def signal(ran: list[Any]) -> Signal:
    """A signal whose receiver writes, and sends in turn what another receives."""
    signal, following = new_signal(), new_signal()

    def receiver(sender, slug, **kwargs):
        Academy.objects.create(name=slug, slug=slug)
        following.send(None, slug=slug)

    connect(signal, receiver, "tools.receiver")
    connect(following, lambda slug, **kwargs: ran.append(slug), "tools.following", queue="email")
    return signal


@pytest.fixture
def unreached(bus: Bus):
    """The broker must not hear of what a test does."""
    yield
    assert bus.client.keys() == []


@pytest.mark.usefixtures("unreached")
def test_delivering_after_the_block_reaches_no_broker(signal: Signal, ran: list[Any]):
    """What receivers send in turn, and commit, is delivered here too."""
    with captured() as sent, transaction.atomic():
        signal.send(None, slug="a")

    assert sent.deliver_all() == 2
    assert ran == ["a"]
    assert Academy.objects.get().slug == "a"


@pytest.mark.usefixtures("unreached")
def test_what_a_failed_receiver_sent_in_turn_is_not_delivered(signal: Signal, ran: list[Any]):
    """It is rolled back with what the receiver wrote."""
    connect(signal, receiver_that_fails_after_sending, "tools.failing")
    with captured() as sent:
        signal.send(None, slug="a")

    with pytest.raises(DeliveryFailed, match="IntegrityError"):
        sent.deliver_all()
    assert ran == ["a"]


def receiver_that_fails_after_sending(sender, slug, signal, **kwargs):
    """Send once more, and fail."""
    signal.send(None, slug="b")
    raise IntegrityError("no luck")


@pytest.mark.usefixtures("unreached")
def test_immediate_in_a_transaction_is_a_part_of_it(signal: Signal, ran: list[Any]):
    """The receivers' writes are in it, a database error of one's ends only its own savepoint, and it commits."""
    with immediate(), transaction.atomic():
        signal.send(None, slug="a")
        with pytest.raises(DeliveryFailed, match="IntegrityError"):
            signal.send(None, slug="a")
        signal.send(None, slug="b")

    assert ran == ["a", "b"]
    assert sorted(Academy.objects.values_list("slug", flat=True)) == ["a", "b"]
