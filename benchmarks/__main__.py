"""``make bench``: measure the bus beside Celery, Django and its peers in one run, and print each ratio with its
goal.

It starts its own servers. A goal that is missed is printed, and fails nothing: machines differ.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django

if TYPE_CHECKING:
    from benchmarks.rows import Part, Row, Size
    from benchmarks.servers import Servers

PARTS = ("sending", "drains", "latency", "growth", "ledger", "earlier")


def main(arguments: list[str]) -> int:
    """Run the benchmark, and print its table."""
    options = _options(arguments)
    os.environ |= {"DJANGO_SETTINGS_MODULE": "benchmarks.settings", "DATABASE_URL": "sqlite://"}
    django.setup()
    from benchmarks.rows import Size  # noqa: PLC0415
    from benchmarks.servers import Servers  # noqa: PLC0415 - needs Django's apps, as all below

    servers, size = Servers(), Size(options.rounds, options.scale, options.peers)
    if options.list:
        print("\n".join(row.title for row in _chosen(_parts(servers, size), options)))
        return 0
    with servers:
        results = _measure(servers, size, options)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--part", choices=[*PARTS, "all"], default="all")
    parser.add_argument("--only", action="append", help="of the rows, those whose title begins so; more than once, too")
    parser.add_argument("--list", action="store_true", help="tell the rows, and measure nothing")
    parser.add_argument("--rounds", type=int, default=5, help="of each comparison (default: 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="of all numbers; less for a quick look (default: 1)")
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="nobody beside Celery and Django")
    parser.add_argument("--json", type=Path, help="write the results into this file too")
    return parser.parse_args(arguments)


def _parts(servers: Servers, size: Size) -> dict[str, Part]:
    from benchmarks.drains import Drains  # noqa: PLC0415 - need Django's apps
    from benchmarks.earlier_version import EarlierVersion  # noqa: PLC0415
    from benchmarks.growth import Growth  # noqa: PLC0415
    from benchmarks.latency import Latency  # noqa: PLC0415
    from benchmarks.ledger_costs import LedgerCosts  # noqa: PLC0415
    from benchmarks.sending import Sending  # noqa: PLC0415

    made = (part(servers, size) for part in (Sending, Drains, Latency, Growth, LedgerCosts, EarlierVersion))
    return dict(zip(PARTS, made, strict=True))


def _chosen(parts: dict[str, Part], options: argparse.Namespace) -> list[Row]:
    return [
        row
        for name, part in parts.items()
        if options.part in {name, "all"}
        for row in part.rows()
        if row.title.startswith(tuple(options.only or [""]))
    ]


def _measure(servers: Servers, size: Size, options: argparse.Namespace) -> dict[str, Any]:
    from benchmarks import comparison, machine  # noqa: PLC0415 - need Django's apps

    parts = _parts(servers, size)
    began = time.monotonic()
    found: list[comparison.Comparison] = []
    print(comparison.HEADER)
    for row in _chosen(parts, options):
        for each in row.measure():
            print(each, flush=True)
            found.append(each)
    for name, reason in servers.left_out.items():
        print(f"  left out: {name}: {reason}")
    minutes = (time.monotonic() - began) / 60
    print(f"  {sum(each.held is False for each in found)} of {len(found)} missed; {minutes:.1f} minutes")
    return {
        "machine": machine.describe(servers.versions()),
        "rounds": size.rounds,
        "scale": size.scale,
        "minutes": round(minutes, 1),
        "lines": [each.as_json() for each in found],
        "left_out": servers.left_out,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
