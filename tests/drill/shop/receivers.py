"""The shop's receivers, with the faults of the release; each leaves an effect in the ledger's database."""

from __future__ import annotations

import os
import time
from typing import Any

from signalbus import Retry, current, receiver

from . import release
from .models import Effect, Order
from .signals import order_discounted, order_packed, order_paid, order_photographed, order_placed, order_shipped

NUMBER = 42  # of the order that somebody asks for


def leave_effect(order: Order) -> None:
    """Write that the running receiver did its work for an order."""
    delivery = current()
    assert delivery is not None
    Effect.objects.create(receiver=delivery.receiver.rpartition(".")[2], order=order.pk)


def vat_of(order: Order) -> int:
    """Return the VAT rate of an order; the first release lacks the table.

    Raises:
        LookupError: there is no rate.
    """
    if not release.HAS_VAT_RATES:
        raise LookupError(f"order {order.pk}: no VAT rate")
    return 19


def charge(order: Order) -> None:
    """Charge the card of an order.

    Raises:
        ConnectionError: the payment service is away, as in all of the drill.
    """
    if order.by_card:
        raise ConnectionError(f"order {order.pk}: the payment service does not answer")


# The second release lowers the number of attempts: what has failed more often has failed for its old cause. The first
# has so many that nothing is dead before a slow machine has paused it.
@receiver(order_placed, retry=Retry(max_attempts=2 if release.HAS_VAT_RATES else 20, base_delay=2.0))
def book_invoice(instance: Order, **kwargs: Any) -> None:
    """Book the invoice of an order."""
    leave_effect(instance)
    charge(instance)
    vat_of(instance)


@receiver(order_placed)
def reserve_stock(instance: Order, **kwargs: Any) -> None:
    """Succeed beside the invoice."""
    leave_effect(instance)


@receiver(order_paid)
def send_receipt(instance: Order, **kwargs: Any) -> None:
    """Succeed."""
    leave_effect(instance)


@receiver(order_paid)
def book_payment(instance: Order, **kwargs: Any) -> None:
    """Succeed."""
    leave_effect(instance)


@receiver(order_packed)
def print_label(instance: Order, **kwargs: Any) -> None:
    """Print a label; at one order wait for a printer that is off."""
    leave_effect(instance)
    while instance.pk == NUMBER and not release.PRINTS_ALL_LABELS:
        time.sleep(60)


@receiver(order_packed)
def count_package(instance: Order, **kwargs: Any) -> None:
    """Succeed beside the label."""
    leave_effect(instance)


@receiver(order_photographed)
def shrink_photo(instance: Order, **kwargs: Any) -> None:
    """Shrink a photo; one of them ends the process, as a library in C does."""
    leave_effect(instance)
    if instance.pk == NUMBER and not release.READS_ALL_PHOTOS:
        os._exit(1)


@receiver(order_discounted)
def lower_price(instance: Order, percent: int, **kwargs: Any) -> None:
    """Lower a price by what the message says."""
    leave_effect(instance)


if not release.RENAMED:

    @receiver(order_shipped)
    def tell_customer(instance: Order, **kwargs: Any) -> None:
        """Tell the customer, as the receiver was called at first."""
        leave_effect(instance)

else:
    OLD_NAMES = [f"{__name__}.tell_customer"] if release.NAMES_THE_OLD_RECEIVER else []

    @receiver(order_shipped, was=OLD_NAMES)
    def notify_customer(instance: Order, **kwargs: Any) -> None:
        """Tell the customer."""
        leave_effect(instance)
