"""``retry`` and ``discard``: change deliveries by hand, those that are named or those that a filter selects."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.core.management.base import CommandError

from signalbus.management.operation_report import wait_for
from signalbus.management.subcommands.pause_and_resume import rate_from
from signalbus.management.text import limit_of, one_line, time_of
from signalbus.services.actors import command_actor
from signalbus.services.changes.bulk_operations import AT_ONCE, start_operation
from signalbus.services.changes.delivery_changes import discard, matching, retry, summarize
from signalbus.services.queries.lookup import filter_from

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.core.management.base import BaseCommand

    from signalbus.ledger.operations import BulkKind
    from signalbus.services.filters import Filter

SHOWN = 10  # ids and receivers of a preview
WHICH = "ids that `failed` lists, or a filter of what `failed` lists, as receiver:crm.* group:5f3a9c1d20b7"


def add(commands: Any) -> None:
    """Declare ``retry`` and ``discard``."""
    again = commands.add_parser("retry", help="run deliveries again, also discarded ones, with new attempts")
    again.set_defaults(run=run_retry)
    again.add_argument("which", nargs="*", metavar="ID|KEY:VALUE", help=WHICH)
    again.add_argument("--all", action="store_true", help="all that `failed` lists, so none that was discarded")
    again.add_argument("--rate", type=rate_from, metavar="20/s", help="how many become due in a second or minute")
    never = commands.add_parser("discard", help="never run deliveries again, unless you retry them by their ids")
    never.set_defaults(run=run_discard)
    never.add_argument("which", nargs="+", metavar="ID|KEY:VALUE", help=WHICH)
    for parser in (again, never):
        parser.add_argument("--limit", type=int, metavar="N", help="of what is selected without ids, the oldest N only")
        parser.add_argument("--dry-run", action="store_true", help="say what a filter selects, and change nothing")
        parser.add_argument("--reason", default="", metavar="TEXT", help="why; `log` shows it")
        how = parser.add_mutually_exclusive_group()
        how.add_argument(
            "--wait",
            action="store_true",
            help="show the progress until all have ended; exit code 1 if it stopped or one failed again",
        )
        how.add_argument(
            "--now",
            action="store_true",
            help=f"change them at once, also more than {AT_ONCE}, which without it are an operation",
        )


def id_from(text: str) -> UUID:
    """Read an id.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        return UUID(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is no id; `manage.py signalbus failed` lists them") from error


def run_retry(command: BaseCommand, options: dict[str, Any]) -> None:
    """Retry deliveries."""
    if bool(options["which"]) == options["all"]:
        raise CommandError("Say which: the ids that `manage.py signalbus failed` lists, a filter, or --all.")
    ids, wanted = _selected(command, options, "retry")
    if wanted is None:
        return
    if options["all"] and options["limit"] is None:
        ids = None
    retried = retry(ids, actor=command_actor(), reason=options["reason"], rate=options["rate"], wanted=wanted)
    _report(command, retried, len(ids or ()), "due again")


def run_discard(command: BaseCommand, options: dict[str, Any]) -> None:
    """Discard deliveries."""
    ids, wanted = _selected(command, options, "discard")
    if wanted is None:
        return
    discarded = discard(ids or [], actor=command_actor(), reason=options["reason"], wanted=wanted)
    _report(command, discarded, len(ids or ()), "discarded")


def _selected(command: BaseCommand, options: dict[str, Any], verb: BulkKind) -> tuple[list[UUID] | None, str | None]:
    """Return the deliveries to change at once, and the text of the filter that selects them; None if all is done."""
    words = [word for word in options["which"] if ":" in word]
    limit = limit_of(options)
    if options["which"] and not words:
        if limit is not None or options["wait"]:
            raise CommandError(f"--{'wait' if limit is None else 'limit'} is for a filter or --all, not for ids.")
        try:
            ids = list(dict.fromkeys(id_from(word) for word in options["which"]))
        except ArgumentTypeError as error:
            raise CommandError(f"{error}. A filter is written as key:value.") from error
        if options["dry_run"]:
            _tell_preview(command, verb, len(ids), ids)
            return None, None
        return ids, ""
    if len(words) < len(options["which"]):
        raise CommandError("Name ids, or a filter of key:value words; not both.")
    wanted = filter_from(words)
    if options["dry_run"]:
        _preview(command, wanted, verb, limit)
        return None, None
    actor = command_actor()
    most = AT_ONCE + 1 if limit is None else min(limit, AT_ONCE + 1)
    if options["wait"] or (not options["now"] and len(matching(wanted, actor=actor, limit=most)) > AT_ONCE):
        _start(command, options, verb, wanted)
        return None, None
    return matching(wanted, actor=actor, limit=limit), str(wanted)


def _start(command: BaseCommand, options: dict[str, Any], verb: BulkKind, wanted: Filter) -> None:
    started = start_operation(
        verb, wanted, actor=command_actor(), reason=options["reason"], rate=options.get("rate"), limit=options["limit"]
    )
    how = "one first, then ten, then the others" if verb == "retry" else "in batches"
    command.stdout.write(
        f"Operation {started.id}: {verb} {one_line(str(wanted)) or 'all'}, {how}. The workers' sweepers do it."
    )
    if options["wait"]:
        wait_for(command, started.id)
    else:
        command.stdout.write(f"`manage.py signalbus operations {started.id} --wait` shows its progress.")


def _preview(command: BaseCommand, wanted: Filter, verb: str, limit: int | None) -> None:
    actor = command_actor()
    found = summarize(wanted, actor=actor, limit=limit)
    _tell_preview(command, verb, found.count, matching(wanted, actor=actor, limit=min(SHOWN, limit or SHOWN)))
    if found.count:
        command.stdout.write(f"The oldest was sent at {time_of(found.oldest)} (UTC).")
    for receiver, count in found.receivers[:SHOWN]:
        command.stdout.write(f"{count:>9,}  {one_line(receiver) or '(everyone it names)'}")
    if len(found.receivers) > SHOWN:
        command.stdout.write(f"           and {len(found.receivers) - SHOWN} other receivers")


def _tell_preview(command: BaseCommand, verb: str, count: int, ids: Sequence[UUID]) -> None:
    command.stdout.write(f"{verb} would be asked of {_deliveries(count)}.")
    for id_ in ids[:SHOWN]:
        command.stdout.write(f"    {id_}")


def _deliveries(count: int) -> str:
    return f"{count} {'delivery' if count == 1 else 'deliveries'}"


def _report(command: BaseCommand, done: int, wanted: int, word: str) -> None:
    command.stdout.write(f"{_deliveries(done)} {word}.")
    if done < wanted:
        raise CommandError(
            f"{wanted - done} of {wanted} left alone: not in the ledger, done, running now, or a text that nobody "
            "vouches for (those can only be discarded)."
        )
