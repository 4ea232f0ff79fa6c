"""The times of a worker's heartbeat, and the messages that count as in flight."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from signalbus.transport.broker_claims import Numbers, Owner, Work
from signalbus.transport.heartbeat import PATIENCE, Heartbeat
from signalbus.transport.unacked import LEASE

if TYPE_CHECKING:
    from collections.abc import Iterator


class Unacked:
    """The commands of a heartbeat to Redis; it records each heartbeat's owner and claims."""

    def __init__(self) -> None:
        self.heartbeats: list[tuple[str, list[str]]] = []
        self.forgotten: list[str] = []
        self.first: str | None = None
        self.answers: Iterator[Exception | None] = iter(())
        self.dead: list[str] = []
        self.taken: list[str] = []

    def first_owner(self) -> str | None:
        """Return the owner whose heartbeat is oldest."""
        if (error := next(self.answers, None)) is not None:
            raise error
        return self.first

    def acknowledge(self, owner: Owner) -> None:
        """Ignore it."""

    def send_heartbeat(self, owner: str, tags: list[str]) -> list[str]:
        """Record a heartbeat."""
        self.heartbeats.append((owner, tags))
        return self.dead

    def reclaim(self, owner: str) -> int:
        """Note it."""
        self.taken.append(owner)
        return 1

    def forget(self, owner: str) -> None:
        """Record it."""
        self.forgotten.append(owner)


class Ended:
    """An event that records how long the thread would wait, and is set after some waits."""

    def __init__(self, waits: int) -> None:
        self.waited: list[float] = []
        self._left = waits

    def wait(self, seconds: float) -> bool:
        """Record it."""
        self.waited.append(seconds)
        self._left -= 1
        return self._left < 0


@pytest.fixture
def owner() -> Owner:
    """A process without claims."""
    return Owner()


@pytest.fixture
def channel() -> Any:
    """An open channel, whose consumer does not know the messages in flight."""
    return SimpleNamespace(closed=False, unacked=Unacked(), work=Work())


@pytest.fixture
def run(channel, owner, monkeypatch):
    """Run a heartbeat thread's loop for some waits, each as long as it may be; return them in seconds."""
    monkeypatch.setattr("signalbus.transport.heartbeat.random.uniform", lambda _shortest, longest: longest)

    def run(waits: int) -> list[float]:
        made = Heartbeat(channel, owner)
        made._ended = ended = Ended(waits)  # type: ignore[assignment]
        made.run()
        return ended.waited

    return run


@pytest.mark.parametrize("answers", [[None] * 5, [None, RedisConnectionError(), None, None]])
def test_a_claim_made_at_any_moment_is_followed_by_a_heartbeat_in_time(run, channel, answers):
    """A claim expires LEASE seconds after it was made, by a clock of whole seconds; nothing wakes the heartbeat."""
    channel.unacked.answers = iter(answers)
    assert max(run(5)) < LEASE - 1


def acknowledge(owner: Owner) -> None:
    """End a claim here; Redis has not confirmed it."""
    owner.claimed["sb1:x:1"] = "q"
    owner.acknowledge("sb1:x:1")


def acknowledge_group(owner: Owner) -> None:
    """The same for a group."""
    owner.claimed.update({"sb1:x:1": "q", "sb1:x:2": "q"})
    owner.batches["sb1g:x:1"] = ["sb1:x:1", "sb1:x:2"]
    owner.acknowledge("sb1g:x:1")


def send_acknowledgement(owner: Owner) -> None:
    """Send the acknowledgement, without an answer."""
    acknowledge(owner)
    owner.acknowledged.popleft()


def ask(owner: Owner) -> None:
    """Send a claim, and do not read its reply."""
    owner.reserve(5)


def lose(owner: Owner) -> None:
    """Send a claim, whose reply is lost, and which is not settled."""
    owner.lost.append(Numbers(1, 5))


IN_FLIGHT = [acknowledge, acknowledge_group, send_acknowledgement, ask, lose]


@pytest.mark.parametrize("begin", IN_FLIGHT)
def test_unanswered_commands_keep_the_owner_alive(channel, owner, begin):
    """Otherwise another worker would requeue its claims, and run messages that are done or about to run."""
    begin(owner)
    thread = Heartbeat(channel, owner)
    thread._in_flight_at -= 2 * LEASE
    channel.unacked.first = owner.id
    thread.send_heartbeat(channel)
    assert [name for name, _ in channel.unacked.heartbeats] == [owner.id]
    assert not channel.unacked.forgotten


@pytest.mark.parametrize("begin", IN_FLIGHT)
def test_a_closed_channels_heartbeat_goes_on_until_redis_answers(run, channel, owner, begin):
    """Celery waits for up to half a minute before it connects again."""
    begin(owner)
    channel.closed = True
    run(3)
    assert len(channel.unacked.heartbeats) == 3


@pytest.mark.parametrize(("closed", "taken"), [(False, ["another"]), (True, [])])
def test_no_worker_is_declared_dead_right_after_an_outage_between_heartbeats(run, channel, owner, closed, taken):
    """The heartbeat of another worker may have met it, and comes later for that; this channel lost its connection."""
    ask(owner)
    channel.closed, channel.unacked.dead = closed, ["another"]
    run(1)
    assert channel.unacked.taken == taken


def test_a_closed_channels_heartbeat_sends_acknowledgements_and_ends(run, channel, owner):
    """It tries again while Redis is away; then nothing is in flight."""
    acknowledge(owner)
    answers = iter([RedisConnectionError(), RedisConnectionError(), None])

    def hear(owner: Owner) -> None:
        if (error := next(answers)) is not None:
            raise error
        owner.confirm(owner.take_acknowledged(10))

    channel.closed, channel.unacked.acknowledge = True, hear
    assert len(run(10)) == 3
    assert not channel.unacked.heartbeats


def test_no_visibility_timeout_finds_an_unanswered_acknowledgement(channel, owner):
    """A worker with kombu's transport must not restore a message that is done."""
    acknowledge_group(owner)
    Heartbeat(channel, owner).send_heartbeat(channel)
    assert channel.unacked.heartbeats == [(owner.id, ["sb1:x:1", "sb1:x:2"])]


def test_an_acknowledgement_of_an_unknown_claim_leaves_nothing_in_flight(owner):
    """It may have been requeued meanwhile."""
    assert owner.acknowledge("sb1:x:1") == []
    assert not owner.is_in_flight()


def test_the_pause_after_an_outage_is_longer_than_a_lease():
    """Each worker has to send a heartbeat before another requeues its claims."""
    assert PATIENCE > 2 * LEASE
