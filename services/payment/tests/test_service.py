"""Charging and refunding on a real database and gateway, with things going wrong in between."""

import asyncio
import time
from collections import Counter
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from stoa_chassis.auth import Principal
from stoa_chassis.context import bound
from stoa_chassis.errors import InvalidArgument
from stoa_contracts.money import Money
from stoa_payment.model import (
    BadSignature,
    NothingToRefund,
    Payment,
    PaymentMismatch,
    PaymentNotFound,
    PaymentPending,
    PaymentStatus,
    RefundStatus,
    RefundTooLarge,
)
from stoa_payment.service import ProcessPayment, RefundPayment

pytestmark = pytest.mark.stack


def an_order(token: str = "tok_visa", amount: str = "20.00") -> ProcessPayment:
    return ProcessPayment(uuid4(), uuid4(), Money(Decimal(amount), "USD"), token)


def give_back(payment: Payment, amount: str | None = None, request_id: str = "r1") -> RefundPayment:
    money = Money(Decimal(amount), "USD") if amount else None
    return RefundPayment(payment.payment_id, request_id, money, "cancelled")


async def stored(shop: Any, order_id: UUID) -> Any:
    return await shop.database.fetchrow("SELECT * FROM payments WHERE order_id = $1", order_id)


async def test_a_good_card_is_charged_and_the_token_forgotten(shop: Any) -> None:
    order = an_order()
    payment = await shop.payments.process(order)
    assert payment.status is PaymentStatus.SUCCEEDED
    assert (payment.brand, payment.last4) == ("visa", "4242")
    assert (await shop.gateway.charge(order.order_id))["amount"] == 2000
    assert await shop.topics(order.order_id) == ["payment.successful"]
    assert (await stored(shop, order.order_id))["payment_token"] is None


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("tok_declined", "card_declined"),
        ("tok_insufficient_funds", "insufficient_funds"),
        ("tok_unheard_of", "invalid_token"),
    ],
)
async def test_a_declined_card_is_an_outcome(shop: Any, token: str, reason: str) -> None:
    order = an_order(token)
    payment = await shop.payments.process(order)
    assert (payment.status, payment.failure_reason) == (PaymentStatus.FAILED, reason)
    (event,) = await shop.events(order.order_id)
    assert (event.topic, event.payload.reason) == ("payment.failed", reason)


async def test_asked_twenty_times_at_once_it_charges_once(shop: Any) -> None:
    order = an_order()
    payments = await asyncio.gather(*(shop.payments.process(order) for _ in range(20)))
    assert len({payment.payment_id for payment in payments}) == 1
    assert await shop.topics(order.order_id) == ["payment.successful"]
    assert (await shop.payments.process(order)).status is PaymentStatus.SUCCEEDED


async def test_another_amount_or_payer_for_the_same_order_is_refused(shop: Any) -> None:
    order = an_order()
    await shop.payments.process(order)
    for other in (
        ProcessPayment(order.order_id, order.user_id, Money(Decimal("20.01"), "USD"), "tok_visa"),
        ProcessPayment(order.order_id, uuid4(), order.amount, "tok_visa"),
    ):
        with pytest.raises(PaymentMismatch):
            await shop.payments.process(other)


async def test_a_card_number_reaches_neither_store_nor_gateway(shop: Any) -> None:
    order = an_order("4242 4242 4242 4242")
    with pytest.raises(InvalidArgument):
        await shop.payments.process(order)
    assert await stored(shop, order.order_id) is None
    assert await shop.gateway.charge(order.order_id) is None


async def test_a_card_that_answers_late_is_pending_and_then_paid(shop: Any) -> None:
    order = an_order("tok_timeout")
    payment = await shop.payments.process(order)
    assert payment.status is PaymentStatus.PENDING
    assert await shop.topics(order.order_id) == []
    assert await shop.reconciled(order.order_id) == ["payment.successful"]
    assert (await stored(shop, order.order_id))["payment_token"] is None


