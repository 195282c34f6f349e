"""What payments and refunds allow."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_chassis.errors import (
    Code,
    DomainError,
    FieldViolation,
    InvalidArgument,
    RequestIdReused,
)
from stoa_contracts.money import Money
from stoa_events import PaymentFailed, PaymentRefunded, PaymentSuccessful
from stoa_payment.model import (
    BadSignature,
    Charge,
    ChargeMismatch,
    ChargeStatus,
    GatewayRefund,
    NothingToRefund,
    OutsideRefund,
    Payment,
    PaymentHeld,
    PaymentNotFound,
    PaymentNotMade,
    PaymentPending,
    PaymentReleased,
    PaymentStatus,
    PaymentTerms,
    Refund,
    RefundStatus,
    RefundTerms,
    RefundTooLarge,
    RequestKey,
    RetryPolicy,
    check_token,
)

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
RETRY = RetryPolicy(lease=timedelta(seconds=11), give_up_after=timedelta(hours=24))


def usd(amount: str) -> Money:
    return Money(Decimal(amount), "USD")


def a_payment(amount: str = "20.00", token: str = "tok_visa", held: bool = False) -> Payment:
    return Payment.begin(
        order_id=uuid4(),
        user_id=uuid4(),
        amount=usd(amount),
        token=token,
        correlation_id="request-1",
        retry=RETRY,
        now=NOW,
        held=held,
    )


def a_charge(payment: Payment, status: ChargeStatus = ChargeStatus.SUCCEEDED) -> Charge:
    failure = "card_declined" if status is ChargeStatus.FAILED else ""
    return Charge("ch_1", payment.order_id, payment.amount, status, "visa", "4242", failure)


def a_paid_payment(amount: str = "20.00") -> Payment:
    payment = a_payment(amount)
    payment.settle(a_charge(payment), LATER)
    payment.events.clear()
    return payment


def a_held_payment() -> Payment:
    payment = a_payment(held=True)
    payment.settle(a_charge(payment, ChargeStatus.AUTHORIZED), LATER)
    payment.events.clear()
    return payment


def refund(payment: Payment, amount: str | None = None, request_id: str = "r1") -> Refund:
    return refund_of(payment, usd(amount) if amount else None, request_id)


def refund_of(payment: Payment, amount: Money | None, request_id: str = "r1") -> Refund:
    return payment.refund(
        RefundTerms(amount, "cancelled"),
        key=RequestKey("user", request_id),
        correlation_id="request-2",
        retry=RETRY,
        now=LATER,
    )


def made(refund: Refund) -> GatewayRefund:
    return GatewayRefund(f"re_{refund.refund_id}", refund.refund_id)


def test_a_new_payment_is_pending_and_will_be_looked_after() -> None:
    payment = a_payment()
    assert payment.status is PaymentStatus.PENDING
    assert payment.next_check_at == NOW + RETRY.lease
    assert payment.events == []


def test_a_captured_charge_succeeds_once_and_forgets_the_token() -> None:
    payment = a_payment()
    payment.settle(a_charge(payment), LATER)
    payment.settle(a_charge(payment), LATER)
    assert payment.status is PaymentStatus.SUCCEEDED
    assert (payment.token, payment.next_check_at) == (None, None)
    (event,) = payment.events
    assert isinstance(event, PaymentSuccessful)
    assert (event.order_id, event.amount.amount, event.brand, event.last4) == (
        payment.order_id,
        Decimal("20.00"),
        "visa",
        "4242",
    )


def test_nothing_of_a_payment_is_left_out_of_its_events() -> None:
    paid, declined = a_payment(), a_payment()
    paid.settle(a_charge(paid), LATER)
    back = refund(paid, "5.00")
    paid.refund_made(back, made(back), LATER)
    whole = refund(paid, request_id="r2")
    paid.refund_made(whole, made(whole), LATER)
    declined.settle(a_charge(declined, ChargeStatus.FAILED), LATER)
    assert paid.events == [
        PaymentSuccessful(
            payment_id=paid.payment_id,
            order_id=paid.order_id,
            user_id=paid.user_id,
            amount=usd("20.00"),
            brand="visa",
            last4="4242",
        ),
        PaymentRefunded(
            payment_id=paid.payment_id,
            order_id=paid.order_id,
            refund_id=back.refund_id,
            user_id=paid.user_id,
            amount=usd("5.00"),
            total_refunded=usd("5.00"),
            fully_refunded=False,
        ),
        PaymentRefunded(
            payment_id=paid.payment_id,
            order_id=paid.order_id,
            refund_id=whole.refund_id,
            user_id=paid.user_id,
            amount=usd("15.00"),
            total_refunded=usd("20.00"),
            fully_refunded=True,
        ),
    ]
    assert declined.events == [
        PaymentFailed(
            payment_id=declined.payment_id,
            order_id=declined.order_id,
            user_id=declined.user_id,
            amount=usd("20.00"),
            reason="card_declined",
            brand="visa",
            last4="4242",
        )
    ]


def test_a_declined_charge_fails_with_its_reason() -> None:
    payment = a_payment()
    payment.settle(a_charge(payment, ChargeStatus.FAILED), LATER)
    assert payment.status is PaymentStatus.FAILED
    (event,) = payment.events
    assert isinstance(event, PaymentFailed)
    assert event.reason == payment.failure_reason == "card_declined"
    assert payment.token is None


def test_a_declined_payment_does_not_become_paid() -> None:
    payment = a_payment()
    payment.settle(a_charge(payment, ChargeStatus.FAILED), LATER)
    assert not payment.awaits(a_charge(payment))
    assert payment.settle(a_charge(payment), LATER) is None
    assert payment.status is PaymentStatus.FAILED


def test_a_charge_that_the_gateway_has_not_decided_changes_nothing() -> None:
    payment = a_payment()
    payment.settle(a_charge(payment, ChargeStatus.PENDING), LATER)
    assert payment.status is PaymentStatus.PENDING
    assert payment.token == "tok_visa"


def test_a_charge_of_another_amount_is_not_taken_for_ours() -> None:
    payment, other = a_payment("20.00"), a_payment("21.00")
    charge = Charge("ch_1", payment.order_id, other.amount, ChargeStatus.SUCCEEDED, "visa", "4242")
    with pytest.raises(ChargeMismatch):
        payment.settle(charge, LATER)


def test_a_payment_is_given_up_only_after_the_time_for_it() -> None:
    payment = a_payment()
    assert not payment.may_give_up(RETRY, NOW + timedelta(hours=23))
    assert payment.may_give_up(RETRY, NOW + timedelta(hours=24))  # exactly
    payment.give_up(LATER)
    assert payment.status is PaymentStatus.FAILED
    assert isinstance(payment.events[0], PaymentFailed)


def test_money_that_comes_after_a_payment_was_given_up_goes_back_in_full() -> None:
    payment = a_payment()
    payment.give_up(LATER)
    late = payment.settle(a_charge(payment), LATER)
    assert late is not None
    assert late.amount == payment.amount
    payment.refund_made(late, made(late), LATER)
    assert payment.status is PaymentStatus.REFUNDED
    assert [type(event) for event in payment.events] == [PaymentFailed, PaymentRefunded]


def test_another_request_for_the_order_must_ask_for_the_same() -> None:
    payment = a_payment()
    payment.check_same(PaymentTerms(payment.user_id, usd("20.00")))
    for field, other in (
        ("amount", PaymentTerms(payment.user_id, usd("20.01"))),
        ("user_id", PaymentTerms(uuid4(), usd("20.00"))),
    ):
        with pytest.raises(RequestIdReused, match="this order_id was used") as refused:
            payment.check_same(other)
        assert [violation.field for violation in refused.value.violations] == [field]


@pytest.mark.parametrize(
    "token",
    [
        "4242424242424242",
        "4242 4242 4242 4242",
        "4242-4242-4242-4242",
        "4242.4242.4242.4242",
        "3" * 13,
        "3" * 19,
    ],
)
def test_a_card_number_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_token(token)
    assert refused.value.violations == (
        FieldViolation("payment_token", "is a card number; only a token of the gateway is accepted"),
    )
    assert token not in str(refused.value)


@pytest.mark.parametrize("token", ["tok_visa", "tok_4242424242424242", "1234", "4" * 12, "4" * 20])
def test_what_is_no_card_number_passes(token: str) -> None:
    assert check_token(token) == token


@pytest.mark.parametrize("amount", ["0", "-1"])
def test_nothing_can_not_be_paid(amount: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        a_payment(amount)
    assert refused.value.violations == (FieldViolation("amount", "must be more than zero"),)


def test_without_an_amount_all_that_is_left_is_refunded() -> None:
    payment = a_paid_payment()
    first = refund(payment, "5.00")
    payment.refund_made(first, made(first), LATER)
    statuses = [payment.status]
    second = refund(payment, request_id="r2")
    assert second.amount == usd("15.00")
    payment.refund_made(second, made(second), LATER)
    statuses.append(payment.status)
    assert statuses == [PaymentStatus.PARTIALLY_REFUNDED, PaymentStatus.REFUNDED]
    events = [event for event in payment.events if isinstance(event, PaymentRefunded)]
    assert [(event.total_refunded.amount, event.fully_refunded) for event in events] == [
        (Decimal("5.00"), False),
        (Decimal("20.00"), True),
    ]


def test_a_refund_that_is_made_again_counts_once() -> None:
    payment = a_paid_payment()
    promised = refund(payment, "5.00")
    payment.refund_made(promised, made(promised), LATER)
    payment.refund_made(promised, made(promised), LATER)
    assert payment.refunded == usd("5.00")
    assert promised.status is RefundStatus.SUCCEEDED
    assert len(payment.events) == 1


def test_what_is_promised_back_can_not_be_promised_again() -> None:
    payment = a_paid_payment()
    refund(payment, "15.00")
    with pytest.raises(RefundTooLarge) as refused:
        refund(payment, "5.01", "r2")
    assert refused.value.metadata == {"left": "5.00 USD"}
    assert refused.value.message == "only 5.00 USD is left of the payment"
    refund(payment, "5.00", "r3")
    with pytest.raises(NothingToRefund, match=r"^all of the payment was given back"):
        refund(payment, None, "r4")


def test_there_is_nothing_to_refund_of_a_payment_that_was_not_made() -> None:
    payment = a_payment()
    with pytest.raises(PaymentPending, match=r"^whether the payment succeeds"):
        refund(payment)
    payment.settle(a_charge(payment, ChargeStatus.FAILED), LATER)
    with pytest.raises(PaymentNotMade, match=r"^the payment failed"):
        refund(payment)


def test_a_refund_is_in_the_currency_of_the_payment() -> None:
    with pytest.raises(InvalidArgument) as refused:
        refund_of(a_paid_payment(), Money(Decimal(5), "EUR"))
    assert refused.value.violations == (
        FieldViolation("amount.currency_code", "the payment was made in USD"),
    )


@pytest.mark.parametrize("amount", ["0", "-1"])
def test_nothing_can_not_be_refunded(amount: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        refund_of(a_paid_payment(), usd(amount))
    assert refused.value.violations == (FieldViolation("amount", "must be more than zero"),)


def test_a_repeated_refund_must_ask_for_the_same() -> None:
    part, rest = refund(a_paid_payment(), "5.00"), refund(a_paid_payment("5.00"))
    part.check_same(RefundTerms(usd("5.00"), "cancelled"))
    rest.check_same(RefundTerms(None, "cancelled"))
    for promised, other, said in (
        (part, RefundTerms(usd("6.00"), "cancelled"), "was 5.00 USD the first time, now it is 6.00 USD"),
        (part, RefundTerms(None, "cancelled"), "was 5.00 USD the first time, now it is left out"),
        (rest, RefundTerms(usd("5.00"), "cancelled"), "was left out the first time, now it is 5.00 USD"),
        (part, RefundTerms(usd("5.00"), "broken"), "is not what it was the first time"),
    ):
        with pytest.raises(RequestIdReused) as refused:
            promised.check_same(other)
        assert [violation.description for violation in refused.value.violations] == [said]


def test_a_refund_that_is_older_than_the_note_of_what_was_asked_for_takes_both() -> None:
    promised = refund(a_paid_payment(), "5.00")
    promised.of_rest = None
    promised.check_same(RefundTerms(usd("5.00"), "cancelled"))
    promised.check_same(RefundTerms(None, "cancelled"))
    with pytest.raises(RequestIdReused):
        promised.check_same(RefundTerms(usd("6.00"), "cancelled"))


def test_a_new_payment_is_what_was_asked_for() -> None:
    order_id, user_id = uuid4(), uuid4()
    payment = Payment.begin(
        order_id=order_id,
        user_id=user_id,
        amount=usd("20.00"),
        token="tok_visa",
        correlation_id="request-1",
        retry=RETRY,
        now=NOW,
    )
    assert payment == Payment(
        payment_id=payment.payment_id,
        order_id=order_id,
        user_id=user_id,
        amount=usd("20.00"),
        refunded=usd("0"),
        refunding=usd("0"),
        status=PaymentStatus.PENDING,
        method_type="card",
        correlation_id="request-1",
        created_at=NOW,
        updated_at=NOW,
        brand="",
        last4="",
        charge_id=None,
        failure_reason="",
        token="tok_visa",
        attempts=0,
        next_check_at=NOW + timedelta(seconds=11),
    )


def test_a_payment_is_the_same_whatever_is_still_to_be_told_of_it() -> None:
    payment = a_payment()
    payment.settle(a_charge(payment), LATER)
    assert payment.events
    assert replace(payment, events=[]) == payment


def test_a_charge_of_which_no_failure_is_told_has_none() -> None:
    assert Charge("ch_1", uuid4(), usd("1.00"), ChargeStatus.SUCCEEDED, "visa", "4242").failure_code == ""


def test_a_cent_can_be_paid() -> None:
    assert a_payment("0.01").amount == usd("0.01")


def test_a_token_is_not_shown() -> None:
    assert "tok_visa" not in repr(a_payment())


@pytest.mark.parametrize("status", [ChargeStatus.SUCCEEDED, ChargeStatus.FAILED])
def test_what_the_gateway_says_of_a_charge_is_kept(status: ChargeStatus) -> None:
    payment = a_payment()
    assert payment.settle(a_charge(payment, status), LATER) is None
    assert (payment.charge_id, payment.brand, payment.last4) == ("ch_1", "visa", "4242")
    assert (payment.token, payment.next_check_at, payment.updated_at) == (None, None, LATER)
    assert payment.created_at == NOW


@pytest.mark.parametrize(
    ("known", "charge", "awaited"),
    [
        ("pending", ChargeStatus.PENDING, False),
        ("pending", ChargeStatus.AUTHORIZED, True),
        ("pending", ChargeStatus.SUCCEEDED, True),
        ("pending", ChargeStatus.FAILED, True),
        ("held", ChargeStatus.PENDING, False),
        ("held", ChargeStatus.AUTHORIZED, False),
        ("held", ChargeStatus.SUCCEEDED, True),
        ("held", ChargeStatus.FAILED, True),
        ("promised back", ChargeStatus.FAILED, False),
        ("paid", ChargeStatus.SUCCEEDED, False),
        ("paid", ChargeStatus.FAILED, False),
        ("declined", ChargeStatus.SUCCEEDED, False),
        ("declined", ChargeStatus.FAILED, False),
        ("given up", ChargeStatus.PENDING, False),
        ("given up", ChargeStatus.AUTHORIZED, True),
        ("given up", ChargeStatus.SUCCEEDED, True),
        ("given up", ChargeStatus.FAILED, False),
    ],
)
def test_only_what_is_awaited_changes_a_payment(known: str, charge: ChargeStatus, awaited: bool) -> None:
    payment = a_held_payment() if known in ("held", "promised back") else a_payment()
    match known:
        case "promised back":
            refund(payment)
        case "paid":
            payment.settle(a_charge(payment), LATER)
        case "declined":
            payment.settle(a_charge(payment, ChargeStatus.FAILED), LATER)
        case "given up":
            payment.give_up(LATER)
    before, said = replace(payment), len(payment.events)
    assert payment.awaits(a_charge(payment, charge)) is awaited
    payment.settle(a_charge(payment, charge), LATER + timedelta(minutes=1))
    assert (payment != before) is awaited
    if not awaited:
        assert len(payment.events) == said


def test_what_becomes_of_what_was_held_is_noted_when_it_does() -> None:
    now = LATER + timedelta(minutes=1)
    taken, lapsed = a_held_payment(), a_held_payment()
    for payment, status in ((taken, ChargeStatus.SUCCEEDED), (lapsed, ChargeStatus.FAILED)):
        payment.capture(RETRY, LATER)
        assert payment.settle(a_charge(payment, status), now) is None
        assert (payment.held, payment.next_check_at, payment.updated_at) == (False, None, now)
    assert (taken.status, lapsed.status) == (PaymentStatus.SUCCEEDED, PaymentStatus.FAILED)
    assert lapsed.failure_reason == "authorization_expired"


def test_all_of_what_is_held_is_given_back_also_if_it_is_asked_for_by_its_amount() -> None:
    assert refund(a_held_payment(), "20.00").amount == usd("20.00")
    with pytest.raises(PaymentHeld):
        refund(a_held_payment(), "19.99")


def test_a_guests_payment_becomes_the_accounts_once() -> None:
    payment, account = a_payment(), uuid4()
    payment.change_payer(account, LATER)
    payment.change_payer(account, LATER + timedelta(minutes=1))
    assert (payment.user_id, payment.updated_at) == (account, LATER)


def test_a_charge_of_another_order_is_not_taken_for_ours() -> None:
    payment, other = a_payment(), a_payment()
    with pytest.raises(ChargeMismatch, match=f"^charge ch_1 is not of payment {payment.payment_id}$"):
        payment.settle(a_charge(other), LATER)
    payment.give_up(LATER)
    with pytest.raises(ChargeMismatch):
        payment.settle(a_charge(other), LATER)


def test_only_a_pending_payment_is_given_up() -> None:
    payment, paid = a_payment(), a_paid_payment()
    assert not payment.may_give_up(RETRY, NOW + timedelta(hours=24) - timedelta(microseconds=1))
    payment.give_up(LATER)
    assert (payment.status, payment.failure_reason) == (PaymentStatus.FAILED, "gateway_unavailable")
    assert (payment.token, payment.next_check_at, payment.updated_at) == (None, None, LATER)
    (event,) = payment.events
    assert isinstance(event, PaymentFailed)
    assert event.reason == "gateway_unavailable"
    for settled in (payment, paid):
        assert not settled.may_give_up(RETRY, NOW + timedelta(hours=25))
        before = replace(settled)
        settled.give_up(LATER + timedelta(minutes=1))
        assert settled == before
        assert len(settled.events) == len(before.events)


def test_money_that_comes_after_a_payment_was_given_up_is_promised_back_at_once() -> None:
    payment = a_payment()
    payment.give_up(LATER)
    now = LATER + timedelta(minutes=1)
    late = payment.settle(a_charge(payment), now)
    assert late == Refund(
        refund_id=late.refund_id if late else uuid4(),
        payment_id=payment.payment_id,
        key=RequestKey("service:payment", "late-capture"),
        amount=usd("20.00"),
        reason="captured after the payment was given up",
        status=RefundStatus.PENDING,
        correlation_id="request-1",
        created_at=now,
        updated_at=now,
        of_rest=True,
        next_check_at=now,
    )
    assert (payment.status, payment.failure_reason) == (PaymentStatus.SUCCEEDED, "")
    assert (payment.refunding, payment.refunded) == (usd("20.00"), usd("0"))
    assert payment.charge_id == "ch_1"


def test_a_promised_refund_is_what_was_asked_for_and_will_be_looked_after() -> None:
    payment = a_paid_payment()
    terms, now = RefundTerms(usd("5.00"), "broken"), LATER + timedelta(minutes=1)
    promised = payment.refund(
        terms, key=RequestKey("user", "r1"), correlation_id="request-2", retry=RETRY, now=now
    )
    assert promised == Refund(
        refund_id=promised.refund_id,
        payment_id=payment.payment_id,
        key=RequestKey("user", "r1"),
        amount=usd("5.00"),
        reason="broken",
        status=RefundStatus.PENDING,
        correlation_id="request-2",
        created_at=now,
        updated_at=now,
        of_rest=False,
        gateway_refund_id=None,
        attempts=0,
        next_check_at=now + timedelta(seconds=11),
    )
    assert (payment.status, payment.refunding, payment.updated_at) == (
        PaymentStatus.SUCCEEDED,
        usd("5.00"),
        now,
    )
    assert payment.events == []
    assert refund(payment, request_id="rest").of_rest is True


def test_a_refund_that_was_made_says_so_and_keeps_the_gateway_s_id() -> None:
    payment, now = a_paid_payment(), LATER + timedelta(minutes=1)
    promised = refund(payment, "5.00")
    payment.refund_made(promised, GatewayRefund("re_1", promised.refund_id), now)
    assert (promised.status, promised.gateway_refund_id) == (RefundStatus.SUCCEEDED, "re_1")
    assert (promised.next_check_at, promised.updated_at, payment.updated_at) == (None, now, now)
    assert (payment.refunded, payment.refunding) == (usd("5.00"), usd("0"))
    before = replace(promised), replace(payment)
    payment.refund_made(promised, GatewayRefund("re_2", promised.refund_id), now + timedelta(minutes=1))
    assert (promised, payment) == before


def test_exactly_what_is_left_can_be_refunded() -> None:
    payment = a_paid_payment("20.00")
    refund(payment, "5.00")
    assert refund(payment, "15.00", "r2").amount == usd("15.00")
    with pytest.raises(NothingToRefund):
        refund(payment, "0.01", "r3")


@pytest.mark.parametrize(
    ("paid", "parts"), [("87.96", ["29.32"] * 3), ("0.03", ["0.01"] * 3), ("10", ["9.99", "0.01"])]
)
def test_parts_that_add_up_to_a_payment_refund_it_in_full(paid: str, parts: list[str]) -> None:
    payment = a_paid_payment(paid)
    for number, part in enumerate(parts):
        promised = refund(payment, part, f"r{number}")
        payment.refund_made(promised, made(promised), LATER)
    assert payment.status is PaymentStatus.REFUNDED
    assert [event.fully_refunded for event in payment.events if isinstance(event, PaymentRefunded)] == [
        *[False] * (len(parts) - 1),
        True,
    ]


def by_hand(amount: Money, refund_id: str = "re_hand") -> OutsideRefund:
    return OutsideRefund(refund_id, "ch_1", amount)


def test_money_that_was_given_back_at_the_gateway_is_taken_over() -> None:
    payment, now = a_paid_payment("20.00"), LATER + timedelta(minutes=1)
    taken = payment.refund_outside(by_hand(usd("5.00")), now)
    assert taken == Refund(
        refund_id=taken.refund_id,
        payment_id=payment.payment_id,
        key=RequestKey("gateway", "re_hand"),
        amount=usd("5.00"),
        reason="given back at the gateway",
        status=RefundStatus.SUCCEEDED,
        correlation_id="request-1",
        created_at=now,
        updated_at=now,
        of_rest=False,
        gateway_refund_id="re_hand",
    )
    assert (payment.status, payment.refunded) == (PaymentStatus.PARTIALLY_REFUNDED, usd("5.00"))
    assert payment.refunding == usd("0")
    (event,) = payment.events
    assert isinstance(event, PaymentRefunded)
    assert (event.amount, event.fully_refunded) == (usd("5.00"), False)
    payment.refund_outside(by_hand(usd("15.00"), "re_2"), now)
    assert payment.status is PaymentStatus.REFUNDED


@pytest.mark.parametrize("amount", [usd("15.01"), Money(Decimal(1), "EUR")])
def test_more_than_can_have_been_given_back_is_for_a_person_to_look_at(amount: Money) -> None:
    payment = a_paid_payment("20.00")
    refund(payment, "5.00")
    said = f"^{amount} of payment {payment.payment_id} were given back at the gateway, of 15.00 USD$"
    with pytest.raises(ChargeMismatch, match=said):
        payment.refund_outside(by_hand(amount), LATER)
    assert (payment.refunded, payment.refunding) == (usd("0"), usd("5.00"))
    payment.refund_outside(by_hand(usd("15.00")), LATER)
    assert payment.refunded == usd("15.00")


def test_nothing_can_have_been_given_back_of_a_payment_that_was_not_made() -> None:
    with pytest.raises(PaymentPending):
        a_payment().refund_outside(by_hand(usd("1.00")), LATER)


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (PaymentNotFound, Code.NOT_FOUND, "PAYMENT_NOT_FOUND"),
        (PaymentPending, Code.FAILED_PRECONDITION, "PAYMENT_PENDING"),
        (PaymentNotMade, Code.FAILED_PRECONDITION, "PAYMENT_FAILED"),
        (PaymentHeld, Code.FAILED_PRECONDITION, "PAYMENT_HELD"),
        (PaymentReleased, Code.FAILED_PRECONDITION, "PAYMENT_RELEASED"),
        (NothingToRefund, Code.FAILED_PRECONDITION, "NOTHING_TO_REFUND"),
        (RefundTooLarge, Code.FAILED_PRECONDITION, "REFUND_TOO_LARGE"),
        (ChargeMismatch, Code.FAILED_PRECONDITION, "CHARGE_MISMATCH"),
        (BadSignature, Code.UNAUTHENTICATED, "BAD_SIGNATURE"),
    ],
)
def test_each_error_has_its_code_and_reason(error: type[DomainError], code: Code, reason: str) -> None:
    assert (error.code, error.reason) == (code, reason)


@pytest.mark.parametrize(
    ("words", "known"),
    [
        (PaymentStatus, {"pending", "succeeded", "failed", "partially_refunded", "refunded"}),
        (RefundStatus, {"pending", "succeeded"}),
        (ChargeStatus, {"pending", "authorized", "succeeded", "failed"}),
    ],
)
def test_the_words_that_are_stored_and_told_do_not_change(words: type[StrEnum], known: set[str]) -> None:
    assert set(words) == known


@given(st.lists(st.decimals("0.01", "30", places=2), max_size=8))
def test_whatever_is_asked_for_no_more_is_given_back_than_was_paid(amounts: list[Decimal]) -> None:
    payment = a_paid_payment("20.00")
    given_back = usd("0")
    for number, amount in enumerate(amounts):
        try:
            promised = refund_of(payment, Money(amount, "USD"), f"r{number}")
        except (RefundTooLarge, NothingToRefund):
            continue
        if number % 2:
            payment.refund_made(promised, made(promised), LATER)
        given_back += promised.amount
    assert payment.refunded + payment.refunding == given_back
    assert given_back <= payment.amount
