"""Signals: who sends to whom, what does nobody receive, and what was never sent?"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from signalbus.pages.figures import SPANS, totals_by_receiver
from signalbus.services.explanation import explain, known_signals
from signalbus.services.live_workers import workers
from signalbus.services.pausing import paused
from signalbus.web.page_access import page
from signalbus.web.page_layout import render_page
from signalbus.web.views.overview import span_of

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    from signalbus.services.actors import Actor

SHOWN: Final = 500  # signals of a page
MOST_CHARS: Final = 100  # of the text that is looked for
ONLY: Final = ("nobody", "quiet")


@page()
def signal_list(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Show the signals that this process knows with their receivers, and what became of them in a range of time."""
    span, part = span_of(request), request.GET.get("q", "")[:MOST_CHARS].strip().lower()
    only = request.GET.get("only", "")
    totals = totals_by_receiver(span)
    lacking: defaultdict[str, list[str]] = defaultdict(list)
    for worker in workers(actor):
        for pair in worker.lacks:
            lacking[pair].append(worker.row.name)
    pauses = {(each.kind, each.name) for each in paused(actor, counts_held=False) if each.resumed_at is None}
    names = [name for name in known_signals() if part in name.lower()]
    signals = [_signal(name, totals, lacking, pauses) for name in names[:SHOWN]]
    if only in ONLY:
        signals = [each for each in signals if each[only]]
    context = {
        "signals": signals, "span": span.key, "spans": SPANS, "q": part, "only": only if only in ONLY else "",
        "more": max(0, len(names) - SHOWN), "asked": urlencode({"q": part, "only": only if only in ONLY else ""}),
    }  # fmt: skip
    return render_page(request, actor, "signal_list.html", "signals", context)


def _signal(
    name: str, totals: dict[tuple[str, str], Any], lacking: dict[str, list[str]], pauses: set[tuple[str, str]]
) -> dict[str, Any]:
    found = explain(name)
    rows = [
        {
            "receiver": each, "totals": totals.get((found.signal, each.id), {}),
            "lacking": lacking.get(f"{found.signal} -> {each.id}", []),
            "is_paused": ("receiver", each.id) in pauses or ("queue", each.queue) in pauses,
        }
        for each in found.receivers
    ]  # fmt: skip
    return {
        "signal": found,
        "rows": rows,
        "nobody": not rows and not found.inline,
        "quiet": not any(signal == found.signal for signal, _receiver in totals),
        "is_paused": ("signal", found.signal) in pauses,
    }
