"""The tests' settings, with the app of payload shapes."""

from tests.settings import *  # noqa: F403 - settings built on settings
from tests.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.payload_shapes"]
