"""``retry`` and ``discard``: change deliveries by hand."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.core.management.base import CommandError

from signalbus.services.actors import command_actor
from signalbus.services.delivery_changes import discard, retry

if TYPE_CHECKING:
    from django.core.management.base import BaseCommand


def add(commands: Any) -> None:
    """Declare ``retry`` and ``discard``."""
    again = commands.add_parser("retry", help="run deliveries again, also discarded ones, with new attempts")
    again.set_defaults(run=run_retry)
    again.add_argument("ids", nargs="*", type=id_from, metavar="ID")
    again.add_argument("--all", action="store_true", help="all that `failed` lists, so none that was discarded")
    never = commands.add_parser("discard", help="never run deliveries again, unless you retry them by their ids")
    never.set_defaults(run=run_discard)
    never.add_argument("ids", nargs="+", type=id_from, metavar="ID")
    for parser in (again, never):
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
    if bool(options["ids"]) == options["all"]:
        raise CommandError("Say which: the ids that `manage.py signalbus failed` lists, or --all.")
    ids = set(options["ids"])
    retried = retry(None if options["all"] else list(ids), actor=command_actor(), reason=options["reason"])
    _report(command, retried, len(ids), "due again")


def run_discard(command: BaseCommand, options: dict[str, Any]) -> None:
    """Discard deliveries."""
    ids = set(options["ids"])
    _report(command, discard(list(ids), actor=command_actor(), reason=options["reason"]), len(ids), "discarded")


def _report(command: BaseCommand, done: int, wanted: int, word: str) -> None:
    command.stdout.write(f"{done} {'delivery' if done == 1 else 'deliveries'} {word}.")
    if done < wanted:
        raise CommandError(
            f"{wanted - done} of {wanted} left alone: not in the ledger, done, running now, or a text that nobody "
            "vouches for (those can only be discarded)."
        )
