"""Measures what ``unique=`` and ``debounce=`` cost beside a plain durable send: ``python -m benchmarks.deduplication``.

In one run, by turns, for each database: a message whose key is new, and one whose key waits already. Each ratio is the
median over the rounds; each row of the table also counts the statements of a send, those that begin and end its
transaction included: each is a round trip.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from datetime import timedelta
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import django

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.servers import Servers

HEAD = f"{'':34}{'µs':>8}{'÷ plain':>9}{'lowest':>8}{'highest':>9}{'statements':>12}"
PLAIN = "plain"


def main(arguments: list[str]) -> int:
    """Run the benchmark, and print its tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deduplication", description=__doc__)
    parser.add_argument("--calls", type=int, default=200, help="of each way in a round (default: 200)")
    parser.add_argument("--rounds", type=int, default=7, help="(default: 7)")
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgres"])
    options = parser.parse_args(arguments)
    os.environ |= {"DJANGO_SETTINGS_MODULE": "benchmarks.settings", "DATABASE_URL": "sqlite://"}
    django.setup()
    from benchmarks.servers import Servers  # noqa: PLC0415 - needs Django's apps

    with Servers() as servers:
        for kind in options.databases:
            print(f"{kind + ', a durable send()':34}{HEAD[34:]}")
            with servers.database(kind):
                _measure(servers, options)
    return 0


def _measure(servers: Servers, options: argparse.Namespace) -> None:
    from benchmarks.timing import by_turns  # noqa: PLC0415 - needs Django's apps

    ways = _ways()
    statements = {name: _statements(send) for name, send in ways.items()}
    times = by_turns(ways, calls=options.calls, rounds=options.rounds, between=servers.empty)
    for name, found in times.items():
        ratios = [one / other for one, other in zip(found, times[PLAIN], strict=True)]
        print(
            f"  {name:32}{statistics.median(found):8.0f}{statistics.median(ratios):9.2f}{min(ratios):8.2f}"
            f"{max(ratios):9.2f}{statements[name]:12}",
            flush=True,
        )


def _ways() -> dict[str, Callable[[], object]]:
    """Return what is compared: each sends a message to one receiver; no worker runs."""
    from benchmarks import signals  # noqa: PLC0415 - needs Django's apps

    numbers = count()

    def fresh(signal: Any) -> Callable[[], object]:
        return lambda: signal.send(None, slug=f"fresh-{next(numbers)}")

    ways: dict[str, Callable[[], object]] = {
        PLAIN: fresh(signals.announced),
        "send_later()": lambda: signals.announced.send_later(timedelta(hours=1), None, slug="later"),
    }
    for title, signal in {"unique": signals.unique, "unique and debounce": signals.debounced}.items():
        ways[f"{title}, a new key"] = fresh(signal)
        ways[f"{title}, a key that waits"] = partial(signal.send, None, slug="waits")
    return ways


def _statements(send: Callable[[], object]) -> int:
    """Count the statements of a send, after one that has filled the caches."""
    from django.db import connection  # noqa: PLC0415 - needs Django's settings
    from django.test.utils import CaptureQueriesContext  # noqa: PLC0415 - as above

    send()
    with CaptureQueriesContext(connection) as queries:
        send()
    return len(queries)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
