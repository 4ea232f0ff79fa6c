"""What we use of Django's private parts: each with what would break, and tests/unit/test_compat.py that notices it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

EXECUTOR = "django.db.migrations.executor"
COMMAND = "django.core.management.commands.migrate"


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
