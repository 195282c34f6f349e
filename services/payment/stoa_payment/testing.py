"""The stores of payments in memory, for tests of use cases and for the model check; see
`stoa_chassis.memory`.

They refuse what the constraints of the migrations refuse. One suite, tests/test_repository.py, runs on these
and on PostgreSQL.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from stoa_chassis.due import Backoff
from stoa_chassis.memory import MemoryStore
from stoa_chassis.outbox import Outbox
from stoa_contracts.money import Money
from stoa_payment import ports
from stoa_payment.model import Payment, PaymentNotFound, PaymentStatus, Refund

Row = tuple[Any, ...]
_PAYMENT = [field.name for field in fields(Payment) if field.name != "events"]
_REFUND = [field.name for field in fields(Refund)]


@dataclass(frozen=True)
class Rows:
    """What the payment service keeps. A row is the values of an entity: immutable, and can be compared."""

    payments: tuple[Row, ...] = ()
    refunds: tuple[Row, ...] = ()


def payment_row(payment: Payment) -> Row:
    """Turn a payment into a row."""
    return tuple(getattr(payment, name) for name in _PAYMENT)


def payment_of(row: Row) -> Payment:
    """Turn a row into a payment."""
    return Payment(**dict(zip(_PAYMENT, row, strict=True)))


def refund_row(refund: Refund) -> Row:
    """Turn a refund into a row."""
    return tuple(getattr(refund, name) for name in _REFUND)


def refund_of(row: Row) -> Refund:
    """Turn a row into a refund."""
    return Refund(**dict(zip(_REFUND, row, strict=True)))


# Where a repository finds its rows: the view of a transaction, or the store for a statement outside of one.
Open = Callable[[], MemoryStore[Rows]]


class Payments:
    """The payments; one for an order."""

    def __init__(self, store: Open, outbox: Outbox | None = None) -> None:
        self._store = store
        self._outbox = outbox

    async def add(self, payment: Payment) -> bool:
        """Store a new payment unless its order has one; tell whether it was stored."""
        store = self._store()
        if any(known.order_id == payment.order_id for known in _payments(store)):
            return False
        _check_payment(store, payment)
        store.rows = replace(store.rows, payments=(*store.rows.payments, payment_row(payment)))
        return True

    async def get(self, payment_id: UUID) -> Payment:
        """Read a payment. Raises PaymentNotFound."""
        for payment in _payments(self._store()):
            if payment.payment_id == payment_id:
                return payment
        raise PaymentNotFound("there is no such payment")

    async def of_order(self, order_id: UUID) -> Payment | None:
        """Read the payment of an order, if it has one."""
        return next((each for each in _payments(self._store()) if each.order_id == order_id), None)

    async def lock(self, payment_id: UUID) -> Payment:
        """Read a payment that nobody else may change until the transaction ends. Raises PaymentNotFound."""
        return await self.get(payment_id)

    async def save(self, payment: Payment) -> None:
        """Store a changed payment, and publish its events."""
        assert self._outbox is not None, "a payment is saved in a transaction"
        store = self._store()
        _check_payment(store, payment)
        _put_payment(store, payment)
        self._outbox.collect(payment)


class Refunds:
    """The refunds. Whoever changes one holds the lock of its payment."""

    def __init__(self, store: Open) -> None:
        self._store = store

    async def add(self, refund: Refund) -> None:
        """Store a new refund."""
        store = self._store()
        keys = {(known.payment_id, known.request_id) for known in _refunds(store)}
        store.check((refund.payment_id, refund.request_id) not in keys, "refunds_payment_id_request_id_key")
        _check_refund(store, refund)
        store.rows = replace(store.rows, refunds=(*store.rows.refunds, refund_row(refund)))

    async def get(self, refund_id: UUID) -> Refund | None:
        """Read a refund, if there is one of that id."""
        return next((each for each in _refunds(self._store()) if each.refund_id == refund_id), None)

    async def by_request(self, payment_id: UUID, request_id: str) -> Refund | None:
        """Read the refund that a request led to, if it did."""
        for refund in _refunds(self._store()):
            if (refund.payment_id, refund.request_id) == (payment_id, request_id):
                return refund
        return None

    async def save(self, refund: Refund) -> None:
        """Store a changed refund."""
        store = self._store()
        _check_refund(store, refund)
        _put_refund(store, refund)


def open_tx(view: MemoryStore[Rows], outbox: Outbox) -> ports.Tx:
    """Put the repositories on the view of a transaction."""
    return ports.Tx(Payments(lambda: view, outbox), Refunds(lambda: view))


@dataclass(frozen=True)
class Unsettled:
    """Payments and refunds of which the outcome is not known."""

    store: Open
    backoff: Backoff
    lease: timedelta

    async def claim_due(self, now: datetime, limit: int) -> Sequence[Payment | Refund]:
        """Take at most `limit` that are due, so that nobody else takes them meanwhile."""
        store = self.store()
        waiting: Iterable[Payment | Refund] = (*_payments(store), *_refunds(store))
        due = [each for each in waiting if each.next_check_at is not None and each.next_check_at <= now]
        for work in due[:limit]:
            pause = min(self.backoff.first * 2 ** min(work.attempts, 20), self.backoff.longest)
            work.attempts += 1
            work.next_check_at = now + max(self.lease, pause)
            _put(store, work)
        return due[:limit]

    async def next_due(self) -> datetime | None:
        """Return when the next falls due; None if all are settled."""
        store = self.store()
        waiting: Iterable[Payment | Refund] = (*_payments(store), *_refunds(store))
        return min((each.next_check_at for each in waiting if each.next_check_at), default=None)

    async def put_off(self, work: Payment | Refund, until: datetime) -> None:
        """Let one fall due at another time, unless it was settled meanwhile."""
        store = self.store()
        waiting: Iterable[Payment | Refund] = (*_payments(store), *_refunds(store))
        for known in waiting:
            if _key(known) == _key(work) and known.next_check_at is not None:
                known.next_check_at = until
                _put(store, known)


def _payments(store: MemoryStore[Rows]) -> list[Payment]:
    return [payment_of(row) for row in store.rows.payments]


def _refunds(store: MemoryStore[Rows]) -> list[Refund]:
    return [refund_of(row) for row in store.rows.refunds]


def _key(work: Payment | Refund) -> UUID:
    return work.payment_id if isinstance(work, Payment) else work.refund_id


def _put(store: MemoryStore[Rows], work: Payment | Refund) -> None:
    if isinstance(work, Payment):
        _put_payment(store, work)
    else:
        _put_refund(store, work)


def _put_payment(store: MemoryStore[Rows], payment: Payment) -> None:
    row = payment_row(payment)
    payments = tuple(row if known[0] == payment.payment_id else known for known in store.rows.payments)
    store.rows = replace(store.rows, payments=payments)


def _put_refund(store: MemoryStore[Rows], refund: Refund) -> None:
    row = refund_row(refund)
    refunds = tuple(row if known[0] == refund.refund_id else known for known in store.rows.refunds)
    store.rows = replace(store.rows, refunds=refunds)


def _check_payment(store: MemoryStore[Rows], payment: Payment) -> None:
    zero, pending = Money.zero(payment.amount.currency), payment.status is PaymentStatus.PENDING
    store.check(payment.amount > zero, "payments_amount_check")
    within = zero <= min(payment.refunded, payment.refunding)
    within = within and payment.refunded + payment.refunding <= payment.amount
    store.check(within, "payments_check")
    store.check(pending == (payment.token is not None), "payments_check1")
    store.check(pending == (payment.next_check_at is not None), "payments_check2")


def _check_refund(store: MemoryStore[Rows], refund: Refund) -> None:
    store.check(refund.amount > Money.zero(refund.amount.currency), "refunds_amount_check")
    store.check(refund.is_pending == (refund.next_check_at is not None), "refunds_check")
