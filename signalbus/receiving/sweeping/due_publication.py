"""Publish the deliveries that are due or lost, a batch at a time, and send the markers that prove which are lost.

`sweeper` calls `publish_some` and `mark` in its thread, and ``manage.py signalbus sweep`` calls `sweep`. Which rows are
taken is decided in `ledger/sweeps`; a row whose text cannot be published is parked or dead here.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from django.db import DataError

from signalbus import conf
from signalbus.broker import publisher
from signalbus.core.error_groups import group_of
from signalbus.events import Event, is_heard
from signalbus.exceptions import SignalBusError, UnknownKey, UnknownVersion
from signalbus.ledger import operations
from signalbus.ledger import sweeps as ledger
from signalbus.models import State
from signalbus.receiving.pausing.releasing import release_all
from signalbus.receiving.process.worker_events import tell
from signalbus.receiving.settling.lost_processes import settle_overdue
from signalbus.receiving.sweeping.bulk_progress import do_all_steps
from signalbus.wire.marker import Marker, marker_from
from signalbus.wire.message import from_body, to_body

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from signalbus.events import Kind

logger: logging.Logger = logging.getLogger("signalbus")

BATCH = 128  # rows taken at once
RETURN_SECONDS = 5.0  # until what could not be published is due again
TOGETHER_MS = 100  # that retries in one Celery message take, by the last run of each
# In one Celery message, by the kind of delivery. As many retries as two group commits may have.
COMPANIONS = {"alone": 1, "first": publisher.MAX_TEXTS, "retry": 64}
ADMIT_SECONDS = 0.05  # between two sweeps while retries wait for their receiver's share of this worker
ADMIT_PAUSES = 2  # times as long as such a sweep took is waited until the next one
BREATH = 0.01  # seconds between two batches, in which a child may be forked


class LostTally:
    """The number of lost deliveries that were published again since the last line of the log about them."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, rows: Iterable[ledger.Publishable]) -> None:
        """Count those of some published rows that were published before, and were lost."""
        self._count += sum(row.lost for row in rows)

    def tell(self) -> None:
        """Log the number in one line, if there were any."""
        count, self._count = self._count, 0
        if count:
            logger.warning(
                "signalbus published %d lost deliveries again: no queue held them any more, or their worker was lost",
                count,
            )


lost_tally: LostTally = LostTally()  # of this process's sweeper


def sweep() -> int:
    """Publish all deliveries that are due now.

    Returns:
        The number of published deliveries.

    Raises:
        PublishError: the broker did not take some; all that are not published are due again soon.
        DatabaseError: the ledger could not be read.
    """
    release_all()
    do_all_steps()
    try:
        published, more = publish_some() if ledger.anything_due() else (0, None)
        while more is not None:
            count, more = publish_some()
            published += count
    finally:
        lost_tally.tell()
    return published


def publish_some(share: ledger.Share | None = None, *, lost: bool = True) -> tuple[int, float | None]:
    """Publish a batch of due deliveries, with at most its share of each receiver's retries.

    Args:
        share: the limit on one receiver's retries; None for no limit.
        lost: also publish again the deliveries that are lost.

    Returns:
        The number of published deliveries, and the seconds until the next batch; None if no more are due now.
    """
    began = time.monotonic()
    rows, waiting = ledger.take_admitted(BATCH, share, lost=lost)
    due = [(row, text) for row in rows if (text := _text(row)) is not None]
    published = _publish(due)
    lost_tally.add(row for row, _ in due)
    if len(rows) == BATCH:
        return published, BREATH
    return published, max(ADMIT_SECONDS, ADMIT_PAUSES * (time.monotonic() - began)) if waiting else None


