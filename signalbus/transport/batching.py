"""Who travels together: as many messages as take no longer, all in all, than anybody would mind to wait.

How long a message takes is guessed from the time that those of its queue and signal took. Who is unknown, slow or given
out again travels alone; and what is claimed is dealt over all who are free, so nobody idles beside a group.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from signalbus.core.runtime_estimate import RuntimeEstimates
from signalbus.transport.coalescing import MOST_TEXTS, BatchMember, keys_of

if TYPE_CHECKING:
    from collections.abc import Sequence

BUDGET: Final = 0.05  # seconds for a group; less brought nothing, to those who wait behind a slow one either
MOST_BYTES: Final = 1024 * 1024  # characters of texts in a group

# What is known of a text that might be anybody's: its seconds; and of a message: its texts, and how long these are.
_SECONDS, _TEXTS, _BYTES = "seconds", "texts", "bytes"
estimates: RuntimeEstimates = RuntimeEstimates()


def learn(texts: Sequence[str], queue: str, seconds: float) -> None:
    """Note how long a request took.

    Args:
        texts: what it delivered.
        queue: where they came from.
        seconds: how long.
    """
    if texts:
        estimates.learn_batch(keys_of(texts, queue), seconds)
        estimates.learn(_SECONDS, seconds / len(texts))


def size() -> int:
    """Return how many messages are worth claiming for each free place, if they are as the last ones were."""
    texts = estimates.expected(_TEXTS)
    bounds = (
        (BUDGET, estimates.expected(_SECONDS) * texts),
        (MOST_TEXTS, texts),
        (MOST_BYTES, estimates.expected(_BYTES)),
    )
    return max(1, int(min(most / max(each, 1e-9) for most, each in bounds)))


def arrange(members: Sequence[BatchMember], slots: int) -> tuple[list[list[BatchMember]], list[BatchMember]]:
    """Make groups of what was claimed, in its order.

    Args:
        parcels: what was claimed.
        slots: how many groups can be taken.

    Returns:
        The groups, and what is left over: to be given back, in this order, where it came from.
    """
    _note(members)
    share = math.ceil(len(members) / max(1, slots))
    groups: list[list[BatchMember]] = []
    capacity = _Capacity()
    for member in members:
        seconds = _expected(member)
        if seconds > BUDGET / 2:
            groups.append([member])
            capacity = _Capacity()
        elif capacity.takes(member, seconds):
            groups[-1].append(member)
        else:
            groups.append([member])
            capacity = _Capacity(member, seconds, share)
    return groups[:slots], [member for group in groups[slots:] for member in group]


def _note(members: Sequence[BatchMember]) -> None:
    ours = [member for member in members if member.texts]
    if ours:
        estimates.learn(_TEXTS, sum(len(member.texts) for member in ours) / len(ours))
        estimates.learn(_BYTES, sum(map(_size, ours)) / len(ours))


def _expected(member: BatchMember) -> float:
    """Return the seconds that a message will take; without end if it must not keep anybody waiting."""
    return sum(map(estimates.expected, member.keys)) if member.texts else math.inf


class _Capacity:
    """What else a group takes.

    Args:
        first: its first member; without one it takes nobody.
        seconds: how long that will take.
        most: messages in it.
    """

    def __init__(self, first: BatchMember | None = None, seconds: float = 0.0, most: int = 0) -> None:
        self._queue = first and first.claimed.queue
        self._count = most - 1
        self._seconds = BUDGET - seconds
        self._texts = MOST_TEXTS - (len(first.texts) if first else 0)
        self._bytes = MOST_BYTES - (_size(first) if first else 0)

    def takes(self, member: BatchMember, seconds: float) -> bool:
        """Take one more, if it fits."""
        self._count -= 1
        self._seconds -= seconds
        self._texts -= len(member.texts)
        self._bytes -= _size(member)
        fits = self._count >= 0 and self._seconds >= 0 and self._texts >= 0 and self._bytes >= 0
        return fits and member.claimed.queue == self._queue


def _size(member: BatchMember) -> int:
    return sum(map(len, member.texts))
