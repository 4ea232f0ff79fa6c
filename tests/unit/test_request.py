"""A child gets the texts and the ids of a Celery message, and nothing with which its writer could control the
worker.
"""

from __future__ import annotations

import json
import pickle
import time
from typing import Any
from unittest.mock import Mock

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.app.task import Context
from celery.exceptions import InvalidTaskError, Reject
from celery.worker.request import Request, create_request_cls  # type: ignore[attr-defined]  # not in its stubs
from kombu.message import Message

from signalbus import celery
from signalbus.receiving.process import interruption
from signalbus.receiving.process.worker_events import worker_name
from signalbus.receiving.settling.lost_processes import Loss, losses
from signalbus.receiving.worker.request import DeliverRequest
from signalbus.transport import batching, progress

ID = "9b6821d2-65d9-46d3-a4e9-269ad27f2866"
TEXT = "a text"
EMBEDDED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def deep(levels):
    """Nest lists."""
    value: list[object] = []
    for _ in range(levels):
        value = [value]
    return value


def request(headers=None, body=None, payload=None, cls=DeliverRequest, **properties):
    """Make a request of a message, as a worker does."""
    info = {"exchange": "", "routing_key": "signalbus"}
    message = Message(
        body=json.dumps([[[TEXT]], {}, EMBEDDED] if body is None else body),
        content_type="application/json",
        content_encoding="utf-8",
        headers={"task": celery.TASK_NAME, "id": ID, "root_id": ID, **(headers or {})},
        properties={"correlation_id": ID, "priority": 3, **properties},
        delivery_info=info | properties.get("delivery_info", {}),
        accept={"application/json"},
    )
    message._decoded_cache = payload  # type: ignore[attr-defined]
    app = celery.get_app()
    return cls(message, app=app, task=app.tasks[celery.TASK_NAME], hostname="here")


def context(made):
    """Make the task's ``request``."""
    args, kwargs, embedded = made.body
    return Context({**made.request_dict, "args": args, "kwargs": kwargs, **embedded})


class TestValidMessage:
    def test_the_child_gets_arguments_that_it_need_not_parse(self):
        """Celery does not parse a body without a content type."""
        made = request()
        assert made.body == ([[TEXT]], {}, {})
        assert made.content_type is None

    def test_the_ids_are_passed_on(self):
        """A Celery task that a receiver starts belongs to the same tree."""
        seen = context(request({"parent_id": "parent"}))
        assert (seen.id, seen.root_id, seen.parent_id, seen.correlation_id) == (ID, ID, "parent", ID)

    def test_the_queue_and_redelivery_are_passed_on(self):
        """The task reads both."""
        seen = context(request(delivery_info={"redelivered": True}))
        assert seen.delivery_info == {"exchange": "", "routing_key": "signalbus", "redelivered": True}

    def test_logs_show_the_summary(self):
        """Otherwise Celery would log the texts."""
        assert context(request({"argsrepr": "(1 texts)"})).argsrepr == "(1 texts)"

    def test_flat_headers_of_others_are_passed_on(self):
        """Instrumentation finds its trace context in the task's request."""
        assert context(request({"traceparent": "00-1-2-01"})).traceparent == "00-1-2-01"

    @pytest.mark.parametrize("arguments", [([TEXT],), [(TEXT,)], ((TEXT,),)])
    def test_a_tuple_is_accepted_like_a_list(self, arguments):
        """Serializers other than JSON keep tuples."""
        made = request(body=[[[TEXT]], {}, EMBEDDED], payload=(arguments, {}, EMBEDDED))
        assert made.body == ([[TEXT]], {}, {})


