"""Send signals of three tenants in mixed order, as their processes would: ``python -m tests.tenants.sending 3000``.

It first makes each tenant's schema, with invoices of the same keys. Called by the acceptance test.
"""

from __future__ import annotations

import random
import sys

import django
from django.db import connection, transaction

TENANTS = ("alpha", "beta", "gamma")
INVOICES = 20


def make_schemas() -> None:
    """Make a schema with the tables for each tenant."""
    from .models import Arrival, Invoice

    for tenant in TENANTS:
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE SCHEMA {tenant}")
        connection.set_schema(tenant)  # type: ignore[attr-defined]  # django-tenants'
        with connection.schema_editor() as editor:
            editor.create_model(Invoice)
            editor.create_model(Arrival)
        Invoice.objects.bulk_create([Invoice(owner=tenant) for _ in range(INVOICES)])
        connection.set_schema("public")  # type: ignore[attr-defined]  # as above


def send(count: int) -> None:
    """Send this many signals, each from a tenant that is drawn; some in a transaction with those of other tenants."""
    from .models import Invoice
    from .signals import invoiced, listed

    draw = random.Random(7)
    tenants = [TENANTS[number % 3] for number in range(count)]
    draw.shuffle(tenants)
    for start in range(0, count, 10):
        with transaction.atomic():
            for number, tenant in enumerate(tenants[start : start + 10], start):
                connection.set_schema(tenant)  # type: ignore[attr-defined]  # as above
                invoice = Invoice.objects.get(pk=draw.randrange(1, INVOICES + 1))
                signal = invoiced if number % 2 else listed
                signal.send(None, invoice=invoice, sent_by=tenant, number=number // 2)
            connection.set_schema("public")  # type: ignore[attr-defined]  # as above


if __name__ == "__main__":
    django.setup()
    make_schemas()
    send(int(sys.argv[1]))
