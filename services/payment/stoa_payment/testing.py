"""The stores of payments and the payment gateway in memory, for tests of use cases and for the model check;
see `stoa_chassis.memory`.

The stores refuse what the constraints of the migrations refuse. One suite, tests/test_repository.py, runs on
these and on PostgreSQL.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias, TypeVar
from uuid import UUID

from stoa_chassis.due import Backoff
from stoa_chassis.memory import MemoryStore
from stoa_chassis.outbox import Outbox
from stoa_contracts.money import Money
from stoa_payment import ports
from stoa_payment.model import (
    BadSignature,
    Charge,
    ChargeStatus,
    GatewayRefund,
    Notice,
    OutsideRefund,
    Payment,
    PaymentNotFound,
    PaymentStatus,
    Refund,
    RequestKey,
)

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]
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

    async def of_charge(self, charge_id: str) -> Payment | None:
        """Read the payment that a charge of the gateway made, if one did."""
        return next((each for each in _payments(self._store()) if each.charge_id == charge_id), None)

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
        keys = {(known.payment_id, known.key) for known in _refunds(store)}
        store.check((refund.payment_id, refund.key) not in keys, "refunds_key")
        _check_refund(store, refund)
        store.rows = replace(store.rows, refunds=(*store.rows.refunds, refund_row(refund)))

    async def get(self, refund_id: UUID) -> Refund | None:
        """Read a refund, if there is one of that id."""
        return next((each for each in _refunds(self._store()) if each.refund_id == refund_id), None)

    async def by_key(self, payment_id: UUID, key: RequestKey) -> Refund | None:
        """Read the refund of a payment that was asked for under a key, if one was."""
        for refund in _refunds(self._store()):
            if (refund.payment_id, refund.key) == (payment_id, key):
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
            pause = self.backoff.at_most(work.attempts)
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
    others = (each for each in _payments(store) if each.payment_id != payment.payment_id)
    taken = payment.charge_id is not None and any(each.charge_id == payment.charge_id for each in others)
    store.check(not taken, "payments_gateway_charge_id_key")
    zero, pending = Money.zero(payment.amount.currency), payment.status is PaymentStatus.PENDING
    store.check(re.fullmatch(r"([0-9]{4})?", payment.last4) is not None, "payments_last4_check")
    store.check(payment.amount > zero, "payments_amount_check")
    within = zero <= min(payment.refunded, payment.refunding)
    within = within and payment.refunded + payment.refunding <= payment.amount
    store.check(within, "payments_check")
    store.check(pending == (payment.token is not None), "payments_check1")
    after = payment.next_check_at is not None
    settled = not after or (payment.status is PaymentStatus.SUCCEEDED and payment.held)
    store.check(after if pending else settled, "payments_looked_after")


def _check_refund(store: MemoryStore[Rows], refund: Refund) -> None:
    known = any(row[0] == refund.payment_id for row in store.rows.payments)
    store.check(known, "refunds_payment_id_fkey")
    others = (each for each in _refunds(store) if each.refund_id != refund.refund_id)
    made = refund.gateway_refund_id
    taken = made is not None and any(each.gateway_refund_id == made for each in others)
    store.check(not taken, "refunds_gateway_refund_id_key")
    store.check(refund.amount > Money.zero(refund.amount.currency), "refunds_amount_check")
    store.check(refund.is_pending == (refund.next_check_at is not None), "refunds_check")


# -------------------------------------------------------------------------------------- the payment gateway


class Card(NamedTuple):
    """What the gateway knows of the card behind a token, and says when it is charged."""

    brand: str
    last4: str
    status: ChargeStatus = ChargeStatus.SUCCEEDED
    failure_code: str = ""


CARDS = {
    "tok_visa": Card("visa", "4242"),
    "tok_mastercard": Card("mastercard", "4444"),
    "tok_declined": Card("visa", "0002", ChargeStatus.FAILED, "card_declined"),
    "tok_insufficient_funds": Card("visa", "9995", ChargeStatus.FAILED, "insufficient_funds"),
    "tok_timeout": Card("visa", "3184", ChargeStatus.PENDING),
}
"""The tokens of the mock gateway (stoa_fakes.payment_gateway); it declines any other."""
_AUTHORIZED = {ChargeStatus.SUCCEEDED: ChargeStatus.AUTHORIZED}
_REFUNDABLE = (ChargeStatus.AUTHORIZED, ChargeStatus.SUCCEEDED)
_UNKNOWN_CARD = Card("", "", ChargeStatus.FAILED, "invalid_token")


@dataclass(frozen=True)
class BankCharge:
    """A charge in the gateway's books; `key` is the idempotency key that it was asked for with."""

    key: str
    charge: Charge
    refunded: Money
    held: bool = False

    @property
    def is_held(self) -> bool:
        """Whether it holds its amount, to be captured."""
        return self.charge.status is ChargeStatus.AUTHORIZED and not self.refunded


