"""What only a real database shows: its row locks under concurrent requests, and what a use case costs it."""

import asyncio
from collections import Counter
from decimal import Decimal
from uuid import uuid4

import pytest

from stoa_chassis.avro import EventCodec
from stoa_chassis.due import Backoff
from stoa_chassis.postgres import Database
from stoa_chassis.postgres_uow import postgres_unit_of_work
from stoa_chassis.testing import SettableClock
from stoa_contracts.money import Money
from stoa_payment import repository
from stoa_payment.model import Payment, PaymentStatus, RequestKey, RetryPolicy
from stoa_payment.service import Payments, ProcessPayment, RefundPayment
from stoa_payment.testing import ChargeRequest, FakeGateway

pytestmark = pytest.mark.stack


@pytest.fixture
def payments(
    database: Database,
    codec: EventCodec,
    gateway: FakeGateway,
    clock: SettableClock,
    backoff: Backoff,
    retry: RetryPolicy,
) -> Payments:
    return Payments(
        postgres_unit_of_work(database, codec, repository.open_tx, clock),
        repository.Payments(database),
        repository.Refunds(database),
        repository.Unsettled(database, backoff, retry.lease),
        gateway,
        clock,
        retry,
        backoff,
    )


def an_order() -> ProcessPayment:
    return ProcessPayment(order_id=uuid4(), user_id=uuid4(), amount=usd("20.00"), token="tok_visa")


def give_back(payment: Payment, amount: str | None = None, request_id: str = "r1") -> RefundPayment:
    return RefundPayment(
        payment_id=payment.payment_id,
        key=RequestKey("user", request_id),
        amount=usd(amount) if amount else None,
        reason="cancelled",
    )


def usd(amount: str) -> Money:
    return Money(Decimal(amount), "USD")


async def topics(database: Database, order: ProcessPayment) -> list[str]:
    rows = await database.fetch("SELECT topic FROM outbox WHERE key = $1 ORDER BY id", str(order.order_id))
    return [row["topic"] for row in rows]


async def test_asked_twenty_times_at_once_it_charges_once(payments: Payments, database: Database) -> None:
    order = an_order()
    answers = await asyncio.gather(*(payments.process(order) for _ in range(20)))
    assert len({payment.payment_id for payment in answers}) == 1
    assert await topics(database, order) == ["payment.successful"]


async def test_answer_notices_and_inquiries_may_race(
    payments: Payments, database: Database, gateway: FakeGateway, clock: SettableClock
) -> None:
    orders = [an_order() for _ in range(8)]
    for order in orders:
        key = str(order.order_id)
        gateway.bank = gateway.bank.carry_out(ChargeRequest(key, order.order_id, order.amount, order.token))

    async def notify(order: ProcessPayment) -> None:
        notice = gateway.notice(gateway.bank.find(str(order.order_id)))
        for _ in range(5):
            await payments.receive_notice(*notice)

    async def inquire() -> None:
        for _ in range(5):
            clock.advance(seconds=5)
            await payments.unsettled.work_off()

    await asyncio.gather(
        *(payments.process(order) for order in orders),
        *(notify(order) for order in orders),
        *(inquire() for _ in range(3)),
    )
    for order in orders:
        assert await topics(database, order) == ["payment.successful"]


async def test_refunds_at_once_never_exceed_the_payment(
    payments: Payments, database: Database, gateway: FakeGateway
) -> None:
    order = an_order()
    payment = await payments.process(order)
    answers = await asyncio.gather(
        *(payments.refund(give_back(payment, "3.00", f"r{number}")) for number in range(12)),
        return_exceptions=True,
    )
    assert Counter(type(answer).__name__ for answer in answers) == {"Refund": 6, "RefundTooLarge": 6}
    assert sum(each.amount.amount for each in gateway.bank.refunds) == 18
    assert await topics(database, order) == ["payment.successful", *["payment.refunded"] * 6]


async def test_the_same_refund_asked_for_at_once_gives_back_once(
    payments: Payments, database: Database
) -> None:
    order = an_order()
    payment = await payments.process(order)
    refunds = await asyncio.gather(*(payments.refund(give_back(payment)) for _ in range(10)))
    assert len({refund.refund_id for refund in refunds}) == 1
    assert await topics(database, order) == ["payment.successful", "payment.refunded"]


async def test_a_payment_takes_few_statements(payments: Payments, database: Database) -> None:
    before = database.statements
    payment = await payments.process(an_order())
    assert payment.status is PaymentStatus.SUCCEEDED
    assert database.statements - before <= 4
