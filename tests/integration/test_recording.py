"""The processes of a worker record outcomes over time, long runs and the worker, beside their deliveries."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import DatabaseError, connection
from django.db.models import F, Sum
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from signalbus import Retry, Signal
from signalbus.context import CurrentDelivery, current
from signalbus.events import listen, unlisten
from signalbus.ledger import history
from signalbus.ledger.history import rollups
from signalbus.models import Rollup, RunningDelivery, WorkerRecord
from signalbus.receiving.process.current_runs import CurrentRuns, current_runs
from signalbus.receiving.process.worker_events import worker_name
from signalbus.receiving.recording import recorder
from signalbus.receiving.recording.outcome_counts import outcome_counts
from signalbus.receiving.recording.recorder import Recorder
from signalbus.receiving.recording.worker_description import digest_of, known_receivers
from signalbus.receiving.recording.worker_presence import WorkerPresence
from signalbus.receiving.settling.lost_processes import Loss
from signalbus.receiving.sweeping.sweeper import Sweeper
from signalbus.wire.message import uuid7
from tests.servers import wait_until

from .bus import Bus, connect, fails, new_signal

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKER = {
    "host": "here",
    "pid": 7,
    "pool": "prefork",
    "concurrency": 4,
    "queues": ["email", "signalbus"],
    "version": "0.5",
    "release": "a1b2",
    "registry_digest": "00",
    "receivers": {"shop.paid": ["shop.ship"]},
}
COUNTED = ("done", "failed", "dead", "skipped")


@pytest.fixture
def counting() -> Iterator[None]:
    """Count outcomes, as a worker does."""
    outcome_counts.forget()
    listen(*COUNTED)(outcome_counts.count)  # type: ignore[arg-type]
    yield
    unlisten(outcome_counts.count)
    outcome_counts.forget()


def totals() -> dict[str, int]:
    """Return the sums of all periods."""
    names = (*COUNTED, "runtime_ms", "delay_ms")
    return Rollup.objects.exclude(seconds=0).aggregate(**{name: Sum(name) for name in names})


def add_minute(worker: str, *, done: int = 1, release: str = "a1b2", receiver: str = "ship") -> None:
    """Add the counts of a process."""
    counts = history.Counts()
    counts.done = counts.runtimes[2] = counts.delays[10] = done
    counts.runtime, counts.delay = 0.01 * done, 0.2 * done
    history.add_counts({history.Series(release, "", "shop.paid", receiver): counts}, worker=worker)


def grow_older(**age: float) -> None:
    """Let time pass since all that was counted."""
    Rollup.objects.update(bucket_at=F("bucket_at") - timedelta(**age))


def buckets() -> list[tuple[int, str, int]]:
    """Return length, worker and successes of each period's row."""
    return sorted(Rollup.objects.exclude(seconds=0).values_list("seconds", "worker", "done"))


@pytest.mark.usefixtures("counting")
def test_outcomes_are_counted_by_receiver(bus: Bus):
    """A row says how many succeeded, failed and are dead, how long they ran, and how long they had waited."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "fine", queue=None)
    fails(signal, ValueError("bad"), "failing", retry=Retry(max_attempts=2, base_delay=0))
    signal.send(None)
    signal.send(None)
    bus.work()
    bus.come_again()

    assert Recorder()._record_counts()

    fine, failing = Rollup.objects.order_by("-receiver")
    assert (fine.signal, fine.receiver, fine.seconds, fine.worker) == (signal.name, "fine", 60, worker_name())
    assert [getattr(fine, name) for name in COUNTED] == [2, 0, 0, 0]
    assert [getattr(failing, name) for name in COUNTED] == [0, 2, 2, 0]
    assert (sum(fine.runtimes), sum(fine.delays)) == (2, 2)
    assert (sum(failing.runtimes), sum(failing.delays)) == (4, 2)  # a second attempt says nothing of the delay
    assert fine.delay_ms < 60_000
    assert not Recorder()._record_counts()


@pytest.mark.usefixtures("counting")
def test_counts_that_could_not_be_added_are_added_later(bus: Bus, monkeypatch: pytest.MonkeyPatch):
    """An outage of the database loses none of them."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "fine")
    signal.send(None)
    bus.work()

    def away(*arguments: object, **options: object) -> None:
        raise DatabaseError("away")

    with monkeypatch.context() as patch, pytest.raises(DatabaseError):
        patch.setattr(history, "add_counts", away)
        Recorder()._record_counts()
    signal.send(None)
    bus.work()

    assert Recorder()._record_counts()
    assert Rollup.objects.get().done == 2


