"""Purge closed messages after their retention time: one sweeper at a time, in small batches."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import connections, transaction
from django.db.models import OuterRef, Q, Subquery

from signalbus.ledger.base.clock import Now, later
from signalbus.ledger.base.deliveries import unlocked, using
from signalbus.ledger.base.dialect import dialect_of
from signalbus.models import CLOSED_STATES, OPEN_STATES, Delivery, Key, State, StoredMessage

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from django.db.models import Model

# The key that the sweepers take turns by; never purged.
TURN = UUID("d3c1a0de-6f57-4d0c-8a51-3f0f6b0f4c11")

OVER = Q(state__in=CLOSED_STATES)
# Dead from the beginning, and nobody vouches for them: they need no person. Other dead ones stay until one decides.
REFUSED = Q(state=State.DEAD, message__sealed=True, message__signal="")


def take_turn(every: float) -> bool:
    """Ask to be the one who purges, for a while.

    Args:
        every: seconds for which nobody else gets a turn.
    """
    keys = Key.objects.using(using())
    keys.get_or_create(id=TURN, defaults={"used_at": later(-every)})
    return bool(keys.filter(id=TURN, used_at__lte=later(-every)).update(used_at=Now()))


def purge(seconds: float, *, batch: int = 1000) -> int:
    """Delete all that ended well, was skipped or discarded, or never verified, and is old; in small batches.

    Args:
        seconds: how old.
        batch: how many deliveries are looked at in one transaction.

    Returns:
        How many deliveries.
    """
    purged = 0
    while count := purge_some(seconds, batch=batch):
        purged += count
    purge_keys(seconds)
    _purge_alone(seconds, batch)
    return purged


def purge_some(seconds: float, *, batch: int) -> int:
    """Delete a batch of what `purge` deletes.

    A message goes with all its deliveries or stays with all of them: else it could not be told which are missing.

    Args:
        seconds: how old.
        batch: how many deliveries are looked at.

    Returns:
        How many deliveries; 0 if nothing was left.
    """
    return _purge_batch(OVER, seconds, batch) or _purge_batch(REFUSED, seconds, batch)


def _purge_batch(over: Q, seconds: float, batch: int) -> int:
    alias = using()
    rows = Delivery.objects.using(alias)
    cutoff = later(-seconds)
    kept = ~over | Q(ended_at=None) | Q(ended_at__gt=cutoff)
    old = rows.filter(over, ended_at__lte=cutoff).order_by("ended_at")
    # One value for each row, and no EXISTS, which PostgreSQL may answer with all rows of the table for each batch.
    keeper = Subquery(rows.filter(kept, message=OuterRef("message")).values("id")[:1])
    whole = old.annotate(keeper=keeper).filter(keeper=None)
    with transaction.atomic(using=alias):
        messages = set(whole.values_list("message", flat=True)[:batch])
        # Nobody waits for these locks; what was given a fresh allowance in the meantime is not among them.
        mine = set(unlocked(old.order_by().filter(message__in=messages)).values_list("id", flat=True))
        messages -= set(rows.filter(message__in=messages).exclude(id__in=mine).values_list("message", flat=True))
        gone = rows.filter(message__in=messages, id__in=mine)
        purged = _delete(Delivery, set(gone.values_list("id", flat=True)), alias)
        _delete(StoredMessage, messages, alias)
    return purged


def _delete(model: type[Model], ids: Collection[UUID], alias: str) -> int:
    """Delete rows by their ids, and return how many; no other row is read.

    MariaDB and MySQL lock each row that a DELETE reads, and the ORM's may read the whole table, or an index, where it
    is small: it would wait for a receiver that runs. An IN may do so as well, whatever index is forced on it; a join in
    a given order looks each id up in the primary key.
    """
    if not ids:
        return 0
    dialect, connection = dialect_of(alias), connections[alias]
    if dialect.vendor != "mysql":
        return model._base_manager.using(alias).filter(pk__in=ids).only("pk").delete()[0]  # noqa: SLF001 - documented
    table, keys = model._meta.db_table, [dialect.key(id_) for id_ in ids]  # noqa: SLF001 - Django documents it
    with connection.cursor() as cursor:
        if connection.features.has_native_uuid_field:
            given = "JSON_TABLE(%s, '$[*]' COLUMNS (id CHAR(32) PATH '$'))"
            statement = f"DELETE kept FROM {given} given STRAIGHT_JOIN {table} kept ON kept.id = given.id"
            cursor.execute(statement, [json.dumps(keys)])
        else:  # MySQL, and MariaDB before 10.7: ids are texts, whose collation may differ from that of given ones
            statement = f"DELETE FROM {table} WHERE id = %s"  # noqa: S608 - a model's table
            cursor.executemany(statement, [(key,) for key in keys])
        return max(0, int(cursor.rowcount))


def purge_keys(seconds: float, *, batch: int = 500) -> int:
    """Delete keys that nothing has used for a while, and that nothing open stands behind.

    Args:
        seconds: how long.
        batch: how many a transaction deletes.

    Returns:
        How many.
    """
    return sum(_purge_keys_of(ids) for ids in _stale_keys(seconds, batch))


def _stale_keys(seconds: float, batch: int) -> Iterator[list[UUID]]:
    stale = Key.objects.using(using()).filter(used_at__lte=later(-seconds)).exclude(id=TURN).order_by("id")
    ids = list(stale.values_list("id", flat=True)[:batch])
    while ids:
        yield ids
        ids = list(stale.filter(id__gt=ids[-1]).values_list("id", flat=True)[:batch])


def _purge_keys_of(ids: list[UUID]) -> int:
    """Delete those of some keys that nothing stands behind.

    A sender locks its key until its commit: one that is locked is in use, and one that is locked here begins anew for
    the sender who waits.
    """
    alias = using()
    rows = Delivery.objects.using(alias)
    with transaction.atomic(using=alias):
        keys = Key.objects.using(alias).filter(id__in=ids)
        if connections[alias].features.has_select_for_update_skip_locked:
            keys = keys.select_for_update(skip_locked=True)
        messages = dict(keys.values_list("id", "message"))
        # A message that is dead stands for no equal ones any more; an order begins anew behind all that it ever had.
        waiting = rows.filter(message__in={id_ for id_ in messages.values() if id_}, state__in=OPEN_STATES)
        standing = set(waiting.values_list("message", flat=True))
        free = [key for key, message in messages.items() if message not in standing]
        return _delete(Key, free, alias)


def _purge_alone(seconds: float, batch: int) -> None:
    """Delete messages whose deliveries somebody has deleted by hand; for people's commands, as it reads all of them."""
    messages = StoredMessage.objects.using(using())
    alone = messages.filter(created_at__lte=later(-seconds), deliveries=None)
    while ids := list(alone.values_list("id", flat=True)[:batch]):
        messages.filter(id__in=ids, deliveries=None).only("id").delete()
