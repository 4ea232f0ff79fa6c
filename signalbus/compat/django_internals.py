"""Wrap the private parts of Django: its signals, its callbacks on commit, its pools; tests notice a change.

`sending`, `transactions` and `receiving` use them; the tests are in tests/unit/compat.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import connections
from django.dispatch import Signal
from django.dispatch.dispatcher import NONE_ID, _make_id  # type: ignore[attr-defined]
from django.utils.functional import LazyObject, empty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models.fields.files import FieldFile
    from django.http import HttpRequest, QueryDict

    Waiting = tuple[set[Any], Callable[[], None], bool]
    Key = tuple[Any, Any]  # the uid or the receiver's identity, and the sender's
    Here = tuple[list[Any], list[Any]]  # functions, and coroutine functions

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("django.dispatch")

EXECUTOR = "django.db.migrations.executor"
COMMAND = "django.core.management.commands.migrate"
SERIALIZERS = "django.core.serializers.base"
# Pools that a child inherited. Kept for ever: a pool that is collected would wait for threads that no child has.
_forgotten: list[Any] = []

# Signals


def key_of(receiver: object, sender: object, dispatch_uid: object) -> Key:
    """Return the key under which ``connect`` keeps a receiver, the first part of its entry in ``Signal.receivers``.

    Uses ``dispatcher._make_id``. Were keys made otherwise, receivers in workers would be run in the sender's process.
    """
    return (dispatch_uid or _make_id(receiver), _make_id(sender))


def share_a_sender(key: Key, other: Key) -> bool:
    """Return whether some sender reaches the receivers under both keys.

    Uses ``dispatcher.NONE_ID``. Were it another, two receivers with one id would not be noticed.
    """
    return key[1] == other[1] or NONE_ID in (key[1], other[1])


class HookedSignal(Signal):
    """Django's signal, with hooks of ours where it has private methods: ``_here`` and ``_on_dropped``.

    Reads ``receivers``, a list of (key, receiver or weak reference, …, is it async): since Django 6.0 with a reference
    to the sender between. Were a key not the receiver's and then the sender's, a send would reach others.

    Overrides ``_live_receivers``, which each form of ``send`` asks for the receivers; ``_clear_dead_receivers``, which
    ``connect`` and ``disconnect`` call with the lock held; ``_log_robust_failure``. Were they not called any more,
    Django would call the receivers in workers, and collected ones would be kept for ever.
    """

    # Django sets it where a receiver or, since 6.0, its sender is collected.
    _dead_receivers: bool

    def __init__(self, *, use_caching: bool = False) -> None:
        super().__init__(use_caching=use_caching)
        self.lock: Any = threading.RLock()  # Django's own cannot be held around its methods

    @property
    def has_collected_receivers(self) -> bool:
        """Whether a receiver or a sender was collected that Django has not dropped yet."""
        return self._dead_receivers

    def _drop_collected(self) -> None:
        """Drop collected receivers. The caller holds the lock."""
        self._clear_dead_receivers()

    def _receivers_of(self, sender: object, known: Callable[[Key], T]) -> list[tuple[Any, T]]:
        """Pair each receiver that hears a sender with the subscription under its key. The caller holds the lock."""
        if self._dead_receivers:
            self._clear_dead_receivers()
        heard = (NONE_ID, _make_id(sender))
        return [(each, known(each[0])) for each in self.receivers if each[0][1] in heard]

    def connected_functions(self) -> list[Any]:
        """Return the receivers that are connected and still live, those in workers and those here."""
        with self.lock:
            found = [each[1] for each in self.receivers]
        found = [each() if isinstance(each, weakref.ReferenceType) else each for each in found]
        return [function for function in found if function is not None]

    def _on_dropped(self, keys: set[Key]) -> None:
        """Handle the keys of receivers that Django has just dropped; called with the lock held."""

    def _here(self, sender: object) -> Here | None:  # noqa: ARG002 - for subclasses
        """Return the receivers that Django must call for a sender; None: all that are connected."""
        return None

    def _clear_dead_receivers(self) -> None:
        if self._dead_receivers:
            before = {each[0] for each in self.receivers}
            super()._clear_dead_receivers()  # type: ignore[misc]
            self._on_dropped(before - {each[0] for each in self.receivers})

    def _live_receivers(self, sender: Any) -> Here:
        with self.lock:  # so that no receiver in a worker is connected between our answer and Django's
            here = self._here(sender)
            if here is None:
                return super()._live_receivers(sender)
            if not _is_known(sys._getframe(1)):  # noqa: SLF001 - the caller decides what the answer means
                self._on_foreign_lookup(sender)
            return here

    def _on_foreign_lookup(self, sender: object) -> None:
        """Handle that a ``send`` of other code than Django or signalbus asks for receivers, to call them."""

    def _log_robust_failure(self, receiver: Any, err: Exception) -> None:
        """Log as Django does, and do not fail for a receiver without a name of its own (a partial, an object)."""
        name = getattr(receiver, "__qualname__", type(receiver).__qualname__)
        logger.error("Error calling %s in Signal.send_robust() (%s)", name, err, exc_info=err)


def _is_known(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__", "").partition(".")[0] in {"django", "signalbus"}


# Values


def wrapped_in(lazy: LazyObject[Any]) -> Any:
    """Return the object in a lazy one, such as ``request.user``.

    Uses ``LazyObject._wrapped``, which reading any attribute fills. Without it, the row of the user could not be read
    from its wrapper, which is not an instance of any model.
    """
    lazy.__class__  # noqa: B018 - fills it
    return lazy._wrapped  # noqa: SLF001 - the reason for this module


def user_of(request: HttpRequest) -> Any:
    """Return the user of a request; in an event loop, where no query may be made, only one that is loaded already.

    Uses ``LazyObject._wrapped``, and ``_acached_user``, where ``request.auser()`` keeps what it has loaded. Without
    them, a send in an async view would make a query, and fail.
    """
    user = getattr(request, "user", None)
    if not isinstance(user, LazyObject) or user._wrapped is not empty:  # noqa: SLF001 - the reason for this module
        return user
    loaded = getattr(request, "_acached_user", None)
    if loaded is not None or asyncio._get_running_loop() is not None:  # noqa: SLF001 - asyncio exports it
        return loaded
    return user


def is_mutable(value: QueryDict) -> bool:
    """Return whether the data of a form may be changed; uses ``QueryDict._mutable``, which has no public reader."""
    return value._mutable  # noqa: SLF001 - the reason for this module


def frozen_query_dict(value: QueryDict) -> QueryDict:
    """Make the data of a form immutable, as ``request.POST`` is, and return it; uses ``QueryDict._mutable``."""
    value._mutable = False  # noqa: SLF001 - the reason for this module
    return value


def is_saved_file(value: FieldFile) -> bool:
    """Return whether the content of a field's file is in its storage; uses ``FieldFile._committed``.

    Were it another attribute, a file that is not saved yet would travel by a name that no storage has.
    """
    return bool(value._committed)  # type: ignore[attr-defined]  # noqa: SLF001 - the reason for this module


# Transactions and connections


def opened_connections() -> list[BaseDatabaseWrapper]:
    """Return ``connections.all(initialized_only=True)`` in a tenth of its time: each send and each delivery needs it.

    Where `_connections_of_thread` finds none that are open, messages would be published before their commit.
    """
    opened = _connections_of_thread()
    if opened is None:
        return list(connections.all(initialized_only=True))
    found = []
    for alias in connections.settings:  # a comprehension takes twice as long for the one that there nearly always is
        if alias in opened:
            found.append(opened[alias])  # noqa: PERF401 - see above
    return found


def connection_to(alias: str) -> BaseDatabaseWrapper:
    """Return ``connections[alias]`` in a tenth of its time: each recorded send and each delivery needs it.

    Args:
        alias: of the database.
    """
    opened = _connections_of_thread()
    connection = None if opened is None else opened.get(alias)
    return connections[alias] if connection is None else connection


def _connections_of_thread() -> dict[str, BaseDatabaseWrapper] | None:
    """Return the open connections of this thread by alias; None under an event loop, where each task has its own.

    Uses ``ConnectionHandler._connections``, and of that the ``_storage``: a ``threading.local``, whose attributes they
    are. asgiref looks for it by two errors that it catches, which takes ten times as long.
    """
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - asyncio lists it among what it exports
        return None
    return connections._connections._storage.__dict__  # type: ignore[attr-defined, no-any-return]  # noqa: SLF001 - the reason for this module


def callbacks_of(connection: BaseDatabaseWrapper) -> list[Waiting]:
    """Return Django's own list of callbacks on commit: (open savepoints, callback, robust), called from the front.

    Were it replaced by something else, messages would be published one by one, and behind the callbacks of others.
    """
    entries: list[Any] = connection.run_on_commit
    return entries


def open_savepoints(connection: BaseDatabaseWrapper) -> set[Any]:
    """Return the savepoints of the ``atomic()`` blocks that are open, as they stand in `callbacks_of`.

    Were they kept elsewhere, a message could be rolled back with a savepoint that it was not sent in. None stands for a
    block without a savepoint, which is rolled back with the block around it.
    """
    return set(connection.savepoint_ids) - {None}


def in_testcase(connection: BaseDatabaseWrapper) -> bool:
    """Return whether a ``TestCase``'s own transaction is open.

    Were its blocks not marked any more, ``captureOnCommitCallbacks()`` would find the messages of other blocks.
    """
    for block in connection.atomic_blocks:  # noqa: SIM110 - each send() in a transaction asks, and a generator costs more
        if _is_testcases(block):
            return True
    return False


def only_testcases(connection: BaseDatabaseWrapper) -> bool:
    """Return whether a ``TestCase``'s own transaction is open, and none of the code that it tests.

    Were its blocks not marked any more, its transaction would count beside one that the code under test has opened.
    """
    blocks = connection.atomic_blocks
    return bool(blocks) and all(_is_testcases(block) for block in blocks)


def _is_testcases(block: Any) -> bool:
    return bool(block._from_testcase)  # noqa: SLF001 - the reason for this module


def close_pools() -> None:
    """Close the pools of database connections that this process has opened.

    Uses ``DatabaseWrapper._connection_pools``, a table of the class, because the public ``close_pool()`` would make the
    pool that it is to close. Without it, a worker's main process would keep the connections that its checks opened.
    """
    for pools in _pools():
        while pools:
            pools.popitem()[1].close()


def forget_pools() -> None:
    """Remove the pools that a forked child inherited from Django, without touching their sockets.

    Uses ``DatabaseWrapper._connection_pools``. Without it, children would share the connections of their parent.
    """
    for pools in _pools():
        _forgotten.extend(pools.values())
        pools.clear()


def _pools() -> list[dict[str, Any]]:
    found = [getattr(connections[alias], "_connection_pools", None) for alias in connections]
    return [pools for pools in found if pools]


def databases_being_migrated() -> Iterator[str]:
    """Yield the databases that this thread is migrating: ``migrate`` or an executor of it is on the stack.

    Django announces the beginning and the end of ``migrate``, but no end that is an error, and nothing where an
    executor is used by itself. A call has ended as soon as it is off the stack, in whatever way.

    Would break if ``MigrationExecutor.migrate``, or the command's ``handle``, had other names or modules, or named
    its executor or its options otherwise: bridges would then carry what migrations save.

    Yields:
        The alias of each such database, the innermost first.
    """
    frame = sys._getframe(1) if EXECUTOR in sys.modules else None  # noqa: SLF001 - documented (PEP 667); most processes never migrate
    while frame is not None:
        name = frame.f_code.co_name
        if name == "migrate" and frame.f_globals.get("__name__") == EXECUTOR:
            yield frame.f_locals["self"].connection.alias
        elif name == "handle" and frame.f_globals.get("__name__") == COMMAND:
            yield frame.f_locals["options"]["database"]
        frame = frame.f_back


def loads_a_fixture() -> bool:
    """Return whether this thread is saving an object of a fixture: the deserializer is on its stack.

    Django's ``m2m_changed`` does not say that it is raw, as its ``post_save`` does.

    Would break if ``DeserializedObject.save`` had another name or module: bridges would then carry what fixtures link.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - documented (PEP 667)
    while frame is not None:
        if frame.f_code.co_name == "save" and frame.f_globals.get("__name__") == SERIALIZERS:
            return True
        frame = frame.f_back
    return False


def rollback_error(connection: BaseDatabaseWrapper) -> BaseException | None:
    """Return the last error of the ORM after which a connection's transaction can only be rolled back.

    Uses ``BaseDatabaseWrapper.rollback_exc``, which Django never clears. Without it, a receiver that asks for a
    rollback would get the error that it went on after a database error.

    Args:
        connection: the connection.
    """
    error: BaseException | None = connection.rollback_exc  # type: ignore[attr-defined]  # not in its stubs
    return error


def innermost_savepoint(connection: BaseDatabaseWrapper) -> str | None:
    """Return the id of the savepoint of a connection's innermost ``atomic()`` block; None if that has none.

    Uses ``BaseDatabaseWrapper.savepoint_ids``. Without it, a savepoint could not be rolled back to without the end of
    its block, or would be where the innermost block is a receiver's own.

    Args:
        connection: the connection.
    """
    return connection.savepoint_ids[-1] if connection.savepoint_ids else None
