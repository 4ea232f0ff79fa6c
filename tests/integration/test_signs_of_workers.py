"""When a worker of a queue was last at work: told by the ledger without a look at all deliveries."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from signalbus.ledger import history, operations
from signalbus.ledger.base.clock import Now, clock_of
from signalbus.ledger.history import Counts, Series, rollups
from signalbus.ledger.operations import backlog
from signalbus.models import Delivery, QueueState, Rollup, RunningDelivery, State, StoredMessage
from signalbus.services.actors import code_actor
from signalbus.services.changes import pausing
from signalbus.wire.message import uuid7

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

pytestmark = pytest.mark.usefixtures("database_url")

MINUTE = timedelta(minutes=1)


def ago(minutes: float) -> datetime:
    """Return a time of the database's clock, in whole milliseconds."""
    moment = clock_of("default") - minutes * MINUTE
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def new_delivery(queue: str, state: State, **columns: Any) -> UUID:
    """Insert a delivery that was sent an hour ago."""
    message = StoredMessage.objects.create(id=uuid7(), signal="shop.paid", text="{}", created_at=ago(60))
    times = {"created_at": ago(60), "due_at": ago(60)}
    row = Delivery(id=uuid7(), message=message, receiver="ship", queue=queue, state=state, **{**times, **columns})
    row.save(force_insert=True)
    return row.id


def seen(queue: str) -> datetime | None:
    """Return when a worker of a queue was last at work."""
    found = operations.backlogs().get(queue)
    return None if found is None else found.seen_at


def count(queue: str, at: datetime, *, worker: str = "host:1", **counts: Any) -> None:
    """Write what a process has counted in a minute."""
    Rollup.objects.create(
        bucket_at=at, seconds=60, worker=worker, queue=queue, signal="shop.paid", receiver="ship", **counts
    )


def test_no_statement_reads_all_deliveries(monkeypatch: pytest.MonkeyPatch):
    """Each statement about deliveries names a state, ids, or the newest ends; they are eight, whatever there is."""
    monkeypatch.setattr(backlog, "NEWEST", 3)
    new_delivery("mail", State.PUBLISHED)
    for minutes in range(20, 9, -1):
        new_delivery("mail", State.DONE, started_at=ago(minutes), ended_at=ago(minutes))
    RunningDelivery.objects.create(
        worker="host:1", delivery=uuid7(), message=uuid7(), signal="shop.paid", receiver="ship", attempt=1,
        started_at=Now(), seen_at=Now(),
    )  # fmt: skip
    with CaptureQueriesContext(connection) as asked:
        operations.backlogs()
    statements = [query["sql"].replace('"', "").replace("`", "") for query in asked]
    assert len(statements) == 8
    about = [sql.partition("WHERE")[2] for sql in statements if "FROM signalbus_delivery" in sql]
    assert len(about) == 5
    bounds = ("delivery.state = ", "delivery.id IN", "ended_at IS NOT NULL ORDER BY", "ended_at > ")
    assert all(any(bound in where for bound in bounds) for where in about), about


def test_without_workers_it_is_one_statement():
    """As the doctor asks, who hears of workers from the broker."""
    new_delivery("mail", State.PUBLISHED)
    with CaptureQueriesContext(connection) as asked:
        found = operations.backlogs(finds_workers=False)
    assert len(asked) == 1
    assert (found["mail"].waiting, found["mail"].seen_at) == (1, None)


def test_a_queue_that_no_worker_ever_consumed_has_no_sign():
    """What was discarded before it began is no sign either."""
    new_delivery("mail", State.PUBLISHED)
    new_delivery("mail", State.DISCARDED, ended_at=ago(1))
    count("mail", ago(2), failed=1)  # by a process that settled the attempt of a lost one
    assert seen("mail") is None


