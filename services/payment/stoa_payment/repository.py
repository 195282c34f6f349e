"""Payments and refunds in PostgreSQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

import asyncpg

from stoa_chassis.outbox import Outbox
from stoa_chassis.postgres import Database
from stoa_contracts.money import Money
from stoa_payment.model import Payment, PaymentNotFound, PaymentStatus, Refund, RefundStatus

# What a repository works on: the connection of a transaction, or the pool when one statement is all there is.
Queries: TypeAlias = asyncpg.Connection | Database

_PAYMENT = """payment_id, order_id, user_id, currency, amount, refunded_amount, refunding_amount, status,
    method_type, brand, last4, gateway_charge_id, failure_reason, payment_token, correlation_id, attempts,
    next_check_at, created_at, updated_at"""
_REFUND = """refund_id, payment_id, request_id, currency, amount, reason, status, gateway_refund_id,
    correlation_id, attempts, next_check_at, created_at, updated_at"""


class Payments:
    """The payments; one for an order."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def add(self, payment: Payment) -> bool:
        """Store a new payment unless its order has one; tell whether it was stored."""
        tag = await self._queries.execute(
            f"""
            INSERT INTO payments ({_PAYMENT})
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
            ON CONFLICT (order_id) DO NOTHING
            """,
            payment.payment_id,
            payment.order_id,
            payment.user_id,
            payment.amount.currency,
            payment.amount.amount,
            payment.refunded.amount,
            payment.refunding.amount,
            payment.status,
            payment.method_type,
            payment.brand,
            payment.last4,
            payment.charge_id,
            payment.failure_reason,
            payment.token,
            payment.correlation_id,
            payment.attempts,
            payment.next_check_at,
            payment.created_at,
            payment.updated_at,
        )
        return tag == "INSERT 0 1"

    async def get(self, payment_id: UUID) -> Payment:
        """Read a payment. Raises PaymentNotFound."""
        return _found(
            await self._queries.fetchrow(f"SELECT {_PAYMENT} FROM payments WHERE payment_id = $1", payment_id)
        )

    async def of_order(self, order_id: UUID) -> Payment | None:
        """Read the payment of an order, if it has one."""
        row = await self._queries.fetchrow(f"SELECT {_PAYMENT} FROM payments WHERE order_id = $1", order_id)
        return _payment(row) if row else None

    async def lock(self, payment_id: UUID) -> Payment:
        """Read a payment that nobody else may change until the transaction ends. Raises PaymentNotFound."""
        return _found(
            await self._queries.fetchrow(
                f"SELECT {_PAYMENT} FROM payments WHERE payment_id = $1 FOR UPDATE", payment_id
            )
        )

    async def save(self, payment: Payment) -> None:
        """Store a changed payment."""
        await self._queries.execute(
            """
            UPDATE payments SET refunded_amount = $2, refunding_amount = $3, status = $4, brand = $5,
                last4 = $6, gateway_charge_id = $7, failure_reason = $8, payment_token = $9,
                next_check_at = $10, updated_at = $11
            WHERE payment_id = $1
            """,
            payment.payment_id,
            payment.refunded.amount,
            payment.refunding.amount,
            payment.status,
            payment.brand,
            payment.last4,
            payment.charge_id,
            payment.failure_reason,
            payment.token,
            payment.next_check_at,
            payment.updated_at,
        )

    async def postpone(self, payment: Payment) -> None:
        """Store when to look after a payment again, unless it was settled meanwhile."""
        await self._queries.execute(
            """
            UPDATE payments SET attempts = $2, next_check_at = $3 WHERE payment_id = $1 AND status = 'pending'
            """,
            payment.payment_id,
            payment.attempts,
            payment.next_check_at,
        )

    async def claim_due(self, now: datetime, until: datetime, limit: int) -> Sequence[Payment]:
        """Take payments that are due to be looked after, so that nobody else does before `until`."""
        rows = await self._queries.fetch(
            f"""
            UPDATE payments SET next_check_at = $2
            WHERE payment_id IN (
                SELECT payment_id FROM payments WHERE next_check_at <= $1
                ORDER BY next_check_at LIMIT $3 FOR UPDATE SKIP LOCKED)
            RETURNING {_PAYMENT}
            """,
            now,
            until,
            limit,
        )
        return [_payment(row) for row in rows]

    async def next_due(self) -> datetime | None:
        """Return when the next payment or refund is due to be looked after; None if all are settled."""
        due: datetime | None = await self._queries.fetchval(
            """
            SELECT least((SELECT min(next_check_at) FROM payments WHERE next_check_at IS NOT NULL),
                         (SELECT min(next_check_at) FROM refunds WHERE next_check_at IS NOT NULL))
            """
        )
        return due


