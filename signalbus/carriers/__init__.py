"""Define the carriers for ``SIGNALBUS["CARRY"]``: which context of the sender is restored around each delivery.

`carrying` uses them. A host may list a class of its own with the methods of `Carrier`.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, timedelta, timezone
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import connections
from django.utils import timezone as django_timezone
from django.utils import translation

from signalbus.carriers.log_and_trace_context import Baggage, StructlogContext
from signalbus.carriers.plain_functions import carried
from signalbus.carriers.request_context import (
    RequestId,
    RequestMiddleware,
    UserId,
    as_request,
    request_id,
    user_id,
)
from signalbus.exceptions import ConfigurationError, SignalBusError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

__all__ = [
    "Baggage",
    "Carrier",
    "Language",
    "RequestId",
    "RequestMiddleware",
    "StructlogContext",
    "TenantSchema",
    "TimeZone",
    "UserId",
    "as_request",
    "carried",
    "request_id",
    "user_id",
]

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"


class Carrier(Protocol):
    """An entry of ``SIGNALBUS["CARRY"]``: an object that carries a value of the sender's context to the receiver."""

    @property
    def name(self) -> str:
        """The name under which the value travels; messages that wait know it, so it must not change."""

    def capture(self) -> JSON:
        """Return what is to be restored around the deliveries of what is sent now, at ``send()``, in its thread.

        Returns:
            A value of JSON; None if there is nothing to carry.

        Raises:
            Exception: the ``send()`` fails with a `PayloadError`, and nothing is sent.
        """

    def restore(self, value: Any, /) -> AbstractContextManager[object]:
        """Return a context manager that is entered before the rows are loaded and left after the receiver has run.

        It is entered again around each callback that the receiver left with ``on_commit``.

        Args:
            value: what `capture` returned.

        Raises:
            Exception: a failed attempt, which is tried again as the receiver's policy says.
        """


class Language:
    """Carries the active language (``django.utils.translation``); nothing where ``USE_I18N`` is off."""

    name: str = "language"

    def capture(self) -> str | None:
        """Return the code of the active language."""
        return translation.get_language() if settings.USE_I18N else None

    def restore(self, value: str, /) -> AbstractContextManager[object]:
        """Activate the language."""
        return translation.override(value)


class TimeZone:
    """Carries the active time zone (``django.utils.timezone``); nothing where ``USE_TZ`` is off."""

    name: str = "time_zone"

    def capture(self) -> str | float | None:
        """Return the name of the active time zone, or the seconds that a fixed one is ahead of UTC.

        Raises:
            TypeError: a time zone that has neither.
        """
        if not settings.USE_TZ:
            return None
        zone = django_timezone.get_current_timezone()
        name = getattr(zone, "key", None)  # a ZoneInfo's
        if isinstance(name, str):
            return name
        offset = zone.utcoffset(None)
        if offset is None:
            raise TypeError(f"{zone!r} has no name to carry: activate a zoneinfo.ZoneInfo, or a datetime.timezone")
        return offset.total_seconds()

    def restore(self, value: str | float, /) -> AbstractContextManager[object]:
        """Activate the time zone."""
        if isinstance(value, str):
            return django_timezone.override(ZoneInfo(value))
        return django_timezone.override(timezone(timedelta(seconds=value)) if value else UTC)


class TenantSchema:
    """Carries the schema of django-tenants' tenant.

    The app ``signalbus`` must be in ``SHARED_APPS`` and not in ``TENANT_APPS``: its tables are in the public schema,
    where workers look for them. In a receiver, ``connection.tenant`` has a ``schema_name`` and no other field.

    Raises:
        ConfigurationError: the database has no backend of django-tenants.
    """

    name: str = "tenant"

    def __init__(self) -> None:
        self._alias: str = getattr(settings, "TENANT_DB_DATABASE", "default")
        if not hasattr(self._connection(), "set_schema"):
            raise ConfigurationError(
                f"signalbus.carriers.TenantSchema needs django-tenants: DATABASES[{self._alias!r}] must have the "
                "ENGINE django_tenants.postgresql_backend."
            )

    def _connection(self) -> Any:
        return connections[self._alias]

    def capture(self) -> str:
        """Return the name of the schema."""
        return str(self._connection().schema_name)

    @contextmanager
    def restore(self, value: str, /) -> Iterator[None]:
        """Select the schema.

        Raises:
            SignalBusError: it does not exist any more; its tables would be looked for in the public schema.
        """
        connection = self._connection()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %s", [value])
            if cursor.fetchone() is None:
                raise SignalBusError(f"the schema {value!r} of the sender's tenant does not exist any more")
        before = connection.tenant
        connection.set_schema(value)
        try:
            yield
        finally:
            connection.set_tenant(before)
