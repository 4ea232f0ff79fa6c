"""The Django app: finds every app's signals and receivers at start-up."""

from __future__ import annotations

from importlib import import_module
from traceback import walk_tb

from django.apps import AppConfig, apps
from django.utils.module_loading import module_has_submodule


class SignalBusConfig(AppConfig):
    """Signals that run out of process."""

    name = "signalbus"
    default_auto_field: str = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import each app's ``signals`` and ``receivers``, and connect to what Celery announces."""
        from signalbus import checks, tasks, testing  # noqa: F401, PLC0415 - models and settings must be loaded before
        from signalbus.receiving import listeners, worker  # noqa: F401, PLC0415
        from signalbus.registry import registry  # noqa: PLC0415

        worker.connect()
        discover("signals")
        discover("receivers")
        registry.complete = True


def discover(module: str) -> None:
    """Import a module of each installed app that has it, but for those that ``SIGNALBUS["SKIP_APPS"]`` names.

    Args:
        module: its name inside the apps.

    Raises:
        ConfigurationError: one failed as it was loaded; the error names it, and the cause is what it raised.
    """
    from signalbus import conf  # noqa: PLC0415 - as above
    from signalbus.exceptions import ConfigurationError, SignalBusError  # noqa: PLC0415

    skipped = conf.get().SKIP_APPS
    for app in apps.get_app_configs():
        if app.name in skipped or app.label in skipped:
            continue
        name = f"{app.name}.{module}"
        try:
            import_module(name)
        except SignalBusError:
            raise  # names its place, and what to do, itself
        except Exception as error:  # whatever an app's module may raise, an optional import's or its own
            if isinstance(error, ImportError) and not module_has_submodule(app.module, module):
                continue
            remedy = "install what it needs, guard the import" if isinstance(error, ImportError) else "mend it there"
            raise ConfigurationError(
                f"{name} could not be loaded: {type(error).__name__}: {str(error).rstrip('.')}{_place(error)}. "
                "signalbus loads the signals and receivers of every installed app at start-up: "
                f'{remedy}, or leave the app out with SIGNALBUS = {{"SKIP_APPS": ["{app.label}"]}}.'
            ) from error


def _place(error: Exception) -> str:
    """Return the file and line of the project at which an error was raised, in brackets; nothing if there is none."""
    place = ""
    for frame, line in walk_tb(error.__traceback__):
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package not in {"signalbus", "django", "importlib"}:
            place = f" ({frame.f_code.co_filename}:{line})"
    return place
