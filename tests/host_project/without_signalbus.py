"""The settings of a host without signalbus in INSTALLED_APPS."""

from config.settings import *  # noqa: F403 - settings built on settings
from config.settings import INSTALLED_APPS

INSTALLED_APPS = [name for name in INSTALLED_APPS if name != "signalbus"]
