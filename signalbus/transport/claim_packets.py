"""Send acknowledgements and a claim in one packet over the tracking connection, and read the replies (decision 0031).

`channel` has `ClaimPackets` as a base class: it decides when a packet is sent and how many messages are claimed, and
delivers the claims that the replies report.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from signalbus.compat import redis_internals as compat
from signalbus.transport import lua_scripts
from signalbus.transport.broker_claims import Claimed, Numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from signalbus.transport.broker_claims import Owner
    from signalbus.transport.tracking_connection import TrackingConnection
    from signalbus.transport.unacked import Unacked

    _Asked = tuple[Numbers, list[tuple[str, str]], tuple[Any, ...]]  # the lists to claim from, and the whole command

MOST_ACKNOWLEDGED = 1000  # claims in one command


class ClaimPackets:
    """The part of a claiming channel that talks to Redis: one packet of commands at a time, and its replies."""

    unacked: Unacked
    owner: Owner
    active_queues: list[str]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._tracking_connection: TrackingConnection | None = None
        self._asked: _Asked | None = None
        self._is_named: bool = False  # the tracking connection's name tells which queues are consumed
        self._acks_sent: list[str] = []  # claims whose acknowledgement was sent and not answered
        super().__init__(*arguments, **options)

    def _send(self, wanted: int) -> None:
        """Send acknowledgements and a claim, in one packet."""
        tracking, owner = self._tracking_connection, self.owner
        assert tracking is not None  # noqa: S101 - for the type checker
        if wanted and not self._is_named:
            tracking.name_itself(compat.prefixed(self, queue) for queue in self.active_queues)
            self._is_named = True
        commands: list[tuple[Any, ...]] = []
        self._acks_sent += owner.take_acknowledged(MOST_ACKNOWLEDGED)
        if self._acks_sent:
            commands += [
                ("ZREM", self.unacked.index, *self._acks_sent),
                ("HDEL", self.unacked.claims, *self._acks_sent),
            ]
        if wanted:
            lists = compat.queue_keys(self)
            numbers = owner.reserve(wanted)
            keys = (*self.unacked.keys, *(key for key, _ in lists))
            queues = [json.dumps(queue) for _, queue in lists]
            arguments = (wanted, owner.id, owner.prefix, numbers.first - 1, *queues)
            commands.append(lua_scripts.CLAIM.command(keys, *arguments))
            self._asked = numbers, lists, lua_scripts.CLAIM.whole(keys, *arguments)
            tracking.has_news = False  # notices from here on count
        tracking.send(commands)

    def _read_replies(self) -> list[Claimed]:
        """Read the replies to the last packet, and return the claims."""
        tracking = self._tracking_connection
        assert tracking is not None  # noqa: S101 - for the type checker
        replies = tracking.receive()
        if self._asked is not None and replies and isinstance(replies[-1], NoScriptError):
            replies[-1] = tracking.call(self._asked[2])
        _raise_outage(replies)
        self.owner.confirm(self._acks_sent)
        self._acks_sent.clear()
        asked, self._asked = self._asked, None
        try:
            return self._found(asked, replies)
        finally:  # by now its claims are in `claimed`
            if asked is not None:
                self.owner.asked.remove(asked[0])

    def _found(self, asked: _Asked | None, replies: Sequence[Any]) -> list[Claimed]:
        """Return the claims that the replies report."""
        tracking = self._tracking_connection
        assert tracking is not None  # noqa: S101 - for the type checker
        errors = [reply for reply in replies if isinstance(reply, ResponseError)]
        if errors:
            tracking.has_news = True
            self._repair_keys(errors)
        if asked is None or not replies or isinstance(replies[-1], ResponseError):
            return []
        numbers, lists, _ = asked
        return self._claimed(numbers, lists, replies[-1])

    def _repair_keys(self, errors: Sequence[ResponseError]) -> None:
        """Quarantine keys of a wrong type that have the names of ours; raise other errors."""
        for error in errors:
            if not compat.is_wrong_type(error):
                raise error
        self.unacked.repair_keys()

    def _claimed(self, numbers: Numbers, lists: list[tuple[str, str]], reply: list[list[Any]]) -> list[Claimed]:
        """Return the claims in the reply to a claim command."""
        *taken, (_, *wrong) = reply
        for position in wrong:
            self.unacked.quarantine_key(lists[position - 1][0], "list")
        found: list[Claimed] = []
        for position, *items in taken:
            key, queue = lists[position - 1]
            for raw in items:
                found.append(Claimed(raw, queue, self.owner.tag(numbers.first + len(found)), key))
        for each in found:
            self.owner.claimed[each.tag] = each.queue
        if found:
            compat.rotate(self, found[-1].queue)
            self._tracking_connection.has_news = True  # type: ignore[union-attr]  # there may be more
        return found


def _raise_outage(replies: Sequence[Any]) -> None:
    """Raise the error that makes kombu reconnect, if the replies report an outage."""
    for reply in replies:
        if isinstance(reply, ResponseError) and str(reply).startswith(compat.OUTAGE_ERRORS):
            raise RedisConnectionError(str(reply)) from reply
