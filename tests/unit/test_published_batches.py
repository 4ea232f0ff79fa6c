"""How many due deliveries the sweeper puts into one Celery message, and how the publisher divides texts."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from signalbus.broker import publisher
from signalbus.ledger.sweeps import Publishable
from signalbus.receiving.sweeping.due_publication import COMPANIONS, TOGETHER_MS, _sizes


def row(*, attempts: int = 1, runtime_ms: int | None = 1, publications: int = 0) -> Publishable:
    """Return a row that is published now."""
    last: Any = {
        "text": "",
        "sealed": False,
        "signal": "s",
        "publications": publications,
        "lost": False,
        "overdue": False,
    }
    return Publishable(UUID(int=1), "", "r", "", attempts, runtime_ms, None, **last)


def test_brief_retries_fill_two_group_commits():
    """A Celery message has as many of them as two commits."""
    assert _sizes([row()] * 140) == [64, 64, 12]


def test_retries_in_one_message_take_a_limited_time():
    """Others wait behind them in a process."""
    assert _sizes([row(runtime_ms=TOGETHER_MS * 2 // 5)] * 5) == [2, 2, 1]
    assert _sizes([row(runtime_ms=10 * TOGETHER_MS)] * 3) == [1, 1, 1]


def test_retries_of_different_duration_share_a_batch():
    """One that once took longer needs no message of its own while the sum is small."""
    assert _sizes([row(), row(runtime_ms=TOGETHER_MS // 3), row(runtime_ms=0), row()]) == [4]


def test_lost_deliveries_and_retries_of_unknown_duration_are_sent_alone():
    """The first may end their worker, and the others may be slow."""
    rows = [row(publications=1), row(runtime_ms=None), row(attempts=0, runtime_ms=None, publications=2)]
    assert _sizes(rows) == [1, 1, 1]


def test_first_attempts_do_not_share_a_message_with_retries():
    """They fill Celery messages as those of a sender do."""
    firsts = [row(attempts=0, runtime_ms=None)] * (COMPANIONS["first"] + 1)
    assert _sizes([*firsts, row(), row()]) == [COMPANIONS["first"], 1, 2]


def test_the_publisher_divides_texts_by_sizes():
    """What the sizes leave over, and what would be too large, is divided by the publisher's own limits."""
    texts = [str(number) for number in range(6)]
    assert list(publisher._packets(texts, [2, 1])) == [[["0", "1"], ["2"], ["3", "4", "5"]]]
    assert list(publisher._packets(texts, ())) == [[texts]]
    large = ["x" * (publisher.MAX_BATCH_BYTES // 2)] * 3
    assert [list(map(len, packet)) for packet in publisher._packets(large, [3])] == [[2, 1]]
