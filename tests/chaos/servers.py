"""A PostgreSQL that can be stopped, crashed and started again, with its data."""

from __future__ import annotations

import signal

import psutil  # type: ignore[import-untyped]  # it ships no types

from tests.servers import Leash, Postgres

CONNECTIONS = 400  # room for the 300 that a cell holds


class MortalPostgres(Postgres):
    """A private PostgreSQL whose commits survive its own death: nothing but a power failure is left out (fsync)."""

    def __init__(self) -> None:
        super().__init__(durable=True)

    def __enter__(self) -> MortalPostgres:
        super().__enter__()
        self.execute("ALTER SYSTEM SET fsync = off", f"ALTER SYSTEM SET max_connections = {CONNECTIONS}")
        self.end()
        self.begin()
        return self

    def end(self, *, crash: bool = False) -> None:
        """Stop the server; who is connected is cut off.

        Args:
            crash: without a word and without a checkpoint, so that it has to recover.
        """
        assert self._server is not None
        assert self._leash is not None
        pid = self._server.get_pid()
        process = psutil.Process(pid)
        process.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
        process.wait(30)
        self._leash.release()

    def begin(self) -> None:
        """Start it again, on the same data and at the same address."""
        assert self._server is not None
        self._server.ensure_postgres_running()
        pid = self._server.get_pid()
        assert pid is not None
        self._leash = Leash(pid, "QUIT")
