"""Check the broker's address before anything connects, and explain a mistake in it with the remedy.

`celery.reject_unusable_broker` calls `reject_unusable`, for our own app, the system checks and the doctor; `celery.py`
and `management/dev` call `addresses_of`, which leaves the passwords out. Whether a server listens there is not checked:
that is known only once something connects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from signalbus.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery
    from kombu import Connection

# What kombu raises for an address that it cannot read; a transport without its library may be a NameError.
UNREADABLE = (AttributeError, ImportError, LookupError, NameError, TypeError, ValueError)

HOST = re.compile(r"[\w.-]*[a-zA-Z][\w.-]*")  # a name alone, which kombu takes for a RabbitMQ's

FORMS = (
    "An address reads redis://:password@host:6379/0 (for Valkey as well; rediss://… with TLS), sentinel://host:26379 "
    "or amqp://user:password@host:5672//."
)


def reject_unusable(app: Celery, setting: str) -> None:
    """Refuse a broker's address to which no client could connect.

    Args:
        app: the app of the broker.
        setting: the name of the setting that holds the address.

    Raises:
        ConfigurationError: with the address, its password masked, and the remedy.
    """
    conf: Any = app.conf
    options = conf.broker_transport_options or {}
    if not isinstance(options, Mapping):
        raise ConfigurationError(f"CELERY_BROKER_TRANSPORT_OPTIONS is {options!r}; it must be a dict.")
    for address in dict.fromkeys(_addresses(conf)):
        if "://" not in address and not conf.broker_transport and HOST.fullmatch(address) is None:
            remedy = f'it does not begin with the kind of broker and "://". {FORMS}'
        else:
            try:
                _reject_unreadable(app.connection_for_write(address), options)
            except UNREADABLE as error:
                remedy = _remedy(error)
            else:
                continue
        raise ConfigurationError(f"{setting} is {_without_password(address)!r}: {remedy}")


def addresses_of(app: Celery) -> list[str]:
    """Return the addresses of an app's broker, each once, without passwords; none if it has no broker."""
    return [_without_password(address) for address in dict.fromkeys(_addresses(app.conf))]


def _addresses(conf: Any) -> Iterator[str]:
    for given in (conf.broker_write_url, conf.broker_read_url):
        for addresses in [given] if isinstance(given, str) else given or ():
            yield from filter(None, addresses.split(";"))


def _reject_unreadable(connection: Connection, options: Mapping[str, Any]) -> None:
    """Read an address as kombu does when it connects, up to the point where a server would be asked."""
    if connection.transport.driver_type != "redis":
        return
    database = str(connection.virtual_host or "").strip("/ ")
    if database and not database.isdigit():
        raise ValueError(f"Redis numbers its databases, and {database!r} is no number")
    if connection.transport_cls == "sentinel" and "master_name" not in options:
        raise ValueError(
            'Sentinel must be told the name of the primary: set CELERY_BROKER_TRANSPORT_OPTIONS = {"master_name": "…"}'
        )


def _remedy(error: Exception) -> str:
    """Return the remedy for an address that kombu cannot read."""
    text = str(error.args[0] if error.args else error)
    option = re.search(r"unexpected keyword argument '(\w+)'", text)
    if option is not None:
        return (
            f"it has no option {option[1]!r} after its question mark: set CELERY_BROKER_TRANSPORT_OPTIONS = "
            f'{{"{option[1]}": …}} instead.'
        )
    if "No such transport" in text:
        return f"{' '.join(text.split())}{'' if text.endswith('?') else '.'} {FORMS}"
    if isinstance(error, (ImportError, NameError)):
        return f"what it needs is not installed ({text}): see Celery's documentation of that broker."
    if "ort could not be cast" in text or "ort out of range" in text:
        return (
            f"{text}. What follows the host is a port from 1 to 65535; in a password, #, /, ? and @ are written as "
            "urllib.parse.quote(password, safe='') gives them."
        )
    return f"{type(error).__name__}: {text.rstrip('.')}. {FORMS}"


def _without_password(address: str) -> str:
    return re.sub(r"(://[^:/@]*:).*@", r"\1**@", address)
