"""Start and end what ``manage.py signalbus dev`` runs: the embedded broker, and the worker, again when code changes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from django.conf import settings
from django.core.management.base import CommandError
from kombu.exceptions import OperationalError

from signalbus import celery
from signalbus.compat.django_autoreload import ProjectReloader, own_command_line
from signalbus.core import broker_address
from signalbus.core.development_socket import accepts_connections
from signalbus.core.own_code import own_modules
from signalbus.core.process_watcher import ProcessWatcher
from signalbus.embedded import EmbeddedValkey
from signalbus.exceptions import SignalBusError
from signalbus.ledger import operations as ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

LOOK_SECONDS = 1.0  # between two looks at whether the embedded broker still runs
PRODUCTION = (
    "`signalbus dev` is for development, and DEBUG is False: run it with the settings that you develop with. In "
    "production, start `celery -A signalbus worker` and a broker of your own. To run it all the same, add --force."
)


class Changed(NamedTuple):
    """A file has changed."""

    path: Path


class Ended(NamedTuple):
    """The worker has ended, with an exit status as ``Popen.returncode`` has it."""

    status: int


class Stop(NamedTuple):
    """The user wants it all to end."""


class WorkerProcess:
    """The worker's process, with a group of its own: Ctrl-C in the terminal does not reach it.

    Args:
        arguments: of this program, for the worker's own process.
        on_end: called with its exit status, on another thread.
        on_folders: called with the folders of the modules that it has imported, on another thread.
    """

    def __init__(
        self, arguments: list[str], on_end: Callable[[int], None], on_folders: Callable[[list[str]], None]
    ) -> None:
        reading, writing = os.pipe()
        self._process = subprocess.Popen(  # noqa: S603 - this program, started again
            [*arguments, "--worker", str(writing)],
            stdin=subprocess.DEVNULL,
            pass_fds=[writing],
            start_new_session=True,
        )
        os.close(writing)
        self._watcher = ProcessWatcher(-self._process.pid)
        threading.Thread(target=self._wait, args=(reading, on_end, on_folders), daemon=True).start()

    def _wait(self, reading: int, on_end: Callable[[int], None], on_folders: Callable[[list[str]], None]) -> None:
        with os.fdopen(reading) as pipe:
            told = pipe.read()  # nothing from a worker that ended before
        if told:
            on_folders(json.loads(told))
        status = self._process.wait()
        self.kill()  # what it left
        self._watcher.release()
        on_end(status)

    def send(self, number: signal.Signals) -> None:
        """Send the worker's main process a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End the worker and its children at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


class Supervisor:
    """Keeps the worker running: starts it again when a file changes, and ends it on Ctrl-C.

    Args:
        write: writes a line.
        arguments: the command line of this program.
        broker: the embedded broker; None if a broker is configured.
    """

    def __init__(self, write: Callable[[str], None], arguments: list[str], broker: EmbeddedValkey | None) -> None:
        self._write = write
        self._arguments = arguments
        self._broker = broker
        # Its put() may be called in a handler of a signal.
        self._happenings: SimpleQueue[Changed | Ended | Stop] = SimpleQueue()
        self._reloader = ProjectReloader(lambda path: self._happenings.put(Changed(path)))
        self._reloader.add_folders(Path(file).parent for file in own_modules())
        self._worker: WorkerProcess | None = None
        self._restarts = False
        self._stops = 0

    def run(self) -> None:
        """Run until Ctrl-C, or SIGTERM.

        Raises:
            CommandError: the embedded broker ended by itself.
        """
        threading.Thread(target=self._reloader.watch, daemon=True).start()
        with _stop_signals(lambda: self._happenings.put(Stop())):
            try:
                self._start()
                while self._worker is not None or not self._stops:
                    self._handle(self._next())
            finally:
                self._reloader.stop()
                if self._worker is not None:
                    self._worker.kill()

    def _next(self) -> Changed | Ended | Stop | None:
        with suppress(Empty):
            return self._happenings.get(timeout=LOOK_SECONDS)
        if self._broker is not None and self._broker.pid is None:
            raise CommandError(f"The embedded broker ended by itself:\n{self._broker.log}")
        return None

    def _handle(self, happening: Changed | Ended | Stop | None) -> None:
        if isinstance(happening, Changed):
            self._on_change(happening.path)
        elif isinstance(happening, Ended):
            self._on_end(happening.status)
        elif isinstance(happening, Stop):
            self._on_stop()

    def _start(self) -> None:
        self._restarts = False
        self._worker = WorkerProcess(
            self._arguments,
            lambda status: self._happenings.put(Ended(status)),
            lambda folders: self._reloader.add_folders(map(Path, folders)),
        )

    def _on_change(self, path: Path) -> None:
        if self._stops or self._restarts:
            return
        if self._worker is None:
            self._write(f"{_short(path)} has changed: the worker starts.")
            self._start()
        else:
            self._write(f"{_short(path)} has changed: the worker restarts when its receivers have ended.")
            self._restarts = True
            self._worker.send(signal.SIGTERM)

    def _on_end(self, status: int) -> None:
        self._worker = None
        if self._stops:
            return
        if self._restarts:
            self._start()
        else:
            how = f"by the signal {-status}" if status < 0 else f"with status {status}"
            self._write(f"The worker ended {how}. It starts again when a file of the project changes.")

    def _on_stop(self) -> None:
        self._stops += 1
        if self._worker is None:
            return
        if self._stops == 1:
            self._write("The worker ends when its receivers have ended; Ctrl-C again interrupts them.")
            self._worker.send(signal.SIGTERM)
        elif self._stops == 2:  # noqa: PLR2004 - the second Ctrl-C
            self._worker.send(signal.SIGQUIT)
        else:
            self._worker.kill()