@dataclass(frozen=True)
class ChargeRequest:
    """A request for a charge, on its way to the gateway."""

    key: str
    order_id: UUID
    amount: Money
    token: str | None
    held: bool = False


@dataclass(frozen=True)
class CaptureRequest:
    """A request to take what is held, on its way to the gateway."""

    charge_id: str | None


@dataclass(frozen=True)
class RefundRequest:
    """A request for a refund, or to release what is held, on its way to the gateway."""

    refund_id: UUID
    charge_id: str | None
    amount: Money


Request: TypeAlias = ChargeRequest | CaptureRequest | RefundRequest


@dataclass(frozen=True)
class Bank:
    """The gateway's books, and what is on its way to it though whoever asked has stopped waiting.

    Immutable, so that a state can be compared, kept and gone back to.
    """

    charges: tuple[BankCharge, ...] = ()
    refunds: frozenset[RefundRequest] = frozenset()
    lingering: frozenset[Request] = frozenset()

    def find(self, key: str) -> Charge | None:
        """Return the charge that was asked for with a key, if there is one."""
        return next((entry.charge for entry in self.charges if entry.key == key), None)

    def made(self, refund_id: UUID) -> GatewayRefund | None:
        """Return what became of a refund; None if it was not made."""
        known = any(refund.refund_id == refund_id for refund in self.refunds)
        return GatewayRefund(f"re_{refund_id}", refund_id) if known else None

    def carry_out(self, request: Request) -> "Bank":
        """Do what is asked, unless it was done or can't be."""
        match request:
            case ChargeRequest():
                return self._charge(request)
            case CaptureRequest():
                return self._capture(request)
            case RefundRequest():
                return self._refund(request)

    def capture(self) -> "Bank":
        """Make the charges that answer late."""
        return replace(self, charges=tuple(map(_made, self.charges)))

    def lapse(self) -> "Bank":
        """Let what is held be held no longer: it fails when it is to be captured."""
        return replace(self, charges=tuple(map(_lapsed, self.charges)))

    def captured(self, charge_id: str | None) -> Charge | None:
        """Return a charge that is captured, or has lapsed instead, if it is or has."""
        ends = (ChargeStatus.SUCCEEDED, ChargeStatus.FAILED)
        charges = (each.charge for each in self.charges if each.charge.charge_id == charge_id)
        return next((charge for charge in charges if charge.status in ends), None)

    def notices(self) -> list[Charge | GatewayRefund]:
        """Return what the gateway tells unasked, again and again."""
        settled = [each.charge for each in self.charges if each.charge.status is not ChargeStatus.PENDING]
        return [*settled, *(GatewayRefund(f"re_{each.refund_id}", each.refund_id) for each in self.refunds)]

    def _charge(self, request: ChargeRequest) -> "Bank":
        if self.find(request.key):
            return self
        card = CARDS.get(request.token or "", _UNKNOWN_CARD)
        charge = Charge(
            f"ch_{len(self.charges) + 1}_{request.order_id}",
            request.order_id,
            request.amount,
            _AUTHORIZED.get(card.status, card.status) if request.held else card.status,
            card.brand,
            card.last4,
            card.failure_code,
        )
        entry = BankCharge(request.key, charge, Money.zero(request.amount.currency), request.held)
        return replace(self, charges=(*self.charges, entry))

    def _capture(self, request: CaptureRequest) -> "Bank":
        charges = (
            replace(each, charge=replace(each.charge, status=ChargeStatus.SUCCEEDED))
            if each.charge.charge_id == request.charge_id and each.is_held
            else each
            for each in self.charges
        )
        return replace(self, charges=tuple(charges))

    def _refund(self, request: RefundRequest) -> "Bank":
        entry = next((each for each in self.charges if each.charge.charge_id == request.charge_id), None)
        if self.made(request.refund_id) or entry is None:
            return self
        charge, refunded = entry.charge, entry.refunded + request.amount
        if charge.status not in _REFUNDABLE or refunded > charge.amount:
            return self
        if charge.status is ChargeStatus.AUTHORIZED and refunded != charge.amount:
            return self
        charges = (replace(each, refunded=refunded) if each is entry else each for each in self.charges)
        return replace(self, charges=tuple(charges), refunds=self.refunds | {request})


class Fate(StrEnum):
    """What becomes of a request."""

    ANSWERED = "answered"
    LOST = "answer lost"
    UNREACHED = "not reached"
    LINGERS = "no answer in time, done later"


