"""Measure deliveries and sends of the checkout in the current directory, this one or an earlier version's.

`earlier_version` starts it in both and asks by turns, on standard input: a line with a way and a number of calls. The
answer is the CPU time of a call in microseconds, of the thread that calls. A worker's listeners and gates are in place.
"""

from __future__ import annotations

import base64
import gc
import json
import math
import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import django
from django.db import transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[[int], Callable[[], object]]  # from a number of calls

SENDS = 10  # in one transaction
WARM_UP = 10  # calls before those that are timed


def main(kind: str) -> None:
    """Answer until the input ends.

    Args:
        kind: of the database.
    """
    os.environ |= {"DJANGO_SETTINGS_MODULE": "benchmarks.settings", "DATABASE_URL": "sqlite://"}
    django.setup()
    servers, deliver = _of_this_version()
    with servers, servers.database(kind) as cohort:
        ways = _ways(servers.client, deliver, cohort)
        for make in ways.values():
            _measure(make, 10)  # makes what is kept from then on: templates, statements, connections
        gc.collect()
        gc.freeze()  # else the collection before each turn takes longer than the turn
        print("ready", flush=True)
        for line in sys.stdin:
            way, calls = line.split()
            print(_measure(ways[way], int(calls)), flush=True)


def _of_this_version() -> tuple[Any, Callable[[list[str]], object]]:
    """Return the servers, and the function that delivers; work as a process of a worker does from now on."""
    try:
        from benchmarks.servers import Servers  # noqa: PLC0415 - needs Django's apps, as all below
    except ImportError:  # 0.4.1
        from signalbus.receiving.batch import deliver as deliver_0_4  # type: ignore[import-not-found, unused-ignore] # noqa: PLC0415

        from benchmarks.ground import Ground  # type: ignore[import-untyped, import-not-found, unused-ignore] # noqa: PLC0415

        return Ground(), deliver_0_4
    from signalbus.receiving.pausing.pause_gate import obey_pauses  # noqa: PLC0415
    from signalbus.receiving.pausing.pause_watch import watch  # noqa: PLC0415
    from signalbus.receiving.recording import recorder  # noqa: PLC0415
    from signalbus.receiving.routing.batch import deliver  # noqa: PLC0415

    obey_pauses()
    watch.quiet_until[0] = math.inf  # as if a sweeper had just found that nothing is paused
    recorder.prepare()
    recorder.Recorder().start()
    return Servers(), deliver


def _ways(client: Any, deliver: Callable[[list[str]], object], cohort: Any) -> dict[str, Make]:
    from benchmarks import signals  # noqa: PLC0415
    from tasks.admissions.models import Cohort  # noqa: PLC0415

    plain = {"cohort_id": cohort.pk, "created": True}
    instance = {"instance": cohort, "created": True}

    def deliveries(signal: Any, sender: Any, payload: dict[str, Any]) -> Make:
        def make(calls: int) -> Callable[[], object]:
            client.delete("signalbus")
            for _ in range(calls):
                signal.send(sender, **payload)
            texts = [
                json.loads(base64.b64decode(json.loads(item)["body"]))[0][0]
                for item in client.lrange("signalbus", 0, -1)
            ]
            client.delete("signalbus")
            return lambda: deliver(texts.pop())

        return make

    def sends(signal: Any, payload: dict[str, Any]) -> Make:
        return lambda _calls: partial(signal.send, sender=Cohort, **payload)

    def together(payload: dict[str, Any]) -> Make:
        def send() -> None:
            with transaction.atomic():
                for _ in range(SENDS):
                    signals.kept.send(sender=Cohort, **payload)
                transaction.set_rollback(True)

        return lambda _calls: send

    return {
        "plain": deliveries(signals.plain, Cohort, plain),
        "atomic": deliveries(signals.atomic, Cohort, plain),
        "fetched": deliveries(signals.fetched, Cohort, instance),
        "durable": deliveries(signals.durable, None, {"number": 1}),
        "send": sends(signals.plain, plain),
        "durable_send": sends(signals.kept, plain),
        "durable_sends": together(plain),
        "durable_sends_of_instances": together(instance),
    }


def _measure(make: Make, calls: int) -> float:
    function = make(WARM_UP + calls)
    gc.collect()
    gc.disable()
    try:
        for _ in range(WARM_UP):  # the processor's caches are full of the other version, and of what made the function
            function()
        began = time.thread_time()
        for _ in range(calls):
            function()
        return (time.thread_time() - began) / calls * 1e6
    finally:
        gc.enable()


if __name__ == "__main__":
    main(sys.argv[1])
