"""The command lines of our worker and of stock Celery's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.servers import QUEUES
from benchmarks.sides import Side

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.servers import Servers

POOLS: Mapping[str, int] = {"solo": 1, "threads": 4, "prefork": 2}  # with how many at once
SETTINGS = "benchmarks.settings"
STOCK_SETTINGS = "benchmarks.stock_settings"


def celery(app: str, pool: str, queue: str) -> list[str]:
    """Return a worker's command line, from the module's name on."""
    options = ["--pool", pool, "--concurrency", str(POOLS[pool]), "--queues", queue, "--loglevel", "WARNING"]
    return ["celery", "-A", app, "worker", *options]


def _nothing(messages: int) -> None:
    """Send nothing, for a worker whose messages are sent elsewhere."""


def ours(  # noqa: PLR0913 - a worker has these
    servers: Servers,
    pool: str,
    fill: Callable[[int], None] = _nothing,
    messages: int = 0,
    *,
    keys: tuple[str, ...] = (QUEUES[0],),
    consumed: str | None = None,
) -> Side:
    """Return our worker.

    Args:
        servers: of the run.
        pool: Celery's name of it.
        fill: sends so many messages.
        messages: in a slice.
        keys: of the broker, that hold what was sent.
        consumed: the queue of the worker; its own, where several of ours are in a race.
    """
    command = celery("signalbus", pool, consumed or QUEUES[0])
    environment = {"DJANGO_SETTINGS_MODULE": SETTINGS}
    return Side("signalbus", servers, [command], fill, messages, keys, consumed, environment)


def stock(servers: Servers, pool: str, fill: Callable[[int], None] = _nothing, messages: int = 0) -> Side:
    """Return stock Celery's worker.

    Args:
        servers: of the run.
        pool: Celery's name of it.
        fill: sends so many messages.
        messages: in a slice.
    """
    command = celery("benchmarks.stock_celery", pool, QUEUES[1])
    environment = {"DJANGO_SETTINGS_MODULE": STOCK_SETTINGS}
    return Side("Celery", servers, [command], fill, messages, keys=(QUEUES[1],), environment=environment)
