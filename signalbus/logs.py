"""Name the delivery in log records: a filter for the records of a project, and the fields of our own.

A project's ``LOGGING`` names `DeliveryFilter`; a project with structlog lists `add_delivery` among its processors. The
listeners of outcomes add `fields_of` an event to their records. Payloads are never among the fields.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from signalbus import conf
from signalbus.context import current
from signalbus.core.error_groups import group_of
from signalbus.wire.message import age_of

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from signalbus.context import CurrentDelivery
    from signalbus.events import Event

PREFIX = "signalbus_"
OF_DELIVERY = ("signal", "receiver", "message_id", "delivery_id", "root_id", "attempt")
# What happened to a message as a whole; all else happens to a delivery.
OF_MESSAGE = frozenset({"parked", "refused"})
LONGEST = 10 * 365 * 86400.0  # seconds; a longer delay is that of an id without a time


class DeliveryFilter(logging.Filter):
    """Stamp log records with the delivery that is running, for a handler; every record passes.

    It sets ``signalbus_signal``, ``signalbus_receiver``, ``signalbus_message_id``, ``signalbus_delivery_id``,
    ``signalbus_root_id`` and ``signalbus_attempt``. Put it on handlers: a filter of a logger does not see the records
    of the loggers below it.

    Args:
        missing: the value of the fields outside of a delivery, for a format that names them; None: they are not set.
    """

    def __init__(self, missing: str | None = None) -> None:
        super().__init__()
        self._missing = missing

    def filter(self, record: logging.LogRecord) -> bool:
        """Stamp a record; fields that it has already stay."""
        delivery = current()
        if delivery is not None:
            for name, value in _fields(delivery).items():
                record.__dict__.setdefault(name, value)
        elif self._missing is not None:
            for name in OF_DELIVERY:
                record.__dict__.setdefault(f"{PREFIX}{name}", self._missing)
        return True


def add_delivery(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the fields of the delivery that is running to an event of structlog; a processor.

    Args:
        event: what is logged.

    Returns:
        The same, with the fields that it did not have.
    """
    delivery = current()
    if delivery is not None:
        for name, value in _fields(delivery).items():
            event.setdefault(name, value)
    return event


def _fields(delivery: CurrentDelivery) -> dict[str, str | int | float]:
    message = str(delivery.message_id)
    return {
        "signalbus_signal": delivery.signal,
        "signalbus_receiver": delivery.receiver,
        "signalbus_message_id": message,
        "signalbus_delivery_id": str(delivery.id),
        "signalbus_root_id": message if delivery.root is delivery.message_id else str(delivery.root),
        "signalbus_attempt": delivery.attempt,
    }


def fields_of(event: Event) -> dict[str, str | int | float]:
    """Return what an event's log record has as ``extra``: the delivery, what became of it, and where.

    Args:
        event: the event.
    """
    delivery = event.delivery
    fields = _fields(delivery)
    fields["signalbus_event"] = f"{'message' if event.kind in OF_MESSAGE else 'delivery'}.{event.kind}"
    fields["signalbus_worker"] = event.worker
    fields["signalbus_release"] = conf.release()
    if event.receiver is not None:
        fields["signalbus_queue"] = event.receiver.queue or conf.get().QUEUE or ""
    if event.seconds is not None:
        fields["signalbus_runtime_ms"] = round(event.seconds * 1000, 3)
        delay = age_of(delivery.message_id) - event.seconds
        if delivery.attempt == 1 and delay < LONGEST:
            fields["signalbus_delay_ms"] = max(0, round(delay * 1000))
    if event.delay:
        fields["signalbus_retry_in_s"] = round(event.delay, 3)
    if event.error is not None:
        fields["signalbus_error_type"] = type(event.error).__name__
        if event.kind in {"failed", "dead"}:
            fields["signalbus_error_group"] = group_of(event.error, delivery.receiver)
    return fields
