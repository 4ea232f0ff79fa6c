"""Measures how late a message is: at an idle worker, and among slow ones."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import signals, stock_celery, workers
from benchmarks.comparison import at_most, summarize
from benchmarks.processes import cpu_seconds
from benchmarks.rows import Part, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.comparison import Comparison, Goal
    from benchmarks.sides import Side

    Send = Callable[[str, float], object]

SIGNALS = {"quick": signals.quick, "slow": signals.slow, "burst": signals.burst, "turning": signals.turning}
MIXED = "prefork"  # the pool of the mixed loads
IDLE = 20.0  # seconds, at any scale: what an idle worker does comes in periods of seconds


@dataclass(frozen=True, slots=True)
class Event:
    """A message of a load.

    Args:
        at: seconds from the beginning.
        kind: which signal.
        seconds: that its receiver takes.
    """

    at: float
    kind: str
    seconds: float = 0.0


def one_at_a_time(count: int) -> list[Event]:
    """Send to a worker without other load."""
    return [Event(number * 0.03, "quick") for number in range(count)]


def steady(seconds: int) -> list[Event]:
    """250 a second, and each second one more that takes half a second."""
    quick = [Event(number / 250, "quick") for number in range(250 * seconds)]
    return quick + [Event(second + 0.5, "slow", 0.5) for second in range(seconds)]


def bursts(count: int) -> list[Event]:
    """300 of one signal at once, one of which takes 0.3 s; and again."""
    return [
        Event(1.5 * number, "burst", 0.3 if place == 100 else 0.0)  # noqa: PLR2004 - anywhere among them
        for number in range(count)
        for place in range(300)
    ]


def turning(seconds: int) -> list[Event]:
    """100 a second, and each second ten of a signal that is as quick, until each of them takes 0.1 s."""
    quick = [Event(number / 100, "quick") for number in range(100 * seconds)]
    ten = [Event(second, "turning", 0.1 if second >= seconds / 2 else 0.0) for second in range(seconds)] * 10
    return quick + ten


def _send_ours(kind: str, seconds: float) -> None:
    SIGNALS[kind].send(None, sent=time.monotonic(), seconds=seconds)


def _send_stock(kind: str, seconds: float) -> None:
    stock_celery.work.delay(sent=time.monotonic(), seconds=seconds)


class Latency(Part):
    """Measures the time from before a send to the receiver's first line."""

    def rows(self) -> Iterator[Row]:
        """List the measurements."""
        for pool in workers.POOLS:
            yield Row(f"idle, {pool}", partial(self._idle, pool))
        yield Row("an idle worker", self._cost)
        for title, load in (
            ("250/s, and one of 0.5 s a second", steady(self.size.of(8))),
            ("bursts of 300 with one of 0.3 s", bursts(self.size.of(5, 5))),
            ("100/s, and a signal that turns slow", turning(self.size.of(8, 2))),
        ):
            yield Row(f"mixed load: {title}", partial(self._mixed, title, load))

    def _sides(self, pool: str) -> tuple[Side, Side]:
        return workers.ours(self.servers, pool), workers.stock(self.servers, pool)

    def _idle(self, pool: str) -> Iterator[Comparison]:
        load = one_at_a_time(self.size.of(300, 20))
        yield from self._compare(f"idle, {pool}: send() to the first line", pool, load, at_most(0.8), at_most(1.2))

    def _mixed(self, title: str, load: Sequence[Event]) -> Iterator[Comparison]:
        yield from self._compare(f"mixed load: {title}; the quick ones", MIXED, load, at_most(1), at_most(1))

    def _compare(self, title: str, pool: str, load: Sequence[Event], middle: Goal, worst: Goal) -> Iterator[Comparison]:
        delays: dict[str, list[list[float]]] = {"ours": [], "other": []}
        with self.servers.database("sqlite"), ExitStack() as stack:
            sides = dict(zip(delays, zip(self._sides(pool), (_send_ours, _send_stock), strict=True), strict=True))
            for side, send in sides.values():
                stack.callback(side.stop)
                side.start()
                self._warm_up(side, send)
            for number in range(max(3, self.size.rounds // 2)):
                for name in list(sides)[:: 1 if number % 2 else -1]:
                    delays[name].append(_run(load, *sides[name]))
        for word, quantile, goal in (("p50", 0.5, middle), ("p99", 0.99, worst)):
            ours, other = ([_quantile(each, quantile) * 1e3 for each in side] for side in delays.values())
            yield summarize(f"{title}, {word} ÷ Celery", ours, other, "ms", goal)

    @staticmethod
    def _warm_up(side: Side, send: Send) -> None:
        """Let a worker start, and meet each signal."""
        kinds = [*SIGNALS] * 10
        for kind in kinds:
            send(kind, 0.0)
        side.wait_for(len(kinds))
        side.tally.reset()

    def _cost(self) -> Iterator[Comparison]:
        used: dict[str, list[tuple[float, float]]] = {"ours": [], "other": []}
        with self.servers.database("sqlite"):
            for _ in range(2):
                for name, side, send in zip(used, self._sides(MIXED), (_send_ours, _send_stock), strict=True):
                    side.start()
                    try:
                        self._warm_up(side, send)
                        used[name].append(self._watch(side, IDLE))
                    finally:
                        side.stop()
        for place, (title, unit) in enumerate((("CPU", "ms/s"), ("broker commands", "/s"))):
            ours, other = ([each[place] for each in side] for side in used.values())
            yield summarize(f"an idle worker, {MIXED}: {title} ÷ Celery's", ours, other, unit, at_most(1.1))

    def _watch(self, side: Side, seconds: float) -> tuple[float, float]:
        """Return the load of an idle worker: CPU milliseconds and broker commands a second."""
        time.sleep(2.0)
        pids = [program.pid for program in side.programs if program.pid]
        cpu, commands = cpu_seconds(*pids), self._commands()
        time.sleep(seconds)
        cpu, commands = cpu_seconds(*pids) - cpu, self._commands() - commands - 1  # the question itself
        return cpu * 1e3 / seconds, max(commands, 1) / seconds

    def _commands(self) -> int:
        return int(self.servers.client.info("stats")["total_commands_processed"])


def _run(load: Sequence[Event], side: Side, send: Send) -> list[float]:
    """Send a load at its rate; return how late the quick messages were, in seconds."""
    start = time.monotonic()
    for event in sorted(load, key=lambda event: event.at):
        time.sleep(max(0.0, start + event.at - time.monotonic()))
        send(event.kind, event.seconds)
    side.wait_for(len(load))
    time.sleep(max(event.seconds for event in load))  # it has begun: the next load must not meet it
    delays = side.tally.delays()
    side.tally.reset()
    return delays


def _quantile(values: Sequence[float], quantile: float) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[round(quantile * 100) - 1]
