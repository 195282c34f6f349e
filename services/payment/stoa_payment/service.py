"""The use cases of payments."""

from dataclasses import dataclass, field
from uuid import UUID

from stoa_chassis.auth import Principal
from stoa_chassis.avro import Event
from stoa_chassis.clock import Clock
from stoa_chassis.context import bound, correlation_id, deadline
from stoa_chassis.due import Backoff, DueWork
from stoa_chassis.ids import new_id
from stoa_chassis.telemetry import get_logger
from stoa_chassis.uow import UnitOfWork, transactional
from stoa_contracts.money import Money
from stoa_events import OrderBuyerChanged
from stoa_payment.model import (
    Charge,
    ChargeStatus,
    GatewayRefund,
    OutsideRefund,
    Payment,
    PaymentNotFound,
    PaymentTerms,
    Refund,
    RefundTerms,
    RequestKey,
    RetryPolicy,
)
from stoa_payment.ports import NoAnswer, PaymentGateway, Tx, Unsettled
from stoa_payment.ports import Payments as PaymentStore
from stoa_payment.ports import Refunds as RefundStore

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPayment:
    """What the order service asks for."""

    order_id: UUID
    user_id: UUID
    amount: Money
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundPayment:
    """What is to be given back: an amount, or all that is left."""

    payment_id: UUID
    key: RequestKey
    amount: Money | None
    reason: str

    @property
    def terms(self) -> RefundTerms:
        """What must be the same when the key comes again."""
        return RefundTerms(self.amount, self.reason)


