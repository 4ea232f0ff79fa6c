"""The straggler watchdog requeues the messages that wait behind a hanging text, once, and no others."""

from __future__ import annotations

import gc

import pytest

from signalbus.core.runtime_estimate import RuntimeEstimates
from signalbus.receiving.worker.stragglers import AGAIN, BRIEFLY, EVERY, FREE_FOR, PATIENCE, StragglerWatchdog
from signalbus.transport import batching, progress
from signalbus.transport.progress import BEGUN, DONE, PAUSE, SHARED, WAITING

TEXTS = ["a", "b", "c"]


class Message:
    """A message that records what is requeued."""

    def __init__(self) -> None:
        self.given: list[list[int]] = []
        self.asked = 0
        self.broker_answers = True
        self.place_is_free = False
        self.acknowledged = False

    def is_waited_for(self) -> bool:
        """Return whether another process could begin the waiting texts."""
        return self.place_is_free

    def requeue_free(self, states) -> bool:
        """Record it, if the broker answers."""
        self.asked += 1
        if self.broker_answers:
            self.given.append(list(states))
        return self.broker_answers


@pytest.fixture
def watchdog():
    """A watchdog that looks only when the test asks it."""
    return StragglerWatchdog()


@pytest.fixture
def message():
    """A message that a worker has claimed."""
    return Message()


@pytest.fixture
def sheet(watchdog, message):
    """The progress of the message, whose first text had begun at the last look."""
    sheet = watchdog.watch(message, TEXTS, "q")
    assert progress.of(sheet.ticket, 3).begin(0)
    watchdog.look(0.0)
    return sheet


@pytest.fixture(autouse=True)
def runtimes(monkeypatch):
    """A runtime estimate without any observation."""
    runtimes = RuntimeEstimates()
    monkeypatch.setattr(batching, "estimates", runtimes)
    return runtimes


def test_recipients_behind_a_straggler_are_requeued(watchdog, message, caplog):
    """They wait as texts do: for a second, or for 20 ms beside a free process."""
    for place_is_free in (False, True):
        sheet = watchdog.watch(message, ["a"], "q")
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
            assert watchdog.look(now)
        assert sheet.is_void
        watchdog.look(looks[-1] + 1)
        assert not recipients.begin(2)
    assert len(message.given) == 2
    assert "1 of 3 deliveries have waited" in caplog.text


def test_texts_behind_a_straggler_are_requeued_once(watchdog, message, sheet, caplog):
    """They are after the patience, and a pause in which a last beginning becomes visible."""
    watchdog.look(PATIENCE)
    assert sheet.is_void
    assert message.given == []

    for seconds in (2, 3, 4):
        watchdog.look(PATIENCE + seconds)

    assert message.given == [[BEGUN, WAITING, WAITING]]
    assert "2 of 3 deliveries have waited" in caplog.text


def test_the_estimate_of_a_straggler_becomes_slow(watchdog, sheet, runtimes):
    """It runs alone from then on; the estimates of the others do not change."""
    watchdog.look(PATIENCE)
    assert runtimes.expected(("q", None)) == PATIENCE


def test_a_message_with_nothing_waiting_is_checked_seldom(watchdog, sheet):
    """Its last text may run for an hour."""
    told = progress.of(sheet.ticket, 3)
    assert watchdog.look(0.0)
    assert told.begin(1)
    assert watchdog.look(0.1)
    told.end(0, 1)
    assert told.begin(2)
    assert not watchdog.look(0.2)
    told.put_off(2)
    assert watchdog.look(0.3)


def test_a_divided_message_is_checked_seldom(watchdog, message, sheet):
    """The check is only for the warning about a straggler."""
    message.place_is_free = True
    for now in (BRIEFLY, 2 * BRIEFLY):
        assert watchdog.look(now)
    assert not watchdog.look(3 * BRIEFLY)
    assert message.given


def test_texts_wait_only_briefly_beside_a_free_process(watchdog, message, sheet, caplog):
    """This is not worth a warning."""
    now = BRIEFLY
    watchdog.look(now)
    assert not sheet.is_void  # the others have something to do as well
    for place_is_free in (True, False, True):
        message.place_is_free = place_is_free
        now += FREE_FOR
        watchdog.look(now)
    assert not sheet.is_void  # it was free for a moment only, as it is while there is a backlog
    watchdog.look(now + FREE_FOR)
    watchdog.look(now + FREE_FOR + PAUSE)
    assert message.given == [[BEGUN, WAITING, WAITING]]
    assert sheet.late == ["a"]
    assert sheet.late_since == 0.0
    progress.of(sheet.ticket, 3).end(0)
    watchdog.look(PATIENCE)
    assert not caplog.records
    assert not watchdog._watched


def test_a_straggler_with_nothing_waiting_is_logged_and_estimated(watchdog, message, sheet, runtimes, caplog):
    """Otherwise the next one would be batched again."""
    message.place_is_free = True
    for look in range(1, 100):
        watchdog.look(look * BRIEFLY)
    assert message.given == [[BEGUN, WAITING, WAITING]]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "2 of 3 deliveries would have waited for 1.0 s" in caplog.text
    assert PATIENCE <= runtimes.expected(("q", None)) < PATIENCE + 2 * BRIEFLY
    assert not watchdog._watched


