"""The Django app of the web pages: without models, with templates and static files."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class SignalBusWebConfig(AppConfig):
    """Pages that show what the bus does."""

    name = "signalbus.web"
    label = "signalbus_web"
    # Any: a lazy text, which AppConfig takes and its type stubs do not name.
    verbose_name: Any = _("signalbus: the web app")
