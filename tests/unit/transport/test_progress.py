"""Progress: a text is either begun by a child, or requeued by the main process, never both."""

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
from signalbus.transport.progress import BEGUN, DONE, MOST_TEXTS, WAITING, Progress, post, release


@pytest.fixture
def sheet():
    """The progress of a message of four texts."""
    made = post(4)
    assert made is not None
    yield made
    release(made)


def of(sheet) -> Progress:
    """Return the child's side."""
    return progress.of(sheet.ticket, len(sheet.states))


def test_the_main_process_sees_the_progress(sheet):
    """Each text waits, has begun, and is done."""
    told = of(sheet)
    assert (sheet.steps, sheet.reported_states()) == (0, b"")

    assert told.begin(0)
    told.end(0)
    assert told.begin(1)

    assert list(sheet.reported_states()) == [DONE, BEGUN, WAITING, WAITING]
    assert sheet.steps == 2


def test_a_requeued_text_cannot_begin(sheet):
    """A child ends its present text, and begins no other."""
    told = of(sheet)
    assert told.begin(0)

    sheet.make_void()

    told.end(0)
    assert not told.begin(1)
    assert list(sheet.reported_states()) == [DONE, WAITING, WAITING, WAITING]


def test_several_texts_begin_together_or_not_at_all(sheet):
    """The rest of a batch that is published again is an example."""
    told = of(sheet)
    assert told.begin(1, 2)
    assert list(sheet.reported_states()) == [WAITING, BEGUN, BEGUN, WAITING]
    sheet.make_void()
    assert not told.begin(2, 3)
    assert list(sheet.reported_states()) == [WAITING, BEGUN, WAITING, WAITING]


def test_a_postponed_text_waits_again(sheet):
    """It waits for its group."""
    told = of(sheet)
    told.begin(0)
    told.put_off(0)
    assert sheet.reported_states()[0] == WAITING
    told.resume(0)
    assert sheet.reported_states()[0] == BEGUN


def test_recipients_have_their_own_progress(sheet):
    """This holds for texts with several recipients, up to the size of the memory."""
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


def test_the_running_text_is_known_if_it_is_certain(sheet):
    """One text has begun, or one recipient of it."""
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


def test_a_reused_ticket_is_void_for_its_former_process(monkeypatch):
    """That process may still run."""
    monkeypatch.setattr(progress, "_free", type(progress._free)([1]))
    first = post(2)
    assert first is not None
    late = of(first)
    assert late.begin(0)
    release(first)
    second = post(2)
    assert second is not None

    assert not late.begin(1)
    assert of(second).begin(0)
    release(second)


def test_a_message_without_progress_is_delivered(monkeypatch):
    """It has too many texts, there are too many messages, or no watchdog looks."""
    assert post(MOST_TEXTS + 1) is None
    monkeypatch.setattr(progress, "_free", type(progress._free)())
    assert post(2) is None
    told = progress.of(None, 500)
    assert told.begin(499)
    told.end(499)


def test_a_spawned_process_keeps_progress_for_itself(sheet, monkeypatch):
    """It shares no memory with the main process, in which its ticket would be void."""
    monkeypatch.setattr(progress, "_memory", bytearray(len(progress._memory)))
    assert of(sheet).begin(0)


def test_a_forked_process_shares_its_progress(sheet):
    """The main process sees it."""
    pid = os.fork()
    if pid == 0:
        of(sheet).begin(2)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert list(sheet.reported_states()) == [WAITING, WAITING, BEGUN, WAITING]


@given(st.lists(st.sampled_from(["run", "void", "look"]), max_size=12))
def test_no_text_runs_and_is_requeued(turns):
    """In any order of steps, a requeued text never begins after the pause, and no text is forgotten."""
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
    release(sheet)


def test_two_threads_never_run_and_requeue_one_text():
    """One runs texts as fast as it can, the other requeues them."""
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
            release(sheet)
    finally:
        sys.setswitchinterval(before)


def test_a_stopped_message_is_read_a_pause_later(sheet, monkeypatch):
    """The pause begins when the ticket was made void; a second stop does not wait."""
    events: list[object] = []
    clock = SimpleNamespace(monotonic=lambda: 5.0, sleep=events.append)
    monkeypatch.setattr(progress, "time", clock)
    sheet.stop()
    assert sheet.is_void
    assert events == [pytest.approx(progress.PAUSE)]

    clock.monotonic = lambda: 5.0 + 2 * progress.PAUSE
    sheet.stop()
    assert len(events) == 1


def test_two_checks_are_further_apart_than_the_pause():
    """The time of a check is before the ticket was made void."""
    assert stragglers.EVERY > 2 * progress.PAUSE
