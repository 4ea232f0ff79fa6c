"""Measures the bus beside Celery and Django, in one run, and prints each ratio with its target: ``make bench``.

It starts a Valkey and a database of its own. A missed target is printed, and fails nothing: machines differ.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack

import django
import redis

from signalbus.embedded import EmbeddedValkey


def main() -> int:
    """Run the benchmark, and print its table."""
    options = _options()
    with ExitStack() as stack:
        directory = tempfile.mkdtemp(prefix="signalbus-bench-")
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        server = stack.enter_context(EmbeddedValkey())
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
            "CELERY_BROKER_URL": server.url,
            "DATABASE_URL": f"sqlite:///{directory}/db.sqlite3",
            "BENCH_DIRECTORY": directory,
            "BENCH_TALLY": directory,
        }
        if options.database == "postgres":
            os.environ["DATABASE_URL"] = _postgres(stack)
        django.setup()
        _measure(options, redis.Redis.from_url(server.redis_url))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--messages", type=int, default=1200, help="in a worker's slice (default: 1200)")
    parser.add_argument("--rounds", type=int, default=12, help="slices for each worker (default: 12)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of sends (default: 1)")
    parser.add_argument("--part", choices=["sending", "receiving", "keeping", "all"], default="all")
    parser.add_argument("--only", default="", help="of the workers' races: those whose title begins so")
    return parser.parse_args()


def _postgres(stack: ExitStack) -> str:
    """Start a PostgreSQL whose commits wait for the disk, as a real one's do."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
    from tests.servers import Postgres  # noqa: PLC0415 - needs the settings' name

    return stack.enter_context(Postgres(durable=True)).create()


def _measure(options: argparse.Namespace, broker: redis.Redis) -> None:
    from django.core.management import call_command  # noqa: PLC0415 - needs Django's apps, as all below

    from benchmarks.keeping import Keeping  # noqa: PLC0415
    from benchmarks.receiving import Receiving  # noqa: PLC0415
    from benchmarks.sending import Sending  # noqa: PLC0415
    from tasks.admissions.models import Academy, Cohort  # noqa: PLC0415

    call_command("migrate", verbosity=0)
    academy = Academy.objects.create(name="Academy", slug="academy")
    cohort = Cohort.objects.create(academy=academy, name="Cohort", slug="cohort")
    sending = Sending(cohort, broker, options.scale)
    receiving = Receiving(cohort, broker, options.messages, options.rounds)
    title = f"ours and the other, {options.database}"
    print(f"  {title:<58} {'ours':>10} {'other':>10}      ratio (lowest to highest)")
    if options.part in {"receiving", "all"}:
        for line in receiving.lines(lambda title: title.startswith(options.only)):
            print(line, flush=True)
        for cost in receiving.costs():
            print(f"  {cost}")
    if options.part in {"sending", "all"}:
        for cost in sending.costs():
            print(f"  {cost}")
        for line in sending.lines():
            print(line, flush=True)
    if options.part in {"keeping", "all"}:
        for line in Keeping(cohort, broker, options.scale, options.rounds).lines():
            print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
