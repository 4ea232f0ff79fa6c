"""The app's place among the others."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """Orders, and receivers with the faults of a release."""

    name = "tests.drill.shop"
    label = "shop"
