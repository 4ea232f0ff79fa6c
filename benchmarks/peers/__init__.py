"""Peers: other ways to run something outside of a request, set up as their documentation says, in own processes.

A module of each holds its app, its task that does nothing, and ``send(count)``; ``transaction``, where its queue is a
database, is what holds back what was sent until all of it is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer.

    Args:
        name: as the table has it.
        distribution: what is installed.
        module: in this package.
        commands: of its workers, each from the module's name on; two processes in all.
        keys: of the broker, that hold what was sent; none where the queue is a database.
        settings: whether it needs Django's.
        messages: in a slice: what takes it a second or a few.
    """

    name: str
    distribution: str
    module: str
    commands: tuple[tuple[str, ...], ...]
    keys: tuple[str, ...] = ()
    settings: bool = False
    messages: int = 5000

    @property
    def path(self) -> str:
        """Return the module's full name."""
        return f"{__name__}.{self.module}"

    def missing(self) -> str | None:
        """Return why it cannot be measured here; None if it can."""
        try:
            version(self.distribution)
        except PackageNotFoundError:
            return f"{self.distribution} is not installed here: pip install '.[bench]'"
        return None


HERE = __name__
ON_THE_BROKER = (
    Peer(
        "huey",
        "huey",
        "on_huey",
        (("huey.bin.huey_consumer", f"{HERE}.on_huey.huey", "-k", "process", "-w", "2", "-q"),),
        ("huey.redis.bench",),
    ),
    Peer(
        "dramatiq",
        "dramatiq",
        "on_dramatiq",
        (("dramatiq", f"{HERE}.on_dramatiq", "--processes", "2"),),
        ("dramatiq:default", "dramatiq:default.msgs"),
    ),
    Peer(
        "taskiq",
        "taskiq-redis",
        "on_taskiq",
        (("taskiq", "worker", f"{HERE}.on_taskiq:broker", "--workers", "2", "--log-level", "WARNING"),),
        ("taskiq",),
    ),
    Peer(
        "rq",
        "rq",
        "on_rq",
        (("rq.cli", "worker-pool", "-c", f"{HERE}.on_rq", "-n", "2", "-q"),),
        ("rq:queue:default",),
        messages=300,
    ),
)
EMISOR = Peer(
    "celery-task-manager",
    "celery-task-manager",
    "on_emisor",
    (("celery", "-A", f"{HERE}.on_emisor", "worker", "--concurrency", "2", "--loglevel", "WARNING"),),
    ("celery\x06\x169",),  # kombu's name of the queue for the priority that it gives to all its tasks
    settings=True,
    messages=300,
)
ON_THE_DATABASE = (
    Peer(
        "procrastinate",
        "procrastinate",
        "on_procrastinate",
        (("django", "procrastinate", "worker"),) * 2,
        settings=True,
        messages=1000,
    ),
    Peer(
        "django-tasks-db",
        "django-tasks-db",
        "on_django_tasks",
        (("django", "db_worker"),) * 2,
        settings=True,
        messages=400,
    ),
    Peer("django-q2", "django-q2", "on_django_q", (("django", "qcluster"),), settings=True, messages=300),
    Peer(
        "huey (SQL)",
        "huey",
        "on_sql_huey",
        (("huey.bin.huey_consumer", f"{HERE}.on_sql_huey.huey", "-k", "process", "-w", "2", "-q"),),
        messages=1000,
    ),
)
