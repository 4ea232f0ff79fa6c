"""A rolling deploy from 0.1 and from 0.4.1: old workers and senders beside the new ones, on one database and broker."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from signalbus.embedded import EmbeddedValkey
from tests.servers import wait_until
from tests.wheel.clean_project import CleanProject

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import Worker
    from tests.wheel.clean_project import Sender

# SIGNALBUS_ROLLING=100: orders that each of the senders places in each phase.
AT_ONCE = int(os.environ.get("SIGNALBUS_ROLLING", "10"))


def end(worker: Worker) -> None:
    """End a worker as a deploy does, and wait for its end."""
    worker.signal(signal.SIGTERM)
    assert worker.wait(60) == 0


def place(*senders: Sender) -> None:
    """Have all of them place orders, at the same time."""
    for sender in senders:
        sender.tell(AT_ONCE)
    for sender in senders:
        sender.wait()


@pytest.mark.timeout(600)
def test_promise_7_old_and_new_in_turn_lose_and_double_nothing(
    binaries: Path, earlier_version: str, earlier_binaries: Path, tmp_path: Path
):
    """Old alone, new tables while it works, both, new alone, old alone again, and new: one mail for each order.

    What 0.1 sends is not durable: a worker of it that is told to end while it works may leave what it has done
    unacknowledged, so that it runs again. (Ours does not, on any version of Celery.)
    """
    with EmbeddedValkey() as valkey, ExitStack() as stack:
        old, new = (CleanProject(tmp_path, each, valkey.url) for each in (earlier_binaries, binaries))
        old.make_tables()
        old_worker = stack.enter_context(old.worker())
        old_sender = stack.enter_context(old.sender())
        old_sender.tell(AT_ONCE)
        new.manage("migrate", "--verbosity", "0")
        old_sender.wait()
        new_sender = stack.enter_context(new.sender())

        new_worker = stack.enter_context(new.worker())
        place(old_sender, new_sender)
        end(old_worker)
        place(old_sender, new_sender)
        old_worker.start().wait_until_ready()
        end(new_worker)
        place(old_sender, new_sender)
        new_worker.start().wait_until_ready()
        end(old_worker)
        place(old_sender, new_sender)

        placed = AT_ONCE * 9
        wait_until(lambda: len(set(new.mails())) == placed and not new.open(), 240, "all to be done")
        mails = Counter(new.mails())
        assert sorted(mails) == new.orders()
        assert len(mails) == placed
        may_repeat = new.orders(of="0.1") if earlier_version == "0.1" else []
        assert {order for order, count in mails.items() if count > 1} <= set(may_repeat)
        assert new.rows("SELECT state FROM signalbus_delivery WHERE state NOT IN ('done', 'discarded')") == []
