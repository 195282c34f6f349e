"""Charging and refunding, with things going wrong in between."""

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from stoa_chassis.auth import Principal
from stoa_chassis.avro import Event, new_event
from stoa_chassis.context import bound
from stoa_chassis.errors import InvalidArgument, RequestIdReused
from stoa_chassis.inbox import AlreadyProcessed
from stoa_chassis.memory import MemoryStore
from stoa_chassis.testing import SettableClock, eventually
from stoa_contracts.events import Payload
from stoa_contracts.money import Money
from stoa_events import OrderBuyerChanged, PaymentFailed, PaymentRefunded, PaymentSuccessful
from stoa_payment.model import (
    BadSignature,
    Charge,
    ChargeMismatch,
    ChargeStatus,
    GatewayRefund,
    NothingToRefund,
    OutsideRefund,
    Payment,
    PaymentNotFound,
    PaymentPending,
    PaymentStatus,
    Refund,
    RefundStatus,
    RefundTooLarge,
    RequestKey,
)
from stoa_payment.service import Payments, ProcessPayment, RefundPayment
from stoa_payment.testing import ChargeRequest, FakeGateway, Fate, Rows, payment_of, refund_of

Store = MemoryStore[Rows]


def an_order(token: str = "tok_visa", amount: str = "20.00") -> ProcessPayment:
    return ProcessPayment(order_id=uuid4(), user_id=uuid4(), amount=usd(amount), token=token)


def give_back(
    payment: Payment, amount: str | None = None, request_id: str = "r1", namespace: str = "user"
) -> RefundPayment:
    return RefundPayment(
        payment_id=payment.payment_id,
        key=RequestKey(namespace, request_id),
        amount=usd(amount) if amount else None,
        reason="cancelled",
    )


def usd(amount: str) -> Money:
    return Money(Decimal(amount), "USD")


def stored(store: Store, order_id: UUID) -> Payment:
    return next(each for each in map(payment_of, store.rows.payments) if each.order_id == order_id)


def events(store: Store, order_id: UUID) -> list[Event[Payload]]:
    """Return what was published of an order's payment, oldest first."""
    return [event for event in store.published if event.payload.key == str(order_id)]


def topics(store: Store, order_id: UUID) -> list[str]:
    return [event.topic for event in events(store, order_id)]


def given_back(gateway: FakeGateway, order_id: UUID) -> list[Money]:
    """Return the amounts that the gateway gave back of an order's charge."""
    charge = gateway.bank.find(str(order_id))
    return [each.amount for each in gateway.bank.refunds if charge and each.charge_id == charge.charge_id]


async def settle(payments: Payments, store: Store, clock: SettableClock) -> None:
    """Take up what is due until nothing is pending any more."""
    for _ in range(10):
        if not any(row.next_check_at for row in map(payment_of, store.rows.payments)) and not any(
            row.next_check_at for row in map(refund_of, store.rows.refunds)
        ):
            return
        clock.advance(seconds=15)
        await payments.unsettled.work_off()
    raise AssertionError("something is still pending")


async def test_a_good_card_is_charged_and_the_token_forgotten(
    payments: Payments, store: Store, gateway: FakeGateway
) -> None:
    order = an_order()
    payment = await payments.process(order)
    assert payment.status is PaymentStatus.SUCCEEDED
    assert (payment.brand, payment.last4) == ("visa", "4242")
    assert [each.charge.amount for each in gateway.bank.charges] == [usd("20.00")]
    assert topics(store, order.order_id) == ["payment.successful"]
    assert stored(store, order.order_id).token is None


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("tok_declined", "card_declined"),
        ("tok_insufficient_funds", "insufficient_funds"),
        ("tok_unheard_of", "invalid_token"),
    ],
)
async def test_a_declined_card_is_an_outcome(
    payments: Payments, store: Store, token: str, reason: str
) -> None:
    order = an_order(token)
    payment = await payments.process(order)
    assert (payment.status, payment.failure_reason) == (PaymentStatus.FAILED, reason)
    (event,) = store.payloads(PaymentFailed)
    assert (event.order_id, event.reason) == (order.order_id, reason)


