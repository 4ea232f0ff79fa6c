"""The app that reacts."""

from django.apps import AppConfig


class MarketingConfig(AppConfig):
    """The app of the receivers."""

    name = "tasks.marketing"
    label = "marketing"
