"""Receivers that fail: one until its bug is repaired, one for some messages until its service is back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from signalbus import Retry, receiver
from tasks.marketing.models import FormEntry

from .signals import academy_opened

ONCE = Retry(max_attempts=1)
TAGS = {"name": "Name"}


def is_broken(name: str) -> bool:
    """Return whether a fault is in force: as long as its file exists."""
    return (Path(os.environ["INCIDENT_FOLDER"]) / name).exists()


@receiver(academy_opened, dispatch_uid="marketing.tag_academy", retry=ONCE)
def tag_academy(sender: Any, number: int, **kwargs: Any) -> None:
    """Raise a KeyError as long as the bug is there."""
    FormEntry.objects.create(kind="tagged", subject=str(number), pid=os.getpid())
    TAGS["slug" if is_broken("bug") else "name"]


@receiver(academy_opened, dispatch_uid="crm.sync", retry=ONCE)
def sync_crm(sender: Any, number: int, **kwargs: Any) -> None:
    """Raise a ConnectionError for each fortieth message as long as the service is away."""
    if number % 40 == 2 and is_broken("outage"):
        raise ConnectionError("crm.example.com did not answer")
