"""The Django app: finds every app's signals and receivers at start-up."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class SignalBusConfig(AppConfig):
    """Signals that run out of process."""

    name = "signalbus"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import each app's ``signals`` and ``receivers``, and connect to what Celery and Django announce."""
        from signalbus import checks, tasks, testing  # noqa: F401, PLC0415 - models and settings must be loaded before
        from signalbus.receiving import worker  # noqa: PLC0415
        from signalbus.registry import registry  # noqa: PLC0415
        from signalbus.sending import bridge  # noqa: PLC0415

        worker.connect()
        bridge.connect()
        autodiscover_modules("signals")
        autodiscover_modules("receivers")
        registry.complete = True
