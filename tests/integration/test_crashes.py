"""The ledger's promises under every order of crashes that Hypothesis generates, on a real SQLite."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from signalbus.models import OPEN_STATES, Delivery
from tasks.admissions.models import Academy

from .crash_simulation import ATOMIC, OUTSIDE, Item, World, new_signal_with_receivers

if TYPE_CHECKING:
    from uuid import UUID

    from signalbus import Signal

    from .crash_simulation import Process

EXAMPLES = int(os.environ.get("SIGNALBUS_CRASHES", "20"))
WORKERS = st.sampled_from([0, 1])
ROUNDS = 40  # in which everything must have ended once nothing breaks any more


class Crashes(RuleBasedStateMachine):
    """Two workers, a sweeper, senders and a broker, each of which may die at any of its commits."""

    signal: ClassVar[Signal]

    def __init__(self) -> None:
        super().__init__()
        self.receipts: Counter[UUID] = Counter()
        self.world = World(self.signal, self.receipts)
        self.workers: list[Process | None] = [None, None]
        self.held: list[Item | None] = [None, None]
        self.asleep: set[int] = set()
        self.unacknowledged: list[Item] = []  # by who is dead, or by who is slow
        self.sweeper: Process | None = None

    # Senders

    @rule(count=st.integers(1, 3), die=st.sampled_from(["", "", "", "insert", "commit", "publish"]))
    def send(self, count: int, die: str):
        """A sender commits a transaction with messages, or dies on the way."""
        sender = self.world.process(lambda: self.world.send(count))
        sender.go_on(die_in_receiver=die == "insert")
        if not sender.ended:
            sender.go_on(die=die == "commit")
        while not sender.ended:
            sender.go_on(die=die == "publish")

    # Workers

    @precondition(lambda self: self.world.broker.items)
    @rule(number=WORKERS, die=st.sampled_from(["", "", "", "receiver"]))
    def work(self, number: int, die: str):
        """A worker takes the next item, and goes on with it to its first commit."""
        if self.workers[number] is None:
            item = self.held[number] = self.world.broker.items.pop(0)
            self.workers[number] = self.world.process(lambda: self.world.work(item))
            self._step(number, die)

    @precondition(lambda self: any(self.workers))
    @rule(number=WORKERS, die=st.sampled_from(["", "", "", "here", "receiver"]))
    def go_on(self, number: int, die: str):
        """A worker goes on to its next commit, or dies."""
        if self.workers[number] is not None:
            self._step(number, die)

    def _step(self, number: int, die: str) -> None:
        worker, item = self.workers[number], self.held[number]
        assert worker is not None
        assert item is not None
        self.asleep.discard(number)
        worker.go_on(die=die == "here", die_in_receiver=die == "receiver")
        if worker.ended:
            self.workers[number] = None
            if worker.crashed:
                self.unacknowledged.append(item)
            elif item in self.unacknowledged:
                self.unacknowledged.remove(item)

    @precondition(lambda self: any(self.workers))
    @rule(number=WORKERS)
    def fall_asleep(self, number: int):
        """A worker's machine stands still: it renews nothing until it goes on."""
        if self.workers[number] is not None:
            self.asleep.add(number)

    # The broker

    @precondition(lambda self: self.unacknowledged)
    @rule(first=st.booleans())
    def redeliver(self, first: bool):
        """The broker redelivers a message that was not acknowledged in time."""
        item = Item(self.unacknowledged.pop(0).texts, redelivered=True)
        self.world.broker.items.insert(0 if first else len(self.world.broker.items), item)

    @rule(number=WORKERS)
    def take_for_lost(self, number: int):
        """The broker takes a worker that is merely slow for lost."""
        item = self.held[number]
        if self.workers[number] is not None and item is not None and item not in self.unacknowledged:
            self.unacknowledged.append(item)

    @precondition(lambda self: self.world.broker.items)
    @rule(what=st.sampled_from(["all", "one", "twice"]))
    def lose_or_double(self, what: str):
        """The broker forgets everything, or what a dying worker had just taken; or it has something twice."""
        items = self.world.broker.items
        if what == "all":
            items.clear()
            self.unacknowledged.clear()
        elif what == "one":
            items.pop(0)
        else:
            items.append(Item(items[0].texts, items[0].redelivered))

    @rule(away=st.booleans())
    def go_away(self, away: bool):
        """The broker takes nothing for a while."""
        self.world.broker.away = away

    # The sweeper, and time

    @rule(die=st.sampled_from(["", "", "", "here"]))
    def sweep(self, die: str):
        """A sweeper begins to look, or goes on to its next commit or publication, or dies."""
        if self.sweeper is None:
            self.sweeper = self.world.process(self.world.sweep)
        self.sweeper.go_on(die=die == "here" and bool(self.sweeper.place))
        if self.sweeper.ended:
            self.sweeper = None

    @rule(seconds=st.sampled_from([1.0, 6.0, 11.0, 30.0, 700.0]))
    def wait(self, seconds: float):
        """Time goes by."""
        self.world.wait(seconds, [self.workers[number] for number in self.asleep])

    # What must hold

    @invariant()
    def nothing_twice_and_nothing_unsent(self):
        """An atomic receiver's effect is there once, no delivery has two receipts, and nothing ran uncommitted."""
        effects = Counter(Academy.objects.values_list("name", flat=True))
        assert all(count == 1 for name, count in effects.items() if not name.endswith(OUTSIDE)), effects
        assert all(count == 1 for count in self.receipts.values()), self.receipts
        assert {name.split()[0] for name in effects} <= {str(id_) for id_ in self.world.committed}

    def teardown(self):
        """Once nothing breaks any more, all that was committed ends, with its effect if it says so."""
        try:
            self._end()
        finally:
            self.world.close()

    def _end(self) -> None:
        self.world.broker.away = False
        for _ in range(ROUNDS):
            self._do_all_there_is()
            if not Delivery.objects.filter(state__in=OPEN_STATES).exists():
                break
            self.world.wait(700.0)
        self.nothing_twice_and_nothing_unsent()
        ended = {(id_, receiver): state for id_, receiver, state in _states()}
        assert ended.keys() == {(id_, receiver) for id_ in self.world.committed for receiver in (*ATOMIC, OUTSIDE)}
        assert set(ended.values()) <= {"done", "dead", "skipped", "discarded"}, ended
        effects = set(Academy.objects.values_list("name", flat=True))
        assert {f"{id_} {receiver}" for (id_, receiver), state in ended.items() if state == "done"} <= effects

    def _do_all_there_is(self) -> None:
        for pause in (11.0, 11.0, 0.0):
            while any(self.workers) or self.world.broker.items or self.unacknowledged:
                if self.unacknowledged:
                    self.redeliver(first=False)
                for number in (0, 1):
                    if self.workers[number] is not None:
                        self._step(number, "")
                    elif self.world.broker.items:
                        self.work(number, "")
            self._end_sweep()
            self.sweep("")
            self._end_sweep()
            self.world.wait(pause)

    def _end_sweep(self) -> None:
        while self.sweeper is not None:
            self.sweep("")


def _states() -> list[tuple[UUID, str, str]]:
    return list(Delivery.objects.values_list("message_id", "receiver", "state"))


@pytest.mark.parametrize("database", ["sqlite"])
def test_any_order_of_crashes_loses_nothing_and_runs_nothing_twice(database_url: str):
    """Promises 2 and 3 hold for any order of crashes (SIGNALBUS_CRASHES=2000: as many orders)."""
    Crashes.signal = new_signal_with_receivers()
    run_state_machine_as_test(
        Crashes,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