async def test_asked_twenty_times_at_once_it_charges_once(
    payments: Payments, store: Store, gateway: FakeGateway
) -> None:
    order = an_order()
    answers = await asyncio.gather(*(payments.process(order) for _ in range(20)))
    assert len({payment.payment_id for payment in answers}) == 1
    assert len(gateway.bank.charges) == 1
    assert topics(store, order.order_id) == ["payment.successful"]
    assert (await payments.process(order)).status is PaymentStatus.SUCCEEDED


async def test_another_amount_or_payer_for_the_same_order_is_refused(payments: Payments) -> None:
    order = an_order()
    await payments.process(order)
    for other in (replace(order, amount=usd("20.01")), replace(order, user_id=uuid4())):
        with pytest.raises(RequestIdReused):
            await payments.process(other)


async def test_a_card_number_reaches_neither_store_nor_gateway(
    payments: Payments, store: Store, gateway: FakeGateway
) -> None:
    order = an_order("4242 4242 4242 4242")
    with pytest.raises(InvalidArgument):
        await payments.process(order)
    assert not store.rows.payments
    assert not gateway.bank.charges


async def test_a_card_that_answers_late_is_pending_and_then_paid(
    payments: Payments, store: Store, gateway: FakeGateway, clock: SettableClock
) -> None:
    order = an_order("tok_timeout")
    assert (await payments.process(order)).status is PaymentStatus.PENDING
    clock.advance(seconds=15)
    await payments.unsettled.work_off()
    assert topics(store, order.order_id) == []
    gateway.bank = gateway.bank.capture()
    await settle(payments, store, clock)
    assert topics(store, order.order_id) == ["payment.successful"]
    assert stored(store, order.order_id).token is None


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.LINGERS, Fate.UNREACHED])
async def test_a_charge_without_an_answer_is_made_once(
    payments: Payments, store: Store, gateway: FakeGateway, clock: SettableClock, fate: Fate
) -> None:
    order = an_order()
    gateway.fate = fate
    assert (await payments.process(order)).status is PaymentStatus.PENDING
    gateway.fate = Fate.ANSWERED
    gateway.arrive()
    await settle(payments, store, clock)
    assert topics(store, order.order_id) == ["payment.successful"]
    assert len(gateway.bank.charges) == 1


async def test_the_token_is_kept_for_as_long_as_the_charge_may_have_to_be_asked_for_again(
    payments: Payments, store: Store, gateway: FakeGateway, clock: SettableClock
) -> None:
    order = an_order()
    gateway.fate = Fate.UNREACHED
    await payments.process(order)
    clock.advance(seconds=15)
    assert await payments.unsettled.work_off() == 1
    payment = stored(store, order.order_id)
    assert (payment.token, payment.attempts) == ("tok_visa", 1)


async def test_payments_and_refunds_outlive_an_outage_of_the_gateway(
    payments: Payments, store: Store, gateway: FakeGateway, clock: SettableClock
) -> None:
    paid = await payments.process(an_order())
    gateway.fate = Fate.UNREACHED
    order = an_order("tok_declined")
    assert (await payments.process(order)).status is PaymentStatus.PENDING
    assert (await payments.refund(give_back(paid))).status is RefundStatus.PENDING
    clock.advance(seconds=15)
    assert await payments.unsettled.work_off() == 2
    gateway.fate = Fate.ANSWERED
    await settle(payments, store, clock)
    assert topics(store, order.order_id) == ["payment.failed"]
    assert topics(store, paid.order_id) == ["payment.successful", "payment.refunded"]
    assert given_back(gateway, paid.order_id) == [usd("20.00")]


async def test_an_instance_that_died_while_it_charged_leaves_nothing_open(
    payments: Payments, store: Store, gateway: FakeGateway, clock: SettableClock
) -> None:
    order = an_order()
    gateway.hangs = True
    charging = asyncio.create_task(payments.process(order))
    await eventually(lambda: store.rows.payments)
    charging.cancel()
    with suppress(asyncio.CancelledError):
        await charging
    gateway.hangs = False
    assert topics(store, order.order_id) == []
    await settle(payments, store, clock)
    assert topics(store, order.order_id) == ["payment.successful"]


