"""A process that sends at a steady rate until it is told to stop, or dies at a given step, and records each send.

``python -m tests.chaos.sender --kinds steady,flaky --rate 50``, with CHAOS_JOURNAL in the environment.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
from django.db import Error, connection, transaction

from tests.chaos.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

ROLLED_BACK = 0.05  # of the transactions, on purpose
STEPS = ("insert", "commit", "publish")  # after which a sender may kill itself


class RolledBack(Exception):
    """Ends a transaction on purpose."""


class Sender:
    """Sends, and records each step before it can be judged.

    Args:
        kinds: signals of the project, by their variables; one that is named twice is sent twice as often.
        journal: where it is noted.
        step: after which it kills itself, sometimes; None for never.
    """

    def __init__(self, kinds: Sequence[str], journal: Journal, step: str | None) -> None:
        from tests.chaos.project import signals

        self._kinds = kinds
        self._signals: dict[str, Any] = {kind: getattr(signals, kind) for kind in kinds}
        self._journal = journal
        self._step = step
        self._dies_here = False
        self._warm = False
        if step == "commit":
            self._die_between_commit_and_publication()

    def send(self) -> int:
        """Send one to three messages in one transaction; return the number of owed deliveries."""
        # Decided before, so that what the transaction held does not matter.
        self._dies_here = random.random() < 0.05
        began = time.monotonic()
        ids: list[UUID] = []
        try:
            with transaction.atomic():
                kinds = random.choices(self._kinds, k=random.choice((1, 1, 2, 3)))
                ids.extend(self._send_one(kind) for kind in kinds)
                self._die_after("insert")
                if random.random() < ROLLED_BACK:
                    raise RolledBack
        except RolledBack:
            self._note_all("rolled back", ids)
            return 0
        except Error as error:
            self._journal.note("raised", f"{type(error).__name__}: {error}")
            connection.close()
            time.sleep(0.1)
            return 0
        finally:
            if self._warm:  # else it has imported what a first send() imports
                self._journal.note("waited", f"{time.monotonic() - began:.6f}")
            self._warm = True
        self._die_after("publish")
        self._note_all("acknowledged", ids)
        return len(ids)

    def _send_one(self, kind: str) -> UUID:
        from tests.chaos.project.models import Sending

        message: UUID = self._signals[kind].send(sender=None, label=kind).id
        # Before the commit: an effect without this line in the journal would be an unexplained phantom.
        self._journal.note("sent", message, kind)
        Sending.objects.create(message=message)
        return message

    def _note_all(self, fact: str, ids: Sequence[UUID]) -> None:
        for message in ids:
            self._journal.note(fact, message)

    def _die_after(self, step: str) -> None:
        if self._dies_here and self._step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def _die_between_commit_and_publication(self) -> None:
        """Replace the connection's own commit(), because a callback might run after those that publish."""
        connection.ensure_connection()
        commit = connection.commit

        def commit_and_die() -> None:
            commit()
            self._die_after("commit")

        connection.commit = commit_and_die  # type: ignore[method-assign]


class RateLimit:
    """Keeps a loop at a rate until SIGTERM or a limit; it does not catch up after half a second.

    Args:
        rate: messages a second; 0 for as fast as it goes.
        limit: turns of the loop, at most.
    """

    def __init__(self, rate: float, limit: int | None) -> None:
        self._rate = rate
        self._left = limit
        self._due = time.monotonic()
        self._stopped = False
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def goes_on(self) -> bool:
        """Return whether there is another turn."""
        return not self._stopped and self._left != 0

    def wait(self, count: int) -> None:
        """Wait for as long as this many messages are to take.

        Args:
            count: what a turn has sent.
        """
        if self._left is not None:
            self._left -= 1
        if self._rate:
            self._due = max(self._due + count / self._rate, time.monotonic() - 0.5)
            time.sleep(max(0.0, self._due - time.monotonic()))


def arguments() -> argparse.Namespace:
    """Read the command line, which procrastinate's sender shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", default="steady", help="signals, with commas")
    parser.add_argument("--rate", type=float, default=0.0, help="messages a second; 0: as fast as it goes")
    parser.add_argument("--limit", type=int, help="transactions")
    parser.add_argument("--die-after", choices=STEPS)
    return parser.parse_args()


def main() -> None:
    """Send until told to stop."""
    options = arguments()
    django.setup()
    sender = Sender(options.kinds.split(","), Journal(Path(os.environ["CHAOS_JOURNAL"])), options.die_after)
    rate_limit = RateLimit(options.rate, options.limit)
    while rate_limit.goes_on():
        rate_limit.wait(sender.send())


if __name__ == "__main__":
    main()
