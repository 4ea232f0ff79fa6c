"""``check``: one line and an exit code for a monitoring system, as Nagios' plugins give them.

With ``--in-flight`` it is the gate of a deploy: see `contracts/gating`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError

from signalbus.management.audit_report import window
from signalbus.management.inspection_report import SCHEMA
from signalbus.management.subcommands.contracts.gating import add_gate, run_gate
from signalbus.management.text import one_line
from signalbus.services.queries.monitoring import Judgement, Level, Limits, judge

if TYPE_CHECKING:
    from django.core.management.base import BaseCommand


def add(commands: Any) -> None:
    """Declare ``check``."""
    check = commands.add_parser(
        "check",
        help="judge the bus for a monitoring system (exit code 0 ok, 2 critical, 3 unknown), or a deploy (--in-flight)",
    )
    check.set_defaults(run=run)
    check.add_argument("--max-oldest", metavar="AGE", help="how long a delivery may wait for a worker, as 90s or 5m")
    check.add_argument("--max-dead", type=int, metavar="N", help="how many dead deliveries are allowed")
    check.add_argument("--max-parked", type=int, metavar="N", help="how many parked deliveries are allowed")
    check.add_argument("--min-workers", type=int, metavar="N", help="how many workers each queue must have")
    add_gate(check)
    check.add_argument("--json", action="store_true", help="an object, for programs")


def run(command: BaseCommand, options: dict[str, Any]) -> None:
    """Judge, and exit with the level."""
    if options["in_flight"] is not None:
        run_gate(command, options)
        return
    limits = Limits(
        oldest=None if options["max_oldest"] is None else window(options["max_oldest"], option="--max-oldest"),
        dead=options["max_dead"],
        parked=options["max_parked"],
        workers=options["min_workers"],
    )
    try:
        judgement = judge(limits)
    except DatabaseError as error:
        judgement = Judgement()
        judgement.add(Level.UNKNOWN, f"the ledger cannot be read: {error}")
    if options["json"]:
        shown = {"level": judgement.level.name, "findings": judgement.findings, "values": judgement.values}
        command.stdout.write(json.dumps({"schema": SCHEMA, **shown}, indent=2))
    else:
        words = one_line("; ".join(judgement.findings)) or "no limit is exceeded"
        values = " ".join(f"{name}={value}" for name, value in judgement.values.items())
        command.stdout.write(f"SIGNALBUS {judgement.level.name} - {words} | {values}")
    command.stdout.flush()
    if judgement.level:
        raise SystemExit(int(judgement.level))
