"""A private RabbitMQ."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kombu import Connection

from signalbus.celery import default_queue
from signalbus.registration.registry import registry
from tests.other_servers import programs
from tests.other_servers.daemon import Daemon, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

CONFIGURATION = """\
log.console = true
log.console.level = info
log.file = false
"""


class RabbitMQ:
    """A private node of RabbitMQ on loopback, as a context manager.

    Its queues survive ``kill`` and the next ``start``, as they do on a real one.
    """

    def __enter__(self) -> Self:
        self._server, self._control, epmd = programs.find("rabbitmq")
        self._node = Daemon("rabbitmq")
        self._port, self._epmd_port, self._distribution_port = free_port(), free_port(), free_port()
        (self._node.directory / "rabbitmq.conf").write_text(CONFIGURATION)
        for name in ("env.conf", "plugins"):
            (self._node.directory / name).touch()
        # Erlang's register of nodes. Else the node would start the machine's own one, and leave it behind.
        self._epmd = Daemon("epmd")
        command = [epmd, "-debug", "-address", "127.0.0.1", "-port", str(self._epmd_port)]
        self._epmd.start(command, lambda: "epmd running" in self._epmd.log)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._node.stop()
        self._epmd.stop()

    @property
    def url(self) -> str:
        """The address for Celery and kombu."""
        return f"amqp://guest:guest@127.0.0.1:{self._port}//"

    @property
    def pid(self) -> int | None:
        """The node's process id; None if it does not run."""
        return self._node.pid

    @property
    def log(self) -> str:
        """What the node has written since its last start."""
        return self._node.log

    def start(self) -> None:
        """Start the node, and wait until it listens."""
        self._node.start([self._server], lambda: "Server startup complete" in self.log, self._environment())

    def kill(self) -> None:
        """End the node as a crash would, a while after its queues were made.

        For some seconds what it knows of a new quorum queue stands in its memory alone. Killed in these, it comes back
        with a queue that has no leader, and takes nothing for it any more: a matter of RabbitMQ's, and of new queues.
        """
        if self.pid is not None:
            self._tell("eval", "[dets:sync(Table) || Table <- dets:all()].")
        self._node.kill()

    @contextmanager
    def memory_alarm(self) -> Iterator[None]:
        """Let the node refuse publications, as it does when it is short of memory."""
        self._tell("set_vm_memory_high_watermark", "absolute", "1")
        try:
            yield
        finally:
            self._tell("set_vm_memory_high_watermark", "0.6")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Let the node answer nothing, like one whose machine stands still."""
        assert self.pid is not None
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def _tell(self, *arguments: str) -> None:
        """Run a command of rabbitmqctl."""
        environment = {**os.environ, **self._environment()}
        subprocess.run([self._control, *arguments], env=environment, check=True, capture_output=True, timeout=60)

    def _environment(self) -> dict[str, str]:
        directory = self._node.directory
        return {
            "HOME": str(directory),  # of Erlang's cookie
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": "signalbus@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(directory / "env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_PID_FILE": str(directory / "pid"),
            # Its script then becomes the node, instead of a shell that waits for it.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput -kernel inet_dist_use_interface {127,0,0,1}",
        }

    def empty(self) -> None:
        """Remove the queues of this checkout, with their messages."""
        with Connection(self.url) as connection, connection.channel() as channel:
            for queue in {default_queue(), *registry.queues(), "host"}:
                channel.queue_delete(queue)  # type: ignore[attr-defined]  # its stubs lack it