_SIGNATURE = "signed by the gateway"


class FakeGateway:
    """A gateway that lives in memory: a `Bank`, and what becomes of each request on the way to it.

    The model check replaces `send`, and decides there what becomes of a request.
    """

    def __init__(self, bank: Bank | None = None) -> None:
        self.bank = bank or Bank()
        self.fate = Fate.ANSWERED
        """What becomes of the requests from now on."""
        self.hangs = False
        """Whether requests arrive nowhere and do not end, until whoever waits is cancelled."""
        self._notices: dict[bytes, Notice] = {}

    def key(self, payment: Payment) -> str:
        """Return the idempotency key of a payment's charge."""
        return str(payment.order_id)

    async def charge(self, payment: Payment) -> Charge:
        """Charge a payment's card, once for its order. A decline is an outcome. Raises NoAnswer."""
        key = self.key(payment)
        request = ChargeRequest(key, payment.order_id, payment.amount, payment.token, payment.held)

        def answer(bank: Bank) -> Charge | None:
            charge = bank.find(key)
            # A charge that is pending has no answer: the request hangs until nobody waits for it any more.
            return None if charge is None or charge.status is ChargeStatus.PENDING else charge

        return _answered(await self.send("charge", request, answer))

    async def find(self, payment: Payment) -> Charge | None:
        """Return the charge of a payment's order; None if the gateway never got it. Raises NoAnswer."""
        key = self.key(payment)
        # None is an answer too, so the answer comes in a tuple.
        (charge,) = _answered(await self.send("find", None, lambda bank: (bank.find(key),)))
        return charge

    async def capture(self, payment: Payment) -> Charge:
        """Take what is held, once. Raises NoAnswer."""
        request = CaptureRequest(payment.charge_id)
        return _answered(await self.send("capture", request, lambda bank: bank.captured(payment.charge_id)))

    async def release(self, payment: Payment, refund: Refund) -> GatewayRefund:
        """Give up what is held, once: nothing of it can be taken any more. Raises NoAnswer."""
        return await self.refund(payment, refund)

    async def refund(self, payment: Payment, refund: Refund) -> GatewayRefund:
        """Give a part of a charge back, once for each refund. Raises NoAnswer."""
        request = RefundRequest(refund.refund_id, payment.charge_id, refund.amount)
        return _answered(await self.send("refund", request, lambda bank: bank.made(refund.refund_id)))

    def notice(self, subject: Charge | GatewayRefund | OutsideRefund | None) -> tuple[bytes, str]:
        """Make a notice of the gateway. Returns its body and its signature."""
        body = f"evt_{len(self._notices) + 1}".encode()
        self._notices[body] = Notice(body.decode(), subject)
        return body, _SIGNATURE

    def read_notice(self, body: bytes, signature: str, now: datetime) -> Notice:
        """Return what a notice says. Raises BadSignature unless it comes from `notice`."""
        if body not in self._notices or signature != _SIGNATURE:
            raise BadSignature("the notice was not signed by the gateway")
        return self._notices[body]

    async def send(self, step: str, request: Request | None, answer: Callable[[Bank], T | None]) -> T | None:
        """Send a request (None for an inquiry, which changes nothing) and return its answer, None if none
        comes.

        `step` names it: charge, find, capture or refund.
        """
        # Whatever else is going on goes on meanwhile.
        await (asyncio.Event().wait() if self.hangs else asyncio.sleep(0))
        if request is not None and self.fate in (Fate.ANSWERED, Fate.LOST):
            self.bank = self.bank.carry_out(request)
        if request is not None and self.fate is Fate.LINGERS:
            self.bank = replace(self.bank, lingering=self.bank.lingering | {request})
        return answer(self.bank) if self.fate is Fate.ANSWERED else None

    def arrive(self) -> None:
        """Let the gateway carry out what was on its way to it."""
        for request in self.bank.lingering:
            self.bank = self.bank.carry_out(request)
        self.bank = replace(self.bank, lingering=frozenset())


def _answered(answer: T | None) -> T:
    if answer is None:
        raise ports.NoAnswer("the gateway did not answer")
    return answer


def _lapsed(entry: BankCharge) -> BankCharge:
    return (
        replace(entry, charge=replace(entry.charge, status=ChargeStatus.FAILED)) if entry.is_held else entry
    )


def _made(entry: BankCharge) -> BankCharge:
    if entry.charge.status is not ChargeStatus.PENDING:
        return entry
    status = ChargeStatus.AUTHORIZED if entry.held else ChargeStatus.SUCCEEDED
    return replace(entry, charge=replace(entry.charge, status=status))
