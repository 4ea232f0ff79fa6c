"""A glance at a text that nobody has verified yet: good for guessing how long it will take, and for nothing else."""

from __future__ import annotations

from typing import Final

# Where a header's second item begins: after the frame, the version and the message's id, whose lengths are fixed.
_START: Final = 70
_END: Final = 160
_NAME: Final = '"s":"'
_LONGEST: Final = 300


def signal_of(text: str) -> str | None:
    """Return the name of the signal that a text seems to be of, as the text spells it.

    Args:
        text: whatever came out of the queue.

    Returns:
        The name; None if there is none where a signer writes it.
    """
    start = text.find(_NAME, _START, _END)
    if start < 0:
        return None
    start += len(_NAME)
    end = text.find('"', start, start + _LONGEST)
    return text[start:end] if end >= 0 else None