async def test_an_answer_that_was_lost_is_found_and_not_charged_again(shop: Any) -> None:
    order = an_order()
    await shop.gateway.disturb(lost_answer_rate=1)
    assert (await shop.payments.process(order)).status is PaymentStatus.PENDING
    await shop.gateway.disturb()
    charged = await shop.gateway.charge(order.order_id)
    assert await shop.reconciled(order.order_id) == ["payment.successful"]
    assert (await shop.gateway.charge(order.order_id))["id"] == charged["id"]


async def test_a_charge_that_never_arrived_is_asked_for_again(shop: Any) -> None:
    order = an_order()
    await shop.gateway.disturb(error_rate=1)
    assert (await shop.payments.process(order)).status is PaymentStatus.PENDING
    await shop.look_after_due()
    assert (await stored(shop, order.order_id))["payment_token"] == "tok_visa"
    await shop.gateway.disturb()
    assert await shop.gateway.charge(order.order_id) is None
    assert await shop.reconciled(order.order_id) == ["payment.successful"]


async def test_payments_and_refunds_outlive_a_gateway_that_dies(shop: Any) -> None:
    paid = await shop.payments.process(an_order())
    await shop.gateway.kill()
    order = an_order("tok_declined")
    try:
        assert (await shop.payments.process(order)).status is PaymentStatus.PENDING
        refund = await shop.payments.refund(give_back(paid))
        assert refund.status is RefundStatus.PENDING
        await shop.look_after_due()
    finally:
        await shop.gateway.start()
    assert await shop.reconciled(order.order_id) == ["payment.failed"]
    assert await shop.reconciled(paid.order_id) == ["payment.successful", "payment.refunded"]
    assert await shop.gateway.refunds(paid.order_id) == [2000]


async def test_a_card_whose_bank_hangs_does_not_keep_the_others_from_a_gateway_that_is_back(
    shop: Any,
) -> None:
    await shop.gateway.kill()
    try:
        for _ in range(5):
            await shop.payments.process(an_order())
    finally:
        await shop.gateway.start()
    await asyncio.sleep(2.1)  # until the circuit lets one request try
    hanging, good = an_order("tok_timeout"), an_order()
    began = time.monotonic()
    assert (await shop.payments.process(hanging)).status is PaymentStatus.PENDING
    assert time.monotonic() - began < 0.5
    await shop.payments.process(good)
    assert await shop.reconciled(good.order_id, seconds=2) == ["payment.successful"]
    assert await shop.reconciled(hanging.order_id) == ["payment.successful"]


async def test_an_instance_that_died_while_it_charged_leaves_nothing_open(shop: Any) -> None:
    order = an_order()
    await shop.gateway.disturb(latency_ms=400)
    charging = asyncio.create_task(shop.payments.process(order))
    while await stored(shop, order.order_id) is None:  # noqa: ASYNC110  # the database has nothing to wait on
        await asyncio.sleep(0.01)
    charging.cancel()
    await shop.gateway.disturb()
    assert await shop.reconciled(order.order_id) == ["payment.successful"]


async def test_answer_notices_and_inquiries_may_race(shop: Any) -> None:
    """The same outcome arrives many times by three ways; others hear of it once."""
    orders = [an_order() for _ in range(8)]
    for order in orders:
        await shop.gateway.client.post(
            "/v1/charges",
            json={
                "amount": 2000,
                "currency": "USD",
                "token": "tok_visa",
                "metadata": {"order_id": str(order.order_id)},
            },
            headers={"idempotency-key": str(order.order_id)},
        )
    charges = {order.order_id: await shop.gateway.charge(order.order_id) for order in orders}

    async def notify(order: ProcessPayment) -> None:
        notice = {"id": str(uuid4()), "type": "charge.succeeded", "data": {"object": charges[order.order_id]}}
        for _ in range(5):
            await shop.payments.receive_notice(*shop.signed(notice))
            await asyncio.sleep(0.005)

    async def inquire() -> None:
        shop.clock.ahead = timedelta(seconds=5)
        for _ in range(5):
            await shop.look_after_due()

    await asyncio.gather(
        *(shop.payments.process(order) for order in orders),
        *(notify(order) for order in orders),
        *(inquire() for _ in range(3)),
    )
    shop.clock.ahead = timedelta()
    for order in orders:
        assert await shop.reconciled(order.order_id) == ["payment.successful"]


