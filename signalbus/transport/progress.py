"""Report the progress of a Celery message's texts from a process of the pool to the worker's main process.

`receiving/routing/batch` and `receiving/running` write it, `receiving/worker/request` and `claimed_message` read it
(decision 0032). The progress is in memory that both share, mapped before any process is forked. The main process may
requeue texts that wait behind a straggler; then the process of the pool must not run them. No lock decides that: a
process that was killed would hold it for ever. The process of the pool first notes that a text is begun, and *then*
checks that its ticket is valid; the main process first makes the ticket void, and reads a good while later (`PAUSE`)
which texts were begun. So each sees what the other did. A void ticket stays void: its process ends the running text,
and begins no other.
"""

from __future__ import annotations

import mmap
import time
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

WAITING: Final = 0
BEGUN: Final = 1
DONE: Final = 2
SHARED: Final = 3  # in a group commit, with rows: may be requeued as free, or redelivered as begun

FREE: Final = frozenset({WAITING, SHARED})  # states in which a text may be requeued

MOST_TEXTS: Final = 100  # of one message; as the publisher's
SHEETS: Final = 1024  # at most as many messages as a worker has in flight; a sheet is reused after all others
PAUSE: Final = 0.002  # seconds after which the writes of another processor are seen; it takes a thousandth of that

_VOID: Final = 0
MOST_PARTS: Final = 255  # recipients, of all texts that have several; the progress of more is not reported
# Offsets on a sheet: ticket and steps, a byte each; the state of each text; for each text the index of its first
# recipient, from 1 on; how many of these indexes are taken; and the state of each recipient.
_TICKET, _STEPS, _STATES = 0, 1, 2
_FIRSTS: Final = _STATES + MOST_TEXTS
_TAKEN: Final = _FIRSTS + MOST_TEXTS
_PARTS: Final = _TAKEN + 1
_SIZE: Final = _PARTS + MOST_PARTS
_MAPPED: Final = 0  # a byte that the main process sets: a process that was not forked does not see it

Ticket = tuple[int, int]  # an offset in the memory, and the number that is there while the ticket is valid

_memory: mmap.mmap = mmap.mmap(-1, 1 + SHEETS * _SIZE)


class Progress:
    """The progress of one message, as the process that delivers its texts writes it.

    Args:
        memory: the shared memory.
        start: the first byte of the sheet.
        ticket: the number that must be there.
        states: the offset of the states: by default those of the texts.
    """

    def __init__(self, memory: bytearray | mmap.mmap, start: int, ticket: int, states: int | None = None) -> None:
        self._memory = memory
        self._start = start
        self._states = start + _STATES if states is None else states
        self._ticket = ticket

    def parts(self, text: int, count: int) -> Progress:
        """Return the progress of a text's recipients, which is recorded as that of texts is.

        Args:
            text: its index.
            count: how many recipients it has.
        """
        memory, start = self._memory, self._start
        first = memory[start + _TAKEN] if self._ticket != _VOID else MOST_PARTS
        if first + count > MOST_PARTS:
            return Progress(bytearray(_STATES + count), 0, _VOID)
        memory[start + _TAKEN] = first + count
        memory[start + _FIRSTS + text] = first + 1
        return Progress(memory, start, self._ticket, start + _PARTS + first)

    def begin(self, *texts: int) -> bool:
        """Note that texts are begun, unless they were requeued.

        Args:
            texts: their indexes.

        Returns:
            Whether they may run; if not, nothing more of this message may.
        """
        memory, states, steps = self._memory, self._states, self._start + _STEPS
        for text in texts:
            memory[states + text] = BEGUN
        memory[steps] = memory[steps] % 255 + 1
        if memory[self._start + _TICKET] == self._ticket:
            return True
        self._note(texts, WAITING)
        return False

    def put_off(self, *texts: int) -> None:
        """Note that texts wait again: they have not run, or have rows by which only one worker runs them."""
        self._note(texts, WAITING)

    def resume(self, *texts: int) -> None:
        """Note that texts that were put off are begun, even if they were requeued since."""
        self._note(texts, BEGUN)
        self._step()

    def share(self, *texts: int) -> None:
        """Note that texts are in a group commit, in which another one runs."""
        self._note(texts, SHARED)

    def end(self, *texts: int) -> None:
        """Note that texts are done: they are not redelivered, whatever happens."""
        memory, states = self._memory, self._states
        for text in texts:
            memory[states + text] = DONE

    def _step(self) -> None:
        steps = self._start + _STEPS
        self._memory[steps] = self._memory[steps] % 255 + 1

    def _note(self, texts: Iterable[int], state: int) -> None:
        for text in texts:
            self._memory[self._states + text] = state


