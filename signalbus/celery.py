"""Provide the Celery app that carries the messages: the host's own, or our own one (decision 0005).

``celery -A signalbus worker`` finds ``signalbus.celery.app``, which is made on its first use.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
import django.conf
from celery import Celery, signals
from celery.utils.imports import symbol_by_name
from django.apps import apps

from signalbus import conf
from signalbus.core import broker_address, development_socket
from signalbus.exceptions import ConfigurationError

if TYPE_CHECKING:
    app: Celery

TASK_NAME = "signalbus.deliver"
OWN_QUEUE = "signalbus"


def _ensure_settings() -> None:
    """Point a worker that was started from the checkout to the checkout's settings."""
    if os.environ.get("DJANGO_SETTINGS_MODULE") or django.conf.settings.configured:
        return
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "config" / "settings.py").is_file() and (checkout / "manage.py").is_file():
        os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
        return
    raise ConfigurationError(
        "celery -A signalbus needs to know your project's settings: set DJANGO_SETTINGS_MODULE, as in "
        "DJANGO_SETTINGS_MODULE=shop.settings celery -A signalbus worker, in the folder that holds manage.py."
    )


def defaults() -> dict[str, Any]:
    """Return Celery's settings that fit a bus; a host's CELERY_* override each of them.

    Returns:
        The settings, with the reasons beside them.
    """
    limit = _host("task_time_limit", conf.get().TIME_LIMIT)
    if limit is not None and (not isinstance(limit, (int, float)) or isinstance(limit, bool)):
        raise ConfigurationError(f"CELERY_TASK_TIME_LIMIT is {limit!r}; it must be a number of seconds, or None.")
    return {
        # A failover or a full disk of the broker must not end the worker (celery#7946).
        "broker_channel_error_retry": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # Receivers' queues have the default queue's type: a host that sets quorum means all of them.
        "task_create_missing_queue_type": _host("task_default_queue_type", "classic"),
        "result_backend": None,
        "task_ignore_result": True,
        "task_time_limit": limit,
        # The receiver is told a little before its process is killed, so that the failure can be written down.
        "task_soft_time_limit": limit and limit * 0.9,
        # A crash disturbs the prefetched messages; a higher number (Celery's 4) brought nothing in `make bench`.
        "worker_prefetch_multiplier": 2,
        "worker_soft_shutdown_timeout": 10.0,
        "worker_enable_soft_shutdown_on_idle": True,
        # True would kill receivers in the middle of a commit when the broker is away.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # One unsigned message to the control exchange ends a worker: ours consumes it only if the host asks for it.
        "worker_enable_remote_control": False,
        "worker_send_task_events": False,
    }


def _fixed() -> dict[str, Any]:
    """Return the settings that our own app needs, whatever the host's CELERY_* settings are."""
    queue = conf.get().QUEUE or OWN_QUEUE
    return {
        # Never the host's queue: two apps that share one discard each other's unknown tasks.
        "task_default_queue": queue,
        "task_default_exchange": queue,
        "task_default_routing_key": queue,
        "task_queues": None,  # so that Celery makes the default one, of the host's CELERY_TASK_DEFAULT_QUEUE_TYPE
        "task_routes": None,
        # Our workers must be able to read our messages; and pickle on a broker lets a writer run any code.
        "accept_content": ["json"],
        "task_serializer": "json",
        "task_protocol": 2,
        "worker_consumer": "signalbus.receiving.worker.consumer:VerifyingConsumer",
    }


def _host(name: str, default: Any) -> Any:
    """Return the host's value of one of Celery's settings."""
    return getattr(django.conf.settings, f"CELERY_{name.upper()}", default)


def _impose(own: Celery, settings: dict[str, Any]) -> None:
    # Under the host's names too: Celery 5.6 looks for these in all places before it looks for its own in any. After the
    # configuration was read (by whoever asked for a connection), which renames what it finds.
    own.conf.update(settings | {f"CELERY_{name.upper()}": value for name, value in settings.items()})


