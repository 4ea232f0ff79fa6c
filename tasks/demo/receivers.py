"""Two receivers that misbehave when a student drops out."""

from __future__ import annotations

import os
from typing import Any

from signalbus import Retry, current, receiver
from tasks.admissions.models import CohortUser
from tasks.admissions.signals import student_edu_status_updated
from tasks.marketing.models import FormEntry

SWITCH = "DEMO_FORM_SERVICE"  # names a file; while it does not exist, the form service is closed


@receiver(student_edu_status_updated, sender=CohortUser, retry=Retry(max_attempts=5, base_delay=0.5, jitter=False))
def crm_that_is_away_twice(sender: type[CohortUser], instance: CohortUser, **kwargs: Any) -> None:
    """Fail on the first two attempts, like a service that restarts."""
    delivery = current()
    attempt = delivery.attempt if delivery else 1
    if attempt <= 2:  # noqa: PLR2004 - twice
        raise ConnectionError(f"the CRM does not answer (attempt {attempt})")
    FormEntry.objects.create(kind=f"CRM told, attempt {attempt}", subject=str(instance.pk), pid=os.getpid())


@receiver(student_edu_status_updated, sender=CohortUser, retry=Retry(max_attempts=2, base_delay=0.2, jitter=False))
def form_service_that_is_closed(sender: type[CohortUser], instance: CohortUser, **kwargs: Any) -> None:
    """Fail on every attempt until somebody opens the service."""
    if not os.path.exists(os.environ[SWITCH]):  # noqa: PTH110 - a path out of the environment
        raise PermissionError("the form service is closed")
    FormEntry.objects.create(kind="form sent", subject=str(instance.pk), pid=os.getpid())
