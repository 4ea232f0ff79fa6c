"""``SIGNALBUS["ORIGIN"]`` says who sends: the ids travel in the signed header, and people see them."""

from __future__ import annotations

import json
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from asgiref.sync import async_to_sync
from django.contrib import admin
from django.test import override_settings

from signalbus.admin.message_pages import MessageAdmin
from signalbus.carriers.origin_of_send import LONGEST, origin_function
from signalbus.checks import check_settings
from signalbus.exceptions import ConfigurationError
from signalbus.models import StoredMessage
from signalbus.services.queries.lookup import message_of
from signalbus.wire.message import from_body

from .bus import Bus, connect, new_signal
from .test_inspecting import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalbus import Signal

request: ContextVar[Any] = ContextVar("request", default=None)


def who() -> Any:
    """Return who sends, as a project's function does."""
    found = request.get()
    return found() if callable(found) else found


PATH = f"{__name__}.who"


@pytest.fixture
def signal(bus: Bus) -> Signal:
    """A durable signal with a receiver."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "receiver")
    return signal


def origin_of_only() -> Any:
    """Return the origin of the ledger's only message."""
    return from_body(StoredMessage.objects.get().text).origin


def by(origin: Any, send: Callable[[], object]) -> None:
    """Send as somebody."""
    token = request.set(origin)
    try:
        send()
    finally:
        request.reset(token)


SENDS: dict[str, Callable[[Signal], object]] = {
    "send": lambda signal: signal.send(None, number=1),
    "send_many": lambda signal: signal.send_many(None, [{"number": 1}]),
    "send_robust": lambda signal: signal.send_robust(None, number=1),
    # Not asyncio.run(): asgiref's thread would keep its connection to the database of an earlier test.
    "asend": lambda signal: async_to_sync(signal.asend)(None, number=1),
    "asend_robust": lambda signal: async_to_sync(signal.asend_robust)(None, number=1),
    "with an inline receiver": lambda signal: (
        connect(signal, lambda **kwargs: None, "here", inline=True),
        signal.send(None),
    ),
}


@pytest.mark.parametrize("form", SENDS)
@override_settings(SIGNALBUS={"ORIGIN": PATH})
def test_each_form_of_send_carries_who_sends(bus: Bus, signal: Signal, form: str):
    """Texts, numbers and UUIDs arrive; what is None is left out, and a long text is cut."""
    id_ = UUID(int=7)
    origin = {"request": "5f2a", "user": 17, "trace": id_, "agent": "x" * 1000, "tenant": None, "staff": True}

    by(origin, lambda: SENDS[form](signal))

    assert origin_of_only() == {
        "request": "5f2a", "user": 17, "trace": str(id_), "agent": "x" * LONGEST, "staff": True,
    }  # fmt: skip


@override_settings(SIGNALBUS={"ORIGIN": PATH})
def test_people_see_who_sent_a_message(bus: Bus, signal: Signal):
    """`show`, `history`, `trace` and the admin; secrets and control characters are hidden."""
    by({"user": 17, "session_token": "hunter2", "path": "/\x1b[31m"}, lambda: signal.send(None, number=1))
    bus.work()
    id_ = StoredMessage.objects.get().pk

    for command in ("show", "trace"):
        shown = run(command, id_)
        assert "user 17" in shown
        assert "hunter2" not in shown
        assert "\x1b" not in shown
    assert "origin      user 17, session_token " in run("show", id_)
    assert f"{id_}  sent by user 17, " in run("trace", id_)
    assert json.loads(run("show", id_, "--json"))["origin"]["user"] == 17
    row: Any = StoredMessage.objects.get()
    row.stored = message_of(id_)
    page = str(MessageAdmin(StoredMessage, admin.site).origin(row))
    assert "17" in page
    assert "hunter2" not in page


def fails() -> Any:
    """Raise, as outside of a request."""
    raise LookupError("no request here")


@pytest.mark.parametrize(
    "origin", [fails, lambda: "17", lambda: {1: 2}, lambda: {"a": object()}, lambda: {"a": float("nan")}]
)
@override_settings(SIGNALBUS={"ORIGIN": who})
def test_bad_input_a_function_that_fails_does_not_stop_a_send(
    bus: Bus, signal: Signal, origin: Any, caplog: pytest.LogCaptureFixture
):
    """Only people read an origin: the error is logged with its traceback, and the message is sent."""
    by(origin, lambda: signal.send(None, number=1))

    assert origin_of_only() == {}
    (logged,) = [each for each in caplog.records if each.name == "signalbus"]
    assert 'SIGNALBUS["ORIGIN"] failed' in logged.getMessage()
    assert logged.exc_info


@override_settings(SIGNALBUS={"ORIGIN": who})
def test_a_message_without_origin_is_as_before(bus: Bus, signal: Signal):
    """Where the function returns nothing, as in a command, and where the setting is not set, the header has no key."""
    signal.send(None, number=1)
    with override_settings(SIGNALBUS={}):
        signal.send(None, number=1)

    assert not any('"w":' in row.text for row in StoredMessage.objects.all())


@override_settings(SIGNALBUS={"ORIGIN": PATH})
def test_an_origin_is_kept_when_a_worker_records_the_message(bus: Bus):
    """A message of a signal that is not durable, and fails."""
    signal = new_signal()
    connect(signal, lambda **kwargs: 1 / 0, "failing")
    by({"user": 17}, lambda: signal.send(None))
    bus.work()

    assert origin_of_only() == {"user": 17}


@pytest.mark.parametrize(("value", "remedy"), [("no.such.thing", "cannot be imported"), (f"{__name__}.PATH", "called")])
def test_bad_input_a_function_that_is_none_is_reported_by_check(value: str, remedy: str):
    """Before anything is sent."""
    with override_settings(SIGNALBUS={"ORIGIN": value}):
        with pytest.raises(ConfigurationError, match=remedy):
            origin_function()
        (found,) = check_settings()
        assert found.id == "signalbus.E001"
    for wrong in (17, "", ["a"]):
        with override_settings(SIGNALBUS={"ORIGIN": wrong}):
            (found,) = check_settings()
            assert "it must be a function without arguments" in found.msg
