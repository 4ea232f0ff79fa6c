"""Record messages that are scheduled, or deduplicated.

Scheduled ones wait until they are due; a deduplicated one may join or replace a message that waits.

`outbox` calls it for messages with a rule (decision 0035); `ledger/sends/duplicates` has the statements.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from signalbus.ledger import sends as ledger

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from signalbus.sending.outgoing import Outgoing


def record(items: Iterable[Outgoing]) -> tuple[list[Outgoing], dict[UUID, UUID]]:
    """Record messages by their rules: scheduled, or deduplicated.

    Args:
        items: messages with a rule; the parts of a message follow each other.

    Returns:
        The messages to publish after the commit, and for each duplicate the waiting message that stands for it.
    """
    publish: list[Outgoing] = []
    instead: dict[UUID, UUID] = {}
    for message, group in groupby(items, key=lambda item: item.id):
        parts = list(group)
        standing, waits = _record(message, parts)
        if standing is not None:
            instead[message] = standing
        elif not waits:
            publish += parts
    return publish, instead


def _record(message: UUID, parts: Sequence[Outgoing]) -> tuple[UUID | None, bool]:
    """Record a message; return the waiting message that stands for it, and whether it waits until it is due."""
    alias = ledger.using()
    rule = parts[0].rule
    assert rule is not None  # noqa: S101 - the caller sorted them
    key, deduplication, due = rule.key, rule.deduplication, rule.due
    if key is None or deduplication is None:
        ledger.record(parts, due=due, using=alias)
    elif deduplication.debounce is None:
        standing = ledger.record_unless_one_waits(key, message, parts, due=due, using=alias)
        return standing, due is not None
    else:
        ledger.record_last_of_burst(
            key, message, parts, pause=deduplication.debounce, longest=deduplication.max_wait, using=alias
        )
        return None, True
    return None, due is not None
