"""Academies, their cohorts and their students; each save of a cohort or a student's status sends a signal."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models, transaction

from .signals import cohort_saved, student_edu_status_updated


class Academy(models.Model):
    """A school."""

    name = models.CharField(max_length=150)
    slug = models.SlugField(unique=True)

    def __str__(self) -> str:
        return self.name


class Cohort(models.Model):
    """A group of students who start together."""

    class Stage(models.TextChoices):
        """The stage of a cohort."""

        PREWORK = "PREWORK", "Prework"
        STARTED = "STARTED", "Started"
        ENDED = "ENDED", "Ended"

    academy = models.ForeignKey(Academy, on_delete=models.CASCADE)
    name = models.CharField(max_length=150)
    slug = models.SlugField(unique=True)
    stage = models.CharField(max_length=15, choices=Stage, default=Stage.PREWORK)
    kickoff_date = models.DateTimeField(null=True, blank=True)
    rating = models.DecimalField(max_digits=5, decimal_places=2, null=True, blank=True)
    syllabus = models.JSONField(default=dict, blank=True)

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save, and send the signal in the same transaction, so that a rollback undoes both."""
        created = self._state.adding
        with transaction.atomic():
            super().save(*args, **kwargs)
            cohort_saved.send(sender=Cohort, instance=self, created=created)


class CohortUser(models.Model):
    """A student's place in a cohort."""

    class EducationalStatus(models.TextChoices):
        """How the student is doing."""

        ACTIVE = "ACTIVE", "Active"
        DROPPED = "DROPPED", "Dropped"
        GRADUATED = "GRADUATED", "Graduated"

    cohort = models.ForeignKey(Cohort, on_delete=models.CASCADE)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    educational_status = models.CharField(max_length=15, choices=EducationalStatus, default=EducationalStatus.ACTIVE)

    def __str__(self) -> str:
        return f"{self.user} in {self.cohort}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save, and send the student's new status."""
        created = self._state.adding
        with transaction.atomic():
            super().save(*args, **kwargs)
            student_edu_status_updated.send(sender=CohortUser, instance=self, created=created)
