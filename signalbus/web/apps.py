"""The Django app of the web pages: without models, with templates and static files."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class SignalBusWebConfig(AppConfig):
    """Pages that show what the bus does."""

    name = "signalbus.web"
    label = "signalbus_web"
    verbose_name = _("signalbus: the web app")
