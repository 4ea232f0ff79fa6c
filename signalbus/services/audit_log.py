"""Write each change that a person makes to the audit log: a row in the ledger, and a line of the logger.

The row is written in the transaction of the change; the logger `signalbus.audit` is told after its commit.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db import transaction

from signalbus.core.printable_text import printable
from signalbus.ledger import operations as ledger
from signalbus.services.actors import VIEW, audit_logger

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from signalbus.ledger.operations import LogEntry
    from signalbus.services.actors import Actor

MOST_LINES = 10_000  # of one answer


def write_log(  # noqa: PLR0913 - the columns
    actor: Actor,
    kind: str,
    target: Mapping[str, Any],
    *,
    reason: str = "",
    rate: float | None = None,
    counts: Mapping[str, int] | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write down a change; called in its transaction.

    Args:
        actor: who makes it.
        kind: what is done, "pause" for example.
        target: what it is done to.
        reason: why.
        rate: deliveries a second, if it is limited.
        counts: numbers of deliveries.
        details: what else belongs to it.
    """
    ledger.add_to_log(
        kind, by=actor.name, by_id=actor.id, through=actor.through, target=target, reason=reason, rate=rate,
        counts=counts, details=details,
    )  # fmt: skip
    tell_after_commit(actor, kind, target, reason, counts)


def tell_after_commit(
    actor: Actor, kind: str, target: Mapping[str, Any], reason: str, counts: Mapping[str, int] | None = None
) -> None:
    """Tell the logger `signalbus.audit` of a change that has its row, after its commit.

    Args:
        actor: who makes it.
        kind: what is done.
        target: what it is done to.
        reason: why.
        counts: numbers of deliveries.
    """
    tell = partial(_tell, actor, kind, target, reason, counts or {})
    transaction.on_commit(tell, using=ledger.using(), robust=True)


@contextmanager
def logged_change(actor: Actor, kind: str, target: Mapping[str, Any], reason: str) -> Iterator[dict[str, int]]:
    """Write down a change that takes several transactions: before it, and completed after it.

    Args:
        actor: who makes it.
        kind: what is done, "retry" for example.
        target: what it is done to.
        reason: why.

    Yields:
        The numbers of deliveries, to be filled in.
    """
    entry = ledger.add_to_log(
        kind, by=actor.name, by_id=actor.id, through=actor.through, target=target, reason=reason, is_done=False
    )
    counts: dict[str, int] = {}
    yield counts
    ledger.complete_log(entry, counts)
    _tell(actor, kind, target, reason, counts)


def _tell(actor: Actor, kind: str, target: Mapping[str, Any], reason: str, counts: Mapping[str, int]) -> None:
    what = ", ".join(f"{key}:{value}" for key, value in {**target, **counts}.items())
    # Printable: a line break in a reason would forge a line of the log.
    audit_logger.info(
        "signalbus: %s (%s): %s %s%s", printable(actor.name or "somebody"), actor.through, kind, printable(what),
        f": {printable(reason)}" if reason else "",
        extra={
            "signalbus_operation": kind, "signalbus_by": actor.name, "signalbus_by_id": actor.id,
            "signalbus_through": actor.through, "signalbus_target": dict(target), "signalbus_reason": reason,
            "signalbus_counts": dict(counts),
        },
    )  # fmt: skip


def read_log(
    actor: Actor, limit: int = 50, *, kind: str | None = None, by: str | None = None, before: int | None = None
) -> list[LogEntry]:
    """Return the youngest lines of the audit log, the youngest first.

    Args:
        actor: who asks.
        limit: how many at most; no more than 10,000.
        kind: only what was done so, "pause" for example.
        by: only what this person did.
        before: only lines with a lower number, older ones.

    Raises:
        PermissionDenied: the actor must not see deliveries.
    """
    actor.require(VIEW)
    return ledger.log_entries(min(max(1, limit), MOST_LINES), kind=kind, by=by, before=before)