def _redis_options() -> dict[str, Any]:
    """Return the transport options of our own app on Redis; a host's CELERY_BROKER_TRANSPORT_OPTIONS come on top."""
    settings = conf.get()
    return {
        # A broker that does not answer must not hang a worker: kombu's default waits for ever.
        "socket_timeout": settings.PUBLISH_TIMEOUT,
        "socket_connect_timeout": settings.CONNECT_TIMEOUT,
        "socket_keepalive": True,
        # A message whose worker is gone comes back after this; shorter than the work, it would run twice at once.
        "visibility_timeout": 3 * max(settings.TIME_LIMIT, _host("task_time_limit", 0) or 0),
        "unacked_restore_interval": 15,
        "unacked_restore_throttle": 1,
        **_host("broker_transport_options", {}),
    }


def transport_options(app: Celery) -> dict[str, Any]:
    """Return the options of a connection whose every wait has an end.

    Args:
        app: whose broker it is.
    """
    settings = conf.get()
    options = dict(app.conf.broker_transport_options or {})
    driver = app.connection_for_write().transport.driver_type
    if driver == "redis":
        options |= {
            "socket_timeout": settings.PUBLISH_TIMEOUT,
            "socket_connect_timeout": settings.CONNECT_TIMEOUT,
        }
        if "master_name" in options:
            options["sentinel_kwargs"] = _sentinel_options(options)
    elif driver == "amqp":
        options |= {
            "read_timeout": settings.PUBLISH_TIMEOUT,
            "write_timeout": settings.PUBLISH_TIMEOUT,
            "confirm_publish": True,  # else the broker may refuse without a word
        }
    # One try to connect: if the broker does not take a message, the publisher records it in the ledger.
    options |= {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
    options["connect_retries_timeout"] = settings.CONNECT_TIMEOUT
    return options


def _sentinel_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return how sentinels are asked: once each, where redis-py would ask one that is away again for seconds."""
    from redis.backoff import NoBackoff  # noqa: PLC0415 - a host on another broker does not pay for it
    from redis.retry import Retry  # noqa: PLC0415 - as above

    timeouts = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout")}
    return {**(options.get("sentinel_kwargs") or {}), **timeouts, "retry": Retry(NoBackoff(), 0)}


def _own_app() -> Celery:
    # Not current, and without Celery's Django fixup, which would make it the default: a process whose own app is
    # imported later must find that one, not ours. What the fixup does for a worker, `receiving.worker` does.
    own = Celery(
        "signalbus",
        set_as_current=False,
        fixups=[],
        amqp="signalbus.broker.task_signing:TaskSigningAMQP",
        task_cls="celery.contrib.django.task:DjangoTask",
    )
    own.config_from_object("django.conf:settings", namespace="CELERY")
    reject_unusable_broker(own)
    if not broker_address.addresses_of(own) and (development := development_broker()) is not None:
        own.conf.update(broker_url=development)
    # Celery's `add_defaults` would put them before the configuration.
    own.conf.update({name: _host(name, default) for name, default in defaults().items()})
    on_redis = "redis" in str(own.connection_for_write().transport.driver_type)
    _impose(own, _fixed() | ({"broker_transport_options": _redis_options()} if on_redis else {}))
    signals.import_modules.connect(_set_up_django, sender=own, weak=False)
    own.autodiscover_tasks(lambda: [config.name for config in apps.get_app_configs()])
    return own


def reject_unusable_broker(app: Celery) -> None:
    """Refuse an app whose broker's address cannot be read, before anything connects to it.

    Args:
        app: our own, or the host's.

    Raises:
        ConfigurationError: with the remedy.
    """
    name = _name_of_broker_setting()
    broker_address.reject_unusable(app, f"{name[0].upper()}{name[1:]}")


def development_broker() -> str | None:
    """Return the address of the broker that ``manage.py signalbus dev`` starts for this project.

    Our own app uses it if no broker is configured. It has no effect in production, where ``DEBUG`` is False.

    Returns:
        The address; None if ``DEBUG`` is False, or the settings are in no module.

    Raises:
        ConfigurationError: another user may have made the folder of its socket.
    """
    name = os.environ.get(django.conf.ENVIRONMENT_VARIABLE)
    if not django.conf.settings.DEBUG or not name or not hasattr(os, "getuid"):
        return None
    project = development_socket.project_of(name)
    return None if project is None else f"redis+socket://{development_socket.socket_of(project)}"


def uses_development_broker() -> bool:
    """Return whether the messages go to the broker of ``manage.py signalbus dev``, for want of a configured one."""
    return is_own_app() and broker_address.addresses_of(get_app()) == [development_broker()]


def broker_remedy() -> str:
    """Return the remedy if the broker does not answer: the setting that names it, and its value."""
    if uses_development_broker():
        return (
            "CELERY_BROKER_URL is not set, so messages go to the broker of `manage.py signalbus dev` (DEBUG is True), "
            "which does not run for this project: start it in another terminal."
        )
    name, addresses = _name_of_broker_setting(), broker_address.addresses_of(get_app())
    if not addresses:
        where = "in the environment or the settings, " if is_own_app() else ""
        return (
            f"{name[0].upper()}{name[1:]} is not set: Celery would look for a RabbitMQ on this machine. Set it {where}"
            "as redis://127.0.0.1:6379/0."
        )
    return f"Is {name} ({', '.join(map(repr, addresses))}) right, and does the broker run?"


def _name_of_broker_setting() -> str:
    path = conf.get().CELERY_APP
    return "CELERY_BROKER_URL" if path is None else f"the broker_url of the Celery app {path!r}"


def _set_up_django(**_kwargs: object) -> None:
    if not apps.ready:
        django.setup()


@cache
def get_app() -> Celery:
    """Return the Celery app, made or imported when it is first asked for.

    Returns:
        ``SIGNALBUS["CELERY_APP"]``, or our own.

    Raises:
        ConfigurationError: no settings, or an app that is none.
    """
    _ensure_settings()
    path = conf.get().CELERY_APP
    if path is None:
        return _own_app()
    try:
        found = symbol_by_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f'SIGNALBUS["CELERY_APP"] is {path!r} (module and variable, as in "shop.celery:app"), which cannot be '
            f"imported: {error}."
        ) from error
    if not isinstance(found, Celery):
        raise ConfigurationError(f'SIGNALBUS["CELERY_APP"] is {path!r}, a {type(found).__name__} and no Celery app.')
    return found


def is_own_app() -> bool:
    """Return whether the app is ours, not the host's."""
    return conf.get().CELERY_APP is None


def claims() -> bool:
    """Return whether this app's workers claim their messages, where the broker is Redis."""
    claim = conf.get().CLAIM
    return is_own_app() if claim is None else claim


def default_queue() -> str:
    """Return the queue of receivers that name none."""
    return conf.get().QUEUE or (OWN_QUEUE if is_own_app() else str(get_app().conf.task_default_queue))


def _app_for_command_line() -> Celery:
    """Return the app for ``celery -A signalbus``, whose script does not have the working directory in its path."""
    if os.getcwd() not in sys.path:  # noqa: PTH109 - sys.path holds texts
        sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as above
    try:
        app = get_app()
        names = django.conf.settings.INSTALLED_APPS
    except ImportError as error:
        # Celery would take it for «no app here», and say so.
        raise ConfigurationError(
            f"The settings {os.environ.get('DJANGO_SETTINGS_MODULE')!r} cannot be imported ({error}): start the worker "
            "in the folder that holds manage.py, and look at the name."
        ) from error
    if not any(name == "signalbus" or name.startswith("signalbus.apps.") for name in names):
        # Such a worker knows neither task nor receivers: it would discard its messages.
        raise ConfigurationError('Add "signalbus" to INSTALLED_APPS, in the settings that this worker runs with.')
    return app


def queue_of(routing_key: object) -> str | None:
    """Return the queue that a message came through.

    Args:
        routing_key: the message's; any writer to the broker may have chosen it, and a host's queue may have a
            routing key that is not its name.

    Returns:
        The name of a queue that this app has, or None.
    """
    if not isinstance(routing_key, str):
        return None
    queues = get_app().amqp.queues
    if routing_key in queues:
        return routing_key
    return next((name for name, queue in queues.items() if queue.routing_key == routing_key), None)


def __getattr__(name: str) -> Celery:
    if name == "app":
        return _app_for_command_line()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
