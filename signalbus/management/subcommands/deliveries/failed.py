"""``failed``: list the deliveries that failed, or those that a filter selects."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from signalbus.exceptions import TextError
from signalbus.ledger import operations as ledger
from signalbus.management import status_report
from signalbus.management.inspection_report import SCHEMA
from signalbus.management.text import iso, limit_of, one_line, time_of
from signalbus.management.watching import add_watch
from signalbus.models import State
from signalbus.services.groups import LIMIT as MOST_GROUPS
from signalbus.services.groups import count_attempts, failure_groups
from signalbus.services.queries.lookup import filter_from, find_deliveries
from signalbus.services.redaction import context_of
from signalbus.wire.message import from_body
from signalbus.wire.unverified_text import address_of

if TYPE_CHECKING:
    from django.core.management.base import BaseCommand
    from django.db.models import QuerySet

    from signalbus.models import Delivery
    from signalbus.services.filters import Filter
    from signalbus.services.groups import FailureGroup

LISTED = "failed --state skipped lists them"


def add(commands: Any) -> None:
    """Declare ``failed``."""
    failed = commands.add_parser("failed", help="list what failed: dead, parked, or waiting for its next attempt")
    add_watch(failed, run)
    failed.add_argument(
        "filter", nargs="*", metavar="KEY:VALUE",
        help="list all that a filter selects, as state:dead receiver:crm.* since:2h; docs/operating.md has the keys",
    )  # fmt: skip
    failed.add_argument("--json", action="store_true", help="a list of objects, for programs")
    failed.add_argument("--state", choices=[state.value for state in State], help="list only, and all of, one state")
    failed.add_argument("--limit", type=int, metavar="N", help="list at most so many")
    failed.add_argument("--group", action="store_true", help="group them by cause: error, place and receiver")
    failed.add_argument("--traceback", action="store_true", help="print each traceback too")


def run(command: BaseCommand, options: dict[str, Any]) -> None:
    """List deliveries."""
    wanted = filter_from(options["filter"])
    rows = _rows(wanted, options["state"])
    limit = limit_of(options)
    if options["group"]:
        if options["traceback"]:
            raise CommandError("--group prints no tracebacks: list one group with failed group:ID --traceback.")
        _run_groups(command, wanted, options)
        return
    if options["json"]:
        command.stdout.write(json.dumps([_as_json(row) for row in rows[:limit].iterator()], indent=2))
        return
    states: Counter[str] = Counter()
    for row in rows[:limit].iterator():
        if not states:
            command.stdout.write(_line("ID", "STATE", "TRIES", "FAILED AT (UTC)", "WHAT"))
        states[row.state] += 1
        _show(command, row, with_traceback=options["traceback"])
    _count(command, states, options["state"], wanted)
    if options["state"] is None and not wanted:
        for line in status_report.unattended():
            command.stdout.write(line)
        gone, nobody = ledger.skipped()
        if gone:
            command.stdout.write(f"{gone} skipped because their row was not found: {LISTED}")
        if nobody:
            command.stdout.write(f"{nobody} skipped because nobody received it: {LISTED}")


def _run_groups(command: BaseCommand, wanted: Filter, options: dict[str, Any]) -> None:
    """List failures by their cause."""
    if options["state"] is not None:
        wanted = filter_from([*wanted.words, f"state:{options['state']}"])
    answer = failure_groups(wanted, options["limit"] or MOST_GROUPS)
    groups, recorded = answer.groups, count_attempts(answer.groups)
    if options["json"]:
        found = [_group_as_json(group, recorded.get(group.id, 0)) for group in groups]
        command.stdout.write(json.dumps({"schema": SCHEMA, "groups": found, "more": answer.has_more}, indent=2))
        return
    for group in groups:
        states = ", ".join(f"{count} {state}" for state, count in group.states.most_common())
        states = states if len(group.states) == 1 else f"{group.count}: {states}"
        count = recorded.get(group.id, 0)
        attempts = f"{count} failed {'attempt' if count == 1 else 'attempts'}"
        command.stdout.write(f"{group.id}  {states}  {group.example.message.signal} -> {group.example.receiver}")
        command.stdout.write(f"    {one_line(group.example.error)}")
        command.stdout.write(
            f"    {attempts}, {time_of(group.first)} to {time_of(group.last)} (UTC); the last is {group.example.pk}"
        )
    if answer.has_more:
        command.stdout.write(f"The {len(groups)} largest groups; there are more.")
    if groups:
        command.stdout.write("manage.py signalbus failed group:ID lists a group; rehearse tries one of it.")
    else:
        command.stdout.write(f"Nothing matches {wanted}." if wanted else "Nothing has failed.")


def _group_as_json(group: FailureGroup, attempts: int) -> dict[str, Any]:
    return {
        "group": group.id,
        "count": group.count,
        "states": dict(group.states),
        "signal": group.example.message.signal,
        "receiver": group.example.receiver,
        "error": group.example.error,
        "attempts": attempts,
        "first_failed_at": iso(group.first),
        "last_failed_at": iso(group.last),
        "example": str(group.example.pk),
    }


def _rows(wanted: Filter, state: str | None) -> QuerySet[Delivery]:
    """Return what failed; what a filter selects instead, if it names a state or there is one."""
    if not wanted:
        return ledger.failed(state=state)
    if wanted.states and state is not None:
        raise CommandError("Name the state once: with --state, or in the filter.")
    if wanted.states:
        return find_deliveries(wanted)
    return ledger.failed(state=state).filter(wanted.condition)


def _show(command: BaseCommand, row: Delivery, *, with_traceback: bool) -> None:
    what = f"{row.message.signal} -> {row.receiver or '(everyone it names)'}" if row.message.signal else _unopened(row)
    if row.message.subject:
        what += f" about {one_line(row.message.subject)}"
    if context := _context(row):
        what += f" ({one_line(', '.join(f'{name}: {value}' for name, value in context.items()))})"
    command.stdout.write(_line(str(row.pk), row.state, str(row.attempts), time_of(row.failed_at), what))
    for line in filter(None, (one_line(row.error), _when_again(row), _why_held(row))):
        command.stdout.write(f"    {line}")
    if waiting := ledger.behind(row):
        command.stdout.write(f"    {waiting} of its ordering key wait behind it")
    if with_traceback and row.traceback:
        command.stdout.write("".join(f"    {line}\n" for line in row.traceback.splitlines()))


def _count(command: BaseCommand, states: Counter[str], state: str | None, wanted: Filter) -> None:
    if not states:
        nothing = "Nothing has failed." if state is None else f"Nothing is {state}."
        command.stdout.write(f"Nothing matches {wanted}." if wanted else nothing)
        return
    counts = "; ".join(f"{count} {state} ({State(state).facts.means})" for state, count in states.most_common())
    command.stdout.write(f"\n{sum(states.values())} in all: {counts}.")
    command.stdout.write(
        "manage.py signalbus retry ID… tries again; discard ID… gives up; failed --traceback says more."
    )


def _unopened(row: Delivery) -> str:
    """Say what a text is about that this process could not open: what it seems to be, or nothing."""
    address = address_of(row.message.text) if row.state == State.PARKED else None
    return "refused or unopened text" if address is None else f"unopened text, by its looks {one_line(address)}"


def _when_again(row: Delivery) -> str:
    """Say when a delivery that waits is published, and what helps one that no worker knows."""
    if row.state not in {State.PENDING, State.PARKED, State.HELD}:
        return ""
    if row.state == State.HELD and ledger.waits_for_release(row):
        return ""
    due = f"due{' again' if row.error else ''} at {time_of(row.due_at)} (UTC)"
    # Of a text that cannot be opened the error says what helps.
    if row.state != State.PARKED or not row.message.signal:
        return due
    return f"{due}; restart the workers if their code is older than the sender's"


def _why_held(row: Delivery) -> str:
    return f"held: {one_line(row.held_reason or '')}" if row.state == State.HELD else ""


def _context(row: Delivery) -> dict[str, Any]:
    """Return the context that a message carries, with secrets hidden; nothing of a text that cannot be read."""
    try:
        return context_of(from_body(row.message.text))
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
        "failed_at": iso(row.failed_at),
        "started_at": iso(row.started_at),
        "runtime_ms": row.runtime_ms,
        "worker": row.worker,
        "due_at": iso(row.due_at) if row.ended_at is None else None,
        "traceback": row.traceback,
        "waiting_behind": ledger.behind(row),
    }


def _line(id_: str, state: str, tries: str, failed_at: str, what: str) -> str:
    return f"{id_:36}  {state:9}  {tries:>5}  {failed_at:19}  {what}"
