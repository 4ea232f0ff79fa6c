"""Correct kombu's count of unacknowledged messages after an acknowledgement that the broker did not take.

`consumer` and `request` call it for each message. Without this, such a message would count as active for ever, and
the worker would stop asking for messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu.transport.virtual import QoS

if TYPE_CHECKING:
    from collections.abc import Callable

    from kombu import Message


def forget_if_lost(message: Message) -> Message:
    """Drop a message from kombu's count of unacknowledged ones, even if the broker does not take the acknowledgement.

    On Redis, kombu counts a message until the broker has taken its acknowledgement. In an outage of the broker that
    fails, is logged, and is not tried again. Once that has happened as often as the prefetch limit, the worker asks for
    no more messages: it does not even notice that its connection is dead.

    Args:
        message: the consumer's message.

    Returns:
        The same message.
    """
    channel: Any = message.channel
    qos = getattr(channel, "qos", None)
    if isinstance(qos, QoS):  # a broker that keeps the count itself closes the connection, and with it the count
        message.ack = _forgetting(qos, message.delivery_tag, message.ack)  # type: ignore[method-assign]
        message.reject = _forgetting(qos, message.delivery_tag, message.reject)  # type: ignore[method-assign]
    return message


def _forgetting(qos: QoS, tag: Any, end: Callable[..., None]) -> Callable[..., None]:
    def end_or_forget(*args: Any, **options: Any) -> None:
        try:
            end(*args, **options)
        except Exception:  # whatever the transport says: Celery logs it, or drops the connection
            QoS.ack(qos, tag)  # the count alone, without the broker
            raise

    return end_or_forget
