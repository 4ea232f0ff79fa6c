"""The faults: how each affects the processes of a cluster. ``expectations`` says what must hold meanwhile."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]  # it ships no types
import psycopg
import redis

from tests.chaos import journal, skew
from tests.chaos.checker import delay_figures, judge
from tests.chaos.cluster import LEASE, Cluster, Span, WorkerOptions
from tests.chaos.receiver_pause import pause_receiver
from tests.chaos.roles import FATAL
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

# Warm, soft, cold.
SHUTDOWNS = ((signal.SIGTERM,), (signal.SIGQUIT,), (signal.SIGQUIT, signal.SIGQUIT, signal.SIGQUIT))
BOTH = ("postgres", "sqlite")
SERVER = ("postgres",)
MIXED = ("steady", "paired", "flaky")
SLOW_TRANSACTIONS = 40  # for each second of a run: a backlog that outlasts it


@dataclass(frozen=True, slots=True)
class Fault:
    """A row of the table.

    Args:
        title: what happens.
        inject: does it, until the span is over; what it broke, it mends.
        kinds: what is sent meanwhile.
        workers: who receives.
        databases: where it can happen.
        kills: it ends processes, so that the long form wants a hundred of it.
        broker: options of the broker.
        die_after: the step at which senders kill themselves; empty for never.
        missing: why it cannot happen on this machine, or nothing.
    """

    title: str
    inject: Callable[[Cluster, Span], None]
    kinds: tuple[str, ...] = MIXED
    workers: tuple[WorkerOptions, ...] = (WorkerOptions(), WorkerOptions())
    databases: tuple[str, ...] = BOTH
    kills: bool = False
    broker: tuple[str, ...] = ()
    die_after: str = ""
    missing: str = ""


# Workers


def kill_worker(cluster: Cluster, span: Span) -> None:
    """Kill, in turn, the main process alone, whose children live a moment longer, and all processes of a worker."""
    for number in span.turns(0.2, 1.5):
        worker = random.choice(cluster.workers)
        if number % 2 and worker.pid is not None:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        elif worker.pid is not None:
            worker.kill()
        cluster.replace(worker)


def kill_child(cluster: Cluster, span: Span) -> None:
    """Kill a child as an out-of-memory kill does; the main process makes another."""
    for _ in span.turns(0.1, 0.6):
        worker = random.choice(cluster.workers)
        children = [process for process in cluster.processes(worker)[1:] if process.ppid() == worker.pid]
        if children:
            with suppress(psutil.NoSuchProcess):
                random.choice(children).kill()
        cluster.revive()


def send_poison(cluster: Cluster, span: Span) -> None:
    """Send, among ordinary messages, some whose receivers kill their process, use up its memory, or exit."""
    for _ in span.turns(0.5, 1.0):
        pid = cluster.send("--kinds", "deadly", "--limit", "1")
        wait_until(partial(cluster.sender_ended, pid), 30.0, "a sender")
        cluster.kill_sender(pid)
        cluster.revive()


def measure_poison(cluster: Cluster) -> None:
    """Count the runs of messages that never succeed, and those that are still open."""
    runs = Counter(journal.read(cluster.journal).runs)
    evidence = cluster.evidence()
    owed = {pair for pair in judge(evidence).owed if pair[1] in FATAL}
    cluster.figures["poison_runs"] = max(runs.values(), default=0)
    cluster.figures["poison_alive"] = sum(evidence.states.get(pair) != "dead" for pair in owed)


def stop_worker(cluster: Cluster, span: Span) -> None:
    """Stop all processes of a worker for longer than any lease, as a machine that sleeps, and continue them."""
    for _ in span.turns(0.5, 2.0):
        processes = cluster.processes(random.choice(cluster.workers))
        for process in processes:
            process.suspend()
        try:
            time.sleep(3 * LEASE)  # that of a claim is 20 s, whatever the settings
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()
        cluster.revive()


def terminate_worker(cluster: Cluster, span: Span) -> None:
    """Shut a worker down, in turn warm (SIGTERM), soft (SIGQUIT) and cold (SIGQUIT again and again)."""
    for number in span.turns(0.2, 1.5):
        worker = random.choice(cluster.workers)
        cluster.shut_down(worker, *SHUTDOWNS[number % len(SHUTDOWNS)])
        cluster.replace(worker)


def skew_clock(cluster: Cluster, span: Span) -> None:
    """Do nothing more: the clock of one worker is two hours off from its start."""
    next(span.turns(0.0, 0.0))
    time.sleep(span.seconds)


def deploy(cluster: Cluster, span: Span) -> None:
    """Run old and new workers in turn, while new senders send what the old ones do not know; new ones in the end."""
    for number in span.turns(1.0, 2.0):
        cluster.shut_down(cluster.workers[0], signal.SIGTERM)
        cluster.replace(cluster.workers[0], OLD if number % 2 else WorkerOptions())
    for worker in list(cluster.workers):
        cluster.shut_down(worker, signal.SIGTERM)
        cluster.replace(worker, WorkerOptions())


# Senders


def kill_sender(cluster: Cluster, span: Span) -> None:
    """Kill a sender at random moments, in a loop of transactions."""
    for _ in span.turns(0.8, 2.0):
        cluster.send(*cluster.kill_sender(random.choice(cluster.senders)))


def replace_dead_senders(cluster: Cluster, span: Span) -> None:
    """Wait for senders that kill themselves at a given step; each gets a successor."""
    for _ in span.turns(0.0, 0.1):
        ended = wait_until(
            lambda: [pid for pid in cluster.senders if cluster.sender_ended(pid)], 60.0, "a sender that ended"
        )
        for pid in ended:
            cluster.send(*cluster.kill_sender(pid))


# The broker


def kill_sweeper(cluster: Cluster, span: Span) -> None:
    """Let rows pile up during an outage of the broker; then kill a worker while the sweepers publish them."""
    for _ in span.turns(0.2, 0.5):
        cluster.broker.kill()
        time.sleep(1.5)
        cluster.broker.start()
        time.sleep(random.uniform(0.0, 1.0))
        worker = random.choice(cluster.workers)
        if worker.pid is not None:
            worker.kill()
        cluster.replace(worker)
        cluster.revive()


def kill_broker(cluster: Cluster, span: Span) -> None:
    """Kill a broker with a file (appendonly); it comes back with the contents of the file."""
    for _ in span.turns(0.5, 2.5):
        cluster.broker.kill()
        time.sleep(random.uniform(0.0, 1.0))
        cluster.broker.start()
        cluster.revive()


def _flush(cluster: Cluster) -> None:
    with redis.Redis.from_url(cluster.broker.redis_url) as client:
        client.flushall()


def wipe_broker(cluster: Cluster, span: Span) -> None:
    """FLUSHALL with a backlog, seldom; the workers stand still for a moment before."""
    for _ in span.turns(20.0, 40.0):
        processes = [process for worker in cluster.workers for process in cluster.processes(worker)]
        for process in processes:
            process.suspend()
        time.sleep(0.5)
        _flush(cluster)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()
        cluster.revive()


def fill_broker(cluster: Cluster, span: Span) -> None:
    """Let the broker reach its maxmemory without eviction: it accepts nothing more."""
    for _ in span.turns(0.5, 1.5):
        with redis.Redis.from_url(cluster.broker.redis_url) as client:
            client.config_set("maxmemory", "1mb")
            time.sleep(2.0)
            client.config_set("maxmemory", "0")
        cluster.revive()


def stop_broker(cluster: Cluster, span: Span) -> None:
    """Stop the broker, which closes nothing, for 30 seconds, or half of a shorter run."""
    for _ in span.turns(0.5, 1.0):
        assert cluster.broker.pid is not None
        os.kill(cluster.broker.pid, signal.SIGSTOP)
        time.sleep(min(30.0, max(3.0, span.seconds / 2)))
        os.kill(cluster.broker.pid, signal.SIGCONT)
        cluster.revive()


def inject_combined(cluster: Cluster, span: Span) -> None:
    """Kill a worker about every second, and wipe and kill the broker in between."""
    for number in span.turns(0.3, 1.2):
        if number % 4 == 2:
            _flush(cluster)
        elif number % 4 == 0:
            cluster.broker.kill()
            time.sleep(0.5)
            cluster.broker.start()
        worker = random.choice(cluster.workers)
        if worker.pid is not None:
            worker.kill()
        cluster.replace(worker)
        cluster.revive()


# The database


def restart_database(cluster: Cluster, span: Span) -> None:
    """Restart the database, in turn in good order, and by a crash with a recovery."""
    for number in span.turns(0.5, 2.5):
        cluster.postgres.end(crash=bool(number % 2))
        time.sleep(random.uniform(0.0, 1.0))
        cluster.postgres.begin()
        cluster.revive()


def deadlock(cluster: Cluster, span: Span) -> None:
    """Let two receivers lock the same rows in crossing orders; the database ends one, which is retried."""
    time.sleep(span.seconds)
    with psycopg.connect(cluster.database_url) as connection:
        row = connection.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert row is not None
    span.injections = row[0]


# Load


def pile_up(cluster: Cluster, span: Span) -> None:
    """Let a slow receiver's queue grow through the whole run; another worker's queue goes on beside it."""
    next(span.turns(0.0, 0.0))
    pid = cluster.send("--kinds", "slow", "--limit", str(int(SLOW_TRANSACTIONS * span.seconds)))
    # On SQLite senders wait for their turn among those who work.
    wait_until(partial(cluster.sender_ended, pid), 60.0 + 10 * span.seconds, "the backlog")
    memory: list[int] = []
    end = time.monotonic() + span.seconds
    while time.monotonic() < end:
        time.sleep(0.5)
        memory.append(
            sum(process.memory_info().rss for worker in cluster.workers for process in cluster.processes(worker))
        )
    # Against the first third: imports and caches are done by then.
    early, late = memory[: max(1, len(memory) // 3)], memory[-max(1, len(memory) // 3) :]
    cluster.figures["memory_growth"] = max(late) / max(early)


def measure_steady(cluster: Cluster) -> None:
    """Measure the other receivers' deliveries separately."""
    evidence = cluster.evidence()
    steady = {message for message, (kind, _) in evidence.notes.sent.items() if kind == "steady"}
    delays = delay_figures(delay for (message, _), delay in judge(evidence).delays.items() if message in steady)
    cluster.figures |= {f"{name}_steady": value for name, value in delays.items()}


