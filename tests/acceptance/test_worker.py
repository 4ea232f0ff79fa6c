"""A real worker among receivers that misbehave."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from signalbus.models import Delivery, State
from tasks.marketing.models import FormEntry
from tests.misbehaving.signals import (
    announced,
    arriving,
    awaited,
    cascading,
    endless,
    failing,
    fleeting,
    killing,
    mailed,
)
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import Worker

TESTS_SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.settings"}


def traces(kind: str) -> list[str]:
    """Return the subjects of the traces of a kind, in order."""
    return list(FormEntry.objects.filter(kind=kind).order_by("id").values_list("subject", flat=True))


def deliveries(receiver: str) -> list[Delivery]:
    """Return the ledger's deliveries to a receiver."""
    return list(Delivery.objects.filter(receiver__contains=receiver))


def wait_for_dead(receiver: str, timeout: float = 20) -> Delivery:
    """Wait until the one delivery to a receiver is dead."""
    rows = Delivery.objects.filter(receiver__contains=receiver, state=State.DEAD)
    return wait_until(rows.first, timeout, f"the death of {receiver}")


@pytest.fixture(params=["prefork", "threads"])
def worker(request: pytest.FixtureRequest, start_worker: Callable[..., Worker]) -> Worker:
    """A worker with the misbehaving receivers, on each pool."""
    return start_worker(pool=request.param, environment=TESTS_SETTINGS)


def test_promise_5_a_failing_receiver_does_not_affect_others(worker: Worker):
    """Beside receivers that raise, exit, use too much memory and reject, the healthy one runs; the others are
    retried and recorded.
    """
    main = worker.pid

    failing.send(sender=None, label="a")

    wait_until(lambda: traces("healthy") == ["a"], what="the healthy receiver")
    failed = [wait_for_dead(name) for name in ("that_raises", "that_exits", "that_eats_memory", "that_rejects")]
    assert [row.attempts for row in failed] == [2, 2, 2, 1]
    assert "ValueError: no luck with a" in failed[0].error
    assert "receiver_that_raises" in failed[0].traceback
    assert traces("written before the error") == []
    assert traces("healthy") == ["a"]
    assert worker.pid == main


def test_one_log_record_with_the_traceback_for_each_failure(start_worker: Callable[..., Worker]):
    """The worker's log has each failed attempt once, with its traceback; Celery's lines have the outcomes."""
    worker = start_worker(environment=TESTS_SETTINGS)

    failing.send(sender=None, label="logged")

    wait_for_dead("that_raises")
    wait_until(lambda: worker.log.count("ValueError: no luck with logged") >= 2, what="two tracebacks")
    assert worker.log.count("ValueError: no luck with logged") == 2
    assert worker.log.count("Traceback (most recent call last)") >= 2
    wait_until(lambda: "receiver_that_raises: dead" in worker.log, what="the line about the end of the task")
    of_raising = [line for line in worker.log.splitlines() if "Task signalbus.deliver[" in line and "_raises" in line]
    assert any("] received: " in line for line in of_raising)
    assert any("] ended in " in line and "receiver_that_raises: failed, again in " in line for line in of_raising)
    assert not any("succeeded" in line for line in of_raising)


def test_bad_input_a_killed_child_is_a_failed_attempt_bounded_then_dead(start_worker: Callable[..., Worker]):
    """A receiver that ends its process has a limited number of attempts; the other delivery is done."""
    worker = start_worker(environment=TESTS_SETTINGS)
    main = worker.pid

    killing.send(sender=None, label="k")

    dead = wait_for_dead("that_kills_its_process", timeout=40)
    wait_until(lambda: "k" in traces("healthy beside the killer"), 20, "the neighbour")
    assert (dead.error, dead.attempts) == ("its process was lost: signal 9 (SIGKILL)", 2)
    assert [row.attempts for row in deliveries("healthy_beside_the_killer")] == [1]
    assert worker.pid == main
    failing.send(sender=None, label="afterwards")
    wait_until(lambda: traces("healthy") == ["afterwards"], what="the next good message")


def test_a_receiver_that_overruns_the_time_limit_ends_dead(start_worker: Callable[..., Worker]):
    """A process that was killed for its time limit is a failed attempt; the worker goes on."""
    worker = start_worker(environment={**TESTS_SETTINGS, "TIME_LIMIT": "2"})

    endless.send(sender=None, label="e")

    dead = wait_for_dead("that_never_returns", timeout=40)
    assert dead.attempts <= 3
    assert worker.pid is not None
    failing.send(sender=None, label="afterwards")
    wait_until(lambda: traces("healthy") == ["afterwards"], what="the next good message")


