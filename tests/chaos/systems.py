"""The two systems that a scenario compares, the bus and procrastinate, each with its own database on one server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Protocol

from django.db import connection

from tests.chaos.cluster import Cluster, WorkerOptions
from tests.servers import CHECKOUT, ProcessWatcher, wait_until

if TYPE_CHECKING:
    from pathlib import Path

WORKERS = 2
SLOTS = 2  # of each worker


class ComparedSystem(Protocol):
    """The operations of a system that a scenario needs.

    Args:
        cluster: its database and its journal.
        tables: what a reader of its queue scans.
    """

    cluster: Cluster
    tables: tuple[str, ...]

    def start(self) -> None:
        """Start its workers."""

    def send(self, rate: float) -> None:
        """Start a sender."""

    def kill(self) -> None:
        """Kill one of its workers; do nothing if it is dead already."""

    def revive(self) -> None:
        """Start the worker that was killed."""

    def dead(self) -> int:
        """Return how many workers have ended by themselves, and start none."""

    def stop(self) -> None:
        """End its workers."""


class Bus:
    """The side of the bus."""

    tables: tuple[str, ...] = ("signalbus_message", "signalbus_delivery")

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def start(self) -> None:
        """Start its workers."""
        self.cluster.start_workers(*[WorkerOptions(concurrency=SLOTS)] * WORKERS)

    def send(self, rate: float) -> None:
        """Start a sender."""
        self.cluster.send("--kinds", "working", "--rate", str(rate))

    def kill(self) -> None:
        """Kill one worker with all its processes."""
        worker = self.cluster.workers[0]
        if worker.pid is not None:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()

    def revive(self) -> None:
        """Replace it."""
        if self.cluster.workers[0].pid is None:
            worker = self.cluster.replace(self.cluster.workers[0])
            self.cluster.workers.remove(worker)
            self.cluster.workers.insert(0, worker)

    def dead(self) -> int:
        """Count those that do not run."""
        return sum(worker.pid is None for worker in self.cluster.workers)

    def stop(self) -> None:
        """Do nothing: the cluster ends the workers."""


class Procrastinate:
    """The side of procrastinate: two worker processes with as many slots, by its command line."""

    tables: tuple[str, ...] = ("procrastinate_jobs", "procrastinate_events")

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._workers: list[tuple[subprocess.Popen[bytes], ProcessWatcher]] = []

    @staticmethod
    def _command(*words: str) -> list[str]:
        return [sys.executable, "-m", "procrastinate", "--app=tests.chaos.procrastinate_app.app", *words]

    def start(self) -> None:
        """Make its tables, and start its workers."""
        environment = {**os.environ, **self.cluster.environment}
        subprocess.run(
            self._command("schema", "--apply"), cwd=CHECKOUT, env=environment, check=True, capture_output=True
        )
        for _ in range(WORKERS):
            self._workers.append(self._start())

    def _start(self) -> tuple[subprocess.Popen[bytes], ProcessWatcher]:
        log_path: Path = self.cluster.directory / "procrastinate.log"
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                self._command("worker", "--concurrency", str(SLOTS)),
                cwd=CHECKOUT,
                env={**os.environ, **self.cluster.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return process, ProcessWatcher(-process.pid)

    def send(self, rate: float) -> None:
        """Start a sender."""
        self.cluster.send("--rate", str(rate), module="tests.chaos.procrastinate_app")

    def kill(self) -> None:
        """Kill one worker."""
        process, _ = self._workers[0]
        if process.poll() is None:
            process.kill()
            process.wait()

    def revive(self) -> None:
        """Start another in its place."""
        process, watcher = self._workers[0]
        if process.poll() is not None:
            watcher.release()
            self._workers[0] = self._start()

    def dead(self) -> int:
        """Count those that do not run."""
        return sum(process.poll() is not None for process, _ in self._workers)

    def stop(self) -> None:
        """End them at once, because one that lost its database may wait for ever."""
        for process, watcher in self._workers:
            process.kill()
            process.wait()
            watcher.release()
        self._workers.clear()


def cut_off(cluster: Cluster, *, all_but: str) -> None:
    """Terminate all of a database's connections but those of one application.

    Args:
        cluster: whose database.
        all_but: the application_name of who asks.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> %s",
            [all_but],
        )


def ready(system: ComparedSystem, effects: int) -> None:
    """Wait until a side has proved that it works."""
    wait_until(lambda: system.cluster.effects() >= effects, 90.0, f"the first effects of {type(system).__name__}")
