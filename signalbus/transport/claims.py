"""What a process has claimed: its own name, the claims, and how they end, whatever channel they came over."""

from __future__ import annotations

import os
import uuid
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Sequence

CLAIM = "sb1:"  # before the tag of a claim: sb1:<owner>:<number>
GROUP = "sb1g:"  # before the tag of a group of them


@dataclass(frozen=True, slots=True)
class Claimed:
    """A queue item that this process has claimed.

    Args:
        raw: the item, as it stood in the queue.
        queue: the queue's name.
        tag: the claim's.
        key: the list that it stood in; empty for the queue's own.
    """

    raw: bytes
    queue: str
    tag: str
    key: str = ""


class Numbers(NamedTuple):
    """The numbers of the claims that one command may make: which of them it made, its reply says."""

    first: int
    many: int


class Work:
    """What the process does with what it was given; this one knows nothing, and so holds on to everything."""

    task: str = ""  # the one whose messages may travel together

    def free(self) -> int | None:
        """Return how many messages can be begun now; None if that is not known."""
        return None

    def in_flight(self) -> set[str] | None:
        """Return the tags of what runs or waits to run here, from any thread; None if that is not known."""
        return None

    def for_some(self, text: str, places: Sequence[int], count: int) -> str | None:  # noqa: ARG002
        """Return a text for some of its recipients alone.

        Args:
            text: whatever came out of the queue.
            places: of those recipients, among all.
            count: how many all are.

        Returns:
            None if it is not one for so many recipients.
        """
        return None

    def given_up(self, tags: Collection[str]) -> set[str]:
        """Return those of some tags that will never run here."""
        return set(tags)


class Owner:
    """A process, as the others see it in Redis, and what it has claimed there.

    It outlives channels: what runs goes on over a reconnect, and is acknowledged over the next connection.
    """

    def __init__(self) -> None:
        self.id: str = uuid.uuid4().hex[:16]
        self.claimed: dict[str, str] = {}  # the queue of each claim that is not over
        self.groups: dict[str, list[str]] = {}  # the claims of each group
        self.acknowledged: deque[str] = deque()  # claims whose end is to be sent to Redis
        self.unheard: set[str] = set()  # the same, and those whose end was sent and not answered
        self.rejected: deque[str] = deque()  # deliveries that are to come again, of which Redis has not heard
        self.asked: list[Numbers] = []  # of commands whose reply is awaited
        self.lost: list[Numbers] = []  # of commands whose reply never came
        self.refused: str | None = None  # why this server's messages cannot be claimed
        self.is_unsettled: bool = False  # a channel has ended without giving back what nobody will run
        self.heartbeat: Any = None  # that of its last channel
        self._count = 0

    @property
    def prefix(self) -> str:
        """What the tags of its claims begin with."""
        return f"{CLAIM}{self.id}:"

    def reserve(self, count: int) -> Numbers:
        """Set numbers aside for a command that may make so many claims, in flight until it is answered."""
        first, self._count = self._count + 1, self._count + count
        numbers = Numbers(first, count)
        self.asked.append(numbers)
        return numbers

    def tag(self, number: int) -> str:
        """Return the tag of a claim."""
        return f"{self.prefix}{number}"

    def members(self, tag: str) -> list[str]:
        """Return the claims that a delivery's tag stands for."""
        return self.groups.get(tag) or [tag]

    def end(self, tag: str) -> list[str]:
        """Forget a delivery.

        Returns:
            The claims it stood for, those that were still held.
        """
        members = self.groups.pop(tag, None) or [tag]
        return [member for member in members if self.claimed.pop(member, None) is not None]

    def acknowledge(self, tag: str) -> list[str]:
        """End a delivery; its claims are in flight until Redis has heard of it.

        Returns:
            The claims it stood for, those that were still held; they are to be sent to Redis.
        """
        members = self.members(tag)
        self.unheard.update(members)  # first: the heartbeat's thread must find them here or there
        ended = self.end(tag)
        self.unheard.difference_update(set(members).difference(ended))
        self.acknowledged.extend(ended)
        return ended

    def take_acknowledged(self, most: int) -> list[str]:
        """Return claims whose end is to be sent, each to one thread alone.

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

    def heard(self, tags: Iterable[str]) -> None:
        """Note that Redis has heard of the end of some claims."""
        self.unheard.difference_update(tags)

    def is_in_flight(self) -> bool:
        """Whether Redis may have a claim of this process; from any thread."""
        # In the order in which a claim passes through them, so that none is missed on its way.
        return bool(self.asked or self.lost or self.claimed or self.unheard)

    def claims_of(self, tags: Iterable[str]) -> set[str]:
        """Return the claims that some deliveries' tags stand for."""
        return {member for tag in tags for member in self.members(tag)}

    def deliveries(self) -> set[str]:
        """Return the tags under which what is held was delivered: a group's, or a claim's own."""
        groups = dict(self.groups)
        grouped = {member for members in groups.values() for member in members}
        return set(groups) | (set(self.claimed) - grouped)


_owners: dict[tuple[int, Hashable], Owner] = {}


def owner_of(place: Hashable) -> Owner:
    """Return what this process is called at a place; a forked child is another.

    Args:
        place: a server, and the keys there.
    """
    return _owners.setdefault((os.getpid(), place), Owner())


def is_ours(tag: str) -> bool:
    """Whether a delivery's tag is a claim's, or a group's of them."""
    return tag.startswith((CLAIM, GROUP))
