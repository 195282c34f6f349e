"""A shop that holds an order's amount when it is placed, and takes it when the order is sent."""

from datetime import timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from stoa_chassis.memory import MemoryStore
from stoa_chassis.testing import SettableClock
from stoa_contracts.money import Money
from stoa_events import PaymentCaptured, PaymentFailed, PaymentRefunded, PaymentSuccessful
from stoa_payment import testing
from stoa_payment.model import (
    ChargeStatus,
    NothingToRefund,
    OutsideRefund,
    Payment,
    PaymentHeld,
    PaymentNotFound,
    PaymentNotMade,
    PaymentPending,
    PaymentReleased,
    PaymentStatus,
    RefundStatus,
    RequestKey,
    RetryPolicy,
)
from stoa_payment.service import Payments, ProcessPayment, RefundPayment
from stoa_payment.testing import FakeGateway, Fate, Rows

Store = MemoryStore[Rows]
TWENTY = Money(Decimal(20), "USD")


@pytest.fixture
def capture_later() -> bool:
    return True


def an_order(token: str = "tok_visa") -> ProcessPayment:
    return ProcessPayment(order_id=uuid4(), user_id=uuid4(), amount=TWENTY, token=token)


def all_back(payment: Payment, amount: Money | None = None) -> RefundPayment:
    key = RequestKey("service:order", "refund")
    return RefundPayment(payment_id=payment.payment_id, key=key, amount=amount, reason="cancelled")


def at_the_bank(gateway: FakeGateway, order_id: UUID) -> ChargeStatus:
    charge = gateway.bank.find(str(order_id))
    assert charge is not None
    return charge.status


async def test_what_an_order_costs_is_held_and_taken_once_when_it_is_asked_for(
    payments: Payments, store: Store, gateway: FakeGateway
) -> None:
    order = an_order()
    payment = await payments.process(order)
    assert (payment.status, payment.held, payment.is_captured) == (PaymentStatus.SUCCEEDED, True, False)
    assert at_the_bank(gateway, order.order_id) is ChargeStatus.AUTHORIZED
    assert [event.captured for event in store.payloads(PaymentSuccessful)] == [False]
    for _ in range(2):
        payment = await payments.capture(payment.payment_id)
        assert payment.is_captured
    assert at_the_bank(gateway, order.order_id) is ChargeStatus.SUCCEEDED
    assert store.payloads(PaymentCaptured) == [
        PaymentCaptured(
            payment_id=payment.payment_id, order_id=order.order_id, user_id=order.user_id, amount=TWENTY
        )
    ]


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.UNREACHED, Fate.LINGERS])
async def test_a_capture_without_an_answer_is_asked_for_until_there_is_one(
    payments: Payments, store: Store, gateway: FakeGateway, clock: SettableClock, fate: Fate
) -> None:
    payment = await payments.process(an_order())
    gateway.fate = fate
    assert (await payments.capture(payment.payment_id)).is_capturing
    with pytest.raises(PaymentPending):  # it may be taken by now: what to give back is not known
        await payments.refund(all_back(payment))
    gateway.fate = Fate.ANSWERED
    clock.advance(seconds=15)
    await payments.unsettled.work_off()
    gateway.arrive()
    assert (await payments.capture(payment.payment_id)).is_captured
    assert len(store.payloads(PaymentCaptured)) == 1


@pytest.mark.parametrize("fate", [Fate.ANSWERED, Fate.LOST])
async def test_a_hold_that_has_lapsed_fails_the_payment_once_and_is_not_asked_for_again(
    payments: Payments, store: Store, gateway: FakeGateway, clock: SettableClock, fate: Fate
) -> None:
    payment = await payments.process(an_order())
    gateway.bank, gateway.fate = gateway.bank.lapse(), fate
    await payments.capture(payment.payment_id)
    gateway.fate = Fate.ANSWERED
    clock.advance(seconds=15)
    await payments.unsettled.work_off()
    charge = gateway.bank.find(str(payment.order_id))
    assert charge is not None
    await payments.receive_notice(*gateway.notice(charge))
    assert [event.reason for event in store.payloads(PaymentFailed)] == ["authorization_expired"]
    assert store.payloads(PaymentCaptured) == []
    clock.advance(hours=1)
    assert await payments.unsettled.work_off() == 0
    for again in (payments.capture(payment.payment_id), payments.refund(all_back(payment))):
        with pytest.raises(PaymentNotMade):
            await again


async def test_what_was_promised_back_stays_promised_when_its_hold_lapses(
    payments: Payments, store: Store, gateway: FakeGateway
) -> None:
    payment = await payments.process(an_order())
    gateway.fate = Fate.UNREACHED
    await payments.refund(all_back(payment))
    charge = gateway.bank.lapse().find(str(payment.order_id))
    assert charge is not None
    await payments.receive_notice(*gateway.notice(charge))
    assert store.payloads(PaymentFailed) == []
    gateway.fate = Fate.ANSWERED
    assert (await payments.refund(all_back(payment))).is_pending


async def test_an_order_that_is_not_sent_has_what_was_held_released(
    payments: Payments, store: Store, gateway: FakeGateway
) -> None:
    payment = await payments.process(an_order())
    refund = await payments.refund(all_back(payment))
    assert refund.status is RefundStatus.SUCCEEDED
    with pytest.raises(PaymentReleased):
        await payments.capture(payment.payment_id)
    assert at_the_bank(gateway, payment.order_id) is ChargeStatus.AUTHORIZED
    assert [event.fully_refunded for event in store.payloads(PaymentRefunded)] == [True]
    with pytest.raises(NothingToRefund):
        await payments.refund(
            RefundPayment(
                payment_id=payment.payment_id, key=RequestKey("user", "r"), amount=None, reason="again"
            )
        )


