"""The stores of order, inventory and payment, in memory, and the payment gateway's books.

A store is one immutable value in a `Cell`: so a state of the shop can be compared, kept and gone back to, and
a transaction that fails is undone by putting the old value back. Each repository mirrors the SQL of the
service's `repository.py`, and refuses what the constraints of its migration refuse. Left out is what changes
no decision: times, numbers of attempts, and projections (which the SQL writes in the statement of the facts).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar
from uuid import UUID

import asyncpg

from stoa_chassis.inbox import AlreadyProcessed
from stoa_contracts.money import Money
from stoa_inventory.model import Change, HoldStatus, Stock
from stoa_order.model import Order, OrderNotFound, Placed, Recorded
from stoa_order.repository import DueSaga
from stoa_order.saga import step_of
from stoa_payment.gateway import NoAnswer
from stoa_payment.model import (
    Charge,
    ChargeStatus,
    GatewayRefund,
    Notice,
    Payment,
    PaymentNotFound,
    PaymentStatus,
    Refund,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MUCH_LATER = NOW + timedelta(days=2)

V = TypeVar("V")
T = TypeVar("T")
R = TypeVar("R")


class Refused(Exception):
    """A constraint of the database does not allow this row."""


@dataclass
class Cell(Generic[V]):
    """A store: its rows, and the events that its transactions published."""

    rows: V
    published: list[Any] = field(default_factory=list)
    refused: str = ""

    def check(self, allowed: bool, constraint: str) -> None:
        """Refuse a row as the database would. It is noted, since services survive it and log it."""
        if not allowed:
            self.refused = constraint
            raise Refused(constraint)


class Outbox:
    """Collects the events of a transaction."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def add(self, *payloads: Any) -> None:
        self.events += payloads


class UnitOfWork(Generic[T]):
    """Atomic: all of a block takes effect, with its events and its mark in the inbox, or nothing."""

    def __init__(
        self, cell: Callable[[], Cell[Any]], open_: Callable[[Cell[Any], Outbox], T], remembers: bool = True
    ) -> None:
        self._cell = cell
        self._open = open_
        self._remembers = remembers

    @asynccontextmanager
    async def begin(self, consuming: Any = None) -> AsyncIterator[T]:
        cell = self._cell()
        before, outbox = cell.rows, Outbox()
        try:
            if consuming is not None and self._remembers:
                if consuming.event_id in cell.rows.inbox:
                    raise AlreadyProcessed
                cell.rows = replace(cell.rows, inbox=cell.rows.inbox | {consuming.event_id})
            yield self._open(cell, outbox)
        except BaseException:
            cell.rows = before
            raise
        cell.published += outbox.events

    async def run(self, work: Callable[[T], Awaitable[R]], consuming: Any = None) -> R:
        async with self.begin(consuming) as tx:
            return await work(tx)


class Clock:
    """Stands still: that a deadline passes is a step of the model, not of the clock."""

    def __init__(self, at: datetime = NOW) -> None:
        self._at = at

    def now(self) -> datetime:
        return self._at


# ---------------------------------------------------------------------------------------------------- order


@dataclass(frozen=True)
class Saga:
    """A row of `sagas`."""

    step: str
    has_deadline: bool
    token: str | None


@dataclass(frozen=True)
class OrderRows:
    """What the order service keeps of one order. `claimed` is its saga, in an instance's hands."""

    facts: tuple[Recorded, ...] = ()
    saga: Saga | None = None
    claimed: DueSaga | None = None
    inbox: frozenset[UUID] = frozenset()


