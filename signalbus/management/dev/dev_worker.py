"""Run the worker of ``manage.py signalbus dev``: a Celery worker that writes a readable line for each delivery."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery import signals

from signalbus import celery
from signalbus.core.own_code import own_modules
from signalbus.management.dev.delivery_lines import DeliveryLines
from signalbus.registration.registry import registry

if TYPE_CHECKING:
    from django.core.management.base import BaseCommand

LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"


def run(command: BaseCommand, pipe: int, pool: str, concurrency: int) -> None:
    """Run the worker until it is told to end. Called in the process that `Supervisor` starts.

    Args:
        command: the command, with its output and its style.
        pipe: the file descriptor to write the folders of the project's imported modules to.
        pool: Celery's name of the pool.
        concurrency: the number of deliveries at once.
    """
    with os.fdopen(pipe, "w") as folders:
        json.dump(sorted({str(Path(file).parent) for file in own_modules()}), folders)
    app: Any = celery.get_app()
    # What receivers print is shown as it is.
    app.conf.update(worker_redirect_stdouts=False, worker_log_format=LOG_FORMAT)
    logging.getLogger("celery").setLevel(logging.WARNING)
    logging.getLogger("signalbus").addFilter(_is_news)

    def write(text: str) -> None:
        command.stdout.write(text)
        command.stdout.flush()

    DeliveryLines(write, command.style).register()
    signals.worker_ready.connect(lambda **_kwargs: write("The worker is ready."), weak=False)
    app.worker_main(["--quiet", "worker", *_options(app, pool, concurrency)])


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether a record says what is not seen already: a changed file restarts this worker."""
    return record.module != "stale_code"


def _options(app: Any, pool: str, concurrency: int) -> list[str]:
    options = ["--pool", pool, "--concurrency", str(concurrency), "--loglevel", "INFO"]
    if not celery.is_own_app():  # ours consumes the receivers' queues by itself
        queues = dict.fromkeys([*app.amqp.queues, celery.default_queue(), *registry.queues()])
        options += ["--queues", ",".join(queues)]
    return options
