"""Straggler watchdog: requeue the messages of a batch that are stuck behind a slow one (decision 0032).

`request` registers each batch, and a thread of the main process watches them. Only our own transport, on Redis, can
requeue a part of a batch (`transport/claimed_message`). On other brokers a batch ends between two texts when it takes
too long (`routing/batch`).
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from signalbus.transport import batching, progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from signalbus.transport.progress import Sheet

logger: logging.Logger = logging.getLogger("signalbus")

PATIENCE: Final = 1.0  # seconds that a text may keep the others of its batch waiting
BRIEFLY: Final = 0.02  # the same, while a free process or thread of this worker would begin them at once
FREE_FOR: Final = 0.01  # seconds for which it has been free: while there is a backlog, one is free for a moment only
EVERY: Final = 0.005  # between two looks, while a text waits behind another; a step is seen that much later
SELDOM: Final = 0.1  # the same, while none waits: the last text of a message may run for an hour
AGAIN: Final = 0.25  # seconds until a broker that did not answer is asked again

WAITED: Final = "%d of %d deliveries have waited for %.1f s behind another of their message, and go back to %s"
SPARED: Final = (
    "%d of %d deliveries would have waited for %.1f s by now behind another of their message; they went back to %s"
)


class Divisible(Protocol):
    """A message of which a part can be requeued, from any thread, while the rest is processed."""

    @property
    def acknowledged(self) -> bool:
        """Whether the message has ended; other objects may still refer to it."""

    def is_waited_for(self) -> bool:
        """Return whether a process or thread is free, in which the requeued part would begin at once."""

    def requeue_free(self, states: Sequence[int]) -> bool:
        """Requeue the texts that have not begun; return False if the broker does not answer now."""


@dataclass(slots=True)
class _Watched:
    message: weakref.ref[Any]
    sheet: Sheet
    texts: list[str]
    queue: str
    since: float  # when it was last seen to make a step
    steps: int = 0
    free_since: float | None = None  # when a place was first seen free that has been at each look from then on
    is_requeued: bool = False
    is_logged: bool = False  # that one of its texts hangs

    def is_anyone_waiting(self) -> bool:
        """Return whether there are texts to requeue, now or soon."""
        return not self.is_requeued and not progress.FREE.isdisjoint(self.sheet.all_states)

    def begun(self) -> list[str]:
        """Return the texts that have begun."""
        return [text for text, state in zip(self.texts, self.sheet.states, strict=True) if state == progress.BEGUN]


class StragglerWatchdog(threading.Thread):
    """Watch the sheets of all batches of this process; sleep while there are none.

    A thread, because the loop of the solo pool is blocked while a task runs.

    Args:
        patience: seconds that a text may keep the others of its batch waiting.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        super().__init__(name="signalbus-lookout", daemon=True)
        self._patience = patience
        self._watched: dict[int, _Watched] = {}
        self._any = threading.Event()  # to be looked after closely

    def watch(self, message: Divisible, texts: list[str], queue: str) -> Sheet | None:
        """Watch a message until it has ended.

        Args:
            message: the message.
            texts: its texts.
            queue: the queue that it came from.

        Returns:
            The sheet on which its progress is noted; None if none is free.
        """
        sheet = progress.post(len(texts))
        if sheet is None:
            return None
        number = sheet.ticket[0]
        self._watched[number] = _Watched(weakref.ref(message), sheet, texts, queue, time.monotonic())
        weakref.finalize(message, self._forget, number, sheet).atexit = False
        if not self._any.is_set():
            self._any.set()
        return sheet

    def _forget(self, number: int, sheet: Sheet) -> None:
        self._watched.pop(number, None)
        progress.release(sheet)

    def run(self) -> None:
        """Look at the messages while the process lives."""
        while True:
            self._any.wait(SELDOM if self._watched else None)
            self._any.clear()  # first: what is to be watched from now on sets it again, or is seen
            if self.look(time.monotonic()):
                self._any.set()
            time.sleep(EVERY)

    def look(self, now: float) -> bool:
        """Look at each message once.

        Args:
            now: the monotonic time.

        Returns:
            Whether a text waits behind another.
        """
        any_waits = False
        # Their numbers alone: to build pairs may start garbage collection, which removes some in the middle.
        for number in list(self._watched):
            watched = self._watched.get(number)
            message = None if watched is None else watched.message()
            if watched is None or message is None:
                continue
            if self._is_over(message, watched, now):
                self._watched.pop(number, None)
            else:
                any_waits = any_waits or watched.is_anyone_waiting()
        return any_waits

    def _is_over(self, message: Divisible, watched: _Watched, now: float) -> bool:
        """Look at one message; return whether it need not be watched any more."""
        if message.acknowledged:
            return True
        sheet = watched.sheet
        if sheet.steps != watched.steps:
            watched.steps, watched.since = sheet.steps, now
        waited = now - watched.since
        if sheet.is_void:
            if not watched.is_requeued and waited >= progress.PAUSE:
                watched.is_requeued = message.requeue_free(sheet.states)
                watched.since = now + AGAIN
            return watched.is_requeued and self._is_known(watched, now)
        if not message.is_waited_for():
            watched.free_since = None
        elif watched.free_since is None:
            watched.free_since = now
        is_waited_for = watched.free_since is not None and now - watched.free_since >= FREE_FOR
        # A message without a step may wait for a rate limit, or its process may share no memory with this one.
        if watched.steps and waited >= BRIEFLY and self._is_to_be_divided(sheet.all_states, waited, is_waited_for):
            self._divide(watched, waited)
        return False

    def _is_to_be_divided(self, states: bytes, waited: float, is_waited_for: bool) -> bool:
        """Return whether texts wait too long behind another, which has not locked their rows in a group commit."""
        if waited >= self._patience:
            return not progress.FREE.isdisjoint(states)
        return is_waited_for and progress.WAITING in states and progress.SHARED not in states

    def _divide(self, watched: _Watched, waited: float) -> None:
        """Let no other text of the batch begin; the texts that wait are requeued at the next look."""
        sheet = watched.sheet
        sheet.make_void()
        sheet.late = watched.begun()
        sheet.late_since, watched.since = watched.since, watched.since + waited
        if waited >= self._patience:
            self._tell(watched, waited, WAITED)
        else:
            logger.debug("signalbus: a message of %s is divided after %.3f s", watched.queue, waited)

    def _is_known(self, watched: _Watched, now: float) -> bool:
        """Return whether the straggler has ended, or was reported."""
        waited = now - watched.sheet.late_since
        late = watched.sheet.late
        if watched.is_logged or not late or watched.begun() != late:
            return True
        if waited < self._patience:
            return False
        self._tell(watched, waited, SPARED)
        return True

    def _tell(self, watched: _Watched, waited: float, text: str) -> None:
        """Report a straggler: to the run time estimates of batching, and in the log."""
        watched.is_logged = True
        sheet = watched.sheet
        states, parts = sheet.all_states, sheet.parts()
        batching.learn(sheet.late, watched.queue, waited)
        free = sum(state in progress.FREE for state in states)
        logger.warning(f"signalbus: {text}", free, len(states) - len(parts), waited, watched.queue)


_watchdogs: list[StragglerWatchdog] = []


def watch(message: Divisible, texts: list[str], queue: str) -> Sheet | None:
    """Watch a message; as `StragglerWatchdog.watch`, in the thread of this process."""
    if not _watchdogs:
        _watchdogs.append(StragglerWatchdog())
        _watchdogs[0].start()
    return _watchdogs[0].watch(message, texts, queue)
