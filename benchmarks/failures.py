"""What failing receivers cost the others: ``python -m benchmarks.failures``.

In one run, for each database and pool: the failed attempts a second beside the successful ones, and how late a healthy
receiver at 50 messages a second is, alone and beside 3,000 deliveries that are retried again and again.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import django

if TYPE_CHECKING:
    from benchmarks.ground import Ground
    from benchmarks.program import Program
    from benchmarks.tally import Tally

PLACES = 2  # processes, or threads
RATE = 50  # messages a second of the healthy receiver
PATIENCE = 300.0  # seconds for a step
HEAD = (
    f"{'':24}{'succeed/s':>10}{'fail/s':>8}{'cost':>6}"
    f"{'alone p50':>11}{'p99':>7}{'beside p50':>12}{'p99':>7}{'retries/s':>11}"
)


def main(arguments: list[str]) -> int:
    """Run the benchmark, and print its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.failures", description=__doc__)
    parser.add_argument("--messages", type=int, default=3000, help="that fail (default: 3000)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the healthy load (default: 20)")
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgres"])
    parser.add_argument("--pools", nargs="+", default=["prefork", "threads"])
    options = parser.parse_args(arguments)
    os.environ |= {"DJANGO_SETTINGS_MODULE": "benchmarks.settings", "DATABASE_URL": "sqlite://"}
    django.setup()
    from benchmarks.ground import Ground  # noqa: PLC0415 - needs Django's apps

    print(HEAD)
    with Ground() as ground:
        for kind, pool in itertools.product(options.databases, options.pools):
            with ground.database(kind):
                print(f"{kind + ', ' + pool:24}{_measure(ground, pool, options)}", flush=True)
            ground.clear()
    return 0


def _measure(ground: Ground, pool: str, options: argparse.Namespace) -> str:
    from benchmarks import signals, workers  # noqa: PLC0415 - needs Django's apps
    from benchmarks.program import Program  # noqa: PLC0415
    from benchmarks.tally import Tally  # noqa: PLC0415

    tally = Tally(ground.folder("tally") / "tally")
    command = [*workers.celery("signalbus", pool, "signalbus"), "--concurrency", str(PLACES)]
    environment = {"DJANGO_SETTINGS_MODULE": workers.SETTINGS, "BENCH_TALLY": str(tally.path)}
    worker = Program(command, ground.folder("program"), environment)
    worker.start()
    try:
        _rate(worker, tally, signals.succeeding, 200, 200)  # the worker is there, and warm
        succeeded = _rate(worker, tally, signals.succeeding, options.messages, options.messages)
        failed = _rate(worker, tally, signals.failing, options.messages, 3 * options.messages)
        alone = _delays(worker, tally, options.seconds)
        _rate(worker, tally, signals.retried, options.messages, options.messages)
        time.sleep(2.0)  # the first retries are due
        before = len(tally)
        beside = _delays(worker, tally, options.seconds)
        retries = (len(tally) - before - len(beside)) / options.seconds
    finally:
        worker.stop(gently=False)
    return (
        f"{succeeded:10.0f}{failed:8.0f}{succeeded / failed:6.2f}"
        f"{_latency(alone):>18}{_latency(beside):>19}{retries:11.0f}"
    )


def _rate(worker: Program, tally: Tally, signal: Any, messages: int, attempts: int) -> float:
    """Send messages, and return the attempts a second from the first to the last."""
    tally.reset()
    signal.send_many(None, [{} for _ in range(messages)])
    _wait(worker, tally, attempts)
    return attempts / tally.seconds()


def _delays(worker: Program, tally: Tally, seconds: float) -> list[float]:
    """Send at a steady rate, and return how late each was."""
    from benchmarks import signals  # noqa: PLC0415 - needs Django's apps

    count = int(seconds * RATE)
    known = len(tally.delays())
    begin = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, begin + number / RATE - time.monotonic()))
        signals.succeeding.send(None, sent=time.monotonic())
    deadline = time.monotonic() + PATIENCE
    while len(delays := tally.delays()[known:]) < count:
        _check(worker, deadline, f"{len(delays)} of {count} healthy ones are done")
        time.sleep(0.1)
    return delays


def _wait(worker: Program, tally: Tally, attempts: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(tally) < attempts:
        _check(worker, deadline, f"{len(tally)} of {attempts} attempts are done")
        time.sleep(0.02)


def _check(worker: Program, deadline: float, state: str) -> None:
    if worker.pid is None or time.monotonic() > deadline:
        raise SystemExit(f"{state}\n{worker.log[-2000:]}")


def _latency(delays: list[float]) -> str:
    """Return the median and the 99th percentile, in seconds."""
    return f"{statistics.median(delays):.3f}{statistics.quantiles(delays, n=100)[98]:7.3f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
