"""The rows of the table, which are measured only on demand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.comparison import Comparison

if TYPE_CHECKING:
    from benchmarks.servers import Servers

Measure = Callable[[], Iterable[Comparison]]


@dataclass(frozen=True, slots=True)
class Row:
    """A measurement with one line or more.

    Args:
        title: what is measured; the lines' titles begin so, or say it in more detail.
        measure: does it.
    """

    title: str
    measure: Measure


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a measurement.

    Args:
        rounds: of each comparison.
        scale: 1 for the real thing; less for a quick look.
        peers: whether the others take part, beside Celery.
    """

    rounds: int = 5
    scale: float = 1.0
    peers: bool = True

    def of(self, number: int, least: int = 1) -> int:
        """Return a number, scaled.

        Args:
            number: of the real thing.
            least: of a quick look.
        """
        return max(least, int(number * self.scale))


class Part(ABC):
    """The measurements of one aspect of the bus.

    Args:
        servers: of the run.
        size: how much is measured.
    """

    def __init__(self, servers: Servers, size: Size) -> None:
        self.servers = servers
        self.size = size

    @abstractmethod
    def rows(self) -> Iterator[Row]:
        """List the measurements."""
