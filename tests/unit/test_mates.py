"""Who shares a message with a text that hangs is taken back, once, and nobody else is."""

from __future__ import annotations

import gc

import pytest

from signalbus.core.runtime_estimate import Pace
from signalbus.receiving.worker.stragglers import AGAIN, BRIEFLY, EVERY, PATIENCE, STANDS, Lookout
from signalbus.transport import batching, progress
from signalbus.transport.progress import BEGUN, DONE, PAUSE, SHARED, WAITING

TEXTS = ["a", "b", "c"]


class Message:
    """One that notes what is given back."""

    def __init__(self) -> None:
        self.given: list[list[int]] = []
        self.asked = 0
        self.broker_answers = True
        self.place_is_free = False
        self.acknowledged = False

    def is_waited_for(self) -> bool:
        """Whether another could begin what waits."""
        return self.place_is_free

    def give_back(self, states) -> bool:
        """Note it, if the broker answers."""
        self.asked += 1
        if self.broker_answers:
            self.given.append(list(states))
        return self.broker_answers


@pytest.fixture
def lookout():
    """One that is asked to look, and does nothing by itself."""
    return Lookout()


@pytest.fixture
def message():
    """One that a worker holds."""
    return Message()


@pytest.fixture
def sheet(lookout, message):
    """That of the message, whose first text has begun when it was last looked at."""
    sheet = lookout.watch(message, TEXTS, "q")
    assert progress.of(sheet.ticket, 3).begin(0)
    lookout.look(0.0)
    return sheet


@pytest.fixture(autouse=True)
def pace(monkeypatch):
    """Nothing was seen yet."""
    pace = Pace()
    monkeypatch.setattr(batching, "pace", pace)
    return pace


def test_recipients_of_a_lone_text_wait_behind_one_that_hangs(lookout, message, caplog):
    """As texts do: for a second, or for 20 ms beside a free place."""
    for place_is_free in (False, True):
        sheet = lookout.watch(message, ["a"], "q")
        told = progress.of(sheet.ticket, 1)
        assert told.begin(0)
        recipients = told.parts(0, 3)
        assert recipients.begin(0)
        recipients.end(0)
        assert recipients.begin(1)
        message.place_is_free = place_is_free
        looks = (0.0, BRIEFLY) if place_is_free else (0.0, PATIENCE)
        for now in looks:
            assert not sheet.is_void
            assert lookout.look(now)
        assert sheet.is_void
        lookout.look(looks[-1] + 1)
        assert not recipients.begin(2)
    assert len(message.given) == 2
    assert "1 of 3 deliveries have waited" in caplog.text


def test_what_waits_behind_one_that_hangs_is_given_back(lookout, message, sheet, caplog):
    """After its patience, and a pause in which the last beginning is seen; once."""
    lookout.look(PATIENCE)
    assert sheet.is_void
    assert message.given == []

    for seconds in (2, 3, 4):
        lookout.look(PATIENCE + seconds)

    assert message.given == [[BEGUN, WAITING, WAITING]]
    assert "2 of 3 deliveries have waited" in caplog.text


def test_the_one_that_hangs_is_known_as_slow_from_then_on(lookout, sheet, pace):
    """And gets no company; the others are not blamed."""
    lookout.look(PATIENCE)
    assert pace.expected(("q", None)) == PATIENCE


def test_a_message_is_looked_at_seldom_while_nobody_waits(lookout, sheet):
    """Its last text may run for an hour, and what was divided is waited for by nobody."""
    told = progress.of(sheet.ticket, 3)
    assert lookout.look(0.0)
    assert told.begin(1)
    assert lookout.look(0.1)
    told.end(0, 1)
    assert told.begin(2)
    assert not lookout.look(0.2)
    told.put_off(2)
    assert lookout.look(0.3)


def test_a_divided_message_is_looked_at_seldom(lookout, message, sheet):
    """Only to tell of the one that hangs, if it does so for long."""
    message.place_is_free = True
    for now in (BRIEFLY, 2 * BRIEFLY):
        assert lookout.look(now)
    assert not lookout.look(3 * BRIEFLY)
    assert message.given


def test_nobody_waits_for_long_beside_a_free_place(lookout, message, sheet, caplog):
    """And that is nothing to warn of."""
    now = BRIEFLY
    lookout.look(now)
    assert not sheet.is_void  # the others have something to do as well
    for place_is_free in (True, False, True):
        message.place_is_free = place_is_free
        now += STANDS
        lookout.look(now)
    assert not sheet.is_void  # it was free for a moment only, as it is while there is a backlog
    lookout.look(now + STANDS)
    lookout.look(now + STANDS + PAUSE)
    assert message.given == [[BEGUN, WAITING, WAITING]]
    assert sheet.late == ["a"]
    assert sheet.late_since == 0.0
    progress.of(sheet.ticket, 3).end(0)
    lookout.look(PATIENCE)
    assert not caplog.records
    assert not lookout._watched


def test_who_hangs_is_told_of_though_nobody_waits(lookout, message, sheet, pace, caplog):
    """Else the next one like it would get company again, and nobody would look for the reason."""
    message.place_is_free = True
    for look in range(1, 100):
        lookout.look(look * BRIEFLY)
    assert message.given == [[BEGUN, WAITING, WAITING]]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "2 of 3 deliveries would have waited for 1.0 s" in caplog.text
    assert PATIENCE <= pace.expected(("q", None)) < PATIENCE + 2 * BRIEFLY
    assert not lookout._watched


