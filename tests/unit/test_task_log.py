"""Celery's log lines about our task name the signal, the receivers and the outcomes."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from celery import Celery
from celery import signals as celery_signals

from signalbus import conf
from signalbus.compat.celery_internals import LINE_OF_END, LINE_OF_START, logger_of_ends, logger_of_starts
from signalbus.context import CurrentDelivery
from signalbus.events import Event, tell
from signalbus.exceptions import RetryLater
from signalbus.receiving.invoking.runner import Outcome
from signalbus.receiving.process import task_log
from signalbus.receiving.worker import bootstrap
from signalbus.wire.message import Message, to_body


@pytest.fixture
def log(caplog):
    """Complete Celery's lines, log them as Celery does, and return the last line."""
    task_log.complete()
    task_log.complete()  # as a second worker in this process would
    caplog.set_level(logging.INFO)

    def log(logger, line, name="signalbus.deliver", **more):
        context = {"name": name, "id": "7", "runtime": 0.25, "return_value": "None", **more}
        logger.info(line, context, extra={"data": context})
        return caplog.records[-1].getMessage()

    yield log
    for logger in (logger_of_starts, logger_of_ends):
        for each in [each for each in logger.filters if isinstance(each, task_log.Completed)]:
            logger.removeFilter(each)


def text(signal, *recipients):
    """Write a text as a sender does."""
    id_ = uuid4()
    message = Message(
        id=id_,
        root=id_,
        sent_at=datetime.now(UTC),
        signal=signal,
        sender=None,
        recipients=recipients or None,
        payload="{}",
    )
    return conf.signer().sign(to_body(message))


class TestEnd:
    """The line about a task that has ended."""

    def test_a_successful_task(self, log):
        """It says "succeeded", and names the delivery."""
        task_log.begin()
        task_log.note("shop.sold", "stock.count", task_log.DONE)
        assert log(logger_of_ends, LINE_OF_END) == (
            "Task signalbus.deliver[7] succeeded in 0.25s: shop.sold to stock.count: done"
        )

    @pytest.mark.parametrize("outcome", ["failed, again in 4.2 s", "dead", "skipped", "parked"])
    def test_succeeded_needs_all_deliveries_done(self, log, outcome):
        """A message with one other outcome does not say "succeeded"."""
        task_log.begin()
        task_log.note("shop.sold", "stock.count", task_log.DONE)
        task_log.note("shop.sold", "mail.thank", outcome)
        said = f"shop.sold to stock.count: done; shop.sold to mail.thank: {outcome}"
        assert log(logger_of_ends, LINE_OF_END) == f"Task signalbus.deliver[7] ended in 0.25s: {said}"

    def test_a_large_batch_is_counted(self, log):
        """Its line has a bounded length."""
        task_log.begin()
        for number in range(60):
            task_log.note("shop.sold", f"stock.count_{number % 20 or 1}", task_log.DONE)
        line = log(logger_of_ends, LINE_OF_END)
        assert "shop.sold to stock.count_1: done (6 times)" in line
        assert line.endswith("; and 9 others")

    def test_each_line_has_its_own_outcomes(self, log):
        """The outcomes of one message are not in the line of the next."""
        task_log.begin()
        task_log.note("shop.sold", "stock.count", "dead")
        log(logger_of_ends, LINE_OF_END)
        task_log.begin()
        assert "dead" not in log(logger_of_ends, LINE_OF_END)

    def test_a_task_that_ran_nothing_did_not_succeed(self, log):
        """Its deliveries were all given to another worker before they began."""
        task_log.begin()
        line = log(logger_of_ends, LINE_OF_END)
        assert line == "Task signalbus.deliver[7] ended in 0.25s: nothing was run: another worker has its deliveries"

    def test_a_process_without_outcomes_keeps_celerys_line(self, log):
        """A host that runs the task itself is an example."""
        task_log.begin()
        log(logger_of_ends, LINE_OF_END)
        assert log(logger_of_ends, LINE_OF_END) == "Task signalbus.deliver[7] succeeded in 0.25s: None"

    def test_lines_of_other_tasks_are_unchanged(self, log):
        """A receiver may call a host's task in this thread."""
        task_log.begin()
        task_log.note("shop.sold", "stock.count", "dead")
        assert log(logger_of_ends, LINE_OF_END, name="shop.tidy") == "Task shop.tidy[7] succeeded in 0.25s: None"
        assert log(logger_of_starts, LINE_OF_START, name="shop.tidy") == "Task shop.tidy[7] received"

    def test_no_outcome_is_recorded_without_info(self, caplog):
        """With INFO disabled the lines cost nothing."""
        caplog.set_level(logging.WARNING, logger=logger_of_ends.name)
        task_log.begin()
        task_log.note("shop.sold", "stock.count", task_log.DONE)
        assert task_log.outcomes.noted is None


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Outcome("failed", ValueError("no"), 4.2), "failed, again in 4.2 s"),
        (Outcome("failed", RetryLater(9), 9.0), "put off, again in 9.0 s"),
        (Outcome("dead", ValueError("no")), "dead"),
        (Outcome("skipped", ValueError("no")), "skipped"),
    ],
)
def test_the_line_names_the_outcome_of_each_delivery(log, outcome, said):
    """The line says how each delivery ended."""
    task_log.begin()
    delivery = CurrentDelivery(
        message_id=uuid4(), signal="shop.sold", receiver="stock.count", attempt=1, root=uuid4(), parent=None, path=()
    )
    tell(Event(outcome.kind, delivery, outcome.error, outcome.delay, worker="host:1"))
    assert log(logger_of_ends, LINE_OF_END).endswith(f"ended in 0.25s: shop.sold to stock.count: {said}")


