"""The side that reacts."""

from django.apps import AppConfig


class MarketingConfig(AppConfig):
    """What marketing does when admissions change."""

    name = "tasks.marketing"
    label = "marketing"
