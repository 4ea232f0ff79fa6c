"""The receivers of each signal, in one table for senders, receivers and the checker."""

from __future__ import annotations

_RECEIVERS = "tests.chaos.project.receivers"


def _ids(*names: str) -> tuple[str, ...]:
    return tuple(f"{_RECEIVERS}.{name}" for name in names)


# Each signal of the project, by its variable, with the receivers that must get it.
RECIPIENTS = {
    "steady": _ids("record"),
    "paired": _ids("record_beside", "record_outside"),
    "flaky": _ids("record_at_last"),
    "pausing": _ids("record_after_a_pause"),
    "slow": _ids("record_slowly"),
    "deadly": _ids("receiver_that_kills_its_process", "receiver_that_eats_memory", "receiver_that_exits"),
    "crossing": _ids("lock_one_way", "lock_the_other_way"),
    "young": _ids("record_what_is_new"),
    "grown": _ids("record_as_always", "record_since_lately"),
    "working": _ids("record_after_work"),
}

# Not atomic: its effect and its receipt are two commits, so it is promised to run at least once.
AT_LEAST_ONCE = frozenset(_ids("record_outside"))

# What never succeeds: dead is how it must end.
FATAL = frozenset(RECIPIENTS["deadly"])

POISON_ATTEMPTS = 2  # max_attempts of what never succeeds
WORK_SECONDS = 0.02  # what a delivery of a scenario takes, on both sides
