"""The benchmark counts, compares, draws and writes correctly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import accumulate, count
from pathlib import Path
from typing import cast
from xml.etree import ElementTree as ET

import pytest

from benchmarks import page
from benchmarks.comparison import Goal, at_least, at_most, summarize
from benchmarks.peers import ON_THE_BROKER, Peer
from benchmarks.queued_copies import readdressed
from benchmarks.shares import owner
from benchmarks.sides import Side, SideError, race
from benchmarks.svg import Curve, draw
from benchmarks.tally import Tally
from benchmarks.timing import by_turns

ROOT = Path(__file__).resolve().parents[2]
THREADS, TIMES = 4, 2000
COUNTING = f"""
import threading
from benchmarks.tally import tally
def count():
    for _ in range({TIMES}):
        tally()
threads = [threading.Thread(target=count) for _ in range({THREADS})]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_every_completion_is_counted(tmp_path: Path):
    """Threads and processes may count at the same time."""
    counted = Tally(tmp_path / "tally")
    environment = {**os.environ, "BENCH_TALLY": str(counted.path), "PYTHONPATH": str(ROOT)}
    workers = [subprocess.Popen([sys.executable, "-c", COUNTING], env=environment) for _ in range(2)]

    assert [worker.wait(60) for worker in workers] == [0, 0]

    assert len(counted) == 2 * THREADS * TIMES
    assert counted.seconds() > 0
    counted.reset()
    assert len(counted) == 0


@pytest.mark.parametrize(
    ("goal", "held"),
    [(at_most(2.0), True), (at_most(1.9), False), (at_least(2.0), True), (at_least(2.1), False), (None, None)],
)
def test_a_goal_is_held_or_missed(goal: Goal | None, held: bool | None):
    """The median of the ratio decides; the goal itself counts as held."""
    line = summarize("ours ÷ theirs", [2.0, 4.0, 30.0], [1.0, 2.0, 10.0], "us", goal)

    assert (line.ratio, line.spread, line.held) == (2.0, (2.0, 3.0), held)


def test_a_ratio_can_be_inverted():
    """If a larger figure of the other side is better for us, it is the numerator."""
    line = summarize("theirs ÷ ours", [1.0, 2.0], [8.0, 18.0], "us", at_least(8), upside_down=True)

    assert (line.ours, line.other, line.ratio) == (1.5, 13.0, 8.5)


def test_ways_are_timed_in_turn():
    """Each way is called equally often; the median call counts, and the first round does not."""
    called: list[str] = []
    ways = {"a": lambda: called.append("a"), "b": lambda: called.append("b")}
    # Each look at the clock is later than the last by the number of calls so far.
    looks = accumulate(number // 2 for number in count(1))

    times = by_turns(ways, calls=3, rounds=1, clock=lambda: float(next(looks)))

    assert "".join(called) == "abbaab" + "baabba"
    assert times == {"a": [9e6], "b": [10e6]}


class Runner:
    """A competitor that records its steps, and fails if the test says so.

    Args:
        name: of the side.
        notes: what all have done, in order.
        fails: the step at which it fails.
    """

    def __init__(self, name: str, notes: list[str], fails: str = "") -> None:
        self.name = name
        self.notes = notes
        self.fails = fails
        self.slices: list[int] = []

    def _step(self, step: str) -> None:
        self.notes.append(f"{self.name} {step}")
        if step == self.fails:
            raise SideError(self.name, f"at {step}")

    def prepare(self, slices: int) -> None:
        """Send."""
        self._step("prepare")

    def start(self) -> None:
        """Start."""
        self._step("start")

    def stop(self, *, gently: bool = True) -> None:
        """Stop."""
        self._step("stop")

    def run(self, number: int) -> None:
        """Work a slice off."""
        self._step(str(number))
        self.slices.append(number)


def test_a_failed_competitor_leaves_the_race():
    """The others run all their slices; the failed one is named, and has no figures."""
    notes: list[str] = []
    sides = [Runner("a", notes), Runner("b", notes, "prepare"), Runner("c", notes, "1"), Runner("d", notes)]

    failed = race(cast("list[Side]", sides), rounds=2)

    assert [(error.name, str(error)) for error in failed] == [("b", "b: at prepare"), ("c", "c: at 1")]
    assert [side.slices for side in sides] == [[0, 1, 2], [], [], [0, 1, 2]]
    assert notes.index("d 0") < notes.index("a 0")
    assert notes.index("a 2") < notes.index("d 2")
    assert {"a stop", "b stop", "c stop", "d stop"} <= set(notes)
    assert "b start" not in notes


def test_a_message_is_readdressed():
    """A message on another queue looks as if it was sent there; an item that is no message of ours is refused."""
    item = b'{"properties": {"delivery_info": {"exchange": "", "routing_key": "aside"}}}'

    assert readdressed(item, "aside", "signalbus") == item.replace(b"aside", b"signalbus")
    with pytest.raises(ValueError, match="no message of the queue 'signalbus'"):
        readdressed(item, "signalbus", "aside")


def test_the_package_of_a_file_is_found():
    """It is a package of ours, a library, or Python's own."""
    assert [owner(f"/x/{name}.py") for name in ("signalbus/wire/codec", "signalbus/tasks", "json/encoder")] == [
        "signalbus/wire",
        "signalbus",
        "Python's own",
    ]
    assert owner("/x/site-packages/redis/connection.py") == "redis"


def test_a_curve_is_drawn():
    """Each line has its name and a point for each number, inside of the picture."""
    curve = Curve("x", "A & B", "many", "µs", [10, 100, 1000], {"ours": [1.0, 2.0, 3.0], "theirs": [9.0, 8.0, 70.0]})

    root = ET.fromstring(draw(curve))

    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    circles = list(root.iter("{http://www.w3.org/2000/svg}circle"))
    assert {"A & B", "ours: 3", "theirs: 70", "1k"} <= set(texts)
    assert len(circles) == 6
    assert all(0 < float(circle.attrib["cy"]) < 400 for circle in circles)


def test_a_missing_peer_is_named():
    """A missing peer is a reason, not a failure."""
    absent = Peer("nobody", "signalbus-nobody", "on_nobody", ())

    assert "signalbus-nobody is not installed" in str(absent.missing())
    assert len({peer.module for peer in ON_THE_BROKER}) == len(ON_THE_BROKER)


def test_the_tables_of_the_page_are_those_of_a_run():
    """docs/performance.md shows what docs/benchmarks/bench.json holds, as `python -m benchmarks.page` writes it."""
    written = page.PAGE.read_text()

    assert page.rewritten(written) == written


def test_every_line_of_a_run_is_on_the_page():
    """No line of a run is missing in the tables."""
    results = json.loads(page.RESULTS.read_text())

    tables = page.text(results)

    assert [line["title"] for line in results["lines"] if f"| {line['title']} |" not in tables] == []
