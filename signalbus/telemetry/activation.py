"""Switch on the tracers that the settings name. Called when Django starts, if they name one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from signalbus.exceptions import ConfigurationError

if TYPE_CHECKING:
    from signalbus.conf import Settings


def activate(settings: Settings) -> None:
    """Switch on the tracers that the settings name.

    Args:
        settings: the settings.

    Raises:
        ConfigurationError: the library of one is not installed.
    """
    if settings.OTEL:
        try:
            from signalbus.telemetry.opentelemetry_spans import OpenTelemetryTracer  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise _missing("OTEL", "opentelemetry", error) from error
        OpenTelemetryTracer(
            spans=settings.OTEL_SPANS, is_parent=settings.TRACE_PARENT, baggage=settings.TRACE_BAGGAGE
        ).switch_on()
    if settings.SENTRY:
        try:
            from signalbus.telemetry.sentry_spans import SentryTracer  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise _missing("SENTRY", "sentry", error) from error
        SentryTracer().switch_on()


def _missing(setting: str, extra: str, error: ImportError) -> ConfigurationError:
    return ConfigurationError(
        f"SIGNALBUS[{setting!r}] is True, and {error}. Install it: pip install 'django-signalbus[{extra}]'."
    )