class TestAHostileMessage:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("callbacks", "x"),
            ("chain", "x"),
            ("chord", "x"),
            ("errbacks", "x"),
            ("eta", "2999-01-01T00:00:00+00:00"),
            ("expires", "2000-01-01T00:00:00+00:00"),
            ("group", "x"),
            ("ignore_result", False),
            ("is_eager", True),
            ("retries", 10**9),
            ("shadow", "x"),
            ("timelimit", [0.001, 0.001]),
        ],
    )
    def test_celerys_control_headers_are_dropped(self, name, value):
        """Only the worker's own settings control it."""
        made = request({name: value})
        assert getattr(context(made), name) == (True if name == "ignore_result" else getattr(Context, name))
        assert (made.time_limits, made.eta, made.expires) == ((None, None), None, None)

    @pytest.mark.parametrize("place", ["headers", "properties", "delivery_info"])
    def test_nothing_nested_reaches_a_child(self, place):
        """A few hundred levels end the process that pickles them."""
        value = deep(5000)
        where = {
            "headers": {"headers": {"stamps": value, "mine": value}},
            "properties": {"reply_to": value, "priority": value},
            "delivery_info": {"delivery_info": {"exchange": value, "routing_key": value}},
        }[place]
        made = request(**where)
        assert pickle.loads(pickle.dumps(made.request_dict)) == made.request_dict

    @pytest.mark.parametrize("arguments", [[], [["a"], ["b"]], ["a"], [[1]], [[["a"]]], [deep(500)], {"a": 1}, "a"])
    def test_other_arguments_become_one_text_to_refuse(self, arguments):
        """Such arguments are recorded as a dead letter."""
        (((text,),), kwargs, embedded) = request(body=[arguments, {}, EMBEDDED]).body
        assert isinstance(text, str)
        assert len(text) < 200
        assert (kwargs, embedded) == ({}, {})

    def test_keyword_arguments_become_one_text_to_refuse(self):
        """The task takes none."""
        (((text,),), kwargs, _) = request(body=[[[TEXT]], {"queue": "x"}, EMBEDDED]).body
        assert "queue" in text
        assert kwargs == {}

    def test_callbacks_in_the_body_are_dropped(self):
        """A chain would run any task of the worker."""
        signature = [{"task": "os.system", "args": ["x"]}]
        made = request(body=[[[TEXT]], {}, dict.fromkeys(["chain", "callbacks", "errbacks", "chord"], signature)])
        assert made.body == ([[TEXT]], {}, {})
        assert (made.errbacks, made.chord) == (None, None)

    def test_a_third_part_that_is_no_mapping_is_dropped(self):
        """Celery would read it after a time limit, and neither acknowledge nor requeue the message."""
        made = request(body=[[[TEXT]], {}, 7])
        assert made.body == ([[TEXT]], {}, {})
        assert made._context.errbacks is None

    def test_a_lost_message_is_neither_copied_nor_dropped(self):
        """A host's settings for all tasks do not change that."""
        task: Any = celery.get_app().tasks[celery.TASK_NAME]
        assert (task.acks_on_failure, task.acks_on_timeout, task.retry_on_worker_lost) == (False, False, False)

    @pytest.mark.parametrize("given", [{"id": 7}, {"id": ["x"]}, {"id": None}])
    def test_an_invalid_request_is_refused(self, given):
        """Celery logs it, and drops it."""
        with pytest.raises(InvalidTaskError):
            request(given)

    @pytest.mark.parametrize("body", [7, "text", [], [1, 2], {"args": []}])
    def test_a_body_that_is_no_triple_is_refused(self, body):
        """Celery's protocol says so."""
        with pytest.raises(InvalidTaskError):
            request(body=body)


def learning_request(monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], Any]:
    """Make a worker's request, of Celery's own subclass, and the list of what it learns."""
    seen: list[Any] = []
    monkeypatch.setattr(batching, "learn", lambda *args: seen.append(args))
    app = celery.get_app()
    task = app.tasks[celery.TASK_NAME]
    return seen, request(cls=create_request_cls(DeliverRequest, task, Mock(), "here", None, app=app))


def lost(error: Exception) -> ExceptionInfo:
    """Return the failure that a request reports."""
    try:
        raise error
    except Exception:  # noqa: BLE001 - whatever it is
        return ExceptionInfo()


