"""Retry and discard deliveries in the admin: a page shows what would change, and a form asks for a reason.

An action of the list changes nothing: it shows the preview. The services change what the preview names, by ids or by a
filter whose times are fixed; they check the permission again, and write the audit log. What a filter selects beyond 100
is left to an operation, whose page the form leads to.
"""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import BadRequest
from django.http import HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import path, reverse

from signalbus.admin import html_values as html
from signalbus.admin.keyset_pages import AFTER
from signalbus.admin.read_only import REASON_CHARS, ReadOnlyAdmin
from signalbus.core.printable_text import printable
from signalbus.exceptions import ConfigurationError
from signalbus.ledger import operations as ledger
from signalbus.models import State
from signalbus.pages.bounded_search import find_keys
from signalbus.pages.delivery_search import id_in, words_of
from signalbus.services.actors import OPERATE, VIEW_PAYLOAD, may, user_actor
from signalbus.services.changes import delivery_changes
from signalbus.services.changes.bulk_operations import AT_ONCE, read_rate, start_operation
from signalbus.services.filters import FilterError
from signalbus.services.queries.lookup import filter_from

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern

    from signalbus.ledger.operations import BulkKind

MOST: Final = 10_000  # deliveries that a preview counts, and that may be ticked
NEEDS_REASON: Final = 100  # deliveries from which on a reason must be given
RATE_CHARS: Final = 20
RECEIVERS: Final = 20  # that a preview names


@dataclass(frozen=True, slots=True)
class Verb:
    """A change that people make to deliveries.

    Args:
        name: "retry" or "discard".
        done: what is told of the deliveries afterwards.
        change: the function of the services.
        leaves: states that it leaves alone.
    """

    name: BulkKind
    done: str
    change: Callable[..., int]
    leaves: tuple[State, ...] = (State.DONE, State.RUNNING)


VERBS: Final = {
    verb.name: verb
    for verb in (
        Verb("retry", "due again", delivery_changes.retry),
        Verb("discard", "discarded", delivery_changes.discard),
    )
}


@dataclass(frozen=True, slots=True)
class Choice:
    """The deliveries that somebody chose.

    Args:
        ids: their ids, the youngest first.
        has_more: whether the filter selects more than were counted.
        filter: the filter, with fixed times; empty if each was ticked.
        after: the id that the page began after, if it was not the first: what is younger was not chosen.
    """

    ids: list[UUID]
    has_more: bool = False
    filter: str = ""
    after: UUID | None = None


