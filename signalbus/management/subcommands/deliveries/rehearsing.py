"""``rehearse``: run a receiver and roll everything back."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from signalbus.management.inspection_report import INDENT, SCHEMA
from signalbus.management.subcommands.deliveries.retry_and_discard import id_from
from signalbus.management.text import one_line
from signalbus.services.actors import command_actor
from signalbus.services.changes.rehearsal import LASTING, rehearse
from signalbus.services.queries.lookup import message_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.core.management.base import BaseCommand

    from signalbus.services.changes.rehearsal_captures import Rehearsal


def add(commands: Any) -> None:
    """Declare ``rehearse``."""
    parser = commands.add_parser(
        "rehearse", help="run the receiver of a delivery in a transaction that is rolled back, and say what it would do"
    )
    parser.set_defaults(run=run)
    parser.add_argument("id", type=id_from, metavar="ID", help="of a delivery")
    parser.add_argument("--traceback", action="store_true", help="print the traceback too, if it fails")
    parser.add_argument("--json", action="store_true", help="an object, for programs")


def run(command: BaseCommand, options: dict[str, Any]) -> None:
    """Rehearse a delivery; the exit code is 1 if it would fail."""
    found = message_of(options["id"])
    delivery = None if found is None else next((row for row in found.deliveries if row.pk == options["id"]), None)
    if found is None or delivery is None:
        raise CommandError(f"{options['id']} is no delivery in the ledger; `manage.py signalbus failed` lists them.")
    rehearsal = rehearse(found, delivery, actor=command_actor())
    if options["json"]:
        command.stdout.write(json.dumps({"schema": SCHEMA, "id": str(delivery.pk), **asdict(rehearsal)}, indent=2))
    else:
        for line in _lines(rehearsal, with_traceback=options["traceback"]):
            command.stdout.write(line)
    if rehearsal.error:
        raise CommandError("It would fail.")


def _lines(rehearsal: Rehearsal, *, with_traceback: bool) -> Iterator[str]:
    took = f"{rehearsal.seconds * 1000:.0f} ms"
    yield f"{rehearsal.receiver}, attempt {rehearsal.attempt}, {took}; everything is rolled back."
    yield f"It would fail: {one_line(rehearsal.error)}" if rehearsal.error else "It would succeed."
    if with_traceback:
        yield from (f"{INDENT}{one_line(line)}" for line in rehearsal.traceback.splitlines())
    for title, found in (
        ("Rows", rehearsal.changes),
        ("Statements", rehearsal.statements),
        ("Signals", rehearsal.messages),
        ("Mail", rehearsal.mails),
        ("After the commit (did not run)", rehearsal.callbacks),
        ("Connections that were blocked", rehearsal.sockets),
    ):
        if found:
            yield f"{title}:"
            yield from (f"{INDENT}{one_line(each)}" for each in found)
    yield f"Not taken back, if it did any of it: {'; '.join(LASTING)}."
