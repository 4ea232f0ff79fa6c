"""The judgements of `signalbus doctor`: each states whether a precondition holds, and what to do if it does not."""

from __future__ import annotations

import re

import pytest

from signalbus.doctor.broker_judgements import (
    judge_answer,
    judge_clock,
    judge_eviction,
    judge_persistence,
    judge_quarantine,
    judge_visibility,
)
from signalbus.doctor.findings import Finding, duration
from signalbus.doctor.ledger_judgements import (
    judge_failures,
    judge_migrations,
    judge_purge,
    judge_sweepers,
    judge_waiting,
)
from signalbus.doctor.worker_judgements import (
    SeenWorker,
    judge_consumers,
    judge_keys,
    judge_receivers,
    judge_releases,
)
from signalbus.ledger.operations import Failures
from tests.documents.reading import ROOT

DAY = 86400.0


def worker(**fields) -> SeenWorker:
    """Return a worker that runs the same as this process, but for some fields."""
    same = SeenWorker("host:1", "0.5.0", "a1b2", frozenset({"signalbus"}), {"shop.paid": frozenset({"mail.thank"})})
    return same._replace(**fields)


OWN = {"shop.paid": frozenset({"mail.thank"})}

WELL = [
    judge_eviction("noeviction", 0),
    judge_eviction("noeviction", 1000),
    judge_persistence(aof=True, fsync="everysec", written=True, not_durable=["shop.seen"]),
    judge_persistence(aof=True, fsync="", written=True, not_durable=["shop.seen"]),
    judge_persistence(aof=False, fsync="everysec", written=True, not_durable=[]),
    judge_quarantine(0, "signalbus.set_aside"),
    judge_visibility(900, 300, "TIME_LIMIT"),
    judge_clock("broker", 0.4),
    judge_clock("database", -4.9),
    judge_migrations([], "default"),
    judge_sweepers(60, switched_off=False),
    judge_purge(None, DAY),
    judge_purge(DAY + 600, DAY),
    judge_waiting("signalbus", 0, None),
    judge_waiting("signalbus", 3, 20),
    judge_failures(Failures(3, 0, 0)),
    judge_consumers("signalbus", 2, error="", refused=""),
    judge_keys(0, 0),
    judge_receivers(OWN, [worker()]),
    judge_receivers({}, [worker()]),
    judge_releases("a1b2", "0.5.0", [worker()]),
]
UNWELL = [
    (judge_eviction("allkeys-lru", 1000), "problem", "throws away whole queues", "noeviction"),
    (judge_eviction("volatile-ttl", 1000), "warning", "heartbeats", "noeviction"),
    (judge_quarantine(3, "shop:signalbus.set_aside"), "warning", "3 items", "LRANGE shop:signalbus.set_aside"),
    (judge_eviction("allkeys-lru", 0), "warning", "maxmemory is not set", "noeviction"),
    (
        judge_persistence(aof=False, fsync="", written=True, not_durable=["shop.seen"]),
        "warning",
        r"off: .* shop.seen \(durable=False\)",
        "appendonly yes",
    ),
    (
        judge_persistence(aof=True, fsync="no", written=True, not_durable=list("abcdefg")),
        "warning",
        "a, b, c, d, e, …",
        "everysec",
    ),
    (judge_persistence(aof=True, fsync="always", written=False, not_durable=[]), "problem", "cannot write", "disk"),
    (
        judge_visibility(60, 300, "TIME_LIMIT"),
        "problem",
        r"60 s .* 300 s \(TIME_LIMIT\): .* twice",
        "visibility_timeout",
    ),
    (judge_visibility(300, 300, "TIME_LIMIT"), "problem", "twice", "more than 300"),
    (judge_clock("broker", 12), "warning", "12 s ahead of", "NTP"),
    (judge_clock("database", -90), "problem", "90 s behind", "NTP"),
    (judge_answer("broker", "refused", "Start it."), "problem", "broker cannot be asked: refused", "Start it"),
    (judge_migrations(["0006_x"], "default"), "problem", "0006_x", r"migrate signalbus\."),
    (judge_migrations(["0006_x"], "bus"), "problem", "0006_x", "--database bus"),
    (judge_sweepers(None, switched_off=False), "problem", "ever worked", "Start a worker"),
    (judge_sweepers(600, switched_off=True), "problem", "10 min", "SWEEP_SECONDS"),
    (judge_purge(3 * DAY, DAY), "warning", "3 d", "signalbus purge"),
    (judge_waiting("email", 7, 600), "warning", "7 wait in email, the oldest for 10 min", "workers"),
    (judge_waiting("email", 7, 7200), "problem", "2 h", "workers"),
    (judge_failures(Failures(0, 2, 1)), "warning", "1 dead, 2 parked", "signalbus failed"),
    (judge_consumers("email", 0, error="", refused=""), "problem", "No worker consumes email", "-Q"),
    (judge_consumers("email", None, error="", refused=""), "warning", "cannot be told", "status"),
    (judge_consumers("email", None, error="timed out", refused=""), "problem", "timed out", "broker.answers"),
    (judge_consumers("email", 0, error="", refused="406"), "problem", "refuses .* 406", "Delete"),
    (judge_keys(2, 0), "problem", "2 parked texts .* not known here", "SECRET_KEY_FALLBACKS"),
    (judge_keys(0, 3), "warning", "3 parked texts .* workers could not open", "SECRET_KEY"),
    (
        judge_receivers({"shop.paid": frozenset({"mail.thank", "crm.sync"})}, [worker(), worker(name="host:2")]),
        "warning",
        "host:1 lacks shop.paid -> crm.sync; host:2 lacks",
        "Restart",
    ),
    (
        judge_receivers({"s": frozenset("abcdefg")}, [worker()]),
        "warning",
        "s -> e and 2 others",
        "Restart",
    ),
    (
        judge_releases("c3d4", "0.5.0", [worker(), worker(name="host:2", release="c3d4")]),
        "warning",
        r"This process runs signalbus 0.5.0, release c3d4; host:1 runs signalbus 0.5.0, release a1b2\.",
        "deploy",
    ),
    (judge_releases("a1b2", "0.6.0", [worker()]), "warning", "0.6.0.*0.5.0", "restart"),
]


@pytest.mark.parametrize("finding", WELL, ids=lambda finding: finding.name)
def test_a_judgement_without_a_problem_has_no_remedy(finding: Finding):
    """A precondition that holds is told in a sentence."""
    assert (finding.level, finding.remedy) == ("ok", "")
    assert finding.text.endswith(".")


@pytest.mark.parametrize(("finding", "level", "text", "remedy"), UNWELL, ids=lambda each: getattr(each, "name", None))
def test_a_judgement_with_a_problem_has_a_remedy(finding: Finding, level: str, text: str, remedy: str):
    """A finding says what was found, and what to do."""

    assert finding.level == level
    assert re.search(text, finding.text)
    assert re.search(remedy, finding.remedy)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (119, "119 s"), (180, "3 min"), (7200, "2 h"), (3 * DAY, "3 d")],
)
def test_durations(seconds: float, words: str):
    """A time span has one unit."""
    assert duration(seconds) == words


def test_page_lists_each_judgement():
    """docs/doctor.md has a row for each judgement."""
    page = (ROOT / "docs" / "doctor.md").read_text()
    named = set(
        re.findall(r"`([\w.]+)`", " ".join(line.split("|")[1] for line in page.splitlines() if line[:3] == "| `"))
    )
    judged = {finding.name for finding in (*WELL, *(each[0] for each in UNWELL))}
    assert {re.sub(r"^queue\.\w+", "queue.NAME", name) for name in judged} <= named
