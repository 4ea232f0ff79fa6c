"""Merge and delete what is kept of the past, and judge the alerts. Called by the sweeper that purges."""

from __future__ import annotations

import logging

from signalbus import conf
from signalbus.ledger import sweeps as ledger

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
    raised, cleared = ledger.judge_alerts()
    for condition in raised:
        logger.warning("signalbus alert (%s): %s", condition.kind, condition.text)
    for condition in cleared:
        logger.info("signalbus alert is over (%s): %s", condition.kind, condition.text)
