"""Make a JSON decoder without the standard library's search for white space, which takes as long as reading a header.

`codec` and `message` use it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def reader(opening: str, **options: Any) -> Callable[[str], Any]:
    """Return a function that decodes as ``JSONDecoder.decode`` does.

    Args:
        opening: the first character of our own texts, "{" or "[". Another writer may put white space before it.
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
