"""A signal of an Emisor, and its receiver."""

from __future__ import annotations

from typing import Any

from django.dispatch import receiver
from task_manager.django.dispatch import Emisor

from benchmarks.tally import tally
from tasks.admissions.models import Cohort

saved = Emisor("benchmarks").signal("saved")


@receiver(saved, sender=Cohort)
def nothing(sender: type[Cohort], **kwargs: Any) -> None:
    """Do nothing."""
    tally()
