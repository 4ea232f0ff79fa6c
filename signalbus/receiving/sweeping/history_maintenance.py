"""Merge and delete what is kept of the past, and judge the alerts. Called by the sweeper that purges."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django.db import DatabaseError, transaction

from signalbus import conf
from signalbus.failure_signals import alert
from signalbus.ledger import sweeps as ledger
from signalbus.receiving.sweeping.alert_notices import page_of

if TYPE_CHECKING:
    from signalbus.ledger.history import Condition

logger: logging.Logger = logging.getLogger("signalbus")


def maintain_history() -> None:
    """Merge counts, delete old rows of the history, and raise and clear alerts.

    Raises:
        DatabaseError: the ledger could not be reached.
    """
    settings = conf.get()
    ledger.merge_counts(settings.age("counts"))
    ledger.purge_log(settings.age("operations"), settings.age("alerts"))
    ledger.forget_stale_workers()
    raised, cleared = ledger.judge_alerts(_send_alert)
    for condition in raised:
        logger.warning("signalbus alert (%s): %s", condition.kind, condition.text)
    for condition in cleared:
        logger.info("signalbus alert is over (%s): %s", condition.kind, condition.text)


def _send_alert(condition: Condition, change: str) -> None:
    """Send the Django signal of a change, in the transaction that records it.

    An error of a receiver is logged, by Django, and does not undo the change. After one of the database all that
    receivers wrote about this change is undone.
    """
    if not alert.receivers:
        return
    with transaction.atomic(using=ledger.using()):
        answers = alert.send_robust(
            sender=condition.kind,
            kind=condition.kind,
            key=condition.key,
            level=condition.level,
            text=condition.text,
            url=page_of(condition),
            raised=change == "raised",
        )
        if any(isinstance(answer, DatabaseError) for _, answer in answers):
            transaction.set_rollback(True, using=ledger.using())
