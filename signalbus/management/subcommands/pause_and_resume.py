"""``pause``, ``resume`` and ``log``: stop what is for a receiver, a signal or a queue, and see who changed what."""

from __future__ import annotations

import json
import re
from argparse import ArgumentTypeError
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from django.core.management.base import CommandError
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from signalbus.exceptions import ConfigurationError
from signalbus.management import pause_report
from signalbus.management.text import one_line
from signalbus.services.actors import command_actor
from signalbus.services.audit_log import MOST_LINES, read_log
from signalbus.services.changes.bulk_operations import read_rate
from signalbus.services.changes.pausing import FILTER_KEYS, is_known_here, pause, paused, resume

if TYPE_CHECKING:
    from django.core.management.base import BaseCommand

    from signalbus.services.changes.pausing import PauseKind

SCHEMA = 1  # of the objects; it changes when a reader would have to
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def add(commands: Any) -> None:
    """Declare the subcommands."""
    target = {
        "metavar": "KIND:NAME",
        "help": f"KIND is one of {', '.join(FILTER_KEYS)}; several words, or stars, make a filter",
    }
    stop = commands.add_parser("pause", help="hold what is for a receiver, a signal or a queue; without one: list them")
    stop.set_defaults(run=run_pause)
    stop.add_argument("target", nargs="*", **target)
    stop.add_argument("--reason", default="", metavar="TEXT", help="why; shown with each delivery that is held")
    stop.add_argument(
        "--until", type=end_from, metavar="WHEN", help="end by itself: after 30m, 2h or 3d, or at 2026-12-01T09:00"
    )
    stop.add_argument(
        "--unknown", action="store_true", help="pause a name that neither this code nor a running worker knows"
    )
    go_on = commands.add_parser("resume", help="end a pause, and release what it holds")
    go_on.set_defaults(run=run_resume)
    go_on.add_argument("target", nargs="+", **target)
    go_on.add_argument(
        "--rate", type=rate_from, metavar="N/s", help="how many are released in a second or minute, as 20/s or 100/m"
    )
    go_on.add_argument("--reason", default="", metavar="TEXT", help="why")
    log = commands.add_parser("log", help="list who paused, resumed, retried, discarded or purged what, and why")
    log.set_defaults(run=run_log)
    log.add_argument("--limit", type=limit_from, default=50, metavar="N", help="the youngest N lines (50)")
    log.add_argument("--kind", metavar="WORD", help="only what was done so, as pause")
    log.add_argument("--by", metavar="NAME", help="only what this person did")
    for parser in (stop, go_on, log):
        parser.add_argument("--json", action="store_true", help="an object, for programs")


def run_pause(command: BaseCommand, options: dict[str, Any]) -> None:
    """Pause something, or list what is paused."""
    if options["target"]:
        kind, name = target_from(options["target"])
        actor = command_actor()
        is_new = pause(
            kind, name, actor=actor, reason=options["reason"], until=options["until"], unknown=options["unknown"]
        )
        if not options["json"]:
            again = "" if is_new else " It was paused before; the reason and the end are the new ones."
            again += "" if is_known_here(kind, name) else " This process does not know it; workers may."
            command.stdout.write(f"{one_line(f'{kind}:{name}')} is paused: workers obey within 5 seconds.{again}")
            return
    found = paused(command_actor())
    if options["json"]:
        _write(command, paused=[pause_report.pause_object(each) for each in found])
        return
    for each in found:
        command.stdout.write(pause_report.pause_line(each))
    if not found:
        command.stdout.write("Nothing is paused.")


def run_resume(command: BaseCommand, options: dict[str, Any]) -> None:
    """End a pause."""
    kind, name = target_from(options["target"])
    held = resume(kind, name, actor=command_actor(), reason=options["reason"], rate=options["rate"])
    if options["json"]:
        _write(command, kind=kind, name=name, held=held, rate=options["rate"])
        return
    how = f" at {options['rate']:g} a second" if options["rate"] else ""
    deliveries = f"{held} held {'delivery is' if held == 1 else 'deliveries are'}"
    command.stdout.write(
        f"{one_line(f'{kind}:{name}')} is resumed: {deliveries} released{how} by the workers' sweepers."
    )


def run_log(command: BaseCommand, options: dict[str, Any]) -> None:
    """Print the audit log."""
    found = read_log(command_actor(), options["limit"], kind=options["kind"], by=options["by"])
    if options["json"]:
        _write(command, entries=[pause_report.entry_object(each) for each in found])
        return
    for each in found:
        command.stdout.write(pause_report.entry_line(each))
    if not found:
        command.stdout.write("Nobody has changed anything.")


def _write(command: BaseCommand, **values: Any) -> None:
    command.stdout.write(json.dumps({"schema": SCHEMA, **values}, indent=2))


def target_from(words: list[str]) -> tuple[PauseKind, str]:
    """Read what is paused: a receiver, a signal or a queue; with several words, or a star or comma, a filter.

    Args:
        words: as "receiver:marketing.tag_cohort".

    Raises:
        CommandError: one is not of this form.
    """
    found: PauseKind = "filter"
    for word in words:
        kind, _, name = word.partition(":")
        if kind not in FILTER_KEYS or not name:
            raise CommandError(f"{word!r} is not KIND:NAME; write receiver:…, signal:… or queue:…")
        plain = cast("PauseKind", kind)
        if len(words) == 1 and (not {"*", ","} & set(name) or is_known_here(plain, name)):
            return plain, name
    return found, " ".join(words)


def end_from(text: str) -> timedelta | datetime:
    """Read when a pause ends.

    Args:
        text: a number and a unit, or a time, in the project's time zone if it names none.

    Raises:
        ArgumentTypeError: it is neither.
    """
    found = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([smhd])", text.strip())
    if found is not None:
        return timedelta(seconds=float(found[1]) * UNITS[found[2]])
    try:
        moment = parse_datetime(text.strip())
    except ValueError:
        moment = None
    if moment is None:
        raise ArgumentTypeError(f"{text!r} is no time; write 30m, 2h, 3d or 2026-12-01T09:00")
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.get_default_timezone())


def rate_from(text: str) -> float:
    """Read a rate, and return deliveries a second.

    Args:
        text: a number and a unit of time, as 20/s or 100/m.

    Raises:
        ArgumentTypeError: it is none, or not above 0.
    """
    try:
        return read_rate(text)
    except ConfigurationError as error:
        raise ArgumentTypeError(str(error)) from error


def limit_from(text: str) -> int:
    """Read a number of lines.

    Args:
        text: a number from 1 to 10,000.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or not 1 <= int(text) <= MOST_LINES:
        raise ArgumentTypeError(f"{text!r} is no number from 1 to {MOST_LINES}")
    return int(text)
