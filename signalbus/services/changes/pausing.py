"""Pause a receiver, a signal or a queue, resume it, and list what is paused (decision 0047)."""

from __future__ import annotations

import difflib
import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, get_args

from django.db import transaction

from signalbus import celery
from signalbus.core.name_patterns import match, read_patterns
from signalbus.exceptions import ConfigurationError
from signalbus.ledger import operations as ledger
from signalbus.registration.registry import registry
from signalbus.services.actors import OPERATE, VIEW
from signalbus.services.audit_log import write_log
from signalbus.services.filters import FilterError, parse_filter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from signalbus.ledger.operations import Paused
    from signalbus.services.actors import Actor

PauseKind = Literal["receiver", "signal", "queue", "filter"]
PAUSE_KINDS: Final[tuple[PauseKind, ...]] = get_args(PauseKind)
FILTER_KEYS: Final = ("signal", "receiver", "queue")  # what is known of a delivery before it runs
MOST_RATE: Final = 1_000_000.0  # deliveries a second: more is none
MOST_CHARACTERS: Final = 512  # of a name


class UnknownName(ConfigurationError):  # noqa: N818 - says what is wrong
    """Nobody knows a receiver, signal or queue of this name, or nothing of this name is paused.

    Args:
        text: the whole error, with what to do.
        name: the name.
        close: known names that are like it.
    """

    def __init__(self, text: str, name: str, close: list[str]) -> None:
        super().__init__(text)
        self.name = name
        self.close = close


def pause(  # noqa: PLR0913 - what is asked of who pauses something
    kind: PauseKind,
    name: str,
    *,
    actor: Actor,
    reason: str = "",
    until: timedelta | datetime | None = None,
    unknown: bool = False,
) -> bool:
    """Hold all deliveries of a receiver, a signal, a queue or a filter; each worker obeys within five seconds.

    What runs goes on. Held deliveries wait in the ledger: they are not lost, and no attempt is counted.

    Args:
        kind: "receiver", "signal", "queue" or "filter".
        name: the receiver's id, the signal's name or the queue's; the words of a filter, "signal:admissions.*
            receiver:crm.sync" for example, which must all match.
        actor: who pauses it.
        reason: why; each delivery that is held shows it.
        until: when the pause ends by itself: after so long, or at an aware time; None if somebody has to resume it.
        unknown: accept a name that neither this process nor a worker that runs knows.

    Returns:
        False if it was paused before; then reason and end are the new ones.

    Raises:
        UnknownName: neither this process nor a worker knows the name, and `unknown` is not given.
        FilterError: the filter cannot be read, or asks for what is not known before a delivery runs.
        ConfigurationError: `until` is over already, or is a time without a time zone.
        PermissionDenied: the actor must not.
    """
    actor.require(OPERATE)
    _reject_wrong(kind, name)
    if not unknown:
        _reject_unknown(kind, name)
    with transaction.atomic(using=ledger.using()):
        seconds = None if until is None else _seconds(until)
        is_new = ledger.pause(kind, name, reason=reason, by=actor.name, by_id=actor.id, seconds=seconds)
        write_log(actor, "pause", {kind: name}, reason=reason, details={} if seconds is None else {"seconds": seconds})
    return is_new


def resume(kind: PauseKind, name: str, *, actor: Actor, reason: str = "", rate: float | None = None) -> int:
    """End a pause: the sweepers release what it holds.

    Args:
        kind: "receiver", "signal", "queue" or "filter".
        name: the name that was paused, or the words of the filter.
        actor: who resumes it.
        reason: why.
        rate: deliveries a second that are released; None for as many as the sweepers can publish.

    Returns:
        How many deliveries it holds.

    Raises:
        UnknownName: nothing of this name is paused.
        ConfigurationError: the rate is not above 0.
        PermissionDenied: the actor must not.
    """
    actor.require(OPERATE)
    if rate is not None and not 0 < rate <= MOST_RATE:
        raise ConfigurationError(f"The rate is {rate!r}; it must be a number of deliveries a second, above 0.")
    with transaction.atomic(using=ledger.using()):
        held = ledger.resume(kind, name, rate=rate)
        if held is None:
            paused = [f"{each.kind}:{each.name}" for each in ledger.pauses()]
            listed = f"Paused are {', '.join(paused)}." if paused else "Nothing is paused."
            raise UnknownName(f"{kind}:{name} is not paused. {listed}", name, _close(f"{kind}:{name}", paused))
        write_log(actor, "resume", {kind: name}, reason=reason, rate=rate, counts={"held": held})
    return held


