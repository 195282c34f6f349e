"""What the use cases of payments need from outside."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from stoa_payment.model import Charge, GatewayRefund, Notice, Payment, Refund, RequestKey


class Payments(Protocol):
    """The payments; one for an order."""

    async def add(self, payment: Payment) -> bool:
        """Store a new payment unless its order has one; tell whether it was stored."""
        ...

    async def get(self, payment_id: UUID) -> Payment:
        """Read a payment. Raises PaymentNotFound."""
        ...

    async def of_order(self, order_id: UUID) -> Payment | None:
        """Read the payment of an order, if it has one."""
        ...

    async def of_charge(self, charge_id: str) -> Payment | None:
        """Read the payment that a charge of the gateway made, if one did."""
        ...

    async def lock(self, payment_id: UUID) -> Payment:
        """Read a payment that nobody else may change until the transaction ends. Raises PaymentNotFound."""
        ...

    async def save(self, payment: Payment) -> None:
        """Store a changed payment, and publish its events."""
        ...


class Refunds(Protocol):
    """The refunds. Whoever changes one holds the lock of its payment."""

    async def add(self, refund: Refund) -> None:
        """Store a new refund."""
        ...

    async def get(self, refund_id: UUID) -> Refund | None:
        """Read a refund, if there is one of that id."""
        ...

    async def by_key(self, payment_id: UUID, key: RequestKey) -> Refund | None:
        """Read the refund of a payment that was asked for under a key, if one was."""
        ...

    async def save(self, refund: Refund) -> None:
        """Store a changed refund."""
        ...


@dataclass(frozen=True, slots=True)
class Tx:
    """What a use case sees of a transaction."""

    payments: Payments
    refunds: Refunds


class Unsettled(Protocol):
    """Payments and refunds of which the outcome is not known.

    They fall due until it is (`stoa_chassis.due`).
    """

    async def claim_due(self, now: datetime, limit: int) -> Sequence[Payment | Refund]:
        """Take at most `limit` that are due, so that nobody else takes them meanwhile."""
        ...

    async def next_due(self) -> datetime | None:
        """Return when the next falls due; None if all are settled."""
        ...

    async def put_off(self, work: Payment | Refund, until: datetime) -> None:
        """Let one fall due at another time, unless it was settled meanwhile."""
        ...


class NoAnswer(Exception):
    """The gateway did not say what became of a request: it may or may not have been carried out."""


class PaymentGateway(Protocol):
    """Moves the money. Requests carry an idempotency key, so that any of them may be repeated."""

    async def charge(self, payment: Payment) -> Charge:
        """Charge a payment's card, once for its order; one that is `held` is only authorized.

        A decline is an outcome. Raises NoAnswer.
        """
        ...

    async def find(self, payment: Payment) -> Charge | None:
        """Return the charge of a payment's order; None if the gateway never got it. Raises NoAnswer."""
        ...

    async def capture(self, payment: Payment) -> Charge:
        """Take what is held, once. If that has lapsed, the charge has failed. Raises NoAnswer."""
        ...

    async def release(self, payment: Payment, refund: Refund) -> GatewayRefund:
        """Give up what is held, once: nothing of it can be taken any more. Raises NoAnswer."""
        ...

    async def refund(self, payment: Payment, refund: Refund) -> GatewayRefund:
        """Give a part of a charge back, once for each refund. Raises NoAnswer."""
        ...

    def read_notice(self, body: bytes, signature: str, now: datetime) -> Notice:
        """Return what a notice says. Raises BadSignature unless the gateway signed it within five minutes."""
        ...
