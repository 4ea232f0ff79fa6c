"""What lies on the queue: what a worker needs, and payloads nowhere but in their signed texts."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from celery.app.amqp import AMQP
from celery.signals import task_sent

from signalbus import Signal, celery

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


def test_only_what_a_worker_needs(bus: Bus, signal: Signal):
    """No callbacks, limits, times or stamps; Celery takes all of these for granted."""
    signal.send(None, number=1)

    published = item(bus)
    headers = published["headers"]
    assert set(headers) == {
        "argsrepr",
        "eta",
        "group",
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


def test_who_listens_to_task_sent_still_hears(bus: Bus, signal: Signal):
    """Celery tells them after it has published, out of the headers: an error there would publish it twice."""
    heard: list[Any] = []

    def on_sent(sender, **kwargs):
        heard.append((sender, kwargs["eta"], kwargs["taskset"]))

    task_sent.connect(on_sent, weak=False)
    try:
        signal.send(None, number=1)
    finally:
        task_sent.disconnect(on_sent)

    assert heard == [(celery.TASK_NAME, None, None)]
    assert item(bus)
    assert rows() == []


def test_nothing_expires(bus: Bus, signal: Signal, monkeypatch: pytest.MonkeyPatch):
    """What a host sets for all tasks (CELERY_TASK_ANNOTATIONS) neither drops a signal nor cuts a receiver short."""
    task = celery.get_app().tasks[celery.TASK_NAME]
    for name in ("expires", "time_limit", "soft_time_limit"):
        monkeypatch.setattr(task, name, 1)

    signal.send(None, number=1)

    published = item(bus)
    assert not {"expires", "timelimit"} & set(published["headers"])
    assert "expiration" not in published["properties"]


def test_a_host_may_still_speak_celery_s_first_protocol(bus: Bus, signal: Signal, monkeypatch: pytest.MonkeyPatch):
    """CELERY_TASK_PROTOCOL = 1: its body is a mapping."""
    app = celery.get_app()
    amqp = AMQP(app)
    monkeypatch.setattr(amqp, "create_task_message", amqp.as_task_v1)
    monkeypatch.setattr(app, "amqp", amqp)

    signal.send(None, number=1)

    body = body_of(item(bus))
    assert (body["task"], len(body["args"][0])) == (celery.TASK_NAME, 1)
