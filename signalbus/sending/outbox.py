"""Between send() and the broker: waits for the commit, and keeps what the broker does not take."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from django.db import connections

from signalbus import ledger
from signalbus.sending import loops, publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from signalbus.sending.composing import Outgoing

logger = logging.getLogger("signalbus")

# How many of a transaction's latest callbacks are searched for a buffer to add to: each search stays short, however
# many callbacks others register; a buffer not found costs one more Celery message.
SEARCHED = 32

# Where messages go instead, in a test (signalbus.testing).
diverted: ContextVar[Callable[[list[Outgoing]], None] | None] = ContextVar("signalbus_diverted", default=None)


class Buffer:
    """The messages of a transaction that share its fate. It lives inside the callback that Django keeps.

    A table beside Django's list would survive a rollback, and swallow the next commit.
    """

    def __init__(self) -> None:
        self.outgoing: list[Outgoing] = []
        self.published = False

    def __call__(self) -> None:
        """Publish, after the commit."""
        self.published = True
        publish(self.outgoing)


class Joint:
    """The messages of transactions in several databases at once: published after the last commit, if all commit.

    Args:
        outgoing: the messages.
        commits: how many commits they wait for.
    """

    def __init__(self, outgoing: list[Outgoing], commits: int) -> None:
        self.outgoing = outgoing
        self._commits = commits

    def __call__(self) -> None:
        """Count a commit; a rollback drops this callback, so that the count is never full."""
        self._commits -= 1
        if not self._commits:
            publish(self.outgoing)


def add(outgoing: Iterable[Outgoing], *, robust: bool = True) -> None:
    """Publish messages after the commit of the open transaction; at once if there is none.

    Args:
        outgoing: the messages.
        robust: never raise, whatever happens to the broker and to the ledger.
    """
    divert = diverted.get()
    if divert is not None:
        divert(list(outgoing))
        return
    waiting = open_transactions()
    if not waiting:
        # What the broker does not take is written, and in eager mode receivers run: not on an event loop's thread.
        if loops.forbid_databases():
            loops.call_away(publish, list(outgoing), robust=robust)
        else:
            publish(list(outgoing), robust=robust)
    elif len(waiting) == 1:
        _buffer_in(waiting[0]).outgoing.extend(outgoing)
    else:
        joint = Joint(list(outgoing), len(waiting))
        for connection in waiting:
            connection.on_commit(joint, robust=True)


def open_transactions() -> list[BaseDatabaseWrapper]:
    """Return the connections whose commits to wait for: all that are in a transaction, the ledger's first.

    In a TestCase those that it has opened itself do not count beside one that the code under test has opened.
    """
    opened = [c for c in connections.all(initialized_only=True) if c.in_atomic_block or _is_manual(c)]
    if len(opened) < 2:  # noqa: PLR2004 - nearly always
        return opened
    alias = ledger.using()
    opened.sort(key=lambda connection: connection.alias != alias)
    return [connection for connection in opened if not _only_a_tests(connection)] or opened[:1]


def _only_a_tests(connection: BaseDatabaseWrapper) -> bool:
    blocks = connection.atomic_blocks
    return bool(blocks) and all(getattr(block, "_from_testcase", False) for block in blocks)


def _is_manual(connection: BaseDatabaseWrapper) -> bool:
    """Whether ``set_autocommit(False)`` opened a transaction: Django's on_commit() then raises, and so must send().

    A database whose settings say ``AUTOCOMMIT: False`` is always in one; such a legacy one beside ours decides nothing.
    """
    if connection.connection is None or connection.autocommit or connection.in_atomic_block:
        return False
    return bool(connection.settings_dict["AUTOCOMMIT"]) or connection.alias == ledger.using()


def _buffer_in(connection: BaseDatabaseWrapper) -> Buffer:
    """Find or make the buffer for the savepoints that are open now."""
    callbacks: list[Any] = connection.run_on_commit
    savepoints = set(connection.savepoint_ids) - {None}  # None: a block without a savepoint, and so no fate of its own
    if not _under_test(connection):
        for sids, callback, _robust in reversed(callbacks[-SEARCHED:]):
            if isinstance(callback, Buffer) and not callback.published and sids - {None} == savepoints:
                return callback
        _merge_released(callbacks, savepoints)
    buffer = Buffer()
    connection.on_commit(buffer, robust=True)
    return buffer


def _merge_released(callbacks: list[Any], savepoints: set[Any]) -> None:
    """Join the last two buffers, if the same open savepoints decide over both.

    A savepoint that is not open any more, and whose callbacks Django still holds, was released: what waits for it now
    shares the fate of what is around it. Without this, a loop of ``atomic()`` blocks would publish once for each.
    """
    latest = range(len(callbacks) - 1, max(-1, len(callbacks) - 1 - SEARCHED), -1)
    buffers = [index for index in latest if isinstance(callbacks[index][1], Buffer)]
    if len(buffers) < 2:  # noqa: PLR2004 - a pair
        return
    (later_sids, later, _), (earlier_sids, earlier, _) = callbacks[buffers[0]], callbacks[buffers[1]]
    if earlier_sids & savepoints == later_sids & savepoints and not (earlier.published or later.published):
        # Into the later one's place, which those that follow will find; an emptied one would stand between them.
        earlier.outgoing.extend(later.outgoing)
        later.outgoing = earlier.outgoing
        del callbacks[buffers[1]]


def _under_test(connection: BaseDatabaseWrapper) -> bool:
    """Whether a TestCase's transaction is open, whose commit never comes.

    There each send() gets a callback of its own, so that ``captureOnCommitCallbacks()`` sees those of its own block.
    """
    return any(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks)


def publish(outgoing: Sequence[Outgoing], *, robust: bool = True) -> None:
    """Publish messages, those for a queue together; what the broker does not take is kept in the ledger.

    After a failure nothing more is tried: each try may last for the whole timeout, and somebody waits for this.

    Args:
        outgoing: the messages.
        robust: log, and do not raise, where the ledger fails as well.

    Raises:
        Exception: what the ledger said; neither the broker nor the ledger took them, and not robust.
    """
    by_queue: dict[str | None, list[Outgoing]] = {}
    for item in outgoing:
        by_queue.setdefault(item.queue, []).append(item)
    unsent: list[Outgoing] = []
    failure: publisher.PublishError | None = None
    for queue, items in by_queue.items():
        if failure is not None:
            unsent += items
            continue
        try:
            publisher.publish(queue, [item.body for item in items])
        except publisher.PublishError as error:
            failure = error
            unsent += [items[index] for index in error.unsent]
    if failure is not None:
        _keep(unsent, failure, robust=robust)


def _keep(items: Sequence[Outgoing], error: publisher.PublishError, *, robust: bool) -> None:
    logger.warning("signalbus keeps %d message(s) for later: %s", len(items), error)
    try:
        ledger.keep_unpublished([(item.message, item.queue) for item in items], str(error))
    except Exception:  # whatever it is: what was committed, and has nowhere to go, must be named
        ids = ", ".join(str(item.message.id) for item in items)
        logger.critical("signalbus LOST what neither the broker nor the ledger took: %s", ids, exc_info=True)
        if not robust:
            raise
