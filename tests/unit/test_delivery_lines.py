"""The lines of `signalbus dev` about deliveries."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from django.core.management.color import make_style, no_style

from signalbus import events
from signalbus.context import CurrentDelivery
from signalbus.events import Event
from signalbus.exceptions import MissingRow, RetryLater
from signalbus.management.dev.delivery_lines import SHOWN, DeliveryLines
from signalbus.receiving.settling.listeners import log_outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

ID = UUID(int=1)
DELIVERY = CurrentDelivery(
    message_id=ID, signal="shop.paid", receiver="mail.thank", attempt=1, root=ID, parent=None, path=()
)


def line_of(event: Event, style: str = "nocolor") -> str:
    """Return what is written of an event, without the time."""
    written: list[str] = []
    DeliveryLines(written.append, no_style() if style == "nocolor" else make_style(style)).tell(event)
    (text,) = written
    assert re.match(r"\d\d:\d\d:\d\d  ", text)
    return text[10:]


def raised(error: Exception) -> Exception:
    """Raise an error as a receiver does, and return it."""
    try:
        raise error
    except type(error) as caught:
        return caught


def test_done():
    """A line has the signal, the receiver, the outcome and the milliseconds."""
    assert line_of(Event("done", DELIVERY, seconds=0.0123)) == "shop.paid -> mail.thank  done  12 ms"


def test_later_attempts_are_counted():
    """A delivery that succeeds at its third attempt says so; one that ran for long is told in seconds."""
    event = Event("done", replace(DELIVERY, attempt=3), seconds=2.34)
    assert line_of(event) == "shop.paid -> mail.thank  done  2.3 s  attempt 3"


def test_failure_has_its_traceback():
    """The traceback stands below the line, and begins in the receiver."""
    text = line_of(Event("failed", DELIVERY, error=raised(KeyError("slug")), delay=1.23, seconds=0.001))
    first, *rest = text.splitlines()
    assert first == "shop.paid -> mail.thank  failed  1 ms  attempt 1, again in 1.2 s"
    assert rest[0] == "    Traceback (most recent call last):"
    assert "test_delivery_lines.py" in rest[1]
    assert rest[-1] == "    KeyError: 'slug'"


def test_retry_later_is_not_shown_as_a_failure():
    """A receiver that raised RetryLater is put off; there is no traceback."""
    text = line_of(Event("failed", DELIVERY, error=raised(RetryLater(60)), delay=60, seconds=0.001))
    assert text.splitlines()[0] == "shop.paid -> mail.thank  put off  1 ms  attempt 1, again in 60.0 s"
    assert "Traceback" not in text
    assert "asked to be run again in 60 s" in text


def test_dead_says_how_to_run_it_again():
    """The remedy names the delivery."""
    text = line_of(Event("dead", DELIVERY, error=raised(KeyError("slug")), seconds=0.001))
    assert "KeyError: 'slug'" in text
    assert text.splitlines()[-1] == f"    Run it again: manage.py signalbus retry {DELIVERY.id}"


@pytest.mark.parametrize("kind", ["parked", "held", "skipped", "refused"])
def test_other_outcomes_have_a_reason_and_a_remedy(kind):
    """The reason and the remedy stand below the line."""
    text = line_of(Event(kind, DELIVERY, error=ValueError("unknown receiver")))
    first, reason, remedy = text.splitlines()
    assert first == f"shop.paid -> mail.thank  {kind}"
    assert "unknown receiver" in reason
    assert remedy.startswith("    ")


def test_missing_row_has_its_own_remedy():
    """A receiver that can do without the row can say so."""
    text = line_of(Event("skipped", DELIVERY, error=MissingRow(("shop.Order 7",))))
    assert 'on_missing="snapshot"' in text


def test_open_message_without_a_run_has_no_line():
    """Its receivers have deliveries of their own."""
    written: list[str] = []
    DeliveryLines(written.append, no_style()).tell(Event("done", replace(DELIVERY, receiver="")))
    assert written == []


def test_the_line_of_an_unverified_text():
    """It has neither a signal nor a receiver."""
    assert line_of(Event("refused", replace(DELIVERY, signal="", receiver=""))).startswith("a text  refused")


def test_escapes_of_an_error_do_not_reach_the_terminal():
    """An error's text may be anybody's."""
    text = line_of(Event("failed", DELIVERY, error=raised(ValueError("\x1b[2J\x07")), seconds=0.001))
    assert "\x1b" not in text
    assert "\\x1b[2J\\x07" in text


def test_terminal_is_coloured():
    """A done delivery is green, a failed one red; with no style there is no escape."""
    done = Event("done", DELIVERY, seconds=0.01)
    failed = Event("failed", DELIVERY, error=KeyError("slug"), seconds=0.01)
    assert "\x1b[32;1m" in line_of(done, "dark")
    assert "\x1b[31;1m" in line_of(failed, "dark")
    assert "\x1b" not in line_of(done)


@pytest.fixture
def registered() -> Iterator[list[str]]:
    """Register the listener, and restore the log's own afterwards."""
    written: list[str] = []
    lines = DeliveryLines(written.append, no_style())
    lines.register()
    yield written
    events.unlisten(lines.tell)
    events.listen("failed", "dead", "skipped", "held")(log_outcome)


def test_a_failure_is_shown_once(registered, caplog):
    """A failure is told once."""
    events.tell(Event("failed", DELIVERY, error=raised(KeyError("slug")), worker="host:1", seconds=0.001))
    assert len(registered) == 1
    assert caplog.records == []
    assert all(events.is_heard(kind) for kind in SHOWN)
