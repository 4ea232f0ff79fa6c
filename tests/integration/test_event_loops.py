"""A synchronous send under a running event loop loses no message."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connections, transaction
from django.utils.functional import SimpleLazyObject

from signalbus import Signal
from signalbus.exceptions import SignalBusError
from tasks.admissions.models import Academy
from tests.servers import broker

from .bus import Bus, connect, eager, new_signal, rows

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Opened:
    """A payload with a row."""

    academy: Academy


NOBODY = "redis://127.0.0.1:1/0"


@pytest.fixture
def signal(ran: list[Any]) -> Signal:
    """A signal with one receiver."""
    signal = new_signal()
    connect(signal, lambda number, **kwargs: ran.append(number), "loops.receiver")
    return signal


def under_a_loop(function: Callable[[], Any]) -> Any:
    """Call a function on the thread of a running loop, as a coroutine does."""

    async def main() -> Any:
        return function()

    return asyncio.run(main())


@pytest.mark.parametrize("form", ["send", "send_robust"])
def test_a_message_is_recorded_during_an_outage_of_the_broker(bus: Bus, signal: Signal, ran: list[Any], form: str):
    """The message is in the ledger when the call returns, and is delivered later."""
    with broker(NOBODY):
        sent = under_a_loop(lambda: getattr(signal, form)(None, number=1))
        assert sent.id is not None
        assert rows() == [("loops.receiver", "pending", 0)]

    bus.come_again()
    assert ran == [1]


def test_messages_of_send_many_are_recorded_too(bus: Bus, signal: Signal):
    """This holds during an outage of the broker."""
    with broker(NOBODY):
        under_a_loop(lambda: signal.send_many(None, [{"number": 1}, {"number": 2}]))
    assert rows() == [("loops.receiver", "pending", 0)] * 2


def test_with_the_broker_a_message_is_published(bus: Bus, signal: Signal, ran: list[Any]):
    """No query is made, and it is published before the call returns."""
    under_a_loop(lambda: signal.send(None, number=1))
    bus.work()
    assert ran == [1]
    assert rows() == []


@pytest.mark.parametrize("form", ["send", "send_robust"])
def test_a_payload_with_a_queryset_is_sent(bus: Bus, signal: Signal, ran: list[Any], form: str):
    """The queryset is read on a thread on which Django allows it."""
    academy = Academy.objects.create(name="A", slug="a")
    under_a_loop(lambda: getattr(signal, form)(None, number=Academy.objects.all()))
    bus.work()
    assert ran == [[academy]]


@pytest.mark.parametrize("form", ["send", "send_robust", "asend", "asend_robust"])
def test_a_lazy_row_of_a_declared_payload_is_sent(bus: Bus, ran: list[Any], form: str):
    """The check looks at the class of the row, as of ``request.user``, and so loads it."""
    academy = Academy.objects.create(name="A", slug="a")
    declared: Signal = Signal(new_signal().name + ".declared", payload=Opened)
    connect(declared, lambda academy, **kwargs: ran.append(academy), "loops.declared")

    async def view() -> None:
        sent = getattr(declared, form)(None, academy=SimpleLazyObject(Academy.objects.get))
        assert (await sent if form.startswith("a") else sent).id is not None

    async_to_sync(view)()  # whose coroutines use the connection of this thread
    bus.work()
    assert ran == [academy]


def test_eager_mode_delivers(bus: Bus, signal: Signal, ran: list[Any]):
    """A receiver in this process has its database, as in a worker."""
    with eager():
        under_a_loop(lambda: signal.send(None, number=1))
    assert ran == [1]
    assert rows() == []


def test_with_async_unsafe_a_message_is_recorded(bus: Bus, signal: Signal, monkeypatch):
    """With DJANGO_ALLOW_ASYNC_UNSAFE, as in a notebook, a send also waits for the transaction there."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")

    def in_a_transaction() -> None:
        try:
            with transaction.atomic():
                signal.send(None, number=1)
                assert rows() == []
            assert rows() == [("loops.receiver", "pending", 0)]
            signal.send(None, number=2)
        finally:
            connections.close_all()  # the coroutine's own

    with broker(NOBODY):
        under_a_loop(in_a_transaction)
    assert rows() == [("loops.receiver", "pending", 0)] * 2


@pytest.mark.parametrize("form", ["send", "send_robust", "send_many"])
def test_inline_coroutines_are_refused(bus: Bus, signal: Signal, form: str):
    """A send with an inline ``async def`` receiver raises before anything runs or is sent, and names ``asend``."""
    heard = []

    async def inline(**kwargs):
        heard.append("async")

    signal.connect(lambda **kwargs: heard.append("sync"), inline=True, weak=False)
    signal.connect(inline, inline=True)
    payload: Any = {} if form == "send_many" else {"number": 1}
    arguments = [[{"number": 1}]] if form == "send_many" else []
    with pytest.raises(SignalBusError, match=r"await .*asend"):
        under_a_loop(lambda: getattr(signal, form)(None, *arguments, **payload))
    assert heard == []
    assert bus.take() == []


def test_a_payload_that_cannot_travel_is_a_dead_delivery(bus: Bus, signal: Signal):
    """The robust form records it."""
    under_a_loop(lambda: signal.send_robust(None, number=object()))
    assert rows() == [("loops.receiver", "dead", 0)]
