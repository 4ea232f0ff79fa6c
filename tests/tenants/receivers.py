"""The receivers, in transactions of their own or shared, outside of any, async, and one that fails at first."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.db import connection, transaction

from signalbus import Retry, current, receiver

from .models import Arrival, Invoice
from .signals import invoiced, listed

EAGER = Retry(base_delay=0.01, jitter=False)


def note(kind: str, sent_by: str, invoice: Invoice) -> None:
    """Note what is here, in the schema that is selected here."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_schema()")
        (schema,) = cursor.fetchone()
    Arrival.objects.create(kind=kind, sent_by=sent_by, owner=invoice.owner, schema=schema)


@receiver(invoiced)
def in_a_transaction(sent_by: str, invoice: Invoice, **kwargs: Any) -> None:
    """Note the schema, and again after the commit."""
    note("transaction", sent_by, invoice)
    transaction.on_commit(lambda: note("callback", sent_by, invoice))


@receiver(invoiced, retry=EAGER)
def that_fails_at_first(sent_by: str, invoice: Invoice, number: int, **kwargs: Any) -> None:
    """Note the schema; every tenth fails once, after it has written."""
    note("retried", sent_by, invoice)
    delivery = current()
    if number % 10 == 0 and delivery is not None and delivery.attempt == 1:
        raise ValueError(number)


@receiver(listed, atomic=False)
def outside_of_a_transaction(sent_by: str, invoice: Invoice, **kwargs: Any) -> None:
    """Note the schema."""
    note("autocommit", sent_by, invoice)


@receiver(listed)
async def in_an_event_loop(sent_by: str, invoice: Invoice, **kwargs: Any) -> None:
    """Note the schema from a coroutine."""
    await sync_to_async(note)("async", sent_by, invoice)
