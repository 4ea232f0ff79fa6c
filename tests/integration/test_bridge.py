"""A bridge in a transaction: an error that breaks the transaction is raised, any other one is not."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models.signals import post_save

from signalbus import disconnect, receiver
from tasks.admissions.models import Academy

from .bus import Bus, rows


def on_save(sender, **kwargs):
    """Receive."""


def failing_query(**kwargs):
    """Make a query that fails."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT no_such_column FROM admissions_academy")


@pytest.fixture
def listening():
    """Connect a function that makes a query to the saves of a model."""
    receiver(post_save, sender=Academy, extract={"asked": failing_query})(on_save)
    yield
    disconnect(post_save, on_save, sender=Academy)


def test_an_error_that_breaks_the_transaction_is_raised(bus: Bus, listening):
    """PostgreSQL would silently roll back at the commit."""
    with pytest.raises(DatabaseError), transaction.atomic():
        Academy.objects.create(name="Web", slug="web")
    assert not Academy.objects.exists()


def test_outside_of_a_transaction_the_save_succeeds(bus: Bus, listening, caplog):
    """A failed query breaks nothing, and is logged."""
    Academy.objects.create(name="Web", slug="web")
    assert Academy.objects.get().slug == "web"
    assert "django.db.models.signals.post_save[admissions.Academy]=asked" in caplog.text


def test_a_payload_that_cannot_travel_does_not_break_the_transaction(bus: Bus, caplog):
    """The transaction commits."""
    receiver(post_save, sender=Academy, extract={"lock": lambda **kwargs: object()})(on_save)
    try:
        with transaction.atomic():
            Academy.objects.create(name="Web", slug="web")
            assert Academy.objects.count() == 1
    finally:
        disconnect(post_save, on_save, sender=Academy)
    assert Academy.objects.count() == 1
    assert "lock: " in caplog.text
    assert not bus.work()
    assert not [state for _, state, _ in rows() if state != "dead"]
