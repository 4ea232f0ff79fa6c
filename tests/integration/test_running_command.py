"""``manage.py signalbus running`` lists workers and what they run."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from django.core.management import call_command

from signalbus.ledger.base.clock import later
from signalbus.models import RunningDelivery, WorkerRecord

if TYPE_CHECKING:
    from .bus import Bus


def run(*options: str) -> str:
    """Run the command, and return what it prints."""
    out = io.StringIO()
    call_command("signalbus", "running", *options, stdout=out)
    return out.getvalue()


def status() -> str:
    """Run ``status``, and return what it prints."""
    out = io.StringIO()
    call_command("signalbus", "status", stdout=out)
    return out.getvalue()


def worker(name: str, *, seen: float = -1, **values: Any) -> None:
    """Make the row of a worker that was seen some seconds ago."""
    columns = {
        "host": "web-1", "pid": 7, "pool": "prefork", "concurrency": 4, "queues": ["signalbus", "email"],
        "version": "0.5.0", "registry_digest": "d", "started_at": later(-60), "seen_at": later(seen), **values,
    }  # fmt: skip
    WorkerRecord.objects.create(name=name, **columns)


def delivery(name: str, *, began: float, seen: float = -1, id_: str = "") -> str:
    """Make the row of a delivery that a process has been running, and return its id."""
    id_ = id_ or str(uuid4())
    RunningDelivery.objects.create(
        worker=name, delivery=id_, message=uuid4(), signal="shop.sold", receiver="crm.sync\x1b[31m", attempt=2,
        started_at=later(began), seen_at=later(seen),
    )  # fmt: skip
    return id_


def test_workers_and_their_long_runs_are_listed(bus: Bus):
    """The longest run comes first; control characters are escaped."""
    worker("web-1:7", release="c3d4")
    young, old = delivery("web-1:8", began=-3), delivery("web-1:9", began=-200)

    shown = run()

    assert "web-1:7  prefork 4  queues signalbus, email  signalbus 0.5.0  release c3d4  seen 1 s ago" in shown
    assert "3 min 20 s  shop.sold -> crm.sync\\x1b[31m  attempt 2  in web-1:9" in shown
    assert shown.index(old) < shown.index(young)
    assert "NO SIGN" not in shown


def test_status_reports_what_may_hang(bus: Bus):
    """Somebody who looks at the status first is sent to `running`; a run of some seconds is no news."""
    delivery("web-1:8", began=-25)
    assert "running" not in status()

    delivery("web-1:9", began=-100)

    assert (
        "1 delivery has been running for more than 30 s, the longest for 1 min 40 s: `manage.py signalbus running`"
        in status()
    )


def test_running_reports_a_delivery_that_runs_again_elsewhere(bus: Bus):
    """A receiver that hung in a group commit has lost its transaction: the run that counts is a younger one."""
    id_ = delivery("web-1:8", began=-60)
    delivery("web-1:9", began=-40, id_=id_)

    first, second = [line for line in run().splitlines() if id_ in line]

    assert first.endswith(f"in web-1:8  {id_}; IT RUNS AGAIN in web-1:9")
    assert second.endswith(f"in web-1:9  {id_}")


def test_running_reports_a_worker_without_a_sign_of_life(bus: Bus):
    """A killed worker leaves its rows."""
    worker("web-1:7", seen=-90)
    delivery("web-1:8", began=-100, seen=-90)

    shown = run()

    assert "GONE since" in shown
    assert "ITS PROCESS GIVES NO SIGN" in shown
    found = json.loads(run("--json"))
    assert (found["schema"], found["workers"][0]["is_gone"], found["running"][0]["is_lost"]) == (1, True, True)


def test_running_reports_a_worker_with_older_code(bus: Bus):
    """It lacks a receiver that another living worker knows; workers that are gone do not count."""
    worker("a:1", receivers={"shop.sold": ["crm.sync"]})
    worker("b:2", receivers={"shop.sold": ["crm.sync", "mail.send"]})
    worker("c:3", seen=-90, receivers={"shop.sold": ["gone.receiver"]})

    shown = run()

    assert shown.count("lacks") == 1
    assert "lacks shop.sold -> mail.send" in shown


def test_without_workers_the_command_says_where_to_look(bus: Bus):
    """Neither workers nor runs are recorded."""
    assert run() == (
        "No worker has been seen: `manage.py signalbus status` asks the broker.\n"
        "Nothing has been running for more than a second.\n"
    )
