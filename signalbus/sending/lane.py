"""Our own way to queues on Redis: one write and one read for all that is published together.

What lies on the queue is what Celery would have put there. Celery and kombu take ten times as long to put it there as
Redis takes to accept it, because they make all of it anew for each message, down to the client.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from signalbus import conf
from signalbus.compat.kombu import is_sentinel, let_go, new_connection, speaks_redis
from signalbus.sending import envelope
from signalbus.sending.producers import transport_options
from signalbus.sending.template import Template, UnfitError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery

CONNECTIONS = 10  # of a process, at most; who finds all of them in use waits
IDLE = 0.5  # seconds after which a connection is asked whether the broker has closed it


class Lane:
    """A process's way to the queues of one app. Threads and greenlets may share it; a forked child makes its own.

    Args:
        app: the app.

    Raises:
        UnfitError: its broker is none of kombu's Redis transport.
    """

    def __init__(self, app: Celery) -> None:
        from redis import exceptions  # noqa: PLC0415 - a host on another broker does not pay for it

        self._app = app
        self._connection = app.connection_for_write(transport_options=transport_options(app))
        transport = type(self._connection.transport)
        if not speaks_redis(self._connection):
            raise UnfitError(f"{transport.__module__}.{transport.__qualname__} is not made of kombu's Redis transport")
        if len(self._connection.alt) > 1 and not is_sentinel(self._connection):
            raise UnfitError("the broker's address names several, of which Celery chooses one that answers")
        self._channel: Any = None
        self._lock = threading.Lock()
        self._templates: dict[str, Template | UnfitError] = {}
        self._idle: deque[tuple[Any, float]] = deque()  # the one that was used last is used next
        self._free = threading.Semaphore(CONNECTIONS)
        # A connection that says one of these is stale, and a new one may be in order: it was closed; it is of a replica
        # that was the primary; its credentials have run out.
        self._stale = (exceptions.ConnectionError, exceptions.ReadOnlyError, OSError)
        self._timeouts = (exceptions.TimeoutError, TimeoutError)
        self._answer = exceptions.ResponseError

    def template(self, queue: str) -> Template:
        """Return how messages to a queue are written; the queue is declared when it is first asked for.

        Args:
            queue: its name.

        Raises:
            UnfitError: Celery's own way must be taken.
            Exception: what the broker said.
        """
        known = self._templates.get(queue)
        if known is None:
            with self._lock:
                known = self._templates[queue] = self._templates.get(queue) or self._made(queue)
        if isinstance(known, UnfitError):
            raise known
        return known

    def _made(self, queue: str) -> Template | UnfitError:
        declared: Any = self._app.amqp.queues[queue]
        if declared.exchange.type != "direct":
            return UnfitError(f"its exchange is of type {declared.exchange.type}, which Celery has to look up")
        if self._channel is None:
            self._channel = self._connection.default_channel
        try:
            declared(self._channel).declare()
            return Template(self._app, queue, self._channel)
        except UnfitError as error:
            return error
        finally:
            let_go(self._channel)

    def push(self, queue: str, batches: Sequence[Sequence[str]]) -> None:
        """Put messages on a queue, all of them or none.

        Args:
            queue: its name.
            batches: for each Celery message its signed texts.

        Raises:
            UnfitError: Celery's own way must be taken; nothing was done.
            Exception: what the broker said. After a timeout nobody knows whether it has taken them.
        """
        packet = self.template(queue).command(batches, envelope.tree_here(self._app))
        if not self._free.acquire(timeout=conf.get().CONNECT_TIMEOUT):
            raise TimeoutError(f"all {CONNECTIONS} connections to the broker were in use")
        try:
            self._ask(packet)
        finally:
            self._free.release()

    def _ask(self, packet: bytes) -> None:
        used = self._used_one()
        if used is not None:
            try:
                return self._ask_on(used, packet)
            except self._timeouts:
                raise  # it may have been taken: again would only add a duplicate, and another wait
            except self._stale:
                self.hang_up()  # what happened to one has happened to all: the broker was restarted, or fails over
        return self._ask_on(new_connection(self._channel), packet)

    def _used_one(self) -> Any | None:
        """Take the connection that was used last, unless the broker has closed it meanwhile."""
        while True:
            try:
                connection, since = self._idle.pop()
            except IndexError:
                return None
            if time.monotonic() - since < IDLE or not self._is_closed(connection):
                return connection
            connection.disconnect()

    def _is_closed(self, connection: Any) -> bool:
        try:
            return bool(connection.can_read(0))  # nothing was asked, so that it can only be its end
        except self._stale:
            return True

    def _ask_on(self, connection: Any, packet: bytes) -> None:
        try:
            connection.send_packed_command((packet,), check_health=False)
            connection.read_response()
        except BaseException as error:
            # Also where this greenlet is killed: an answer that was not read would be taken for the next one's.
            if not isinstance(error, self._answer) or isinstance(error, self._stale):
                connection.disconnect()
            else:
                self._idle.append((connection, time.monotonic()))
            raise
        self._idle.append((connection, time.monotonic()))

    def hang_up(self) -> None:
        """Close what is not in use."""
        while self._idle:
            try:
                connection, _ = self._idle.pop()
            except IndexError:  # another thread took the last one
                return
            connection.disconnect()


@lru_cache(maxsize=4)
def _lane(app: Celery, pid: int) -> Lane | UnfitError:  # noqa: ARG001 - a forked child must not write to its parent's sockets
    try:
        return Lane(app)
    except UnfitError as error:
        return error


def forget(app: Celery) -> None:
    """Close this process's connections; what is published next gets new ones, as the settings are then.

    Args:
        app: whose they are.
    """
    lane = _lane(app, os.getpid()) if _lane.cache_info().currsize else None
    if isinstance(lane, Lane):
        lane.hang_up()
    _lane.cache_clear()


def lane_of(app: Celery) -> Lane:
    """Return this process's lane.

    Args:
        app: whose queues it leads to.

    Raises:
        UnfitError: Celery's own way must be taken, for every queue.
    """
    lane = _lane(app, os.getpid())
    if isinstance(lane, UnfitError):
        raise lane
    return lane
