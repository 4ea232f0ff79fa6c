"""Judge the workers: who consumes which queue, and whether they have this process's keys, receivers and release."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from signalbus.doctor.findings import Finding, ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHOWN: Final = 5  # receivers


class SeenWorker(NamedTuple):
    """A worker that was seen lately, as it has recorded itself.

    Args:
        name: host and process id.
        version: of signalbus.
        release: ``SIGNALBUS["RELEASE"]``; empty if it has none.
        queues: the queues that it consumes.
        receivers: the ids of the receivers that it knows, by the name of their signal.
    """

    name: str
    version: str
    release: str
    queues: frozenset[str]
    receivers: Mapping[str, frozenset[str]]


def judge_consumers(queue: str, workers: int | None, *, error: str, refused: str) -> Finding:
    """Judge whether a worker consumes a queue.

    Args:
        queue: its name.
        workers: how many do; None if it cannot be told.
        error: why the broker cannot be asked, or empty.
        refused: why the broker refuses the queue as it is declared here, or empty.
    """
    name = f"queue.{queue}.consumers"
    remedy = (
        "Start a worker without -Q, or with this queue among its -Q; manage.py signalbus status prints the command."
    )
    if error:
        return problem(name, f"The broker cannot be asked who consumes {queue}: {error}", "See broker.answers.")
    if refused:
        return problem(name, f"The broker refuses the queue {queue}: {refused}", "Delete it when it is empty.")
    if workers is None:
        return warning(
            name, f"Whether a worker consumes {queue} cannot be told.", "manage.py signalbus status says why."
        )
    if not workers:
        return problem(name, f"No worker consumes {queue}: what is sent there waits.", remedy)
    return ok(name, f"{queue} is consumed by {workers} {'worker' if workers == 1 else 'workers'}.")


def judge_keys(unknown_here: int, unknown_there: int) -> Finding:
    """Judge whether this process and the workers have the same secret keys, by the texts that workers parked.

    Args:
        unknown_here: how many parked texts were signed with a key that this process does not hold.
        unknown_there: how many are signed with a key of this process, and no worker could open them yet.
    """
    name = "keys"
    remedy = "Give all of them the same SECRET_KEY, or the other's as one of SECRET_KEY_FALLBACKS; nothing is lost."
    if unknown_here:
        return problem(name, f"{unknown_here} parked texts are signed with a key that is not known here.", remedy)
    if unknown_there:
        text = f"{unknown_there} parked texts are signed with a key of this process, and workers could not open them"
        return warning(name, f"{text}: they lack the key, or are of an older version.", remedy)
    return ok(name, "No text is parked for an unknown key.")


def judge_receivers(own: Mapping[str, frozenset[str]], workers: Sequence[SeenWorker]) -> Finding:
    """Judge whether the workers know the receivers that this process knows.

    Args:
        own: the ids of the receivers that this process knows, by the name of their signal.
        workers: those that were seen lately.
    """
    name = "workers.receivers"
    lacking = {
        worker.name: sorted(
            f"{signal} -> {receiver}"
            for signal, receivers in own.items()
            for receiver in receivers - worker.receivers.get(signal, frozenset())
        )
        for worker in workers
    }
    parts = [f"{worker} lacks {_listed(receivers)}" for worker, receivers in lacking.items() if receivers]
    if parts:
        return warning(
            name,
            f"{'; '.join(parts)}: it parks what is sent to these.",
            "Restart the worker with the code that runs here, or deploy the code that it runs.",
        )
    return ok(name, f"{len(workers)} of {len(workers)} workers know all receivers that this process knows.")


def judge_releases(release: str, version: str, workers: Sequence[SeenWorker]) -> Finding:
    """Judge whether the workers run the release, and the version of signalbus, of this process.

    Args:
        release: of this process; empty if it has none.
        version: of signalbus here.
        workers: those that were seen lately.
    """
    name = "workers.releases"
    own = _release(release, version)
    others = [each for each in workers if _release(each.release, each.version) != own]
    if not others:
        return ok(name, f"All workers run {own}, as this process.")
    found = ", ".join(f"{each.name} runs {_release(each.release, each.version)}" for each in others)
    return warning(
        name, f"This process runs {own}; {found}.", "During a deploy this ends by itself; else restart them."
    )


def _release(release: str, version: str) -> str:
    return f"signalbus {version}{f', release {release}' if release else ''}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} others" if more > 0 else "")
