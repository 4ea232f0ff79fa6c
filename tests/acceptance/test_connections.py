"""A worker's database connections, between its messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import connection

from signalbus.models import Delivery
from tasks.admissions.models import Academy, Cohort
from tasks.marketing.models import FormEntry
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import Worker

OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def backends() -> set[int]:
    """Return the process ids of PostgreSQL's that serve others than this test."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT pid {OTHERS}")
        return {pid for (pid,) in cursor.fetchall()}


def save_and_wait(slug: str) -> None:
    """Save a cohort, and wait for what its receiver writes."""
    academy, _ = Academy.objects.get_or_create(name="Academy", slug="academy")
    cohort = Cohort.objects.create(academy=academy, name=slug, slug=slug)
    wait_until(FormEntry.objects.filter(kind="cohort created", subject=str(cohort.pk)).exists, what=slug)


def test_a_connection_is_kept_and_one_that_died_fails_no_message(start_worker: Callable[..., Worker]):
    """The next message finds the last one's connection; if the server ended it, a new one, in the first attempt."""
    start_worker(concurrency=1)
    save_and_wait("first")
    kept = backends()

    save_and_wait("second")

    assert kept & backends()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT pg_terminate_backend(pid) {OTHERS}")
    save_and_wait("third")
    assert not kept & backends()
    assert not Delivery.objects.exists()
