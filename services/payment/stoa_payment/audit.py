"""The books of the payment service as the audit reads them, and what must hold of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

import asyncpg

from stoa_chassis.audit import Finding, Waiting

_PAYMENTS = """
SELECT payment_id, order_id, amount, refunded_amount, refunding_amount, status, gateway_charge_id,
    coalesce(made, 0) AS made, coalesce(promised, 0) AS promised,
    status = 'succeeded' AND next_check_at IS NOT NULL AS capturing
FROM payments LEFT JOIN (
    SELECT payment_id,
        sum(amount) FILTER (WHERE status = 'succeeded') AS made,
        sum(amount) FILTER (WHERE status = 'pending') AS promised
    FROM refunds GROUP BY payment_id
) refunds USING (payment_id)
"""
_FOR_ORDERS = """
SELECT order_id, request_id, r.amount, r.status FROM refunds r JOIN payments USING (payment_id)
WHERE key_namespace = 'service:order'
"""
_UNSETTLED = """
SELECT order_id, 'the gateway: ' || CASE status WHEN 'pending' THEN 'charge' ELSE 'capture' END AS waits_for,
    created_at AS since, attempts, next_check_at AS next_ask
FROM payments WHERE next_check_at IS NOT NULL
UNION ALL
SELECT order_id, 'the gateway: refund', r.created_at, r.attempts, r.next_check_at
FROM refunds r JOIN payments USING (payment_id) WHERE r.next_check_at IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment; `made` and `promised` are the sums of its refunds. Whether what is held is being taken."""

    payment_id: UUID
    order_id: UUID
    amount: Decimal
    refunded: Decimal
    refunding: Decimal
    status: str
    charge_id: str | None
    made: Decimal = Decimal(0)
    promised: Decimal = Decimal(0)
    capturing: bool = False


@dataclass(frozen=True, slots=True)
class OrderRefund:
    """A refund that the order service asked for, with the key that it gave it."""

    order_id: UUID
    request_id: str
    amount: Decimal
    status: str


@dataclass(frozen=True, slots=True)
class Books:
    """All payments, and the refunds that the order service asked for."""

    payments: Sequence[Payment]
    for_orders: Sequence[OrderRefund] = ()


async def read(connection: asyncpg.Connection) -> Books:
    """Read the books as they are at one moment. A connection that may only read is enough."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        payments, refunds = await connection.fetch(_PAYMENTS), await connection.fetch(_FOR_ORDERS)
    return Books(
        [Payment(*row.values()) for row in payments], [OrderRefund(*row.values()) for row in refunds]
    )


def findings(books: Books) -> Iterator[Finding]:
    """Check the books. While orders are under way something may be unsettled; it must not stay so."""
    for payment in books.payments:
        subject = f"payment {payment.payment_id} of order {payment.order_id}"
        look = f"stoa logs payment | grep {payment.payment_id}"
        if payment.status == "pending":
            yield Finding("every payment is settled", subject, f"pending, {payment.amount}", look)
        if payment.capturing:
            yield Finding("every payment is settled", subject, f"{payment.amount} is held, not taken", look)
        if payment.refunding:
            detail = f"{payment.refunding} was promised back and is not back yet"
            yield Finding("every refund is made", subject, detail, look)
        booked, refunds = (payment.refunded, payment.refunding), (payment.made, payment.promised)
        if booked != refunds:
            detail = "back and promised: {} and {}, by its refunds {} and {}".format(*booked, *refunds)
            yield Finding("a payment is the sum of its refunds", subject, detail, "the table refunds")


async def waiting(connection: asyncpg.Connection) -> Sequence[Waiting]:
    """The payments and refunds that the gateway has not settled."""
    return [Waiting(**row) for row in await connection.fetch(_UNSETTLED)]
