"""Ordering: deliveries of one receiver and one key run one at a time, in the order of the commits."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from signalbus import Retry, Signal
from signalbus.broker import publisher
from signalbus.exceptions import ConfigurationError
from signalbus.ledger import attempts as ledger
from signalbus.ledger.attempts import ordering
from signalbus.models import Delivery, Key
from signalbus.receiving.routing.batch import deliver
from signalbus.receiving.running import sequencing
from signalbus.receiving.sweeping.due_publication import sweep
from tasks.admissions.models import Academy
from tests.servers import wait_until

from .bus import QUEUE, Bus, connect, new_signal, prove_lost, recover, rows

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 30.0  # seconds until a test that hangs is given up


@pytest.fixture
def ordered() -> Signal:
    """A signal ordered by "cohort", without receivers."""
    return new_signal(durable=True, ordered_by="cohort")


@pytest.fixture
def numbers(ordered: Signal) -> list[int]:
    """Connect the signal's receiver, and return the numbers that it gets."""
    told: list[int] = []

    def note(number: int, **kwargs: Any) -> None:
        told.append(number)

    connect(ordered, note, "note")
    return told


def send(signal: Signal, *numbers: int, cohort: object = "a") -> None:
    for number in numbers:
        signal.send(None, cohort=cohort, number=number)


def texts(bus: Bus) -> list[str]:
    """Take all texts out of the queue, in order."""
    return [text for taken in bus.take() for text in taken]


def elsewhere(work: Callable[[], object]) -> threading.Thread:
    """Begin a call on another connection, as another process would."""

    def run() -> None:
        try:
            work()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def ended(*threads: threading.Thread) -> bool:
    for thread in threads:
        thread.join(PATIENCE)
    return not any(thread.is_alive() for thread in threads)


def positions() -> list[tuple[str, int]]:
    """Return (receiver, position) in the order of positions, the first of which is 0."""
    found = list(Delivery.objects.order_by("position", "receiver").values_list("receiver", "position"))
    return [(receiver, position - found[0][1]) for receiver, position in found]


# Places


def test_each_message_takes_the_next_position_of_its_key(bus: Bus, ordered: Signal):
    """All deliveries of a message have one position, whatever their queues."""
    connect(ordered, lambda **kwargs: None, "tag")
    connect(ordered, lambda **kwargs: None, "mail", queue="email")

    send(ordered, 1, 2)

    assert positions() == [("mail", 0), ("tag", 0), ("mail", 1), ("tag", 1)]


def test_a_send_many_keeps_its_own_order(bus: Bus, ordered: Signal, numbers: list[int]):
    """Messages of many keys have positions in the order of the payloads."""
    ordered.send_many(None, [{"cohort": number % 300, "number": number} for number in range(900)])

    order = Delivery.objects.order_by("ordering_key", "position").values_list("ordering_key", "message_id")
    by_key: dict[str, list[Any]] = {}
    for key, message in order:
        by_key.setdefault(key, []).append(message)
    assert len(by_key) == 300
    assert all(messages == sorted(messages) for messages in by_key.values())  # ids are in the order of time


def test_without_a_key_there_is_no_order(bus: Bus, ordered: Signal, numbers: list[int]):
    """A message whose key is None has no position, and waits for no other."""
    send(ordered, 1, 2, cohort=None)
    first, second = texts(bus)

    deliver([second], queue=QUEUE)
    deliver([first], queue=QUEUE)

    assert numbers == [2, 1]
    assert set(Delivery.objects.values_list("ordering_key", "position")) == {("", 0)}
    assert not Key.objects.exists()


def test_a_rollback_returns_its_positions(bus: Bus, ordered: Signal, numbers: list[int]):
    """The key has its former position."""
    send(ordered, 1)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        send(ordered, 2)
        raise ZeroDivisionError
    send(ordered, 3)

    assert positions() == [("note", 0), ("note", 1)]


def test_positions_are_in_the_order_of_the_commits(bus: Bus, ordered: Signal, numbers: list[int]):
    """A sender waits for the end of another transaction that has sent for the key."""
    begun = threading.Event()

    def send_too() -> None:
        begun.set()
        with transaction.atomic():
            send(ordered, 2)

    with transaction.atomic():
        send(ordered, 1)
        other = elsewhere(send_too)
        assert begun.wait(PATIENCE)
        if connection.vendor == "postgresql":
            wait_until(somebody_waits, what="the other sender to wait for the lock")
        assert Delivery.objects.count() == 1
    assert ended(other)

    bus.work()
    assert numbers == [1, 2]


