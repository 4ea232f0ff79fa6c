"""Measures the costs of failing receivers for others: ``python -m benchmarks.failures``.

In one run, for each database and pool, in turns and several times over:

- ``succeed/s``: deliveries a second of a receiver that writes a row, through an otherwise idle worker;
- ``fail/s``: first attempts a second of a receiver that does the same, and then raises;
- ``retry/s``: attempts a second of its retries, which are all due at once;
- ``due/s``: deliveries a second of the receiver that succeeds, which are all due at once, as the retries are;
- ``cost``: what an attempt costs of a receiver that fails and is retried, as a multiple of a delivery of the receiver
  that succeeds: succeed/s ÷ attempts a second of the failing receiver, of which one in three is a first attempt and two
  are retries;
- ``alike``: the same where both are published in the same way: a retry is compared with a success that was due;
- ``CPU``: each of these in processor time of the worker, its children and the servers. The rate of retries is also
  limited by their admission, and on a machine with other work by the pauses of the sweeper: processor time is not.

Each rate is counted from the first attempt to the last. The goal that a failure costs at most 1.6 times a success reads
``cost``. It is the stricter one: a sender publishes its messages itself, and the worker publishes the retries, so that
``cost`` counts publications for failures only. But a worker with these receivers makes so many attempts of each kind in
a second, and a receiver that succeeds needs no second publication.

Then, as ``alone`` and ``beside``: how late a healthy receiver at 50 messages a second is, alone and beside deliveries
that are retried again and again. With ``--cost`` that is left out.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import time
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import django

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.program import Program
    from benchmarks.servers import Servers
    from benchmarks.tally import Tally

PLACES = 2  # processes, or threads
RETRIES = 2  # of each delivery that fails
RATE = 50  # messages a second of the healthy receiver
PATIENCE = 300.0  # seconds for a step
HEAD = f"{'':24}{'succeed/s':>10}{'fail/s':>8}{'retry/s':>9}{'due/s':>7}{'cost':>7}{'CPU':>6}{'alike':>8}{'CPU':>6}"
HEAD_OF_DELAYS = f"{'alone p50':>11}{'p99':>7}{'beside p50':>12}{'p99':>7}{'retries/s':>11}"


def main(arguments: list[str]) -> int:
    """Run the benchmark, and print its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.failures", description=__doc__)
    parser.add_argument("--messages", type=int, default=3000, help="that fail (default: 3000)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the rates are the sum (default: 3)")
    parser.add_argument("--cost", action="store_true", help="measure the rates alone")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the healthy load (default: 20)")
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgres"])
    parser.add_argument("--pools", nargs="+", default=["prefork", "threads"])
    options = parser.parse_args(arguments)
    os.environ |= {"DJANGO_SETTINGS_MODULE": "benchmarks.settings", "DATABASE_URL": "sqlite://"}
    django.setup()
    from benchmarks.servers import Servers  # noqa: PLC0415 - needs Django's apps

    print(HEAD if options.cost else HEAD + HEAD_OF_DELAYS)
    with Servers() as servers:
        for kind, pool in itertools.product(options.databases, options.pools):
            with servers.database(kind):
                print(f"{kind + ', ' + pool:24}{_measure(servers, pool, options)}", flush=True)
            servers.clear()
    return 0


def _measure(servers: Servers, pool: str, options: argparse.Namespace) -> str:
    from benchmarks import signals, workers  # noqa: PLC0415 - needs Django's apps
    from benchmarks.program import Program  # noqa: PLC0415
    from benchmarks.tally import Tally  # noqa: PLC0415

    tally = Tally(servers.folder("tally") / "tally")
    command = [*workers.celery("signalbus", pool, "signalbus"), "--concurrency", str(PLACES)]
    environment = {"DJANGO_SETTINGS_MODULE": workers.SETTINGS, "BENCH_TALLY": str(tally.path)}
    worker = Program(command, servers.folder("program"), environment)
    worker.start()
    try:
        _seconds(worker, tally, 200, partial(_send, signals.succeeding, 200))  # the worker is there, and warm
        columns = _rates(servers, worker, tally, options.messages, options.rounds)
        if not options.cost:
            columns += _beside(worker, tally, options)
    finally:
        worker.stop(gently=False)
    return columns


