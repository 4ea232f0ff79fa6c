"""Failures by their cause: how many causes are there, which is new, and which one first?"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from django.db.models import OuterRef, Subquery
from django.http import HttpResponseRedirect

from signalbus.exceptions import ConfigurationError
from signalbus.ledger import operations as ledger
from signalbus.ledger.history import GroupNotes, group_notes, newest_release
from signalbus.models import Delivery, FailedAttempt
from signalbus.pages.delivery_search import id_in
from signalbus.pages.shown_text import short
from signalbus.services.actors import OPERATE
from signalbus.services.groups import newest_failure_groups, note_group
from signalbus.web.file_export import file_of, format_of, iso
from signalbus.web.page_access import page
from signalbus.web.page_layout import render_page, url_of
from signalbus.web.svg_charts import Bar, bars_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from django.http import HttpRequest, HttpResponse

    from signalbus.services.actors import Actor
    from signalbus.services.groups import FailureGroup

GROUPS: Final = 30  # of a page
EXPORTED: Final = 1000  # of a file
COLUMNS: Final = ("group", "count", "signal", "receiver", "error", "first", "last", "latest", "states")
HOURS: Final = 24  # of the small charts
ATTEMPTS: Final = 10_000  # failed attempts that these look at, the youngest of the groups of the page
SPARK_HEIGHT: Final = 24  # pixels
RELEASES: Final = 3  # that are named
NOTES: Final = 5  # of a group
KIND_CHARS: Final = 10
GROUP_CHARS: Final = 50
TEXT_CHARS: Final = 500  # of a note


@dataclass(slots=True)
class Recent:
    """The failed attempts of a group within a day.

    Args:
        hours: their number by hour, the oldest first.
        releases: their number by the release of the project's code.
    """

    hours: list[int] = field(default_factory=lambda: [0] * HOURS)
    releases: Counter[str] = field(default_factory=Counter)


@page()
def failure_list(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Show the groups of unresolved failures, the largest first."""
    return _show(request, actor)


@page(permission=OPERATE, methods=("POST",))
def note(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Write a note about a group, mute it until the next release, or end that."""
    kind, group, text = (request.POST.get(key, "").strip() for key in ("kind", "group", "text"))
    try:
        note_group(kind[:KIND_CHARS], group[:GROUP_CHARS], actor=actor, text=text[:TEXT_CHARS])
    except ConfigurationError as error:
        return _show(request, actor, short(str(error)))
    return HttpResponseRedirect(url_of(request, "failures"))


def _show(request: HttpRequest, actor: Actor, problem: str = "") -> HttpResponse:
    after, kind = id_in(request.GET.get("after", "")), format_of(request)
    found = newest_failure_groups(EXPORTED if kind else GROUPS, after)
    groups = found.groups
    if kind:
        return file_of("failures", kind, COLUMNS, map(_row, groups))
    recent, release = _recent([group.id for group in groups]), newest_release()
    notes = group_notes(release)
    first = _first_releases(groups) if release else {}
    shown = [
        _shown(
            group, recent[group.id], notes.get(group.id, GroupNotes()),
            is_new=release in recent[group.id].releases and first.get(group.id) == release,
        )
        for group in groups
    ]  # fmt: skip
    context = {
        "groups": sorted(shown, key=lambda each: each["notes"].is_muted), "problem": problem, "chars": TEXT_CHARS,
        "release": release, "has_more": found.has_more,
        "looked_at": found.looked_at, "further": found.end, "is_first": after is None,
        "every": 15 if after is None and not problem else 0,
        "total": sum(group.count for group in groups), "asked": "" if after is None else f"after={after}",
    }  # fmt: skip
    return render_page(request, actor, "failure_list.html", "failures", context, status=400 if problem else 200)


def _row(group: FailureGroup) -> dict[str, Any]:
    """Return a group as a row of a file."""
    latest = group.example
    return {
        "group": group.id, "count": group.count, "signal": latest.message.signal, "receiver": latest.receiver,
        "error": latest.error, "first": iso(group.first), "last": iso(group.last), "latest": str(latest.pk),
        "states": ", ".join(f"{number} {state}" for state, number in group.states.items()),
    }  # fmt: skip


def _shown(group: FailureGroup, recent: Recent, notes: GroupNotes, *, is_new: bool) -> dict[str, Any]:
    bars: list[Bar] = bars_of(recent.hours, SPARK_HEIGHT, 2)
    named = sorted(name for name in recent.releases if name)
    return {
        "is_new": is_new,
        "notes": notes, "shown_notes": notes.notes[:NOTES],
        "group": group, "bars": bars, "day": sum(recent.hours), "most": max(recent.hours),
        "releases": named[:RELEASES], "more_releases": max(0, len(named) - RELEASES), "states": group.states.items(),
    }  # fmt: skip


def _first_releases(groups: Sequence[FailureGroup]) -> dict[str, str]:
    """Return by group the release in which the oldest attempt that is kept of it failed."""
    alias = ledger.using()
    kept = FailedAttempt.objects.using(alias).filter(error_group=OuterRef("error_group")).order_by("ended_at")
    rows = Delivery.objects.using(alias).filter(pk__in=[group.example.pk for group in groups]).order_by()
    return dict(rows.values_list("error_group", Subquery(kept.values("release")[:1])))


def _recent(ids: Sequence[str]) -> defaultdict[str, Recent]:
    """Return the failed attempts of some groups within a day, of at most 10,000 rows."""
    found: defaultdict[str, Recent] = defaultdict(Recent)
    if not ids:
        return found
    alias = ledger.using()
    now: datetime = ledger.clock_of(alias)
    rows = FailedAttempt.objects.using(alias).filter(error_group__in=ids, ended_at__gte=now - timedelta(hours=HOURS))
    for group, ended_at, release in rows.order_by().values_list("error_group", "ended_at", "release")[:ATTEMPTS]:
        hour = HOURS - 1 - int((now - ended_at).total_seconds() // 3600)
        found[group].hours[min(HOURS - 1, max(0, hour))] += 1
        found[group].releases[release] += 1
    return found
