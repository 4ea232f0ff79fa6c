"""``manage.py signalbus``: see what failed, and mend it."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentTypeError
from collections import Counter
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from signalbus import conf
from signalbus.broker.publisher import PublishError
from signalbus.exceptions import ConfigurationError, TextError
from signalbus.ledger import operations as ledger
from signalbus.management import audit_report, status_report
from signalbus.models import Delivery, State
from signalbus.receiving.sweeping.queue_evidence import ask_queues
from signalbus.receiving.sweeping.sweeper import sweep
from signalbus.wire.message import from_body
from signalbus.wire.peek import address_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

AUDIT_WAIT = 15.0  # seconds: longer than a young publication takes to be looked at
LISTED = "failed --state skipped lists them"


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is no id; `manage.py signalbus failed` lists them") from error


class Command(BaseCommand):
    """List, retry, discard, purge, sweep, audit, status."""

    help = "Shows what failed, retries or discards it, finds what is missing, and does the sweeper's work by hand."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the sub-commands."""
        commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
        failed = commands.add_parser("failed", help="list what failed: dead, parked, or waiting for its next attempt")
        failed.add_argument("--json", action="store_true", help="a list of objects, for programs")
        failed.add_argument(
            "--state", choices=[state.value for state in State], help="list only, and all of, one state"
        )
        failed.add_argument("--traceback", action="store_true", help="print each traceback too")
        retry = commands.add_parser("retry", help="give deliveries a fresh allowance of attempts, due at once")
        retry.add_argument("ids", nargs="*", type=_uuid, metavar="ID")
        retry.add_argument("--all", action="store_true", help="all that `failed` lists")
        discard = commands.add_parser("discard", help="give deliveries up for good")
        discard.add_argument("ids", nargs="+", type=_uuid, metavar="ID")
        purge = commands.add_parser("purge", help="delete what ended well, was skipped or discarded, and is old")
        purge.add_argument("--days", type=float, help='how old; SIGNALBUS["KEEP_SECONDS"] if not given')
        audit = commands.add_parser("audit", help="add up what became of all that was sent, and find what is missing")
        audit.add_argument("--since", default="24h", help="how far back, as 90m, 24h or 7d (24h)")
        audit.add_argument("--json", action="store_true", help="an object, for programs")
        audit.add_argument("--repair", action="store_true", help="publish again what is missing")
        audit.add_argument("--wait", type=float, default=AUDIT_WAIT, metavar="SECONDS", help="for the queues to answer")
        commands.add_parser(
            "status", help="say of each queue what waits, who consumes it, and which way messages take to it"
        )
        commands.add_parser("sweep", help="publish what is due now, as the sweeper in each worker does")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run a sub-command."""
        commands: dict[str, Callable[[dict[str, Any]], None]] = {
            "failed": self._failed,
            "retry": self._retry,
            "discard": self._discard,
            "purge": self._purge,
            "sweep": self._sweep,
            "audit": self._audit,
            "status": self._status,
        }
        try:
            commands[options["command"]](options)
            self.stdout.flush()
        except BrokenPipeError:
            # Whoever read it has seen enough, as `head`. Python would flush what is left when it ends, and complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            remedy = ledger.missing()
            if remedy is None:
                raise
            raise CommandError(remedy) from error

    def _failed(self, options: dict[str, Any]) -> None:
        rows = ledger.failed(state=options["state"])
        if options["json"]:
            self.stdout.write(json.dumps([_as_json(row) for row in rows.iterator()], indent=2))
            return
        states: Counter[str] = Counter()
        for row in rows.iterator():
            if not states:
                self.stdout.write(_line("ID", "STATE", "TRIES", "FAILED AT (UTC)", "WHAT"))
            states[row.state] += 1
            self._show(row, with_traceback=options["traceback"])
        self._count(states, options["state"])
        if options["state"] is None:
            for line in status_report.unattended():
                self.stdout.write(line)
            gone, nobody = ledger.skipped()
            if gone:
                self.stdout.write(f"{gone} skipped because their row was not found: {LISTED}")
            if nobody:
                self.stdout.write(f"{nobody} skipped because nobody received it: {LISTED}")

    def _show(self, row: Delivery, *, with_traceback: bool) -> None:
        what = (
            f"{row.message.signal} -> {row.receiver or '(everyone it names)'}" if row.message.signal else _unopened(row)
        )
        if row.message.subject:
            what += f" about {_one_line(row.message.subject)}"
        if context := _context(row):
            what += f" ({_one_line(', '.join(f'{name}: {value}' for name, value in context.items()))})"
        self.stdout.write(_line(str(row.pk), row.state, str(row.attempts), _time(row.failed_at), what))
        for line in filter(None, (_one_line(row.error), _when_again(row), _why_held(row))):
            self.stdout.write(f"    {line}")
        if waiting := ledger.behind(row):
            self.stdout.write(f"    {waiting} of its ordering key wait behind it")
        if with_traceback and row.traceback:
            self.stdout.write("".join(f"    {line}\n" for line in row.traceback.splitlines()))

    def _count(self, states: Counter[str], state: str | None) -> None:
        if not states:
            self.stdout.write("Nothing has failed." if state is None else f"Nothing is {state}.")
            return
        counts = "; ".join(f"{count} {state} ({State(state).facts.means})" for state, count in states.most_common())
        self.stdout.write(f"\n{sum(states.values())} in all: {counts}.")
        self.stdout.write(
            "manage.py signalbus retry ID… tries again; discard ID… gives up; failed --traceback says more."
        )

    def _retry(self, options: dict[str, Any]) -> None:
        if bool(options["ids"]) == options["all"]:
            raise CommandError("Say which: the ids that `manage.py signalbus failed` lists, or --all.")
        ids = set(options["ids"])
        self._report(ledger.retry(None if options["all"] else list(ids)), len(ids), "due again")

    def _discard(self, options: dict[str, Any]) -> None:
        ids = set(options["ids"])
        self._report(ledger.discard(list(ids)), len(ids), "discarded")

    def _report(self, done: int, wanted: int, word: str) -> None:
        self.stdout.write(f"{done} {'delivery' if done == 1 else 'deliveries'} {word}.")
        if done < wanted:
            raise CommandError(
                f"{wanted - done} of {wanted} left alone: not in the ledger, done, running now, or a text that nobody "
                "vouches for (those can only be discarded)."
            )

    def _purge(self, options: dict[str, Any]) -> None:
        seconds = conf.get().KEEP_SECONDS if options["days"] is None else options["days"] * 86400
        self.stdout.write(f"{ledger.purge(seconds)} deliveries purged.")

    def _sweep(self, _options: dict[str, Any]) -> None:
        self.stdout.write(f"{self._publish_due()} deliveries published.")

    def _publish_due(self) -> int:
        try:
            return sweep()
        except PublishError as error:
            raise CommandError(str(error)) from error

    def _audit(self, options: dict[str, Any]) -> None:
        since = ledger.clock_of(ledger.using()) - audit_report.window(options["since"])
        evidence, silent = ask_queues(options["wait"])
        found = ledger.audit(since, evidence)
        self.stdout.write(
            audit_report.as_json(since, found, silent) if options["json"] else audit_report.as_table(found)
        )
        for queue in silent:
            self.stderr.write(audit_report.silence(queue))
        if found.missing_total and not options["repair"]:
            raise CommandError(f"{found.missing_total} missing: `manage.py signalbus audit --repair` brings them back.")
        if found.missing_total:
            repaired = ledger.repair(found)
            self.stderr.write(f"{repaired} due again.")
            self._publish_due()

    def _status(self, _options: dict[str, Any]) -> None:
        for line in status_report.report():
            self.stdout.write(line)


def _unopened(row: Delivery) -> str:
    """Say what a text is about that this process could not open: what it seems to be, or nothing."""
    address = address_of(row.message.text) if row.state == State.PARKED else None
    return "refused or unopened text" if address is None else f"unopened text, by its looks {_one_line(address)}"


def _when_again(row: Delivery) -> str:
    """Say when a delivery that waits is published, and what helps one that no worker knows."""
    if row.state not in {State.PENDING, State.PARKED, State.HELD}:
        return ""
    due = f"due{' again' if row.error else ''} at {_time(row.due_at)} (UTC)"
    # Of a text that cannot be opened the error says what helps.
    if row.state != State.PARKED or not row.message.signal:
        return due
    return f"{due}; restart the workers if their code is older than the sender's"


def _why_held(row: Delivery) -> str:
    return f"held: {_one_line(row.held_reason or '')}" if row.state == State.HELD else ""


def _context(row: Delivery) -> dict[str, Any]:
    """Return what a message carries of its sender's context, as its tenant; nothing of a text that cannot be read."""
    try:
        return dict(from_body(row.message.text).context)
    except TextError:
        return {}


