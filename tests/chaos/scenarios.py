"""The nine scenarios that break queues on PostgreSQL, each for the bus and then for procrastinate, in one run.

Baseline, pressure, recovery; each phase takes as many seconds as the original takes minutes, or what ``SECONDS`` says.
After:  hardbyte/postgresql-job-queue-benchmarking, whose names these are.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from tests.chaos import running
from tests.chaos.checker import judge
from tests.chaos.expectations import SCENARIOS as HOLDS
from tests.chaos.expectations import broken
from tests.chaos.report import Result
from tests.chaos.roles import WORK_SECONDS
from tests.chaos.systems import SLOTS, WORKERS, Bus, Procrastinate, cut_off, ready

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.running import Plan
    from tests.chaos.servers import RestartablePostgres
    from tests.chaos.systems import ComparedSystem

IDLE = 300  # connections that pool_exhaustion holds
READERS = 4
CAPACITY = WORKERS * SLOTS / WORK_SECONDS  # deliveries a second if nothing but the work took time
RATE = 0.25 * CAPACITY  # of a scenario's sender: 50 a second
CONTROL = "signalbus-chaos"  # the application_name of connections that nothing cuts off


@dataclass(frozen=True, slots=True)
class Pressure:
    """A scenario's middle phase.

    Args:
        side: on whom.
        seconds: how long.
        postgres: the server.
    """

    side: ComparedSystem
    seconds: float
    postgres: RestartablePostgres

    def connect(self) -> psycopg.Connection[Any]:
        """Return a connection of our own to the side's database."""
        return psycopg.connect(self.side.cluster.database_url, application_name=CONTROL)

    def every(self, pause: float, do: Callable[[], object]) -> None:
        """Do something repeatedly for the length of the phase."""
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            do()
            time.sleep(pause)


def postgres_restart(on: Pressure) -> None:
    """The server stops for half of the phase."""
    on.postgres.end()
    time.sleep(on.seconds / 2)
    on.postgres.begin()
    time.sleep(on.seconds / 2)


def pg_backend_kill(on: Pressure) -> None:
    """All connections of the side are terminated, twice a second."""
    on.every(0.5, lambda: on.side.cluster.asked(lambda: cut_off(on.side.cluster, all_but=CONTROL)))


def pool_exhaustion(on: Pressure) -> None:
    """Many idle connections are held."""
    with ExitStack() as stack:
        for _ in range(IDLE):
            stack.enter_context(on.connect())
        time.sleep(on.seconds)


def crash_recovery(on: Pressure) -> None:
    """One of two workers is killed, and started again after half of the phase."""
    on.side.kill()
    time.sleep(on.seconds / 2)
    on.side.revive()
    time.sleep(on.seconds / 2)


def repeated_kills(on: Pressure) -> None:
    """One of two workers is killed and started again, repeatedly."""

    def kill_and_revive() -> None:
        on.side.kill()
        on.side.revive()

    on.every(max(1.0, on.seconds / 10), kill_and_revive)
    on.side.revive()


def idle_in_tx(on: Pressure) -> None:
    """A transaction that has written stays idle: rows deleted meanwhile cannot be vacuumed."""
    with on.connect() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS chaos_idle (id int)")
        connection.commit()
        connection.execute("INSERT INTO chaos_idle VALUES (1)")
        connection.execute("SELECT txid_current()")
        time.sleep(on.seconds)
        connection.rollback()


