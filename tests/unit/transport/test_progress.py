"""Who has begun a text, and who may take it back: never both."""

from __future__ import annotations

import os
import sys
import threading
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbus.receiving.worker import stragglers
from signalbus.transport import progress
from signalbus.transport.progress import BEGUN, DONE, MOST_TEXTS, WAITING, Progress, post, put_away


@pytest.fixture
def sheet():
    """That of a message of four texts."""
    made = post(4)
    assert made is not None
    yield made
    put_away(made)


def of(sheet) -> Progress:
    """What the process of the pool has."""
    return progress.of(sheet.ticket, len(sheet.states))


def test_the_main_process_sees_how_far_it_is(sheet):
    """Each text waits, is begun, and is done."""
    told = of(sheet)
    assert (sheet.steps, sheet.told()) == (0, b"")

    assert told.begin(0)
    told.end(0)
    assert told.begin(1)

    assert list(sheet.told()) == [DONE, BEGUN, WAITING, WAITING]
    assert sheet.steps == 2


def test_what_was_taken_back_cannot_be_begun(sheet):
    """Whoever is at a text ends it, and begins no other."""
    told = of(sheet)
    assert told.begin(0)

    sheet.make_void()

    told.end(0)
    assert not told.begin(1)
    assert list(sheet.told()) == [DONE, WAITING, WAITING, WAITING]


def test_several_are_begun_together_or_none(sheet):
    """Such as the rest of a batch that is to be published again."""
    told = of(sheet)
    assert told.begin(1, 2)
    assert list(sheet.told()) == [WAITING, BEGUN, BEGUN, WAITING]
    sheet.make_void()
    assert not told.begin(2, 3)
    assert list(sheet.told()) == [WAITING, BEGUN, WAITING, WAITING]


def test_what_is_put_off_waits_again(sheet):
    """Until its company is there."""
    told = of(sheet)
    told.begin(0)
    told.put_off(0)
    assert sheet.told()[0] == WAITING
    told.resume(0)
    assert sheet.told()[0] == BEGUN


def test_recipients_are_seen_one_by_one(sheet):
    """Those of the texts that have several; and no more than there is room for."""
    told = of(sheet)
    assert sheet.parts() == {}
    told.begin(1)
    few = told.parts(1, 2)
    assert few.begin(1)
    many = told.parts(3, progress.MOST_PARTS - 2)
    assert many.begin(0)
    assert told.parts(2, 1).begin(0)
    assert sheet.parts() == {1: bytes([WAITING, BEGUN]), 3: bytes([BEGUN, *[WAITING] * (progress.MOST_PARTS - 3)])}
    assert list(sheet.states) == [WAITING, BEGUN, WAITING, WAITING]
    sheet.make_void()
    assert not few.begin(0)
    assert told.parts(2, 1).begin(0)


def test_what_runs_is_told_where_that_is_sure(sheet):
    """One text that is begun, and of one with several recipients the one that is begun."""
    told = of(sheet)
    assert sheet.running() is None  # as of a process that shares no memory

    told.begin(0)
    assert sheet.running() == (0, None)
    told.begin(1)
    assert sheet.running() is None
    told.end(0)
    assert sheet.running() == (1, None)

    parts = told.parts(1, 3)
    assert sheet.running() is None  # between two recipients
    parts.begin(0)
    parts.end(0)
    parts.begin(1)
    assert sheet.running() == (1, 1)
    parts.begin(2)
    assert sheet.running() is None
    parts.share(1)
    told.share(0, 2)
    assert sheet.running() == (1, 2)


def test_a_sheet_that_is_used_again_is_no_good_to_who_had_it_before(monkeypatch):
    """A process that was given up may still be at it."""
    monkeypatch.setattr(progress, "_free", type(progress._free)([1]))
    first = post(2)
    assert first is not None
    late = of(first)
    assert late.begin(0)
    put_away(first)
    second = post(2)
    assert second is not None

    assert not late.begin(1)
    assert of(second).begin(0)
    put_away(second)


def test_a_message_without_a_sheet_is_delivered_all_the_same(monkeypatch):
    """Too many texts, too many messages, nobody who looks."""
    assert post(MOST_TEXTS + 1) is None
    monkeypatch.setattr(progress, "_free", type(progress._free)())
    assert post(2) is None
    told = progress.of(None, 500)
    assert told.begin(499)
    told.end(499)


def test_a_process_that_was_not_forked_notes_it_for_itself(sheet, monkeypatch):
    """It shares no memory with the main process, in which its ticket would look void."""
    monkeypatch.setattr(progress, "_memory", bytearray(len(progress._memory)))
    assert of(sheet).begin(0)


def test_a_forked_process_shares_it(sheet):
    """That is what it is for."""
    pid = os.fork()
    if pid == 0:
        of(sheet).begin(2)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert list(sheet.told()) == [WAITING, WAITING, BEGUN, WAITING]


@given(st.lists(st.sampled_from(["run", "void", "look"]), max_size=12))
def test_no_text_is_run_and_taken_back(turns):
    """Whatever the order of their steps: what is taken after a pause is never begun, and nothing is forgotten."""
    sheet = post(4)
    assert sheet is not None
    told, ran, at = of(sheet), [], 0
    taken: set[int] = set()
    for turn in turns:
        if turn == "run" and at < 4 and told.begin(at):
            ran.append(at)
            told.end(at)
            at += 1
        elif turn == "void":
            sheet.make_void()
        elif turn == "look" and sheet.is_void:
            taken |= {text for text, state in enumerate(sheet.states) if state == WAITING}
    if sheet.is_void:
        taken |= {text for text, state in enumerate(sheet.states) if state == WAITING}
        assert taken.isdisjoint(ran)
        assert taken.union(ran) == {0, 1, 2, 3}
    put_away(sheet)


def test_two_at_once_never_both():
    """A thread that runs texts as fast as it can, another that takes them back in the middle."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for attempt in range(30):
            sheet = post(MOST_TEXTS)
            assert sheet is not None
            told = of(sheet)
            ran: list[int] = []

            def run(told=told, ran=ran):
                for text in range(MOST_TEXTS):
                    if not told.begin(text):
                        return
                    ran.append(text)
                    told.end(text)

            thread = threading.Thread(target=run)
            thread.start()
            while sheet.steps < attempt:
                pass
            sheet.make_void()
            taken = {text for text, state in enumerate(sheet.states) if state == WAITING}
            thread.join()
            left = {text for text, state in enumerate(sheet.states) if state == WAITING}
            assert left.isdisjoint(ran)
            assert taken <= left
            put_away(sheet)
    finally:
        sys.setswitchinterval(before)


def test_what_is_stopped_is_seen_a_pause_later(sheet, monkeypatch):
    """Counted from when the ticket was made void, not from an earlier moment; a second time nothing is waited for."""
    events: list[object] = []
    clock = SimpleNamespace(monotonic=lambda: 5.0, sleep=events.append)
    monkeypatch.setattr(progress, "time", clock)
    sheet.stop()
    assert sheet.is_void
    assert events == [pytest.approx(progress.PAUSE)]

    clock.monotonic = lambda: 5.0 + 2 * progress.PAUSE
    sheet.stop()
    assert len(events) == 1


def test_two_looks_are_further_apart_than_the_pause():
    """The lookout's time of a look is one from before it made the ticket void."""
    assert stragglers.EVERY > 2 * progress.PAUSE