OLD = WorkerOptions(environment={"CHAOS_OLD": "1"})
SKEWED = WorkerOptions(environment={skew.SECONDS: "7200"})
KEPT = ("--appendonly", "yes", "--appendfsync", "everysec")

FAULTS: dict[str, Fault] = {
    "worker_killed": Fault("worker main `kill -9` at random moments, prefork", kill_worker, kills=True),
    "worker_killed_threads": Fault(
        "the same, threads", kill_worker, workers=(WorkerOptions("threads"), WorkerOptions("threads")), kills=True
    ),
    "worker_killed_solo": Fault(
        "the same, solo", kill_worker, workers=(WorkerOptions("solo"), WorkerOptions("solo")), kills=True
    ),
    "worker_killed_gevent": Fault(
        "the same, gevent", kill_worker, workers=(WorkerOptions("gevent"), WorkerOptions("gevent")), kills=True
    ),
    "child_killed": Fault("a child of the pool SIGKILLed at random moments", kill_child, kills=True),
    "poison": Fault("receivers that SIGKILL their process, raise MemoryError, SystemExit", send_poison, kills=True),
    "worker_stopped": Fault("SIGSTOP of a worker for longer than any lease, then CONT", stop_worker),
    "sender_killed": Fault("a sender killed at random moments", kill_sender, kills=True),
    "sender_killed_after_insert": Fault(
        "a sender killed between insert and commit", replace_dead_senders, kills=True, die_after="insert"
    ),
    "sender_killed_after_commit": Fault(
        "a sender killed between commit and publish", replace_dead_senders, kills=True, die_after="commit"
    ),
    "sender_killed_after_publish": Fault(
        "a sender killed after publish", replace_dead_senders, kills=True, die_after="publish"
    ),
    "sweepers_killed": Fault(
        "three sweepers, killed while they publish what a broker's outage left",
        kill_sweeper,
        workers=(WorkerOptions(concurrency=1),) * 3,
        kills=True,
        broker=KEPT,
    ),
    "broker_killed": Fault("broker `kill -9` and restart, appendonly", kill_broker, kills=True, broker=KEPT),
    "broker_wiped": Fault("FLUSHALL with a backlog", wipe_broker),
    "combined": Fault(
        "workers killed, the broker wiped and killed, all in one run; receivers of 20 ms",
        inject_combined,
        kinds=("working",),
        kills=True,
        broker=KEPT,
    ),
    "broker_full": Fault("maxmemory reached, noeviction", fill_broker),
    "broker_stopped": Fault("SIGSTOP of the broker", stop_broker),
    "database_restarted": Fault(
        "PostgreSQL restarted, by turns gently and after SIGKILL of all its processes",
        restart_database,
        databases=SERVER,
        kills=True,
    ),
    "receiver_paused": Fault(
        "a receiver paused under load, workers killed meanwhile, resumed at 20 a second",
        pause_receiver,
        kinds=("steady", "paired"),
    ),
    "deadlocks": Fault("receivers that deadlock", deadlock, kinds=("steady",) * 9 + ("crossing",), databases=SERVER),
    "clock_skewed": Fault(
        "the clock two hours ahead on one of two workers",
        skew_clock,
        kinds=("steady", "flaky", "flaky", "pausing"),
        workers=(SKEWED, WorkerOptions()),
        missing="" if skew.COMPILER else "there is no C compiler: apt-get install gcc libc6-dev",
    ),
    "slow_backlog": Fault(
        "a slow receiver with a long backlog on a queue of its own",
        pile_up,
        kinds=("steady",),
        workers=(WorkerOptions(queues="slow"), WorkerOptions(queues="signalbus")),
    ),
    "rolling_deploy": Fault(
        "old and new workers by turns, with a signal and a receiver that the old do not know",
        deploy,
        kinds=("steady", "young", "grown"),
        workers=(OLD, WorkerOptions()),
        kills=True,
    ),
    "worker_terminated": Fault("warm, soft and cold shutdown by turns", terminate_worker, kills=True),
}

# After the run, of what only some faults leave behind.
MEASURES: dict[str, Callable[[Cluster], None]] = {"poison": measure_poison, "slow_backlog": measure_steady}
# What CI has the time for.
SHORT = ("worker_killed", "child_killed", "poison", "sender_killed_after_insert", "broker_stopped", "rolling_deploy")
