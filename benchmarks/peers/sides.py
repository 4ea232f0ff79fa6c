"""A peer as a side of a race."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.sides import Side, SideError
from tests.servers import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.peers import Peer
    from benchmarks.servers import Servers

SETTINGS = "benchmarks.peers.settings"


class PeerSide(Side):
    """A peer's workers; another process sends, so that the measured processes load nothing of it.

    Args:
        peer: which one.
        servers: the servers.
        messages: in a slice.
        database_url: a database without tables, where it needs one.
    """

    def __init__(self, peer: Peer, servers: Servers, messages: int, database_url: str | None = None) -> None:
        environment: dict[str, str] = {"BENCH_REDIS_URL": servers.valkey.redis_url, "BENCH_PEER": peer.module}
        if database_url is not None:
            environment["DATABASE_URL"] = database_url
        if peer.settings:
            environment["DJANGO_SETTINGS_MODULE"] = SETTINGS
        super().__init__(peer.name, servers, peer.commands, self._fill, messages, peer.keys, environment=environment)
        self.peer = peer

    def _run(self, *words: str) -> subprocess.Popen[str]:
        environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": str(CHECKOUT), **self.environment}
        if not self.peer.settings:
            environment = {key: value for key, value in environment.items() if key != "DJANGO_SETTINGS_MODULE"}
        return subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=CHECKOUT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _finish(self, process: subprocess.Popen[str]) -> None:
        _, errors = process.communicate("\n")
        if process.returncode:
            raise SideError(self.name, errors[-2000:])

    def _fill(self, messages: int) -> None:
        self._finish(self._run("benchmarks.peers.fill", self.peer.path, str(messages)))

    def prepare(self, slices: int) -> None:
        """Make its tables; send the messages, if they can be put aside."""
        if self.peer.settings:
            self._finish(self._run("django", "migrate", "--verbosity", "0"))
        if self.keys:
            super().prepare(slices)

    def hold(self, number: int) -> Callable[[], None]:
        """Prepare a slice: in a transaction that is not committed yet, if the queue is a database."""
        if self.keys:
            return super().hold(number)
        process = self._run("benchmarks.peers.fill", self.peer.path, str(self.messages))
        assert process.stdout is not None
        if process.stdout.readline() != "filled\n":
            self._finish(process)
        return lambda: self._finish(process)