def test_the_rows_of_a_minute_are_merged_when_all_processes_have_added_theirs(database_url: str):
    """One row of each receiver and release is left."""
    add_minute("w:1")
    add_minute("w:2", done=2)
    add_minute("w:2", receiver="bill")
    add_minute("w:2", release="c3d4")
    history.merge_counts(30 * 86400)
    assert len(buckets()) == 4

    grow_older(minutes=5)
    before = totals()
    history.merge_counts(30 * 86400)

    assert buckets() == [(60, "", 1), (60, "", 1), (60, "", 3)]
    assert totals() == before
    assert sum(Rollup.objects.get(seconds=60, done=3).runtimes) == 3


def ever() -> dict[str, tuple[int, float, int, int]]:
    """Return by receiver what was ever counted."""
    found = history.outcome_totals().items()
    assert {series.release for series, _ in found} <= {""}
    return {
        series.receiver: (counts.done, round(counts.runtime, 3), sum(counts.runtimes), sum(counts.delays))
        for series, counts in found
    }


def test_older_counts_are_coarser_and_no_sum_is_lost(database_url: str, monkeypatch: pytest.MonkeyPatch):
    """Minutes become ten minutes after eight hours, hours after three days; the totals never shrink."""
    monkeypatch.setattr(rollups, "BATCH", 3)
    for release in ("a1b2", "c3d4"):
        for _ in range(5):
            add_minute("w:1", release=release)
            grow_older(minutes=1)
    before = totals()

    expected = {"ship": (10, 0.1, 10, 10)}
    assert ever() == expected
    grow_older(hours=9)
    history.merge_counts(30 * 86400)
    assert {seconds for seconds, _, _ in buckets()} == {600}
    assert ever() == expected
    grow_older(days=4)
    history.merge_counts(30 * 86400)
    assert {seconds for seconds, _, _ in buckets()} == {3600}
    assert totals() == before
    grow_older(days=40)
    history.merge_counts(30 * 86400)
    assert buckets() == []
    assert ever() == expected
    add_minute("w:1")
    assert ever() == {"ship": (11, 0.11, 11, 11)}
    grow_older(days=40)
    for _ in range(4):
        history.merge_counts(30 * 86400)

    assert buckets() == []
    assert ever() == {"ship": (11, 0.11, 11, 11)}
    assert Rollup.objects.count() == 1


def test_two_rows_of_one_total_are_added_up_at_the_next_merge(database_url: str):
    """Two sweepers that merge at the same moment leave a row each; neither is lost."""
    for worker in ("w:1", "w:2"):
        add_minute(worker)
    grow_older(minutes=5)
    history.merge_counts(30 * 86400)
    Rollup.objects.create(bucket_at=timezone.now(), seconds=0, signal="shop.paid", receiver="ship", done=5)
    assert ever()["ship"][0] == 7
    add_minute("w:1")
    grow_older(minutes=5)
    history.merge_counts(30 * 86400)

    assert ever()["ship"][0] == 8
    assert Rollup.objects.filter(seconds=0).count() == 1


