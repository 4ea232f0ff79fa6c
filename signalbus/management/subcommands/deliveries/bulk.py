"""``operations``: list the operations in bulk, show one, and pause, resume or cancel it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from signalbus.management.inspection_report import SCHEMA
from signalbus.management.operation_report import (
    MOST_EXAMPLES,
    detail_lines,
    failing_objects,
    operation_line,
    operation_object,
    wait_for,
)
from signalbus.management.text import limit_of
from signalbus.management.watching import add_watch
from signalbus.services.actors import command_actor
from signalbus.services.changes.bulk_operations import CHANGES, change_operation, failed_again, operation, operations

if TYPE_CHECKING:
    from django.core.management.base import BaseCommand


def add(commands: Any) -> None:
    """Declare ``operations``."""
    parser = commands.add_parser("operations", help="list retries and discards of many deliveries, and steer one")
    add_watch(parser, run)
    parser.add_argument("number", nargs="?", type=int, metavar="ID", help="show this one, with what failed again")
    change = parser.add_mutually_exclusive_group()
    change.add_argument("--pause", action="store_const", dest="change", const="pause", help="do no more steps of it")
    change.add_argument("--resume", action="store_const", dest="change", const="resume", help="go on with a paused one")
    change.add_argument("--cancel", action="store_const", dest="change", const="cancel", help="end it")
    parser.add_argument("--reason", default="", metavar="TEXT", help="why it is changed; `log` shows it")
    parser.add_argument("--wait", action="store_true", help="show its progress until it ends")
    parser.add_argument("--limit", type=int, metavar="N", help="list at most so many (50)")
    parser.add_argument("--json", action="store_true", help="an object, for programs")


def run(command: BaseCommand, options: dict[str, Any]) -> None:
    """List operations, or show or change one."""
    number, actor = options["number"], command_actor()
    if number is None:
        if options["change"] or options["wait"]:
            raise CommandError(f"Say which: `manage.py signalbus operations ID --{options['change'] or 'wait'}`.")
        _list(command, options)
        return
    if options["change"] in CHANGES:
        change_operation(options["change"], number, actor=actor, reason=options["reason"])
    if options["wait"]:
        wait_for(command, number)
        return
    each, failing = operation(actor, number), failed_again(actor, number, MOST_EXAMPLES)
    if options["json"]:
        shown = {"operation": operation_object(each), "failed_again": failing_objects(failing)}
        command.stdout.write(json.dumps({"schema": SCHEMA, **shown}, indent=2))
        return
    for line in detail_lines(each, failing):
        command.stdout.write(line)


def _list(command: BaseCommand, options: dict[str, Any]) -> None:
    found = operations(command_actor(), limit_of(options) or 50)
    if options["json"]:
        shown = [operation_object(each) for each in found]
        command.stdout.write(json.dumps({"schema": SCHEMA, "operations": shown}, indent=2))
        return
    for each in found:
        command.stdout.write(operation_line(each))
    if not found:
        command.stdout.write("There was no operation on many deliveries; `log` lists all changes.")
