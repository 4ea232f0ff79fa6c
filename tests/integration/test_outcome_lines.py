"""Celery's line about a message whose deliveries were not run says why, and does not say "succeeded"."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from signalbus.compat.celery_internals import LINE_OF_END, logger_of_ends
from signalbus.ledger import attempts as ledger
from signalbus.receiving.process import task_log
from signalbus.receiving.routing.batch import deliver
from signalbus.receiving.sweeping.due_publication import mark

from .bus import QUEUE, Bus, connect, let_wait, new_signal

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def line(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """Return Celery's log line of a message that was just run."""
    caplog.set_level(logging.INFO)
    completed = task_log.Completed()

    def line() -> str:
        context = {"name": "signalbus.deliver", "id": "7", "runtime": 0.25, "return_value": "None"}
        record = logging.makeLogRecord({"msg": LINE_OF_END, "args": context, "levelno": logging.INFO})
        assert record.args is context
        completed.filter(record)
        return record.getMessage()

    assert logger_of_ends.isEnabledFor(logging.INFO)
    return line


DURABLE: list[dict[str, Any]] = [{"durable": True}, {"durable": True, "ordered_by": "key"}]


@pytest.mark.parametrize("options", DURABLE)
@pytest.mark.parametrize("recipients", [1, 2])
def test_the_line_of_a_duplicate_names_the_done_deliveries(
    bus: Bus, line: Callable[[], str], options: dict[str, Any], recipients: int
):
    """Each delivery that was already done is named."""
    signal = new_signal(**options)
    for number in range(recipients):
        connect(signal, lambda **kwargs: None, f"count_{number}")
    signal.send(None, key=1)
    (texts,) = bus.take()
    deliver(texts, queue=QUEUE)
    assert "succeeded" in line()
    deliver(texts, queue=QUEUE)
    shown = line()
    assert shown.startswith("Task signalbus.deliver[7] ended in 0.25s: ")
    for number in range(recipients):
        assert f"{signal.name} to count_{number}: runs elsewhere, or was delivered already" in shown


def test_the_line_says_that_another_worker_runs_the_key(bus: Bus, line: Callable[[], str], monkeypatch: Any):
    """The message is left to that worker."""
    signal = new_signal(durable=True, ordered_by="key")
    connect(signal, lambda **kwargs: None, "count")
    signal.send(None, key=1)
    (texts,) = bus.take()
    monkeypatch.setattr(ledger, "head", lambda key: SimpleNamespace(ready=False, id=None))
    deliver(texts, queue=QUEUE)
    assert line().endswith(f"ended in 0.25s: {signal.name} to count: left to the worker that runs its ordering key")


def test_the_line_of_a_redelivered_batch(bus: Bus, line: Callable[[], str]):
    """Deliveries of a lost worker's batch wait for runs of their own."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "count")
    connect(signal, lambda **kwargs: None, "ship")
    signal.send(None)
    bus.work(redelivered=True)
    shown = line()
    assert "ended in" in shown
    assert f"{signal.name} to count: not begun, will be published again by itself" in shown
    assert f"{signal.name} to ship: not begun" in shown


def test_the_line_names_requeued_deliveries_of_a_batch(bus: Bus, line: Callable[[], str], settings: Any):
    """The line names requeued deliveries beside done ones."""
    settings.SIGNALBUS = {**settings.SIGNALBUS, "BATCH_SECONDS": 0}
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "count")
    signal.send_many(None, [{}, {}, {}])
    (texts,) = bus.take()
    deliver(texts, queue=QUEUE)
    shown = line()
    assert f"{signal.name} to count: not begun, requeued (2 times)" in shown
    assert f"{signal.name} to count: done" in shown


@pytest.mark.parametrize("durable", [True, False])
def test_the_line_of_an_open_signal_names_its_receivers(bus: Bus, line: Callable[[], str], durable: bool):
    """The line names the receivers, and how each is reached."""
    signal = new_signal(durable=durable, open=True)
    connect(signal, lambda **kwargs: None, "count", queue="tills")
    signal.send(None)
    bus.work()
    how = "not begun, will be published again by itself" if durable else "sent on to the queue tills"
    assert line().endswith(f"ended in 0.25s: {signal.name} to count: {how}")


def test_the_line_of_a_marker(bus: Bus, line: Callable[[], str]):
    """A marker of the sweeper delivers nothing."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "count")
    signal.send(None)
    bus.take()
    let_wait()
    mark()
    bus.work()
    assert line().endswith("ended in 0.25s: a marker to the queue signalbus: taken note of")