def test_a_worker_without_q_consumes_every_receivers_queue(worker: Worker):
    """Without ``-Q`` a worker consumes a receiver's own queue too."""
    mailed.send(sender=None, label="m")

    wait_until(lambda: traces("mailed") == ["m"], what="the mail")


def test_async_receivers_run(worker: Worker):
    """A coroutine runs to its end on each pool."""
    awaited.send(sender=None, label="async")

    wait_until(lambda: traces("awaited") == ["async"], what="the coroutine")


def test_open_signals_reach_receivers_that_only_the_worker_knows(worker: Worker):
    """The workers find the receivers of an open signal."""
    announced.send(sender=None, label="o")

    wait_until(lambda: traces("announced") == ["o"], what="the open signal's receiver")


def test_bad_input_a_cascade_too_deep_ends_with_the_path(start_worker: Callable[..., Worker]):
    """A receiver that sends its own signal is stopped at the 32nd message; the error names the signals."""
    start_worker(environment=TESTS_SETTINGS)

    cascading.send(sender=None, label="c")

    dead = wait_for_dead("that_sends_again", timeout=40)
    assert "CascadeError" in dead.error
    assert dead.error.count("misbehaving.cascading") == 33
    # The last receiver's own trace was rolled back with it.
    assert traces("cascade") == [str(number) for number in range(31)]


def test_promise_7_an_unknown_signal_is_parked_until_a_worker_knows_it(start_worker: Callable[..., Worker]):
    """The next version of the worker runs the message, and nothing is left over."""
    old = start_worker()  # config.settings: without the app, so without its signals

    arriving.send(sender=None, label="new signal")
    failing.send(sender=None, label="another")
    wait_until(lambda: Delivery.objects.filter(state=State.PARKED).count() == 6, what="six parked deliveries")
    old.stop()
    start_worker(environment=TESTS_SETTINGS)

    wait_until(lambda: traces("arrived") == ["new signal"], what="the parked message")
    wait_until(lambda: traces("healthy") == ["another"], what="the other parked message")
    wait_until(lambda: not Delivery.objects.filter(state=State.PARKED).exists(), what="an empty car park")


def test_promise_7_a_receiver_of_the_next_version_is_parked(start_worker: Callable[..., Worker]):
    """A worker that knows the signal, but not the receiver, parks that delivery."""
    old = start_worker(environment={**TESTS_SETTINGS, "WITHOUT_NEW_RECEIVER": "1"})

    arriving.send(sender=None, label="new receiver")
    parked = wait_until(Delivery.objects.filter(state=State.PARKED).first, what="the parked delivery")
    assert "new_receiver" in parked.error
    old.stop()
    start_worker(environment=TESTS_SETTINGS)

    wait_until(lambda: traces("arrived") == ["new receiver"], what="the parked delivery")


def test_promise_7_a_text_signed_with_the_next_key_is_parked(start_worker: Callable[..., Worker]):
    """A worker without the sender's key parks the text, and runs it once it has the key."""
    old = start_worker(environment={**TESTS_SETTINGS, "SECRET_KEY": "the key of yesterday"})

    arriving.send(sender=None, label="new key")
    parked = wait_until(Delivery.objects.filter(state=State.PARKED).first, what="the parked text")
    assert parked.message.sealed
    assert parked.message.signal == ""
    old.stop()
    start_worker(environment={**TESTS_SETTINGS, "SECRET_KEY": ""})

    wait_until(lambda: traces("arrived") == ["new key"], what="the parked text")


def test_a_rotated_key_loses_nothing(start_worker: Callable[..., Worker]):
    """A worker with the old key as a fallback verifies the messages under it."""
    fallback = "django-insecure-this-checkout-only"
    start_worker(environment={**TESTS_SETTINGS, "SECRET_KEY": "tomorrow's", "SECRET_KEY_FALLBACKS": fallback})

    arriving.send(sender=None, label="rotated")

    wait_until(lambda: traces("arrived") == ["rotated"], what="the message under the old key")


def test_promise_4_no_row_is_written_unless_something_goes_wrong(worker: Worker):
    """A message that is not durable, and succeeds at the first attempt, leaves no row."""
    fleeting.send(sender=None, label="fine")

    wait_until(lambda: traces("arrived") == ["fine"], what="the message")
    assert not Delivery.objects.exists()


def test_receivers_run_in_another_process(worker: Worker):
    """A receiver runs in the worker's process or one of its children, never in the sender's."""
    arriving.send(sender=None, label="elsewhere")

    trace = wait_until(FormEntry.objects.filter(kind="arrived").first, what="the message")
    assert trace.pid != os.getpid()
    assert trace.pid in {worker.pid, *worker.children()}