def somebody_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])


@pytest.mark.parametrize("database", ["postgres"])
def test_other_keys_do_not_wait(bus: Bus, ordered: Signal, numbers: list[int]):
    """A transaction that has sent for one key does not hold up senders of another, or of none."""
    with transaction.atomic():
        send(ordered, 1)
        others = [elsewhere(partial(send, ordered, 2, cohort=cohort)) for cohort in ("b", None)]
        assert ended(*others)


@pytest.mark.parametrize("database", ["postgres"])
def test_two_send_many_for_the_same_keys_do_not_deadlock(bus: Bus, ordered: Signal, numbers: list[int]):
    """Keys are taken in one order, whatever the order of the payloads."""
    cohorts = list(range(40))
    start = threading.Barrier(2)

    def send_all(payloads: list[int]) -> None:
        start.wait(PATIENCE)
        for _ in range(5):
            ordered.send_many(None, [{"cohort": cohort, "number": 0} for cohort in payloads])

    both = [elsewhere(lambda: send_all(cohorts)), elsewhere(lambda: send_all(cohorts[::-1]))]

    assert ended(*both)
    assert Delivery.objects.count() == 400


def test_a_purged_key_begins_behind_its_waiting_messages(bus: Bus, ordered: Signal, numbers: list[int]):
    """Messages that still wait come before those that are sent later."""
    send(ordered, 1, 2)
    Key.objects.all().delete()

    send(ordered, 3)

    bus.work()
    assert numbers == [1, 2, 3]


def test_ordering_adds_one_statement_to_a_send(bus: Bus, ordered: Signal, numbers: list[int]):
    """A send in a transaction makes one for the position, then those for the rows."""
    with transaction.atomic(), CaptureQueriesContext(connections["default"]) as sending:
        send(ordered, 1)

    assert len(sending) == {"postgresql": 2, "sqlite": 3}.get(connection.vendor, 4)


# Turns


def test_any_message_of_a_key_runs_its_head(bus: Bus, ordered: Signal, numbers: list[int]):
    """A later message that arrives first runs the earlier delivery, then its own; the earlier message finds
    nothing to run.
    """
    send(ordered, 1, 2, 3)
    first, second, third = texts(bus)

    deliver([third], queue=QUEUE)
    assert numbers == [1, 2, 3]
    deliver([first, second], queue=QUEUE)

    assert numbers == [1, 2, 3]
    assert rows() == [("note", "done", 1)] * 3


def test_keys_and_receivers_and_signals_do_not_wait_for_each_other(bus: Bus, ordered: Signal):
    """A held back key of one receiver holds back nothing else."""
    told: list[tuple[str, object]] = []

    def receiver_that_raises_for_a(cohort: object, **kwargs: Any) -> None:
        told.append(("raising", cohort))
        if cohort == "a":
            raise ValueError

    other = new_signal(durable=True, ordered_by="cohort")
    connect(ordered, receiver_that_raises_for_a, "raising")
    connect(other, receiver_that_raises_for_a, "raising")
    connect(ordered, lambda cohort, **kwargs: told.append(("note", cohort)), "note")
    send(ordered, 1, 2)
    send(ordered, 3, cohort="b")
    send(other, 4, cohort="a")

    bus.work()

    assert told.count(("raising", "a")) == 2  # once for each signal
    assert told.count(("raising", "b")) == 1
    assert told.count(("note", "a")) == 2
    assert told.count(("note", "b")) == 1


def test_a_failed_head_blocks_its_key_until_it_succeeds(bus: Bus, ordered: Signal):
    """No delivery passes one that waits for its next attempt."""
    told: list[int] = []

    def receiver_that_fails_once(number: int, **kwargs: Any) -> None:
        told.append(number)
        if told == [1]:
            raise ValueError

    connect(ordered, receiver_that_fails_once, "failing")
    send(ordered, 1, 2, 3)
    bus.work()
    assert told == [1]
    assert rows() == [("failing", "pending", 1), ("failing", "published", 0), ("failing", "published", 0)]

    bus.come_again()

    assert told == [1, 1, 2, 3]
    assert [state for _, state, _ in rows()] == ["done"] * 3


