"""The tests' settings with django-tenants: signalbus is shared, and each tenant has invoices of its own."""

from tests.settings import *  # noqa: F403 - settings built on settings
from tests.settings import DATABASES, INSTALLED_APPS

SHARED_APPS = ["django_tenants", *INSTALLED_APPS]
TENANT_APPS = ["tests.tenants"]
INSTALLED_APPS = [*SHARED_APPS, *TENANT_APPS]
TENANT_MODEL = "tenants.Client"  # which no test needs
DATABASES["default"]["ENGINE"] = "django_tenants.postgresql_backend"
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
SIGNALBUS = {"CARRY": ["signalbus.carriers.TenantSchema"]}
