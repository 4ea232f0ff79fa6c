"""Format the errors of failed attempts, for the ledger and for the log, with remembered text for known places.

`runner` and `settling/listeners` call it. The standard library takes longer to format a traceback than a short
receiver takes to run: it reads the source again, and parses each line to underline a part of it. A receiver that
keeps failing raises from the same places, so this module remembers the text of those places, and formats only what
the error itself says.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import CodeType, TracebackType

MOST: Final = 256  # tracebacks that are remembered
MOST_FRAMES: Final = 100  # in one of them; a RecursionError has a thousand
HEAD: Final = "Traceback (most recent call last):\n"
CAUSE: Final = "\nThe above exception was the direct cause of the following exception:\n\n"
CONTEXT: Final = "\nDuring handling of the above exception, another exception occurred:\n\n"

# The standard library looks at the frames of these for what else to say: a suggestion, a line of source, members.
_SPECIAL: Final = (AttributeError, ImportError, NameError, SyntaxError, BaseExceptionGroup)

# By the ids of code objects, which are kept alive beside the text, and the places in them.
_remembered: dict[tuple[int, ...], tuple[list[CodeType], str]] = {}


def format_error(error: BaseException, begin: TracebackType | None) -> str:
    """Return an error, its traceback and the errors that led to it, as ``traceback.format_exception`` does.

    Args:
        error: the error.
        begin: where its own traceback begins.
    """
    is_first = error.__cause__ is None and (error.__context__ is None or error.__suppress_context__)
    if is_first and not isinstance(error, _SPECIAL):  # no other error led to it
        return _format_alone(error) if begin is None else f"{HEAD}{_format_frames(begin)}{_format_alone(error)}"
    chain = _chain(error)
    if any(isinstance(each, _SPECIAL) for each, _ in chain):
        return "".join(traceback.format_exception(type(error), error, begin))
    parts: list[str] = []
    for each, link in reversed(chain):
        found = begin if each is error else each.__traceback__
        parts += [HEAD, _format_frames(found)] if found is not None else []
        parts += [_format_alone(each), link]
    return "".join(parts)


def _chain(error: BaseException) -> list[tuple[BaseException, str]]:
    """Return an error and those that led to it, the first of them last, each with the words that follow it."""
    chain = [(error, "")]
    seen = {id(error)}
    while True:
        last, _ = chain[-1]
        if last.__cause__ is not None:
            earlier, link = last.__cause__, CAUSE
        elif last.__context__ is not None and not last.__suppress_context__:
            earlier, link = last.__context__, CONTEXT
        else:
            return chain
        if id(earlier) in seen:
            return chain
        seen.add(id(earlier))
        chain.append((earlier, link))


def _format_alone(error: BaseException) -> str:
    """Return an error without its traceback, as ``traceback.format_exception_only`` does."""
    kind = type(error)
    try:
        said = str(error)
    except Exception:  # noqa: BLE001 - a receiver's own exception class may do anything
        said = ""
    if not said or getattr(error, "__notes__", None) is not None:
        return "".join(traceback.format_exception_only(kind, error))
    module = kind.__module__
    name = kind.__qualname__ if module in {"__main__", "builtins"} else f"{module}.{kind.__qualname__}"
    return f"{name}: {said}\n"


def _format_frames(begin: TracebackType) -> str:
    key: list[int] = []
    codes: list[CodeType] = []
    frame: TracebackType | None = begin
    while frame is not None and len(codes) <= MOST_FRAMES:
        codes.append(frame.tb_frame.f_code)
        key += (id(codes[-1]), frame.tb_lasti)
        frame = frame.tb_next
    if frame is not None:
        return "".join(traceback.format_tb(begin))
    known = _remembered.get(tuple(key))
    if known is not None:
        return known[1]
    text = "".join(traceback.format_tb(begin))
    if len(_remembered) >= MOST:
        _remembered.clear()
    _remembered[tuple(key)] = (codes, text)
    return text