def test_workers_that_count_nothing_are_seen_by_what_they_ended():
    """As those of 0.4, and all before the first count after an upgrade."""
    new_delivery("mail", State.DONE, started_at=ago(5), ended_at=ago(4))
    new_delivery("mail", State.DEAD, started_at=ago(3), ended_at=ago(2))
    new_delivery("", State.DONE, started_at=ago(9), ended_at=ago(9))
    found = operations.backlogs()
    assert found["mail"].seen_at == Delivery.objects.get(state=State.DEAD).started_at
    assert found[""].seen_at == Delivery.objects.get(queue="").started_at


def test_a_claim_is_a_sign():
    """A delivery that is not atomic says when it began."""
    claimed = new_delivery("mail", State.RUNNING, started_at=ago(5))
    assert seen("mail") == Delivery.objects.get(id=claimed).started_at


def test_an_atomic_delivery_that_runs_for_long_is_a_sign():
    """Its claim is not committed before its end; its process has recorded that it runs."""
    id_ = new_delivery("mail", State.PUBLISHED)
    RunningDelivery.objects.create(
        worker="host:1", delivery=id_, message=uuid7(), signal="shop.paid", receiver="ship", attempt=1,
        started_at=ago(40), seen_at=ago(1),
    )  # fmt: skip
    assert seen("mail") == RunningDelivery.objects.get().seen_at


def test_a_marker_that_came_back_is_a_sign():
    """Workers of every version return markers."""
    QueueState.objects.create(queue="mail", seen_at=ago(3))
    assert seen("mail") == QueueState.objects.get().seen_at


def test_a_quiet_queue_is_seen_by_what_was_counted(monkeypatch: pytest.MonkeyPatch):
    """The newest deliveries are all of a busier queue, and the counts are not merged yet."""
    monkeypatch.setattr(backlog, "NEWEST", 2)
    new_delivery("mail", State.DONE, started_at=ago(50), ended_at=ago(50))
    for minutes in (3, 2, 1):
        new_delivery("busy", State.DONE, started_at=ago(minutes), ended_at=ago(minutes))
    assert seen("mail") is None
    count("mail", ago(51), done=1)
    count("mail", ago(50), failed=1, runtime_ms=7)
    count("mail", ago(40), failed=1)
    assert seen("mail") == Rollup.objects.get(runtime_ms=7).bucket_at


@pytest.mark.parametrize("keep", [0.0, 30 * 86400.0])
def test_a_total_keeps_the_last_minute_in_which_a_receiver_ran(keep: float):
    """Also once the periods are deleted, and if the last that was counted is of a lost process."""
    worked = ago(3 * 1440)
    count("mail", ago(4 * 1440), done=2)
    count("mail", worked, done=1)
    count("mail", ago(2 * 1440), dead=1)
    count("other", ago(1440), done=1)
    for _ in range(2):
        history.merge_counts(keep)
    assert seen("mail") == worked
    count("mail", ago(1440), dead=1)
    history.merge_counts(keep)
    assert seen("mail") == worked
    assert Rollup.objects.get(seconds=rollups.TOTAL, queue="mail").dead == 2


def test_a_count_of_now_is_a_sign():
    """As a process adds it, before a sweeper has merged it."""
    history.add_counts({Series("", "mail", "shop.paid", "ship"): Counts(done=1)}, worker="host:1")
    assert seen("mail") == Rollup.objects.get().bucket_at


def test_a_queue_of_open_deliveries_alone_can_be_paused():
    """This process and the counts do not know it; what is not in the ledger at all is a mistake."""
    new_delivery("mail", State.PUBLISHED)
    assert pausing.pause("queue", "mail", actor=code_actor())
    with pytest.raises(pausing.UnknownName, match="knows a queue 'mial'"):
        pausing.pause("queue", "mial", actor=code_actor())


def test_a_queue_whose_deliveries_are_over_can_be_paused():
    """Its counts know it; a name that is like it is told."""
    count("mail", ago(50), done=1)
    with pytest.raises(pausing.UnknownName, match="Did you mean 'mail'"):
        pausing.pause("queue", "mial", actor=code_actor())
    assert pausing.pause("queue", "mail", actor=code_actor())
