"""Detect that a run was interrupted from outside, and whether by the worker's own shutdown (decision 0014)."""

from __future__ import annotations

import mmap
import time

from signalbus.compat.celery_internals import is_child_exiting, is_worker_terminating

PATIENCE = 0.5  # seconds for the main process to say that it ends: its children may hear of it first

# A byte that the main process shares with its children: mapped before they are forked.
_shared = mmap.mmap(-1, 1)


def tell_children(**_kwargs: object) -> None:
    """Note, in the main process, that the worker shuts down."""
    _shared[0] = 1


def has_begun() -> bool:
    """Whether the worker has been told to shut down; in its main process."""
    return bool(_shared[0]) or is_worker_terminating()


def was_cut_off() -> bool:
    """Whether what has just failed here was ended by a signal, and did not fail by itself."""
    return is_child_exiting() or is_worker_terminating()


def is_shutting_down() -> bool:
    """Whether the worker shuts down. If not, somebody has killed a child, for what its receiver does perhaps."""
    if is_worker_terminating():
        return True
    patience = time.monotonic() + PATIENCE
    while not _shared[0] and time.monotonic() < patience:
        time.sleep(0.01)
    return bool(_shared[0])
