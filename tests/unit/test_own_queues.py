"""The queues of our own Celery app, as a broker sees them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from signalbus import celery
from signalbus.broker import queue_status
from signalbus.exceptions import ConfigurationError
from signalbus.receiving.worker import bootstrap, consumer
from signalbus.registration.registry import registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    OwnApp = Callable[..., Celery]


@pytest.fixture
def own_app(settings: Any) -> OwnApp:
    """Make our own app anew with some of a host's settings."""

    def make(**given: Any) -> Celery:
        for name, value in given.items():
            setattr(settings, name, value)
        return celery._own_app()

    return make


def queue_type(app: Celery, queue: str) -> str:
    """Return the type with which a queue is declared."""
    return str((app.amqp.queues[queue].queue_arguments or {}).get("x-queue-type", "classic"))


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_all_queues_are_of_the_hosts_type(own_app: OwnApp, kind: str):
    """This holds for the default queue, and for a receiver's queue that the sender declares."""
    app = own_app(CELERY_BROKER_URL="amqp://", CELERY_TASK_DEFAULT_QUEUE_TYPE=kind)

    assert [queue_type(app, "signalbus"), queue_type(app, "email")] == [kind, kind]


def test_a_worker_declares_a_queue_as_senders_do(own_app: OwnApp):
    """RabbitMQ refuses a queue with other arguments or another type."""
    sender, receiver = (own_app(CELERY_BROKER_URL="amqp://", CELERY_TASK_DEFAULT_QUEUE_TYPE="quorum") for _ in "ab")
    assert "email" in registry.queues()

    bootstrap._consume_receivers_queues(receiver)

    assert receiver.amqp.queues.consume_from["email"] == sender.amqp.queues["email"]
    assert receiver.amqp.queues.consume_from["email"].exchange == sender.amqp.queues["email"].exchange


def test_the_missing_queues_type_can_be_another(own_app: OwnApp):
    """A host's setting for undeclared queues takes precedence over its default queue's type."""
    app = own_app(CELERY_TASK_DEFAULT_QUEUE_TYPE="quorum", CELERY_TASK_CREATE_MISSING_QUEUE_TYPE="classic")

    assert queue_type(app, "email") == "classic"


@pytest.mark.parametrize(
    ("chosen", "warned"), [(None, False), ("celery", True), ("celery,signalbus", False), ("email", False)]
)
def test_worker_that_consumes_none_of_our_queues_is_warned_of(
    own_app: OwnApp, caplog: pytest.LogCaptureFixture, chosen: str | None, warned: bool
):
    """A wrong ``-Q`` is the usual reason; one of our queues is enough."""
    app = own_app()
    if chosen is not None:
        app.amqp.queues.select(chosen.split(","))
    bootstrap._warn_of_other_queues(app)
    lines = [record.getMessage() for record in caplog.records]
    assert bool(lines) is warned
    if warned:
        assert "this worker consumes celery, and none of the queues that signals come through (" in lines[0]
        assert "email" in lines[0]
        assert "signalbus" in lines[0]


def test_a_worker_leaves_out_a_refused_queue(own_app: OwnApp, monkeypatch: pytest.MonkeyPatch):
    """The worker does not consume a queue that the broker refuses, and consumes the others."""
    monkeypatch.setattr(queue_status, "why_refused", lambda _connection, name: "no" if name == "email" else "")
    app = own_app(CELERY_BROKER_URL="amqp://")
    bootstrap._consume_receivers_queues(app)

    connected: Any = SimpleNamespace(app=app, connection=None)
    consumer._leave_out_refused_queues(connected)
    left = set(app.amqp.queues.consume_from)

    assert "signalbus" in left
    assert "email" not in left


def test_a_worker_whose_queues_are_all_refused_ends_with_the_remedy(own_app: OwnApp, monkeypatch: pytest.MonkeyPatch):
    """A worker without a queue would run without delivering anything."""
    monkeypatch.setattr(queue_status, "why_refused", lambda _connection, _name: "inequivalent arg 'x-max-length'")
    connected: Any = SimpleNamespace(app=own_app(CELERY_BROKER_URL="amqp://"), connection=None)

    with pytest.raises(ConfigurationError, match=r"x-max-length.*Delete it when it is empty"):
        consumer._leave_out_refused_queues(connected)
