"""Signals: who sends to whom, what does nobody receive, and what was never sent?"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from signalbus.pages.figures import SPANS, totals_by_receiver
from signalbus.services.changes.pausing import paused
from signalbus.services.queries.explanation import explain, known_signals
from signalbus.services.queries.live_workers import workers
from signalbus.web.file_export import file_of, format_of
from signalbus.web.page_access import page
from signalbus.web.page_layout import render_page
from signalbus.web.views.overview import span_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.http import HttpRequest, HttpResponse

    from signalbus.sending.signal import Signal
    from signalbus.services.actors import Actor

SHOWN: Final = 500  # signals of a page
MOST_CHARS: Final = 100  # of the text that is looked for
COLUMNS: Final = (
    "signal",
    "place",
    "receiver",
    "receiver_place",
    "sender",
    "queue",
    "policy",
    "done",
    "failed",
    "dead",
)
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
    names = [name for name, signal in known_signals().items() if _has(part, name, signal)]
    signals = [_signal(name, totals, lacking, pauses) for name in names[:SHOWN]]
    if only in ONLY:
        signals = [each for each in signals if each[only]]
    if kind := format_of(request):
        return file_of("signals", kind, COLUMNS, (row for each in signals for row in _rows(each)))
    context = {
        "signals": signals, "span": span.key, "spans": SPANS, "q": part, "only": only if only in ONLY else "",
        "more": max(0, len(names) - SHOWN), "asked": urlencode({"q": part, "only": only if only in ONLY else ""}),
        "export": urlencode({"q": part, "only": only, "span": span.key}),
    }  # fmt: skip
    return render_page(request, actor, "signal_list.html", "signals", context)


def _has(part: str, name: str, signal: Signal) -> bool:
    """Return whether the name of a signal, or of one of its receivers, has a part."""
    return part in name.lower() or any(part in entry.id.lower() for entry in signal.entries())


def _rows(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a signal's receivers as rows of a file; a signal without receivers as one."""
    signal = found["signal"]
    for row in found["rows"] or [{"receiver": None, "totals": {}}]:
        receiver, totals = row["receiver"], row["totals"]
        yield {
            "signal": signal.signal, "place": signal.place,
            **{name: getattr(receiver, name, None) for name in ("sender", "queue", "policy")},
            "receiver": getattr(receiver, "id", None), "receiver_place": getattr(receiver, "place", None),
            **{name: totals.get(name, 0) for name in ("done", "failed", "dead")},
        }  # fmt: skip


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
