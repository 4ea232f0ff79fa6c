"""The app that sends."""

from django.apps import AppConfig


class AdmissionsConfig(AppConfig):
    """The app of academies, their cohorts and their students."""

    name = "tasks.admissions"
    label = "admissions"
