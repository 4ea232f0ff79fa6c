"""A worker's database connections between its messages."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from django.db import OperationalError, connection

from signalbus.models import Delivery
from tasks.admissions.models import Academy, Cohort
from tasks.marketing.models import FormEntry
from tests.misbehaving.signals import connected
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
    """Return the server's process ids of all connections but this test's."""
    with connection.cursor() as cursor:
        cursor.execute(OTHERS[connection.vendor])
        return {number for (number,) in cursor.fetchall()}


def end_backends() -> None:
    """End the other connections, as a restart of the server does."""
    for number in backends():
        # A sweeper's may have ended meanwhile.
        with suppress(OperationalError), connection.cursor() as cursor:
            cursor.execute(END[connection.vendor], [number])


def save_and_wait(slug: str) -> None:
    """Save a cohort, and wait for its receiver's row."""
    academy, _ = Academy.objects.get_or_create(name="Academy", slug="academy")
    cohort = Cohort.objects.create(academy=academy, name=slug, slug=slug)
    wait_until(FormEntry.objects.filter(kind="cohort created", subject=str(cohort.pk)).exists, what=slug)


def test_a_connection_is_reused_and_a_closed_one_is_replaced(start_worker: Callable[..., Worker]):
    """The next message uses the last one's connection; if the server ended it, a new one, in the first attempt."""
    start_worker(concurrency=1)
    save_and_wait("first")
    kept = backends()

    save_and_wait("second")

    assert kept & backends()
    end_backends()
    save_and_wait("third")
    assert not kept & backends()
    assert not Delivery.objects.exclude(state="done", attempts=1).exists()


def connections_told() -> dict[int, set[int]]:
    """Return which of PostgreSQL's processes served which children."""
    served: dict[int, set[int]] = {}
    for kind, pid in FormEntry.objects.filter(kind__startswith="connected ").values_list("kind", "pid"):
        served.setdefault(int(kind.split()[1]), set()).add(pid)
    return served


@pytest.mark.parametrize("options", [(), ("--max-tasks-per-child", "3")])
def test_each_child_has_its_own_connection_pool(start_worker: Callable[..., Worker], options: tuple[str, ...]):
    """With psycopg's pool each child has connections of its own, also one that is forked while the sweeper runs; the
    main process keeps its sweeper's alone, and the worker ends when it is told to.
    """
    worker = start_worker(*options, environment={"DJANGO_SETTINGS_MODULE": "tests.settings", "DATABASE_POOL": "1"})

    for number in range(30):
        connected.send(None, label=str(number))

    told = FormEntry.objects.filter(kind__startswith="connected ")
    wait_until(lambda: told.count() == 30, 30, "30 receivers")
    assert sorted(map(int, told.values_list("subject", flat=True))) == list(range(30))
    served = connections_told()
    assert all(len(children) == 1 for children in served.values())
    assert os.getpid() not in set().union(*served.values())
    if not options:
        # Two children, a pool of two each, and the sweeper's: nobody else's stay open.
        wait_until(lambda: len(backends()) <= 5, 10, "the main process to close its connections")
        assert len(worker.children()) >= 2
    assert not Delivery.objects.exclude(state="done", attempts=1).exists()
    worker.signal(signal.SIGTERM)
    assert worker.wait(20) == 0


def test_a_pool_of_connections_is_used_without_forks(start_worker: Callable[..., Worker]):
    """In a pool of threads the receivers share the process's own, and the sweeper does not use it."""
    worker = start_worker(
        pool="threads", environment={"DJANGO_SETTINGS_MODULE": "tests.settings", "DATABASE_POOL": "1"}
    )

    for number in range(10):
        connected.send(None, label=str(number))
    wait_until(
        lambda: sum(1 for _ in FormEntry.objects.filter(kind__startswith="connected ")) == 10, 20, "10 receivers"
    )

    assert len(connections_told()) <= 2
    worker.signal(signal.SIGTERM)
    assert worker.wait(20) == 0
