"""Call a function as a receiver is called: while a delivery is the current one."""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

from signalbus.context import current_delivery

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalbus.context import CurrentDelivery

P = ParamSpec("P")
T = TypeVar("T")


def running(delivery: CurrentDelivery, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function while a delivery is the current one: messages that it sends have that delivery's lineage."""
    token = current_delivery.set(delivery)
    try:
        return function(*args, **kwargs)
    finally:
        current_delivery.reset(token)
