"""Collect the facts that the judgements need, from the settings, the ledger and the broker, and judge them."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from django.conf import settings
from django.core import checks
from django.db import DatabaseError

from signalbus import celery, conf
from signalbus.broker.queue_status import Presence, ask_broker
from signalbus.broker.redis_state import ask_redis
from signalbus.doctor import broker_judgements, ledger_judgements, worker_judgements
from signalbus.doctor.findings import Finding, ok, problem, warning
from signalbus.doctor.run_limits import longest_run, visibility_timeout
from signalbus.doctor.worker_judgements import SeenWorker
from signalbus.exceptions import ConfigurationError, TextError, UnknownKey
from signalbus.ledger import operations as ledger
from signalbus.receiving.recording.worker_description import known_receivers
from signalbus.registration.registry import registry
from signalbus.services.queries.queues import backlog_of, queues_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from signalbus.ledger.operations import Backlog
    from signalbus.models import WorkerRecord

JUDGED_HERE: Final = frozenset({"signalbus.E005", "signalbus.W009"})  # checks whose facts are judged below
DATABASE_REMEDY: Final = "Does the database run, and is DATABASES right? What needs it was left out."


def examine() -> Iterator[Finding]:
    """Judge each precondition; those whose facts cannot be had are left out, and the reason is a finding."""
    found = list(_check_set_up())
    yield from found
    try:
        celery.reject_unusable_broker(celery.get_app())
        conf.signer()
    except ConfigurationError as error:
        if not any(finding.text == str(error) for finding in found):
            yield problem("settings", str(error), "What needs them was left out.")
        return
    workers: list[SeenWorker] = []
    queues = queues_of({})
    try:
        yield _judge_database_clock()
        missing = ledger.unapplied_migrations()
        yield ledger_judgements.judge_migrations(missing, ledger.using())
        if not missing:
            backlogs = ledger.backlogs(finds_workers=False)  # the broker is asked
            yield from _examine_ledger(backlogs)
            queues = queues_of(backlogs)
            workers = [_seen(record) for record in ledger.seen_workers()]
    except DatabaseError as error:
        yield broker_judgements.judge_answer("database", f"{type(error).__name__}: {error}", DATABASE_REMEDY)
    if workers:
        own = {signal: frozenset(receivers) for signal, receivers in known_receivers().items()}
        yield worker_judgements.judge_receivers(own, workers)
        yield worker_judgements.judge_releases(conf.release(), version("django-signalbus"), workers)
    try:
        yield from _examine_broker(queues, workers)
    except Exception as error:  # noqa: BLE001 - whatever the broker, or what stands before it, has to say
        text = f"{type(error).__name__}: {error}"
        yield broker_judgements.judge_answer("broker", text, celery.broker_remedy())


def _check_set_up() -> Iterator[Finding]:
    """Run the system checks of signalbus, with those that look at the ledger's database."""
    deployed = not settings.DEBUG
    try:
        messages = checks.run_checks(tags=["signalbus"], databases=[ledger.using()], include_deployment_checks=deployed)
    except DatabaseError:
        messages = checks.run_checks(tags=["signalbus"], include_deployment_checks=deployed)
    shown = [message for message in messages if not message.is_silenced() and message.id not in JUDGED_HERE]
    if not shown:
        yield ok("checks", "The system checks of signalbus find nothing.")
    for message in shown:
        if message.level < checks.WARNING:
            yield ok(str(message.id), message.msg)
            continue
        judge = problem if message.level >= checks.ERROR else warning
        yield judge(str(message.id), message.msg, message.hint or "")


def _judge_database_clock() -> Finding:
    alias = ledger.using()
    before = datetime.now(UTC)
    clock = ledger.clock_of(alias)
    here = before + (datetime.now(UTC) - before) / 2
    return broker_judgements.judge_clock("database", (ledger.in_utc(clock, alias) - here).total_seconds())


def _examine_ledger(known: dict[str, Backlog]) -> Iterator[Finding]:
    clock = ledger.clock_of(ledger.using())

    def since(moment: datetime | None) -> float | None:
        return None if moment is None else (clock - moment).total_seconds()

    config = conf.get()
    swept = since(ledger.sweeper_seen_at())
    yield ledger_judgements.judge_sweepers(swept, switched_off=not config.SWEEP_SECONDS)
    oldest = ledger.oldest_to_purge(config.KEEP_SECONDS, ages=config.ages())
    yield ledger_judgements.judge_purge(since(oldest), config.KEEP_SECONDS)
    yield ledger_judgements.judge_failures(ledger.failures())
    for queue in queues_of(known):
        backlog = backlog_of(queue, known)
        yield ledger_judgements.judge_waiting(queue, backlog.waiting, since(backlog.oldest))
    yield worker_judgements.judge_keys(*_count_texts(ledger.parked_texts()))


def _count_texts(texts: Sequence[str]) -> tuple[int, int]:
    """Return how many texts are signed with a key that is unknown here, and how many with one of this process."""
    unknown = known = 0
    for text in texts:
        try:
            conf.signer().verify(text)
        except UnknownKey:
            unknown += 1
        except TextError:  # of no key holder
            continue
        else:
            known += 1
    return unknown, known


def _seen(record: WorkerRecord) -> SeenWorker:
    receivers = {signal: frozenset(names) for signal, names in record.receivers.items()}
    return SeenWorker(record.name, record.version, record.release, frozenset(record.queues), receivers)


def _examine_broker(queues: Sequence[str], workers: Sequence[SeenWorker]) -> Iterator[Finding]:
    found = ask_broker(queues)
    if all(presence.error for presence in found.values()):
        yield broker_judgements.judge_answer("broker", found[queues[0]].error, celery.broker_remedy())
        return
    for queue, presence in found.items():
        yield worker_judgements.judge_consumers(
            queue, _count_consumers(queue, presence, workers), error=presence.error, refused=presence.refused
        )
    redis = ask_redis()
    if redis is None:
        return
    not_durable = sorted(signal.name for signal in registry if signal.entries() and not signal.durable)
    yield broker_judgements.judge_eviction(redis.policy, redis.maxmemory)
    yield broker_judgements.judge_quarantine(redis.quarantined, redis.quarantine)
    yield broker_judgements.judge_persistence(
        aof=redis.aof, fsync=redis.fsync, written=redis.written, not_durable=not_durable
    )
    yield broker_judgements.judge_clock("broker", redis.ahead)
    yield broker_judgements.judge_visibility(visibility_timeout(), *longest_run())


def _count_consumers(queue: str, presence: Presence, workers: Sequence[SeenWorker]) -> int | None:
    """Return how many workers consume a queue: as the broker says, or, if it does not, as they have recorded."""
    if presence.workers is not None:
        return presence.workers
    return sum(queue in worker.queues for worker in workers) or None
