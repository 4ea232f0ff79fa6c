"""Write JSON for all texts of signalbus: ASCII, without spaces, with one encoder for the whole process.

`codec`, `message` and `broker/queue_item` use it.
"""

from __future__ import annotations

import json
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable


def _refuse(value: object) -> NoReturn:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


# The encoder of payloads finds cycles before this one runs.
_encoder: Final = json.JSONEncoder(ensure_ascii=True, check_circular=False, allow_nan=False, separators=(",", ":"))


def _writer() -> Callable[[Any], str]:
    """Return the function that writes; ``JSONEncoder.encode`` makes one for each value, at the cost of a value."""
    c_make_encoder: Any = getattr(json.encoder, "c_make_encoder", None)
    if c_make_encoder is None:  # an interpreter without CPython's accelerator
        return _encoder.encode
    chunks = c_make_encoder(None, _refuse, encode_basestring_ascii, None, ":", ",", False, False, False)
    join = "".join

    def write(value: Any) -> str:
        """Write a value of dicts, lists, texts, numbers, truths and None."""
        return join(chunks(value, 0))

    return write


write: Final[Callable[[Any], str]] = _writer()
# Write a text, with the quotes around it.
quoted: Final[Callable[[str], str]] = encode_basestring_ascii
