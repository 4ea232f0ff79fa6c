"""The app's place among the others."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """An app whose receivers fail until they are repaired."""

    name = "tests.browser.shop"
    label = "shop"
