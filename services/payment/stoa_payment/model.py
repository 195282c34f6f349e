"""Payments and refunds: what may happen to one, and the events of it.

A payment is asked for once per order and ends as succeeded or failed. Three may say so – the
gateway's answer, its notice and an inquiry – in any order and more than once; the first one counts.

As the shop is set, the amount is taken at once, or first only held (authorised) and taken (captured) when the
order is sent. What is held is secure: to others the payment has succeeded. To give it back is to release it.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self
from uuid import UUID

from stoa_chassis.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unauthenticated,
    check_same_request,
)
from stoa_chassis.ids import new_id
from stoa_contracts.money import Money
from stoa_events import PaymentCaptured, PaymentFailed, PaymentRefunded, PaymentSuccessful


class PaymentNotFound(NotFound):
    """There is no such payment, or it is another's."""

    reason = "PAYMENT_NOT_FOUND"


class PaymentPending(FailedPrecondition):
    """It is not known yet whether the payment succeeds."""

    reason = "PAYMENT_PENDING"


class PaymentNotMade(FailedPrecondition):
    """The payment failed: there is no money to give back."""

    reason = "PAYMENT_FAILED"


class NothingToRefund(FailedPrecondition):
    """All of the payment was given back, or is being given back."""

    reason = "NOTHING_TO_REFUND"


class PaymentHeld(FailedPrecondition):
    """The amount is held and not taken yet: until then only all of it can be given back."""

    reason = "PAYMENT_HELD"


class PaymentReleased(FailedPrecondition):
    """What was held is given back, or promised back: it can't be taken any more."""

    reason = "PAYMENT_RELEASED"


class RefundTooLarge(FailedPrecondition):
    """Less than this is left of the payment; the metadata says how much."""

    reason = "REFUND_TOO_LARGE"


class ChargeMismatch(FailedPrecondition):
    """The gateway reports a charge that is not what we asked for; a person has to look."""

    reason = "CHARGE_MISMATCH"


class BadSignature(Unauthenticated):
    """A notice was not signed by the gateway, or too long ago."""

    reason = "BAD_SIGNATURE"


class PaymentStatus(StrEnum):
    """Where a payment stands."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"


class RefundStatus(StrEnum):
    """Where a refund stands. One that was accepted is owed until it is made: it can't fail."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"


class ChargeStatus(StrEnum):
    """What the gateway says of a charge. Authorized: the amount is held for us, and can be captured."""

    PENDING = "pending"
    AUTHORIZED = "authorized"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


_SECURED = (ChargeStatus.AUTHORIZED, ChargeStatus.SUCCEEDED)


@dataclass(frozen=True, slots=True)
class Charge:
    """A charge in the gateway's books. `order_id` is what we told it when we asked for the charge."""

    charge_id: str
    order_id: UUID
    amount: Money
    status: ChargeStatus
    brand: str
    last4: str
    failure_code: str = ""


@dataclass(frozen=True, slots=True)
class GatewayRefund:
    """A refund that the gateway has made, or what it held and has released; `refund_id` is ours."""

    gateway_refund_id: str
    refund_id: UUID


@dataclass(frozen=True, slots=True)
class OutsideRefund:
    """A refund that the gateway has made and we did not ask for: somebody gave money back at the gateway."""

    gateway_refund_id: str
    charge_id: str
    amount: Money

    @property
    def key(self) -> "RequestKey":
        """The key that it has here, so that it is taken over once."""
        return RequestKey("gateway", self.gateway_refund_id)


