"""Register the bus's own listeners: logs of outcomes, `delivery_failed` and `delivery_dead`, and runtime estimates.

`apps.py` imports it. These functions observe the same events as a host's listeners (decision 0042), and decide
nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from celery.utils.log import ColorFormatter

from signalbus.events import listen
from signalbus.exceptions import MissingRow, RetryLater
from signalbus.failure_signals import delivery_dead, delivery_failed
from signalbus.logs import fields_of
from signalbus.receiving.invoking.runner import describe
from signalbus.receiving.invoking.tracebacks import format_error
from signalbus.receiving.process import task_log
from signalbus.receiving.process.receiver_runtimes import runtimes

if TYPE_CHECKING:
    from types import TracebackType

    from signalbus.events import Event

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

logger: logging.Logger = logging.getLogger("signalbus")

LIBRARIES = frozenset({"signalbus", "django", "asgiref", "asyncio", "concurrent", "contextlib"})  # before the receiver
# What formats an error for a log: Celery's own only calls that of the standard library.
PLAIN_FORMATS = frozenset({logging.Formatter.formatException, ColorFormatter.formatException})
SNAPSHOT = ' If the receiver can do without the row, connect it with on_missing="snapshot".'


@listen("done", "failed", "dead", "skipped")
def estimate_runtime(event: Event) -> None:
    """Learn how long an atomic receiver runs, and warn of one that keeps its transaction open for long."""
    if event.seconds is not None and event.receiver is not None and event.receiver.atomic:
        runtimes.learn(event.receiver.id, event.seconds)
        runtimes.warn(event.receiver.id, event.seconds)


@listen("done", "failed", "dead", "skipped", "parked", "held", "refused")
def complete_line(event: Event) -> None:
    """Note what became of a delivery, for Celery's line about the end of its task."""
    if task_log.outcomes.noted is None:
        return  # no line will tell it
    if not event.worker or (event.kind == "dead" and is_text(event)):
        return  # of no task, or noted when it was refused
    if event.kind == "done" and event.seconds is None:
        return  # an open message: its receivers have deliveries of their own
    words: str = event.kind
    if event.kind == "failed":
        words = f"{'put off' if isinstance(event.error, RetryLater) else 'failed'}, again in {event.delay:.1f} s"
    task_log.note(event.delivery.signal or "a text", event.delivery.receiver, words)


def is_text(event: Event) -> bool:
    """Return whether an event is about a text that was never verified."""
    return not event.delivery.signal


@listen("done")
def log_success(event: Event) -> None:
    """Log that an attempt succeeded, for who wants to see each of them."""
    if logger.isEnabledFor(logging.DEBUG):
        delivery = event.delivery
        what = (delivery.signal, delivery.receiver or "(whoever listens)", delivery.id, delivery.attempt)
        logger.debug("signalbus: %s to %s is done (delivery %s, attempt %s)", *what, extra=fields_of(event))


@listen("failed", "dead", "skipped", "held")
def log_outcome(event: Event) -> None:
    """Log how an attempt ended that did not succeed."""
    delivery, error = event.delivery, event.error
    what = (delivery.signal, delivery.receiver or "(whoever listens)", delivery.id, delivery.attempt)
    if event.kind == "skipped":
        remedy = SNAPSHOT if isinstance(error, MissingRow) else ""
        reason = "" if error is None else describe(error)
        logger.warning(
            "signalbus: %s to %s skipped (delivery %s, attempt %s): %s%s", *what, reason, remedy, extra=fields_of(event)
        )
    elif event.kind == "held":
        logger.info("signalbus: %s to %s is held (delivery %s): %s", *what[:3], error, extra=fields_of(event))
    elif event.kind == "dead":
        if is_text(event) or not event.worker:
            return  # logged already: by the code that refused it, by the sweeper, or by the sender
        _log_error(event, "signalbus: %s to %s is dead (delivery %s, attempt %s)", *what)
    elif isinstance(error, RetryLater):  # a wish, no error
        logger.info("signalbus: %s to %s (delivery %s, attempt %s) %s", *what, error, extra=fields_of(event))
    else:
        text = "signalbus: %s to %s failed (delivery %s, attempt %s), again in %.1f s"
        _log_error(event, text, *what, event.delay)


def _log_error(event: Event, text: str, *arguments: object) -> None:
    """Log an error with its traceback, which is formatted here where the handlers would format it in the same way."""
    if not logger.isEnabledFor(logging.ERROR):
        return
    raised, fields = as_raised(event.error), fields_of(event)
    if raised is None or not _format_as_python(logger):
        logger.error(text, *arguments, exc_info=raised, extra=fields)
    else:
        filename, line, function, _ = logger.findCaller()
        record = logger.makeRecord(
            logger.name, logging.ERROR, filename, line, text, arguments, raised, function, extra=fields
        )
        record.exc_text = format_error(*raised[1:]).removesuffix("\n")  # else a formatter would format the error
        logger.handle(record)


def _format_as_python(start: logging.Logger) -> bool:
    """Return whether all formatters of a logger format an error as the standard library does."""
    found: logging.Logger | None = start
    while found is not None:
        if not all(_has_plain_format(handler.formatter) for handler in found.handlers):
            return False
        found = found.parent if found.propagate else None
    return True


def _has_plain_format(formatter: logging.Formatter | None) -> bool:
    return formatter is None or getattr(formatter.formatException, "__func__", None) in PLAIN_FORMATS


def as_raised(error: BaseException | None) -> ExcInfo | None:
    """Return what a logger takes for an error, with a traceback that begins in the receiver; whole if it never does.

    Args:
        error: the error, or None.
    """
    if error is None:
        return None
    found = error.__traceback__
    while found is not None and found.tb_frame.f_globals.get("__name__", "").partition(".")[0] in LIBRARIES:
        found = found.tb_next
    return type(error), error, found or error.__traceback__


@listen("failed")
def send_delivery_failed(event: Event) -> None:
    """Send the plain signal `delivery_failed`."""
    delivery_failed.send_robust(sender=event.delivery.signal, delivery=event.delivery, error=event.error)


@listen("dead")
def send_delivery_dead(event: Event) -> None:
    """Send the plain signal `delivery_dead`."""
    delivery_dead.send_robust(sender=event.delivery.signal, delivery=event.delivery, error=event.error)
