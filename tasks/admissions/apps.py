"""The side that sends."""

from django.apps import AppConfig


class AdmissionsConfig(AppConfig):
    """Academies, their cohorts and who is in them."""

    name = "tasks.admissions"
    label = "admissions"