class Payments:
    """Charging orders, giving money back, and finding out what became of either.

    Each step is written down before the gateway is asked and its outcome after: whatever dies in between
    falls due, and the gateway is asked again with the same key. No transaction is open while the gateway is
    waited for.
    """

    def __init__(
        self,
        uow: UnitOfWork[Tx],
        payments: PaymentStore,
        refunds: RefundStore,
        unsettled: Unsettled,
        gateway: PaymentGateway,
        clock: Clock,
        retry: RetryPolicy,
        backoff: Backoff,
        *,
        capture_later: bool = False,
    ) -> None:
        """`payments` and `refunds` are the stores outside of a transaction, for single statements.

        With `capture_later` an order's amount is only held when it is placed, until `capture`.
        """
        self._uow = uow
        self._payments = payments
        self._refunds = refunds
        self._gateway = gateway
        self._clock = clock
        self._retry = retry
        self._capture_later = capture_later
        self.unsettled = DueWork(unsettled, self.bring_on, backoff, clock)
        """Takes up what is not settled yet."""

    async def process(self, command: ProcessPayment) -> Payment:
        """Charge an order once; asked again it answers what became of it. The payment may still be pending.

        Raises InvalidArgument, and RequestIdReused if the order has a payment of another amount or payer.
        """
        payment = Payment.begin(
            order_id=command.order_id,
            user_id=command.user_id,
            amount=command.amount,
            token=command.token,
            correlation_id=correlation_id() or str(new_id()),
            retry=self._retry,
            now=self._clock.now(),
            held=self._capture_later,
        )
        if not await self._payments.add(payment):
            known = await self._payments.of_order(command.order_id)
            assert known is not None
            known.check_same(PaymentTerms(command.user_id, command.amount))
            return known
        try:
            charge = await self._gateway.charge(payment)
        except NoAnswer as error:
            _log.warning("a charge has no outcome yet", payment_id=payment.payment_id, cause=str(error))
            await self.unsettled.put_off(payment)
            return payment
        return await self._settle(payment.payment_id, charge)

    async def get(self, payment_id: UUID, caller: Principal) -> Payment:
        """Read a payment that is the caller's, or any if the caller is staff.

        Raises PaymentNotFound also for another's: the two look alike, so that ids can't be probed.
        """
        payment = await self._payments.get(payment_id)
        if not caller.may_act_for(str(payment.user_id)):
            raise PaymentNotFound("there is no such payment")
        return payment

    async def capture(self, payment_id: UUID) -> Payment:
        """Take what is held, once. A payment that is still held will be taken.

        Raises PaymentNotFound, PaymentPending, PaymentNotMade, PaymentReleased.
        """
        payment = await self._resolve_to_capture(payment_id)
        return await self._take(payment) if payment.is_capturing else payment

    async def refund(self, command: RefundPayment) -> Refund:
        """Give money back; the same key gives it once. A refund that is still pending will be made.

        Raises:
            PaymentNotFound, PaymentPending, PaymentNotMade, PaymentHeld, NothingToRefund, RefundTooLarge.
            InvalidArgument: the currency is another.
            RequestIdReused: the key was used for another amount, or another reason.
        """
        payment, refund, is_new = await self._promise(command)
        return await self._give_back(payment, refund) if is_new else refund

    async def receive_notice(self, body: bytes, signature: str) -> None:
        """Take over what the gateway tells us unasked; what we know already changes nothing.

        Raises BadSignature, InvalidArgument, ChargeMismatch.
        """
        notice = self._gateway.read_notice(body, signature, self._clock.now())
        match notice.subject:
            case Charge() as charge:
                payment = await self._payments.of_order(charge.order_id)
                if payment is not None and payment.awaits(charge):
                    with bound(payment.correlation_id, deadline()):
                        await self._settle(payment.payment_id, charge)
            case GatewayRefund() as made:
                refund = await self._refunds.get(made.refund_id)
                if refund is not None and refund.is_pending:
                    with bound(refund.correlation_id, deadline()):
                        await self._refund_made(refund, made)
            case OutsideRefund() as outside:
                payment = await self._payments.of_charge(outside.charge_id)
                if payment is not None:
                    with bound(payment.correlation_id, deadline()):
                        await self._take_over_refund(payment.payment_id, outside)

    @transactional
    async def on_order_buyer_changed(self, tx: Tx, event: Event[OrderBuyerChanged]) -> None:
        """Let a payment belong to whom its order belongs now; one to come is asked for in her name."""
        known = await tx.payments.of_order(event.payload.order_id)
        if known is None:
            return
        payment = await tx.payments.lock(known.payment_id)
        payment.change_payer(event.payload.user_id, self._clock.now())
        await tx.payments.save(payment)

    async def bring_on(self, work: Payment | Refund) -> None:
        """Bring a payment or a refund on as far as the gateway lets us.

        Raises Unavailable if the store can't be reached.
        """
        if isinstance(work, Refund):
            await self._give_back(await self._payments.get(work.payment_id), work)
        elif work.is_capturing:
            await self._take(work)
        else:
            await self._inquire(work)

    async def _inquire(self, payment: Payment) -> None:
        """Find out what became of a charge, or ask for it again if the gateway never got it."""
        try:
            charge = await self._gateway.find(payment)
            if charge is None:
                if payment.may_give_up(self._retry, self._clock.now()):
                    _log.error(
                        "a payment is given up", payment_id=payment.payment_id, attempts=payment.attempts
                    )
                    await self._give_up(payment.payment_id)
                    return
                charge = await self._gateway.charge(payment)
        except NoAnswer as error:
            _log.info("a payment is still pending", payment_id=payment.payment_id, cause=str(error))
            await self.unsettled.put_off(payment)
            return
        if charge.status is ChargeStatus.PENDING:
            await self.unsettled.put_off(payment)
        else:
            await self._settle(payment.payment_id, charge)

    async def _take(self, payment: Payment) -> Payment:
        try:
            charge = await self._gateway.capture(payment)
        except NoAnswer as error:
            _log.warning("a payment is not taken yet", payment_id=payment.payment_id, cause=str(error))
            await self.unsettled.put_off(payment)
            return payment
        return await self._settle(payment.payment_id, charge)

    async def _give_back(self, payment: Payment, refund: Refund) -> Refund:
        try:
            if payment.held:
                made = await self._gateway.release(payment, refund)
            else:
                made = await self._gateway.refund(payment, refund)
        except NoAnswer as error:
            _log.warning("a refund is not made yet", refund_id=refund.refund_id, cause=str(error))
            await self.unsettled.put_off(refund)
            return refund
        return await self._refund_made(refund, made)

    async def _settle(self, payment_id: UUID, charge: Charge) -> Payment:
        payment = await self._take_over(payment_id, charge)
        if payment.refunding:
            self.unsettled.wake()
        return payment

    @transactional
    async def _take_over(self, tx: Tx, payment_id: UUID, charge: Charge) -> Payment:
        """Take over what became of a charge unless somebody has; return the payment as it is now."""
        payment = await tx.payments.lock(payment_id)
        if payment.awaits(charge):
            late = payment.settle(charge, self._clock.now())
            await tx.payments.save(payment)
            if late is not None:
                await tx.refunds.add(late)
        return payment

    @transactional
    async def _take_over_refund(self, tx: Tx, payment_id: UUID, outside: OutsideRefund) -> None:
        """Take over what was given back at the gateway, once."""
        payment = await tx.payments.lock(payment_id)
        if payment.is_released:
            return  # what says so is the release that we asked for
        if await tx.refunds.by_key(payment_id, outside.key) is None:
            await tx.refunds.add(payment.refund_outside(outside, self._clock.now()))
            await tx.payments.save(payment)

    @transactional
    async def _resolve_to_capture(self, tx: Tx, payment_id: UUID) -> Payment:
        payment = await tx.payments.lock(payment_id)
        payment.capture(self._retry, self._clock.now())
        await tx.payments.save(payment)
        return payment

    @transactional
    async def _give_up(self, tx: Tx, payment_id: UUID) -> None:
        payment = await tx.payments.lock(payment_id)
        payment.give_up(self._clock.now())
        await tx.payments.save(payment)

    @transactional
    async def _promise(self, tx: Tx, command: RefundPayment) -> tuple[Payment, Refund, bool]:
        """Promise money back, unless its key did before; tell whether the refund is new."""
        payment = await tx.payments.lock(command.payment_id)
        if known := await tx.refunds.by_key(command.payment_id, command.key):
            known.check_same(command.terms)
            return payment, known, False
        refund = payment.refund(
            command.terms,
            key=command.key,
            correlation_id=correlation_id() or payment.correlation_id,
            retry=self._retry,
            now=self._clock.now(),
        )
        await tx.refunds.add(refund)
        await tx.payments.save(payment)
        return payment, refund, True

    @transactional
    async def _refund_made(self, tx: Tx, known: Refund, made: GatewayRefund) -> Refund:
        payment = await tx.payments.lock(known.payment_id)
        refund = await tx.refunds.get(known.refund_id)
        assert refund is not None
        if refund.is_pending:
            payment.refund_made(refund, made, self._clock.now())
            await tx.refunds.save(refund)
            await tx.payments.save(payment)
        return refund