class Orders:
    """stoa_order.repository.Orders, of one order."""

    def __init__(self, cell: Cell[OrderRows]) -> None:
        self._cell = cell

    async def get(self, order_id: UUID) -> Order:
        if not self._cell.rows.facts:
            raise OrderNotFound
        return Order.replay(order_id, self._cell.rows.facts)

    async def save(self, order: Order, payment_token: str | None = None) -> str | None:
        if not order.changes:
            return None
        rows, step = self._cell.rows, step_of(order)
        if rows.facts and isinstance(order.changes[0].fact, Placed):
            raise asyncpg.UniqueViolationError  # on the buyer's request id: the service expects it
        saga = rows.saga
        if step is None:
            saga = None
        elif saga is None:
            saga = Saga(step.name, step.patience is not None, payment_token)
        elif saga.step != step.name:
            saga = Saga(step.name, step.patience is not None, saga.token)
        versions = [recorded.version for recorded in (*rows.facts, *order.changes)]
        self._cell.check(versions == sorted(set(versions)), "order_events_pkey")
        self._cell.rows = replace(rows, facts=(*rows.facts, *order.changes), saga=saga)
        order.changes.clear()
        return rows.saga.token if rows.saga else None

    async def claim_due(self, now: datetime, limit: int) -> Sequence[DueSaga]:
        claimed = self._cell.rows.claimed
        self._cell.rows = replace(self._cell.rows, claimed=None)
        return [claimed] if claimed else []


class OrderReader:
    """stoa_order.repository.OrderReader, of one order."""

    def __init__(self, cell: Cell[OrderRows], order_id: UUID) -> None:
        self._cell = cell
        self._order_id = order_id

    async def by_request(self, user_id: UUID, request_id: str) -> Order | None:
        return Order.replay(self._order_id, self._cell.rows.facts) if self._cell.rows.facts else None


# ------------------------------------------------------------------------------------------------ inventory


@dataclass(frozen=True)
class StockRows:
    """What inventory keeps. `moved` are the sums of stock_movements; all are sorted by their keys."""

    counts: tuple[tuple[UUID, tuple[int, int]], ...]
    moved: tuple[tuple[UUID, tuple[int, int]], ...]
    holds: tuple[tuple[UUID, HoldStatus], ...] = ()
    reservations: tuple[tuple[tuple[UUID, UUID], tuple[int, HoldStatus]], ...] = ()
    inbox: frozenset[UUID] = frozenset()


def _sorted(rows: Mapping[Any, Any]) -> tuple[tuple[Any, Any], ...]:
    return tuple(sorted(rows.items()))


class Stocks:
    """stoa_inventory.repository.Stocks."""

    def __init__(self, cell: Cell[StockRows]) -> None:
        self._cell = cell

    async def lock(self, variant_ids: Iterable[UUID]) -> dict[UUID, Stock]:
        wanted = set(variant_ids)
        return {key: Stock(key, key, *counts) for key, counts in self._cell.rows.counts if key in wanted}

    async def apply(
        self,
        changes: Sequence[Change],
        stocks: Mapping[UUID, Stock],
        now: datetime,
        *,
        order_id: UUID | None = None,
        request_id: str | None = None,
        reason: str = "",
    ) -> None:
        rows = self._cell.rows
        counts, moved, reservations = dict(rows.counts), dict(rows.moved), dict(rows.reservations)
        for change in changes:
            stock = stocks[change.variant_id]
            self._cell.check(0 <= stock.reserved_count <= stock.stock_count, "inventory_check")
            counts[stock.variant_id] = (stock.stock_count, stock.reserved_count)
            before = moved[stock.variant_id]
            moved[stock.variant_id] = (before[0] + change.stock, before[1] + change.reserved)
            if change.kind == "reserved":
                assert order_id is not None
                self._cell.check((order_id, stock.variant_id) not in reservations, "reservations_pkey")
                reservations[order_id, stock.variant_id] = (change.reserved, HoldStatus.HELD)
        self._cell.rows = replace(
            rows, counts=_sorted(counts), moved=_sorted(moved), reservations=_sorted(reservations)
        )

    async def open_hold(self, order_id: UUID, status: HoldStatus, now: datetime) -> HoldStatus | None:
        holds = dict(self._cell.rows.holds)
        if order_id in holds:
            return holds[order_id]
        self._cell.rows = replace(self._cell.rows, holds=_sorted({**holds, order_id: status}))
        return None

    async def lock_hold(self, order_id: UUID) -> HoldStatus | None:
        return dict(self._cell.rows.holds).get(order_id)

    async def close_hold(self, order_id: UUID, status: HoldStatus, now: datetime) -> None:
        rows = self._cell.rows
        holds = {key: status if key == order_id else was for key, was in rows.holds}
        reservations = {
            key: (quantity, status if key[0] == order_id else was)
            for key, (quantity, was) in rows.reservations
        }
        self._cell.rows = replace(rows, holds=_sorted(holds), reservations=_sorted(reservations))

    async def reserved_for(self, order_id: UUID) -> dict[UUID, int]:
        return {key[1]: quantity for key, (quantity, _) in self._cell.rows.reservations if key[0] == order_id}


