"""The receivers of the demo that misbehave."""

from django.apps import AppConfig


class DemoConfig(AppConfig):
    """The app of the misbehaving receivers."""

    name = "tasks.demo"
    label = "demo"
