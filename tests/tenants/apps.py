"""The app's place among the others."""

from django.apps import AppConfig


class TenantsConfig(AppConfig):
    """Invoices of tenants."""

    name = "tests.tenants"
    label = "tenants"
