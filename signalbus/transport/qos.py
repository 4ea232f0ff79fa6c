"""Count the messages that a consumer has in flight, and acknowledge, reject or restore them.

kombu calls it, as the ``QoS`` of a claiming `channel`.
"""

from __future__ import annotations

import logging
from typing import Any

from kombu.exceptions import InconsistencyError
from kombu.transport import redis as stock
from redis.exceptions import ResponseError

from signalbus.compat import redis_internals as compat
from signalbus.transport.broker_claims import is_ours

logger: logging.Logger = logging.getLogger("signalbus")

MOST_RESTORED = 1000  # claims at a time
UNLIMITED = 100  # messages at a time, where the consumer names no number


class QoS(stock.QoS):
    """kombu's QoS for claims, which are in Redis before the consumer has them, and are acknowledged in bulk.

    A message that is not a claim of ours (from ``basic_get`` or BRPOP) is left to kombu.
    """

    channel: Any
    _asked_to_restore = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._queues: frozenset[str] = frozenset()
        self._others: set[bytes] = set()  # claims of other queues that are older than our visibility timeout

    def append(self, message: Any, delivery_tag: str) -> None:
        """Count a message as in flight; kombu's signature."""
        if is_ours(delivery_tag):
            compat.add_unacked(self, delivery_tag, message)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message."""
        if is_ours(delivery_tag):
            compat.remove_unacked(self, delivery_tag)
            self.channel.acknowledge(delivery_tag)
        else:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Acknowledge a message, or requeue it behind the others."""
        if not is_ours(delivery_tag):
            super().reject(delivery_tag, requeue)
            return
        compat.remove_unacked(self, delivery_tag)
        if requeue:
            self.channel.requeue(delivery_tag)
        else:
            self.channel.acknowledge(delivery_tag)

    def capacity(self) -> int:
        """Return how many more messages may be in flight."""
        if compat.is_limited_by_others(self):
            return 1 if self.can_consume() else 0
        count: int = self.prefetch_count
        return max(count - compat.unacked_count(self), 0) if count else UNLIMITED

    def restore_unacked(self, client: Any = None) -> None:
        """Requeue messages in flight; those that are claims were settled by the channel when it closed."""
        if self.channel.closed:
            compat.remove_all_unacked(self, is_ours)
        super().restore_unacked(client)

    def restore_by_tag(self, tag: str | bytes, client: Any = None, leftmost: bool = False) -> None:
        """Requeue one claim of any worker; quarantine one that cannot be read."""
        for left in self.channel.unacked.restore([tag], leftmost=leftmost):
            try:
                super().restore_by_tag(left, client, leftmost)
            except InconsistencyError as error:  # kombu takes it for a lost connection
                logger.warning("signalbus leaves %r among the claims: nobody knows its exchange: %s", left, error)

    def restore_visible(self, start: int = 0, num: int | None = None, interval: int = 10) -> None:  # noqa: ARG002 - kombu's
        """Requeue claims of workers with kombu's transport that are older than the visibility timeout.

        Of our queues alone: workers of the host's own app keep their claims, such as tasks with a countdown, in the
        same keys, for as long as their own visibility timeout allows. By the server's clock, and without kombu's lock,
        which a full server refuses: a claim is requeued only once anyway.
        """
        self._asked_to_restore += 1
        if (self._asked_to_restore - 1) % (interval or 1):
            return
        unacked = self.channel.unacked
        try:
            old = unacked.older_than(self.visibility_timeout)
            if self._queues != (queues := frozenset(self.channel.active_queues)):
                self._queues, self._others = queues, set()
            self._others.intersection_update(old)
            old = [tag for tag in old if tag not in self._others][:MOST_RESTORED]
            self._others |= unacked.of_others(old, queues)
            for tag in old:
                if tag not in self._others:
                    self.restore_by_tag(tag)
        except ResponseError as error:
            if not compat.is_wrong_type(error):
                raise
            self.channel.unacked.repair_keys()
