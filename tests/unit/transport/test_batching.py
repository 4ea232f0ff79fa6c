"""Batching: which claimed messages are handed to the pool as one request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbus.core.runtime_estimate import RuntimeEstimates
from signalbus.transport import batching
from signalbus.transport.batching import BUDGET, MOST_BYTES, arrange
from signalbus.transport.broker_claims import Claimed
from signalbus.transport.coalescing import MOST_TEXTS, BatchMember

HEAD = "k" * 8 + "." + "0" * 64 + '.1\n{"i":"' + "0" * 32 + '","s":"'


@pytest.fixture(autouse=True)
def estimates(monkeypatch):
    """What this process has seen: signals that are named after the milliseconds that they take."""
    estimates = RuntimeEstimates()
    monkeypatch.setattr(batching, "estimates", estimates)
    for queue in ("q", "r"):
        for milliseconds in (0, 1, 5, 20, 26, 400):
            estimates.learn((queue, str(milliseconds)), milliseconds / 1000)
    return estimates


def member(signal: object, *, queue: str = "q", texts: int = 1, size: int = 0) -> BatchMember:
    """Make a message of a signal."""
    return BatchMember(
        Claimed(b"", queue, ""), tuple(f'{HEAD}{signal}"' + "x" * size for _ in range(texts)), {"id": ""}
    )


def sizes(members, slots=1):
    """Batch the messages, and return the sizes."""
    batches, back = arrange(members, slots)
    return [len(batch) for batch in batches], len(back)


def test_brief_messages_are_batched():
    """A batch has as many as fit into the time."""
    assert sizes([member(5)] * 10) == ([10], 0)
    assert sizes([member(5)] * 12) == ([10], 2)


def test_at_most_a_hundred_texts():
    """The publisher's limit for a message is the same."""
    assert sizes([member(0)] * 150) == ([100], 50)
    assert sizes([member(0, texts=40)] * 3) == ([2], 1)


def test_at_most_a_megabyte():
    """A child gets this at once."""
    assert sizes([member(0, size=300_000)] * 4) == ([3], 1)


@pytest.mark.parametrize("odd", [member("new"), member(26), member(400), BatchMember(Claimed(b"", "q", ""))])
def test_unknown_slow_and_unusual_messages_run_alone(odd):
    """The order of the others does not change."""
    brief = member(1)
    assert sizes([brief, brief, odd, brief, brief], 3) == ([2, 1, 2], 0)


def test_claimed_messages_are_distributed_over_free_processes():
    """No child idles beside a batch."""
    assert sizes([member(0)] * 10, 4) == ([3, 3, 3, 1], 0)
    assert sizes([member(0)] * 3, 4) == ([1, 1, 1], 0)


def test_queues_do_not_mix():
    """A request comes from one queue."""
    assert sizes([member(0), member(0, queue="r"), member(0, queue="r")], 2) == ([1, 2], 0)


def test_without_a_free_process_all_are_requeued():
    """No batch is made."""
    assert sizes([member(0)] * 3, 0) == ([], 3)


@given(
    st.lists(
        st.builds(
            member,
            st.sampled_from([0, 1, 5, 20, 26, 400, "new"]),
            queue=st.sampled_from("qr"),
            texts=st.sampled_from([0, 1, 1, 1, 30, 100]),
            size=st.sampled_from([0, 0, 0, 5_000, 600_000]),
        ),
        max_size=60,
    ),
    st.integers(0, 8),
)
def test_nothing_is_lost_or_doubled_and_the_bounds_hold(members, slots):
    """This holds for any claimed messages."""
    batches, back = arrange(members, slots)

    assert [*(one for batch in batches for one in batch), *back] == members
    assert len(batches) <= slots
    for batch in batches:
        if len(batch) > 1:
            assert sum(batching._expected(one) for one in batch) <= BUDGET
            assert sum(len(one.texts) for one in batch) <= MOST_TEXTS
            assert sum(len(text) for one in batch for text in one.texts) <= MOST_BYTES
            assert len({one.claimed.queue for one in batch}) == 1
            assert all(one.texts and batching._expected(one) <= BUDGET / 2 for one in batch)


class TestLearning:
    @pytest.fixture(autouse=True)
    def estimates(self, monkeypatch):
        """A runtime estimate without any observation."""
        estimates = RuntimeEstimates()
        monkeypatch.setattr(batching, "estimates", estimates)
        return estimates

    def test_without_estimates_one_message_is_claimed_for_each_process(self):
        """A message may be slow."""
        assert batching.size() == 1
        arrange([member("a")], 1)
        assert batching.size() == 1

    def test_the_mean_run_time_limits_a_claim(self):
        """More would only have to be requeued."""
        arrange([member("a")], 1)
        batching.learn(member("a", texts=10).texts, "q", 0.05)
        assert batching.size() == 10
        batching.learn(member("a").texts, "q", 1.0)
        assert batching.size() == 1

    def test_a_claim_has_at_most_a_hundred(self):
        """A batch has no more."""
        arrange([member("a")], 1)
        batching.learn(member("a", texts=100).texts, "q", 0.0)
        assert batching.size() == MOST_TEXTS

    @pytest.mark.parametrize(("message", "count"), [(member("a", texts=40), 2), (member("a", size=300_000), 3)])
    def test_fewer_messages_with_many_texts_are_claimed(self, message, count):
        """A sender's batch is a batch already."""
        batching.learn(message.texts, "q", 0.0)
        arrange([message], 1)
        assert batching.size() == count

    def test_an_estimate_is_for_a_signal_and_queue(self):
        """Another queue has other receivers."""
        batching.learn(member("a").texts, "q", 0.001)
        assert sizes([member("a")] * 2) == ([2], 0)
        assert sizes([member("a", queue="r")] * 2) == ([1], 1)

    def test_an_empty_message_updates_no_estimate(self):
        """It has no texts."""
        batching.learn([], "q", 1.0)
        assert batching.size() == 1
