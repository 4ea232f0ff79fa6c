"""What we use of Django's private parts: each with what would break, and tests in tests/unit/compat that notice it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from django.db import connections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from django.db.backends.base.base import BaseDatabaseWrapper

    Waiting = tuple[set[Any], Callable[[], None], bool]

EXECUTOR = "django.db.migrations.executor"
COMMAND = "django.core.management.commands.migrate"
SERIALIZERS = "django.core.serializers.base"
# What a child inherited. Kept for ever: a pool that is collected would wait for threads that no child has.
_forgotten: list[Any] = []


def callbacks_of(connection: BaseDatabaseWrapper) -> list[Waiting]:
    """Return Django's own list of what waits for a commit: (open savepoints, callback, robust), called from the front.

    Were it replaced by something else, messages would be published one by one, and behind the callbacks of others.
    """
    entries: list[Any] = connection.run_on_commit
    return entries


def open_savepoints(connection: BaseDatabaseWrapper) -> set[Any]:
    """Return the savepoints of the ``atomic()`` blocks that are open, as they stand in `callbacks_of`.

    Were they kept elsewhere, a message could be rolled back with a savepoint that it was not sent in. None stands for a
    block without a savepoint, which has no fate of its own.
    """
    return set(connection.savepoint_ids) - {None}


def in_testcase(connection: BaseDatabaseWrapper) -> bool:
    """Whether a ``TestCase``'s own transaction is open.

    Were its blocks not marked any more, ``captureOnCommitCallbacks()`` would find the messages of other blocks.
    """
    return any(_is_testcases(block) for block in connection.atomic_blocks)


def only_testcases(connection: BaseDatabaseWrapper) -> bool:
    """Whether a ``TestCase``'s own transaction is open, and none of the code that it tests.

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
    """Take the pools that a forked child inherited out of Django's sight, without touching their sockets.

    Uses ``DatabaseWrapper._connection_pools``. Without it, children would share the connections of their parent.
    """
    for pools in _pools():
        _forgotten.extend(pools.values())
        pools.clear()


def _pools() -> list[dict[str, Any]]:
    found = [getattr(connections[alias], "_connection_pools", None) for alias in connections]
    return [pools for pools in found if pools]


def databases_being_migrated() -> Iterator[str]:
    """Find what this thread is migrating: ``migrate``, or an executor that is used directly, stands on its stack.

    Django announces the beginning and the end of ``migrate``, but no end that is an error, and nothing where an
    executor is used by itself. What is called has ended as soon as it is off the stack, in whatever way.

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
    """Whether this thread is saving an object of a fixture: it stands on its stack.

    Django's ``m2m_changed`` does not say that it is raw, as its ``post_save`` does.

    Would break if ``DeserializedObject.save`` had another name or module: bridges would then carry what fixtures link.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - documented (PEP 667)
    while frame is not None:
        if frame.f_code.co_name == "save" and frame.f_globals.get("__name__") == SERIALIZERS:
            return True
        frame = frame.f_back
    return False
