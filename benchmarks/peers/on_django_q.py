"""django-q2 with the database as its broker."""

from __future__ import annotations

from django.db import transaction as transactions
from django_q.tasks import async_task

from benchmarks.tally import tally

transaction = transactions.atomic


def nothing(number: int) -> None:
    """Do nothing."""
    tally()


def send(count: int) -> None:
    """Send so many."""
    for number in range(count):
        async_task(nothing, number)
