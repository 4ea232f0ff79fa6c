"""Measures the cost of an event for its process: ``python -m benchmarks.events``.

The question whether anybody listens, an event of an attempt that nobody listens to, a success as the bus's own
listeners hear it, and the same with one listener more; each the best of 40 rounds. "before" is what a success cost
without events: the estimate of the receiver's run time, and the note for Celery's line.
"""

from __future__ import annotations

import os
import sys
import timeit
from typing import TYPE_CHECKING

import django

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalbus.receiving.invoking.invocation import Attempt

CALLS, ROUNDS = 5000, 40


def main() -> int:
    """Run the benchmark, and print its table."""
    os.environ |= {"DJANGO_SETTINGS_MODULE": "benchmarks.settings", "DATABASE_URL": "sqlite://"}
    django.setup()
    from signalbus.events import is_heard, listen  # noqa: PLC0415 - needs Django's apps
    from signalbus.receiving.process import task_log  # noqa: PLC0415 - as above
    from signalbus.receiving.process.receiver_runtimes import runtimes  # noqa: PLC0415 - as above

    attempt = _attempt()
    heard = 0

    def listener(event: object) -> None:
        nonlocal heard
        heard += 1

    def before() -> None:
        runtimes.learn(attempt.receiver.id, 0.001)
        runtimes.warn(attempt.receiver.id, 0.001)
        task_log.note(attempt.message.signal, attempt.recipient, "done")

    ways: dict[str, Callable[[], object]] = {
        "is_heard(kind)": lambda: is_heard("sent"),
        "nobody listens": lambda: attempt.tell("claimed"),
        "before": before,
        "done": lambda: attempt.tell("done"),
        "done, and a listener": lambda: attempt.tell("done"),
    }
    print(f"{'':24}{'µs':>8}")
    for name, way in ways.items():
        if name == "done, and a listener":
            listen("done")(listener)
        print(f"{name:24}{min(timeit.repeat(way, number=CALLS, repeat=ROUNDS)) / CALLS * 1e6:8.2f}")
    return 0 if heard else 1


def _attempt() -> Attempt:
    """Return an attempt that ran for a millisecond."""
    from signalbus import Signal  # noqa: PLC0415 - as above
    from signalbus.receiving.invoking.invocation import Attempt  # noqa: PLC0415 - as above
    from signalbus.sending.send_operation import shared_fields_of  # noqa: PLC0415 - as above
    from signalbus.wire.message import from_body  # noqa: PLC0415 - as above

    signal = Signal("benchmarks.events")
    signal.connect(_receiver, dispatch_uid="benchmarks.events.receiver")
    message = from_body(signal.compose(shared_fields_of(signal, signal.entries()), None, [{}])[0][0].body)
    receiver = signal.entries()[0]
    attempt = Attempt(message, receiver.id, receiver)
    attempt.took = 0.001
    return attempt


def _receiver(**kwargs: object) -> None:
    """Receive."""


if __name__ == "__main__":
    sys.exit(main())