@dataclass(frozen=True, slots=True)
class Notice:
    """What the gateway told us unasked; `subject` is None if it concerns no payment of ours."""

    notice_id: str
    subject: Charge | GatewayRefund | OutsideRefund | None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long what the gateway has not settled is left to one attempt, and tried at all.

    `lease` is longer than an attempt may take. A charge of which the gateway knows nothing is tried for
    `give_up_after`.
    """

    lease: timedelta
    give_up_after: timedelta


_CARD_NUMBER = re.compile(r"\d{13,19}")


def check_token(token: str) -> str:
    """Return a payment token unless it is a card number, which must never get as far as a store or a log.

    Raises InvalidArgument, without repeating the token.
    """
    if _CARD_NUMBER.fullmatch(re.sub(r"[\s.-]", "", token)):
        raise InvalidArgument("payment_token", "is a card number; only a token of the gateway is accepted")
    return token


@dataclass(frozen=True, slots=True)
class RequestKey:
    """The idempotency key of a refund: what the caller chose, and whose keys they are.

    Asked again under one key, nothing is given back twice. Keys of different namespaces never meet
    (`Principal.key_namespace`).
    """

    namespace: str
    request_id: str


# Why a payment fails of which the hold has ended at the bank.
_LAPSED = "authorization_expired"
# What this service asks of itself.
_LATE_CAPTURE = RequestKey("service:payment", "late-capture")


@dataclass(frozen=True, slots=True)
class RefundTerms:
    """What is asked of a refund: an amount, or all that is left, and why."""

    amount: Money | None
    reason: str


@dataclass(frozen=True, slots=True)
class PaymentTerms:
    """What is asked of a payment: who pays, and how much."""

    user_id: UUID
    amount: Money


@dataclass(slots=True)
class Refund:
    """Money that is given back.

    `of_rest` is whether all that was left was asked for rather than an amount; None in those that are older
    than the field.
    """

    refund_id: UUID
    payment_id: UUID
    key: RequestKey
    amount: Money
    reason: str
    status: RefundStatus
    correlation_id: str
    created_at: datetime
    updated_at: datetime
    of_rest: bool | None
    gateway_refund_id: str | None = None
    attempts: int = 0
    next_check_at: datetime | None = None

    @property
    def is_pending(self) -> bool:
        """Whether the money is still to be given back."""
        return self.status is RefundStatus.PENDING

    def check_same(self, again: RefundTerms) -> None:
        """Make sure that a repeated request asks for the same. Raises RequestIdReused."""
        of_rest = again.amount is None if self.of_rest is None else self.of_rest
        check_same_request(RefundTerms(None if of_rest else self.amount, self.reason), again)


@dataclass(slots=True)
class Payment:
    """What a buyer pays for an order. Its methods decide and record `events`.

    `refunding` is what was promised back but is not back yet: with `refunded` it never exceeds `amount`. The
    token is kept only while the payment is pending: until then the charge may have to be asked for again.
    `held` is whether the amount is only to be held, or is held; it ends when it is captured, or has lapsed.
    """

    payment_id: UUID
    order_id: UUID
    user_id: UUID
    amount: Money
    refunded: Money
    refunding: Money
    status: PaymentStatus
    method_type: str
    correlation_id: str
    created_at: datetime
    updated_at: datetime
    brand: str = ""
    last4: str = ""
    charge_id: str | None = None
    failure_reason: str = ""
    token: str | None = field(default=None, repr=False)
    attempts: int = 0
    next_check_at: datetime | None = None
    held: bool = False
    events: list[PaymentSuccessful | PaymentCaptured | PaymentFailed | PaymentRefunded] = field(
        default_factory=list, compare=False
    )

    @classmethod
    def begin(
        cls,
        *,
        order_id: UUID,
        user_id: UUID,
        amount: Money,
        token: str,
        correlation_id: str,
        retry: RetryPolicy,
        now: datetime,
        held: bool = False,
    ) -> Self:
        """Begin the payment of an order; it is looked after when its lease ends, should we die meanwhile.

        `held` is whether the amount is to be held, and captured later.

        Raises InvalidArgument if the amount is not more than zero or the token is a card number.
        """
        if amount <= Money.zero(amount.currency):
            raise InvalidArgument("amount", "must be more than zero")
        zero = Money.zero(amount.currency)
        return cls(
            payment_id=new_id(),
            order_id=order_id,
            user_id=user_id,
            amount=amount,
            refunded=zero,
            refunding=zero,
            status=PaymentStatus.PENDING,
            method_type="card",
            correlation_id=correlation_id,
            created_at=now,
            updated_at=now,
            token=check_token(token),
            next_check_at=now + retry.lease,
            held=held,
        )

    @property
    def is_capturing(self) -> bool:
        """Whether what is held is being taken."""
        return self.held and self.status is PaymentStatus.SUCCEEDED and self.next_check_at is not None

    @property
    def is_captured(self) -> bool:
        """Whether the money was taken, whatever of it was given back since."""
        return not self.held and self.status not in (PaymentStatus.PENDING, PaymentStatus.FAILED)

    @property
    def is_released(self) -> bool:
        """Whether what was held is given back, or promised back."""
        return self.held and self.refunded + self.refunding == self.amount

    def check_same(self, again: PaymentTerms) -> None:
        """Make sure that a repeated request asks for the same. Raises RequestIdReused."""
        check_same_request(PaymentTerms(self.user_id, self.amount), again, "order_id")

    def awaits(self, charge: Charge) -> bool:
        """Tell whether this says something that `settle` has to take over.

        Once it is known what became of a payment nothing changes it any more, save that what is held is
        captured, or lapses before it is. The one exception is a payment that we gave up without a charge:
        should it be made after all, the money has to go back.
        """
        if self.status is PaymentStatus.FAILED and self.charge_id is None:
            return charge.status in _SECURED
        if self.status is PaymentStatus.SUCCEEDED and self.held:
            lapsed = charge.status is ChargeStatus.FAILED and not self.refunding
            return lapsed or charge.status is ChargeStatus.SUCCEEDED
        return self.status is PaymentStatus.PENDING and charge.status is not ChargeStatus.PENDING

    def settle(self, charge: Charge, now: datetime) -> Refund | None:
        """Take over what became of the charge, if that is awaited.

        Returns the refund that sends money back which came after we had given up.
        Raises ChargeMismatch if it is not a charge of this payment.
        """
        if not self.awaits(charge):
            return None
        if (charge.order_id, charge.amount) != (self.order_id, self.amount):
            raise ChargeMismatch(f"charge {charge.charge_id} is not of payment {self.payment_id}")
        if self.status is PaymentStatus.FAILED:
            return self._take_back(charge, now)
        if self.status is PaymentStatus.SUCCEEDED:
            if charge.status is ChargeStatus.FAILED:
                self._lapse(now)
            else:
                self._captured(now)
            return None
        self._finish(charge, now)
        if charge.status in _SECURED:
            self.status = PaymentStatus.SUCCEEDED
            self.events.append(
                PaymentSuccessful(
                    payment_id=self.payment_id,
                    order_id=self.order_id,
                    user_id=self.user_id,
                    amount=self.amount,
                    brand=self.brand,
                    last4=self.last4,
                    captured=not self.held,
                )
            )
        else:
            self._fail(charge.failure_code)
        return None

    def capture(self, retry: RetryPolicy, now: datetime) -> None:
        """Resolve to take what is held; the gateway is asked until it is taken. What is taken stays so.

        Raises PaymentPending, PaymentNotMade, PaymentReleased.
        """
        if not self._left() and self.held:
            raise PaymentReleased("what was held for the order is given back")
        if self.held and not self.is_capturing:
            self.next_check_at = now + retry.lease
            self.updated_at = now

    def change_payer(self, user_id: UUID, now: datetime) -> None:
        """Let the payment of a guest's order belong to the account that the order belongs to now."""
        if user_id != self.user_id:
            self.user_id = user_id
            self.updated_at = now

    def may_give_up(self, retry: RetryPolicy, now: datetime) -> bool:
        """Tell whether it was tried for long enough, if the gateway has no charge."""
        return self.status is PaymentStatus.PENDING and now - self.created_at >= retry.give_up_after

    def give_up(self, now: datetime) -> None:
        """Fail for want of a gateway. Only if it says that it has no charge: an unknown outcome is none."""
        if self.status is PaymentStatus.PENDING:
            self.updated_at = now
            self._fail("gateway_unavailable")

    def refund(
        self,
        terms: RefundTerms,
        *,
        key: RequestKey,
        correlation_id: str,
        retry: RetryPolicy,
        now: datetime,
    ) -> Refund:
        """Promise money back: the amount, or all that is left. The key was not used before.

        Raises:
            InvalidArgument: the amount is not positive or in another currency.
            PaymentPending, PaymentNotMade: there is no money, yet or at all.
            PaymentHeld: a part was asked for of what is not taken yet.
            NothingToRefund: nothing is left.
            RefundTooLarge: less than the amount is left.
        """
        if self.is_capturing:
            raise PaymentPending("the payment is just being taken")
        left, amount = self._left(), terms.amount
        if amount is not None:
            if amount.currency != left.currency:
                raise InvalidArgument("amount.currency_code", f"the payment was made in {left.currency}")
            if amount <= Money.zero(amount.currency):
                raise InvalidArgument("amount", "must be more than zero")
        if not left:
            raise NothingToRefund("all of the payment was given back")
        if amount is not None and amount > left:
            raise RefundTooLarge(f"only {left} is left of the payment", metadata={"left": str(left)})
        if self.held and amount is not None and amount < left:
            raise PaymentHeld(
                "the payment is taken when the order is sent; until then only all of it can be given back"
            )
        return self._promise(
            amount or left,
            terms.reason,
            key=key,
            of_rest=amount is None,
            correlation_id=correlation_id,
            next_check_at=now + retry.lease,
            now=now,
        )

    def refund_outside(self, outside: OutsideRefund, now: datetime) -> Refund:
        """Take over money that was given back at the gateway without us.

        Raises ChargeMismatch if less than this is left of the payment: a person has to look.
        """
        if (left := self._left()).currency != outside.amount.currency or outside.amount > left:
            raise ChargeMismatch(
                f"{outside.amount} of payment {self.payment_id} were given back at the gateway, of {left}"
            )
        refund = self._promise(
            outside.amount,
            "given back at the gateway",
            key=outside.key,
            of_rest=False,
            correlation_id=self.correlation_id,
            next_check_at=now,
            now=now,
        )
        self.refund_made(refund, GatewayRefund(outside.gateway_refund_id, refund.refund_id), now)
        return refund

    def refund_made(self, refund: Refund, made: GatewayRefund, now: datetime) -> None:
        """Take over that the gateway has given the money back; again, it changes nothing."""
        if not refund.is_pending:
            return
        refund.status = RefundStatus.SUCCEEDED
        refund.gateway_refund_id = made.gateway_refund_id
        refund.next_check_at = None
        refund.updated_at = self.updated_at = now
        self.refunding -= refund.amount
        self.refunded += refund.amount
        whole = self.refunded == self.amount
        self.status = PaymentStatus.REFUNDED if whole else PaymentStatus.PARTIALLY_REFUNDED
        self.events.append(
            PaymentRefunded(
                payment_id=self.payment_id,
                order_id=self.order_id,
                refund_id=refund.refund_id,
                user_id=self.user_id,
                amount=refund.amount,
                total_refunded=self.refunded,
                fully_refunded=whole,
            )
        )

    def _left(self) -> Money:
        if self.status is PaymentStatus.PENDING:
            raise PaymentPending("whether the payment succeeds is not known yet")
        if self.status is PaymentStatus.FAILED:
            raise PaymentNotMade("the payment failed, there is nothing to give back")
        return self.amount - self.refunded - self.refunding

    def _promise(
        self,
        amount: Money,
        reason: str,
        *,
        key: RequestKey,
        of_rest: bool,
        correlation_id: str,
        next_check_at: datetime,
        now: datetime,
    ) -> Refund:
        self.refunding += amount
        self.updated_at = now
        return Refund(
            refund_id=new_id(),
            payment_id=self.payment_id,
            key=key,
            amount=amount,
            reason=reason,
            status=RefundStatus.PENDING,
            correlation_id=correlation_id,
            created_at=now,
            updated_at=now,
            of_rest=of_rest,
            next_check_at=next_check_at,
        )

    def _take_back(self, charge: Charge, now: datetime) -> Refund:
        # Others were told that it failed and acted on it: to them there only ever is the refund.
        self._finish(charge, now)
        self.status = PaymentStatus.SUCCEEDED
        self.failure_reason = ""
        return self._promise(
            self.amount,
            "captured after the payment was given up",
            key=_LATE_CAPTURE,
            of_rest=True,
            correlation_id=self.correlation_id,
            next_check_at=now,
            now=now,
        )

    def _captured(self, now: datetime) -> None:
        self.held = False
        self.next_check_at = None
        self.updated_at = now
        self.events.append(
            PaymentCaptured(
                payment_id=self.payment_id,
                order_id=self.order_id,
                user_id=self.user_id,
                amount=self.amount,
            )
        )

    def _lapse(self, now: datetime) -> None:
        # It will never be taken: to ask on for it would only hide that from who has to know.
        self.held = False
        self.updated_at = now
        self._fail(_LAPSED)

    def _finish(self, charge: Charge, now: datetime) -> None:
        self.held = charge.status is ChargeStatus.AUTHORIZED
        self.charge_id = charge.charge_id
        self.brand, self.last4 = charge.brand, charge.last4
        self.token = None
        self.next_check_at = None
        self.updated_at = now

    def _fail(self, reason: str) -> None:
        self.status = PaymentStatus.FAILED
        self.failure_reason = reason
        self.token = None
        self.next_check_at = None
        self.events.append(
            PaymentFailed(
                payment_id=self.payment_id,
                order_id=self.order_id,
                user_id=self.user_id,
                amount=self.amount,
                reason=reason,
                brand=self.brand,
                last4=self.last4,
            )
        )