def test_a_run_is_noted_while_it_lasts(bus: Bus, signal: Signal, ran: list[Any]):
    """Inside a receiver the process says what it runs; afterwards it runs nothing."""

    def receiver_that_looks(**kwargs: Any) -> None:
        ran.append((current(), current_runs.longer_than(-1)))

    connect(signal, receiver_that_looks)
    signal.send(None)
    bus.work()

    ((delivery, runs),) = ran
    assert [run for run, _ in runs] == [delivery]
    assert current_runs.longer_than(-1) == []


def test_a_run_inside_a_run_ends_alone():
    """As in a test suite that delivers at once, where a receiver sends."""
    runs = CurrentRuns()
    outer, inner = object(), object()
    assert runs.begin(outer) is None  # type: ignore[arg-type]
    former = runs.begin(inner)  # type: ignore[arg-type]
    runs.end(former)
    assert [run for run, _ in runs.longer_than(-1)] == [outer]
    runs.end(None)
    assert runs.longer_than(-1) == []


def test_long_runs_are_recorded_until_they_end(
    bus: Bus, signal: Signal, ran: list[Any], monkeypatch: pytest.MonkeyPatch
):
    """A row says what a process has been running for more than a second, and since when."""
    connect(signal, lambda **kwargs: ran.append(current()), "slow")
    signal.send(None)
    bus.work()
    (delivery,) = ran
    thread = Recorder()
    former = current_runs.begin(delivery)

    assert not thread._record_runs(0.0)
    monkeypatch.setattr(recorder, "LONG_RUN", -1.0)
    assert thread._record_runs(1.0)
    assert not thread._record_runs(2.0)  # nothing new
    row = RunningDelivery.objects.get()
    assert thread._record_runs(7.0)  # it still runs
    current_runs.end(former)
    assert RunningDelivery.objects.get().seen_at > row.seen_at
    assert thread._record_runs(8.0)

    assert (row.delivery, row.message, row.receiver) == (delivery.id, delivery.message_id, "slow")
    assert (row.attempt, row.worker) == (1, worker_name())
    assert RunningDelivery.objects.count() == 0