def _rates(servers: Servers, worker: Program, tally: Tally, messages: int, rounds: int) -> str:
    """Measure successes, failures and retries in turn, so that the machine's other load affects all of them."""
    from benchmarks import signals  # noqa: PLC0415 - needs Django's apps
    from benchmarks.processes import cpu_seconds  # noqa: PLC0415

    seconds = dict.fromkeys(("succeed", "fail", "retry", "due"), 0.0)
    cpu = dict.fromkeys(seconds, 0.0)
    steps = [
        ("succeed", partial(_send, signals.succeeding, messages)),
        ("fail", partial(_send, signals.failing, messages)),
    ]
    steps += [("retry", partial(_let_due, messages))] * RETRIES
    steps += [("due", partial(_send_due, signals.succeeding, messages))]
    for _ in range(rounds):
        for name, begin in steps:
            before = cpu_seconds(worker.pid or 0, *servers.server_pids())
            seconds[name] += _seconds(worker, tally, messages, begin)
            cpu[name] += cpu_seconds(worker.pid or 0, *servers.server_pids()) - before
    total = rounds * messages
    return (
        f"{total / seconds['succeed']:10.0f}{total / seconds['fail']:8.0f}"
        f"{total * RETRIES / seconds['retry']:9.0f}{total / seconds['due']:7.0f}"
        f"{_cost(seconds):7.2f}{_cost(cpu):6.2f}{_cost_alike(seconds):8.2f}{_cost_alike(cpu):6.2f}"
    )


def _cost(spent: Mapping[str, float]) -> float:
    """Return the cost of a failed attempt, as a multiple of that of a success, which its sender published."""
    return (spent["fail"] + spent["retry"]) / (1 + RETRIES) / spent["succeed"]


def _cost_alike(spent: Mapping[str, float]) -> float:
    """Return the cost of failed attempts, as a multiple of that of successes of which as many were due."""
    return (spent["fail"] + spent["retry"]) / (spent["succeed"] + RETRIES * spent["due"])


def _send(signal: Any, messages: int) -> None:
    signal.send_many(None, [{} for _ in range(messages)])


def _send_due(signal: Any, messages: int) -> None:
    """Send messages that the sweeper publishes, all at once."""
    from django.db import transaction  # noqa: PLC0415 - needs settings

    with transaction.atomic():
        for _ in range(messages):
            signal.send_later(timedelta(days=1), None)
    _let_due(messages)


def _let_due(messages: int) -> None:
    """Wait until all that are to be due are recorded, and make them due."""
    from signalbus.ledger.base.clock import Now  # noqa: PLC0415 - needs Django's apps
    from signalbus.models import Delivery, State  # noqa: PLC0415

    waiting = Delivery.objects.filter(state=State.PENDING)
    deadline = time.monotonic() + PATIENCE
    while waiting.count() < messages and time.monotonic() < deadline:
        time.sleep(0.02)
    waiting.update(due_at=Now())


def _seconds(worker: Program, tally: Tally, attempts: int, begin: Callable[[], None]) -> float:
    """Begin something, and return the seconds from its first attempt to its last."""
    tally.reset()
    begin()
    _wait(worker, tally, attempts)
    return tally.seconds()


def _beside(worker: Program, tally: Tally, options: argparse.Namespace) -> str:
    """Measure how late a healthy receiver is, alone and beside retries."""
    from benchmarks import signals  # noqa: PLC0415 - needs Django's apps

    alone = _delays(worker, tally, options.seconds)
    _seconds(worker, tally, options.messages, partial(_send, signals.retried, options.messages))
    time.sleep(2.0)  # the first retries are due
    before = len(tally)
    beside = _delays(worker, tally, options.seconds)
    retries = (len(tally) - before - len(beside)) / options.seconds
    return f"{_latency(alone):>18}{_latency(beside):>19}{retries:11.0f}"


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