def _as_json(row: Delivery) -> dict[str, Any]:
    return {
        "id": str(row.pk),
        "message": str(row.message_id),
        "signal": row.message.signal,
        "subject": row.message.subject,
        "context": _context(row),
        "receiver": row.receiver,
        "queue": row.queue,
        "state": row.state,
        "attempts": row.attempts,
        "error": row.error,
        "held_reason": row.held_reason if row.state == State.HELD else None,
        "failed_at": _iso(row.failed_at),
        "started_at": _iso(row.started_at),
        "runtime_ms": row.runtime_ms,
        "worker": row.worker,
        "due_at": _iso(row.due_at) if row.ended_at is None else None,
        "traceback": row.traceback,
        "waiting_behind": ledger.behind(row),
    }


def _line(id_: str, state: str, tries: str, failed_at: str, what: str) -> str:
    return f"{id_:36}  {state:9}  {tries:>5}  {failed_at:19}  {what}"


def _time(moment: datetime | None) -> str:
    return "-" if moment is None else ledger.in_utc(moment, ledger.using()).strftime("%Y-%m-%d %H:%M:%S")


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else ledger.in_utc(moment, ledger.using()).isoformat()


def _one_line(text: str) -> str:
    # An error's text may be anybody's: its line breaks and escapes must not paint this list.
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return shown if len(shown) <= 200 else f"{shown[:199]}…"  # noqa: PLR2004 - a line or two of a terminal
