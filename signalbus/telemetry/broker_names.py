"""Name the broker as tracing systems do. The tracers call it."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from django.core.signals import setting_changed

from signalbus import celery

SYSTEMS: Final = {"amqp": "rabbitmq"}  # where the conventions have another name than kombu


class BrokerName(NamedTuple):
    """The broker.

    Args:
        system: its kind, as ``redis`` or ``rabbitmq``.
        host: its host; empty if it has none, as a socket.
        port: its port, or None.
    """

    system: str
    host: str
    port: int | None


@lru_cache(maxsize=1)
def broker_name() -> BrokerName:
    """Return the broker that this process publishes to; nothing connects to it."""
    connection = celery.get_app().connection_for_write()
    system = str(connection.transport.driver_type)
    is_socket = "+socket" in str(connection.transport_cls) or "/" in (connection.hostname or "")
    host = "" if is_socket else connection.hostname or ""
    return BrokerName(SYSTEMS.get(system, system), host, connection.port if host else None)


def _forget(**_kwargs: object) -> None:
    broker_name.cache_clear()


setting_changed.connect(_forget)