def test_the_run_of_a_lost_process_is_not_shown_any_more(bus: Bus, ran: list[Any]):
    """The process that settles its attempt deletes the row."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: ran.append(current()), "slow")
    listen("failed", "dead")(recorder.note_lost)
    try:
        signal.send(None)
        ((text,),) = bus.take()
        delivery = CurrentDelivery(
            message_id=uuid7(), signal="s", receiver="slow", attempt=1, root=uuid7(), parent=None, path=()
        )
        for process in ("here:7", "here:8"):
            history.record_running(process, [(delivery, 2.0)])
        assert Loss(text, None, "here:7", "signal 9 (SIGKILL)", lambda: None).is_settled()
    finally:
        unlisten(recorder.note_lost)

    assert Recorder()._record()
    assert [row.worker for row in RunningDelivery.objects.all()] == ["here:8"]
    assert not Recorder()._record()


def test_a_worker_is_recorded_until_it_stops(database_url: str):
    """The row describes the worker; a row that a purge deleted is written again."""
    presence = WorkerPresence(WORKER)
    assert presence.record()
    first = WorkerRecord.objects.get()
    assert {name: getattr(first, name) for name in WORKER} == WORKER
    assert not presence.record()  # ten seconds have not passed

    presence._next_at = 0.0
    with CaptureQueriesContext(connection) as queries:
        assert presence.record()
    assert len(queries) == 1
    assert WorkerRecord.objects.get().seen_at > first.seen_at == first.started_at
    WorkerRecord.objects.all().delete()
    presence._next_at = 0.0
    assert presence.record()
    assert WorkerRecord.objects.count() == 1
    presence.end()

    assert WorkerRecord.objects.count() == 0


@pytest.mark.parametrize("has_sweeper", [True, False])
def test_a_worker_is_recorded_by_its_sweeper_or_without_one_by_the_recorder(database_url: str, has_sweeper: bool):
    """Its row is deleted when that thread stops."""
    presence = WorkerPresence(WORKER)
    thread = Sweeper(0.05, presence=presence) if has_sweeper else Recorder(presence)
    thread.start()
    wait_until(WorkerRecord.objects.exists, what="the worker's row")
    thread.stop()
    wait_until(lambda: not WorkerRecord.objects.exists(), what="its end")


def test_a_worker_whose_record_fails_goes_on(
    database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """The outage is logged; the sweep that follows is not disturbed."""
    presence = WorkerPresence(WORKER)

    def away(*arguments: object) -> None:
        raise DatabaseError("away")

    with monkeypatch.context() as patch, caplog.at_level("WARNING", "signalbus"):
        patch.setattr(history, "record_worker", away)
        assert presence.record()
    assert "could not record its worker" in caplog.text
    presence._next_at = 0.0
    assert presence.record()
    assert WorkerRecord.objects.exists()


@pytest.fixture
def recording() -> Iterator[Recorder]:
    """A recorder that has started."""
    thread = Recorder()
    thread.start()
    yield thread
    thread.stop()
    current_runs.wake = outcome_counts.wake = None


def test_a_process_that_runs_nothing_has_no_thread_that_records(
    bus: Bus, signal: Signal, ran: list[Any], recording: Recorder
):
    """The first run starts it."""
    connect(signal, lambda **kwargs: ran.append(recording._thread))
    assert recording._thread is None
    signal.send(None)
    bus.work()

    assert ran == [recording._thread]
    assert recording._thread is not None


@pytest.mark.usefixtures("counting")
def test_the_recorder_sleeps_until_something_begins(bus: Bus, recording: Recorder, monkeypatch: pytest.MonkeyPatch):
    """It records the outcomes of a burst, then waits without an end, and the next run wakes it."""
    monkeypatch.setattr(recorder, "LONG_RUN", 0.01)
    monkeypatch.setattr(recorder, "COUNT_SECONDS", 0.0)
    signal = new_signal(durable=False)
    connect(signal, lambda **kwargs: None, "fine")
    for _ in range(2):
        signal.send(None)
        bus.work()
        wait_until(Rollup.objects.exists, what="the counts")
        Rollup.objects.all().delete()
        wait_until(lambda: current_runs.wake is not None, what="its sleep")
        assert recording._seconds_left() is None


def test_a_worker_that_starts_again_under_its_name_replaces_its_row(database_url: str):
    """As in a container, whose main process has the same number each time."""
    history.record_worker("here:1", WORKER)
    history.record_worker("here:1", {**WORKER, "release": "c3d4"})

    assert WorkerRecord.objects.get().release == "c3d4"


def test_lost_workers_and_what_they_ran_are_forgotten(bus: Bus, signal: Signal, ran: list[Any]):
    """A process that was killed does not delete its rows itself."""
    connect(signal, lambda **kwargs: ran.append(current()), "slow")
    signal.send(None)
    bus.work()
    history.record_running("here:7", [(ran[0], 2.0)])
    history.record_worker("here:1", WORKER)
    history.forget_stale_workers()
    assert (RunningDelivery.objects.count(), WorkerRecord.objects.count()) == (1, 1)

    for model in (RunningDelivery, WorkerRecord):
        model.objects.update(seen_at=F("seen_at") - timedelta(days=2))
    history.forget_stale_workers()

    assert (RunningDelivery.objects.count(), WorkerRecord.objects.count()) == (0, 0)


def test_workers_that_know_other_receivers_have_another_digest():
    """The digest shows that one of them runs other code."""
    signal = new_signal()
    connect(signal, lambda **kwargs: None, f"tests.digest.{uuid7()}")
    one = known_receivers()
    connect(signal, lambda **kwargs: None, f"tests.digest.{uuid7()}")
    two = known_receivers()

    assert digest_of(one) != digest_of(two)
    assert digest_of(two) == digest_of(known_receivers())
    assert len(two[signal.name]) == 2
