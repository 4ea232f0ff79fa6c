"""Read what somebody typed into the search box of deliveries: the words of a filter, or an id."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final
from uuid import UUID

from django.db import connections
from django.db.models import Q

from signalbus.ledger import operations as ledger
from signalbus.models import LOOKED_UP_STATES, OPEN_STATES
from signalbus.pages.bounded_search import Search
from signalbus.services.filters import MAX_CHARACTERS, FilterError
from signalbus.services.queries.lookup import filter_from

if TYPE_CHECKING:
    from signalbus.services.filters import Filter

INDEXED: Final = ("subject", "message", "id", "root")  # keys of a filter that an index answers, whatever their value


def search_deliveries(words: list[str]) -> Search:
    """Return the search for deliveries that words ask for.

    Args:
        words: as `signalbus.services.filters.parse_filter` takes them.

    Raises:
        FilterError: a word cannot be read.
    """
    wanted = filter_from(words)
    # MySQL and MariaDB have no index of some rows alone.
    has_partial = connections[ledger.using()].features.supports_partial_indexes
    keys = {*INDEXED, *(("group",) if has_partial else ())}
    more = _index_of_states(wanted, has_partial=has_partial)
    if more is not None:
        keys.add("state")
    by_index = [word for word in wanted.words if word.partition(":")[0] in keys and "*" not in word]
    extra = Q() if more is None else more
    return Search(
        shlex.join(wanted.words), wanted.condition & extra, filter_from(by_index).condition & extra,
        is_indexed=len(by_index) == len(wanted.words),
    )  # fmt: skip


def words_of(text: str) -> list[str]:
    """Split the text of a search box into words; quotes keep spaces.

    Raises:
        FilterError: it is too long, or a quote is not closed.
    """
    if len(text) > MAX_CHARACTERS:
        raise FilterError(f"A search has at most {MAX_CHARACTERS:,} characters.")
    try:
        return shlex.split(text)
    except ValueError as error:
        raise FilterError(f"{text!r} cannot be read: close the quotes.") from error


def id_in(text: str) -> UUID | None:
    """Return the id that somebody typed instead of a filter; None if it is none."""
    try:
        return UUID(text.strip()) if len(text) < 64 else None  # noqa: PLR2004 - far more than any form of one
    except ValueError:
        return None


def _index_of_states(wanted: Filter, *, has_partial: bool) -> Q | None:
    """Return the condition under which an index answers a filter's states; None if none does, as for what is done."""
    states = set(wanted.states)
    if not states:
        return None
    if states <= set(OPEN_STATES):
        return Q(ended_at=None)  # the condition of the index
    return Q() if has_partial and states <= set(LOOKED_UP_STATES) else None
