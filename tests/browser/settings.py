"""The settings of the tests' project, with the app of the incident and a server of static files."""

from tests.settings import *  # noqa: F403 - settings built on settings
from tests.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "django.contrib.staticfiles", "tests.browser.shop"]
ALLOWED_HOSTS = ["127.0.0.1", "testserver"]
