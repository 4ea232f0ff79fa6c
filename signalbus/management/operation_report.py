"""Format operations in bulk, for ``operations``, ``retry``, ``discard`` and ``status``; and wait for one to end."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any, Final

from django.core.management.base import CommandError

from signalbus.ledger.operations import CHANGED
from signalbus.management.inspection_report import INDENT
from signalbus.management.text import iso, one_line
from signalbus.services.actors import command_actor
from signalbus.services.changes.bulk_operations import operation, progress_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from django.core.management.base import BaseCommand

    from signalbus.ledger.operations import BulkOperation
    from signalbus.models import Delivery

POLL_SECONDS: Final = 0.5  # between two looks at an operation that is waited for
PLAIN_SECONDS: Final = 5.0  # between two lines about it, where the output is no terminal
NOBODY_SECONDS: Final = 15.0  # after which a worker should have begun it
MOST_EXAMPLES: Final = 20  # deliveries that failed again, of one answer


def operation_line(each: BulkOperation) -> str:
    """Return a line about an operation."""
    who = f" by {one_line(each.by)}" if each.by else ""
    reason = f" ({one_line(each.reason)})" if each.reason else ""
    stopped = f" because of {one_line(each.stopped_because)}" if each.stopped_because else ""
    return f"{each.id}  {each.state}{stopped}: {each.kind} {_what(each)}{who}{reason}: {progress_of(each)}"


def detail_lines(each: BulkOperation, failing: list[Delivery]) -> Iterator[str]:
    """Yield the lines about one operation.

    Args:
        each: the operation.
        failing: deliveries of it that have failed again.
    """
    yield operation_line(each)
    times = (("asked for", each.created_at), ("begun", each.started_at), ("ended", each.ended_at))
    yield INDENT + ", ".join(f"{name} at {moment:%Y-%m-%d %H:%M:%S} UTC" for name, moment in times if moment)
    if each.trial and not each.is_over:
        yield f"{INDENT}goes on when these have ended well: {', '.join(each.trial)}"
    for row in failing:
        signal = one_line(row.message.signal)
        yield f"{row.pk}  {row.state}  {row.attempts} attempts  {signal} -> {one_line(row.receiver)}"
        yield INDENT + one_line(row.error)
    if len(failing) == MOST_EXAMPLES:
        yield f"The {len(failing)} oldest that failed again; there may be more."
    if each.stopped_group:
        yield (
            f"Fix the cause, and start again: `manage.py signalbus {each.kind} group:{one_line(each.stopped_group)}`; "
            "`rehearse` tries one first."
        )


def operation_object(each: BulkOperation) -> dict[str, Any]:
    """Return an operation for programs."""
    return {
        "id": each.id, "kind": each.kind, "filter": list(each.words), "reason": each.reason, "by": each.by,
        "through": each.through, "state": each.state, "stage": each.stage, "rate": each.rate, "limit": each.limit,
        "found": each.found, "changed": each.changed, "done": each.done, "waiting": each.waiting,
        "failed_again": each.failed_again, "left_alone": each.left_alone, "left": each.left,
        "seconds_left": each.seconds_left, "stopped_because": each.stopped_because or None,
        "stopped_group": each.stopped_group or None, "stopped_by": list(each.stopped_by),
        "created_at": each.created_at.isoformat(), "started_at": each.started_at and each.started_at.isoformat(),
        "ended_at": each.ended_at and each.ended_at.isoformat(),
    }  # fmt: skip


def failing_objects(failing: Iterable[Delivery]) -> list[dict[str, Any]]:
    """Return deliveries that failed again for programs."""
    return [
        {
            "id": str(row.pk), "signal": row.message.signal, "receiver": row.receiver, "state": row.state,
            "attempts": row.attempts, "error": row.error, "group": row.error_group, "failed_at": iso(row.failed_at),
        }
        for row in failing
    ]  # fmt: skip


def wait_for(command: BaseCommand, number: int) -> None:
    """Show the progress of an operation until it ends: in one line of a terminal, else in lines.

    Args:
        command: the command that prints.
        number: the operation's number.

    Raises:
        CommandError: it stopped, was cancelled, or some of its deliveries failed again.
        UnknownOperation: there is none.
    """
    shown = _Progress(command)
    try:
        while not (each := operation(command_actor(), number)).is_over:
            shown.show(each)
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        shown.end()
        command.stdout.write(f"Operation {number} goes on: `operations {number} --cancel` ends it.")
        raise SystemExit(130) from None
    shown.end(each)
    if each.state != "done" or each.failed_again:
        stopped = f" because of {one_line(each.stopped_because)}" if each.stopped_because else ""
        raise CommandError(
            f"Operation {number} is {each.state}{stopped}; {each.failed_again} failed again, "
            f"{each.left} not {CHANGED[each.kind]}: "
            f"`manage.py signalbus operations {number}` says more."
        )


class _Progress:
    """The lines about an operation that is waited for.

    Args:
        command: the command that prints.
    """

    def __init__(self, command: BaseCommand) -> None:
        self._out = command.stdout
        self._is_terminal = command.stdout.isatty()
        self._width = 0
        self._told: tuple[str, float] | None = None
        self._began = time.monotonic()
        self._has_warned = False

    def show(self, each: BulkOperation) -> None:
        """Show how far it has come."""
        now = time.monotonic()
        if each.state == "waiting" and now - self._began > NOBODY_SECONDS and not self._has_warned:
            self._has_warned = True
            self.end()
            self._out.write("No worker has begun it: does one of this version run? `manage.py signalbus status` says.")
        text = f"{each.id}  {each.state}: {progress_of(each)}"
        if self._is_terminal:
            text = text[: max(20, shutil.get_terminal_size().columns - 1)]
            self._out.write("\r" + text.ljust(self._width), ending="")
            self._width = len(text)
            self._out.flush()
        elif self._told is None or (self._told[0] != text and now - self._told[1] >= PLAIN_SECONDS):
            self._told = (text, now)
            self._out.write(text)
            self._out.flush()

    def end(self, each: BulkOperation | None = None) -> None:
        """End the line, and show the last state."""
        if self._width:
            self._out.write("\r" + " " * self._width + "\r", ending="")
            self._width = 0
        if each is not None:
            self._out.write(f"{each.id}  {each.state}: {progress_of(each)}")


def _what(each: BulkOperation) -> str:
    limited = f" (the oldest {each.limit:,})" if each.limit is not None else ""
    return f"{one_line(' '.join(each.words)) or 'all'}{limited}"
