"""``in-flight`` exports what waits on the running system; ``check --in-flight`` judges with new code what it could run.

`monitoring_check` has the rest of ``check``.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from django.core.management.base import CommandError

from signalbus.management.subcommands.contracts.schema_files import write_file
from signalbus.schemas.deploy_gate import judge, read_export
from signalbus.schemas.in_flight import export_in_flight
from signalbus.schemas.lock_file import lock_path, read_lock

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from django.core.management.base import BaseCommand

    from signalbus.schemas.deploy_gate import Stranded

HORIZON: Final = 30  # days
REFUSED: Final = 2  # the exit code, which is "critical" of the other uses of `check`


def add(commands: Any) -> None:
    """Declare ``in-flight``.

    Args:
        commands: argparse's subparsers.
    """
    exported = commands.add_parser(
        "in-flight",
        help="export what waits in the ledger, without values, for `check` with the code of the next deploy",
    )
    exported.add_argument("--export", type=Path, required=True, metavar="FILE", help="where to write it")
    exported.set_defaults(run=run_export)


def add_gate(check: ArgumentParser) -> None:
    """Declare the options of ``check`` that judge an exported file.

    Args:
        check: the parser of ``check``.
    """
    check.add_argument(
        "--in-flight", type=Path, metavar="FILE",
        help="in place of the bus, judge which deliveries in a file of `in-flight --export` this code could not run; "
        "needs no database; exit code 0, or 2 if any is due before the horizon",
    )  # fmt: skip
    check.add_argument(
        "--horizon", type=float, default=HORIZON, metavar="DAYS",
        help=f"with --in-flight: what is due later than this after the export is a warning ({HORIZON})",
    )  # fmt: skip


def run_export(command: BaseCommand, options: dict[str, Any]) -> None:
    """Export what waits.

    Args:
        command: writes the output.
        options: as declared.
    """
    exported = export_in_flight()
    write_file(options["export"], f"{json.dumps(exported, indent=1)}\n")
    number = sum(sum(group["due"].values()) for group in exported["groups"])
    command.stdout.write(f"{number} deliveries in {len(exported['groups'])} groups are written to {options['export']}.")


def run_gate(command: BaseCommand, options: dict[str, Any]) -> None:
    """Judge exported deliveries.

    Args:
        command: writes the output.
        options: as declared.

    Raises:
        CommandError: some could not run, and are due before the horizon.
    """
    verdict = judge(read_export(options["in_flight"]), timedelta(days=options["horizon"]), read_lock(lock_path()))
    if options["json"]:
        shown = {
            "schema": 1, "deliveries": verdict.deliveries, "unread": verdict.unread, "soon": verdict.soon,
            "stranded": [_object(each) for each in verdict.stranded],
        }  # fmt: skip
        command.stdout.write(json.dumps(shown, indent=2))
    else:
        for each in verdict.stranded:
            command.stderr.write(_line(each))
            for reason in each.reasons:
                command.stderr.write(f"  {reason}")
        if verdict.unread:
            command.stderr.write(f"{verdict.unread} texts could not be read where they wait, and were not judged.")
    if verdict.soon:
        raise CommandError(
            f"This code could not run {verdict.soon} of {verdict.deliveries} deliveries that wait: do not deploy it.",
            returncode=REFUSED,
        )
    if not options["json"]:
        command.stdout.write(f"This code can run all of {verdict.deliveries} deliveries that are due in time.")


def _line(each: Stranded) -> str:
    number = each.soon + each.later
    what = " to ".join(filter(None, (each.signal or "a message", each.receiver)))
    due = f"due {each.first}" if each.first == each.last else f"due {each.first} to {each.last}"
    level = "" if each.soon else "warning: "
    return f"{level}{number} of {what}, {due}, as {each.example}:"


def _object(each: Stranded) -> dict[str, Any]:
    return {
        "signal": each.signal, "receiver": each.receiver, "reasons": each.reasons, "soon": each.soon,
        "later": each.later, "first": each.first.isoformat(), "last": each.last.isoformat(), "example": each.example,
    }  # fmt: skip
