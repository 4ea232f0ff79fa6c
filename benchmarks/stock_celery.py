"""Celery, set up in a Django project as its documentation says, with tasks that do the same as the receivers."""

from __future__ import annotations

import time
from typing import Any

from celery import Celery
from django.db import transaction

from benchmarks.tally import tally

app = Celery("stock")
app.config_from_object("django.conf:settings", namespace="CELERY")


@app.task
def nothing(label: str, pk: int, created: bool) -> None:
    """Do nothing."""
    tally()


@app.task
def nothing_atomic(label: str, pk: int, created: bool) -> None:
    """Do nothing, in a transaction."""
    with transaction.atomic():
        tally()


@app.task
def fetch_atomic(label: str, pk: int, created: bool) -> None:
    """Load the instance, in a transaction."""
    from tasks.admissions.models import Cohort  # noqa: PLC0415 - Celery imports this module before Django is set up

    with transaction.atomic():
        assert Cohort.objects.get(pk=pk).name
        tally()


@app.task
def work(sent: float, seconds: float, **payload: Any) -> None:
    """Record how late it is, unless it is known to be slow, and take some time."""
    tally(0.0 if seconds else sent)
    time.sleep(seconds)
