"""Log records name the delivery: those of a project through the filter, and our own by their fields."""

from __future__ import annotations

import io
import json
import logging
import logging.config
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from signalbus import Signal
from signalbus.context import delivery_of
from signalbus.events import Event
from signalbus.logs import DeliveryFilter, add_delivery
from signalbus.receiving.settling import listeners
from signalbus.testing import captured
from signalbus.wire.message import Message, uuid7
from tests.unit.running import running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from signalbus.context import CurrentDelivery

OWN = logging.getLogger("shop.receivers")
FIELDS = {
    "signalbus_signal", "signalbus_receiver", "signalbus_message_id", "signalbus_delivery_id", "signalbus_root_id",
    "signalbus_attempt",
}  # fmt: skip


@pytest.fixture
def delivery() -> CurrentDelivery:
    """A delivery, on its second attempt."""
    key = uuid7()
    message = Message(id=key, signal="shop.paid", payload="", sent_at=datetime.now(UTC), root=key)
    return delivery_of(message, "crm.sync", 2)


@pytest.fixture
def written() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Configure logging as a project does, with JSON, and return what was written."""
    stream = io.StringIO()
    former = logging.getLogger("signalbus").level, OWN.level
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"delivery": {"()": "signalbus.logs.DeliveryFilter"}},
            "formatters": {
                "json": {"()": "pythonjsonlogger.json.JsonFormatter", "format": "%(message)s %(levelname)s"}
            },
            "handlers": {
                "json": {
                    "class": "logging.StreamHandler", "stream": stream, "formatter": "json", "filters": ["delivery"]
                }
            },
            "loggers": {
                name: {"handlers": ["json"], "level": "DEBUG", "propagate": True} for name in ("shop", "signalbus")
            },
        }
    )  # fmt: skip
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    for name in ("shop", "signalbus"):
        logging.getLogger(name).handlers.clear()
    logging.getLogger("shop").setLevel(logging.NOTSET)
    logging.getLogger("signalbus").setLevel(former[0])


def test_a_receivers_own_record_names_its_delivery(
    delivery: CurrentDelivery, written: Callable[[], list[dict[str, Any]]]
):
    """The filter stamps it, with nothing in the receiver; a record outside of a delivery has no such fields."""
    running(delivery, OWN.info, "synced")
    OWN.info("started")

    stamped, plain = written()
    assert stamped["signalbus_delivery_id"] == str(delivery.id)
    assert stamped["signalbus_attempt"] == 2
    assert stamped.keys() >= FIELDS
    assert not plain.keys() & FIELDS


def test_a_format_may_name_the_fields(delivery: CurrentDelivery):
    """With a value for what is missing, a format works outside of a delivery too."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(DeliveryFilter(missing="-"))
    handler.setFormatter(logging.Formatter("%(signalbus_receiver)s %(signalbus_attempt)s %(message)s"))
    record = logging.LogRecord("shop", logging.INFO, "", 0, "hello", (), None)
    handler.handle(record)
    running(delivery, handler.handle, logging.LogRecord("shop", logging.INFO, "", 0, "hello", (), None))

    assert stream.getvalue() == "- - hello\ncrm.sync 2 hello\n"


def test_fields_that_a_record_has_stay(delivery: CurrentDelivery):
    """Our own records about another delivery are not overwritten."""
    record = logging.makeLogRecord({"signalbus_receiver": "another"})
    assert running(delivery, DeliveryFilter().filter, record)

    assert vars(record)["signalbus_receiver"] == "another"
    assert vars(record)["signalbus_signal"] == "shop.paid"


def test_structlog_gets_the_fields_from_a_processor(delivery: CurrentDelivery):
    """The same names as in the standard library's records."""
    log = structlog.wrap_logger(structlog.ReturnLogger(), processors=[add_delivery])
    _, stamped = running(delivery, log.info, "synced")
    _, plain = log.info("started")

    assert stamped.keys() >= FIELDS
    assert stamped["signalbus_delivery_id"] == str(delivery.id)
    assert not plain.keys() & FIELDS


def test_our_own_records_have_fields(delivery: CurrentDelivery, written: Callable[[], list[dict[str, Any]]]):
    """What happened, to which delivery, how long it took, when it is tried again, and of which cause."""
    try:
        raise KeyError("slug")
    except KeyError as error:
        listeners.log_outcome(Event("failed", delivery, error, 2.5, 0.0301, "host:7"))
    listeners.log_success(Event("done", delivery, None, 0.0, 0.5, "host:7"))

    failed, done = written()
    assert failed["signalbus_event"] == "delivery.failed"
    assert failed["signalbus_runtime_ms"] == 30.1
    assert failed["signalbus_retry_in_s"] == 2.5
    assert failed["signalbus_error_type"] == "KeyError"
    assert len(failed["signalbus_error_group"]) == 12
    assert failed["signalbus_worker"] == "host:7"
    assert failed["levelname"] == "ERROR"
    assert "exc_info" in failed
    assert (done["signalbus_event"], done["levelname"]) == ("delivery.done", "DEBUG")
    assert "signalbus_error_type" not in done


def test_a_delivery_is_logged_with_its_fields(written: Callable[[], list[dict[str, Any]]]):
    """The receiver's records and ours name one delivery; no field has the payload."""
    signal = Signal("tests.logged", durable=False)

    def receiver_that_logs(**kwargs: Any) -> None:
        OWN.warning("here")

    signal.connect(receiver_that_logs, weak=False, dispatch_uid="receiver_that_logs", atomic=False)
    with captured() as sent:
        signal.send(None, secret="hunter2")
        sent.deliver_all()

    own, ours = written()
    assert own["signalbus_receiver"] == "receiver_that_logs"
    assert ours["signalbus_event"] == "delivery.done"
    assert own["signalbus_delivery_id"] == ours["signalbus_delivery_id"]
    assert "hunter2" not in json.dumps([own, ours])
