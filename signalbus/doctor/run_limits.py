"""Read from the settings and the receivers how long a run may take, and when a message is redelivered meanwhile."""

from __future__ import annotations

from typing import Final

from signalbus import celery, conf
from signalbus.registration.registry import registry

KOMBUS_VISIBILITY: Final = 3600.0  # seconds: the visibility timeout of kombu where none is set


def visibility_timeout() -> float:
    """Return the seconds after which Redis redelivers a message that no worker has acknowledged."""
    options = celery.get_app().conf.broker_transport_options or {}
    return float(options.get("visibility_timeout", KOMBUS_VISIBILITY))


def longest_run() -> tuple[float, str]:
    """Return the seconds that a run may take, and the setting or receiver that says so."""
    limits = [(conf.get().TIME_LIMIT, "TIME_LIMIT")]
    if limit := celery.get_app().conf.task_time_limit:
        limits.append((float(limit), "CELERY_TASK_TIME_LIMIT"))
    limits += [
        (entry.timeout, f"the timeout of {entry.id}")
        for signal in registry
        for entry in signal.entries()
        if entry.timeout is not None
    ]
    return max(limits)