# -------------------------------------------------------------------------------------------------- payment

Row = tuple[Any, ...]
_PAYMENT = [f.name for f in fields(Payment) if f.name != "events"]
_REFUND = [f.name for f in fields(Refund)]
# What is no decision but a time or a count of attempts is not told apart.
_LEVELLED = {"attempts": 0, "updated_at": NOW}


def row_of(entity: Payment | Refund) -> Row:
    """Turn an entity into a row."""
    values = {name: getattr(entity, name) for name in (_PAYMENT if isinstance(entity, Payment) else _REFUND)}
    values |= _LEVELLED
    values["next_check_at"] = values["next_check_at"] and NOW
    return tuple(values.values())


def payment_of(row: Row) -> Payment:
    """Turn a row into a payment."""
    return Payment(**dict(zip(_PAYMENT, row, strict=True)))


def refund_of(row: Row) -> Refund:
    """Turn a row into a refund."""
    return Refund(**dict(zip(_REFUND, row, strict=True)))


@dataclass(frozen=True)
class PaymentRows:
    """What the payment service keeps about one order."""

    payments: tuple[Row, ...] = ()
    refunds: tuple[Row, ...] = ()


# Where a repository of payment finds its rows: the cell of a transaction, or, outside of one, the cell of the
# one statement that it runs, which is a step of its own.
Open = Callable[[], Cell[PaymentRows]]


class Payments:
    """stoa_payment.repository.Payments."""

    def __init__(self, open_: Open) -> None:
        self._open = open_

    async def add(self, payment: Payment) -> bool:
        cell = self._open()
        if self._known(cell, payment):
            return False
        cell.rows = replace(cell.rows, payments=(*cell.rows.payments, row_of(payment)))
        return True

    def _known(self, cell: Cell[PaymentRows], payment: Payment) -> bool:
        return any(known.order_id == payment.order_id for known in map(payment_of, cell.rows.payments))

    async def get(self, payment_id: UUID) -> Payment:
        for payment in map(payment_of, self._open().rows.payments):
            if payment.payment_id == payment_id:
                return payment
        raise PaymentNotFound

    async def of_order(self, order_id: UUID) -> Payment | None:
        found = (p for p in map(payment_of, self._open().rows.payments) if p.order_id == order_id)
        return next(found, None)

    async def lock(self, payment_id: UUID) -> Payment:
        return await self.get(payment_id)

    async def save(self, payment: Payment) -> None:
        cell, zero, pending = self._open(), Money.zero("USD"), payment.status is PaymentStatus.PENDING
        cell.check(
            zero <= payment.refunded and zero <= payment.refunding, "payments_refunded_amount_not_negative"
        )
        cell.check(payment.refunded + payment.refunding <= payment.amount, "payments_refunded_within_amount")
        cell.check(pending == (payment.token is not None), "payments_token_while_pending")
        cell.check(pending == (payment.next_check_at is not None), "payments_due_while_pending")
        payments = tuple(
            row_of(payment) if payment_of(row).payment_id == payment.payment_id else row
            for row in cell.rows.payments
        )
        cell.rows = replace(cell.rows, payments=payments)

    async def postpone(self, payment: Payment) -> None:
        self._open()  # what it writes are times and attempts