@pytest.mark.parametrize("command", ["retry", "discard"])
def test_a_dead_head_blocks_its_key_until_retry_or_discard(bus: Bus, ordered: Signal, command: str, capsys):
    """The list shows how many wait behind it; after retry or discard they go on, in order."""
    told: list[int] = []

    def receiver_that_rejects_one(number: int, **kwargs: Any) -> None:
        told.append(number)
        if told == [1]:
            raise ValueError

    connect(ordered, receiver_that_rejects_one, "rejecting", retry=Retry(max_attempts=1))
    send(ordered, 1, 2, 3)
    bus.work()
    bus.come_again()
    assert told == [1]
    dead = Delivery.objects.get(state="dead")

    call_command("signalbus", "failed")
    assert "    2 of its ordering key wait behind it" in capsys.readouterr().out.splitlines()
    call_command("signalbus", command, str(dead.pk))
    assert sweep() == 1
    bus.work()

    assert told == ([1, 1, 2, 3] if command == "retry" else [1, 2, 3])
    assert not Delivery.objects.filter(state="published").exists()


def test_only_the_head_of_a_key_is_published_again(bus: Bus, ordered: Signal):
    """Markers return, and the others could only be dropped again."""

    def receiver_that_raises(**kwargs: Any) -> None:
        raise ValueError

    connect(ordered, receiver_that_raises, "failing", retry=Retry(max_attempts=2))
    send(ordered, *range(5))
    bus.work()
    for expected in (1, 0):  # the second attempt of the first; then it is dead
        assert recover(bus) == expected

    assert [(state, attempts) for _, state, attempts in rows()] == [("dead", 2)] + [("published", 0)] * 4
    assert not Delivery.objects.filter(publications__gt=0).exists()


@pytest.mark.parametrize("database", ["postgres"])
def test_the_worker_of_the_head_runs_the_dropped_messages_too(bus: Bus, ordered: Signal):
    """Another worker leaves the key at once; the first runs the rest after its commit."""
    running, go_on = threading.Event(), threading.Event()
    told: list[int] = []

    def receiver_that_waits(number: int, **kwargs: Any) -> None:
        told.append(number)
        running.set()
        assert go_on.wait(PATIENCE)

    connect(ordered, receiver_that_waits, "waiting")
    send(ordered, 1, 2, 3)
    first, *rest = texts(bus)
    worker = elsewhere(lambda: deliver([first], queue=QUEUE))
    assert running.wait(PATIENCE)

    deliver(rest, queue=QUEUE)
    assert told == [1]
    go_on.set()
    assert ended(worker)

    assert told == [1, 2, 3]
    assert rows() == [("waiting", "done", 1)] * 3


def test_a_worker_publishes_the_rest_of_a_long_key(bus: Bus, ordered: Signal, numbers: list[int], monkeypatch):
    """After its time it publishes its message once more, and the rest runs through that."""
    monkeypatch.setattr(sequencing, "KEY_SECONDS", 0.0)
    send(ordered, *range(5))
    first, *_ = texts(bus)

    deliver([first], queue=QUEUE)
    assert numbers == [0]
    while bus.work():
        continue

    assert numbers == [0, 1, 2, 3, 4]


def test_a_key_is_left_to_the_sweeper_if_the_broker_is_away(bus: Bus, ordered: Signal, numbers: list[int], monkeypatch):
    """A delivery that could not be passed on is due at once."""

    def refuse(*args: Any) -> None:
        raise publisher.PublishError(range(1), OSError("away"))

    send(ordered, 1, 2)
    first, _ = texts(bus)
    with monkeypatch.context() as patched:
        patched.setattr(sequencing, "KEY_SECONDS", 0.0)
        patched.setattr(publisher, "publish", refuse)
        deliver([first], queue=QUEUE)

    assert sweep() == 1
    bus.work()
    assert numbers == [1, 2]


def test_a_worker_killed_between_two_messages_of_a_key_loses_none(
    bus: Bus, ordered: Signal, numbers: list[int], monkeypatch
):
    """The head whose message was dropped is found as lost, and those behind it follow."""

    def die(*args: Any) -> None:
        raise KeyboardInterrupt

    send(ordered, 1, 2, 3)
    first, *_ = texts(bus)
    heads = [ordering.head(Delivery.objects.values_list("ordering_key", flat=True)[0])]
    monkeypatch.setattr(ledger, "head", lambda *args: heads.pop() if heads else die())
    with pytest.raises(KeyboardInterrupt):
        deliver([first], queue=QUEUE)
    monkeypatch.undo()
    assert numbers == [1]

    assert recover(bus) == 1

    assert numbers == [1, 2, 3]