async def test_answer_notices_and_inquiries_may_race(
    payments: Payments, store: Store, gateway: FakeGateway, clock: SettableClock
) -> None:
    """The same outcome arrives many times by three ways; others are told of it once."""
    orders = [an_order() for _ in range(8)]
    for order in orders:
        key = str(order.order_id)
        gateway.bank = gateway.bank.carry_out(ChargeRequest(key, order.order_id, order.amount, order.token))

    async def notify(order: ProcessPayment) -> None:
        notice = gateway.notice(gateway.bank.find(str(order.order_id)))
        for _ in range(5):
            await payments.receive_notice(*notice)
            await asyncio.sleep(0)

    async def inquire() -> None:
        for _ in range(5):
            clock.advance(seconds=5)
            await payments.unsettled.work_off()

    await asyncio.gather(
        *(payments.process(order) for order in orders),
        *(notify(order) for order in orders),
        *(inquire() for _ in range(3)),
    )
    await settle(payments, store, clock)
    for order in orders:
        assert topics(store, order.order_id) == ["payment.successful"]


async def test_whatever_settles_a_payment_does_so_under_the_first_correlation_id(
    payments: Payments, store: Store, gateway: FakeGateway, clock: SettableClock
) -> None:
    by_notice, by_inquiry = an_order("tok_timeout"), an_order("tok_timeout")
    for order in (by_notice, by_inquiry):
        with bound("the-order-request"):
            await payments.process(order)
    gateway.bank = gateway.bank.capture()
    with bound("the-webhook-request"):
        await payments.receive_notice(*gateway.notice(gateway.bank.find(str(by_notice.order_id))))
    await settle(payments, store, clock)
    for order in (by_notice, by_inquiry):
        (event,) = events(store, order.order_id)
        assert (event.topic, event.correlation_id) == ("payment.successful", "the-order-request")


async def test_a_refund_that_is_made_later_is_told_under_its_own_correlation_id(
    payments: Payments, store: Store, gateway: FakeGateway, clock: SettableClock
) -> None:
    with bound("the-order-request"):
        payment = await payments.process(an_order())
    gateway.fate = Fate.UNREACHED
    with bound("the-refund-request"):
        await payments.refund(give_back(payment))
    gateway.fate = Fate.ANSWERED
    await settle(payments, store, clock)
    _, refunded = events(store, payment.order_id)
    assert (refunded.topic, refunded.correlation_id) == ("payment.refunded", "the-refund-request")


async def test_a_notice_that_the_gateway_did_not_sign_changes_nothing(
    payments: Payments, store: Store, gateway: FakeGateway
) -> None:
    order = an_order("tok_timeout")
    await payments.process(order)
    gateway.bank = gateway.bank.capture()
    body, _ = gateway.notice(gateway.bank.find(str(order.order_id)))
    with pytest.raises(BadSignature):
        await payments.receive_notice(body, "forged")
    assert topics(store, order.order_id) == []


async def test_notices_of_what_is_not_known_are_taken_and_ignored(
    payments: Payments, store: Store, gateway: FakeGateway
) -> None:
    charge = Charge("ch_x", uuid4(), usd("1.00"), ChargeStatus.SUCCEEDED, "visa", "4242")
    for subject in (charge, GatewayRefund("re_x", uuid4()), None):
        await payments.receive_notice(*gateway.notice(subject))
    assert store.rows == Rows()


async def test_a_notice_says_that_a_refund_was_made(
    payments: Payments, store: Store, gateway: FakeGateway, clock: SettableClock
) -> None:
    payment = await payments.process(an_order())
    gateway.fate = Fate.LOST
    refund = await payments.refund(give_back(payment))
    for _ in range(2):
        await payments.receive_notice(*gateway.notice(gateway.bank.made(refund.refund_id)))
    assert topics(store, payment.order_id) == ["payment.successful", "payment.refunded"]
    clock.advance(seconds=15)
    assert await payments.unsettled.work_off() == 0