class TestLostChild:
    @pytest.fixture(autouse=True)
    def requeued(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """The messages that Celery requeues."""
        seen: list[Any] = []
        monkeypatch.setattr(Request, "on_failure", lambda made, info, *_: seen.append(info))
        return seen

    @pytest.fixture
    def taken(self, monkeypatch: pytest.MonkeyPatch) -> list[Loss]:
        """The lost runs that the sweeper's thread gets to record."""
        seen: list[Loss] = []

        def add(loss: Loss) -> bool:
            seen.append(loss)
            return True

        monkeypatch.setattr(losses, "add", add)
        return seen

    INFO = lost(WorkerLostError("Worker exited prematurely: signal 9 (SIGKILL) Job: 7."))

    def test_a_message_is_requeued_once_the_loss_is_recorded(self, requeued, taken):
        """The message of one text says which delivery the child ran."""
        made = request()
        made.worker_pid = 42
        made.on_failure(self.INFO)

        (loss,) = taken
        assert (loss.text, loss.place, loss.reason) == (TEXT, None, "signal 9 (SIGKILL)")
        assert loss.worker == worker_name(42)
        assert requeued == []
        loss.requeue()
        assert requeued == [self.INFO]

    def test_the_progress_says_which_of_several_texts_ran(self, requeued, taken):
        """The others go on as before."""
        made = request(body=[[["a", "b", "c"]], {}, EMBEDDED])
        made.worker_pid = 42
        sheet = made._sheet = progress.post(3)
        assert sheet is not None
        told = progress.of(sheet.ticket, 3)
        told.begin(0)
        told.end(0)
        told.begin(1)
        made.on_failure(self.INFO)
        progress.release(sheet)

        (loss,) = taken
        assert (loss.text, loss.place) == ("b", None)

    @pytest.mark.parametrize("case", ["unsure", "not begun", "shutdown", "no sweeper", "time limit"])
    def test_a_message_is_requeued_at_once_otherwise(self, requeued, taken, monkeypatch, case: str):
        """Otherwise means: it is unknown which text ran, no child had begun, the worker shuts down, or nothing records
        the loss.
        """
        made = request(body=[[["a", "b"]], {}, EMBEDDED]) if case == "unsure" else request()
        made.worker_pid = None if case == "not begun" else 42
        info = lost(TimeLimitExceeded(5)) if case == "time limit" else self.INFO
        if case == "shutdown":
            monkeypatch.setattr(interruption, "has_begun", lambda: True)
        if case == "no sweeper":
            monkeypatch.undo()
            monkeypatch.setattr(Request, "on_failure", lambda made, info, *_: requeued.append(info))
        made.on_failure(info)

        assert (requeued, taken) == ([info], [])


class TestLearnedTimes:
    def test_a_requests_time_updates_the_estimates_of_its_signals(self, monkeypatch):
        """Celery's own subclass, which the pool calls, reports it."""
        seen, made = learning_request(monkeypatch)

        made.on_success((0, None, 0.25))

        assert seen == [([TEXT], "signalbus", 0.25)]

    def test_a_divided_request_updates_only_the_stragglers_estimate(self, monkeypatch):
        """The estimate gets the time for which the other texts waited, and the rest of the straggler's run."""
        seen, made = learning_request(monkeypatch)
        sheet = made._sheet = progress.post(2)
        assert sheet is not None
        sheet.make_void()
        sheet.late, sheet.late_since = [TEXT], time.monotonic() - 0.5

        made.on_success((0, None, 7.0))
        progress.release(sheet)

        ((texts, queue, seconds),) = seen
        assert (texts, queue) == ([TEXT], "signalbus")
        assert 0.5 <= seconds < 5

    def test_a_failed_request_updates_no_estimate(self, monkeypatch):
        """The time of a failed request is that of a broken database, or of the pause after it."""
        seen: list[object] = []
        monkeypatch.setattr(batching, "learn", lambda *args: seen.append(args))
        app = celery.get_app()
        task = app.tasks[celery.TASK_NAME]
        made = request(cls=create_request_cls(DeliverRequest, task, Mock(), "here", None, app=app))

        try:
            raise Reject("away", requeue=True)
        except Reject:
            made.on_success((1, ExceptionInfo(), 0.25))

        assert seen == []
