"""Publishes what is due: retries, what the broker did not take, what was parked or lost. One in every worker."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from django.db import DatabaseError, connections

from signalbus import conf, ledger
from signalbus.exceptions import TextError, UnknownKey, UnknownVersion
from signalbus.models import Delivery
from signalbus.sending import publisher
from signalbus.wire.message import from_body, to_body

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

logger = logging.getLogger("signalbus")

BATCH = 100  # rows taken at once
RETURN_SECONDS = 5.0  # until what could not be published is due again


def sweep() -> int:
    """Publish all that is due now.

    Returns:
        How many deliveries were published.

    Raises:
        PublishError: the broker did not take some; they are due again soon.
        DatabaseError: the ledger could not be read.
    """
    published = 0
    while ledger.anything_due():
        rows = ledger.take_due(BATCH, lease=3 * conf.get().TIME_LIMIT)
        published += _publish([(row, body) for row in rows if (body := _body(row)) is not None])
        if len(rows) < BATCH:
            break
    return published


def _body(row: Delivery) -> str | None:
    """Return what to publish for a row; None if it has been dealt with here."""
    if not row.message.signal:
        _open_again(row)
        return None
    message = from_body(row.message.text)
    recipients = (row.receiver,) if row.receiver else None
    return to_body(replace(message, recipients=recipients, recorded=True))


def _open_again(row: Delivery) -> None:
    """Try again to open a text; this worker may hold the key, or read the version, by now."""
    try:
        body = conf.signer().verify(row.message.text) if row.message.sealed else row.message.text
        ledger.open_parked(row, from_body(body))
    except (UnknownKey, UnknownVersion) as error:
        ledger.postpone_row(row, str(error))
    except TextError as error:
        logger.error("signalbus refused a parked text: %s", error)  # noqa: TRY400 - the text is wrong, not this code
        ledger.bury(row, f"{type(error).__name__}: {error}")


def _publish(due: Sequence[tuple[Delivery, str]]) -> int:
    """Publish rows by queue; each that has run before alone, so that one that ends its worker takes no other along."""
    groups: dict[tuple[str, UUID | None], list[tuple[Delivery, str]]] = {}
    for row, body in due:
        alone = row.pk if row.attempts else None
        groups.setdefault((row.queue, alone), []).append((row, body))
    failure: publisher.PublishError | None = None
    published = 0
    for (queue, _), items in groups.items():
        try:
            publisher.publish(queue or None, [body for _, body in items])
            published += len(items)
        except publisher.PublishError as error:
            # The other queues still get theirs: one that cannot be published blocks nobody.
            ledger.return_due([items[index][0].pk for index in error.unsent], RETURN_SECONDS)
            failure = error
    if failure is not None:
        raise failure
    return published


class Sweeper(threading.Thread):
    """The thread of a worker's main process that sweeps.

    Args:
        interval: seconds between two looks.
    """

    def __init__(self, interval: float) -> None:
        super().__init__(name="signalbus-sweeper", daemon=True)
        self._interval = interval
        self._stopped = threading.Event()

    def run(self) -> None:
        """Sweep until stopped; what goes wrong is logged, and tried again."""
        first = True
        while first or not self._stopped.wait(self._interval):
            try:
                if first:
                    ledger.unpark()
                    first = False
                sweep()
            except (DatabaseError, publisher.PublishError) as error:
                first = False
                logger.warning("signalbus could not sweep, and will try again: %r", error)
            finally:
                # Children are forked from this process at any time: no connection must be open in a thread they lack.
                connections.close_all()

    def stop(self) -> None:
        """Stop after the sweep under way."""
        self._stopped.set()