def test_a_batch_whose_texts_take_little_longer_than_that_is_seen(lookout, message):
    """However its steps and the looks fall."""
    message.place_is_free = True
    sheet = lookout.watch(message, [str(number) for number in range(100)], "q")
    told = progress.of(sheet.ticket, 100)
    now, begun, late = 0.0, 0, 0.0011  # seconds that the machine takes longer to sleep
    while not sheet.is_void and begun < 5:
        if now >= begun * 0.028:
            assert told.begin(begun)
            begun += 1
        lookout.look(now)
        now += EVERY + late
    assert sheet.is_void


def test_what_shares_a_transaction_with_it_would_wait_elsewhere_too(lookout, message, sheet):
    """It has locked their rows."""
    message.place_is_free = True
    progress.of(sheet.ticket, 3).share(1)
    lookout.look(PATIENCE / 2)
    assert not sheet.is_void
    lookout.look(PATIENCE)
    lookout.look(PATIENCE + 1)
    assert message.given == [[BEGUN, SHARED, WAITING]]


def test_who_makes_steps_is_left_alone(lookout, message, sheet):
    """However long it takes in all."""
    told = progress.of(sheet.ticket, 3)
    for second in range(1, 3):
        told.end(second - 1)
        assert told.begin(second)
        lookout.look(PATIENCE * second)
    lookout.look(100.0)

    assert not sheet.is_void
    assert message.given == []


def test_the_last_one_may_take_its_time(lookout, message, sheet):
    """Nobody waits behind it."""
    assert progress.of(sheet.ticket, 3).begin(1, 2)
    lookout.look(0.0)
    lookout.look(100.0)
    assert not sheet.is_void


def test_nothing_is_taken_that_nobody_has_begun(lookout, message):
    """It waits for a rate limit, or its process was not forked, and cannot tell what it has begun."""
    sheet = lookout.watch(message, TEXTS, "q")
    for seconds in (1, 2, 3):
        lookout.look(1e9 + seconds)
    assert not sheet.is_void
    assert message.given == []


def test_it_is_tried_again_when_the_broker_was_away(lookout, message, sheet):
    """Nobody can begin it any more, so somebody has to get it."""
    message.broker_answers = False
    lookout.look(PATIENCE)
    lookout.look(PATIENCE + 1)
    message.broker_answers = True
    lookout.look(PATIENCE + 2)
    lookout.look(PATIENCE + 3)
    assert message.given == [[BEGUN, WAITING, WAITING]]


def test_a_broker_that_is_away_is_not_asked_at_each_look(lookout, message, sheet):
    """It may be about to start, with all workers waiting for it."""
    message.broker_answers = False
    for look in range(round(1 / EVERY)):
        lookout.look(PATIENCE + look * EVERY)
    assert 3 <= message.asked <= 1 / AGAIN
    assert sheet.is_void


def test_nobody_is_kept_for_its_sheet(lookout, sheet):
    """It is free again as soon as Celery has forgotten the message, however that ended."""
    free = len(progress._free)
    gone = Message()
    kept = lookout.watch(gone, TEXTS, "q")
    assert len(progress._free) == free - 1
    del gone
    gc.collect()
    assert len(progress._free) == free
    assert kept.is_void
    assert len(lookout._watched) == 1


def test_what_is_done_is_not_given_back(lookout, message, sheet):
    """Only what waits is."""
    told = progress.of(sheet.ticket, 3)
    told.end(0)
    told.begin(1)
    lookout.look(0.0)
    lookout.look(PATIENCE)
    lookout.look(PATIENCE + 1)
    assert message.given == [[DONE, BEGUN, WAITING]]


def test_what_has_ended_is_not_looked_after(lookout, message, sheet):
    """Celery holds the last message until the next one comes: else an idle worker would look on for ever."""
    lookout.look(0.0)
    assert lookout._watched
    message.acknowledged = True
    lookout.look(PATIENCE)
    assert not lookout._watched
    assert not sheet.is_void


def test_garbage_that_is_collected_while_it_looks_ends_nobody(lookout):
    """A message in a cycle, as in a traceback, is let go whenever Python likes."""
    kept, gone = [Message() for _ in range(300)], [Message() for _ in range(300)]
    for message in (*kept, *gone):
        lookout.watch(message, TEXTS, "q")
    for message in gone:
        vars(message)["itself"] = message
    thresholds = gc.get_threshold()
    del message
    gone.clear()
    try:
        gc.set_threshold(gc.get_count()[0] + 150)  # in the middle, on a Python that collects at once
        lookout.look(0.0)
    finally:
        gc.set_threshold(*thresholds)
    assert len(kept) <= len(lookout._watched)


def test_it_sleeps_while_there_is_nothing_to_look_after():
    """And wakes up for what comes."""
    lookout = Lookout(patience=0.0)
    message = Message()
    lookout.start()
    sheet = lookout.watch(message, TEXTS, "q")
    assert sheet is not None
    progress.of(sheet.ticket, 3).begin(0)
    from tests.servers import wait_until

    wait_until(lambda: message.given, what="the lookout to give back what waits")
    wait_until(lambda: not lookout._any.is_set(), what="the lookout to sleep")
