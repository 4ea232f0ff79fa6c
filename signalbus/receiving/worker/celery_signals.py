"""Connect to Celery's signal of a worker's start, and import what only a worker needs once it is sent.

`apps.py` calls `connect` in every process (decision 0013). A process that sends, or runs a command, imports nothing of
the worker's machinery, and no client of the broker before it needs one.
"""

from __future__ import annotations

from typing import Any

from celery import signals

from signalbus import celery


def connect() -> None:
    """Connect to the start of a worker, of whichever app it is."""
    signals.worker_init.connect(_set_up, dispatch_uid="signalbus.set_up")


def _set_up(sender: Any, **_kwargs: object) -> None:
    """Set up the main process of a worker, before it forks: what is imported here, its children share."""
    if sender.app == celery.get_app():  # either may be one of Celery's proxies
        # By its name: if it cannot be imported, that ends the worker; Celery ignores an error in a handler.
        sender.app.steps["worker"].add("signalbus.receiving.worker.bootstrap:BusStep")
    from signalbus.receiving.worker import bootstrap  # noqa: PLC0415 - a process that is no worker does not pay for it

    bootstrap.connect()
