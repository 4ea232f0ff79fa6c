"""The app's place among the others."""

from django.apps import AppConfig


class MisbehavingConfig(AppConfig):
    """Receivers that misbehave."""

    name = "tests.misbehaving"
    label = "misbehaving"
