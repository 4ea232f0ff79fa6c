"""Receivers that misbehave, and the traces that all of them leave."""

from __future__ import annotations

import ctypes
import os
import resource
import signal as os_signal
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from celery import chain, group
from django.db import connection

from signalbus import Reject, Retry, current, receiver
from tasks.marketing.models import FormEntry

from .changing import VERSION, amount_of, changing
from .signals import (
    announced,
    arriving,
    awaited,
    bound,
    buggy,
    cascading,
    connected,
    counted,
    endless,
    failing,
    fleeting,
    handing_on,
    hung,
    hung_open,
    hung_unrecorded,
    killing,
    lingering,
    long,
    mailed,
    poisoned,
    stalling,
    stepping,
    together,
)
from .tasks import note, note_at_the_second_try, task_that_fails

TWICE = Retry(max_attempts=2, base_delay=0.05, jitter=False)


def leave_trace(kind: str, subject: object) -> None:
    """Write a row with the receiver's name and process."""
    FormEntry.objects.create(kind=kind, subject=str(subject), pid=os.getpid())


@receiver(changing)
def receiver_of_one_version(sender: Any, number: int, **kwargs: Any) -> None:
    """Leave a trace of the version of this code; fail for a payload of another one."""
    expected = amount_of(number)
    if {key: kwargs[key] for key in kwargs if key != "signal"} != {
        key: value for key, value in expected.items() if key != "number"
    }:
        raise AssertionError(f"version {VERSION} got {kwargs}")
    leave_trace(f"changing {VERSION}", number)


@receiver(failing, retry=TWICE)
def receiver_that_raises(sender: Any, label: str, **kwargs: Any) -> None:
    """Raise after a write that must be rolled back."""
    leave_trace("written before the error", label)
    raise ValueError(f"no luck with {label}")


@receiver(failing, retry=TWICE)
def receiver_that_exits(sender: Any, label: str, **kwargs: Any) -> None:
    """Try to end the process."""
    raise SystemExit(3)


@receiver(failing, retry=TWICE)
def receiver_that_eats_memory(sender: Any, label: str, **kwargs: Any) -> None:
    """Raise an error that ends a stock worker."""
    raise MemoryError("all of it")


@receiver(failing, retry=TWICE)
def receiver_that_rejects(sender: Any, label: str, **kwargs: Any) -> None:
    """Reject the message."""
    raise Reject("never")


@receiver(failing)
def healthy_receiver(sender: Any, label: str, **kwargs: Any) -> None:
    """Succeed."""
    leave_trace("healthy", label)


@receiver(killing, retry=TWICE)
def receiver_that_kills_its_process(sender: Any, label: str, **kwargs: Any) -> None:
    """Die as in an out-of-memory kill."""
    os.kill(os.getpid(), os_signal.SIGKILL)


@receiver(killing)
def healthy_beside_the_killer(sender: Any, label: str, **kwargs: Any) -> None:
    """Succeed, perhaps after another receiver has killed the process."""
    leave_trace("healthy beside the killer", label)


@receiver(poisoned, retry=TWICE)
def receiver_that_ends_its_process(sender: Any, number: int, poison: int, how: str, **kwargs: Any) -> None:
    """Succeed; at one number write a line to a file, and die in the given way."""
    leave_trace("poisoned", number)
    if number == poison:
        with open(os.environ["POISON_LOG"], "a", encoding="utf-8") as log:  # noqa: PTH123 - it is the last thing it does
            log.write(f"{os.getpid()}\n")
        ENDS[how]()


def _exit() -> None:
    os._exit(1)


def _segfault() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)