class Refunds:
    """stoa_payment.repository.Refunds."""

    def __init__(self, open_: Open) -> None:
        self._open = open_

    async def add(self, refund: Refund) -> None:
        cell = self._open()
        keys = {(known.payment_id, known.request_id) for known in map(refund_of, cell.rows.refunds)}
        cell.check((refund.payment_id, refund.request_id) not in keys, "refunds_payment_id_request_id_key")
        cell.rows = replace(cell.rows, refunds=(*cell.rows.refunds, row_of(refund)))

    async def get(self, refund_id: UUID) -> Refund | None:
        found = (r for r in map(refund_of, self._open().rows.refunds) if r.refund_id == refund_id)
        return next(found, None)

    async def by_request(self, payment_id: UUID, request_id: str) -> Refund | None:
        for refund in map(refund_of, self._open().rows.refunds):
            if (refund.payment_id, refund.request_id) == (payment_id, request_id):
                return refund
        return None

    async def save(self, refund: Refund) -> None:
        cell = self._open()
        cell.check(refund.is_pending == (refund.next_check_at is not None), "refunds_due_while_pending")
        refunds = tuple(
            row_of(refund) if refund_of(row).refund_id == refund.refund_id else row
            for row in cell.rows.refunds
        )
        cell.rows = replace(cell.rows, refunds=refunds)

    async def postpone(self, refund: Refund) -> None:
        self._open()  # what it writes are times and attempts


# -------------------------------------------------------------------------------------- the payment gateway


@dataclass(frozen=True)
class BankCharge:
    """A charge in the gateway's books; `key` is the idempotency key it was asked for with."""

    key: str
    charge: Charge
    refunded: Money


@dataclass(frozen=True)
class ChargeRequest:
    """A request for a charge, on its way to the gateway."""

    key: str
    order_id: UUID
    amount: Money
    token: str | None


@dataclass(frozen=True)
class RefundRequest:
    """A request for a refund, on its way to the gateway."""

    refund_id: UUID
    charge_id: str | None
    amount: Money


@dataclass(frozen=True)
class Bank:
    """The gateway's books, as in stoa_fakes, and what is on its way to it though we stopped waiting."""

    charges: tuple[BankCharge, ...] = ()
    refunds: frozenset[RefundRequest] = frozenset()
    lingering: frozenset[ChargeRequest | RefundRequest] = frozenset()

    def find(self, key: str) -> Charge | None:
        return next((entry.charge for entry in self.charges if entry.key == key), None)

    def carry_out(self, request: ChargeRequest | RefundRequest) -> "Bank":
        """Do what is asked, unless it was done or can't be."""
        if isinstance(request, ChargeRequest):
            if self.find(request.key):
                return self
            status, failure = _CARDS[request.token or ""]
            charge_id = f"ch_{len(self.charges) + 1}"
            charge = Charge(charge_id, request.order_id, request.amount, status, "visa", "4242", failure)
            entry = BankCharge(request.key, charge, Money.zero("USD"))
            return replace(self, charges=(*self.charges, entry))
        known = any(refund.refund_id == request.refund_id for refund in self.refunds)
        entry_ = next((e for e in self.charges if e.charge.charge_id == request.charge_id), None)
        if known or entry_ is None or entry_.charge.status is not ChargeStatus.SUCCEEDED:
            return self
        if entry_.refunded + request.amount > entry_.charge.amount:
            return self
        charges = tuple(
            replace(e, refunded=e.refunded + request.amount) if e is entry_ else e for e in self.charges
        )
        return replace(self, charges=charges, refunds=self.refunds | {request})

    def capture(self) -> "Bank":
        """Capture what answers late."""
        charges = tuple(
            replace(e, charge=replace(e.charge, status=ChargeStatus.SUCCEEDED))
            if e.charge.status is ChargeStatus.PENDING
            else e
            for e in self.charges
        )
        return replace(self, charges=charges)

    def notices(self) -> list[Charge | GatewayRefund]:
        """What the gateway tells about unasked, again and again."""
        settled = [e.charge for e in self.charges if e.charge.status is not ChargeStatus.PENDING]
        return [*settled, *(GatewayRefund(f"re_{r.refund_id}", r.refund_id) for r in self.refunds)]


