"""Queues and pauses: what waits where, what is paused, and the forms that pause and resume."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from django.http import HttpResponseRedirect
from django.utils.translation import gettext as _

from signalbus.exceptions import ConfigurationError
from signalbus.pages import figures
from signalbus.pages.open_counts import count_open
from signalbus.pages.shown_text import short
from signalbus.services.actors import OPERATE
from signalbus.services.changes import pausing
from signalbus.services.changes.bulk_operations import read_rate
from signalbus.services.changes.pausing import PAUSE_KINDS
from signalbus.services.queries.live_workers import workers
from signalbus.web.page_access import page
from signalbus.web.page_layout import render_page, url_of
from signalbus.web.views.overview import queue_rows

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    from signalbus.services.actors import Actor

REASON_CHARS: Final = 500
PAUSES: Final = 100  # of a page
ENDS: Final[dict[str, int | None]] = {"": None, "15": 15, "60": 60, "240": 240, "1440": 1440}  # minutes
MOST_RATE: Final = 10_000.0  # deliveries a second


@page()
def queue_list(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Show the queues and the pauses."""
    return _show(request, actor)


@page(permission=OPERATE, methods=("POST",))
def pause(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Pause a receiver, a signal, a queue, or what a filter says."""
    kind, name, reason = (request.POST.get(key, "").strip() for key in ("kind", "name", "reason"))
    minutes = ENDS.get(request.POST.get("minutes", ""))
    if kind not in PAUSE_KINDS:
        return _show(request, actor, problem=_("Say what is to be paused."))
    try:
        until = None if minutes is None else timedelta(minutes=minutes)
        pausing.pause(kind, name, actor=actor, reason=reason[:REASON_CHARS], until=until)
    except ConfigurationError as error:
        typed = {"kind": kind, "name": short(name), "reason": reason[:REASON_CHARS]}
        return _show(request, actor, problem=short(str(error)), given=typed)
    return HttpResponseRedirect(f"{url_of(request, 'queues')}#pauses-now")


@page(permission=OPERATE, methods=("POST",))
def resume(request: HttpRequest, actor: Actor) -> HttpResponse:
    """End a pause; what it holds is released, at a rate if the form names one."""
    kind, name, reason = (request.POST.get(key, "").strip() for key in ("kind", "name", "reason"))
    if kind not in PAUSE_KINDS:
        return _show(request, actor, problem=_("Say what is to be resumed."))
    try:
        rate = rate_of(request.POST.get("rate", ""))
        pausing.resume(kind, name, actor=actor, reason=reason[:REASON_CHARS], rate=rate)
    except ConfigurationError as error:
        return _show(request, actor, problem=short(str(error)))
    return HttpResponseRedirect(f"{url_of(request, 'queues')}#pauses-now")


def rate_of(text: str) -> float | None:
    """Return the rate that somebody typed, in deliveries a second; None if the field is empty.

    Raises:
        ConfigurationError: it is no rate, as 20/s, 100/m or 20, or not between 0 and 10,000 a second.
    """
    if not text.strip():
        return None
    rate = read_rate(text.strip()[:20])
    if not 0 < rate <= MOST_RATE:
        raise ConfigurationError(f"The rate must be a number above 0, and at most {MOST_RATE:,.0f} a second.")
    return rate


def _show(
    request: HttpRequest, actor: Actor, *, problem: str = "", given: dict[str, Any] | None = None
) -> HttpResponse:
    listed, rates = workers(actor), figures.rates()
    context = {
        "queues": queue_rows(count_open(), rates.by_queue, listed),
        "paused": pausing.paused(actor, counts_held=False, limit=PAUSES),
        "kinds": PAUSE_KINDS, "ends": ENDS, "problem": problem, "given": given or _given(request),
        "reason_chars": REASON_CHARS, "every": 0 if problem else 5,
    }  # fmt: skip
    return render_page(request, actor, "queue_list.html", "queues", context, status=400 if problem else 200)


def _given(request: HttpRequest) -> dict[str, str]:
    """Return what a link to the form fills in."""
    return {key: short(request.GET.get(key, "")) for key in ("kind", "name")}
