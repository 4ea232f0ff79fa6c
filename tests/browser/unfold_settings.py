"""The same settings, with the admin in the theme of django-unfold."""

from tests.browser.settings import *  # noqa: F403 - settings built on settings
from tests.browser.settings import INSTALLED_APPS

INSTALLED_APPS = ["unfold", *INSTALLED_APPS]
