"""Read the facts about the ledger that ``manage.py signalbus doctor`` judges."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Final

from django.db import connections
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from signalbus.ledger.base.clock import later
from signalbus.ledger.base.deliveries import using
from signalbus.ledger.sweeps.purging import PURGE_LEASE
from signalbus.models import Delivery, Key, State, WorkerRecord

if TYPE_CHECKING:
    from datetime import datetime

MOST_TEXTS: Final = 100  # parked texts that are looked at
ROOTS_RECORDED: Final = "0008_root_and_more_subjects"
SEEN_SECONDS: Final = 60.0  # since a worker was seen last that counts as running


def unapplied_migrations() -> list[str]:
    """Return the names of the migrations of signalbus that are not applied, sorted."""
    loader = MigrationLoader(connections[using()])
    return sorted(
        name
        for app, name in loader.disk_migrations
        if app == "signalbus" and (app, name) not in loader.applied_migrations
    )


def roots_recorded_since() -> datetime | None:
    """Return when migration 0008 was applied, in UTC; None if none was recorded, as without migrations.

    Messages that older versions recorded, also for a while after it, do not say which cascade they belong to.
    """
    recorder = MigrationRecorder(connections[using()])
    if not recorder.has_table():
        return None
    applied = recorder.migration_qs.filter(app="signalbus", name=ROOTS_RECORDED).values_list("applied", flat=True)
    found = applied.order_by("-applied").first()
    return None if found is None else found.astimezone(UTC)  # of a naive one, the time of this machine


def sweeper_seen_at() -> datetime | None:
    """Return when a sweeper last took the lease to purge, as one does each half minute; None if none ever did."""
    return Key.objects.using(using()).filter(id=PURGE_LEASE).values_list("used_at", flat=True).first()


def parked_texts() -> list[str]:
    """Return the newest parked texts that no worker could open, a hundred at most."""
    parked = Delivery.objects.using(using()).filter(state=State.PARKED, message__sealed=True, message__signal="")
    return list(parked.order_by("-created_at").values_list("message__text", flat=True)[:MOST_TEXTS])


def seen_workers() -> list[WorkerRecord]:
    """Return the workers that were seen within the last minute, by name."""
    return list(WorkerRecord.objects.using(using()).filter(seen_at__gte=later(-SEEN_SECONDS)).order_by("name"))