async def test_a_notice_settles_a_pending_payment_under_the_first_correlation_id(shop: Any) -> None:
    order = an_order("tok_timeout")
    with bound("the-order-request"):
        await shop.payments.process(order)
    charge = await shop.gateway.charge(order.order_id)
    notice = {
        "id": "evt_1",
        "type": "charge.succeeded",
        "data": {"object": {**charge, "status": "succeeded"}},
    }
    with bound("the-webhook-request"):
        await shop.payments.receive_notice(*shop.signed(notice))
    (event,) = await shop.events(order.order_id)
    assert (event.topic, event.correlation_id) == ("payment.successful", "the-order-request")


async def test_a_notice_counts_only_if_the_gateway_signed_it_just_now(shop: Any) -> None:
    order = an_order("tok_timeout")
    await shop.payments.process(order)
    charge = await shop.gateway.charge(order.order_id)
    notice = {
        "id": "evt_1",
        "type": "charge.succeeded",
        "data": {"object": {**charge, "status": "succeeded"}},
    }
    body, signature = shop.signed(notice)
    for forged in (
        shop.signed(notice, secret="guessed"),
        shop.signed(notice, age=301),
        shop.signed(notice, age=-301),
        (body + b" ", signature),
        (body, ""),
        (body, "t=1,v1="),
        (body, signature.replace("t=", "t=x")),
        (body, "\u00e9"),
    ):
        with pytest.raises(BadSignature):
            await shop.payments.receive_notice(*forged)
    assert await shop.topics(order.order_id) == []


async def test_notices_of_what_we_do_not_know_are_taken_and_ignored(shop: Any) -> None:
    charge = {
        "id": "ch_x",
        "amount": 1,
        "currency": "USD",
        "status": "succeeded",
        "failure_code": None,
        "card": {"brand": "visa", "last4": "4242"},
        "metadata": {"order_id": str(uuid4())},
    }
    refund = {"id": "re_x", "metadata": {"refund_id": str(uuid4())}}
    for kind, resource in (
        ("charge.succeeded", charge),
        ("refund.succeeded", refund),
        ("dispute.opened", {"id": "dp_1"}),
    ):
        await shop.payments.receive_notice(
            *shop.signed({"id": "evt_1", "type": kind, "data": {"object": resource}})
        )


async def test_a_signed_notice_that_makes_no_sense_is_the_senders_error(shop: Any) -> None:
    for notice in ({}, {"id": "evt_1", "type": "charge.succeeded", "data": {"object": {"id": "ch_1"}}}):
        with pytest.raises(InvalidArgument):
            await shop.payments.receive_notice(*shop.signed(notice))


async def test_only_the_payer_and_staff_see_a_payment(shop: Any) -> None:
    order = an_order()
    payment = await shop.payments.process(order)
    for allowed in (Principal(str(order.user_id)), Principal(str(uuid4()), frozenset({"staff"}))):
        assert (await shop.payments.get(payment.payment_id, allowed)).order_id == order.order_id
    with pytest.raises(PaymentNotFound):
        await shop.payments.get(payment.payment_id, Principal(str(uuid4())))
    with pytest.raises(PaymentNotFound):
        await shop.payments.get(uuid4(), Principal(str(order.user_id)))


async def test_the_same_refund_asked_for_at_once_gives_back_once(shop: Any) -> None:
    payment = await shop.payments.process(an_order())
    refunds = await asyncio.gather(*(shop.payments.refund(give_back(payment)) for _ in range(10)))
    assert len({refund.refund_id for refund in refunds}) == 1
    assert await shop.reconciled(payment.order_id) == ["payment.successful", "payment.refunded"]
    assert await shop.gateway.refunds(payment.order_id) == [2000]
    assert (await stored(shop, payment.order_id))["status"] == "refunded"


