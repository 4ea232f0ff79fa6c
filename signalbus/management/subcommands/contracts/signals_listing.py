"""``signals``: list what each signal carries, who sends it and who receives it, with the places in the code."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from django.core.management.base import CommandError

from signalbus.schemas.catalogue import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.core.management.base import BaseCommand

    from signalbus.schemas.catalogue import CataloguedSignal

SCHEMA: Final = 1  # of the object; it changes when a reader would have to


def add(commands: Any) -> None:
    """Declare the subcommand.

    Args:
        commands: argparse's subparsers.
    """
    signals = commands.add_parser(
        "signals", help="list what each signal carries, and the places that send and receive it; needs no database"
    )
    signals.add_argument("signals", nargs="*", metavar="SIGNAL", help="these only; all of them if none is named")
    signals.add_argument("--json", action="store_true", help="an object, for programs")
    signals.set_defaults(run=run)


def run(command: BaseCommand, options: dict[str, Any]) -> None:
    """List the signals.

    Args:
        command: writes the output.
        options: as declared.

    Raises:
        CommandError: a signal that this process does not know.
    """
    found = catalogue(options["signals"])
    unknown = sorted({*options["signals"]} - {each.name for each in found})
    if unknown:
        raise CommandError(f"No signal {', '.join(unknown)}: `manage.py signalbus signals` lists all.")
    if options["json"]:
        command.stdout.write(json.dumps({"schema": SCHEMA, "signals": [asdict(each) for each in found]}, indent=2))
        return
    for each in found:
        for line in _lines(each):
            command.stdout.write(line)


def _lines(signal: CataloguedSignal) -> Iterator[str]:
    payload = signal.payload
    yield f"{signal.name}, declared at {signal.place}"
    if payload is None:
        yield "  carries any payload"
    else:
        yield f"  carries {payload.name}, version {payload.version} ({payload.place})"
        yield f"    {', '.join(payload.keys) or 'no keys'}"
    yield from (f"  sent at {sender.place}" for sender in signal.senders)
    if not signal.senders:
        yield "  no call of its send() found in the sources"
    for receiver in signal.receivers:
        sender = "" if receiver.sender is None else f", from {receiver.sender} only"
        yield f"  received by {receiver.id} ({receiver.place}){sender}"
    yield from (f"  received inline at {place}" for place in signal.inline)
