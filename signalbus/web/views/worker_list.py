"""Workers: what runs, since when, and does each of them run the same code?"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from signalbus.pages.open_counts import count_open
from signalbus.services.queries.live_workers import running, workers
from signalbus.web.page_access import page
from signalbus.web.page_layout import render_page
from signalbus.web.views.overview import queue_rows

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    from signalbus.services.actors import Actor

SHOWN: Final = 200  # workers, and runs, of a page
LACKING: Final = 10  # receivers that a worker lacks, by name


@page()
def worker_list(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Show the workers, what they have been running for more than a second, and queues that none of them consumes."""
    listed, runs = workers(actor), running(actor)
    living = [worker for worker in listed if not worker.is_gone]
    rows = queue_rows(count_open(), {}, listed)
    context = {
        "workers": [
            (worker, worker.lacks[:LACKING], max(0, len(worker.lacks) - LACKING))
            for worker in listed[:SHOWN]
        ],
        "alive": len(living), "gone": len(listed) - len(living), "runs": runs[:SHOWN],
        "more_runs": max(0, len(runs) - SHOWN),
        "releases": Counter(worker.row.release for worker in living).most_common(),
        "digests": len({worker.row.registry_digest for worker in living}),
        "versions": sorted({worker.row.version for worker in living}),
        "unattended": [row for row in rows if row["waiting"] and not row["workers"]], "every": 5,
    }  # fmt: skip
    return render_page(request, actor, "worker_list.html", "workers", context)
