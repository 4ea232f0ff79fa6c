"""The servers of a run: one private broker for all sides, and databases on demand."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import redis
from django.db import connection

from signalbus.embedded import EmbeddedValkey
from tests.servers import Postgres, default_database, migrate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from tasks.admissions.models import Cohort

VENDORS = {"sqlite": "sqlite", "postgres": "postgresql"}
QUEUES = ("signalbus", "celery")  # ours, and stock Celery's


class Servers:
    """A private Valkey, private databases and a directory, as a context manager."""

    def __init__(self) -> None:
        self.left_out: dict[str, str] = {}  # which peers, and why
        self._stack = ExitStack()
        self._postgres: Postgres | None = None
        self._made = 0
        self._templates: dict[str, str] = {}  # by kind

    def __enter__(self) -> Self:
        self.directory = self._temporary(None)
        self.memory = self._temporary("/dev/shm" if Path("/dev/shm").is_dir() else None)
        self.valkey = self._stack.enter_context(EmbeddedValkey())
        self.client: Any = self._stack.enter_context(redis.Redis.from_url(self.valkey.redis_url))
        os.environ["CELERY_BROKER_URL"] = self.valkey.url
        os.environ["BENCH_TALLY"] = str(self.memory / "own")  # what this process itself delivers
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def _temporary(self, where: str | None) -> Path:
        directory = tempfile.mkdtemp(prefix="signalbus-bench-", dir=where)
        self._stack.callback(shutil.rmtree, directory, ignore_errors=True)
        return Path(directory)

    def folder(self, name: str) -> Path:
        """Make a fresh directory."""
        self._made += 1
        folder = self.directory / f"{self._made}-{name}"
        folder.mkdir()
        return folder

    def server_pids(self) -> list[int]:
        """Return the processes that serve all sides: the broker, and the database server if there is one."""
        found = [self.valkey.pid, self._postgres.pid if self._postgres is not None else None]
        return [pid for pid in found if pid is not None]

    def versions(self) -> dict[str, str]:
        """Return the versions of the servers that were started."""
        info = self.client.info("server")
        found = {"Valkey": str(info.get("valkey_version", info["redis_version"]))}
        if self._postgres is not None:
            with psycopg.connect(self._postgres.url()) as database:
                found["PostgreSQL"] = str(database.info.server_version // 10_000)
        return found

    def create(self, kind: str) -> str:
        """Make a database with all tables.

        Args:
            kind: "sqlite" or "postgres"; the server of the latter waits for the disk at each commit, as a real one.

        Returns:
            Its DATABASE_URL.
        """
        if kind not in self._templates:
            self._templates[kind] = self.create_empty(kind)
            migrate(self._templates[kind])
        return self.create_empty(kind, self._templates[kind])

    def create_empty(self, kind: str, template: str | None = None) -> str:
        """Make a database without tables.

        Args:
            kind: as for ``create``.
            template: the DATABASE_URL of one to copy instead; nobody may be connected to it.

        Returns:
            Its DATABASE_URL.
        """
        if kind == "sqlite":
            path = self.folder("database") / "db.sqlite3"
            if template is not None:
                shutil.copy(template.removeprefix("sqlite:///"), path)
            return f"sqlite:///{path}"
        if self._postgres is None:
            self._postgres = self._stack.enter_context(Postgres(durable=True))
        return self._postgres.create(*([Postgres.name(template)] if template is not None else []))

    @contextmanager
    def database(self, kind: str) -> Iterator[Cohort]:
        """Make a database, and use it as the default one for a while, in this process and its workers.

        Args:
            kind: as for ``create``.

        Yields:
            The row that messages refer to.
        """
        with self.using(self.create(kind)):
            if connection.vendor != VENDORS[kind]:  # settings that were read too early stay where they were
                raise RuntimeError(f"this is {connection.vendor}, not {kind}")
            yield cohort()

    @contextmanager
    def using(self, url: str) -> Iterator[None]:
        """Use a database as the default one for a while, in this process and its workers."""
        before = os.environ["DATABASE_URL"]
        os.environ["DATABASE_URL"] = url
        try:
            with default_database(url):
                yield
        finally:
            os.environ["DATABASE_URL"] = before

    def empty(self) -> None:
        """Remove all waiting messages."""
        self.client.delete(*QUEUES)

    def clear(self) -> None:
        """Remove all that workers left behind, except kombu's table of queues: senders declare each once."""
        for key in self.client.scan_iter():
            if not key.startswith(b"_kombu"):
                self.client.delete(key)


def cohort() -> Cohort:
    """Return the row that messages refer to; make it if there is none."""
    from tasks.admissions.models import Academy, Cohort  # noqa: PLC0415 - needs Django's apps

    academy, _ = Academy.objects.get_or_create(name="Academy", slug="academy")
    if not Cohort.objects.exists():
        Cohort.objects.bulk_create([Cohort(academy=academy, name="Cohort", slug="cohort")])  # save() would send
    return Cohort.objects.get()
