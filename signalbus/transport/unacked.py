"""Change claims in Redis: acknowledge, requeue, reclaim and quarantine them, and send heartbeats (decision 0031).

`channel` and `heartbeat` call it; the scripts are in `lua_scripts`. A queue item that cannot be read is kept apart
for people (quarantine), and never ends a worker.
"""

from __future__ import annotations

import hashlib
import json
import logging
import reprlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from signalbus.compat.redis_internals import MALFORMED, is_closing, is_wrong_type, list_of, parsed, prefixed, queues_of
from signalbus.transport import lua_scripts
from signalbus.transport.broker_claims import CLAIM

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from signalbus.transport.broker_claims import Claimed, Owner

    Tag = str | bytes  # tags in Redis of other workers' claims: any writer to Redis may have chosen them
    Pair = tuple[str, tuple[Tag, Tag, str]]  # a list; a claim's tag, its item, and the SHA-1 of its entry as read

logger: logging.Logger = logging.getLogger("signalbus")

LEASE = 6  # seconds of silence after which an owner is dead; it sends a heartbeat every HEARTBEAT_INTERVAL of them
HEARTBEAT_INTERVAL = 3.0
CHUNK = 100  # claims in one command
MOST_QUARANTINED = 100  # items in quarantine; of older ones only the number is kept
MOST_QUARANTINED_BYTES = 10_000  # of each
QUARANTINE_LIST = "signalbus.set_aside"  # the list of items in quarantine
QUARANTINE_COUNT = "signalbus.set_aside.count"
MAX_DIGITS = 20
MOVED_MS = 24 * 3600 * 1000  # how long a key of a wrong type is kept under its new name


