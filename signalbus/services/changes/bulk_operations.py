"""Retry or discard many deliveries at once: ask for it, watch it, pause, resume and cancel it (decision 0050).

The sweepers of the workers do the work, step by step (`ledger/operations`).
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final, Literal, get_args

from django.db import transaction

from signalbus.exceptions import ConfigurationError
from signalbus.ledger import operations as ledger
from signalbus.services.actors import OPERATE, VIEW
from signalbus.services.audit_log import tell_after_commit, write_log

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from signalbus.ledger.operations import BulkKind, BulkOperation
    from signalbus.models import Delivery
    from signalbus.services.actors import Actor
    from signalbus.services.filters import Filter

AT_ONCE: Final = 100  # deliveries that commands and pages change themselves: more are an operation
MOST_RATE: Final = 1_000_000.0  # deliveries a second: more is none
MOST_NUMBER: Final = 2**63  # of an operation, in a column of the database
MOST_LISTED: Final = 1000  # operations, or deliveries that failed again, of one answer

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Change = Literal["pause", "resume", "cancel"]
CHANGES: Final[tuple[Change, ...]] = get_args(Change)
_CHANGES: Final[dict[str, tuple[Callable[[int], bool], str]]] = {
    "pause": (ledger.pause_bulk, "only one that waits or runs can be paused"),
    "resume": (ledger.resume_bulk, "only a paused one can be resumed"),
    "cancel": (ledger.cancel_bulk, "it has ended"),
}


class UnknownOperation(ConfigurationError):  # noqa: N818 - says what is wrong
    """There is no operation of this number."""


def reject_wrong_rate(rate: float | None) -> None:
    """Check a rate.

    Args:
        rate: deliveries a second; None for no limit.

    Raises:
        ConfigurationError: it is not above 0.
    """
    if rate is not None and not 0 < rate < math.inf:
        raise ConfigurationError(f"The rate is {rate!r}; it must be a number of deliveries a second, above 0.")


def read_rate(text: str) -> float:
    """Read a rate that somebody typed, and return deliveries a second.

    Args:
        text: a number and a unit of time, as 20/s or 100/m; without a unit it is in a second.

    Raises:
        ConfigurationError: it is none, or not above 0.
    """
    found = re.fullmatch(r"([0-9]{1,7}(?:\.[0-9]{1,9})?)(?:/([smhd]))?", text.strip())
    rate = 0.0 if found is None else float(found[1]) / _SECONDS[found[2] or "s"]
    if not rate:
        raise ConfigurationError(f"{text!r} is no rate; write 20/s or 100/m")
    return rate


def progress_of(each: BulkOperation) -> str:
    """Return how far an operation has come, in words.

    Args:
        each: the operation.
    """
    if each.found is None:
        return "no worker has begun it" if each.state == "waiting" else "not begun"
    words = [f"{each.changed:,} of {each.found:,} {ledger.CHANGED[each.kind]}"]
    if each.kind == "retry":
        words += [f"{each.done:,} done", f"{each.failed_again:,} failed again"]
        words += [f"{each.waiting:,} waiting"] if each.waiting else []
    words += [f"{each.left_alone:,} left alone"] if each.left_alone else []
    if not each.is_over:
        words += [] if each.rate is None else [f"{each.rate:g}/s"]
        words += [] if each.seconds_left is None else [f"about {_span(each.seconds_left)} left"]
    return ", ".join(words)


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def start_operation(  # noqa: PLR0913 - what is asked of who starts one
    kind: BulkKind,
    wanted: Filter,
    *,
    actor: Actor,
    reason: str = "",
    rate: float | None = None,
    limit: int | None = None,
    below: UUID | None = None,
) -> BulkOperation:
    """Ask for all deliveries that a filter selects now to be retried or discarded; the sweepers do it.

    A retry begins with one delivery; when that has ended well, ten follow, and when these have, all others. It stops
    as soon as an attempt of a delivery that it retried fails for a cause for which such deliveries had failed.

    Args:
        kind: "retry" or "discard".
        wanted: the filter. Without a state it selects among what `failed` lists. What is sent, fails or ends later is
            left alone.
        actor: who asks for it.
        reason: why.
        rate: how many deliveries a second; None for as many as the sweepers can change.
        limit: how many at most, the oldest first.
        below: only deliveries with an id below this one, which are older.

    Returns:
        The operation, which waits for a sweeper.

    Raises:
        PermissionDenied: the actor must not.
        ConfigurationError: the kind, the rate or the limit is wrong.
    """
    actor.require(OPERATE)
    reject_wrong_rate(rate)
    if kind not in ledger.CHANGED:
        raise ConfigurationError(f"{kind!r} is no operation in bulk; say one of {', '.join(ledger.CHANGED)}.")
    if limit is not None and limit < 1:
        raise ConfigurationError(f"The limit is {limit!r}; it must be at least 1.")
    with transaction.atomic(using=ledger.using()):
        number = ledger.add_bulk(
            kind, wanted.words, by=actor.name, by_id=actor.id, through=actor.through, reason=reason,
            rate=None if rate is None else min(rate, MOST_RATE), limit=limit, below=below,
        )  # fmt: skip
        target = {"operation": number, "filter": str(wanted) or "all"}
        tell_after_commit(actor, kind, target, reason)
    return _read(number)


def operations(actor: Actor, limit: int = 50) -> list[BulkOperation]:
    """Return operations in bulk: those that have not ended, and then the youngest of those that have.

    Args:
        actor: who asks.
        limit: how many at most; no more than 1,000.

    Raises:
        PermissionDenied: the actor must not see deliveries.
    """
    actor.require(VIEW)
    return ledger.bulk_operations(min(max(1, limit), MOST_LISTED))


def operation(actor: Actor, number: int) -> BulkOperation:
    """Return an operation in bulk.

    Args:
        actor: who asks.
        number: its number.

    Raises:
        PermissionDenied: the actor must not see deliveries.
        UnknownOperation: there is none.
    """
    actor.require(VIEW)
    return _read(number)


def failed_again(actor: Actor, number: int, limit: int = 20) -> list[Delivery]:
    """Return deliveries that a retry made due, and that have failed since and not succeeded, with their messages.

    They are found by the lasting words of its filter, not by a mark: somebody else's retry of the same deliveries
    shows here too.

    Args:
        actor: who asks.
        number: the operation's number.
        limit: how many at most, the oldest first.

    Raises:
        PermissionDenied: the actor must not see deliveries.
    """
    actor.require(VIEW)
    return ledger.failed_again(number, min(max(1, limit), MOST_LISTED))


def change_operation(change: Change, number: int, *, actor: Actor, reason: str = "") -> BulkOperation:
    """Pause, resume or cancel an operation. What it has made due runs all the same.

    Args:
        change: "pause", "resume" or "cancel".
        number: its number.
        actor: who asks for it.
        reason: why.

    Returns:
        The operation as it is now.

    Raises:
        PermissionDenied: the actor must not.
        UnknownOperation: there is none.
        ConfigurationError: it is in a state in which that cannot be.
    """
    actor.require(OPERATE)
    if change not in _CHANGES:
        raise ConfigurationError(f"{change!r} cannot be done to an operation; say one of {', '.join(CHANGES)}.")
    make, condition = _CHANGES[change]
    with transaction.atomic(using=ledger.using()):
        if not make(number):
            raise ConfigurationError(f"Operation {number} is {_read(number).state}: {condition}.")
        write_log(actor, change, {"operation": number}, reason=reason)
    return _read(number)


def _read(number: int) -> BulkOperation:
    found = ledger.bulk_operations(1, ids=[number]) if 0 < number < MOST_NUMBER else []
    if not found:
        raise UnknownOperation(f"There is no operation {number}: `manage.py signalbus operations` lists them.")
    return found[0]
