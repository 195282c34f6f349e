"""The order saga: read the table at the end and you know the process.

Which step an order is at follows from the order alone, so that a saga can't disagree with its order. A step
asks another service (with a command, or by the event that the order published when the step began), waits for
one of its answers, and gives up at its deadline. What it did is undone by the step or event in `undone_by`.

After Garcia-Molina and Salem, "Sagas" (1987), orchestrated as in Richardson, "Microservices Patterns", ch. 4.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from stoa_events import (
    InventoryOutOfStock,
    InventoryReserved,
    PaymentFailed,
    PaymentRefunded,
    PaymentSuccessful,
)
from stoa_order.model import Order, Status


class Commands(Protocol):
    """What the saga asks of other services. Each may be asked again at any time: the answer is the same."""

    async def charge(self, order: Order, payment_token: str | None) -> None:
        """Charge the order's total. The outcome comes as an event."""
        ...

    async def refund(self, order: Order, payment_token: str | None) -> None:
        """Give back all that is left of the order's payment. The outcome comes as an event."""
        ...


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an order waits for stock and for its payment before it gives up."""

    stock: timedelta
    payment: timedelta


@dataclass(frozen=True, slots=True)
class Step:
    """One step: when an order is at it, what it asks, which answers it takes, and what undoes it."""

    name: str
    when: Callable[[Order], bool]
    asks: Callable[[Commands, Order, str | None], Awaitable[None]] | None
    answers: Mapping[type, Callable[[Order, Any, datetime], None]]
    patience: Callable[[Patience], timedelta] | None
    gives_up: Callable[[Order, datetime], None] | None
    undone_by: str


SAGA: tuple[Step, ...] = (
    Step(
        name="reserve stock",
        when=lambda order: order.status is Status.PENDING and not order.stock_reserved,
        asks=None,  # order.placed asks inventory
        answers={InventoryReserved: Order.reserve, InventoryOutOfStock: Order.refuse_stock},
        patience=lambda patience: patience.stock,
        gives_up=Order.give_up_on_stock,
        undone_by="order.cancelled, at which inventory releases",
    ),
    Step(
        name="charge",
        when=lambda order: order.status is Status.PENDING and order.stock_reserved,
        asks=lambda commands, order, token: commands.charge(order, token),
        answers={PaymentSuccessful: Order.pay, PaymentFailed: Order.refuse_payment},
        patience=lambda patience: patience.payment,
        gives_up=Order.give_up_on_payment,
        undone_by="refund",
    ),
    Step(
        name="refund",
        when=lambda order: (
            order.status is Status.CANCELLED and order.payment is not None and order.payment.holds_money
        ),
        asks=lambda commands, order, _: commands.refund(order, None),
        answers={PaymentRefunded: Order.refund},
        patience=None,  # never gives up: the money is the buyer's
        gives_up=None,
        undone_by="nothing: it is itself what undoes",
    ),
)


def step_of(order: Order) -> Step | None:
    """Return the step that an order is at; None when nothing more is to happen by itself."""
    return next((step for step in SAGA if step.when(order)), None)
