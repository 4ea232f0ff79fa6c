"""The texts of one Celery message, one after the other, until they are all delivered or its time is over."""

from __future__ import annotations

import time

from django.db import DataError

from signalbus import conf
from signalbus.receiving.addressing import deliver_message
from signalbus.receiving.group import Group
from signalbus.receiving.opening import open_text, refuse
from signalbus.receiving.returning import returned
from signalbus.receiving.upkeep import mend_connections, open_caches


def deliver(texts: object, *, queue: str | None = None, redelivered: bool = False) -> None:
    """Deliver what one Celery message holds.

    Args:
        texts: a list of signed texts; whoever can write to the broker chose it.
        queue: the queue it came through, or None for the default one.
        redelivered: the broker gave it out before, and its worker was lost or stopped.

    Raises:
        Exception: such as the ledger's DatabaseError; the Celery message must be given back to the broker.
    """
    if not isinstance(texts, list):
        refuse(texts, "not a list of texts", queue)
        return
    open_caches()
    try:
        _deliver_each(texts, queue, redelivered=redelivered)
    except BaseException:
        mend_connections()  # a time limit may strike in our own queries as well
        raise


def _deliver_each(texts: list[object], queue: str | None, *, redelivered: bool) -> None:
    deadline = time.monotonic() + conf.get().BATCH_SECONDS
    group = Group()
    alone = len(texts) == 1
    for index, text in enumerate(texts):
        if index and time.monotonic() > deadline and returned(queue, texts[index:]):
            break
        try:
            message = open_text(text, queue)
            if message is not None:
                deliver_message(message, queue, deadline, group, redelivered=redelivered, alone=alone)
        except (DataError, UnicodeError) as error:
            # The database's word on this text, not on its own state: to try again would be to try for ever.
            refuse(text, f"the ledger cannot hold it: {error}", queue)
        if group.is_full:
            group.deliver()
    group.deliver()