class BulkChangesAdmin(ReadOnlyAdmin):
    """The actions of the list of deliveries."""

    actions: tuple[str, ...] = ("retry_deliveries", "discard_deliveries")

    def get_urls(self) -> list[URLPattern]:
        """Add the address that the preview's form is sent to."""
        view = self.admin_site.admin_view(self.change_deliveries)
        return [path("change-deliveries/", view, name="signalbus_change_deliveries"), *super().get_urls()]

    @admin.action(description="Retry: show what would be due again", permissions=["operate"])
    def retry_deliveries(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:  # noqa: ARG002
        """Show what a retry would change."""
        return self._preview(request, VERBS["retry"])

    @admin.action(description="Discard: show what would be given up", permissions=["operate"])
    def discard_deliveries(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:  # noqa: ARG002
        """Show what a discard would change."""
        return self._preview(request, VERBS["discard"])

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any], *args: Any, **kwargs: Any) -> Any:
        """Run an action, unless what is ticked are no ids: Django would fail."""
        try:
            _ids(request.POST.getlist(ACTION_CHECKBOX_NAME))
        except FilterError as error:
            self.message_user(request, str(error), messages.ERROR)
            return None
        return super().response_action(request, queryset, *args, **kwargs)

    def _preview(self, request: HttpRequest, verb: Verb) -> HttpResponse | None:
        try:
            choice = self._chosen(request)
        except FilterError as error:
            self.message_user(request, printable(str(error)), messages.ERROR)
            return None
        receivers: Counter[str] = Counter()
        states: Counter[str] = Counter()
        oldest: datetime | None = None
        for start in range(0, len(choice.ids), ledger.CHUNK):
            rows = self.get_queryset(request).filter(pk__in=choice.ids[start : start + ledger.CHUNK])
            for receiver, state, sent in rows.values_list("receiver", "state", "created_at"):
                receivers[receiver] += 1
                states[state] += 1
                oldest = sent if oldest is None else min(oldest, sent)
        count = states.total()
        more = "at least " if choice.has_more else ""
        title = f"{verb.name.capitalize()} {more}{count:,} {'delivery' if count == 1 else 'deliveries'}?"
        context = {
            "verb": verb.name, "choice": choice, "count": count,
            "ids": [] if choice.filter else choice.ids, "example": choice.ids[0] if choice.ids else None,
            "is_operation": _is_operation(choice), "oldest": html.age_of_row(oldest), "states": states.most_common(),
            "left_alone": sum(states[state] for state in verb.leaves),
            "receivers": [(html.short(name), number) for name, number in receivers.most_common(RECEIVERS)],
            "more_receivers": max(0, len(receivers) - RECEIVERS),
            "needs_reason": count > NEEDS_REASON, "reason_chars": REASON_CHARS,
            "can_read_payload": may(request.user, VIEW_PAYLOAD),
        }  # fmt: skip
        return self.own_page(request, "change_deliveries.html", title, **context)

    def _chosen(self, request: HttpRequest) -> Choice:
        """Return what was ticked in the list, or all that its filter selects up to now.

        Raises:
            FilterError: nothing can be chosen so.
        """
        if request.POST.get("select_across", "0") in {"", "0"}:
            return Choice(_ids(request.POST.getlist(ACTION_CHECKBOX_NAME)))
        words = self.words(request, request.GET.get("q", ""))
        if not filter_from(words).states:
            raise FilterError("Choose a state first: without one, a filter selects what has not failed too.")
        now = ledger.clock_of(ledger.using()).isoformat()
        text = shlex.join(filter_from([*words, f"until:{now}"]).words)
        return self._filtered(request, text, id_in(request.GET.get(AFTER, "")))

    def _filtered(self, request: HttpRequest, text: str, after: UUID | None) -> Choice:
        """Return what a filter selects among the rows that a list would look at, as `find_keys` does for it."""
        found = find_keys(self.get_queryset(request), self.search_for(words_of(text)), MOST, after)
        return Choice(found.keys, found.has_more or found.end is not None, text, after)

    def change_deliveries(self, request: HttpRequest) -> HttpResponse:
        """Change what the preview showed.

        Raises:
            PermissionDenied: the user must not.
            BadRequest: it is not what our form sends.
        """
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        actor = user_actor(request.user, "admin")
        actor.require(OPERATE)
        verb, text, reason = (request.POST.get(name, "") for name in ("verb", "filter", "reason"))
        reason = reason[:REASON_CHARS].strip()
        if verb not in VERBS:
            raise BadRequest("no such change")
        try:
            after = id_in(request.POST.get(AFTER, ""))
            choice = self._filtered(request, text, after) if text else Choice(_ids(request.POST.getlist("id")))
            if text and not filter_from(words_of(text)).states:
                raise FilterError("The filter names no state.")
        except FilterError as error:
            raise BadRequest(printable(str(error))) from error
        back = HttpResponseRedirect(reverse("admin:signalbus_delivery_changelist", current_app=self.admin_site.name))
        if len(choice.ids) > NEEDS_REASON and not reason:
            self.message_user(request, f"Nothing was changed: over {NEEDS_REASON}, give a reason.", messages.ERROR)
            return back
        try:
            rate = read_rate(given) if (given := request.POST.get("rate", "").strip()[:RATE_CHARS]) else None
        except ConfigurationError as error:
            self.message_user(request, f"Nothing was changed: {printable(str(error))}.", messages.ERROR)
            return back
        if _is_operation(choice):
            wanted = filter_from(words_of(choice.filter))
            started = start_operation(
                VERBS[verb].name, wanted, actor=actor, reason=reason, rate=rate, below=choice.after
            )
            self.message_user(request, "The workers do it, step by step: load this page again to see how far they are.")
            page = reverse("admin:signalbus_operation_change", args=(started.id,), current_app=self.admin_site.name)
            return HttpResponseRedirect(page)
        done = VERBS[verb].change(choice.ids, actor=actor, reason=reason, wanted=choice.filter)
        left = len(choice.ids) - done
        told = f"{done:,} {'delivery is' if done == 1 else 'deliveries are'} {VERBS[verb].done}."
        if left:
            told += f" {left:,} left alone: gone, done, running now, or never verified."
        self.message_user(request, told, messages.SUCCESS if done else messages.WARNING)
        return back


def _is_operation(choice: Choice) -> bool:
    """Return whether the sweepers make the change, and not the request."""
    return bool(choice.filter) and (choice.has_more or len(choice.ids) > AT_ONCE)


def _ids(texts: list[str]) -> list[UUID]:
    try:
        ids = list(dict.fromkeys(UUID(text) for text in texts))
    except ValueError as error:
        raise FilterError("What was chosen are no ids of deliveries.") from error
    if len(ids) > MOST:
        raise FilterError(f"At most {MOST:,} deliveries are changed at once.")
    return ids