_CARDS = {
    "good": (ChargeStatus.SUCCEEDED, ""),
    "declined": (ChargeStatus.FAILED, "card_declined"),
    "slow": (ChargeStatus.PENDING, ""),
    "": (ChargeStatus.FAILED, "invalid_token"),
}
ANSWERED, LOST, UNREACHED, LINGERS = "answered", "answer lost", "not reached", "no answer in time, done later"


class Suspended(BaseException):
    """A use case has come to its next write or request: what happens before that is for the model to say."""

    def __init__(self, next_step: str) -> None:
        super().__init__(next_step)
        self.next_step = next_step


class Run:
    """Runs a use case of payment up to where it was, lets it do one step more, and suspends it there.

    Coroutines can't be copied, so a use case that waits is kept as what it saw: `past` has, for each step,
    the rows of its transaction or the gateway's answer. What was done is done again without effect.
    """

    def __init__(self, cell: Cell[PaymentRows], bank: Bank, past: Iterable[Any], choice: str | None) -> None:
        self.cell = cell
        self.bank = bank
        self.past = list(past)
        self._at = 0
        self._choice = choice

    def store(self) -> Cell[PaymentRows]:
        """A transaction, or a statement outside of one."""
        if self._at == len(self.past):
            self._take("store")
            self.past.append(self.cell.rows)
            self._at += 1
            return self.cell
        self._at += 1
        return Cell(self.past[self._at - 1])

    def gateway(self, step: str, request: ChargeRequest | RefundRequest | None, answer: Callable[[], T]) -> T:
        """A request to the gateway; raises NoAnswer."""
        if self._at == len(self.past):
            choice = self._take(step)
            if request is not None and choice in (ANSWERED, LOST):
                self.bank = self.bank.carry_out(request)
            if request is not None and choice == LINGERS:
                self.bank = replace(self.bank, lingering=self.bank.lingering | {request})
            self.past.append((answer(),) if choice == ANSWERED else ())
        self._at += 1
        answered: tuple[Any, ...] = self.past[self._at - 1]
        if not answered or answered[0] is _HANGS:
            raise NoAnswer("no answer")
        return answered[0]  # type: ignore[no-any-return]  # what `answer` returned

    def _take(self, step: str) -> str:
        if self._choice is None:
            raise Suspended(step)
        choice, self._choice = self._choice, None
        return choice


_HANGS: Any = "hangs"


class Gateway:
    """stoa_payment.gateway.HttpGateway, as a part of a run."""

    def __init__(self, run: Run, notice: Charge | GatewayRefund | None = None) -> None:
        self._run = run
        self._notice = notice

    def key(self, payment: Payment) -> str:
        return str(payment.order_id)

    async def charge(self, payment: Payment) -> Charge:
        key = self.key(payment)
        request = ChargeRequest(key, payment.order_id, payment.amount, payment.token)

        def answer() -> Charge:
            charge = self._run.bank.find(key)
            # A charge that is pending has no answer: the request hangs until we give up waiting.
            return charge if charge and charge.status is not ChargeStatus.PENDING else _HANGS

        return self._run.gateway("charge", request, answer)

    async def find(self, payment: Payment) -> Charge | None:
        return self._run.gateway("find", None, lambda: self._run.bank.find(self.key(payment)))

    async def refund(self, payment: Payment, refund: Refund) -> GatewayRefund:
        request = RefundRequest(refund.refund_id, payment.charge_id, refund.amount)

        def answer() -> GatewayRefund:
            made = any(known.refund_id == refund.refund_id for known in self._run.bank.refunds)
            return GatewayRefund(f"re_{refund.refund_id}", refund.refund_id) if made else _HANGS

        return self._run.gateway("refund", request, answer)

    def read_notice(self, body: bytes, signature: str, now: datetime) -> Notice:
        return Notice("notice", self._notice)