def of(ticket: Ticket | None, texts: int) -> Progress:
    """Return the progress of a message.

    Args:
        ticket: from the main process; None if the progress is not read.
        texts: the number of texts.
    """
    if ticket is None or not _memory[_MAPPED]:
        return Progress(bytearray(_STATES + texts), 0, _VOID)
    start, number = ticket
    return Progress(_memory, start, number)


class Sheet:
    """The progress of one message, as the main process reads it; both of its threads may make it void.

    Args:
        start: its first byte in the shared memory.
        number: the number of its ticket.
        texts: the number of texts.
    """

    def __init__(self, start: int, number: int, texts: int) -> None:
        self.ticket: Ticket = (start, number)
        self.late: list[str] = []  # when it was made void: the texts of the straggler,
        self.late_since: float = 0.0  # and since when, by the monotonic clock
        self._start = start
        self._texts = texts
        self._void_since: float | None = None  # by the monotonic clock

    @property
    def steps(self) -> int:
        """A number that changes with each beginning; 0 before the first."""
        return _memory[self._start + _STEPS]

    @property
    def states(self) -> bytes:
        """The state of each text."""
        start = self._start + _STATES
        return _memory[start : start + self._texts]

    @property
    def all_states(self) -> bytes:
        """The state of each text, and of each recipient of those that have several."""
        start = self._start + _PARTS
        return self.states + _memory[start : start + _memory[self._start + _TAKEN]]

    def parts(self) -> dict[int, bytes]:
        """Return the states of the recipients of each text that has several."""
        start, parts = self._start + _FIRSTS, self._start + _PARTS
        firsts = [(text, first - 1) for text, first in enumerate(_memory[start : start + self._texts]) if first]
        ends = [*(first for _, first in firsts[1:]), _memory[self._start + _TAKEN]]
        return {text: _memory[parts + first : parts + end] for (text, first), end in zip(firsts, ends, strict=False)}

    def running(self) -> tuple[int, int | None] | None:
        """Return the running text, and its running recipient if it has several; None if that is not certain."""
        begun = [text for text, state in enumerate(self.reported_states()) if state == BEGUN]
        if len(begun) != 1:
            return None
        parts = self.parts().get(begun[0])
        indexes = [index for index, state in enumerate(parts or b"") if state == BEGUN]
        if parts is None:
            return begun[0], None
        return (begun[0], indexes[0]) if len(indexes) == 1 else None

    def reported_states(self) -> bytes:
        """Return the state of each text; empty if none was reported, as by a process that shares no memory."""
        return self.states if self.steps else b""

    @property
    def is_void(self) -> bool:
        """Whether its ticket is void, and its waiting texts may be requeued."""
        return _memory[self._start + _TICKET] != self.ticket[1]

    def make_void(self) -> None:
        """Let no more texts begin; those begun before are seen after a `PAUSE`."""
        if self._void_since is None:
            _memory[self._start + _TICKET] = _VOID
            self._void_since = time.monotonic()

    def stop(self) -> None:
        """Let no more texts begin, and wait until those begun before are seen: 2 ms at most."""
        self.make_void()
        assert self._void_since is not None  # noqa: S101 - for the type checker
        left = self._void_since + PAUSE - time.monotonic()
        if left > 0:
            time.sleep(left)


_free: deque[int] = deque(range(1, 1 + SHEETS * _SIZE, _SIZE))
_last: dict[int, int] = {}  # the numbers of the last tickets


def post(texts: int) -> Sheet | None:
    """Prepare a sheet, in the main process.

    Args:
        texts: the number of texts.

    Returns:
        None if there are too many, or no sheet is free.
    """
    if texts > MOST_TEXTS:
        return None
    try:
        start = _free.popleft()
    except IndexError:
        return None
    _memory[_MAPPED] = 1
    _memory[start + _STEPS : start + _SIZE] = bytes(_SIZE - _STEPS)
    number = _last[start] = _last.get(start, 0) % 255 + 1
    _memory[start + _TICKET] = number
    return Sheet(start, number, texts)


def release(sheet: Sheet) -> None:
    """Release a sheet: a process that still has its ticket begins no more texts."""
    sheet.make_void()
    _free.append(sheet.ticket[0])
