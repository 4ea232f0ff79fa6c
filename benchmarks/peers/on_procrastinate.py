"""procrastinate in a Django project."""

from __future__ import annotations

from django.db import transaction as transactions
from procrastinate.contrib.django import app

from benchmarks.tally import tally

transaction = transactions.atomic


@app.task(name="nothing")
def nothing(number: int) -> None:
    """Do nothing."""
    tally()


def send(count: int) -> None:
    """Send so many."""
    for number in range(count):
        nothing.defer(number=number)
