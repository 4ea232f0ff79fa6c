"""Tell whether a value that a carrier captured arrives as it left: as JSON.

`carrying` refuses a value that does not, `log_and_trace_context` sends its text instead.
"""

from __future__ import annotations

import json


def survives_json(value: object) -> bool:
    """Return whether a value is the same after it was written as JSON and read again.

    Args:
        value: what a carrier captured.
    """
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False
