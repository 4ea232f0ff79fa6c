"""Retry and discard deliveries: a page shows what would change, and a form starts it.

What was ticked is changed at once. What a filter selects is an operation, which the sweepers work off: one delivery,
ten, then the rest; the request only records it.
"""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from django.http import HttpResponseRedirect
from django.utils.translation import gettext as _

from signalbus.exceptions import ConfigurationError
from signalbus.ledger import operations as ledger
from signalbus.models import Delivery, State
from signalbus.pages.bounded_search import find_keys
from signalbus.pages.delivery_search import INDEXED, search_deliveries, words_of
from signalbus.pages.open_counts import Capped
from signalbus.pages.shown_text import short
from signalbus.services.actors import OPERATE
from signalbus.services.changes import delivery_changes
from signalbus.services.changes.bulk_operations import read_rate, start_operation
from signalbus.services.filters import FilterError
from signalbus.services.queries.live_workers import workers
from signalbus.services.queries.lookup import filter_from
from signalbus.web.page_access import page
from signalbus.web.page_layout import render_page, url_of

if TYPE_CHECKING:
    from datetime import datetime

    from django.http import HttpRequest, HttpResponse

    from signalbus.ledger.operations import BulkKind
    from signalbus.services.actors import Actor

VERBS: Final[dict[str, BulkKind]] = {"retry": "retry", "discard": "discard"}
LEFT_ALONE: Final = (State.DONE, State.RUNNING)
COUNTED: Final = 1000  # deliveries that a preview counts
TICKED: Final = 200  # that one form may name
NEEDS_REASON: Final = 100  # deliveries from which on a reason must be given
RECEIVERS: Final = 10  # that a preview names
EXAMPLES: Final = 5
REASON_CHARS: Final = 500
RATE_CHARS: Final = 20
SELECTIVE: Final = ("state", "group", *INDEXED)  # keys of which a filter must have one


@dataclass(slots=True)
class Chosen:
    """The deliveries that somebody chose.

    Args:
        ids: their ids, the youngest first.
        text: the filter that selects them, with fixed times; empty if each was ticked.
        has_more: whether the filter selects more than were counted.
        states: their numbers by state.
        receivers: their numbers by receiver.
        oldest: when the oldest of them was sent.
        examples: some of them.
    """

    ids: list[UUID]
    text: str = ""
    has_more: bool = False
    states: Counter[str] = field(default_factory=Counter)
    receivers: Counter[str] = field(default_factory=Counter)
    oldest: datetime | None = None
    examples: list[Delivery] = field(default_factory=list)

    @property
    def count(self) -> Capped:
        """How many they are."""
        return Capped(len(self.ids), self.has_more)

    @property
    def needs_reason(self) -> bool:
        """Whether a reason must be given."""
        return len(self.ids) > NEEDS_REASON or self.has_more

    @property
    def left_alone(self) -> int:
        """How many of them cannot be changed: done, or running now."""
        return sum(self.states[state.value] for state in LEFT_ALONE)


