"""Marketing's long work, as plain Celery tasks."""

from __future__ import annotations

import os

from celery import shared_task

from .models import FormEntry


@shared_task(ignore_result=True)
def add_cohort_slug_as_acp_tag(cohort_id: int, slug: str) -> None:
    """Stand in for the call to the marketing service that makes a tag of a cohort's slug.

    Args:
        cohort_id: the cohort's primary key.
        slug: the cohort's slug.
    """
    FormEntry.objects.create(kind="tag", subject=f"{cohort_id}:{slug}", pid=os.getpid())


@shared_task(ignore_result=True)
def add_cohort_task_to_student(cohort_user_id: int) -> None:
    """Stand in for the work that follows a student's new status.

    Args:
        cohort_user_id: the primary key of the student's place in the cohort.
    """
    FormEntry.objects.create(kind="student", subject=str(cohort_user_id), pid=os.getpid())
