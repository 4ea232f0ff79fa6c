"""Times several ways to do a thing in turn, so that the machine's other load affects all of them."""

from __future__ import annotations

import gc
import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Ways = Mapping[str, Callable[[], object]]
    Times = dict[str, list[float]]


def by_turns(
    ways: Ways,
    *,
    calls: int,
    rounds: int,
    between: Callable[[], object] = int,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Time each way once, then all of them again; the median of a round's calls counts.

    One after the other, as a program calls them that does something else in between: in a loop of its own, code that
    waits for a socket is up to three times as fast.

    Args:
        ways: functions without arguments, by their names.
        calls: of each, in a round.
        rounds: how many count; one more, which fills the caches, does not.
        between: cleans up after each round.
        clock: of seconds.

    Returns:
        For each way the microseconds of a call, a number for each round.
    """
    times: Times = {name: [] for name in ways}
    order = list(ways.items())
    for _ in range(rounds + 1):
        round_: Times = {name: [] for name in ways}
        gc.collect()
        gc.disable()
        try:
            for _ in range(calls):
                for name, function in order:
                    start = clock()
                    function()
                    round_[name].append(clock() - start)
                order.append(order.pop(0))
        finally:
            gc.enable()
        between()
        for name, seconds in round_.items():
            times[name].append(statistics.median(seconds) * 1e6)
    return {name: each[1:] for name, each in times.items()}


def repeated(function: Callable[[], object], times: int) -> Callable[[], None]:
    """Return a function that calls another one repeatedly, for calls too brief for the clock."""

    def call() -> None:
        for _ in range(times):
            function()

    return call


def each(times: list[float], number: int) -> list[float]:
    """Return the time of one operation, given that of a call with several."""
    return [time_ / number for time_ in times]