def active_readers(on: Pressure) -> None:
    """Four REPEATABLE READ readers scan the side's tables, a minute (here: a second) in each snapshot."""
    end = time.monotonic() + on.seconds
    failures: list[psycopg.Error] = []

    def read() -> None:
        try:
            with on.connect() as connection:
                connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                while time.monotonic() < end:
                    for table in on.side.tables:
                        connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table)))
                    time.sleep(1.0)
                    connection.rollback()
        except psycopg.Error as error:
            failures.append(error)

    threads = [threading.Thread(target=read, name=f"reader-{number}") for number in range(READERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def oversupply(on: Pressure) -> None:
    """One and a half times as many messages are sent as the workers' receivers alone could run."""
    before = set(on.side.cluster.senders)
    for _ in range(2):
        on.side.send((1.5 * CAPACITY - RATE) / 2)
    time.sleep(on.seconds)
    for pid in set(on.side.cluster.senders) - before:
        on.side.cluster.stop_sender(pid)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario.

    Args:
        press: its middle phase.
        longer: how many times as long as the others that is.
    """

    press: Callable[[Pressure], None]
    longer: float = 1.0


SCENARIOS: dict[str, Scenario] = {
    "postgres_restart": Scenario(postgres_restart),
    "pg_backend_kill": Scenario(pg_backend_kill),
    "pool_exhaustion": Scenario(pool_exhaustion),
    "crash_recovery": Scenario(crash_recovery),
    "repeated_kills": Scenario(repeated_kills),
    "idle_in_tx": Scenario(idle_in_tx),
    "active_readers": Scenario(active_readers),
    "sustained_high_load": Scenario(oversupply),
    "event_delivery_burst": Scenario(oversupply, longer=1.5),  # 45 minutes of it, and 30 of recovery
}


def run(name: str, plan: Plan, postgres: RestartablePostgres) -> list[Result]:
    """Run a scenario for each side, one after the other.

    Args:
        name: of the scenario.
        plan: its seconds are those of a phase.
        postgres: the server of both sides.
    """
    results = []
    for label, side in (("signalbus", Bus), ("procrastinate", Procrastinate)):
        title = (SCENARIOS[name].press.__doc__ or "").strip()
        try:
            figures, wrong, kept = _run(name, side, plan, postgres)
        except AssertionError as error:
            results.append(Result(name, title, label, skipped=running.stopped(error), broken=["not run"]))
        else:
            results.append(
                Result(name, title, label, 1, plan.seconds, RATE, figures, wrong, judged=side is Bus, kept=kept)
            )
    return results


def _run(
    name: str, side: type[Bus | Procrastinate], plan: Plan, postgres: RestartablePostgres
) -> tuple[dict[str, float], list[str], str]:
    """Run a scenario for one side; return its figures, the broken expectations of ours, and the folder of the logs."""
    with running.new_cluster(name, "postgres", postgres) as cluster:
        figures = _measure(SCENARIOS[name], side(cluster), plan, postgres)
        # The results of the other system are shown, and not judged.
        wrong = broken(HOLDS[name], figures) if side is Bus else []
        if wrong:
            (cluster.directory / "kept").touch()
        return figures, wrong, str(cluster.directory) if wrong else ""


def _measure(scenario: Scenario, side: ComparedSystem, plan: Plan, postgres: RestartablePostgres) -> dict[str, float]:
    """Go through the phases, and count the completions in each."""
    try:
        side.start()
        side.send(RATE)
        ready(side, int(RATE))
        marks = [time.monotonic()]
        time.sleep(plan.seconds)
        marks.append(time.monotonic())
        scenario.press(Pressure(side, plan.seconds * scenario.longer, postgres))
        marks.append(time.monotonic())
        time.sleep(plan.seconds)
        marks.append(time.monotonic())
        dead = side.dead()
        settled = side.cluster.settle()
    finally:
        side.stop()
    evidence = side.cluster.evidence()
    spans = zip(("baseline", "pressure", "recovery"), marks[:-1], marks[1:], strict=True)
    rates = {
        phase: sum(begin <= effect.at < end for effect in evidence.effects) / (end - begin)
        for phase, begin, end in spans
    }
    ratio = rates["recovery"] / rates["baseline"] if rates["baseline"] else 0.0
    return {
        **judge(evidence).figures(),
        **rates,
        "ratio": ratio,
        "workers_died": dead,
        "settled_after": settled,
        "longest_send": max(evidence.notes.waits, default=0.0),
    }
