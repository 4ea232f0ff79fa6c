"""The subcommand ``doctor``: judge each precondition of a promise, with its remedy."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from django.core.management.base import CommandError

from signalbus.core.printable_text import printable
from signalbus.doctor.examination import examine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.core.management.base import BaseCommand

    from signalbus.doctor.findings import Finding, Level

SCHEMA: Final = 1  # of the object; it changes when a reader would have to
COLOURS: Final = {"ok": "SUCCESS", "warning": "WARNING", "problem": "ERROR"}


def add(commands: Any) -> None:
    """Declare ``doctor``.

    Args:
        commands: argparse's subparsers.
    """
    doctor = commands.add_parser(
        "doctor", help="judge broker, database, workers and settings, with a remedy for each finding"
    )
    doctor.add_argument("--json", action="store_true", help="an object, for programs")
    doctor.set_defaults(run=_doctor, skip_checks=True)  # it runs them itself


def _doctor(command: BaseCommand, options: dict[str, Any]) -> None:
    found: list[Finding] = []
    for finding in examine():
        found.append(finding)
        if not options["json"]:
            _show(command, finding)
    if options["json"]:
        command.stdout.write(_as_json(found))
    counts = Counter(finding.level for finding in found)
    bad = counts["problem"] + counts["warning"]
    if bad:
        raise CommandError(f"{_counted(counts, 'problem')}, {_counted(counts, 'warning')}, {counts['ok']} ok.")
    if not options["json"]:
        command.stdout.write(f"All is well: {counts['ok']} ok.")


def _counted(counts: Counter[Level], level: Level) -> str:
    return f"{counts[level]} {level}{'' if counts[level] == 1 else 's'}"


def _show(command: BaseCommand, finding: Finding) -> None:
    colour = getattr(command.style, COLOURS[finding.level])
    command.stdout.write(f"{colour(f'{finding.level:7}')}  {finding.name:26}  {printable(finding.text)}")
    if finding.remedy:
        command.stdout.write(f"{'':37}-> {printable(finding.remedy)}")
    command.stdout.flush()


def _as_json(found: Sequence[Finding]) -> str:
    return json.dumps({"schema": SCHEMA, "findings": [finding._asdict() for finding in found]}, indent=2)
