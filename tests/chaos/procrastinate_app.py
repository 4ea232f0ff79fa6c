"""procrastinate, by its public API, with the same work as the bus in the scenarios: its app, its task, and its sender.

The worker is ``procrastinate --app=tests.chaos.procrastinate_app.app worker``, the sender
``python -m tests.chaos.procrastinate_app --rate 50``.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from pathlib import Path

import procrastinate
import psycopg

from tests.chaos.journal import Journal
from tests.chaos.roles import RECIPIENTS, WORK_SECONDS
from tests.chaos.sender import RateLimit, arguments

URL = os.environ.get("DATABASE_URL", "")
EFFECT = "INSERT INTO chaos_effect (message, receiver, at) VALUES (%s, %s, %s)"

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=URL))
_local = threading.local()


def _connection() -> psycopg.Connection:
    """Return this thread's connection for effects; a new one if the last is broken."""
    found: psycopg.Connection | None = getattr(_local, "connection", None)
    if found is None or found.closed:
        found = _local.connection = psycopg.connect(URL, autocommit=True)
    return found


# Named, because the module has another name where it is run as a program.
@app.task(name="record_after_work", retry=procrastinate.RetryStrategy(max_attempts=20, wait=1))
def record_after_work(message: str) -> None:
    """Leave an effect after the same work as the bus's receiver."""
    time.sleep(WORK_SECONDS)
    _connection().execute(EFFECT, (message, RECIPIENTS["working"][0], time.monotonic()))


def main() -> None:
    """Defer a task at a steady rate until told to stop."""
    options = arguments()
    journal = Journal(Path(os.environ["CHAOS_JOURNAL"]))
    with app.open():
        rate_limit = RateLimit(options.rate, options.limit)
        while rate_limit.goes_on():
            message = str(uuid.uuid4())
            began = time.monotonic()
            journal.note("sent", message, "working")
            try:
                record_after_work.defer(message=message)
            except (procrastinate.exceptions.ConnectorException, psycopg.Error) as error:
                journal.note("raised", f"{type(error).__name__}: {error}")
                time.sleep(0.1)
            else:
                journal.note("acknowledged", message)
            journal.note("waited", f"{time.monotonic() - began:.6f}")
            rate_limit.wait(1)


if __name__ == "__main__":
    main()
