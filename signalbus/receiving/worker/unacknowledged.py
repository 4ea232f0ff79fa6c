"""Forget requests whose message could not be acknowledged: they would count as active for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu.transport.virtual import QoS

if TYPE_CHECKING:
    from collections.abc import Callable

    from kombu import Message


def let_go_if_lost(message: Message) -> Message:
    """Make a message forget that it is held here, where the broker does not hear of its end.

    On Redis, kombu counts what it was given until the broker has taken the acknowledgement. With the broker gone that
    fails, is logged, and is not tried again. As many times as the worker may hold messages, and it asks for no more: it
    does not even notice that its connection is dead.

    Args:
        message: as the consumer got it.

    Returns:
        The same message.
    """
    channel: Any = message.channel
    held = getattr(channel, "qos", None)
    if isinstance(held, QoS):  # a broker that keeps the count itself closes the connection, and with it the count
        message.ack = _letting_go(held, message.delivery_tag, message.ack)  # type: ignore[method-assign]
        message.reject = _letting_go(held, message.delivery_tag, message.reject)  # type: ignore[method-assign]
    return message


def _letting_go(held: QoS, tag: Any, end: Callable[..., None]) -> Callable[..., None]:
    def end_or_let_go(*args: Any, **options: Any) -> None:
        try:
            end(*args, **options)
        except Exception:  # whatever the transport says: Celery logs it, or drops the connection
            QoS.ack(held, tag)  # the count alone, without the broker
            raise

    return end_or_let_go
