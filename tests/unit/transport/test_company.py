"""Who travels together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbus.core.runtime_estimate import Pace
from signalbus.transport import batching
from signalbus.transport.batching import BUDGET, MOST_BYTES, arrange
from signalbus.transport.claims import Claimed
from signalbus.transport.coalescing import MOST_TEXTS, Parcel

HEAD = "k" * 8 + "." + "0" * 64 + '.1\n{"i":"' + "0" * 32 + '","s":"'


@pytest.fixture(autouse=True)
def pace(monkeypatch):
    """What this process has seen: signals that are named after the milliseconds that they take."""
    pace = Pace()
    monkeypatch.setattr(batching, "pace", pace)
    for queue in ("q", "r"):
        for milliseconds in (0, 1, 5, 20, 26, 400):
            pace.learn((queue, str(milliseconds)), milliseconds / 1000)
    return pace


def parcel(signal: object, *, queue: str = "q", texts: int = 1, size: int = 0) -> Parcel:
    """Make a message of a signal."""
    return Parcel(Claimed(b"", queue, ""), tuple(f'{HEAD}{signal}"' + "x" * size for _ in range(texts)), {"id": ""})


def sizes(parcels, slots=1):
    """Arrange, and count."""
    groups, back = arrange(parcels, slots)
    return [len(group) for group in groups], len(back)


def test_the_brief_travel_together():
    """As many as fit into the time."""
    assert sizes([parcel(5)] * 10) == ([10], 0)
    assert sizes([parcel(5)] * 12) == ([10], 2)


def test_at_most_a_hundred_texts():
    """As many as the publisher puts into a message."""
    assert sizes([parcel(0)] * 150) == ([100], 50)
    assert sizes([parcel(0, texts=40)] * 3) == ([2], 1)


def test_at_most_a_megabyte():
    """What a child gets at once."""
    assert sizes([parcel(0, size=300_000)] * 4) == ([3], 1)


@pytest.mark.parametrize("odd", [parcel("new"), parcel(26), parcel(400), Parcel(Claimed(b"", "q", ""))])
def test_who_is_unknown_or_slow_or_strange_travels_alone(odd):
    """And nobody's place in the order changes for it."""
    brief = parcel(1)
    assert sizes([brief, brief, odd, brief, brief], 3) == ([2, 1, 2], 0)


def test_what_is_claimed_is_dealt_over_all_who_are_free():
    """No child idles beside a group."""
    assert sizes([parcel(0)] * 10, 4) == ([3, 3, 3, 1], 0)
    assert sizes([parcel(0)] * 3, 4) == ([1, 1, 1], 0)


def test_queues_do_not_mix():
    """A request comes through one queue."""
    assert sizes([parcel(0), parcel(0, queue="r"), parcel(0, queue="r")], 2) == ([1, 2], 0)


def test_nobody_is_free():
    """All goes back."""
    assert sizes([parcel(0)] * 3, 0) == ([], 3)


@given(
    st.lists(
        st.builds(
            parcel,
            st.sampled_from([0, 1, 5, 20, 26, 400, "new"]),
            queue=st.sampled_from("qr"),
            texts=st.sampled_from([0, 1, 1, 1, 30, 100]),
            size=st.sampled_from([0, 0, 0, 5_000, 600_000]),
        ),
        max_size=60,
    ),
    st.integers(0, 8),
)
def test_nothing_is_lost_or_doubled_and_the_bounds_hold(parcels, slots):
    """Whatever was claimed."""
    groups, back = arrange(parcels, slots)

    assert [*(one for group in groups for one in group), *back] == parcels
    assert len(groups) <= slots
    for group in groups:
        if len(group) > 1:
            assert sum(batching._expected(one) for one in group) <= BUDGET
            assert sum(len(one.texts) for one in group) <= MOST_TEXTS
            assert sum(len(text) for one in group for text in one.texts) <= MOST_BYTES
            assert len({one.claimed.queue for one in group}) == 1
            assert all(one.texts and batching._expected(one) <= BUDGET / 2 for one in group)


class TestLearning:
    @pytest.fixture(autouse=True)
    def pace(self, monkeypatch):
        """Nothing was seen yet."""
        pace = Pace()
        monkeypatch.setattr(batching, "pace", pace)
        return pace

    def test_without_experience_one_is_claimed_for_each_place(self):
        """It may be slow."""
        assert batching.size() == 1
        arrange([parcel("a")], 1)
        assert batching.size() == 1

    def test_the_mean_says_how_many_are_worth_claiming(self):
        """What would not fit would only have to go back."""
        arrange([parcel("a")], 1)
        batching.learn(parcel("a", texts=10).texts, "q", 0.05)
        assert batching.size() == 10
        batching.learn(parcel("a").texts, "q", 1.0)
        assert batching.size() == 1

    def test_never_more_than_a_hundred(self):
        """As a group holds no more."""
        arrange([parcel("a")], 1)
        batching.learn(parcel("a", texts=100).texts, "q", 0.0)
        assert batching.size() == MOST_TEXTS

    @pytest.mark.parametrize(("message", "count"), [(parcel("a", texts=40), 2), (parcel("a", size=300_000), 3)])
    def test_fewer_of_large_ones(self, message, count):
        """A batch of the sender's is a group already."""
        batching.learn(message.texts, "q", 0.0)
        arrange([message], 1)
        assert batching.size() == count

    def test_a_signal_is_known_by_its_queue(self):
        """Its receivers there are others."""
        batching.learn(parcel("a").texts, "q", 0.001)
        assert sizes([parcel("a")] * 2) == ([2], 0)
        assert sizes([parcel("a", queue="r")] * 2) == ([1], 1)

    def test_nothing_is_learned_of_nothing(self):
        """A message without texts."""
        batching.learn([], "q", 1.0)
        assert batching.size() == 1
