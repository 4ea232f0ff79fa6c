"""Define the kombu message that the consumer gets: a batch or a single message, of which a part can be requeued.

`channel` makes it. Celery acknowledges or rejects it; the straggler watchdog requeues the texts of it that have not
begun (decision 0032).
"""

from __future__ import annotations

import json
import threading
import uuid
from base64 import b64encode
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from kombu.transport import virtual
from redis.exceptions import RedisError

from signalbus.transport.coalescing import Merged
from signalbus.transport.lua_scripts import Script
from signalbus.transport.progress import BEGUN, DONE, FREE, SHARED, WAITING

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    from signalbus.transport.coalescing import BatchMember
    from signalbus.transport.progress import Sheet

# KEYS: unacked, its index, a list. ARGV: a claim's tag; what remains of it, or '' if nothing does; the end of the
# list, LPUSH or RPUSH; items for it.
# Returns 0 if another worker has ended the claim, or this division has been done before.
DIVIDE = Script("""
redis.call('HDEL', KEYS[1], '')
redis.call('ZREM', KEYS[2], '')
redis.call('LLEN', KEYS[3])
local claim = redis.call('HGET', KEYS[1], ARGV[1])
if not claim or claim == ARGV[2] then return 0 end
if ARGV[2] ~= '' then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
else
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
end
for i = 4, #ARGV do redis.call(ARGV[3], KEYS[3], ARGV[i]) end
return 1
""")


class _Division(NamedTuple):
    member: BatchMember
    texts: list[int]  # the texts that leave the claim
    remains: str
    end: str
    items: list[str]
    split: dict[int, _Split] = {}  # texts of which some recipients leave it


class _Split(NamedTuple):
    """A text of which some recipients are requeued."""

    rest: str | None  # the text for the recipients that stay; None if none does
    items: list[str]  # a text for each of the others
    indexes: set[int]  # of the others


