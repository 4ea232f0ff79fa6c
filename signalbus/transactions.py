"""Decide which open transactions a send waits for, and release its messages after their commit.

`sending/outbox` calls it (decisions 0004 and 0024). The send waits for the ledger's transaction, if one is open, else
for all open ones. A rolled back savepoint drops what was sent in it. In a ``TestCase`` the transactions of the test
itself do not count beside those of the code under test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from signalbus.compat.django_internals import (
    callbacks_of,
    in_testcase,
    only_testcases,
    open_savepoints,
    opened_connections,
)
from signalbus.ledger import sends as ledger

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.backends.base.base import BaseDatabaseWrapper

    from signalbus.compat.django_internals import Waiting

T = TypeVar("T")
Release = Callable[[Sequence[T]], None]


def deciding() -> list[BaseDatabaseWrapper]:
    """Return the connections whose commits a send waits for now; none, if it need not wait."""
    opened = opened_connections()
    for connection in opened:
        if connection.in_atomic_block or not connection.autocommit:
            break
    else:
        return []  # the usual case of senders without a transaction, at half the cost
    opened = [connection for connection in opened if connection.in_atomic_block or _is_manual(connection)]
    if len(opened) < 2:  # noqa: PLR2004 - nearly always
        return opened
    alias = ledger.using()
    counted = [connection for connection in opened if not only_testcases(connection)] or opened
    return [connection for connection in counted if connection.alias == alias] or counted


def _is_manual(connection: BaseDatabaseWrapper) -> bool:
    """Return whether ``set_autocommit(False)`` opened a transaction: Django's on_commit() raises then, as send() must.

    A database with the setting ``AUTOCOMMIT: False`` is always in one; a send does not wait for such a database, unless
    it is the ledger's.
    """
    if connection.connection is None or connection.autocommit or connection.in_atomic_block:
        return False
    return bool(connection.settings_dict["AUTOCOMMIT"]) or connection.alias == ledger.using()


def refuse_manual(deciders: Iterable[BaseDatabaseWrapper]) -> None:
    """Refuse transactions whose end Django does not announce, before anything is written in them.

    Args:
        deciders: the connections that `deciding` returned.

    Raises:
        TransactionManagementError: one of them was opened by ``set_autocommit(False)``.
    """
    for connection in deciders:
        if not connection.in_atomic_block:
            connection.on_commit(CommitCallback(), robust=True)  # raises Django's own error


class CommitCallback:
    """A callback in Django's list of callbacks of a commit, from which a rollback removes it.

    In a list of our own it would survive the rollback, and be called at the next commit.
    """

    def __init__(self) -> None:
        self.committed: bool = False
        self.__qualname__: str = type(self).__qualname__  # by which Django 5.2 names a callback that failed

    def __call__(self) -> None:
        """Note the commit."""
        self.committed = True


class CommitOutcome:
    """The outcome of the transactions that a send belongs to: whether they were rolled back.

    Args:
        deciders: connections in transactions, as `deciding` returned them.

    Raises:
        TransactionManagementError: one of them was opened by ``set_autocommit(False)``: its commit is not announced.
    """

    def __init__(self, deciders: Sequence[BaseDatabaseWrapper]) -> None:
        self._callbacks = [(connection, CommitCallback()) for connection in deciders]
        for connection, callback in self._callbacks:
            connection.on_commit(callback, robust=True)

    @property
    def survives(self) -> bool:
        """False once one of the transactions, or a savepoint around the send, was rolled back."""
        return all(callback.committed or _waits(connection, callback) for connection, callback in self._callbacks)


def _waits(connection: BaseDatabaseWrapper, callback: CommitCallback) -> bool:
    return any(waiting is callback for _, waiting, _ in tuple(callbacks_of(connection)))


class Joint(Generic[T]):
    """Items that wait for several commits, and are released by the last of them.

    Args:
        items: the items.
        release: takes them after the last commit, and does not fail.
        commits: the number of commits; a rollback removes one, so that the count is never reached.
    """

    def __init__(self, items: Iterable[T], release: Release[T], commits: int) -> None:
        self._items = list(items)
        self._release = release
        self._missing = commits

    def after_a_commit(self, buffer: Buffer) -> None:
        """Count a commit; after the last one, add the items to the buffer that is about to be released."""
        self._missing -= 1
        if not self._missing:
            buffer.add(self._items, self._release)


class Buffer(CommitCallback):
    """Items that wait for the same commit and savepoints, and are released together."""

    def __init__(self) -> None:
        super().__init__()
        self.items: dict[Release[Any], list[Any]] = {}  # by what takes them after the commit, and does not fail
        self.joints: list[Joint[Any]] = []

    def __call__(self) -> None:
        """Release the items."""
        super().__call__()
        for joint in self.joints:
            joint.after_a_commit(self)
        for release, items in self.items.items():
            release(items)

    def add(self, items: Iterable[T], release: Release[T]) -> None:
        """Add items, to be released together with those that the same function takes."""
        self.items.setdefault(release, []).extend(items)

    def absorb(self, other: Buffer) -> None:
        """Take over the items of a buffer that waits for the same commit and savepoints now."""
        for release, items in other.items.items():
            self.add(items, release)
        self.joints += other.joints


def wait(deciders: Sequence[BaseDatabaseWrapper], items: Iterable[T], release: Release[T]) -> None:
    """Release items after the commits of all these connections; any rollback drops them.

    Args:
        deciders: connections in transactions, as `deciding` returned them.
        items: the items.
        release: takes all items that a commit releases at once.

    Raises:
        TransactionManagementError: one of them was opened by ``set_autocommit(False)``: its commit is not announced.
    """
    if len(deciders) == 1:
        _buffer_in(deciders[0]).add(items, release)
        return
    joint = Joint(items, release, len(deciders))
    for connection in deciders:
        _buffer_in(connection).joints.append(joint)


def _buffer_in(connection: BaseDatabaseWrapper) -> Buffer:
    """Find or make the buffer for the savepoints that are open now.

    Our buffers are at the front of Django's list (decision 0023): if a foreign callback raises, Django skips those
    after it. There they are a stack: each is in more of the open savepoints than the one before it.
    """
    if in_testcase(connection):
        # captureOnCommitCallbacks() takes the callbacks at the end of the list; no commit comes, and none is skipped.
        buffer = Buffer()
        connection.on_commit(buffer, robust=True)
        return buffer
    entries, savepoints = callbacks_of(connection), open_savepoints(connection)
    height = _merge_released(entries, savepoints)
    if height and entries[height - 1][0] >= savepoints:
        last: Buffer = entries[height - 1][1]  # type: ignore[assignment]  # the callbacks at the front are ours
        return last
    buffer = Buffer()
    connection.on_commit(buffer, robust=True)
    entries.insert(height, entries.pop())
    return buffer


def _merge_released(entries: list[Waiting], savepoints: set[Any]) -> int:
    """Merge the buffers that wait for the same commit and savepoints now; return how many are left.

    A savepoint that is not open any more, and whose callbacks Django still has, was released: its items now wait for
    the block around it. Without this, a loop of ``atomic()`` blocks would publish once for each.
    """
    height = 0
    while height < len(entries) and isinstance(entries[height][1], Buffer):
        height += 1
    stack: list[tuple[set[Any], Any, bool]] = entries[:height]
    while len(stack) > 1 and stack[-2][0] & savepoints == stack[-1][0] & savepoints:
        stack[-2][1].absorb(stack.pop()[1])
    entries[:height] = stack
    return len(stack)
