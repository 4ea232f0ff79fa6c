"""Compares deliveries and sends with those of 0.4.1, the last version that kept nothing of what had ended."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.comparison import at_most, summarize
from benchmarks.rows import Part, Row
from tests.servers import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.comparison import Comparison

NAME = "0.4.1"
REVISION = "acdaa46"  # of it; or a path of another checkout in SIGNALBUS_EARLIER
PROBE = Path(__file__).with_name("version_probe.py")
TURNS = 20  # of each in a round, of which the best counts: many and short ones, so that one is left undisturbed
WAYS = {  # by the probe's names: the title, and the calls of a turn
    "plain": ("a delivery, no transaction", 100),
    "atomic": ("a delivery, in a transaction", 100),
    "fetched": ("a delivery, in a transaction with a row loaded", 50),
    "durable": ("a durable delivery that writes a row", 30),
    "send": ("send(), durable=False", 50),
    "durable_send": ("durable send()", 30),
    "durable_sends": ("durable send(), in a transaction", 10),
    "durable_sends_of_instances": ("durable send() of an instance, in a transaction", 10),
}


class EarlierVersion(Part):
    """Measures the CPU time of deliveries and sends in this process, by turns with the earlier version."""

    def rows(self) -> Iterator[Row]:
        """List the measurements."""
        for kind in ("sqlite", "postgres"):
            yield Row(f"everything kept, {kind}", partial(self._compare, kind))

    def _compare(self, kind: str) -> Iterator[Comparison]:
        with ExitStack() as stack:
            try:
                checkout = self._checkout()
            except (subprocess.CalledProcessError, FileNotFoundError) as error:
                self.servers.left_out[f"signalbus {NAME}"] = f"its code is not here ({error})"
                return
            ours, other = (stack.enter_context(_probe(where, kind)) for where in (CHECKOUT, checkout))
            for way, (title, calls) in WAYS.items():
                best: tuple[list[float], list[float]] = ([], [])
                for _ in range(self.size.rounds):
                    # A quick look makes the turns shorter before it makes them fewer.
                    turns = _by_turns((ours, other), way, self.size.of(calls, 10), min(TURNS, self.size.of(200, 2)))
                    for found, times in zip(best, turns, strict=True):
                        found.append(min(times))
                yield summarize(f"everything kept: {title} ÷ {NAME}'s, {kind}", *best, "us", at_most(1.05))

    def _checkout(self) -> Path:
        """Return a folder with the earlier version's code."""
        if "SIGNALBUS_EARLIER" in os.environ:
            return Path(os.environ["SIGNALBUS_EARLIER"])
        folder = self.servers.folder("earlier")
        archive = folder / "code.tar"
        command = ["git", "archive", "--output", str(archive), REVISION]
        subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
        with tarfile.open(archive) as code:
            code.extractall(folder, filter="data")
        return folder


@contextmanager
def _probe(checkout: Path, kind: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-P", str(PROBE), kind]  # -P: its own folder is this checkout's
    with subprocess.Popen(
        command, cwd=checkout, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as probe:
        try:
            _answer(probe)
            yield probe
        finally:
            probe.communicate()


def _by_turns(probes: tuple[subprocess.Popen[str], ...], way: str, calls: int, turns: int) -> list[list[float]]:
    """Return the times of each probe's turns; each probe begins as often as the other."""
    times: list[list[float]] = [[] for _ in probes]
    order = list(zip(probes, times, strict=True))
    for _ in range(turns):
        for probe, found in order:
            found.append(_ask(probe, way, calls))
        order.reverse()
    return times


def _ask(probe: subprocess.Popen[str], way: str, calls: int) -> float:
    assert probe.stdin is not None
    print(way, calls, file=probe.stdin, flush=True)
    return float(_answer(probe))


def _answer(probe: subprocess.Popen[str]) -> str:
    assert probe.stdout is not None
    answer = probe.stdout.readline()
    if not answer:
        raise RuntimeError("a version's probe has ended; its error is above")
    return answer
