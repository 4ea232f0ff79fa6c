"""Measures the web app's pages on a large ledger: ``python -m benchmarks.web_pages sqlite|postgres DELIVERIES N``.

The ledger is that of `benchmarks.admin_pages`, with a month of counts for fifty receivers and two releases, and an
operation.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from benchmarks import admin_pages
from signalbus.embedded import EmbeddedValkey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.admin_pages import Page

ROOT: Final = "/signalbus/"
SERIES: Final = 50
# Seconds of a period, and how many of them are kept.
PERIODS: Final = ((60, 480), (600, 6 * 64), (3600, 27 * 24))


def main(*arguments: str) -> int:
    """Run the benchmark, and print its table."""
    with EmbeddedValkey() as server:  # which the doctor asks
        os.environ["CELERY_BROKER_URL"] = server.url
        return admin_pages.main(*arguments, wanted=pages)


def count_outcomes() -> None:
    """Write the counts of a month, as the sweeper has merged them."""
    from django.utils import timezone  # noqa: PLC0415 - needs Django's apps

    from signalbus.models import Rollup  # noqa: PLC0415 - as above

    at, rows = timezone.now().replace(second=0, microsecond=0), []
    for seconds, number in PERIODS:
        for period in range(number):
            rows += [
                Rollup(
                    bucket_at=at, seconds=seconds, release="a1b2" if period else "c3d4", signal=f"shop.signal_{place}",
                    receiver="crm.sync" if not place else f"mail.send_{place}", done=100, failed=1,
                    runtimes=[3] * 31, delays=[3] * 31,
                )
                for place in range(SERIES)
            ]  # fmt: skip
            at -= timedelta(seconds=seconds)
    Rollup.objects.bulk_create(rows, batch_size=500)


def pages() -> Iterator[Page]:
    """Yield the pages by name."""
    from django.contrib.auth import get_user_model  # noqa: PLC0415 - needs Django's apps

    from signalbus.models import Delivery  # noqa: PLC0415 - as above
    from signalbus.services.actors import user_actor  # noqa: PLC0415 - as above
    from signalbus.services.changes.bulk_operations import start_operation  # noqa: PLC0415 - as above
    from signalbus.services.queries.lookup import filter_from  # noqa: PLC0415 - as above

    count_outcomes()
    actor = user_actor(get_user_model().objects.get(), "web")
    operation = start_operation("retry", filter_from(["state:dead"]), actor=actor, reason="benchmark")
    dead = Delivery.objects.filter(state="dead").order_by("-id").values_list("id", flat=True)
    deliveries = f"{ROOT}deliveries/"
    for span in ("1h", "8h", "3d", "30d"):
        yield f"overview, {span}", f"{ROOT}?span={span}"
    yield "deliveries", deliveries
    yield "deliveries, in the middle", f"{deliveries}?after={dead[len(dead) // 2]}"
    yield "deliveries that are dead", f"{deliveries}?q=state:dead"
    yield "deliveries that are done", f"{deliveries}?q=state:done"
    yield "deliveries of the last hour", f"{deliveries}?since=1h"
    yield "deliveries to a receiver that has none", f"{deliveries}?q=receiver:nobody.*"
    yield "deliveries with an error that none has", f"{deliveries}?q=error:*nothing*"
    yield "a new delivery", f"{deliveries}{dead[0]}/"
    yield "an old delivery", f"{deliveries}{dead.reverse()[0]}/"
    yield "a file of deliveries", f"{deliveries}?q=state:dead&format=csv"
    yield "history of an object", f"{ROOT}history/?subject=shop.order:4711"
    yield "history of an object without messages", f"{ROOT}history/?subject=shop.order:none"
    yield "failures", f"{ROOT}failures/"
    yield "a file of failures", f"{ROOT}failures/?format=csv"
    yield "preview of a group", f"{ROOT}change/?verb=retry&q=group:g3"
    yield "preview of all that is dead", f"{ROOT}change/?verb=retry&q=state:dead"
    yield "operations", f"{ROOT}operations/"
    yield "an operation", f"{ROOT}operations/{operation.id}/"
    yield "signals", f"{ROOT}signals/"
    yield "signals, 30d", f"{ROOT}signals/?span=30d"
    yield "graph", f"{ROOT}graph/"
    yield "a receiver, 1h", f"{ROOT}receiver/?id=crm.sync"
    yield "a receiver, 30d", f"{ROOT}receiver/?id=crm.sync&span=30d"
    yield "queues", f"{ROOT}queues/"
    yield "workers", f"{ROOT}workers/"
    yield "activity", f"{ROOT}activity/"
    yield "doctor", f"{ROOT}doctor/"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
