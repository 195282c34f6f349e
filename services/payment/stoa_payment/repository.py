"""Payments and refunds in PostgreSQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from stoa_chassis.due import Backoff
from stoa_chassis.outbox import Outbox
from stoa_chassis.postgres import Database, Queries
from stoa_chassis.postgres_due import DueTable
from stoa_chassis.postgres_table import Table
from stoa_contracts.money import Money
from stoa_payment import ports
from stoa_payment.model import Payment, PaymentNotFound, PaymentStatus, Refund, RefundStatus, RequestKey

_PAYMENTS = Table("payments", key="payment_id")
_REFUNDS = Table("refunds", key="refund_id")
_DUE_PAYMENTS = DueTable("payments", key="payment_id", due="next_check_at")
_DUE_REFUNDS = DueTable("refunds", key="refund_id", due="next_check_at")


class Payments:
    """The payments; one for an order."""

    def __init__(self, queries: Queries, outbox: Outbox | None = None) -> None:
        """Outside of a transaction there is no outbox, and nothing that would need one."""
        self._queries = queries
        self._outbox = outbox

    async def add(self, payment: Payment) -> bool:
        """Store a new payment unless its order has one; tell whether it was stored."""
        return await _PAYMENTS.insert_new(self._queries, _payment_row(payment))

    async def get(self, payment_id: UUID) -> Payment:
        """Read a payment. Raises PaymentNotFound."""
        return _found(await self._read("payment_id = $1", payment_id))

    async def of_order(self, order_id: UUID) -> Payment | None:
        """Read the payment of an order, if it has one."""
        row = await self._read("order_id = $1", order_id)
        return _payment(row) if row else None

    async def of_charge(self, charge_id: str) -> Payment | None:
        """Read the payment that a charge of the gateway made, if one did."""
        row = await self._read("gateway_charge_id = $1", charge_id)
        return _payment(row) if row else None

    async def lock(self, payment_id: UUID) -> Payment:
        """Read a payment that nobody else may change until the transaction ends. Raises PaymentNotFound."""
        return _found(await self._read("payment_id = $1 FOR UPDATE", payment_id))

    async def save(self, payment: Payment) -> None:
        """Store a changed payment, and publish its events."""
        assert self._outbox is not None, "a payment is saved in a transaction"
        await _PAYMENTS.update(self._queries, _payment_row(payment))
        self._outbox.collect(payment)

    async def _read(self, condition: str, key: UUID | str) -> asyncpg.Record | None:
        return await self._queries.fetchrow(f"SELECT * FROM payments WHERE {condition}", key)


class Refunds:
    """The refunds. Whoever changes one holds the lock of its payment."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def add(self, refund: Refund) -> None:
        """Store a new refund."""
        await _REFUNDS.insert(self._queries, _refund_row(refund))

    async def get(self, refund_id: UUID) -> Refund | None:
        """Read a refund, if there is one of that id."""
        return await self._read("refund_id = $1", refund_id)

    async def by_key(self, payment_id: UUID, key: RequestKey) -> Refund | None:
        """Read the refund of a payment that was asked for under a key, if one was."""
        condition = "payment_id = $1 AND key_namespace = $2 AND request_id = $3"
        return await self._read(condition, payment_id, key.namespace, key.request_id)

    async def save(self, refund: Refund) -> None:
        """Store a changed refund."""
        await _REFUNDS.update(self._queries, _refund_row(refund))

    async def _read(self, condition: str, *keys: UUID | str) -> Refund | None:
        row = await self._queries.fetchrow(f"SELECT * FROM refunds WHERE {condition}", *keys)
        return _refund(row) if row else None


def open_tx(connection: asyncpg.Connection, outbox: Outbox) -> ports.Tx:
    """Put the repositories on the connection of a transaction."""
    return ports.Tx(Payments(connection, outbox), Refunds(connection))


@dataclass(frozen=True, slots=True)
class Unsettled:
    """Payments and refunds of which the outcome is not known.

    One that is taken up is left alone for `lease`, which is longer than an attempt may take.
    """

    database: Database
    backoff: Backoff
    lease: timedelta

    async def claim_due(self, now: datetime, limit: int) -> Sequence[Payment | Refund]:
        """Take at most `limit` that are due, so that nobody else takes them meanwhile."""
        claim = (now, limit, self.backoff, self.lease)
        payments = [_payment(row) for row in await _DUE_PAYMENTS.claim(self.database, *claim)]
        if len(payments) == limit:
            return payments
        claim = (now, limit - len(payments), self.backoff, self.lease)
        return [*payments, *map(_refund, await _DUE_REFUNDS.claim(self.database, *claim))]

    async def next_due(self) -> datetime | None:
        """Return when the next falls due; None if all are settled."""
        due = [await table.next_due(self.database) for table in (_DUE_PAYMENTS, _DUE_REFUNDS)]
        return min(filter(None, due), default=None)

    async def put_off(self, work: Payment | Refund, until: datetime) -> None:
        """Let one fall due at another time, unless it was settled meanwhile."""
        if isinstance(work, Payment):
            await _DUE_PAYMENTS.put_off(self.database, work.payment_id, until)
        else:
            await _DUE_REFUNDS.put_off(self.database, work.refund_id, until)


def _found(row: asyncpg.Record | None) -> Payment:
    if row is None:
        raise PaymentNotFound("there is no such payment")
    return _payment(row)


def _payment_row(payment: Payment) -> dict[str, Any]:
    return {
        "payment_id": payment.payment_id,
        "order_id": payment.order_id,
        "user_id": payment.user_id,
        "currency": payment.amount.currency,
        "amount": payment.amount.amount,
        "refunded_amount": payment.refunded.amount,
        "refunding_amount": payment.refunding.amount,
        "status": payment.status,
        "method_type": payment.method_type,
        "brand": payment.brand,
        "last4": payment.last4,
        "gateway_charge_id": payment.charge_id,
        "failure_reason": payment.failure_reason,
        "payment_token": payment.token,
        "correlation_id": payment.correlation_id,
        "attempts": payment.attempts,
        "next_check_at": payment.next_check_at,
        "held": payment.held,
        "created_at": payment.created_at,
        "updated_at": payment.updated_at,
    }


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
        held=row["held"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _refund_row(refund: Refund) -> dict[str, Any]:
    return {
        "refund_id": refund.refund_id,
        "payment_id": refund.payment_id,
        "key_namespace": refund.key.namespace,
        "request_id": refund.key.request_id,
        "currency": refund.amount.currency,
        "amount": refund.amount.amount,
        "of_rest": refund.of_rest,
        "reason": refund.reason,
        "status": refund.status,
        "gateway_refund_id": refund.gateway_refund_id,
        "correlation_id": refund.correlation_id,
        "attempts": refund.attempts,
        "next_check_at": refund.next_check_at,
        "created_at": refund.created_at,
        "updated_at": refund.updated_at,
    }


def _refund(row: asyncpg.Record) -> Refund:
    return Refund(
        refund_id=row["refund_id"],
        payment_id=row["payment_id"],
        key=RequestKey(row["key_namespace"], row["request_id"]),
        amount=Money(row["amount"], row["currency"]),
        of_rest=row["of_rest"],
        reason=row["reason"],
        status=RefundStatus(row["status"]),
        gateway_refund_id=row["gateway_refund_id"],
        correlation_id=row["correlation_id"],
        attempts=row["attempts"],
        next_check_at=row["next_check_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
