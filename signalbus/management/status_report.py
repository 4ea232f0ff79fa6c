"""The report of ``status``: the waiting messages and the workers of each queue, and modules that are not imported."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from django.core.management.base import CommandError
from kombu.exceptions import OperationalError

from signalbus import conf
from signalbus.broker import publisher
from signalbus.broker.queue_status import REMEDY, Presence, ask_broker
from signalbus.celery import broker_remedy
from signalbus.exceptions import ConfigurationError
from signalbus.ledger import operations as ledger
from signalbus.management.operation_report import operation_line
from signalbus.management.pause_report import pause_line
from signalbus.management.text import span_of
from signalbus.services.actors import command_actor
from signalbus.services.queries.live_workers import running
from signalbus.services.queries.queues import backlog_of, is_unattended, queues_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from signalbus.ledger.operations import Backlog

LONG: Final = timedelta(seconds=30)  # for which a delivery runs that `status` speaks of


def report() -> Iterator[str]:
    """Yield the lines of ``status``.

    Raises:
        CommandError: the broker cannot be asked; what needs no broker was said before.
        ConfigurationError: the Celery app cannot be made or imported.
    """
    failed = ledger.failures()
    if any(failed):  # first: this needs no broker
        waiting = f"{failed.retrying} failed and wait for their next attempt"
        yield f"{waiting}, {failed.parked} parked, {failed.dead} dead: `manage.py signalbus failed` lists them."
    yield from map(pause_line, ledger.pauses())
    yield from (f"operation {operation_line(each)}" for each in ledger.bulk_operations(20) if not each.is_over)
    if held := ledger.count_held():
        yield f"{held} held, and not to run yet: `manage.py signalbus failed --state held` lists them."
    yield from _long_runs()
    known = ledger.backlogs()
    queues = queues_of(known)
    fault = ""
    try:
        ways, found = _ask(queues)
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the broker, or what stands before it, has to say
        ways, found, fault = {}, {}, _in_words(error)
    for queue in queues:
        yield from _about(queue, ways.get(queue), found.get(queue), backlog_of(queue, known))
    yield from _about_code()
    if fault:
        raise CommandError(f"{queues[0]}: the broker cannot be asked: {fault}")


def _about_code() -> Iterator[str]:
    """Yield what in the project's code receives nothing."""
    from signalbus.checks import unsent, unused_code  # noqa: PLC0415 - `failed` imports this, and reads no code

    for module in unused_code.modules_not_imported():
        yield f"{module} connects receivers and is not imported: they receive nothing."
    for receiver in unsent.receivers_without_sends():
        yield f"{receiver}: it receives nothing."
    unused = unused_code.signals_without_receivers()
    if unused:
        yield f"Nobody is connected to {', '.join(unused)}."


def _long_runs() -> Iterator[str]:
    """Yield a line if deliveries have been running for so long that they may hang."""
    long = [run for run in running(command_actor()) if run.age > LONG]
    if long:  # the longest come first
        what = "1 delivery has" if len(long) == 1 else f"{len(long)} deliveries have"
        for_ = f"{LONG.total_seconds():g} s, the longest for {span_of(long[0].age)}"
        yield f"{what} been running for more than {for_}: `manage.py signalbus running` lists them."


def _ask(queues: list[str]) -> tuple[dict[str, str | None], dict[str, Presence]]:
    """Ask the broker of queues; return for each why messages take Celery's way to it, and what the broker says.

    Raises:
        Exception: it says nothing of any.
    """
    ways = {queue: publisher.why_through_celery(queue) for queue in queues}
    found = ask_broker(queues)
    if all(presence.error for presence in found.values()):
        raise OperationalError(found[queues[0]].error)
    return ways, found


def _in_words(error: Exception) -> str:
    """Return an error with the setting to look at."""
    text = str(error) if isinstance(error, OperationalError) else f"{type(error).__name__}: {error}"
    return f"{text.rstrip('.')}. {broker_remedy()}"


def _about(queue: str, reason: str | None, presence: Presence | None, backlog: Backlog) -> Iterator[str]:
    if presence is None:
        yield f"{queue}:"
        yield f"    {_rows(backlog)}"
        return
    way = "written to Redis directly, in one round trip" if reason is None else f"through Celery: {reason}"
    yield f"{queue}: {way}"
    yield f"    {_waiting(presence, backlog)}"
    yield f"    {_workers(queue, presence, backlog)}"
    if presence.refused:
        yield f"    THE BROKER REFUSES the queue {queue!r} as it is declared here: {presence.refused}. {REMEDY}"


def unattended() -> Iterator[str]:
    """Yield a line for each queue in which something waits although no worker consumes it."""
    known = ledger.backlogs()
    queues = queues_of(known)
    try:
        found = ask_broker(queues)
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 - as in `report`: it is not what was asked for, and is told
        yield f"The broker cannot be asked whether anything waits: {_in_words(error)}"
        return
    for queue in queues:
        presence, backlog = found[queue], backlog_of(queue, known)
        if presence.error:
            yield f"{queue}: the broker cannot be asked whether anything waits: {presence.error}"
        elif (presence.waiting or backlog.waiting) and is_unattended(presence, backlog):
            yield (
                f"But in {queue} {_waiting(presence, backlog)}, and no worker consumes it: `manage.py signalbus "
                "status` says more."
            )
    if all(presence.error for presence in found.values()):
        yield broker_remedy()


def _waiting(presence: Presence, backlog: Backlog) -> str:
    if presence.error:
        return f"the broker cannot be asked what waits: {presence.error}"
    messages = f"{presence.waiting} {'message waits' if presence.waiting == 1 else 'messages wait'}"
    return f"{messages} on the broker, {_rows(backlog)}"


def _rows(backlog: Backlog) -> str:
    oldest = f", the oldest since {_time(backlog.oldest)}" if backlog.oldest else ""
    return f"{backlog.waiting} {'delivery' if backlog.waiting == 1 else 'deliveries'} in the ledger{oldest}"


def _workers(queue: str, presence: Presence, backlog: Backlog) -> str:
    seen = f"one was last heard of at {_time(backlog.seen_at)}" if backlog.seen_at else "none has been heard of lately"
    if presence.error or presence.workers is None:
        return f"whether a worker consumes it cannot be told: it may, without saying what it consumes; {seen}"
    if presence.workers:
        consumed = f"consumed by {presence.workers} {'worker' if presence.workers == 1 else 'workers'}"
        return f"{consumed}; {seen}" if backlog.seen_at else consumed
    return f"NO WORKER consumes it; {seen}. Start one: {_command(queue)}"


def _command(queue: str) -> str:
    path = conf.get().CELERY_APP
    if path is None:
        return "celery -A signalbus worker (without -Q it consumes the queues of all receivers)"
    return f"celery -A {path.partition(':')[0]} worker -Q {queue}"


def _time(moment: datetime | None) -> str:
    return "-" if moment is None else f"{ledger.in_utc(moment, ledger.using()):%Y-%m-%d %H:%M:%S} UTC"
