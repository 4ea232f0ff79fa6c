"""Between send() and the broker: waits for the commit, and keeps what the broker does not take."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING

from signalbus import commits, conf, ledger
from signalbus.exceptions import SignalBusError
from signalbus.sending import publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from signalbus.sending.composing import Outgoing

    Divert = Callable[[list[Outgoing]], None]

logger = logging.getLogger("signalbus")

# Where messages go instead, in a test (signalbus.testing): in this context, else in every thread, else for as long as
# the settings say so.
diverted: ContextVar[Divert | None] = ContextVar("signalbus_diverted", default=None)
diverted_everywhere: Divert | None = None
test_modes: dict[str | None, Divert] = {}


def add(outgoing: Iterable[Outgoing], *, robust: bool = True) -> None:
    """Publish messages after the commit that decides over them; at once if there is none to wait for.

    Args:
        outgoing: the messages.
        robust: never raise, whatever happens to the broker and to the ledger.
    """
    divert = diverted.get() or diverted_everywhere or test_modes.get(conf.get().TEST_MODE)
    if divert is not None:
        _divert(divert, list(outgoing), robust=robust)
    elif deciders := commits.deciding():
        commits.wait(deciders, outgoing, publish)
    else:
        publish(list(outgoing), robust=robust)


def _divert(divert: Divert, outgoing: list[Outgoing], *, robust: bool) -> None:
    try:
        divert(outgoing)
    except SignalBusError:  # a receiver that ran at once, and failed
        if not robust:
            raise
        logger.exception("signalbus: what was delivered at once, in a test, failed")


def publish(outgoing: Sequence[Outgoing], *, robust: bool = True) -> None:
    """Publish messages, those for a queue together; what the broker does not take is kept in the ledger.

    After a failure nothing more is tried: each try may last for the whole timeout, and somebody waits for this.

    Args:
        outgoing: the messages.
        robust: log, and do not raise, where the ledger fails as well.

    Raises:
        Exception: what the ledger said; neither the broker nor the ledger took them, and not robust.
    """
    by_queue: dict[str | None, list[Outgoing]] = {}
    for item in outgoing:
        by_queue.setdefault(item.queue, []).append(item)
    unsent: list[Outgoing] = []
    failure: publisher.PublishError | None = None
    for queue, items in by_queue.items():
        if failure is not None:
            unsent += items
            continue
        try:
            publisher.publish(queue, [item.body for item in items])
        except publisher.PublishError as error:
            failure = error
            unsent += [items[index] for index in error.unsent]
    if failure is not None:
        _keep(unsent, failure, robust=robust)


def _keep(items: Sequence[Outgoing], error: publisher.PublishError, *, robust: bool) -> None:
    logger.warning("signalbus keeps %d message(s) for later: %s", len(items), error)
    try:
        ledger.keep_unpublished([(item.message, item.queue) for item in items], str(error))
    except Exception:  # whatever it is: what was committed, and has nowhere to go, must be named
        ids = ", ".join(str(item.message.id) for item in items)
        logger.critical("signalbus LOST what neither the broker nor the ledger took: %s", ids, exc_info=True)
        if not robust:
            raise
