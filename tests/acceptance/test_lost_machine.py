"""A machine that loses its power, or its network: its locks are freed, and its deliveries run elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from django.db import transaction

from signalbus.models import Delivery
from tests.chaos.servers import RestartablePostgres
from tests.misbehaving.signals import stalling
from tests.other_servers import programs
from tests.servers import default_database, migrate, wait_until

from .test_worker import TESTS_SETTINGS, traces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

    from pytest_django.plugin import DjangoDbBlocker

    from tests.servers import Worker

pytestmark = [
    pytest.mark.skipif("SIGNALBUS_LONG" not in os.environ, reason="SIGNALBUS_LONG is not set"),
    pytest.mark.skipif(os.getuid() != 0, reason="Only root may make network namespaces."),
]

HERE, THERE = "192.0.2.1", "192.0.2.2"  # documentation's own network: nobody has these addresses
FREED = 30.0  # seconds in which a lost machine's locks are free, as docs/operating.md promises


class Cable:
    """Two machines in network namespaces, with a cable between them; nothing else is connected to either."""

    def __init__(self) -> None:
        self.ip, self._setpriv = programs.find("namespaces")
        name = uuid.uuid4().hex[:6]
        self.servers, self.workers = f"signalbus-{name}-a", f"signalbus-{name}-b"

    def __enter__(self) -> Self:
        for machine in (self.servers, self.workers):
            self._do("netns", "add", machine)
        self._do("link", "add", "cable", "netns", self.servers, "type", "veth", "peer", "cable", "netns", self.workers)
        for machine, address in ((self.servers, HERE), (self.workers, THERE)):
            self._do("-n", machine, "address", "add", f"{address}/30", "dev", "cable")
            self._do("-n", machine, "link", "set", "cable", "up")
            self._do("-n", machine, "link", "set", "lo", "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for machine in (self.servers, self.workers):
            self._do("netns", "delete", machine)

    def _do(self, *words: str) -> None:
        subprocess.run([self.ip, *words], check=True)

    def on(self, machine: str, *command: str) -> list[str]:
        """Return the command line that runs a command on one of the machines."""
        return [self.ip, "netns", "exec", machine, *command]

    def cut(self) -> None:
        """Cut the cable: no packet arrives, and neither machine is told."""
        self._do("-n", self.workers, "link", "set", "cable", "down")


class DistantPostgres(RestartablePostgres):
    """A PostgreSQL at one end of a cable; this process reaches it by its socket.

    Args:
        cable: the cable.
    """

    def __init__(self, cable: Cable) -> None:
        super().__init__()
        self._cable = cable

    def begin(self) -> None:
        """Start it on that machine."""
        server = self._server
        assert server is not None
        hosts = server.pgdata / "pg_hba.conf"
        if HERE not in hosts.read_text():
            hosts.write_text(f"{hosts.read_text()}\nhost all all {HERE}/30 trust\n")
        info = server.get_postmaster_info()
        options = f"-h {HERE} -k {info.socket_dir}"
        control = [str(server.bin_path / "pg_ctl"), "-w", "-D", str(server.pgdata), "-l", str(server.log)]
        user = ("setpriv", f"--reuid={server.system_user}", "--clear-groups")
        subprocess.run(self._cable.on(self._cable.servers, *user, *control, "-o", options, "start"), check=True)
        super().begin()


def is_free() -> bool:
    """Return whether the delivery's row is not locked."""
    with transaction.atomic():
        return Delivery.objects.select_for_update(skip_locked=True).first() is not None


@pytest.fixture
def cable() -> Iterator[Cable]:
    """The two machines."""
    with Cable() as made:
        yield made


@pytest.fixture
def database_url(cable: Cable, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    """A database on one of them, as this process reaches it."""
    with DistantPostgres(cable) as server:
        url = server.create()
        with django_db_blocker.unblock():
            migrate(url)
            with default_database(url):
                yield url


@pytest.mark.timeout(300)
def test_the_locks_of_a_lost_machine_are_freed_within_half_a_minute(
    start_worker: Callable[..., Worker], cable: Cable, database_url: str
):
    """A receiver has a transaction open when the cable is cut; another worker runs the delivery, once."""
    distant = f"postgresql://postgres@{HERE}{urlsplit(database_url).path}"
    stalled = start_worker(
        environment={**TESTS_SETTINGS, "DATABASE_URL": distant, "STALL": "1"},
        concurrency=1,
        prefix=cable.on(cable.workers),
    )
    stalling.send(None, label="a")
    stalled.wait_for_log("stalls with a")
    assert not is_free()

    cable.cut()
    began = time.monotonic()
    assert stalled.pid is not None
    os.killpg(stalled.pid, signal.SIGKILL)
    start_worker(environment=TESTS_SETTINGS)

    wait_until(is_free, 120, "the row to be free")
    freed = time.monotonic() - began
    wait_until(lambda: traces("stalled") == ["a"], 60, "the second run")
    print(f"free after {freed:.1f} s, done after {time.monotonic() - began:.1f} s")  # noqa: T201 - shown with -s
    assert freed < FREED
