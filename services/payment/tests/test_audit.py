"""The rules that payments must keep, and that the audit reads what they are about."""

from dataclasses import replace
from decimal import Decimal
from uuid import uuid4

import pytest

from stoa_chassis.postgres import Database
from stoa_payment import repository
from stoa_payment.audit import Books, Payment, findings, read
from stoa_payment.model import Payment as StoredPayment

BALANCED = Payment(
    payment_id=uuid4(),
    order_id=uuid4(),
    amount=Decimal(20),
    refunded=Decimal(5),
    refunding=Decimal(0),
    status="partially_refunded",
    charge_id="ch_1",
    made=Decimal(5),
    promised=Decimal(0),
)


def rules(payment: Payment) -> list[str]:
    return [finding.rule for finding in findings(Books([payment]))]


def test_a_settled_payment_balances() -> None:
    assert rules(BALANCED) == []


@pytest.mark.parametrize(
    ("payment", "rule"),
    [
        (replace(BALANCED, status="pending"), "every payment is settled"),
        (replace(BALANCED, refunding=Decimal(2), promised=Decimal(2)), "every refund is made"),
        (replace(BALANCED, made=Decimal(4)), "a payment is the sum of its refunds"),
        (replace(BALANCED, promised=Decimal(1)), "a payment is the sum of its refunds"),
    ],
)
def test_what_does_not_balance_is_found(payment: Payment, rule: str) -> None:
    assert rules(payment) == [rule]


@pytest.mark.stack
async def test_the_books_have_what_is_stored(database: Database, a_full_payment: StoredPayment) -> None:
    await repository.Payments(database).add(a_full_payment)
    async with database.transaction() as connection:
        books = await read(connection)
    assert books.payments == [
        Payment(
            payment_id=a_full_payment.payment_id,
            order_id=a_full_payment.order_id,
            amount=Decimal(20),
            refunded=Decimal(5),
            refunding=Decimal(2),
            status="partially_refunded",
            charge_id=a_full_payment.charge_id,
        )
    ]
