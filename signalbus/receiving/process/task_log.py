"""Complete Celery's log lines about our task: add the signals, the receivers and the outcomes of their deliveries.

Celery logs a line when a worker gets a message, and one when its task has returned, which it calls "succeeded"
whatever became of the deliveries. A filter completes both for our task, and leaves those of all other tasks alone.
`worker/bootstrap` installs it; the code that runs deliveries notes their outcomes.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from signalbus.celery import TASK_NAME
from signalbus.compat.celery_internals import LINE_OF_END, LINE_OF_START, logger_of_ends, logger_of_starts
from signalbus.wire.unverified_text import address_of

if TYPE_CHECKING:
    from collections.abc import Iterable

DONE = "done"
NOTHING = "nothing was run: another worker has its deliveries"
ALONE = "not begun, will be published again by itself"
SHOWN = 10  # different outcomes, or addresses, in one line
ENDED = "Task %(name)s[%(id)s] ended in %(runtime)ss: %(return_value)s"
RECEIVED = f"{LINE_OF_START}: %(addresses)s"


class Outcomes(threading.local):
    """The outcomes of the deliveries of this thread's Celery message; None if they are not logged."""

    noted: list[tuple[str, str]] | None = None


outcomes: Outcomes = Outcomes()


def begin() -> None:
    """Begin to note outcomes for the line about a Celery message, if there will be one."""
    outcomes.noted = [] if logger_of_ends.isEnabledFor(logging.INFO) else None


def note(signal: str, receiver: str, outcome: str) -> None:
    """Note the outcome of a delivery.

    Args:
        signal: its name.
        receiver: its id; empty for an open message.
        outcome: the outcome in a few words, such as "failed, again in 4.2 s".
    """
    if outcomes.noted is not None:
        outcomes.noted.append((f"{signal} to {receiver or '(whoever listens)'}", outcome))


def note_requeued(texts: Iterable[object]) -> None:
    """Note that texts went back to their queue before they began."""
    if outcomes.noted is not None:
        addresses = [address_of(text) if isinstance(text, str) else "" for text in texts]
        outcomes.noted += [(address or "a text", "not begun, requeued") for address in addresses]


class Completed(logging.Filter):
    """Complete Celery's log lines about our task; let every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the signals, receivers and outcomes to a line."""
        context = record.args
        if isinstance(context, dict) and context.get("name") == TASK_NAME:
            if record.msg == LINE_OF_END:
                _complete_end(record, context)
            elif record.msg == LINE_OF_START:
                addresses = _listed(filter(None, map(address_of, _texts.of_message)))
                if addresses:
                    record.msg, record.args = RECEIVED, {**context, "addresses": addresses}
        return True


def _complete_end(record: logging.LogRecord, context: dict[str, Any]) -> None:
    noted, outcomes.noted = outcomes.noted, None
    if noted is None:
        return
    told = _listed(": ".join(each) for each in noted)
    record.args = {**context, "return_value": told or NOTHING}
    if not noted or any(outcome != DONE for _, outcome in noted):
        record.msg = ENDED


def _listed(parts: Iterable[str]) -> str:
    counted = Counter(parts)
    shown = [part if count == 1 else f"{part} ({count} times)" for part, count in counted.most_common(SHOWN)]
    more = len(counted) - len(shown)
    return "; ".join([*shown, f"and {more} others"] if more else shown)


class _Texts(threading.local):
    """The texts of the Celery message that this thread's consumer is about to log."""

    of_message: tuple[str, ...] = ()


_texts = _Texts()


def about(payload: object) -> None:
    """Remember the texts of the message that Celery will log as received, if it logs that.

    Args:
        payload: the Celery message's payload; any writer to the broker may have chosen it.
    """
    if not logger_of_starts.isEnabledFor(logging.INFO):
        return
    found: Any = payload
    for _ in range(2):  # the arguments, and of them the first
        found = found[0] if isinstance(found, (list, tuple)) and found else None
    texts = found if isinstance(found, (list, tuple)) else ()
    _texts.of_message = tuple(text for text in texts if isinstance(text, str))


def complete() -> None:
    """Complete Celery's lines in this process, and in its children."""
    for logger in (logger_of_starts, logger_of_ends):
        if not any(isinstance(each, Completed) for each in logger.filters):
            logger.addFilter(Completed())
