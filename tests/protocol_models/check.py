"""Check the models with SPIN: ``python -m tests.protocol_models.check``; with ``--short`` those that `make test` runs.

For each run SPIN makes a C program of a model and its switches; the program visits each state that can be reached. A
run that is to hold must visit all of them. A run with a defect must find a violation: the property notices it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.other_servers import programs

FOLDER = Path(__file__).parent
SHORT_DEPTH, LONG_DEPTH = 1_000_000, 10_000_000  # steps in a row
MEGABYTES = 12_000  # at most, for the states of a long run


class Run(NamedTuple):
    """One model with some switches."""

    model: str
    switches: str
    holds: bool = True

    def __str__(self) -> str:
        return f"{self.model} {self.switches}".strip()


class Verdict(NamedTuple):
    """What SPIN says of a run."""

    violation: str  # the assertion that does not hold; empty if all do
    states: int
    seconds: float


class IncompleteError(RuntimeError):
    """SPIN has not visited all states: its output says why."""


OUTAGE = "-DOUTAGE=1 -DPATIENCE=2 -DWHOLE=0"
SHORT = [
    Run("heartbeat", ""),
    Run("heartbeat", "-DDEATH"),
    Run("heartbeat", "-DFREEZE"),
    Run("heartbeat", "-DDEFECT_LATE_HEARTBEAT", holds=False),
    Run("heartbeat", "-DDEFECT_UNREAD_REPLY", holds=False),
    Run("heartbeat", "-DDEFECT_UNHEARD_END", holds=False),
    Run("heartbeat", "-DFREEZE -DDEFECT_UNCHECKED_RESTORE", holds=False),
    Run("heartbeat", f"{OUTAGE} -DDEFECT_UNNOTICED_OUTAGE", holds=False),
    Run("claims", "-DDEATH -DLOSS"),
    Run("claims", "-DFREEZE"),
    Run("claims", "-DCLAIMS=2 -DWORKERS=1 -DDEATH -DLOSS"),
    Run("claims", "-DSTOCK -DDEATH -DWORKERS=1"),
    Run("claims", "-DLOSS -DDEFECT_BLIND_RESTORE", holds=False),
    Run("claims", "-DDEFECT_FORGETFUL_RESTORE", holds=False),
    Run("ticket", ""),
    Run("ticket", "-DDEFECT_VALID_AT_TIME_LIMIT", holds=False),
    Run("ticket", "-DPAUSE=1", holds=False),
    Run("recipients", "-DDEATH -DLOSS"),
    Run("recipients", "-DDEFECT_DONE_AGAIN", holds=False),
    Run("recipients", "-DDEATH -DDEFECT_DONE_STAYS", holds=False),
    Run("recipients", "-DDEFECT_VALID_AT_TIME_LIMIT", holds=False),
]
LONG = [
    Run("heartbeat", OUTAGE),
    Run("heartbeat", "-DOUTAGE=2 -DPATIENCE=3 -DWHOLE=0"),
    Run("heartbeat", "-DCLAIMS=2"),
    Run("heartbeat", "-DCLAIMS=2 -DDEATH"),
    Run("heartbeat", "-DWHOLE=2"),
    Run("claims", "-DFREEZE -DLOSS"),
    Run("claims", "-DCLAIMS=2 -DWORKERS=1 -DFREEZE"),
    Run("claims", "-DSTOCK"),
    Run("claims", "-DSTOCK -DFREEZE -DWORKERS=1"),
    Run("ticket", "-DTEXTS=3"),
    Run("ticket", "-DROWS"),
    Run("ticket", "-DPAUSE=3", holds=False),
    Run("recipients", "-DRECIPIENTS=4 -DDEATH -DLOSS"),
]


def check(run: Run, *, is_long: bool = False) -> Verdict:
    """Run a model.

    Args:
        run: the model and its switches.
        is_long: compile for speed, and allow for more memory.

    Returns:
        What SPIN says.

    Raises:
        MissingProgramError: spin or gcc is not installed.
        IncompleteError: not all states were visited.
    """
    spin, gcc = programs.find("models")
    speed, depth, hashed = ("-O2", LONG_DEPTH, "-w26") if is_long else ("-O0", SHORT_DEPTH, "-w21")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="signalbus-model-") as folder:
        _run([spin, *run.switches.split(), "-a", str(FOLDER / f"{run.model}.pml")], folder)
        # COLLAPSE packs the states; VECTORSZ is more than one needs.
        limits = ["-DSAFETY", "-DCOLLAPSE", "-DVECTORSZ=2048", f"-DMEMLIM={MEGABYTES}"]
        _run([gcc, speed, "-w", *limits, "-o", "pan", "pan.c"], folder)
        # -E: a process that waits for ever is none of the properties: a dead worker's do.
        output = _run(["./pan", "-E", f"-m{depth}", hashed], folder)
    found = re.search(r"assertion violated (.*) \(at depth", output)
    states = re.search(r"(\d+) states, stored", output)
    if states is None or (found is None and ("errors: 0" not in output or "Search not completed" in output)):
        raise IncompleteError(output)
    if found is None and "max search depth too small" in output:
        raise IncompleteError(output)
    return Verdict(found[1] if found else "", int(states[1]), time.monotonic() - began)


def _run(command: list[str], folder: str) -> str:
    """Run a program in a folder, and return what it says."""
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise IncompleteError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def main() -> int:
    """Check the models, and print a line for each run; return 1 if one is not as expected."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--short", action="store_true", help="run only what `make test` runs")
    parser.add_argument("words", nargs="*", help="run only those whose line contains one of these")
    options = parser.parse_args()
    is_wrong = False
    for run in SHORT if options.short else SHORT + LONG:
        if options.words and not any(word in str(run) for word in options.words):
            continue
        verdict = check(run, is_long=not options.short)
        is_right = run.holds == (not verdict.violation)
        is_wrong |= not is_right
        told = "holds" if not verdict.violation else f"violated: {verdict.violation}"
        word = "ok" if is_right else "WRONG"
        print(f"{word:5} {run!s:70} {verdict.states:>11,} states {verdict.seconds:6.1f} s  {told}", flush=True)
    return int(is_wrong)


if __name__ == "__main__":
    sys.exit(main())
