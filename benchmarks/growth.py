"""Measures costs that must not grow with the backlog, or with the number of signals and receivers."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import signals, workers
from benchmarks.comparison import at_most, summarize
from benchmarks.processes import peak_memory
from benchmarks.queued_copies import multiply, readdress
from benchmarks.receivers import UNCONSUMED
from benchmarks.rows import Part, Row
from benchmarks.servers import QUEUES
from benchmarks.sides import SideError
from tasks.admissions.models import Cohort
from tests.servers import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.comparison import Comparison

BACKLOGS = (10_000, 1_000_000)
WATCHED = 10_000  # messages whose processor time is taken, at the head of each backlog
REGISTERED = (10, 1000)


class Growth(Part):
    """Measures the same with few and with many others."""

    def rows(self) -> Iterator[Row]:
        """List the measurements."""
        yield Row("backlog", self._backlog)
        yield Row("registered", self._registered)

    def _backlog(self) -> Iterator[Comparison]:
        small, big = (self.size.of(backlog, 200 * (place + 1)) for place, backlog in enumerate(BACKLOGS))
        found: dict[int, list[tuple[float, float]]] = {small: [], big: []}
        for _ in range(max(2, self.size.rounds // 2)):
            for backlog, numbers in found.items():
                numbers.append(self.drain(backlog))
        for place, (what, unit) in enumerate((("CPU a message", "us"), ("peak memory", "MB"))):
            ours, other = ([each[place] for each in found[backlog]] for backlog in (big, small))
            yield summarize(f"backlog of {big:,} ÷ {small:,}: {what}", ours, other, unit, at_most(1.1))

    def drain(self, backlog: int) -> tuple[float, float]:
        """Start a worker with a backlog.

        Args:
            backlog: messages that wait.

        Returns:
            Microseconds of processor time a message, of all processes, and the main process's peak memory in MB.
        """
        watched = min(backlog, self.size.of(WATCHED, 100))
        with self.servers.database("sqlite") as cohort:
            send = partial(signals.plain.send, sender=Cohort, cohort_id=cohort.pk, created=True)
            side = workers.ours(self.servers, "prefork")
            side.start()
            try:
                for _ in range(100):
                    send()
                side.wait_for(100)
                side.tally.reset()
                self._pile_up(cohort, backlog)
                before = side.cpu()
                self.servers.client.rename("pile", QUEUES[0])
                side.wait_for(watched)
                done = len(side.tally)
                cpu = (side.cpu() - before) / done * 1e6
                (pid,) = (program.pid for program in side.programs)
                if pid is None:
                    raise SideError(side.name, side.programs[0].log)
                return cpu, peak_memory(pid)
            finally:
                side.stop(gently=False)
                self.servers.clear()

    def _pile_up(self, cohort: Cohort, backlog: int) -> None:
        """Put a backlog aside: one message of another queue, many times."""
        signals.piled.send(sender=Cohort, cohort_id=cohort.pk, created=True)
        readdress(self.servers, UNCONSUMED, "pile", QUEUES[0])
        multiply(self.servers, "pile", backlog)

    def _registered(self) -> Iterator[Comparison]:
        few, many = REGISTERED
        found = self.many_signals([(few, 1), (many, 1)], 5 * self.size.rounds)
        for place, what in enumerate(("send()", "a delivery")):
            ours, other = ([each[place] for each in numbers] for numbers in (found[1], found[0]))
            title = f"{many:,} signals with {many:,} receivers ÷ {few}: {what}"
            yield summarize(title, ours, other, "us", at_most(1.05))

    def many_signals(self, sizes: list[tuple[int, int]], rounds: int) -> list[list[tuple[float, float]]]:
        """Measure in processes with many signals and receivers, in turn.

        Args:
            sizes: for each process the number of signals, and of receivers of the one that is sent.
            rounds: how often.

        Returns:
            For each process and round the microseconds of a send and of a delivery.
        """
        found: list[list[tuple[float, float]]] = [[] for _ in sizes]
        with self.servers.database("sqlite"), _asked(sizes, self.servers.valkey.redis_url) as processes:
            for _ in range(rounds + 1):
                for process, numbers in zip(processes, found, strict=True):
                    send, deliver = _ask(process).split()
                    numbers.append((float(send), float(deliver)))
        return [numbers[1:] for numbers in found]


@contextmanager
def _asked(sizes: list[tuple[int, int]], redis_url: str) -> Iterator[list[subprocess.Popen[str]]]:
    environment = {**os.environ, "BENCH_REDIS_URL": redis_url}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.many_signals", *map(str, size)],
            cwd=CHECKOUT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for size in sizes
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        yield processes
    finally:
        for process in processes:
            process.communicate()


def _ask(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("measure\n")
    process.stdin.flush()
    return process.stdout.readline()
