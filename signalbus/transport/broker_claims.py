"""Keep the broker claims of this process: its id in Redis, its messages in flight, and how they end (decision 0031).

`channel`, `qos` and `heartbeat` share one `Owner`, which outlives the channel that made the claims. The claims' keys
in Redis are changed by `unacked`.
"""

from __future__ import annotations

import os
import uuid
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Sequence

CLAIM = "sb1:"  # before the tag of a claim: sb1:<owner>:<number>
BATCH = "sb1g:"  # before the tag of a batch of them


@dataclass(frozen=True, slots=True)
class Claimed:
    """A queue item that this process has claimed.

    Args:
        raw: the item, as it was in the queue.
        queue: the queue's name.
        tag: the tag of the claim.
        key: the list that it was in; empty for the queue's own.
    """

    raw: bytes
    queue: str
    tag: str
    key: str = ""


class Numbers(NamedTuple):
    """The numbers of the claims that one command may make; its reply says which of them it made."""

    first: int
    many: int


class Work:
    """The work of the process, as the transport asks for it; this base knows nothing, so every claim is kept."""

    task: str = ""  # the task whose messages may be batched

    def free(self) -> int | None:
        """Return how many messages can be begun now; None if that is not known."""
        return None

    def in_flight(self) -> set[str] | None:
        """Return the tags of messages that run or wait to run here, from any thread; None if that is not known."""
        return None

    def for_some(self, text: str, indexes: Sequence[int], count: int) -> str | None:  # noqa: ARG002
        """Return a text for some of its recipients alone.

        Args:
            text: a text from the queue, not verified.
            indexes: the indexes of those recipients.
            count: the number of all recipients.

        Returns:
            The text; None if the text is not one for so many recipients.
        """
        return None

    def given_up(self, tags: Collection[str]) -> set[str]:
        """Return the tags among these whose messages will never run here."""
        return set(tags)


class Owner:
    """A process as the owner of claims in Redis, by its id there.

    It outlives channels: a running message goes on over a reconnect, and is acknowledged over the next connection.
    """

    def __init__(self) -> None:
        self.id: str = uuid.uuid4().hex[:16]
        self.claimed: dict[str, str] = {}  # the queue of each claim that is not over
        self.batches: dict[str, list[str]] = {}  # the claims of each batch
        self.acknowledged: deque[str] = deque()  # claims whose acknowledgement must be sent to Redis
        self.unconfirmed: set[str] = set()  # the same, and those whose acknowledgement was sent and not answered
        self.rejected: deque[str] = deque()  # deliveries to requeue, which Redis has not confirmed
        self.asked: list[Numbers] = []  # of commands whose reply is awaited
        self.lost: list[Numbers] = []  # of commands whose reply never came
        self.refused: str | None = None  # why this server's messages cannot be claimed
        self.is_unsettled: bool = False  # a channel has closed without requeueing claims that will not run
        self.heartbeat: Any = None  # the heartbeat of its last channel
        self._count = 0

    @property
    def prefix(self) -> str:
        """The prefix of the tags of its claims."""
        return f"{CLAIM}{self.id}:"

    def reserve(self, count: int) -> Numbers:
        """Reserve numbers for a command that may make so many claims; they count as in flight until it is answered."""
        first, self._count = self._count + 1, self._count + count
        numbers = Numbers(first, count)
        self.asked.append(numbers)
        return numbers

    def tag(self, number: int) -> str:
        """Return the tag of a claim."""
        return f"{self.prefix}{number}"

    def members(self, tag: str) -> list[str]:
        """Return the claims of a delivery's tag: those of a batch, or the claim itself."""
        return self.batches.get(tag) or [tag]

    def end(self, tag: str) -> list[str]:
        """Remove a delivery.

        Returns:
            Its claims that had not ended before.
        """
        members = self.batches.pop(tag, None) or [tag]
        return [member for member in members if self.claimed.pop(member, None) is not None]

    def acknowledge(self, tag: str) -> list[str]:
        """End a delivery; its claims are in flight until Redis confirms the acknowledgement.

        Returns:
            Its claims that had not ended before, whose acknowledgement must be sent to Redis.
        """
        members = self.members(tag)
        self.unconfirmed.update(members)  # first: the heartbeat's thread must find them here or there
        ended = self.end(tag)
        self.unconfirmed.difference_update(set(members).difference(ended))
        self.acknowledged.extend(ended)
        return ended

    def take_acknowledged(self, most: int) -> list[str]:
        """Take claims whose acknowledgement must be sent, each by one thread alone.

        Args:
            most: how many at most.
        """
        some: list[str] = []
        while self.acknowledged and len(some) < most:
            try:
                some.append(self.acknowledged.popleft())
            except IndexError:  # another thread was quicker
                break
        return some

    def confirm(self, tags: Iterable[str]) -> None:
        """Note that Redis has confirmed the acknowledgement of claims."""
        self.unconfirmed.difference_update(tags)

    def is_in_flight(self) -> bool:
        """Return whether Redis may have a claim of this process; from any thread."""
        # In the order in which a claim passes through them, so that none is missed on its way.
        return bool(self.asked or self.lost or self.claimed or self.unconfirmed)

    def claims_of(self, tags: Iterable[str]) -> set[str]:
        """Return the claims of several deliveries' tags."""
        return {member for tag in tags for member in self.members(tag)}

    def deliveries(self) -> set[str]:
        """Return the tags under which claims in flight were delivered: a batch's, or a claim's own."""
        batches = dict(self.batches)
        batched = {member for members in batches.values() for member in members}
        return set(batches) | (set(self.claimed) - batched)


_owners: dict[tuple[int, Hashable], Owner] = {}


def owner_of(server: Hashable) -> Owner:
    """Return the owner of this process's claims on a server; a forked child is another owner.

    Args:
        server: its address and the keys there.
    """
    return _owners.setdefault((os.getpid(), server), Owner())


def is_ours(tag: str) -> bool:
    """Return whether a delivery's tag is that of a claim, or of a batch of claims."""
    return tag.startswith((CLAIM, BATCH))
