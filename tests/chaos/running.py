"""Runs the faults one after the other, each on a cluster of its own."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from django.core.management import call_command
from django.db import connection

from tests.chaos.checker import judge
from tests.chaos.cluster import Cluster, Span
from tests.chaos.expectations import HOLDS, ON_SQLITE, broken, without_times
from tests.chaos.faults import FAULTS, MEASURES
from tests.chaos.report import Result
from tests.servers import default_database, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.faults import Fault
    from tests.chaos.servers import RestartablePostgres

WARM_UP = 20  # effects before a fault begins


@dataclass(frozen=True, slots=True)
class Plan:
    """The intensity and the duration.

    Args:
        seconds: for each fault, at least.
        rate: messages a second.
        kills: injections of each fault that ends processes, at least.
        timed: whether times are judged: the machine has nothing else to do.
    """

    seconds: float
    rate: float
    kills: int
    timed: bool = True


@contextmanager
def new_cluster(name: str, database: str, postgres: RestartablePostgres | None, *broker: str) -> Iterator[Cluster]:
    """Set up a cluster with an empty database; its directory stays if a file ``kept`` is in it."""
    directory = Path(tempfile.mkdtemp(prefix=f"signalbus-chaos-{name}-"))
    server = postgres if database == "postgres" else None
    url = server.create() if server is not None else f"sqlite:///{directory / 'db.sqlite3'}"
    try:
        with default_database(url):
            call_command("migrate", run_syncdb=True, verbosity=0)
            with Cluster(directory, url, server, *broker) as made:
                yield made
            connection.close()
    except AssertionError as error:
        # A step took too long: keep the logs, and let the caller report this run and continue with the next.
        error.add_note(f"logs: {directory}")
        (directory / "kept").touch()
        raise
    finally:
        if server is not None:
            server.drop(url)
        if not (directory / "kept").exists():
            shutil.rmtree(directory, ignore_errors=True)


def run(name: str, database: str, plan: Plan, postgres: RestartablePostgres | None) -> Result:
    """Inject a fault, and judge the result.

    Args:
        name: of the fault.
        database: "postgres" or "sqlite".
        plan: how hard and how long.
        postgres: the server; None where only SQLite is asked for.
    """
    fault = FAULTS[name]
    if fault.missing:
        return Result(name, fault.title, database, skipped=fault.missing)
    try:
        return _run(name, database, plan, postgres)
    except AssertionError as error:
        return Result(name, fault.title, database, broken=[stopped(error)])


def stopped(error: AssertionError) -> str:
    """Return a sentence for a run that could not go on."""
    return " ".join([str(error).splitlines()[0], *getattr(error, "__notes__", [])[-1:]])


def _run(name: str, database: str, plan: Plan, postgres: RestartablePostgres | None) -> Result:
    fault = FAULTS[name]
    with new_cluster(name, database, postgres, *fault.broker) as cluster:
        span = Span(plan.seconds, plan.kills if fault.kills else 1)
        began = time.monotonic()
        _act(cluster, fault, span, plan.rate)
        lasted = time.monotonic() - began
        settled = cluster.settle()
        if name in MEASURES:
            MEASURES[name](cluster)
        evidence = cluster.evidence()
        verdict = judge(evidence)
        figures = {
            **verdict.figures(),
            **cluster.figures,
            "sent": len(evidence.notes.sent),
            "sends_raised": len(evidence.notes.raised),
            "longest_send": max(evidence.notes.waits, default=0.0),
            "workers_died": cluster.died,
            "workers_hung": cluster.hung,
            "settled_after": settled,
        }
        bounds = HOLDS[name] | (ON_SQLITE.get(name, {}) if database == "sqlite" else {})
        wrong = broken(bounds if plan.timed else without_times(bounds), figures)
        if wrong:
            (cluster.directory / "kept").touch()
        kept = str(cluster.directory) if wrong else ""
    examples = verdict.examples()
    return Result(name, fault.title, database, span.injections, lasted, plan.rate, figures, wrong, examples, kept=kept)


def _act(cluster: Cluster, fault: Fault, span: Span, rate: float) -> None:
    """Start everything, wait until it works, and inject the fault."""
    cluster.start_workers(*fault.workers)
    doom = ("--die-after", fault.die_after) if fault.die_after else ()
    cluster.send("--kinds", ",".join(fault.kinds), "--rate", str(rate), *doom)
    if not doom:
        wait_until(lambda: cluster.effects() >= WARM_UP, 60.0, "the first effects")
    fault.inject(cluster, span)
