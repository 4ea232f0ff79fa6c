"""JSON is read as the standard library reads it, without the look for white space that costs as much as a header."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def reader(opening: str, **options: Any) -> Callable[[str], Any]:
    """Make a function that does what ``JSONDecoder.decode`` does.

    Args:
        opening: how what we write begins: "{" or "[". Another writer may put white space there, and at the end.
        options: of ``JSONDecoder``.
    """
    decoder = json.JSONDecoder(**options)

    def read(text: str) -> Any:
        if text[:1] == opening:
            value, end = decoder.raw_decode(text)
            if end == len(text):
                return value
        return decoder.decode(text)

    return read
