"""Define the Celery task that delivers messages, under the name that senders of all versions use.

A worker's process calls it with the texts of one Celery message; `receiving/routing/batch` delivers them. If it
fails, the message is requeued.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from celery import Task, shared_task
from celery.exceptions import Reject

from signalbus import celery
from signalbus.receiving.process.outages import OutageLog

# On the task, so that host apps have it too.
SAFE: dict[str, Any] = {
    "ignore_result": True,
    "serializer": "json",  # whatever a host's tasks travel as
    # A message without rows is only at the broker: it is acknowledged when it is done, and redelivered when its
    # process is killed or overruns its time.
    "acks_late": True,
    "reject_on_worker_lost": True,
    "acks_on_failure_or_timeout": False,
    # Celery 5.7 has a setting of its own for each, which would count for more.
    "acks_on_failure": False,
    "acks_on_timeout": False,
    "retry_on_worker_lost": False,
}
PAUSE = 1.0  # seconds before a message is requeued, as in an outage of the database

outages: OutageLog = OutageLog("signalbus gives a message back to the broker")


if TYPE_CHECKING:
    _Task = Task[Any, Any]
else:
    _Task = Task  # generic in its stubs alone


class DeliverTask(_Task):
    """A task whose messages are checked before they go to a child."""

    # By name: a process that only sends need not import a worker's machinery.
    Request = "signalbus.receiving.worker.request:DeliverRequest"
    Strategy = "signalbus.receiving.worker.request:strategy"

    @classmethod
    def annotate(cls) -> None:
        """Apply the host's annotations of all tasks, except options that would lose messages."""
        super().annotate()
        for name, value in SAFE.items():
            setattr(cls, name, value)


@shared_task(
    name=celery.TASK_NAME,
    base=DeliverTask,
    bind=True,
    **SAFE,
)
def deliver(self: DeliverTask, texts: object) -> None:
    """Deliver the texts of one Celery message.

    Args:
        texts: signed texts.

    Raises:
        Reject: something outside of the receivers failed, as the ledger's database: the broker keeps the message.
    """
    from signalbus.receiving.routing import batch  # noqa: PLC0415 - a process that only sends does not pay for it

    request = self.request
    info: Any = request.delivery_info or {}
    queue = celery.queue_of(info.get("routing_key"))
    try:
        batch.deliver(texts, queue=queue, redelivered=bool(info.get("redelivered")), ticket=info.get("ticket"))
    except (Exception, MemoryError) as error:
        # Whatever it was, Celery would drop the message for it. Given out again, its attempts are counted.
        if request.is_eager:
            raise
        outages.failed(error, expected=False)
        time.sleep(PAUSE)
        raise Reject(str(error), requeue=True) from error
    outages.succeeded()
