"""The checkout's settings, with the shop; SHOP_RELEASE is the release of this process."""

from config.settings import *  # noqa: F403 - settings built on settings
from config.settings import INSTALLED_APPS

from .release import RELEASE

INSTALLED_APPS = [*INSTALLED_APPS, "tests.drill.shop"]
SIGNALBUS = {"RELEASE": f"shop-{RELEASE}"}
