"""A process knows each pause within five seconds, and queries only when something is new."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from django.db import OperationalError

from signalbus.ledger.attempts import PauseRow
from signalbus.receiving.pausing import pause_watch, releasing
from signalbus.receiving.pausing.pause_watch import PauseWatch
from signalbus.receiving.pausing.releasing import Release

if TYPE_CHECKING:
    from collections.abc import Callable

PAUSE = PauseRow(1, "receiver", "a", "", "", is_over=False)
OVER = PAUSE._replace(id=2, name="b", is_over=True)


class Ledger:
    """The pauses, with the number of times that they were read."""

    def __init__(self) -> None:
        self.rows: list[PauseRow] = []
        self.reads = 0
        self.is_away = False

    def read(self) -> list[PauseRow]:
        """Return the rows."""
        self.reads += 1
        if self.is_away:
            raise OperationalError("away")
        return list(self.rows)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which passes only when a test says so."""
    now = [1000.0]
    monkeypatch.setattr(pause_watch, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def ledger() -> Ledger:
    """A ledger without pauses."""
    return Ledger()


@pytest.fixture
def watch(ledger: Ledger, clock: list[float]) -> PauseWatch:
    """A watch that has read nothing."""
    return PauseWatch(ledger.read)


def in_a_child(work: Callable[[], int]) -> int:
    """Run a function in a forked process, and return its result."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_without_pauses_nothing_is_read(watch: PauseWatch, ledger: Ledger, clock: list[float]):
    """As long as the sweeper reads them."""
    for _ in range(5):
        assert watch.refresh() == []
        clock[0] += 2.5
        assert watch.paused() == {}
    assert ledger.reads == 5


def test_a_process_does_not_read_for_three_seconds_after_an_empty_read(
    watch: PauseWatch, ledger: Ledger, clock: list[float]
):
    """From when the sweeper began to read; not while something is paused, nor before it has read anything."""
    assert watch.quiet_until[0] < clock[0]
    watch.refresh()
    assert watch.quiet_until[0] == clock[0] + 3
    assert in_a_child(lambda: int(watch.quiet_until[0] - clock[0])) == 3
    ledger.rows = [PAUSE]
    watch.refresh()
    assert watch.quiet_until[0] < clock[0]


def test_the_main_process_reads_a_new_pause_once(watch: PauseWatch, ledger: Ledger):
    """The sweeper has read it for the threads of its process; one that is over is returned to be released."""
    ledger.rows = [PAUSE, OVER]
    assert watch.refresh() == [OVER]
    assert watch.paused() == watch.paused() == {("receiver", "a"): PAUSE}
    assert ledger.reads == 1


def test_a_child_sees_what_the_main_process_has_read_since_it_was_forked(watch: PauseWatch, ledger: Ledger):
    """It reads the pauses itself, once for each change."""
    watch.refresh()
    reader, writer = os.pipe()
    back, forth = os.pipe()

    def child() -> int:
        seen = [len(watch.paused())]
        os.write(forth, b".")
        os.read(reader, 1)
        ledger.rows = [PAUSE]
        seen += [len(watch.paused()), len(watch.paused()), ledger.reads]
        return int("".join(map(str, seen)), 5)

    pid = os.fork()
    if pid == 0:
        os._exit(child())
    os.read(back, 1)
    ledger.rows = [PAUSE]
    watch.refresh()
    os.write(writer, b".")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    for descriptor in (reader, writer, back, forth):
        os.close(descriptor)

    assert code == int("0112", 5)  # none; one, twice; and read once more than before the fork


def test_a_child_that_is_forked_later_knows_what_its_parent_knows(watch: PauseWatch, ledger: Ledger):
    """It need not read it again."""
    ledger.rows = [PAUSE]
    watch.refresh()
    assert in_a_child(lambda: len(watch.paused()) * 10 + ledger.reads) == 11


def test_without_a_sweeper_a_process_reads_the_pauses_itself(watch: PauseWatch, ledger: Ledger, clock: list[float]):
    """At most each three seconds, however many deliveries ask."""
    ledger.rows = [PAUSE]
    assert watch.paused() == {("receiver", "a"): PAUSE}
    ledger.rows = []
    clock[0] += 2.9
    assert (len(watch.paused()), ledger.reads) == (1, 1)
    clock[0] += 0.2
    assert (len(watch.paused()), ledger.reads) == (0, 2)


def test_a_late_sweeper_takes_over_the_reading_again(watch: PauseWatch, ledger: Ledger, clock: list[float]):
    """What a process has read itself meanwhile gives way to what the sweeper has read since."""
    watch.refresh()
    clock[0] += 4
    ledger.rows = [PAUSE]
    assert len(watch.paused()) == 1
    ledger.rows = []
    clock[0] += 1
    watch.refresh()
    assert watch.paused() == {}
    ledger.rows = [PAUSE]
    clock[0] += 1
    watch.refresh()
    assert len(watch.paused()) == 1


def test_during_an_outage_of_the_ledger_known_pauses_stay(watch: PauseWatch, ledger: Ledger, clock: list[float]):
    """The sweeper hears of the error; a delivery does not, and asks seldom."""
    ledger.rows = [PAUSE]
    watch.refresh()
    ledger.is_away = True
    with pytest.raises(OperationalError):
        watch.refresh()
    for _ in range(3):
        clock[0] += 3.5
        assert (len(watch.paused()), len(watch.paused())) == (1, 1)
    assert ledger.reads == 5
    ledger.is_away, ledger.rows = False, []
    clock[0] += 3.5
    assert watch.paused() == {}


def test_a_sweeper_whose_other_statement_finds_no_pauses_does_not_read_them(
    watch: PauseWatch, ledger: Ledger, clock: list[float], monkeypatch: pytest.MonkeyPatch
):
    """It reads them two seconds after the last sweep that found none."""
    monkeypatch.setattr(releasing, "watch", watch)
    monkeypatch.setattr(releasing, "monotonic", lambda: clock[0])
    release = Release()
    for _ in range(5):
        release.step()
        release.note_no_pauses(clock[0])
        clock[0] += 1
        assert (watch.paused(), ledger.reads) == ({}, 1)
    ledger.rows = [PAUSE]
    release.step()
    clock[0] += 1
    release.step()

    assert ledger.reads == 2
    assert watch.paused() == {("receiver", "a"): PAUSE}
