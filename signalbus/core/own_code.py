"""Tell the project's own code from that of Python, of signalbus and of installed packages.

Used by start-up errors, the system checks, error groups, the warning of stale code, and ``manage.py signalbus dev``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from sysconfig import get_path

_STDLIB, _OURS = get_path("stdlib"), str(Path(__file__).parent.parent)


def is_own_code(path: str) -> bool:
    """Return whether a file is the project's own.

    Args:
        path: of a file or a folder; absolute.
    """
    parts = Path(path).parts
    return not ("site-packages" in parts or "dist-packages" in parts or path.startswith((_STDLIB, _OURS, "<")))


def own_modules() -> dict[str, str]:
    """Return the source files of the project's own modules that this process has imported, with the modules' names."""
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(".py") and is_own_code(file):
            found[file] = name
    return found
