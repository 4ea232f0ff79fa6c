"""The receivers of admissions' signals, which are connected at start-up."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from django.db import transaction

from signalbus import receiver
from tasks.admissions.models import Cohort, CohortUser
from tasks.admissions.signals import cohort_saved, student_edu_status_updated

from .models import FormEntry
from .tasks import add_cohort_slug_as_acp_tag, add_cohort_task_to_student


@receiver(cohort_saved, sender=Cohort)
def cohort_post_save(sender: type[Cohort], instance: Cohort, created: bool, *args: Any, **kwargs: Any) -> None:
    """Write a note of the cohort, and start a task for its tag after the commit."""
    if created:
        print(f"The cohort {instance.pk} was just created")
        transaction.on_commit(partial(add_cohort_slug_as_acp_tag.delay, instance.pk, instance.slug))
    else:
        print(f"The cohort {instance.pk} was just updated")
    FormEntry.objects.create(
        kind="cohort created" if created else "cohort updated", subject=str(instance.pk), pid=os.getpid()
    )


@receiver(student_edu_status_updated, sender=CohortUser)
def student_status_changed(sender: type[CohortUser], instance: CohortUser, **kwargs: Any) -> None:
    """Start a task for the student's new status after the commit."""
    transaction.on_commit(partial(add_cohort_task_to_student.delay, instance.pk))
