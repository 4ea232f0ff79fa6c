"""Django's tasks, in the database."""

from __future__ import annotations

from importlib.util import find_spec

from django.db import transaction as transactions

from benchmarks.tally import tally

if find_spec("django.tasks"):
    from django.tasks import task
else:
    from django_tasks import task

transaction = transactions.atomic


@task()
def nothing(number: int) -> None:
    """Do nothing."""
    tally()


def send(count: int) -> None:
    """Send so many."""
    for number in range(count):
        nothing.enqueue(number)
