"""The cluster of a fault: a database, a broker, workers and senders, all of them processes that it starts and ends."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped]  # it ships no types
from django.db import Error, connection

from signalbus.embedded import EmbeddedValkey
from tests.chaos import journal, skew
from tests.chaos.checker import Effect, Evidence
from tests.chaos.project.settings import TIME_LIMIT
from tests.chaos.roles import RECIPIENTS
from tests.chaos.servers import held
from tests.servers import CHECKOUT, ProcessWatcher, Worker, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from tests.chaos.servers import RestartablePostgres

SETTINGS = "tests.chaos.project.settings"
LEASE = 3 * TIME_LIMIT  # seconds after which what a worker was given is given out again
GRACE = 30.0  # seconds that a worker gets to end
START = 90.0  # seconds that it gets to be ready, on a machine that has much else to do
# Seconds without any progress after which nothing more is expected: what was lost twice is asked for after 40 s, and
# workers have to find the way back to their broker.
PATIENCE = 90.0


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """One worker.

    Args:
        pool: Celery's name of it.
        concurrency: how many at once.
        queues: what it consumes; None for all.
        environment: what differs from the other workers'.
    """

    pool: str = "prefork"
    concurrency: int = 2
    queues: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Span:
    """The duration of a fault, and the number of its injections.

    Args:
        seconds: at least.
        least: injections, at least.
    """

    seconds: float
    least: int = 1
    injections: int = 0
    _end: float = 0.0

    def turns(self, low: float, high: float) -> Iterator[int]:
        """Yield at random moments until time and number are reached; each is an injection.

        Args:
            low: seconds between two, at least.
            high: at most.
        """
        self._end = time.monotonic() + self.seconds
        while time.monotonic() < self._end or self.injections < self.least:
            time.sleep(random.uniform(low, high))
            self.injections += 1
            yield self.injections


class Cluster:
    """The processes of one run, as a context manager; what it starts, it ends.

    Args:
        directory: for logs and the journal.
        database_url: a database with all tables, which is also this process's default one.
        postgres: its server, or None for SQLite.
        broker_options: of Valkey's command line.
    """

    def __init__(
        self, directory: Path, database_url: str, postgres: RestartablePostgres | None, *broker_options: str
    ) -> None:
        self.directory = directory
        self.database_url = database_url
        self._postgres = postgres
        self.broker = EmbeddedValkey(*broker_options)
        self.journal = directory / "journal"
        self.workers: list[Worker] = []
        self.died = 0  # workers that ended by themselves
        self.hung = 0  # workers that did not end when they were asked to
        self.figures: dict[str, float] = {}  # what a fault measures beside the verdict
        self._options: dict[str, WorkerOptions] = {}  # by a worker's name
        self._senders: dict[int, tuple[subprocess.Popen[bytes], ProcessWatcher, tuple[str, ...]]] = {}

    def __enter__(self) -> Self:
        self.broker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for pid in list(self._senders):
            self.kill_sender(pid)
        for worker in self.workers:
            self._end(worker)
        self.broker.stop()

    def note_worst(self, name: str, value: float) -> None:
        """Keep a figure if it is larger than that of an earlier injection."""
        self.figures[name] = max(value, self.figures.get(name, 0.0))

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of all processes of the run."""
        return {
            "DJANGO_SETTINGS_MODULE": SETTINGS,
            "DATABASE_URL": self.database_url,
            "CELERY_BROKER_URL": self.broker.url,
            "CHAOS_JOURNAL": str(self.journal),
            "PYTHONPATH": str(CHECKOUT),
        }

    @property
    def postgres(self) -> RestartablePostgres:
        """The database's server."""
        assert self._postgres is not None, "this fault needs PostgreSQL"
        return self._postgres

    # Workers

    def start_workers(self, *workers: WorkerOptions) -> None:
        """Start workers, and return when they are ready."""
        started = [self._start(options) for options in workers]
        for worker in started:
            worker.wait_until_ready()

    def _start(self, options: WorkerOptions) -> Worker:
        queues = ("-Q", options.queues) if options.queues else ()
        environment = {**self.environment, **options.environment}
        if skew.SECONDS in environment:
            environment["LD_PRELOAD"] = str(skew.library())
        worker = Worker(
            self.directory,
            *queues,
            pool=options.pool,
            concurrency=options.concurrency,
            environment=environment,
            timeout=START,
        )
        self._options[worker.name] = options
        self.workers.append(worker.start())
        return worker

    def replace(self, worker: Worker, options: WorkerOptions | None = None) -> Worker:
        """Start a worker in the place of one that is dead or dying.

        What is left of the old one's processes goes on until the new one is ready, and is ended then.

        Args:
            worker: the old one.
            options: what the new one is; as the old one was if None.
        """
        self.workers.remove(worker)
        fresh = self._start(options or self._options[worker.name])
        fresh.wait_until_ready()
        self._end(worker)
        return fresh

    def shut_down(self, worker: Worker, *numbers: signal.Signals) -> None:
        """Ask a worker to end, and wait as an orchestrator does before it kills; count one that has not ended.

        Args:
            worker: who must go; ``replace`` clears up.
            numbers: the signals that it gets, a moment between two.
        """
        began = time.monotonic()
        for number in numbers:
            if worker.pid is not None:
                worker.signal(number)
                time.sleep(0.3)
        try:
            worker.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.hung += 1
            self._keep_log(worker, "hung")
        took = time.monotonic() - began
        self.figures["longest_shutdown"] = max(took, self.figures.get("longest_shutdown", 0.0))

    def _keep_log(self, worker: Worker, why: str) -> None:
        (self.directory / f"{why}-{worker.log_path.name}").write_text(worker.log)

    def _end(self, worker: Worker) -> None:
        """End a worker and all of its processes, at once."""
        for process in self.processes(worker):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
        if worker.pid is not None:
            worker.kill()
        worker.stop()

    def revive(self) -> None:
        """Start workers that have ended by themselves, as a supervisor does, and count them."""
        for worker in list(self.workers):
            if worker.pid is None:
                self.died += 1
                self._keep_log(worker, "died")
                self.replace(worker)

    @staticmethod
    def processes(worker: Worker) -> list[psutil.Process]:
        """Return a worker's processes, the main one first."""
        if worker.pid is None:
            return []
        with suppress(psutil.NoSuchProcess):
            main = psutil.Process(worker.pid)
            return [main, *main.children(recursive=True)]
        return []

    # Senders

    def send(self, *options: str, module: str = "tests.chaos.sender") -> int:
        """Start a process that sends; return its id."""
        command = [sys.executable, "-m", module, *options]
        with (self.directory / "senders.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=CHECKOUT,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._senders[process.pid] = (process, ProcessWatcher(-process.pid), options)
        return process.pid

    @property
    def senders(self) -> list[int]:
        """The ids of the processes that send."""
        return list(self._senders)

    def sender_ended(self, pid: int) -> bool:
        """Return whether a sender has ended by itself."""
        return self._senders[pid][0].poll() is not None

    def kill_sender(self, pid: int) -> tuple[str, ...]:
        """End a sender as ``kill -9`` does, if it has not ended; return its options."""
        return self._end_sender(pid, signal.SIGKILL)

    def stop_sender(self, pid: int) -> None:
        """Let a sender finish its present transaction."""
        self._end_sender(pid, signal.SIGTERM)

    def stop_senders(self) -> None:
        """Let all senders finish."""
        for pid in self.senders:
            self.stop_sender(pid)

    def _end_sender(self, pid: int, number: signal.Signals) -> tuple[str, ...]:
        process, watcher, options = self._senders.pop(pid)
        process.send_signal(number)  # none where it has ended by itself
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        watcher.release()
        return options

    # What is known

    def asked(self, ask: Callable[[], Any]) -> Any:
        """Query the database, which may have been away since the last query."""
        try:
            return ask()
        except Error:
            connection.close()
            return wait_until(lambda: self._answered(ask), 30.0, "the database")[0]

    @staticmethod
    def _answered(ask: Callable[[], Any]) -> tuple[Any] | None:
        try:
            return (ask(),)
        except Error:
            connection.close()
            return None

    def effects(self) -> int:
        """Return how many effects there are."""
        from tests.chaos.project.models import Effect as Row

        return int(self.asked(Row.objects.count))

    def progress(self) -> tuple[int, int]:
        """Return how many effects there are, and how many deliveries are open."""
        from signalbus.models import OPEN_STATES, Delivery

        opened = self.asked(Delivery.objects.filter(state__in=OPEN_STATES).count)
        return self.effects(), opened

    def settle(self) -> float:
        """Stop sending, and wait until all is done, or nothing changes any more.

        Returns:
            The seconds that it took.
        """
        self.stop_senders()
        self.revive()
        began = moved = time.monotonic()
        before = self.progress()
        while time.monotonic() - moved < PATIENCE:
            time.sleep(0.5)
            self.revive()
            now = self.progress()
            if now != before:
                before, moved = now, time.monotonic()
            elif not now[1] and time.monotonic() - moved > 1 and self._complete():
                break
        return moved - began

    def _complete(self) -> bool:
        """Return whether each acknowledged or committed delivery has an effect or an end."""
        evidence = self.evidence()
        bound = evidence.committed | evidence.notes.acknowledged.keys()
        have = {(effect.message, effect.receiver) for effect in evidence.effects} | evidence.states.keys()
        sent = evidence.notes.sent
        return all((m, r) in have for m in bound if m in sent for r in RECIPIENTS[sent[m][0]])

    def evidence(self) -> Evidence:
        """Gather the evidence of the run."""
        from signalbus.models import Delivery
        from tests.chaos.project.models import Effect as Row
        from tests.chaos.project.models import Sending

        def ask() -> tuple[list[Any], list[Any], list[Any]]:
            states = Delivery.objects.values_list("message_id", "receiver", "state")
            effects = Row.objects.values_list("message", "receiver", "at")
            return list(states), list(effects), list(Sending.objects.values_list("message", flat=True))

        states, effects, committed = self.asked(ask)
        return Evidence(
            notes=journal.read(self.journal),
            committed=frozenset(map(str, committed)),
            effects=[Effect(str(message), receiver, at) for message, receiver, at in effects],
            states={(str(message), receiver): state for message, receiver, state in states},
            held=held(self.broker.redis_url) if self.broker.pid is not None else frozenset(),
        )
