"""With open transactions of several databases, one commit decides: the table in docs/operating.md."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections, transaction

from signalbus.receiving.process import database_connections
from signalbus.receiving.process.receiver_runtimes import ReceiverRuntimes

from .bus import QUEUE, Bus, connect, new_signal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from signalbus import Signal

LEDGER = "default"  # on SQLite and on PostgreSQL; the others are SQLite


@pytest.fixture
def other(database_url: str, tmp_path: Path) -> Iterator[str]:
    """A database beside the ledger's."""
    yield from _added("other", tmp_path)


@pytest.fixture
def third(database_url: str, tmp_path: Path) -> Iterator[str]:
    """One more."""
    yield from _added("third", tmp_path)


def _added(alias: str, directory: Path) -> Iterator[str]:
    settings = {"default": {}, alias: {"ENGINE": "django.db.backends.sqlite3", "NAME": str(directory / alias)}}
    connections.settings[alias] = connections.configure_settings(settings)[alias]
    yield alias
    connections[alias].close()
    del connections[alias]
    del connections.settings[alias]


@pytest.fixture
def signal(ran: list[Any]) -> Signal:
    """A signal with one receiver."""
    signal = new_signal()
    connect(signal, lambda number, **kwargs: ran.append(number), "databases.receiver")
    return signal


class Open:
    """An open transaction, which can end before one that was opened after it.

    Args:
        alias: of which database.
    """

    def __init__(self, alias: str) -> None:
        self._atomic = transaction.atomic(using=alias)
        self._atomic.__enter__()

    def end(self, *, commits: bool) -> None:
        """Commit or roll back."""
        error = None if commits else ZeroDivisionError()
        self._atomic.__exit__(type(error) if error else None, error, None)


ENDS = [(True, True), (True, False), (False, True), (False, False)]  # whether the first commits, and the second


@pytest.mark.parametrize("commit", ENDS, ids=["both-commit", "first-commits", "second-commits", "none-commits"])
@pytest.mark.parametrize("first", [LEDGER, "other"], ids=["ledger-ends-first", "other-ends-first"])
@pytest.mark.parametrize("opened", [(LEDGER, "other"), ("other", LEDGER)], ids=["ledger-outside", "other-outside"])
@pytest.mark.usefixtures("other")
def test_the_commit_of_the_ledgers_database_publishes(
    opened: tuple[str, str], first: str, commit: tuple[bool, bool], bus: Bus, signal: Signal
):
    """The message is published at the ledger's commit, and removed by its rollback, whatever the other does."""
    transactions = {alias: Open(alias) for alias in opened}
    second = next(alias for alias in opened if alias != first)
    signal.send(None, number=1)
    published = []

    for alias, commits in zip((first, second), commit, strict=True):
        transactions[alias].end(commits=commits)
        published.append(bus.client.llen(QUEUE))

    if first == LEDGER:
        assert published == [commit[0], commit[0]]
    else:
        assert published == [0, commit[1]]


@pytest.mark.parametrize("alias", [LEDGER, "other"])
@pytest.mark.parametrize("commits", [True, False], ids=["commits", "rolls-back"])
def test_the_commit_of_a_single_open_transaction_publishes(
    alias: str, commits: bool, bus: Bus, signal: Signal, other: str
):
    """The open transaction may be the ledger's or that of another database."""
    alone = Open(alias)
    signal.send(None, number=1)
    before = bus.client.llen(QUEUE)
    alone.end(commits=commits)

    assert (before, bus.client.llen(QUEUE)) == (0, commits)


@pytest.mark.parametrize("commit", ENDS)
def test_without_a_transaction_of_the_ledger_all_commits_must_succeed(
    commit: tuple[bool, bool], bus: Bus, signal: Signal, other: str, third: str
):
    """The message waits for all commits, and any rollback removes it."""
    transactions = [Open(other), Open(third)]
    signal.send(None, number=1)
    signal.send(None, number=2)

    transactions[0].end(commits=commit[0])
    before = bus.client.llen(QUEUE)
    transactions[1].end(commits=commit[1])

    assert before == 0
    assert [len(texts) for texts in bus.take()] == ([2] if all(commit) else [])


def test_without_the_ledgers_transaction_a_savepoint_removes_its_messages(
    bus: Bus, signal: Signal, ran: list[Any], other: str, third: str
):
    """A rolled back savepoint of either removes the messages sent in it, and no others."""
    with transaction.atomic(using=other), transaction.atomic(using=third):
        signal.send(None, number=1)
        with suppress(ZeroDivisionError), transaction.atomic(using=third):
            signal.send(None, number=2)
            raise ZeroDivisionError
        with transaction.atomic(using=other):
            signal.send(None, number=3)

    bus.work()
    assert sorted(ran) == [1, 3]


def test_a_savepoint_of_the_ledgers_removes_its_messages(bus: Bus, signal: Signal, ran: list[Any], other: str):
    """Messages before, beside and after it are sent, as with one database."""
    with transaction.atomic(using=other), transaction.atomic(using=LEDGER):
        signal.send(None, number=1)
        with suppress(ZeroDivisionError), transaction.atomic(using=LEDGER):
            signal.send(None, number=2)
            raise ZeroDivisionError
        with suppress(ZeroDivisionError), transaction.atomic(using=other):
            signal.send(None, number=3)
            raise ZeroDivisionError

    bus.work()
    assert sorted(ran) == [1, 3]


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("how", ["set_autocommit", "atomic"])
def test_a_transaction_that_a_receiver_leaves_open_is_not_the_next_one_s(
    bus: Bus, other: str, monkeypatch: pytest.MonkeyPatch, durable: bool, how: str
):
    """Later deliveries of its Celery message are committed, also in a group commit."""
    monkeypatch.setattr(database_connections, "_is_worker", lambda: True)
    monkeypatch.setattr(ReceiverRuntimes, "expected", lambda self, receiver: 0.001)
    with connections[other].cursor() as cursor:
        cursor.execute("CREATE TABLE written (number integer)")

    def receiver(number: int, **kwargs: Any) -> None:
        if number == 0:
            if how == "atomic":
                Open(other)
            else:
                transaction.set_autocommit(False, using=other)
            return
        with connections[other].cursor() as cursor:
            cursor.execute("INSERT INTO written VALUES (%s)", [number])

    signal = new_signal(durable=durable)
    connect(signal, receiver)
    signal.send_many(None, [{"number": number} for number in range(4)])
    bus.work()

    connections[other].close()  # without a commit
    with connections[other].cursor() as cursor:
        cursor.execute("SELECT number FROM written ORDER BY number")
        assert cursor.fetchall() == [(1,), (2,), (3,)]
