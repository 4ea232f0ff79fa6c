"""A kombu channel that claims messages from Redis, and hands them to the consumer in batches (decision 0031).

`kombu_transport` makes it. `claim_packets` sends the commands and reads the replies, `broker_claims` keeps the claims
of the process, `unacked` requeues and quarantines, and `qos` counts what is in flight.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from signalbus.compat import redis_internals as compat
from signalbus.transport import batching, broker_claims
from signalbus.transport.claim_packets import ClaimPackets
from signalbus.transport.claimed_message import ClaimedMessage
from signalbus.transport.coalescing import BatchMember, Merged, read, tag_of
from signalbus.transport.heartbeat import Heartbeat
from signalbus.transport.qos import QoS
from signalbus.transport.tracking_connection import TrackingConnection
from signalbus.transport.unacked import Unacked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from signalbus.transport.broker_claims import Claimed, Owner, Work


logger: logging.Logger = logging.getLogger("signalbus")

MOST = 500  # messages in one claim
# Seconds after which an idle worker claims without a notice: it may have missed one, or lost its server.
LOOK_EVERY = 30.0


class ClaimingMixin(ClaimPackets):
    """Make a channel of kombu claim its messages.

    While its consumers acknowledge and run in an event loop, it claims as many messages as can be begun now, in one
    step; else it consumes as kombu does. It acknowledges in bulk, with the next claim.
    """

    QoS: type[Any] = QoS
    Message: type[Any] = ClaimedMessage

    connection: Any
    qos: Any
    closed: bool
    active_queues: list[str]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.is_claiming: bool = False
        # Queues whose consumer does not acknowledge, such as that of the replies when a worker starts.
        self._without_acks: set[str] = set()
        super().__init__(*arguments, **options)
        self.unacked: Unacked = Unacked(self)
        self.work: Work = self.connection.work
        self.owner: Owner = broker_claims.owner_of((*compat.server_of(self.connection.client), *self.unacked.keys))

    # Consumers, and whether they claim.

    def basic_consume(self, queue: str, no_ack: bool, *arguments: Any, **options: Any) -> Any:
        """Consume a queue; kombu's signature."""
        consumed = super().basic_consume(queue, no_ack, *arguments, **options)  # type: ignore[misc]
        self._is_named = False
        if no_ack:
            self._without_acks.add(queue)
        else:
            self._without_acks.discard(queue)
        self.is_claiming = bool(
            self.connection.cycle.loop is not None
            and self.active_queues
            and self._without_acks.isdisjoint(self.active_queues)
            and self.can_claim()
        )
        if self._tracking_connection is not None:
            self._tracking_connection.has_news = True
        return consumed

    def basic_cancel(self, consumer_tag: str) -> Any:
        """Stop consuming a queue; kombu's signature. The reply to a claim is read now, not when the channel closes: a
        worker that stops waits for its receivers first.
        """
        cancelled = super().basic_cancel(consumer_tag)  # type: ignore[misc]
        self._is_named = False
        if self._tracking_connection is not None and self._tracking_connection.is_busy and not self.active_queues:
            self.on_readable()
        return cancelled

    def can_claim(self) -> bool:
        """Open the tracking connection, if this Redis can be claimed from. If not, warn once in a process."""
        if self._tracking_connection is not None:
            return True
        if self.owner.refused is not None:
            return False
        self.owner.refused = compat.lacks(self)
        if self.owner.refused is None:
            try:
                tracking = self._tracking_connection = TrackingConnection(self)
            except ResponseError as error:
                self.owner.refused = f"it cannot tell of changed keys: {error}"
        if self.owner.refused is not None:
            logger.warning("signalbus consumes from Redis as kombu does, one message at a time: %s", self.owner.refused)
            return False
        self.connection.cycle.watch(self, tracking.fileno)
        before = self.owner.heartbeat
        self.owner.heartbeat = Heartbeat(self, self.owner, patient=before is not None)
        self.owner.heartbeat.start()
        if before is not None:
            before.stop()
        return True

    def slots(self) -> int:
        """Return how many requests may be begun or prefetched now."""
        capacity: int = self.qos.capacity()
        free = self.work.free()
        # Less than none are free where tasks with a countdown are due.
        return capacity if free is None else max(min(capacity, free), 0)

    def limit(self) -> int:
        """Return how many messages to claim at most."""
        return min(self.slots() * batching.size(), MOST)

    def _size(self, queue: str) -> int:
        """Count the waiting messages of a queue; kombu's name. A key that is not a list would end the worker."""
        try:
            return super()._size(queue)  # type: ignore[misc, no-any-return]
        except ResponseError as error:
            if not compat.is_wrong_type(error):
                raise
            for key in compat.lists_of(self, queue):
                self.unacked.quarantine_key(key, "list")
            return super()._size(queue)  # type: ignore[misc, no-any-return]

    # In the event loop.

    def tick(self) -> None:
        """Send acknowledgements and a claim, if due, before the loop waits."""
        tracking = self._tracking_connection
        if tracking is None:
            return
        if tracking.is_busy:
            if tracking.is_overdue():
                raise RedisConnectionError("Redis does not answer")
            return
        if self.owner.is_unsettled:
            self._settle()
        if self.owner.rejected:  # Redis did not answer at once
            self._requeue_now()
        may_claim = self.is_claiming and self.active_queues and (tracking.has_news or tracking.is_idle_for(LOOK_EVERY))
        wanted = self.limit() if may_claim else 0
        if wanted > 0 or self.owner.acknowledged:
            self._send(max(wanted, 0))

    def on_readable(self) -> bool:
        """Read the replies of Redis, and deliver the claimed messages.

        Returns:
            Whether a message was handed out.
        """
        claimed = self._read_replies()
        unwanted = [each for each in claimed if each.queue not in self.active_queues]
        if unwanted:  # a queue was cancelled meanwhile
            self._unclaim(unwanted)
            claimed = [each for each in claimed if each not in unwanted]
        if claimed:
            self._hand_out(claimed)
        return bool(claimed)

    # To the consumer, and back to the queue.

    def _hand_out(self, claimed: Sequence[Claimed]) -> None:
        """Deliver claimed messages in batches, and requeue those left over."""
        batches, leftover = batching.arrange([read(each, self.work.task) for each in claimed], self.slots())
        for batch in batches:
            self._deliver(batch)
        if leftover:
            self._unclaim([member.claimed for member in leftover])

    def _deliver(self, batch: Sequence[BatchMember]) -> None:
        """Deliver a batch as one message, or a single claim as it is; quarantine one that cannot be read."""
        claimed, tag = batch[0].claimed, tag_of(batch)
        try:
            if batch[0].texts:
                self.owner.batches[tag] = [member.claimed.tag for member in batch]
                compat.hand_over(self, Merged(batch), claimed.queue)
            else:
                compat.hand_over(self, compat.delivered(claimed.raw, claimed.queue, tag), claimed.queue)
        except compat.MALFORMED as error:
            if compat.is_unacked(self.qos, tag):  # it could be read: the error is its consumer's
                in_flight = self.work.in_flight()
                if in_flight is None:
                    raise
                if tag in in_flight:
                    logger.exception("signalbus could not begin a message of %r at once", claimed.queue)
                    return
                compat.remove_unacked(self.qos, tag)
            for member in batch:
                self.unacked.quarantine(member.claimed.tag, member.claimed.raw, claimed.queue, error)
            self.owner.end(tag)

    def _unclaim(self, claimed: Sequence[Claimed]) -> None:
        """Requeue claims that were not delivered, in one step, as the next to be claimed."""
        self.unacked.unclaim(claimed)
        for each in claimed:
            self.owner.end(each.tag)

    def acknowledge(self, tag: str) -> None:
        """Acknowledge a delivery: with the next packet, with the next connection if this one is lost, or now if
        no packet will follow.
        """
        self.owner.acknowledge(tag)
        if not self.closed and not self.active_queues:  # the worker stops, and may be killed before it has stopped
            self.unacked.acknowledge(self.owner)

    def requeue(self, tag: str) -> None:
        """Requeue a delivery that the consumer rejected, behind all others of its queue."""
        self.owner.rejected.append(tag)
        self._requeue_now()

    def requeue_later(self, tag: str) -> None:
        """Requeue a delivery at the next connection, since Redis does not answer now."""
        compat.remove_unacked(self.qos, tag)
        self.owner.rejected.append(tag)

    def _requeue_now(self) -> None:
        owner = self.owner
        while owner.rejected:
            tag = owner.rejected[0]
            self.unacked.restore([member for member in owner.members(tag) if member in owner.claimed], leftmost=True)
            owner.end(owner.rejected.popleft())

    # The end.

    def _settle(self) -> None:
        """Requeue claims that will not run here, and those of claim commands whose reply never came."""
        owner = self.owner
        while owner.lost:
            numbers = owner.lost[-1]
            tags = [owner.tag(number) for number in range(numbers.first, numbers.first + numbers.many)]
            self.unacked.restore([tag for tag in tags if tag not in owner.claimed], begun=False)
            owner.lost.pop()
        given_up = self.work.given_up(owner.deliveries())
        nobodys = owner.claims_of(given_up)
        self.unacked.restore([tag for tag in list(owner.claimed) if tag in nobodys])  # which threads end meanwhile
        for delivery in given_up:
            owner.end(delivery)
        owner.is_unsettled = False

    def close(self) -> None:
        """Close the channel, when its messages have ended or the connection is lost."""
        if not self.closed and self._tracking_connection is not None:
            self.is_claiming = False
            self._close_tracking_connection()
            try:
                self.unacked.acknowledge(self.owner)
                self._requeue_now()
                self._settle()
            except (RedisError, OSError) as error:
                logger.warning("signalbus tells Redis later what this worker has done, or will not do: %r", error)
        super().close()  # type: ignore[misc]

    def _close_tracking_connection(self) -> None:
        """Close the tracking connection; leave to `_settle` what could not be sent or read over it."""
        tracking = self._tracking_connection
        assert tracking is not None  # noqa: S101 - for the type checker
        self.owner.is_unsettled = True
        try:
            if tracking.is_busy:
                self._unclaim(self._read_replies())
        except (RedisError, OSError) as error:
            logger.debug("signalbus could not hear the last of Redis: %r", error)
        self.owner.acknowledged.extendleft(reversed(self._acks_sent))
        self._acks_sent.clear()
        self.connection.cycle.unwatch(self)
        tracking.close(forget=self._asked is not None)
        if self._asked is not None:
            self.owner.lost.append(self._asked[0])
            self.owner.asked.remove(self._asked[0])
            self._asked = None
        self._tracking_connection = None