def _text(row: ledger.Publishable) -> str | None:
    """Return the text to publish for a row, or None; a row that cannot be read is parked or dead."""
    try:
        body = conf.signer().verify(row.text) if row.sealed else row.text
        if marker_from(body) is not None:  # parked by a worker of 0.1, which could not read it
            operations.discard([row.id])
            return None
        message = from_body(body)
        if not row.signal:  # opened at last: by now this worker holds the key, or reads the version
            ledger.open_parked(row.load(), message)
            return None
        if row.overdue and settle_overdue(row.load(), message):
            return None
        if message.recorded and message.recipients == (row.receiver,):
            return publisher.sign(body)
        recipients = [row.receiver] if row.receiver else None
        return publisher.sign(to_body(message.for_recipients(recipients, recorded=True)))
    except (UnknownKey, UnknownVersion) as error:
        state = ledger.postpone_row(row.load(), str(error))
        if state == State.DEAD:
            logger.error("signalbus gave up a parked text, delivery %s: %s", row.id, error)  # noqa: TRY400 - not a bug
            _tell("dead", row, error)
        elif state is not None:
            _tell("parked", row, error)
    except (SignalBusError, ValueError, DataError) as error:
        logger.error("signalbus cannot publish delivery %s: %s", row.id, error)  # noqa: TRY400 - the row is wrong
        if ledger.bury(row.id, f"{type(error).__name__}: {error}", group_of(error, row.receiver)):
            _tell("dead", row, error)
    return None


def _tell(kind: Kind, row: ledger.Publishable, error: Exception | None = None) -> None:
    if is_heard(kind):
        tell(Event(kind, ledger.delivery_of_row(row.as_row()), error))


def _publish(due: Sequence[tuple[ledger.Publishable, str]]) -> int:
    """Publish rows by queue, several in one Celery message, all of a queue in one round trip."""
    queues: dict[str, list[tuple[ledger.Publishable, str]]] = {}
    for row, text in due:
        queues.setdefault(row.queue, []).append((row, text))
    unsent = {row.id for row, _ in due}
    patience = time.monotonic() + conf.get().PUBLISH_TIMEOUT
    failure: publisher.PublishError | None = None
    try:
        for queue, found in queues.items():
            items = sorted(found, key=lambda item: _kind(item[0]))
            failed_at = len(items)
            try:
                publisher.publish_signed(
                    queue or None, [text for _, text in items], sizes=_sizes([row for row, _ in items])
                )
            except publisher.PublishError as error:
                failure, failed_at = error, error.unsent.start
            unsent -= {row.id for row, _ in items[:failed_at]}
            for row, _ in items[:failed_at]:
                _tell("published", row)
            # One queue that takes nothing must not block the others; a broker that does not answer would cost its whole
            # timeout again for each of them.
            if failure is not None and time.monotonic() > patience:
                break
    finally:
        if unsent:
            ledger.return_due(unsent, RETURN_SECONDS)
    if failure is not None:
        raise failure
    return len(due)


def _kind(row: ledger.Publishable) -> str:
    """Return what a row shares a Celery message with: nothing, if it was lost, or is a retry of unknown run time."""
    if row.publications or (row.attempts and row.runtime_ms is None):
        return "alone"
    return "retry" if row.attempts else "first"


def _sizes(rows: Sequence[ledger.Publishable]) -> list[int]:
    """Return how many rows are in each Celery message, in their order.

    Retries that take longer together than `TOGETHER_MS`, by the last run of each, are in several: others wait behind
    them in a process.
    """
    sizes: list[int] = []
    kind, spent = "", 0
    for row in rows:
        former, kind = kind, _kind(row)
        takes = row.runtime_ms or 0
        if kind == former and sizes[-1] < COMPANIONS[kind] and spent + takes <= TOGETHER_MS:
            sizes[-1] += 1
            spent += takes
        else:
            sizes.append(1)
            spent = takes
    return sizes


def mark() -> None:
    """Send a marker through each queue that needs one; when it comes back, lost deliveries can be found.

    Raises:
        PublishError: the broker did not take it.
        DatabaseError: the ledger could not be read.
    """
    for queue, marked_at in ledger.mark():
        publisher.publish(queue or None, [Marker(queue, marked_at).to_body()])
