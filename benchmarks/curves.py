"""``make curves``: measure how costs grow, and draw the curves into docs/benchmarks."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import django

from benchmarks.rows import Size
from benchmarks.svg import Curve, draw
from benchmarks.timing import by_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.servers import Servers

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"
BACKLOGS = (10_000, 100_000, 1_000_000)
PAYLOADS = (100, 1000, 10_000, 100_000, 200_000)  # bytes
FAN_OUT = (1, 3, 10, 30, 100)
REGISTERED = (10, 100, 1000, 10_000)
SETTLED = (1000, 10_000, 100_000, 1_000_000)


def main(arguments: list[str]) -> int:
    """Measure, and draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", description=__doc__)
    parser.add_argument("--only", default="", help="of the curves, that with this name")
    parser.add_argument("--rounds", type=int, default=5, help="of each measurement (default: 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="of all numbers; less for a quick look (default: 1)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where they go (default: docs/benchmarks)")
    options = parser.parse_args(arguments)
    os.environ |= {"DJANGO_SETTINGS_MODULE": "benchmarks.settings", "DATABASE_URL": "sqlite://"}
    django.setup()
    from benchmarks import machine  # noqa: PLC0415 - need Django's apps
    from benchmarks.servers import Servers  # noqa: PLC0415

    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / "curves.json"
    written = json.loads(path.read_text()) if path.exists() else {}
    with Servers() as servers:
        for name, measure in CURVES.items():
            if options.only in {"", name}:
                curve = measure(servers, Size(options.rounds, options.scale))
                (options.folder / f"{name}.svg").write_text(draw(curve))
                written[name] = curve.as_json() | {"machine": machine.describe(servers.versions())}
                print(f"{name}: {json.dumps(curve.as_json()['lines'])}", flush=True)
    path.write_text(json.dumps(written, indent=1) + "\n")
    return 0


def backlog(servers: Servers, size: Size) -> Curve:
    """Measure the cost of a message for a worker with a long queue."""
    from benchmarks.growth import Growth  # noqa: PLC0415 - needs Django's apps, as all below

    numbers = [size.of(number, 200) for number in BACKLOGS]
    growth = Growth(servers, size)
    found = [[growth.drain(number) for _ in range(max(1, size.rounds // 2))] for number in numbers]
    lines = {
        name: [statistics.median(each[place] for each in rounds) for rounds in found]
        for place, name in enumerate(("CPU a message, µs", "peak memory, MB"))
    }
    return Curve(
        "backlog", "A worker and its backlog", "messages that wait", "µs a message; MB", _apart(numbers), lines
    )


def payload(servers: Servers, size: Size) -> Curve:
    """Measure sends of growing payloads, beside Celery's and beside a bare push to Redis."""
    from benchmarks import signals, stock_celery  # noqa: PLC0415
    from benchmarks.servers import QUEUES  # noqa: PLC0415
    from tasks.admissions.models import Cohort  # noqa: PLC0415

    lines: dict[str, list[float]] = {"Celery's .delay()": [], "send()": [], "raw LPUSH": []}
    with servers.database("sqlite"):
        for number in PAYLOADS:
            text = ("An academy's text of some length. " * (number // 34 + 1))[:number]
            send = partial(signals.bulky.send, sender=Cohort, text=text)
            servers.empty()
            send()
            item = servers.client.lindex(QUEUES[0], 0)
            ways: dict[str, Callable[[], object]] = {
                "Celery's .delay()": partial(stock_celery.work.delay, sent=0.0, seconds=0.0, text=text),
                "send()": send,
                "raw LPUSH": partial(servers.client.lpush, QUEUES[0], item),
            }
            times = by_turns(ways, calls=size.of(100, 5), rounds=size.rounds, between=servers.empty)
            for name, values in lines.items():
                values.append(statistics.median(times[name]))
    return Curve("payload", "A send and its payload (durable=False)", "bytes of payload", "µs a send", PAYLOADS, lines)


def fan_out(servers: Servers, size: Size) -> Curve:
    """Measure a signal with a growing number of receivers."""
    numbers = [number for number in FAN_OUT if number <= max(3, FAN_OUT[-1] * size.scale)]
    lines = _many_signals(servers, size, [(1, number) for number in numbers], ("send()", "delivery to all of them"))
    return Curve("fan-out", "A signal and its receivers (durable=False)", "receivers", "µs of CPU", numbers, lines)


def registered(servers: Servers, size: Size) -> Curve:
    """Measure a signal among a growing number of others."""
    numbers = [number for number in REGISTERED if number <= max(100, REGISTERED[-1] * size.scale)]
    lines = _many_signals(servers, size, [(number, 1) for number in numbers], ("send()", "delivery"))
    title = "A signal among others (durable=False)"
    return Curve("registered", title, "signals, each with a receiver", "µs of CPU", numbers, lines)


def _many_signals(
    servers: Servers, size: Size, sizes: list[tuple[int, int]], names: tuple[str, str]
) -> dict[str, list[float]]:
    from benchmarks.growth import Growth  # noqa: PLC0415

    found = Growth(servers, size).many_signals(sizes, 2 * size.rounds)
    return {
        name: [statistics.median(each[place] for each in rounds) for rounds in found]
        for place, name in enumerate(names)
    }


def ledger(servers: Servers, size: Size) -> Curve:
    """Measure durable sends and deliveries beside a growing number of settled rows."""
    from benchmarks.ledger_costs import LedgerCosts  # noqa: PLC0415

    numbers = _apart([size.of(number) for number in SETTLED])
    lines: dict[str, list[float]] = {}
    for kind in ("sqlite", "postgres"):
        for way, rounds in LedgerCosts(servers, size).beside(kind, numbers).items():
            if "batch" not in way and "many" not in way:
                lines[f"{way}, {kind}"] = [statistics.median(times) for times in rounds]
    return Curve("ledger", "The ledger and what is settled in it", "messages settled", "µs", numbers, lines)


def _apart(numbers: Sequence[int]) -> list[int]:
    """Return the numbers without those that a small scale made equal."""
    return list(dict.fromkeys(numbers))


CURVES: dict[str, Callable[[Servers, Size], Curve]] = {
    "backlog": backlog,
    "payload": payload,
    "fan-out": fan_out,
    "registered": registered,
    "ledger": ledger,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
