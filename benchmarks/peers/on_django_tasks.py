"""Django's tasks, in the database."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from django.db import transaction as transactions

from benchmarks.tally import tally

task = import_module("django.tasks" if find_spec("django.tasks") else "django_tasks").task

transaction = transactions.atomic


@task()
def nothing(number: int) -> None:
    """Do nothing."""
    tally()


def send(count: int) -> None:
    """Send so many."""
    for number in range(count):
        nothing.enqueue(number)
