"""``retry`` and ``discard``: change deliveries by hand."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.core.management.base import CommandError

from signalbus.ledger import operations as ledger

if TYPE_CHECKING:
    from django.core.management.base import BaseCommand


def add(commands: Any) -> None:
    """Declare ``retry`` and ``discard``."""
    retry = commands.add_parser("retry", help="run deliveries again, also discarded ones, with new attempts")
    retry.set_defaults(run=run_retry)
    retry.add_argument("ids", nargs="*", type=id_from, metavar="ID")
    retry.add_argument("--all", action="store_true", help="all that `failed` lists, so none that was discarded")
    discard = commands.add_parser("discard", help="never run deliveries again, unless you retry them by their ids")
    discard.set_defaults(run=run_discard)
    discard.add_argument("ids", nargs="+", type=id_from, metavar="ID")


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
    _report(command, ledger.retry(None if options["all"] else list(ids)), len(ids), "due again")


def run_discard(command: BaseCommand, options: dict[str, Any]) -> None:
    """Discard deliveries."""
    ids = set(options["ids"])
    _report(command, ledger.discard(list(ids)), len(ids), "discarded")


def _report(command: BaseCommand, done: int, wanted: int, word: str) -> None:
    command.stdout.write(f"{done} {'delivery' if done == 1 else 'deliveries'} {word}.")
    if done < wanted:
        raise CommandError(
            f"{wanted - done} of {wanted} left alone: not in the ledger, done, running now, or a text that nobody "
            "vouches for (those can only be discarded)."
        )
