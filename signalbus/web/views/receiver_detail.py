"""One receiver: does it work, did a release break it, and how is it stopped?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.utils.translation import gettext as _

from signalbus.ledger.history import BOUNDS
from signalbus.pages import figures
from signalbus.pages.figures import SPANS, ReceiverFigures, Times
from signalbus.services.changes.pausing import paused
from signalbus.services.groups import newest_failure_groups
from signalbus.services.queries.explanation import explain, known_signals
from signalbus.web.page_access import page
from signalbus.web.page_layout import render_page
from signalbus.web.svg_charts import bars_of, chart_of
from signalbus.web.views.overview import span_of

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    from signalbus.ledger.operations import Paused
    from signalbus.services.actors import Actor

MOST_CHARS: Final = 1000  # of a name
GROUPS: Final = 5


@page()
def receiver_detail(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Show the policy of a receiver, its outcomes, its times, and its failures in a range of time."""
    name, span = request.GET.get("id", "")[:MOST_CHARS].replace("\x00", ""), span_of(request)
    places = [(found, each) for found in map(explain, known_signals()) for each in found.receivers if each.id == name]
    found = figures.of_receiver(span, name)
    outcomes, runtimes = found.outcomes, found.runtimes
    done, failed = outcomes.total("done"), outcomes.total("failed") + outcomes.total("dead")
    pause = _pause_of(name, [each.queue for _found, each in places], paused(actor, counts_held=False))
    groups = _groups(name) if failed else []
    context = {
        "name": name, "places": places, "span": span.key, "spans": SPANS, "every": 15, "done": done,
        "failed": failed, "dead": outcomes.total("dead"), "skipped": outcomes.total("skipped"),
        "success": None if not done + failed else 100 * done / (done + failed),
        "runtime": _quantiles(runtimes), "delay": _quantiles(found.delays), "runtime_bars": bars_of(runtimes.histogram),
        "bounds": (BOUNDS[0], BOUNDS[len(BOUNDS) // 2], BOUNDS[-1]),
        "ran": runtimes.number, "releases": _releases(found), "pause": pause, "groups": groups,
        "chart": chart_of(
            outcomes,
            [(_("Done"), "f-bar", ("done",)), (_("Failed"), "f-warn", ("failed",)), (_("Dead"), "f-bad", ("dead",))],
        ),
    }  # fmt: skip
    status = 200 if places or done or failed else 404
    return render_page(request, actor, "receiver_detail.html", "signals", context, status=status)


def _quantiles(found: Times) -> dict[str, float | None]:
    return {"median": found.quantile(0.5), "most": found.quantile(0.95)}


def _releases(found: ReceiverFigures) -> list[dict[str, Any]]:
    rows = []
    for release, sums in found.releases:
        ran = sums["done"] + sums["failed"] + sums["dead"]
        rows.append(
            {
                "release": release, "ran": ran, "success": 100 * sums["done"] / ran if ran else None,
                "mean": sums["runtime_ms"] / ran if ran else None,
            }
        )  # fmt: skip
    return rows


def _pause_of(name: str, queues: list[str], pauses: list[Paused]) -> Paused | None:
    """Return the pause that holds a receiver, by its own name or its queue's."""
    wanted = {("receiver", name), *(("queue", queue) for queue in queues)}
    return next((each for each in pauses if (each.kind, each.name) in wanted and each.resumed_at is None), None)


def _groups(name: str) -> list[Any]:
    """Return the unresolved failures of a receiver by their cause, among the largest groups of all."""
    return [group for group in newest_failure_groups(100).groups if group.example.receiver == name][:GROUPS]
