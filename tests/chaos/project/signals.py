"""A signal for each role; ``tests.chaos.roles`` says who receives it."""

import os

from signalbus import Signal

# A worker of the version before the newest signal and the newest receiver were written.
OLD = "CHAOS_OLD" in os.environ

steady = Signal()  # to one receiver that succeeds
paired = Signal()  # to an atomic one, and to one that is not
flaky = Signal()  # to one whose first attempts may fail
pausing = Signal()  # to one that holds its transaction for a while
slow = Signal()  # to a slow one with a queue of its own
deadly = Signal()  # to those that never succeed
crossing = Signal()  # to two that deadlock with each other
grown = Signal()  # to one that was always there, and to one that an old worker lacks
working = Signal()  # to one that takes as long as procrastinate's task in the scenarios

if not OLD:
    young = Signal()  # not known to an old worker
