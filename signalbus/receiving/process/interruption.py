"""Tell whether a run was interrupted from outside, and whether by the worker's own shutdown (decision 0014).

`settling/outcome` asks it before it counts a failure. `worker/bootstrap` connects it to Celery's signal of the
shutdown.
"""

from __future__ import annotations

import mmap
import time

from signalbus.compat.celery_internals import is_child_exiting, is_worker_terminating

PATIENCE = 0.5  # seconds for the main process to note its shutdown: its children may notice it first

# A byte that the main process shares with its children: mapped before they are forked.
_shared = mmap.mmap(-1, 1)


def tell_children(**_kwargs: object) -> None:
    """Note, in the main process, that the worker shuts down."""
    _shared[0] = 1


def has_begun() -> bool:
    """Return whether the worker has been told to shut down; in its main process."""
    return bool(_shared[0]) or is_worker_terminating()


def was_cut_off() -> bool:
    """Return whether the run that has just failed was ended by a process signal, and not by its receiver."""
    return is_child_exiting() or is_worker_terminating()


def is_shutting_down() -> bool:
    """Return whether the worker shuts down; if not, a child was killed, perhaps because of its receiver."""
    if is_worker_terminating():
        return True
    patience = time.monotonic() + PATIENCE
    while not _shared[0] and time.monotonic() < patience:
        time.sleep(0.01)
    return bool(_shared[0])
