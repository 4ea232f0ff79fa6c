"""``list``, ``explain``, ``show``, ``history``, ``trace``: look at signals and messages, and change nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from signalbus.management import inspection_report as report
from signalbus.management.subcommands.deliveries.retry_and_discard import id_from
from signalbus.management.text import iso, time_of
from signalbus.services.queries.explanation import explain, known_signals
from signalbus.services.queries.lookup import SCANNED, cascade_of, history_of, message_of
from signalbus.wire.subjects import MOST

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.core.management.base import BaseCommand

    from signalbus.services.queries.lookup import FoundMessage


def add(commands: Any) -> None:
    """Declare the subcommands."""
    listed = commands.add_parser("list", help="list the signals and their receivers; needs no broker and no database")
    listed.add_argument("signals", nargs="*", metavar="SIGNAL", help="these only; all of them if none is named")
    listed.add_argument("--orphans", action="store_true", help="those without a receiver; then the exit code is 1")
    explained = commands.add_parser("explain", help="say which receivers a sending reaches, where they run, and why")
    explained.add_argument("signal", metavar="SIGNAL", help="its name, as `list` prints it")
    explained.add_argument("--sender", metavar="APP.MODEL", help="what a sending by this model reaches (by any sender)")
    show = commands.add_parser("show", help="show a message or a delivery: its states, errors and payload")
    show.add_argument("id", type=id_from, metavar="ID", help="of a delivery or a message")
    history = commands.add_parser("history", help="list what was sent about a row, and what became of it")
    history.add_argument("subject", metavar="APP.MODEL:PK", help="the row, as shop.order:42")
    trace = commands.add_parser("trace", help="show the cascade of a message as a tree")
    trace.add_argument("id", type=id_from, metavar="ID", help="of a message of the cascade, or of a delivery")
    trace.add_argument(
        "--scan", action="store_true", help="search the texts of later messages for what older versions sent"
    )
    for parser, run in (
        *((listed, run_list), (explained, run_explain), (show, run_show), (history, run_history)),
        (trace, run_trace),
    ):
        parser.set_defaults(run=run)
        parser.add_argument("--json", action="store_true", help="an object, for programs")


def run_list(command: BaseCommand, options: dict[str, Any]) -> None:
    """List signals and receivers."""
    found = [explain(name) for name in options["signals"] or known_signals()]
    if options["orphans"]:
        found = [each for each in found if not each.receivers and not each.inline]
    if options["json"]:
        _write(command, signals=[report.explanation_object(each) for each in found])
    else:
        _lines(command, (line for each in found for line in report.explanation_lines(each)))
    if options["orphans"] and found:
        raise CommandError(f"{len(found)} without a receiver.")


def run_explain(command: BaseCommand, options: dict[str, Any]) -> None:
    """Explain a signal."""
    found = explain(options["signal"], options["sender"])
    if options["json"]:
        _write(command, **report.explanation_object(found))
    else:
        _lines(command, report.explanation_lines(found))
    if found.reached or found.inline:
        return
    if found.receivers:
        raise CommandError(f"No receiver is reached: all of them listen to other senders than {options['sender']}.")
    raise CommandError("Nobody receives it: `manage.py signalbus status` names receivers that are not imported.")


def run_show(command: BaseCommand, options: dict[str, Any]) -> None:
    """Show a message."""
    found = _message(options)
    if options["json"]:
        _write(command, **report.message_object(found, payload=True))
    else:
        _lines(command, report.detail_lines(found))


def run_history(command: BaseCommand, options: dict[str, Any]) -> None:
    """Show what happened to a row."""
    found = history_of(options["subject"])
    messages = found.messages
    if options["json"]:
        _write(
            command,
            messages=[report.message_object(each) for each in messages],
            more=found.has_more,
            searched_from=iso(found.searched_from),
        )
    else:
        _lines(command, (line for each in messages for line in report.message_lines(each)))
    if found.has_more:
        command.stderr.write(f"The youngest {len(messages)}; there are more.")
    if found.searched_from is not None:
        command.stderr.write(
            f"Messages that name it beside another row were looked for among the youngest {SCANNED:,}, since "
            f"{time_of(found.searched_from)} (UTC)."
        )
    if not messages:
        raise CommandError(
            f"The ledger has no message about {options['subject']}: none was sent, it is purged, its signal is not "
            f"durable, or the row is not among the first {MOST} of its payload."
        )


def run_trace(command: BaseCommand, options: dict[str, Any]) -> None:
    """Show a cascade."""
    found = cascade_of(_message(options), scan=True if options["scan"] else None)
    if options["json"]:
        shown = report.message_object(found.root)
        _write(command, **shown, whole=found.is_whole, scanned=found.was_scanned)
    else:
        _lines(command, report.message_lines(found.root))
    if found.was_scanned:
        command.stderr.write(
            "The texts of later messages were searched too: older versions record no root of a cascade."
        )
    if not found.is_whole:
        command.stderr.write("Not all of the younger messages were looked at: the cascade may be larger.")


def _message(options: dict[str, Any]) -> FoundMessage:
    found = message_of(options["id"])
    if found is None:
        raise CommandError(
            f"{options['id']} is not in the ledger: it is purged, or its signal is not durable and nothing went wrong."
        )
    return found


def _write(command: BaseCommand, **values: Any) -> None:
    command.stdout.write(json.dumps({"schema": report.SCHEMA, **values}, indent=2))


def _lines(command: BaseCommand, lines: Iterable[str]) -> None:
    for line in lines:
        command.stdout.write(line)
