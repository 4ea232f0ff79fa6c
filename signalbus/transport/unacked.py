"""What is claimed, as it stands in Redis: given back, set aside, kept alive."""

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
from signalbus.transport import scripts
from signalbus.transport.claims import CLAIM

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from signalbus.transport.claims import Claimed, Owner

    Tag = str | bytes  # of others' claims as they stand in Redis: anybody may have chosen them
    Pair = tuple[str, tuple[Tag, Tag, str]]  # a list; a claim's tag, its item, and the SHA-1 of what was read

logger: logging.Logger = logging.getLogger("signalbus")

LEASE = 6  # seconds of silence after which an owner is dead; it sends a heartbeat every HEARTBEAT_INTERVAL of them
HEARTBEAT_INTERVAL = 3.0
CHUNK = 100  # claims in one command
MOST_QUARANTINED = 100  # items that are set aside; of older ones only the number is kept
MOST_QUARANTINED_BYTES = 10_000  # of each
QUARANTINE_LIST = "signalbus.set_aside"  # the list of them
QUARANTINE_COUNT = "signalbus.set_aside.count"
MAX_DIGITS = 20
MOVED_MS = 24 * 3600 * 1000  # how long a key of a wrong type is kept beside its place


class Unacked:
    """The claims of all, in the keys of one virtual host.

    Args:
        channel: whose keys and pool these are; its own methods look queues up.
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
        """Lend a connection for commands whose keys are as they stand in Redis."""
        if not self._channel.closed:  # then it has none, and what still runs is told of over its last one
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

    def run(self, script: scripts.Script, keys: Sequence[str], *arguments: Any) -> Any:
        """Run a script now."""
        with self.connection() as connection:
            return script.run(connection, keys, *arguments)

    def acknowledge(self, owner: Owner) -> None:
        """Tell Redis now what an owner has done; from any thread: those of a pool do so while the worker stops, and the
        heartbeat's when the channel has closed.
        """
        while some := owner.take_acknowledged(CHUNK * 10):
            try:
                self.command("ZREM", self.index, *some)
                self.command("HDEL", self.claims, *some)
            except BaseException:
                owner.acknowledged.extendleft(reversed(some))
                raise
            owner.heard(some)

    def list_of(self, claimed: Claimed) -> str:
        """Return the list that a claim was taken from."""
        return claimed.key or prefixed(self._channel, claimed.queue)

    def unclaim(self, claimed: Sequence[Claimed]) -> None:
        """Give back what nobody has begun, as it was and where it was, in one step; the oldest is taken next.

        Args:
            claimed: in the order in which it was claimed.
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
        """Give claims back whose items are only in Redis; what cannot be read is set aside.

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
        """Read claims and give them back; those that were divided in between are read again."""
        count = 0
        while tags:
            restored, tags = self._restore(end, self._readable(tags, over_exchanges, begun=begun), dead)
            count += restored
        return count

    def _readable(self, tags: Sequence[Tag], over_exchanges: list[Tag], *, begun: bool = True) -> list[Pair]:
        """Read claims, and return where each goes back to; set aside what cannot be read."""
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
        """Put items into their lists and end their claims, in one step.

        Returns:
            How many, and the tags of claims that are no longer what was read; those that somebody else has ended are
            neither.
        """
        if not pairs:
            return 0, []
        arguments = [part for _, item in pairs for part in item]
        keys = (*self.keys, *(key for key, _ in pairs))
        count, *changed = self.run(scripts.RESTORE, keys, end, dead, LEASE, *arguments)
        return count, changed

    def _restore(self, end: str, pairs: Sequence[Pair], dead: str = "") -> tuple[int, list[Tag]]:
        """Put items back where they say that they belong; who knows who wrote that."""
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

    def quarantine(self, tag: Tag, item: bytes | str, place: str, error: BaseException) -> None:
        """Keep what is no message where people find it, and where it harms nobody.

        Args:
            tag: of its claim.
            item: as it stood there.
            place: where it came from, for people.
            error: what is wrong with it.
        """
        shown = repr(item[:MOST_QUARANTINED_BYTES])
        entry = json.dumps({"place": place, "error": reprlib.repr(error), "bytes": len(item), "item": shown})
        keys = (self.claims, self.index, self._quarantine_list, self._quarantine_count)
        count = self.run(scripts.QUARANTINE, keys, tag, entry, MOST_QUARANTINED)
        if count:
            logger.error(
                "signalbus has set aside an item of %r that is no message (%s), the %d. of all: the last %d are in the "
                "Redis list %r.",
                place, reprlib.repr(error), count, MOST_QUARANTINED, self._quarantine_list,
            )  # fmt: skip

    def quarantine_key(self, key: str, kind: str) -> None:
        """Make room for a key where somebody has put one of another type; it is kept beside it for a day.

        Args:
            key: as it stands in Redis.
            kind: the type that it must have.
        """
        if self.run(scripts.QUARANTINE_KEY, (key, f"{key}.set_aside"), kind, MOVED_MS):
            logger.error("signalbus has moved the key %r, which was no %s, to %r.", key, kind, f"{key}.set_aside")

    def repair_keys(self) -> None:
        """Make room for the keys of all claims."""
        for key, kind in ((self.claims, "hash"), (self.index, "zset"), (self.owners, "zset")):
            self.quarantine_key(key, kind)

    def send_heartbeat(self, owner: str, tags: Iterable[str]) -> list[str]:
        """Say that an owner lives and what it still holds.

        Args:
            owner: its id; empty for nobody.
            tags: of claims that no visibility timeout is to find.

        Returns:
            The owners that are dead.
        """
        keys = (self.owners, self.index)
        tags = list(tags)
        dead: list[bytes] = []
        for start in range(0, max(len(tags), 1), CHUNK * 10):
            dead = self.run(scripts.HEARTBEAT, keys, owner, LEASE, *tags[start : start + CHUNK * 10])
        strange = [name for name in dead if not name.isascii()]
        if strange:  # no worker is called so, and those who are would never have their turn
            self.command("ZREM", self.owners, *strange)
        return [bytes_to_str(name) for name in dead if name.isascii()]

    def first_owner(self) -> str | None:
        """Return who has not been heard of for longest, of those who hold anything, or did when they died."""
        found = self.command("ZRANGE", self.owners, 0, 0)
        return bytes_to_str(found[0]) if found else None

    def older_than(self, seconds: float) -> list[bytes]:
        """Return the tags of claims, anybody's, that are older than so many seconds, the oldest first."""
        now, _ = self.command("TIME")
        found: list[bytes] = self.command("ZRANGEBYSCORE", self.index, "-inf", int(now) - seconds)
        return found

    def of_others(self, tags: Sequence[Tag], queues: Collection[str]) -> set[Tag]:
        """Return those of some claims that came from other queues.

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
                continue  # whoever sees it first sets it aside
        return found

    def reclaim(self, owner: str) -> int:
        """Give back what a dead owner held; nothing, if it has claimed again in the meantime.

        Returns:
            How many claims that were.
        """
        tags = sorted(self._tags_of(owner), key=_number)
        taken = 0
        for end in range(len(tags), 0, -CHUNK):
            taken += self._restore_chunk(tags[max(end - CHUNK, 0) : end][::-1], "RPUSH", [], dead=owner)
        self.forget(owner)
        return taken

    def forget(self, owner: str) -> None:
        """Let the name of an owner go that holds nothing, and has not been heard of for long."""
        self.run(scripts.FORGET, (self.owners,), owner, LEASE)

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
    """Return what a script compares a claim with."""
    return hashlib.sha1(entry if isinstance(entry, bytes) else entry.encode()).hexdigest()  # noqa: S324 - no secret


def _literal(text: str) -> str:
    """Return a pattern that matches a text alone: whoever can write to Redis can name an owner."""
    return "".join(f"\\{sign}" if sign in "*?[]^-\\" else sign for sign in text)


def _number(tag: bytes) -> int:
    number = tag.rpartition(b":")[2]
    return int(number) if number.isdigit() and len(number) < MAX_DIGITS else 0
