"""A project with the wheel while its workers are killed, and its broker is wiped and dies."""

from __future__ import annotations

import os
import random
import signal
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import redis

from signalbus.embedded import EmbeddedValkey
from tests.servers import wait_until
from tests.wheel.clean_project import CleanProject

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import Postgres, Worker
    from tests.wheel.clean_project import Sender

# SIGNALBUS_WHEEL_ORDERS=1500: as the promise is shown; without it a short form of the same.
ORDERS = int(os.environ.get("SIGNALBUS_WHEEL_ORDERS", "150"))
AT_ONCE = 50
KILLS = ORDERS // AT_ONCE
WIPED_AT, CRASH_AT = {0, KILLS - 1}, KILLS // 2  # of the kills
QUEUE = "signalbus"


def signal_all(workers: list[Worker], number: signal.Signals) -> None:
    """Send a signal to each process of each worker."""
    for worker in workers:
        assert worker.pid is not None
        os.killpg(worker.pid, number)


def wipe(workers: list[Worker], valkey: EmbeddedValkey, sender: Sender, project: CleanProject) -> int:
    """Flush the broker while orders wait there, and return how many waited.

    The workers are stopped from the middle of the orders to the flush: on a machine under load they would otherwise be
    done with the last order between the look at the queue and the flush, or before the look.
    """
    sender.tell(AT_ONCE // 2)
    try:
        wait_until(lambda: stop_between_transactions(workers, project), 60, "a moment without a transaction")
        sender.tell(AT_ONCE - AT_ONCE // 2)
        with redis.Redis.from_url(valkey.redis_url) as client:
            wait_until(lambda: client.llen(QUEUE), 60, "a backlog")
            waited, _ = client.pipeline().llen(QUEUE).flushall().execute()
            return int(waited)
    finally:
        signal_all(workers, signal.SIGCONT)


def stop_between_transactions(workers: list[Worker], project: CleanProject) -> bool:
    """Stop the workers; let them continue and return False if one of them was stopped while it locks the database.

    SQLite has one write lock for the whole database: a worker that stops inside a transaction would block the sender.
    """
    signal_all(workers, signal.SIGSTOP)
    if project.can_write():
        return True
    signal_all(workers, signal.SIGCONT)
    return False


def kill(worker: Worker, *, children_too: bool) -> None:
    """End a worker: its container, or its main process alone, whose children go on for a moment."""
    assert worker.pid is not None
    if children_too:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    else:
        worker.kill()


def inject_faults(
    workers: list[Worker], valkey: EmbeddedValkey, sender: Sender, project: CleanProject, spread: random.Random
) -> list[int]:
    """Kill workers, wipe and crash the broker while orders are placed; return how many items waited at each wipe."""
    pause = threading.Event()  # never set
    waited = []
    for turn in range(KILLS):
        worker = workers[turn % 2]
        if turn in WIPED_AT:
            waited.append(wipe(workers, valkey, sender, project))
        else:
            sender.tell(AT_ONCE)
        if turn == CRASH_AT:
            valkey.kill()
            pause.wait(spread.random())
            valkey.start()
        pause.wait(spread.random())
        kill(worker, children_too=turn % 4 < 2)
        worker.start()
        worker.wait_until_ready()
        sender.wait()
    return waited


@pytest.mark.timeout(240 + ORDERS)
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_each_order_has_its_one_effect_whatever_is_killed(
    database: str, binaries_on_postgres: Path, tmp_path: Path, request: pytest.FixtureRequest
):
    """There are durable signals, receivers of 20 ms, a kill about every second, two FLUSHALLs with a backlog, and
    a crash.
    """
    spread = random.Random(ORDERS)
    server: Postgres | None = request.getfixturevalue("postgres_server") if database == "postgres" else None
    with EmbeddedValkey() as valkey, ExitStack() as stack:
        project = CleanProject(tmp_path, binaries_on_postgres, valkey.url, None if server is None else server.create())
        project.make_tables()
        workers = [stack.enter_context(project.worker()) for _ in range(2)]
        sender = stack.enter_context(project.sender())
        waited = inject_faults(workers, valkey, sender, project, spread)
        wait_until(lambda: not project.open(), 180, "all to be done")
        books = project.audit()

    assert all(waited)
    orders = project.orders()
    assert len(orders) == KILLS * AT_ONCE
    assert project.mails() == orders
    assert books["missing_total"] == 0
    assert [row["done"] for row in books["rows"]] == [len(orders)]
