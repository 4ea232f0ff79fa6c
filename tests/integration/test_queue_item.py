"""A queue item has only what a worker needs, and payloads only in their signed texts."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from celery import _state
from celery.signals import after_task_publish, before_task_publish

from signalbus import Signal, celery

if TYPE_CHECKING:
    from celery.utils.dispatch import Signal as CelerySignal

from .bus import QUEUE, Bus, connect, rows


@pytest.fixture
def signal(signal: Signal) -> Signal:
    """A signal with a receiver."""
    connect(signal, lambda **kwargs: None, "anybody")
    return signal


def item(bus: Bus) -> Any:
    """Take the queue's only item."""
    assert bus.client.llen(QUEUE) == 1
    return json.loads(bus.client.rpop(QUEUE))


def body_of(item: Any) -> Any:
    """Read the body of an item's Celery message."""
    return json.loads(base64.b64decode(item["body"]))


def test_an_item_has_only_what_a_worker_needs(bus: Bus, signal: Signal):
    """An item has no callbacks, limits, times or stamps, for which Celery has defaults."""
    signal.send(None, number=1)

    published = item(bus)
    headers = published["headers"]
    assert set(headers) == {
        "argsrepr",
        "id",
        "ignore_result",
        "kwargsrepr",
        "lang",
        "origin",
        "root_id",
        "task",
    }
    assert (headers["argsrepr"], headers["task"]) == ("(1 texts)", "signalbus.deliver")
    assert set(published["properties"]) == {
        "body_encoding",
        "correlation_id",
        "delivery_info",
        "delivery_mode",
        "delivery_tag",
        "priority",
    }
    ((text,),), kwargs, embedded = body_of(published)
    assert (kwargs, embedded) == ({}, {})
    assert '"number":1' in text.replace(" ", "")


SIGNALS = [before_task_publish, after_task_publish]


@pytest.mark.parametrize("heard", SIGNALS)
def test_handlers_of_all_publications_are_not_called_for_signals(bus: Bus, signal: Signal, heard: CelerySignal):
    """Some store a result for each, within `send()`."""
    calls: list[Any] = []

    def listener(sender, **kwargs):
        calls.append(sender)

    heard.connect(listener)
    signal.send(None, number=1)

    assert calls == []
    assert item(bus)


@pytest.mark.parametrize("heard", SIGNALS)
def test_handlers_of_our_task_are_called(bus: Bus, signal: Signal, heard: CelerySignal):
    """The handlers get the arguments of Celery's signals, with the texts only in the body."""
    calls: list[Any] = []

    def listener(sender, headers, body, exchange, routing_key, **kwargs):
        calls.append((sender, headers["id"], routing_key))

    heard.connect(listener, sender=celery.TASK_NAME)
    signal.send(None, number=1)

    assert calls == [(celery.TASK_NAME, item(bus)["headers"]["id"], QUEUE)]


def test_a_tracer_s_headers_travel(bus: Bus, signal: Signal):
    """OpenTelemetry and others write their context into the headers."""

    def inject(headers, **kwargs):
        headers["traceparent"] = "00-1-2-01"

    inject.__module__ = "opentelemetry.instrumentation.celery"
    before_task_publish.connect(inject)
    signal.send(None, number=1)

    assert item(bus)["headers"]["traceparent"] == "00-1-2-01"


@pytest.mark.parametrize("heard", SIGNALS)
def test_a_handler_that_raises_does_not_stop_a_send(
    bus: Bus, signal: Signal, heard: CelerySignal, caplog: pytest.LogCaptureFixture
):
    """The error of the handler is logged, and the message is sent once."""

    def listener_that_raises(**kwargs):
        raise ValueError("mine")

    heard.connect(listener_that_raises, sender=celery.TASK_NAME)
    signal.send(None, number=1)

    assert item(bus)
    assert rows() == []
    assert "listener" in caplog.text


def test_settings_of_all_tasks_do_not_expire_signals(bus: Bus, signal: Signal, monkeypatch: pytest.MonkeyPatch):
    """CELERY_TASK_ANNOTATIONS of a host neither drops a signal nor limits a receiver."""
    task = celery.get_app().tasks[celery.TASK_NAME]
    for name in ("expires", "time_limit", "soft_time_limit"):
        monkeypatch.setattr(task, name, 1)

    signal.send(None, number=1)

    published = item(bus)
    assert not {"expires", "timelimit"} & set(published["headers"])
    assert "expiration" not in published["properties"]


@pytest.mark.parametrize("serializer", ["pickle", "yaml", "msgpack"])
def test_a_hosts_serializer_does_not_apply_to_signals(
    bus: Bus, signal: Signal, monkeypatch: pytest.MonkeyPatch, serializer: str
):
    """This holds for CELERY_TASK_SERIALIZER and CELERY_TASK_PROTOCOL."""
    monkeypatch.setattr(celery.get_app().tasks[celery.TASK_NAME], "serializer", serializer)
    monkeypatch.setitem(celery.get_app().conf, "task_protocol", 1)

    signal.send(None, number=1)

    published = item(bus)
    assert published["content-type"] == "application/json"
    assert len(body_of(published)[0][0]) == 1


def test_a_receiver_s_messages_belong_to_the_tree_of_its_task(bus: Bus, signal: Signal):
    """Celery's own calls do the same."""
    task = celery.get_app().tasks[celery.TASK_NAME]
    task.push_request(id="child", root_id="root", called_directly=False)
    stack: Any = _state
    stack._task_stack.push(task)
    try:
        signal.send(None, number=1)
    finally:
        stack._task_stack.pop()
        task.pop_request()

    headers = item(bus)["headers"]
    assert (headers["root_id"], headers["parent_id"]) == ("root", "child")
