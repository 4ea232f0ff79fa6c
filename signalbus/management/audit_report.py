"""Format an audit: as a table for people, as an object for programs.

The subcommand ``audit`` prints it; the counts come from `ledger/operations/ledger_audit`.
"""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from signalbus.ledger import operations as ledger
from signalbus.ledger.operations import Account

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from signalbus.ledger.operations import Audit

SCHEMA = 2  # of the object; it changes when a reader would have to
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
WORDS = tuple(Account().counts)
SHOWN = 20  # ids of what is missing, of one signal and receiver, in the table


def window(text: str, *, option: str = "--since") -> timedelta:
    """Read how far back an audit looks.

    Args:
        text: a number and a unit, as 90m, 24h or 7d.
        option: the option's name, for the error.

    Raises:
        CommandError: it is none.
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smhd])", text.strip())
    if found is None:
        raise CommandError(f"{option} is {text!r}; say a number and a unit, as 90m, 24h or 7d.")
    try:
        return timedelta(seconds=float(found[1]) * UNITS[found[2]])
    except OverflowError as error:
        raise CommandError(f"{option} is {text!r}, which is longer than any calendar.") from error


def as_json(since: datetime, found: Audit, silent: list[str]) -> str:
    """Write an audit for programs.

    Args:
        since: from when on.
        found: the audit.
        silent: queues of which it cannot be said whether what waits in them is lost.
    """
    rows = [
        {"signal": signal, "receiver": receiver, "sent": account.sent}
        | account.counts
        | {"missing": [str(id_) for id_ in account.missing]}
        for (signal, receiver), account in found.accounts.items()
    ]
    books: dict[str, Any] = {
        "schema": SCHEMA,
        "since": ledger.in_utc(since, ledger.using()).isoformat(),
        "rows": rows,
        "missing_total": found.missing_total,
        "silent": silent,
    }
    return json.dumps(books, indent=2)


def as_table(found: Audit) -> str:
    """Write an audit for people.

    Args:
        found: the audit.
    """
    if not found.accounts:
        return "Nothing was sent."
    return "\n".join(_lines(found))


def _lines(found: Audit) -> Iterator[str]:
    yield "".join(f"{word.upper():>10}" for word in ("sent", *WORDS, "missing")) + "  WHAT"
    for (signal, receiver), account in found.accounts.items():
        numbers = (account.sent, *account.counts.values(), len(account.missing))
        what = f"{signal or 'refused or unopened text'} -> {receiver or '(everyone it names)'}"
        yield "".join(f"{number:>10}" for number in numbers) + f"  {what}"
        for id_ in account.missing[:SHOWN]:
            yield f"    missing: {id_}"
        if len(account.missing) > SHOWN:
            yield f"    and {len(account.missing) - SHOWN} more; --json lists them all"
    yield f"\n{found.missing_total} missing."


def silence(queue: str) -> str:
    """Say of a queue that did not answer what that means.

    Args:
        queue: its name; empty for the default one.
    """
    which = f"The queue {queue!r}" if queue else "The default queue"
    return (
        f"{which} did not answer: no worker of it runs, or all are busy for longer than --wait. What was published to "
        "it counts as waiting; whether some of that is lost cannot be told until a worker has come to its end."
    )