async def test_what_is_promised_back_is_not_taken_even_before_it_is_released(
    payments: Payments, gateway: FakeGateway, clock: SettableClock
) -> None:
    payment = await payments.process(an_order())
    gateway.fate = Fate.UNREACHED
    assert (await payments.refund(all_back(payment))).is_pending
    gateway.fate = Fate.ANSWERED
    with pytest.raises(PaymentReleased):
        await payments.capture(payment.payment_id)
    clock.advance(seconds=15)
    await payments.unsettled.work_off()
    assert not (await payments.refund(all_back(payment))).is_pending


async def test_a_part_is_given_back_only_of_what_is_taken(payments: Payments) -> None:
    payment = await payments.process(an_order())
    five = Money(Decimal(5), "USD")
    with pytest.raises(PaymentHeld):
        await payments.refund(all_back(payment, five))
    await payments.capture(payment.payment_id)
    assert (await payments.refund(all_back(payment, five))).amount == five


async def test_only_what_is_held_can_be_captured(payments: Payments, gateway: FakeGateway) -> None:
    with pytest.raises(PaymentNotFound):
        await payments.capture(uuid4())
    declined = await payments.process(an_order("tok_declined"))
    assert not declined.held
    with pytest.raises(PaymentNotMade):
        await payments.capture(declined.payment_id)
    gateway.fate = Fate.LOST
    pending = await payments.process(an_order())
    with pytest.raises(PaymentPending):
        await payments.capture(pending.payment_id)


async def test_a_notice_of_a_capture_counts_once_whoever_captured(
    payments: Payments, store: Store, gateway: FakeGateway
) -> None:
    payment = await payments.process(an_order())
    charge = gateway.bank.find(str(payment.order_id))
    assert charge is not None
    await payments.receive_notice(*gateway.notice(charge))  # that it is held is known
    await gateway.capture(payment)  # by hand, say
    charge = gateway.bank.find(str(payment.order_id))
    assert charge is not None
    for _ in range(2):
        await payments.receive_notice(*gateway.notice(charge))
    assert len(store.payloads(PaymentCaptured)) == 1
    assert len(store.payloads(PaymentSuccessful)) == 1


async def test_the_gateways_notice_of_our_own_release_is_nothing_new(
    payments: Payments, store: Store, gateway: FakeGateway
) -> None:
    payment = await payments.process(an_order())
    await payments.refund(all_back(payment))
    outside = OutsideRefund("re_cancelled", str(payment.charge_id), TWENTY)
    await payments.receive_notice(*gateway.notice(outside))
    assert len(store.payloads(PaymentRefunded)) == 1


async def test_what_is_held_after_it_was_given_up_is_released(
    payments: Payments, store: Store, gateway: FakeGateway, clock: SettableClock
) -> None:
    gateway.fate = Fate.LINGERS
    order = an_order()
    await payments.process(order)
    gateway.fate = Fate.ANSWERED
    gateway.bank = type(gateway.bank)()  # the gateway has not got it yet
    clock.advance(hours=25)
    await payments.unsettled.work_off()
    late = await payments.process(order)
    assert late.status is PaymentStatus.FAILED
    made = testing.Bank().carry_out(
        testing.ChargeRequest(str(order.order_id), order.order_id, TWENTY, "tok_visa", held=True)
    )
    gateway.bank = made
    charge = made.find(str(order.order_id))
    assert charge is not None
    await payments.receive_notice(*gateway.notice(charge))
    clock.advance(seconds=15)
    await payments.unsettled.work_off()
    assert len(gateway.bank.refunds) == 1
    assert len(store.payloads(PaymentRefunded)) == 1


def test_what_waits_for_its_capture_is_not_looked_after(a_full_payment: Payment, retry: RetryPolicy) -> None:
    """It may wait for weeks; nobody asks the gateway about it."""
    payment, now = a_full_payment, a_full_payment.updated_at
    payment.refunded = payment.refunding = Money(Decimal(0), "USD")
    payment.status, payment.held = PaymentStatus.SUCCEEDED, True
    assert not payment.is_capturing
    payment.capture(retry, now)
    assert payment.is_capturing
    assert payment.next_check_at == now + retry.lease
    payment.capture(retry, now + timedelta(1))
    assert payment.next_check_at == now + retry.lease


async def test_who_resolves_to_take_what_is_held_says_when_and_comes_back_to_it(
    payments: Payments, retry: RetryPolicy
) -> None:
    payment = await payments.process(an_order())
    later = payment.updated_at + timedelta(minutes=1)
    payment.capture(retry, later)
    assert (payment.updated_at, payment.next_check_at) == (later, later + retry.lease)
    payment.capture(retry, later + timedelta(minutes=1))
    assert payment.updated_at == later


@pytest.mark.parametrize(
    ("refunded", "refunding", "released"), [(0, 0, False), (20, 0, True), (0, 20, True), (15, 5, True)]
)
async def test_what_is_held_is_released_when_all_of_it_is_given_or_promised_back(
    payments: Payments, refunded: int, refunding: int, released: bool
) -> None:
    payment = await payments.process(an_order())
    payment.refunded, payment.refunding = (Money(Decimal(each), "USD") for each in (refunded, refunding))
    assert payment.is_released == released
