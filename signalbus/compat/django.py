"""What we use of Django's private parts: each with what would break, and tests/unit/test_compat.py that notices it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.backends.base.base import BaseDatabaseWrapper

    Waiting = tuple[set[Any], Callable[[], None], bool]


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
