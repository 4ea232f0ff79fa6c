"""``tail``: print a line for each event of a delivery, as the ledger tells of it, until Ctrl-C."""

from __future__ import annotations

import json
from time import sleep
from typing import TYPE_CHECKING, Any, Final

from django.core.management.base import CommandError
from django.db import InterfaceError, OperationalError, connections

from signalbus.ledger import operations as ledger
from signalbus.management.inspection_report import SCHEMA
from signalbus.management.subcommands.pause_and_resume import end_from
from signalbus.management.text import iso, limit_of, one_line
from signalbus.management.watching import seconds_from
from signalbus.services.actors import command_actor
from signalbus.services.queries.event_feed import EventFeed
from signalbus.services.queries.lookup import filter_from

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from django.core.management.base import BaseCommand

    from signalbus.services.queries.event_feed import FeedEvent

NOT_TOLD: Final = (
    "Not told: successes of signals that are not durable, holds, retries by hand, and what is over between two looks."
)


def add(commands: Any) -> None:
    """Declare ``tail``."""
    parser = commands.add_parser("tail", help="print what happens to deliveries, in any process, until Ctrl-C")
    parser.set_defaults(run=run)
    parser.add_argument(
        "filter", nargs="*", metavar="KEY:VALUE", help="only of deliveries that a filter selects, as receiver:crm.*"
    )
    parser.add_argument("--since", type=end_from, metavar="AGE", help="begin with what happened in the last 90s or 2h")
    parser.add_argument("--limit", type=int, metavar="N", help="end after so many events")
    parser.add_argument(
        "--interval", type=seconds_from, default=1.0, metavar="SECONDS", help="between two looks at the ledger (1)"
    )
    parser.add_argument("--json", action="store_true", help="an object in each line, for programs")


def run(command: BaseCommand, options: dict[str, Any]) -> None:
    """Print events.

    Raises:
        CommandError: --since is no age, or the limit is below 1.
    """
    since, left = options["since"], limit_of(options)
    if since is not None and not hasattr(since, "total_seconds"):
        raise CommandError("--since takes an age, as 90s, 30m or 2h.")
    show = _object if options["json"] else _line
    try:
        for event in _events(command, options, since):
            command.stdout.write(show(event))
            command.stdout.flush()
            left = None if left is None else left - 1
            if left == 0:
                return
    except KeyboardInterrupt:
        return  # which ends it


def _events(command: BaseCommand, options: dict[str, Any], since: timedelta | None) -> Iterator[FeedEvent]:
    feed = EventFeed(command_actor(), filter_from(options["filter"]), *(() if since is None else (since,)))
    command.stderr.write(NOT_TOLD)
    is_away = False
    while True:
        try:
            found = feed.look()
        except (OperationalError, InterfaceError) as error:
            if isinstance(error, OperationalError) and ledger.is_missing(error):
                raise
            if not is_away:
                command.stderr.write(f"The database is away, and is asked again: {one_line(str(error))}")
            is_away = True
            connections[ledger.using()].close()
        else:
            if is_away:
                command.stderr.write("The database is back.")
            is_away = False
            yield from found
        sleep(options["interval"])


def _line(event: FeedEvent) -> str:
    delivery = event.delivery
    signal = one_line(delivery.message.signal) or "unopened text"
    words = [
        f"{ledger.in_utc(event.at, ledger.using()):%H:%M:%S}",
        f"{event.kind:9}",
        f"{signal} -> {one_line(delivery.receiver) or '(whoever listens)'}",
        f"attempt {event.attempt}" if event.attempt > 1 or event.kind in {"failed", "running"} else "",
        "" if event.runtime_ms is None else f"{event.runtime_ms} ms",
        f"in {one_line(event.worker)}" if event.kind == "running" else "",
        f"about {one_line(delivery.message.subject)}" if delivery.message.subject else "",
        str(delivery.pk),
        one_line(event.error),
    ]
    return "  ".join(filter(None, words))


def _object(event: FeedEvent) -> str:
    delivery = event.delivery
    return json.dumps(
        {
            "schema": SCHEMA, "kind": event.kind, "at": iso(event.at), "delivery": str(delivery.pk),
            "message": str(delivery.message_id), "signal": delivery.message.signal, "receiver": delivery.receiver,
            "queue": delivery.queue, "subject": delivery.message.subject, "attempt": event.attempt,
            "runtime_ms": event.runtime_ms, "worker": event.worker, "release": event.release, "error": event.error,
            "group": delivery.error_group,
        }
    )  # fmt: skip
