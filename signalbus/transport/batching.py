"""Batch claimed messages: decide which are handed to the pool as one request, within a 50 ms time budget.

`channel` calls it (decision 0032). The run time of a message is estimated from that of earlier messages of its queue
and signal, which `receiving/worker/request` reports. A message that is unknown, slow or redelivered is not batched.
The batches are divided among the free slots, so that no slot is idle beside a full batch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from signalbus.core.runtime_estimate import RuntimeEstimates
from signalbus.transport.coalescing import MOST_TEXTS, BatchMember, keys_of

if TYPE_CHECKING:
    from collections.abc import Sequence

BUDGET: Final = 0.05  # seconds for a batch; a smaller budget did not shorten the wait behind a slow message either
MOST_BYTES: Final = 1024 * 1024  # characters of texts in a batch

# Keys of the averages: the seconds of any text; the texts of any message, and the bytes of these.
_SECONDS, _TEXTS, _BYTES = "seconds", "texts", "bytes"
estimates: RuntimeEstimates = RuntimeEstimates()


def learn(texts: Sequence[str], queue: str, seconds: float) -> None:
    """Update the estimates with the run time of a request.

    Args:
        texts: the texts that it delivered.
        queue: the queue that they came from.
        seconds: its run time.
    """
    if texts:
        estimates.learn_batch(keys_of(texts, queue), seconds)
        estimates.learn(_SECONDS, seconds / len(texts))


def size() -> int:
    """Return how many messages to claim for each free slot, if they are like the last ones."""
    texts = estimates.expected(_TEXTS)
    bounds = (
        (BUDGET, estimates.expected(_SECONDS) * texts),
        (MOST_TEXTS, texts),
        (MOST_BYTES, estimates.expected(_BYTES)),
    )
    return max(1, int(min(most / max(each, 1e-9) for most, each in bounds)))


def arrange(members: Sequence[BatchMember], slots: int) -> tuple[list[list[BatchMember]], list[BatchMember]]:
    """Group claimed messages into batches, in their order.

    Args:
        members: the claimed messages.
        slots: how many batches can be begun.

    Returns:
        The batches, and the messages left over, to be requeued in this order.
    """
    _note(members)
    share = math.ceil(len(members) / max(1, slots))
    batches: list[list[BatchMember]] = []
    capacity = _Capacity()
    for member in members:
        seconds = _expected(member)
        if seconds > BUDGET / 2:
            batches.append([member])
            capacity = _Capacity()
        elif capacity.takes(member, seconds):
            batches[-1].append(member)
        else:
            batches.append([member])
            capacity = _Capacity(member, seconds, share)
    return batches[:slots], [member for batch in batches[slots:] for member in batch]


def _note(members: Sequence[BatchMember]) -> None:
    ours = [member for member in members if member.texts]
    if ours:
        estimates.learn(_TEXTS, sum(len(member.texts) for member in ours) / len(ours))
        estimates.learn(_BYTES, sum(map(_size, ours)) / len(ours))


def _expected(member: BatchMember) -> float:
    """Return the estimate of a message in seconds; infinite if it must not be batched."""
    return sum(map(estimates.expected, member.keys)) if member.texts else math.inf


class _Capacity:
    """The capacity that a batch has left.

    Args:
        first: its first member; without one it has no capacity.
        seconds: the estimate of that member.
        most: the number of messages in the batch.
    """

    def __init__(self, first: BatchMember | None = None, seconds: float = 0.0, most: int = 0) -> None:
        self._queue = first and first.claimed.queue
        self._count = most - 1
        self._seconds = BUDGET - seconds
        self._texts = MOST_TEXTS - (len(first.texts) if first else 0)
        self._bytes = MOST_BYTES - (_size(first) if first else 0)

    def takes(self, member: BatchMember, seconds: float) -> bool:
        """Take one more message, and return whether it fits."""
        self._count -= 1
        self._seconds -= seconds
        self._texts -= len(member.texts)
        self._bytes -= _size(member)
        fits = self._count >= 0 and self._seconds >= 0 and self._texts >= 0 and self._bytes >= 0
        return fits and member.claimed.queue == self._queue


def _size(member: BatchMember) -> int:
    return sum(map(len, member.texts))
