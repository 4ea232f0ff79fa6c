"""Record durable messages, publish all messages after the commit, and make those pending that the broker did not take.

`send_operation` and `message_templates` call `add` (decisions 0004 and 0024). Which commit a message waits for is
decided in `transactions.py`; test tools divert the messages here instead.
"""

from __future__ import annotations

import logging
import threading
import time
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING

from django.db import DatabaseError, transaction

from signalbus import conf, transactions
from signalbus.broker import publisher
from signalbus.compat.django_internals import databases_being_migrated
from signalbus.exceptions import SignalBusError
from signalbus.ledger import sends as ledger
from signalbus.sending import deferred, event_loop_guard
from signalbus.sending.sent_events import is_sending_heard, tell_each, tell_sent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from uuid import UUID

    from signalbus.sending.outgoing import Outgoing

    Divert = Callable[[list[Outgoing]], None]

logger: logging.Logger = logging.getLogger("signalbus")
UNPUBLISHED = {"signalbus_event": "message.unpublished"}

NOBODY: Mapping[UUID, UUID] = MappingProxyType({})  # no message stands for another
MOMENT = 1.0  # seconds after a failure in which the broker is not even tried

# Where messages go instead, in a test (signalbus.testing): in this context, else in every thread, else for as long as
# the settings say so.
diverted: ContextVar[Divert | None] = ContextVar("signalbus_diverted", default=None)
diverted_everywhere: Divert | None = None
test_modes: dict[str | None, Divert] = {}


def diversion() -> Divert | None:
    """Return the function that takes messages instead of the broker in a test; None outside of tests."""
    return diverted.get() or diverted_everywhere or test_modes.get(conf.get().TEST_MODE)


def add(outgoing: Sequence[Outgoing], *, robust: bool = True) -> Mapping[UUID, UUID]:
    """Record durable messages, and publish all after the commit that they wait for; at once if there is none.

    Args:
        outgoing: the messages.
        robust: never raise, whatever happens to the broker and to the ledger.

    Returns:
        For each duplicate the waiting message that stands for it.

    Raises:
        DatabaseError: the ledger could not record the durable messages; nothing was sent.
        MissingTables: its tables do not exist yet.
    """
    divert = diversion()
    if divert is not None:
        _divert(divert, list(outgoing), robust=robust)
        return NOBODY
    deciders = transactions.deciding()
    if not deciders:
        if event_loop_guard.forbid_databases():
            # Rows are written, and in eager mode receivers run: not on an event loop's thread.
            return event_loop_guard.call_away(_send_now, outgoing, robust=robust)
        return _send_now(outgoing, robust=robust)
    transactions.refuse_manual(deciders)
    if outgoing and deciders[0].alias == outgoing[0].route.ledger:
        due, instead = _record(outgoing)
        if is_sending_heard():
            transactions.wait(deciders, _needed(outgoing, instead), tell_sent)
        transactions.wait(deciders, due, publish)
        return instead
    if _is_migrating():
        ledger.reject_unmigrated()  # after the commit it would be too late
    transactions.wait(deciders, outgoing, _record_and_publish)
    return NOBODY


def _is_migrating() -> bool:
    return next(databases_being_migrated(), None) is not None


def _send_now(outgoing: Sequence[Outgoing], *, robust: bool) -> Mapping[UUID, UUID]:
    due, instead = _record(outgoing)
    if is_sending_heard():
        tell_sent(_needed(outgoing, instead))
    publish(due, robust=robust)
    return instead


def _needed(outgoing: Sequence[Outgoing], instead: Mapping[UUID, UUID]) -> Sequence[Outgoing]:
    """Return the messages without duplicates, which a waiting message stands for."""
    return [item for item in outgoing if item.id not in instead] if instead else outgoing


def _record(outgoing: Sequence[Outgoing]) -> tuple[Sequence[Outgoing], Mapping[UUID, UUID]]:
    """Record messages with rows; return those to publish, and for each duplicate the message that stands for it."""
    for item in outgoing:
        if item.route.recorded or item.rule is not None:
            break
    else:
        return outgoing, NOBODY
    try:
        if not _is_migrating():
            return _record_rows(outgoing)
        for item in outgoing:
            item.root = item.more_subjects = None  # a dependency on SUFFICIENT does not make these columns
        # The tables may not exist yet: a failure of ours must not end the migration's transaction.
        with transaction.atomic(using=ledger.using()):
            return _record_rows(outgoing)
    except DatabaseError as error:
        ledger.reject_missing(error)
        raise


