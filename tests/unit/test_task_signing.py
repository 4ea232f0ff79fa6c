"""Seals: our own app publishes each task as one signed text, and a worker reads nothing else."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from celery.signals import before_task_publish
from kombu import Message
from kombu.utils import json as kombu_json

from signalbus import celery
from signalbus.broker import task_signing
from signalbus.exceptions import Forged, TextError, UnknownKey
from signalbus.receiving.worker import consumer

NAME = "tests.somebody_s"


def opened(message: Any) -> Any:
    """Verify a message, as a worker's consumer does."""
    return consumer.verified(message)


@pytest.fixture
def published(settings):
    """Publish a task through our own app, and return the broker's message."""
    settings.CELERY_BROKER_URL = "memory://"

    def publish(*args, **options):
        app = celery._own_app()
        app.send_task(NAME, args=args, **options)
        with app.connection_for_read() as connection:
            message = connection.SimpleQueue("signalbus").get(block=False)
        message.ack()
        return message

    return publish


def test_a_sealed_task_arrives(published):
    """It has its arguments (as kombu's JSON brings them), headers, callbacks and the waiting result."""
    when = datetime(2026, 1, 2, tzinfo=UTC)
    message = opened(published(when, Decimal("1.5"), headers={"mine": 7}, countdown=5, reply_to="answers"))

    args, kwargs, embedded = message.decode()
    assert (args, kwargs, embedded["chain"]) == ([when, Decimal("1.5")], {}, None)
    assert (message.headers["task"], message.headers["mine"], bool(message.headers["eta"])) == (NAME, 7, True)
    assert message.properties == {"correlation_id": message.headers["id"], "reply_to": "answers"}


def test_only_the_sealed_part_is_read(published):
    """Outside of it are the names that Celery's own tools need, and no arguments."""
    message = published("secret")
    assert set(message.headers) == {"task", "id"}
    assert message.content_type == task_signing.CONTENT_TYPE
    message.headers |= {"retries": 9, "mine": [[]], "chain": "x"}
    message.properties["reply_to"] = "elsewhere"
    assert not {"mine", "chain"} & set(opened(message).headers)
    assert opened(message).headers["retries"] == 0
    assert opened(message).properties["reply_to"] != "elsewhere"


def test_headers_of_publish_handlers_are_sealed(published):
    """Tracers write into the headers; these are signed too."""

    def inject(headers, **kwargs):
        headers["traceparent"] = "00-1-2-01"

    before_task_publish.connect(inject)
    assert opened(published()).headers["traceparent"] == "00-1-2-01"


def test_an_event_about_a_publication_is_no_task():
    """Celery publishes `task-sent` with the same producer."""

    class Producer:
        def publish(self, body, **options):
            return body, options

    producer: Any = Producer()
    sent = task_signing._SigningProducer(producer, ([], {}, {})).publish(
        {"type": "task-sent"}, headers={"hostname": "here"}
    )
    assert sent == ({"type": "task-sent"}, {"headers": {"hostname": "here"}, "serializer": None})


def test_another_task_s_seal_is_forged(published):
    """A seal names its task."""
    with pytest.raises(Forged, match="somebody_s"):
        task_signing.verify_task(published().body.decode(), "tests.another")


def test_a_seal_of_an_unknown_key_is_refused(published, settings):
    """So is a seal of a key that was removed."""
    text = published().body.decode()
    settings.SECRET_KEY = "another"
    with pytest.raises(UnknownKey):
        task_signing.verify_task(text, NAME)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"task": NAME, "id": "x"}, b"[[], {}, {}]"),
        ({"task": ["x"], "id": "x"}, b"[[], {}, {}]"),
        ({}, b'{"task": "tests.somebody_s", "args": []}'),
        ("text", b"\xff\xfe"),
        (None, 7),
        ({"task": NAME}, None),
    ],
)
def test_an_unsealed_task_is_a_text_to_refuse(headers, body):
    """It is acknowledged, and a dead letter shows its beginning."""
    given = Message(body=body, delivery_tag="tag", delivery_info={"routing_key": "signalbus", "exchange": [[]]})
    given.headers = headers
    message = opened(given)

    (((text,),), kwargs, embedded) = kombu_json.loads(message.body)
    assert (message.headers["task"], message.delivery_tag) == (celery.TASK_NAME, "tag")
    assert message.delivery_info == {"routing_key": "signalbus"}
    assert text.startswith("a message for the task ")
    assert (kwargs, embedded) == ({}, {})


def test_our_tasks_messages_are_not_sealed():
    """Their texts are verified one by one."""
    given = Message(body="[]", headers={"task": celery.TASK_NAME})
    assert opened(given) is given


@pytest.mark.parametrize("given", ["", "x", 7, None, json.dumps([[], {}, {}])])
def test_garbage_is_refused_as_a_seal(given):
    """Anything may come out of the queue."""
    with pytest.raises(TextError):
        task_signing.verify_task(given, NAME)
