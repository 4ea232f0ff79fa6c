"""What must hold under each fault: the one place to tighten.

Today every signal behaves as with ``durable=False`` (README, the table of promises): as safe as the broker. What that
leaves open is left open here with its reason, still counted and reported; the ledger closes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure must keep to.

    Args:
        most: it may not be more.
        least: it may not be less.
    """

    most: float | None = None
    least: float | None = None


def broken(bounds: Mapping[str, Bound], figures: Mapping[str, float]) -> list[str]:
    """Return a sentence for each bound that the figures do not keep to."""
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


def _but(*left_open: str, **more: Bound) -> dict[str, Bound]:
    return {name: bound for name, bound in EVERYTHING.items() if name not in left_open} | more


# Within 30 s of a kill; what is hit again by the next one takes twice as long.
BACK_SOON = {"p99": Bound(most=30.0), "max": Bound(most=60.0)}
# CONNECT_TIMEOUT and PUBLISH_TIMEOUT of the suite, a second each, for each of two queues at most; and the commit.
SEND_BUDGET = Bound(most=5.0)

HOLDS: dict[str, dict[str, Bound]] = {
    # Lost: what kombu's BRPOP has taken off the queue, and nobody has written down. Duplicate: a first attempt's commit
    # that the broker did not hear of.
    "worker_killed": _but("lost", "duplicate", **BACK_SOON),
    "worker_killed_threads": _but("lost", "duplicate", **BACK_SOON),
    "worker_killed_solo": _but("lost", "duplicate", **BACK_SOON),
    "child_killed": _but("duplicate", **BACK_SOON),
    "poison": _but(poison_runs=Bound(most=3), poison_alive=NONE, workers_died=NONE),
    # The stopped worker's messages are given out again, and it goes on with them when it wakes.
    "worker_stopped": _but("duplicate"),
    # Lost: what was committed, and never published.
    "sender_killed": _but("lost"),
    "sender_killed_after_insert": _but(),
    "sender_killed_after_commit": _but("lost"),
    "sender_killed_after_publish": _but(),
    "sweepers_killed": _but("lost", "duplicate"),
    # What a reply of the broker's carried when it died is lost; its file has it neither as queued nor as taken.
    # Stuck: a consumer of kombu whose broker goes away while it acknowledges may wait for ever on a dead connection.
    # Its worker lives, and takes nothing more until it is started again (seen with restarts in quick succession).
    "broker_killed": _but("lost", "duplicate", "stuck", workers_died=NONE),
    "broker_wiped": _but("lost", "duplicate", workers_died=NONE),
    "broker_full": _but("lost", "duplicate"),
    "broker_stopped": _but("lost", "duplicate", longest_send=SEND_BUDGET, workers_died=NONE),
    "database_restarted": _but("duplicate"),
    # Where locks are waited for longer than TIME_LIMIT, the kill comes after the commit of a message's first receiver.
    "deadlocks": _but("duplicate"),
    "clock_skewed": _but("duplicate"),
    "slow_backlog": _but(p99_steady=Bound(most=5.0), memory_growth=Bound(most=1.25)),
    # Some workers do not end within 30 s of SIGTERM, and are killed then, which repeats what they had begun.
    "rolling_deploy": _but("duplicate"),
    "worker_terminated": _but("lost", "duplicate"),
}

# Recovery divided by baseline, where nothing is promised yet about losses under the fault itself.
_STEADY = {"ratio": Bound(least=0.95), "phantom": NONE, "stuck": NONE}
CELLS: dict[str, dict[str, Bound]] = {
    "postgres_restart": _STEADY,
    "pg_backend_kill": _STEADY,
    "pool_exhaustion": _STEADY | _but(),
    "crash_recovery": _STEADY,
    "repeated_kills": _STEADY,
    "idle_in_tx": _STEADY | _but(),
    "active_readers": _STEADY | _but(),
    "sustained_high_load": _STEADY | _but(),
    "event_delivery_burst": _STEADY | _but(),
}
