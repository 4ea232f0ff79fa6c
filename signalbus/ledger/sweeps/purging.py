"""Delete closed messages after their retention time, in small batches, and ordering keys that nobody uses.

The sweeper calls `purge_some` and `purge_keys`, one sweeper of all workers at a time; ``manage.py signalbus purge``
calls `purge`. Dead deliveries stay until a person decides.
"""

from __future__ import annotations

import json
import math
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import connections, transaction
from django.db.models import OuterRef, Q, Subquery

from signalbus.ledger.base.clock import Now, later
from signalbus.ledger.base.deliveries import unlocked, using
from signalbus.ledger.base.dialect import dialect_of
from signalbus.models import (
    CLOSED_STATES,
    OPEN_STATES,
    Alert,
    Delivery,
    FailedAttempt,
    Key,
    Operation,
    State,
    StoredMessage,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from datetime import datetime

    from django.db.models import Model, QuerySet

# The key whose row is the sweepers' lease to purge; never purged itself.
PURGE_LEASE = UUID("d3c1a0de-6f57-4d0c-8a51-3f0f6b0f4c11")

# Refused texts, which need no decision of a person. Other dead deliveries stay until a person decides.
REFUSED = Q(state=State.DEAD, message__sealed=True, message__signal="")


def acquire_purge_lease(every: float) -> bool:
    """Take the lease to purge; return False if another sweeper has it.

    Args:
        every: seconds for which no other sweeper gets it.
    """
    keys = Key.objects.using(using())
    keys.get_or_create(id=PURGE_LEASE, defaults={"used_at": later(-every)})
    return bool(keys.filter(id=PURGE_LEASE, used_at__lte=later(-every)).update(used_at=Now()))


def purge(seconds: float, *, ages: Mapping[str, float] | None = None, batch: int = 1000) -> int:
    """Delete old deliveries that are done, skipped, discarded or refused, in small batches.

    Args:
        seconds: the minimal age.
        ages: as in `purge_some`.
        batch: the number of deliveries that one transaction reads.

    Returns:
        The number of deleted deliveries.
    """
    purged = 0
    while count := purge_some(seconds, ages=ages, batch=batch):
        purged += count
    purge_keys(seconds)
    _purge_alone(seconds, batch)
    return purged


def purge_some(seconds: float, *, ages: Mapping[str, float] | None = None, batch: int) -> int:
    """Delete one batch of the deliveries that `purge` deletes.

    A message is deleted with all its deliveries or with none: else an audit could not tell which are missing.

    Args:
        seconds: the minimal age.
        ages: the minimal ages by state, if they differ; deliveries in other states stay.
        batch: the number of deliveries to read.

    Returns:
        The number of deleted deliveries; 0 if none was left.
    """
    return _purge_batch(*_over(seconds, ages), batch) or _purge_batch(REFUSED, {"": seconds}, batch)


def oldest_to_purge(seconds: float, *, ages: Mapping[str, float] | None = None) -> datetime | None:
    """Return when the oldest delivery ended that `purge` would delete; None if there is none.

    Of a state with another minimal age, it is as much later as that is longer.

    Args:
        seconds: the minimal age.
        ages: as in `purge_some`.
    """
    over, by_state = _over(seconds, ages)
    found = _whole(over, by_state).values_list("ended_at", "state").first()
    if found is None or found[0] is None:
        return None
    return found[0] + timedelta(seconds=by_state[found[1]] - seconds)


def _over(seconds: float, ages: Mapping[str, float] | None) -> tuple[Q, Mapping[str, float]]:
    """Return the condition on the states that are purged, and the minimal age in each."""
    by_state = dict.fromkeys((state.value for state in CLOSED_STATES), seconds) if ages is None else dict(ages)
    return Q(state__in=list(by_state)), by_state


def _young(ages: Mapping[str, float]) -> Q:
    """Return the condition on deliveries that have not reached the age of their state."""
    shortest = min(ages.values(), default=math.inf)
    young = Q(ended_at__gt=later(-shortest))
    for state, seconds in ages.items():
        if seconds > shortest:
            young |= Q(state=state, ended_at__gt=later(-seconds))
    return young


def _old(over: Q, ages: Mapping[str, float]) -> QuerySet[Delivery]:
    """Return the deliveries of the minimal age of their state, the oldest first."""
    shortest = min(ages.values(), default=math.inf)
    old = Delivery.objects.using(using()).filter(over, ended_at__lte=later(-shortest))
    for state, seconds in ages.items():
        if seconds > shortest:
            old = old.exclude(state=state, ended_at__gt=later(-seconds))
    return old.order_by("ended_at")


def _whole(over: Q, ages: Mapping[str, float]) -> QuerySet[Delivery]:
    """Return the deliveries of the minimal age whose messages have no other ones."""
    retained = ~over | Q(ended_at=None) | _young(ages)
    rows = Delivery.objects.using(using())
    # One value for each row, and no EXISTS, which PostgreSQL may answer with all rows of the table for each batch.
    retained_id = Subquery(rows.filter(retained, message=OuterRef("message")).values("id")[:1])
    return _old(over, ages).annotate(retained_id=retained_id).filter(retained_id=None)


def _purge_batch(over: Q, ages: Mapping[str, float], batch: int) -> int:
    alias = using()
    rows = Delivery.objects.using(alias)
    old = _old(over, ages)
    with transaction.atomic(using=alias):
        messages = set(_whole(over, ages).values_list("message", flat=True)[:batch])
        # No transaction waits for these locks; rows that were retried by hand in the meantime are not among them.
        mine = set(unlocked(old.order_by().filter(message__in=messages)).values_list("id", flat=True))
        messages -= set(rows.filter(message__in=messages).exclude(id__in=mine).values_list("message", flat=True))
        gone = rows.filter(message__in=messages, id__in=mine)
        ids = set(gone.values_list("id", flat=True))
        if connections[alias].vendor == "mysql":  # elsewhere the ORM deletes them
            _delete(FailedAttempt, ids, alias, column="delivery_id")
        purged = _delete(Delivery, ids, alias)
        _delete(StoredMessage, messages, alias)
    return purged


def _delete(model: type[Model], ids: Collection[UUID], alias: str, *, column: str = "id") -> int:
    """Delete rows by their ids, or those of a column of MySQL, and return how many; no other row is read.

    MariaDB and MySQL lock each row that a DELETE reads, and the ORM's may read the whole table, or an index, where it
    is small: it would wait for a receiver that runs. An IN may do so as well, whatever index is forced on it; a join in
    a given order looks each id up in the primary key.
    """
    if not ids:
        return 0
    dialect, connection = dialect_of(alias), connections[alias]
    if dialect.vendor != "mysql":
        rows = model._base_manager.using(alias).filter(pk__in=ids)  # noqa: SLF001 - Django documents it
        return rows.only("pk").delete()[1].get(model._meta.label, 0)  # noqa: SLF001 - as above
    table, keys = model._meta.db_table, [dialect.key(id_) for id_ in ids]  # noqa: SLF001 - Django documents it
    with connection.cursor() as cursor:
        if connection.features.has_native_uuid_field:
            given = "JSON_TABLE(%s, '$[*]' COLUMNS (id CHAR(32) PATH '$'))"
            statement = f"DELETE kept FROM {given} given STRAIGHT_JOIN {table} kept ON kept.{column} = given.id"
            cursor.execute(statement, [json.dumps(keys)])
        else:  # MySQL, and MariaDB before 10.7: ids are texts, whose collation may differ from that of given ones
            statement = f"DELETE FROM {table} WHERE {column} = %s"  # noqa: S608 - a model's table
            cursor.executemany(statement, [(key,) for key in keys])
        return max(0, int(cursor.rowcount))


def purge_keys(seconds: float, *, batch: int = 500) -> int:
    """Delete keys that no sender has used for a while, and that no open delivery needs.

    Args:
        seconds: the minimal time since the last use.
        batch: the number of keys that one transaction deletes.

    Returns:
        The number of deleted keys.
    """
    return sum(_purge_keys_of(ids) for ids in _stale_keys(seconds, batch))


def _stale_keys(seconds: float, batch: int) -> Iterator[list[UUID]]:
    stale = Key.objects.using(using()).filter(used_at__lte=later(-seconds)).exclude(id=PURGE_LEASE).order_by("id")
    ids = list(stale.values_list("id", flat=True)[:batch])
    while ids:
        yield ids
        ids = list(stale.filter(id__gt=ids[-1]).values_list("id", flat=True)[:batch])


def _purge_keys_of(ids: list[UUID]) -> int:
    """Delete those of some keys that no open delivery needs.

    A sender locks its key until its commit: a locked key is in use, and a key that is deleted here begins anew for a
    sender that waits for its lock.
    """
    alias = using()
    rows = Delivery.objects.using(alias)
    with transaction.atomic(using=alias):
        keys = Key.objects.using(alias).filter(id__in=ids)
        if connections[alias].features.has_select_for_update_skip_locked:
            keys = keys.select_for_update(skip_locked=True)
        messages = dict(keys.values_list("id", "message"))
        # A dead message deduplicates no others any more; positions of a key begin again above all former ones.
        waiting = rows.filter(message__in={id_ for id_ in messages.values() if id_}, state__in=OPEN_STATES)
        standing = set(waiting.values_list("message", flat=True))
        free = [key for key, message in messages.items() if message not in standing]
        return _delete(Key, free, alias)


def purge_log(operations: float, alerts: float, *, batch: int = 500) -> None:
    """Delete old operations that have ended, and old alerts that are cleared, in small batches.

    Args:
        operations: the minimal age of operations in seconds; infinite to keep them.
        alerts: that of alerts.
    """
    alias = using()
    for rows, seconds in (
        (Operation.objects.using(alias).exclude(ended_at=None), operations),
        (Alert.objects.using(alias).exclude(cleared_at=None), alerts),
    ):
        column = "ended_at" if rows.model is Operation else "cleared_at"
        old = rows.filter(**{f"{column}__lte": later(-seconds)}) if seconds < math.inf else rows.none()
        while ids := list(old.values_list("pk", flat=True)[:batch]):
            rows.filter(pk__in=ids).delete()


def _purge_alone(seconds: float, batch: int) -> None:
    """Delete messages whose deliveries were deleted by hand; only for commands, because it reads all messages."""
    messages = StoredMessage.objects.using(using())
    alone = messages.filter(created_at__lte=later(-seconds), deliveries=None)
    while ids := list(alone.values_list("id", flat=True)[:batch]):
        messages.filter(id__in=ids, deliveries=None).only("id").delete()
