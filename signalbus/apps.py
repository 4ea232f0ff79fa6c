"""The Django app: import every app's signals and receivers at start-up, and connect to Celery's signals.

Django calls `ready`. It imports the modules of signalbus that need settings and models: checks, the task, listeners.
What only a worker needs, only a worker imports (`receiving/worker/celery_signals`).
"""

from __future__ import annotations

from importlib import import_module
from traceback import format_exception_only, walk_tb

from django.apps import AppConfig, apps
from django.utils.module_loading import module_has_submodule

from signalbus.core.own_code import is_own_code


class SignalBusConfig(AppConfig):
    """Signals that run out of process."""

    name = "signalbus"
    default_auto_field: str = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import each app's ``signals`` and ``receivers``, and connect to Celery's signals."""
        from signalbus import checks, conf, tasks, testing  # noqa: F401, PLC0415 - models and settings must be loaded before
        from signalbus.codec.registering import prove_examples  # noqa: PLC0415
        from signalbus.receiving.settling import listeners  # noqa: F401, PLC0415
        from signalbus.receiving.worker import celery_signals  # noqa: PLC0415
        from signalbus.registration.registry import registry  # noqa: PLC0415

        settings = conf.get()
        if settings.OTEL or settings.SENTRY:
            from signalbus.telemetry.activation import activate  # noqa: PLC0415 - nothing of it is imported otherwise

            activate(settings)
        celery_signals.connect()
        discover("signals")
        discover("receivers")
        prove_examples()
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
            raise ConfigurationError(_in_words(error, name, app)) from error


def _in_words(error: Exception, name: str, app: AppConfig) -> str:
    """Describe where and why a module failed, and why it was loaded; for an installed package, how to skip it."""
    place = f"{place}: " if (place := _place(error)) else ""
    cause = "".join(format_exception_only(error)[-1:]).strip()
    cause += "" if cause.endswith((".", "?", "!")) else "."
    remedy = " Correct the name, or install it." if isinstance(error, ModuleNotFoundError) else ""
    text = (
        f"{place}{cause}{remedy} signalbus imports {name} at start-up, as it does the signals and receivers of every "
        "installed app."
    )
    if is_own_code(app.path):
        return text
    return f'{text} To leave this app out, set SIGNALBUS = {{"SKIP_APPS": ["{app.label}"]}}.'


def _place(error: Exception) -> str:
    """Return the file and line of the project at which an error was raised; nothing if there is none."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{error.filename}:{error.lineno}"
    place = ""
    for frame, line in walk_tb(error.__traceback__):
        if is_own_code(frame.f_code.co_filename):
            place = f"{frame.f_code.co_filename}:{line}"
    return place