class ClaimedMessage(virtual.Message):
    """A kombu message, which may be that of a batch.

    Args:
        payload: the message from the queue, or `Merged`.
        channel: as kombu passes it.
        options: as kombu passes them.
    """

    def __init__(self, payload: dict[str, Any], channel: Any = None, **options: Any) -> None:
        super().__init__(payload, channel=channel, **options)
        self.sheet: Sheet | None = None  # the progress of its texts; None if it is not reported
        self._members: list[BatchMember] = payload.members if isinstance(payload, Merged) else []
        self.texts: list[str] = [text for member in self._members for text in member.texts]
        self._requeued: set[int] = set()  # texts that were requeued
        self._split: dict[int, set[int]] = {}  # recipients that were requeued without the others of their text
        self._whole: dict[int, str] = {}  # those texts as they were received
        self._unanswered: _Division | None = None  # a division that Redis may have done or not
        self._lock = threading.Lock()
        self.channel: Any

    def decode(self) -> Any:
        """Return the body; that of a batch has been read already."""
        return ([self.texts], {}, {}) if self._members else super().decode()

    def is_waited_for(self) -> bool:
        """Return whether a slot is free where a requeued message would begin at once; from any thread.

        False if this worker has stopped consuming this queue.
        """
        queues = {member.claimed.queue for member in self._members}
        return not queues.isdisjoint(self.channel.active_queues) and (self.channel.work.free() or 0) > 0

    def requeue_free(self, states: Sequence[int]) -> bool:
        """Requeue the texts that are free, while others are running; from any thread.

        Args:
            states: of its texts; a text or recipient that waits will not begin here any more.

        Returns:
            False if the broker does not answer now.
        """
        try:
            with self._lock:
                self._requeue_texts(states, FREE)
        except (RedisError, OSError):
            return False
        return True

    def _requeue_texts(self, states: Sequence[int], which: Container[int] = (WAITING,)) -> None:
        if self._unanswered is not None:
            self._divide(self._unanswered)
        whole = []
        for member, texts in self._texts_of_members():
            waiting = [text for text in texts if states[text] in which and text not in self._requeued]
            split = self._splits([text for text in texts if text not in waiting and text not in self._requeued], which)
            if len(waiting) == len(texts) and self._split.keys().isdisjoint(texts):
                whole.append((member, waiting))
            elif waiting or split:
                self._divide(self._division(member, texts, waiting, split))
        if whole:
            self.channel.unacked.unclaim([member.claimed for member, _ in whole])
            self._requeued.update(text for _, texts in whole for text in texts)

    def _division(
        self, member: BatchMember, texts: Sequence[int], waiting: list[int], split: dict[int, _Split]
    ) -> _Division:
        stay = [text for text in texts if text not in waiting and text not in self._requeued]
        rest = [one for text in stay if (one := split[text].rest if text in split else self.texts[text]) is not None]
        requeued = [self.texts[text] for text in waiting] + [item for text in split.values() for item in text.items]
        remains = _entry(member, rest) if rest else ""
        # The item that is pushed last to the end that is claimed from is the first to be claimed.
        return _Division(member, waiting, remains, "RPUSH", _items(member, requeued[::-1]), split)

    def _splits(self, texts: Sequence[int], which: Container[int]) -> dict[int, _Split]:
        """Return the splits of texts of which some recipients are free and others are not."""
        parts = self.sheet.parts() if self.sheet is not None else {}
        found = {}
        for text in texts:
            states, requeued = parts.get(text, b""), self._split.get(text, set())
            free = [index for index, state in enumerate(states) if state in which and index not in requeued]
            if free:
                split = self._split_off(text, states, free)
                if split is not None:
                    found[text] = split
        return found

    def _split_off(self, text: int, states: bytes, free: Sequence[int]) -> _Split | None:
        whole, work = self._whole.get(text, self.texts[text]), self.channel.work
        left = set(range(len(states))) - self._split.get(text, set()) - set(free)
        # Recipients that are done must not run again if this worker dies.
        stay = [index for index in sorted(left) if states[index] in {BEGUN, SHARED}]
        items = [work.for_some(whole, [index], len(states)) for index in free]
        rest = work.for_some(whole, stay, len(states)) if stay else None
        if None in items or (stay and rest is None):
            return None
        self._whole[text] = whole
        return _Split(rest, [item for item in items if item is not None], set(free))

    def _is_anything_waiting(self) -> bool:
        """Return whether texts, or recipients of texts, were not begun."""
        return self.sheet is not None and bool(self.sheet.reported_states()) and WAITING in self.sheet.all_states

    def ack(self, multiple: bool = False) -> None:
        """Acknowledge the message; requeue texts that have not begun."""
        if self._is_anything_waiting():
            states = self._final_states()
            with self._settled_later():
                self._requeue_texts(states)
        super().ack(multiple=multiple)

    def reject(self, requeue: bool = False) -> None:
        """End the message without success; texts that are done stay done, and those that have not begun are requeued.

        Args:
            requeue: requeue also texts that were begun, marked as redelivered.
        """
        states = self._final_states()
        if not states:
            super().reject(requeue=requeue)
            return
        with self._settled_later():
            self._requeue_texts(states)
            if requeue:
                self._requeue_begun(states)
        super().ack()

    @contextmanager
    def _settled_later(self) -> Iterator[None]:
        """Let the channel requeue the whole message later, if the broker does not answer now."""
        try:
            with self._lock:
                yield
        except BaseException:
            self.channel.requeue_later(self.delivery_tag)
            raise

    def _requeue_begun(self, states: Sequence[int]) -> None:
        whole = []
        for member, texts in self._texts_of_members():
            begun = [text for text in texts if states[text] in {BEGUN, SHARED} and text not in self._requeued]
            again = [unfinished for text in begun if (unfinished := self._unfinished(text)) is not None]
            if begun and len(texts) == 1 and again == self._of(begun):
                whole.append(member.claimed.tag)
            elif begun:
                items = _items(member, again, redelivered=True)
                self._divide(_Division(member, begun, "", "LPUSH", items))
        if whole:
            self.channel.unacked.restore(whole, leftmost=True)

    def _unfinished(self, text: int) -> str | None:
        """Return a text for its recipients that are not done and were not requeued; None if there are none."""
        states = self.sheet.parts().get(text, b"") if self.sheet is not None else b""
        left = [index for index in range(len(states)) if index not in self._split.get(text, set())]
        # One that waits may have been noted since the others were requeued: a child lives for a moment at a time limit.
        stay = [index for index in left if states[index] != DONE]
        if len(stay) == len(left):
            return self.texts[text]
        whole = self._whole.get(text, self.texts[text])
        return (self.channel.work.for_some(whole, stay, len(states)) or self.texts[text]) if stay else None

    def _states(self) -> Sequence[int]:
        return self.sheet.reported_states() if self.sheet is not None else b""

    def _final_states(self) -> Sequence[int]:
        """Return the states when nothing more can begin: at a hard time limit Celery ends the message first."""
        if self.sheet is not None:
            self.sheet.stop()
        return self._states()

    def _texts_of_members(self) -> Iterator[tuple[BatchMember, range]]:
        start = 0
        for member in self._members:
            yield member, range(start, start := start + len(member.texts))

    def _of(self, texts: Sequence[int]) -> list[str]:
        return [self.texts[text] for text in texts]

    def _divide(self, division: _Division) -> None:
        """Divide a claim. If no answer comes, the same division must be repeated: Redis may have done it."""
        self._unanswered = division
        member, unacked = division.member, self.channel.unacked
        keys = (unacked.claims, unacked.index, unacked.list_of(member.claimed))
        unacked.run(DIVIDE, keys, member.claimed.tag, division.remains, division.end, *division.items)
        self._requeued.update(division.texts)
        for text, split in division.split.items():
            if split.rest is None:
                self._requeued.add(text)
            else:
                self.texts[text] = split.rest
            self._split.setdefault(text, set()).update(split.indexes)
        self._unanswered = None


def _items(member: BatchMember, texts: Sequence[str], *, redelivered: bool = False) -> list[str]:
    """Return a queue item for each text, so that none waits behind another of its message again."""
    message = json.loads(member.claimed.raw)
    if redelivered:
        message["headers"]["redelivered"] = message["properties"]["delivery_info"]["redelivered"] = True
    return [_with_texts(message, [text]) for text in texts]


def _entry(member: BatchMember, texts: Sequence[str]) -> str:
    """Return the entry in kombu's hash of a claim of some of a message's texts."""
    return f'[{_with_texts(json.loads(member.claimed.raw), texts)}, "", {json.dumps(member.claimed.queue)}]'


def _with_texts(message: dict[str, Any], texts: Sequence[str]) -> str:
    headers, properties = message["headers"], message["properties"]
    message["body"] = b64encode(json.dumps([[texts], {}, {}]).encode()).decode()
    headers["id"] = properties["correlation_id"] = str(uuid.uuid4())
    headers["argsrepr"] = f"({len(texts)} texts)"
    properties["delivery_tag"] = str(uuid.uuid4())  # two items with one tag would be acknowledged together
    return json.dumps(message)
