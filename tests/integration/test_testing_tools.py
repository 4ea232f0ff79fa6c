"""The tools for tests reach no broker, also with real transactions and a broker."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import IntegrityError, connection, transaction

from signalbus.exceptions import SignalBusError
from signalbus.testing import DeliveryFailed, captured, immediate
from tasks.admissions.models import Academy

from .bus import Bus, connect, new_signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalbus import Signal


@pytest.fixture
def signal(ran: list[Any]) -> Signal:
    """A signal whose receiver writes, and sends a message to another receiver."""
    signal, following = new_signal(), new_signal()

    def receiver(sender, slug, **kwargs):
        Academy.objects.create(name=slug, slug=slug)
        following.send(None, slug=slug)

    connect(signal, receiver, "tools.receiver")
    connect(following, lambda slug, **kwargs: ran.append(slug), "tools.following", queue="email")
    return signal


@pytest.fixture
def unreached(bus: Bus):
    """Fail if the broker gets a message."""
    yield
    assert bus.client.keys() == []


@pytest.mark.usefixtures("unreached")
def test_delivering_after_the_block_reaches_no_broker(signal: Signal, ran: list[Any]):
    """Messages that receivers send, and commit, are delivered here too."""
    with captured() as sent, transaction.atomic():
        signal.send(None, slug="a")

    assert sent.deliver_all() == 2
    assert ran == ["a"]
    assert Academy.objects.get().slug == "a"


@pytest.mark.usefixtures("unreached")
def test_messages_of_a_failed_receiver_are_not_delivered(signal: Signal, ran: list[Any]):
    """The messages are rolled back with the writes of the receiver."""
    connect(signal, receiver_that_fails_after_sending, "tools.failing")
    with captured() as sent:
        signal.send(None, slug="a")

    with pytest.raises(DeliveryFailed, match="IntegrityError"):
        sent.deliver_all()
    assert ran == ["a"]


def receiver_that_fails_after_sending(sender, slug, signal, **kwargs):
    """Send a message, and fail."""
    signal.send(None, slug="b")
    raise IntegrityError("no luck")


@pytest.mark.usefixtures("unreached")
def test_immediate_in_a_transaction_is_a_part_of_it(signal: Signal, ran: list[Any]):
    """The receivers' writes commit with it; a database error of one ends only its own savepoint."""
    with immediate(), transaction.atomic():
        signal.send(None, slug="a")
        with pytest.raises(DeliveryFailed, match="IntegrityError"):
            signal.send(None, slug="a")
        signal.send(None, slug="b")

    assert ran == ["a", "b"]
    assert sorted(Academy.objects.values_list("slug", flat=True)) == ["a", "b"]


@pytest.mark.usefixtures("unreached")
@pytest.mark.parametrize(
    "query",
    [
        lambda: Academy.objects.create(name="taken", slug="taken"),
        lambda: connection.cursor().execute("SELECT no_such_column"),
    ],
    ids=["of a model", "by hand"],
)
def test_a_failed_query_of_a_receiver_without_a_transaction_leaves_the_tests_usable(query: Callable[[], Any]):
    """The receiver's error is raised, and the test's writes are committed."""
    signal = new_signal()
    connect(signal, lambda **kwargs: query(), "tools.unprotected", atomic=False)
    with immediate(), transaction.atomic():
        Academy.objects.create(name="taken", slug="taken")
        with pytest.raises(DeliveryFailed, match=r"IntegrityError|OperationalError|ProgrammingError"):
            signal.send(None)
        Academy.objects.create(name="after", slug="after")

    assert sorted(Academy.objects.values_list("slug", flat=True)) == ["after", "taken"]


@pytest.mark.usefixtures("unreached")
def test_writes_of_a_failed_receiver_without_a_transaction_stay():
    """This is as in a worker, except after a failed query, with which nothing could be committed."""
    signal = new_signal()

    def receiver_that_fails_after_writing(**kwargs):
        Academy.objects.create(name="a", slug="a")
        raise ValueError("no luck")

    connect(signal, receiver_that_fails_after_writing, "tools.unprotected", atomic=False)
    with immediate(), transaction.atomic(), pytest.raises(DeliveryFailed, match="no luck"):
        signal.send(None)

    assert Academy.objects.get().slug == "a"


@pytest.mark.usefixtures("unreached")
def test_a_receiver_that_goes_on_after_a_failed_query_gets_the_remedy():
    """In a worker it may; in a test's transaction nothing could be committed."""
    signal = new_signal()

    def receiver_that_goes_on(**kwargs):
        with suppress(IntegrityError):
            Academy.objects.create(name="taken", slug="taken")

    connect(signal, receiver_that_goes_on, "tools.unprotected", atomic=False)
    with immediate(), transaction.atomic():
        Academy.objects.create(name="taken", slug="taken")
        with pytest.raises(DeliveryFailed, match=r"put what may fail into an atomic\(\) of its own"):
            signal.send(None)
        Academy.objects.create(name="after", slug="after")

    assert sorted(Academy.objects.values_list("slug", flat=True)) == ["after", "taken"]


def under_a_loop(function: Callable[[], Any]) -> Any:
    """Call a function on the thread of a running loop, as a coroutine does."""

    async def main() -> Any:
        return function()

    return async_to_sync(main)()


@pytest.mark.usefixtures("unreached")
def test_immediate_refuses_a_plain_send_under_an_event_loop(signal: Signal, ran: list[Any], caplog):
    """The error names asend() before any receiver runs; a robust send logs it; asend() delivers."""
    with immediate():
        with pytest.raises(SignalBusError, match="asend"):
            under_a_loop(lambda: signal.send(None, slug="a"))
        under_a_loop(lambda: signal.send_robust(None, slug="a"))
        assert "asend" in caplog.text
        assert ran == []
        async_to_sync(signal.asend)(None, slug="b")
    assert ran == ["b"]


@pytest.mark.usefixtures("unreached")
def test_deliver_all_is_refused_under_an_event_loop(signal: Signal, ran: list[Any]):
    """The error says how a coroutine delivers; no captured message is lost."""
    with captured() as sent:
        signal.send(None, slug="a")
        with pytest.raises(SignalBusError, match="sync_to_async"):
            under_a_loop(sent.deliver_all)
        assert async_to_sync(sync_to_async(sent.deliver_all))() == 2
    assert ran == ["a"]


@pytest.mark.usefixtures("unreached")
def test_the_payload_of_a_row_that_is_gone_has_its_values():
    """A receiver with on_missing="snapshot" gets the same."""
    signal = new_signal()
    connect(signal, lambda **kwargs: None, on_missing="snapshot", uid="tools.snapshot")
    with captured() as sent:
        academy = Academy.objects.create(name="Web", slug="web")
        signal.send(None, instance=academy)
        academy.delete()
    assert sent.of(signal)[0].payload["instance"].name == "Web"