async def test_a_notice_that_comes_while_a_refund_is_asked_for_and_its_answer_count_once(
    payments: Payments, store: Store, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = await payments.process(an_order())
    ask = gateway.refund

    async def ask_and_be_told_first(of: Payment, refund: Refund) -> GatewayRefund:
        made = await ask(of, refund)
        await payments.receive_notice(*gateway.notice(made))
        return made

    monkeypatch.setattr(gateway, "refund", ask_and_be_told_first)
    refund = await payments.refund(give_back(payment, "5.00"))
    assert (refund.status, refund.amount) == (RefundStatus.SUCCEEDED, usd("5.00"))
    assert stored(store, payment.order_id).refunded == usd("5.00")
    assert topics(store, payment.order_id) == ["payment.successful", "payment.refunded"]


async def test_notices_that_come_after_all_is_settled_are_taken_and_change_nothing(
    payments: Payments, store: Store, gateway: FakeGateway
) -> None:
    payment = await payments.process(an_order())
    charged = gateway.notice(gateway.bank.find(str(payment.order_id)))
    refund = await payments.refund(give_back(payment))
    refunded = gateway.notice(gateway.bank.made(refund.refund_id))
    before, said = store.rows, list(store.published)
    for notice in (charged, refunded, charged):
        await payments.receive_notice(*notice)
    assert (store.rows, store.published) == (before, said)


async def test_what_was_given_back_at_the_gateway_is_taken_over_once_and_the_rest_can_be_refunded(
    payments: Payments, store: Store, gateway: FakeGateway
) -> None:
    with bound("the-order-request"):
        payment = await payments.process(an_order())
    by_hand = OutsideRefund("re_hand", payment.charge_id or "", usd("5.00"))
    with bound("the-webhook-request"):
        for _ in range(2):
            await payments.receive_notice(*gateway.notice(by_hand))
    known = stored(store, payment.order_id)
    assert (known.status, known.refunded) == (PaymentStatus.PARTIALLY_REFUNDED, usd("5.00"))
    refunded = events(store, payment.order_id)[1:]
    assert [(event.topic, event.correlation_id) for event in refunded] == [
        ("payment.refunded", "the-order-request")
    ]
    assert (await payments.refund(give_back(payment))).amount == usd("15.00")
    assert stored(store, payment.order_id).status is PaymentStatus.REFUNDED


async def test_what_was_given_back_at_the_gateway_of_charges_that_are_not_ours_is_ignored(
    payments: Payments, store: Store, gateway: FakeGateway
) -> None:
    await payments.process(an_order())
    before = store.rows
    await payments.receive_notice(*gateway.notice(OutsideRefund("re_x", "ch_x", usd("5.00"))))
    assert store.rows == before


async def test_more_given_back_at_the_gateway_than_can_be_is_refused_until_a_person_has_looked(
    payments: Payments, store: Store, gateway: FakeGateway
) -> None:
    payment = await payments.process(an_order())
    before = store.rows
    with pytest.raises(ChargeMismatch):
        await payments.receive_notice(
            *gateway.notice(OutsideRefund("re_hand", payment.charge_id or "", usd("20.01")))
        )
    assert store.rows == before


async def test_a_refund_carries_the_correlation_id_of_its_request_or_of_its_payment(
    payments: Payments, store: Store
) -> None:
    with bound("the-order-request"):
        payment = await payments.process(an_order())
    await payments.refund(give_back(payment, "1.00", "r1"))
    with bound("the-refund-request"):
        await payments.refund(give_back(payment, "1.00", "r2"))
    assert [refund.correlation_id for refund in map(refund_of, store.rows.refunds)] == [
        "the-order-request",
        "the-refund-request",
    ]


async def test_a_payment_that_nothing_asked_for_by_name_gets_a_correlation_id_of_its_own(
    payments: Payments,
) -> None:
    first, second = await payments.process(an_order()), await payments.process(an_order())
    assert first.correlation_id
    assert first.correlation_id != second.correlation_id


async def test_only_the_payer_and_staff_see_a_payment(payments: Payments) -> None:
    order = an_order()
    payment = await payments.process(order)
    for allowed in (Principal(str(order.user_id)), Principal(str(uuid4()), acts_as_staff=True)):
        assert (await payments.get(payment.payment_id, allowed)).order_id == order.order_id
    with pytest.raises(PaymentNotFound):
        await payments.get(payment.payment_id, Principal(str(uuid4())))
    with pytest.raises(PaymentNotFound):
        await payments.get(uuid4(), Principal(str(order.user_id)))


async def test_the_same_refund_asked_for_at_once_gives_back_once(
    payments: Payments, store: Store, gateway: FakeGateway
) -> None:
    payment = await payments.process(an_order())
    refunds = await asyncio.gather(*(payments.refund(give_back(payment)) for _ in range(10)))
    assert len({refund.refund_id for refund in refunds}) == 1
    assert topics(store, payment.order_id) == ["payment.successful", "payment.refunded"]
    assert given_back(gateway, payment.order_id) == [usd("20.00")]
    assert stored(store, payment.order_id).status is PaymentStatus.REFUNDED


async def test_refunds_at_once_never_exceed_the_payment(
    payments: Payments, store: Store, gateway: FakeGateway
) -> None:
    payment = await payments.process(an_order())
    answers = await asyncio.gather(
        *(payments.refund(give_back(payment, "3.00", f"r{number}")) for number in range(12)),
        return_exceptions=True,
    )
    outcomes = Counter(type(answer).__name__ for answer in answers)
    assert outcomes == {"Refund": 6, "RefundTooLarge": 6}
    assert (await payments.refund(give_back(payment, None, "rest"))).amount == usd("2.00")
    with pytest.raises(NothingToRefund):
        await payments.refund(give_back(payment, None, "more"))
    assert sum(each.amount for each in given_back(gateway, payment.order_id)) == Decimal("20.00")
    refunded = store.payloads(PaymentRefunded)
    assert refunded[-1].total_refunded == usd("20.00")
    assert [event.fully_refunded for event in refunded].count(True) == 1


async def test_refunds_that_can_not_be_made_say_why(payments: Payments) -> None:
    pending = await payments.process(an_order("tok_timeout"))
    with pytest.raises(PaymentPending):
        await payments.refund(give_back(pending))
    payment = await payments.process(an_order())
    with pytest.raises(RefundTooLarge):
        await payments.refund(give_back(payment, "20.01"))
    with pytest.raises(PaymentNotFound):
        await payments.refund(
            RefundPayment(payment_id=uuid4(), key=RequestKey("user", "r1"), amount=None, reason="")
        )


async def test_a_key_that_comes_again_with_other_terms_is_refused_and_nothing_changes(
    payments: Payments, store: Store, gateway: FakeGateway
) -> None:
    payment = await payments.process(an_order())
    await payments.refund(give_back(payment, "10.00"))
    before = store.rows
    for amount in (None, "2.00"):
        with pytest.raises(RequestIdReused) as refused:
            await payments.refund(give_back(payment, amount))
        assert [violation.field for violation in refused.value.violations] == ["amount"]
    with pytest.raises(RequestIdReused) as refused:
        await payments.refund(replace(give_back(payment, "10.00"), reason="broken"))
    assert [violation.field for violation in refused.value.violations] == ["reason"]
    assert store.rows == before
    assert given_back(gateway, payment.order_id) == [usd("10.00")]


async def test_a_service_that_uses_a_key_of_staff_is_not_answered_with_theirs(
    payments: Payments, store: Store, gateway: FakeGateway
) -> None:
    payment = await payments.process(an_order())
    cancel = f"cancel-{payment.order_id}"
    part = await payments.refund(give_back(payment, "5.00", cancel))
    rest = await payments.refund(give_back(payment, None, cancel, "service:order"))
    assert (part.amount, rest.amount) == (usd("5.00"), usd("15.00"))
    assert await payments.refund(give_back(payment, "5.00", cancel)) == part
    assert await payments.refund(give_back(payment, None, cancel, "service:order")) == rest
    assert stored(store, payment.order_id).status is PaymentStatus.REFUNDED
    assert sorted(given_back(gateway, payment.order_id)) == [usd("5.00"), usd("15.00")]


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.LINGERS, Fate.UNREACHED])
async def test_a_refund_without_an_answer_is_made_once(
    payments: Payments, store: Store, gateway: FakeGateway, clock: SettableClock, fate: Fate
) -> None:
    payment = await payments.process(an_order())
    gateway.fate = fate
    assert (await payments.refund(give_back(payment, "5.00"))).status is RefundStatus.PENDING
    gateway.fate = Fate.ANSWERED
    gateway.arrive()
    await settle(payments, store, clock)
    assert topics(store, payment.order_id) == ["payment.successful", "payment.refunded"]
    assert given_back(gateway, payment.order_id) == [usd("5.00")]


