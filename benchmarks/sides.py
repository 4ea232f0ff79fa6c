"""The sides of a race: workers, and the slices of messages that wait for them."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from operator import methodcaller
from typing import TYPE_CHECKING

from benchmarks.processes import cpu_seconds
from benchmarks.program import Program
from benchmarks.queued_copies import readdress
from benchmarks.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.servers import Servers

PATIENCE = 120.0  # seconds for a slice
SETTLING = 0.25  # seconds in which a worker acknowledges what it has done


class SideError(Exception):
    """A worker ended, or made no progress.

    Args:
        name: of the side.
        why: with the end of its log.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name = name


@dataclass(frozen=True, slots=True)
class Slice:
    """The result of a slice.

    Args:
        rate: messages a second, from the first completion to the last.
        cpu: microseconds of processor time a message: worker, children, broker and database.
    """

    rate: float
    cpu: float


@dataclass
class Side:
    """A worker, and its messages on the broker.

    Args:
        name: as the table has it.
        servers: of the run.
        commands: of its programs, each from the module's name on.
        fill: sends so many messages.
        messages: in a slice.
        keys: of the broker, that hold what was sent.
        consumed: the queue of the (Celery) worker, where that is another than the one that is filled: what was sent is
            put there as if it had been sent through it.
        environment: of its programs.
        slices: how each slice was worked off; the first, with the start, is left out.
    """

    name: str
    servers: Servers
    commands: Sequence[Sequence[str]]
    fill: Callable[[int], None]
    messages: int
    keys: tuple[str, ...]
    consumed: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    slices: list[Slice] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tally = Tally(self.servers.memory / f"tally-{id(self)}")
        environment = {"BENCH_TALLY": str(self.tally.path), **self.environment}
        self.programs = [Program(words, self.servers.folder("program"), environment) for words in self.commands]

    def _slice(self, key: str, number: int) -> str:
        return f"slice-{number}:{id(self)}:{key}"

    def prepare(self, slices: int) -> None:
        """Send the messages before the worker starts, and put them aside."""
        for number in range(slices):
            self.fill(self.messages)
            for key in self.keys:
                if self.consumed is None:
                    self.servers.client.rename(key, self._slice(key, number))
                else:
                    readdress(self.servers, key, self._slice(key, number), self.consumed)

    def start(self) -> None:
        """Start the worker."""
        for program in self.programs:
            program.start()

    def stop(self, *, gently: bool = True) -> None:
        """End the worker."""
        for program in self.programs:
            program.stop(gently=gently)

    def hold(self, number: int) -> Callable[[], None]:
        """Prepare a slice.

        Args:
            number: of the slice.

        Returns:
            What gives all of it to the worker in one moment.
        """

        def release() -> None:
            for key in self.keys:
                self.servers.client.rename(self._slice(key, number), self.consumed or key)

        return release

    def cpu(self) -> float:
        """Return the processor time of the worker and its servers, in seconds."""
        return cpu_seconds(*(program.pid for program in self.programs if program.pid), *self.servers.server_pids())

    def run(self, number: int) -> None:
        """Let the worker run a slice."""
        release = self.hold(number)
        before = self.cpu()
        release()
        self.wait_for(self.messages)
        time.sleep(SETTLING)
        if number:
            self.slices.append(
                Slice((self.messages - 1) / self.tally.seconds(), (self.cpu() - before) / self.messages * 1e6)
            )
        self.tally.reset()

    def wait_for(self, messages: int) -> None:
        """Wait until this number is done.

        Args:
            messages: since the tally began.

        Raises:
            SideError: the worker has ended, or does not get on.
        """
        deadline = time.monotonic() + PATIENCE
        while (done := len(self.tally)) < messages:
            if time.monotonic() > deadline or any(program.pid is None for program in self.programs):
                log = "\n".join(program.log[-2000:] for program in self.programs)
                raise SideError(self.name, f"{done} of {messages} messages are done\n{log}")
            time.sleep(0.01)

    @property
    def rates(self) -> list[float]:
        """Return messages a second, for each slice."""
        return [each.rate for each in self.slices]

    @property
    def cpus(self) -> list[float]:
        """Return microseconds of processor time for a message, for each slice."""
        return [each.cpu for each in self.slices]


def race(sides: Sequence[Side], rounds: int) -> list[SideError]:
    """Let all sides run their slices in turn; those that fail leave the race.

    Args:
        sides: whose workers are started, all of them, and ended.
        rounds: how many slices count.

    Returns:
        Who failed, and why.
    """
    failed: list[SideError] = []
    running = list(sides)

    def all_do(step: Callable[[Side], object]) -> None:
        for side in list(running):
            try:
                step(side)
            except SideError as error:
                failed.append(error)
                side.slices.clear()
                side.stop(gently=False)
                running.remove(side)
        running.append(running.pop(0))  # another one begins the next step

    with ExitStack() as stack:
        all_do(methodcaller("prepare", rounds + 1))
        for side in running:
            stack.callback(side.stop)
            side.start()
        for number in range(rounds + 1):
            all_do(methodcaller("run", number))
    return failed