def test_the_attempts_of_a_poison_head_are_limited(bus: Bus, ordered: Signal):
    """The head runs at most once more than its attempts, whichever message makes it run."""
    runs: list[int] = []

    def receiver_that_kills_its_worker(number: int, **kwargs: Any) -> None:
        runs.append(number)
        if number == 0:
            raise KeyboardInterrupt

    connect(ordered, receiver_that_kills_its_worker, "killer", retry=Retry(max_attempts=3))
    send(ordered, *range(20))
    for _ in range(8):
        for text in texts(bus)[::-1]:
            for redelivered in (False, True):
                try:
                    deliver([text], queue=QUEUE, redelivered=redelivered)
                except KeyboardInterrupt:
                    continue
        prove_lost(bus)
        sweep()

    assert runs == [0] * len(runs)
    assert len(runs) <= 4
    assert Delivery.objects.filter(state="dead").count() == 1


def test_a_redelivered_message_runs_its_head(bus: Bus, ordered: Signal, numbers: list[int]):
    """The lost worker may have run any delivery of its key."""
    send(ordered, 1, 2)
    _, second = texts(bus)

    deliver([second], queue=QUEUE, redelivered=True)

    assert numbers == [1, 2]


def test_a_row_without_a_position_is_delivered(bus: Bus, ordered: Signal, numbers: list[int]):
    """0.1 carried a key, but gave no positions."""
    send(ordered, 1)
    Delivery.objects.update(ordering_key="", position=0)

    bus.work()

    assert numbers == [1]


def test_effects_happen_once_and_in_order(bus: Bus, ordered: Signal):
    """Promise 3 holds with four workers, in each of which any message may come first and twice."""

    def write(number: int, cohort: int, **kwargs: Any) -> None:
        before = Academy.objects.filter(name=str(cohort)).count()
        Academy.objects.create(name=str(cohort), slug=f"c{cohort}-{before}-{number}")

    connect(ordered, write, "write")
    with transaction.atomic():
        for number in range(20):
            for cohort in range(4):
                send(ordered, number, cohort=cohort)
    taken = texts(bus)
    if connection.vendor == "sqlite":
        deliver([*taken[::-1], *taken], queue=QUEUE)
    else:
        batches = (taken[::-1], taken, taken[40:], taken[20:])
        assert ended(*[elsewhere(partial(deliver, batch, queue=QUEUE)) for batch in batches])
    while bus.work():
        continue

    slugs = set(Academy.objects.values_list("slug", flat=True))
    assert slugs == {f"c{cohort}-{number}-{number}" for cohort in range(4) for number in range(20)}
    assert rows() == [("write", "done", 1)] * 80


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_head_is_found_by_its_index(bus: Bus, ordered: Signal, numbers: list[int]):
    """The number of a key's past and waiting deliveries does not matter."""
    send(ordered, 1)
    with CaptureQueriesContext(connection) as queries:
        ledger.head(Delivery.objects.values_list("ordering_key", flat=True)[0])
        ordering.postpone_followers(list(Delivery.objects.values_list("id", flat=True)))
    asked = [query["sql"] for query in queries if "position" in query["sql"]]
    assert len(asked) == 2

    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")
        for sql in asked:
            cursor.execute(f"EXPLAIN {'' if connection.vendor == 'postgresql' else 'QUERY PLAN '}{sql}")
            assert "signalbus_order" in str(cursor.fetchall())


# What cannot be promised is refused


def test_a_receiver_without_a_transaction_is_refused(ordered: Signal):
    """The lock of its transaction is the key's."""
    with pytest.raises(ConfigurationError, match="atomic=False at an ordered signal"):
        connect(ordered, lambda **kwargs: None, "outside", atomic=False)


def test_a_receiver_of_an_ordered_signal_is_atomic_whatever_the_settings_say(
    bus: Bus, ordered: Signal, numbers: list[int], settings
):
    """The project's default is for other receivers."""
    settings.SIGNALBUS = {"ATOMIC": False}

    assert [entry.atomic for entry in ordered.entries()] == [True]
