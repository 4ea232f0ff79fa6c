"""Guess the signal and the receivers of a text before it is verified, for runtime estimates and log lines only.

`transport/coalescing` and `receiving/process/task_log` use it. What runs is decided by the verified message alone.
"""

from __future__ import annotations

import re
from typing import Final

# Where a header's second item begins: after the frame, the version and the message's id, whose lengths are fixed.
_START: Final = 70
_END: Final = 160
_NAME: Final = '"s":"'
_LONGEST: Final = 300
_RECIPIENTS: Final = re.compile(r',"r":\[((?:"[^"\\\n]*",?)+)\]')
_SHOWN: Final = 2000  # characters of a header that are looked at for receivers
_LIST: Final = ',"r":['


def signal_of(text: str) -> str | None:
    """Return the name of the signal that a text seems to be of, as the text spells it.

    Args:
        text: a text from a queue, not verified yet.

    Returns:
        The name; None if there is none where a signer writes it.
    """
    start = text.find(_NAME, _START, _END)
    if start < 0:
        return None
    start += len(_NAME)
    end = text.find('"', start, start + _LONGEST)
    return text[start:end] if end >= 0 else None


def address_of(text: str) -> str | None:
    """Return the signal and the receivers that a text seems to be of, for a line of a log.

    Args:
        text: a text from a queue, not verified yet.

    Returns:
        As ``shop.sold to stock.count``; None if it does not look like a text of ours.
    """
    signal = signal_of(text)
    found = _RECIPIENTS.search(text, _START, _START + _SHOWN) if signal else None
    receivers = found[1].replace('"', "").replace(",", ", ") if found else "whoever listens"
    address = f"{signal} to {receivers}"
    return address if signal and address.isprintable() else None


def has_several_recipients(text: str) -> bool:
    """Return whether a text seems to be for several receivers, or for receivers that the worker looks up.

    Args:
        text: a text from a queue, not verified yet.
    """
    start = text.find(_LIST, _START, _START + _SHOWN)
    return start < 0 or '","' in text[start : text.find("]", start) + 1]