async def test_a_payment_is_given_up_after_a_day_without_a_gateway_and_late_money_goes_back(
    payments: Payments, store: Store, gateway: FakeGateway, clock: SettableClock
) -> None:
    order = an_order()
    gateway.fate = Fate.UNREACHED
    await payments.process(order)
    clock.advance(hours=25)
    await payments.unsettled.work_off()
    assert topics(store, order.order_id) == []  # an unknown outcome is none
    gateway.fate = Fate.ANSWERED
    await settle(payments, store, clock)
    assert topics(store, order.order_id) == ["payment.failed"]

    key = str(order.order_id)
    gateway.bank = gateway.bank.carry_out(ChargeRequest(key, order.order_id, order.amount, "tok_visa"))
    notice = gateway.notice(gateway.bank.find(key))
    await asyncio.gather(*(payments.receive_notice(*notice) for _ in range(3)))
    await settle(payments, store, clock)
    assert topics(store, order.order_id) == ["payment.failed", "payment.refunded"]
    assert given_back(gateway, order.order_id) == [usd("20.00")]


async def test_what_was_left_open_is_taken_up_as_soon_as_it_is_due(
    payments: Payments, store: Store, gateway: FakeGateway, clock: SettableClock
) -> None:
    working = asyncio.create_task(payments.unsettled.run())
    try:
        gateway.fate = Fate.UNREACHED
        await payments.process(an_order())
        gateway.fate = Fate.ANSWERED
        clock.advance(seconds=1)
        assert await eventually(lambda: store.payloads(PaymentSuccessful), within=3)
    finally:
        working.cancel()


