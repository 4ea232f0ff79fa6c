"""Search rows of the ledger page by page, the youngest first, at a cost that does not grow with the table.

A page begins after the key of the last row of the page before, so no OFFSET passes over what was shown. Where no index
answers a search, it looks at the youngest 100,000 rows, or at the youngest 10,000 that an index finds for a part of it:
these are scattered over the table (decision 0049). Called by the admin's lists and the web app's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from django.db.models import Q

from signalbus.services.filters import FilterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import QuerySet

COUNTED: Final = 1000
SCANNED: Final = 100_000
SCATTERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Search:
    """A search for rows.

    Args:
        text: the search as a filter of `signalbus.services.filters`, with ages replaced by times.
        condition: the condition on the rows.
        indexed: the part of it that an index answers.
        is_indexed: whether that is all of it.
        error: why nothing can be searched for; empty if something can.
    """

    text: str = ""
    condition: Q = field(default_factory=Q)
    indexed: Q = field(default_factory=Q)
    is_indexed: bool = True
    error: str = ""

    @property
    def most(self) -> int:
        """The number of rows that are looked at."""
        return SCATTERED if self.indexed else SCANNED


@dataclass(frozen=True, slots=True)
class FoundKeys:
    """The keys that a search found, the youngest first.

    Args:
        keys: at most as many as were asked for.
        has_more: whether there are more among the rows that were looked at.
        end: the key of the last row that was looked at, if older rows were not.
    """

    keys: list[Any]
    has_more: bool
    end: Any


def find_keys(rows: QuerySet[Any], search: Search, limit: int, after: Any = None) -> FoundKeys:
    """Find the keys of rows, in one or two bounded statements.

    Args:
        rows: all rows.
        search: what to look for.
        limit: how many keys at most.
        after: only keys below this one.
    """
    if search.error:
        return FoundKeys([], has_more=False, end=None)
    if after is not None:
        rows = rows.filter(pk__lt=after)
    end = None
    if not search.is_indexed:
        scanned = rows.filter(search.indexed).order_by("-pk").values_list("pk", flat=True)
        last = list(scanned[search.most - 1 : search.most + 1])
        if len(last) > 1:  # there are more
            end = last[0]
            rows = rows.filter(pk__gte=end)
    found = list(rows.filter(search.condition).order_by("-pk").values_list("pk", flat=True)[: limit + 1])
    return FoundKeys(found[:limit], len(found) > limit, end)


def read_search(read: Callable[[], Search]) -> Search:
    """Return the search that a function reads; its error, if it cannot be read.

    Args:
        read: a function without arguments, which returns a search.
    """
    try:
        return read()
    except FilterError as error:
        return Search(error=str(error))