class Unacked:
    """The claims of all workers, in the keys of one virtual host.

    Args:
        channel: the channel with these keys and this pool; its methods look queues up.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._pool: Any = None
        self.claims: str = prefixed(channel, channel.unacked_key)
        self.index: str = prefixed(channel, channel.unacked_index_key)
        self.owners: str = prefixed(channel, f"{channel.unacked_key}_owners")
        self._quarantine_list = prefixed(channel, QUARANTINE_LIST)
        self._quarantine_count = prefixed(channel, QUARANTINE_COUNT)

    @property
    def keys(self) -> tuple[str, str, str]:
        """The keys that most scripts begin with."""
        return self.claims, self.index, self.owners

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """Lend a connection for commands with full keys, to which no prefix is added."""
        if not self._channel.closed:  # then it has no pool, and its last one is used for messages that still run
            self._pool = self._channel.pool
        pool = self._pool
        connection = pool.get_connection()
        try:
            yield connection
        except (AttributeError, ValueError) as error:
            if not is_closing(self._channel):
                raise
            raise RedisConnectionError("the channel closed its connections meanwhile") from error
        finally:
            pool.release(connection)

    def command(self, *command: Any) -> Any:
        """Run one command now."""
        with self.connection() as connection:
            connection.send_command(*command)
            return connection.read_response()

    def run(self, script: lua_scripts.Script, keys: Sequence[str], *arguments: Any) -> Any:
        """Run a script now."""
        with self.connection() as connection:
            return script.run(connection, keys, *arguments)

    def acknowledge(self, owner: Owner) -> None:
        """Acknowledge an owner's messages now; from any thread: those of a pool do so while the worker stops, and the
        heartbeat's when the channel has closed.
        """
        while some := owner.take_acknowledged(CHUNK * 10):
            try:
                self.command("ZREM", self.index, *some)
                self.command("HDEL", self.claims, *some)
            except BaseException:
                owner.acknowledged.extendleft(reversed(some))
                raise
            owner.confirm(some)

    def list_of(self, claimed: Claimed) -> str:
        """Return the list that a claim was made from."""
        return claimed.key or prefixed(self._channel, claimed.queue)

    def unclaim(self, claimed: Sequence[Claimed]) -> None:
        """Undo claims that were not begun: requeue them unchanged in one step, the oldest to be claimed next.

        Args:
            claimed: in the order in which they were claimed.
        """
        keys = [self.list_of(each) for each in claimed]
        items = [(each.tag, each.raw, "") for each in claimed]
        pairs = list(zip(keys, items, strict=True))[::-1]
        try:
            self._requeue("RPUSH", pairs)
        except ResponseError as error:
            if not is_wrong_type(error):
                raise
            self.repair_keys()
            for key in set(keys):
                self.quarantine_key(key, "list")
            self._requeue("RPUSH", pairs)

    def restore(self, tags: Sequence[Tag], *, leftmost: bool = False, begun: bool = True) -> list[Tag]:
        """Requeue claims whose items are only in Redis; quarantine those that cannot be read.

        Args:
            tags: of claims, the oldest first.
            leftmost: put them behind all others, instead of before them.
            begun: mark them as redelivered, since they may have run.

        Returns:
            The tags of those that came over an exchange, for kombu to restore.
        """
        over_exchanges: list[Tag] = []
        ordered = tags if leftmost else tags[::-1]
        for start in range(0, len(ordered), CHUNK):
            chunk = ordered[start : start + CHUNK]
            self._restore_chunk(chunk, "LPUSH" if leftmost else "RPUSH", over_exchanges, begun=begun)
        return over_exchanges

    def _restore_chunk(
        self, tags: Sequence[Tag], end: str, over_exchanges: list[Tag], *, dead: str = "", begun: bool = True
    ) -> int:
        """Read claims and requeue them; read those again that were divided in between."""
        count = 0
        while tags:
            restored, tags = self._restore(end, self._readable(tags, over_exchanges, begun=begun), dead)
            count += restored
        return count

    def _readable(self, tags: Sequence[Tag], over_exchanges: list[Tag], *, begun: bool = True) -> list[Pair]:
        """Read claims, and return the list that each belongs in; quarantine those that cannot be read."""
        pairs: list[Pair] = []
        for tag, entry in zip(tags, self.command("HMGET", self.claims, *tags), strict=True):
            if entry is None:
                self.command("ZREM", self.index, tag)
                continue
            try:
                message, exchange, queue = parsed(entry)
                if exchange:
                    over_exchanges.append(tag)
                    continue
                if begun:
                    message["headers"]["redelivered"] = True
                    message["properties"].setdefault("delivery_info", {})["redelivered"] = True
                pairs.append((list_of(self._channel, queue, message), (tag, dumps(message), _sha1(entry))))
            except MALFORMED as error:
                self.quarantine(tag, entry, self.claims, error)
        return pairs

    def _requeue(self, end: str, pairs: Sequence[Pair], dead: str = "") -> tuple[int, list[Tag]]:
        """Push items to their lists and end their claims, in one step.

        Returns:
            How many, and the tags of claims that have changed since they were read; a claim that another worker has
            ended is in neither.
        """
        if not pairs:
            return 0, []
        arguments = [part for _, item in pairs for part in item]
        keys = (*self.keys, *(key for key, _ in pairs))
        count, *changed = self.run(lua_scripts.RESTORE, keys, end, dead, LEASE, *arguments)
        return count, changed

    def _restore(self, end: str, pairs: Sequence[Pair], dead: str = "") -> tuple[int, list[Tag]]:
        """Requeue items to the lists that they name; quarantine those that name none: anybody may have written them."""
        try:
            return self._requeue(end, pairs, dead)
        except ResponseError as error:
            if not is_wrong_type(error):
                raise
            if len(pairs) > 1:
                each = [self._restore(end, [pair], dead) for pair in pairs]
                return sum(count for count, _ in each), [tag for _, changed in each for tag in changed]
            ((key, (tag, item, _)),) = pairs
            self.repair_keys()
            self.quarantine(tag, item, key, error)  # it names a key that is no queue
            return 0, []

    def quarantine(self, tag: Tag, item: bytes | str, origin: str, error: BaseException) -> None:
        """Quarantine an item that is not a message: keep it in a list of its own for people to look at.

        Args:
            tag: of its claim.
            item: as it was in Redis.
            origin: the key or queue that it came from, for people.
            error: why it is not a message.
        """
        shown = repr(item[:MOST_QUARANTINED_BYTES])
        entry = json.dumps({"place": origin, "error": reprlib.repr(error), "bytes": len(item), "item": shown})
        keys = (self.claims, self.index, self._quarantine_list, self._quarantine_count)
        count = self.run(lua_scripts.QUARANTINE, keys, tag, entry, MOST_QUARANTINED)
        if count:
            logger.error(
                "signalbus has set aside an item of %r that is no message (%s), the %d. of all: the last %d are in the "
                "Redis list %r.",
                origin, reprlib.repr(error), count, MOST_QUARANTINED, self._quarantine_list,
            )  # fmt: skip

    def quarantine_key(self, key: str, kind: str) -> None:
        """Rename a key of a wrong type that has the name of one of ours; keep it for a day under its new name.

        Args:
            key: as it is in Redis.
            kind: the type that it must have.
        """
        if self.run(lua_scripts.QUARANTINE_KEY, (key, f"{key}.set_aside"), kind, MOVED_MS):
            logger.error("signalbus has moved the key %r, which was no %s, to %r.", key, kind, f"{key}.set_aside")

    def repair_keys(self) -> None:
        """Quarantine keys of a wrong type that have the names of the keys of claims."""
        for key, kind in ((self.claims, "hash"), (self.index, "zset"), (self.owners, "zset")):
            self.quarantine_key(key, kind)

    def send_heartbeat(self, owner: str, tags: Iterable[str]) -> list[str]:
        """Send the heartbeat of an owner, which also renews its claims.

        Args:
            owner: its id; empty for none.
            tags: of claims that no visibility timeout is to find.

        Returns:
            The owners that are dead.
        """
        keys = (self.owners, self.index)
        tags = list(tags)
        dead: list[bytes] = []
        for start in range(0, max(len(tags), 1), CHUNK * 10):
            dead = self.run(lua_scripts.HEARTBEAT, keys, owner, LEASE, *tags[start : start + CHUNK * 10])
        strange = [name for name in dead if not name.isascii()]
        if strange:  # no worker has such an id, and they would keep dead owners from being found
            self.command("ZREM", self.owners, *strange)
        return [bytes_to_str(name) for name in dead if name.isascii()]

    def first_owner(self) -> str | None:
        """Return the owner with the oldest heartbeat, of those that have claims or died with some."""
        found = self.command("ZRANGE", self.owners, 0, 0)
        return bytes_to_str(found[0]) if found else None

    def older_than(self, seconds: float) -> list[bytes]:
        """Return the tags of claims of any worker that are older than so many seconds, the oldest first."""
        now, _ = self.command("TIME")
        found: list[bytes] = self.command("ZRANGEBYSCORE", self.index, "-inf", int(now) - seconds)
        return found

    def of_others(self, tags: Sequence[Tag], queues: Collection[str]) -> set[Tag]:
        """Return the claims among these that came from other queues.

        Args:
            tags: of claims, not too many.
            queues: their names.
        """
        found: set[Tag] = set()
        for tag, entry in zip(tags, self.command("HMGET", self.claims, *tags) if tags else (), strict=True):
            try:
                _, exchange, key = parsed(entry) if entry is not None else (None, "", "")
                if entry is not None and queues_of(self._channel, exchange, key).isdisjoint(queues):
                    found.add(tag)
            except MALFORMED:
                continue  # the worker that reads it first quarantines it
        return found

    def reclaim(self, owner: str) -> int:
        """Reclaim the messages of a dead owner; none, if it has claimed again in the meantime.

        Returns:
            The number of its claims.
        """
        tags = sorted(self._tags_of(owner), key=_number)
        taken = 0
        for end in range(len(tags), 0, -CHUNK):
            taken += self._restore_chunk(tags[max(end - CHUNK, 0) : end][::-1], "RPUSH", [], dead=owner)
        self.forget(owner)
        return taken

    def forget(self, owner: str) -> None:
        """Remove the id of an owner that has no claims and no recent heartbeat."""
        self.run(lua_scripts.FORGET, (self.owners,), owner, LEASE)

    def _tags_of(self, owner: str) -> set[bytes]:
        tags: set[bytes] = set()
        cursor: Any = 0
        while True:
            cursor, found = self.command(
                "ZSCAN", self.index, cursor, "MATCH", f"{CLAIM}{_literal(owner)}:*", "COUNT", 1000
            )
            tags.update(found[::2])
            if not int(cursor):
                return tags


def _sha1(entry: bytes | str) -> str:
    """Return the hash by which a script notices that a claim has changed."""
    return hashlib.sha1(entry if isinstance(entry, bytes) else entry.encode()).hexdigest()  # noqa: S324 - no secret


def _literal(text: str) -> str:
    """Return a pattern that matches only this text: anybody who can write to Redis can choose an owner's id."""
    return "".join(f"\\{sign}" if sign in "*?[]^-\\" else sign for sign in text)


def _number(tag: bytes) -> int:
    number = tag.rpartition(b":")[2]
    return int(number) if number.isdigit() and len(number) < MAX_DIGITS else 0
