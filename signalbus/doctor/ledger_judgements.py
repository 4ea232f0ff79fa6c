"""Judge the ledger: its migrations, its sweepers, the purge, what waits and what has failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from signalbus.doctor.findings import Finding, duration, ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from signalbus.ledger.operations import Failures

SWEPT: Final = 180.0  # seconds without a sign of a sweeper; one shows a sign each half minute
OLD: Final = 300.0  # seconds that a delivery may wait without a warning
VERY_OLD: Final = 3600.0
PURGE_DELAY: Final = 3600.0  # seconds that the purge may be late


def judge_migrations(missing: Sequence[str], database: str) -> Finding:
    """Judge whether the migrations of signalbus are applied.

    Args:
        missing: the names of those that are not.
        database: the alias of the ledger's database.
    """
    name = "ledger.migrations"
    if not missing:
        return ok(name, "All migrations of signalbus are applied.")
    option = "" if database == "default" else f" --database {database}"
    return problem(name, f"Not applied: {', '.join(missing)}.", f"Run manage.py migrate signalbus{option}.")


def judge_sweepers(idle: float | None, *, switched_off: bool) -> Finding:
    """Judge whether a sweeper works: without one, nothing is retried, and nothing lost comes back.

    Args:
        idle: seconds since a sweeper showed a sign; None if none ever did.
        switched_off: whether ``SWEEP_SECONDS`` is 0 in these settings.
    """
    name = "ledger.sweepers"
    if idle is not None and idle <= SWEPT:
        return ok(name, f"A sweeper worked {duration(idle)} ago.")
    text = "No sweeper has ever worked" if idle is None else f"No sweeper has worked for {duration(idle)}"
    remedy = (
        'SIGNALBUS["SWEEP_SECONDS"] is 0 here: start a worker where it is not.' if switched_off else "Start a worker."
    )
    return problem(name, f"{text}: nothing is retried, and nothing that was lost comes back.", remedy)


def judge_purge(oldest: float | None, keep: float) -> Finding:
    """Judge whether the purge keeps up with what ends.

    Args:
        oldest: seconds since the oldest closed delivery ended; None if there is none.
        keep: ``KEEP_SECONDS``.
    """
    name = "ledger.purge"
    if oldest is None or oldest <= keep + PURGE_DELAY:
        return ok(name, f"Nothing is kept for much longer than KEEP_SECONDS ({duration(keep)}).")
    return warning(
        name,
        f"The tables grow: what ended {duration(oldest)} ago is not purged, and KEEP_SECONDS is {duration(keep)}.",
        "Run manage.py signalbus purge when the database is quiet; see that a worker runs, and its log.",
    )


def judge_waiting(queue: str, waiting: int, age: float | None) -> Finding:
    """Judge how long the oldest delivery of a queue has waited.

    Args:
        queue: its name.
        waiting: how many wait.
        age: seconds since the oldest was sent; None if none waits.
    """
    name = f"queue.{queue}.waiting"
    if age is None or age < OLD:
        return ok(name, f"{waiting} wait in {queue}{'' if age is None else f', the oldest for {duration(age)}'}.")
    return (problem if age >= VERY_OLD else warning)(
        name,
        f"{waiting} wait in {queue}, the oldest for {duration(age)}.",
        "Start more workers, or find what keeps them busy: manage.py signalbus status, failed.",
    )


def judge_failures(failed: Failures) -> Finding:
    """Judge what has failed for good, and what no worker knows.

    Args:
        failed: the numbers.
    """
    name = "ledger.failures"
    if not failed.dead and not failed.parked:
        return ok(name, f"Nothing is dead or parked; {failed.retrying} wait for their next attempt.")
    return warning(
        name,
        f"{failed.dead} dead, {failed.parked} parked, {failed.retrying} wait for their next attempt.",
        "manage.py signalbus failed lists them with their errors.",
    )
