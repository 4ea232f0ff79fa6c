"""Send acknowledgements and claims in one packet, over the connection on which Redis announces new messages.

`channel` opens one for each consumer. Redis tracks the keys that a claim reads. A claim that finds no message has
read them all, so Redis announces the next change of any of them over the same connection (client-side caching, Redis
6). That needs no blocking command, for any number of queues and priorities; no message is popped to look at it, and
an idle worker sends no commands.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from signalbus.compat import redis_internals as compat
from signalbus.transport import consumers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

logger: logging.Logger = logging.getLogger("signalbus")

OVERDUE = 10.0  # seconds without a reply after which a connection is given up: the other end may be gone


class TrackingConnection:
    """A connection to Redis with push notices, on which one packet of commands at a time awaits its replies.

    Args:
        channel: kombu's, whose server and credentials these are.

    Raises:
        ResponseError: the server cannot track keys, or this user may not ask it to.
    """

    def __init__(self, channel: Any) -> None:
        self.has_news: bool = True  # a queue may have messages that no claim has looked for
        self._expected = 0
        self._sent_at = 0.0
        self._connection = compat.open_tracking_connection(channel, self._on_change)
        try:
            # NOLOOP: changes by a claim itself are not announced.
            self._connection.send_command("CLIENT", "TRACKING", "ON", "NOLOOP")
            self._connection.read_response()
        except BaseException:
            self.close()
            raise

    def _on_change(self) -> None:
        self.has_news = True

    @property
    def fileno(self) -> int | None:
        """The descriptor to wait for; None if the connection is closed."""
        return compat.fileno(self._connection)

    @property
    def is_busy(self) -> bool:
        """Whether replies are awaited."""
        return self._expected > 0

    def is_overdue(self) -> bool:
        """Return whether replies are awaited for too long."""
        return self.is_busy and time.monotonic() - self._sent_at > OVERDUE

    def is_idle_for(self, seconds: float) -> bool:
        """Return whether no command was sent for so long."""
        return time.monotonic() - self._sent_at > seconds

    def send(self, commands: Sequence[tuple[Any, ...]]) -> None:
        """Send some commands in one packet."""
        self._reject_closed()
        self._expected, self._sent_at = len(commands), time.monotonic()
        self._connection.send_packed_command(self._connection.pack_commands(commands), check_health=False)

    def receive(self) -> list[Any]:
        """Read the replies to the last packet, an error of one command in its place, and any push notices."""
        self._reject_closed()
        count, self._expected = self._expected, 0
        found = compat.replies(self._connection, count)
        compat.read_notices(self._connection)
        return found

    def call(self, command: tuple[Any, ...]) -> Any:
        """Send one command, and wait for its reply."""
        self.send([command])
        return self.receive()[0]

    def name_itself(self, queues: Iterable[str]) -> None:
        """Name this connection in Redis's list of clients after the queues that are consumed here.

        Args:
            queues: their names, with the global prefix.
        """
        try:
            self.call(("CLIENT", "SETNAME", consumers.name_of(queues)))
        except ResponseError as error:  # as where this user may not
            logger.debug("signalbus could not name its connection to Redis: %s", error)

    def _reject_closed(self) -> None:
        """Raise the error that makes kombu reconnect; redis-py would silently open another one without tracking."""
        if self.fileno is None:
            raise RedisConnectionError("the connection to Redis is closed")

    def close(self, *, forget: bool = False) -> None:
        """Close the connection, unless it is closed.

        Args:
            forget: whether a claim was sent and not answered; Redis must not run it after it is taken for lost.
        """
        compat.close(self._connection, forget=forget)
