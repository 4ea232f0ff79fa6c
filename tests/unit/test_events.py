"""Events: which listeners get them, and how."""

from __future__ import annotations

import subprocess
import sys
from uuid import uuid4

import pytest

from signalbus import current, events
from signalbus.context import CurrentDelivery
from signalbus.events import KINDS, Event, is_heard, listen, tell, unlisten
from signalbus.exceptions import ConfigurationError


@pytest.fixture(autouse=True)
def no_listeners(monkeypatch):
    """Begin without listeners, and forget those of the test at its end."""
    monkeypatch.setattr(events, "_listeners", dict.fromkeys(KINDS, ()))


@pytest.fixture
def delivery() -> CurrentDelivery:
    """A delivery."""
    return CurrentDelivery(
        message_id=uuid4(), signal="shop.sold", receiver="stock.count", attempt=1, root=uuid4(), parent=None, path=()
    )


def test_a_listener_gets_the_events_of_its_kinds(delivery):
    """A listener is called once for each event of its kinds, and not for other kinds."""
    heard: list[Event] = []
    listen("done", "failed")(heard.append)

    tell(Event("done", delivery))
    tell(Event("dead", delivery))
    error = ValueError("no")
    tell(Event("failed", delivery, error, delay=2.0))

    assert heard == [Event("done", delivery), Event("failed", delivery, error, 2.0)]


def test_a_listener_without_kinds_gets_all(delivery):
    """`listen()` listens to every kind."""
    heard: list[str] = []
    listen()(lambda event: heard.append(event.kind))
    for kind in KINDS:
        tell(Event(kind, delivery))
    assert heard == list(KINDS)


def test_a_kind_without_listeners_is_known():
    """Events of such a kind need not be made."""
    heard: list[Event] = []
    assert not is_heard("done")
    listen("done")(heard.append)
    assert is_heard("done")
    assert not is_heard("failed")
    unlisten(heard.append)
    assert not is_heard("done")


def test_a_listener_registered_twice_is_called_once(delivery):
    """A module may be imported under two names."""
    heard: list[Event] = []
    listen("done")(heard.append)
    listen("done", "failed")(heard.append)
    tell(Event("done", delivery))
    assert len(heard) == 1


def test_the_error_of_a_listener_is_logged_and_the_others_are_called(delivery, caplog):
    """The error does not affect the delivery."""
    heard: list[Event] = []

    @listen("done")
    def listener_that_raises(event: Event) -> None:
        raise ValueError("no such metric")

    listen("done")(heard.append)
    tell(Event("done", delivery))

    assert len(heard) == 1
    (record,) = caplog.records
    assert "listener_that_raises" in record.getMessage()
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "no such metric"


def test_the_delivery_is_the_current_one_for_a_listener(delivery):
    """A listener's messages belong to the delivery's cascade; afterwards the former delivery is current."""
    seen: list[object] = []
    listen("done")(lambda event: seen.append(current()))
    tell(Event("done", delivery))
    assert seen == [delivery]
    assert current() is None


def test_an_event_is_frozen(delivery):
    """No listener can change the event of the next one."""
    with pytest.raises(AttributeError):
        Event("done", delivery).kind = "failed"  # type: ignore[misc]


def test_an_unknown_kind_is_refused():
    """The error lists the kinds."""
    with pytest.raises(ConfigurationError, match=r"'finished' is no kind of event; .*done, failed"):
        listen("finished")  # type: ignore[arg-type]


def test_a_coroutine_function_is_refused():
    """No code would await it."""

    async def count(event: Event) -> None:
        """Count."""

    with pytest.raises(ConfigurationError, match="plain function"):
        listen("done")(count)


def test_events_can_be_imported_before_the_apps_are_loaded():
    """A project may register its listeners in any module."""
    script = "from signalbus.events import listen; listen('done')(print)"
    subprocess.run([sys.executable, "-c", script], check=True)