class TestStart:
    """The line about a message that a worker has received and nobody has verified."""

    def test_the_line_names_signal_and_receivers(self, log):
        """They are those that the unverified text names."""
        texts = [text("shop.sold", "stock.count[shop.Order]", "mail.thank"), text("shop.open")]
        task_log.about([[texts], {}, {}])
        assert log(logger_of_starts, LINE_OF_START) == (
            "Task signalbus.deliver[7] received: shop.sold to stock.count[shop.Order], mail.thank; "
            "shop.open to whoever listens"
        )

    @pytest.mark.parametrize(
        "payload",
        [None, 7, [], [[]], [[7]], [["no text"]], [[[7, None]]], {"args": 1}, [[["x" * 70 + '"s":"a\x1b[31m"']]]],
    )
    def test_garbage_is_not_shown(self, log, payload):
        """Anybody who can write to the broker chose it."""
        task_log.about([[[text("shop.sold", "stock.count")]], {}, {}])
        task_log.about(payload)
        assert log(logger_of_starts, LINE_OF_START) == "Task signalbus.deliver[7] received"


class TestOnce:
    """A host that configures the logger gets each record once."""

    @pytest.fixture(autouse=True)
    def configured(self, monkeypatch):
        """Add a handler to our logger, as LOGGING does."""
        monkeypatch.setattr(bootstrap.logger, "handlers", [logging.NullHandler()])
        monkeypatch.setattr(bootstrap.logger, "propagate", True)

    def test_celerys_root_handler_does_not_repeat_a_record(self):
        """Celery's handler belongs to the root logger."""
        bootstrap._say_once(Celery(set_as_current=False))
        assert not bootstrap.logger.propagate

    def test_without_a_handler_records_go_to_celerys(self, monkeypatch):
        """Celery's handler is the only one then."""
        monkeypatch.setattr(bootstrap.logger, "handlers", [])
        bootstrap._say_once(Celery(set_as_current=False))
        assert bootstrap.logger.propagate

    def test_the_hosts_own_root_handler_gets_each_record(self, monkeypatch):
        """Celery does not replace it, or the host configures Celery's logging."""
        app = Celery(set_as_current=False)
        app.conf.worker_hijack_root_logger = False
        bootstrap._say_once(app)
        assert bootstrap.logger.propagate
        monkeypatch.setattr(celery_signals.setup_logging, "receivers", [object()])
        bootstrap._say_once(Celery(set_as_current=False))
        assert bootstrap.logger.propagate
