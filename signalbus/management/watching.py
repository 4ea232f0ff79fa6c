"""Repeat the report of a command until Ctrl-C (``--watch``): drawn anew on a terminal, else printed again.

Subcommands declare the option with `add_watch`.
"""

from __future__ import annotations

import io
from argparse import ArgumentTypeError
from time import sleep
from typing import TYPE_CHECKING, Any, Final

from django.core.management.base import CommandError, OutputWrapper
from django.utils import timezone

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable

    from django.core.management.base import BaseCommand

    Run = Callable[[BaseCommand, dict[str, Any]], None]

SECONDS: Final = 2.0
SHORTEST, LONGEST = 0.2, 86400.0  # seconds
REDRAW: Final = "\x1b[H\x1b[2J"  # to the top left corner, and clear


def add_watch(parser: ArgumentParser, run: Run) -> None:
    """Declare ``--watch``, and let the subcommand repeat what it prints.

    Args:
        parser: the parser of the subcommand.
        run: what runs it once.
    """
    parser.add_argument(
        "--watch", nargs="?", type=seconds_from, const=SECONDS, metavar="SECONDS",
        help=f"print it again each {SECONDS:g} seconds, until Ctrl-C",
    )  # fmt: skip

    def run_watched(command: BaseCommand, options: dict[str, Any]) -> None:
        if options["watch"] is None:
            run(command, options)
        else:
            _repeat(command, options, run)

    parser.set_defaults(run=run_watched)


def seconds_from(text: str) -> float:
    """Read a number of seconds.

    Raises:
        ArgumentTypeError: it is none, or far too small or large.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not SHORTEST <= seconds <= LONGEST:
        raise ArgumentTypeError(f"{text!r} is no number of seconds from {SHORTEST:g} to {LONGEST:g}")
    return seconds


def _repeat(command: BaseCommand, options: dict[str, Any], run: Run) -> None:
    out = command.stdout
    try:
        while True:
            text = _printed(command, options, run)
            if out.isatty():
                title = f"Every {options['watch']:g} s, until Ctrl-C: {timezone.localtime():%H:%M:%S}"
                out.write(f"{REDRAW}{title}\n\n{text}", ending="")
            else:
                out.write(f"{text}\n")  # an empty line stands between two reports
            out.flush()
            sleep(options["watch"])
    except KeyboardInterrupt:
        pass  # which ends it
    finally:
        command.stdout = out


def _printed(command: BaseCommand, options: dict[str, Any], run: Run) -> str:
    """Return what a subcommand prints; also its error, after which it is tried again."""
    text = io.StringIO()
    command.stdout = OutputWrapper(text)
    try:
        run(command, options)
    except CommandError as error:
        command.stdout.write(f"{type(error).__name__}: {error}")
    return text.getvalue()