async def test_refunds_at_once_never_exceed_the_payment(shop: Any) -> None:
    payment = await shop.payments.process(an_order())
    answers = await asyncio.gather(
        *(shop.payments.refund(give_back(payment, "3.00", f"r{number}")) for number in range(12)),
        return_exceptions=True,
    )
    outcomes = Counter(type(answer).__name__ for answer in answers)
    assert outcomes == {"Refund": 6, "RefundTooLarge": 6}
    rest = await shop.payments.refund(give_back(payment, None, "rest"))
    assert rest.amount == Money(Decimal("2.00"), "USD")
    with pytest.raises(NothingToRefund):
        await shop.payments.refund(give_back(payment, None, "more"))
    await shop.reconciled(payment.order_id)
    assert sum(await shop.gateway.refunds(payment.order_id)) == 2000
    events = [event.payload for event in await shop.events(payment.order_id)][1:]
    assert [event.total_refunded.amount for event in events][-1] == Decimal("20.00")
    assert [event.fully_refunded for event in events].count(True) == 1


async def test_refunds_that_can_not_be_made_say_why(shop: Any) -> None:
    pending = await shop.payments.process(an_order("tok_timeout"))
    with pytest.raises(PaymentPending):
        await shop.payments.refund(give_back(pending))
    payment = await shop.payments.process(an_order())
    with pytest.raises(RefundTooLarge):
        await shop.payments.refund(give_back(payment, "20.01"))
    with pytest.raises(PaymentNotFound):
        await shop.payments.refund(RefundPayment(uuid4(), "r1", None, ""))
    await shop.payments.refund(give_back(payment, "1.00"))
    with pytest.raises(InvalidArgument):
        await shop.payments.refund(give_back(payment, "2.00"))


async def test_a_refund_whose_answer_was_lost_is_made_once(shop: Any) -> None:
    payment = await shop.payments.process(an_order())
    await shop.gateway.disturb(lost_answer_rate=1)
    assert (await shop.payments.refund(give_back(payment, "5.00"))).status is RefundStatus.PENDING
    await shop.gateway.disturb()
    assert await shop.reconciled(payment.order_id) == ["payment.successful", "payment.refunded"]
    assert await shop.gateway.refunds(payment.order_id) == [500]


async def test_a_payment_is_given_up_after_a_day_without_a_gateway_and_late_money_goes_back(
    shop: Any,
) -> None:
    order = an_order()
    await shop.gateway.disturb(error_rate=1)
    await shop.payments.process(order)
    await shop.gateway.disturb()
    shop.clock.ahead = timedelta(hours=25)
    await shop.look_after_due()
    assert await shop.topics(order.order_id) == ["payment.failed"]
    shop.clock.ahead = timedelta()

    await shop.gateway.client.post(
        "/v1/charges",
        json={
            "amount": 2000,
            "currency": "USD",
            "token": "tok_visa",
            "metadata": {"order_id": str(order.order_id)},
        },
        headers={"idempotency-key": str(order.order_id)},
    )
    charge = await shop.gateway.charge(order.order_id)
    notice = {"id": "evt_1", "type": "charge.succeeded", "data": {"object": charge}}
    await asyncio.gather(*(shop.payments.receive_notice(*shop.signed(notice)) for _ in range(3)))
    assert await shop.reconciled(order.order_id) == ["payment.failed", "payment.refunded"]
    assert await shop.gateway.refunds(order.order_id) == [2000]


async def test_the_reconciler_wakes_for_what_was_left_open_and_sleeps_otherwise(shop: Any) -> None:
    await shop.look_after_due()
    reconciler = asyncio.create_task(reconcile(shop.payments))
    try:
        await asyncio.sleep(0.3)
        order = an_order("tok_timeout")
        await shop.payments.process(order)
        for _ in range(100):
            if await shop.topics(order.order_id):
                break
            await asyncio.sleep(0.1)
        assert await shop.topics(order.order_id) == ["payment.successful"]
    finally:
        reconciler.cancel()


async def test_a_payment_takes_few_statements(shop: Any) -> None:
    before = shop.database.statements
    await shop.payments.process(an_order())
    assert shop.database.statements - before <= 4
