"""Publish to Redis without Celery's producers: one write and one read for all messages that are published at once.

`publisher` tries it first, and takes `celery_producers` where a queue or an app has no fast path. The items on the
queue are what Celery would have put there (decision 0030). Celery and kombu take ten times as long to put them there
as Redis takes to accept them, because they make everything anew for each message, down to the client.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from signalbus import celery, conf
from signalbus.broker import envelope
from signalbus.broker.queue_item import NoFastPathError, QueueItemTemplate
from signalbus.compat.kombu_internals import close_sockets, is_sentinel, new_connection, speaks_redis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery

CONNECTIONS = 10  # of a process, at most; a sender that finds all of them in use waits
IDLE = 0.5  # seconds after which a connection is asked whether the broker has closed it
EMPTY_SLOT: tuple[Any, float] = (None, 0.0)  # a slot for a connection that is opened when it is needed


class _Waiter:
    """A sender that waits for a slot."""

    def __init__(self) -> None:
        self.served = threading.Event()
        self.slot = EMPTY_SLOT


class FastPath:
    """The fast path of a process to an app's queues. Threads and greenlets may share it; a forked child makes its own.

    Args:
        app: the app.

    Raises:
        NoFastPathError: its broker is not reached with kombu's Redis transport.
    """

    def __init__(self, app: Celery) -> None:
        from redis import exceptions  # noqa: PLC0415 - a host on another broker does not pay for it

        self._app = app
        self._connection = app.connection_for_write(transport_options=celery.transport_options(app))
        transport = type(self._connection.transport)
        if not speaks_redis(self._connection):
            raise NoFastPathError(
                f"{transport.__module__}.{transport.__qualname__} is not made of kombu's Redis transport"
            )
        if len(self._connection.alt) > 1 and not is_sentinel(self._connection):
            raise NoFastPathError("the broker's address names several, of which Celery chooses one that answers")
        self._channel: Any = None
        self._lock = threading.Lock()
        self._templates: dict[str, QueueItemTemplate | NoFastPathError] = {}
        # Connections, or empty slots, with the time of their last use; the one that was used last is used next.
        self._slots: deque[tuple[Any, float]] = deque([EMPTY_SLOT] * CONNECTIONS)
        self._waiters: deque[_Waiter] = deque()
        # A connection with one of these errors is stale, and a new one may work: it was closed; it is of a replica
        # that was the primary; its credentials have run out.
        self._stale = (exceptions.ConnectionError, exceptions.ReadOnlyError, OSError)
        self._timeouts = (exceptions.TimeoutError, TimeoutError)
        self._answer = exceptions.ResponseError

    def template(self, queue: str) -> QueueItemTemplate:
        """Return the template of messages to a queue; declare the queue when it is asked for the first time.

        Args:
            queue: its name.

        Raises:
            NoFastPathError: Celery's own way must be taken.
            Exception: the error of the broker.
        """
        known = self._templates.get(queue) or self._new_template(queue)
        if isinstance(known, NoFastPathError):
            raise known
        return known

    def _new_template(self, queue: str) -> QueueItemTemplate | NoFastPathError:
        # With a timeout: in an outage, each thread would else wait for all threads before it.
        if not self._lock.acquire(timeout=conf.get().CONNECT_TIMEOUT):
            raise TimeoutError("the broker has not told another thread yet whether the queue is there")
        try:
            return self._templates.setdefault(queue, self._templates.get(queue) or self._made(queue))
        finally:
            self._lock.release()

    def _made(self, queue: str) -> QueueItemTemplate | NoFastPathError:
        declared: Any = self._app.amqp.queues[queue]
        if declared.exchange.type != "direct":
            return NoFastPathError(f"its exchange is of type {declared.exchange.type}, which Celery has to look up")
        if self._channel is None:
            self._channel = self._connection.default_channel
        try:
            declared(self._channel).declare()
            return QueueItemTemplate(self._app, queue, self._channel)
        except NoFastPathError as error:
            return error
        finally:
            close_sockets(self._channel)

    def why_not(self, queue: str) -> str | None:
        """Return why messages to a queue are published through Celery; None if they are not.

        Args:
            queue: its name.
        """
        try:
            self.template(queue)
        except NoFastPathError as error:
            return str(error)
        return None

    def push(self, queue: str, batches: Sequence[Sequence[str]]) -> None:
        """Put messages on a queue, all of them or none.

        Args:
            queue: its name.
            batches: for each Celery message its signed texts.

        Raises:
            NoFastPathError: Celery's own way must be taken; nothing was done.
            Exception: the error of the broker. After a timeout it is unknown whether it has accepted them.
        """
        packet = self.template(queue).command(batches, envelope.tree_here(self._app))
        connection, used_at = self._acquire()
        try:
            if connection is not None and (time.monotonic() - used_at < IDLE or not self._is_closed(connection)):
                try:
                    _ask(connection, packet)
                except self._timeouts:
                    raise  # it may have been taken: again would only add a duplicate, and another wait
                except self._stale:
                    connection.disconnect()
                    self.close_idle()  # what happened to one has happened to all: a restart of the broker, a fail-over
                else:
                    return
            connection = new_connection(self._channel)
            _ask(connection, packet)
        except BaseException as error:
            # Also where this greenlet is killed: an answer that was not read would be taken for the next one's.
            if connection is not None and (not isinstance(error, self._answer) or isinstance(error, self._stale)):
                connection.disconnect()
                connection = None
            raise
        finally:
            self._release(connection)

    def _acquire(self) -> tuple[Any, float]:
        """Take a slot: one with a connection, if one is idle."""
        try:
            return self._slots.pop()
        except IndexError:
            return self._wait_for_one()

    def _wait_for_one(self) -> tuple[Any, float]:
        mine = _Waiter()
        self._waiters.append(mine)
        self._serve_one()  # with a slot that was released just before
        timeout = conf.get().CONNECT_TIMEOUT
        try:
            in_time = mine.served.wait(timeout)
        except BaseException:
            self._wait_no_more(mine)
            raise
        if not in_time:
            self._wait_no_more(mine)
            raise TimeoutError(f"all {CONNECTIONS} connections to the broker were in use for {timeout:g} s")
        return mine.slot

    def _wait_no_more(self, mine: _Waiter) -> None:
        try:
            self._waiters.remove(mine)
        except ValueError:  # it has been served meanwhile
            mine.served.wait()
            self._pass_on(mine.slot)

    def _serve_one(self) -> None:
        with suppress(IndexError):  # nothing is idle
            self._pass_on(self._slots.pop())

    def _pass_on(self, slot: tuple[Any, float]) -> None:
        """Pass a slot to the sender that waits longest; else one that sends without a pause would get every slot."""
        try:
            waiter = self._waiters.popleft()
        except IndexError:
            if slot[0] is None:
                self._slots.appendleft(slot)
            else:
                self._slots.append(slot)
            if self._waiters:  # since a moment ago
                self._serve_one()
        else:
            waiter.slot = slot
            waiter.served.set()

    def _release(self, connection: Any) -> None:
        self._pass_on(EMPTY_SLOT if connection is None else (connection, time.monotonic()))

    def _is_closed(self, connection: Any) -> bool:
        try:
            closed = bool(connection.can_read(0))  # nothing was asked, so that it can only be its end
        except self._stale:
            closed = True
        if closed:
            connection.disconnect()
        return closed

    def close_idle(self) -> None:
        """Close the connections that are not in use."""
        for _ in range(CONNECTIONS):
            try:
                connection, _used_at = self._slots.pop()
            except IndexError:
                return
            if connection is not None:
                connection.disconnect()
            self._release(None)


def _ask(connection: Any, packet: bytes) -> None:
    connection.send_packed_command((packet,), check_health=False)
    connection.read_response()


@lru_cache(maxsize=4)
def _fast_path(app: Celery, pid: int) -> FastPath | NoFastPathError:  # noqa: ARG001 - a forked child must not write to its parent's sockets
    try:
        return FastPath(app)
    except NoFastPathError as error:
        return error


def forget(app: Celery) -> None:
    """Close this process's connections; the next publication opens new ones by the settings of that time.

    Args:
        app: the app of the connections.
    """
    path = _fast_path(app, os.getpid()) if _fast_path.cache_info().currsize else None
    if isinstance(path, FastPath):
        path.close_idle()
    _fast_path.cache_clear()


def fast_path_of(app: Celery) -> FastPath | None:
    """Return this process's fast path.

    Args:
        app: the app whose queues it writes to.

    Returns:
        The fast path; None if Celery's own way must be taken for every queue.
    """
    found = _fast_path(app, os.getpid())
    return found if isinstance(found, FastPath) else None


def why_not(app: Celery) -> str | None:
    """Return why an app has no fast path; None if it has one.

    Args:
        app: the app.
    """
    found = _fast_path(app, os.getpid())
    return None if isinstance(found, FastPath) else str(found)