@page(permission=OPERATE, methods=("GET", "HEAD", "POST"))
def change_preview(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Show what a retry or a discard would change, and change nothing: by ids that were ticked, or by a filter."""
    return _preview(request, actor, request.POST if request.method == "POST" else request.GET)


@page(permission=OPERATE, methods=("POST",))
def change_deliveries(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Change what the preview showed: ids at once, a filter by an operation."""
    form = request.POST
    verb, text = VERBS.get(form.get("verb", "")), form.get("filter", "")
    reason, rate_text = form.get("reason", "")[:REASON_CHARS].strip(), form.get("rate", "").strip()[:RATE_CHARS]
    try:
        if verb is None:
            raise FilterError(_("Say what is to be done."))
        chosen = _by_filter(text) if text else _by_ids(form.getlist("id"))
        if chosen.needs_reason and not reason:
            raise FilterError(_("Give a reason for more than 100 deliveries."))
        if text:
            rate = read_rate(rate_text) if rate_text else None
            started = start_operation(verb, filter_from(words_of(text)), actor=actor, reason=reason, rate=rate)
            return HttpResponseRedirect(url_of(request, "operation", started.id))
    except ConfigurationError as error:
        return _preview(request, actor, form, short(str(error)))
    change = delivery_changes.retry if verb == "retry" else delivery_changes.discard
    done = change(chosen.ids, actor=actor, reason=reason)
    if len(chosen.ids) == 1 and done:
        return HttpResponseRedirect(url_of(request, "delivery", chosen.ids[0]))
    context = {"verb": verb, "done": done, "left": len(chosen.ids) - done, "ids": chosen.ids}
    return render_page(request, actor, "change_result.html", "deliveries", context)


def _preview(request: HttpRequest, actor: Actor, given: Any, problem: str = "") -> HttpResponse:
    verb = VERBS.get(given.get("verb", ""), "retry")
    chosen = Chosen([])
    try:
        by_filter = given.get("what", "all" if "id" not in given else "") == "all"
        text = given.get("filter", "") or (_frozen(given.get("q", ""), given.get("since", "")) if by_filter else "")
        chosen = _by_filter(text) if text else _by_ids(given.getlist("id"))
        _describe(chosen)
    except FilterError as error:
        problem = problem or short(str(error))
    living = [worker.row for worker in workers(actor) if not worker.is_gone]
    context = {
        "verb": verb, "chosen": chosen, "problem": problem, "reason": short(given.get("reason", "")),
        "rate": short(given.get("rate", "")), "reason_chars": REASON_CHARS,
        "receivers": chosen.receivers.most_common(RECEIVERS), "states": chosen.states.most_common(),
        "more_receivers": max(0, len(chosen.receivers) - RECEIVERS), "alive": len(living),
        "releases": sorted({row.release for row in living}), "ids": [] if chosen.text else chosen.ids,
        "can_start": bool(chosen.ids) and len(chosen.ids) > chosen.left_alone,
    }  # fmt: skip
    return render_page(request, actor, "change_preview.html", "deliveries", context, status=400 if problem else 200)


def _frozen(query: str, since: str) -> str:
    """Return the filter of a list as a text whose times are fixed: it selects the same deliveries later.

    Raises:
        FilterError: a word cannot be read.
    """
    age = f"since:{since}" if since not in {"", "all"} else ""
    words = [*words_of(query), *([age] if age else [])]
    return shlex.join(filter_from(words).words)


def _by_filter(text: str) -> Chosen:
    """Return what a filter selects; without a state among what has failed and is not resolved, as an operation does.

    Raises:
        FilterError: a word cannot be read, or the filter selects too broadly to be looked at.
    """
    if not text.isprintable():
        raise FilterError(_("The filter has characters that cannot be shown: tick deliveries instead."))
    words = words_of(text)
    if not {word.partition(":")[0] for word in words} & set(SELECTIVE):
        raise FilterError(_("Name a state, a group, a subject or an id: this filter selects too much."))
    search = search_deliveries(words)
    rows = Delivery.objects.using(ledger.using()) if filter_from(words).states else ledger.failed()
    found = find_keys(rows, search, COUNTED)
    return Chosen(found.keys, text, found.has_more or found.end is not None)


def _by_ids(texts: list[str]) -> Chosen:
    """Return what was ticked.

    Raises:
        FilterError: these are no ids, or too many.
    """
    try:
        ids = list(dict.fromkeys(UUID(text) for text in texts))
    except ValueError as error:
        raise FilterError(_("What was ticked are no ids of deliveries.")) from error
    if len(ids) > TICKED:
        raise FilterError(_("At most 200 deliveries are ticked at once; choose all that match instead."))
    if not ids:
        raise FilterError(_("Nothing was ticked."))
    return Chosen(ids)


def _describe(chosen: Chosen) -> None:
    """Add to what was chosen its states, receivers and examples."""
    rows = Delivery.objects.using(ledger.using()).select_related("message").defer("traceback", "message__text")
    for start in range(0, len(chosen.ids), ledger.CHUNK):
        some = rows.filter(pk__in=chosen.ids[start : start + ledger.CHUNK])
        for receiver, state, sent in some.values_list("receiver", "state", "created_at"):
            chosen.receivers[receiver] += 1
            chosen.states[state] += 1
            chosen.oldest = sent if chosen.oldest is None else min(chosen.oldest, sent)
    chosen.examples = list(rows.filter(pk__in=chosen.ids[:EXAMPLES]).order_by("-pk"))
