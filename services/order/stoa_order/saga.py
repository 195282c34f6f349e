"""The order saga: read the table at the end and you know the process.

Which step an order is at follows from the order alone, so that a saga can't disagree with its order. A step
asks another service (with a command, or by the event that the order published when the step began), waits for
one of its answers, and gives up at its deadline. An answer comes as an event, or at once as the reply to the
command. When the order is cancelled, what a step did is undone by its compensation: an event that the
cancelled order publishes, or a step that the order is then at.

After Garcia-Molina and Salem, "Sagas" (1987), orchestrated as in Richardson, "Microservices Patterns", ch. 4.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias, cast, get_args

from stoa_chassis.due import Backoff
from stoa_contracts.events import Payload
from stoa_events import (
    InventoryOutOfStock,
    InventoryReserved,
    OrderCancelled,
    PaymentCaptured,
    PaymentFailed,
    PaymentRefunded,
    PaymentSuccessful,
    ShipmentCreated,
    ShipmentStatusUpdated,
)
from stoa_order.model import (
    Order,
    ReturnRefundMade,
    Saga,
    ShipmentStopped,
    ShipmentUnderWay,
    Status,
)
from stoa_order.ports import Peers

Answer: TypeAlias = (
    InventoryReserved
    | InventoryOutOfStock
    | PaymentSuccessful
    | PaymentCaptured
    | PaymentFailed
    | PaymentRefunded
    | ShipmentCreated
    | ShipmentStatusUpdated
)
"""What other services answer by an event. Each names its order."""

Reply: TypeAlias = ShipmentStopped | ShipmentUnderWay | ReturnRefundMade
"""What other services answer at once when they are asked."""

Ask: TypeAlias = Callable[[Peers, Order, Saga], Awaitable[Reply | None]]
"""Asks another service; without a reply the answer comes as an event."""

Reaction: TypeAlias = Callable[[Order, Any, datetime], None]
"""Lets an answer take effect on its order; any is declared because each takes answers of its own type."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long an order waits for stock and for its payment, and when a step asks again meanwhile."""

    stock: timedelta
    payment: timedelta
    retry: Backoff


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    When an order is at it, what it asks, which answers it takes, what undoes it when the order is cancelled,
    how long it waits, and what happens then. Without a timeout it asks for ever; what only waits for others
    then needs no saga.
    """

    name: str
    when: Callable[[Order], bool]
    asks: Ask | None
    answers: Mapping[type[Payload] | type[Reply], Reaction]
    compensation: "Step | type[Payload] | None" = None
    timeout: Callable[[Timeouts], timedelta] | None = None
    gives_up: Callable[[Order, datetime], None] | None = None


SAGA: tuple[Step, ...] = (
    Step(
        name="reserve stock",
        when=lambda order: order.status is Status.PENDING and not order.stock_reserved,
        asks=None,  # order.placed asks inventory
        answers={
            InventoryReserved: Order.on_inventory_reserved,
            InventoryOutOfStock: Order.on_inventory_out_of_stock,
        },
        compensation=OrderCancelled,  # inventory releases, also what it has yet to reserve
        timeout=lambda timeouts: timeouts.stock,
        gives_up=Order.give_up_on_stock,
    ),
    Step(
        name="charge",
        when=lambda order: order.status is Status.PENDING and order.stock_reserved,
        asks=lambda peers, order, saga: peers.payments.charge(order, saga.token or ""),
        answers={
            PaymentSuccessful: Order.on_payment_successful,
            PaymentFailed: Order.on_payment_failed,
        },
        compensation=Step(
            name="refund",
            when=lambda order: (
                order.status is Status.CANCELLED and order.payment is not None and order.payment.holds_money
            ),
            asks=lambda peers, order, _: peers.payments.refund(order),
            answers={PaymentRefunded: Order.on_payment_refunded},
            # It never gives up: the money is the buyer's.
        ),
        timeout=lambda timeouts: timeouts.payment,
        gives_up=Order.give_up_on_payment,
    ),
    Step(
        name="capture",
        # Only of a payment that holds the amount. While it is asked for, the parcel is on its way.
        when=lambda order: order.is_to_be_captured,
        asks=lambda peers, order, _: peers.payments.capture(order),
        # That what was held has lapsed is told by PaymentFailed (see charge): it ends this as well.
        answers={PaymentCaptured: Order.on_payment_captured},
        # It never gives up, and nothing undoes it: the goods have left.
    ),
    Step(
        name="ship",
        when=lambda order: (
            order.status is Status.SHIPPED
            or (order.status is Status.CONFIRMED and order.cancellation is None)
        ),
        asks=None,  # order.confirmed asks shipping, which sends when it has heard of the payment as well
        answers={
            ShipmentCreated: Order.on_shipment_created,
            ShipmentStatusUpdated: Order.on_shipment_status_updated,
        },
        compensation=Step(
            name="stop shipment",
            when=lambda order: order.status is Status.CONFIRMED and order.cancellation is not None,
            asks=lambda peers, order, _: peers.shipments.stop(order),
            answers={
                ShipmentStopped: Order.on_shipment_stopped,  # only now it is cancelled, and refunded
                ShipmentUnderWay: Order.on_shipment_under_way,  # what left can't be cancelled, but sent back
            },
            # It never gives up: until it is known whether the parcel left, nobody can say what is owed.
        ),
    ),
    Step(
        name="refund return",
        when=lambda order: bool(order.unpaid_returns),
        asks=lambda peers, order, _: peers.payments.refund_return(order, order.unpaid_returns[0]),
        answers={ReturnRefundMade: Order.on_return_refunded},
        # What came back is not sent again: nothing undoes this.
    ),
)


def steps() -> Iterator[Step]:
    """Return all steps: those of the table, each followed by the one that undoes it."""
    for step in SAGA:
        yield step
        if isinstance(step.compensation, Step):
            yield step.compensation


def step_of(order: Order) -> Step | None:
    """Return the step that an order is at; None when nothing more is to happen by itself."""
    return next((step for step in steps() if step.when(order)), None)


def reactions() -> dict[type[Payload], Reaction]:
    """Return what each event that answers a step does to its order."""
    return {
        cast(type[Payload], answer): reaction
        for step in steps()
        for answer, reaction in step.answers.items()
        if answer in get_args(Answer)
    }


def plan(
    order: Order, now: datetime, timeouts: Timeouts, *, token: str | None = None, correlation_id: str = ""
) -> Saga | None:
    """Return the saga that an order calls for; None when nothing is to be asked or given up.

    A step that goes on keeps its times. The payment token and the correlation id are those of the saga that
    the order has; those that are given are for an order that has none.
    """
    before, step = order.saga, step_of(order)
    if step is None or (step.asks is None and step.timeout is None):
        return None
    if before is not None and before.step == step.name:
        return before
    deadline = now + step.timeout(timeouts) if step.timeout else None
    # A step that asks is asked at once by whoever saved it: it falls due for when that fails. One that only
    # waits falls due at its deadline.
    asks_again = now + timeouts.retry.first
    due = deadline if deadline is not None and (step.asks is None or deadline < asks_again) else asks_again
    return Saga(
        order_id=order.order_id,
        step=step.name,
        since=now,
        due=due,
        deadline=deadline,
        token=(before.token if before else token) if order.status is Status.PENDING else None,
        correlation_id=(before.correlation_id if before else "") or correlation_id,
    )