def _record_rows(outgoing: Sequence[Outgoing]) -> tuple[Sequence[Outgoing], Mapping[UUID, UUID]]:
    instead: Mapping[UUID, UUID] = NOBODY
    by_rule = [item for item in outgoing if item.rule is not None]
    plain = outgoing if not by_rule else [item for item in outgoing if item.rule is None]
    durable = [item for item in plain if item.route.recorded]
    if durable:
        ledger.record(durable, using=durable[0].route.ledger)
    if by_rule:
        due, instead = deferred.record(by_rule)
        plain = [*plain, *due]
    return plain, instead


def _record_and_publish(outgoing: Sequence[Outgoing]) -> None:
    """Record and publish messages that waited for transactions of other databases, after their commits; never raise."""
    try:
        due, instead = _record(outgoing)
    except DatabaseError:
        ids = ", ".join(str(item.id) for item in outgoing)
        logger.critical("signalbus LOST what the ledger did not take after the commit: %s", ids, exc_info=True)
        return
    if is_sending_heard():
        tell_sent(_needed(outgoing, instead))
    publish(due)


def _divert(divert: Divert, outgoing: list[Outgoing], *, robust: bool) -> None:
    try:
        divert(outgoing)
    except SignalBusError:  # a receiver that ran at once, and failed
        if not robust:
            raise
        logger.exception("signalbus: what was delivered at once, in a test, failed")


class Outage:
    """An outage of the broker, as this process sees it: log its beginning and its end, not each message."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: float | None = None
        self._again_at = 0.0
        self._unpublished = 0

    @property
    def is_fresh(self) -> bool:
        """Whether the broker failed a moment ago: each try may last for the whole timeout, while the caller waits."""
        return self._since is not None and time.monotonic() < self._again_at

    def goes_on(self, count: int, error: publisher.PublishError | None) -> None:
        """Count messages that were not published, and note the error, if the broker was tried."""
        with self._lock:
            self._unpublished += count
            if error is None:
                return
            self._again_at = time.monotonic() + MOMENT
            if self._since is None:
                self._since = time.monotonic()
                logger.warning(
                    "signalbus keeps messages for later, until the broker is back: %s", error, extra=UNPUBLISHED
                )

    def is_over(self) -> None:
        """Note that the broker took a message: the outage is over."""
        if self._since is None:
            return
        with self._lock:
            if self._since is not None:
                lasted = time.monotonic() - self._since
                logger.warning(
                    "signalbus: the broker is back after %.1f s; %d message(s) were kept", lasted, self._unpublished
                )
            self._since, self._unpublished = None, 0


outage: Outage = Outage()


def publish(outgoing: Sequence[Outgoing], *, robust: bool = True) -> None:
    """Publish messages, those for a queue together; record those that the broker does not take.

    After a failure the broker is not tried for a moment: each try may last for the whole timeout, while the caller
    waits.

    Args:
        outgoing: the messages.
        robust: log, and do not raise, if the ledger fails as well.

    Raises:
        Exception: the ledger's error, if neither the broker nor the ledger took the messages, and not robust.
    """
    unsent: list[Outgoing] = []
    failure: publisher.PublishError | None = None
    for queue, items in _by_queue(outgoing).items():
        if failure is not None or outage.is_fresh:
            unsent += items
            continue
        try:
            publisher.publish(queue, [item.body for item in items])
        except publisher.PublishError as error:
            failure = error
            tell_each("published", items[: error.unsent.start])
            unsent += [items[index] for index in error.unsent]
        else:
            outage.is_over()
            tell_each("published", items)
    if unsent:
        outage.goes_on(len(unsent), failure)
        _record_unpublished(unsent, failure, robust=robust)


def _by_queue(outgoing: Sequence[Outgoing]) -> Mapping[str | None, Sequence[Outgoing]]:
    if len(outgoing) == 1:  # nearly always
        return {outgoing[0].route.queue: outgoing}
    by_queue: dict[str | None, list[Outgoing]] = {}
    for item in outgoing:
        by_queue.setdefault(item.route.queue, []).append(item)
    return by_queue


def _record_unpublished(items: Sequence[Outgoing], error: publisher.PublishError | None, *, robust: bool) -> None:
    reason = "the broker is away" if error is None else str(error)
    try:
        ledger.record_unpublished([(item.message, item.queue) for item in items], reason, error)
    except Exception:  # whatever it is: what was committed, and has nowhere to go, must be named
        ids = ", ".join(str(item.id) for item in items if not item.route.recorded)
        if not ids:  # the rows are there, and the sweeper will find that they were never published
            logger.warning("signalbus could not note what the broker did not take", exc_info=True)
            return
        logger.critical(
            "signalbus LOST what neither the broker nor the ledger took: %s", ids, exc_info=True, extra=UNPUBLISHED
        )
        if not robust:
            raise