def supervise(write: Callable[[str], None], *, force: bool) -> None:
    """Run a broker, if none is configured, and a worker, until Ctrl-C.

    Args:
        write: writes a line.
        force: run although ``DEBUG`` is False.

    Raises:
        CommandError: the set-up cannot work; with the remedy.
        ConfigurationError: as above.
    """
    if not settings.DEBUG and not force:
        raise CommandError(PRODUCTION)
    remedy = ledger.missing()
    if remedy is not None:
        raise CommandError(remedy)
    with _broker() as broker:
        address = ", ".join(broker_address.addresses_of(celery.get_app()))
        write(f"The broker is {address if broker is None else 'an embedded Valkey, which ends with this command'}.")
        write("The worker restarts when code changes. Ctrl-C ends it all.")
        failed = ledger.failures()
        if any(failed):
            write(
                f"From before: {failed.retrying} failed and wait for their next attempt, {failed.parked} parked, "
                f"{failed.dead} dead: `manage.py signalbus failed` lists them."
            )
        Supervisor(write, own_command_line(), broker).run()


def _broker() -> AbstractContextManager[EmbeddedValkey | None]:
    """Return the embedded broker, not started yet; None if a broker is configured, and answers."""
    app = celery.get_app()
    development = celery.development_broker() if celery.uses_development_broker() else None
    if development is not None:
        return _embedded(Path(development.partition("://")[2]))
    if not broker_address.addresses_of(app):
        raise CommandError(_no_broker())
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0)
    except OperationalError as error:
        hint = " Without a CELERY_BROKER_URL, this command starts a broker of its own." if celery.is_own_app() else ""
        text = str(error).rstrip(".")
        raise CommandError(f"The broker does not answer: {text}. {celery.broker_remedy()}{hint}") from error
    return nullcontext()


@contextmanager
def _embedded(socket: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(socket=socket)
    if accepts_connections(socket):
        raise CommandError("Another `signalbus dev` of this project runs already: end that one first.")
    try:
        server.start()
    except SignalBusError as error:
        raise CommandError(str(error)) from error
    try:
        yield server
    finally:
        server.stop()


def _no_broker() -> str:
    if not celery.is_own_app():
        return (
            f"{celery.broker_remedy()} An app of your own does not find an embedded broker by itself: "
            "`python -m signalbus.embedded` starts one, and prints its address."
        )
    return f"{celery.broker_remedy()} An embedded broker is found by the other processes only while DEBUG is True."


@contextmanager
def _stop_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call a function on Ctrl-C, SIGTERM, and when the terminal is closed."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    former = {number: signal.signal(number, lambda *_args: stop()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _short(path: Path) -> str:
    with suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
