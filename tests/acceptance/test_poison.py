"""A receiver that ends its process is bounded, and dies alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from signalbus.models import Delivery, State
from tasks.marketing.models import FormEntry
from tests.misbehaving.signals import poisoned
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.servers import Worker

ATTEMPTS = 2  # that its receiver's policy allows


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    """Both have it."""
    return str(request.param)


@pytest.mark.parametrize("company", [0, 99])
def test_a_poison_message_dies_alone(start_worker: Callable[..., Worker], tmp_path: Path, company: int):
    """It runs at most once more than its attempts; the 99 others of its batch are done, at the first attempt, once."""
    log = tmp_path / "poison"
    log.touch()
    worker = start_worker(environment={"DJANGO_SETTINGS_MODULE": "tests.settings", "POISON_LOG": str(log)})
    main = worker.pid
    poison = company // 2

    poisoned.send_many(None, [{"number": number, "poison": poison} for number in range(company + 1)])

    over = Delivery.objects.filter(state__in=(State.DONE, State.DEAD))
    wait_until(lambda: over.count() == company + 1, 60, "all to end")
    assert len(log.read_text(encoding="utf-8").splitlines()) <= ATTEMPTS + 1
    dead = Delivery.objects.get(state=State.DEAD)
    assert "its worker was lost" in dead.error
    done = Delivery.objects.filter(state=State.DONE)
    assert set(done.values_list("attempts", flat=True)) <= {1}
    effects = FormEntry.objects.filter(kind="poisoned").values_list("subject", flat=True)
    assert sorted(map(int, effects)) == [number for number in range(company + 1) if number != poison]
    assert worker.pid == main
