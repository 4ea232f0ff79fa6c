"""What we use of Celery's private parts: each with what would break, and tests/unit/test_compat.py that notices it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def listeners(signal: Any, sender: object) -> list[tuple[Callable[..., object], bool]]:
    """Return who listens to one of Celery's signals, and whether each asked for this sender.

    Without ``receivers`` and their keys, a listener of everything could not be told from one of our task, and no tracer
    would hear of a message.

    Args:
        signal: such as ``celery.signals.before_task_publish``.
        sender: what it would be sent from.
    """
    live: list[Any] = signal._live_receivers(sender)  # noqa: SLF001 - the reason of this module
    if not live:
        return []
    everybody = {id(receiver) for receiver in signal._live_receivers(None)}  # noqa: SLF001 - as above
    return [(receiver, id(receiver) not in everybody) for receiver in live]
