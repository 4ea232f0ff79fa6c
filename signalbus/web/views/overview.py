"""The first page: is something wrong, what, and since when?"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from django.utils.translation import gettext as _

from signalbus.celery import default_queue
from signalbus.ledger import operations as ledger
from signalbus.models import Alert, State, StoredMessage
from signalbus.pages import figures
from signalbus.pages.figures import SPANS, Span
from signalbus.pages.open_counts import COUNTED, OpenCounts, count_ended, count_open
from signalbus.registration.registry import registry
from signalbus.services.groups import newest_failure_groups
from signalbus.services.queries.live_workers import running, workers
from signalbus.web.page_access import page
from signalbus.web.page_layout import render_page
from signalbus.web.svg_charts import chart_of

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    from signalbus.services.actors import Actor
    from signalbus.services.queries.live_workers import ListedWorker

GROUPS: Final = 5  # failures by cause
RUNS: Final = 8  # long runs
QUEUES: Final = 50
LATE: Final = timedelta(minutes=1)  # of a delivery that waits
SILENT: Final = timedelta(minutes=5)  # of the sweepers: one reports each half minute


@page()
def overview(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Show what needs attention, eight figures, the outcomes over time, failures, queues and long runs."""
    span = span_of(request)
    found, listed = figures.outcomes(span), workers(actor)
    counts, dead, rates = count_open(), count_ended(State.DEAD, COUNTED), figures.rates()
    queues = queue_rows(counts, rates.by_queue, listed)
    runs = running(actor)
    context = {
        "span": span.key, "spans": SPANS, "every": 5, "rates": rates, "counts": counts, "dead": dead,
        "queues": queues, "runs": runs[:RUNS], "more_runs": max(0, len(runs) - RUNS),
        "groups": newest_failure_groups(GROUPS).groups,
        "minutes": span.seconds / 60, "total_done": found.total("done"),
        "usual_failed": found.total("failed") + found.total("dead"),
        "chart": chart_of(
            found,
            [(_("Done"), "f-bar", ("done",)), (_("Failed"), "f-bad", ("failed", "dead"))],
        ),
        "is_empty": not found.total("done") and not counts.states and not dead and _is_empty(),
        "has_signals": any(signal.entries() for signal in registry),
        **_waiting(counts), **_living(listed), **_last_cleared(),
    }  # fmt: skip
    return render_page(request, actor, "overview.html", "overview", context)


def span_of(request: HttpRequest) -> Span:
    """Return the range of time that the address asks for; an hour if it names none."""
    return SPANS.get(request.GET.get("span", ""), SPANS["1h"])


def queue_rows(counts: OpenCounts, done: dict[str, float], listed: list[ListedWorker]) -> list[dict[str, Any]]:
    """Return what a table of queues shows, those that clear last first.

    Args:
        counts: what is open.
        done: deliveries that ended in a minute, by queue; the default one is empty.
        listed: the workers.
    """
    living = [worker.row for worker in listed if not worker.is_gone]
    consumed = {queue for row in living for queue in row.queues}
    names = dict.fromkeys([default_queue(), *registry.queues(), *sorted(counts.queues), *sorted(consumed)])
    rows = [_queue_row(queue, counts, done, living) for queue in list(names)[:QUEUES]]
    return sorted(rows, key=lambda row: (-row["clears"], row["name"]))


def _queue_row(queue: str, counts: OpenCounts, done: dict[str, float], living: list[Any]) -> dict[str, Any]:
    waiting = counts.waiting(queue)
    rate = done.get(queue, 0.0) + (done.get("", 0.0) if queue == default_queue() else 0.0)
    slots = sum(row.concurrency for row in living if queue in row.queues)
    clears = 0.0 if not waiting else max(1.0, waiting.number / rate * 60) if rate else float("inf")
    oldest = counts.oldest.get(queue)
    return {
        "name": queue, "waiting": waiting, "oldest": oldest, "age": None if oldest is None else _age(oldest),
        "held": counts.queues.get(queue, Counter())[State.HELD.value],
        "rate": rate, "slots": slots, "workers": sum(queue in row.queues for row in living),
        "clears": clears, "never": clears == float("inf"),
        "is_late": oldest is not None and _age(oldest) > LATE.seconds,
    }  # fmt: skip


def _waiting(counts: OpenCounts) -> dict[str, Any]:
    waiting = counts.number(State.PUBLISHED, State.PENDING)
    queue, oldest = min(counts.oldest.items(), key=lambda item: item[1], default=("", None))
    seconds = None if oldest is None else _age(oldest)
    return {
        "waiting": waiting, "held": counts.number(State.HELD), "parked": counts.number(State.PARKED),
        "oldest": seconds, "oldest_queue": queue, "is_late": seconds is not None and seconds > LATE.seconds,
    }  # fmt: skip


def _living(listed: list[ListedWorker]) -> dict[str, Any]:
    alias = ledger.using()
    swept = ledger.sweeper_seen_at()
    silence = None if swept is None else _age(ledger.in_utc(swept, alias))
    return {
        "alive": sum(not worker.is_gone for worker in listed), "all_workers": len(listed),
        "swept": silence, "is_unswept": silence is None or silence > SILENT.seconds,
    }  # fmt: skip


def _last_cleared() -> dict[str, Any]:
    last = Alert.objects.using(ledger.using()).exclude(cleared_at=None).order_by("-raised_at").first()
    return {"last_alert": last}


def _is_empty() -> bool:
    return not figures.has_any() and not StoredMessage.objects.using(ledger.using()).exists()


def _age(moment: datetime) -> float:
    return max(0.0, (datetime.now(UTC) - moment).total_seconds())
