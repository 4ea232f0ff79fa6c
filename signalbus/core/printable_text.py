"""Replace characters that would change how other text is shown: control characters, bidirectional marks, separators."""

from __future__ import annotations


def printable(text: str, longest: int | None = None) -> str:
    r"""Return a text with each character that is not printable as its escape, as ``\x1b``; so on one line.

    Args:
        text: any text, as an error's.
        longest: characters; a longer text is cut, and ends with an ellipsis. None for all of it.
    """
    if longest is not None and len(text) > longest:  # first: the text may be much longer
        text = f"{text[: longest - 1]}…"
    if not text.isprintable():
        text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return text if longest is None or len(text) <= longest else f"{text[: longest - 1]}…"