def paused(actor: Actor, *, counts_held: bool = True, limit: int | None = None) -> list[Paused]:
    """Return what is paused, also while its deliveries are being released.

    Args:
        actor: who asks.
        counts_held: count what each pause holds, which takes a while if that is a lot.
        limit: how many pauses at most; None for all.

    Raises:
        PermissionDenied: the actor must not see deliveries.
    """
    actor.require(VIEW)
    return ledger.pauses(counts_held=counts_held, limit=limit)


def is_known_here(kind: PauseKind, name: str) -> bool:
    """Return whether this process knows what is paused; else at most the workers do.

    Args:
        kind: the kind.
        name: the name.
    """
    return all(_is_known_here(key, each, _known_here(key)) for key, each in _parts(kind, name))


def _reject_unknown(kind: PauseKind, name: str) -> None:
    for key, each in _parts(kind, name):
        known = _known_here(key)
        if _is_known_here(key, each, known):
            continue
        known |= _known_to_workers(key)
        if any(match(each, one) for one in known):
            continue
        close = _close(each, known)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        raise UnknownName(
            f"Neither this process nor a worker that runs knows a {key} {each!r}.{meant} To pause it all the same, "
            "say so: `pause --unknown`, or unknown=True.",
            name,
            close,
        )


def _reject_wrong(kind: PauseKind, name: str) -> None:
    if kind not in PAUSE_KINDS:
        raise ConfigurationError(f"{kind!r} cannot be paused; say one of {', '.join(PAUSE_KINDS)}.")
    if not 0 < len(name) <= MOST_CHARACTERS or not name.isprintable():
        raise ConfigurationError(f"{name[:MOST_CHARACTERS]!r} is no name of a {kind}.")
    if kind != "filter":
        return
    parse_filter(name.split(), ledger.clock_of(ledger.using()))
    wrong = [key for key, _ in read_patterns(name) if key not in FILTER_KEYS]
    if wrong:
        raise FilterError(
            f"{wrong[0]!r} cannot be told before a delivery runs; pause by {', '.join(FILTER_KEYS)}, as "
            "signal:admissions.* receiver:crm.sync."
        )


def _parts(kind: PauseKind, name: str) -> list[tuple[str, str]]:
    """Return each name, or pattern of one, that must be known; only those of a filter may have stars."""
    if kind != "filter":
        return [(kind, name)]
    return [(key, each) for key, values in read_patterns(name) for each in values]


def _is_known_here(kind: str, each: str, known: set[str]) -> bool:
    """Return whether a name, or a pattern, is among the known ones, or is a queue with open deliveries."""
    return any(match(each, one) for one in known) or (kind == "queue" and ledger.has_open(each))


def _known_here(kind: str) -> set[str]:
    """Return the names of today and of before that this process knows; the ledger knows more queues."""
    if kind == "signal":
        named = [(signal.known_name(), signal.was) for signal in registry]
        return {each for name, was in named if name for each in (name, *was)}
    if kind == "receiver":
        return {id_ for signal in registry for entry in signal.entries() for id_ in (entry.id, *entry.policy.was)}
    return {celery.default_queue(), *registry.queues(), *ledger.queues_in_ledger()}


def _known_to_workers(kind: str) -> set[str]:
    workers = ledger.seen_workers()
    if kind == "queue":
        return {queue for worker in workers for queue in worker.queues}
    known = [(signal, receivers) for worker in workers for signal, receivers in worker.receivers.items()]
    return (
        {signal for signal, _ in known} if kind == "signal" else {each for _, receivers in known for each in receivers}
    )


def _close(name: str, known: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name, sorted(known), n=3)


def _seconds(until: timedelta | datetime) -> float:
    if isinstance(until, datetime):
        if until.tzinfo is None:
            raise ConfigurationError(f"{until} has no time zone; make it an aware time.")
        alias = ledger.using()
        until = until.astimezone(UTC) - ledger.in_utc(ledger.clock_of(alias), alias)
    seconds = until.total_seconds()
    if not 0 < seconds < math.inf:
        raise ConfigurationError("The end of the pause is over already; give a time to come.")
    return seconds
