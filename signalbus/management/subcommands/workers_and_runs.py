"""``running``: say which workers there are, and what they have been running for more than a second."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from signalbus.management.inspection_report import INDENT, SCHEMA
from signalbus.management.text import iso, one_line, span_of, time_of
from signalbus.management.watching import add_watch
from signalbus.services.actors import command_actor
from signalbus.services.queries.live_workers import running, workers

if TYPE_CHECKING:
    from django.core.management.base import BaseCommand

    from signalbus.services.queries.live_workers import ListedWorker, LongRun

SHOWN = 5  # receivers that a worker lacks, in a line


def add(commands: Any) -> None:
    """Declare ``running``."""
    parser = commands.add_parser("running", help="list the workers, and what they have been running for over a second")
    add_watch(parser, run)
    parser.add_argument("--json", action="store_true", help="an object, for programs")


def run(command: BaseCommand, options: dict[str, Any]) -> None:
    """List workers and runs."""
    actor = command_actor()
    seen, runs = workers(actor), running(actor)
    if options["json"]:
        shown = {"workers": [_worker_object(each) for each in seen], "running": [_run_object(each) for each in runs]}
        command.stdout.write(json.dumps({"schema": SCHEMA, **shown}, indent=2))
        return
    for worker in seen:
        command.stdout.write(_worker_line(worker))
        if worker.lacks:
            more = f" and {len(worker.lacks) - SHOWN} more" if len(worker.lacks) > SHOWN else ""
            command.stdout.write(f"{INDENT}lacks {', '.join(map(one_line, worker.lacks[:SHOWN]))}{more}")
    if not seen:
        command.stdout.write("No worker has been seen: `manage.py signalbus status` asks the broker.")
    youngest = {each.row.delivery: each.row.worker for each in runs}  # the longest come first
    for each in runs:
        row = each.row
        lost = "; ITS PROCESS GIVES NO SIGN" if each.is_lost else ""
        if (again := youngest[row.delivery]) != row.worker:
            lost += f"; IT RUNS AGAIN in {one_line(again)}"
        command.stdout.write(
            f"{span_of(each.age)}  {one_line(row.signal)} -> {one_line(row.receiver)}  attempt {row.attempt}  "
            f"in {one_line(row.worker)}  {row.delivery}{lost}"
        )
    if not runs:
        command.stdout.write("Nothing has been running for more than a second.")


def _worker_line(worker: ListedWorker) -> str:
    row = worker.row
    queues = ", ".join(map(one_line, map(str, row.queues)))
    words = [row.name, f"{row.pool} {row.concurrency}", f"queues {queues}", f"signalbus {row.version}"]
    if row.release:
        words.append(f"release {row.release}")
    words.append(f"GONE since {time_of(row.seen_at)} UTC" if worker.is_gone else f"seen {span_of(worker.silence)} ago")
    return one_line("  ".join(words))


def _worker_object(worker: ListedWorker) -> dict[str, Any]:
    row = worker.row
    return {
        "name": row.name,
        "host": row.host,
        "pid": row.pid,
        "pool": row.pool,
        "concurrency": row.concurrency,
        "queues": row.queues,
        "version": row.version,
        "release": row.release,
        "registry_digest": row.registry_digest,
        "started_at": iso(row.started_at),
        "seen_at": iso(row.seen_at),
        "is_gone": worker.is_gone,
        "lacks": worker.lacks,
    }


def _run_object(run: LongRun) -> dict[str, Any]:
    row = run.row
    return {
        "worker": row.worker,
        "delivery": str(row.delivery),
        "message": str(row.message),
        "signal": row.signal,
        "receiver": row.receiver,
        "attempt": row.attempt,
        "started_at": iso(row.started_at),
        "seconds": max(0.0, run.age.total_seconds()),
        "is_lost": run.is_lost,
    }
