"""Senders and workers that reach PostgreSQL through pgbouncer in transaction mode."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from signalbus.models import CLOSED_STATES, Delivery
from tests.misbehaving.signals import lingering, stepping
from tests.other_servers import programs
from tests.other_servers.daemon import Daemon, free_port
from tests.servers import default_database, wait_until

from .test_order import effects
from .test_worker import TESTS_SETTINGS, traces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers import Worker

pytestmark = pytest.mark.skipif("SIGNALBUS_LONG" not in os.environ, reason="SIGNALBUS_LONG is not set")

CONFIGURATION = """
[databases]
* = host={host} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
"""
LINGERING, STEPS, KEYS = 100, 60, 3


@pytest.fixture
def bouncer_url(database_url: str) -> Iterator[str]:
    """The test's database through pgbouncer."""
    (program,) = programs.find("pgbouncer")
    port, parts = free_port(), urlsplit(database_url)
    daemon = Daemon("pgbouncer")
    path = daemon.directory / "pgbouncer.ini"
    path.write_text(CONFIGURATION.format(host=parse_qs(parts.query)["host"][0], port=port))
    command = [program, str(path)]
    if not os.getuid():  # it refuses to run as root; the server's own user may read its socket
        daemon.directory.chmod(0o755)
        command = ["setpriv", "--reuid=pgserver", "--clear-groups", *command]
    daemon.start(command, lambda: "process up" in daemon.log)
    yield f"postgresql://postgres@127.0.0.1:{port}{parts.path}"
    daemon.stop()


@pytest.mark.timeout(600)
def test_signals_work_through_pgbouncer(bouncer_url: str, start_worker: Callable[..., Worker]):
    """With four server connections each signal has its one effect, in order where asked, through a kill."""
    with default_database(bouncer_url):
        worker = start_worker(environment={**TESTS_SETTINGS, "DATABASE_URL": bouncer_url})
        for number in range(LINGERING):
            lingering.send(None, number=number)
        for number in range(STEPS):
            stepping.send(None, key=str(number % KEYS), number=number)
        wait_until(lambda: traces("lingered"), what="the first effects")
        worker.kill()
        worker.start()
        worker.wait_until_ready()

        wait_until(lambda: not Delivery.objects.exclude(state__in=CLOSED_STATES).exists(), 120, "all to be done")

        assert sorted(map(int, traces("lingered"))) == list(range(LINGERING))
        assert effects() == {str(key): list(range(key, STEPS, KEYS)) for key in range(KEYS)}
