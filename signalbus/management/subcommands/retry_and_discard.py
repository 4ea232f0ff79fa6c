"""``retry`` and ``discard``: change deliveries by hand, those that are named or those that a filter selects."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.core.management.base import CommandError

from signalbus.management.subcommands.pause_and_resume import rate_from
from signalbus.management.text import limit_of
from signalbus.services.actors import command_actor
from signalbus.services.delivery_changes import discard, matching, retry
from signalbus.services.lookup import filter_from

if TYPE_CHECKING:
    from django.core.management.base import BaseCommand

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
        parser.add_argument("--limit", type=int, metavar="N", help="of a filter or --all, the oldest N only")
        parser.add_argument("--dry-run", action="store_true", help="say how many a filter selects, and change nothing")
        parser.add_argument("--reason", default="", metavar="TEXT", help="why; `log` shows it")


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
    ids, wanted = (None, "") if options["all"] and options["limit"] is None else _selected(options)
    if options["dry_run"]:
        _preview(command, ids, "retry")
        return
    retried = retry(ids, actor=command_actor(), reason=options["reason"], rate=options["rate"], wanted=wanted)
    _report(command, retried, len(ids or ()), "due again")


def run_discard(command: BaseCommand, options: dict[str, Any]) -> None:
    """Discard deliveries."""
    ids, wanted = _selected(options)
    if options["dry_run"]:
        _preview(command, ids, "discard")
        return
    discarded = discard(ids, actor=command_actor(), reason=options["reason"], wanted=wanted)
    _report(command, discarded, len(ids), "discarded")


def _selected(options: dict[str, Any]) -> tuple[list[UUID], str]:
    """Return the deliveries that are named, that a filter selects or that `failed` lists; and the filter's text."""
    words = [word for word in options["which"] if ":" in word]
    limit = limit_of(options)
    if options["which"] and not words:
        if limit is not None:
            raise CommandError("--limit is for a filter or --all: name as many ids as you mean.")
        try:
            return list(dict.fromkeys(id_from(word) for word in options["which"])), ""
        except ArgumentTypeError as error:
            raise CommandError(f"{error}. A filter is written as key:value.") from error
    if len(words) < len(options["which"]):
        raise CommandError("Name ids, or a filter of key:value words; not both.")
    wanted = filter_from(words)
    return matching(wanted, actor=command_actor(), limit=limit), str(wanted)


def _preview(command: BaseCommand, ids: list[UUID] | None, verb: str) -> None:
    count = len(matching(filter_from([]), actor=command_actor())) if ids is None else len(ids)
    command.stdout.write(f"{verb} would be asked of {count} {'delivery' if count == 1 else 'deliveries'}.")
    for id_ in (ids or [])[:10]:
        command.stdout.write(f"    {id_}")


def _report(command: BaseCommand, done: int, wanted: int, word: str) -> None:
    command.stdout.write(f"{done} {'delivery' if done == 1 else 'deliveries'} {word}.")
    if done < wanted:
        raise CommandError(
            f"{wanted - done} of {wanted} left alone: not in the ledger, done, running now, or a text that nobody "
            "vouches for (those can only be discarded)."
        )
