"""The checkout's settings, with the receivers that misbehave in ``make demo``."""

from config.settings import *  # noqa: F403 - settings built on settings
from config.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tasks.demo"]
