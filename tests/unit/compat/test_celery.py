"""What is private to Django, Celery and kombu still is as we use it."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, _state
from celery.local import Proxy
from celery.utils.dispatch import Signal
from kombu import Queue

from signalbus import celery
from signalbus.compat.celery import listeners, names_queues, task_here
from signalbus.receiving import worker


class TestListeners:
    def test_who_listens_to_everything_and_who_asked_for_a_sender(self):
        """Both hear of the sender; who asked for another does not."""
        signal = Signal(name="tests")

        def of_all(**kwargs):
            pass

        def of_mine(**kwargs):
            pass

        def of_another(**kwargs):
            pass

        signal.connect(of_all)
        signal.connect(of_mine, sender="mine")
        signal.connect(of_another, sender="another")
        assert listeners(signal, "mine") == [(of_all, False), (of_mine, True)]

    def test_nobody(self):
        """As it is nearly always."""
        assert listeners(Signal(name="tests"), "mine") == []


class TestNamesQueues:
    def test_a_worker_that_was_told_of_no_queue(self):
        """It consumes all that are declared, also one that is added."""
        app = Celery("tests", set_as_current=False)
        assert not names_queues(app)
        app.amqp.queues.select_add(Queue("added"))
        assert not names_queues(app)

    def test_a_worker_that_was_told_of_queues(self):
        """As ``-Q`` tells it."""
        app = Celery("tests", set_as_current=False)
        app.amqp.queues.select(["mail"])
        assert names_queues(app)
        assert list(app.amqp.queues.consume_from) == ["mail"]


def test_the_task_of_this_thread_is_found():
    """The innermost that a worker runs; none before, none on another thread, none afterwards."""
    app = Celery("tests", set_as_current=False)
    stack: Any = _state

    @app.task(name="tests.task")
    def task() -> None:
        """Do nothing."""

    found = [task_here(app)]
    task.push_request(id="running", called_directly=False)
    stack._task_stack.push(task)
    try:
        found.append(task_here(app))
        thread = threading.Thread(target=lambda: found.append(task_here(app)))
        thread.start()
        thread.join()
    finally:
        stack._task_stack.pop()
        task.pop_request()

    assert [*found, task_here(app)] == [None, task, None, None]


@pytest.mark.parametrize("proxied", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_an_app_equals_its_proxies(monkeypatch, given, proxied):
    """So a worker of the app that carries the messages gets our step, whichever the settings name and Celery gives."""
    app = Celery("tests", set_as_current=False)
    proxy: Any = Proxy(lambda: app)
    monkeypatch.setattr(celery, "get_app", lambda: proxy if proxied else app)
    worker._join(SimpleNamespace(app=proxy if given else app))
    assert app.steps["worker"] == {worker.BusStep}


def test_an_app_equals_no_other(monkeypatch):
    """A worker of another app is none of our business."""
    app, other = (Celery("tests", set_as_current=False) for _ in range(2))
    monkeypatch.setattr(celery, "get_app", lambda: app)
    worker._join(SimpleNamespace(app=Proxy(lambda: other)))
    assert not other.steps["worker"]
