"""The expectations for each fault: the one place to tighten them.

Nothing is lost, nothing that an atomic receiver wrote is there twice, nothing happened that was not committed, and
nothing is left over; what else must hold for a fault stands with it. Times are judged in the long form alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Bound:
    """The limit of a figure.

    Args:
        most: it may not be more.
        least: it may not be less.
    """

    most: float | None = None
    least: float | None = None


# What depends on how much else the machine has to do.
TIMES = frozenset({"p99", "max", "p99_steady", "longest_send", "rate_error"})


def without_times(bounds: Mapping[str, Bound]) -> dict[str, Bound]:
    """Return the expectations that hold on a machine with any other load."""
    return {name: bound for name, bound in bounds.items() if name not in TIMES}


def broken(bounds: Mapping[str, Bound], figures: Mapping[str, float]) -> list[str]:
    """Return a sentence for each bound that the figures break."""
    sentences = []
    for name, bound in bounds.items():
        value = figures.get(name)
        if value is None:
            sentences.append(f"{name} was not measured")
        elif bound.most is not None and value > bound.most:
            sentences.append(f"{name} {value:g}, at most {bound.most:g}")
        elif bound.least is not None and value < bound.least:
            sentences.append(f"{name} {value:g}, at least {bound.least:g}")
    return sentences


NONE = Bound(most=0)
EVERYTHING = {"lost": NONE, "duplicate": NONE, "phantom": NONE, "stuck": NONE, "dead": NONE}


def _all(**more: Bound) -> dict[str, Bound]:
    return EVERYTHING | more


# Within 30 s of a kill; what is hit again by the next one takes twice as long.
BACK_SOON = {"p99": Bound(most=30.0), "max": Bound(most=60.0)}
# CONNECT_TIMEOUT and PUBLISH_TIMEOUT of the suite, a second each, for each of two queues at most; and the commit.
SEND_BUDGET = Bound(most=5.0)

HOLDS: dict[str, dict[str, Bound]] = {
    "worker_killed": _all(**BACK_SOON),
    "worker_killed_threads": _all(**BACK_SOON),
    "worker_killed_solo": _all(**BACK_SOON),
    "worker_killed_gevent": _all(**BACK_SOON),
    "child_killed": _all(**BACK_SOON),
    "poison": _all(poison_runs=Bound(most=3), poison_alive=NONE, workers_died=NONE),
    "worker_stopped": _all(),
    "sender_killed": _all(**BACK_SOON),
    "sender_killed_after_insert": _all(**BACK_SOON),
    "sender_killed_after_commit": _all(**BACK_SOON),
    "sender_killed_after_publish": _all(**BACK_SOON),
    "sweepers_killed": _all(),
    "broker_killed": _all(workers_died=NONE),
    "broker_wiped": _all(workers_died=NONE, max=Bound(most=60.0)),
    "combined": _all(),
    "broker_full": _all(),
    "broker_stopped": _all(longest_send=SEND_BUDGET, workers_died=NONE),
    "database_restarted": _all(),
    "receiver_paused": _all(latest_start=Bound(most=5.0), counted=NONE, rate_error=Bound(most=0.1)),
    "deadlocks": _all(),
    "clock_skewed": _all(),
    "slow_backlog": _all(p99_steady=Bound(most=5.0), memory_growth=Bound(most=1.25)),
    "rolling_deploy": _all(),
    "worker_terminated": _all(),
}

# On SQLite a slow atomic receiver keeps everybody else from writing, whatever the queues: told, and not judged.
ON_SQLITE = {"slow_backlog": {"p99_steady": Bound()}}

# Recovery divided by baseline.
_STEADY = _all(ratio=Bound(least=0.95))
SCENARIOS: dict[str, dict[str, Bound]] = {
    "postgres_restart": _STEADY,
    "pg_backend_kill": _STEADY,
    "pool_exhaustion": _STEADY,
    "crash_recovery": _STEADY,
    "repeated_kills": _STEADY,
    "idle_in_tx": _STEADY,
    "active_readers": _STEADY,
    "sustained_high_load": _STEADY,
    "event_delivery_burst": _STEADY,
}
