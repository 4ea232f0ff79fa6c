"""Deliver the texts of one Celery message, one after the other, until all are done or the batch's time is over.

The Celery task calls `deliver` (decision 0032). It verifies each text (`verification`), delivers its message
(`resolution`), and requeues the texts that have not begun in time (`text_requeueing`). Short deliveries wait for a
group commit at the end.
"""

from __future__ import annotations

import time

from django.db import DataError

from signalbus import conf
from signalbus.receiving.process import task_log
from signalbus.receiving.process.database_connections import open_caches, reset_connections
from signalbus.receiving.process.session_state import end_changed_sessions
from signalbus.receiving.routing.resolution import deliver_message
from signalbus.receiving.routing.text_requeueing import requeue_texts
from signalbus.receiving.routing.verification import refuse, verify_text
from signalbus.receiving.running.grouping import Group
from signalbus.transport import progress


def deliver(
    texts: object, *, queue: str | None = None, redelivered: bool = False, ticket: progress.Ticket | None = None
) -> None:
    """Deliver the texts of one Celery message.

    Args:
        texts: a list of signed texts; any writer to the broker may have chosen it.
        queue: the queue it came through, or None for the default one.
        redelivered: the broker has redelivered it, because its worker was lost or stopped.
        ticket: the sheet on which the main process watches the progress; None if it does not.

    Raises:
        Exception: such as the ledger's DatabaseError; the Celery message must be requeued.
    """
    task_log.begin()
    end_changed_sessions()  # of a host's task or handler that ran on this thread before
    if not isinstance(texts, list):
        refuse(texts, "not a list of texts", queue)
        return
    open_caches()
    try:
        _deliver_each(texts, queue, progress.of(ticket, len(texts)), redelivered=redelivered)
    except BaseException:
        reset_connections()  # a time limit may strike in our own queries as well
        raise


def _deliver_each(
    texts: list[object], queue: str | None, text_progress: progress.Progress, *, redelivered: bool
) -> None:
    deadline = time.monotonic() + conf.get().BATCH_SECONDS
    group = Group(text_progress)
    put_off: list[int] = []
    alone = len(texts) == 1
    for index, text in enumerate(texts):
        over = index > 0 and time.monotonic() > deadline
        rest = range(index, len(texts) if over else index + 1)
        if not text_progress.begin(*rest):
            break  # the texts that have not begun were requeued
        if over:
            if requeue_texts(queue, texts[index:]):
                text_progress.end(*rest)
                break
            text_progress.put_off(*rest[1:])
        grouped_before = len(group.waiting)
        group.begin_text(index)
        try:
            message = verify_text(text, queue)
            if message is not None:
                deliver_message(message, queue, deadline, group, redelivered=redelivered, alone=alone)
        except (DataError, UnicodeError) as error:
            # The error is about this text, not about the database's state: a retry would fail for ever.
            refuse(text, f"the ledger cannot hold it: {error}", queue, error)
            group.drop_text()
        if len(group.waiting) > grouped_before:
            put_off.append(index)
            text_progress.put_off(index)
            if group.is_full:
                _deliver_group(group, put_off, text_progress)
        else:
            text_progress.end(index)
    if put_off:
        _deliver_group(group, put_off, text_progress)


def _deliver_group(group: Group, put_off: list[int], text_progress: progress.Progress) -> None:
    text_progress.resume(*put_off)
    group.deliver()
    text_progress.end(*put_off)
    put_off.clear()