def _eat_all_memory() -> None:
    """Take all memory up to the limit; it is held as long as the traceback exists."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), hard))
    held: list[bytearray] = []
    for size in (1 << 20, 1 << 14):
        with suppress(MemoryError):
            while True:
                held.append(bytearray(size))
    while True:
        held.append(bytearray(1 << 8))


ENDS = {"exit": _exit, "segfault": _segfault, "memory": _eat_all_memory}


@receiver(lingering)
def receiver_that_lingers(sender: Any, number: int, **kwargs: Any) -> None:
    """Succeed after 50 ms."""
    time.sleep(0.05)
    leave_trace("lingered", number)


@receiver(buggy, retry=Retry(max_attempts=1))
def receiver_with_a_bug(sender: Any, number: int, **kwargs: Any) -> None:
    """Fail while the file exists that the environment names: the bug is fixed when it is gone."""
    if Path(os.environ["BUG"]).exists():
        raise ValueError("the bug")
    leave_trace("fixed", number)


@receiver(endless, retry=Retry(max_attempts=1))
def receiver_that_never_returns(sender: Any, label: str, **kwargs: Any) -> None:
    """Hang, and ignore the soft time limit."""
    while True:
        try:
            time.sleep(60)
        except Exception:  # noqa: BLE001 - the misbehaviour
            continue


@receiver(bound, retry=Retry(max_attempts=1))
@receiver(together, atomic=False, retry=Retry(max_attempts=1))
def receiver_in_a_batch(sender: Any, number: int, act: str, **kwargs: Any) -> None:
    """Record the run, and do what the message asks for."""
    place = Path(os.environ["BATCH_FOLDER"])
    with (place / "ran").open("a", encoding="utf-8") as log:
        log.write(f"{number}\n")
    if act == "hang":
        while not (place / "released").exists():
            time.sleep(0.02)
    elif act == "linger":
        time.sleep(0.04)
    elif act == "overrun":
        time.sleep(60)
    elif act == "kill" and not (place / "killed").exists():
        (place / "killed").touch()
        os.kill(os.getpid(), os_signal.SIGKILL)


def leave_line(name: str) -> None:
    """Write to a file which receiver runs."""
    with (Path(os.environ["BATCH_FOLDER"]) / "ran").open("a", encoding="utf-8") as log:
        log.write(f"{name}\n")


@receiver([hung, hung_open, hung_unrecorded], atomic=False)
def receiver_that_is_quick_and_first(sender: Any, **kwargs: Any) -> None:
    """Run before the receiver that hangs."""
    leave_line("first")


@receiver([hung, hung_open, hung_unrecorded], atomic=False)
def receiver_that_hangs_until_released(sender: Any, **kwargs: Any) -> None:
    """Hang."""
    leave_line("hangs")
    while not (Path(os.environ["BATCH_FOLDER"]) / "released").exists():
        time.sleep(0.02)


@receiver([hung, hung_open, hung_unrecorded], atomic=False)
def receiver_that_is_quick_and_third(sender: Any, **kwargs: Any) -> None:
    """Run, though the receiver before hangs."""
    leave_line("third")


@receiver([hung, hung_open, hung_unrecorded])
def receiver_that_is_quick_and_atomic(sender: Any, **kwargs: Any) -> None:
    """Run in a transaction, though the receiver before hangs."""
    leave_line("atomic")


@receiver(mailed, queue="email")
def receiver_with_a_queue(sender: Any, label: str, **kwargs: Any) -> None:
    """Succeed on another queue."""
    leave_trace("mailed", label)


@receiver(awaited)
async def async_receiver(sender: Any, label: str, **kwargs: Any) -> None:
    """Succeed in a coroutine."""
    await FormEntry.objects.acreate(kind="awaited", subject=label, pid=os.getpid())


@receiver(cascading, retry=Retry(max_attempts=1))
def receiver_that_sends_again(sender: Any, label: str, **kwargs: Any) -> None:
    """Send the same signal again, for ever."""
    delivery = current()
    leave_trace("cascade", len(delivery.path) if delivery else -1)
    cascading.send(sender=None, label=label)


@receiver(announced)
def receiver_of_open_messages(sender: Any, label: str, **kwargs: Any) -> None:
    """Receive messages of a sender that does not know this receiver."""
    leave_trace("announced", label)


@receiver(connected)
def receiver_that_tells_its_connection(sender: Any, label: str, **kwargs: Any) -> None:
    """Write the process id of PostgreSQL's that serves it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid(), %s", [label])
        pid, echo = cursor.fetchone()
    leave_trace(f"connected {pid}", echo)


@receiver(long, retry=Retry(max_attempts=2, base_delay=0.05, jitter=False), atomic=False)
def receiver_that_is_cut_off(sender: Any, label: str, fail_first: bool, **kwargs: Any) -> None:
    """Fail at once if asked, so that there is a row; run until interrupted; then succeed."""
    delivery = current()
    assert delivery is not None
    if fail_first and delivery.attempt == 1:
        raise ValueError(label)
    leave_trace("long", f"{label} {delivery.attempt}")
    if not FormEntry.objects.filter(kind="long", pid=0).exists():
        time.sleep(120)
    leave_trace("long done", f"{label} {delivery.attempt}")


@receiver(counted, atomic=False)
def receiver_that_counts(sender: Any, label: str, seconds: float, **kwargs: Any) -> None:
    """Write a line, which no rollback removes, and take some time at the first run."""
    with open(os.environ["COUNT_LOG"], "a+", encoding="utf-8") as log:  # noqa: PTH123 - nothing is quicker
        log.seek(0)
        seen = bool(seconds) and f"{label}\n" in log.readlines()
        log.write(f"{label}\n")
    if not seen:
        time.sleep(seconds)


@receiver(stalling)
def receiver_that_stalls(sender: Any, label: str, **kwargs: Any) -> None:
    """Succeed; in a worker with a variable set, keep the transaction open."""
    leave_trace("stalled", label)
    if "STALL" in os.environ:
        print(f"stalls with {label}", flush=True)  # noqa: T201 - nothing that it writes can be seen
        time.sleep(600)


# A worker of the version before this receiver was written.
if "WITHOUT_NEW_RECEIVER" not in os.environ:

    @receiver([arriving, fleeting])
    def new_receiver(sender: Any, label: str, **kwargs: Any) -> None:
        """Do its work, once it is deployed."""
        leave_trace("arrived", label)


@receiver(stepping, retry=Retry(max_attempts=20, base_delay=0.05, jitter=False))
def receiver_in_order(sender: Any, key: str, number: int, **kwargs: Any) -> None:
    """Succeed, at the second try if the number is a round one."""
    delivery = current()
    assert delivery is not None
    leave_trace(f"step {key}", number)
    if number % 10 == 0 and delivery.attempt == 1:
        raise ValueError(number)


@receiver(handing_on)
def receiver_that_hands_on(sender: Any, **kwargs: Any) -> None:
    """Start shared tasks in all the ways that Celery has."""
    nested: list[Any] = []
    for _ in range(600):
        nested = [nested]
    note.delay("delay")
    note.delay_on_commit("on commit")  # type: ignore[attr-defined]  # of Celery's Django task class
    note.delay("nested", nested)
    note.apply_async(("countdown",), countdown=0.1)
    note.apply_async(("eta",), eta=datetime.now(UTC) + timedelta(seconds=0.1))
    note.apply_async(("links",), link=note.si("link"))
    task_that_fails.apply_async(link_error=note.si("errback"))
    chain(note.si("chain 1"), note.si("chain 2")).delay()
    group(note.si("group 1"), note.si("group 2")).delay()
    note_at_the_second_try.delay("retry")
