"""The cost of an audit and a purge in a ledger with many rows: hardly a statement reads all of them."""

from __future__ import annotations

import io
import json
import os
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from signalbus.ledger.base.clock import Now
from signalbus.ledger.sweeps import purge_some
from signalbus.models import Delivery, StoredMessage

from .bus import Bus, connect, new_signal

if TYPE_CHECKING:
    from signalbus import Signal

# SIGNALBUS_ROWS=1000000: as docs/reliability.md tells it (-s shows the seconds); without it a short form of the same.
ROWS = int(os.environ.get("SIGNALBUS_ROWS", "2000"))
AT_ONCE = 1000
MANY = 100_000  # rows from which on a server's planner has a reason to use an index
SCANS = {
    "sqlite": "SCAN signalbus_delivery",
    "postgresql": "Seq Scan on signalbus_delivery",
    "mysql": r'"table_name": "(signalbus_delivery|U0)",[^}]*"access_type": "ALL"',
}


def fill(bus: Bus, signal: Signal) -> None:
    """Send messages, and have all of them done except the last."""
    for start in range(0, ROWS, AT_ONCE):
        signal.send_many(None, [{"number": start + index} for index in range(AT_ONCE)])
        bus.client.flushall()
        with transaction.atomic():
            Delivery.objects.filter(state="published").update(state="done", attempts=1, ended_at=Now())
    last = Delivery.objects.order_by("-id").values_list("id", flat=True)[:1]
    Delivery.objects.filter(id__in=list(last)).update(state="published", ended_at=None)
    with connection.cursor() as cursor:
        cursor.execute(f"ANALYZE {'TABLE signalbus_delivery' if connection.vendor == 'mysql' else ''}")


def audit(*arguments: str) -> tuple[dict[str, Any], float]:
    """Run the command without asking the queues; return its result, and its seconds."""
    out, began = io.StringIO(), time.perf_counter()
    call_command("signalbus", "audit", "--json", "--wait", "0", *arguments, stdout=out)
    return json.loads(out.getvalue()), time.perf_counter() - began


def scans(statements: list[str]) -> list[str]:
    """Return the statements for which the database reads all deliveries."""
    explain = {"sqlite": "EXPLAIN QUERY PLAN", "mysql": "EXPLAIN FORMAT=JSON"}.get(connection.vendor, "EXPLAIN")
    found = []
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(f"{explain} {statement}")
            if re.search(SCANS[connection.vendor], "\n".join(str(row) for row in cursor.fetchall())):
                found.append(statement)
    return found


@pytest.mark.timeout(240 + ROWS // 500)
def test_an_audit_and_a_purge_of_many_rows(bus: Bus):
    """The numbers add up; only the count itself reads all ended rows; a purge keeps open ones."""
    durable = new_signal(durable=True)
    connect(durable, lambda **kwargs: None, "receiver")
    fill(bus, durable)

    books, of_a_day = audit()
    with CaptureQueriesContext(connection) as asked:
        _, of_a_minute = audit("--since", "1m")

    (row,) = books["rows"]
    assert (row["sent"], row["done"], row["waiting"], books["missing_total"]) == (ROWS, ROWS - 1, 1, 0)
    selects = {query["sql"] for query in asked if query["sql"].startswith("SELECT")}
    others = [statement for statement in selects if "COUNT(" not in statement]
    assert len(others) < len(selects)
    if ROWS >= MANY:
        assert scans(others[:200]) == []
    Delivery.objects.exclude(ended_at=None).update(ended_at="2020-01-01T00:00Z")
    with CaptureQueriesContext(connection) as asked:
        purge_some(86400.0, batch=AT_ONCE)
    if ROWS >= MANY:
        assert scans([query["sql"] for query in asked if query["sql"].startswith("SELECT")]) == []
    began = time.perf_counter()
    call_command("signalbus", "purge", "--days", "1", stdout=io.StringIO())
    purged = time.perf_counter() - began
    assert (Delivery.objects.count(), StoredMessage.objects.count()) == (1, 1)
    took = f"audit {of_a_day:.1f} s, --since 1m {of_a_minute:.1f} s, purge {purged:.1f} s"
    print(f"{connection.vendor}, {ROWS:,} rows: {took}")  # noqa: T201 - shown with -s
