"""Say where a class or function is written, as a file and a line."""

from __future__ import annotations

import inspect
from typing import Any


def place_in_code(written: Any) -> str:
    """Return the file and line of a class or function; of what has neither, its name.

    Args:
        written: a class, a function, or any callable object, for which its class stands.
    """
    found = inspect.unwrap(written) if callable(written) else written
    code = getattr(found, "__code__", None)
    if code is not None:
        return f"{code.co_filename}:{code.co_firstlineno}"
    kind = found if isinstance(found, type) else type(found)
    try:
        return f"{inspect.getsourcefile(kind)}:{inspect.getsourcelines(kind)[1]}"
    except (OSError, TypeError):  # made by exec(), or built in
        return f"{kind.__module__}.{kind.__qualname__}"
