"""The checkout's example: admissions saves, and marketing reacts in another process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from django.contrib.auth import get_user_model
from django.db import transaction

from tasks.admissions.models import Academy, Cohort, CohortUser
from tasks.marketing.models import FormEntry
from tests.acceptance.process_nodes import WorkerNode
from tests.servers import wait_until

if TYPE_CHECKING:
    from pytest_celery import CeleryTestSetup


def note(kind: str, subject: str, timeout: float = 15.0) -> FormEntry:
    """Wait for the note that marketing wrote."""
    noted = FormEntry.objects.filter(kind=kind, subject=subject)
    return wait_until(noted.first, timeout, what=f"the note «{kind}: {subject}»")


def pids(setup: CeleryTestSetup) -> set[int | None]:
    """Return the worker's processes."""
    worker = setup.worker.container
    assert isinstance(worker, WorkerNode)
    return {worker.worker.pid, *worker.worker.children()}


def make_cohort(slug: str) -> Cohort:
    """Save a cohort, which sends its signal."""
    academy, _ = Academy.objects.get_or_create(name="Downtown", slug="downtown")
    return Cohort.objects.create(academy=academy, name=slug.title(), slug=slug)


def test_a_saved_cohort_is_noted_by_marketing_in_the_worker(celery_setup: CeleryTestSetup):
    """The receiver runs in the worker, and passes the tag to a Celery task; both write their notes."""
    cohort = make_cohort("berlin")

    created = note("cohort created", str(cohort.pk))
    tag = note("tag", f"{cohort.pk}:berlin")

    assert os.getpid() not in {created.pid, tag.pid}
    assert {created.pid, tag.pid} <= pids(celery_setup)


def test_a_second_save_is_an_update(celery_setup: CeleryTestSetup):
    """The payload of the save says so."""
    cohort = make_cohort("berlin")
    cohort.stage = Cohort.Stage.STARTED
    cohort.save()

    note("cohort created", str(cohort.pk))
    note("cohort updated", str(cohort.pk))

    assert FormEntry.objects.exclude(kind="tag").count() == 2


def test_a_dropped_student_leads_to_a_task(celery_setup: CeleryTestSetup):
    """A student's new status reaches marketing's task."""
    student = get_user_model().objects.create(username="ada")
    place = CohortUser.objects.create(cohort=make_cohort("berlin"), user=student)

    assert note("student", str(place.pk)).pid in pids(celery_setup)


def test_a_save_that_is_rolled_back_sends_nothing(celery_setup: CeleryTestSetup):
    """The later, committed cohort is noted, the earlier one never."""
    with transaction.atomic():
        make_cohort("ghost")
        transaction.set_rollback(True)

    cohort = make_cohort("berlin")

    note("tag", f"{cohort.pk}:berlin")
    assert FormEntry.objects.filter(kind="cohort created").count() == 1


@pytest.mark.parametrize("worker_pool", ["prefork"], indirect=True)
def test_a_cohort_saved_while_worker_and_broker_are_away_is_noted(celery_setup: CeleryTestSetup):
    """The message of the save is delivered once, when both are back."""
    celery_setup.worker.kill()
    celery_setup.broker.kill()

    cohorts = [make_cohort(f"c{number}") for number in range(5)]
    celery_setup.broker.restart()
    celery_setup.worker.restart()

    for cohort in cohorts:
        note("cohort created", str(cohort.pk))
    assert FormEntry.objects.filter(kind="cohort created").count() == len(cohorts)
