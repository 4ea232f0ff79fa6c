"""The receivers that misbehave, for the demo alone."""

from django.apps import AppConfig


class DemoConfig(AppConfig):
    """What goes wrong in the demo."""

    name = "tasks.demo"
    label = "demo"
