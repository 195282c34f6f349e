"""The use cases of payments."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from stoa_chassis.auth import Principal
from stoa_chassis.clock import Clock
from stoa_chassis.context import bound, correlation_id, deadline
from stoa_chassis.errors import Unavailable
from stoa_chassis.ids import new_id
from stoa_chassis.telemetry import get_logger
from stoa_chassis.uow import UnitOfWork
from stoa_contracts.money import Money
from stoa_payment.gateway import NoAnswer, PaymentGateway
from stoa_payment.model import (
    Charge,
    ChargeStatus,
    GatewayRefund,
    Payment,
    PaymentNotFound,
    Refund,
    RetryPolicy,
)
from stoa_payment.repository import Payments as PaymentStore
from stoa_payment.repository import Refunds as RefundStore
from stoa_payment.repository import Tx

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ProcessPayment:
    """What the order service asks for."""

    order_id: UUID
    user_id: UUID
    amount: Money
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RefundPayment:
    """What is to be given back: an amount, or all that is left."""

    payment_id: UUID
    request_id: str
    amount: Money | None
    reason: str


class Payments:
    """Charging orders, giving money back, and finding out what became of either.

    Each step is written down before the gateway is asked and its outcome after: whatever dies in between is
    due to be looked after, which asks the gateway with the same key. Nothing here holds a transaction open
    while it waits for the gateway.
    """

    def __init__(
        self,
        uow: UnitOfWork[Tx],
        payments: PaymentStore,
        refunds: RefundStore,
        gateway: PaymentGateway,
        clock: Clock,
        retry: RetryPolicy,
    ) -> None:
        self._uow = uow
        self._payments = payments
        self._refunds = refunds
        self._gateway = gateway
        self._clock = clock
        self._retry = retry
        # Set when something was left to be looked after, perhaps sooner than what was known to be due.
        self.postponed = asyncio.Event()

    async def process(self, command: ProcessPayment) -> Payment:
        """Charge an order once; asked again it answers what became of it. The payment may still be pending.

        Raises PaymentMismatch, InvalidArgument.
        """
        payment = Payment.begin(
            command.order_id,
            command.user_id,
            command.amount,
            command.token,
            correlation_id() or str(new_id()),
            self._retry,
            self._clock.now(),
        )
        if not await self._payments.add(payment):
            known = await self._payments.of_order(command.order_id)
            assert known is not None
            known.check_same(command.user_id, command.amount)
            return known
        try:
            charge = await self._gateway.charge(payment)
        except NoAnswer as error:
            _log.warning("a charge has no outcome yet", payment_id=payment.payment_id, cause=str(error))
            await self._postpone(payment)
            return payment
        return await self._settle(payment, charge)

    async def get(self, payment_id: UUID, caller: Principal) -> Payment:
        """Read a payment that is the caller's, or any if the caller is staff.

        Raises PaymentNotFound also for another's: the two look alike, so that ids can't be probed.
        """
        payment = await self._payments.get(payment_id)
        if not caller.may_act_for(str(payment.user_id)):
            raise PaymentNotFound("there is no such payment")
        return payment

    async def refund(self, command: RefundPayment) -> Refund:
        """Give money back; the same request id gives it once. A refund that is still pending will be made.

        Raises:
            PaymentNotFound, PaymentPending, PaymentNotMade, NothingToRefund, RefundTooLarge.
            InvalidArgument: the currency is another, or the request id was used for another amount.
        """
        async with self._uow.begin() as tx:
            payment = await tx.payments.lock(command.payment_id)
            if known := await tx.refunds.by_request(command.payment_id, command.request_id):
                known.check_same(command.amount)
                return known
            refund = payment.refund(
                command.request_id,
                command.amount,
                command.reason,
                correlation_id() or payment.correlation_id,
                self._retry,
                self._clock.now(),
            )
            await tx.refunds.add(refund)
            await tx.payments.save(payment)
        return await self._give_back(payment, refund)

    async def receive_notice(self, body: bytes, signature: str) -> None:
        """Take over what the gateway tells us unasked; what we know already changes nothing.

        Raises BadSignature, InvalidArgument.
        """
        notice = self._gateway.read_notice(body, signature, self._clock.now())
        match notice.subject:
            case Charge() as charge:
                payment = await self._payments.of_order(charge.order_id)
                if payment is not None and payment.awaits(charge):
                    await self._settle(payment, charge)
            case GatewayRefund() as made:
                refund = await self._refunds.get(made.refund_id)
                if refund is not None and refund.is_pending:
                    await self._refund_made(refund, made)

    async def take_due(self, limit: int) -> Sequence[Payment | Refund]:
        """Take some of what is due to be looked after; several instances may, each gets others."""
        now = self._clock.now()
        until = now + self._retry.lease
        payments = await self._payments.claim_due(now, until, limit)
        return [*payments, *await self._refunds.claim_due(now, until, limit - len(payments))]

    async def look_after(self, due: Payment | Refund) -> None:
        """Bring a payment or a refund on as far as the gateway lets us.

        Failures are logged and stop nothing else: what failed is due again when its lease ends.
        """
        try:
            if isinstance(due, Payment):
                await self._inquire(due)
            else:
                await self._give_back(await self._payments.get(due.payment_id), due)
        except Unavailable as error:
            _log.info("can't look after it now", cause=str(error))
        except Exception:
            _log.exception("looking after it failed", due=str(due))

    async def next_due(self) -> timedelta | None:
        """Return how long until something is due; None if all is settled."""
        due = await self._payments.next_due()
        return None if due is None else max(timedelta(0), due - self._clock.now())

    async def _inquire(self, payment: Payment) -> None:
        """Find out what became of a charge, or ask for it again if the gateway never heard of it."""
        try:
            charge = await self._gateway.find(payment)
            if charge is None:
                if payment.may_give_up(self._retry, self._clock.now()):
                    return await self._give_up(payment)
                charge = await self._gateway.charge(payment)
        except NoAnswer as error:
            _log.info("a payment is still pending", payment_id=payment.payment_id, cause=str(error))
            return await self._postpone(payment)
        if charge.status is ChargeStatus.PENDING:
            return await self._postpone(payment)
        await self._settle(payment, charge)
        return None

    async def _settle(self, known: Payment, charge: Charge) -> Payment:
        """Take over what became of a charge unless somebody has; return the payment as it is now."""
        with bound(known.correlation_id, deadline()):
            async with self._uow.begin() as tx:
                payment = await tx.payments.lock(known.payment_id)
                if not payment.awaits(charge):
                    return payment
                late = payment.settle(charge, self._clock.now())
                await tx.payments.save(payment)
                tx.publish(payment)
                if late is not None:
                    await tx.refunds.add(late)
                    self.postponed.set()
        return payment

    async def _give_up(self, known: Payment) -> None:
        _log.error("a payment is given up", payment_id=known.payment_id, attempts=known.attempts)
        with bound(known.correlation_id):
            async with self._uow.begin() as tx:
                payment = await tx.payments.lock(known.payment_id)
                payment.give_up(self._clock.now())
                await tx.payments.save(payment)
                tx.publish(payment)

    async def _postpone(self, payment: Payment) -> None:
        payment.postpone(self._retry, self._clock.now())
        await self._payments.postpone(payment)
        self.postponed.set()

    async def _give_back(self, payment: Payment, refund: Refund) -> Refund:
        try:
            made = await self._gateway.refund(payment, refund)
        except NoAnswer as error:
            _log.warning("a refund is not made yet", refund_id=refund.refund_id, cause=str(error))
            refund.postpone(self._retry, self._clock.now())
            await self._refunds.postpone(refund)
            self.postponed.set()
            return refund
        return await self._refund_made(refund, made)

    async def _refund_made(self, known: Refund, made: GatewayRefund) -> Refund:
        with bound(known.correlation_id, deadline()):
            async with self._uow.begin() as tx:
                payment = await tx.payments.lock(known.payment_id)
                refund = await tx.refunds.get(known.refund_id)
                assert refund is not None
                if refund.is_pending:
                    payment.refund_made(refund, made, self._clock.now())
                    await tx.refunds.save(refund)
                    await tx.payments.save(payment)
                    tx.publish(payment)
        return refund
