"""Features of RabbitMQ: types of queues, confirmations, and redelivery when a worker is gone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from amqp.exceptions import PreconditionFailed
from kombu import Connection, Exchange, Queue

from signalbus.broker import publisher
from signalbus.broker.queue_status import _ask_each
from signalbus.celery import get_app, transport_options
from signalbus.management import status_report
from signalbus.models import Delivery, State
from signalbus.sending import outbox
from tasks.marketing.models import FormEntry
from tests.misbehaving.signals import arriving, endless, mailed
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.other_servers.rabbitmq import RabbitMQ
    from tests.servers import Worker

TESTS_SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.settings"}


@pytest.fixture
def connection(broker_url: str) -> Iterator[Connection]:
    """A connection of the test's own."""
    with Connection(broker_url) as connection:
        yield connection


def declare(connection: Connection, queue: str, kind: str) -> None:
    """Declare a queue of a type; RabbitMQ refuses it if it exists with another one."""
    with connection.channel() as channel:
        Queue(queue, channel=channel, queue_arguments={"x-queue-type": kind}).queue_declare()


@pytest.mark.parametrize("first", ["sender", "worker"])
def test_all_queues_are_quorum_queues(start_worker: Callable[..., Worker], connection: Connection, first: str):
    """Sender and worker declare them alike, whichever is first, and both messages arrive."""
    if first == "worker":
        start_worker(environment=TESTS_SETTINGS)
    arriving.send(sender=None, label="default")
    mailed.send(sender=None, label="receiver's own")
    if first == "sender":
        start_worker(environment=TESTS_SETTINGS)

    wait_until(lambda: FormEntry.objects.filter(kind__in=("arrived", "mailed")).count() == 2, what="both messages")
    assert not Delivery.objects.exclude(state="done", attempts=1, error="").exists()
    for queue in ("signalbus", "email"):
        declare(connection, queue, "quorum")
    with pytest.raises(PreconditionFailed):
        declare(connection, "signalbus", "classic")


def test_a_queue_declared_with_other_arguments_does_not_delay_others(
    start_worker: Callable[..., Worker], connection: Connection
):
    """The worker names it, and consumes the other queues; ``status`` names it too."""
    with connection.channel() as channel:
        Queue("email", channel=channel, queue_arguments={"x-max-length": 9}).queue_declare()

    worker = start_worker(environment=TESTS_SETTINGS)
    arriving.send(sender=None, label="default")

    wait_until(FormEntry.objects.filter(kind="arrived").exists, what="the message of the other queue")
    assert "does not consume the queue 'email'" in worker.log
    assert "Delete it when it is empty" in worker.log
    assert "Connection to broker lost" not in worker.log
    report = list(status_report.report())
    assert len([line for line in report if "THE BROKER REFUSES the queue 'email'" in line]) == 1
    assert not [line for line in report if "REFUSES the queue 'signalbus'" in line]


@pytest.mark.usefixtures("connection")
def test_a_refused_message_is_recorded(database_url: str, monkeypatch: pytest.MonkeyPatch):
    """A publication waits for RabbitMQ's confirmation: a full queue refuses, and the ledger records the message."""
    full = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
    queue = Queue("signalbus", Exchange("signalbus"), "signalbus", queue_arguments=full)
    monkeypatch.setitem(get_app().amqp.queues, "signalbus", queue)

    def send_until_refused() -> bool:
        arriving.send(sender=None, label="one more")
        return Delivery.objects.filter(state=State.PENDING).exists()

    wait_until(send_until_refused, what="a refused message")
    with pytest.raises(publisher.PublishError, match=r"(?i)nack"):
        publisher.publish_texts("signalbus", ["text"])


@pytest.mark.parametrize("outage_kind", ["memory_alarm", "stopped"])
def test_a_send_waits_once_for_a_broker_that_does_not_answer(
    rabbitmq: RabbitMQ, broker_url: str, database_url: str, settings: Any, outage_kind: str
):
    """A publication without an answer costs PUBLISH_TIMEOUT once: its connection is closed without another wait."""
    settings.SIGNALBUS = {"PUBLISH_TIMEOUT": 3.0}
    publisher.forget()
    outbox.outage.is_over()  # of the test before
    arriving.send(sender=None, label="before")  # over a connection that is kept

    with getattr(rabbitmq, outage_kind)():
        started = time.monotonic()
        arriving.send(sender=None, label="not answered")
        took = time.monotonic() - started

    assert Delivery.objects.filter(state=State.PENDING).count() == 1
    assert 3 <= took < 2 * 3


def test_status_waits_once_for_a_broker_that_does_not_answer(rabbitmq: RabbitMQ, broker_url: str, settings: Any):
    """A question about queues costs PUBLISH_TIMEOUT once, and closing channel and connection nothing more."""
    settings.SIGNALBUS = {"PUBLISH_TIMEOUT": 3.0}
    app = get_app()
    with app.connection_for_read(transport_options=transport_options(app)) as connection:
        connection.connect()
        with rabbitmq.stopped():
            started = time.monotonic()
            answers = dict(_ask_each(connection, ["signalbus", "email"]))
            connection.release()
            took = time.monotonic() - started

    assert all(presence.error for presence in answers.values())
    assert took < 2 * 3


def test_a_killed_workers_delivery_is_redelivered(start_worker: Callable[..., Worker]):
    """RabbitMQ gives it to the next worker at once, marked as redelivered: it gets a row, and its attempts count."""
    first = start_worker(environment=TESTS_SETTINGS)
    endless.send(sender=None, label="e")
    first.wait_for_log("signalbus.deliver", "received")
    first.kill()

    second = start_worker(environment=TESTS_SETTINGS)

    again = Delivery.objects.filter(receiver__contains="that_never_returns", state=State.RUNNING)
    assert wait_until(again.first, what="the second run").attempts == 1
    second.kill()  # which would wait for a receiver that never returns
