"""Carry the context variables of structlog, and the baggage of OpenTelemetry.

A host lists the classes in ``SIGNALBUS["CARRY"]``; each library is imported only if its class is listed.
"""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from signalbus.carriers.json_values import survives_json
from signalbus.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager


class StructlogContext:
    """Carries what ``structlog.contextvars.bind_contextvars`` has bound; what is not JSON travels as its text.

    Raises:
        ConfigurationError: structlog is not installed.
    """

    name: str = "structlog"

    def __init__(self) -> None:
        self._contextvars = _imported("structlog.contextvars", "structlog")

    def capture(self) -> dict[str, Any] | None:
        """Return the bound variables."""
        return {key: _as_json(value) for key, value in self._contextvars.get_contextvars().items()} or None

    def restore(self, value: Mapping[str, Any], /) -> AbstractContextManager[object]:
        """Bind the variables."""
        bound: AbstractContextManager[object] = self._contextvars.bound_contextvars(**value)
        return bound


class Baggage:
    """Carries the baggage of OpenTelemetry; the trace itself travels with ``SIGNALBUS["OTEL"]``.

    Raises:
        ConfigurationError: opentelemetry-api is not installed.
    """

    name: str = "baggage"

    def __init__(self) -> None:
        self._baggage = _imported("opentelemetry.baggage", "opentelemetry-api")
        self._context = _imported("opentelemetry.context", "opentelemetry-api")

    def capture(self) -> dict[str, Any] | None:
        """Return the entries."""
        return {key: _as_json(value) for key, value in self._baggage.get_all().items()} or None

    @contextmanager
    def restore(self, value: Mapping[str, Any], /) -> Iterator[None]:
        """Attach a context with the entries."""
        context = self._context.get_current()
        for key, entry in value.items():
            context = self._baggage.set_baggage(key, entry, context)
        token = self._context.attach(context)
        try:
            yield
        finally:
            self._context.detach(token)


def _imported(module: str, library: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigurationError(f'SIGNALBUS["CARRY"] has a carrier that needs {library}: install it.') from error


def _as_json(value: Any) -> Any:
    return value if survives_json(value) else str(value)
