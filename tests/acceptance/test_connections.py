"""A worker's database connections, between its messages."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from django.db import OperationalError, connection

from signalbus.models import Delivery
from tasks.admissions.models import Academy, Cohort
from tasks.marketing.models import FormEntry
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import Worker

OTHERS = {
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    "mysql": "SELECT id FROM information_schema.processlist WHERE db = database() AND id <> connection_id()",
}
END = {"postgresql": "SELECT pg_terminate_backend(%s)", "mysql": "KILL %s"}


def backends() -> set[int]:
    """Return the server's numbers of the connections of others than this test."""
    with connection.cursor() as cursor:
        cursor.execute(OTHERS[connection.vendor])
        return {number for (number,) in cursor.fetchall()}


def end_backends() -> None:
    """End the connections of others, as a server does that restarts."""
    for number in backends():
        # A sweeper's may have ended meanwhile.
        with suppress(OperationalError), connection.cursor() as cursor:
            cursor.execute(END[connection.vendor], [number])


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
    end_backends()
    save_and_wait("third")
    assert not kept & backends()
    assert not Delivery.objects.exists()
