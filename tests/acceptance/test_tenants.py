"""Receivers run in the schema of the tenant that has sent: django-tenants on PostgreSQL, and real workers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from django.db import connection

from signalbus.models import Delivery
from tests.other_servers import DATABASE
from tests.servers import CHECKOUT, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import Worker

# SIGNALBUS_TENANT_SIGNALS=3000: as docs/reliability.md says; without it a short form of the same.
COUNT = int(os.environ.get("SIGNALBUS_TENANT_SIGNALS", "120"))
TENANTS = ("alpha", "beta", "gamma")
SETTINGS = "tests.tenants.settings"


def arrivals(tenant: str) -> list[tuple[str, str, str, str, int]]:
    """Return what the receivers noted in a tenant's schema, with how often."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT kind, sent_by, owner, schema, count(*) FROM {tenant}.tenants_arrival GROUP BY 1, 2, 3, 4"
        )
        found: list[tuple[str, str, str, str, int]] = cursor.fetchall()
        return found


@pytest.mark.skipif(DATABASE is not None, reason="It is about PostgreSQL.")
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_each_receiver_runs_in_its_tenants_schema(
    pool: str, database_url: str, broker_url: str, start_worker: Callable[..., Worker]
):
    """Of signals in mixed order, the row, what is written and the callback are the sender's tenant's, each once."""
    pytest.importorskip("django_tenants")
    environment = {"DJANGO_SETTINGS_MODULE": SETTINGS, "DATABASE_URL": database_url, "CELERY_BROKER_URL": broker_url}
    start_worker(pool=pool, concurrency=4, environment={"DJANGO_SETTINGS_MODULE": SETTINGS}, wait=False)

    sender = [sys.executable, "-m", "tests.tenants.sending", str(COUNT)]
    ended = subprocess.run(sender, cwd=CHECKOUT, env={**os.environ, **environment}, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()

    def is_settled() -> bool:
        done = sum(number for tenant in TENANTS for *_, number in arrivals(tenant))
        return done >= COUNT * 5 // 2 and not Delivery.objects.filter(ended_at=None).exists()

    wait_until(is_settled, 60 + COUNT / 10, "all receivers")
    counts: Counter[str] = Counter()
    for tenant in TENANTS:
        found = arrivals(tenant)
        assert {(sent_by, owner, schema) for _, sent_by, owner, schema, _ in found} == {(tenant, tenant, tenant)}
        for kind, *_, number in found:
            counts[kind] += number
    assert counts == dict.fromkeys(["async", "autocommit", "callback", "retried", "transaction"], COUNT // 2)
    assert set(Delivery.objects.values_list("state", flat=True)) == {"done"}
