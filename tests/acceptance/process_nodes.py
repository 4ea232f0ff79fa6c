"""pytest-celery's nodes as processes instead of containers: the same tests without Docker."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import redis
from pytest_celery import CeleryTestContainer, CeleryWorkerContainer, RedisContainer
from pytest_celery.vendors.worker import content

from signalbus.embedded import EmbeddedValkey
from tests.servers import CHECKOUT, Worker, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.other_servers.rabbitmq import RabbitMQ
    from tests.other_servers.sentinel import Sentinel

READY_TIMEOUT = 30.0


class Server(Protocol):
    """The server of a handle: an embedded server, or a worker."""

    @property
    def pid(self) -> int | None:
        """The process's id; None if it does not run."""

    @property
    def log(self) -> str:
        """Return its output."""

    def start(self) -> Any:
        """Start it."""

    def kill(self) -> object:
        """End it as ``kill -9`` does."""


class ProcessHandle:
    """Replaces the container of docker-py that pytest-celery expects.

    Args:
        name: as the node's name.
        server: the process.
        end: what ends it before a restart, and leaves its address as it is.
        environment: what the process sees.
    """

    def __init__(
        self, name: str, server: Server, end: Callable[[], object], environment: Mapping[str, str] | None = None
    ) -> None:
        self.id = uuid.uuid4().hex
        self.name = name
        self.server = server
        self._end = end
        self._environment = dict(environment or os.environ)
        self.attrs = {
            "Config": {"Hostname": name, "Env": [f"{key}={value}" for key, value in self._environment.items()]},
            "HostConfig": {"PortBindings": {}},
            "NetworkSettings": {"Networks": {}, "Ports": {}},
        }

    @property
    def status(self) -> str:
        """Return Docker's word for its state."""
        return "exited" if self.server.pid is None else "running"

    def reload(self) -> None:
        """Do nothing, because nothing is cached."""

    def logs(self) -> bytes:
        """Return what the process has written since its last start."""
        return self.server.log.encode()

    def kill(self, signal_name: str | int | None = None) -> None:
        """Send a signal, SIGKILL if none is given."""
        name = signal_name or "SIGKILL"
        number = signal.Signals[name] if isinstance(name, str) else signal.Signals(name)
        if number == signal.SIGKILL:
            self.server.kill()
        elif self.server.pid is not None:
            os.kill(self.server.pid, number)

    def restart(self, timeout: float = READY_TIMEOUT) -> None:
        """End it, and start it at the same address."""
        self._end()
        self.server.start()

    def exec_run(self, command: str | list[str], **_options: object) -> tuple[int, bytes]:
        """Run a command where the process runs, with what it sees.

        Returns:
            The exit status and what was written.
        """
        arguments = shlex.split(command) if isinstance(command, str) else command
        # The stock worker image keeps this module of helpers beside its app.
        helpers = str(Path(str(content.__file__)).parent)
        environment = {**self._environment, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), helpers])}
        done = subprocess.run(
            arguments, cwd=CHECKOUT, env=environment, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        return done.returncode, done.stdout

    def remove(self, **_options: object) -> None:
        """Do nothing, because nothing is kept."""


def wait_until_ready(handle: ProcessHandle, prompt: str) -> bool:
    """Wait until a process says that it is ready; fail at once if it has ended."""

    def said() -> bool:
        running = handle.status == "running"
        if prompt in handle.logs().decode():
            return True
        assert running, f"{handle.name} ended before it was ready:\n{handle.logs().decode()}"
        return False

    return wait_until(said, READY_TIMEOUT, f"{handle.name} to be ready")


class ValkeyNode(RedisContainer):  # type: ignore[misc]
    """A private Valkey as broker or result backend."""

    def __init__(self, server: EmbeddedValkey, name: str) -> None:
        self.server = server
        super().__init__(ProcessHandle(name, server, server.kill))

    @classmethod
    def spawn(cls, name: str) -> Self:
        """Start one.

        Args:
            name: the node's name.
        """
        return cls(EmbeddedValkey().start(), name)

    @property
    def client(self) -> redis.Redis:
        """A client; the caller closes it."""
        return redis.Redis.from_url(self.server.redis_url, decode_responses=True)

    @property
    def celeryconfig(self) -> dict[str, Any]:
        """What Celery needs to know."""
        return {"url": self.server.url, "host_url": self.server.url, "hostname": self.hostname, "vhost": self.vhost}

    def _wait_ready(self, timeout: float = READY_TIMEOUT) -> bool:
        return self.server.pid is not None  # it has answered by the time that it is started

    def teardown(self) -> None:
        """End the server; called by each fixture that hands the node on."""
        self.server.stop()


class OtherBrokerNode(CeleryTestContainer):  # type: ignore[misc]
    """A broker of another kind, which runs already, and serves one test after another."""

    def __init__(self, server: RabbitMQ | Sentinel, name: str) -> None:
        super().__init__(ProcessHandle(name, server, server.kill))
        self._url = server.url

    @property
    def celeryconfig(self) -> dict[str, Any]:
        """What Celery needs to know."""
        return {"url": self._url, "host_url": self._url}

    def _wait_ready(self, timeout: float = READY_TIMEOUT) -> bool:
        return bool(self.status == "running")


class WorkerNode(CeleryWorkerContainer):  # type: ignore[misc]
    """A real worker of this checkout."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        super().__init__(ProcessHandle(worker.name, worker, worker.stop, worker.environment))

    @classmethod
    def spawn(cls, directory: Path, environment: Mapping[str, str], pool: str = "prefork") -> Self:
        """Start one.

        Args:
            directory: where its log goes.
            environment: what differs from this process's environment.
            pool: Celery's name of the pool.
        """
        return cls(Worker(directory, pool=pool, environment=environment).start())

    @classmethod
    def initial_env(cls, celery_worker_cluster_config: dict[str, Any], initial: dict[str, Any] | None = None) -> Any:
        """What the clusters tell the worker, without what only holds inside the stock image."""
        environment = super().initial_env(celery_worker_cluster_config, initial)
        return {key: value for key, value in environment.items() if key != "PYTHONPATH"}

    @classmethod
    def worker_queue(cls) -> str:
        """The queue of our own app."""
        return "signalbus"

    def _wait_ready(self, timeout: float = READY_TIMEOUT) -> bool:
        return wait_until_ready(self._container, f"{self.name}@") and wait_until_ready(self._container, " ready.")

    def teardown(self) -> None:
        """End the worker and whatever is left of its processes; called by each fixture that hands the node on."""
        self.worker.stop()