def test_a_batch_just_over_the_limit_is_noticed(watchdog, message):
    """This holds for any phase of its progress and the checks."""
    message.place_is_free = True
    sheet = watchdog.watch(message, [str(number) for number in range(100)], "q")
    told = progress.of(sheet.ticket, 100)
    now, begun, late = 0.0, 0, 0.0011  # seconds that the machine takes longer to sleep
    while not sheet.is_void and begun < 5:
        if now >= begun * 0.028:
            assert told.begin(begun)
            begun += 1
        watchdog.look(now)
        now += EVERY + late
    assert sheet.is_void


def test_deliveries_in_the_stragglers_transaction_are_not_requeued_early(watchdog, message, sheet):
    """The straggler has locked their rows."""
    message.place_is_free = True
    progress.of(sheet.ticket, 3).share(1)
    watchdog.look(PATIENCE / 2)
    assert not sheet.is_void
    watchdog.look(PATIENCE)
    watchdog.look(PATIENCE + 1)
    assert message.given == [[BEGUN, SHARED, WAITING]]


def test_a_message_that_makes_progress_is_not_divided(watchdog, message, sheet):
    """Its total time does not matter."""
    told = progress.of(sheet.ticket, 3)
    for second in range(1, 3):
        told.end(second - 1)
        assert told.begin(second)
        watchdog.look(PATIENCE * second)
    watchdog.look(100.0)

    assert not sheet.is_void
    assert message.given == []


def test_the_last_text_may_take_long(watchdog, message, sheet):
    """No text waits behind it."""
    assert progress.of(sheet.ticket, 3).begin(1, 2)
    watchdog.look(0.0)
    watchdog.look(100.0)
    assert not sheet.is_void


def test_a_message_without_a_begun_text_is_not_divided(watchdog, message):
    """It waits for a rate limit, or its process was not forked and shares no memory."""
    sheet = watchdog.watch(message, TEXTS, "q")
    for seconds in (1, 2, 3):
        watchdog.look(1e9 + seconds)
    assert not sheet.is_void
    assert message.given == []


def test_requeueing_is_repeated_after_an_outage(watchdog, message, sheet):
    """No process can begin the texts any more, so they must be requeued."""
    message.broker_answers = False
    watchdog.look(PATIENCE)
    watchdog.look(PATIENCE + 1)
    message.broker_answers = True
    watchdog.look(PATIENCE + 2)
    watchdog.look(PATIENCE + 3)
    assert message.given == [[BEGUN, WAITING, WAITING]]


def test_an_absent_broker_is_not_asked_at_each_check(watchdog, message, sheet):
    """All workers wait for it while it starts."""
    message.broker_answers = False
    for look in range(round(1 / EVERY)):
        watchdog.look(PATIENCE + look * EVERY)
    assert 3 <= message.asked <= 1 / AGAIN
    assert sheet.is_void


def test_a_message_is_not_kept_alive(watchdog, sheet):
    """Its progress is free again as soon as Celery has forgotten the message."""
    free = len(progress._free)
    gone = Message()
    kept = watchdog.watch(gone, TEXTS, "q")
    assert len(progress._free) == free - 1
    del gone
    gc.collect()
    assert len(progress._free) == free
    assert kept.is_void
    assert len(watchdog._watched) == 1


def test_done_texts_are_not_requeued(watchdog, message, sheet):
    """Only waiting texts are."""
    told = progress.of(sheet.ticket, 3)
    told.end(0)
    told.begin(1)
    watchdog.look(0.0)
    watchdog.look(PATIENCE)
    watchdog.look(PATIENCE + 1)
    assert message.given == [[DONE, BEGUN, WAITING]]


def test_an_ended_message_is_not_watched(watchdog, message, sheet):
    """Celery keeps the last message, so an idle worker would watch it for ever."""
    watchdog.look(0.0)
    assert watchdog._watched
    message.acknowledged = True
    watchdog.look(PATIENCE)
    assert not watchdog._watched
    assert not sheet.is_void


def test_a_collection_during_a_check_does_no_harm(watchdog):
    """Python may collect a message in a cycle at any moment."""
    kept, gone = [Message() for _ in range(300)], [Message() for _ in range(300)]
    for message in (*kept, *gone):
        watchdog.watch(message, TEXTS, "q")
    for message in gone:
        vars(message)["itself"] = message
    thresholds = gc.get_threshold()
    del message
    gone.clear()
    try:
        gc.set_threshold(gc.get_count()[0] + 150)  # in the middle, on a Python that collects at once
        watchdog.look(0.0)
    finally:
        gc.set_threshold(*thresholds)
    assert len(kept) <= len(watchdog._watched)


def test_the_watchdog_sleeps_without_messages():
    """It wakes for a new message."""
    watchdog = StragglerWatchdog(patience=0.0)
    message = Message()
    watchdog.start()
    sheet = watchdog.watch(message, TEXTS, "q")
    assert sheet is not None
    progress.of(sheet.ticket, 3).begin(0)
    from tests.servers import wait_until

    wait_until(lambda: message.given, what="the watchdog to requeue the waiting texts")
    wait_until(lambda: not watchdog._any.is_set(), what="the watchdog to sleep")
