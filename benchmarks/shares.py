"""Measures where the time of a send and of a delivery goes: ``python -m benchmarks.shares``.

A look at the stack every half a millisecond, by the wall's clock, so that waiting for a socket shows too: the innermost
function says which package is at work. It slows nothing down, as a profiler that counts calls would.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django

from benchmarks.page import SHARES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from benchmarks.servers import Servers

INTERVAL = 0.0005  # seconds between two looks
LEAST = 0.02  # of the time: less is "the rest"
# The first of these that stands in a file's name says whose it is.
PACKAGES = (
    *(f"signalbus/{part}" for part in ("wire", "sending", "receiving", "ledger", "transport", "compat")),
    "signalbus",
    "benchmarks",
    "tasks/admissions",
    *(f"site-packages/{name}" for name in ("django", "celery", "kombu", "redis", "psycopg", "asgiref")),
)


@dataclass(frozen=True, slots=True)
class Share:
    """The shares of the time of one operation.

    Args:
        title: of the operation.
        microseconds: that it takes.
        parts: by package, the longest first.
    """

    title: str
    microseconds: float
    parts: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        parts = {name: round(number, 1) for name, number in self.parts.items()}
        return {"title": self.title, "microseconds": round(self.microseconds, 1), "parts": parts}


def owner(filename: str) -> str:
    """Return the package of a file."""
    for package in PACKAGES:
        if f"/{package}/" in filename or filename.endswith(f"/{package}.py"):
            return package.removeprefix("site-packages/")
    return "Python's own"


@contextmanager
def sampled() -> Iterator[Counter[str]]:
    """Count the packages at work in samples of this thread's stack."""
    found: Counter[str] = Counter()

    def look(number: int, frame: FrameType | None) -> None:
        if frame is not None:
            found[owner(frame.f_code.co_filename)] += 1

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, INTERVAL, INTERVAL)
    try:
        yield found
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def share(title: str, function: Callable[[], object], calls: int, per_call: int = 1) -> Share:
    """Run an operation many times, and measure its shares.

    Args:
        title: of the operation.
        function: does it.
        calls: how often.
        per_call: operations in one call.
    """
    for _ in range(max(1, calls // 10)):
        function()
    with sampled() as found:
        start = time.perf_counter()
        for _ in range(calls):
            function()
        each = (time.perf_counter() - start) / calls / per_call * 1e6
    looks = max(1, found.total())
    parts = {name: each * number / looks for name, number in found.most_common() if number / looks >= LEAST}
    return Share(title, each, parts | {"the rest": max(0.0, each - sum(parts.values()))})


def shares(servers: Servers, scale: float) -> Iterator[Share]:
    """Measure sends, and deliveries in this process.

    Args:
        servers: of the run.
        scale: of the calls.
    """
    from django.db import transaction  # noqa: PLC0415 - needs Django's apps, as all below

    from benchmarks import signals  # noqa: PLC0415
    from benchmarks.deliveries import Waiting, published  # noqa: PLC0415
    from signalbus.receiving.routing.batch import deliver  # noqa: PLC0415
    from tasks.admissions.models import Cohort  # noqa: PLC0415

    calls = max(10, int(5000 * scale))
    with servers.database("sqlite") as cohort:
        flat = {"sender": Cohort, "cohort_id": cohort.pk, "created": True}
        row = {"sender": Cohort, "instance": cohort, "created": True}
        yield share("send(), durable=False, alone", partial(signals.fetched.send, **row), calls)
        many = partial(signals.plain.send_many, Cohort, [{"cohort_id": cohort.pk, "created": True}] * 100)
        yield share("one of a send_many() of 100, durable=False", many, calls // 10, 100)
        with transaction.atomic():
            yield share("the rows of a durable send(), in a transaction", partial(signals.kept.send, **flat), calls)
            transaction.set_rollback(True)
        servers.empty()
        for title, signal_, payload in (
            ("a delivery, no transaction", signals.plain, flat),
            ("a delivery, in a transaction", signals.atomic, flat),
            ("a delivery with a row, in a transaction", signals.fetched, row),
        ):
            (texts,) = published(servers.client, partial(signal_.send, **payload))
            yield share(title, partial(deliver, texts * 100), calls // 50, 100)
        for together, times in ((1, calls // 2), (100, calls // 100)):
            waiting = Waiting(servers.client, signals.durable, together)
            waiting.fill(times + times // 10 + 1)
            yield share(f"a durable delivery that writes a row, {together} together", waiting, times, together)


def main(arguments: list[str]) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shares", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of all numbers; less for a quick look (default: 1)")
    parser.add_argument("--json", type=Path, default=SHARES, help=f"where it is written (default: {SHARES})")
    options = parser.parse_args(arguments)
    os.environ |= {"DJANGO_SETTINGS_MODULE": "benchmarks.settings", "DATABASE_URL": "sqlite://"}
    django.setup()
    from benchmarks.servers import Servers  # noqa: PLC0415 - needs Django's apps

    written = []
    with Servers() as servers:
        for each in shares(servers, options.scale):
            parts = ", ".join(f"{name} {number:.1f}" for name, number in each.parts.items())
            print(f"{each.title}: {each.microseconds:.1f} µs ({parts})", flush=True)
            written.append(each.as_json())
    options.json.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
