"""A PostgreSQL that can be stopped, crashed and restarted with its data, and the ids that a broker holds."""

from __future__ import annotations

import base64
import json
import re
import signal
from contextlib import suppress
from typing import Any
from uuid import UUID

import psutil  # type: ignore[import-untyped]  # it ships no types
import redis

from tests.servers import Postgres, ProcessWatcher

ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")  # as a message's header writes it
CONNECTIONS = 400  # room for the 300 that a scenario holds


class RestartablePostgres(Postgres):
    """A private PostgreSQL whose commits survive its own death, but no power failure (fsync)."""

    def __init__(self) -> None:
        super().__init__(durable=True)

    def __enter__(self) -> RestartablePostgres:
        super().__enter__()
        self.execute("ALTER SYSTEM SET fsync = off", f"ALTER SYSTEM SET max_connections = {CONNECTIONS}")
        self.end()
        self.begin()
        return self

    def end(self, *, crash: bool = False) -> None:
        """Stop the server; who is connected is cut off.

        Args:
            crash: all its processes by SIGKILL, without a word and without a checkpoint, so that it has to recover.
        """
        assert self._server is not None
        assert self._watcher is not None
        main = psutil.Process(self._server.get_pid())
        if crash:
            main.suspend()  # it forks nobody whom we would miss
        processes = [main, *main.children(recursive=True)]
        if crash:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        else:
            main.send_signal(signal.SIGINT)
        _, alive = psutil.wait_procs(processes, 30)
        assert not alive, f"PostgreSQL did not end: {alive}"
        self._watcher.release()

    def begin(self) -> None:
        """Start it again with the same data and address."""
        assert self._server is not None
        self._server.ensure_postgres_running()
        pid = self._server.get_pid()
        assert pid is not None
        self._watcher = ProcessWatcher(pid, "QUIT")


def held(url: str) -> frozenset[str]:
    """Return the ids that stand in what a broker holds: messages, and whatever else has such an id.

    Args:
        url: the broker's, as redis-py takes it.
    """
    found: set[str] = set()
    with redis.Redis.from_url(url, decode_responses=True) as client:
        for key in client.scan_iter():
            kind = client.type(key)
            values = client.lrange(key, 0, -1) if kind == "list" else client.hvals(key) if kind == "hash" else []
            for value in values:
                found.update(str(UUID(hex=id_)) for id_ in ID.findall(_body(json.loads(value))))
    return frozenset(found)


def _body(envelope: Any) -> str:
    """Return the contents of a Celery message; a redelivered one is in a list with its queue."""
    message = envelope[0] if isinstance(envelope, list) else envelope
    return base64.b64decode(message["body"]).decode()
