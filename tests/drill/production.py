"""The shop's production: a private PostgreSQL and Valkey, and two real workers, which a new release restarts."""

from __future__ import annotations

import os
import re
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]  # it ships no types
import redis
from django.core.management import call_command

from signalbus.embedded import EmbeddedValkey
from tests.servers import Postgres, Worker, broker, default_database, wait_until

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

SETTINGS = "tests.drill.shop.settings"
READY_SECONDS = 120.0  # on a machine that has much else to do


class Production:
    """Servers and workers, as a context manager; this process is the shop's web process, of the first release.

    Args:
        directory: where the workers' logs go.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.release = 1
        self.workers: list[Worker] = []
        self._broker = EmbeddedValkey()
        self._database_url = ""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            postgres = stack.enter_context(Postgres())
            stack.enter_context(self._broker)
            self._database_url = postgres.create()
            stack.enter_context(default_database(self._database_url))
            stack.enter_context(broker(self._broker.url))
            call_command("migrate", run_syncdb=True, verbosity=0)
            stack.callback(self._stop_workers)
            self._start_workers()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def environment(self) -> dict[str, str]:
        """The environment of workers and commands, of the present release."""
        return {
            "DJANGO_SETTINGS_MODULE": SETTINGS,
            "DATABASE_URL": self._database_url,
            "CELERY_BROKER_URL": self._broker.url,
            "SHOP_RELEASE": str(self.release),
        }

    def deploy(self) -> None:
        """Restart the workers with the next release."""
        self._stop_workers()
        self.release += 1
        self._start_workers()

    def lose_messages(self) -> None:
        """Delete all that the broker holds, as a restart without a file does."""
        with redis.Redis.from_url(self._broker.redis_url) as client:
            client.flushall()

    def suspend(self) -> None:
        """Stop all processes of the workers where they are."""
        for process in self._processes():
            process.suspend()

    def go_on(self) -> None:
        """Let suspended processes go on."""
        for process in self._processes():
            process.resume()

    def read_log(self, pattern: str) -> str:
        """Return what the workers' logs have of a pattern, when it is there."""

        def found() -> str:
            texts = [match[0] for worker in self.workers for match in re.finditer(pattern, worker.log)]
            return texts[0] if texts else ""

        return wait_until(found, READY_SECONDS, f"{pattern!r} in a log")

    def _processes(self) -> list[psutil.Process]:
        mains = [psutil.Process(worker.pid) for worker in self.workers]
        return [process for main in mains for process in (main, *main.children(recursive=True))]

    def _start_workers(self) -> None:
        environment = {**os.environ, **self.environment}
        started = [Worker(self.directory, environment=environment, timeout=READY_SECONDS) for _ in range(2)]
        for worker in started:
            self.workers.append(worker.start())
        for worker in started:
            worker.wait_until_ready()

    def _stop_workers(self) -> None:
        for worker in self.workers:
            if worker.pid is not None:
                worker.signal(signal.SIGTERM)
        for worker in self.workers:
            worker.stop()
        self.workers.clear()
