"""``schema``: write and check the lock file of the payloads, or export what the signals carry for other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.management.base import CommandError

from signalbus.exceptions import ConfigurationError
from signalbus.graph.mermaid_text import mermaid_of
from signalbus.graph.signal_graph import signal_graph
from signalbus.schemas.exports import asyncapi, json_schemas
from signalbus.schemas.lock_changes import changes_between
from signalbus.schemas.lock_file import lock_of_code, lock_path, read_lock, text_of_lock
from signalbus.services.actors import command_actor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.core.management.base import BaseCommand

    from signalbus.schemas.lock_changes import Change


def add(commands: Any) -> None:
    """Declare the subcommand.

    Args:
        commands: argparse's subparsers.
    """
    schema = commands.add_parser(
        "schema", help="write or check the lock file of signals, payloads and receivers; needs no database"
    )
    schema.set_defaults(run=run)
    what = schema.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="write what the code promises; refuses a breaking change")
    what.add_argument("--check", action="store_true", help="compare the code with the file; exit code 1 if it breaks")
    what.add_argument("--format", choices=("asyncapi", "json-schema", "mermaid"), help="export for other programs")
    schema.add_argument("--title", default="", help="with asyncapi: of the application (the project's module)")
    schema.add_argument("--version-of-app", default="1.0.0", metavar="VERSION", help="with asyncapi (1.0.0)")
    schema.add_argument("--accept", action="store_true", help="with --write: breaking changes too")
    schema.add_argument("--file", type=Path, metavar="FILE", help="the lock file (BASE_DIR/signalbus.lock.json)")


def run(command: BaseCommand, options: dict[str, Any]) -> None:
    """Write or check the lock file.

    Args:
        command: writes the output.
        options: as declared.

    Raises:
        CommandError: a breaking change, or no file to compare with.
    """
    if options["format"] is not None:
        command.stdout.write(_exported(options), ending="")
        return
    path = options["file"] or lock_path()
    former = read_lock_or_none(path, accept=options["accept"])
    current = lock_of_code(former)
    changes = [] if former is None else changes_between(former, current)
    if options["check"]:
        if former is None:
            raise CommandError(
                f"There is no {path}: write it with `manage.py signalbus schema --write`, and commit it."
            )
        _tell(command, changes)
        _refuse(changes, "")
        if changes:
            command.stdout.write(
                f"Nothing breaks. Record it: `manage.py signalbus schema --write`, and commit {path.name}."
            )
        else:
            command.stdout.write(f"The code is as {path.name} says.")
        return
    _tell(command, changes)
    if not options["accept"]:
        _refuse(changes, " To write the file all the same, add --accept.")
    write_file(path, text_of_lock(current))
    command.stdout.write(f"{path} is written: {len(current['signals'])} signals. Commit it.")


def _exported(options: dict[str, Any]) -> str:
    if options["format"] == "mermaid":
        return mermaid_of(signal_graph(command_actor(), with_rates=False))
    title = options["title"] or settings.ROOT_URLCONF.partition(".")[0]
    shown = asyncapi(title, options["version_of_app"]) if options["format"] == "asyncapi" else json_schemas()
    return f"{json.dumps(shown, indent=2, ensure_ascii=False)}\n"


def read_lock_or_none(path: Path, *, accept: bool) -> dict[str, Any] | None:
    """Read the lock file; a broken one is replaced if it is accepted.

    Args:
        path: of the file.
        accept: ignore a file that cannot be read.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        return read_lock(path)
    except ConfigurationError:
        if accept:
            return None
        raise


def write_file(path: Path, text: str) -> None:
    """Write a file that was asked for.

    Args:
        path: the file.
        text: its text.

    Raises:
        CommandError: it cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error}") from error


def _tell(command: BaseCommand, changes: Sequence[Change]) -> None:
    for change in changes:
        if change.is_breaking:
            command.stderr.write(f"breaks: {change.what}.\n  {change.remedy[:1].upper()}{change.remedy[1:]}.")
        else:
            command.stdout.write(f"harmless: {change.what}.")


def _refuse(changes: Sequence[Change], hint: str) -> None:
    breaking = sum(change.is_breaking for change in changes)
    if breaking:
        raise CommandError(
            f"{breaking} change(s) would strand messages that wait, or senders of the former code.{hint}"
        )
