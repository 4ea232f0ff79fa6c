"""A bridge in a transaction: what breaks the transaction is not hidden, and what does not, breaks nothing."""

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
    """Ask the database what it does not know."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT no_such_column FROM admissions_academy")


@pytest.fixture
def listening():
    """Connect to the saves of a model, with a function that asks the database."""
    receiver(post_save, sender=Academy, extract={"asked": failing_query})(on_save)
    yield
    disconnect(post_save, on_save, sender=Academy)


def test_a_broken_transaction_is_told_of(bus: Bus, listening):
    """PostgreSQL would roll back at the commit, without a word: the error goes to whoever saves."""
    with pytest.raises(DatabaseError), transaction.atomic():
        Academy.objects.create(name="Web", slug="web")
    assert not Academy.objects.exists()


def test_outside_of_a_transaction_the_save_stands(bus: Bus, listening, caplog):
    """A query that fails by itself spoils nothing: it is logged."""
    Academy.objects.create(name="Web", slug="web")
    assert Academy.objects.get().slug == "web"
    assert "django.db.models.signals.post_save[admissions.Academy]=asked" in caplog.text


def test_what_cannot_travel_spoils_no_transaction(bus: Bus, caplog):
    """A transaction in which something could not travel commits."""
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
