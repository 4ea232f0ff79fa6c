"""The private parts of Django, Celery and kombu that the library uses are unchanged."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, _state
from celery.local import Proxy
from celery.utils.dispatch import Signal
from celery.utils.imports import symbol_by_name
from kombu import Queue

from signalbus import celery
from signalbus.compat.celery_internals import listeners, names_queues, task_here
from signalbus.receiving.worker import bootstrap, celery_signals


class TestPublishHandlers:
    def test_handlers_of_any_sender_and_of_the_sender_are_found(self):
        """A handler of another sender is not found."""
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

    def test_without_handlers_none_are_found(self):
        """Without handlers the list is empty."""
        assert listeners(Signal(name="tests"), "mine") == []


class TestQueueSelection:
    def test_a_worker_without_queues_consumes_all_declared_ones(self):
        """The worker also consumes a queue that is added later."""
        app = Celery("tests", set_as_current=False)
        assert not names_queues(app)
        app.amqp.queues.select_add(Queue("added"))
        assert not names_queues(app)

    def test_a_worker_with_queues_consumes_only_these(self):
        """``-Q`` names the queues."""
        app = Celery("tests", set_as_current=False)
        app.amqp.queues.select(["mail"])
        assert names_queues(app)
        assert list(app.amqp.queues.consume_from) == ["mail"]


def test_the_running_task_of_this_thread_is_found():
    """The innermost task is found; before and after it, and on another thread, there is none."""
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
    """A worker of the app that carries the messages gets our boot step through each of Celery's proxies."""
    app = Celery("tests", set_as_current=False)
    proxy: Any = Proxy(lambda: app)
    monkeypatch.setattr(celery, "get_app", lambda: proxy if proxied else app)
    celery_signals._set_up(SimpleNamespace(app=proxy if given else app))
    assert [symbol_by_name(step) for step in app.steps["worker"]] == [bootstrap.BusStep]


def test_an_app_equals_no_other(monkeypatch):
    """A worker of another app gets no boot step of ours."""
    app, other = (Celery("tests", set_as_current=False) for _ in range(2))
    monkeypatch.setattr(celery, "get_app", lambda: app)
    celery_signals._set_up(SimpleNamespace(app=Proxy(lambda: other)))
    assert not other.steps["worker"]
