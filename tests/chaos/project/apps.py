"""The app's place among the others."""

from django.apps import AppConfig


class ChaosConfig(AppConfig):
    """Signals and receivers that leave traces."""

    name = "tests.chaos.project"
    label = "chaos"
