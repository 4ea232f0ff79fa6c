"""``audit``: count the outcomes of all that was sent, and find what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from signalbus.ledger import operations as ledger
from signalbus.management import audit_report
from signalbus.management.subcommands.maintenance import publish_due
from signalbus.receiving.sweeping.queue_evidence import ask_queues

if TYPE_CHECKING:
    from django.core.management.base import BaseCommand

AUDIT_WAIT = 15.0  # seconds: longer than a young publication takes to be looked at


def add(commands: Any) -> None:
    """Declare ``audit``."""
    audit = commands.add_parser("audit", help="add up what became of all that was sent, and find what is missing")
    audit.set_defaults(run=run)
    audit.add_argument("--since", default="24h", help="how far back, as 90m, 24h or 7d (24h)")
    audit.add_argument("--json", action="store_true", help="an object, for programs")
    audit.add_argument("--repair", action="store_true", help="publish again what is missing")
    audit.add_argument(
        "--wait",
        type=float,
        default=AUDIT_WAIT,
        metavar="SECONDS",
        help=f"how long the queues have to answer ({AUDIT_WAIT:g})",
    )


def run(command: BaseCommand, options: dict[str, Any]) -> None:
    """Audit the ledger."""
    since = ledger.clock_of(ledger.using()) - audit_report.window(options["since"])
    evidence, silent = ask_queues(options["wait"])
    found = ledger.audit(since, evidence)
    command.stdout.write(
        audit_report.as_json(since, found, silent) if options["json"] else audit_report.as_table(found)
    )
    for queue in silent:
        command.stderr.write(audit_report.silence(queue))
    if found.missing_total and not options["repair"]:
        raise CommandError(f"{found.missing_total} missing: `manage.py signalbus audit --repair` brings them back.")
    if found.missing_total:
        repaired = ledger.repair(found)
        command.stderr.write(f"{repaired} due again.")
        publish_due()