class Refunds:
    """The refunds. Whoever changes one holds the lock of its payment."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def add(self, refund: Refund) -> None:
        """Store a new refund."""
        await self._queries.execute(
            f"""
            INSERT INTO refunds ({_REFUND})
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
            """,
            refund.refund_id,
            refund.payment_id,
            refund.request_id,
            refund.amount.currency,
            refund.amount.amount,
            refund.reason,
            refund.status,
            refund.gateway_refund_id,
            refund.correlation_id,
            refund.attempts,
            refund.next_check_at,
            refund.created_at,
            refund.updated_at,
        )

    async def get(self, refund_id: UUID) -> Refund | None:
        """Read a refund, if there is one of that id."""
        row = await self._queries.fetchrow(f"SELECT {_REFUND} FROM refunds WHERE refund_id = $1", refund_id)
        return _refund(row) if row else None

    async def by_request(self, payment_id: UUID, request_id: str) -> Refund | None:
        """Read the refund that a request led to, if it did."""
        row = await self._queries.fetchrow(
            f"SELECT {_REFUND} FROM refunds WHERE payment_id = $1 AND request_id = $2", payment_id, request_id
        )
        return _refund(row) if row else None

    async def save(self, refund: Refund) -> None:
        """Store a changed refund."""
        await self._queries.execute(
            """
            UPDATE refunds SET status = $2, gateway_refund_id = $3, next_check_at = $4, updated_at = $5
            WHERE refund_id = $1
            """,
            refund.refund_id,
            refund.status,
            refund.gateway_refund_id,
            refund.next_check_at,
            refund.updated_at,
        )

    async def postpone(self, refund: Refund) -> None:
        """Store when to try a refund again, unless it was made meanwhile."""
        await self._queries.execute(
            """
            UPDATE refunds SET attempts = $2, next_check_at = $3 WHERE refund_id = $1 AND status = 'pending'
            """,
            refund.refund_id,
            refund.attempts,
            refund.next_check_at,
        )

    async def claim_due(self, now: datetime, until: datetime, limit: int) -> Sequence[Refund]:
        """Take refunds that are due to be tried again, so that nobody else does before `until`."""
        rows = await self._queries.fetch(
            f"""
            UPDATE refunds SET next_check_at = $2
            WHERE refund_id IN (
                SELECT refund_id FROM refunds WHERE next_check_at <= $1
                ORDER BY next_check_at LIMIT $3 FOR UPDATE SKIP LOCKED)
            RETURNING {_REFUND}
            """,
            now,
            until,
            limit,
        )
        return [_refund(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Tx:
    """What a use case sees of a transaction."""

    payments: Payments
    refunds: Refunds
    outbox: Outbox

    @classmethod
    def open(cls, connection: asyncpg.Connection, outbox: Outbox) -> "Tx":
        """Put the repositories on the connection of a transaction."""
        return cls(Payments(connection), Refunds(connection), outbox)

    def publish(self, payment: Payment) -> None:
        """Hand the payment's events to the outbox of this transaction."""
        self.outbox.add(*payment.events)
        payment.events.clear()


def _found(row: asyncpg.Record | None) -> Payment:
    if row is None:
        raise PaymentNotFound("there is no such payment")
    return _payment(row)


def _payment(row: asyncpg.Record) -> Payment:
    currency = row["currency"]
    return Payment(
        payment_id=row["payment_id"],
        order_id=row["order_id"],
        user_id=row["user_id"],
        amount=Money(row["amount"], currency),
        refunded=Money(row["refunded_amount"], currency),
        refunding=Money(row["refunding_amount"], currency),
        status=PaymentStatus(row["status"]),
        method_type=row["method_type"],
        brand=row["brand"],
        last4=row["last4"],
        charge_id=row["gateway_charge_id"],
        failure_reason=row["failure_reason"],
        token=row["payment_token"],
        correlation_id=row["correlation_id"],
        attempts=row["attempts"],
        next_check_at=row["next_check_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _refund(row: asyncpg.Record) -> Refund:
    return Refund(
        refund_id=row["refund_id"],
        payment_id=row["payment_id"],
        request_id=row["request_id"],
        amount=Money(row["amount"], row["currency"]),
        reason=row["reason"],
        status=RefundStatus(row["status"]),
        gateway_refund_id=row["gateway_refund_id"],
        correlation_id=row["correlation_id"],
        attempts=row["attempts"],
        next_check_at=row["next_check_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
