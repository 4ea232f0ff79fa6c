"""Describe this worker: its pool, its queues, and the receivers that it knows."""

from __future__ import annotations

import json
import os
import socket
from hashlib import blake2b
from importlib.metadata import version
from typing import Any

from signalbus import conf
from signalbus.registration.registry import registry

DIGEST_BYTES = 6


def describe_worker(worker: Any) -> dict[str, Any]:
    """Return the columns that describe a worker.

    Args:
        worker: Celery's.
    """
    known = known_receivers()
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "pool": pool_name(worker),
        "concurrency": worker.max_concurrency or worker.pool.num_processes,
        "queues": sorted(worker.app.amqp.queues.consume_from),
        "version": version("django-signalbus"),
        "release": conf.release(),
        "registry_digest": digest_of(known),
        "receivers": known,
    }


def pool_name(worker: Any) -> str:
    """Return the name of a worker's pool, as its option ``--pool`` has it."""
    module = str(worker.pool_cls.__module__ if isinstance(worker.pool_cls, type) else worker.pool_cls)
    name = module.partition(":")[0].rpartition(".")[2]
    return {"thread": "threads", "asynpool": "prefork"}.get(name, name)


def known_receivers() -> dict[str, list[str]]:
    """Return the ids of the receivers that this process knows, by their signals' names."""
    return {signal.name: sorted({entry.id for entry in signal.entries()}) for signal in registry}


def digest_of(known: dict[str, list[str]]) -> str:
    """Return a digest of the receivers that a process knows, the same for processes that know the same ones."""
    text = json.dumps(known, sort_keys=True)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).hexdigest()
