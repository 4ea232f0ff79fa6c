"""``manage.py signalbus tail`` tells what happens to deliveries, in any process, by reading the ledger."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.db.models import F

from signalbus import Retry, Signal
from signalbus.context import delivery_of
from signalbus.ledger.history.workers import record_running
from signalbus.models import Delivery, FailedAttempt
from signalbus.services.actors import code_actor
from signalbus.services.queries import event_feed
from signalbus.services.queries.event_feed import EventFeed
from signalbus.services.queries.lookup import filter_from
from signalbus.wire.message import from_body

from .bus import Bus, connect, elsewhere, new_signal

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def signal(bus: Bus) -> Signal:
    """A durable signal: one receiver works, one fails once and then works, one dies."""
    signal = new_signal(durable=True)
    answers = iter([ConnectionError("away"), None])

    def flaky(**kwargs: Any) -> None:
        if (error := next(answers)) is not None:
            raise error

    def broken(**kwargs: Any) -> None:
        raise KeyError("slug")

    connect(signal, lambda **kwargs: None, "crm.sync")
    connect(signal, flaky, "flaky")
    connect(signal, broken, "broken", retry=Retry(max_attempts=1))
    return signal


def feed(*words: str, since: timedelta = timedelta()) -> EventFeed:
    """Return a feed of what a filter selects."""
    return EventFeed(code_actor(), filter_from(words), since)


def kinds(events: Any) -> list[tuple[str, str]]:
    """Return kind and receiver of events, sorted."""
    return sorted((event.kind, event.delivery.receiver) for event in events)


def tail(monkeypatch: pytest.MonkeyPatch, *arguments: str, between: tuple[Callable[[], object], ...] = ()) -> list[str]:
    """Run the command, with steps between its looks, until Ctrl-C after the last; return its lines."""
    steps = iter(between)

    def sleep(seconds: float) -> None:
        try:
            next(steps)()
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr("signalbus.management.subcommands.deliveries.tailing.sleep", sleep)
    out, err = io.StringIO(), io.StringIO()
    call_command("signalbus", "tail", *arguments, stdout=out, stderr=err)
    assert "Not told: successes of signals that are not durable" in err.getvalue()
    return out.getvalue().splitlines()


def test_each_event_of_a_delivery_is_told_once(bus: Bus, signal: Signal):
    """Sent, ended, failed; a delivery that dies is told once, as dead."""
    events = feed()
    assert events.look() == []

    signal.send(None)
    assert kinds(events.look()) == [("sent", "broken"), ("sent", "crm.sync"), ("sent", "flaky")]
    bus.work()
    assert kinds(events.look()) == [("dead", "broken"), ("done", "crm.sync"), ("failed", "flaky")]
    assert events.look() == []
    bus.come_again()
    assert kinds(events.look()) == [("done", "flaky")]


def test_events_of_other_processes_are_told(bus: Bus, signal: Signal):
    """The ledger is read; nothing has to listen."""
    events = feed()
    elsewhere(lambda: signal.send(None))

    assert len(events.look()) == 3


def test_a_feed_begins_when_it_is_asked_to(bus: Bus, signal: Signal):
    """With an age, what happened before is told first, in the order of time."""
    signal.send(None)
    bus.work()
    past = timedelta(seconds=1)
    Delivery.objects.update(ended_at=F("ended_at") - past, created_at=F("created_at") - 2 * past)
    FailedAttempt.objects.update(ended_at=F("ended_at") - past)

    assert feed().look() == []
    told = feed(since=timedelta(hours=1)).look()
    assert [event.kind for event in told[:3]] == ["sent"] * 3
    assert kinds(told[3:]) == [("dead", "broken"), ("done", "crm.sync"), ("failed", "flaky")]


def test_many_events_are_told_over_several_looks(bus: Bus, monkeypatch: pytest.MonkeyPatch):
    """A look reads a bounded number of rows; the next one goes on from there, and repeats none."""
    monkeypatch.setattr(event_feed, "MOST", 4)
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "crm.sync")
    events = feed()
    signal.send_many(None, [{}] * 10)
    bus.work()

    told = [event for _ in range(6) for event in events.look()]

    assert kinds(told) == [("done", "crm.sync")] * 10 + [("sent", "crm.sync")] * 10
    assert len({(event.kind, event.delivery.pk) for event in told}) == 20


def test_a_run_of_more_than_a_second_is_told(bus: Bus, signal: Signal):
    """Once for each attempt, as long as its process reports it."""
    signal.send(None)
    events = feed("receiver:crm.sync")
    delivery = Delivery.objects.select_related("message").get(receiver="crm.sync")
    record_running("host:1", [(delivery_of(from_body(delivery.message.text), "crm.sync", 1), 2.0)])

    (event,) = [each for each in events.look() if each.kind == "running"]
    assert (event.worker, event.attempt) == ("host:1", 1)
    assert [each.kind for each in events.look()] == []


def test_a_parked_delivery_is_told(bus: Bus, signal: Signal):
    """A worker does not know its receiver."""
    signal.send(None)
    events = feed()
    signal.disconnect(dispatch_uid="crm.sync")
    bus.work()

    assert ("parked", "crm.sync") in kinds(events.look())


def test_tail_prints_a_line_for_each_event(bus: Bus, signal: Signal, monkeypatch: pytest.MonkeyPatch):
    """Filtered, with attempt and error, until Ctrl-C, which ends it quietly."""
    lines = tail(monkeypatch, "receiver:flaky", between=(lambda: signal.send(None), bus.work, bus.come_again))

    assert [line.split("  ")[1].strip() for line in lines] == ["sent", "failed", "done"]
    assert f"{signal.name} -> flaky" in lines[0]
    assert "attempt 1" in lines[1]
    assert lines[1].endswith("ConnectionError: away")
    assert "attempt 2" in lines[2]


def test_tail_writes_json_lines_and_ends_after_a_number(bus: Bus, signal: Signal, monkeypatch: pytest.MonkeyPatch):
    """An object in each line, with a schema number."""
    signal.send(None)
    bus.work()

    lines = tail(monkeypatch, "--json", "--since", "1h", "--limit", "4")

    objects = [json.loads(line) for line in lines]
    assert [each["schema"] for each in objects] == [1] * 4
    assert {each["kind"] for each in objects[:3]} == {"sent"}
    assert set(objects[0]) >= {"at", "delivery", "message", "receiver", "attempt", "error", "group", "release"}


def test_tail_goes_on_after_an_outage_of_the_database(bus: Bus, signal: Signal, monkeypatch: pytest.MonkeyPatch):
    """The outage is told once, and no event is lost."""
    look, answers = EventFeed.look, iter([OperationalError("no route"), OperationalError("no route"), None])

    def flaky_look(self: EventFeed) -> Any:
        if (error := next(answers, None)) is not None:
            raise error
        return look(self)

    monkeypatch.setattr(EventFeed, "look", flaky_look)
    lines = tail(monkeypatch, "receiver:crm.sync", between=(lambda: signal.send(None), lambda: None, bus.work))

    assert [line.split("  ")[1].strip() for line in lines] == ["sent", "done"]


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["stat:dead"], "did you mean 'state'"),
        (["--limit", "0"], "it must be at least 1"),
        (["--since", "2026-01-01T10:00"], "takes an age"),
        (["--interval", "0"], "no number of seconds"),
    ],
)
def test_bad_input_a_wrong_argument_ends_the_command(bus: Bus, arguments: list[str], remedy: str):
    """The error says what to write."""
    with pytest.raises(CommandError, match=remedy):
        call_command("signalbus", "tail", *arguments, stdout=io.StringIO(), stderr=io.StringIO())