async def test_a_payment_that_never_settles_is_tried_less_and_less_often(
    payments: Payments, store: Store, gateway: FakeGateway, clock: SettableClock
) -> None:
    order = an_order()
    gateway.fate = Fate.UNREACHED
    await payments.process(order)
    pauses: list[timedelta] = []
    for _ in range(6):
        due = stored(store, order.order_id).next_check_at
        assert due is not None
        pauses.append(due - clock.at)
        clock.at = due
        await payments.unsettled.work_off()
    assert timedelta(seconds=0.75) <= pauses[0] <= timedelta(seconds=1)
    assert pauses[-1] >= timedelta(seconds=0.75 * 15)
    assert max(pauses) <= timedelta(seconds=15)


async def test_a_guests_payment_is_shown_to_the_account_that_the_order_belongs_to_now(
    payments: Payments, store: Store, clock: SettableClock
) -> None:
    order, account = an_order(), uuid4()
    payment = await payments.process(order)
    changed = OrderBuyerChanged(order_id=order.order_id, guest_id=order.user_id, user_id=account)
    event = new_event(changed, clock, "c")
    await payments.on_order_buyer_changed(event)
    with pytest.raises(AlreadyProcessed):
        await payments.on_order_buyer_changed(event)
    assert (await payments.get(payment.payment_id, Principal(str(account)))).user_id == account
    with pytest.raises(PaymentNotFound):
        await payments.get(payment.payment_id, Principal(str(order.user_id)))
    assert await payments.process(replace(order, user_id=account)) == stored(store, order.order_id)
    await payments.refund(give_back(payment, "5.00"))
    assert [told.user_id for told in store.payloads(PaymentRefunded)] == [account]


async def test_a_buyer_who_changes_before_there_is_a_payment_changes_nothing(
    payments: Payments, store: Store, clock: SettableClock
) -> None:
    changed = OrderBuyerChanged(order_id=uuid4(), guest_id=uuid4(), user_id=uuid4())
    await payments.on_order_buyer_changed(new_event(changed, clock, "c"))
    assert store.rows == Rows()
