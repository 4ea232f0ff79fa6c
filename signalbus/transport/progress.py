"""How far a process of the pool has come with the texts of a Celery message, for the worker's main process to see.

In memory that both share, mapped before any of them is forked. The main process may take back what waits behind a text
that hangs; then nobody else may run it. No lock decides that: a process that was killed would hold it for ever. Who
begins a text says so *first*, and looks *then* whether its ticket still holds; who takes back makes the ticket void
first, and looks a good while later (`PAUSE`) what has been begun. So either sees what the other did. A ticket that was
made void stays void: whoever holds it ends the text that it is at, and begins no other.
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
SHARED: Final = 3  # is in a transaction with others, has rows, and may be taken back; or be given out again, as begun

FREE: Final = frozenset({WAITING, SHARED})  # states in which a text may be taken back

MOST_TEXTS: Final = 100  # of one message; as the publisher's
SHEETS: Final = 1024  # at most as many messages as a worker holds; a sheet is used again when all others have been
PAUSE: Final = 0.002  # seconds after which what another processor has written is seen; it takes a thousandth of that

_VOID: Final = 0
MOST_PARTS: Final = 255  # recipients, of all texts that have several; of the rest nobody tells
# Where they are on a sheet: a byte each; one for each text; for each text the place of its first recipient, from 1 on;
# how many of these places are taken; and the state of each.
_TICKET, _STEPS, _STATES = 0, 1, 2
_FIRSTS: Final = _STATES + MOST_TEXTS
_TAKEN: Final = _FIRSTS + MOST_TEXTS
_PARTS: Final = _TAKEN + 1
_SIZE: Final = _PARTS + MOST_PARTS
_MAPPED: Final = 0  # a byte that the main process sets: a process that was not forked does not see it

Ticket = tuple[int, int]  # a place in the memory, and what stands there for as long as it holds

_memory: mmap.mmap = mmap.mmap(-1, 1 + SHEETS * _SIZE)


class Progress:
    """What the process that delivers the texts of one message says of them.

    Args:
        memory: where.
        start: its first byte.
        ticket: what must stand there.
        states: where the states begin: by default those of the texts.
    """

    def __init__(self, memory: bytearray | mmap.mmap, start: int, ticket: int, states: int | None = None) -> None:
        self._memory = memory
        self._start = start
        self._states = start + _STATES if states is None else states
        self._ticket = ticket

    def parts(self, text: int, count: int) -> Progress:
        """Return what the progress of a text's recipients is noted on, each as a text's is.

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
        """Say that texts are begun, unless they were taken back.

        Args:
            texts: their indexes.

        Returns:
            Whether they may run; if not, nothing more of this message may.
        """
        memory = self._memory
        self._note(texts, BEGUN)
        self._step()
        if memory[self._start + _TICKET] == self._ticket:
            return True
        self._note(texts, WAITING)
        return False

    def put_off(self, *texts: int) -> None:
        """Say that texts wait again: they have not run, or have rows that let them run once, whoever gets them."""
        self._note(texts, WAITING)

    def resume(self, *texts: int) -> None:
        """Say that texts that were put off are begun, whoever else has got them since."""
        self._note(texts, BEGUN)
        self._step()

    def share(self, *texts: int) -> None:
        """Say that texts share a transaction, in which another has its turn."""
        self._note(texts, SHARED)

    def end(self, *texts: int) -> None:
        """Say that texts are done with: they need not be given out again, whatever happens."""
        self._note(texts, DONE)

    def _step(self) -> None:
        place = self._start + _STEPS
        self._memory[place] = self._memory[place] % 255 + 1

    def _note(self, texts: Iterable[int], state: int) -> None:
        for text in texts:
            self._memory[self._states + text] = state


def of(ticket: Ticket | None, texts: int) -> Progress:
    """Return what a message's progress is noted on.

    Args:
        ticket: as the main process gave it; None if nobody looks.
        texts: how many there are.
    """
    if ticket is None or not _memory[_MAPPED]:
        return Progress(bytearray(_STATES + texts), 0, _VOID)
    start, number = ticket
    return Progress(_memory, start, number)


class Sheet:
    """The same, for the main process; both of its threads may make it void.

    Args:
        start: its first byte in the shared memory.
        number: what stands on its ticket.
        texts: how many there are.
    """

    def __init__(self, start: int, number: int, texts: int) -> None:
        self.ticket: Ticket = (start, number)
        self.late: list[str] = []  # when it was made void: the texts that kept the others waiting,
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
        """Return the text that is worked on, and which of its recipients if several; None if that is not sure."""
        begun = [text for text, state in enumerate(self.reported_states()) if state == BEGUN]
        if len(begun) != 1:
            return None
        parts = self.parts().get(begun[0])
        places = [place for place, state in enumerate(parts or b"") if state == BEGUN]
        if parts is None:
            return begun[0], None
        return (begun[0], places[0]) if len(places) == 1 else None

    def reported_states(self) -> bytes:
        """Return the state of each text; nothing if nobody has told of any, as a process that shares no memory."""
        return self.states if self.steps else b""

    @property
    def is_void(self) -> bool:
        """Whether its texts were taken back."""
        return _memory[self._start + _TICKET] != self.ticket[1]

    def make_void(self) -> None:
        """Let nothing more be begun; what has been by then is seen after a `PAUSE`."""
        if self._void_since is None:
            _memory[self._start + _TICKET] = _VOID
            self._void_since = time.monotonic()

    def stop(self) -> None:
        """Let nothing more be begun, and wait until what has been is seen: 2 ms at most."""
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
        texts: how many there are.

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
    """Free a sheet: whoever still holds its ticket begins nothing more."""
    sheet.make_void()
    _free.append(sheet.ticket[0])
